/* What the kernel tests share: arrays with reproducible contents, comparison by tolerance class, and a process of its own
 * per instruction set (oneDNN can be limited only once in a process). */
#ifndef DYPE_KERNEL_CHECK_H
#define DYPE_KERNEL_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "ops.h"

/* n elements of a type (F32, BF16 or F16), uniform with the given deviation around offset. Free with free(). */
void *array_make(const char *name, dtype type, int64_t n, float offset, float deviation);
void *array_copy(const void *x, dtype type, int64_t n);
float array_get(const void *x, dtype type, int64_t i);

/* |got - want| / |want|, L2 over n elements. NaN counts as infinitely far, unless both are. */
double relative_l2(const void *got, const void *want, dtype type, int64_t n);

/* One operation against the judge, largest relative L2 by type of the result:
 *   F32   2e-6: fp32 sums of up to 4096 terms in another order, functions within 2 ulp (spec/flux.md section 11: 1e-6
 *         for one layer against PyTorch; here two of such errors may meet)
 *   BF16  1e-3: both sides round an almost equal fp32 value once; now and then that goes the other way, one ulp (2^-8)
 *         in a few elements of a thousand */
double tolerance_of(dtype type);
void assert_close(const void *got, const void *want, dtype type, int64_t n, const char *what);
void assert_same_bits(const void *got, const void *want, size_t bytes, const char *what);

/* Fails the test with the error's text unless st is ST_OK. */
void assert_ok(status st);

/* Runs group(isa) in a child process for every instruction set of this machine, and says which did not run. Returns the
 * number of sets with failures. */
int each_isa(int (*group)(cpu_isa isa));

#endif
