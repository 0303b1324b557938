#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_plot.h"
#include "grid.h"
#include "render.h"

/* Of the classic ring, whose sums are made in another order: largest difference of a latent from the ordered ring's, in
 * units of the latent's root mean square. fp32: rounding of sums; bf16: a velocity that lies on an edge between two bf16
 * values goes to the other one (2^-8 of it) in some step of some block, and later blocks spread that. */
static const double CLOSE_F32 = 1e-4, CLOSE_BF16 = 0.25;

enum { MAX_RUNS = 64 };

typedef struct reference {
    float *latents; /* rank 0 */
    size_t n;
    char   sha256[65];
} reference;

typedef struct bench {
    const bench_opts *opts;
    report           *silent; /* of the renderers */
    bench_row         rows[MAX_RUNS];
    int               n_rows;
    int               n_wrong;
} bench;

static bool speaks(const bench *b)
{
    return comm_rank(b->opts->world) == 0;
}

/* Largest difference in units of the reference's root mean square. */
static double difference(const float *got, const reference *want)
{
    double worst = 0, square = 0;
    for (size_t i = 0; i < want->n; i++) {
        const double d = fabs((double)got[i] - (double)want->latents[i]);
        if (!(d <= worst)) worst = d;
        square += (double)want->latents[i] * (double)want->latents[i];
    }
    return square > 0 ? worst / sqrt(square / (double)want->n) : worst;
}

/* The first run of a picture is the reference of the others. */
static void judge(bench *b, bench_row *row, float *latents, size_t n, reference *want)
{
    const double close = b->opts->job->precision == DT_BF16 ? CLOSE_BF16 : CLOSE_F32;
    if (want->latents == NULL) {
        *want = (reference){.latents = latents, .n = n};
        memcpy(want->sha256, row->figures.latents_sha256, sizeof(want->sha256));
        row->verdict = BENCH_REFERENCE;
        return;
    }
    row->difference = difference(latents, want);
    if (strcmp(row->figures.latents_sha256, want->sha256) == 0)
        row->verdict = BENCH_SAME_BITS;
    else if (row->schedule == EXCHANGE_NEIGHBOUR && row->difference <= close)
        row->verdict = BENCH_CLOSE;
    else
        row->verdict = BENCH_WRONG;
    if (row->verdict == BENCH_WRONG) b->n_wrong++;
    free(latents);
}

/* One run on the first row->n_ranks ranks; the others wait. */
static status run_once(bench *b, const job_picture *p, bench_row *row, reference *want)
{
    status            st = ST_OK;
    const bench_opts *o = b->opts;
    comm             *part = NULL;
    comm_grid         grid = {0};
    renderer         *r = NULL;
    job               variant = *o->job;
    float            *latents = NULL;
    size_t            n_latents = 0;
    const bool        takes_part = comm_rank(o->world) < row->n_ranks;
    variant.parallel.schedule = row->schedule == EXCHANGE_NEIGHBOUR ? SCHEDULE_NEIGHBOUR : SCHEDULE_ORDERED;
    TRY(comm_split(&part, o->world, takes_part ? 0 : 1, comm_rank(o->world)));
    if (takes_part) {
        st = grid_open(&grid, part, row->shape);
        if (st == ST_OK)
            st = renderer_open(&r, &(renderer_opts){.job = &variant, .model = o->model, .model_sha256 = o->model_sha256,
                                                    .grid = &grid, .dev = o->dev, .report = b->silent});
        if (st == ST_OK) st = renderer_steps(r, p, &row->figures, &latents, &n_latents);
    }
    TRY(comm_agree(o->world, st));
    TRY(comm_bcast(o->world, 0, &row->figures, sizeof(row->figures)));
    if (speaks(b)) judge(b, row, latents, n_latents, want);
fail:
    renderer_close(r);
    grid_close(&grid);
    comm_close(part);
    return st;
}

static void tell(bench *b, const bench_row *row)
{
    static const char *const verdicts[] = {"reference", "same bits", "close", "WRONG"};
    const step_figures      *f = &row->figures;
    char                     correct[48];
    if (row->verdict == BENCH_CLOSE || row->verdict == BENCH_WRONG)
        snprintf(correct, sizeof(correct), "%s (%.1e)", verdicts[row->verdict], row->difference);
    else
        snprintf(correct, sizeof(correct), "%s", verdicts[row->verdict]);
    report_line(b->opts->report, "%-6s %5d  %-9s %2dx%-2d %6d x %-6d %9.3f %7.2f %6.0f%% %9.3f %7.0f%% %9.2f %6.2f  %s",
                row->weak ? "weak" : "strong", row->n_ranks, row->schedule == EXCHANGE_NEIGHBOUR ? "neighbour" : "ordered",
                row->shape.ulysses, row->shape.ring, row->width, row->height, f->step_s, row->speedup,
                100 * row->efficiency, f->cpu_s, 100 * row->hidden, (double)f->bytes * 1e-6, row->bytes_over_least, correct);
    report_event(b->opts->report, "bench", json_pack(
        "{s:s, s:s, s:i, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:I, s:s, s:f, s:s}",
        "picture", row->picture, "scaling", row->weak ? "weak" : "strong", "n_ranks", row->n_ranks, "schedule",
        row->schedule == EXCHANGE_NEIGHBOUR ? "neighbour" : "ordered", "ulysses", row->shape.ulysses, "ring",
        row->shape.ring, "width", row->width, "height", row->height, "step_s", f->step_s, "speedup", row->speedup,
        "efficiency", row->efficiency, "cpu_s", f->cpu_s, "hidden", row->hidden, "bytes", (json_int_t)f->bytes,
        "planned_bytes", (json_int_t)f->planned_bytes, "bytes_over_least", row->bytes_over_least, "flops",
        (json_int_t)f->flops, "correct", verdicts[row->verdict], "difference", row->difference, "latents_sha256",
        f->latents_sha256));
}

