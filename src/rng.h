/* Two generators of 32-bit words, to the bit: MT19937 as PyTorch seeds it on the CPU, and Philox4x32-10, a function
 * of a key and a counter that keeps no state. Distributions are in noise.c. */
#ifndef DYPE_RNG_H
#define DYPE_RNG_H

#include <stdint.h>

enum { MT19937_N = 624 };

typedef struct mt19937 {
    uint32_t word[MT19937_N];
    int      next; /* MT19937_N: all words are used */
} mt19937;

/* Only the low 32 bits of the seed count, as in PyTorch. */
void     mt19937_seed(mt19937 *mt, uint64_t seed);
uint32_t mt19937_next(mt19937 *mt);

/* Ten rounds over counter; the key is the seed, low word first. */
void philox4x32(uint64_t key, const uint32_t counter[4], uint32_t out[4]);

#endif
