#include "exchange.h"

#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "internal.h"
#include "ulysses.h"

/* A round of n blocks. ordered: block i uses buffer i % 2 unless it is our own, which is read where it lies. neighbour:
 * block 0 is our own, block i > 0 uses buffer (i - 1) % 2; transfer i sends block i - 1 on and receives block i.
 *
 *   travel    | block 0 |    block 1    |   block 2   | ...
 *   compute             | on block 0 |    on block 1    | on block 2
 *
 * 1. Block i + 1 is put on the travel stream when block i is lent, so it travels under the work on block i.
 * 2. Before block i overwrites its buffer, travel waits for `consumed` of that buffer: the work on block i - 2.
 * 3. Before work on block i, compute waits for `arrived` of its buffer.
 * 4. Our own block is sent after `mine_ready`; compute may overwrite it after `mine_sent` (kv_exchange_end).
 * 5. With ulysses `mine` is what the swap of keys and values made: the travel stream does that swap first, then block 0,
 *    then the swap of queries, then the other blocks, at last that of outputs; the same order on all ranks. */
typedef enum stage { STAGE_OVER, STAGE_BEGUN, STAGE_BLOCKS, STAGE_OUT } stage;

struct kv_exchange {
    comm           *comm;
    device         *dev;
    exchange_layout layout; /* n_rows is ours to free */
    exchange_schedule schedule;
    bool            alone; /* a ring of one member */
    size_t          block_row_bytes; /* of the heads that we attend with */
    int32_t        *member_rows; /* [members] */
    int            *owners; /* [n_blocks] members in the order of the round; ordered: only those that have rows */
    int             n_blocks;
    int             next; /* block that the next kv_exchange_next looks at; past n_blocks: the round is over */
    stage           stage;
    int64_t         n_rounds;
    stream         *travel;
    arena           memory;
    void           *buffer[2];
    event          *arrived[2], *consumed[2];
    event          *mine_ready, *mine_sent;
    const void     *mine;
    bool            has_heads; /* ulysses of more than one rank */
    ulysses         heads;
    double          travel_s;
};

/* ---- arithmetic of a layout */

static int32_t rows_of_member(const exchange_layout *l, int member)
{
    int32_t n = 0;
    for (int u = 0; u < l->n_ulysses; u++) n += l->n_rows[member * l->n_ulysses + u];
    return n;
}

exchange_share exchange_share_of(const exchange_layout *l)
{
    exchange_share share = {.n_rows = rows_of_member(l, l->member), .n_heads = l->n_heads};
    for (int m = 0; m < l->member; m++) share.first_row += rows_of_member(l, m);
    if (l->n_ulysses > 1) grid_heads(l->n_heads, l->n_ulysses, l->ulysses, &share.first_head, &share.n_heads);
    return share;
}

static size_t block_row_bytes(const exchange_layout *l)
{
    if (l->n_ulysses == 1) return l->row_bytes;
    return l->row_bytes / (size_t)l->n_heads * (size_t)exchange_share_of(l).n_heads;
}

static void plan_buffers(const exchange_layout *l, void *fields[2], arena *parts)
{
    int32_t largest = 0;
    for (int m = 0; m < l->n_members; m++) {
        const int32_t n = rows_of_member(l, m);
        if (m != l->member && n > largest) largest = n;
    }
    for (int i = 0; i < 2; i++)
        arena_plan(parts, &fields[i], (size_t)largest * block_row_bytes(l), "buffer of keys and values");
}

void exchange_plan(const exchange_layout *l, arena *parts)
{
    void   *fields[2];
    ulysses u;
    plan_buffers(l, fields, parts); /* parts are only read: their addresses end here */
    if (l->n_ulysses > 1) ulysses_plan(l, &u, parts);
}

