#include "render.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "arena.h"
#include "checkpoint.h"
#include "embedding_cache.h"
#include "flux_transformer.h"
#include "keeper.h"
#include "latents_file.h"
#include "noise.h"
#include "png_writer.h"
#include "preview.h"
#include "prompt.h"
#include "recipe.h"
#include "rng.h"
#include "schedule.h"
#include "sha256.h"
#include "signals.h"
#include "vae_decoder.h"
#include "watchdog.h"

enum { TEXT_ROWS_SCHNELL = 256 }; /* default of models without guidance; the others': all that their tokenizer allows */

struct renderer {
    renderer_opts     opts;
    comm             *comm; /* of this replica */
    const tap        *tap;
    stream           *compute;
    flux_transformer *transformer;
    vae_decoder      *vae;
    embedding_cache  *embeddings; /* rank 0; NULL: none */
    prompt_rows       prompt; /* rank 0: of the last picture, for others with the same prompt */
    char              prompt_key[SHA256_HEX];
    bool              load_parts; /* each rank reads its part of the weights that all need */
    preview_map       preview_map;
    bool              has_preview_map;
};

/* One picture on its way. */
typedef struct picture {
    const job_picture *job;
    geometry           geometry;
    position_plan      positions;
    schedule          *schedule;
    float             *t_model; /* [steps] */
    int32_t            n_text;
    recipe             recipe; /* rank 0 */
    bool               keeps;  /* its states and latents survive a kill; not those of a benchmark */
    keeper            *keeper; /* rank 0 */
    keeper_found       found;  /* of earlier runs; latents on rank 0 */
    float             *tables; /* host: position tables of the step */
    arena              memory;
    float             *latents;  /* device: [n_image of this rank, channels] */
    void              *velocity; /* device: the same in the activations' type */
    size_t            *bytes_of_ranks; /* of the latents that each rank owns */
    float             *own;      /* host: this rank's latents, on their way to or from rank 0 */
    preview           *preview;  /* NULL: none is wanted, or can be made */
    void              *own_velocity; /* host: this rank's, for it */
    float             *packed;   /* rank 0: the gathered latent [n_image, channels], unless the keeper has it */
    const float       *latent;   /* rank 0: the finished one, lent */
    char               latents_sha256[SHA256_HEX], pixels_sha256[SHA256_HEX];
    int64_t            exchanged; /* bytes that this rank sent in the step loop; during it: before it */
    double             computed;  /* floating-point operations before it */
    int64_t            loaded;    /* bytes of weights copied to a GPU before it */
    double             loop_s, loop_cpu_s; /* of the step loop: wall clock, and processor seconds of this rank */
    double             started;
} picture;

static status begin(renderer *r, picture *x);
static status claim(renderer *r, picture *x, bool redo);
static status prepare_preview(renderer *r, picture *x);
static status encode(renderer *r, picture *x);
static status prepare(renderer *r, picture *x);
static status draw_noise(renderer *r, picture *x);
static status denoise(renderer *r, picture *x, int step);
static status gather(renderer *r, picture *x);
static status decode(renderer *r, picture *x);
static status finish(renderer *r, picture *x);
static void   end(renderer *r, picture *x, status st);
static status agree(renderer *r, status mine);
static status fetch_own(renderer *r, picture *x);
static dtype  type_of(const renderer *r);

/* The recipe of a render. Every stage is collective and ends with the same status on all ranks. */
status renderer_picture(renderer *r, const job_picture *p)
{
    status  st = ST_OK;
    picture x = {.job = p, .keeps = true, .started = report_now()};
    TRY(begin(r, &x));        /* size, schedule, positions, recipe */
    TRY(claim(r, &x, false)); /* lock and journal: what earlier runs have left of it */
    if (x.found.stage == KEPT_PICTURE) goto fail;
    if (x.found.stage != KEPT_LATENT) {
        TRY(prepare_preview(r, &x)); /* colours of latents, once per model */
        TRY(encode(r, &x));     /* prompt -> T5 rows and CLIP vector, on rank 0 */
        TRY(prepare(r, &x));    /* text rows to their owners, modulation of all steps */
        TRY(draw_noise(r, &x)); /* each rank its own rows, or those of a checkpoint */
        for (int step = x.found.step; step < p->steps; step++)
            TRY(denoise(r, &x, step)); /* position tables from rank 0, transformer, Euler; the latent to rank 0 */
    }
    TRY(gather(r, &x)); /* the latent on rank 0, saved */
    TRY(decode(r, &x)); /* VAE rows -> PNG rows */
    TRY(finish(r, &x)); /* checksums to journal and log */
fail:
    end(r, &x, st);
    return st;
}

static bool speaks(const renderer *r)
{
    return comm_rank(r->comm) == 0;
}

static status agree(renderer *r, status mine)
{
    return comm_agree(r->comm, mine);
}

static status choose_loading(renderer *r)
{
    const char *why = NULL;
    status      st = weight_parts_wanted(r->comm, r->opts.dev, r->opts.machine, &r->load_parts, &why);
    if (st == ST_OK && comm_size(r->comm) > 1 && device_kind_of(r->opts.dev) == DEVICE_CUDA)
        report_line(r->opts.report, "weights: each rank reads %s (%s)",
                    r->load_parts ? "a part of what all need" : "what it needs", why);
    return st;
}

