#include "machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "cpu_clock.h"
#include "png_writer.h"
#include "sha256.h"

/* Data sheets, dense bf16: H100 SXM 989 TFLOP/s, NVLink 450 GB/s one way, 80 GB; A100 SXM 312, 300 GB/s, 80 GB; L40S
 * 362, L40 181, L20 119.5, all three PCIe 4 x16 25 GB/s, 48 GB; RTX 4090 165, the same PCIe, 24 GB; to the host PCIe 5 x16
 * (H100, 50 GB/s) or 4 x16. What is reached of them: attention 60 %, products 65 %; 70 % of both where published times say
 * so (A100, L40, L20); links 80 %, convolutions 29 %; 8 % for all that is neither. Reasons: docs/cost-model.md. */
static const struct {
    const char *name;
    double      peak, attention, products, link, host_link, memory_gb;
} KNOWN[] = {
    {"h100", 989e12, 0.60, 0.65, 360e9, 40e9, 80},
    {"a100", 312e12, 0.70, 0.70, 240e9, 20e9, 80},
    {"l40s", 362e12, 0.60, 0.65, 20e9, 20e9, 48},
    {"l40", 181e12, 0.70, 0.70, 20e9, 20e9, 48},
    {"l20", 119.5e12, 0.70, 0.70, 20e9, 20e9, 48},
    {"rtx4090", 165e12, 0.60, 0.65, 20e9, 20e9, 24},
};
/* Samples hashed and written as PNG by one core of the host: a server's of 2020 and later. */
static const double PNG_BYTES_S = 60e6;
enum { N_KNOWN = sizeof(KNOWN) / sizeof(KNOWN[0]) };
const char *const machine_names[] = {"h100", "a100", "l40s", "l40", "l20", "rtx4090", NULL};

status machine_named(machine *out, const char *name)
{
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (strcmp(KNOWN[i].name, name) != 0) continue;
        *out = (machine){.attention = KNOWN[i].peak * KNOWN[i].attention, .link = KNOWN[i].link,
                         .host_link = KNOWN[i].host_link, .overhead = 1.08, .own_memory = true,
                         .memory_bytes = (int64_t)(KNOWN[i].memory_gb * 1e9)};
        /* Head width 512 goes through kernels at half the rate. */
        out->wide_attention = out->attention / 2;
        for (int p = 0; p < N_PRODUCTS; p++) out->products[p] = KNOWN[i].peak * KNOWN[i].products;
        for (int b = 0; b < VAE_MAX_BLOCKS; b++) out->conv[b] = KNOWN[i].peak * 0.29;
        out->png = PNG_BYTES_S;
        snprintf(out->name, sizeof(out->name), "%s", name);
        return ST_OK;
    }
    return err_set(ST_USAGE, "--for: found \"%s\"; allowed: h100, a100, l40s, l40, l20, rtx4090", name);
}

/* ---- measuring */

typedef struct bench {
    device  *dev;
    stream  *s;
    comm    *comm;
    dtype    type;
    double   budget_s; /* of one operation */
    const machine_load *load;
    arena    memory;
    void    *x, *y, *w, *state_out;
    float   *scale, *state_max, *state_sum, *table;
    int32_t *pos;
} bench;

/* Seconds on a clock of the operations: where threads outnumber cores, the fastest try is one that had a core alone, and a
 * step never has; there processor time counts, over the threads and their share of a core. */
static double op_clock(const bench *b)
{
    return b->load->core_share < 1 ? process_cpu_s() / b->load->n_threads / b->load->core_share : comm_now();
}

/* Seconds of the operation that `put` puts: once to warm up, then as often as the budget allows; the fastest. */
static status time_of(bench *b, status (*put)(bench *, const void *), const void *args, double *seconds)
{
    status st = ST_OK;
    double best = INFINITY, spent = 0;
    for (int i = 0; i == 0 || (spent < b->budget_s && i < 50) || i < 2; i++) {
        const double began = op_clock(b);
        TRY(put(b, args));
        TRY(stream_sync(b->s));
        const double took = op_clock(b) - began;
        spent += took;
        if (i > 0 && took < best) best = took;
        if (i > 0 && spent > b->budget_s) break;
    }
    *seconds = best;
fail:
    return st;
}

static status put_linear(bench *b, const void *args)
{
    return stream_linear(b->s, args);
}

