/* One picture after another, by all ranks together: prompt -> latent -> PNG. render.c is the recipe. */
#ifndef DYPE_RENDER_H
#define DYPE_RENDER_H

#include "device.h"
#include "dump.h"
#include "grid.h"
#include "job.h"
#include "machine.h"
#include "model.h"
#include "report.h"
#include "step_watcher.h"

typedef struct renderer renderer;

typedef struct renderer_opts {
    const job   *job; /* borrowed, as all below */
    const model *model;
    const char  *model_sha256;
    const char  *encoders_sha256; /* model_hash.h */
    const char  *cache_dir;       /* cache_dir.h; NULL: none */
    const comm_grid *grid;
    device      *dev;
    const machine *machine;       /* all zero: nothing was measured */
    report      *report;
    dump        *dump;
    bool         overwrite;
    const char *const *refused; /* [pictures of the job] why one cannot be rendered here, NULL where it can; or NULL */
    int          n_blocks; /* transformer blocks to run, 0: all */
    bool         reverse_order; /* blocks of keys in the wrong order: shows that the tests would see it */
} renderer_opts;

/* Collective, all of them. */
status renderer_open(renderer **out, const renderer_opts *opts);
/* Renders one picture of the job to its output file, as far as earlier runs have not. A failure is the same on all ranks;
 * after any but ST_COMM the next picture can be rendered. ST_AGAIN: a signal has stopped it, its latent is saved. */
status renderer_picture(renderer *r, const job_picture *p);

/* --decode. The picture of the job that a saved latent (checkpoint.h) belongs to by its recipe; ST_BAD_JOB, with what
 * differs, when there is none. */
status renderer_find(renderer *r, const char *latent, const job_picture **found);
/* Its latent -> PNG again, whether or not it is done. */
status renderer_decode(renderer *r, const job_picture *p, const char *latent);

/* What the step loop of a picture costs. Sums over the ranks unless said. */
typedef struct step_figures {
    int     n_steps;
    double  step_s;     /* median of all steps but the first (of one: that one) */
    double  cpu_s;      /* processor seconds per step */
    double  travel_s;   /* transfers, per step, mean of the ranks */
    double  exposed_s;  /* of them not hidden: computing stood still, per step, mean of the ranks */
    int64_t bytes;      /* sent per step */
    int64_t planned_bytes; /* the same by the formula of exchange.h */
    int64_t flops;      /* per step */
    char    latents_sha256[65];
} step_figures;

/* The step loop alone, measured: text rows are noise (the time does not depend on them), nothing is decoded or written.
 * *figures on all ranks; *latents, on rank 0 of the replica and unless NULL, is yours to free: [n_image, channels]. */
status renderer_steps(renderer *r, const job_picture *p, step_figures *figures, float **latents, size_t *n_latents);

/* The step loop of a picture with its prompt, and somebody who watches; nothing is kept, decoded or written. The latents are
 * those of the render as long as the watcher leaves them alone. */
status renderer_watch(renderer *r, const job_picture *p, const step_watcher *w);
void   renderer_close(renderer *r); /* accepts NULL */

#endif
