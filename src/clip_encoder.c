#include "clip_encoder.h"

#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "linear.h"

enum { LEGACY_EOS = 2 };

typedef struct clip_layer {
    linear q, k, v, out;
    linear fc1, fc2;
    weight norm1_scale, norm1_shift, norm2_scale, norm2_shift;
} clip_layer;

typedef struct clip_globals {
    weight tokens;    /* [vocab, hidden] */
    weight positions; /* [max_position, hidden] */
    weight norm_scale, norm_shift;
} clip_globals;

struct clip_encoder {
    clip_encoder_opts opts;
    clip_config       config;
    weights          *files;
    clip_globals      globals;
    clip_layer       *layers;
    float            *norms; /* device: scale and shift of both norms of each layer, then of the last, [hidden] each */
    float            *ones;  /* device: [hidden] */
};

enum { DIM_HIDDEN, DIM_MLP, DIM_VOCAB, DIM_POSITIONS };
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LAYER "text_model.encoder.layers.%d."
#define LINEAR(field, name, n_out, n_in)                                                                               \
    {offsetof(clip_layer, field.w), LAYER name ".weight", 2, {n_out, n_in}, false, NULL},                              \
    {offsetof(clip_layer, field.b), LAYER name ".bias", 1, {n_out}, false, NULL}
#define VECTOR(field, name) {offsetof(clip_layer, field), LAYER name, 1, {DIM_HIDDEN}, false, NULL}

static const weight_spec layer_specs[] = {
    LINEAR(q, "self_attn.q_proj", DIM_HIDDEN, DIM_HIDDEN),
    LINEAR(k, "self_attn.k_proj", DIM_HIDDEN, DIM_HIDDEN),
    LINEAR(v, "self_attn.v_proj", DIM_HIDDEN, DIM_HIDDEN),
    LINEAR(out, "self_attn.out_proj", DIM_HIDDEN, DIM_HIDDEN),
    LINEAR(fc1, "mlp.fc1", DIM_MLP, DIM_HIDDEN),
    LINEAR(fc2, "mlp.fc2", DIM_HIDDEN, DIM_MLP),
    VECTOR(norm1_scale, "layer_norm1.weight"),
    VECTOR(norm1_shift, "layer_norm1.bias"),
    VECTOR(norm2_scale, "layer_norm2.weight"),
    VECTOR(norm2_shift, "layer_norm2.bias"),
};

static const weight_spec global_specs[] = {
    {offsetof(clip_globals, tokens), "text_model.embeddings.token_embedding.weight", 2, {DIM_VOCAB, DIM_HIDDEN}, false, NULL},
    {offsetof(clip_globals, positions), "text_model.embeddings.position_embedding.weight", 2,
     {DIM_POSITIONS, DIM_HIDDEN}, false, NULL},
    {offsetof(clip_globals, norm_scale), "text_model.final_layer_norm.weight", 1, {DIM_HIDDEN}, false, NULL},
    {offsetof(clip_globals, norm_shift), "text_model.final_layer_norm.bias", 1, {DIM_HIDDEN}, false, NULL},
};

static status upload_norms(clip_encoder *c)
{
    status       st = ST_OK;
    const size_t d = (size_t)c->config.hidden, n = 4 * (size_t)c->config.layers + 2;
    const bool   round = c->opts.type == DT_BF16;
    float       *host = malloc((n + 1) * d * sizeof(float)), *at = host;
    if (host == NULL) return err_set(ST_NO_MEMORY, "CLIP: norm weights of %d layers", c->config.layers);
    for (int i = 0; i < c->config.layers; i++) {
        const clip_layer *l = &c->layers[i];
        const weight     *in_order[] = {&l->norm1_scale, &l->norm1_shift, &l->norm2_scale, &l->norm2_shift};
        for (size_t k = 0; k < COUNT(in_order); k++, at += d) weight_widen(in_order[k], round, at);
    }
    weight_widen(&c->globals.norm_scale, round, at);
    weight_widen(&c->globals.norm_shift, round, at + d);
    for (size_t i = 0; i < d; i++) host[n * d + i] = 1.0f;
    TRY(device_alloc(c->opts.dev, (n + 1) * d * sizeof(float), "CLIP norm weights", (void **)&c->norms));
    c->ones = c->norms + n * d;
    TRY(stream_copy_in(c->opts.compute, c->norms, host, (n + 1) * d * sizeof(float)));
    TRY(stream_sync(c->opts.compute));
fail:
    free(host);
    return st;
}

