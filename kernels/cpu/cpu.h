/* The fast operations: products and convolutions through oneDNN in tiles of fixed shape, the rest own vector code that
 * is compiled once per instruction set. One function per operation for all instruction sets; ctx->isa says which.
 *
 * Threads: each operation divides its work among a team of ctx->n_threads (a team of one costs nothing); no result
 * depends on who computes it, so the size of the team never changes a bit. */
#ifndef DYPE_CPU_H
#define DYPE_CPU_H

#include "kernel_context.h"

#define CPU_OP(op) status op##_cpu(kernel_context *ctx, const op##_args *args);
KERNEL_OPS(CPU_OP)
#undef CPU_OP

#endif
