/* Scaling benchmark (--bench): the step loop of each picture of the job on 1, 2, 4, ... ranks of those that run, under all
 * schedules; strong scaling (the same picture) and weak scaling (rows in proportion to ranks). One table, a CSV and an
 * SVG per picture; every row says whether its latents are those of the reference in it. */
#ifndef DYPE_BENCH_H
#define DYPE_BENCH_H

#include "comm.h"
#include "device.h"
#include "job.h"
#include "model.h"
#include "report.h"

typedef struct bench_opts {
    const job   *job; /* borrowed, as all below */
    const model *model;
    const char  *model_sha256;
    comm        *world;
    device      *dev;
    report      *report;
    const char  *out_dir; /* of the CSV and SVG files; NULL: the current directory */
} bench_opts;

/* Collective. ST_FAILED when some row's latents are not what they must be. */
status bench_run(const bench_opts *opts);

#endif
