/* Replacement cuBLASLt for virtual GPUs (vgpu.h): products of bf16, f16 and fp32 with fp32 sums, by oneDNN.
 *
 *   cublaslt.c          handles and descriptors
 *   cublaslt_algo.c     algorithms: what there is, what the heuristic proposes, what is refused
 *   cublaslt_product.c  the product itself, as work of a stream
 *   cublas.c            the part of cuBLAS that lies above (a library of its own)
 *
 * As strict as the real one at its strictest: what NVIDIA's documentation does not promise is refused. As on a GPU another
 * algorithm gives other bits: tiles whose stages are 64 wide sum K in two halves, split-K in as many parts as it says. The
 * heuristic proposes by the size of D, so who pins no algorithm gets bits that depend on the number of rows. */
#ifndef VGPU_CUBLASLT_H
#define VGPU_CUBLASLT_H

#include <stdbool.h>
#include <cublasLt.h>

#include "vgpu.h"

/* What lies in cublasLtMatrixLayoutOpaque_t, and so on. */
typedef struct layout {
    uint32_t magic;
    uint32_t type;
    uint64_t rows, cols;
    int64_t  ld, batch_stride;
    int32_t  order, n_batch;
} layout;

typedef struct operation {
    uint32_t magic;
    int32_t  compute, scale_type, pointer_mode;
    int32_t  trans_a, trans_b;
    uint32_t epilogue;
    int32_t  bias_type; /* -1: that of D */
    int64_t  bias_stride;
    const void *bias;
} operation;

typedef struct preference {
    uint32_t magic;
    uint32_t search, reduction_mask;
    uint32_t alignment[4]; /* A, B, C, D */
    float    max_waves;
    uint64_t max_workspace, impl_mask;
} preference;

typedef struct lt_algo {
    uint32_t magic;
    int32_t  id, split_k;
    uint32_t tile, stages, reduction, swizzle, custom;
    int32_t  compute, scale_type;
    uint16_t inner_shape, cluster;
    uint8_t  type[4]; /* of A, B, C, D */
} lt_algo;

enum { MAGIC_LAYOUT = 0x4c61796f, MAGIC_OPERATION = 0x4f706572, MAGIC_PREFERENCE = 0x50726566, MAGIC_ALGO = 0x416c676f };

_Static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "layout");
_Static_assert(sizeof(operation) <= sizeof(cublasLtMatmulDescOpaque_t), "operation");
_Static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "preference");
_Static_assert(sizeof(lt_algo) <= sizeof(cublasLtMatmulAlgo_t), "algo");

/* NULL and a told fault for what is none. */
const layout     *layout_of(const cublasLtMatrixLayoutOpaque_t *l, const char *what);
const operation  *operation_of(const cublasLtMatmulDescOpaque_t *o);
const preference *preference_of(const cublasLtMatmulPreferenceOpaque_t *p);

/* Tells why, and returns the status: a call that the real library would refuse. What is not supported may be asked for;
 * the rest is a fault of the caller. */
cublasStatus_t lt_refuse(cublasStatus_t status, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool           lt_is_handle(cublasLtHandle_t handle);

/* All that a product depends on. */
typedef struct problem {
    operation op;
    layout    side[4]; /* A, B, C, D */
    uint64_t  m, n, k;
} problem;

size_t         type_bytes(uint32_t type);
/* Whether descriptors fit each other. */
cublasStatus_t problem_make(problem *out, const operation *op, const layout *a, const layout *b, const layout *c, const layout *d);
/* Whether the algorithm does this problem, and the bytes that it needs. */
cublasStatus_t algo_check(const lt_algo *a, const problem *p, size_t *workspace_bytes);
uint32_t       algo_alignment(const lt_algo *a, int side);
/* The heuristic's first proposal. */
cublasStatus_t algo_propose(const problem *p, const preference *pref, lt_algo *out, int n_wanted, int *n_found);
/* Sums K in so many parts, apart from split_k. */
int            algo_k_parts(const lt_algo *a);

/* Operands of a product, as the caller gave them. */
typedef struct product {
    problem     problem;
    lt_algo        algo;
    float       alpha, beta;
    const void *at[4]; /* device addresses of A, B, C, D */
    void       *workspace;
    size_t      workspace_bytes; /* that the algorithm needs */
    int         next_phase;
} product;

/* Does it in the order of the stream. */
cublasStatus_t product_put(const product *p, cudaStream_t stream);

#endif
