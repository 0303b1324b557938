/* The functions of vector.h, compiled once per instruction set into VECTOR_TABLE.
 *
 * Operations take their arrays in blocks of BLOCK elements: widened into fp32 on the stack, worked on there, rounded
 * once when stored. Loops that must become vector code say `omp simd`. */
#include "vector.h"

#include <assert.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 256 };

/* Arrays of model files have any alignment. */
typedef uint16_t half_any __attribute__((aligned(1), may_alias));
typedef float float_any __attribute__((aligned(1), may_alias));

/* ---- one element ---- */

INLINE uint32_t bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

INLINE float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* f32_to_bf16 and f16_to_f32 of dtype.h without branches. */
INLINE uint16_t to_bf16(float f)
{
    uint32_t u = bits(f);
    uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
    uint32_t nan = u | 0x400000u;
    return (uint16_t)(((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded) >> 16);
}

INLINE float from_bf16(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

INLINE float from_f16(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t scaled = bits(from_bits(magnitude) * 0x1p112f); /* exact, subnormals too */
    uint32_t special = magnitude | 0x7f800000u;
    return from_bits((magnitude >= 0x0f800000u ? special : scaled) | (uint32_t)(h & 0x8000u) << 16);
}

INLINE float round_bf16(float f)
{
    return from_bf16(to_bf16(f));
}

/* e^x within 1.5 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, e^r by its series to r^7 (the rest is below 2^-27), then 2^n in two
 * factors, so that results below the normal range and infinity come out by themselves. */
INLINE float exp_fast(float x)
{
    const float round = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 0x1.715476p0f + round;
    float n = shifted - round;
    float r = (x - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f; /* ln 2 in two parts; n times the first is exact */
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = (p * (r * r) + r) + 1.0f;
    uint32_t k = bits(shifted) - bits(round) + 256u; /* n + 256 */
    uint32_t half = k >> 1;
    return (p * from_bits((half - 128u + 127u) << 23)) * from_bits((k - half - 128u + 127u) << 23);
}

INLINE float sigmoid_fast(float x)
{
    return 1.0f / (1.0f + exp_fast(-x));
}

INLINE float silu_fast(float x)
{
    return x / (1.0f + exp_fast(-x));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), which loses nothing where tanh u is near -1. */
INLINE float gelu_fast(float x)
{
    float u2 = 1.5957691216f * (x + 0.044715f * (x * x * x)); /* 2 sqrt(2 / pi) */
    return x / (1.0f + exp_fast(-u2));
}

INLINE float tanh_fast(float x)
{
    float s = x * x;
    float small = x + x * s * (-1.0f / 3.0f + s * (2.0f / 15.0f + s * (-17.0f / 315.0f)));
    float large = 1.0f - 2.0f / (exp_fast(2.0f * x) + 1.0f);
    return s < 0.0625f ? small : large;
}

/* transformers' NewGELUActivation in bf16: every operation rounded. */
INLINE float gelu_new(float x)
{
    float cube = round_bf16(round_bf16(x * x) * x);
    float inner = round_bf16(x + round_bf16(0.044715f * cube));
    float t = round_bf16(tanh_fast(round_bf16(0.79788456f * inner)));
    return round_bf16(0.5f * x * round_bf16(1.0f + t));
}

/* ---- blocks ---- */

static void load(float *restrict v, const void *x, dtype type, int64_t at, int n)
{
    if (type == DT_F32) {
        memcpy(v, (const char *)x + at * 4, (size_t)n * sizeof(float));
    } else if (type == DT_BF16) {
        const half_any *h = (const half_any *)x + at;
#pragma omp simd
        for (int i = 0; i < n; i++) v[i] = from_bf16(h[i]);
    } else {
        assert(type == DT_F16);
        const half_any *h = (const half_any *)x + at;
#pragma omp simd
        for (int i = 0; i < n; i++) v[i] = from_f16(h[i]);
    }
}

static void store(void *y, dtype type, int64_t at, const float *restrict v, int n)
{
    if (type == DT_F32) {
        memcpy((float *)y + at, v, (size_t)n * sizeof(float));
    } else {
        assert(type == DT_BF16);
        uint16_t *h = (uint16_t *)y + at;
#pragma omp simd
        for (int i = 0; i < n; i++) h[i] = to_bf16(v[i]);
    }
}

static void round_block(float *v, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++) v[i] = round_bf16(v[i]);
}

static void silu_block(float *v, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++) v[i] = silu_fast(v[i]);
}

static void gelu_block(float *v, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++) v[i] = gelu_fast(v[i]);
}