status clip_encoder_open(clip_encoder **out, const clip_encoder_opts *opts)
{
    status             st = ST_OK;
    const clip_config *config = &opts->model->clip;
    clip_encoder      *c = calloc(1, sizeof(*c));
    if (c == NULL) return err_set(ST_NO_MEMORY, "CLIP: %zu bytes", sizeof(*c));
    c->opts = *opts;
    c->config = *config;
    c->layers = calloc((size_t)config->layers + 1, sizeof(*c->layers));
    if (c->layers == NULL) {
        st = err_set(ST_NO_MEMORY, "CLIP: %d layers", config->layers);
        goto fail;
    }
    const int64_t dims[] = {[DIM_HIDDEN] = config->hidden, [DIM_MLP] = config->intermediate,
                            [DIM_VOCAB] = config->vocab_size, [DIM_POSITIONS] = config->max_position};
    TRY(model_open_weights(&c->files, opts->model, MODEL_CLIP));
    TRY(weights_bind(c->files, global_specs, COUNT(global_specs), 0, dims, &c->globals));
    for (int i = 0; i < config->layers; i++)
        TRY(weights_bind(c->files, layer_specs, COUNT(layer_specs), i, dims, &c->layers[i]));
    TRY(upload_norms(c));
    *out = c;
    return ST_OK;
fail:
    clip_encoder_close(c);
    return st;
}

void clip_encoder_close(clip_encoder *c)
{
    if (c == NULL) return;
    device_free(c->opts.dev, c->norms);
    device_forget(c->opts.dev);
    weights_close(c->files);
    free(c->layers);
    free(c);
}

int clip_pool_position(const int32_t *ids, int n, int eos_token_id)
{
    int best = 0;
    for (int i = 0; i < n; i++) {
        if (eos_token_id == LEGACY_EOS ? ids[i] > ids[best] : ids[i] == eos_token_id) {
            best = i;
            if (eos_token_id != LEGACY_EOS) break;
        }
    }
    return best;
}

/* One prompt's memory. */
typedef struct clip_rows {
    int            n;
    int32_t       *ids;
    unsigned char *hidden, *normed, *q, *k, *v, *mixed; /* [n, hidden] */
    unsigned char *mlp;                                 /* [n, intermediate] */
    float         *wide;                                /* [hidden] */
} clip_rows;

static void plan_rows(const clip_config *c, dtype type, clip_rows *r, arena *a)
{
    const size_t n = (size_t)r->n, e = dtype_bytes(type), row = n * (size_t)c->hidden * e;
    arena_plan(a, &r->ids, n * sizeof(*r->ids), "ids");
    arena_plan(a, &r->hidden, row, "hidden states");
    arena_plan(a, &r->normed, row, "normalised rows");
    arena_plan(a, &r->q, row, "queries");
    arena_plan(a, &r->k, row, "keys");
    arena_plan(a, &r->v, row, "values");
    arena_plan(a, &r->mixed, row, "attention");
    arena_plan(a, &r->mlp, n * (size_t)c->intermediate * e, "MLP");
    arena_plan(a, &r->wide, (size_t)c->hidden * sizeof(float), "output");
}

void clip_encoder_plan(const clip_config *c, dtype type, arena *parts)
{
    clip_rows r = {.n = c->max_position}; /* parts are only read: its addresses end here */
    void     *norms;
    plan_rows(c, type, &r, parts);
    arena_plan(parts, &norms, (4 * (size_t)c->layers + 3) * (size_t)c->hidden * sizeof(float), "norm weights");
}

static status put_linear(clip_encoder *c, const linear *l, const void *x, void *y, int n, activation act,
                         const float *gate)
{
    return linear_put(c->opts.compute, l, &(linear_rows){
        .x = x, .y = y, .ldx = l->w.shape[1], .ldy = l->w.shape[0], .n_rows = n, .act = act, .gate = gate,
        .type = c->opts.type, .y_type = c->opts.type, .parity = c->opts.parity});
}

/* norm: 2 i and 2 i + 1 for layer i, then the last. */
static status put_norm(clip_encoder *c, const clip_rows *r, int norm)
{
    const int32_t d = c->config.hidden;
    const float  *scale = c->norms + (size_t)norm * 2 * (size_t)d;
    return stream_layernorm(c->opts.compute, &(layernorm_args){
        .x = r->hidden, .y = r->normed, .scale = scale, .shift = scale + d, .ldx = d, .ldy = d, .n_rows = r->n,
        .width = d, .eps = (float)c->config.eps, .type = c->opts.type});
}

