/* Byte-pair merges: joins neighbouring symbols of a word, the lowest rank first. Symbols are numbers; what they stand
 * for is the caller's business. Open, join any number of words, close; any thread. */
#ifndef DYPE_BPE_H
#define DYPE_BPE_H

#include <stdint.h>

#include "status.h"

typedef struct bpe bpe;

/* left next to right become joined. All three are >= 0, and joined stands for a longer text than left or right. */
typedef struct {
    int32_t left, right, joined;
} bpe_merge;

/* merges: [n], the index is the rank; of a pair that stands twice the last counts. Copied. */
status bpe_open(bpe **out, const bpe_merge *merges, int32_t n);
void bpe_close(bpe *b); /* accepts NULL */

/* One word, symbols [*n], joined in place until no pair has a merge; *n becomes what is left. Negative symbols never
 * join. Per round all occurrences of the lowest pair join, from left to right, before a pair that this round made is
 * looked at. The work is n log n; *n_lookups (may be NULL) grows by the pairs looked up, at most 3 n. */
status bpe_join(const bpe *b, int32_t *symbols, int32_t *n, int64_t *n_lookups);

#endif