status renderer_open(renderer **out, const renderer_opts *opts)
{
    status    st = ST_OK;
    renderer *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        st = err_set(ST_NO_MEMORY, "renderer: %zu bytes", sizeof(*r));
        goto fail;
    }
    r->opts = *opts;
    r->comm = opts->grid->replica;
    r->tap = dump_tap(opts->dump);
    TRY(stream_open(&r->compute, opts->dev));
    TRY(flux_transformer_open(&r->transformer, &(flux_transformer_opts){
        .model = opts->model, .grid = opts->grid, .dev = opts->dev, .compute = r->compute, .tap = r->tap,
        .type = opts->job->precision, .n_blocks = opts->n_blocks, .reverse_order = opts->reverse_order,
        .schedule = opts->job->parallel.schedule == SCHEDULE_NEIGHBOUR ? EXCHANGE_NEIGHBOUR : EXCHANGE_ORDERED}));
    TRY(vae_decoder_open(&r->vae, &(vae_decoder_opts){
        .model = opts->model, .comm = r->comm, .dev = opts->dev, .compute = r->compute, .tap = r->tap,
        .type = opts->job->precision}));
    if (speaks(r) && opts->cache_dir != NULL)
        TRY(embedding_cache_open(&r->embeddings, &(embedding_cache_opts){
            .dir = opts->cache_dir, .model = opts->model, .encoders_sha256 = opts->encoders_sha256,
            .device = device_name(opts->dev), .report = opts->report}));
fail:
    st = comm_agree(opts->grid->replica, st);
    if (st == ST_OK) st = choose_loading(r);
    if (st != ST_OK) {
        renderer_close(r);
        return st;
    }
    *out = r;
    return ST_OK;
}

void renderer_close(renderer *r)
{
    if (r == NULL) return;
    prompt_free(&r->prompt);
    embedding_cache_close(r->embeddings);
    vae_decoder_close(r->vae);
    flux_transformer_close(r->transformer);
    stream_close(r->compute);
    free(r);
}

/* ---- the decode alone */

/* Rank 0 reads the saved latent; it must be finished. */
static status read_saved(renderer *r, const char *path, checkpoint *saved)
{
    status st = ST_OK;
    if (!speaks(r)) return agree(r, ST_OK);
    st = checkpoint_read(saved, path);
    if (st == ST_OK && saved->step < saved->n_steps)
        st = err_set(ST_BAD_JOB, "%s: %s after step %d of %d: not finished; run its job to go on from there", path,
                     saved->picture, saved->step, saved->n_steps);
    return agree(r, st);
}

/* Whether its recipe is that of the latent; else, with tell, an error that names what differs. */
static status compare_recipe(renderer *r, const job_picture *p, const checkpoint *saved, const char *path, bool tell, int *same)
{
    status  st = ST_OK;
    picture x = {.job = p};
    char    differs[512];
    TRY(begin(r, &x));
    if (speaks(r)) *same = strcmp(saved->recipe_sha256, x.recipe.sha256) == 0;
    if (speaks(r) && tell && !*same)
        st = err_set(ST_BAD_JOB, "%s: of no picture of %s: what has its id, %s, differs in %s", path, r->opts.job->path, p->id,
                     recipe_difference(saved->recipe, x.recipe.json, differs, sizeof(differs)));
    TRY(agree(r, st));
    TRY(comm_bcast(r->comm, 0, same, sizeof(*same)));
fail:
    end(r, &x, st);
    return st;
}

status renderer_find(renderer *r, const char *path, const job_picture **found)
{
    status     st = ST_OK;
    const job *j = r->opts.job;
    checkpoint saved = {0};
    int        named = -1, same = false;
    TRY(read_saved(r, path, &saved));
    for (size_t i = 0; speaks(r) && i < j->n_pictures; i++)
        if (strcmp(j->pictures[i].id, saved.picture) == 0) named = (int)i;
    TRY(comm_bcast(r->comm, 0, &named, sizeof(named)));
    if (named >= 0) TRY(compare_recipe(r, &j->pictures[named], &saved, path, j->n_pictures == 1, &same));
    for (int i = 0; !same && i < (int)j->n_pictures; i++)
        if (i != named) {
            TRY(compare_recipe(r, &j->pictures[i], &saved, path, false, &same));
            if (same) named = i;
        }
    if (!same && named >= 0) TRY(compare_recipe(r, &j->pictures[named], &saved, path, true, &same));
    if (!same)
        st = err_set(ST_BAD_JOB, "%s: it is of %s, and no picture of %s has its recipe", path,
                     speaks(r) ? saved.picture : "another", j->path);
    TRY(agree(r, st));
    *found = &j->pictures[named];
fail:
    checkpoint_free(&saved);
    return st;
}

status renderer_decode(renderer *r, const job_picture *p, const char *path)
{
    status     st = ST_OK;
    picture    x = {.job = p, .keeps = true, .started = report_now()};
    checkpoint saved = {0};
    TRY(read_saved(r, path, &saved));
    TRY(begin(r, &x));
    TRY(claim(r, &x, true));
    free(x.found.latents);
    x.found = (keeper_found){.stage = KEPT_LATENT, .step = p->steps, .latents = saved.latents};
    saved.latents = NULL;
    TRY(gather(r, &x));
    TRY(decode(r, &x));
    TRY(finish(r, &x));
fail:
    checkpoint_free(&saved);
    end(r, &x, st);
    return st;
}

/* ---- the step loop alone */

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Text rows that need no encoder. */
static status noise_text(renderer *r, picture *x)
{
    const flux_config *c = &r->opts.model->flux;
    const size_t       n_text = (size_t)x->n_text * (size_t)c->joint_attention_dim, n_pooled = (size_t)c->pooled_projection_dim;
    mt19937            mt;
    if (!speaks(r)) return agree(r, ST_OK);
    prompt_free(&r->prompt);
    r->prompt_key[0] = '\0';
    r->prompt.text = malloc(n_text * sizeof(float));
    r->prompt.pooled = malloc(n_pooled * sizeof(float));
    r->prompt.n_text = x->n_text;
    if (r->prompt.text == NULL || r->prompt.pooled == NULL)
        return agree(r, err_set(ST_NO_MEMORY, "%d text rows", x->n_text));
    mt19937_seed(&mt, x->job->seed);
    for (size_t i = 0; i < n_text; i++) r->prompt.text[i] = (float)(mt19937_next(&mt) >> 8) * 0x1p-24f - 0.5f;
    for (size_t i = 0; i < n_pooled; i++) r->prompt.pooled[i] = (float)(mt19937_next(&mt) >> 8) * 0x1p-24f - 0.5f;
    return agree(r, ST_OK);
}

