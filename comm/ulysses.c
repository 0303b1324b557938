#include "ulysses.h"

#include <stdlib.h>

#include "grid.h"
#include "internal.h"

enum { KEYS, QUERIES, OUTPUTS, N_SWAPS };

static size_t head_bytes_of(const exchange_layout *l)
{
    return l->row_bytes / (2 * (size_t)l->n_heads);
}

void ulysses_plan(const exchange_layout *l, ulysses *u, arena *parts)
{
    const int32_t *n_rows = l->n_rows + (ptrdiff_t)l->member * l->n_ulysses;
    const size_t   head = head_bytes_of(l), n_mine = (size_t)n_rows[l->ulysses];
    size_t         n_all = 0;
    int            first = 0, ours = 0;
    for (int r = 0; r < l->n_ulysses; r++) n_all += (size_t)n_rows[r];
    grid_heads(l->n_heads, l->n_ulysses, l->ulysses, &first, &ours);
    const size_t others = (size_t)(l->n_heads - ours);
    arena_plan(parts, &u->packed_kv, 2 * n_mine * others * head, "keys and values for other heads' ranks");
    arena_plan(parts, &u->packed_q, n_mine * others * head, "queries for other heads' ranks");
    arena_plan(parts, &u->kv, 2 * n_all * (size_t)ours * head, "keys and values of our heads");
    arena_plan(parts, &u->q, n_all * (size_t)ours * head, "queries of our heads");
    arena_plan(parts, &u->out, n_all * (size_t)ours * head, "outputs of our heads");
    arena_plan(parts, &u->returned, n_mine * others * head, "outputs of other heads");
}

/* What goes where, once and for all: buffers do not move between rounds. */
static void plan_messages(ulysses *u)
{
    const int    n = comm_size(u->group), me = comm_rank(u->group);
    const size_t head = u->head_bytes, mine = (size_t)u->n_mine, ours = (size_t)u->n_heads[me];
    size_t       rows_before = 0, heads_before = 0; /* of the peers; packed buffers leave out our own part */
    for (int r = 0; r < n; r++) {
        const size_t rows = (size_t)u->n_rows[r], heads = (size_t)u->n_heads[r];
        if (r != me) {
            const size_t packed = mine * heads * head, before = mine * heads_before * head;
            u->sends[KEYS * n + r] = (message){r, u->packed_kv + 2 * before, 2 * packed};
            u->sends[QUERIES * n + r] = (message){r, u->packed_q + before, packed};
            u->receives[OUTPUTS * n + r] = (message){r, u->returned + before, packed};
            const size_t shared = rows * ours * head, at = rows_before * ours * head;
            u->receives[KEYS * n + r] = (message){r, u->kv + 2 * at, 2 * shared};
            u->receives[QUERIES * n + r] = (message){r, u->q + at, shared};
            u->sends[OUTPUTS * n + r] = (message){r, u->out + at, shared};
            heads_before += heads;
        }
        rows_before += rows;
    }
}

status ulysses_open(ulysses *u, const exchange_layout *l, comm *group, device *dev, stream *travel, double *travel_s)
{
    status       st = ST_OK;
    const int    n = l->n_ulysses;
    const size_t ranks = (size_t)n;
    *u = (ulysses){.group = group, .dev = dev, .travel = travel, .all_heads = l->n_heads, .head_bytes = head_bytes_of(l),
                   .travel_s = travel_s};
    u->n_rows = calloc(ranks, sizeof(*u->n_rows));
    u->first_head = calloc(ranks, sizeof(*u->first_head));
    u->n_heads = calloc(ranks, sizeof(*u->n_heads));
    u->sends = calloc(N_SWAPS * ranks, sizeof(*u->sends));
    u->receives = calloc(N_SWAPS * ranks, sizeof(*u->receives));
    if (u->n_rows == NULL || u->first_head == NULL || u->n_heads == NULL || u->sends == NULL || u->receives == NULL) {
        st = err_set(ST_NO_MEMORY, "exchange: messages of %d ranks", n);
        goto fail;
    }
    for (int r = 0; r < n; r++) {
        u->n_rows[r] = l->n_rows[l->member * n + r];
        u->n_all += u->n_rows[r];
        grid_heads(l->n_heads, n, r, &u->first_head[r], &u->n_heads[r]);
    }
    u->n_mine = u->n_rows[l->ulysses];
    ulysses_plan(l, u, &u->memory);
    TRY(arena_take(&u->memory, dev, "shares of heads"));
    plan_messages(u);
    event **events[] = {&u->kv_packed, &u->q_packed, &u->arrived, &u->out_ready, &u->home};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) TRY(event_open(events[i], dev));
