/* dype-dist: from a command line to finished pictures. Only this file exits. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "cache_dir.h"
#include "clerk.h"
#include "comm.h"
#include "contact_sheet.h"
#include "job.h"
#include "loss.h"
#include "model_hash.h"
#include "options.h"
#include "plan.h"
#include "positions_plot.h"
#include "recipe_job.h"
#include "render.h"
#include "report.h"
#include "self_check.h"
#include "signals.h"
#include "spectra_run.h"
#include "watchdog.h"

#ifdef WITH_CUDA
static const bool HAS_CUDA = true;
#else
static const bool HAS_CUDA = false;
#endif
static const double HASHING_TELL_S = 2.0; /* between lines about a slow hash */

typedef struct program {
    options  options;
    comm    *comm;
    machine  machine; /* that plans are for */
    grid_shape shape;
    char   **refused; /* [pictures] why one cannot be rendered here; NULL where it can */
    comm_grid grid;
    int      n_threads;
    report  *report;
    report  *lead_report; /* of a replica's lead that is not world rank 0: forwards to it */
    job     *job;
    model   *model;
    device  *dev;
    dump    *dump;
    renderer *renderer;
    char    *cache_dir; /* NULL: none */
    model_digest digest;
    double   hashing_told;
    char     dump_dir[4096];
} program;

static bool speaks(const program *p)
{
    return comm_rank(p->comm) == 0;
}

/* Processors this rank may use, beside those of the machine. */
static int allowed_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static int choose_threads(const program *p)
{
    const int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int       n = p->options.n_threads;
    if (n == 0) n = cores / comm_local_size(p->comm) > 0 ? cores / comm_local_size(p->comm) : 1;
    if (allowed_cores() < n)
        report_warn(p->report, "%d thread%s, but this rank is bound to %d core%s: start mpirun with --bind-to none", n,
                    n == 1 ? "" : "s", allowed_cores(), allowed_cores() == 1 ? "" : "s");
    return n;
}

/* Of a core, for each thread: bound ranks have the cores of their mask, others share the machine's. */
static double core_share(const program *p)
{
    const bool   bound = allowed_cores() < (int)sysconf(_SC_NPROCESSORS_ONLN);
    const double share = (double)allowed_cores() / (p->n_threads * (bound ? 1 : comm_local_size(p->comm)));
    return share < 1 ? share : 1;
}

static status open_job(program *p)
{
    status     st = ST_OK;
    job_opts   opts = {.model = p->options.model, .out_dir = p->options.out_dir, .only = p->options.only,
                       .n_only = p->options.n_only};
    TRY(comm_agree(p->comm, job_open(&p->job, p->options.job_path, &opts)));
    TRY(comm_same(p->comm, ST_BAD_JOB, "job file", p->job->sha256));
fail:
    return st;
}

static void show_hashing(void *context, int64_t done, int64_t all)
{
    program     *p = context;
    const double now = report_now();
    if (now - p->hashing_told < HASHING_TELL_S) return;
    p->hashing_told = now;
    report_line(p->report, "hashing the model, once: %.1f of %.1f GB", (double)done * 1e-9, (double)all * 1e-9);
}

static status open_model(program *p)
{
    return comm_agree(p->comm, model_open(&p->model, p->job->model));
}

static status hash_model(program *p)
{
    status st = ST_OK;
    p->hashing_told = report_now();
    st = cache_dir_find(&p->cache_dir, p->options.cache_dir);
    if (st == ST_OK && speaks(p))
        st = model_hash(&p->digest, p->model, &(model_hash_opts){.progress = show_hashing, .context = p,
                                                                 .cache_dir = p->cache_dir});
    TRY(comm_agree(p->comm, st));
    TRY(comm_bcast(p->comm, 0, &p->digest, sizeof(p->digest)));
fail:
    return st;
}

/* The GPU of this rank: of its number among the ranks of its node; where a launcher shows each rank but one, that one. */
static status choose_gpu(const program *p, int n_gpus, int *ordinal)
{
    const int n_local = comm_local_size(p->comm);
    if (n_gpus > 1 && n_gpus < n_local)
        return err_set(ST_DEVICE, "fewer GPUs than ranks on %s: got %d, want %d, one for each rank", comm_host(p->comm), n_gpus,
                       n_local);
    *ordinal = n_gpus == 1 ? 0 : comm_local_rank(p->comm);
    return ST_OK;
}

