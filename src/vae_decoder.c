#include "vae_decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "linear.h"

enum { MAX_RESNETS = 16, MAX_UP_BLOCKS = VAE_MAX_BLOCKS, SINK_ROWS = 64 };
static const float NORM_EPS = 1e-6f;

typedef struct norm {
    weight scale, shift;
    float *on_device; /* [2, channels]: scale, then shift */
} norm;

typedef struct resnet {
    norm    norm1, norm2;
    linear  conv1, conv2, shortcut; /* shortcut.w.data is NULL when the widths are equal */
    int32_t c_in, c_out;
} resnet;

typedef struct mid_attention {
    norm   norm;
    linear q, k, v, out;
} mid_attention;

typedef struct up_block {
    resnet  resnets[MAX_RESNETS];
    linear  upsample; /* w.data is NULL in the last block */
    int32_t c_out;
} up_block;

typedef struct decoder_ends {
    linear post_quant; /* w.data is NULL without use_post_quant_conv */
    linear conv_in, conv_out;
    norm   norm_out;
} decoder_ends;

struct vae_decoder {
    vae_decoder_opts opts;
    vae_config       config;
    weights         *files;
    decoder_ends     ends;
    resnet           mid[2];
    mid_attention    attention;
    up_block         up[MAX_UP_BLOCKS];
    bool             parity;
    int              n_resnets; /* per up block */
    float           *norms;     /* device: all of them */
    size_t           norm_floats;
};

/* ---- weights by name */

enum { DIM_IN, DIM_OUT, DIM_3, DIM_1, DIM_LATENT, DIM_RGB };
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CONV3(type, field, name, out, in)                                                                              \
    {offsetof(type, field.w), name ".weight", 4, {out, in, DIM_3, DIM_3}, false, NULL},                                \
    {offsetof(type, field.b), name ".bias", 1, {out}, false, NULL}
#define CONV1(type, field, name, out, in)                                                                              \
    {offsetof(type, field.w), name ".weight", 4, {out, in, DIM_1, DIM_1}, false, NULL},                                \
    {offsetof(type, field.b), name ".bias", 1, {out}, false, NULL}
#define LINEAR(type, field, name, old)                                                                                 \
    {offsetof(type, field.w), name ".weight", 2, {DIM_OUT, DIM_IN}, false, old ".weight"},                             \
    {offsetof(type, field.b), name ".bias", 1, {DIM_OUT}, false, old ".bias"}
#define NORM(type, field, name, n)                                                                                     \
    {offsetof(type, field.scale), name ".weight", 1, {n}, false, NULL},                                                \
    {offsetof(type, field.shift), name ".bias", 1, {n}, false, NULL}

static const weight_spec resnet_specs[] = {
    NORM(resnet, norm1, "norm1", DIM_IN),
    CONV3(resnet, conv1, "conv1", DIM_OUT, DIM_IN),
    NORM(resnet, norm2, "norm2", DIM_OUT),
    CONV3(resnet, conv2, "conv2", DIM_OUT, DIM_OUT),
};
static const weight_spec shortcut_specs[] = {CONV1(resnet, shortcut, "conv_shortcut", DIM_OUT, DIM_IN)};
static const weight_spec upsample_specs[] = {CONV3(up_block, upsample, "upsamplers.0.conv", DIM_OUT, DIM_IN)};
static const weight_spec attention_specs[] = {
    NORM(mid_attention, norm, "group_norm", DIM_IN),
    LINEAR(mid_attention, q, "to_q", "query"),
    LINEAR(mid_attention, k, "to_k", "key"),
    LINEAR(mid_attention, v, "to_v", "value"),
    LINEAR(mid_attention, out, "to_out.0", "proj_attn"),
};
static const weight_spec post_quant_specs[] = {
    CONV1(decoder_ends, post_quant, "post_quant_conv", DIM_LATENT, DIM_LATENT),
};
static const weight_spec end_specs[] = {
    CONV3(decoder_ends, conv_in, "conv_in", DIM_IN, DIM_LATENT),
    NORM(decoder_ends, norm_out, "conv_norm_out", DIM_OUT),
    CONV3(decoder_ends, conv_out, "conv_out", DIM_RGB, DIM_OUT),
};

