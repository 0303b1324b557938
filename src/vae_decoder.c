#include "vae_decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange.h"
#include "vae_strips.h"
#include "vae_weights.h"

enum { SINK_ROWS = 64, RGB = 3 };
static const float NORM_EPS = 1e-6f;

struct vae_decoder {
    vae_decoder_opts opts;
    vae_config       config;
    vae_weights     *weights;
    bool             parity, wrap;
};

status vae_decoder_open(vae_decoder **out, const vae_decoder_opts *opts)
{
    status       st = ST_OK;
    vae_decoder *v = calloc(1, sizeof(*v));
    if (v == NULL) return err_set(ST_NO_MEMORY, "VAE: %zu bytes", sizeof(*v));
    v->opts = *opts;
    v->config = opts->model->vae;
    TRY(vae_weights_open(&v->weights, opts->model, opts->type, opts->dev, opts->compute));
    *out = v;
    return ST_OK;
fail:
    vae_decoder_close(v);
    return st;
}

void vae_decoder_close(vae_decoder *v)
{
    if (v == NULL) return;
    vae_weights_close(v->weights);
    free(v);
}

void vae_decoder_parity(vae_decoder *v, bool parity)
{
    v->parity = parity;
}

void vae_decoder_wrap(vae_decoder *v, bool wrap)
{
    v->wrap = wrap;
}

/* A walk through the decoder, done twice: dry, to learn how large the buffers must be, then for real. `at` holds the
 * stage's input; a stage that changes shape writes into `other`, and the two change places.
 *
 * The first failure to put an operation is kept in st; after it nothing is computed, but what the other strips wait for is
 * still put, so that they come to the end of the walk too. */
typedef struct walk {
    const vae_config  *config;
    const vae_weights *weights;
    dtype              type;
    bool               dry, parity, wrap;
    status             st;
    vae_strips         strips;
    stream            *compute;
    const tap         *tap;
    int32_t            first, height, width; /* of `at`: first row in the picture, rows held here */
    int32_t            all_rows;             /* of the picture, at this resolution */
    int32_t            channels;
    unsigned char     *at, *other, *inner;
    size_t             at_bytes, other_bytes, inner_bytes; /* dry: the largest so far */
    bool               swapped;                            /* dry: which of at and other is which */
    unsigned char     *above, *below; /* one row of each neighbour */
    size_t             halo_bytes;
    unsigned char     *q, *mixed, *head, *block; /* attention; block: [keys, 2, channels] */
    float             *state_max, *state_sum;
    double            *sums;          /* [height, groups, 2] */
    double            *carry, *total; /* [groups, 2]: of the rows so far, and of all */
    float             *mul, *add;     /* [widest] */
    kv_exchange       *exchange;
} walk;

static void keep(walk *w, status st)
{
    if (w->st == ST_OK) w->st = st;
}

/* Puts an operation unless this rank has failed or the walk is dry. */
#define PUT(w, call)                                                                                                   \
    do {                                                                                                               \
        if (!(w)->dry && (w)->st == ST_OK) keep(w, call);                                                              \
    } while (0)

/* Puts what others wait for. */
#define PUT_ALWAYS(w, call)                                                                                            \
    do {                                                                                                               \
        if (!(w)->dry) keep(w, call);                                                                                  \
    } while (0)

static void grow(size_t *bytes, size_t wanted)
{
    if (wanted > *bytes) *bytes = wanted;
}

