/* --spectra FILE: the spectra (spectra.h) of a job's pictures at each step of their renders: of the state, and of the clean
 * latent that the model predicts there, x0 = x_t - sigma v. Pictures of one entry (its seeds) are averaged, in power. */
#ifndef DYPE_SPECTRA_RUN_H
#define DYPE_SPECTRA_RUN_H

#include "render.h"

typedef struct spectra_opts {
    const char *path; /* of the CSV; the drawing lies beside it with the ending .svg */
    const job  *job;
    renderer   *renderer;
    comm       *comm;
    report     *report;
} spectra_opts;

status spectra_run(const spectra_opts *opts);

#endif