/* What each rank knows, summed up. */
typedef struct rank_steps {
    double  cpu_s, travel_s, exposed_s;
    int64_t bytes, planned_bytes, flops;
} rank_steps;

static status sum_steps(renderer *r, const rank_steps *mine, step_figures *f)
{
    status      st = ST_OK;
    const int   n = comm_size(r->comm);
    rank_steps *all = calloc((size_t)n, sizeof(*all));
    size_t     *bytes = calloc((size_t)n, sizeof(*bytes));
    TRY(agree(r, all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "figures of %d ranks", n)));
    for (int rank = 0; rank < n; rank++) bytes[rank] = sizeof(*mine);
    TRY(comm_gather(r->comm, 0, mine, bytes, all));
    for (int rank = 0; rank < n; rank++) {
        f->cpu_s += all[rank].cpu_s;
        f->travel_s += all[rank].travel_s / n;
        f->exposed_s += all[rank].exposed_s / n;
        f->bytes += all[rank].bytes;
        f->planned_bytes += all[rank].planned_bytes;
        f->flops += all[rank].flops;
    }
    TRY(comm_bcast(r->comm, 0, f, sizeof(*f)));
fail:
    free(all);
    free(bytes);
    return st;
}

static status measure_steps(renderer *r, picture *x, step_figures *f)
{
    status        st = ST_OK;
    const int     n = x->job->steps, n_warm = n > 1 ? 1 : 0;
    double       *took = calloc((size_t)n, sizeof(*took));
    rank_steps    mine = {0};
    TRY(agree(r, took != NULL ? ST_OK : err_set(ST_NO_MEMORY, "%d steps", n)));
    for (int step = 0; step < n; step++) {
        if (step == n_warm) {
            mine = (rank_steps){-cpu_seconds(), -flux_transformer_travel_s(r->transformer), -stream_waited_s(r->compute),
                                -comm_exchange_bytes(r->comm), flux_transformer_bytes_per_step(r->transformer),
                                -(int64_t)device_count(r->opts.dev).flops};
        }
        const double began = report_now();
        TRY(denoise(r, x, step));
        took[step] = report_now() - began;
    }
    const int n_measured = n - n_warm;
    mine.cpu_s = (mine.cpu_s + cpu_seconds()) / n_measured;
    mine.travel_s = (mine.travel_s + flux_transformer_travel_s(r->transformer)) / n_measured;
    mine.exposed_s = (mine.exposed_s + stream_waited_s(r->compute)) / n_measured;
    mine.bytes = (mine.bytes + comm_exchange_bytes(r->comm)) / n_measured;
    mine.flops = (mine.flops + (int64_t)device_count(r->opts.dev).flops) / n_measured;
    qsort(took + n_warm, (size_t)n_measured, sizeof(*took), by_size);
    *f = (step_figures){.n_steps = n_measured, .step_s = took[n_warm + n_measured / 2]};
    TRY(sum_steps(r, &mine, f));
fail:
    free(took);
    return st;
}

status renderer_steps(renderer *r, const job_picture *p, step_figures *figures, float **latents, size_t *n_latents)
{
    status  st = ST_OK;
    picture x = {.job = p, .started = report_now()};
    TRY(begin(r, &x));
    TRY(noise_text(r, &x));
    TRY(prepare(r, &x));
    TRY(draw_noise(r, &x));
    TRY(measure_steps(r, &x, figures));
    TRY(gather(r, &x));
    memcpy(figures->latents_sha256, x.latents_sha256, sizeof(x.latents_sha256));
    if (latents != NULL) {
        *latents = x.packed;
        *n_latents = (size_t)x.geometry.n_image * (size_t)r->opts.model->flux.in_channels;
        x.packed = NULL;
    }
fail:
    end(r, &x, st);
    return st;
}

/* ---- the step loop, watched */

/* The velocity of this rank's rows, widened; nobody has agreed yet. raw: as the device has it. */
static status fetch_velocity(renderer *r, const picture *x, size_t n, void *raw, float *velocity)
{
    status st = ST_OK;
    if (n == 0) return ST_OK;
    TRY(stream_copy_out(r->compute, raw, x->velocity, n * dtype_bytes(type_of(r))));
    TRY(stream_sync(r->compute));
    if (type_of(r) == DT_F32) memcpy(velocity, raw, n * sizeof(float));
    else
        for (size_t i = 0; i < n; i++) velocity[i] = bf16_to_f32(((const uint16_t *)raw)[i]);
fail:
    return st;
}

status renderer_watch(renderer *r, const job_picture *p, const step_watcher *w)
{
    status    st = ST_OK;
    picture   x = {.job = p, .started = report_now()};
    step_view view = {.comm = r->comm, .picture = p, .channels = r->opts.model->flux.in_channels, .n_steps = p->steps};
    void     *raw = NULL;
    float    *velocity = NULL;
    TRY(begin(r, &x));
    TRY(encode(r, &x));
    TRY(prepare(r, &x));
    TRY(draw_noise(r, &x));
    view.geometry = &x.geometry;
    view.n_rows = flux_transformer_rows(r->transformer).n_image;
    view.bytes_of_ranks = x.bytes_of_ranks;
    view.latents = x.own;
    const size_t n = (size_t)view.n_rows * (size_t)view.channels;
    raw = malloc((n + 1) * sizeof(float));
    velocity = malloc((n + 1) * sizeof(float));
    TRY(agree(r, raw != NULL && velocity != NULL ? ST_OK : err_set(ST_NO_MEMORY, "%s: velocity of %d rows", p->id, view.n_rows)));
    for (int step = 0; step < p->steps; step++) {
        const schedule_step *s = &x.schedule->steps[step];
        view.step = step;
        view.sigma = (double)s->sigma;
        view.next_sigma = step + 1 < p->steps ? (double)x.schedule->steps[step + 1].sigma : 0.0;
        view.t_position = s->t_position;
        view.velocity = NULL;
        TRY(agree(r, fetch_own(r, &x)));
        TRY(w->before(w->ctx, &view));
        st = n > 0 ? stream_copy_in(r->compute, x.latents, x.own, n * sizeof(float)) : ST_OK;
        if (st == ST_OK) st = stream_sync(r->compute);
        TRY(agree(r, st));
        TRY(denoise(r, &x, step));
        TRY(agree(r, fetch_velocity(r, &x, n, raw, velocity)));
        view.velocity = velocity;
        TRY(w->after(w->ctx, &view));
    }
fail:
    free(velocity);
    free(raw);
    end(r, &x, st);
    return st;
}

