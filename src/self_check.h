/* At start: does a row's result really not depend on how many rows its call has? The rules of kernels/ops.h make it so,
 * but a library of another version, or another processor, could break them unseen. */
#ifndef DYPE_SELF_CHECK_H
#define DYPE_SELF_CHECK_H

#include "device.h"

/* Computes the same row in products of two sizes, in `type`, and compares bits: *same. Milliseconds. */
status self_check_rows(device *dev, dtype type, bool *same);

#endif
