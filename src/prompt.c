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

typedef struct token_ids {
    int32_t *clip, *t5; /* [n_clip], [n_t5], padding included */
    int      n_clip, n_t5;
} token_ids;

static status read_clip(const prompt_opts *o, token_ids *t)
{
    status          st = ST_OK;
    clip_tokenizer *tokenizer = NULL;
    char           *dir = NULL, *lost = NULL;
    int             n_used = 0;
    TRY(model_path(&dir, o->model, "tokenizer"));
    TRY(clip_tokenizer_open(&tokenizer, dir));
    TRY(clip_tokenizer_encode(tokenizer, o->prompt, t->n_clip, t->clip, &n_used, &lost));
    warn_cut(o, "CLIP", t->n_clip, lost);
fail:
    clip_tokenizer_close(tokenizer);
    free(lost);
    free(dir);
    return st;
}

static status read_t5(const prompt_opts *o, token_ids *t)
{
    status        st = ST_OK;
    t5_tokenizer *tokenizer = NULL;
    char         *dir = NULL, *lost = NULL;
    int           n_used = 0;
    TRY(model_path(&dir, o->model, "tokenizer_2"));
    TRY(t5_tokenizer_open(&tokenizer, dir));
    TRY(t5_tokenizer_encode(tokenizer, o->prompt_2, t->n_t5, t->t5, &n_used, &lost));
    warn_cut(o, "T5", t->n_t5, lost);
fail:
    t5_tokenizer_close(tokenizer);
    free(lost);
    free(dir);
    return st;
}

static status encode_clip(const prompt_opts *o, const token_ids *t, float *pooled)
{
    status        st = ST_OK;
    clip_encoder *encoder = NULL;
    TRY(clip_encoder_open(&encoder, &(clip_encoder_opts){.model = o->model, .dev = o->dev, .compute = o->compute,
                                                         .tap = o->tap, .type = o->type, .parity = o->parity}));
    TRY(clip_encoder_encode(encoder, t->clip, t->n_clip, pooled));
fail:
    clip_encoder_close(encoder);
    return st;
}

static status encode_t5(const prompt_opts *o, const token_ids *t, float *text)
{
    status      st = ST_OK;
    t5_encoder *encoder = NULL;
    TRY(t5_encoder_open(&encoder, &(t5_encoder_opts){.model = o->model, .dev = o->dev, .compute = o->compute,
                                                     .tap = o->tap, .type = o->type, .parity = o->parity}));
    TRY(t5_encoder_encode(encoder, t->t5, t->n_t5, text));
fail:
    t5_encoder_close(encoder);
    return st;
}

/* Somebody wants to see tensors of the encoders: then they must run. */
static bool is_watched(const prompt_opts *o)
{
    const tap *t = o->tap;
    return t != NULL && (t->wants(t->ctx, "text.t5", 0) || t->wants(t->ctx, "text.clip", 0));
}

static status encode(const prompt_opts *o, const token_ids *t, const prompt_rows *p)
{
    status               st = ST_OK;
    bool                 found = false;
    const embedding_key  key = {.clip_ids = t->clip, .t5_ids = t->t5, .n_clip = t->n_clip, .n_t5 = t->n_t5,
                                .type = o->type, .parity = o->parity};
    const embedding_rows rows = {.text = p->text, .pooled = p->pooled};
    if (o->cache != NULL && !is_watched(o)) {
        TRY(embedding_cache_read(o->cache, &key, &rows, &found));
        if (!found) TRY(embedding_cache_claim(o->cache, &key, &rows, &found));
    }
    if (!found) {
        TRY(encode_clip(o, t, p->pooled));
        TRY(encode_t5(o, t, p->text));
        if (o->cache != NULL) TRY(embedding_cache_write(o->cache, &key, &rows));
    }
    if (found) report_line(o->report, "%s: text rows from the cache", o->picture);
    report_event(o->report, "prompt", json_pack("{s:s, s:s}", "picture", o->picture, "rows", found ? "cache" : "encoders"));
fail:
    if (o->cache != NULL) embedding_cache_drop(o->cache);
    return st;
}

status prompt_encode(prompt_rows *out, const prompt_opts *opts)
{
    status      st = ST_OK;
    prompt_rows p = {.n_text = opts->n_text};
    token_ids   t = {.n_clip = opts->model->clip.max_position, .n_t5 = opts->n_text};
    p.text = malloc((size_t)opts->n_text * (size_t)opts->model->flux.joint_attention_dim * sizeof(float));
    p.pooled = malloc((size_t)opts->model->flux.pooled_projection_dim * sizeof(float));
    t.clip = malloc((size_t)t.n_clip * sizeof(*t.clip));
    t.t5 = malloc((size_t)t.n_t5 * sizeof(*t.t5));
    if (p.text == NULL || p.pooled == NULL || t.clip == NULL || t.t5 == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: rows of %d text tokens", opts->picture, opts->n_text);
        goto fail;
    }
    TRY(read_clip(opts, &t));
    TRY(read_t5(opts, &t));
    TRY(encode(opts, &t, &p));
    *out = p;
    p = (prompt_rows){0};
fail:
    free(t.clip);
    free(t.t5);
    prompt_free(&p);
    return st;
}

void prompt_free(prompt_rows *p)
{
    free(p->text);
    free(p->pooled);
    *p = (prompt_rows){0};
}
