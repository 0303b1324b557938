#include "render_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_clock.h"
#include "latents_file.h"
#include "noise.h"
#include "signals.h"
#include "watchdog.h"

enum { TEXT_ROWS_SCHNELL = 256 }; /* default of models without guidance; the others': all that their tokenizer allows */

static status prepare_preview(renderer *r, picture *x);

/* The recipe of a render. Every stage is collective and ends with the same status on all ranks. */
status renderer_picture(renderer *r, const job_picture *p)
{
    status  st = ST_OK;
    picture x = {.job = p, .keeps = true, .started = report_now()};
    TRY(render_begin(r, &x));        /* size, schedule, positions, recipe */
    TRY(render_claim(r, &x, false)); /* lock and journal: what earlier runs have left of it */
    if (x.found.stage == KEPT_PICTURE) goto fail;
    if (x.found.stage != KEPT_LATENT) {
        TRY(prepare_preview(r, &x)); /* colours of latents, once per model */
        TRY(render_encode(r, &x));   /* prompt -> T5 rows and CLIP vector, on rank 0 */
        TRY(render_prepare(r, &x));  /* text rows to their owners, modulation of all steps */
        TRY(render_noise(r, &x));    /* each rank its own rows, or those of a checkpoint */
        for (int step = x.found.step; step < p->steps; step++)
            TRY(render_denoise(r, &x, step)); /* position tables from rank 0, transformer, Euler; the latent to rank 0 */
    }
    TRY(render_gather(r, &x)); /* the latent on rank 0, saved */
    TRY(render_decode(r, &x)); /* VAE rows -> PNG rows */
    TRY(render_finish(r, &x)); /* checksums to journal and log */
fail:
    render_end(r, &x, st);
    return st;
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

/* ---- the stages */

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

status render_begin(renderer *r, picture *x)
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

status render_claim(renderer *r, picture *x, bool redo)
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

status render_encode(renderer *r, picture *x)
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

status render_prepare(renderer *r, picture *x)
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

status render_noise(renderer *r, picture *x)
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
status render_fetch_own(renderer *r, picture *x)
{
    const size_t n = (size_t)flux_transformer_rows(r->transformer).n_image * (size_t)r->opts.model->flux.in_channels;
    status       st = n > 0 ? stream_copy_out(r->compute, x->own, x->latents, n * sizeof(float)) : ST_OK;
    return st != ST_OK ? st : stream_sync(r->compute);
}

/* All ranks stop after the same step, or before the decode, when one of them has heard a signal: the latent is on the disk
 * then. */
status render_stop_if_asked(renderer *r, picture *x, const char *after)
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
    TRY(render_stop_if_asked(r, x, after));
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

status render_denoise(renderer *r, picture *x, int step)
{
    status               st = ST_OK;
    const schedule_step *s = &x->schedule->steps[step];
    const int64_t        n = (int64_t)flux_transformer_rows(r->transformer).n_image * r->opts.model->flux.in_channels;
    if (step == x->found.step) {
        x->exchanged = comm_exchange_bytes(r->comm);
        x->loop_s = -report_now();
        x->loop_cpu_s = -process_cpu_s();
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
    if (st == ST_OK && x->keeps) st = render_fetch_own(r, x);
    TRY(agree(r, st));
    if (step == x->job->steps - 1) {
        x->exchanged = comm_exchange_bytes(r->comm) - x->exchanged;
        x->loop_s += report_now();
        x->loop_cpu_s += process_cpu_s();
    }
    report_step(r->opts.report, x->job->id, step + 1, x->job->steps, s->sigma);
    if (x->preview != NULL && (step + 1) % x->job->preview_every == 0 && step + 1 < x->job->steps) TRY(show(r, x, step));
    if (x->keeps) TRY(keep(r, x, step + 1));
fail:
    return st;
}

void render_end(renderer *r, picture *x, status st)
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
