#include "flux_transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "flux_weights.h"
#include "watchdog.h"

enum { SINUSOID = 256 };           /* width of the time and guidance embedding */
enum { STREAM_IMAGE, STREAM_TEXT, N_STREAMS };
static const float NORM_EPS = 1e-6f;

/* Chunks of D of a modulation vector. norm_out has scale first, unlike all others. */
enum { SHIFT_ATTN, SCALE_ATTN, GATE_ATTN, SHIFT_MLP, SCALE_MLP, GATE_MLP, DOUBLE_CHUNKS };
enum { SINGLE_CHUNKS = 3, OUT_SCALE = 0, OUT_SHIFT = 1, OUT_CHUNKS = 2 };

/* fp32 norm weights of one block, [head_dim] each, on the device. */
typedef struct qk_scales {
    const float *q[N_STREAMS], *k[N_STREAMS]; /* single blocks use STREAM_IMAGE */
} qk_scales;

struct flux_transformer {
    flux_transformer_opts opts;
    flux_config           config;
    flux_weights         *weights;
    int32_t               d, mlp; /* D and 4 D */
    size_t                element;
    comm                 *comm; /* those that render this picture */
    bool                  parity;
    bool                  drop_weights; /* give pages back after each block: the model is large beside memory */
    float                *scales;       /* device, all norm weights */
    qk_scales            *block_scales; /* [blocks] */

    /* one picture, between prepare and release */
    bool           prepared;
    flux_sequence  seq;
    position_plan  positions;
    row_range      rows;
    row_range     *rank_rows; /* [ranks] */
    int32_t       *n_rows;    /* [ranks] the same, counted */
    arena          memory;
    exchange_layout layout;
    exchange_share share; /* rows and heads that this rank attends with */
    kv_exchange   *exchange;
    unsigned char *hidden;  /* [rows, D] residual stream */
    unsigned char *context; /* [text rows, D] after context_embedder; the same at each step */
    unsigned char *normed;  /* [rows, D] */
    unsigned char *q;       /* [rows, D] */
    unsigned char *kv;      /* [rows, 2, D]: a row's keys, then its values */
    unsigned char *mixed;   /* [rows, 5 D]: attention output, then MLP hidden */
    unsigned char *packed;  /* [image rows, in_channels] latents in the activations' type */
    float         *state_max, *state_sum; /* [rows, heads] of our share */
    float         *state_out;             /* [rows, heads, head_dim] of our share */
    int32_t       *pos;     /* [rows, 3] */
    float         *table;   /* position tables of the step */
    float         *modulation; /* [units][n_steps, chunks * D]; see modulation_at */
};

/* ---- open */

static int n_blocks_of(const flux_config *c)
{
    return c->num_layers + c->num_single_layers;
}

/* All, or the first few (parity hunting). */
static int n_blocks_run(const flux_transformer *f)
{
    const int n = n_blocks_of(&f->config);
    return f->opts.n_blocks > 0 && f->opts.n_blocks < n ? f->opts.n_blocks : n;
}

static status open_scales(flux_transformer *f)
{
    status             st = ST_OK;
    const flux_config *c = &f->config;
    const size_t       head = (size_t)c->head_dim;
    const size_t       n = head * ((size_t)c->num_layers * 4 + (size_t)c->num_single_layers * 2);
    const bool         round = f->opts.type == DT_BF16;
    float             *host = malloc((n + 1) * sizeof(float));
    f->block_scales = calloc((size_t)n_blocks_of(c) + 1, sizeof(*f->block_scales));
    if (host == NULL || f->block_scales == NULL) {
        st = err_set(ST_NO_MEMORY, "transformer: norm weights, %zu floats", n);
        goto fail;
    }
    TRY(device_alloc(f->opts.dev, (n + 1) * sizeof(float), "transformer norm weights", (void **)&f->scales));
    size_t at = 0;
#define TAKE_SCALE(field, w)                                                                                           \
    do {                                                                                                               \
        weight_widen(&(w), round, host + at);                                                                          \
        (field) = f->scales + at;                                                                                      \
        at += head;                                                                                                    \
    } while (0)
    for (int i = 0; i < c->num_layers; i++) {
        const flux_double_weights *w = &f->weights->doubles[i];
        TAKE_SCALE(f->block_scales[i].q[STREAM_IMAGE], w->image.norm_q);
        TAKE_SCALE(f->block_scales[i].k[STREAM_IMAGE], w->image.norm_k);
        TAKE_SCALE(f->block_scales[i].q[STREAM_TEXT], w->text.norm_q);
        TAKE_SCALE(f->block_scales[i].k[STREAM_TEXT], w->text.norm_k);
    }
    for (int i = 0; i < c->num_single_layers; i++) {
        const flux_single_weights *w = &f->weights->singles[i];
        TAKE_SCALE(f->block_scales[c->num_layers + i].q[STREAM_IMAGE], w->norm_q);
        TAKE_SCALE(f->block_scales[c->num_layers + i].k[STREAM_IMAGE], w->norm_k);
    }
#undef TAKE_SCALE
    TRY(stream_copy_in(f->opts.compute, f->scales, host, at * sizeof(float)));
    TRY(stream_sync(f->opts.compute));
fail:
    free(host);
    return st;
}

static void set_widths(flux_transformer *f, const flux_config *c, dtype type)
{
    f->config = *c;
    f->d = c->n_heads * c->head_dim;
    f->mlp = 4 * f->d;
    f->element = dtype_bytes(type);
}

