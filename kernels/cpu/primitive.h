/* oneDNN's primitives, made once per shape and kept in the context: a matrix product of ROW_TILE rows, and a convolution
 * of one tile. Fixed shapes, one thread each, scratch memory from the caller: what a primitive computes for a row depends
 * on nothing but the row's place in the tile. Making one is serial; running one is safe on every thread of a team at
 * once, each with its own number. */
#ifndef DYPE_PRIMITIVE_H
#define DYPE_PRIMITIVE_H

#include "kernel_context.h"

typedef struct primitive primitive;
typedef struct primitive_cache primitive_cache;

status primitive_cache_open(primitive_cache **out, int n_threads);
void   primitive_cache_close(primitive_cache *cache); /* accepts NULL */

/* product [ROW_TILE, n_cols] fp32 = x [ROW_TILE, n_in] times weights: F32 with a panel [n_in, n_cols], BF16 with rows
 * [n_cols, n_in] as the model file has them. Lent until the cache closes. */
status primitive_get_matmul(primitive_cache *cache, dtype type, int32_t n_in, int32_t n_cols, const primitive **out);

/* product [CONV_TILE_H, CONV_TILE_W, c_out] fp32 from x [CONV_TILE_H + kernel - 1, CONV_TILE_W + kernel - 1, c_in] and
 * weights packed by primitive_pack. */
status primitive_get_conv(primitive_cache *cache, dtype type, int32_t c_in, int32_t c_out, int32_t kernel,
                          const primitive **out);

size_t primitive_packed_bytes(const primitive *p);
size_t primitive_scratch_bytes(const primitive *p);

/* Weights [c_out, c_in, kernel, kernel] of the primitive's type into the layout that it wants. */
status primitive_pack(const primitive *p, const void *weights, void *packed);

/* False when oneDNN fails. The calling thread is `thread` of its team and has called omp_set_num_threads(1). */
bool primitive_run(const primitive *p, int thread, const void *x, const void *weights, float *product, void *scratch);

#endif
