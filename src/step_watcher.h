/* A look into the step loop of a picture, for those that measure it: spectra.h, loss.h. Every call is made by all ranks of
 * the replica and ends with the same status on all of them. */
#ifndef DYPE_STEP_WATCHER_H
#define DYPE_STEP_WATCHER_H

#include "comm.h"
#include "geometry.h"
#include "job.h"

typedef struct step_view {
    comm              *comm; /* of the replica */
    const job_picture *picture;
    const geometry    *geometry;
    int32_t            channels;       /* of a token */
    int32_t            n_rows;         /* image rows of this rank */
    const size_t      *bytes_of_ranks; /* of their rows in fp32, in rank order */
    int                step, n_steps;
    double             sigma, next_sigma, t_position;
    float             *latents;  /* [n_rows, channels]: what enters the step; `before` may change it */
    const float       *velocity; /* [n_rows, channels]: what the model says of it; NULL in `before` */
} step_view;

typedef struct step_watcher {
    void *ctx;
    status (*before)(void *ctx, const step_view *view); /* at step 0 latents are the initial noise */
    status (*after)(void *ctx, const step_view *view);
} step_watcher;

#endif
