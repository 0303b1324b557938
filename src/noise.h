/* Initial noise of a picture: rows of standard normals, as one of several generators draws them (noise_kind.h).
 *
 * Every generator fills the unpacked latent [channels, latent_h, latent_w] in C order, n elements in all; a caller gets
 * the packed rows it owns and never holds the rest. So a row does not depend on who asks for it.
 *
 *   torch-cpu         torch.randn with a CPU generator. With bf16 the normals are rounded, as PyTorch 2.15 does: the
 *                     same noise in both precisions (except where n is not a multiple of 16).
 *   torch-cpu-legacy  the same in fp32. With bf16, the form of PyTorch up to at least 2.7: uniforms of 8 bits and every
 *                     step rounded, noise that has nothing to do with the fp32 noise of its seed.
 *   torch-cuda        torch.randn with a CUDA generator on a GPU of `sms` x `threads_per_sm`: noise depends on the GPU
 *                     once n exceeds its threads.
 *   counter           our own: the four values of token (i, j) and channel c come from the Philox block with key = seed
 *                     and counter = (j, i, c, 0). With words (a, b, d, e): r = sqrt(-2 ln((a + 1/2) 2^-32)),
 *                     th = 2 pi (b + 1/2) 2^-32, values r cos th, r sin th for dy = 0, dx = 0, 1; (d, e) likewise for
 *                     dy = 1; fp64, rounded once. Independent of the picture's size: a wider picture keeps the noise of
 *                     a narrower one.
 *
 * Logarithms and cosines are the C library's; PyTorch's own differ by up to 4e-7. */
#ifndef DYPE_NOISE_H
#define DYPE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

#include "geometry.h"
#include "noise_kind.h"
#include "status.h"

/* packed: [n_tokens, channels * 4], rows of tokens [first_token, first_token + n_tokens). bf16: values are those of a
 * bf16 run, widened. A negative seed is given as seed + 2^64. Fails only on a GPU that cannot run one block. */
status noise_fill(const noise_opts *opts, uint64_t seed, const geometry *g, int32_t channels, int32_t first_token,
                  int32_t n_tokens, bool bf16, float *packed);

#endif