/* ---- the stages */

static dtype type_of(const renderer *r)
{
    return r->opts.job->precision;
}

static bool parity_of(const renderer *r, const picture *x)
{
    return x->job->parity_diffusers && type_of(r) == DT_BF16;
}

/* Rows of text: as asked, as embeddings_in has them, or the model's default. */
static status count_text_rows(renderer *r, picture *x)
{
    status             st = ST_OK;
    const flux_config *c = &r->opts.model->flux;
    x->n_text = x->job->max_sequence_length;
    if (x->n_text == 0) {
        x->n_text = r->opts.model->max_text_rows;
        if (!c->guidance_embeds && x->n_text > TEXT_ROWS_SCHNELL) x->n_text = TEXT_ROWS_SCHNELL;
    }
    if (x->job->embeddings_in != NULL && speaks(r)) {
        int64_t n[2] = {0};
        st = latents_file_read(NULL, x->job->embeddings_in, "prompt_embeds", 0, c->joint_attention_dim, n);
        x->n_text = (int32_t)n[0];
    }
    TRY(agree(r, st));
    TRY(comm_bcast(r->comm, 0, &x->n_text, sizeof(x->n_text)));
fail:
    return st;
}

static void describe(renderer *r, const picture *x)
{
    char       text[512];
    const int  n_ranks = comm_size(r->comm);
    const int  n_rows = x->n_text + x->geometry.n_image;
    const bool active = position_plan_is_active(&x->positions);
    report_line(r->opts.report, "%s: %d x %d, %d text + %d image rows on %d rank%s, %d steps", x->job->id, x->job->width,
                x->job->height, x->n_text, x->geometry.n_image, n_ranks, n_ranks == 1 ? "" : "s", x->job->steps);
    report_line(r->opts.report, "%s: positions %s", x->job->id, position_plan_describe(&x->positions, text, sizeof(text)));
    if (!active && x->job->position.method != POSITION_BASE)
        report_line(r->opts.report, "%s: no side exceeds the %d px the model was trained for: the position method has no "
                    "effect here", x->job->id, x->positions.base_patches * r->opts.model->vae.scale * PATCH);
    if (geometry_n_tiles(x->n_text, x->geometry.n_image) < n_ranks)
        report_warn(r->opts.report, "%s: %d rows are only %d tiles: some of the %d ranks have none", x->job->id, n_rows,
                    geometry_n_tiles(x->n_text, x->geometry.n_image), n_ranks);
}

static status make_recipe(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    char               latents[SHA256_HEX], embeddings[SHA256_HEX];
    recipe_facts       facts = {.model_sha256 = r->opts.model_sha256, .device = device_name(r->opts.dev), .n_text = x->n_text,
                                .base_resolution = x->positions.base_patches * r->opts.model->vae.scale * PATCH,
                                .n_blocks = r->opts.n_blocks};
    if (p->latents_in != NULL) TRY(sha256_of_file(p->latents_in, ST_BAD_JOB, NULL, latents));
    if (p->embeddings_in != NULL) TRY(sha256_of_file(p->embeddings_in, ST_BAD_JOB, NULL, embeddings));
    if (p->latents_in != NULL) facts.latents_in_sha256 = latents;
    if (p->embeddings_in != NULL) facts.embeddings_in_sha256 = embeddings;
    TRY(recipe_make(&x->recipe, r->opts.job, p, &facts));
fail:
    return st;
}

static status make_schedule(renderer *r, picture *x)
{
    status            st = ST_OK;
    schedule_rounding rounding = SCHEDULE_F32;
    if (type_of(r) == DT_BF16) rounding = parity_of(r, x) ? SCHEDULE_PARITY : SCHEDULE_BF16;
    TRY(schedule_open(&x->schedule, &(schedule_opts){
        .config = r->opts.model->scheduler, .shift = x->job->shift, .n_steps = x->job->steps,
        .n_image = x->geometry.n_image, .guidance = x->job->guidance, .rounding = rounding}));
    x->t_model = malloc((size_t)x->job->steps * sizeof(float));
    if (x->t_model == NULL) return err_set(ST_NO_MEMORY, "%s: %d steps", x->job->id, x->job->steps);
    for (int i = 0; i < x->job->steps; i++) x->t_model[i] = x->schedule->steps[i].t_model;
fail:
    return st;
}

static status begin(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const model       *m = r->opts.model;
    const int          base_px = p->position.base_resolution > 0 ? p->position.base_resolution : m->vae.sample_size;
    report_phase(r->opts.report, p->id, "start");
    dump_picture(r->opts.dump, p->id);
    x->computed = device_count(r->opts.dev).flops;
    x->loaded = device_count(r->opts.dev).weight_bytes;
    TRY(count_text_rows(r, x));
    st = geometry_make(&x->geometry, p->width, p->height, m->vae.scale);
    if (st == ST_OK && p->wrap != WRAP_NONE && p->parity_diffusers)
        st = err_set(ST_BAD_JOB, "%s: wrap: horizontal and parity: diffusers exclude each other: the reference has no wrap",
                     p->id);
    if (st == ST_OK)
        st = position_plan_make(&x->positions, &p->position, m->flux.axes_dims_rope, base_px / (m->vae.scale * PATCH),
                                x->geometry.rows, x->geometry.cols, parity_of(r, x));
    if (st == ST_OK && p->wrap == WRAP_HORIZONTAL) position_plan_close(&x->positions);
    if (st == ST_OK) st = make_schedule(r, x);
    if (st == ST_OK) {
        x->tables = malloc(x->positions.n_floats * sizeof(float));
        if (x->tables == NULL) st = err_set(ST_NO_MEMORY, "%s: position tables", p->id);
    }
    if (st == ST_OK && speaks(r)) st = make_recipe(r, x);
    TRY(agree(r, st));
fail:
    return st;
}

