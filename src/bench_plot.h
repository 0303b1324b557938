/* Rows of the scaling benchmark, and how they are kept: CSV, and an SVG of speedup and weak efficiency over ranks. */
#ifndef DYPE_BENCH_PLOT_H
#define DYPE_BENCH_PLOT_H

#include "exchange.h"
#include "grid.h"
#include "render.h"

typedef enum bench_verdict { BENCH_REFERENCE, BENCH_SAME_BITS, BENCH_CLOSE, BENCH_WRONG } bench_verdict;

typedef struct bench_row {
    const char       *picture; /* lent by the job */
    int               n_ranks;
    bool              weak;
    grid_shape        shape;
    exchange_schedule schedule;
    int               width, height, n_text;
    step_figures      figures;
    double            speedup;    /* over one rank, same picture */
    double            efficiency; /* operations per second and rank, over one rank's */
    double            hidden;     /* share of the transfers' time that computing did not wait for */
    double            bytes_over_least; /* sent, over the least of all grids for equal cuts */
    bench_verdict     verdict;
    double            difference; /* of latents from the reference's, in units of their root mean square */
} bench_row;

/* Writes scaling-NAME.csv and scaling-NAME.svg under dir (NULL: the current directory). */
status bench_write(report *r, const char *dir, const char *name, const bench_row *rows, int n_rows);

#endif