static void activate_block(float *v, int n, activation act, bool parity)
{
    switch (act) {
    case ACT_NONE: break;
    case ACT_SILU: silu_block(v, n); break;
    case ACT_GELU_TANH: gelu_block(v, n); break;
    case ACT_GELU: /* only odd text encoders use it: the C library is fast enough */
        for (int i = 0; i < n; i++) v[i] = 0.5f * v[i] * erfcf(-0.70710678f * v[i]);
        break;
    case ACT_QUICK_GELU:
        if (parity) {
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] = v[i] * round_bf16(sigmoid_fast(round_bf16(1.702f * v[i])));
        } else {
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] = v[i] * sigmoid_fast(1.702f * v[i]);
        }
        break;
    }
}

INLINE int block_size(int64_t at, int64_t end)
{
    return end - at < BLOCK ? (int)(end - at) : BLOCK;
}

/* ---- sums over a row ---- */

static void sum_block(float *restrict lanes, const float *restrict v, int n)
{
    int i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES) {
#pragma omp simd
        for (int l = 0; l < SUM_LANES; l++) lanes[l] += v[i + l];
    }
    for (int l = 0; i < n; i++, l++) lanes[l] += v[i];
}

static void square_block(float *restrict lanes, const float *restrict v, int n, float mean)
{
    int i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES) {
#pragma omp simd
        for (int l = 0; l < SUM_LANES; l++) lanes[l] += (v[i + l] - mean) * (v[i + l] - mean);
    }
    for (int l = 0; i < n; i++, l++) lanes[l] += (v[i] - mean) * (v[i] - mean);
}

static double sum_lanes(const float *lanes)
{
    double sum = 0.0;
    for (int l = 0; l < SUM_LANES; l++) sum += (double)lanes[l];
    return sum;
}

/* Sum of (x - mean)^2 over `width` elements from x[at]. */
static double sum_squares(const void *x, dtype type, int64_t at, int64_t width, float mean)
{
    float lanes[SUM_LANES] = {0}, v[BLOCK];
    for (int64_t i = 0; i < width; i += BLOCK) {
        int n = block_size(i, width);
        load(v, x, type, at + i, n);
        square_block(lanes, v, n, mean);
    }
    return sum_lanes(lanes);
}

static float row_mean(const void *x, dtype type, int64_t at, int64_t width)
{
    float lanes[SUM_LANES] = {0}, v[BLOCK];
    for (int64_t i = 0; i < width; i += BLOCK) {
        int n = block_size(i, width);
        load(v, x, type, at + i, n);
        sum_block(lanes, v, n);
    }
    return (float)(sum_lanes(lanes) / (double)width);
}

/* ---- operations on rows ---- */

static void fill(float *v, int n, float value)
{
    for (int i = 0; i < n; i++) v[i] = value;
}