static status put_attention(bench *b, const void *args)
{
    return stream_attention(b->s, args);
}

static status put_conv(bench *b, const void *args)
{
    return stream_conv(b->s, args);
}

typedef struct rest_args {
    layernorm_args    norm;
    qk_norm_rope_args rope;
} rest_args;

/* What a row meets in a block beside products and attention: about 1.5 norms (two in a double block, one in a single
 * one), and rotary positions of q and k. */
static status put_rest(bench *b, const void *args)
{
    status           st = ST_OK;
    const rest_args *a = args;
    TRY(stream_layernorm(b->s, &a->norm));
    TRY(stream_qk_norm_rope(b->s, &a->rope));
    TRY(stream_qk_norm_rope(b->s, &a->rope));
fail:
    return st;
}

static int32_t at_most(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- how much: so much work that waking the threads is little beside it, and some tries fit the budget */

static int32_t clamp(double wanted, int32_t unit, int32_t least, int32_t most)
{
    const int32_t n = wanted < most ? (int32_t)wanted / unit * unit : most;
    return n > least ? n : least;
}

/* Rows of products and of the rest; 512 at D = 3072. */
static int32_t sample_rows(const model *m)
{
    return clamp(1.6e6 / (m->flux.n_heads * m->flux.head_dim), ROW_TILE, 512, 4096);
}

enum { MOST_QUERIES = 2048 };

/* Queries, and as many keys, when their channels are d in all. */
static int32_t sample_queries(int d)
{
    return clamp(sqrt(2.4e9 / 4 / d), KEY_TILE, 384, MOST_QUERIES);
}

/* Tiles of a convolution down, and as many across. */
static int32_t sample_tiles(int channels)
{
    const double tile_flops = 2.0 * CONV_TILE_H * CONV_TILE_W * channels * channels * 9;
    return clamp(sqrt(1.5e9 / tile_flops), 1, 2, 16);
}

static status measure_products(bench *b, const model *m, int32_t n_rows, machine *out)
{
    static const int widths[N_PRODUCTS][2] = {{1, 1}, {1, 4}, {4, 1}, {5, 1}};
    status           st = ST_OK;
    const int32_t    d = m->flux.n_heads * m->flux.head_dim, rows = at_most(n_rows, sample_rows(m));
    for (int p = 0; p < N_PRODUCTS; p++) {
        double      seconds = 0;
        linear_args args = {.x = b->x, .y = b->y, .w = {.data = b->w, .type = DT_BF16}, .ldx = widths[p][0] * d,
                            .ldy = widths[p][1] * d, .n_rows = rows, .n_in = widths[p][0] * d, .n_out = widths[p][1] * d,
                            .type = b->type, .y_type = b->type, .act = p == PRODUCT_1_4 ? ACT_GELU_TANH : ACT_NONE,
                            .gate = p >= PRODUCT_4_1 ? b->scale : NULL};
        TRY(time_of(b, put_linear, &args, &seconds));
        out->products[p] = 2.0 * rows * args.n_in * args.n_out / seconds;
    }
fail:
    return st;
}

static status measure_rest(bench *b, const model *m, int32_t n_rows, machine *out)
{
    status             st = ST_OK;
    double             seconds = 0;
    const flux_config *c = &m->flux;
    const int32_t      d = c->n_heads * c->head_dim, rows = at_most(n_rows, sample_rows(m));
    const rest_args    args = {
        .norm = {.x = b->x, .y = b->y, .scale = b->scale, .shift = b->scale, .ldx = d, .ldy = d, .n_rows = rows, .width = d,
                 .eps = 1e-6f, .type = b->type, .one_plus = true},
        .rope = {.x = b->y, .scale = b->scale, .table = b->table, .pos = b->pos, .ld = d,
                 .n_pairs = {c->axes_dims_rope[0] / 2, c->axes_dims_rope[1] / 2, c->axes_dims_rope[2] / 2}, .n_rows = rows,
                 .n_heads = c->n_heads, .head_dim = c->head_dim, .eps = 1e-6f, .type = b->type}};
    TRY(time_of(b, put_rest, &args, &seconds));
    out->row_s = seconds / rows;
fail:
    return st;
}

static status measure_attention(bench *b, int n_heads, int head_dim, int32_t n_rows, int32_t n_keys, double *out)
{
    status         st = ST_OK;
    double         seconds = 0;
    const int32_t  d = n_heads * head_dim, n_q = at_most(n_rows, sample_queries(d)), n_kv = at_most(n_keys, sample_queries(d));
    attention_args args = {.q = b->x, .k = b->x, .v = b->x, .out = b->y, .state_max = b->state_max,
                           .state_sum = b->state_sum, .state_out = b->state_out, .ldq = d, .ldk = d, .ldv = d, .ldo = d,
                           .n_q = n_q, .n_kv = n_kv, .n_heads = n_heads, .head_dim = head_dim,
                           .scale = 1.0f / sqrtf((float)head_dim), .type = b->type, .first = true};
    TRY(time_of(b, put_attention, &args, &seconds));
    *out = 4.0 * n_q * n_kv * d / seconds;
fail:
    return st;
}

static status measure_convolutions(bench *b, const model *m, machine *out)
{
    status            st = ST_OK;
    const vae_config *c = &m->vae;
    for (int i = 0; i < c->n_blocks; i++) {
        const int32_t width = c->block_out_channels[c->n_blocks - 1 - i];
        const int32_t tiles = sample_tiles(width), height = tiles * CONV_TILE_H, across = tiles * CONV_TILE_W;
        double        seconds = 0;
        conv_args     args = {.x = b->x, .y = b->y, .norm_mul = b->scale, .norm_add = b->scale,
                              .w = {.data = b->w, .type = DT_BF16}, .height = height, .width = across, .c_in = width,
                              .c_out = width, .kernel = 3, .type = b->type, .y_type = b->type, .silu = true};
        TRY(time_of(b, put_conv, &args, &seconds));
        out->conv[i] = 2.0 * height * across * width * width * 9 / seconds;
    }
fail:
    return st;
}

static status measure_link(bench *b, machine *out)
{
    enum { BYTES = 4 << 20, TIMES = 4 };
    status         st = ST_OK;
    const int      n = comm_size(b->comm), rank = comm_rank(b->comm);
    arena          memory = {0};
    unsigned char *from = NULL, *to = NULL;
    double         best = INFINITY;
    arena_plan(&memory, &from, BYTES, "messages");
    arena_plan(&memory, &to, BYTES, "messages");
    if (n == 1) {
        out->link = INFINITY;
        return ST_OK;
    }
    TRY(comm_open_channel(b->comm, b->dev, NULL));
    TRY(comm_agree(b->comm, arena_take(&memory, b->dev, "measuring a link")));
    TRY(stream_copy(b->s, from, b->memory.base, arena_bytes(&b->memory) < BYTES ? arena_bytes(&b->memory) : BYTES));
    for (int i = 0; i < TIMES; i++) {
        const message sends = {(rank + 1) % n, from, BYTES}, receives = {(rank - 1 + n) % n, to, BYTES};
        const double  began = comm_now();
        TRY(comm_put_swap(b->comm, b->s, &sends, 1, &receives, 1, TRAVEL_LOG_NONE));
        TRY(stream_sync(b->s));
        if (i > 0) best = fmin(best, comm_now() - began);
    }
    out->link = BYTES / best;
fail:
    arena_free(&memory);
    return st;
}

/* What a GPU takes from the host, through the stage that copies go through: pinned weights may come faster. */
static status measure_host_link(bench *b, machine *out)
{
    enum { TIMES = 3 };
    status       st = ST_OK;
    const size_t bytes = larger(arena_bytes(&b->memory), 1);
    double       best = INFINITY;
    if (!out->own_memory) return ST_OK;
    void *host = calloc(bytes, 1);
    if (host == NULL) return err_set(ST_NO_MEMORY, "measuring: %zu bytes", bytes);
    for (int i = 0; i < TIMES; i++) {
        const double began = comm_now();
        TRY(stream_copy_in(b->s, b->memory.base, host, bytes));
        TRY(stream_sync(b->s));
        if (i > 0) best = fmin(best, comm_now() - began);
    }
    out->host_link = (double)bytes / best;
fail:
    st = stream_settle(b->s, st);
    free(host);
    return st;
}

/* A picture's rows on their way to the file, on rank 0 alone: others have nothing to do then either. */
static status measure_png(bench *b, machine *out)
{
    enum { WIDTH = 1024, HEIGHT = 128, BYTES = 3 * WIDTH * HEIGHT, TIMES = 3 };
    status      st = ST_OK;
    png_writer *png = NULL;
    char        hex[SHA256_HEX];
    uint32_t    noise = 1;
    double      best = INFINITY;
    out->png = INFINITY;
    if (comm_rank(b->comm) != 0) return ST_OK;
    uint8_t *rgb = malloc(BYTES);
    if (rgb == NULL) return err_set(ST_NO_MEMORY, "%d bytes", BYTES);
    for (int i = 0; i < BYTES; i++) { /* smooth, with 4 bits of noise: compresses as pictures do */
        noise = noise * 1664525 + 1013904223;
        rgb[i] = (uint8_t)(40 + i / 3 % WIDTH / 8 + (int)(noise >> 28));
    }
    for (int i = 0; i < TIMES; i++) {
        const double began = comm_now();
        TRY(png_writer_open(&png, &(png_writer_opts){.width = WIDTH, .height = HEIGHT}));
        TRY(png_writer_rows(png, HEIGHT, rgb));
        st = png_writer_commit(png);
        png = NULL;
        TRY(st);
        TRY(sha256_of(rgb, BYTES, hex));
        best = fmin(best, comm_now() - began);
    }
    out->png = BYTES / best;
fail:
    png_writer_abandon(png);
    free(rgb);
    return st;
}

static status open_bench(bench *b, const model *m)
{
    status             st = ST_OK;
    const flux_config *c = &m->flux;
    const size_t       d = (size_t)c->n_heads * (size_t)c->head_dim, e = dtype_bytes(b->type);
    const size_t       rows = (size_t)sample_rows(m);
    size_t             widest = 0, values = 5 * rows * d, states = (size_t)sample_queries((int)d) * d;
    for (int i = 0; i < m->vae.n_blocks; i++) {
        const size_t channels = (size_t)m->vae.block_out_channels[i];
        const size_t tiles = (size_t)sample_tiles((int)channels), queries = (size_t)sample_queries((int)channels);
        values = larger(values, tiles * tiles * CONV_TILE_H * CONV_TILE_W * channels);
        states = larger(states, queries * channels);
        widest = larger(widest, channels);
    }
    values = larger(values, states); /* queries, keys and values are these numbers too */
    const size_t weight_values = larger(5 * d * d, 9 * widest * widest);
    arena_plan(&b->memory, &b->x, values * e, "inputs");
    arena_plan(&b->memory, &b->y, values * e, "outputs");
    arena_plan(&b->memory, &b->w, weight_values * 2, "weights");
    arena_plan(&b->memory, &b->scale, larger(d, widest) * sizeof(float), "scales");
    arena_plan(&b->memory, &b->state_max, MOST_QUERIES * (size_t)c->n_heads * sizeof(float), "state");
    arena_plan(&b->memory, &b->state_sum, MOST_QUERIES * (size_t)c->n_heads * sizeof(float), "state");
    arena_plan(&b->memory, &b->state_out, states * sizeof(float), "state");
    arena_plan(&b->memory, &b->table, 2 * (size_t)c->head_dim * sizeof(float), "table");
    arena_plan(&b->memory, &b->pos, rows * 3 * sizeof(int32_t), "positions");
    TRY(arena_take(&b->memory, b->dev, "measuring"));
    void *zeros = calloc(arena_bytes(&b->memory), 1); /* any numbers do, as long as they are numbers */
    if (zeros == NULL) return err_set(ST_NO_MEMORY, "measuring: %zu bytes", arena_bytes(&b->memory));
    st = stream_copy_in(b->s, b->memory.base, zeros, arena_bytes(&b->memory));
    st = stream_settle(b->s, st);
    free(zeros);
fail:
    return st;
}

/* The slowest rank's figures for all, so that all make the same plan. */
static status share_slowest(comm *c, machine *m)
{
    status   st = ST_OK;
    double   mine[] = {m->attention, m->wide_attention, m->products[0], m->products[1], m->products[2], m->products[3],
                       -m->row_s, m->link, m->png, m->conv[0], m->conv[1], m->conv[2], m->conv[3], m->conv[4], m->conv[5],
                       m->conv[6], m->conv[7], (double)m->memory_bytes, m->host_link};
    enum { N = sizeof(mine) / sizeof(mine[0]) };
    const int n = comm_size(c);
    double   *all = calloc((size_t)n, sizeof(mine));
    size_t   *bytes = calloc((size_t)n, sizeof(*bytes));
    TRY(comm_agree(c, all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "figures of %d ranks", n)));
    for (int r = 0; r < n; r++) bytes[r] = sizeof(mine);
    TRY(comm_gather(c, 0, mine, bytes, all));
    for (int r = 0; r < n && comm_rank(c) == 0; r++)
        for (int i = 0; i < N; i++) mine[i] = fmin(mine[i], all[r * N + i]);
    TRY(comm_bcast(c, 0, mine, sizeof(mine)));
    m->attention = mine[0];
    m->wide_attention = mine[1];
    for (int p = 0; p < N_PRODUCTS; p++) m->products[p] = mine[2 + p];
    m->row_s = -mine[6];
    m->link = mine[7];
    m->png = mine[8];
    for (int i = 0; i < VAE_MAX_BLOCKS; i++) m->conv[i] = mine[9 + i];
    m->memory_bytes = (int64_t)mine[9 + VAE_MAX_BLOCKS];
    m->host_link = mine[10 + VAE_MAX_BLOCKS];
fail:
    free(all);
    free(bytes);
    return st;
}

