/* The operations of a device: one struct of arguments each, one table of implementations.
 *
 * Rules that every implementation keeps:
 * - Pointers are device memory; strides (ld*) are in elements; element offsets are 64-bit.
 * - Activations are F32 or BF16 (`type`); arithmetic inside is fp32 and is rounded once at the store,
 *   unless `parity` asks for every rounding of the bf16 reference (spec: PyTorch eager mode). With F32 activations
 *   `parity` changes nothing.
 * - A row's result never depends on how many rows the call has, nor on the number of threads (docs/reproducibility
 *   rule): products run in tiles of ROW_TILE rows, short tiles are zero-padded; the tile grid starts at row 0 and
 *   again at row n_first, where image rows follow text rows.
 * - Vectors that scale or shift channels (norm weights, modulation, gates) are fp32.
 * - Nothing is allocated after the first call with a shape. */
#ifndef DYPE_OPS_H
#define DYPE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "status.h"

typedef enum activation { ACT_NONE = 0, ACT_SILU, ACT_GELU_TANH, ACT_QUICK_GELU, ACT_GELU } activation; /* ACT_GELU: erf */

/* Weights of a linear layer or convolution as the model file has them: [n_out, n_in] or [c_out, c_in, k, k],
 * BF16, F16 or F32. With BF16 activations, wider weights are rounded to bf16 on use; with F32 activations they are
 * widened. So no second copy is kept. */
typedef struct linear_weight {
    const void *data;
    const void *bias; /* [n_out], NULL for none */
    dtype       type;
    dtype       bias_type;
} linear_weight;

/* y = act(x W^T + b), or y = y + gate * (x W^T + b) when gate is given. */
typedef struct linear_args {
    const void   *x; /* [n_rows, n_in], type */
    void         *y; /* [n_rows, n_out], y_type; may not overlap x */
    linear_weight w;
    const float  *gate; /* [n_out] or NULL; wants act none */
    int64_t       ldx, ldy;
    int32_t       n_rows, n_first; /* n_first rows, then the tile grid restarts; 0 or n_rows: one grid */
    int32_t       n_in, n_out;
    dtype         type, y_type;
    activation    act;
    bool          parity; /* product rounded before the gate, gate * y rounded before the sum */
} linear_args;

/* One block of keys and values for all query rows; fp32 running state goes in and out.
 * out = softmax(scale q k^T + bias) v over all blocks between first and last.
 * Key tiles are consumed in order: KEY_TILE rows each, the grid restarts at kv_first. */
typedef struct attention_args {
    const void  *q;    /* row i, head h, channel c: q[i * ldq + h * head_dim + c] */
    const void  *k, *v; /* the same with ldk, ldv */
    void        *out;  /* written by the last block, with ldo */
    float       *state_max, *state_sum; /* n_q * n_heads; with state_out they may be NULL when first and last */
    float       *state_out;             /* n_q * n_heads * head_dim, not yet divided by the sum; the order inside the
                                           three is the kernel's own, between calls of the same shape;
                                           it lies on whole 16 bytes */
    const float *q_keep; /* NULL, or [head_dim] of 1 and 0: a channel with 0 does not count in q k^T */
    const float *bias; /* NULL, or per head by key - query: bias[h * bias_ld + key - query + n_q - 1] (T5); one block only */
    int64_t      ldq, ldk, ldv, ldo, bias_ld;
    int32_t      n_q, n_kv, kv_first; /* kv_first: rows before the tile grid of keys restarts; 0: one grid */
    int32_t      n_heads, head_dim;   /* head_dim a multiple of 8, at most 512 */
    float        scale;
    dtype        type;
    bool         causal; /* key <= query (CLIP); one block only */
    bool         first, last;
} attention_args;

/* y = LN(x) * scale + shift, or LN(x) * (1 + scale) + shift with one_plus (modulation). Biased variance, two passes. */
typedef struct layernorm_args {
    const void  *x;
    void        *y; /* may be x */
    const float *scale, *shift; /* [width]; NULL: 1 and 0 */
    int64_t      ldx, ldy;
    int32_t      n_rows, width;
    float        eps;
    dtype        type;
    bool         one_plus;
    bool         parity; /* with one_plus: rounds the norm, 1 + scale, the product and the sum */
} layernorm_args;