status flux_transformer_open(flux_transformer **out, const flux_transformer_opts *opts)
{
    status            st = ST_OK;
    flux_transformer *f = calloc(1, sizeof(*f));
    if (f == NULL) return err_set(ST_NO_MEMORY, "transformer: %zu bytes", sizeof(*f));
    f->opts = *opts;
    f->comm = opts->grid->replica;
    set_widths(f, &opts->model->flux, opts->type);
    TRY(flux_weights_open(&f->weights, opts->model));
    f->drop_weights = linear_pages_are_scarce(weights_bytes(f->weights->files));
    TRY(open_scales(f));
    *out = f;
    return ST_OK;
fail:
    flux_transformer_close(f);
    return st;
}

void flux_transformer_close(flux_transformer *f)
{
    if (f == NULL) return;
    flux_transformer_release(f);
    device_free(f->opts.dev, f->scales);
    free(f->block_scales);
    device_forget(f->opts.dev);
    flux_weights_close(f->weights);
    free(f);
}

/* ---- linear layers of this rank's rows */

static status put_product(flux_transformer *f, const linear *l, linear_rows rows)
{
    rows.type = f->opts.type;
    rows.parity = f->parity;
    return linear_put(f->opts.compute, l, &rows);
}

/* After the work put so far, the pages of these weights may leave memory. */
static status put_drop(flux_transformer *f, const void *weights_struct, size_t bytes)
{
    return f->drop_weights ? stream_drop(f->opts.compute, f->weights->files, weights_struct, bytes) : ST_OK;
}

/* ---- modulation: every vector of every step, before the loop */

/* Units: for each double block the image's and the text's modulation, for each single block one, and norm_out. */
static int n_units(const flux_config *c)
{
    return 2 * c->num_layers + c->num_single_layers + 1;
}

static const linear *unit_linear(const flux_transformer *f, int unit)
{
    const flux_config *c = &f->config;
    if (unit < 2 * c->num_layers) {
        const flux_double_weights *w = &f->weights->doubles[unit / 2];
        return unit % 2 == STREAM_IMAGE ? &w->image.modulation : &w->text.modulation;
    }
    unit -= 2 * c->num_layers;
    return unit < c->num_single_layers ? &f->weights->singles[unit].modulation : &f->weights->global.norm_out;
}

static size_t unit_chunks(const flux_config *c, int unit)
{
    if (unit < 2 * c->num_layers) return DOUBLE_CHUNKS;
    return unit < 2 * c->num_layers + c->num_single_layers ? SINGLE_CHUNKS : OUT_CHUNKS;
}

/* Floats before a unit. */
static size_t unit_offset(const flux_transformer *f, int unit)
{
    const flux_config *c = &f->config;
    size_t doubles = (size_t)(unit < 2 * c->num_layers ? unit : 2 * c->num_layers);
    size_t singles = (size_t)(unit - 2 * c->num_layers > 0 ? unit - 2 * c->num_layers : 0);
    if (singles > (size_t)c->num_single_layers) singles = (size_t)c->num_single_layers;
    size_t out = unit == n_units(c) ? OUT_CHUNKS : 0;
    return (doubles * DOUBLE_CHUNKS + singles * SINGLE_CHUNKS + out) * (size_t)f->d * (size_t)f->seq.n_steps;
}

static const float *modulation_at(const flux_transformer *f, int unit, int step, int chunk)
{
    size_t width = unit_chunks(&f->config, unit) * (size_t)f->d;
    return f->modulation + unit_offset(f, unit) + (size_t)step * width + (size_t)chunk * (size_t)f->d;
}

/* [cos(t w_0) .. cos(t w_127), sin(t w_0) ..], w_i = 10000^(-i/128); fp32 as the reference forms it. */
static void sinusoid(float t, float *out)
{
    enum { HALF = SINUSOID / 2 };
    for (int i = 0; i < HALF; i++) {
        float exponent = -(float)log(10000.0) * (float)i / (float)HALF;
        float angle = t * expf(exponent);
        out[i] = cosf(angle);
        out[HALF + i] = sinf(angle);
    }
}

/* rows [n_steps, n_in] fp32 (host) -> MLP -> out [n_steps, D] on the device. */
static status put_mlp(flux_transformer *f, const flux_mlp_weights *w, const float *rows, int32_t n_in, float *wide,
                      void *narrow, void *inner, void *out)
{
    status        st = ST_OK;
    stream       *s = f->opts.compute;
    const int32_t n = f->seq.n_steps;
    TRY(stream_copy_in(s, wide, rows, (size_t)n * (size_t)n_in * sizeof(float)));
    TRY(stream_convert(s, &(convert_args){
        .x = wide, .y = narrow, .n = (int64_t)n * n_in, .x_type = DT_F32, .y_type = f->opts.type}));
    TRY(put_product(f, &w->in, (linear_rows){.x = narrow, .y = inner, .ldx = n_in, .ldy = f->d, .n_rows = n,
                                          .act = ACT_SILU, .y_type = f->opts.type}));
    TRY(put_product(f, &w->out, (linear_rows){.x = inner, .y = out, .ldx = f->d, .ldy = f->d, .n_rows = n,
                                           .y_type = f->opts.type}));
    TRY(stream_sync(s)); /* rows may change */
fail:
    return st;
}

/* Scratch of the modulation, all [n_steps, ...]; only rank 0 needs the inputs. */
typedef struct modulation_scratch {
    arena  memory;
    float *wide;                   /* device: inputs */
    void  *narrow, *inner, *part;  /* device, in the activations' type */
    void  *temb;                   /* device: [n_steps, D] */
    float *rows;                   /* host: [n_steps, widest input] */
    float *host;                   /* host: the modulation of all units */
} modulation_scratch;

static size_t widest_input(const flux_transformer *f)
{
    const int32_t n = f->config.pooled_projection_dim > SINUSOID ? f->config.pooled_projection_dim : SINUSOID;
    return (size_t)(n > f->d ? n : f->d);
}