static void layernorm(const layernorm_args *args, int64_t begin, int64_t end)
{
    bool parity = args->parity && args->one_plus && args->type == DT_BF16;
    int64_t width = args->width;
    float v[BLOCK], scale[BLOCK], shift[BLOCK];
    for (int64_t row = begin; row < end; row++) {
        float mean = row_mean(args->x, args->type, row * args->ldx, width);
        double squares = sum_squares(args->x, args->type, row * args->ldx, width, mean);
        float inverse = (float)(1.0 / sqrt(squares / (double)width + (double)args->eps));
        for (int64_t at = 0; at < width; at += BLOCK) {
            int n = block_size(at, width);
            load(v, args->x, args->type, row * args->ldx + at, n);
            if (args->scale != NULL) load(scale, args->scale, DT_F32, at, n);
            else fill(scale, n, args->one_plus ? 0.0f : 1.0f);
            if (args->shift != NULL) load(shift, args->shift, DT_F32, at, n);
            else fill(shift, n, 0.0f);
            float plus = args->one_plus ? 1.0f : 0.0f;
            if (parity) {
#pragma omp simd
                for (int i = 0; i < n; i++)
                    v[i] = round_bf16(round_bf16((v[i] - mean) * inverse) * round_bf16(1.0f + scale[i])) + shift[i];
            } else {
#pragma omp simd
                for (int i = 0; i < n; i++) v[i] = ((v[i] - mean) * inverse) * (plus + scale[i]) + shift[i];
            }
            store(args->y, args->type, row * args->ldy + at, v, n);
        }
    }
}

static void rmsnorm(const rmsnorm_args *args, int64_t begin, int64_t end)
{
    bool parity = args->parity && args->type == DT_BF16;
    int64_t width = args->width;
    float v[BLOCK];
    for (int64_t row = begin; row < end; row++) {
        double squares = sum_squares(args->x, args->type, row * args->ldx, width, 0.0f);
        float inverse = (float)(1.0 / sqrt(squares / (double)width + (double)args->eps));
        for (int64_t at = 0; at < width; at += BLOCK) {
            int n = block_size(at, width);
            const float *restrict scale = args->scale + at;
            load(v, args->x, args->type, row * args->ldx + at, n);
            if (parity) {
#pragma omp simd
                for (int i = 0; i < n; i++) v[i] = round_bf16(v[i] * inverse) * scale[i];
            } else {
#pragma omp simd
                for (int i = 0; i < n; i++) v[i] = (v[i] * inverse) * scale[i];
            }
            store(args->y, args->type, row * args->ldy + at, v, n);
        }
    }
}

/* Factors of each channel of a row: out = x * cosine + swapped * sine, where swapped exchanges the channels of a pair
 * and the sine of the first of them is negative. */
static void rotation_load(const qk_norm_rope_args *args, int64_t row, float *restrict cosine, float *restrict sine)
{
    for (int axis = 0; axis < 3; axis++) {
        int64_t n_pairs = args->n_pairs[axis];
        const float *entry = args->table + args->table_at[axis] + args->pos[row * 3 + axis] * n_pairs * 2;
        for (int64_t j = 0; j < n_pairs; j++) {
            *cosine++ = entry[2 * j];
            *cosine++ = entry[2 * j];
            *sine++ = -entry[2 * j + 1];
            *sine++ = entry[2 * j + 1];
        }
    }
}

static void qk_norm_rope(const qk_norm_rope_args *args, int64_t begin, int64_t end)
{
    float v[HEAD_DIM_MAX], swapped[HEAD_DIM_MAX], cosine[HEAD_DIM_MAX], sine[HEAD_DIM_MAX];
    bool parity = args->parity && args->type == DT_BF16;
    int n = args->head_dim;
    const float *restrict scale = args->scale;
    assert(n <= HEAD_DIM_MAX && 2 * (args->n_pairs[0] + args->n_pairs[1] + args->n_pairs[2]) == n);
    for (int64_t row = begin; row < end; row++) {
        rotation_load(args, row, cosine, sine);
        for (int64_t head = 0; head < args->n_heads; head++) {
            int64_t at = row * args->ld + head * n;
            float lanes[SUM_LANES] = {0};
            load(v, args->x, args->type, at, n);
            square_block(lanes, v, n, 0.0f);
            float inverse = (float)(1.0 / sqrt(sum_lanes(lanes) / n + (double)args->eps));
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] = (v[i] * inverse) * scale[i];
            if (parity) round_block(v, n);
#pragma omp simd
            for (int j = 0; j < n / 2; j++) {
                swapped[2 * j] = v[2 * j + 1];
                swapped[2 * j + 1] = v[2 * j];
            }
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] = v[i] * cosine[i] + swapped[i] * sine[i];
            store(args->x, args->type, at, v, n);
        }
    }
}