/* Whether to compute on GPUs, and on which. When no rank has one, --backend auto takes the cpu and says why. */
static status choose_backend(program *p, device_opts *opts)
{
    status     st = ST_OK;
    int        n_gpus = 0;
    char       id[DEVICE_GPU_ID] = "";
    const bool asked = p->options.backend == BACKEND_CUDA;
    if (!asked && (p->options.backend != BACKEND_AUTO || !HAS_CUDA)) return ST_OK;
    const status found_st = device_gpu_count(&n_gpus);
    int          none = found_st != ST_OK; /* 1 for all when no rank has a GPU: then it is no mistake */
    TRY(comm_min_int(p->comm, &none));
    st = comm_agree(p->comm, found_st);
    if (st != ST_OK && none && !asked) {
        report_line(p->report, "computing on the processor: %s", err_text());
        err_clear();
        return ST_OK;
    }
    TRY(st);
    TRY(comm_agree(p->comm, choose_gpu(p, n_gpus, &opts->ordinal)));
    TRY(comm_agree(p->comm, device_gpu_id(opts->ordinal, id)));
    TRY(comm_distinct(p->comm, ST_DEVICE, "GPU", id));
    opts->kind = DEVICE_CUDA;
fail:
    return st;
}

/* GPUs of one kind, or the lowest instruction set of all ranks: so that they compute the same bits. */
static status open_device(program *p)
{
    status      st = ST_OK;
    int         isa = (int)(p->options.isa_given ? p->options.isa : cpu_isa_best());
    const char *how = NULL;
    device_opts opts = {.kind = p->options.backend == BACKEND_STRICT ? DEVICE_STRICT : DEVICE_CPU,
                        .limit_bytes = p->options.memory_limit};
    if (isa > (int)cpu_isa_best())
        st = err_set(ST_DEVICE, "--isa %s: this processor has only %s", cpu_isa_name((cpu_isa)isa),
                     cpu_isa_name(cpu_isa_best()));
    TRY(comm_agree(p->comm, st));
    TRY(comm_min_int(p->comm, &isa));
    TRY(choose_backend(p, &opts));
    p->n_threads = choose_threads(p);
    opts.isa = (cpu_isa)isa;
    opts.n_threads = p->n_threads;
    TRY(comm_agree(p->comm, device_open(&p->dev, &opts)));
    TRY(comm_same(p->comm, ST_DEVICE, "device", device_name(p->dev)));
    if (opts.kind != DEVICE_CUDA || comm_size(p->comm) == 1) return ST_OK;
    TRY(comm_open_channel(p->comm, p->dev, &how));
    report_line(p->report, "transfers between GPUs: %s", how);
fail:
    return st;
}

static status check_device(program *p)
{
    bool   same = true;
    status st = comm_agree(p->comm, self_check_rows(p->dev, p->job->precision, &same));
    if (st != ST_OK) return st;
    int all_same = same;
    st = comm_min_int(p->comm, &all_same);
    if (st == ST_OK && !all_same)
        report_warn(p->report, "self-check: on this processor a row's result depends on the number of rows computed with "
                    "it; pictures may differ in bits between numbers of ranks");
    return st;
}

static status open_dump(program *p)
{
    snprintf(p->dump_dir, sizeof(p->dump_dir), "%s/dumps", p->options.out_dir != NULL ? p->options.out_dir : ".");
    return comm_agree(p->comm, dump_open(&p->dump, &(dump_opts){.dir = p->dump_dir, .names = p->options.dump,
                                                                .n_names = p->options.n_dump,
                                                                .rank = comm_rank(p->comm)}));
}

static void greet(program *p)
{
    const int n_ranks = comm_size(p->comm);
    report_line(p->report, "dype-dist %s: %zu picture%s with %s on %d rank%s, %s, %s", DYPE_VERSION, p->job->n_pictures,
                p->job->n_pictures == 1 ? "" : "s", p->job->model, n_ranks, n_ranks == 1 ? "" : "s",
                device_name(p->dev), p->job->precision == DT_BF16 ? "bf16" : "fp32");
    report_event(p->report, "start", json_pack("{s:s, s:o, s:o, s:s, s:i, s:s, s:I}", "version", DYPE_VERSION, "job",
                                               report_text(p->options.job_path), "model", report_text(p->job->model),
                                               "model_sha256",
                                               p->digest.whole, "n_ranks", n_ranks, "device", device_name(p->dev),
                                               "n_pictures", (json_int_t)p->job->n_pictures));
}