static void plan_modulation(const flux_transformer *f, modulation_scratch *m)
{
    const size_t n = (size_t)f->seq.n_steps, row = (size_t)f->d * f->element;
    const size_t inputs = comm_rank(f->comm) == 0 ? n * widest_input(f) : 0;
    arena_plan(&m->memory, &m->wide, inputs * sizeof(float), "inputs of the time embedding");
    arena_plan(&m->memory, &m->narrow, inputs * f->element, "inputs of the time embedding");
    arena_plan(&m->memory, &m->inner, n * row, "inner rows of the time embedding");
    arena_plan(&m->memory, &m->part, n * row, "part of the time embedding");
    arena_plan(&m->memory, &m->temb, n * row, "time embedding");
}

static status open_modulation(const flux_transformer *f, modulation_scratch *m)
{
    const size_t total = unit_offset(f, n_units(&f->config));
    m->rows = malloc((size_t)f->seq.n_steps * widest_input(f) * sizeof(float));
    m->host = malloc(total * sizeof(float));
    if (m->rows == NULL || m->host == NULL)
        return err_set(ST_NO_MEMORY, "modulation of %d steps: %zu bytes", f->seq.n_steps, total * sizeof(float));
    plan_modulation(f, m);
    return arena_take(&m->memory, f->opts.dev, "time embedding");
}

/* temb = (time + guidance) + pooled for all steps, on rank 0, in host memory. */
static status compute_temb(flux_transformer *f, modulation_scratch *m)
{
    status                     st = ST_OK;
    const flux_sequence       *seq = &f->seq;
    const flux_global_weights *w = &f->weights->global;
    const int64_t              n_values = (int64_t)seq->n_steps * f->d;
    const int32_t              n_pooled = f->config.pooled_projection_dim;
    const add_args             add = {.a = m->temb, .b = m->part, .y = m->temb, .n = n_values, .type = f->opts.type};

    if (seq->temb != NULL) {
        TRY(stream_copy_in(f->opts.compute, m->wide, seq->temb, (size_t)n_values * sizeof(float)));
        TRY(stream_convert(f->opts.compute, &(convert_args){
            .x = m->wide, .y = m->temb, .n = n_values, .x_type = DT_F32, .y_type = f->opts.type}));
    } else {
        for (int i = 0; i < seq->n_steps; i++) sinusoid(seq->t[i], m->rows + (size_t)i * SINUSOID);
        TRY(put_mlp(f, &w->time, m->rows, SINUSOID, m->wide, m->narrow, m->inner, m->temb));
        if (f->config.guidance_embeds) {
            for (int i = 0; i < seq->n_steps; i++) sinusoid(seq->guidance, m->rows + (size_t)i * SINUSOID);
            TRY(put_mlp(f, &w->guidance, m->rows, SINUSOID, m->wide, m->narrow, m->inner, m->part));
            TRY(stream_add(f->opts.compute, &add));
        }
        for (int i = 0; i < seq->n_steps; i++)
            memcpy(m->rows + (size_t)i * (size_t)n_pooled, seq->pooled, (size_t)n_pooled * sizeof(float));
        TRY(put_mlp(f, &w->pooled, m->rows, n_pooled, m->wide, m->narrow, m->inner, m->part));
        TRY(stream_add(f->opts.compute, &add));
    }
    TRY(tap_rows(f->opts.tap, f->opts.compute, "dit.temb", 0, f->opts.type, m->temb, f->d, 0, seq->n_steps, f->d));
    TRY(stream_copy_out(f->opts.compute, m->host, m->temb, (size_t)n_values * f->element));
fail:
    return stream_settle(f->opts.compute, st);
}

/* Each rank computes every n-th unit. */
static status compute_units(flux_transformer *f, modulation_scratch *m)
{
    status    st = ST_OK;
    stream   *s = f->opts.compute;
    const int n = f->seq.n_steps;
    TRY(stream_copy_in(s, m->temb, m->host, (size_t)n * (size_t)f->d * f->element));
    TRY(stream_sync(s)); /* host is about to change */
    TRY(stream_silu(s, &(silu_args){.x = m->temb, .y = m->part, .n = (int64_t)n * f->d, .type = f->opts.type}));
    for (int unit = comm_rank(f->comm); unit < n_units(&f->config); unit += comm_size(f->comm)) {
        const linear *l = unit_linear(f, unit);
        const size_t  at = unit_offset(f, unit);
        TRY(put_product(f, l, (linear_rows){.x = m->part, .y = f->modulation + at, .ldx = f->d, .ldy = l->w.shape[0],
                                         .n_rows = n, .y_type = DT_F32}));
        TRY(put_drop(f, l, sizeof(*l)));
        TRY(stream_copy_out(s, m->host + at, f->modulation + at, (unit_offset(f, unit + 1) - at) * sizeof(float)));
    }
fail:
    return stream_settle(s, st);
}

/* Every unit from the rank that computed it to all. */
static status spread_units(flux_transformer *f, modulation_scratch *m)
{
    status       st = ST_OK;
    const size_t total = unit_offset(f, n_units(&f->config));
    for (int unit = 0; unit < n_units(&f->config); unit++) {
        size_t at = unit_offset(f, unit);
        TRY(comm_bcast(f->comm, unit % comm_size(f->comm), m->host + at, (unit_offset(f, unit + 1) - at) * sizeof(float)));
    }
    if (f->opts.type == DT_BF16 && f->parity)
        for (size_t i = 0; i < total; i++) m->host[i] = bf16_round(m->host[i]);
    TRY(stream_copy_in(f->opts.compute, f->modulation, m->host, total * sizeof(float)));
fail:
    return stream_settle(f->opts.compute, st);
}