status machine_measure(machine *out, comm *c, device *dev, const model *m, dtype type, int32_t n_rows, int32_t n_keys,
                       const machine_load *load, double budget_s)
{
    status  st = ST_OK;
    bench   b = {.dev = dev, .comm = c, .type = type, .load = load, .budget_s = budget_s / (N_PRODUCTS + 3 + m->vae.n_blocks)};
    machine found = {.measured = true, .overhead = 1, .own_memory = device_kind_of(dev) == DEVICE_CUDA};
    found.memory_bytes = found.own_memory ? (int64_t)device_memory_free(dev) : machine_memory_available();
    const int wide = m->vae.block_out_channels[m->vae.n_blocks - 1];
    if (n_rows < ROW_TILE) n_rows = ROW_TILE;
    if (n_keys < KEY_TILE) n_keys = KEY_TILE;
    st = stream_open(&b.s, dev);
    if (st == ST_OK) st = open_bench(&b, m);
    TRY(comm_agree(c, st));
    snprintf(found.name, sizeof(found.name), "this machine");
    st = measure_products(&b, m, n_rows, &found);
    if (st == ST_OK) st = measure_rest(&b, m, n_rows, &found);
    if (st == ST_OK)
        st = measure_attention(&b, m->flux.n_heads, m->flux.head_dim, n_rows, n_keys, &found.attention);
    if (st == ST_OK) st = measure_attention(&b, 1, wide, MOST_QUERIES, MOST_QUERIES, &found.wide_attention);
    if (st == ST_OK) st = measure_convolutions(&b, m, &found);
    if (st == ST_OK) st = measure_host_link(&b, &found);
    if (st == ST_OK) st = measure_png(&b, &found);
    TRY(comm_agree(c, st));
    TRY(measure_link(&b, &found));
    TRY(share_slowest(c, &found));
    *out = found;
fail:
    if (b.s != NULL) st = stream_settle(b.s, st);
    arena_free(&b.memory);
    stream_close(b.s);
    return st;
}

/* ---- memory */

/* The number after a word in a small file, in bytes of `unit`; -1 when there is none. */
static int64_t number_in(const char *path, const char *word, int64_t unit)
{
    char    line[256];
    int64_t found = -1;
    FILE   *f = fopen(path, "re");
    if (f == NULL) return -1;
    while (found < 0 && fgets(line, sizeof(line), f) != NULL) {
        long long value = 0;
        if (strncmp(line, word, strlen(word)) == 0 && sscanf(line + strlen(word), "%lld", &value) == 1)
            found = (int64_t)value * unit;
    }
    fclose(f);
    return found;
}

int64_t machine_memory_available(void)
{
    int64_t       available = number_in("/proc/meminfo", "MemAvailable:", 1024);
    const int64_t limit = number_in("/sys/fs/cgroup/memory.max", "", 1), used = number_in("/sys/fs/cgroup/memory.current", "", 1);
    if (available < 0) available = INT64_MAX / 4;
    if (limit >= 0 && used >= 0 && limit - used < available) available = limit - used > 0 ? limit - used : 0;
    return available;
}