static void take_place(void *context, const char *picture, const char *phase, int step)
{
    comm *c = context;
    if (step < 0)
        watchdog_phase(c, picture, phase);
    else
        watchdog_step(c, step);
}

static void post(void *context, report_kind kind, const char *text)
{
    (void)clerk_post(context, (int)kind, text); /* a lost line of progress is no reason to stop */
}

static void deliver(void *context, int from_world_rank, int kind, const char *text)
{
    (void)from_world_rank;
    report_deliver(context, (report_kind)kind, text);
}

/* The leads of other replicas speak through world rank 0. */
static status open_lead_report(program *p)
{
    if (speaks(p)) clerk_listen(p->comm, deliver, p->report);
    if (p->grid.index == 0 || comm_rank(p->grid.replica) != 0) return ST_OK;
    return report_open(&p->lead_report, &(report_opts){
        .quiet = p->options.quiet, .log_json = p->options.log_json, .forward = post, .forward_context = p->comm,
        .place = take_place, .place_context = p->comm});
}

/* Whether a second of measuring is nothing beside the job. */
static bool worth_measuring(const program *p)
{
    double flops = 0;
    for (size_t i = 0; i < p->job->n_pictures; i++) {
        geometry g;
        if (geometry_make(&g, p->job->pictures[i].width, p->job->pictures[i].height, p->model->vae.scale) != ST_OK) continue;
        const plan_flops f = plan_count_flops(p->model, &g, p->model->max_text_rows);
        flops += (f.attention + f.products) * p->job->pictures[i].steps + f.conv + f.mid_attention;
    }
    return flops / comm_size(p->comm) > 1e12;
}

/* The machine that plans are for: named, measured, or unknown when that is not worth it (all zero). Collective. */
static status open_machine(program *p, int n_ranks)
{
    const double       budget_s = p->options.plan ? 1.0 : 0.3;
    const job_picture *picture = &p->job->pictures[0];
    const int32_t      rows = picture->width / 16 * (picture->height / 16) / n_ranks;
    const machine_load load = {.n_threads = p->n_threads, .core_share = core_share(p)};
    const int64_t      limit = (int64_t)p->options.memory_limit;
    status             st = ST_OK;
    if (p->options.plan_for != NULL) st = comm_agree(p->comm, machine_named(&p->machine, p->options.plan_for));
    else if (p->options.plan || worth_measuring(p))
        st = machine_measure(&p->machine, p->comm, p->dev, p->model, p->job->precision, rows, rows, &load, budget_s);
    if (p->machine.own_memory && limit > 0 && limit < p->machine.memory_bytes) p->machine.memory_bytes = limit;
    return st;
}

/* The plan of one picture: told, and whether it fits. */
static status plan_picture(program *p, const plan_opts *opts, plan *made)
{
    const status st = plan_make(made, opts);
    if (st != ST_OK) return st;
    if (p->options.plan) plan_print(made, p->report);
    else if (made->machine.attention > 0) plan_print_short(made, p->report);
    if (speaks(p)) report_event(p->report, "plan", plan_json(made));
    return ST_OK;
}

/* The grid of all pictures is that of the first one's plan that fits. A picture that does not fit fails by itself; when none
 * does, the job ends here. With --plan: tells all. */
