#include "spectra_run.h"

#include <stdlib.h>
#include <string.h>

#include "plot.h"
#include "sha256.h"
#include "spectra.h"
#include "spectra_plot.h"
#include "text_file.h"

/* Buffers of rank 0 for pictures of one size; other ranks have none. */
typedef struct run {
    const spectra_opts *opts;
    spectra            *spectra;
    float              *state, *velocity; /* [n_image, channels] */
    double             *power;            /* [n_bins] */
    spectra_record     *record;           /* that the powers are added to */
} run;

static bool speaks(const spectra_opts *o)
{
    return comm_rank(o->comm) == 0;
}

static void record_free(spectra_record *r)
{
    free(r->sigma);
    free(r->state);
    free(r->clean);
}

static void run_free(run *x)
{
    spectra_close(x->spectra);
    free(x->state);
    free(x->velocity);
    free(x->power);
}

static status open_buffers(run *x, const step_view *v)
{
    status         st = ST_OK;
    const size_t   n = (size_t)v->geometry->n_image * (size_t)v->channels;
    spectra_record *r = x->record;
    if (x->spectra != NULL) return ST_OK; /* of an earlier seed */
    TRY(spectra_open(&x->spectra, v->geometry->latent_h, v->geometry->latent_w));
    r->n_steps = v->n_steps;
    r->n_bins = spectra_bins(x->spectra);
    const size_t cells = (size_t)(r->n_steps + 1) * (size_t)r->n_bins;
    x->state = malloc(n * sizeof(float));
    x->velocity = malloc(n * sizeof(float));
    x->power = calloc((size_t)r->n_bins + 1, sizeof(double));
    r->sigma = calloc((size_t)r->n_steps + 1, sizeof(double));
    r->state = calloc(cells + 1, sizeof(double));
    r->clean = calloc(cells + 1, sizeof(double));
    if (x->state == NULL || x->velocity == NULL || x->power == NULL || r->sigma == NULL || r->state == NULL || r->clean == NULL)
        st = err_set(ST_NO_MEMORY, "%s: spectra of %zu values", v->picture->id, n);
fail:
    return st;
}

static void add(run *x, const step_view *v, const float *packed, double *table, int step)
{
    double *row = table + (size_t)step * (size_t)x->record->n_bins;
    spectra_of_latent(x->spectra, v->channels, packed, x->power);
    for (int k = 0; k < x->record->n_bins; k++) row[k] += x->power[k];
}

static status before(void *ctx, const step_view *v)
{
    status st = ST_OK;
    run   *x = ctx;
    if (v->step == 0) TRY(comm_agree(v->comm, speaks(x->opts) ? open_buffers(x, v) : ST_OK));
    TRY(comm_gather(v->comm, 0, v->latents, v->bytes_of_ranks, x->state));
fail:
    return st;
}

/* The prediction, and after the last step the finished latent, are made where the state lay. */
static status after(void *ctx, const step_view *v)
{
    status       st = ST_OK;
    run         *x = ctx;
    const size_t n = (size_t)v->geometry->n_image * (size_t)v->channels;
    char         sha[SHA256_HEX];
    TRY(comm_gather(v->comm, 0, v->velocity, v->bytes_of_ranks, x->velocity));
    if (!speaks(x->opts)) return ST_OK;
    x->record->sigma[v->step] = v->sigma;
    add(x, v, x->state, x->record->state, v->step);
    const bool  last = v->step == v->n_steps - 1;
    const float sigma = (float)v->sigma;
    for (size_t i = 0; i < n; i++) x->state[i] = x->state[i] + (0.0f - sigma) * x->velocity[i];
    add(x, v, x->state, x->record->clean, v->step);
    if (!last) return ST_OK;
    /* The last step goes from its noise level to 0: the finished latent is its prediction. */
    add(x, v, x->state, x->record->state, v->n_steps);
    add(x, v, x->state, x->record->clean, v->n_steps);
    x->record->n_pictures++;
    TRY(sha256_of(x->state, n * sizeof(float), sha));
    report_event(x->opts->report, "spectra", json_pack("{s:s, s:s}", "picture", v->picture->id, "latents_sha256", sha));
fail:
    return st;
}

/* The seeds of the entry that begins at picture `first`; *next: that of the following entry. */
static status run_entry(const spectra_opts *o, size_t first, size_t *next, spectra_record *record)
{
    status st = ST_OK;
    run    x = {.opts = o, .record = record};
    *record = (spectra_record){.name = o->job->pictures[first].name};
    for (*next = first; *next < o->job->n_pictures && o->job->pictures[*next].line == o->job->pictures[first].line &&
                        o->job->pictures[*next].column == o->job->pictures[first].column; ++*next)
        TRY(renderer_watch(o->renderer, &o->job->pictures[*next], &(step_watcher){.ctx = &x, .before = before, .after = after}));
    const size_t cells = (size_t)(record->n_steps + 1) * (size_t)record->n_bins;
    for (size_t i = 0; speaks(o) && i < cells; i++) {
        record->state[i] /= record->n_pictures;
        record->clean[i] /= record->n_pictures;
    }
fail:
    run_free(&x);
    return st;
}

static status write_all(const spectra_opts *o, const spectra_record *records, int n)
{
    status    st = ST_OK;
    text_file csv = {0}, svg = {0};
    char     *svg_path = NULL;
    TRY(text_file_beside(&svg_path, o->path, ".svg"));
    TRY(text_file_begin(&csv));
    spectra_print_head(csv.out);
    for (int i = 0; i < n; i++) spectra_print(csv.out, &records[i]);
    TRY(text_file_begin(&svg));
    plot_begin(svg.out, SPECTRA_PLOT_W, n * SPECTRA_PLOT_H);
    for (int i = 0; i < n; i++) TRY(spectra_draw(svg.out, &records[i], i * SPECTRA_PLOT_H));
    plot_end(svg.out);
    TRY(text_file_commit(&csv, o->path));
    TRY(text_file_commit(&svg, svg_path));
    report_line(o->report, "spectra of %d entr%s: %s, %s", n, n == 1 ? "y" : "ies", o->path, svg_path);
fail:
    text_file_free(&csv);
    text_file_free(&svg);
    free(svg_path);
    return st;
}

status spectra_run(const spectra_opts *opts)
{
    status          st = ST_OK;
    const size_t    path_bytes = strlen(opts->path);
    int             n = 0;
    spectra_record *records = calloc(opts->job->n_pictures, sizeof(*records));
    TRY(comm_agree(opts->comm, records != NULL ? ST_OK : err_set(ST_NO_MEMORY, "spectra of %zu pictures", opts->job->n_pictures)));
    if (path_bytes >= 4 && strcmp(opts->path + path_bytes - 4, ".svg") == 0) {
        st = err_set(ST_USAGE, "--spectra %s: names the table; the drawing gets its name with .svg", opts->path);
        goto fail;
    }
    for (size_t at = 0; at < opts->job->n_pictures;) TRY(run_entry(opts, at, &at, &records[n++]));
    TRY(comm_agree(opts->comm, speaks(opts) ? write_all(opts, records, n) : ST_OK));
fail:
    for (int i = 0; records != NULL && i < n; i++) record_free(&records[i]);
    free(records);
    return st;
}
