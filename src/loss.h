/* --loss: how well the model knows true pictures at each noise level, by position method. For a picture whose `latents_in`
 * is its clean latent x0 and the noise e of its seed, at each noise level s of its schedule (`steps`, `shift`; shift 0 gives
 * even levels): one forward on (1 - s) x0 + s e, and the mean over all values of (velocity - (e - x0))^2. Sums in fp64 over
 * each row, then over rows in their order: the same on any number of ranks. */
#ifndef DYPE_LOSS_H
#define DYPE_LOSS_H

#include "render.h"

typedef struct loss_opts {
    const char *path; /* of the CSV: picture, method, step, t, sigma, loss; whole after each picture */
    const job  *job;
    renderer   *renderer;
    comm       *comm;
    report     *report;
} loss_opts;

/* All pictures of the job. One without latents_in is ST_BAD_JOB, before any is computed. */
status loss_run(const loss_opts *opts);

/* Of one row of n values: sum of (velocity - (noise - clean))^2. */
double loss_of_row(const float *velocity, const float *noise, const float *clean, int32_t n);

#endif
