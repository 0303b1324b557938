/* LayerNorm, RMSNorm, and the RMSNorm of heads with rotation by position. */
#include "plain.h"

#include <math.h>

status layernorm_plain(kernel_context *ctx, const layernorm_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->one_plus && args->type == DT_BF16;
    for (int64_t row = 0; row < args->n_rows; row++) {
        double sum = 0.0, squares = 0.0;
        for (int64_t i = 0; i < args->width; i++) sum += element_get(args->x, args->type, row * args->ldx + i);
        double mean = sum / args->width;
        for (int64_t i = 0; i < args->width; i++) {
            double d = element_get(args->x, args->type, row * args->ldx + i) - mean;
            squares += d * d;
        }
        double inverse = 1.0 / sqrt(squares / args->width + args->eps);

        for (int64_t i = 0; i < args->width; i++) {
            float x = element_get(args->x, args->type, row * args->ldx + i);
            float norm = parity_round(parity, (float)((x - mean) * inverse));
            float scale = args->scale == NULL ? (args->one_plus ? 0.0f : 1.0f) : args->scale[i];
            float shift = args->shift == NULL ? 0.0f : args->shift[i];
            if (args->one_plus) scale = parity_round(parity, 1.0f + scale);
            element_set(args->y, args->type, row * args->ldy + i, parity_round(parity, norm * scale) + shift);
        }
    }
    return ST_OK;
}

/* 1 / sqrt(mean(x^2) + eps) of `width` elements from x[at]. */
static double inverse_rms(const void *x, dtype type, int64_t at, int32_t width, float eps)
{
    double squares = 0.0;
    for (int64_t i = 0; i < width; i++) {
        double v = element_get(x, type, at + i);
        squares += v * v;
    }
    return 1.0 / sqrt(squares / width + eps);
}

status rmsnorm_plain(kernel_context *ctx, const rmsnorm_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    for (int64_t row = 0; row < args->n_rows; row++) {
        double inverse = inverse_rms(args->x, args->type, row * args->ldx, args->width, args->eps);
        for (int64_t i = 0; i < args->width; i++) {
            float norm = (float)(element_get(args->x, args->type, row * args->ldx + i) * inverse);
            element_set(args->y, args->type, row * args->ldy + i, parity_round(parity, norm) * args->scale[i]);
        }
    }
    return ST_OK;
}

/* Pairs (2j, 2j + 1) of one head, from channel `at` on, turned by n_pairs entries of the table. */
static void rotate(void *x, dtype type, int64_t at, const float *entry, int32_t n_pairs, const float *norm)
{
    for (int32_t j = 0; j < n_pairs; j++) {
        float cosine = entry[2 * j], sine = entry[2 * j + 1];
        element_set(x, type, at + 2 * j, norm[2 * j] * cosine - norm[2 * j + 1] * sine);
        element_set(x, type, at + 2 * j + 1, norm[2 * j + 1] * cosine + norm[2 * j] * sine);
    }
}

status qk_norm_rope_plain(kernel_context *ctx, const qk_norm_rope_args *args)
{
    bool parity = args->parity && args->type == DT_BF16;
    float *norm = kernel_scratch(ctx, 0, (size_t)args->head_dim * sizeof(float));
    if (norm == NULL) return ST_NO_MEMORY;
    for (int64_t row = 0; row < args->n_rows; row++) {
        for (int64_t head = 0; head < args->n_heads; head++) {
            int64_t at = row * args->ld + head * args->head_dim;
            double inverse = inverse_rms(args->x, args->type, at, args->head_dim, args->eps);
            for (int64_t i = 0; i < args->head_dim; i++)
                norm[i] = parity_round(
                    parity, (float)(element_get(args->x, args->type, at + i) * inverse * args->scale[i]));

            int64_t channel = 0;
            for (int axis = 0; axis < 3; axis++) {
                int64_t n_pairs = args->n_pairs[axis];
                const float *entry = args->table + args->table_at[axis] + args->pos[row * 3 + axis] * n_pairs * 2;
                rotate(args->x, args->type, at + channel, entry, args->n_pairs[axis], norm + channel);
                channel += 2 * n_pairs;
            }
        }
    }
    return ST_OK;
}