int64_t exchange_bytes_sent(const exchange_layout *l, exchange_schedule schedule)
{
    const int64_t        row = (int64_t)block_row_bytes(l);
    const exchange_share share = exchange_share_of(l);
    const int64_t        mine = l->n_rows[l->member * l->n_ulysses + l->ulysses];
    int64_t              sent = 0;
    for (int m = 0; m < l->n_members; m++) {
        /* ordered: the member before the owner is the end of its chain; neighbour: what we hold last stays. */
        const bool stays = schedule == EXCHANGE_ORDERED ? (l->member + 1) % l->n_members == m
                                                        : m == (l->member + 1) % l->n_members;
        if (!stays) sent += rows_of_member(l, m) * row;
    }
    if (l->n_ulysses > 1) {
        const int64_t head = (int64_t)(l->row_bytes / (2 * (size_t)l->n_heads));
        sent += 3 * mine * head * (l->n_heads - share.n_heads); /* keys, values, queries */
        sent += (share.n_rows - mine) * head * share.n_heads;   /* outputs */
    }
    return sent;
}

/* ---- transfers */

static travel_log log_of(kv_exchange *x, int block)
{
    return (travel_log){.hop = block, .seconds = &x->travel_s};
}

static size_t bytes_of(const kv_exchange *x, int member)
{
    return (size_t)x->member_rows[member] * x->block_row_bytes;
}

static status put_chain(kv_exchange *x, int block)
{
    status           st = ST_OK;
    const int        slot = block % 2, owner = x->owners[block];
    const bool       own = owner == x->layout.member;
    const travel_log log = log_of(x, block);
    void            *buf = x->buffer[slot];
    if (own) memcpy(&buf, &x->mine, sizeof(x->mine)); /* the root of a chain only reads */
    TRY(stream_wait(x->travel, own ? x->mine_ready : x->consumed[slot]));
    TRY(comm_put_chain(x->comm, x->travel, owner, buf, bytes_of(x, owner), &log));
    TRY(event_record(own ? x->mine_sent : x->arrived[slot], x->travel));
fail:
    return st;
}

/* Transfer `block` of the classic ring brings that block; 0 is our own and needs none. */
static status put_shift(kv_exchange *x, int block)
{
    status           st = ST_OK;
    const int        n = comm_size(x->comm), me = comm_rank(x->comm), slot = (block - 1) % 2;
    const travel_log log = log_of(x, block);
    const void      *from = block == 1 ? x->mine : x->buffer[block % 2];
    message          sends = {.peer = (me + 1) % n, .bytes = bytes_of(x, x->owners[block - 1])};
    message          receives = {(me - 1 + n) % n, x->buffer[slot], bytes_of(x, x->owners[block])};
    memcpy(&sends.data, &from, sizeof(from)); /* only read */
    if (block == 1) TRY(stream_wait(x->travel, x->mine_ready));
    TRY(stream_wait(x->travel, x->consumed[slot]));
    TRY(comm_put_swap(x->comm, x->travel, &sends, 1, &receives, 1, &log));
    if (block == 1) TRY(event_record(x->mine_sent, x->travel));
    TRY(event_record(x->arrived[slot], x->travel));
fail:
    return st;
}

static status put_transfer(kv_exchange *x, int block)
{
    if (x->alone || block >= x->n_blocks) return ST_OK;
    return x->schedule == EXCHANGE_ORDERED ? put_chain(x, block) : put_shift(x, block);
}

static int slot_of(const kv_exchange *x, int block)
{
    return x->schedule == EXCHANGE_ORDERED ? block % 2 : (block + 1) % 2;
}

/* ---- open and close */

static void order_blocks(kv_exchange *x, bool reverse)
{
    const int n = x->layout.n_members;
    for (int i = 0; i < n; i++) {
        const int owner = x->schedule == EXCHANGE_ORDERED ? i : (x->layout.member - i + n) % n;
        if (x->schedule == EXCHANGE_NEIGHBOUR || x->member_rows[owner] > 0) x->owners[x->n_blocks++] = owner;
    }
    for (int i = 0; reverse && i < x->n_blocks / 2; i++) {
        int owner = x->owners[i];
        x->owners[i] = x->owners[x->n_blocks - 1 - i];
        x->owners[x->n_blocks - 1 - i] = owner;
    }
}

