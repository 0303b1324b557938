/* One picture after another, by all ranks together: prompt -> latent -> PNG. render.c is the recipe. */
#ifndef DYPE_RENDER_H
#define DYPE_RENDER_H

#include "device.h"
#include "dump.h"
#include "grid.h"
#include "job.h"
#include "model.h"
#include "report.h"

typedef struct renderer renderer;

typedef struct renderer_opts {
    const job   *job; /* borrowed, as all below */
    const model *model;
    const char  *model_sha256;
    const comm_grid *grid;
    device      *dev;
    report      *report;
    dump        *dump;
    bool         overwrite;
    int          n_blocks; /* transformer blocks to run, 0: all */
    bool         reverse_order; /* blocks of keys in the wrong order: shows that the tests would see it */
} renderer_opts;

/* Collective, all three. */
status renderer_open(renderer **out, const renderer_opts *opts);
/* Renders one picture of the job to its output file. A failure is the same on all ranks; after any but ST_COMM the next
 * picture can be rendered. */
status renderer_picture(renderer *r, const job_picture *p);
void   renderer_close(renderer *r); /* accepts NULL */

#endif
