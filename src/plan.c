#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clip_encoder.h"
#include "residency.h"
#include "t5_encoder.h"
#include "vae_decoder.h"
#include "vae_weights.h"

enum { TEXT_ROWS_SCHNELL = 256 };
static const double GB = 1e9;
/* Of a card, for its context, the scratch of products and convolutions, and NCCL. */
static const int64_t LIBRARIES_BYTES = (int64_t)1 << 30;

/* ---- counts */

plan_weights plan_count_weights(const model *m, int weight_bytes)
{
    const flux_config *c = &m->flux;
    const t5_config   *t = &m->t5;
    const clip_config *l = &m->clip;
    const int64_t      d = (int64_t)c->n_heads * c->head_dim, dd = d * d;
    const int64_t      doubles = c->num_layers, singles = c->num_single_layers;
    plan_weights       w = {0};
    /* A stream of a double block: q, k, v, out 4 D^2 + 4 D, MLP 8 D^2 + 5 D, two norms of a head. A single block: q,
     * k, v, MLP 7 D^2 + 7 D, out 5 D^2 + D, two norms. */
    const int64_t one_stream = doubles * (12 * dd + 9 * d + 2 * c->head_dim);
    w.image = one_stream + singles * (12 * dd + 8 * d + 2 * c->head_dim) + 2 * (int64_t)c->in_channels * d + d +
              c->out_channels;
    w.text = one_stream + (int64_t)c->joint_attention_dim * d + d;
    const int64_t mlps = (c->guidance_embeds ? 2 : 1) * (256 * d + dd + 2 * d) +
                         (int64_t)c->pooled_projection_dim * d + dd + 2 * d;
    w.modulation = (doubles * 12 + singles * 3 + 2) * (dd + d) + mlps;
    const int64_t inner = (int64_t)t->heads * t->d_kv;
    w.encoders = t->layers * (4 * inner * t->d_model + 3 * (int64_t)t->d_ff * t->d_model + 2 * t->d_model) +
                 (int64_t)t->vocab_size * t->d_model + (int64_t)t->num_buckets * t->heads + t->d_model;
    w.encoders += l->layers * (4 * ((int64_t)l->hidden + 1) * l->hidden + 2 * (int64_t)l->hidden * l->intermediate +
                               l->intermediate + 5 * (int64_t)l->hidden) +
                  ((int64_t)l->vocab_size + l->max_position + 2) * l->hidden;
    vae_weights widths = {0};
    vae_widths(&widths, &m->vae);
    const vae_config *v = &m->vae;
    const int64_t     wide = v->block_out_channels[v->n_blocks - 1];
    int64_t           n = wide * v->latent_channels * 9 + 4 * wide * wide + 4 * 9 * wide * wide;
    for (int i = 0; i < v->n_blocks; i++) {
        for (int j = 0; j < vae_resnets(v); j++) {
            const resnet *r = &widths.up[i].resnets[j];
            n += 9 * (int64_t)r->c_out * (r->c_in + r->c_out) + (r->c_in != r->c_out ? (int64_t)r->c_in * r->c_out : 0);
        }
        if (i < v->n_blocks - 1) n += 9 * (int64_t)widths.up[i].c_out * widths.up[i].c_out;
    }
    w.vae = n; /* without biases and norms: some thousandths */
    w.image *= weight_bytes;
    w.text *= weight_bytes;
    w.modulation *= weight_bytes;
    w.encoders *= weight_bytes;
    w.vae *= weight_bytes;
    return w;
}

