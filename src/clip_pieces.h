/* Prompt text -> the pieces that CLIP's byte-pair merges work on: cleaned, composed (NFC), in lower case, split into
 * words, single digits and runs of signs. Does what transformers' slow CLIPTokenizer does when ftfy is absent
 * (spec/flux.md 8.1). Open, get, close; any thread. */
#ifndef DYPE_CLIP_PIECES_H
#define DYPE_CLIP_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct clip_pieces clip_pieces;

/* text: [n_bytes] UTF-8, n_bytes < 2^28; a malformed byte counts as U+FFFD, which is dropped. */
status clip_pieces_open(clip_pieces **out, const char *text, size_t n_bytes);
void clip_pieces_close(clip_pieces *p); /* accepts NULL */

size_t clip_pieces_count(const clip_pieces *p);
/* Piece i: [*n_bytes] UTF-8, lent until close, never empty. */
const char *clip_pieces_get(const clip_pieces *p, size_t i, size_t *n_bytes);

/* Whether Python's str.split and str.strip take c for a space. */
bool clip_is_space(int32_t c);

#endif
