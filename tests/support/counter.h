/* Seeded counter: the weights of the tiny models. tests/vectors/counter.py has the same bits, so that the reference
 * vectors need no weights beside them.
 *
 *   z = splitmix64 finalizer of (fnv1a64(name) ^ seed) + (i + 1) * 0x9E3779B97F4A7C15
 *   u = ((z >> 40) - 2^23) * 2^-23          in [-1, 1), exact in fp32
 *   value = offset + u * scale              fp32, product and sum rounded separately */
#ifndef DYPE_COUNTER_H
#define DYPE_COUNTER_H

#include <stdint.h>

typedef struct counter {
    uint64_t key;
    float offset, scale;
} counter;

/* The counter of a weight: norm weights lie around 1, biases are small, every matrix has unit gain.
 * shape: [n_dims], the first dim is the output. */
counter counter_weight(uint64_t seed, const char *name, const int64_t *shape, int n_dims);

/* Uniform with variance 1: noise-like test inputs. */
counter counter_input(uint64_t seed, const char *name);

float counter_value(const counter *c, int64_t index);

#endif
