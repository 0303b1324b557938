#include "t5_encoder.h"

#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "linear.h"

typedef struct t5_layer {
    linear q, k, v, o; /* o: [d_model, heads * d_kv] */
    linear wi_0, wi_1, wo;
    weight norm_attention, norm_mlp;
} t5_layer;

typedef struct t5_globals {
    weight embedding;     /* [vocab, d_model] */
    weight relative_bias; /* [buckets, heads]; block 0's serves all */
    weight norm_final;
} t5_globals;

struct t5_encoder {
    t5_encoder_opts opts;
    t5_config       config;
    weights        *files;
    t5_globals      globals;
    t5_layer       *layers;
    bool            drop_weights;
    float          *scales; /* device: [2 * layers + 1, d_model] */
    float          *ones;   /* device: [d_model] */
};

enum { DIM_MODEL, DIM_INNER, DIM_FF, DIM_VOCAB, DIM_BUCKETS, DIM_HEADS };
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MATRIX(field, name, n_out, n_in) {offsetof(t5_layer, field), "encoder.block.%d." name, 2, {n_out, n_in}, false, NULL}
#define VECTOR(field, name) {offsetof(t5_layer, field), "encoder.block.%d." name, 1, {DIM_MODEL}, false, NULL}

static const weight_spec layer_specs[] = {
    MATRIX(q.w, "layer.0.SelfAttention.q.weight", DIM_INNER, DIM_MODEL),
    MATRIX(k.w, "layer.0.SelfAttention.k.weight", DIM_INNER, DIM_MODEL),
    MATRIX(v.w, "layer.0.SelfAttention.v.weight", DIM_INNER, DIM_MODEL),
    MATRIX(o.w, "layer.0.SelfAttention.o.weight", DIM_MODEL, DIM_INNER),
    MATRIX(wi_0.w, "layer.1.DenseReluDense.wi_0.weight", DIM_FF, DIM_MODEL),
    MATRIX(wi_1.w, "layer.1.DenseReluDense.wi_1.weight", DIM_FF, DIM_MODEL),
    MATRIX(wo.w, "layer.1.DenseReluDense.wo.weight", DIM_MODEL, DIM_FF),
    VECTOR(norm_attention, "layer.0.layer_norm.weight"),
    VECTOR(norm_mlp, "layer.1.layer_norm.weight"),
};

static const weight_spec global_specs[] = {
    {offsetof(t5_globals, embedding), "shared.weight", 2, {DIM_VOCAB, DIM_MODEL}, false, "encoder.embed_tokens.weight"},
    {offsetof(t5_globals, relative_bias), "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2,
     {DIM_BUCKETS, DIM_HEADS}, false, NULL},
    {offsetof(t5_globals, norm_final), "encoder.final_layer_norm.weight", 1, {DIM_MODEL}, false, NULL},
};

int t5_bucket(int key_minus_query, int n_buckets, int max_distance)
{
    int half = n_buckets / 2, exact = half / 2;
    int base = key_minus_query > 0 ? half : 0;
    int distance = abs(key_minus_query);
    if (distance < exact) return base + distance;
    /* In fp64 no distance up to 2^20 falls on the wrong side of a step (the reference's fp32 gives the same table). */
    int far = exact + (int)(log((double)distance / exact) / log((double)max_distance / exact) * (half - exact) + 1e-9);
    return base + (far < half - 1 ? far : half - 1);
}

static status upload_scales(t5_encoder *t)
{
    status       st = ST_OK;
    const size_t d = (size_t)t->config.d_model, n = 2 * (size_t)t->config.layers + 1;
    const bool   round = t->opts.type == DT_BF16;
    float       *host = malloc((n + 1) * d * sizeof(float));
    if (host == NULL) return err_set(ST_NO_MEMORY, "T5: norm weights of %zu layers", n);
    for (int i = 0; i < t->config.layers; i++) {
        weight_widen(&t->layers[i].norm_attention, round, host + (size_t)(2 * i) * d);
        weight_widen(&t->layers[i].norm_mlp, round, host + (size_t)(2 * i + 1) * d);
    }
    weight_widen(&t->globals.norm_final, round, host + (n - 1) * d);
    for (size_t i = 0; i < d; i++) host[n * d + i] = 1.0f;
    TRY(device_alloc(t->opts.dev, (n + 1) * d * sizeof(float), "T5 norm weights", (void **)&t->scales));
    t->ones = t->scales + n * d;
    TRY(stream_copy_in(t->opts.compute, t->scales, host, (n + 1) * d * sizeof(float)));
    TRY(stream_sync(t->opts.compute));
fail:
    free(host);
    return st;
}