static void drop_linear(flux_transformer *f, const linear *l)
{
    device_drop(f->opts.dev, l->w.data, weight_bytes(&l->w));
    device_drop(f->opts.dev, l->b.data, weight_bytes(&l->b));
}

/* These weights are not needed again before the next picture (design D5). */
static void drop_modulation(flux_transformer *f)
{
    const flux_global_weights *w = &f->weights->global;
    const flux_mlp_weights    *mlps[] = {&w->time, &w->guidance, &w->pooled};
    for (int unit = comm_rank(f->comm); unit < n_units(&f->config); unit += comm_size(f->comm))
        drop_linear(f, unit_linear(f, unit));
    for (size_t i = 0; i < sizeof(mlps) / sizeof(mlps[0]); i++) {
        drop_linear(f, &mlps[i]->in);
        drop_linear(f, &mlps[i]->out);
    }
}

static status compute_modulation(flux_transformer *f)
{
    status             st = ST_OK;
    modulation_scratch m = {0};
    st = open_modulation(f, &m);
    if (st == ST_OK && comm_rank(f->comm) == 0) st = compute_temb(f, &m);
    TRY(comm_agree(f->comm, st));
    TRY(comm_bcast(f->comm, 0, m.host, (size_t)f->seq.n_steps * (size_t)f->d * f->element));
    TRY(comm_agree(f->comm, compute_units(f, &m)));
    drop_modulation(f);
    TRY(comm_agree(f->comm, spread_units(f, &m)));
fail:
    arena_free(&m.memory);
    free(m.rows);
    free(m.host);
    return st;
}

/* ---- prepare and release */

void flux_transformer_parity(flux_transformer *f, bool parity)
{
    f->parity = parity;
}

/* What a picture needs, from config, rows and share alone. */
static void plan_memory(flux_transformer *f, size_t table_floats)
{
    const flux_config *c = &f->config;
    const size_t       rows = (size_t)f->rows.count, d = (size_t)f->d, e = f->element;
    arena             *a = &f->memory;
    arena_plan(a, &f->hidden, rows * d * e, "residual stream");
    arena_plan(a, &f->context, (size_t)f->rows.n_text * d * e, "embedded text");
    arena_plan(a, &f->normed, rows * d * e, "normalised rows");
    arena_plan(a, &f->q, rows * d * e, "queries");
    arena_plan(a, &f->kv, 2 * rows * d * e, "keys and values");
    arena_plan(a, &f->mixed, rows * (d + (size_t)f->mlp) * e, "attention and MLP");
    arena_plan(a, &f->packed, (size_t)f->rows.n_image * (size_t)c->in_channels * e, "latents");
    const size_t shared = (size_t)f->share.n_rows * (size_t)f->share.n_heads; /* one row of one head each */
    arena_plan(a, &f->state_max, shared * sizeof(float), "softmax maxima");
    arena_plan(a, &f->state_sum, shared * sizeof(float), "softmax sums");
    arena_plan(a, &f->state_out, shared * (size_t)c->head_dim * sizeof(float), "softmax outputs");
    arena_plan(a, &f->pos, rows * 3 * sizeof(int32_t), "positions");
    arena_plan(a, &f->table, table_floats * sizeof(float), "position tables");
    arena_plan(a, &f->modulation, unit_offset(f, n_units(c)) * sizeof(float), "modulation");
}

/* Rows of all ranks and, with a grid of this shape, what one of them attends with. */
static status cut_rows(flux_transformer *f, const geometry *g, int n_text, grid_shape shape, int rank)
{
    const int n_ranks = shape.ulysses * shape.ring;
    f->rank_rows = calloc((size_t)n_ranks, sizeof(*f->rank_rows));
    f->n_rows = calloc((size_t)n_ranks, sizeof(*f->n_rows));
    if (f->rank_rows == NULL || f->n_rows == NULL) return err_set(ST_NO_MEMORY, "transformer: rows of %d ranks", n_ranks);
    for (int r = 0; r < n_ranks; r++) {
        f->rank_rows[r] = geometry_split(n_text, g->n_image, n_ranks, r);
        f->n_rows[r] = f->rank_rows[r].count;
    }
    f->rows = f->rank_rows[rank];
    f->layout = (exchange_layout){
        .n_members = shape.ring, .member = rank / shape.ulysses, .n_ulysses = shape.ulysses, .ulysses = rank % shape.ulysses,
        .n_rows = f->n_rows, .row_bytes = 2 * (size_t)f->d * f->element, .n_heads = f->config.n_heads};
    f->share = exchange_share_of(&f->layout);
    return ST_OK;
}

status flux_transformer_plan(const flux_config *c, dtype type, const geometry *g, int n_text, int n_steps, grid_shape shape,
                             int rank, transformer_plan *out)
{
    flux_transformer f = {.opts = {.type = type}, .seq = {.n_steps = n_steps}};
    set_widths(&f, c, type);
    status st = cut_rows(&f, g, n_text, shape, rank);
    if (st == ST_OK) {
        plan_memory(&f, (size_t)(c->axes_dims_rope[0] + g->rows * c->axes_dims_rope[1] + g->cols * c->axes_dims_rope[2]));
        *out = (transformer_plan){.rows = f.rows, .share = f.share, .parts = f.memory,
                                  .sent_ordered = exchange_bytes_sent(&f.layout, EXCHANGE_ORDERED) * n_blocks_of(c)};
        exchange_plan(&f.layout, &out->parts);
    }
    free(f.rank_rows);
    free(f.n_rows);
    return st;
}