static status bind_resnet(vae_decoder *v, const char *prefix, int32_t c_in, int32_t c_out, resnet *r)
{
    status        st = ST_OK;
    const int64_t dims[] = {[DIM_IN] = c_in, [DIM_OUT] = c_out, [DIM_3] = 3, [DIM_1] = 1};
    r->c_in = c_in;
    r->c_out = c_out;
    TRY(weights_bind_under(v->files, prefix, resnet_specs, COUNT(resnet_specs), dims, r));
    if (c_in != c_out) TRY(weights_bind_under(v->files, prefix, shortcut_specs, COUNT(shortcut_specs), dims, r));
fail:
    return st;
}

static status bind_all(vae_decoder *v)
{
    status            st = ST_OK;
    const vae_config *c = &v->config;
    const int         n = c->n_blocks;
    char              prefix[96];
    int32_t           width = c->block_out_channels[n - 1];
    const int64_t     dims[] = {[DIM_IN] = width, [DIM_OUT] = c->block_out_channels[0], [DIM_3] = 3, [DIM_1] = 1,
                                [DIM_LATENT] = c->latent_channels, [DIM_RGB] = c->out_channels};
    const int64_t     mid_dims[] = {[DIM_IN] = width, [DIM_OUT] = width};

    TRY(weights_bind_under(v->files, "decoder.", end_specs, COUNT(end_specs), dims, &v->ends));
    if (c->use_post_quant_conv)
        TRY(weights_bind_under(v->files, "", post_quant_specs, COUNT(post_quant_specs), dims, &v->ends));
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof(prefix), "decoder.mid_block.resnets.%d.", i);
        TRY(bind_resnet(v, prefix, width, width, &v->mid[i]));
    }
    if (c->mid_block_add_attention)
        TRY(weights_bind_under(v->files, "decoder.mid_block.attentions.0.", attention_specs, COUNT(attention_specs),
                               mid_dims, &v->attention));
    for (int i = 0; i < n; i++) {
        up_block *u = &v->up[i];
        u->c_out = c->block_out_channels[n - 1 - i];
        for (int j = 0; j < v->n_resnets; j++) {
            snprintf(prefix, sizeof(prefix), "decoder.up_blocks.%d.resnets.%d.", i, j);
            TRY(bind_resnet(v, prefix, j == 0 ? width : u->c_out, u->c_out, &u->resnets[j]));
        }
        width = u->c_out;
        if (i == n - 1) continue;
        const int64_t up_dims[] = {[DIM_IN] = width, [DIM_OUT] = width, [DIM_3] = 3};
        snprintf(prefix, sizeof(prefix), "decoder.up_blocks.%d.", i);
        TRY(weights_bind_under(v->files, prefix, upsample_specs, COUNT(upsample_specs), up_dims, u));
    }
fail:
    return st;
}

/* Visits all norms in one order: first to count (host NULL), then to widen them. */
static void place_norm(vae_decoder *v, norm *n, float *host)
{
    const size_t channels = (size_t)weight_count(&n->scale);
    if (n->scale.data == NULL) return;
    if (host != NULL) {
        const bool round = v->opts.type == DT_BF16;
        weight_widen(&n->scale, round, host + v->norm_floats);
        weight_widen(&n->shift, round, host + v->norm_floats + channels);
        n->on_device = v->norms + v->norm_floats;
    }
    v->norm_floats += 2 * channels;
}