/* Bytes that the leanest grid of these ranks would send per step for equal cuts: B of keys and values in all, per block.
 * u = 1: B (n - 1); else ring and heads as exchange.h says. */
static double least_bytes(const bench *b, const bench_row *row, int32_t n_rows)
{
    const flux_config *c = &b->opts->model->flux;
    const double       all = 2.0 * n_rows * c->n_heads * c->head_dim * (double)dtype_bytes(b->opts->job->precision);
    const int          n_blocks = c->num_layers + c->num_single_layers;
    double             least = INFINITY;
    for (int u = 1; u <= row->n_ranks && u <= c->n_heads; u++) {
        if (row->n_ranks % u != 0) continue;
        const int    ring = row->n_ranks / u;
        const double sent = all * (ring - 1) + 2 * all * (u - 1) / u;
        if (sent < least) least = sent;
    }
    return least * n_blocks;
}

static void derive(bench *b, bench_row *row, const bench_row *alone)
{
    const step_figures *f = &row->figures;
    const int32_t       n_rows = row->n_text + (row->width / 16) * (row->height / 16);
    const double        least = least_bytes(b, row, n_rows);
    row->speedup = alone->figures.step_s / f->step_s;
    /* Operations per second and rank, beside those of one rank alone: also for weak scaling, where attention grows. */
    row->efficiency = (double)f->flops / f->step_s / row->n_ranks / ((double)alone->figures.flops / alone->figures.step_s);
    row->hidden = f->travel_s > 0 ? 1 - fmin(1, f->exposed_s / f->travel_s) : 1;
    row->bytes_over_least = least > 0 ? (double)f->bytes / least : 1;
}

/* Grids and schedules of n ranks: rings, Ulysses, and the most even hybrid. */
static int candidates(const bench *b, int n, bench_row out[4])
{
    const int heads = b->opts->model->flux.n_heads;
    int       count = 0, even = 1;
    for (int u = 2; u * u <= n && u <= heads; u++)
        if (n % u == 0) even = u;
    out[count++] = (bench_row){.shape = {1, 1, n}, .schedule = EXCHANGE_ORDERED};
    if (n == 1) return count;
    out[count++] = (bench_row){.shape = {1, 1, n}, .schedule = EXCHANGE_NEIGHBOUR};
    if (n <= heads) out[count++] = (bench_row){.shape = {1, n, 1}, .schedule = EXCHANGE_ORDERED};
    if (even > 1) out[count++] = (bench_row){.shape = {1, even, n / even}, .schedule = EXCHANGE_ORDERED};
    return count;
}

static status run_size(bench *b, const job_picture *p, int n, bool weak, reference *want, const bench_row **alone)
{
    status    st = ST_OK;
    bench_row list[4];
    const int n_list = candidates(b, n, list);
    for (int i = 0; i < n_list && b->n_rows < MAX_RUNS; i++) {
        bench_row *row = &b->rows[b->n_rows];
        *row = list[i];
        row->picture = p->name;
        row->n_ranks = n;
        row->weak = weak;
        row->width = p->width;
        row->height = p->height;
        row->n_text = p->max_sequence_length > 0 ? p->max_sequence_length : b->opts->model->max_text_rows;
        TRY(run_once(b, p, row, want));
        b->n_rows++;
        if (*alone == NULL) *alone = row;
        derive(b, row, *alone);
        if (speaks(b)) tell(b, row);
    }
fail:
    return st;
}

/* 1, 2, 4, ... and all. */
static int next_count(int n, int n_ranks)
{
    if (n == n_ranks) return n_ranks + 1;
    return 2 * n < n_ranks ? 2 * n : n_ranks;
}

static status run_picture(bench *b, const job_picture *p)
{
    status           st = ST_OK;
    const int        n_ranks = comm_size(b->opts->world);
    const bench_row *alone = NULL;
    reference        want = {0};
    b->n_rows = 0;
    report_line(b->opts->report, "%s: %d steps; ulysses x ring; step and cpu in s (all ranks), MB sent per step, bytes over "
                "the least of all grids", p->name, p->steps);
    report_line(b->opts->report, "%-6s %5s  %-9s %-5s %-15s %9s %7s %7s %9s %8s %9s %6s  %s", "", "ranks", "schedule", "grid",
                "size", "step", "speedup", "effic.", "cpu", "hidden", "sent", "/least", "latents");
    for (int n = 1; n <= n_ranks; n = next_count(n, n_ranks)) TRY(run_size(b, p, n, false, &want, &alone));
    for (int n = 2; n <= n_ranks; n = next_count(n, n_ranks)) {
        job_picture taller = *p;
        taller.height = p->height * n;
        free(want.latents);
        want = (reference){0};
        TRY(run_size(b, &taller, n, true, &want, &alone));
    }
    if (speaks(b)) st = bench_write(b->opts->report, b->opts->out_dir, p->name, b->rows, b->n_rows);
    st = comm_agree(b->opts->world, st);
fail:
    free(want.latents);
    return st;
}

status bench_run(const bench_opts *opts)
{
    status st = ST_OK;
    bench  b = {.opts = opts};
    TRY(comm_agree(opts->world, report_open(&b.silent, &(report_opts){.speaks = false})));
    for (size_t i = 0; i < opts->job->n_pictures; i++) TRY(run_picture(&b, &opts->job->pictures[i]));
    TRY(comm_bcast(opts->world, 0, &b.n_wrong, sizeof(b.n_wrong)));
    if (b.n_wrong > 0) st = err_set(ST_FAILED, "%d runs have latents that they must not have", b.n_wrong);
fail:
    report_close(b.silent);
    return st;
}
