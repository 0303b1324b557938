#include "vae_strips.h"

#include <stdlib.h>

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

pixel_range vae_strip_pixels(const geometry *g, int n_strips, int index)
{
    const strip   s = geometry_strip(g, n_strips, index);
    const int64_t row = (int64_t)PATCH * g->latent_w; /* pixels in a row of tokens */
    return (pixel_range){s.first * row, (s.first + s.count) * row};
}

pixel_range vae_strip_keys(const geometry *g, int n_strips, int index)
{
    const pixel_range own = vae_strip_pixels(g, n_strips, index);
    const int64_t     n = (int64_t)g->latent_h * g->latent_w;
    return (pixel_range){least((own.first + KEY_TILE - 1) / KEY_TILE * KEY_TILE, n),
                         least((own.end + KEY_TILE - 1) / KEY_TILE * KEY_TILE, n)};
}

status vae_strips_open(vae_strips *s, comm *whole, const geometry *g, stream *compute)
{
    status st = ST_OK;
    *s = (vae_strips){.whole = whole, .compute = compute, .rank = comm_rank(whole),
                      .n_strips = geometry_n_strips(g, comm_size(whole))};
    const bool has_rows = s->rank < s->n_strips;
    if (has_rows) s->mine = geometry_strip(g, s->n_strips, s->rank);
    s->sends = calloc((size_t)s->n_strips, sizeof(*s->sends));
    s->receives = calloc((size_t)s->n_strips, sizeof(*s->receives));
    if (s->sends == NULL || s->receives == NULL) st = err_set(ST_NO_MEMORY, "messages of %d strips", s->n_strips);
    TRY(comm_agree(whole, st));
    TRY(comm_split(&s->group, whole, has_rows ? 0 : 1, s->rank));
    return ST_OK;
fail:
    vae_strips_close(s);
    return st;
}

void vae_strips_close(vae_strips *s)
{
    comm_close(s->group);
    free(s->sends);
    free(s->receives);
    *s = (vae_strips){0};
}

/* At most two messages each way, made now and swapped in stream order. */
typedef struct swap_work {
    comm   *group;
    message sends[2], receives[2];
} swap_work;

static status do_swap(void *args)
{
    const swap_work *work = args;
    return comm_swap(work->group, work->sends, 2, work->receives, 2);
}

status vae_strips_halo(vae_strips *s, void *x, int32_t n_rows, size_t row_bytes, void *above, void *below)
{
    swap_work      work = {.group = s->group};
    unsigned char *last = (unsigned char *)x + (size_t)(n_rows - 1) * row_bytes;
    if (s->n_strips == 1) return ST_OK;
    if (s->rank > 0) {
        work.sends[0] = (message){s->rank - 1, x, row_bytes};
        work.receives[0] = (message){s->rank - 1, above, row_bytes};
    }
    if (s->rank < s->n_strips - 1) {
        work.sends[1] = (message){s->rank + 1, last, row_bytes};
        work.receives[1] = (message){s->rank + 1, below, row_bytes};
    }
    return stream_call(s->compute, do_swap, &work, sizeof(work));
}

status vae_strips_take_carry(vae_strips *s, double *carry, size_t bytes)
{
    swap_work work = {.group = s->group};
    if (s->rank == 0) return ST_OK;
    work.receives[0] = (message){s->rank - 1, carry, bytes};
    return stream_call(s->compute, do_swap, &work, sizeof(work));
}

typedef struct pass_work {
    comm   *group;
    double *carry, *total;
    size_t  bytes;
} pass_work;

/* Down to the next strip; from the last one to all. */
static status do_pass(void *args)
{
    status           st = ST_OK;
    const pass_work *work = args;
    const int        rank = comm_rank(work->group), last = comm_size(work->group) - 1;
    if (rank < last) {
        TRY(comm_swap(work->group, &(message){rank + 1, work->carry, work->bytes}, 1, NULL, 0));
        TRY(comm_swap(work->group, NULL, 0, &(message){last, work->total, work->bytes}, 1));
        return ST_OK;
    }
    for (int r = 0; r < last; r++) TRY(comm_swap(work->group, &(message){r, work->total, work->bytes}, 1, NULL, 0));
fail:
    return st;
}

status vae_strips_pass_carry(vae_strips *s, double *carry, double *total, size_t bytes)
{
    pass_work work = {s->group, carry, total, bytes};
    if (s->rank == s->n_strips - 1) {
        status st = stream_copy(s->compute, total, carry, bytes);
        if (st != ST_OK || s->n_strips == 1) return st;
    }
    return stream_call(s->compute, do_pass, &work, sizeof(work));
}

typedef struct edges_work {
    comm          *group;
    const message *sends, *receives;
} edges_work;

static status do_edges(void *args)
{
    const edges_work *work = args;
    const int         n = comm_size(work->group);
    return comm_swap(work->group, work->sends, n, work->receives, n);
}

status vae_strips_edges(vae_strips *s, const geometry *g, void *head, void *block, size_t row_bytes)
{
    const pixel_range own = vae_strip_pixels(g, s->n_strips, s->rank), keys = vae_strip_keys(g, s->n_strips, s->rank);
    edges_work        work = {s->group, s->sends, s->receives};
    if (s->n_strips == 1) return ST_OK;
    for (int r = 0; r < s->n_strips; r++) {
        const pixel_range theirs = vae_strip_pixels(g, s->n_strips, r), want = vae_strip_keys(g, s->n_strips, r);
        s->sends[r] = s->receives[r] = (message){.peer = r};
        if (r < s->rank) {
            const int64_t first = most(own.first, want.first), end = least(own.end, want.end);
            s->sends[r].data = (unsigned char *)head + (size_t)(first - own.first) * row_bytes;
            if (first < end) s->sends[r].bytes = (size_t)(end - first) * row_bytes;
        } else if (r > s->rank) {
            const int64_t first = most(theirs.first, keys.first), end = least(theirs.end, keys.end);
            s->receives[r].data = (unsigned char *)block + (size_t)(first - keys.first) * row_bytes;
            if (first < end) s->receives[r].bytes = (size_t)(end - first) * row_bytes;
        }
    }
    return stream_call(s->compute, do_edges, &work, sizeof(work));
}