static status plan_job(program *p)
{
    status    st = ST_OK;
    plan      made = {0};
    size_t    n_refused = 0;
    int       n_local = comm_local_size(p->comm);
    plan_opts opts = {.model = p->model, .job = p->job, .n_threads = p->n_threads,
                      .n_ranks = p->options.plan_ranks > 0 ? p->options.plan_ranks : comm_size(p->comm)};
    TRY(comm_min_int(p->comm, &n_local));
    opts.n_ranks_of_node = p->options.plan_ranks > 0 ? opts.n_ranks : n_local;
    TRY(open_machine(p, opts.n_ranks));
    if (p->machine.attention > 0) opts.machine = &p->machine;
    p->refused = calloc(p->job->n_pictures, sizeof(*p->refused));
    TRY(comm_agree(p->comm, p->refused != NULL ? ST_OK : err_set(ST_NO_MEMORY, "plans of %zu pictures", p->job->n_pictures)));
    for (size_t i = 0; i < p->job->n_pictures; i++) {
        opts.picture = &p->job->pictures[i];
        TRY(comm_agree(p->comm, plan_picture(p, &opts, &made)));
        status fits = plan_fits(&made, &opts);
        if (fits == ST_NO_MEMORY) p->refused[i] = strdup(err_text()); /* before it names a rank: all find the same */
        fits = comm_agree(p->comm, fits);
        if (fits != ST_OK && fits != ST_NO_MEMORY) st = fits;
        if (st == ST_OK && (i == n_refused)) p->shape = made.shape;
        plan_free(&made);
        TRY(st);
        if (fits == ST_OK) continue;
        if (p->refused[i] == NULL) p->refused[i] = strdup(err_text());
        if (p->refused[i] == NULL) st = err_set(ST_NO_MEMORY, "plans of %zu pictures", p->job->n_pictures);
        TRY(comm_agree(p->comm, st));
        n_refused++;
    }
    for (size_t i = 0; i < p->job->n_pictures; i++) {
        if (p->refused[i] == NULL || (!p->options.plan && n_refused < p->job->n_pictures)) continue;
        if (!p->options.plan) report_picture(p->report, p->job->pictures[i].id, "failed", p->refused[i]);
        if (st == ST_OK) st = err_set(ST_NO_MEMORY, "%s", p->refused[i]);
    }
    if (st != ST_OK && !p->options.plan) report_table(p->report, p->job->n_pictures);
fail:
    plan_free(&made);
    return st;
}

static status open_grid(program *p)
{
    status st = ST_OK;
    TRY(grid_open(&p->grid, p->comm, p->shape));
    TRY(comm_agree(p->comm, open_lead_report(p)));
    if (p->grid.nodes_crossed)
        report_warn(p->report, "parallel: ulysses: %d ranks that share heads are not all on one node: their transfers cross "
                    "the network", p->shape.ulysses);
fail:
    return st;
}

/* What a replica has done, and all of them together. */
typedef struct tally {
    size_t n_failed;
    status cause;   /* that all failures share, else ST_FAILED */
    bool   stopped; /* by a signal, with pictures left */
} tally;

static void count_failure(tally *t, status cause, size_t n)
{
    t->cause = t->n_failed == 0 || t->cause == cause ? cause : ST_FAILED;
    t->n_failed += n;
}

static void tell_failure(const job_picture *picture, report *r)
{
    report_warn(r, "%s failed: %s", picture->id, err_text());
    report_event(r, "picture", json_pack("{s:s, s:s, s:o}", "picture", picture->id, "state", "failed", "reason",
                                         report_text(err_text())));
    report_picture(r, picture->id, "failed", err_text());
}

static void tell_stop(const job_picture *picture, report *r)
{
    report_warn(r, "%s", err_text());
    report_event(r, "picture", json_pack("{s:s, s:s, s:o}", "picture", picture->id, "state", "stopped", "reason",
                                         report_text(err_text())));
    report_picture(r, picture->id, "stopped", err_text());
}

/* The next picture of this replica, the same on all its ranks; at least n_pictures: there is none. A signal takes all that
 * are left, so that other replicas begin no more either. *stopped: it took some. */
static status next_ticket(program *p, int *ticket, bool *stopped)
{
    status st = ST_OK;
    int    go_on = signals_noted() == NULL, some = 0;
    TRY(comm_min_int(p->grid.replica, &go_on));
    if (comm_rank(p->grid.replica) == 0) {
        do {
            st = clerk_next(p->comm, ticket);
            some |= !go_on && st == ST_OK && (size_t)*ticket < p->job->n_pictures;
        } while (!go_on && st == ST_OK && (size_t)*ticket < p->job->n_pictures);
    }
    TRY(comm_agree(p->grid.replica, st));
    TRY(comm_bcast(p->grid.replica, 0, ticket, sizeof(*ticket)));
    TRY(comm_bcast(p->grid.replica, 0, &some, sizeof(some)));
    *stopped |= some != 0;
fail:
    return st;
}