static status open_layout(kv_exchange *x, const kv_exchange_opts *opts)
{
    exchange_layout *l = &x->layout;
    *l = (exchange_layout){.n_members = comm_size(opts->comm), .member = comm_rank(opts->comm), .n_ulysses = 1,
                           .row_bytes = opts->row_bytes, .n_heads = opts->n_heads > 0 ? opts->n_heads : 1};
    if (opts->ulysses != NULL) {
        l->n_ulysses = comm_size(opts->ulysses);
        l->ulysses = comm_rank(opts->ulysses);
    }
    const size_t n_ranks = (size_t)l->n_members * (size_t)l->n_ulysses;
    int32_t     *n_rows = calloc(n_ranks, sizeof(*n_rows));
    x->member_rows = calloc((size_t)l->n_members, sizeof(*x->member_rows));
    x->owners = calloc((size_t)l->n_members, sizeof(*x->owners));
    l->n_rows = n_rows;
    if (n_rows == NULL || x->member_rows == NULL || x->owners == NULL)
        return err_set(ST_NO_MEMORY, "exchange: rows of %zu ranks", n_ranks);
    memcpy(n_rows, opts->n_rows, n_ranks * sizeof(*n_rows));
    for (int m = 0; m < l->n_members; m++) x->member_rows[m] = rows_of_member(l, m);
    x->block_row_bytes = block_row_bytes(l);
    return ST_OK;
}

/* The failure of one ring is known to the ulysses groups that meet it. */
static status open_channels(const kv_exchange_opts *opts)
{
    status st = comm_open_channel(opts->comm, opts->dev, NULL);
    if (opts->ulysses == NULL) return st;
    st = comm_agree(opts->ulysses, st);
    if (st != ST_OK) return st;
    st = comm_open_channel(opts->ulysses, opts->dev, NULL);
    return comm_agree(opts->comm, st);
}

status kv_exchange_open(kv_exchange **out, const kv_exchange_opts *opts)
{
    status       st = ST_OK;
    kv_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL) {
        st = err_set(ST_NO_MEMORY, "exchange: %zu bytes", sizeof(*x));
        goto fail;
    }
    x->comm = opts->comm;
    x->dev = opts->dev;
    x->schedule = opts->schedule;
    x->alone = comm_size(opts->comm) == 1;
    x->has_heads = opts->ulysses != NULL && comm_size(opts->ulysses) > 1;
    TRY(open_layout(x, opts));
    order_blocks(x, opts->reverse_order);
    x->next = x->n_blocks + 1;
    TRY(stream_open(&x->travel, opts->dev));
    TRY(event_open(&x->mine_ready, opts->dev));
    TRY(event_open(&x->mine_sent, opts->dev));
    for (int i = 0; i < 2; i++) {
        TRY(event_open(&x->arrived[i], opts->dev));
        TRY(event_open(&x->consumed[i], opts->dev));
    }
    plan_buffers(&x->layout, x->buffer, &x->memory);
    TRY(arena_take(&x->memory, opts->dev, "buffers of keys and values"));
    if (x->has_heads) TRY(ulysses_open(&x->heads, &x->layout, opts->ulysses, opts->dev, x->travel, &x->travel_s));
fail:
    st = comm_agree(opts->comm, st);
    if (opts->ulysses != NULL) st = comm_agree(opts->ulysses, st); /* each ulysses group meets every ring */
    if (st == ST_OK) st = open_channels(opts);
    if (st != ST_OK) {
        kv_exchange_close(x);
        return st;
    }
    *out = x;
    return ST_OK;
}

void kv_exchange_close(kv_exchange *x)
{
    if (x == NULL) return;
    stream_close(x->travel);
    ulysses_close(&x->heads);
    arena_free(&x->memory);
    for (int i = 0; i < 2; i++) {
        event_close(x->arrived[i]);
        event_close(x->consumed[i]);
    }
    event_close(x->mine_ready);
    event_close(x->mine_sent);
    free((void *)(uintptr_t)x->layout.n_rows);
    free(x->member_rows);
    free(x->owners);
    free(x);
}

/* ---- a round */

exchange_share kv_exchange_share(const kv_exchange *x)
{
    return exchange_share_of(&x->layout);
}