/* Text rows of rank 0 to their owners, through context_embedder. */
static status embed_text(flux_transformer *f)
{
    status        st = ST_OK;
    stream       *s = f->opts.compute;
    const int32_t width = f->config.joint_attention_dim;
    const int32_t n = f->rows.n_text;
    const int     n_ranks = comm_size(f->comm);
    const size_t  n_values = (size_t)n * (size_t)width;
    arena         scratch = {0};
    float        *wide = NULL;
    void         *narrow = NULL;
    float        *mine = malloc((n_values + 1) * sizeof(float));
    size_t       *bytes = calloc((size_t)n_ranks, sizeof(*bytes));
    if (mine == NULL || bytes == NULL) st = err_set(ST_NO_MEMORY, "text rows: %zu values", n_values);
    arena_plan(&scratch, &wide, n_values * sizeof(float), "text rows");
    arena_plan(&scratch, &narrow, n_values * f->element, "text rows");
    if (st == ST_OK) st = arena_take(&scratch, f->opts.dev, "text rows");
    TRY(comm_agree(f->comm, st));
    for (int r = 0; r < n_ranks; r++) bytes[r] = (size_t)f->rank_rows[r].n_text * (size_t)width * sizeof(float);
    TRY(comm_scatter(f->comm, 0, f->seq.text, bytes, mine));
    if (n > 0) {
        TRY(stream_copy_in(s, wide, mine, n_values * sizeof(float)));
        TRY(stream_convert(s, &(convert_args){
            .x = wide, .y = narrow, .n = (int64_t)n_values, .x_type = DT_F32, .y_type = f->opts.type}));
        TRY(put_product(f, &f->weights->global.context_embedder,
                        (linear_rows){.x = narrow, .y = f->context, .ldx = width, .ldy = f->d, .n_rows = n,
                                   .y_type = f->opts.type}));
        TRY(tap_rows(f->opts.tap, s, "dit.context_embedder", 0, f->opts.type, f->context, f->d, f->rows.first, n, f->d));
    }
fail:
    st = stream_settle(s, st);
    arena_free(&scratch);
    free(mine);
    free(bytes);
    return st;
}

static status open_exchange(flux_transformer *f)
{
    return kv_exchange_open(&f->exchange, &(kv_exchange_opts){
        .comm = f->opts.grid->ring, .ulysses = f->opts.grid->ulysses, .dev = f->opts.dev, .n_rows = f->layout.n_rows,
        .row_bytes = f->layout.row_bytes, .n_heads = f->layout.n_heads, .schedule = f->opts.schedule,
        .reverse_order = f->opts.reverse_order});
}

status flux_transformer_prepare(flux_transformer *f, const flux_sequence *seq)
{
    status   st = ST_OK;
    int32_t *pos = NULL;

    flux_transformer_release(f);
    f->prepared = true;
    f->seq = *seq;
    f->positions = *seq->positions;
    st = cut_rows(f, seq->geometry, seq->n_text, f->opts.grid->shape, comm_rank(f->comm));
    if (st == ST_OK) {
        pos = malloc(((size_t)f->rows.count * 3 + 1) * sizeof(*pos));
        st = pos == NULL ? err_set(ST_NO_MEMORY, "positions of %d rows", f->rows.count) : ST_OK;
    }
    if (st == ST_OK) {
        plan_memory(f, f->positions.n_floats);
        st = arena_take(&f->memory, f->opts.dev, "transformer");
    }
    TRY(comm_agree(f->comm, st));
    TRY(open_exchange(f));
    geometry_positions(seq->geometry, f->rows, seq->n_text, pos);
    if (f->rows.count > 0)
        TRY(stream_copy_in(f->opts.compute, f->pos, pos, (size_t)f->rows.count * 3 * sizeof(*pos)));
    TRY(compute_modulation(f));
    TRY(embed_text(f));
fail:
    st = stream_settle(f->opts.compute, st); /* pos is read until here */
    free(pos);
    st = comm_agree(f->comm, st);
    if (st != ST_OK) flux_transformer_release(f);
    return st;
}

static size_t add_linear(const weight **list, size_t n, const linear *l)
{
    list[n++] = &l->w;
    if (l->b.data != NULL) list[n++] = &l->b;
    return n;
}

/* Of the image stream and the single blocks, in the order of their use; room for all of them. */
static size_t list_shared(const flux_transformer *f, const weight **list)
{
    const flux_weights *w = f->weights;
    size_t              n = add_linear(list, 0, &w->global.x_embedder);
    for (int i = 0; i < f->config.num_layers; i++) {
        const flux_stream_weights *image = &w->doubles[i].image;
        const linear *const        all[] = {&image->k, &image->v, &image->q, &image->out, &image->ff_in, &image->ff_out};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) n = add_linear(list, n, all[k]);
    }
    for (int i = 0; i < f->config.num_single_layers; i++) {
        const flux_single_weights *single = &w->singles[i];
        const linear *const        all[] = {&single->k, &single->v, &single->q, &single->mlp, &single->out};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) n = add_linear(list, n, all[k]);
    }
    return add_linear(list, n, &w->global.proj_out);
}

status flux_transformer_load(flux_transformer *f, weight_parts_figures *figures)
{
    enum { LINEARS_OF_BLOCK = 6 }; /* at most */
    status         st = ST_OK;
    const weight **list = NULL;
    for (int r = 0; r < comm_size(f->comm); r++)
        if (f->rank_rows[r].n_image == 0) return ST_OK;
    TRY(comm_open_channel(f->comm, f->opts.dev, NULL));
    list = calloc(2 * (size_t)(n_blocks_of(&f->config) * LINEARS_OF_BLOCK + 2), sizeof(*list));
    TRY(comm_agree(f->comm, list != NULL ? ST_OK : err_set(ST_NO_MEMORY, "transformer: a list of weights")));
    TRY(weight_parts_load(f->comm, f->opts.dev, f->opts.compute, list, list_shared(f, list), figures));
fail:
    free(list);
    return st;
}