/* Operations of the decoder's convolutions per latent pixel, and by up block; the block's own channels set the rate. */
static double conv_flops(const vae_config *c, double by_block[VAE_MAX_BLOCKS])
{
    vae_weights  w = {0};
    const double wide = c->block_out_channels[c->n_blocks - 1];
    double       all = 0, area = 1; /* pixels per latent pixel */
    vae_widths(&w, c);
    memset(by_block, 0, VAE_MAX_BLOCKS * sizeof(*by_block));
    by_block[0] = 18 * wide * (c->latent_channels + 4 * wide) + (c->mid_block_add_attention ? 8 * wide * wide : 0);
    if (c->use_post_quant_conv) by_block[0] += 2.0 * c->latent_channels * c->latent_channels;
    for (int i = 0; i < c->n_blocks; i++) {
        const double out = w.up[i].c_out;
        for (int j = 0; j < vae_resnets(c); j++) {
            const double in = w.up[i].resnets[j].c_in;
            by_block[i] += area * (18 * out * (in + out) + (in != out ? 2 * in * out : 0));
        }
        if (i < c->n_blocks - 1) {
            area *= 4;
            by_block[i] += area * 18 * out * out;
        } else {
            by_block[i] += area * 18 * out * 3;
        }
    }
    for (int i = 0; i < c->n_blocks; i++) all += by_block[i];
    return all;
}

plan_flops plan_count_flops(const model *m, const geometry *g, int n_text)
{
    const flux_config *c = &m->flux;
    const double       d = (double)c->n_heads * c->head_dim, rows = (double)g->n_image + n_text;
    const double       pixels = (double)g->latent_h * g->latent_w;
    const double       wide = m->vae.block_out_channels[m->vae.n_blocks - 1];
    double             by_block[VAE_MAX_BLOCKS];
    const int          n_blocks = c->num_layers + c->num_single_layers;
    return (plan_flops){
        .attention = 4 * rows * rows * d * n_blocks,
        .products = 24 * d * d * rows * n_blocks + 4.0 * g->n_image * c->in_channels * d,
        .conv = pixels * conv_flops(&m->vae, by_block),
        .mid_attention = m->vae.mid_block_add_attention ? 4 * pixels * pixels * wide : 0,
    };
}

/* ---- seconds */

/* Rows that a rank computes when so many are cut into tiles and shared: the largest share, short tiles filled up. */
static double largest_share(int32_t n_text, int32_t n_image, int n_ranks)
{
    const int32_t n_tiles = geometry_n_tiles(n_text, n_image);
    return (double)((n_tiles + n_ranks - 1) / n_ranks) * ROW_TILE;
}

plan_step plan_step_seconds(const model *m, dtype type, int32_t n_text, int32_t n_image, grid_shape shape,
                            const machine *on)
{
    const flux_config *c = &m->flux;
    const int          n = shape.ulysses * shape.ring;
    const double       d = (double)c->n_heads * c->head_dim, all = (double)n_text + n_image;
    const double       n_blocks = c->num_layers + c->num_single_layers;
    /* A rank with nothing to spare, or the even share when there are many tiles. */
    const double rows = n > 1 ? largest_share(n_text, n_image, n) : all;
    const double share = n > 1 ? fmin(rows, all) : all;
    plan_step    s = {0};
    /* Heads are cut unevenly when they do not divide: the largest share counts. */
    const double heads = (double)((c->n_heads + shape.ulysses - 1) / shape.ulysses) / c->n_heads;
    const double attention = 4 * share * shape.ulysses * all * d * heads; /* of a block */
    const double of_dd = 2 * share * d * d;
    s.attention = n_blocks * attention / on->attention;
    const double doubles = c->num_layers, singles = c->num_single_layers;
    s.products = of_dd * ((4 * doubles + 3 * singles) / on->products[PRODUCT_1_1] +
                          4 * n_blocks / on->products[PRODUCT_1_4] + 4 * doubles / on->products[PRODUCT_4_1] +
                          5 * singles / on->products[PRODUCT_5_1]);
    s.rest = n_blocks * share * on->row_s;
    if (n > 1) {
        const double row_bytes = 2 * d * (double)dtype_bytes(type); /* keys and values */
        const double block = row_bytes * all / shape.ring / shape.ulysses, hop = block / on->link;
        const double hop_compute = attention / shape.ring / on->attention;
        if (shape.ring > 1) s.waiting += n_blocks * (shape.ring - 1) * fmax(0, hop - hop_compute);
        if (shape.ulysses > 1) {
            const double own = row_bytes * all / n; /* keys and values of a rank; queries and outputs are as much */
            s.waiting += n_blocks * 2 * own * (shape.ulysses - 1) / shape.ulysses / on->link;
        }
    }
    s.attention *= on->overhead;
    s.products *= on->overhead;
    s.total = s.attention + s.products + s.rest + s.waiting;
    return s;
}

