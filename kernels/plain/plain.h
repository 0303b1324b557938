/* The judge: every operation slow, readable and serial. Sums are kept in fp64, so that a difference from the fast
 * kernels is theirs. The functions stand in the table of kernels_plain(). */
#ifndef DYPE_PLAIN_H
#define DYPE_PLAIN_H

#include "kernel_context.h"

#define PLAIN_OP(op) status op##_plain(kernel_context *ctx, const op##_args *args);
KERNEL_OPS(PLAIN_OP)
#undef PLAIN_OP

#endif