void flux_transformer_release(flux_transformer *f)
{
    if (!f->prepared) return;
    stream_sync(f->opts.compute); /* nothing may use the memory any more */
    kv_exchange_close(f->exchange);
    f->exchange = NULL;
    arena_free(&f->memory);
    free(f->rank_rows);
    free(f->n_rows);
    f->rank_rows = NULL;
    f->n_rows = NULL;
    f->prepared = false;
}

status flux_transformer_sync(flux_transformer *f)
{
    status st = stream_sync(f->opts.compute);
    status travel_st = kv_exchange_sync(f->exchange);
    return st != ST_OK ? st : travel_st;
}

double flux_transformer_travel_s(const flux_transformer *f)
{
    return kv_exchange_travel_s(f->exchange);
}

int64_t flux_transformer_bytes_per_step(const flux_transformer *f)
{
    return exchange_bytes_sent(&f->layout, f->opts.schedule) * n_blocks_run(f);
}

row_range flux_transformer_rows(const flux_transformer *f)
{
    return f->rows;
}

/* ---- one forward */

/* A run of this rank's rows that one stream's weights apply to. */
typedef struct span {
    int32_t first, n;
    int32_t n_first; /* text rows in it, when one weight serves both streams */
} span;

static void *at_row(const flux_transformer *f, unsigned char *buffer, int64_t row, int64_t ld)
{
    return buffer + (size_t)(row * ld) * f->element;
}

static status put_norm(flux_transformer *f, span rows, int unit, int step, int shift_chunk, int scale_chunk)
{
    return stream_layernorm(f->opts.compute, &(layernorm_args){
        .x = at_row(f, f->hidden, rows.first, f->d), .y = at_row(f, f->normed, rows.first, f->d),
        .scale = modulation_at(f, unit, step, scale_chunk), .shift = modulation_at(f, unit, step, shift_chunk),
        .ldx = f->d, .ldy = f->d, .n_rows = rows.n, .width = f->d, .eps = NORM_EPS, .type = f->opts.type,
        .one_plus = true, .parity = f->parity});
}

static status put_rope(flux_transformer *f, span rows, void *x, int64_t ld, const float *scale)
{
    const position_plan *p = &f->positions;
    return stream_qk_norm_rope(f->opts.compute, &(qk_norm_rope_args){
        .x = x, .scale = scale, .table = f->table, .pos = f->pos + (size_t)rows.first * 3, .ld = ld,
        .table_at = {(int64_t)p->offset[0], (int64_t)p->offset[1], (int64_t)p->offset[2]},
        .n_pairs = {p->width[0] / 2, p->width[1] / 2, p->width[2] / 2},
        .n_rows = rows.n, .n_heads = f->config.n_heads, .head_dim = f->config.head_dim,
        .eps = NORM_EPS, .type = f->opts.type, .parity = f->parity});
}

/* y = x W^T of a span, from one buffer to another. */
static status put_rows(flux_transformer *f, span rows, const linear *l, void *x, int64_t ldx, void *y, int64_t ldy,
                       activation act, const float *gate)
{
    return put_product(f, l, (linear_rows){.x = at_row(f, x, rows.first, ldx), .y = at_row(f, y, rows.first, ldy),
                                        .ldx = ldx, .ldy = ldy, .n_rows = rows.n, .n_first = rows.n_first, .act = act,
                                        .gate = gate, .y_type = f->opts.type});
}

static status put_keys_and_values(flux_transformer *f, span rows, const linear *k, const linear *v, const float *k_scale)
{
    status         st = ST_OK;
    const int64_t  ld = 2 * (int64_t)f->d;
    unsigned char *values = f->kv + (size_t)f->d * f->element;
    TRY(put_rows(f, rows, k, f->normed, f->d, f->kv, ld, ACT_NONE, NULL));
    TRY(put_rope(f, rows, at_row(f, f->kv, rows.first, ld), ld, k_scale));
    TRY(put_rows(f, rows, v, f->normed, f->d, values, ld, ACT_NONE, NULL));
fail:
    return st;
}

static status put_queries(flux_transformer *f, span rows, const linear *q, const float *q_scale)
{
    status st = ST_OK;
    TRY(put_rows(f, rows, q, f->normed, f->d, f->q, f->d, ACT_NONE, NULL));
    TRY(put_rope(f, rows, at_row(f, f->q, rows.first, f->d), f->d, q_scale));
fail:
    return st;
}

/* Rows of the sequence that attention takes at once. */
typedef struct attention_part {
    int32_t first, n; /* of a block or of our share */
    int32_t n_text;   /* the first of them */
} attention_part;

/* All rows [first_row, + n_rows) at once; on a ring (`wrap`) text and image apart, as channels count between the two that
 * do not between others. Returns the number of parts. */
static int cut_parts(const flux_transformer *f, int32_t first_row, int32_t n_rows, attention_part parts[N_STREAMS])
{
    int32_t n_text = f->seq.n_text - first_row < n_rows ? f->seq.n_text - first_row : n_rows;
    if (n_text < 0) n_text = 0;
    parts[0] = (attention_part){0, n_rows, n_text};
    if (!f->positions.wrap || n_text == 0 || n_text == n_rows) return 1;
    parts[0] = (attention_part){0, n_text, n_text};
    parts[1] = (attention_part){n_text, n_rows - n_text, 0};
    return 2;
}