status t5_encoder_open(t5_encoder **out, const t5_encoder_opts *opts)
{
    status           st = ST_OK;
    const t5_config *c = &opts->model->t5;
    t5_encoder      *t = calloc(1, sizeof(*t));
    if (t == NULL) return err_set(ST_NO_MEMORY, "T5: %zu bytes", sizeof(*t));
    t->opts = *opts;
    t->config = *c;
    t->layers = calloc((size_t)c->layers + 1, sizeof(*t->layers));
    if (t->layers == NULL) {
        st = err_set(ST_NO_MEMORY, "T5: %d layers", c->layers);
        goto fail;
    }
    const int64_t dims[] = {[DIM_MODEL] = c->d_model, [DIM_INNER] = (int64_t)c->heads * c->d_kv, [DIM_FF] = c->d_ff,
                            [DIM_VOCAB] = c->vocab_size, [DIM_BUCKETS] = c->num_buckets, [DIM_HEADS] = c->heads};
    TRY(model_open_weights(&t->files, opts->model, MODEL_T5));
    TRY(weights_bind(t->files, global_specs, COUNT(global_specs), 0, dims, &t->globals));
    for (int i = 0; i < c->layers; i++)
        TRY(weights_bind(t->files, layer_specs, COUNT(layer_specs), i, dims, &t->layers[i]));
    t->drop_weights = linear_pages_are_scarce(weights_bytes(t->files));
    TRY(upload_scales(t));
    *out = t;
    return ST_OK;
fail:
    t5_encoder_close(t);
    return st;
}

void t5_encoder_close(t5_encoder *t)
{
    if (t == NULL) return;
    device_free(t->opts.dev, t->scales);
    device_forget(t->opts.dev);
    weights_close(t->files);
    free(t->layers);
    free(t);
}

/* One prompt's memory. */
typedef struct t5_rows {
    int            n;
    int32_t       *ids;
    float         *bias; /* [heads, 2 n - 1] by key - query + n - 1 */
    unsigned char *hidden, *normed; /* [n, d_model] */
    unsigned char *q, *k, *v, *mixed; /* [n, heads * d_kv] */
    unsigned char *gate, *up; /* [n, d_ff] */
    float         *wide; /* [n, d_model] */
} t5_rows;

static size_t bias_bytes(const t5_config *c, int n)
{
    return (size_t)c->heads * (2 * (size_t)n - 1) * sizeof(float);
}

static void plan_rows(const t5_config *c, dtype type, t5_rows *r, arena *a)
{
    const size_t n = (size_t)r->n, e = dtype_bytes(type), row = n * (size_t)c->d_model * e;
    const size_t inner = n * (size_t)c->heads * (size_t)c->d_kv * e, mlp = n * (size_t)c->d_ff * e;
    arena_plan(a, &r->ids, n * sizeof(*r->ids), "ids");
    arena_plan(a, &r->bias, bias_bytes(c, r->n), "relative bias");
    arena_plan(a, &r->hidden, row, "hidden states");
    arena_plan(a, &r->normed, row, "normalised rows");
    arena_plan(a, &r->q, inner, "queries");
    arena_plan(a, &r->k, inner, "keys");
    arena_plan(a, &r->v, inner, "values");
    arena_plan(a, &r->mixed, inner, "attention");
    arena_plan(a, &r->gate, mlp, "MLP");
    arena_plan(a, &r->up, mlp, "MLP");
    arena_plan(a, &r->wide, n * (size_t)c->d_model * sizeof(float), "output");
}

void t5_encoder_plan(const t5_config *c, dtype type, int n, arena *parts)
{
    t5_rows r = {.n = n}; /* parts are only read: its addresses end here */
    void   *scales;
    plan_rows(c, type, &r, parts);
    arena_plan(parts, &scales, (2 * (size_t)c->layers + 2) * (size_t)c->d_model * sizeof(float), "norm weights");
}

static status put_linear(t5_encoder *t, const linear *l, const void *x, void *y, int n, const float *gate)
{
    return linear_put(t->opts.compute, l, &(linear_rows){
        .x = x, .y = y, .ldx = l->w.shape[1], .ldy = l->w.shape[0], .n_rows = n, .gate = gate,
        .type = t->opts.type, .y_type = t->opts.type, .parity = t->opts.parity});
}

static status put_norm(t5_encoder *t, const t5_rows *r, int scale)
{
    const int32_t d = t->config.d_model;
    return stream_rmsnorm(t->opts.compute, &(rmsnorm_args){
        .x = r->hidden, .y = r->normed, .scale = t->scales + (size_t)scale * (size_t)d, .ldx = d, .ldy = d,
        .n_rows = r->n, .width = d, .eps = (float)t->config.eps, .type = t->opts.type, .parity = t->opts.parity});
}