/* fp64 partial sums per channel, pixels in order; the channels of a group are added in order. */
static void group_sums(const group_sums_args *args, int64_t begin, int64_t end)
{
    int64_t channels = args->channels, group_width = channels / args->groups;
    for (int64_t y = begin; y < end; y++) {
        double *sums = args->sums + y * args->groups * 2;
        memset(sums, 0, (size_t)args->groups * 2 * sizeof(*sums));
        for (int64_t first = 0; first < channels; first += BLOCK) {
            int n = block_size(first, channels);
            double sum[BLOCK] = {0}, squares[BLOCK] = {0};
            float v[BLOCK];
            for (int64_t x = 0; x < args->width; x++) {
                load(v, args->x, args->type, (y * args->width + x) * channels + first, n);
#pragma omp simd
                for (int i = 0; i < n; i++) {
                    double d = (double)v[i];
                    sum[i] += d;
                    squares[i] += d * d;
                }
            }
            for (int i = 0; i < n; i++) {
                sums[(first + i) / group_width * 2] += sum[i];
                sums[(first + i) / group_width * 2 + 1] += squares[i];
            }
        }
    }
}

/* ---- operations on elements ---- */

static void silu(const silu_args *args, int64_t begin, int64_t end)
{
    float v[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        load(v, args->x, args->type, at, n);
        silu_block(v, n);
        store(args->y, args->type, at, v, n);
    }
}

static void add(const add_args *args, int64_t begin, int64_t end)
{
    float a[BLOCK], b[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        load(a, args->a, args->type, at, n);
        load(b, args->b, args->type, at, n);
#pragma omp simd
        for (int i = 0; i < n; i++) a[i] += b[i];
        store(args->y, args->type, at, a, n);
    }
}

static void gated_gelu(const gated_gelu_args *args, int64_t begin, int64_t end)
{
    bool parity = args->parity && args->type == DT_BF16;
    float a[BLOCK], b[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        load(a, args->a, args->type, at, n);
        load(b, args->b, args->type, at, n);
        if (parity) {
#pragma omp simd
            for (int i = 0; i < n; i++) a[i] = gelu_new(a[i]);
        } else {
            gelu_block(a, n);
        }
#pragma omp simd
        for (int i = 0; i < n; i++) a[i] *= b[i];
        store(args->y, args->type, at, a, n);
    }
}

static void convert(const convert_args *args, int64_t begin, int64_t end)
{
    float v[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        load(v, args->x, args->x_type, at, n);
        store(args->y, args->y_type, at, v, n);
    }
}

static void euler(const euler_args *args, int64_t begin, int64_t end)
{
    bool parity = args->parity && args->type == DT_BF16;
    float dt = parity ? round_bf16(args->dt) : args->dt;
    float v[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        float *restrict latents = args->latents + at;
        load(v, args->v, args->type, at, n);
        if (parity) {
#pragma omp simd
            for (int i = 0; i < n; i++) latents[i] = round_bf16(latents[i] + round_bf16(dt * v[i]));
        } else {
#pragma omp simd
            for (int i = 0; i < n; i++) latents[i] = latents[i] + dt * v[i];
        }
    }
}