/* One part of our queries meets one part of a block. */
static status put_meeting(flux_transformer *f, const void *q, attention_part rows, const kv_block *block,
                          attention_part keys, bool first, bool last)
{
    const int32_t        head_dim = f->config.head_dim, n_heads = f->share.n_heads;
    const int64_t        d = (int64_t)n_heads * head_dim;
    const size_t         state = (size_t)rows.first * (size_t)n_heads;
    const unsigned char *k = (const unsigned char *)block->data + (size_t)(keys.first * 2 * d) * f->element;
    unsigned char       *out = kv_exchange_out(f->exchange);
    const int64_t        ldo = out != NULL ? d : f->d + f->mlp;
    const bool           apart = f->positions.wrap && (rows.n_text > 0) != (keys.n_text > 0);
    return stream_attention(f->opts.compute, &(attention_args){
        .q = (const unsigned char *)q + (size_t)(rows.first * d) * f->element,
        .k = k, .v = k + (size_t)d * f->element, .out = at_row(f, out != NULL ? out : f->mixed, rows.first, ldo),
        .state_max = f->state_max + state, .state_sum = f->state_sum + state,
        .state_out = f->state_out + state * (size_t)head_dim, .q_keep = apart ? f->table + f->positions.keep : NULL,
        .ldq = d, .ldk = 2 * d, .ldv = 2 * d, .ldo = ldo, .n_q = rows.n, .n_kv = keys.n, .kv_first = keys.n_text,
        .n_heads = n_heads, .head_dim = head_dim, .scale = 1.0f / sqrtf((float)head_dim), .type = f->opts.type,
        .first = first, .last = last});
}

/* Attention of our share of rows and heads over the blocks of all members; its outputs end in `mixed`. */
static status put_attention(flux_transformer *f, const void *q)
{
    status         st = ST_OK;
    attention_part rows[N_STREAMS], keys[N_STREAMS];
    const int      n_rows = cut_parts(f, f->share.first_row, f->share.n_rows, rows);
    int32_t        n_left = f->seq.n_text + f->seq.geometry->n_image;
    for (bool first = true;; first = false) {
        kv_block block;
        TRY(kv_exchange_next(f->exchange, f->opts.compute, &block));
        if (block.data == NULL) break;
        n_left -= block.n_rows;
        const int n_keys = cut_parts(f, block.first_row, block.n_rows, keys);
        for (int r = 0; f->share.n_rows > 0 && r < n_rows; r++)
            for (int k = 0; k < n_keys; k++)
                TRY(put_meeting(f, q, rows[r], &block, keys[k], first && k == 0, n_left == 0 && k == n_keys - 1));
    }
    TRY(kv_exchange_output(f->exchange, f->opts.compute, f->mixed, (size_t)(f->d + f->mlp) * f->element));
    TRY(kv_exchange_end(f->exchange, f->opts.compute));
fail:
    return st;
}

static status tap_block(flux_transformer *f, int block, int step, const char *what, span rows, void *buffer, int64_t ld,
                        int64_t first_row)
{
    if (f->opts.tap == NULL || rows.n == 0) return ST_OK;
    char name[64];
    snprintf(name, sizeof(name), "dit.%d.%s", block, what);
    return tap_rows(f->opts.tap, f->opts.compute, name, step, f->opts.type, at_row(f, buffer, rows.first, ld), ld,
                    first_row, rows.n, f->d);
}

typedef struct layer_mark {
    comm *comm;
    int   layer;
} layer_mark;

static status mark_layer(void *args)
{
    const layer_mark *mark = args;
    watchdog_layer(mark->comm, mark->layer);
    return ST_OK;
}

static status double_block(flux_transformer *f, int block, int step)
{
    status                     st = ST_OK;
    const flux_double_weights *w = &f->weights->doubles[block];
    const flux_stream_weights *stream_weights[N_STREAMS] = {&w->image, &w->text};
    const qk_scales           *scales = &f->block_scales[block];
    const int64_t              wide = f->d + f->mlp; /* row stride of `mixed` */
    const span                 spans[N_STREAMS] = {{f->rows.n_text, f->rows.n_image, 0}, {0, f->rows.n_text, 0}};
    unsigned char             *mlp = f->mixed + (size_t)f->d * f->element;
    const void                *q = NULL; /* of our share */

    for (int i = 0; i < N_STREAMS; i++) {
        if (spans[i].n == 0) continue;
        TRY(put_norm(f, spans[i], 2 * block + i, step, SHIFT_ATTN, SCALE_ATTN));
        TRY(put_keys_and_values(f, spans[i], &stream_weights[i]->k, &stream_weights[i]->v, scales->k[i]));
    }
    TRY(kv_exchange_begin(f->exchange, f->opts.compute, f->kv));
    for (int i = 0; i < N_STREAMS; i++)
        if (spans[i].n > 0) TRY(put_queries(f, spans[i], &stream_weights[i]->q, scales->q[i]));
    TRY(kv_exchange_queries(f->exchange, f->opts.compute, f->q, &q));
    TRY(put_attention(f, q));
    TRY(tap_block(f, block, step, "attn_out", (span){0, f->rows.count, 0}, f->mixed, wide, f->rows.first));
    for (int i = 0; i < N_STREAMS; i++) {
        const int unit = 2 * block + i;
        if (spans[i].n == 0) continue;
        TRY(put_rows(f, spans[i], &stream_weights[i]->out, f->mixed, wide, f->hidden, f->d, ACT_NONE,
                     modulation_at(f, unit, step, GATE_ATTN)));
        TRY(put_norm(f, spans[i], unit, step, SHIFT_MLP, SCALE_MLP));
        TRY(put_rows(f, spans[i], &stream_weights[i]->ff_in, f->normed, f->d, mlp, wide, ACT_GELU_TANH, NULL));
        TRY(put_rows(f, spans[i], &stream_weights[i]->ff_out, mlp, wide, f->hidden, f->d, ACT_NONE,
                     modulation_at(f, unit, step, GATE_MLP)));
    }
    TRY(put_drop(f, w, sizeof(*w)));
fail:
    return st;
}