plan_decode plan_decode_seconds(const model *m, dtype type, const geometry *g, int n_ranks, const machine *on)
{
    const int    n = geometry_n_strips(g, n_ranks), n_blocks = m->vae.n_blocks;
    const double share = (double)geometry_strip(g, n, 0).count / g->rows; /* the largest strip */
    const double pixels = (double)g->latent_h * g->latent_w, wide = m->vae.block_out_channels[n_blocks - 1];
    double       by_block[VAE_MAX_BLOCKS];
    plan_decode  d = {.png = 3.0 * g->width * g->height / on->png};
    conv_flops(&m->vae, by_block);
    for (int i = 0; i < n_blocks; i++) d.convolutions += share * pixels * by_block[i] / on->conv[i] * on->overhead;
    if (m->vae.mid_block_add_attention) {
        const double seconds = share * 4 * pixels * pixels * wide / on->wide_attention;
        const double hop = 2 * pixels * share * wide * (double)dtype_bytes(type) / on->link;
        d.attention = seconds * on->overhead;
        d.waiting = (n - 1) * fmax(0, hop - seconds / n);
    }
    d.total = d.convolutions + d.attention + d.waiting + d.png;
    return d;
}

/* ---- memory */

static int64_t at_least(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Kernels' own: panels of attention and tiles of products per thread, a convolution's weights in two forms. */
static int64_t scratch_bytes(const model *m, int n_threads)
{
    enum { PER_THREAD = 2 << 20 };
    int64_t widest = 0;
    for (int i = 0; i < m->vae.n_blocks; i++) widest = at_least(widest, m->vae.block_out_channels[i]);
    return (int64_t)n_threads * PER_THREAD + 2 * 9 * widest * widest * (int64_t)sizeof(float);
}

/* One encoder after the other. */
static void plan_encoding(const plan *p, plan_rank *r)
{
    arena clip = {0}, t5 = {0};
    clip_encoder_plan(&p->model->clip, p->type, &clip);
    t5_encoder_plan(&p->model->t5, p->type, p->n_text, &t5);
    r->encode = arena_bytes(&clip) > arena_bytes(&t5) ? clip : t5;
    r->encode_bytes = (int64_t)arena_bytes(&r->encode);
}

static status plan_one_rank(plan *p, int rank, int n_threads)
{
    const flux_config *c = &p->model->flux;
    plan_rank         *r = &p->ranks[rank];
    const int          n = plan_replica_ranks(p);
    const int64_t      latent = (int64_t)c->in_channels * (int64_t)sizeof(float); /* of a token */
    status             st = flux_transformer_plan(c, p->type, &p->geometry, p->n_text, p->picture->steps, p->shape,
                                                  rank, &r->denoise);
    if (st != ST_OK) return st;
    vae_decoder_plan(&p->model->vae, p->type, &p->geometry, n, rank, &r->decode);
    r->scratch_bytes = scratch_bytes(p->model, n_threads);
    if (rank == 0 && p->picture->embeddings_in == NULL) plan_encoding(p, r);
    const int64_t own = r->denoise.rows.n_image;
    void *latents, *velocity; /* parts are only read: their addresses end here */
    arena_plan(&r->denoise.parts, &latents, (size_t)(own * latent), "latents in fp32");
    arena_plan(&r->denoise.parts, &velocity, (size_t)(own * c->in_channels) * dtype_bytes(p->type), "velocity");
    r->denoise_bytes = (int64_t)arena_bytes(&r->denoise.parts);
    r->decode_bytes = (int64_t)arena_bytes(&r->decode);
    r->host_bytes = own * latent; /* on their way to rank 0 */
    if (rank == 0) /* the gathered latents of two steps; text rows in fp32 */
        r->host_bytes += 2 * p->geometry.n_image * latent +
                         (int64_t)p->n_text * c->joint_attention_dim * (int64_t)sizeof(float);
    r->anonymous = at_least(r->encode_bytes, at_least(r->denoise_bytes, r->decode_bytes));
    r->anonymous += r->host_bytes + r->scratch_bytes;
    r->mapped = p->weights.image + (r->denoise.rows.n_text > 0 ? p->weights.text : 0);
    r->sent = r->denoise.sent_ordered;
    return ST_OK;
}

int64_t plan_largest(const plan *p)
{
    int64_t most = 0;
    for (int r = 0; r < plan_replica_ranks(p); r++) most = at_least(most, p->ranks[r].anonymous);
    return most;
}

int64_t plan_sum(const plan *p)
{
    int64_t sum = 0;
    for (int r = 0; r < plan_replica_ranks(p); r++) sum += p->ranks[r].anonymous;
    return sum;
}

/* What a rank's card holds in each phase, and what has to pass through it in each step, of step_s without that. */
static void plan_card_use(plan *p, int rank, double step_s)
{
    const int     n = plan_replica_ranks(p);
    plan_rank    *r = &p->ranks[rank];
    plan_card    *c = &r->card;
    const int64_t card = p->machine.memory_bytes;
    c->libraries = LIBRARIES_BYTES;
    c->reserve = residency_reserve(card);
    c->ring = residency_ring(card);
    c->room = card - c->libraries - c->reserve - r->denoise_bytes;
    const residency loop = residency_of(r->mapped, c->room, c->ring);
    c->resident = loop.resident;
    c->streamed = loop.streamed;
    const int64_t always = c->libraries + c->reserve;
    c->encode = r->encode_bytes > 0 ? always + r->encode_bytes + p->weights.encoders : 0;
    c->modulation = always + r->denoise_bytes + p->weights.modulation / n;
    c->loop = always + r->denoise_bytes + r->mapped;
    c->decode = always + r->decode_bytes + p->weights.vae;
    if (c->streamed == 0 || p->machine.host_link <= 0) return;
    /* Blocks that pass one after the other: the upload of one hides under the work on the one before. */
    c->upload_s = (double)c->streamed / p->machine.host_link;
    c->hiding_s = (double)c->streamed / (double)r->mapped * step_s;
}

/* Cards of all ranks; the step waits for the rank whose weights come latest. */
static void add_uploads(plan *p)
{
    const double step_s = p->step.total;
    for (int r = 0; p->machine.own_memory && r < plan_replica_ranks(p); r++) {
        plan_card_use(p, r, step_s);
        p->step.upload = fmax(p->step.upload, p->ranks[r].card.upload_s - p->ranks[r].card.hiding_s);
    }
    p->step.total += p->step.upload;
}

static status plan_ranks(plan *p, const plan_opts *opts)
{
    status    st = ST_OK;
    const int n = plan_replica_ranks(p);
    free(p->ranks);
    p->ranks = calloc((size_t)n, sizeof(*p->ranks));
    if (p->ranks == NULL) return err_set(ST_NO_MEMORY, "plan of %d ranks", n);
    for (int r = 0; r < n && st == ST_OK; r++) st = plan_one_rank(p, r, opts->n_threads);
    return st;
}

/* On a GPU: buffers of a phase, and a way for its weights. */
static int64_t with_ring(const plan *p, int64_t buffers, int64_t passing)
{
    const int64_t ring = residency_ring(p->machine.memory_bytes);
    return buffers + (passing < ring ? passing : ring);
}

/* Bytes that must be there at once where memory is counted: on a GPU a rank's buffers and a way for its weights, here the
 * ranks of a node. */
static int64_t needed(const plan *p, const plan_opts *opts)
{
    int64_t most = 0;
    if (!p->machine.own_memory) return plan_sum(p) * p->shape.replicas * opts->n_ranks_of_node / opts->n_ranks;
    for (int r = 0; r < plan_replica_ranks(p); r++) {
        const plan_rank *k = &p->ranks[r];
        if (k->encode_bytes > 0) most = at_least(most, with_ring(p, k->encode_bytes, p->weights.encoders));
        most = at_least(most, with_ring(p, k->denoise_bytes, k->mapped));
        most = at_least(most, with_ring(p, k->decode_bytes, p->weights.vae));
    }
    return most + LIBRARIES_BYTES + residency_reserve(p->machine.memory_bytes);
}

static bool shape_fits(const plan *p, const plan_opts *opts, grid_shape shape)
{
    plan       tried = *p;
    tried.ranks = NULL;
    tried.shape = shape;
    const bool fits = plan_ranks(&tried, opts) == ST_OK && needed(&tried, opts) <= p->machine.memory_bytes;
    plan_free(&tried);
    return fits;
}

/* ---- grid */

static bool allows(const job_parallel *wanted, grid_shape s, int n_heads)
{
    return (wanted->replicas == 0 || wanted->replicas == s.replicas) &&
           (wanted->ulysses == 0 || wanted->ulysses == s.ulysses) && (wanted->ring == 0 || wanted->ring == s.ring) &&
           s.ulysses <= n_heads;
}

/* Seconds of a step of all pictures: replicas work side by side. */
static double batch_seconds(const plan *p, grid_shape s)
{
    const int    rounds = (p->n_pictures + s.replicas - 1) / s.replicas;
    const double step = plan_step_seconds(p->model, p->type, p->n_text, p->geometry.n_image, s, &p->machine).total;
    return rounds * step;
}

/* A candidate must be this much better than one that needs less of what is scarce: replicas memory, ulysses a fast
 * node. */
static const double WORTH = 0.97;

/* What the seconds say about hops, for `why`: rows per ring member beside those from which on a hop is hidden. */
static int tell_hops(const plan *p, char *text, size_t size)
{
    const double rows = (double)p->geometry.n_image + p->n_text;
    if (p->shape.ring == 1) return snprintf(text, size, "no ring: %d ranks share the heads", p->shape.ulysses);
    return snprintf(text, size,
                    "%.0f rows per ring member; a hop is hidden from %.0f on (attention %.3g TFLOP/s, link %.3g GB/s)",
                    rows / p->shape.ring,
                    p->machine.attention / p->machine.link * (double)dtype_bytes(p->type) / 2,
                    p->machine.attention * 1e-12, p->machine.link / GB);
}

/* seconds, ring_s: of the batch with this grid and with one ring; 0: unknown. */
static void tell_why(plan *p, const plan_opts *opts, bool must_fit, double seconds, double ring_s)
{
    const job_parallel *wanted = &opts->job->parallel;
    const size_t        size = sizeof(p->why);
    int                 n = 0;
    if (opts->n_ranks == 1) {
        snprintf(p->why, size, "one rank");
    } else if (wanted->replicas > 0 && wanted->ulysses > 0 && wanted->ring > 0) {
        snprintf(p->why, size, "as the job says");
    } else if (p->machine.attention <= 0) {
        snprintf(p->why, size, "a small job: one ring, nothing was measured");
    } else {
        if (must_fit) n = snprintf(p->why, size, "the fastest that fits the memory: ");
        if (plan_replica_ranks(p) > 1) n += tell_hops(p, p->why + n, size - (size_t)n);
        else n += snprintf(p->why + n, size - (size_t)n, "a picture per rank, nothing to send");
        if (ring_s > 0 && (p->shape.ulysses > 1 || p->shape.replicas > 1))
            snprintf(p->why + n, size - (size_t)n, "; %.0f %% of the time that one ring of %d takes for the batch",
                     100 * seconds / ring_s, opts->n_ranks);
    }
}

/* The fastest of the grids that the job allows; with must_fit, of those that fit. p->shape.ring is 0 when there is
 * none. */
static void choose_grid(plan *p, const plan_opts *opts, bool must_fit)
{
    const job_parallel *wanted = &opts->job->parallel;
    const int           n = opts->n_ranks, n_heads = p->model->flux.n_heads;
    const bool          timed = p->machine.attention > 0;
    double              best = INFINITY, ring_s = 0;
    p->shape = (grid_shape){0};
    for (int replicas = 1; replicas <= n; replicas++)
        for (int ulysses = 1; replicas * ulysses <= n; ulysses++) {
            const grid_shape s = {replicas, ulysses, n / (replicas * ulysses)};
            if (s.replicas * s.ulysses * s.ring != n || !allows(wanted, s, n_heads)) continue;
            if (wanted->replicas == 0 && replicas > 1 && (!timed || replicas > p->n_pictures)) continue;
            if (wanted->ulysses == 0 && ulysses > 1 && (!timed || ulysses > opts->n_ranks_of_node)) continue;
            const double seconds = timed ? batch_seconds(p, s) : replicas * n + ulysses;
            if (replicas == 1 && ulysses == 1) ring_s = seconds;
            if (seconds >= best * (timed ? WORTH : 1) || (must_fit && !shape_fits(p, opts, s))) continue;
            best = seconds;
            p->shape = s;
        }
    if (p->shape.ring > 0) tell_why(p, opts, must_fit, best, ring_s);
}

static int32_t text_rows(const plan_opts *opts)
{
    int n = opts->picture->max_sequence_length;
    if (n == 0) {
        n = opts->model->max_text_rows;
        if (!opts->model->flux.guidance_embeds && n > TEXT_ROWS_SCHNELL) n = TEXT_ROWS_SCHNELL;
    }
    return n;
}

status plan_make(plan *out, const plan_opts *opts)
{
    status              st = ST_OK;
    const job_parallel *wanted = &opts->job->parallel;
    plan                p = {.model = opts->model, .picture = opts->picture, .type = opts->job->precision,
                             .n_ranks = opts->n_ranks, .n_pictures = (int)opts->job->n_pictures,
                             .n_text = text_rows(opts), .schedule = EXCHANGE_ORDERED};
    if (wanted->schedule == SCHEDULE_NEIGHBOUR) p.schedule = EXCHANGE_NEIGHBOUR;
    TRY(geometry_make(&p.geometry, opts->picture->width, opts->picture->height, opts->model->vae.scale));
    if (opts->machine != NULL) p.machine = *opts->machine;
    p.weights = plan_count_weights(opts->model, 2);
    p.flops = plan_count_flops(opts->model, &p.geometry, p.n_text);
    choose_grid(&p, opts, false);
    if (p.shape.ring == 0) { /* nothing is as the job wants it: say it as the grid does */
        p.shape.replicas = wanted->replicas > 0 ? wanted->replicas : 1;
        p.shape.ulysses = wanted->ulysses > 0 ? wanted->ulysses : 1;
        p.shape.ring = wanted->ring > 0 ? wanted->ring : opts->n_ranks / (p.shape.replicas * p.shape.ulysses);
        st = grid_shape_check(p.shape, opts->n_ranks, opts->model->flux.n_heads);
        if (st == ST_OK) st = err_set(ST_BAD_JOB, "parallel: no grid of %d ranks fits", opts->n_ranks);
        goto fail;
    }
    TRY(plan_ranks(&p, opts));
    if (p.machine.memory_bytes > 0 && needed(&p, opts) > p.machine.memory_bytes) {
        plan slower = p;
        slower.ranks = NULL;
        choose_grid(&slower, opts, true);
        if (slower.shape.ring > 0) { /* else the fastest stays, and plan_fits refuses it */
            plan_free(&p);
            p = slower;
            TRY(plan_ranks(&p, opts));
        }
    }
    if (p.machine.attention > 0) {
        p.step = plan_step_seconds(p.model, p.type, p.n_text, p.geometry.n_image, p.shape, &p.machine);
        add_uploads(&p);
        p.decode = plan_decode_seconds(p.model, p.type, &p.geometry, p.shape.ulysses * p.shape.ring, &p.machine);
    }
    *out = p;
    return ST_OK;
fail:
    plan_free(&p);
    return st;
}

void plan_free(plan *p)
{
    free(p->ranks);
    p->ranks = NULL;
}

/* ---- does it fit */

static bool would_fit(const plan_opts *opts, const plan_opts *changed, int64_t limit)
{
    plan       p = {0};
    const bool fits = plan_make(&p, changed) == ST_OK && needed(&p, opts) <= limit;
    plan_free(&p);
    return fits;
}

/* More ranks of a machine that has memory of its own each. */
static int ranks_that_fit(const plan_opts *opts, int64_t limit)
{
    job          free_grid = *opts->job;
    plan_opts    more = *opts;
    free_grid.parallel = (job_parallel){.replicas = 1};
    more.job = &free_grid;
    for (int n = opts->n_ranks + 1; n <= 64; n++) {
        more.n_ranks = more.n_ranks_of_node = n;
        if (would_fit(&more, &more, limit)) return n;
    }
    return 0;
}

/* The largest picture of the same shape, in steps of 1/32 of each side. */
static bool size_that_fits(const plan_opts *opts, int64_t limit, int *width, int *height)
{
    for (int part = 31; part > 0; part--) {
        job_picture smaller = *opts->picture;
        plan_opts   changed = *opts;
        smaller.width = opts->picture->width * part / 32 / 16 * 16;
        smaller.height = opts->picture->height * part / 32 / 16 * 16;
        if (smaller.width < 16 || smaller.height < 16) return false;
        changed.picture = &smaller;
        if (!would_fit(&changed, &changed, limit)) continue;
        *width = smaller.width;
        *height = smaller.height;
        return true;
    }
    return false;
}

status plan_fits(const plan *p, const plan_opts *opts)
{
    if (p->machine.memory_bytes == 0) return ST_OK;
    const int64_t limit = p->machine.memory_bytes, want = needed(p, opts);
    char          size[96] = "", ranks[96] = "";
    int           width = 0, height = 0, n = 0;
    if (want <= limit) return ST_OK;
    if (size_that_fits(opts, limit, &width, &height))
        snprintf(size, sizeof(size), "; %d x %d would fit", width, height);
    const bool per_rank = p->machine.own_memory;
    if (per_rank) n = ranks_that_fit(opts, limit);
    if (n > 0) snprintf(ranks, sizeof(ranks), "; %d ranks would fit", n);
    if (!per_rank)
        snprintf(ranks, sizeof(ranks), "; so would the same on %lld nodes like this one",
                 (long long)((want + limit - 1) / at_least(limit, 1)));
    return err_set(ST_NO_MEMORY, "%s: %d x %d on %d rank%s needs %.2f GB %s, %s has %.2f GB%s%s", opts->picture->id,
                   opts->picture->width, opts->picture->height, opts->n_ranks, opts->n_ranks == 1 ? "" : "s",
                   (double)want / GB, per_rank ? "on a rank" : "on this node", p->machine.name,
                   (double)limit / GB, size, ranks);
}
