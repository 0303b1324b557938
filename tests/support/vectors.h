/* A file of reference vectors (tests/vectors/README.md lists their tensors), and how far two arrays are apart.
 * What is missing or malformed fails the running test. Tensors are lent until vectors_close. */
#ifndef DYPE_VECTORS_H
#define DYPE_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

typedef struct vectors vectors;

enum { VECTORS_DIMS = 4 };

typedef struct vector {
    dtype type;
    int n_dims;
    int64_t shape[VECTORS_DIMS]; /* unused dims are 1 */
    size_t n;                    /* elements */
    const void *raw;             /* as stored, 8-byte aligned */
    const float *f32;            /* widened; the stored integers as numbers */
} vector;

/* tests/vectors/NAME.safetensors. */
vectors *vectors_open(const char *name);
/* Any safetensors file. */
vectors *vectors_open_path(const char *path);
void vectors_close(vectors *v); /* accepts NULL */

/* The name is printf style. */
vector vectors_get(vectors *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool vectors_has(const vectors *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Elements modulo 2^64, as unsigned words of their size, of all tensors: equal sums, equal weights. */
uint64_t vectors_sum(const vectors *v, size_t *n_tensors);

/* |a - b| / |b| in fp64; not a number when a is. */
double rel_l2(const float *a, const float *b, size_t n);
double max_abs(const float *a, const float *b, size_t n);
double cosine(const float *a, const float *b, size_t n);

#endif
