/* y = act(x W^T + b), or y + gate * (x W^T + b).
 *
 * The product is computed in pieces of ROW_TILE rows by COLS columns, each by one call of oneDNN of fixed shape on one
 * thread; short row tiles are padded with zeros, the last columns have a primitive of their width. Products run in fp32,
 * for which a block of columns is widened once and used for many row tiles; in bf16 where the processor multiplies it.
 * Everything after the product is done here, on the fp32 tile. Members of the team take blocks of columns (and, if these
 * are few, parts of the rows). */
#include <omp.h>

#include "cpu.h"
#include "primitive.h"
#include "vector.h"

enum {
    COLS = 192,            /* of 64, 128, 192, 256 the fastest; FLUX's and the demo model's widths have no rest */
    MIN_TILES_PER_PART = 8 /* row tiles that pay for widening a block of columns */
};

typedef struct plan {
    const primitive *full, *tail; /* COLS columns, and what is left; tail may be NULL */
    dtype   type;                 /* of the product */
    int32_t n_tiles, n_first_tiles;
    int32_t n_blocks, n_parts;    /* of columns; of row tiles */
    size_t  panel_at, product_at, bias_at, library_at, bytes; /* places in a thread's scratch; x is at 0 */
} plan;

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int32_t tiles_of(int32_t n_rows)
{
    return (n_rows + ROW_TILE - 1) / ROW_TILE;
}

static status plan_make(plan *out, kernel_context *ctx, const linear_args *args)
{
    status st = ST_OK;
    plan p = {.type = args->type == DT_BF16 && ctx->isa >= ISA_AVX512_BF16 ? DT_BF16 : DT_F32};
    int32_t n_first = args->n_first < args->n_rows ? args->n_first : 0;
    p.n_first_tiles = tiles_of(n_first);
    p.n_tiles = p.n_first_tiles + tiles_of(args->n_rows - n_first);
    p.n_blocks = (args->n_out + COLS - 1) / COLS;
    if (args->n_out >= COLS) TRY(primitive_get_matmul(ctx->cache, p.type, args->n_in, COLS, &p.full));
    if (args->n_out % COLS != 0)
        TRY(primitive_get_matmul(ctx->cache, p.type, args->n_in, args->n_out % COLS, &p.tail));

    int32_t wanted = 4 * ctx->n_threads / p.n_blocks + 1, most = p.n_tiles / MIN_TILES_PER_PART + 1;
    p.n_parts = ctx->n_threads == 1 ? 1 : wanted < most ? wanted : most;

    size_t n_in = (size_t)args->n_in, bytes = dtype_bytes(p.type);
    size_t library = p.full == NULL ? 0 : primitive_scratch_bytes(p.full);
    size_t library_tail = p.tail == NULL ? 0 : primitive_scratch_bytes(p.tail);
    p.panel_at = padded(ROW_TILE * n_in * bytes);
    p.product_at = p.panel_at + padded(COLS * n_in * bytes);
    p.bias_at = p.product_at + padded(ROW_TILE * COLS * sizeof(float));
    p.library_at = p.bias_at + padded(COLS * sizeof(float));
    p.bytes = p.library_at + (library > library_tail ? library : library_tail);
    TRY(kernel_scratch_team(ctx, p.bytes));
    *out = p;
fail:
    return st;
}

/* Weights of columns [first, first + n_cols) as the primitive wants them; in place where they are so already. */
static const void *weights_prepare(const plan *p, const kernel_context *ctx, const linear_args *args, void *panel,
                                   int64_t first, int32_t n_cols)
{
    if (p->type == DT_F32) {
        ctx->vec->pack_panel(panel, &args->w, args->n_in, first, n_cols, args->type == DT_BF16);
        return panel;
    }
    if (args->w.type == DT_BF16) return (const uint16_t *)args->w.data + first * args->n_in;
    ctx->vec->narrow(panel, args->w.data, args->w.type, first * args->n_in, (int64_t)n_cols * args->n_in);
    return panel;
}

