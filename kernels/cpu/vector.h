/* Own vector code of the cpu kernels: one table of functions per instruction set, all compiled from vector.inc.h.
 * Serial; each works on the rows or elements [begin, end) of its operation, so that a team can share an operation.
 *
 * The loops are plain C that the compiler vectorises. Contraction is off and every operation in them is correctly
 * rounded, so vector bodies and scalar tails give the same bits: an element's result never depends on its place.
 * Sums over a row run in SUM_LANES fixed partial sums. */
#ifndef DYPE_VECTOR_H
#define DYPE_VECTOR_H

#include "ops.h"

enum { HEAD_DIM_MAX = 512, SUM_LANES = 16 };

#define VECTOR_OPS(X)                                                                                                  \
    X(layernorm)                                                                                                       \
    X(rmsnorm)                                                                                                         \
    X(qk_norm_rope)                                                                                                    \
    X(silu)                                                                                                            \
    X(add)                                                                                                             \
    X(gated_gelu)                                                                                                      \
    X(convert)                                                                                                         \
    X(euler)                                                                                                           \
    X(group_sums)                                                                                                      \
    X(to_u8)

typedef struct vector_ops {
#define VECTOR_OP(op) void (*op)(const op##_args *args, int64_t begin, int64_t end);
    VECTOR_OPS(VECTOR_OP)
#undef VECTOR_OP

    /* n elements from x[at] on as fp32 (rounded to bf16 on the way with through_bf16), or as bf16. x has any alignment. */
    void (*widen)(float *y, const void *x, dtype type, int64_t at, int64_t n, bool through_bf16);
    void (*narrow)(uint16_t *y, const void *x, dtype type, int64_t at, int64_t n);

    /* panel[i][col] = w[first + col][i], columns of a product as fp32: [n_in, n_cols] from [n_out, n_in]. */
    void (*pack_panel)(float *panel, const linear_weight *w, int64_t n_in, int64_t first, int32_t n_cols,
                       bool through_bf16);

    /* Columns [first, first + n_cols) of row y of a linear layer, from the product and the bias of these columns. */
    void (*linear_end)(const linear_args *args, int64_t row, int64_t first, int32_t n_cols, const float *product,
                       const float *bias);

    /* The convolution's input: n pixels of x from pixel `at` on, normalised; y has the product's type. */
    void (*conv_begin)(const conv_args *args, void *y, dtype y_type, const void *x, int64_t at, int32_t n);

    /* n output pixels from pixel `at` of y on, from the product and the bias of all channels. */
    void (*conv_end)(const conv_args *args, int64_t at, int32_t n, const float *product, const float *bias);
} vector_ops;

extern const vector_ops vector_plain, vector_avx2, vector_avx512;

#endif
