/* y = residual + conv(x') + b on channels-last rows, x' = silu(x * mul + add) read through nearest x2 when asked.
 *
 * Tiles of CONV_TILE_H x CONV_TILE_W output pixels lie on the image's grid, whichever rows are held here. A tile's input,
 * with its halo, is gathered and normalised into scratch, zeros where the image ends; then one oneDNN convolution of
 * fixed shape, without padding of its own, on one thread. Output rows of the tile that are not held here are computed
 * from zeros and dropped. */
#include <assert.h>
#include <omp.h>

#include "cpu.h"
#include "primitive.h"
#include "vector.h"

typedef struct plan {
    const primitive *conv;
    dtype   type;                 /* of the product */
    int32_t first_tile, n_down, n_across; /* tiles of the image that the held rows touch */
    const void  *weights;         /* packed */
    const float *bias;            /* [c_out] */
    size_t  product_at, library_at, bytes; /* places in a thread's scratch; the input is at 0 */
} plan;

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Weights and bias as the tiles want them, in the shared scratch. */
static status weights_prepare(plan *p, kernel_context *ctx, const conv_args *args)
{
    bool bf16 = args->type == DT_BF16;
    int64_t n = (int64_t)args->c_out * args->c_in * args->kernel * args->kernel;
    size_t packed_at = padded((size_t)n * dtype_bytes(p->type));
    size_t bias_at = packed_at + padded(primitive_packed_bytes(p->conv));
    char *shared = kernel_scratch(ctx, SCRATCH_SHARED, bias_at + (size_t)args->c_out * sizeof(float));
    if (shared == NULL) return ST_NO_MEMORY;

    float *bias = (float *)(shared + bias_at);
    if (args->w.bias == NULL) memset(bias, 0, (size_t)args->c_out * sizeof(float));
    else ctx->vec->widen(bias, args->w.bias, args->w.bias_type, 0, args->c_out, bf16);
    if (p->type == DT_F32) ctx->vec->widen((float *)shared, args->w.data, args->w.type, 0, n, bf16);
    else ctx->vec->narrow((uint16_t *)shared, args->w.data, args->w.type, 0, n);
    p->bias = bias;
    p->weights = shared + packed_at;
    return primitive_pack(p->conv, shared, shared + packed_at);
}

static status plan_make(plan *out, kernel_context *ctx, const conv_args *args)
{
    status st = ST_OK;
    plan p = {.type = args->type == DT_BF16 && ctx->isa >= ISA_AVX512_BF16 ? DT_BF16 : DT_F32};
    TRY(primitive_get_conv(ctx->cache, p.type, args->c_in, args->c_out, args->kernel, &p.conv));
    TRY(weights_prepare(&p, ctx, args));
    p.first_tile = args->first_row / CONV_TILE_H;
    p.n_down = (args->first_row + args->height - 1) / CONV_TILE_H + 1 - p.first_tile;
    p.n_across = (args->width + CONV_TILE_W - 1) / CONV_TILE_W;
    size_t halo = (size_t)args->kernel - 1;
    p.product_at = padded((CONV_TILE_H + halo) * (CONV_TILE_W + halo) * (size_t)args->c_in * dtype_bytes(p.type));
    p.library_at = p.product_at + padded(CONV_TILE_H * CONV_TILE_W * (size_t)args->c_out * sizeof(float));
    p.bytes = p.library_at + primitive_scratch_bytes(p.conv);
    TRY(kernel_scratch_team(ctx, p.bytes));
    *out = p;
fail:
    return st;
}

/* n pixels of the input, at output coordinates (row, col) on. row may be -1 or height: the lent neighbours. */
static void pixels_read(const plan *p, const kernel_context *ctx, const conv_args *args, char *to, int32_t row,
                        int32_t col, int32_t n)
{
    const void *x = row < 0 ? args->x_above : row >= args->height ? args->x_below : args->x;
    size_t pixel_bytes = (size_t)args->c_in * dtype_bytes(p->type);
    if (x == NULL) {
        memset(to, 0, (size_t)n * pixel_bytes);
        return;
    }
    int64_t source_row = row < 0 || row >= args->height ? 0 : args->upsample ? row / 2 : row;
    if (!args->upsample) {
        ctx->vec->conv_begin(args, to, p->type, x, source_row * args->width + col, n);
        return;
    }
    for (int32_t i = 0; i < n; i++)
        ctx->vec->conv_begin(args, to + (size_t)i * pixel_bytes, p->type, x,
                             source_row * (args->width / 2) + (col + i) / 2, 1);
}