static void place_norms(vae_decoder *v, float *host)
{
    v->norm_floats = 0;
    for (int i = 0; i < 2; i++) {
        place_norm(v, &v->mid[i].norm1, host);
        place_norm(v, &v->mid[i].norm2, host);
    }
    place_norm(v, &v->attention.norm, host);
    for (int i = 0; i < v->config.n_blocks; i++)
        for (int j = 0; j < v->n_resnets; j++) {
            place_norm(v, &v->up[i].resnets[j].norm1, host);
            place_norm(v, &v->up[i].resnets[j].norm2, host);
        }
    place_norm(v, &v->ends.norm_out, host);
}

static status upload_norms(vae_decoder *v)
{
    status st = ST_OK;
    place_norms(v, NULL);
    float *host = malloc(v->norm_floats * sizeof(float));
    if (host == NULL) return err_set(ST_NO_MEMORY, "VAE norm weights: %zu floats", v->norm_floats);
    TRY(device_alloc(v->opts.dev, v->norm_floats * sizeof(float), "VAE norm weights", (void **)&v->norms));
    place_norms(v, host);
    TRY(stream_copy_in(v->opts.compute, v->norms, host, v->norm_floats * sizeof(float)));
    TRY(stream_sync(v->opts.compute));
fail:
    free(host);
    return st;
}

status vae_decoder_open(vae_decoder **out, const vae_decoder_opts *opts)
{
    status       st = ST_OK;
    vae_decoder *v = calloc(1, sizeof(*v));
    if (v == NULL) return err_set(ST_NO_MEMORY, "VAE: %zu bytes", sizeof(*v));
    v->opts = *opts;
    v->config = opts->model->vae;
    v->n_resnets = v->config.layers_per_block + 1;
    if (v->n_resnets > MAX_RESNETS) {
        st = err_set(ST_BAD_MODEL, "vae/config.json: layers_per_block: got %d, at most %d", v->config.layers_per_block,
                     MAX_RESNETS - 1);
        goto fail;
    }
    TRY(model_open_weights(&v->files, opts->model, MODEL_VAE));
    TRY(bind_all(v));
    TRY(upload_norms(v));
    *out = v;
    return ST_OK;
fail:
    vae_decoder_close(v);
    return st;
}

void vae_decoder_close(vae_decoder *v)
{
    if (v == NULL) return;
    device_free(v->opts.dev, v->norms);
    weights_close(v->files);
    free(v);
}

void vae_decoder_parity(vae_decoder *v, bool parity)
{
    v->parity = parity;
}

/* ---- one decode */

/* A walk through the decoder, done twice: dry, to learn how large the buffers must be, then for real. `at` holds the
 * stage's input; a stage that changes shape writes into `other`, and the two change places. */
typedef struct walk {
    vae_decoder   *v;
    bool           dry;
    int32_t        height, width; /* of `at` */
    int32_t        channels;
    unsigned char *at, *other, *inner;
    size_t         at_bytes, other_bytes, inner_bytes; /* dry: the largest so far */
    bool           swapped;                            /* dry: which of at and other is which */
    unsigned char *q, *k, *values, *mixed;
    double        *sums; /* [height, groups, 2] */
    float         *mul, *add; /* [widest] */
} walk;

static void grow(size_t *bytes, size_t wanted)
{
    if (wanted > *bytes) *bytes = wanted;
}

static size_t bytes_of(const walk *w, int32_t height, int32_t width, int32_t channels)
{
    return (size_t)height * (size_t)width * (size_t)channels * dtype_bytes(w->v->opts.type);
}

static void swap(walk *w)
{
    unsigned char *other = w->other;
    w->other = w->at;
    w->at = other;
    size_t bytes = w->other_bytes;
    w->other_bytes = w->at_bytes;
    w->at_bytes = bytes;
    w->swapped = !w->swapped;
}

