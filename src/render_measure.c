#include "render_impl.h"

#include <stdlib.h>
#include <string.h>

#include "cpu_clock.h"
#include "rng.h"

/* ---- the step loop alone */

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
            mine = (rank_steps){-process_cpu_s(), -flux_transformer_travel_s(r->transformer), -stream_waited_s(r->compute),
                                -comm_exchange_bytes(r->comm), flux_transformer_bytes_per_step(r->transformer),
                                -(int64_t)device_count(r->opts.dev).flops};
        }
        const double began = report_now();
        TRY(render_denoise(r, x, step));
        took[step] = report_now() - began;
    }
    const int n_measured = n - n_warm;
    mine.cpu_s = (mine.cpu_s + process_cpu_s()) / n_measured;
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
    TRY(render_begin(r, &x));
    TRY(noise_text(r, &x));
    TRY(render_prepare(r, &x));
    TRY(render_noise(r, &x));
    TRY(measure_steps(r, &x, figures));
    TRY(render_gather(r, &x));
    memcpy(figures->latents_sha256, x.latents_sha256, sizeof(x.latents_sha256));
    if (latents != NULL) {
        *latents = x.packed;
        *n_latents = (size_t)x.geometry.n_image * (size_t)r->opts.model->flux.in_channels;
        x.packed = NULL;
    }
fail:
    render_end(r, &x, st);
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
    TRY(render_begin(r, &x));
    TRY(render_encode(r, &x));
    TRY(render_prepare(r, &x));
    TRY(render_noise(r, &x));
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
        TRY(agree(r, render_fetch_own(r, &x)));
        TRY(w->before(w->ctx, &view));
        st = n > 0 ? stream_copy_in(r->compute, x.latents, x.own, n * sizeof(float)) : ST_OK;
        if (st == ST_OK) st = stream_sync(r->compute);
        TRY(agree(r, st));
        TRY(render_denoise(r, &x, step));
        TRY(agree(r, fetch_velocity(r, &x, n, raw, velocity)));
        view.velocity = velocity;
        TRY(w->after(w->ctx, &view));
    }
fail:
    free(velocity);
    free(raw);
    render_end(r, &x, st);
    return st;
}
