/* VAE decoder: latent -> picture, exactly as a decode of the whole picture, whatever its size and however many ranks.
 * Source: AutoencoderKL (diffusers), decoder half. Open, decode any number of latents, close.
 *
 * Each rank decodes a strip of the picture's rows (vae_strips.h): convolutions see one row of each neighbour, GroupNorm
 * the sums of all rows, the mid block's attention the keys of all ranks (exchange.h). So there are no seams, and bits do
 * not depend on the number of ranks. Memory of a rank falls with it.
 *
 * Channels-last rows; GroupNorm + SiLU and nearest upsampling happen where a convolution reads (ops.h), so a stage holds
 * its input, one intermediate and its output. The attention runs in tiles: no scores in memory. */
#ifndef DYPE_VAE_DECODER_H
#define DYPE_VAE_DECODER_H

#include "arena.h"
#include "comm.h"
#include "device.h"
#include "geometry.h"
#include "model.h"
#include "tap.h"

typedef struct vae_decoder vae_decoder;

typedef struct vae_decoder_opts {
    const model *model; /* borrowed, as all below */
    comm        *comm;
    device      *dev;
    stream      *compute;
    const tap   *tap;
    dtype        type;
} vae_decoder_opts;

/* Takes n_rows finished rows of 8-bit RGB, top to bottom; rgb is lent for the call. */
typedef struct row_sink {
    void *ctx;
    status (*rows)(void *ctx, int32_t first_row, int32_t n_rows, const uint8_t *rgb);
} row_sink;

/* Each rank for itself; agree afterwards. */
status vae_decoder_open(vae_decoder **out, const vae_decoder_opts *opts);
void   vae_decoder_close(vae_decoder *v); /* accepts NULL */

/* Whether the next decode repeats every rounding of the bf16 reference. */
void vae_decoder_parity(vae_decoder *v, bool parity);

/* Whether the left and right edges of the next picture meet: convolutions pad each with the other. */
void vae_decoder_wrap(vae_decoder *v, bool wrap);

/* Collective. packed: [n_image, in_channels] fp32, host: the latent after the last step; sink: takes the picture. Both on
 * rank 0 only, NULL elsewhere. The same status on all ranks. */
status vae_decoder_decode(vae_decoder *v, const geometry *g, const float *packed, const row_sink *sink);

/* What a decode allocates on a rank (device memory beside the weights), as names and bytes; needs neither. */
void vae_decoder_plan(const vae_config *c, dtype type, const geometry *g, int n_ranks, int rank, arena *parts);

#endif