static size_t bytes_of(const walk *w, int32_t height, int32_t width, int32_t channels)
{
    return (size_t)height * (size_t)width * (size_t)channels * dtype_bytes(w->type);
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
static void put_norm(walk *w, const norm *n, const void *x, int32_t channels)
{
    const int32_t groups = w->config->norm_num_groups;
    const size_t  bytes = 2 * (size_t)groups * sizeof(double);
    PUT(w, stream_group_sums(w->compute, &(group_sums_args){
        .x = x, .sums = w->sums, .height = w->height, .width = w->width, .channels = channels, .groups = groups,
        .type = w->type}));
    PUT_ALWAYS(w, vae_strips_take_carry(&w->strips, w->carry, bytes));
    PUT(w, stream_group_add(w->compute, &(group_add_args){
        .sums = w->sums, .totals = w->carry, .height = w->height, .groups = groups, .first = w->first == 0}));
    PUT_ALWAYS(w, vae_strips_pass_carry(&w->strips, w->carry, w->total, bytes));
    PUT(w, stream_group_finish(w->compute, &(group_finish_args){
        .totals = w->total, .scale = n->on_device, .shift = n->on_device + channels, .mul = w->mul, .add = w->add,
        .n_pixels = (int64_t)w->all_rows * w->width, .channels = channels, .groups = groups, .eps = NORM_EPS,
        .parity = w->parity}));
}

typedef struct conv_call {
    const linear *l;
    void         *x;
    const void   *residual;
    void         *y;
    int32_t       c_in, c_out, kernel;
    bool          normed, silu, upsample;
} conv_call;

static status lend_and_convolve(walk *w, const conv_args *args, const linear *l)
{
    status    st = ST_OK;
    conv_args with_weights = *args;
    TRY(linear_lend(w->compute, l, &with_weights.w));
    TRY(stream_conv(w->compute, &with_weights));
    TRY(linear_return(w->compute, &with_weights.w));
fail:
    return st;
}

/* first, height and width of the walk are those of the output. */
static void put_conv(walk *w, conv_call c)
{
    const int32_t shrink = c.upsample ? 2 : 1; /* of the input */
    const size_t  row_bytes = bytes_of(w, 1, w->width / shrink, c.c_in);
    const bool    has_above = w->first > 0, has_below = w->first + w->height < w->all_rows;
    if (c.kernel > 1) {
        grow(&w->halo_bytes, row_bytes);
        PUT_ALWAYS(w, vae_strips_halo(&w->strips, c.x, w->height / shrink, row_bytes, w->above, w->below));
    }
    PUT(w, lend_and_convolve(w, &(conv_args){
        .x = c.x, .x_above = c.kernel > 1 && has_above ? w->above : NULL,
        .x_below = c.kernel > 1 && has_below ? w->below : NULL, .y = c.y, .residual = c.residual,
        .norm_mul = c.normed ? w->mul : NULL, .norm_add = c.normed ? w->add : NULL, .height = w->height,
        .width = w->width, .first_row = w->first, .c_in = c.c_in, .c_out = c.c_out, .kernel = c.kernel, .type = w->type,
        .y_type = w->type, .silu = c.silu, .upsample = c.upsample, .wrap = w->wrap, .parity = w->parity}, c.l));
}

static void tap_stage(walk *w, const char *name, const void *x, int32_t channels)
{
    PUT(w, tap_rows(w->tap, w->compute, name, 0, w->type, x, channels, (int64_t)w->first * w->width,
                    (int64_t)w->height * w->width, channels));
}

/* x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through the shortcut where the width changes. */
static void walk_resnet(walk *w, const resnet *r)
{
    const size_t out_bytes = bytes_of(w, w->height, w->width, r->c_out);
    grow(&w->inner_bytes, out_bytes);
    put_norm(w, &r->norm1, w->at, r->c_in);
    put_conv(w, (conv_call){.l = &r->conv1, .x = w->at, .y = w->inner, .c_in = r->c_in, .c_out = r->c_out, .kernel = 3,
                            .normed = true, .silu = true});
    if (r->c_in != r->c_out) {
        grow(&w->other_bytes, out_bytes);
        put_conv(w, (conv_call){.l = &r->shortcut, .x = w->at, .y = w->other, .c_in = r->c_in, .c_out = r->c_out,
                                .kernel = 1});
        swap(w);
    }
    put_norm(w, &r->norm2, w->inner, r->c_out);
    put_conv(w, (conv_call){.l = &r->conv2, .x = w->inner, .y = w->at, .residual = w->at, .c_in = r->c_out,
                            .c_out = r->c_out, .kernel = 3, .normed = true, .silu = true});
    w->channels = r->c_out;
}

static void walk_upsample(walk *w, const up_block *u)
{
    w->first *= 2;
    w->height *= 2;
    w->width *= 2;
    w->all_rows *= 2;
    grow(&w->other_bytes, bytes_of(w, w->height, w->width, u->c_out));
    put_conv(w, (conv_call){.l = &u->upsample, .x = w->at, .y = w->other, .c_in = u->c_out, .c_out = u->c_out,
                            .kernel = 3, .upsample = true});
    swap(w);
}

/* Keys or values of this strip's pixels to their places: those of other ranks' blocks to `head`, ours to `block`. */
static void put_into_block(walk *w, const geometry *g, const void *x, size_t at)
{
    const pixel_range own = vae_strip_pixels(g, w->strips.n_strips, w->strips.rank);
    const pixel_range keys = vae_strip_keys(g, w->strips.n_strips, w->strips.rank);
    const size_t      row = bytes_of(w, 1, 1, w->channels);
    const int64_t     split = keys.first < own.end ? keys.first : own.end; /* the first pixel of our own block */
    const copy_rows_args head = {.x = x, .y = w->head + at, .ldx_bytes = (int64_t)row, .ldy_bytes = 2 * (int64_t)row,
                                 .row_bytes = (int64_t)row, .n_rows = (int32_t)(split - own.first)};
    copy_rows_args       ours = head;
    ours.x = (const unsigned char *)x + (size_t)(split - own.first) * row;
    ours.y = w->block + at;
    ours.n_rows = (int32_t)(own.end - split);
    if (head.n_rows > 0) PUT(w, stream_copy_rows(w->compute, &head));
    if (ours.n_rows > 0) PUT(w, stream_copy_rows(w->compute, &ours));
}

/* Softmax over the blocks of all strips, in the order of the pixels. */
static void attend(walk *w, const geometry *g)
{
    const int32_t c = w->channels, n_q = w->height * w->width;
    int64_t       n_left = (int64_t)g->latent_h * g->latent_w;
    bool          first = true;
    for (;;) {
        kv_block block = {0};
        PUT_ALWAYS(w, kv_exchange_next(w->exchange, w->compute, &block));
        if (block.data == NULL) break;
        n_left -= block.n_rows;
        PUT(w, stream_attention(w->compute, &(attention_args){
            .q = w->q, .k = block.data, .v = (const unsigned char *)block.data + bytes_of(w, 1, 1, c), .out = w->mixed,
            .state_max = w->state_max, .state_sum = w->state_sum, .state_out = (float *)(void *)w->inner,
            .ldq = c, .ldk = 2 * c, .ldv = 2 * c, .ldo = c, .n_q = n_q, .n_kv = block.n_rows, .n_heads = 1, .head_dim = c,
            .scale = 1.0f / sqrtf((float)c), .type = w->type, .first = first, .last = n_left == 0}));
        first = false;
    }
    PUT_ALWAYS(w, kv_exchange_end(w->exchange, w->compute));
}

/* x + out(softmax(q k^T / sqrt(C)) v) over all latent pixels, one head as wide as the channels. K and V first, so that the
 * first block travels under Q. */
static void walk_attention(walk *w, const geometry *g)
{
    const mid_attention *a = &w->weights->attention;
    const int32_t        c = w->channels;
    conv_call            project = {.x = w->at, .c_in = c, .c_out = c, .kernel = 1, .normed = true};
    if (!w->config->mid_block_add_attention) return;
    grow(&w->inner_bytes, (size_t)w->height * (size_t)w->width * (size_t)c * sizeof(float)); /* the state's outputs */
    if (w->dry) return;
    put_norm(w, &a->norm, w->at, c);
    project.l = &a->k;
    project.y = w->q;
    put_conv(w, project);
    put_into_block(w, g, w->q, 0);
    project.l = &a->v;
    project.y = w->mixed;
    put_conv(w, project);
    put_into_block(w, g, w->mixed, bytes_of(w, 1, 1, c));
    PUT_ALWAYS(w, vae_strips_edges(&w->strips, g, w->head, w->block, 2 * bytes_of(w, 1, 1, c)));
    PUT_ALWAYS(w, kv_exchange_begin(w->exchange, w->compute, w->block));
    project.l = &a->q;
    project.y = w->q;
    put_conv(w, project);
    attend(w, g);
    put_conv(w, (conv_call){.l = &a->out, .x = w->mixed, .y = w->at, .residual = w->at, .c_in = c, .c_out = c, .kernel = 1});
}

/* From the latent in `at` to the input of conv_out. */
static void walk_all(walk *w, const geometry *g)
{
    const vae_config   *c = w->config;
    const decoder_ends *ends = &w->weights->ends;
    w->first = w->strips.mine.first * PATCH;
    w->height = w->strips.mine.count * PATCH;
    w->width = g->latent_w;
    w->all_rows = g->latent_h;
    w->channels = c->latent_channels;
    grow(&w->at_bytes, bytes_of(w, w->height, w->width, w->channels));
    if (c->use_post_quant_conv) {
        grow(&w->other_bytes, bytes_of(w, w->height, w->width, w->channels));
        put_conv(w, (conv_call){.l = &ends->post_quant, .x = w->at, .y = w->other, .c_in = w->channels,
                                .c_out = w->channels, .kernel = 1});
        swap(w);
    }
    const int32_t wide = c->block_out_channels[c->n_blocks - 1];
    grow(&w->other_bytes, bytes_of(w, w->height, w->width, wide));
    put_conv(w, (conv_call){.l = &ends->conv_in, .x = w->at, .y = w->other, .c_in = w->channels, .c_out = wide, .kernel = 3});
    w->channels = wide;
    swap(w);
    walk_resnet(w, &w->weights->mid[0]);
    walk_attention(w, g);
    walk_resnet(w, &w->weights->mid[1]);
    tap_stage(w, "vae.mid", w->at, w->channels);
    for (int i = 0; i < c->n_blocks; i++) {
        for (int j = 0; j < vae_resnets(c); j++) walk_resnet(w, &w->weights->up[i].resnets[j]);
        if (i < c->n_blocks - 1) walk_upsample(w, &w->weights->up[i]);
        char name[32];
        snprintf(name, sizeof(name), "vae.up.%d", i);
        tap_stage(w, name, w->at, w->channels);
    }
    put_norm(w, &ends->norm_out, w->at, w->channels);
}

/* ---- memory */

/* What a decode needs beside the walk's own. */
typedef struct decode_memory {
    arena          arena;
    float         *packed;  /* tokens of this strip */
    unsigned char *rgb;     /* [height, width, 3] in the activations' type */
    uint8_t       *samples; /* the same, 8-bit */
} decode_memory;

static size_t strip_samples(const geometry *g, strip s)
{
    return (size_t)g->width * (size_t)(g->height / g->rows) * (size_t)s.count * RGB;
}

/* A dry walk tells the sizes; w->strips and w->config are given, all else is planned for w and m. */
static void plan_decode(const geometry *g, walk *w, decode_memory *m)
{
    const vae_config *c = w->config;
    const strip       mine = w->strips.mine;
    vae_weights       widths = {0};
    walk              dry = {.config = c, .weights = &widths, .type = w->type, .dry = true, .strips = w->strips};
    vae_widths(&widths, c);
    walk_all(&dry, g);
    if (dry.swapped) swap(&dry);
    int32_t most = 0;
    for (int i = 0; i < c->n_blocks; i++)
        if (c->block_out_channels[i] > most) most = c->block_out_channels[i];
    size_t n_own = 0, n_keys = 0, n_head = 0; /* pixels of the attention */
    if (c->mid_block_add_attention) {
        const pixel_range own = vae_strip_pixels(g, w->strips.n_strips, w->strips.rank);
        const pixel_range keys = vae_strip_keys(g, w->strips.n_strips, w->strips.rank);
        n_own = (size_t)(own.end - own.first);
        n_keys = (size_t)(keys.end - keys.first);
        n_head = (size_t)(keys.first < own.end ? keys.first - own.first : own.end - own.first);
    }
    const size_t pixel = bytes_of(w, 1, 1, c->block_out_channels[c->n_blocks - 1]);
    const size_t groups = 2 * (size_t)c->norm_num_groups * sizeof(double);
    arena       *a = &m->arena;
    arena_plan(a, &m->packed, (size_t)mine.count * (size_t)g->cols * (size_t)c->latent_channels * 4 * sizeof(float), "latent");
    arena_plan(a, &w->at, dry.at_bytes, "stage");
    arena_plan(a, &w->other, dry.other_bytes, "stage");
    arena_plan(a, &w->inner, dry.inner_bytes, "resnet");
    arena_plan(a, &w->above, dry.halo_bytes, "row above");
    arena_plan(a, &w->below, dry.halo_bytes, "row below");
    arena_plan(a, &w->q, n_own * pixel, "queries");
    arena_plan(a, &w->mixed, n_own * pixel, "attention");
    arena_plan(a, &w->head, 2 * n_head * pixel, "keys and values for the strip above");
    arena_plan(a, &w->block, 2 * n_keys * pixel, "keys and values");
    arena_plan(a, &w->state_max, n_own * sizeof(float), "softmax maxima");
    arena_plan(a, &w->state_sum, n_own * sizeof(float), "softmax sums");
    arena_plan(a, &w->sums, (size_t)dry.height * groups, "row sums");
    arena_plan(a, &w->carry, groups, "sums so far");
    arena_plan(a, &w->total, groups, "sums of all rows");
    arena_plan(a, &w->mul, (size_t)most * sizeof(float), "norm");
    arena_plan(a, &w->add, (size_t)most * sizeof(float), "norm");
    arena_plan(a, &m->rgb, strip_samples(g, mine) * dtype_bytes(w->type), "picture");
    arena_plan(a, &m->samples, strip_samples(g, mine), "8-bit picture");
}

/* Keys of each strip, for the exchange. */
static void count_keys(const geometry *g, int n_strips, int32_t *n_keys)
{
    for (int r = 0; r < n_strips; r++) {
        const pixel_range keys = vae_strip_keys(g, n_strips, r);
        n_keys[r] = (int32_t)(keys.end - keys.first);
    }
}

static size_t key_bytes(const vae_config *c, dtype type)
{
    return 2 * (size_t)c->block_out_channels[c->n_blocks - 1] * dtype_bytes(type);
}

void vae_decoder_plan(const vae_config *c, dtype type, const geometry *g, int n_ranks, int rank, arena *parts)
{
    const int     n = geometry_n_strips(g, n_ranks);
    decode_memory m = {0};
    walk          w = {.config = c, .type = type, .strips = {.rank = rank, .n_strips = n}};
    if (rank >= n) return;
    w.strips.mine = geometry_strip(g, n, rank);
    plan_decode(g, &w, &m);
    for (int i = 0; i < m.arena.n_parts; i++)
        arena_plan(parts, m.arena.part[i].at, m.arena.part[i].bytes, m.arena.part[i].what);
    int32_t *n_keys = calloc((size_t)n, sizeof(*n_keys));
    if (n_keys == NULL || !c->mid_block_add_attention) {
        free(n_keys);
        return;
    }
    count_keys(g, n, n_keys);
    exchange_plan(&(exchange_layout){.n_members = n, .member = rank, .n_ulysses = 1, .n_rows = n_keys,
                                     .row_bytes = key_bytes(c, type), .n_heads = 1}, parts);
    free(n_keys);
}

static status open_exchange(walk *w, const geometry *g, device *dev)
{
    if (!w->config->mid_block_add_attention) return ST_OK;
    int32_t *n_keys = calloc((size_t)w->strips.n_strips, sizeof(*n_keys));
    status   st = comm_agree(w->strips.group, n_keys != NULL ? ST_OK : err_set(ST_NO_MEMORY, "keys of strips"));
    if (st == ST_OK) {
        count_keys(g, w->strips.n_strips, n_keys);
        st = kv_exchange_open(&w->exchange, &(kv_exchange_opts){
            .comm = w->strips.group, .dev = dev, .n_rows = n_keys, .row_bytes = key_bytes(w->config, w->type)});
    }
    free(n_keys);
    return st;
}

/* ---- a decode */

/* The strips' tokens from rank 0, all ranks of the group; *mine is yours to free. */
static status scatter_latent(vae_decoder *v, const vae_strips *strips, const geometry *g, const float *packed, float **mine)
{
    status       st = ST_OK;
    const size_t row = (size_t)g->cols * (size_t)v->config.latent_channels * 4 * sizeof(float); /* of tokens */
    size_t      *bytes = calloc((size_t)strips->n_strips, sizeof(*bytes));
    *mine = malloc((size_t)strips->mine.count * row);
    if (bytes == NULL || *mine == NULL) st = err_set(ST_NO_MEMORY, "latent of a strip: %d rows", strips->mine.count);
    TRY(comm_agree(strips->group, st));
    for (int r = 0; r < strips->n_strips; r++) bytes[r] = (size_t)geometry_strip(g, strips->n_strips, r).count * row;
    TRY(comm_scatter(strips->group, 0, packed, bytes, *mine));
fail:
    free(bytes);
    return st;
}

/* The picture's rows, strip after strip, in order to rank 0's sink. When the sink fails rank 0 goes on taking rows, so
 * that nobody is left with some, and tells in the end. */
static status sink_strips(vae_decoder *v, const vae_strips *strips, const geometry *g, const uint8_t *samples,
                          const row_sink *sink)
{
    status        st = ST_OK, sink_st = ST_OK;
    const size_t  row_bytes = (size_t)g->width * RGB;
    const int32_t scale = g->height / g->rows;
    uint8_t      *host = malloc(row_bytes * SINK_ROWS);
    TRY(comm_agree(strips->group,
                   host != NULL ? ST_OK : err_set(ST_NO_MEMORY, "picture: %d rows of %zu bytes", SINK_ROWS, row_bytes)));
    for (int r = 0; r < strips->n_strips; r++) {
        const strip   part = geometry_strip(g, strips->n_strips, r);
        const int32_t first = part.first * scale, n_rows = part.count * scale;
        if (strips->rank != 0 && strips->rank != r) continue;
        for (int32_t row = 0; row < n_rows; row += SINK_ROWS) {
            const int32_t n = n_rows - row < SINK_ROWS ? n_rows - row : SINK_ROWS;
            const size_t  bytes = (size_t)n * row_bytes;
            if (strips->rank == r) {
                TRY(stream_copy_out(v->opts.compute, host, samples + (size_t)row * row_bytes, bytes));
                TRY(stream_sync(v->opts.compute));
            }
            if (r != 0 && strips->rank == r) TRY(comm_send(strips->group, 0, host, bytes));
            if (r != 0 && strips->rank == 0) TRY(comm_receive(strips->group, r, host, bytes));
            if (strips->rank == 0 && sink_st == ST_OK) sink_st = sink->rows(sink->ctx, first + row, n, host);
        }
    }
    st = comm_agree(strips->group, sink_st);
fail:
    free(host);
    return st;
}

static status decode_strip(vae_decoder *v, walk *w, decode_memory *m, const geometry *g, const float *mine)
{
    const vae_config *c = &v->config;
    const size_t      n_values = (size_t)w->strips.mine.count * (size_t)g->cols * (size_t)c->latent_channels * 4;
    PUT(w, stream_copy_in(w->compute, m->packed, mine, n_values * sizeof(float)));
    PUT(w, stream_latent_unpack(w->compute, &(latent_unpack_args){
        .packed = m->packed, .z = w->at, .height = w->strips.mine.count * PATCH, .width = g->latent_w,
        .channels = c->latent_channels, .scaling = (float)c->scaling_factor, .shift = (float)c->shift_factor,
        .type = w->type, .parity = w->parity}));
    walk_all(w, g);
    put_conv(w, (conv_call){.l = &v->weights->ends.conv_out, .x = w->at, .y = m->rgb, .c_in = w->channels, .c_out = RGB,
                            .kernel = 3, .normed = true, .silu = true});
    tap_stage(w, "vae.rgb", m->rgb, RGB);
    PUT(w, stream_to_u8(w->compute, &(to_u8_args){.x = m->rgb, .y = m->samples,
                                                  .n = (int64_t)strip_samples(g, w->strips.mine), .type = w->type,
                                                  .parity = w->parity}));
    status st = stream_settle(w->compute, w->st);
    if (w->exchange != NULL && st == ST_OK) st = kv_exchange_sync(w->exchange);
    return st;
}

status vae_decoder_decode(vae_decoder *v, const geometry *g, const float *packed, const row_sink *sink)
{
    status        st = ST_OK;
    walk          w = {.config = &v->config, .weights = v->weights, .type = v->opts.type, .parity = v->parity, .wrap = v->wrap,
                       .compute = v->opts.compute, .tap = v->opts.tap};
    decode_memory m = {0};
    float        *mine = NULL;
    TRY(vae_strips_open(&w.strips, v->opts.comm, g, v->opts.dev, v->opts.compute));
    if (w.strips.rank < w.strips.n_strips) {
        plan_decode(g, &w, &m);
        st = comm_agree(w.strips.group, arena_take(&m.arena, v->opts.dev, "VAE decoder"));
        if (st == ST_OK) st = open_exchange(&w, g, v->opts.dev);
        if (st == ST_OK) st = scatter_latent(v, &w.strips, g, packed, &mine);
        if (st == ST_OK) st = comm_agree(w.strips.group, decode_strip(v, &w, &m, g, mine));
        if (st == ST_OK) st = sink_strips(v, &w.strips, g, m.samples, sink);
        st = stream_settle(v->opts.compute, st);
        kv_exchange_close(w.exchange);
        arena_free(&m.arena);
    }
    st = comm_agree(v->opts.comm, st);
fail:
    free(mine);
    vae_strips_close(&w.strips);
    return st;
}