/* Waiting for a lock is no silence. */
static void tell_waiting(void *context)
{
    const renderer *r = context;
    watchdog_step(r->comm, -1);
}

/* Done already: said, and logged like one that is rendered. */
static void tell_done(renderer *r, const picture *x)
{
    if (x->job->preview_every > 0) preview_remove(x->job->output);
    report_line(r->opts.report, "%s: done already: %s", x->job->id, x->job->output);
    report_picture(r->opts.report, x->job->id, "done already", "");
    report_event(r->opts.report, "picture", json_pack(
        "{s:s, s:s, s:o, s:i, s:i, s:s, s:s, s:s}", "picture", x->job->id, "state", "done already", "path",
        report_text(x->job->output), "width", x->geometry.width, "height", x->geometry.height, "recipe_sha256",
        x->recipe.sha256, "latents_sha256", x->found.latents_sha256, "pixels_sha256", x->found.pixels_sha256));
}

static status claim(renderer *r, picture *x, bool redo)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const char        *refused = r->opts.refused != NULL ? r->opts.refused[p - r->opts.job->pictures] : NULL;
    report_phase(r->opts.report, p->id, "claim");
    if (speaks(r))
        st = keeper_open(&x->keeper, &(keeper_opts){
            .picture = p, .recipe = &x->recipe, .rows = x->geometry.n_image, .channels = r->opts.model->flux.in_channels,
            .every = r->opts.job->checkpoint_every, .overwrite = r->opts.overwrite, .redo = redo,
            .report = r->opts.report, .waiting = tell_waiting, .context = r}, &x->found);
    TRY(agree(r, st));
    TRY(comm_bcast(r->comm, 0, &x->found.stage, sizeof(x->found.stage)));
    TRY(comm_bcast(r->comm, 0, &x->found.step, sizeof(x->found.step)));
    if (speaks(r) && x->found.stage == KEPT_PICTURE) tell_done(r, x);
    if (x->found.stage == KEPT_PICTURE) goto fail;
    if (refused != NULL) {
        st = err_set(ST_NO_MEMORY, "%s", refused);
        goto fail;
    }
    if (speaks(r)) describe(r, x);
fail:
    return st;
}

/* A picture is rendered without previews rather than not at all. */
static status prepare_preview(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const row_range    rows = geometry_split(x->n_text, x->geometry.n_image, comm_size(r->comm), comm_rank(r->comm));
    const size_t       n = (size_t)rows.n_image * (size_t)r->opts.model->flux.in_channels;
    if (p->preview_every == 0) return ST_OK;
    report_phase(r->opts.report, p->id, "preview");
    if (!r->has_preview_map)
        TRY(preview_map_get(&r->preview_map, &(preview_map_opts){
            .model = r->opts.model, .model_sha256 = r->opts.model_sha256, .cache_dir = r->opts.cache_dir, .comm = r->comm,
            .dev = r->opts.dev, .compute = r->compute, .type = type_of(r)}));
    r->has_preview_map = true;
    st = preview_open(&x->preview, &(preview_opts){.map = &r->preview_map, .comm = r->comm, .geometry = &x->geometry,
                                                   .n_text = x->n_text, .picture = p->id, .output = p->output,
                                                   .report = r->opts.report});
    x->own_velocity = malloc(n * dtype_bytes(type_of(r)) + 1);
    if (st == ST_OK && x->own_velocity == NULL) st = err_set(ST_NO_MEMORY, "%s: velocity of %d rows", p->id, rows.n_image);
    st = agree(r, st);
fail:
    if (st == ST_OK || st == ST_COMM) return st;
    preview_close(x->preview);
    x->preview = NULL;
    report_warn(r->opts.report, "%s: no previews: %s", p->id, err_text());
    err_clear();
    return ST_OK;
}

static status encode(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const flux_config *c = &r->opts.model->flux;
    report_phase(r->opts.report, p->id, "encode");
    if (!speaks(r)) return agree(r, ST_OK);
    if (x->keeper != NULL) keeper_encoding(x->keeper);
    if (p->embeddings_in != NULL) {
        prompt_free(&r->prompt);
        r->prompt_key[0] = '\0';
        TRY(latents_file_read(&r->prompt.text, p->embeddings_in, "prompt_embeds", x->n_text, c->joint_attention_dim, NULL));
        TRY(latents_file_read(&r->prompt.pooled, p->embeddings_in, "pooled_prompt_embeds", 1, c->pooled_projection_dim,
                              NULL));
        goto fail;
    }
    char  key[SHA256_HEX];
    char *text = NULL;
    if (asprintf(&text, "%d %d %zu %s %s", x->n_text, parity_of(r, x), strlen(p->prompt), p->prompt, p->prompt_2) < 0) {
        st = err_set(ST_NO_MEMORY, "%s: prompt", p->id);
        goto fail;
    }
    st = sha256_of(text, strlen(text), key);
    free(text);
    TRY(st);
    if (strcmp(key, r->prompt_key) != 0) {
        prompt_free(&r->prompt);
        r->prompt_key[0] = '\0';
        TRY(prompt_encode(&r->prompt, &(prompt_opts){
            .model = r->opts.model, .dev = r->opts.dev, .compute = r->compute, .tap = r->tap, .report = r->opts.report,
            .picture = p->id, .prompt = p->prompt, .prompt_2 = p->prompt_2, .n_text = x->n_text, .type = type_of(r),
            .parity = parity_of(r, x), .cache = r->embeddings}));
        memcpy(r->prompt_key, key, sizeof(key));
    }
fail:
    return agree(r, st);
}