static status put_layer(t5_encoder *t, const t5_rows *r, int i)
{
    status           st = ST_OK;
    const t5_config *c = &t->config;
    const t5_layer  *l = &t->layers[i];
    const int64_t    inner = (int64_t)c->heads * c->d_kv;
    TRY(put_norm(t, r, 2 * i));
    TRY(put_linear(t, &l->q, r->normed, r->q, r->n, NULL));
    TRY(put_linear(t, &l->k, r->normed, r->k, r->n, NULL));
    TRY(put_linear(t, &l->v, r->normed, r->v, r->n, NULL));
    TRY(stream_attention(t->opts.compute, &(attention_args){
        .q = r->q, .k = r->k, .v = r->v, .out = r->mixed, .bias = r->bias, .ldq = inner, .ldk = inner, .ldv = inner,
        .ldo = inner, .bias_ld = 2 * r->n - 1, .n_q = r->n, .n_kv = r->n, .n_heads = c->heads, .head_dim = c->d_kv,
        .scale = 1.0f, .type = t->opts.type, .first = true, .last = true}));
    TRY(put_linear(t, &l->o, r->mixed, r->hidden, r->n, t->ones));
    TRY(put_norm(t, r, 2 * i + 1));
    TRY(put_linear(t, &l->wi_0, r->normed, r->gate, r->n, NULL));
    TRY(put_linear(t, &l->wi_1, r->normed, r->up, r->n, NULL));
    TRY(stream_gated_gelu(t->opts.compute, &(gated_gelu_args){
        .a = r->gate, .b = r->up, .y = r->gate, .n = (int64_t)r->n * c->d_ff, .type = t->opts.type,
        .parity = t->opts.parity}));
    TRY(put_linear(t, &l->wo, r->gate, r->hidden, r->n, t->ones));
    if (t->drop_weights) TRY(stream_drop(t->opts.compute, t->files, l, sizeof(*l)));
fail:
    return st;
}

/* [heads, 2 n - 1] from the table of buckets. */
static float *make_bias(const t5_encoder *t, int n)
{
    const t5_config *c = &t->config;
    const size_t     width = 2 * (size_t)n - 1;
    float           *table = malloc((size_t)weight_count(&t->globals.relative_bias) * sizeof(float));
    float           *bias = malloc((size_t)c->heads * width * sizeof(float));
    if (table != NULL && bias != NULL) {
        weight_widen(&t->globals.relative_bias, t->opts.type == DT_BF16, table);
        for (size_t i = 0; i < width; i++) {
            int bucket = t5_bucket((int)i - (n - 1), c->num_buckets, c->max_distance);
            for (int h = 0; h < c->heads; h++) bias[(size_t)h * width + i] = table[bucket * c->heads + h];
        }
    }
    free(table);
    return bias;
}

status t5_encoder_encode(t5_encoder *t, const int32_t *ids, int n, float *rows)
{
    status           st = ST_OK;
    const t5_config *c = &t->config;
    stream          *s = t->opts.compute;
    t5_rows          r = {.n = n};
    arena            memory = {0};
    const void      *embedding = NULL;
    float           *bias = make_bias(t, n);

    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab_size) {
            st = err_set(ST_BAD_MODEL, "T5 token %d: id %d, but vocab_size is %d", i, ids[i], c->vocab_size);
            goto fail;
        }
    if (bias == NULL) {
        st = err_set(ST_NO_MEMORY, "T5: relative bias of %d tokens", n);
        goto fail;
    }
    plan_rows(c, t->opts.type, &r, &memory);
    TRY(arena_take(&memory, t->opts.dev, "T5"));
    TRY(stream_copy_in(s, r.ids, ids, (size_t)n * sizeof(*ids)));
    TRY(stream_copy_in(s, r.bias, bias, bias_bytes(c, n)));
    TRY(stream_lend(s, t->globals.embedding.data, weight_bytes(&t->globals.embedding), &embedding));
    TRY(stream_gather_rows(s, &(gather_rows_args){.table = embedding, .ids = r.ids, .y = r.hidden, .n_rows = n,
                                                  .width = c->d_model, .table_type = t->globals.embedding.type,
                                                  .type = t->opts.type}));
    TRY(stream_return(s, embedding));
    for (int i = 0; i < c->layers; i++) TRY(put_layer(t, &r, i));
    TRY(put_norm(t, &r, 2 * c->layers));
    TRY(tap_rows(t->opts.tap, s, "text.t5", 0, t->opts.type, r.normed, c->d_model, 0, n, c->d_model));
    TRY(stream_convert(s, &(convert_args){.x = r.normed, .y = r.wide, .n = (int64_t)n * c->d_model,
                                          .x_type = t->opts.type, .y_type = DT_F32}));
    TRY(stream_copy_out(s, rows, r.wide, (size_t)n * (size_t)c->d_model * sizeof(float)));
fail:
    st = stream_settle(s, st);
    arena_free(&memory);
    free(bias);
    return st;
}
