#include "loss.h"

#include <stdlib.h>
#include <string.h>

#include "latents_file.h"
#include "text_file.h"

/* One picture. */
typedef struct run {
    const loss_opts   *opts;
    const job_picture *picture; /* with its latents_in */
    float             *noise, *clean; /* [n_rows, channels] of this rank */
    double            *own;           /* [n_rows] sums */
    double            *rows;          /* rank 0: of all image rows */
    size_t            *bytes;         /* of each rank's sums */
    FILE              *out;           /* rank 0 */
} run;

double loss_of_row(const float *velocity, const float *noise, const float *clean, int32_t n)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        const double d = (double)velocity[i] - ((double)noise[i] - (double)clean[i]);
        sum += d * d;
    }
    return sum;
}

static bool speaks(const loss_opts *o)
{
    return comm_rank(o->comm) == 0;
}

/* Keeps the noise; the clean latent from rank 0 to the owners of its rows. */
static status begin(run *l, const step_view *v)
{
    status       st = ST_OK;
    const size_t n = (size_t)v->n_rows * (size_t)v->channels;
    const int    n_ranks = comm_size(v->comm);
    float       *all = NULL;
    l->noise = malloc((n + 1) * sizeof(float));
    l->clean = malloc((n + 1) * sizeof(float));
    l->own = malloc(((size_t)v->n_rows + 1) * sizeof(double));
    l->bytes = calloc((size_t)n_ranks, sizeof(*l->bytes));
    if (speaks(l->opts)) l->rows = malloc((size_t)v->geometry->n_image * sizeof(double));
    if (l->noise == NULL || l->clean == NULL || l->own == NULL || l->bytes == NULL || (speaks(l->opts) && l->rows == NULL))
        st = err_set(ST_NO_MEMORY, "%s: loss of %d rows", l->picture->id, v->n_rows);
    if (st == ST_OK && speaks(l->opts))
        st = latents_file_read(&all, l->picture->latents_in, "latents", v->geometry->n_image, v->channels, NULL);
    TRY(comm_agree(v->comm, st));
    for (int r = 0; r < n_ranks; r++)
        l->bytes[r] = v->bytes_of_ranks[r] / ((size_t)v->channels * sizeof(float)) * sizeof(double);
    memcpy(l->noise, v->latents, n * sizeof(float));
    TRY(comm_scatter(v->comm, 0, all, v->bytes_of_ranks, l->clean));
fail:
    free(all);
    return st;
}

static status before(void *ctx, const step_view *v)
{
    status       st = ST_OK;
    run         *l = ctx;
    const size_t n = (size_t)v->n_rows * (size_t)v->channels;
    const float  s = (float)v->sigma;
    if (v->step == 0) TRY(begin(l, v));
    for (size_t i = 0; i < n; i++) v->latents[i] = (1.0f - s) * l->clean[i] + s * l->noise[i];
fail:
    return st;
}

static status after(void *ctx, const step_view *v)
{
    status        st = ST_OK;
    run          *l = ctx;
    const int32_t c = v->channels;
    double        sum = 0.0;
    char          label[POSITION_LABEL_BYTES];
    for (int32_t i = 0; i < v->n_rows; i++) {
        const size_t at = (size_t)i * (size_t)c;
        l->own[i] = loss_of_row(v->velocity + at, l->noise + at, l->clean + at, c);
    }
    TRY(comm_gather(v->comm, 0, l->own, l->bytes, l->rows));
    if (!speaks(l->opts)) return ST_OK;
    for (int32_t i = 0; i < v->geometry->n_image; i++) sum += l->rows[i];
    const double loss = sum / ((double)v->geometry->n_image * c);
    position_label(&l->picture->position, label);
    fprintf(l->out, "%s,%s,%d,%.9g,%.9g,%.17g\n", l->picture->id, label, v->step, v->t_position, v->sigma, loss);
    report_event(l->opts->report, "loss", json_pack("{s:s, s:s, s:i, s:f, s:f}", "picture", l->picture->id, "method", label,
                                                    "step", v->step, "t", v->t_position, "loss", loss));
fail:
    return st;
}

static status run_picture(const loss_opts *o, const job_picture *p, FILE *out)
{
    run          l = {.opts = o, .picture = p, .out = out};
    job_picture  noise = *p; /* begins with the noise of its seed */
    noise.latents_in = NULL;
    const status st = renderer_watch(o->renderer, &noise, &(step_watcher){.ctx = &l, .before = before, .after = after});
    free(l.noise);
    free(l.clean);
    free(l.own);
    free(l.rows);
    free(l.bytes);
    return st;
}

/* The file so far: `text` is all rows. */
static status save(const loss_opts *o, const text_file *rows)
{
    status    st = ST_OK;
    text_file file = {0};
    TRY(text_file_begin(&file));
    fflush(rows->out);
    fputs("picture,method,step,t,sigma,loss\n", file.out);
    fwrite(rows->text, 1, rows->bytes, file.out);
    TRY(text_file_commit(&file, o->path));
fail:
    text_file_free(&file);
    return st;
}

status loss_run(const loss_opts *opts)
{
    status    st = ST_OK;
    text_file rows = {0};
    for (size_t i = 0; i < opts->job->n_pictures; i++)
        if (opts->job->pictures[i].latents_in == NULL)
            return err_set(ST_BAD_JOB, "%s:%d: %s: --loss needs latents_in, the clean latent of a true picture", opts->job->path,
                           opts->job->pictures[i].line, opts->job->pictures[i].id);
    TRY(comm_agree(opts->comm, speaks(opts) ? text_file_begin(&rows) : ST_OK));
    for (size_t i = 0; i < opts->job->n_pictures; i++) {
        TRY(run_picture(opts, &opts->job->pictures[i], rows.out));
        TRY(comm_agree(opts->comm, speaks(opts) ? save(opts, &rows) : ST_OK));
    }
    report_line(opts->report, "loss of %zu picture%s: %s", opts->job->n_pictures, opts->job->n_pictures == 1 ? "" : "s", opts->path);
fail:
    text_file_free(&rows);
    return st;
}