static void to_u8(const to_u8_args *args, int64_t begin, int64_t end)
{
    bool parity = args->parity && args->type == DT_BF16;
    const float round = 0x1.8p23f; /* as in exp_fast: rounds to even */
    float v[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int n = block_size(at, end);
        uint8_t *restrict y = args->y + at;
        load(v, args->x, args->type, at, n);
#pragma omp simd
        for (int i = 0; i < n; i++) v[i] = v[i] * 0.5f + 0.5f;
        if (parity) round_block(v, n);
#pragma omp simd
        for (int i = 0; i < n; i++) {
            float unit = v[i] > 0.0f ? v[i] : 0.0f; /* NaN becomes black */
            unit = unit < 1.0f ? unit : 1.0f;
            y[i] = (uint8_t)(bits(255.0f * unit + round) & 0xffu);
        }
    }
}

/* ---- parts of products ---- */

static void widen(float *y, const void *x, dtype type, int64_t at, int64_t n, bool through_bf16)
{
    for (int64_t i = 0; i < n; i += BLOCK) {
        int count = block_size(i, n);
        load(y + i, x, type, at + i, count);
        if (through_bf16 && type != DT_BF16) round_block(y + i, count);
    }
}

static void narrow(uint16_t *y, const void *x, dtype type, int64_t at, int64_t n)
{
    float v[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int count = block_size(i, n);
        load(v, x, type, at + i, count);
        store(y, DT_BF16, i, v, count);
    }
}

typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t quad_order __attribute__((vector_size(16)));

/* to[j][i] = from[i][j], 4 x 4. */
INLINE void transpose_quads(float *to, int64_t ld_to, const float *from, int64_t ld_from)
{
    quad a = *(const quad *)from, b = *(const quad *)(from + ld_from);
    quad c = *(const quad *)(from + 2 * ld_from), d = *(const quad *)(from + 3 * ld_from);
    quad ab_low = __builtin_shuffle(a, b, (quad_order){0, 4, 1, 5});
    quad ab_high = __builtin_shuffle(a, b, (quad_order){2, 6, 3, 7});
    quad cd_low = __builtin_shuffle(c, d, (quad_order){0, 4, 1, 5});
    quad cd_high = __builtin_shuffle(c, d, (quad_order){2, 6, 3, 7});
    *(quad *)to = __builtin_shuffle(ab_low, cd_low, (quad_order){0, 1, 4, 5});
    *(quad *)(to + ld_to) = __builtin_shuffle(ab_low, cd_low, (quad_order){2, 3, 6, 7});
    *(quad *)(to + 2 * ld_to) = __builtin_shuffle(ab_high, cd_high, (quad_order){0, 1, 4, 5});
    *(quad *)(to + 3 * ld_to) = __builtin_shuffle(ab_high, cd_high, (quad_order){2, 3, 6, 7});
}

static void pack_panel(float *panel, const linear_weight *w, int64_t n_in, int64_t first, int32_t n_cols,
                       bool through_bf16)
{
    enum { DEPTH = 64, COLS = 16 }; /* fp32 that stays in the first-level cache */
    float rows[COLS][DEPTH];
    for (int32_t col = 0; col < n_cols; col += COLS) {
        int cols = n_cols - col < COLS ? n_cols - col : COLS;
        for (int64_t i = 0; i < n_in; i += DEPTH) {
            int depth = n_in - i < DEPTH ? (int)(n_in - i) : DEPTH;
            for (int c = 0; c < cols; c++) {
                load(rows[c], w->data, w->type, (first + col + c) * n_in + i, depth);
                if (through_bf16 && w->type != DT_BF16) round_block(rows[c], depth);
            }
            float *to = panel + i * n_cols + col;
            if (cols == COLS && depth % 4 == 0) {
                for (int d = 0; d < depth; d += 4)
                    for (int c = 0; c < COLS; c += 4) transpose_quads(to + d * n_cols + c, n_cols, &rows[c][d], DEPTH);
            } else {
                for (int d = 0; d < depth; d++)
                    for (int c = 0; c < cols; c++) to[d * n_cols + c] = rows[c][d];
            }
        }
    }
}

