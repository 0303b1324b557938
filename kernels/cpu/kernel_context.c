#include "kernel_context.h"

#include <stdlib.h>

enum { ALIGNMENT = 64 };

status kernel_context_open(kernel_context **out, cpu_isa isa, int n_threads)
{
    kernel_context *ctx = calloc(1, sizeof(*ctx));
    if (ctx == NULL) return err_set(ST_NO_MEMORY, "kernels: %zu bytes", sizeof(*ctx));
    ctx->isa = isa;
    ctx->n_threads = n_threads > 0 ? n_threads : 1;
    ctx->scratch = calloc((size_t)ctx->n_threads + 1, sizeof(*ctx->scratch));
    if (ctx->scratch == NULL) {
        free(ctx);
        return err_set(ST_NO_MEMORY, "kernels: scratch of %d threads", n_threads);
    }
    *out = ctx;
    return ST_OK;
}

void kernel_context_close(kernel_context *ctx)
{
    if (ctx == NULL) return;
    for (int i = 0; i <= ctx->n_threads; i++) free(ctx->scratch[i].data);
    free(ctx->scratch);
    free(ctx);
}

void *kernel_scratch(kernel_context *ctx, int thread, size_t bytes)
{
    kernel_scratch_buffer *buffer = &ctx->scratch[thread == SCRATCH_SHARED ? ctx->n_threads : thread];
    if (bytes <= buffer->bytes) return buffer->data;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    free(buffer->data);
    *buffer = (kernel_scratch_buffer){.data = aligned_alloc(ALIGNMENT, rounded), .bytes = rounded};
    if (buffer->data == NULL) {
        buffer->bytes = 0;
        err_set(ST_NO_MEMORY, "kernels: scratch of %zu bytes for thread %d", rounded, thread);
    }
    return buffer->data;
}

status kernel_scratch_team(kernel_context *ctx, size_t bytes)
{
    for (int i = 0; i < ctx->n_threads; i++)
        if (kernel_scratch(ctx, i, bytes) == NULL) return ST_NO_MEMORY;
    return ST_OK;
}
