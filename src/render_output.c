#include "render_impl.h"

#include <stdlib.h>

#include "png_writer.h"

/* Without a keeper: the latent of all ranks, once. */
static status gather_once(renderer *r, picture *x)
{
    status       st = ST_OK;
    const size_t total = (size_t)x->geometry.n_image * (size_t)r->opts.model->flux.in_channels;
    if (speaks(r)) x->packed = malloc(total * sizeof(float));
    if (speaks(r) && x->packed == NULL) st = err_set(ST_NO_MEMORY, "%s: latent of %zu values", x->job->id, total);
    if (st == ST_OK) st = render_fetch_own(r, x);
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

status render_gather(renderer *r, picture *x)
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
    if (x->keeps) TRY(render_stop_if_asked(r, x, "its last step"));
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

status render_decode(renderer *r, picture *x)
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

status render_finish(renderer *r, picture *x)
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