/* Rows [row, row + n_rows) of x, and zeros up to ROW_TILE. */
static void x_prepare(const plan *p, const kernel_context *ctx, const linear_args *args, void *x, int64_t row,
                      int32_t n_rows)
{
    size_t row_bytes = (size_t)args->n_in * dtype_bytes(p->type);
    for (int32_t i = 0; i < n_rows; i++) {
        char *to = (char *)x + (size_t)i * row_bytes;
        int64_t at = (row + i) * args->ldx;
        if (p->type == args->type) memcpy(to, (const char *)args->x + (size_t)at * dtype_bytes(p->type), row_bytes);
        else ctx->vec->widen((float *)to, args->x, args->type, at, args->n_in, false);
    }
    memset((char *)x + (size_t)n_rows * row_bytes, 0, (size_t)(ROW_TILE - n_rows) * row_bytes);
}

/* One block of columns for one part of the row tiles. */
static bool piece_run(const plan *p, kernel_context *ctx, const linear_args *args, int32_t block, int32_t part)
{
    int thread = omp_get_thread_num();
    char *scratch = kernel_scratch(ctx, thread, p->bytes);
    float *product = (float *)(scratch + p->product_at), *bias = (float *)(scratch + p->bias_at);
    int64_t first = (int64_t)block * COLS;
    int32_t n_cols = args->n_out - first < COLS ? (int32_t)(args->n_out - first) : COLS;
    const primitive *product_run = n_cols == COLS ? p->full : p->tail;

    const void *weights = weights_prepare(p, ctx, args, scratch + p->panel_at, first, n_cols);
    if (args->w.bias == NULL) memset(bias, 0, (size_t)n_cols * sizeof(float));
    else ctx->vec->widen(bias, args->w.bias, args->w.bias_type, first, n_cols, args->type == DT_BF16);

    int32_t tile = (int32_t)((int64_t)p->n_tiles * part / p->n_parts);
    int32_t end = (int32_t)((int64_t)p->n_tiles * (part + 1) / p->n_parts);
    for (; tile < end; tile++) {
        int32_t row = tile * ROW_TILE, row_end = p->n_first_tiles > 0 ? args->n_first : args->n_rows;
        if (tile >= p->n_first_tiles && p->n_first_tiles > 0) {
            row = args->n_first + (tile - p->n_first_tiles) * ROW_TILE;
            row_end = args->n_rows;
        }
        int32_t n_rows = row_end - row < ROW_TILE ? row_end - row : ROW_TILE;
        x_prepare(p, ctx, args, scratch, row, n_rows);
        if (!primitive_run(product_run, thread, scratch, weights, product, scratch + p->library_at)) return false;
        for (int32_t i = 0; i < n_rows; i++)
            ctx->vec->linear_end(args, row + i, first, n_cols, product + (int64_t)i * n_cols, bias);
    }
    return true;
}

status linear_cpu(kernel_context *ctx, const linear_args *args)
{
    status st = ST_OK;
    plan p;
    if (args->n_rows == 0 || args->n_out == 0) return ST_OK;
    TRY(plan_make(&p, ctx, args));
    int32_t n_pieces = p.n_blocks * p.n_parts, n_failed = 0;
    int team = n_pieces < ctx->n_threads ? n_pieces : ctx->n_threads;
#pragma omp parallel num_threads(team) reduction(+ : n_failed)
    {
        omp_set_num_threads(1); /* for oneDNN, whatever the size of the team */
#pragma omp for schedule(dynamic)
        for (int32_t i = 0; i < n_pieces; i++) n_failed += !piece_run(&p, ctx, args, i % p.n_blocks, i / p.n_blocks);
    }
    if (n_failed > 0)
        st = err_set(ST_DEVICE, "linear: oneDNN failed on [%d, %d] x [%d, %d]", args->n_rows, args->n_in, args->n_out,
                     args->n_in);
fail:
    return st;
}
