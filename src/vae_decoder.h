/* VAE decoder: latent -> picture, exactly as a decode of the whole picture, whatever its size.
 * Source: AutoencoderKL (diffusers), decoder half. Open, decode any number of latents, close. Runs on one rank.
 *
 * Channels-last rows; GroupNorm + SiLU and nearest upsampling happen where a convolution reads (ops.h), so a stage holds
 * its input, one intermediate and its output. The mid block's attention runs in tiles: no scores in memory. */
#ifndef DYPE_VAE_DECODER_H
#define DYPE_VAE_DECODER_H

#include "device.h"
#include "geometry.h"
#include "model.h"
#include "tap.h"

typedef struct vae_decoder vae_decoder;

typedef struct vae_decoder_opts {
    const model *model; /* borrowed, as all below */
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

status vae_decoder_open(vae_decoder **out, const vae_decoder_opts *opts);
void   vae_decoder_close(vae_decoder *v); /* accepts NULL */

/* Whether the next decode repeats every rounding of the bf16 reference. */
void vae_decoder_parity(vae_decoder *v, bool parity);

/* packed: [n_image, in_channels] fp32, host: the latent after the last step. */
status vae_decoder_decode(vae_decoder *v, const geometry *g, const float *packed, const row_sink *sink);

#endif
