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

status vae_strips_open(vae_strips *s, comm *whole, const geometry *g, device *dev, stream *compute)
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
    if (s->n_strips == comm_size(whole))
        s->group = whole;
    else
        TRY(comm_split(&s->group, whole, has_rows ? 0 : 1, s->rank));
    TRY(comm_agree(whole, has_rows ? comm_open_channel(s->group, dev, NULL) : ST_OK));
    return ST_OK;
fail:
    vae_strips_close(s);
    return st;
}

void vae_strips_close(vae_strips *s)
{
    if (s->group != s->whole) comm_close(s->group);
    free(s->sends);
    free(s->receives);
    *s = (vae_strips){0};
}

status vae_strips_halo(vae_strips *s, void *x, int32_t n_rows, size_t row_bytes, void *above, void *below)
{
    message        sends[2] = {{0}}, receives[2] = {{0}};
    unsigned char *last = (unsigned char *)x + (size_t)(n_rows - 1) * row_bytes;
    if (s->n_strips == 1) return ST_OK;
    if (s->rank > 0) {
        sends[0] = (message){s->rank - 1, x, row_bytes};
        receives[0] = (message){s->rank - 1, above, row_bytes};
    }
    if (s->rank < s->n_strips - 1) {
        sends[1] = (message){s->rank + 1, last, row_bytes};
        receives[1] = (message){s->rank + 1, below, row_bytes};
    }
    return comm_put_swap(s->group, s->compute, sends, 2, receives, 2, TRAVEL_LOG_NONE);
}

status vae_strips_take_carry(vae_strips *s, double *carry, size_t bytes)
{
    const message above = {s->rank - 1, carry, bytes};
    if (s->rank == 0) return ST_OK;
    return comm_put_swap(s->group, s->compute, NULL, 0, &above, 1, TRAVEL_LOG_NONE);
}

/* Down to the next strip; from the last one to all. */
status vae_strips_pass_carry(vae_strips *s, double *carry, double *total, size_t bytes)
{
    status        st = ST_OK;
    const int     last = s->n_strips - 1;
    const message below = {s->rank + 1, carry, bytes};
    if (s->rank == last) TRY(stream_copy(s->compute, total, carry, bytes));
    if (s->n_strips == 1) return ST_OK;
    if (s->rank < last) TRY(comm_put_swap(s->group, s->compute, &below, 1, NULL, 0, TRAVEL_LOG_NONE));
    TRY(comm_put_chain(s->group, s->compute, last, total, bytes, TRAVEL_LOG_NONE));
fail:
    return st;
}

status vae_strips_edges(vae_strips *s, const geometry *g, void *head, void *block, size_t row_bytes)
{
    const pixel_range own = vae_strip_pixels(g, s->n_strips, s->rank), keys = vae_strip_keys(g, s->n_strips, s->rank);
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
    return comm_put_swap(s->group, s->compute, s->sends, s->n_strips, s->receives, s->n_strips, TRAVEL_LOG_NONE);
}