static status put_layer(clip_encoder *c, const clip_rows *r, int i)
{
    status            st = ST_OK;
    const clip_layer *l = &c->layers[i];
    const int32_t     d = c->config.hidden, head_dim = d / c->config.heads;
    const activation  act = c->config.act == CLIP_QUICK_GELU ? ACT_QUICK_GELU : ACT_GELU;
    TRY(put_norm(c, r, 2 * i));
    TRY(put_linear(c, &l->q, r->normed, r->q, r->n, ACT_NONE, NULL));
    TRY(put_linear(c, &l->k, r->normed, r->k, r->n, ACT_NONE, NULL));
    TRY(put_linear(c, &l->v, r->normed, r->v, r->n, ACT_NONE, NULL));
    TRY(stream_attention(c->opts.compute, &(attention_args){
        .q = r->q, .k = r->k, .v = r->v, .out = r->mixed, .ldq = d, .ldk = d, .ldv = d, .ldo = d, .n_q = r->n,
        .n_kv = r->n, .n_heads = c->config.heads, .head_dim = head_dim, .scale = 1.0f / sqrtf((float)head_dim),
        .type = c->opts.type, .causal = true, .first = true, .last = true}));
    TRY(put_linear(c, &l->out, r->mixed, r->hidden, r->n, ACT_NONE, c->ones));
    TRY(put_norm(c, r, 2 * i + 1));
    TRY(put_linear(c, &l->fc1, r->normed, r->mlp, r->n, act, NULL));
    TRY(put_linear(c, &l->fc2, r->mlp, r->hidden, r->n, ACT_NONE, c->ones));
fail:
    return st;
}

status clip_encoder_encode(clip_encoder *c, const int32_t *ids, int n, float *pooled)
{
    status             st = ST_OK;
    const clip_config *config = &c->config;
    stream            *s = c->opts.compute;
    const size_t       e = dtype_bytes(c->opts.type), d = (size_t)config->hidden;
    arena              memory = {0};
    const void        *tokens = NULL, *positions = NULL;

    if (n < 1 || n > config->max_position)
        return err_set(ST_BAD_MODEL, "CLIP: %d tokens, but max_position_embeddings is %d", n, config->max_position);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= config->vocab_size)
            return err_set(ST_BAD_MODEL, "CLIP token %d: id %d, but vocab_size is %d", i, ids[i], config->vocab_size);
    /* The causal mask makes rows after the pooled one irrelevant to it. */
    const int pool = clip_pool_position(ids, n, config->eos_token_id);
    clip_rows r = {.n = pool + 1};
    plan_rows(config, c->opts.type, &r, &memory);
    TRY(arena_take(&memory, c->opts.dev, "CLIP"));
    TRY(stream_copy_in(s, r.ids, ids, (size_t)r.n * sizeof(*ids)));
    TRY(stream_lend(s, c->globals.tokens.data, weight_bytes(&c->globals.tokens), &tokens));
    TRY(stream_lend(s, c->globals.positions.data, weight_bytes(&c->globals.positions), &positions));
    TRY(stream_gather_rows(s, &(gather_rows_args){
        .table = tokens, .add = positions, .ids = r.ids, .y = r.hidden, .n_rows = r.n, .width = config->hidden,
        .table_type = c->globals.tokens.type, .add_type = c->globals.positions.type, .type = c->opts.type}));
    TRY(stream_return(s, tokens));
    TRY(stream_return(s, positions));
    for (int i = 0; i < config->layers; i++) TRY(put_layer(c, &r, i));
    TRY(put_norm(c, &r, 2 * config->layers));
    const unsigned char *row = r.normed + (size_t)pool * d * e;
    TRY(tap_rows(c->opts.tap, s, "text.clip", 0, c->opts.type, row, config->hidden, 0, 1, config->hidden));
    TRY(stream_convert(s, &(convert_args){.x = row, .y = r.wide, .n = config->hidden, .x_type = c->opts.type,
                                          .y_type = DT_F32}));
    TRY(stream_copy_out(s, pooled, r.wide, d * sizeof(float)));
fail:
    st = stream_settle(s, st);
    arena_free(&memory);
    return st;
}