/* Statistics of x, ready for a convolution that reads it normalised. */
static status put_norm(walk *w, const norm *n, const void *x, int32_t channels)
{
    status       st = ST_OK;
    vae_decoder *v = w->v;
    if (w->dry) return ST_OK;
    TRY(stream_group_sums(v->opts.compute, &(group_sums_args){
        .x = x, .sums = w->sums, .height = w->height, .width = w->width, .channels = channels,
        .groups = v->config.norm_num_groups, .type = v->opts.type}));
    TRY(stream_group_finish(v->opts.compute, &(group_finish_args){
        .sums = w->sums, .scale = n->on_device, .shift = n->on_device + channels, .mul = w->mul, .add = w->add,
        .height = w->height, .width = w->width, .channels = channels, .groups = v->config.norm_num_groups,
        .eps = NORM_EPS, .parity = v->parity}));
fail:
    return st;
}

typedef struct conv_call {
    const linear *l;
    const void   *x, *residual;
    void         *y;
    int32_t       kernel;
    bool          normed, silu, upsample;
} conv_call;

/* height and width of the walk are those of the output. */
static status put_conv(walk *w, conv_call c)
{
    status        st = ST_OK;
    vae_decoder  *v = w->v;
    linear_weight lent;
    if (w->dry) return ST_OK;
    TRY(linear_lend(v->opts.compute, c.l, &lent));
    TRY(stream_conv(v->opts.compute, &(conv_args){
        .x = c.x, .y = c.y, .residual = c.residual, .norm_mul = c.normed ? w->mul : NULL,
        .norm_add = c.normed ? w->add : NULL, .w = lent, .height = w->height, .width = w->width,
        .c_in = (int32_t)c.l->w.shape[1], .c_out = (int32_t)c.l->w.shape[0], .kernel = c.kernel,
        .type = v->opts.type, .y_type = v->opts.type, .silu = c.silu, .upsample = c.upsample,
        .parity = v->parity}));
    TRY(linear_return(v->opts.compute, &lent));
fail:
    return st;
}

static status tap_stage(walk *w, const char *name)
{
    vae_decoder *v = w->v;
    if (w->dry) return ST_OK;
    return tap_rows(v->opts.tap, v->opts.compute, name, 0, v->opts.type, w->at, w->channels, 0,
                    (int64_t)w->height * w->width, w->channels);
}

/* x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through the shortcut where the width changes. */
static status walk_resnet(walk *w, const resnet *r)
{
    status st = ST_OK;
    size_t out_bytes = bytes_of(w, w->height, w->width, r->c_out);
    bool   widens = r->c_in != r->c_out;
    grow(&w->inner_bytes, out_bytes);
    TRY(put_norm(w, &r->norm1, w->at, r->c_in));
    TRY(put_conv(w, (conv_call){.l = &r->conv1, .x = w->at, .y = w->inner, .kernel = 3, .normed = true, .silu = true}));
    if (widens) {
        grow(&w->other_bytes, out_bytes);
        TRY(put_conv(w, (conv_call){.l = &r->shortcut, .x = w->at, .y = w->other, .kernel = 1}));
        swap(w);
    }
    TRY(put_norm(w, &r->norm2, w->inner, r->c_out));
    TRY(put_conv(w, (conv_call){.l = &r->conv2, .x = w->inner, .y = w->at, .residual = w->at, .kernel = 3,
                                .normed = true, .silu = true}));
    w->channels = r->c_out;
fail:
    return st;
}

static status walk_upsample(walk *w, const up_block *u)
{
    status st = ST_OK;
    w->height *= 2;
    w->width *= 2;
    grow(&w->other_bytes, bytes_of(w, w->height, w->width, u->c_out));
    TRY(put_conv(w, (conv_call){.l = &u->upsample, .x = w->at, .y = w->other, .kernel = 3, .upsample = true}));
    swap(w);
fail:
    return st;
}