/* The pictures that fall to this replica, whenever it is free for one; one that fails does not stop the others. */
static status render_share(program *p, report *r, tally *t)
{
    status st = ST_OK;
    for (;;) {
        int ticket = 0;
        TRY(next_ticket(p, &ticket, &t->stopped));
        if ((size_t)ticket >= p->job->n_pictures) return ST_OK;
        const job_picture *picture = &p->job->pictures[ticket];
        st = renderer_picture(p->renderer, picture);
        if (st == ST_COMM) goto fail;
        if (st == ST_AGAIN) {
            tell_stop(picture, r);
            t->stopped = true;
        } else if (st != ST_OK) {
            tell_failure(picture, r);
            count_failure(t, st, 1);
        }
        st = ST_OK;
    }
fail:
    return st;
}

/* --decode: the picture of the job whose recipe is the file's; that of the file's id is tried first. One replica does it. */
static status decode_file(program *p, report *r, tally *t)
{
    status             st = ST_OK;
    const job_picture *found = NULL;
    const char        *path = p->options.decode;
    if (p->grid.index != 0) return ST_OK;
    TRY(renderer_find(p->renderer, path, &found));
    st = renderer_decode(p->renderer, found, path);
    if (st == ST_OK || st == ST_COMM) goto fail;
    if (st == ST_AGAIN) {
        tell_stop(found, r);
        t->stopped = true;
    } else {
        tell_failure(found, r);
        count_failure(t, st, 1);
    }
    st = ST_OK;
fail:
    return st;
}

/* Failures of all replicas, told by their leads. */
static status add_up(program *p, const tally *mine, tally *sum)
{
    status       st = ST_OK;
    const int    n = comm_size(p->comm);
    const bool   leads = comm_rank(p->grid.replica) == 0;
    const tally  none = {0};
    tally       *all = calloc((size_t)n, sizeof(*all));
    size_t      *bytes = calloc((size_t)n, sizeof(*bytes));
    TRY(comm_agree(p->comm, all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "failures of %d ranks", n)));
    for (int r = 0; r < n; r++) bytes[r] = sizeof(*all);
    TRY(comm_gather(p->comm, 0, leads ? mine : &none, bytes, all));
    TRY(comm_bcast(p->comm, 0, all, (size_t)n * sizeof(*all)));
    for (int r = 0; r < n; r++) {
        if (all[r].n_failed > 0) count_failure(sum, all[r].cause, all[r].n_failed);
        sum->stopped |= all[r].stopped;
    }
    TRY(clerk_settle(p->comm)); /* what leads have said is in the log before the end is */
fail:
    free(all);
    free(bytes);
    return st;
}

/* On rank 0. With --only: when no picture of the file is missing, so that of many jobs on one file the last one makes it. */
static status write_sheet(program *p)
{
    status     st = ST_OK;
    const job *j = p->job;
    if (!speaks(p) || j->contact_sheet == NULL) return ST_OK;
    for (size_t i = 0; j->n_pictures < j->n_all_pictures && i < j->n_all_pictures; i++)
        if (access(j->all_pictures[i].output, F_OK) != 0) return ST_OK;
    report_phase(p->report, "contact sheet", "contact sheet");
    TRY(contact_sheet_write(j->contact_sheet, j->all_pictures, j->n_all_pictures, p->report));
    report_line(p->report, "contact sheet: %s", j->contact_sheet);
    report_event(p->report, "contact_sheet", json_pack("{s:o, s:I}", "path", report_text(j->contact_sheet), "pictures",
                                                       (json_int_t)j->n_all_pictures));
fail:
    report_phase(p->report, NULL, NULL);
    return st;
}

static status open_renderer(program *p, report *r)
{
    return comm_agree(p->comm, renderer_open(&p->renderer, &(renderer_opts){
        .job = p->job, .model = p->model, .model_sha256 = p->digest.whole, .encoders_sha256 = p->digest.encoders,
        .cache_dir = p->cache_dir, .grid = &p->grid, .dev = p->dev, .machine = &p->machine, .report = r, .dump = p->dump,
        .overwrite = p->options.overwrite, .refused = (const char *const *)p->refused,
        .n_blocks = p->options.n_blocks > 0 ? p->options.n_blocks : 0,
        .reverse_order = getenv("DYPE_TEST_REVERSE_BLOCKS") != NULL}));
}