/* mine NULL: a rank that has failed takes part with whatever its buffers hold. */
static status begin(kv_exchange *x, stream *compute, const void *mine, bool failed)
{
    status st = ST_OK;
    x->mine = mine;
    x->next = 0;
    x->n_rounds++;
    x->stage = STAGE_BEGUN;
    if (x->has_heads) {
        TRY(ulysses_put_keys(&x->heads, compute, failed ? NULL : mine));
        x->mine = x->heads.kv;
    }
    if (x->alone) return ST_OK;
    TRY(event_record(x->mine_ready, compute));
    TRY(put_transfer(x, x->schedule == EXCHANGE_ORDERED ? 0 : 1));
fail:
    return st;
}

status kv_exchange_begin(kv_exchange *x, stream *compute, const void *mine)
{
    return begin(x, compute, mine, false);
}

static status put_queries(kv_exchange *x, stream *compute, const void *mine)
{
    x->stage = STAGE_BLOCKS;
    return x->has_heads ? ulysses_put_queries(&x->heads, compute, mine) : ST_OK;
}

status kv_exchange_queries(kv_exchange *x, stream *compute, const void *mine, const void **shared)
{
    *shared = x->has_heads ? x->heads.q : mine;
    return put_queries(x, compute, mine);
}

status kv_exchange_next(kv_exchange *x, stream *compute, kv_block *block)
{
    status st = ST_OK;
    *block = (kv_block){0};
    for (;;) {
        const int n = x->next++;
        if (n == 0 && x->has_heads) TRY(stream_wait(compute, x->heads.arrived)); /* queries; keys and values came before */
        if (n > 0 && n <= x->n_blocks && x->owners[n - 1] != x->layout.member)
            TRY(event_record(x->consumed[slot_of(x, n - 1)], compute));
        if (n >= x->n_blocks) return ST_OK;
        /* ordered: block n + 1 sets off; neighbour: transfer 1 set off at the beginning. */
        if (x->schedule == EXCHANGE_ORDERED || n > 0) TRY(put_transfer(x, n + 1));
        block->owner = x->owners[n];
        block->n_rows = x->member_rows[block->owner];
        if (block->n_rows == 0) continue; /* neighbour: passed on like the others, nothing to compute */
        block->first_row = 0;
        for (int m = 0; m < block->owner; m++) block->first_row += x->member_rows[m];
        if (block->owner == x->layout.member) {
            block->data = x->mine;
        } else {
            TRY(stream_wait(compute, x->arrived[slot_of(x, n)]));
            block->data = x->buffer[slot_of(x, n)];
        }
        return ST_OK;
    }
fail:
    return st;
}

void *kv_exchange_out(kv_exchange *x)
{
    return x->has_heads ? x->heads.out : NULL;
}

status kv_exchange_output(kv_exchange *x, stream *compute, void *out, size_t ld_bytes)
{
    x->stage = STAGE_OUT;
    return x->has_heads ? ulysses_put_outputs(&x->heads, compute, out, ld_bytes) : ST_OK;
}

status kv_exchange_end(kv_exchange *x, stream *compute)
{
    x->stage = STAGE_OVER;
    if (x->alone) return ST_OK; /* with ulysses: the swap of outputs came after all others and has been waited for */
    /* Without rows of our own there is nothing to wait for: mine_sent was never recorded. The others' blocks have been
     * passed on before the buffers are reused, because travel is one stream. */
    return stream_wait(compute, x->mine_sent);
}

int64_t kv_exchange_rounds(const kv_exchange *x)
{
    return x->n_rounds;
}

status kv_exchange_carry_on(kv_exchange *x, stream *compute, const void *mine, int64_t n_rounds)
{
    status   st = ST_OK;
    kv_block block;
    for (;;) {
        if (x->stage == STAGE_BEGUN) TRY(put_queries(x, compute, NULL));
        if (x->stage == STAGE_BLOCKS) {
            while (x->next <= x->n_blocks) TRY(kv_exchange_next(x, compute, &block));
            TRY(kv_exchange_output(x, compute, NULL, 0));
        }
        TRY(kv_exchange_end(x, compute));
        if (x->n_rounds >= n_rounds) return ST_OK;
        TRY(begin(x, compute, mine, true));
    }
fail:
    return st;
}

status kv_exchange_sync(kv_exchange *x)
{
    return stream_sync(x->travel);
}

double kv_exchange_travel_s(const kv_exchange *x)
{
    return x->travel_s;
}