/* What more than one rank needs, when that is faster than if each reads it itself. */
static status load_weights(renderer *r, const picture *x)
{
    status               st = ST_OK;
    weight_parts_figures f = {0};
    if (!r->load_parts) return ST_OK;
    report_phase(r->opts.report, x->job->id, "weights");
    TRY(flux_transformer_load(r->transformer, &f));
    if (f.bytes > 0)
        report_line(r->opts.report, "%s: %.2f GB of weights went to all of %d ranks in %.1f s, %.2f GB of them from here",
                    x->job->id, (double)f.bytes / 1e9, comm_size(r->comm), f.seconds, (double)f.own_bytes / 1e9);
fail:
    return st;
}

static status prepare(renderer *r, picture *x)
{
    status st = ST_OK;
    report_phase(r->opts.report, x->job->id, "modulation");
    flux_transformer_parity(r->transformer, parity_of(r, x));
    TRY(flux_transformer_prepare(r->transformer, &(flux_sequence){
        .geometry = &x->geometry, .positions = &x->positions, .n_text = x->n_text, .n_steps = x->job->steps,
        .t = x->t_model, .guidance = x->schedule->guidance_model, .text = r->prompt.text, .pooled = r->prompt.pooled}));
    const size_t n = (size_t)flux_transformer_rows(r->transformer).n_image * (size_t)r->opts.model->flux.in_channels;
    arena_plan(&x->memory, &x->latents, n * sizeof(float), "latents");
    arena_plan(&x->memory, &x->velocity, n * dtype_bytes(type_of(r)), "velocity");
    TRY(agree(r, arena_take(&x->memory, r->opts.dev, "latents")));
    TRY(load_weights(r, x));
fail:
    return st;
}

/* Bytes of fp32 latents that each rank owns, in rank order; yours to free. */
static size_t *latent_bytes(const renderer *r, const picture *x)
{
    const int n_ranks = comm_size(r->comm);
    size_t   *bytes = calloc((size_t)n_ranks, sizeof(*bytes));
    for (int rank = 0; bytes != NULL && rank < n_ranks; rank++)
        bytes[rank] = (size_t)geometry_split(x->n_text, x->geometry.n_image, n_ranks, rank).n_image *
                      (size_t)r->opts.model->flux.in_channels * sizeof(float);
    return bytes;
}

/* Latents to begin with that rank 0 has, if it has: those of a checkpoint, or initial noise from a file. *found tells. */
static status scatter_latents(renderer *r, picture *x, int *found)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const int          channels = r->opts.model->flux.in_channels;
    const char        *path = p->latents_in;
    float             *all = NULL;
    *found = path != NULL;
    if (speaks(r) && x->found.latents != NULL) {
        all = x->found.latents;
        x->found.latents = NULL;
        *found = true;
    } else if (speaks(r)) {
        if (path == NULL && p->embeddings_in != NULL) {
            path = p->embeddings_in;
            st = latents_file_has(path, "latents", found);
        }
        if (st == ST_OK && *found) st = latents_file_read(&all, path, "latents", x->geometry.n_image, channels, NULL);
    }
    TRY(agree(r, st));
    TRY(comm_bcast(r->comm, 0, found, sizeof(*found)));
    if (*found) TRY(comm_scatter(r->comm, 0, all, x->bytes_of_ranks, x->own));
fail:
    free(all);
    return st;
}

static status draw_noise(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const row_range    rows = flux_transformer_rows(r->transformer);
    const int          channels = r->opts.model->flux.in_channels;
    const size_t       n = (size_t)rows.n_image * (size_t)channels;
    int                found = 0;
    x->own = malloc((n + 1) * sizeof(float));
    x->bytes_of_ranks = latent_bytes(r, x);
    report_phase(r->opts.report, p->id, "noise");
    TRY(agree(r, x->own != NULL && x->bytes_of_ranks != NULL ? ST_OK : err_set(ST_NO_MEMORY, "%s: noise of %d rows", p->id,
                                                                               rows.n_image)));
    TRY(scatter_latents(r, x, &found));
    if (!found && rows.n_image > 0)
        st = noise_fill(&p->noise, p->seed, &x->geometry, channels / (PATCH * PATCH),
                        geometry_first_token(rows, x->n_text), rows.n_image, type_of(r) == DT_BF16, x->own);
    if (st == ST_OK && parity_of(r, x))
        for (size_t i = 0; i < n; i++) x->own[i] = bf16_round(x->own[i]);
    if (st == ST_OK && n > 0) st = stream_copy_in(r->compute, x->latents, x->own, n * sizeof(float));
    if (st == ST_OK) st = stream_sync(r->compute);
    if (st == ST_OK && x->keeper != NULL) st = keeper_denoising(x->keeper, x->found.step);
    TRY(agree(r, st));
fail:
    return st;
}

/* This rank's latents to its host memory; nobody has agreed yet. */
static status fetch_own(renderer *r, picture *x)
{
    const size_t n = (size_t)flux_transformer_rows(r->transformer).n_image * (size_t)r->opts.model->flux.in_channels;
    status       st = n > 0 ? stream_copy_out(r->compute, x->own, x->latents, n * sizeof(float)) : ST_OK;
    return st != ST_OK ? st : stream_sync(r->compute);
}

/* All ranks stop after the same step, or before the decode, when one of them has heard a signal: the latent is on the disk
 * then. */
