/* What every attention kernel must show, native or emulated. */
#ifndef DYPE_ATTENTION_CHECKS_H
#define DYPE_ATTENTION_CHECKS_H

#include "cpu/attention.h"

/* Runs all checks as one cmocka group; returns the number of failures. */
int attention_checks_run(const attention_kernel *kernel, dtype type);
/* The same of a table's attention, with a context of its own. */
int attention_checks_run_table(const kernel_table *table, dtype type);

/* The AVX-512 kernels, compiled against functions that stand for the instructions; NULL where SIMDe is not installed.
 * */
extern const attention_kernel *const attention_simde_f32, *const attention_simde_bf16;

#endif
