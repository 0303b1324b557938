/* Attention kernels of the cpu device: one per instruction set, all made from attention_kernel.inc.h. A kernel works
 * on one item (some query rows of one head) on the calling thread; attention_run cuts a call into items. */
#ifndef DYPE_CPU_ATTENTION_H
#define DYPE_CPU_ATTENTION_H

#include "ops.h"

typedef struct attention_kernel {
    const char *name;
    int32_t     panel; /* query rows that go side by side through the vector lanes */
    /* Bytes of scratch for an item of n_panels, aligned to 64. */
    size_t (*scratch_bytes)(int32_t head_dim, int32_t n_panels);
    /* Query rows [row, row + n_rows) of one head against all keys of the block. */
    void (*run)(const attention_args *a, int32_t head, int32_t row, int32_t n_rows, void *scratch);
} attention_kernel;

extern const attention_kernel attention_generic, attention_avx2, attention_avx512;
extern const attention_kernel attention_avx512bf16; /* BF16 only */

/* The kernel for an instruction set, element type and head width. */
const attention_kernel *attention_kernel_get(cpu_isa isa, dtype type, int32_t head_dim);

/* The whole call with a given kernel, on the threads of ctx. */
status attention_run(const attention_kernel *kernel, kernel_context *ctx, const attention_args *a);

#endif