/* y = x * rsqrt(mean(x^2) + eps) * scale (T5). */
typedef struct rmsnorm_args {
    const void  *x;
    void        *y; /* may be x */
    const float *scale; /* [width] */
    int64_t      ldx, ldy;
    int32_t      n_rows, width;
    float        eps;
    dtype        type;
    bool         parity; /* rounds before the multiplication by scale */
} rmsnorm_args;

/* RMSNorm of each head, then rotation of adjacent channel pairs by the position tables, in place (q or k).
 * Axis a owns 2 * n_pairs[a] channels of a head, in order; pair j of row i turns by (cos, sin) =
 * table[table_at[a] + (pos[i * 3 + a] * n_pairs[a] + j) * 2 + {0, 1}]. Positions' attention factor is in the table. */
typedef struct qk_norm_rope_args {
    void          *x; /* [n_rows, n_heads, head_dim] with row stride ld */
    const float   *scale; /* [head_dim] */
    const float   *table;
    const int32_t *pos; /* [n_rows, 3] table rows */
    int64_t        ld;
    int64_t        table_at[3];
    int32_t        n_pairs[3];
    int32_t        n_rows, n_heads, head_dim;
    float          eps;
    dtype          type;
    bool           parity; /* rounds the norm before the rotation */
} qk_norm_rope_args;

/* y = silu(x), n elements. */
typedef struct silu_args {
    const void *x;
    void       *y;
    int64_t     n;
    dtype       type;
} silu_args;

/* y = a + b, n elements; y may be a or b. */
typedef struct add_args {
    const void *a, *b;
    void       *y;
    int64_t     n;
    dtype       type;
} add_args;

/* y = gelu_tanh(a) * b, n elements (T5's gated MLP); y may be a. */
typedef struct gated_gelu_args {
    const void *a, *b;
    void       *y;
    int64_t     n;
    dtype       type;
    bool        parity; /* every step of the reference's op-by-op gelu_new is rounded */
} gated_gelu_args;

/* y[i] = table[ids[i]] (+ add[i]): token embeddings, CLIP's with positions. */
typedef struct gather_rows_args {
    const void    *table; /* [n_table, width] */
    const void    *add;   /* [n_rows, width] or NULL */
    const int32_t *ids;   /* [n_rows], each < n_table */
    void          *y;     /* [n_rows, width] */
    int32_t        n_rows, width;
    dtype          table_type, add_type, type;
} gather_rows_args;

/* y = x in another type, n elements. */
typedef struct convert_args {
    const void *x;
    void       *y;
    int64_t     n;
    dtype       x_type, y_type; /* F32 or BF16 */
} convert_args;

/* n_rows runs of row_bytes each from one place to another; strides in bytes. x and y do not overlap. */
typedef struct copy_rows_args {
    const void *x;
    void       *y;
    int64_t     ldx_bytes, ldy_bytes, row_bytes;
    int32_t     n_rows;
} copy_rows_args;

/* latents += dt * v (flow-match Euler). Latents are fp32. parity: latents = bf(latents + bf(bf(dt) * v)). */
typedef struct euler_args {
    float      *latents;
    const void *v;
    int64_t     n;
    float       dt;
    dtype       type; /* of v */
    bool        parity;
} euler_args;

/* Packed tokens to the decoder's input: z[y][x][c] = latents / scaling + shift, with
 * packed[(y/2) * (width/2) + x/2][c * 4 + (y%2) * 2 + x%2]. */
typedef struct latent_unpack_args {
    const float *packed;        /* [height/2 * width/2, channels * 4] */
    void        *z;             /* [height, width, channels] */
    int32_t      height, width; /* latent pixels, even */
    int32_t      channels;
    float        scaling, shift;
    dtype        type;
    bool         parity; /* two roundings */
} latent_unpack_args;

/* Sums for GroupNorm: sums[row][group] = {sum x, sum x^2} in fp64 over one image row, pixels in order. */
typedef struct group_sums_args {
    const void *x; /* [height, width, channels] */
    double     *sums; /* [height, groups, 2] */
    int32_t     height, width, channels, groups;
    dtype       type;
} group_sums_args;

/* Adds rows to totals of the rows above them, one after the other: totals[group] += sums[row][group]. */
typedef struct group_add_args {
    const double *sums; /* [height, groups, 2] */
    double       *totals; /* [groups, 2] */
    int32_t       height, groups;
    bool          first; /* there are no rows above: totals start as 0 */
} group_add_args;