static status single_block(flux_transformer *f, int block, int step)
{
    status                     st = ST_OK;
    const int                  index = block - f->config.num_layers;
    const flux_single_weights *w = &f->weights->singles[index];
    const qk_scales           *scales = &f->block_scales[block];
    const int                  unit = 2 * f->config.num_layers + index;
    const int64_t              wide = f->d + f->mlp;
    const span                 all = {0, f->rows.count, f->rows.n_text};
    unsigned char             *mlp = f->mixed + (size_t)f->d * f->element;
    const void                *q = NULL; /* of our share */

    if (all.n > 0) {
        TRY(put_norm(f, all, unit, step, SHIFT_ATTN, SCALE_ATTN));
        TRY(put_keys_and_values(f, all, &w->k, &w->v, scales->k[STREAM_IMAGE]));
    }
    TRY(kv_exchange_begin(f->exchange, f->opts.compute, f->kv));
    if (all.n > 0) TRY(put_queries(f, all, &w->q, scales->q[STREAM_IMAGE]));
    TRY(kv_exchange_queries(f->exchange, f->opts.compute, f->q, &q));
    if (all.n > 0) /* hides the first transfers */
        TRY(put_rows(f, all, &w->mlp, f->normed, f->d, mlp, wide, ACT_GELU_TANH, NULL));
    TRY(put_attention(f, q));
    TRY(tap_block(f, block, step, "attn_out", all, f->mixed, wide, f->rows.first));
    if (all.n > 0)
        TRY(put_rows(f, all, &w->out, f->mixed, wide, f->hidden, f->d, ACT_NONE,
                     modulation_at(f, unit, step, GATE_ATTN)));
    TRY(put_drop(f, w, sizeof(*w)));
fail:
    return st;
}

static status embed_latents(flux_transformer *f, int step, const float *latents)
{
    status        st = ST_OK;
    stream       *s = f->opts.compute;
    const int32_t channels = f->config.in_channels;
    const span    image = {f->rows.n_text, f->rows.n_image, 0};
    if (f->rows.n_text > 0)
        TRY(stream_copy(s, f->hidden, f->context, (size_t)f->rows.n_text * (size_t)f->d * f->element));
    if (image.n > 0) {
        TRY(stream_convert(s, &(convert_args){.x = latents, .y = f->packed, .n = (int64_t)image.n * channels,
                                              .x_type = DT_F32, .y_type = f->opts.type}));
        TRY(put_product(f, &f->weights->global.x_embedder,
                        (linear_rows){.x = f->packed, .y = at_row(f, f->hidden, image.first, f->d), .ldx = channels,
                                   .ldy = f->d, .n_rows = image.n, .y_type = f->opts.type}));
        TRY(tap_rows(f->opts.tap, s, "dit.x_embedder", step, f->opts.type, at_row(f, f->hidden, image.first, f->d), f->d,
                     geometry_first_token(f->rows, f->seq.n_text), image.n, f->d));
    }
fail:
    return st;
}

static status project_velocity(flux_transformer *f, int step, void *velocity)
{
    status        st = ST_OK;
    const span    image = {f->rows.n_text, f->rows.n_image, 0};
    const int32_t channels = f->config.out_channels;
    const int     unit = n_units(&f->config) - 1;
    const int64_t first = geometry_first_token(f->rows, f->seq.n_text);
    if (image.n == 0) return ST_OK;
    TRY(put_norm(f, image, unit, step, OUT_SHIFT, OUT_SCALE));
    TRY(tap_rows(f->opts.tap, f->opts.compute, "dit.norm_out", step, f->opts.type,
                 at_row(f, f->normed, image.first, f->d), f->d, first, image.n, f->d));
    TRY(put_product(f, &f->weights->global.proj_out,
                    (linear_rows){.x = at_row(f, f->normed, image.first, f->d), .y = velocity, .ldx = f->d, .ldy = channels,
                               .n_rows = image.n, .y_type = f->opts.type}));
    TRY(tap_rows(f->opts.tap, f->opts.compute, "dit.velocity", step, f->opts.type, velocity, channels, first, image.n,
                 channels));
fail:
    return st;
}

status flux_transformer_step(flux_transformer *f, int step, const float *table, const float *latents, void *velocity)
{
    status    st = ST_OK;
    const int n_blocks = n_blocks_run(f);
    const int64_t n_rounds = kv_exchange_rounds(f->exchange) + n_blocks;
    TRY(stream_copy_in(f->opts.compute, f->table, table, f->positions.n_floats * sizeof(float)));
    TRY(embed_latents(f, step, latents));
    for (int block = 0; block < n_blocks; block++) {
        const layer_mark mark = {f->comm, block};
        TRY(stream_call(f->opts.compute, mark_layer, &mark, sizeof(mark)));
        TRY(block < f->config.num_layers ? double_block(f, block, step) : single_block(f, block, step));
        TRY(tap_block(f, block, step, "image", (span){f->rows.n_text, f->rows.n_image, 0}, f->hidden, f->d,
                      geometry_first_token(f->rows, f->seq.n_text)));
        TRY(tap_block(f, block, step, "text", (span){0, f->rows.n_text, 0}, f->hidden, f->d, f->rows.first));
    }
    TRY(project_velocity(f, step, velocity));
    return ST_OK;
fail:
    kv_exchange_carry_on(f->exchange, f->opts.compute, f->kv, n_rounds); /* the other ranks are inside this step */
    flux_transformer_sync(f);
    return st;
}