/* ST_AGAIN when a signal has left some undone; ST_FAILED when some pictures failed; a cause that all share is told. */
static status render_all(program *p)
{
    status  st = ST_OK;
    report *r = p->lead_report != NULL ? p->lead_report : p->report;
    tally   mine = {0}, sum = {0};
    TRY(open_renderer(p, r));
    signals_hold(true);
    st = p->options.decode != NULL ? decode_file(p, r, &mine) : render_share(p, r, &mine);
    if (p->options.decode != NULL) st = comm_agree(p->comm, st);
    if (st == ST_OK) st = add_up(p, &mine, &sum);
    signals_hold(false);
    TRY(st);
    const size_t n_wanted = p->options.decode != NULL ? 1 : p->job->n_pictures;
    if (!sum.stopped && p->options.decode == NULL) st = comm_agree(p->comm, write_sheet(p));
    if (st == ST_COMM) goto fail;
    if (st != ST_OK) report_warn(p->report, "contact sheet: %s", err_text());
    if (sum.n_failed > 0)
        st = err_set(sum.n_failed < n_wanted ? ST_FAILED : sum.cause, "%zu of %zu pictures failed", sum.n_failed, n_wanted);
    if (sum.stopped) st = err_set(ST_AGAIN, "stopped by a signal: run the same command again");
    report_table(p->report, n_wanted);
fail:
    report_event(p->report, "end", json_pack("{s:i, s:I, s:I}", "exit_code", (int)st, "failed", (json_int_t)sum.n_failed,
                                             "pictures", (json_int_t)p->job->n_pictures));
    return st;
}

/* --spectra and --loss write one file: all ranks are one replica. */
static bool measures(const program *p)
{
    return p->options.spectra != NULL || p->options.loss != NULL;
}

static status one_replica(program *p)
{
    if (p->job->parallel.replicas > 1)
        return err_set(ST_BAD_JOB, "%s: parallel: %d replicas: --%s wants all ranks in one", p->job->path, p->job->parallel.replicas,
                       p->options.spectra != NULL ? "spectra" : "loss");
    p->job->parallel.replicas = 1;
    return ST_OK;
}

static status measure_all(program *p)
{
    status st = ST_OK;
    TRY(open_renderer(p, p->report));
    if (p->options.spectra != NULL)
        TRY(spectra_run(&(spectra_opts){.path = p->options.spectra, .job = p->job, .renderer = p->renderer,
                                        .comm = p->grid.replica, .report = p->report}));
    else
        TRY(loss_run(&(loss_opts){.path = p->options.loss, .job = p->job, .renderer = p->renderer, .comm = p->grid.replica,
                                  .report = p->report}));
fail:
    return st;
}

/* The same program, asked for the same thing: ranks that differ here would wait for each other in different places. */
static status compare_options(program *p)
{
    status st = ST_OK;
    char   text[1024];
    int    n = snprintf(text, sizeof(text), "--check %d --bench %d --decode %d --plot-positions %d --spectra %d --loss %d --blocks %d",
                        p->options.check, p->options.bench, p->options.decode != NULL, p->options.plot_positions != NULL,
                        p->options.spectra != NULL, p->options.loss != NULL, p->options.n_blocks);
    for (size_t i = 0; i < p->options.n_only && n < (int)sizeof(text); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " --only %s", p->options.only[i]);
    TRY(comm_same(p->comm, ST_USAGE, "program version", DYPE_VERSION));
    TRY(comm_same(p->comm, ST_USAGE, "command line", text));
fail:
    return st;
}

static void log_alarm(void *context, const watchdog_alarm *alarm)
{
    static const char *const reasons[] = {[WATCHDOG_NO_RECORD] = "no sign of life", [WATCHDOG_STILL] = "nothing moves",
                                          [WATCHDOG_DEADLOCK] = "all wait"};
    program *p = context;
    json_t  *ranks = json_array();
    for (int i = 0; i < alarm->n_ranks; i++) {
        const watchdog_record *r = &alarm->ranks[i];
        json_array_append_new(ranks, json_pack("{s:i, s:o, s:o, s:o, s:i, s:i, s:i, s:f}", "rank", r->rank, "host",
                                               report_text(r->host), "phase", report_text(r->phase), "picture",
                                               report_text(r->picture), "step", r->step, "layer", r->layer, "hop", r->hop,
                                               "silent_s", r->still_s));
    }
    report_event(p->report, "watchdog", json_pack("{s:s, s:i, s:o}", "reason", reasons[alarm->reason], "limit_s",
                                                  p->options.watchdog_s, "ranks", ranks));
}

