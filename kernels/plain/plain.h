/* The judge: every operation slow, readable and serial. Sums are kept in fp64, so that a difference from the fast
 * kernels is theirs. The functions stand in the table of kernels_plain(). */
#ifndef DYPE_PLAIN_H
#define DYPE_PLAIN_H

#include "kernel_context.h"

#define PLAIN_OP(op) status op##_plain(kernel_context *ctx, const op##_args *args);
KERNEL_OPS(PLAIN_OP)
#undef PLAIN_OP

/* Element i of an array that need not be aligned (weights lie where the model file has them). */
static inline float element_get(const void *x, dtype type, int64_t i)
{
    const char *at = (const char *)x + i * (int64_t)dtype_bytes(type);
    float f;
    uint16_t h;
    if (type == DT_F32) {
        memcpy(&f, at, sizeof(f));
        return f;
    }
    memcpy(&h, at, sizeof(h));
    return type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

/* One rounding to the type of the array: F32 or BF16. */
static inline void element_set(void *y, dtype type, int64_t i, float f)
{
    if (type == DT_F32) ((float *)y)[i] = f;
    else ((uint16_t *)y)[i] = f32_to_bf16(f);
}

/* Element i of a weight, as a product with activations of `type` uses it. */
static inline float weight_get(const void *w, dtype w_type, dtype type, int64_t i)
{
    float f = element_get(w, w_type, i);
    return type == DT_BF16 ? bf16_round(f) : f;
}

/* A rounding of the bf16 reference, where it is asked for. */
static inline float parity_round(bool parity, float f)
{
    return parity ? bf16_round(f) : f;
}

/* act(x); with parity in the steps of the bf16 reference. */
float activation_plain(activation act, float x, bool parity);

#endif
