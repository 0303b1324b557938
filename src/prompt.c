#include "prompt.h"

#include <stdlib.h>

#include "clip_encoder.h"
#include "clip_tokenizer.h"
#include "t5_encoder.h"
#include "t5_tokenizer.h"

static void warn_cut(const prompt_opts *o, const char *encoder, int limit, const char *lost)
{
    if (lost != NULL)
        report_warn(o->report, "%s: the prompt is too long for %s (%d tokens); this was cut: \"%s\"", o->picture, encoder,
                    limit, lost);
}

static status encode_clip(const prompt_opts *o, float *pooled)
{
    status          st = ST_OK;
    clip_tokenizer *tokenizer = NULL;
    clip_encoder   *encoder = NULL;
    char           *dir = NULL, *lost = NULL;
    int             n_used = 0;
    const int       n = o->model->clip.max_position;
    int32_t        *ids = malloc((size_t)n * sizeof(*ids));
    if (ids == NULL) return err_set(ST_NO_MEMORY, "CLIP: %d ids", n);
    TRY(model_path(&dir, o->model, "tokenizer"));
    TRY(clip_tokenizer_open(&tokenizer, dir));
    TRY(clip_tokenizer_encode(tokenizer, o->prompt, n, ids, &n_used, &lost));
    warn_cut(o, "CLIP", n, lost);
    TRY(clip_encoder_open(&encoder, &(clip_encoder_opts){.model = o->model, .dev = o->dev, .compute = o->compute,
                                                         .tap = o->tap, .type = o->type, .parity = o->parity}));
    TRY(clip_encoder_encode(encoder, ids, n, pooled));
fail:
    clip_encoder_close(encoder);
    clip_tokenizer_close(tokenizer);
    free(lost);
    free(dir);
    free(ids);
    return st;
}

static status encode_t5(const prompt_opts *o, float *text)
{
    status        st = ST_OK;
    t5_tokenizer *tokenizer = NULL;
    t5_encoder   *encoder = NULL;
    char         *dir = NULL, *lost = NULL;
    int           n_used = 0;
    int32_t      *ids = malloc((size_t)o->n_text * sizeof(*ids));
    if (ids == NULL) return err_set(ST_NO_MEMORY, "T5: %d ids", o->n_text);
    TRY(model_path(&dir, o->model, "tokenizer_2"));
    TRY(t5_tokenizer_open(&tokenizer, dir));
    TRY(t5_tokenizer_encode(tokenizer, o->prompt_2, o->n_text, ids, &n_used, &lost));
    warn_cut(o, "T5", o->n_text, lost);
    TRY(t5_encoder_open(&encoder, &(t5_encoder_opts){.model = o->model, .dev = o->dev, .compute = o->compute,
                                                     .tap = o->tap, .type = o->type, .parity = o->parity}));
    TRY(t5_encoder_encode(encoder, ids, o->n_text, text));
fail:
    t5_encoder_close(encoder);
    t5_tokenizer_close(tokenizer);
    free(lost);
    free(dir);
    free(ids);
    return st;
}

status prompt_encode(prompt_rows *out, const prompt_opts *opts)
{
    status      st = ST_OK;
    prompt_rows p = {.n_text = opts->n_text};
    p.text = malloc((size_t)opts->n_text * (size_t)opts->model->flux.joint_attention_dim * sizeof(float));
    p.pooled = malloc((size_t)opts->model->flux.pooled_projection_dim * sizeof(float));
    if (p.text == NULL || p.pooled == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: rows of %d text tokens", opts->picture, opts->n_text);
        goto fail;
    }
    TRY(encode_clip(opts, p.pooled));
    TRY(encode_t5(opts, p.text));
    *out = p;
    return ST_OK;
fail:
    prompt_free(&p);
    return st;
}

void prompt_free(prompt_rows *p)
{
    free(p->text);
    free(p->pooled);
    *p = (prompt_rows){0};
}
