/* A picture in the making, small: every k steps NAME.preview.png beside the output, one pixel per latent value (1/8 of the
 * picture's sides with FLUX.1), from the clean latent that the step predicts, x0 = latents - sigma v. That costs one multiply
 * more than the latent itself, which is mostly noise until late. Every rank colours its own rows; rank 0 gathers 12 bytes
 * a token and writes. Nothing of the picture is touched. A preview that cannot be written is a warning. */
#ifndef DYPE_PREVIEW_H
#define DYPE_PREVIEW_H

#include "geometry.h"
#include "preview_map.h"
#include "report.h"

typedef struct preview preview;

typedef struct preview_opts {
    const preview_map *map; /* borrowed, as all below */
    comm              *comm;
    const geometry    *geometry;
    int32_t            n_text;
    const char        *picture; /* its id */
    const char        *output;  /* of the picture */
    report            *report;
} preview_opts;

/* Each rank for itself; agree afterwards. */
status preview_open(preview **out, const preview_opts *opts);
void   preview_close(preview *p); /* accepts NULL */

/* Collective, after step `done` of n_steps. latents: this rank's rows after it, [rows, channels * 4], host; velocity: the
 * same rows of the step's velocity in `type`, host; sigma: the noise level after it. */
status preview_write(preview *p, const float *latents, const void *velocity, dtype type, float sigma, int done, int n_steps);

/* The picture is done: the preview beside it goes, if there is one. */
void preview_remove(const char *output);

#endif