static status open_report(program *p)
{
    status st = ST_OK;
    TRY(comm_agree(p->comm, report_open(&p->report, &(report_opts){
        .speaks = speaks(p), .quiet = p->options.quiet, .log_json = p->options.log_json, .place = take_place,
        .place_context = p->comm})));
    if (speaks(p)) watchdog_listen(p->comm, log_alarm, p);
    take_place(p->comm, NULL, "start", -1);
    TRY(watchdog_start(p->comm, p->options.watchdog_s));
fail:
    return st;
}

/* What would be rendered, for scripts: a line per picture on stdout, its id first, then size, steps and output. */
static void list_pictures(const job *j)
{
    for (size_t i = 0; i < j->n_pictures; i++) {
        const job_picture *picture = &j->pictures[i];
        printf("%s\t%dx%d\t%d steps\t%s\n", picture->id, picture->width, picture->height, picture->steps, picture->output);
    }
}

static status run(program *p, status options_st)
{
    status st = options_st;
    TRY(comm_agree(p->comm, st));
    TRY(compare_options(p));
    TRY(open_report(p));
    TRY(open_job(p));
    TRY(open_model(p));
    if (p->options.check) {
        if (speaks(p)) list_pictures(p->job);
        report_line(p->report, "%s: %zu picture%s, model %s: no mistake found", p->options.job_path, p->job->n_pictures,
                    p->job->n_pictures == 1 ? "" : "s", p->job->model);
        return ST_OK;
    }
    if (p->options.plot_positions != NULL)
        return comm_agree(p->comm, speaks(p) ? positions_plot(p->options.plot_positions, p->job, p->model, p->report) : ST_OK);
    TRY(open_device(p));
    TRY(check_device(p));
    if (measures(p)) TRY(one_replica(p));
    if (!p->options.bench) TRY(plan_job(p));
    if (p->options.plan) return ST_OK;
    if (!p->options.bench) TRY(open_grid(p));
    TRY(hash_model(p));
    TRY(open_dump(p));
    greet(p);
    if (p->options.bench) {
        TRY(bench_run(&(bench_opts){.job = p->job, .model = p->model, .model_sha256 = p->digest.whole, .world = p->comm,
                                    .dev = p->dev, .report = p->report, .out_dir = p->options.out_dir}));
        return ST_OK;
    }
    if (measures(p)) return measure_all(p);
    TRY(render_all(p));
fail:
    return st;
}

static void close_all(program *p)
{
    renderer_close(p->renderer);
    dump_close(p->dump);
    grid_close(&p->grid);
    comm_close_channel(p->comm);
    device_close(p->dev);
    report_close(p->lead_report);
    model_close(p->model);
    for (size_t i = 0; p->refused != NULL && i < p->job->n_pictures; i++) free(p->refused[i]);
    free(p->refused);
    job_close(p->job);
    if (speaks(p)) watchdog_listen(p->comm, NULL, NULL);
    report_close(p->report);
    options_close(&p->options);
    free(p->cache_dir);
}

int main(int argc, char **argv)
{
    program p = {0};
    status  st = options_read(&p.options, argc, argv);
    if (st == ST_OK && p.options.help) {
        options_print_help(stdout);
        options_close(&p.options);
        return 0;
    }
    if (st == ST_OK && p.options.version) {
        printf("dype-dist %s\n", DYPE_VERSION);
        options_close(&p.options);
        return 0;
    }
    if (st == ST_OK && p.options.recipe != NULL) {
        st = recipe_job_print(stdout, p.options.recipe, p.options.model);
        if (st != ST_OK) fprintf(stderr, "dype-dist: %s\n", err_text());
        options_close(&p.options);
        return (int)st;
    }
    if (signals_open() != ST_OK || comm_open(&p.comm, &argc, &argv) != ST_OK) {
        fprintf(stderr, "dype-dist: %s\n", err_text());
        return ST_COMM;
    }
    st = run(&p, st);
    if (st == ST_COMM) { /* perhaps only this rank knows: it speaks for itself, and nobody waits for the others */
        fprintf(stderr, "dype-dist: rank %d (%s): %s\n", comm_rank(p.comm), comm_host(p.comm), err_text());
        comm_abort(p.comm, ST_COMM);
    }
    if (st != ST_OK && speaks(&p)) fprintf(stderr, "dype-dist: %s\n", err_text());
    close_all(&p);
    comm_close(p.comm);
    return (int)st;
}
