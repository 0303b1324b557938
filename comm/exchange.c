#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* A round of n blocks; block i uses buffer i % 2 unless it is our own, which is read where it lies.
 *
 *   travel    | block 0 |    block 1    |   block 2   | ...
 *   compute             | on block 0 |    on block 1    | on block 2
 *
 * 1. Block i + 1 is put on the travel stream when block i is lent, so it travels under the work on block i.
 * 2. Before block i overwrites its buffer, travel waits for `consumed` of that buffer: the work on block i - 2.
 * 3. Before work on block i, compute waits for `arrived` of its buffer.
 * 4. Our own block is sent after `mine_ready`; compute may overwrite it after `mine_sent` (kv_exchange_end). */
struct kv_exchange {
    comm    *comm;
    device  *dev;
    size_t   row_bytes;
    int32_t *n_rows; /* [ranks] */
    int     *owners; /* [n_blocks] ranks that have rows, in the order of the round */
    int      n_blocks;
    int      next; /* block that the next kv_exchange_next lends; past n_blocks: the round is over */
    int64_t  n_rounds;
    stream  *travel;
    void    *buffer[2];
    event   *arrived[2], *consumed[2];
    event   *mine_ready, *mine_sent;
    const void *mine;
};

typedef struct transfer {
    kv_exchange *x;
    void        *data;
    size_t       bytes;
    int          owner;
} transfer;

static status do_transfer(void *args)
{
    transfer *work = args;
    comm     *c = work->x->comm;
    int64_t   sent = 0;
    status    st = c->transport->chain(c->transport, work->owner, work->data, work->bytes, &sent);
    comm_count_bytes(c, sent);
    return st;
}

static status put_transfer(kv_exchange *x, int block)
{
    status   st = ST_OK;
    int      slot = block % 2, owner = x->owners[block];
    bool     own = owner == comm_rank(x->comm);
    transfer work = {.x = x, .owner = owner, .bytes = (size_t)x->n_rows[owner] * x->row_bytes};
    if (own)
        memcpy(&work.data, &x->mine, sizeof(x->mine)); /* the root of a chain only reads */
    else
        work.data = x->buffer[slot];
    TRY(stream_wait(x->travel, own ? x->mine_ready : x->consumed[slot]));
    TRY(stream_call(x->travel, do_transfer, &work, sizeof(work)));
    TRY(event_record(own ? x->mine_sent : x->arrived[slot], x->travel));
fail:
    return st;
}

status kv_exchange_open(kv_exchange **out, const kv_exchange_opts *opts)
{
    status       st = ST_OK;
    const int    n_ranks = comm_size(opts->comm);
    int32_t      largest = 0;
    kv_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL) {
        st = err_set(ST_NO_MEMORY, "exchange: %zu bytes", sizeof(*x));
        goto fail;
    }
    x->comm = opts->comm;
    x->dev = opts->dev;
    x->row_bytes = opts->row_bytes;
    x->n_rows = calloc((size_t)n_ranks, sizeof(*x->n_rows));
    x->owners = calloc((size_t)n_ranks, sizeof(*x->owners));
    if (x->n_rows == NULL || x->owners == NULL) {
        st = err_set(ST_NO_MEMORY, "exchange: rows of %d ranks", n_ranks);
        goto fail;
    }
    for (int r = 0; r < n_ranks; r++) {
        x->n_rows[r] = opts->n_rows[r];
        if (opts->n_rows[r] > 0) x->owners[x->n_blocks++] = r;
        if (r != comm_rank(opts->comm) && opts->n_rows[r] > largest) largest = opts->n_rows[r];
    }
    for (int i = 0; opts->reverse_order && i < x->n_blocks / 2; i++) {
        int owner = x->owners[i];
        x->owners[i] = x->owners[x->n_blocks - 1 - i];
        x->owners[x->n_blocks - 1 - i] = owner;
    }
    x->next = x->n_blocks + 1;
    TRY(stream_open(&x->travel, opts->dev));
    TRY(event_open(&x->mine_ready, opts->dev));
    TRY(event_open(&x->mine_sent, opts->dev));
    for (int i = 0; i < 2; i++) {
        TRY(event_open(&x->arrived[i], opts->dev));
        TRY(event_open(&x->consumed[i], opts->dev));
        TRY(device_alloc(opts->dev, (size_t)largest * opts->row_bytes, "buffer of keys and values", &x->buffer[i]));
    }
fail:
    st = comm_agree(opts->comm, st);
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
    for (int i = 0; i < 2; i++) {
        device_free(x->dev, x->buffer[i]);
        event_close(x->arrived[i]);
        event_close(x->consumed[i]);
    }
    event_close(x->mine_ready);
    event_close(x->mine_sent);
    free(x->n_rows);
    free(x->owners);
    free(x);
}

status kv_exchange_begin(kv_exchange *x, stream *compute, const void *mine)
{
    status st = ST_OK;
    x->mine = mine;
    x->next = 0;
    x->n_rounds++;
    if (comm_size(x->comm) == 1) return ST_OK;
    TRY(event_record(x->mine_ready, compute));
    TRY(put_transfer(x, 0));
fail:
    return st;
}

status kv_exchange_next(kv_exchange *x, stream *compute, kv_block *block)
{
    status st = ST_OK;
    const int n = x->next++;
    const bool alone = comm_size(x->comm) == 1;
    *block = (kv_block){0};
    if (!alone && n > 0) TRY(event_record(x->consumed[(n - 1) % 2], compute));
    if (n >= x->n_blocks) return ST_OK;
    if (!alone && n + 1 < x->n_blocks) TRY(put_transfer(x, n + 1));
    block->owner = x->owners[n];
    block->n_rows = x->n_rows[block->owner];
    if (block->owner == comm_rank(x->comm)) {
        block->data = x->mine;
    } else {
        TRY(stream_wait(compute, x->arrived[n % 2]));
        block->data = x->buffer[n % 2];
    }
fail:
    return st;
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
        while (x->next <= x->n_blocks) TRY(kv_exchange_next(x, compute, &block));
        TRY(kv_exchange_end(x, compute));
        if (x->n_rounds >= n_rounds) return ST_OK;
        TRY(kv_exchange_begin(x, compute, mine));
    }
fail:
    return st;
}

status kv_exchange_sync(kv_exchange *x)
{
    return stream_sync(x->travel);
}

status kv_exchange_end(kv_exchange *x, stream *compute)
{
    if (comm_size(x->comm) == 1) return ST_OK;
    /* Without rows of our own there is nothing to wait for: mine_sent was never recorded. The others' blocks have been
     * passed on before the buffers are reused, because travel is one stream. */
    return stream_wait(compute, x->mine_sent);
}
