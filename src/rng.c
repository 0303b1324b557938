#include "rng.h"

enum { MT19937_M = 397 };

void mt19937_seed(mt19937 *mt, uint64_t seed)
{
    mt->word[0] = (uint32_t)(seed & 0xffffffffu);
    for (uint32_t j = 1; j < MT19937_N; j++) {
        uint32_t previous = mt->word[j - 1];
        mt->word[j] = 1812433253u * (previous ^ (previous >> 30)) + j;
    }
    mt->next = MT19937_N;
}

static void mt19937_refill(mt19937 *mt)
{
    for (int j = 0; j < MT19937_N; j++) {
        uint32_t y = (mt->word[j] & 0x80000000u) | (mt->word[(j + 1) % MT19937_N] & 0x7fffffffu);
        mt->word[j] = mt->word[(j + MT19937_M) % MT19937_N] ^ (y >> 1) ^ ((y & 1u) ? 0x9908b0dfu : 0u);
    }
    mt->next = 0;
}

uint32_t mt19937_next(mt19937 *mt)
{
    if (mt->next == MT19937_N) mt19937_refill(mt);
    uint32_t y = mt->word[mt->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

void philox4x32(uint64_t key, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = (uint32_t)(key & 0xffffffffu);
    uint32_t k1 = (uint32_t)(key >> 32);
    uint32_t x = counter[0], y = counter[1], z = counter[2], w = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * x;
        uint64_t p1 = (uint64_t)0xcd9e8d57u * z;
        x = (uint32_t)(p1 >> 32) ^ y ^ k0;
        y = (uint32_t)(p1 & 0xffffffffu);
        z = (uint32_t)(p0 >> 32) ^ w ^ k1;
        w = (uint32_t)(p0 & 0xffffffffu);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = x;
    out[1] = y;
    out[2] = z;
    out[3] = w;
}