/* The input of the tile whose first output pixel is (row, col), row counted from the first held row. */
static void tile_read(const plan *p, const kernel_context *ctx, const conv_args *args, char *to, int32_t row,
                      int32_t col)
{
    int32_t reach = args->kernel / 2, n_cols = CONV_TILE_W + 2 * reach;
    size_t pixel_bytes = (size_t)args->c_in * dtype_bytes(p->type);
    int32_t left = col - reach < 0 ? 0 : col - reach;
    int32_t right = col - reach + n_cols > args->width ? args->width : col - reach + n_cols;
    for (int32_t y = row - reach; y < row + CONV_TILE_H + reach; y++, to += (size_t)n_cols * pixel_bytes) {
        memset(to, 0, (size_t)n_cols * pixel_bytes);
        if (y < -reach || y >= args->height + reach) continue;
        pixels_read(p, ctx, args, to + (size_t)(left - (col - reach)) * pixel_bytes, y, left, right - left);
        if (!args->wrap || reach == 0) continue;
        if (col == 0) pixels_read(p, ctx, args, to, y, args->width - 1, 1);
        if (right == args->width && col + CONV_TILE_W >= args->width) /* the one after the last column */
            pixels_read(p, ctx, args, to + (size_t)(args->width - (col - reach)) * pixel_bytes, y, 0, 1);
    }
}

static bool tile_run(const plan *p, kernel_context *ctx, const conv_args *args, int32_t down, int32_t across)
{
    int thread = omp_get_thread_num();
    char *scratch = kernel_scratch(ctx, thread, p->bytes);
    float *product = (float *)(scratch + p->product_at);
    int32_t row = (p->first_tile + down) * CONV_TILE_H - args->first_row, col = across * CONV_TILE_W;
    tile_read(p, ctx, args, scratch, row, col);
    if (!primitive_run(p->conv, thread, scratch, p->weights, product, scratch + p->library_at)) return false;
    int32_t n = args->width - col < CONV_TILE_W ? args->width - col : CONV_TILE_W;
    for (int32_t i = 0; i < CONV_TILE_H; i++) {
        if (row + i < 0 || row + i >= args->height) continue;
        ctx->vec->conv_end(args, (int64_t)(row + i) * args->width + col, n,
                           product + (int64_t)i * CONV_TILE_W * args->c_out, p->bias);
    }
    return true;
}

status conv_cpu(kernel_context *ctx, const conv_args *args)
{
    status st = ST_OK;
    plan p;
    assert(args->kernel == 1 || args->kernel == 3);
    assert(!args->upsample || (args->first_row % 2 == 0 && args->height % 2 == 0 && args->width % 2 == 0));
    if (args->height == 0 || args->width == 0) return ST_OK;
    TRY(plan_make(&p, ctx, args));
    int32_t n_tiles = p.n_down * p.n_across, n_failed = 0;
    int team = n_tiles < ctx->n_threads ? n_tiles : ctx->n_threads;
#pragma omp parallel num_threads(team) reduction(+ : n_failed)
    {
        omp_set_num_threads(1); /* for oneDNN, whatever the size of the team */
#pragma omp for schedule(dynamic)
        for (int32_t i = 0; i < n_tiles; i++) n_failed += !tile_run(&p, ctx, args, i / p.n_across, i % p.n_across);
    }
    if (n_failed > 0)
        st = err_set(ST_DEVICE, "conv: oneDNN failed on [%d, %d, %d] to %d channels", args->height, args->width,
                     args->c_in, args->c_out);
fail:
    return st;
}