static status stop_if_asked(renderer *r, picture *x, const char *after)
{
    status      st = ST_OK;
    const char *noted = signals_noted();
    int         go_on = noted == NULL;
    TRY(comm_min_int(r->comm, &go_on));
    if (go_on) return ST_OK;
    if (x->keeper != NULL) keeper_stop(x->keeper);
    if (noted != NULL)
        st = err_set(ST_AGAIN, "%s: stopped by %s after %s: the same command goes on from there", x->job->id, noted, after);
    st = agree(r, st); /* whoever heard it says so */
fail:
    return st;
}

/* After each step the latent goes to rank 0 where it can be saved at any moment. */
static status keep(renderer *r, picture *x, int done)
{
    status st = ST_OK;
    char   after[64];
    TRY(comm_gather(r->comm, 0, x->own, x->bytes_of_ranks, speaks(r) ? keeper_spare(x->keeper) : NULL));
    if (speaks(r)) keeper_offer(x->keeper, done);
    if (done == x->job->steps) return ST_OK;
    snprintf(after, sizeof(after), "step %d of %d", done, x->job->steps);
    TRY(stop_if_asked(r, x, after));
fail:
    return st;
}

static status show(renderer *r, picture *x, int step)
{
    const schedule_step *s = &x->schedule->steps[step];
    const size_t         n = (size_t)flux_transformer_rows(r->transformer).n_image * (size_t)r->opts.model->flux.in_channels;
    status               st = ST_OK;
    if (n > 0) st = stream_copy_out(r->compute, x->own_velocity, x->velocity, n * dtype_bytes(type_of(r)));
    if (st == ST_OK) st = stream_sync(r->compute);
    TRY(agree(r, st));
    TRY(preview_write(x->preview, x->own, x->own_velocity, type_of(r), s->sigma + s->dt, step + 1, x->job->steps));
fail:
    return st;
}

static status denoise(renderer *r, picture *x, int step)
{
    status               st = ST_OK;
    const schedule_step *s = &x->schedule->steps[step];
    const int64_t        n = (int64_t)flux_transformer_rows(r->transformer).n_image * r->opts.model->flux.in_channels;
    if (step == x->found.step) {
        x->exchanged = comm_exchange_bytes(r->comm);
        x->loop_s = -report_now();
        x->loop_cpu_s = -cpu_seconds();
        report_phase(r->opts.report, x->job->id, "denoise");
        report_step(r->opts.report, x->job->id, step, x->job->steps, s->sigma);
    }
    if (step == x->found.step || position_plan_is_dynamic(&x->positions)) {
        if (speaks(r)) position_plan_tables(&x->positions, s->t_position, x->tables);
        TRY(comm_bcast(r->comm, 0, x->tables, x->positions.n_floats * sizeof(float)));
    }
    st = flux_transformer_step(r->transformer, step, x->tables, x->latents, x->velocity);
    if (st == ST_OK && n > 0)
        st = stream_euler(r->compute, &(euler_args){.latents = x->latents, .v = x->velocity, .n = n, .dt = s->dt,
                                                    .type = type_of(r), .parity = parity_of(r, x)});
    if (st == ST_OK) st = flux_transformer_sync(r->transformer);
    if (st == ST_OK && x->keeps) st = fetch_own(r, x);
    TRY(agree(r, st));
    if (step == x->job->steps - 1) {
        x->exchanged = comm_exchange_bytes(r->comm) - x->exchanged;
        x->loop_s += report_now();
        x->loop_cpu_s += cpu_seconds();
    }
    report_step(r->opts.report, x->job->id, step + 1, x->job->steps, s->sigma);
    if (x->preview != NULL && (step + 1) % x->job->preview_every == 0 && step + 1 < x->job->steps) TRY(show(r, x, step));
    if (x->keeps) TRY(keep(r, x, step + 1));
fail:
    return st;
}

/* Without a keeper: the latent of all ranks, once. */
static status gather_once(renderer *r, picture *x)
{
    status       st = ST_OK;
    const size_t total = (size_t)x->geometry.n_image * (size_t)r->opts.model->flux.in_channels;
    if (speaks(r)) x->packed = malloc(total * sizeof(float));
    if (speaks(r) && x->packed == NULL) st = err_set(ST_NO_MEMORY, "%s: latent of %zu values", x->job->id, total);
    if (st == ST_OK) st = fetch_own(r, x);
    TRY(agree(r, st));
    TRY(comm_gather(r->comm, 0, x->own, x->bytes_of_ranks, x->packed));
    x->latent = x->packed;
fail:
    return st;
}

/* Of the finished latent: its checksum, latents_out, the saved latent. */
static status save_latent(renderer *r, picture *x)
{
    status             st = ST_OK;
    const job_picture *p = x->job;
    const int          channels = r->opts.model->flux.in_channels;
    TRY(sha256_of(x->latent, (size_t)x->geometry.n_image * (size_t)channels * sizeof(float), x->latents_sha256));
    if (x->keeper != NULL && x->found.stage != KEPT_LATENT) keeper_latent(x->keeper, x->latent);
    if (x->keeper != NULL && p->latents_out != NULL)
        TRY(checkpoint_write(p->latents_out, &(checkpoint){
            .picture = (char *)p->id, .recipe = x->recipe.json, .step = p->steps, .n_steps = p->steps,
            .rows = x->geometry.n_image, .channels = channels, .latents = (float *)x->latent}));
fail:
    return st;
}

static status gather(renderer *r, picture *x)
{
    status st = ST_OK;
    report_phase(r->opts.report, x->job->id, "gather");
    if (!x->keeps) TRY(gather_once(r, x));
    if (speaks(r) && x->keeps) {
        x->packed = x->found.latents; /* of an earlier run, else NULL */
        x->found.latents = NULL;
        x->latent = x->packed != NULL ? x->packed : keeper_latest(x->keeper);
    }
    flux_transformer_release(r->transformer); /* its memory is not resident beside the decoder's */
    arena_free(&x->memory);
    TRY(agree(r, speaks(r) ? save_latent(r, x) : ST_OK));
    if (x->keeps) TRY(stop_if_asked(r, x, "its last step"));
fail:
    return st;
}