fail:
    return st;
}

void ulysses_close(ulysses *u)
{
    event_close(u->kv_packed);
    event_close(u->q_packed);
    event_close(u->arrived);
    event_close(u->out_ready);
    event_close(u->home);
    if (u->dev != NULL) arena_free(&u->memory);
    free(u->n_rows);
    free(u->first_head);
    free(u->n_heads);
    free(u->sends);
    free(u->receives);
    *u = (ulysses){0};
}

/* The swap starts when the work now on `compute` is done. */
static status put_swap(ulysses *u, stream *compute, event *ready, int swap)
{
    status    st = ST_OK;
    const int n = comm_size(u->group), at = swap * n;
    TRY(event_record(ready, compute));
    TRY(stream_wait(u->travel, ready));
    TRY(comm_put_swap(u->group, u->travel, u->sends + at, n, u->receives + at, n,
                      &(travel_log){.hop = -1, .seconds = u->travel_s}));
fail:
    return st;
}

/* Heads [first, first + n) of own rows, between a buffer of all heads and one of these alone. */
static status put_rows(ulysses *u, stream *compute, const void *from, size_t from_ld, void *to, size_t to_ld, int n_heads)
{
    if (u->n_mine == 0 || n_heads == 0) return ST_OK;
    return stream_copy_rows(compute, &(copy_rows_args){
        .x = from, .y = to, .ldx_bytes = (int64_t)from_ld, .ldy_bytes = (int64_t)to_ld,
        .row_bytes = (int64_t)n_heads * (int64_t)u->head_bytes, .n_rows = u->n_mine});
}

/* Rows of this member before ours. */
static size_t rows_before(const ulysses *u)
{
    size_t n = 0;
    for (int r = 0; r < comm_rank(u->group); r++) n += (size_t)u->n_rows[r];
    return n;
}

status ulysses_put_keys(ulysses *u, stream *compute, const void *mine)
{
    status               st = ST_OK;
    const int            n = comm_size(u->group), me = comm_rank(u->group);
    const unsigned char *from = mine;
    const size_t         all = (size_t)u->all_heads * u->head_bytes; /* keys of a row */
    for (int r = 0; r < n && mine != NULL; r++) {
        const size_t width = (size_t)u->n_heads[r] * u->head_bytes, at = (size_t)u->first_head[r] * u->head_bytes;
        unsigned char *to = r == me ? u->kv + rows_before(u) * 2 * width : u->sends[KEYS * n + r].data;
        TRY(put_rows(u, compute, from + at, 2 * all, to, 2 * width, u->n_heads[r]));
        TRY(put_rows(u, compute, from + all + at, 2 * all, to + width, 2 * width, u->n_heads[r]));
    }
    TRY(put_swap(u, compute, u->kv_packed, KEYS));
fail:
    return st;
}

status ulysses_put_queries(ulysses *u, stream *compute, const void *mine)
{
    status               st = ST_OK;
    const int            n = comm_size(u->group), me = comm_rank(u->group);
    const unsigned char *from = mine;
    for (int r = 0; r < n && mine != NULL; r++) {
        const size_t width = (size_t)u->n_heads[r] * u->head_bytes, at = (size_t)u->first_head[r] * u->head_bytes;
        unsigned char *to = r == me ? u->q + rows_before(u) * width : u->sends[QUERIES * n + r].data;
        TRY(put_rows(u, compute, from + at, (size_t)u->all_heads * u->head_bytes, to, width, u->n_heads[r]));
    }
    TRY(put_swap(u, compute, u->q_packed, QUERIES));
    TRY(event_record(u->arrived, u->travel));
fail:
    return st;
}

status ulysses_put_outputs(ulysses *u, stream *compute, void *out, size_t ld_bytes)
{
    status         st = ST_OK;
    const int      n = comm_size(u->group), me = comm_rank(u->group);
    unsigned char *to = out;
    TRY(put_swap(u, compute, u->out_ready, OUTPUTS));
    TRY(event_record(u->home, u->travel));
    TRY(stream_wait(compute, u->home));
    for (int r = 0; r < n && out != NULL; r++) {
        const size_t width = (size_t)u->n_heads[r] * u->head_bytes, at = (size_t)u->first_head[r] * u->head_bytes;
        const unsigned char *from = r == me ? u->out + rows_before(u) * width : u->receives[OUTPUTS * n + r].data;
        TRY(put_rows(u, compute, from, width, to + at, ld_bytes, u->n_heads[r]));
    }
fail:
    return st;
}
