/* Operations that look at one element at a time, and those that only move elements. */
#include "plain.h"

#include <math.h>
#include <string.h>

status silu_plain(kernel_context *ctx, const silu_args *args)
{
    (void)ctx;
    for (int64_t i = 0; i < args->n; i++)
        element_set(args->y, args->type, i, activation_plain(ACT_SILU, element_get(args->x, args->type, i), false));
    return ST_OK;
}

status add_plain(kernel_context *ctx, const add_args *args)
{
    (void)ctx;
    for (int64_t i = 0; i < args->n; i++)
        element_set(args->y, args->type, i,
                    element_get(args->a, args->type, i) + element_get(args->b, args->type, i));
    return ST_OK;
}

/* transformers' NewGELUActivation in bf16: each operation is rounded; pow(x, 3) is two multiplications. */
static float gelu_new(float x)
{
    float cube = bf16_round(bf16_round(x * x) * x);
    float inner = bf16_round(x + bf16_round(0.044715f * cube));
    float t = bf16_round((float)tanh(bf16_round(0.79788456f * inner)));
    return bf16_round(0.5f * x * bf16_round(1.0f + t)); /* x / 2 is exact */
}

status gated_gelu_plain(kernel_context *ctx, const gated_gelu_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    for (int64_t i = 0; i < args->n; i++) {
        float a = element_get(args->a, args->type, i);
        float gelu = parity ? gelu_new(a) : activation_plain(ACT_GELU_TANH, a, false);
        element_set(args->y, args->type, i, gelu * element_get(args->b, args->type, i));
    }
    return ST_OK;
}

status gather_rows_plain(kernel_context *ctx, const gather_rows_args *args)
{
    (void)ctx;
    for (int64_t row = 0; row < args->n_rows; row++) {
        for (int64_t i = 0; i < args->width; i++) {
            int64_t at = row * args->width + i;
            float sum = weight_get(args->table, args->table_type, args->type, (int64_t)args->ids[row] * args->width + i);
            if (args->add != NULL) sum += weight_get(args->add, args->add_type, args->type, at);
            element_set(args->y, args->type, at, sum);
        }
    }
    return ST_OK;
}

status convert_plain(kernel_context *ctx, const convert_args *args)
{
    (void)ctx;
    for (int64_t i = 0; i < args->n; i++) element_set(args->y, args->y_type, i, element_get(args->x, args->x_type, i));
    return ST_OK;
}

status copy_rows_plain(kernel_context *ctx, const copy_rows_args *args)
{
    (void)ctx;
    for (int64_t row = 0; row < args->n_rows; row++)
        memcpy((char *)args->y + row * args->ldy_bytes, (const char *)args->x + row * args->ldx_bytes,
               (size_t)args->row_bytes);
    return ST_OK;
}

status euler_plain(kernel_context *ctx, const euler_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    float dt = parity_round(parity, args->dt);
    for (int64_t i = 0; i < args->n; i++) {
        float change = parity_round(parity, dt * element_get(args->v, args->type, i));
        args->latents[i] = parity_round(parity, args->latents[i] + change);
    }
    return ST_OK;
}

status latent_unpack_plain(kernel_context *ctx, const latent_unpack_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    int64_t width = args->width, channels = args->channels;
    for (int64_t y = 0; y < args->height; y++) {
        for (int64_t x = 0; x < width; x++) {
            const float *token = args->packed + ((y / 2) * (width / 2) + x / 2) * channels * 4;
            for (int64_t c = 0; c < channels; c++) {
                float z = token[c * 4 + (y % 2) * 2 + x % 2];
                element_set(args->z, args->type, (y * width + x) * channels + c,
                            parity_round(parity, z / args->scaling) + args->shift);
            }
        }
    }
    return ST_OK;
}

status to_u8_plain(kernel_context *ctx, const to_u8_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    for (int64_t i = 0; i < args->n; i++) {
        float unit = parity_round(parity, element_get(args->x, args->type, i) * 0.5f + 0.5f);
        unit = unit > 0.0f ? unit : 0.0f; /* NaN becomes black */
        unit = unit < 1.0f ? unit : 1.0f;
        args->y[i] = (uint8_t)lrintf(255.0f * unit);
    }
    return ST_OK;
}
