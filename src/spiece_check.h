/* Whether the bytes of a spiece.model are safe to give to SentencePiece, which believes what it reads: a file cut
 * between two pieces loads as another model, and one changed byte of its normalisation table can end in a
 * segmentation fault. */
#ifndef DYPE_SPIECE_CHECK_H
#define DYPE_SPIECE_CHECK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "status.h"

/* bytes: [n]. ST_BAD_MODEL names path and what is wrong. */
status spiece_check(const uint8_t *bytes, size_t n, const char *path);

#ifdef __cplusplus
}
#endif

#endif