typedef struct picture_sink {
    png_writer *png;
    sha256     *hash;
    size_t      row_bytes;
} picture_sink;

static status sink_rows(void *ctx, int32_t first_row, int32_t n_rows, const uint8_t *rgb)
{
    picture_sink *sink = ctx;
    (void)first_row;
    status st = sha256_add(sink->hash, rgb, (size_t)n_rows * sink->row_bytes);
    return st != ST_OK ? st : png_writer_rows(sink->png, n_rows, rgb);
}

/* Where rank 0 puts the picture's rows; all zero elsewhere. */
static status open_sink(renderer *r, picture *x, picture_sink *sink)
{
    status         st = ST_OK;
    const png_note notes[] = {{"Software", "dype-dist"}, {"dype-dist", x->recipe.json}};
    if (!speaks(r)) return ST_OK;
    sink->row_bytes = (size_t)x->geometry.width * 3;
    TRY(sha256_open(&sink->hash));
    TRY(png_writer_open(&sink->png, &(png_writer_opts){.path = x->job->output, .width = x->geometry.width,
                                                       .height = x->geometry.height, .notes = notes, .n_notes = 2,
                                                       .overwrite = r->opts.overwrite}));
fail:
    return st;
}

/* The file gets its name, the log its checksum. */
static status commit_sink(renderer *r, picture *x, picture_sink *sink)
{
    status st = ST_OK;
    if (!speaks(r)) return ST_OK;
    TRY(keeper_check(x->keeper));
    st = png_writer_commit(sink->png);
    sink->png = NULL;
    TRY(st);
    st = sha256_finish(sink->hash, x->pixels_sha256);
    sink->hash = NULL;
    if (st == ST_OK) keeper_done(x->keeper, x->latents_sha256, x->pixels_sha256);
fail:
    return st;
}

static status decode(renderer *r, picture *x)
{
    status       st = ST_OK;
    picture_sink sink = {0};
    report_phase(r->opts.report, x->job->id, "decode");
    if (speaks(r)) keeper_decoding(x->keeper);
    TRY(agree(r, open_sink(r, x, &sink)));
    vae_decoder_parity(r->vae, parity_of(r, x));
    vae_decoder_wrap(r->vae, x->job->wrap == WRAP_HORIZONTAL);
    TRY(vae_decoder_decode(r->vae, &x->geometry, x->latent, &(row_sink){.ctx = &sink, .rows = sink_rows}));
    TRY(agree(r, commit_sink(r, x, &sink)));
fail:
    png_writer_abandon(sink.png);
    sha256_close(sink.hash);
    return st;
}

/* Every rank's rows and bytes sent, for the log. */
typedef struct rank_figures {
    int32_t n_rows, n_text;
    int64_t exchange_bytes;
    int64_t peak_bytes;
    double  flops;
    double  loop_s, loop_cpu_s;
    int64_t weight_bytes;
} rank_figures;

static status finish(renderer *r, picture *x)
{
    status          st = ST_OK;
    const int       n_ranks = comm_size(r->comm);
    const row_range rows = geometry_split(x->n_text, x->geometry.n_image, n_ranks, comm_rank(r->comm));
    rank_figures    mine = {rows.count, rows.n_text, x->exchanged,
                            (int64_t)device_peak_bytes(r->opts.dev), device_count(r->opts.dev).flops - x->computed,
                            x->loop_s, x->loop_cpu_s, device_count(r->opts.dev).weight_bytes - x->loaded};
    rank_figures   *all = calloc((size_t)n_ranks, sizeof(*all));
    size_t         *bytes = calloc((size_t)n_ranks, sizeof(*bytes));
    TRY(agree(r, all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "figures of %d ranks", n_ranks)));
    for (int rank = 0; rank < n_ranks; rank++) bytes[rank] = sizeof(mine);
    TRY(comm_gather(r->comm, 0, &mine, bytes, all));
    if (!speaks(r)) goto fail;
    if (x->job->preview_every > 0) preview_remove(x->job->output);
    json_t *ranks = json_array();
    for (int rank = 0; rank < n_ranks; rank++)
        json_array_append_new(ranks, json_pack("{s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:I}", "rows", all[rank].n_rows, "text_rows",
                                               all[rank].n_text, "exchange_bytes", (json_int_t)all[rank].exchange_bytes,
                                               "device_peak_bytes", (json_int_t)all[rank].peak_bytes, "flops",
                                               (json_int_t)all[rank].flops, "step_loop_s", all[rank].loop_s,
                                               "step_loop_cpu_s", all[rank].loop_cpu_s, "weight_bytes",
                                               (json_int_t)all[rank].weight_bytes));
    double took = report_now() - x->started;
    report_event(r->opts.report, "picture", json_pack(
        "{s:s, s:s, s:o, s:i, s:i, s:s, s:s, s:s, s:i, s:f, s:o}", "picture", x->job->id, "state", "done", "path",
        report_text(x->job->output), "width", x->geometry.width, "height", x->geometry.height, "recipe_sha256", x->recipe.sha256,
        "latents_sha256", x->latents_sha256, "pixels_sha256", x->pixels_sha256, "from_step", x->found.step, "took_s", took, "ranks",
        ranks));
    report_line(r->opts.report, "%s: %s (%.1f s)", x->job->id, x->job->output, took);
    report_picture(r->opts.report, x->job->id, "done", "");
fail:
    free(all);
    free(bytes);
    return st;
}

static void end(renderer *r, picture *x, status st)
{
    keeper_close(x->keeper, st, err_text());
    flux_transformer_release(r->transformer);
    arena_free(&x->memory);
    recipe_free(&x->recipe);
    schedule_close(x->schedule);
    free(x->t_model);
    free(x->tables);
    free(x->bytes_of_ranks);
    free(x->own);
    free(x->own_velocity);
    preview_close(x->preview);
    free(x->packed);
    free(x->found.latents);
    report_phase(r->opts.report, NULL, NULL);
}
