/* The operations on a GPU: each puts its work on a CUDA stream and returns. Seen by kernels/cuda alone.
 *
 * Rules beside those of ops.h:
 * - A launch depends on nothing but its arguments: the same rows give the same bits in any call.
 * - Sums run in a fixed order; a fused multiply-add is written where it is meant (-fmad=false).
 * - Wide loads and stores (16 bytes) only where base and stride allow them; else element by element.
 * - Whatever an operation keeps between its kernels lies in the queue's scratch: one stream, one queue. */
#ifndef DYPE_CUDA_H
#define DYPE_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "ops.h"

typedef struct cuda_products cuda_products; /* products.c: cuBLASLt and its pinned algorithms */

typedef struct cuda_queue {
    cudaStream_t   stream;
    cuda_products *products; /* of the device; borrowed */
    void          *scratch;
    size_t         scratch_bytes;
    int            ordinal, n_multiprocessors, most_shared_bytes; /* of a block */
} cuda_queue;

/* At least so many bytes of device memory, 256-byte aligned, for the work put on the queue by the caller; lent until
 * the next call. It only grows, so that repeated shapes allocate nothing. */
status cuda_scratch(cuda_queue *q, size_t bytes, void **out);

/* ST_OK, or a status that names the CUDA error. `what`: the operation. */
status cuda_status(cudaError_t error, const char *what);

#define CUDA_OP(op) status op##_cuda(cuda_queue *q, const op##_args *args);
KERNEL_OPS(CUDA_OP)
#undef CUDA_OP

/* products.c: one product of fp32 sums, d = x w^T (+ bias) through act, row-major. x: [n_rows, n_in] with ldx, w: [n_out,
 * n_in] of the same type, d: [n_rows, n_out] with ldd. */
typedef struct cuda_product {
    const void *x, *w, *bias; /* bias: [n_out] of d's type, or NULL */
    void       *d;
    int64_t     ldx, ldd;
    int32_t     n_rows, n_in, n_out;
    dtype       type, d_type; /* F32 to F32, BF16 to BF16 or F32 */
    activation  act;          /* none or gelu_tanh, the latter with a bias */
} cuda_product;
status cuda_products_open(cuda_products **out);
void   cuda_products_close(cuda_products *p); /* accepts NULL */
status cuda_product_put(cuda_queue *q, const cuda_product *product);

/* elementwise.cu: n weights in another type. */
status weights_convert(cuda_queue *q, const void *x, dtype x_type, void *y, dtype y_type, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
