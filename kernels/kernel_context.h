/* What an implementation of the operations runs in; shared by kernels/plain and kernels/cpu, seen by nobody else. */
#ifndef DYPE_KERNEL_CONTEXT_H
#define DYPE_KERNEL_CONTEXT_H

#include "ops.h"

enum { SCRATCH_SHARED = -1 }; /* scratch of the whole team: asked for outside a parallel region, read inside */

typedef struct kernel_scratch_buffer {
    void  *data;
    size_t bytes;
} kernel_scratch_buffer;

struct kernel_context {
    int     n_threads;
    cpu_isa isa;                    /* what own code and oneDNN may use */
    const struct vector_ops *vec;   /* own vector code for isa; NULL in plain */
    struct primitive_cache  *cache; /* oneDNN's primitives by shape; NULL in plain */
    kernel_scratch_buffer   *scratch; /* [n_threads + 1]; the last is the shared one */
};

status kernel_context_open(kernel_context **out, cpu_isa isa, int n_threads);
void   kernel_context_close(kernel_context *ctx); /* accepts NULL */

/* 64-byte aligned memory of one thread (or SCRATCH_SHARED), lent until the next call with the same thread; contents are
 * arbitrary. It only grows, so that repeated shapes allocate nothing. NULL, with the error set, when there is no memory. */
void *kernel_scratch(kernel_context *ctx, int thread, size_t bytes);

/* Makes sure of that many bytes for every thread, so that kernel_scratch cannot fail in the parallel region that
 * follows (an error set by a thread of the team would be lost). */
status kernel_scratch_team(kernel_context *ctx, size_t bytes);

#endif