static void linear_end(const linear_args *args, int64_t row, int64_t first, int32_t n_cols, const float *product,
                       const float *bias)
{
    bool parity = args->parity && args->type == DT_BF16;
    float v[BLOCK], y[BLOCK];
    for (int32_t col = 0; col < n_cols; col += BLOCK) {
        int n = block_size(col, n_cols);
        int64_t at = row * args->ldy + first + col;
#pragma omp simd
        for (int i = 0; i < n; i++) v[i] = product[col + i] + bias[col + i];
        if (parity) round_block(v, n);
        activate_block(v, n, args->act, parity);
        if (args->gate != NULL) {
            const float *restrict gate = args->gate + first + col;
            load(y, args->y, args->y_type, at, n);
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] *= gate[i];
            if (parity) round_block(v, n);
#pragma omp simd
            for (int i = 0; i < n; i++) v[i] += y[i];
        }
        if (parity) round_block(v, n);
        store(args->y, args->y_type, at, v, n);
    }
}

/* Pixels that fit into a block, and so are worked on together; a pixel wider than a block is worked on in parts. */
INLINE int pixels_per_block(int64_t channels)
{
    return channels <= BLOCK ? (int)(BLOCK / channels) : 1;
}

static void conv_begin(const conv_args *args, void *y, dtype y_type, const void *x, int64_t at, int32_t n_pixels)
{
    bool bf16 = args->type == DT_BF16;
    int64_t channels = args->c_in;
    int step = pixels_per_block(channels);
    float v[BLOCK];
    for (int64_t pixel = 0; pixel < n_pixels; pixel += step) {
        int pixels = n_pixels - pixel < step ? (int)(n_pixels - pixel) : step;
        for (int64_t c = 0; c < channels; c += BLOCK) {
            int width = block_size(c, channels), n = pixels * width;
            load(v, x, args->type, (at + pixel) * channels + c, n);
            if (args->norm_mul != NULL) {
                const float *restrict mul = args->norm_mul + c, *restrict plus = args->norm_add + c;
                for (float *restrict in = v; in < v + n; in += width) {
#pragma omp simd
                    for (int i = 0; i < width; i++) in[i] = in[i] * mul[i] + plus[i];
                }
            }
            if (args->silu) {
                if (args->parity && bf16) round_block(v, n);
                silu_block(v, n);
            }
            if (bf16) round_block(v, n); /* what the product takes, whatever it computes in */
            store(y, y_type, pixel * channels + c, v, n);
        }
    }
}

static void conv_end(const conv_args *args, int64_t at, int32_t n_pixels, const float *product, const float *bias)
{
    bool parity = args->parity && args->type == DT_BF16;
    int64_t channels = args->c_out;
    int step = pixels_per_block(channels);
    float v[BLOCK], residual[BLOCK];
    for (int64_t pixel = 0; pixel < n_pixels; pixel += step) {
        int pixels = n_pixels - pixel < step ? (int)(n_pixels - pixel) : step;
        for (int64_t c = 0; c < channels; c += BLOCK) {
            int width = block_size(c, channels), n = pixels * width;
            load(v, product, DT_F32, pixel * channels + c, n);
            if (parity) round_block(v, n);
            for (float *restrict out = v; out < v + n; out += width) {
#pragma omp simd
                for (int i = 0; i < width; i++) out[i] += bias[c + i];
            }
            if (parity) round_block(v, n);
            if (args->residual != NULL) {
                load(residual, args->residual, args->y_type, (at + pixel) * channels + c, n);
#pragma omp simd
                for (int i = 0; i < n; i++) v[i] += residual[i];
            }
            store(args->y, args->y_type, (at + pixel) * channels + c, v, n);
        }
    }
}

const vector_ops VECTOR_TABLE = {
#define VECTOR_ENTRY(op) .op = op,
    VECTOR_OPS(VECTOR_ENTRY)
#undef VECTOR_ENTRY
    .widen = widen,
    .narrow = narrow,
    .pack_panel = pack_panel,
    .linear_end = linear_end,
    .conv_begin = conv_begin,
    .conv_end = conv_end,
};
