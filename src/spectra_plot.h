/* What --spectra writes: a table and a drawing of one entry's spectra. */
#ifndef DYPE_SPECTRA_PLOT_H
#define DYPE_SPECTRA_PLOT_H

#include <stdio.h>

#include "status.h"

/* Of one entry of the job; the last state, number n_steps, is the finished latent. */
typedef struct spectra_record {
    const char *name;
    int         n_pictures; /* averaged */
    int         n_steps, n_bins;
    double     *sigma; /* [n_steps + 1], the last 0 */
    double     *state; /* [n_steps + 1, n_bins] */
    double     *clean; /* [n_steps + 1, n_bins] of the prediction; the last is that of the state */
} spectra_record;

void spectra_print_head(FILE *out);
/* name, pictures, step, sigma, bin, frequency (cycles per latent value), power of the state and of the prediction, remaining
 * (equation 12), progress = 1 - remaining; the last two empty where they say nothing. */
void spectra_print(FILE *out, const spectra_record *r);

enum { SPECTRA_PLOT_W = 1184, SPECTRA_PLOT_H = 310 };
/* A row of panels from `top` on: spectra of the prediction, of the state, and the map of the progress. */
status spectra_draw(FILE *out, const spectra_record *r, int top);

#endif