/* From the totals of all rows to x * mul[c] + add[c]. */
typedef struct group_finish_args {
    const double *totals; /* [groups, 2], the whole image */
    const float  *scale, *shift; /* [channels] */
    float        *mul, *add;     /* [channels] */
    int64_t       n_pixels;      /* of the whole image */
    int32_t       channels, groups;
    float         eps;
    bool          parity; /* mean and 1/std rounded to bf16 */
} group_finish_args;

/* Convolution, stride 1, of channels-last rows; kernel 3 (zero padding 1) or 1. The input may be normalised on read:
 * x' = silu(x * norm_mul[c] + norm_add[c]); padding is zero after that. With upsample, x is read through nearest x2.
 * y = residual + conv(x') + b. Computed in tiles of CONV_TILE_H x CONV_TILE_W output pixels on the image's grid. */
typedef struct conv_args {
    const void   *x; /* [height or height/2, width or width/2, c_in] */
    const void   *x_above, *x_below; /* the input row before the first and after the last; NULL: outside the image */
    void         *y;        /* [height, width, c_out], may be residual, not x */
    const void   *residual; /* [height, width, c_out], y_type, or NULL */
    const float  *norm_mul, *norm_add; /* [c_in] or NULL */
    linear_weight w;
    int32_t       height, width; /* output rows held here, output width */
    int32_t       first_row;     /* number of the first output row in the image */
    int32_t       c_in, c_out, kernel;
    dtype         type, y_type;
    bool          silu, upsample;
    bool          wrap;   /* the left and right edges meet: padding there is the other edge's column */
    bool          parity; /* rounds the norm before silu, the product before the bias */
} conv_args;

/* y = (uint8) rint(255 * clamp(x / 2 + 1/2, 0, 1)), n samples; ties to even. */
typedef struct to_u8_args {
    const void *x;
    uint8_t    *y;
    int64_t     n;
    dtype       type;
    bool        parity; /* x / 2 + 1/2 rounded to bf16 */
} to_u8_args;

enum {
    ROW_TILE = 64,    /* rows of one matrix product, and of the sequence's tile grid */
    KEY_TILE = 64,    /* keys per step of the online softmax */
    CONV_TILE_H = 8,  /* output rows and columns per convolution tile */
    CONV_TILE_W = 32
};

#define KERNEL_OPS(X)                                                                                                  \
    X(linear)                                                                                                          \
    X(attention)                                                                                                       \
    X(layernorm)                                                                                                       \
    X(rmsnorm)                                                                                                         \
    X(qk_norm_rope)                                                                                                    \
    X(silu)                                                                                                            \
    X(add)                                                                                                             \
    X(gated_gelu)                                                                                                      \
    X(gather_rows)                                                                                                     \
    X(convert)                                                                                                         \
    X(copy_rows)                                                                                                       \
    X(euler)                                                                                                           \
    X(latent_unpack)                                                                                                   \
    X(group_sums)                                                                                                      \
    X(group_add)                                                                                                       \
    X(group_finish)                                                                                                    \
    X(conv)                                                                                                            \
    X(to_u8)

/* What an implementation runs in: its threads, scratch memory and library handles. One caller at a time. */
typedef struct kernel_context kernel_context;

typedef struct kernel_table {
    const char *name; /* "plain", "avx2", ... */
    status (*open)(kernel_context **out, int n_threads);
    void (*close)(kernel_context *ctx);
#define KERNEL_OP(op) status (*op)(kernel_context * ctx, const op##_args *args);
    KERNEL_OPS(KERNEL_OP)
#undef KERNEL_OP
} kernel_table;

/* Instruction sets of the cpu kernels, in rising order. */
typedef enum cpu_isa { ISA_PLAIN = 0, ISA_AVX2, ISA_AVX512, ISA_AVX512_BF16, ISA_COUNT } cpu_isa;

/* The best one that this processor and operating system run. */
cpu_isa cpu_isa_best(void);
const char *cpu_isa_name(cpu_isa isa);

/* Slow and readable, serial: the judge of the others. */
const kernel_table *kernels_plain(void);

/* oneDNN and own vector code, limited to `isa` (also inside oneDNN; call it before anything else uses oneDNN).
 * ISA_PLAIN ("portable") gives portable C for the own code and oneDNN's lowest common instruction set for the rest. */
const kernel_table *kernels_cpu(cpu_isa isa);

#endif