/* x + out(softmax(q k^T / sqrt(C)) v) over all latent pixels, one head as wide as the channels. */
static status walk_attention(walk *w)
{
    status               st = ST_OK;
    vae_decoder         *v = w->v;
    const mid_attention *a = &v->attention;
    const int32_t        c = w->channels;
    const int64_t        n = (int64_t)w->height * w->width;
    if (w->dry || !v->config.mid_block_add_attention) return ST_OK;
    TRY(put_norm(w, &a->norm, w->at, c));
    TRY(put_conv(w, (conv_call){.l = &a->q, .x = w->at, .y = w->q, .kernel = 1, .normed = true}));
    TRY(put_conv(w, (conv_call){.l = &a->k, .x = w->at, .y = w->k, .kernel = 1, .normed = true}));
    TRY(put_conv(w, (conv_call){.l = &a->v, .x = w->at, .y = w->values, .kernel = 1, .normed = true}));
    TRY(stream_attention(v->opts.compute, &(attention_args){
        .q = w->q, .k = w->k, .v = w->values, .out = w->mixed, .ldq = c, .ldk = c, .ldv = c, .ldo = c,
        .n_q = (int32_t)n, .n_kv = (int32_t)n, .n_heads = 1, .head_dim = c, .scale = 1.0f / sqrtf((float)c),
        .type = v->opts.type, .first = true, .last = true}));
    TRY(put_conv(w, (conv_call){.l = &a->out, .x = w->mixed, .y = w->at, .residual = w->at, .kernel = 1}));
fail:
    return st;
}

/* From the latent in `at` to the input of conv_out. */
static status walk_all(walk *w, const geometry *g)
{
    status            st = ST_OK;
    vae_decoder      *v = w->v;
    const vae_config *c = &v->config;
    w->height = g->latent_h;
    w->width = g->latent_w;
    w->channels = c->latent_channels;
    grow(&w->at_bytes, bytes_of(w, w->height, w->width, w->channels));
    if (c->use_post_quant_conv) {
        grow(&w->other_bytes, bytes_of(w, w->height, w->width, w->channels));
        TRY(put_conv(w, (conv_call){.l = &v->ends.post_quant, .x = w->at, .y = w->other, .kernel = 1}));
        swap(w);
    }
    w->channels = c->block_out_channels[c->n_blocks - 1];
    grow(&w->other_bytes, bytes_of(w, w->height, w->width, w->channels));
    TRY(put_conv(w, (conv_call){.l = &v->ends.conv_in, .x = w->at, .y = w->other, .kernel = 3}));
    swap(w);
    TRY(walk_resnet(w, &v->mid[0]));
    TRY(walk_attention(w));
    TRY(walk_resnet(w, &v->mid[1]));
    TRY(tap_stage(w, "vae.mid"));
    for (int i = 0; i < c->n_blocks; i++) {
        for (int j = 0; j < v->n_resnets; j++) TRY(walk_resnet(w, &v->up[i].resnets[j]));
        if (i < c->n_blocks - 1) TRY(walk_upsample(w, &v->up[i]));
        char name[32];
        snprintf(name, sizeof(name), "vae.up.%d", i);
        TRY(tap_stage(w, name));
    }
    TRY(put_norm(w, &v->ends.norm_out, w->at, w->channels));
fail:
    return st;
}

static size_t picture_samples(const geometry *g)
{
    return (size_t)g->width * (size_t)g->height * 3;
}

/* Everything a decode needs, planned from a dry walk. */
typedef struct decode_memory {
    arena          arena;
    float         *packed;
    unsigned char *rgb;      /* [height, width, 3] in the activations' type */
    uint8_t       *samples;  /* the same, 8-bit */
} decode_memory;

static void plan_decode(vae_decoder *v, const geometry *g, walk *w, decode_memory *m)
{
    walk dry = {.v = v, .dry = true};
    (void)walk_all(&dry, g); /* cannot fail: nothing is put */
    if (dry.swapped) swap(&dry);
    const vae_config *c = &v->config;
    const int32_t     widest = c->block_out_channels[c->n_blocks - 1];
    int32_t           most = 0;
    for (int i = 0; i < c->n_blocks; i++)
        if (c->block_out_channels[i] > most) most = c->block_out_channels[i];
    const size_t token_bytes = c->mid_block_add_attention ? bytes_of(w, g->latent_h, g->latent_w, widest) : 0;
    arena       *a = &m->arena;
    arena_plan(a, &m->packed, (size_t)g->n_image * (size_t)c->latent_channels * 4 * sizeof(float), "latent");
    arena_plan(a, &w->at, dry.at_bytes, "stage");
    arena_plan(a, &w->other, dry.other_bytes, "stage");
    arena_plan(a, &w->inner, dry.inner_bytes, "resnet");
    arena_plan(a, &w->q, token_bytes, "queries");
    arena_plan(a, &w->k, token_bytes, "keys");
    arena_plan(a, &w->values, token_bytes, "values");
    arena_plan(a, &w->mixed, token_bytes, "attention");
    arena_plan(a, &w->sums, (size_t)g->height * (size_t)c->norm_num_groups * 2 * sizeof(double), "row sums");
    arena_plan(a, &w->mul, (size_t)most * sizeof(float), "norm");
    arena_plan(a, &w->add, (size_t)most * sizeof(float), "norm");
    arena_plan(a, &m->rgb, picture_samples(g) * dtype_bytes(v->opts.type), "picture");
    arena_plan(a, &m->samples, picture_samples(g), "8-bit picture");
}

static status sink_rows(vae_decoder *v, const geometry *g, const uint8_t *samples, const row_sink *sink)
{
    status       st = ST_OK;
    const size_t row_bytes = (size_t)g->width * 3;
    uint8_t     *host = malloc(row_bytes * SINK_ROWS);
    if (host == NULL) return err_set(ST_NO_MEMORY, "picture: %d rows of %zu bytes", SINK_ROWS, row_bytes);
    for (int32_t row = 0; row < g->height; row += SINK_ROWS) {
        int32_t n = g->height - row < SINK_ROWS ? g->height - row : SINK_ROWS;
        TRY(stream_copy_out(v->opts.compute, host, samples + (size_t)row * row_bytes, (size_t)n * row_bytes));
        TRY(stream_sync(v->opts.compute));
        TRY(sink->rows(sink->ctx, row, n, host));
    }
fail:
    free(host);
    return st;
}

status vae_decoder_decode(vae_decoder *v, const geometry *g, const float *packed, const row_sink *sink)
{
    status            st = ST_OK;
    const vae_config *c = &v->config;
    stream           *s = v->opts.compute;
    walk              w = {.v = v};
    decode_memory     m = {0};
    plan_decode(v, g, &w, &m);
    TRY(arena_take(&m.arena, v->opts.dev, "VAE decoder"));
    TRY(stream_copy_in(s, m.packed, packed, (size_t)g->n_image * (size_t)c->latent_channels * 4 * sizeof(float)));
    TRY(stream_latent_unpack(s, &(latent_unpack_args){
        .packed = m.packed, .z = w.at, .height = g->latent_h, .width = g->latent_w, .channels = c->latent_channels,
        .scaling = (float)c->scaling_factor, .shift = (float)c->shift_factor, .type = v->opts.type,
        .parity = v->parity}));
    TRY(walk_all(&w, g));
    TRY(put_conv(&w, (conv_call){.l = &v->ends.conv_out, .x = w.at, .y = m.rgb, .kernel = 3, .normed = true, .silu = true}));
    TRY(tap_rows(v->opts.tap, s, "vae.rgb", 0, v->opts.type, m.rgb, 3, 0, (int64_t)g->width * g->height, 3));
    TRY(stream_to_u8(s, &(to_u8_args){.x = m.rgb, .y = m.samples, .n = (int64_t)picture_samples(g),
                                      .type = v->opts.type, .parity = v->parity}));
    TRY(stream_sync(s));
    TRY(sink_rows(v, g, m.samples, sink));
fail:
    st = stream_settle(s, st);
    arena_free(&m.arena);
    return st;
}
