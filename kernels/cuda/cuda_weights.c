/* Weights on the card (design D5): what is lent is uploaded once and stays as long as there is room; what finds no room
 * is streamed, under the work that was put before.
 *
 *   lend:   resident? ------------------------------------------------> the stream waits for its upload
 *           else room, or weights older than its own last use? upload -> resident
 *           else a transient block (a free one whose last user is done first) -> upload, the stream waits
 *   return: the block's `used` event is recorded on the stream: a transient one is free for the next upload after it,
 *           a resident one can be evicted after it.
 *
 * 1. A weight may push out only those that were used longer ago than itself: a model that does not fit, walked again and
 *    again in the same order, keeps its first part resident and streams the rest, instead of pushing everything around.
 *    Arenas push out whatever is not lent.
 * 2. Uploads go through two pinned stages on a stream of their own: the caller fills one while the other travels. It runs
 *    ahead of the GPU, so uploads hide under the operations put before.
 * 3. RESERVE bytes stay free for libraries that allocate on their own.
 * 4. `lock` guards everything here; it is held over the filling of stages, since they are shared. */
#include <stdlib.h>
#include <string.h>

#include "cuda_device.h"

enum { N_STAGES = 2, TABLE_MIN = 256 };
static const size_t RESERVE = (size_t)512 << 20; /* at most: a sixteenth of a small card */
static const size_t TRANSIENT_BYTES = (size_t)1 << 30; /* blocks beyond that are reused, not added */

typedef struct block {
    void       *ptr;
    size_t      bytes;
    cudaEvent_t ready; /* the upload is done */
    cudaEvent_t used;  /* the last work that reads it is done */
    cudaStream_t used_on;
    int         n_lent;
    bool        filled;
} block;

typedef struct cached {
    const void *host; /* NULL: free place of the table */
    size_t      bytes;
    block       on_card; /* ptr NULL: not resident */
    uint64_t    last_use;
} cached;

/* What is lent now, by its address on the card. */
typedef struct lent {
    const void *ptr, *host; /* host NULL: a transient block */
    size_t      bytes;
} lent;

struct weight_cache {
    cuda_device    *dev;
    pthread_mutex_t lock;
    cudaStream_t    upload;
    void           *stage[N_STAGES];
    cudaEvent_t     stage_free[N_STAGES];
    int             next_stage;
    cached         *table; /* open addressing; [n_table], a power of two */
    size_t          n_table, n_cached;
    block          *transient; /* [n_transient] */
    size_t          n_transient, transient_bytes, reserve;
    lent           *lent; /* [n_lent] of room for n_lent_room */
    size_t          n_lent, n_lent_room;
    uint64_t        n_lends;
};

static void block_close(weight_cache *c, block *b)
{
    if (b->ptr != NULL) cuda_memory_give(c->dev, b->ptr, b->bytes);
    if (b->ready != NULL) (void)cudaEventDestroy(b->ready);
    if (b->used != NULL) (void)cudaEventDestroy(b->used);
    *b = (block){0};
}

static status block_open(weight_cache *c, size_t bytes, block *out)
{
    status st = ST_OK;
    block  b = {.bytes = bytes};
    TRY(cuda_memory_take(c->dev, NULL, bytes, "weights on the GPU", &b.ptr));
    TRY(cuda_status(cudaEventCreateWithFlags(&b.ready, cudaEventDisableTiming), "event"));
    TRY(cuda_status(cudaEventCreateWithFlags(&b.used, cudaEventDisableTiming), "event"));
    *out = b;
    return ST_OK;
fail:
    block_close(c, &b);
    return st;
}

status weight_cache_open(weight_cache **out, cuda_device *dev)
{
    status        st = ST_OK;
    size_t        free_bytes = 0, total = 0;
    weight_cache *c = calloc(1, sizeof(*c));
    if (c == NULL) return err_set(ST_NO_MEMORY, "weights: %zu bytes", sizeof(*c));
    c->dev = dev;
    pthread_mutex_init(&c->lock, NULL);
    c->n_table = TABLE_MIN;
    c->table = calloc(c->n_table, sizeof(*c->table));
    if (c->table == NULL) {
        st = err_set(ST_NO_MEMORY, "weights: %zu bytes", c->n_table * sizeof(*c->table));
        goto fail;
    }
    TRY(cuda_status(cudaMemGetInfo(&free_bytes, &total), "memory of the GPU"));
    c->reserve = total / 16 < RESERVE ? total / 16 : RESERVE;
    TRY(cuda_status(cudaStreamCreateWithFlags(&c->upload, cudaStreamNonBlocking), "stream"));
    for (int i = 0; i < N_STAGES; i++) {
        TRY(cuda_status(cudaMallocHost(&c->stage[i], STAGE_BYTES), "pinned memory for weights"));
        TRY(cuda_status(cudaEventCreateWithFlags(&c->stage_free[i], cudaEventDisableTiming), "event"));
    }
    *out = c;
    return ST_OK;
fail:
    weight_cache_close(c);
    return st;
}

void weight_cache_close(weight_cache *c)
{
    if (c == NULL) return;
    if (c->upload != NULL) (void)cudaStreamSynchronize(c->upload);
    for (size_t i = 0; c->table != NULL && i < c->n_table; i++) block_close(c, &c->table[i].on_card);
    for (size_t i = 0; i < c->n_transient; i++) block_close(c, &c->transient[i]);
    for (int i = 0; i < N_STAGES; i++) {
        (void)cudaFreeHost(c->stage[i]);
        if (c->stage_free[i] != NULL) (void)cudaEventDestroy(c->stage_free[i]);
    }
    if (c->upload != NULL) (void)cudaStreamDestroy(c->upload);
    pthread_mutex_destroy(&c->lock);
    free(c->lent);
    free(c->transient);
    free(c->table);
    free(c);
}

/* ---- who is known */

static size_t place_of(const weight_cache *c, const void *host, size_t bytes)
{
    uint64_t hash = ((uint64_t)(uintptr_t)host ^ (uint64_t)bytes << 40) * 0x9e3779b97f4a7c15u;
    size_t   at = (size_t)(hash >> 20) & (c->n_table - 1);
    while (c->table[at].host != NULL && (c->table[at].host != host || c->table[at].bytes != bytes))
        at = (at + 1) & (c->n_table - 1);
    return at;
}

static status table_grow(weight_cache *c)
{
    cached      *before = c->table;
    const size_t n_before = c->n_table;
    cached      *grown = calloc(2 * n_before, sizeof(*grown));
    if (grown == NULL) return err_set(ST_NO_MEMORY, "weights: %zu bytes", 2 * n_before * sizeof(*grown));
    c->table = grown;
    c->n_table = 2 * n_before;
    for (size_t i = 0; i < n_before; i++)
        if (before[i].host != NULL) c->table[place_of(c, before[i].host, before[i].bytes)] = before[i];
    free(before);
    return ST_OK;
}

static status find(weight_cache *c, const void *host, size_t bytes, cached **out)
{
    status st = ST_OK;
    if (2 * c->n_cached >= c->n_table) TRY(table_grow(c));
    cached *found = &c->table[place_of(c, host, bytes)];
    if (found->host == NULL) {
        *found = (cached){.host = host, .bytes = bytes};
        c->n_cached++;
    }
    *out = found;
fail:
    return st;
}

/* ---- who has to go */

/* Evicts the resident weight that was used longest ago, before `before`. Whether there was one. */
static bool evict_oldest(weight_cache *c, uint64_t before)
{
    cached *oldest = NULL;
    for (size_t i = 0; i < c->n_table; i++) {
        cached *w = &c->table[i];
        if (w->on_card.ptr != NULL && w->on_card.n_lent == 0 && w->last_use < before &&
            (oldest == NULL || w->last_use < oldest->last_use))
            oldest = w;
    }
    if (oldest == NULL) return false;
    (void)cudaEventSynchronize(oldest->on_card.used);
    block_close(c, &oldest->on_card);
    return true;
}

/* Transient blocks that nobody has borrowed go. */
static void drop_transient(weight_cache *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_transient; i++) {
        block *b = &c->transient[i];
        if (b->n_lent > 0) {
            c->transient[n++] = *b;
            continue;
        }
        c->transient_bytes -= b->bytes;
        (void)cudaEventSynchronize(b->used);
        block_close(c, b);
    }
    c->n_transient = n;
}

bool weight_cache_evict(weight_cache *c, size_t bytes)
{
    if (c == NULL) return false;
    pthread_mutex_lock(&c->lock);
    const size_t before = c->dev->base.used_bytes;
    while (before - c->dev->base.used_bytes < bytes && evict_oldest(c, UINT64_MAX)) {
    }
    if (before - c->dev->base.used_bytes < bytes) drop_transient(c);
    const bool any = c->dev->base.used_bytes < before;
    pthread_mutex_unlock(&c->lock);
    return any;
}

void weight_cache_forget(weight_cache *c)
{
    pthread_mutex_lock(&c->lock);
    while (evict_oldest(c, UINT64_MAX)) {
    }
    drop_transient(c);
    if (c->n_lent == 0) { /* else the table keeps names without weights */
        memset(c->table, 0, c->n_table * sizeof(*c->table));
        c->n_cached = 0;
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- upload */

static status upload(weight_cache *c, const block *to, const void *host, size_t bytes)
{
    status st = ST_OK;
    for (size_t at = 0, n; at < bytes; at += n) {
        const int stage = c->next_stage;
        n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        c->next_stage = (stage + 1) % N_STAGES;
        TRY(cuda_status(cudaEventSynchronize(c->stage_free[stage]), "upload of weights"));
        memcpy(c->stage[stage], (const char *)host + at, n);
        TRY(cuda_status(cudaMemcpyAsync((char *)to->ptr + at, c->stage[stage], n, cudaMemcpyHostToDevice, c->upload),
                        "upload of weights"));
        TRY(cuda_status(cudaEventRecord(c->stage_free[stage], c->upload), "upload of weights"));
    }
    TRY(cuda_status(cudaEventRecord(to->ready, c->upload), "upload of weights"));
fail:
    return st;
}

static bool has_room(weight_cache *c, size_t bytes)
{
    size_t       free_bytes = 0, total = 0;
    const size_t limit = c->dev->base.limit_bytes, used = c->dev->base.used_bytes;
    if (limit != 0 && (used > limit || bytes > limit - used)) return false;
    return cudaMemGetInfo(&free_bytes, &total) == cudaSuccess && free_bytes >= bytes && free_bytes - bytes >= c->reserve;
}

/* A place for w among the residents, if it may have one. */
static bool settle(weight_cache *c, cached *w)
{
    const uint64_t previous = w->last_use;
    while (!has_room(c, w->bytes))
        if (!evict_oldest(c, previous)) return false;
    if (block_open(c, w->bytes, &w->on_card) == ST_OK) return true;
    err_clear();
    return false;
}

/* A free transient block of at least that size: one whose work is done, else a new one while they are few, else the
 * first that is free, whose work the upload waits for. */
static status take_transient(weight_cache *c, size_t bytes, block **out)
{
    status st = ST_OK;
    block *waiting = NULL;
    for (size_t i = 0; i < c->n_transient; i++) {
        block *b = &c->transient[i];
        if (b->n_lent > 0 || b->bytes < bytes || b->bytes / 4 > bytes) continue; /* bias: not into a matrix' block */
        if (cudaEventQuery(b->used) == cudaSuccess) {
            *out = b;
            return ST_OK;
        }
        (void)cudaGetLastError();
        if (waiting == NULL) waiting = b;
    }
    if (waiting == NULL || c->transient_bytes + bytes <= TRANSIENT_BYTES) {
        block  b = {0};
        block *grown = realloc(c->transient, (c->n_transient + 1) * sizeof(*grown));
        if (grown == NULL) return err_set(ST_NO_MEMORY, "weights: %zu blocks", c->n_transient + 1);
        const ptrdiff_t kept = waiting == NULL ? 0 : waiting - c->transient;
        c->transient = grown;
        if (waiting != NULL) waiting = grown + kept;
        st = has_room(c, bytes) || waiting == NULL ? block_open(c, bytes, &b) : ST_NO_MEMORY;
        while (st == ST_NO_MEMORY && waiting == NULL && evict_oldest(c, UINT64_MAX)) st = block_open(c, bytes, &b);
        if (st == ST_OK) {
            c->transient[c->n_transient] = b;
            *out = &c->transient[c->n_transient++];
            c->transient_bytes += bytes;
            return ST_OK;
        }
        if (waiting == NULL) return st;
        err_clear();
    }
    TRY(cuda_status(cudaStreamWaitEvent(c->upload, waiting->used, 0), "upload of weights"));
    *out = waiting;
fail:
    return st;
}

static status note_lent(weight_cache *c, const void *ptr, const void *host, size_t bytes)
{
    if (c->n_lent == c->n_lent_room) {
        const size_t room = c->n_lent_room == 0 ? 64 : 2 * c->n_lent_room;
        lent        *grown = realloc(c->lent, room * sizeof(*grown));
        if (grown == NULL) return err_set(ST_NO_MEMORY, "weights: %zu bytes", room * sizeof(*grown));
        c->lent = grown;
        c->n_lent_room = room;
    }
    c->lent[c->n_lent++] = (lent){.ptr = ptr, .host = host, .bytes = bytes};
    return ST_OK;
}

static status lend(weight_cache *c, cuda_stream *s, const void *host, size_t bytes, const void **out)
{
    status  st = ST_OK;
    cached *w = NULL;
    block  *b = NULL;
    TRY(find(c, host, bytes, &w));
    if (w->on_card.ptr != NULL || settle(c, w)) {
        b = &w->on_card;
        if (!b->filled) TRY(upload(c, b, host, bytes));
        b->filled = true;
    } else {
        TRY(take_transient(c, bytes, &b));
        TRY(upload(c, b, host, bytes));
    }
    w->last_use = ++c->n_lends;
    TRY(cuda_status(cudaStreamWaitEvent(s->queue.stream, b->ready, 0), "upload of weights"));
    TRY(note_lent(c, b->ptr, b == &w->on_card ? host : NULL, bytes));
    b->n_lent++;
    *out = b->ptr;
fail:
    return st;
}

status weight_cache_lend(weight_cache *c, cuda_stream *s, const void *host, size_t bytes, const void **out)
{
    pthread_mutex_lock(&c->lock);
    status st = lend(c, s, host, bytes, out);
    pthread_mutex_unlock(&c->lock);
    return st;
}

/* The block lent at ptr, which is no longer noted; NULL when there is none. */
static block *take_lent(weight_cache *c, const void *ptr)
{
    for (size_t i = c->n_lent; i-- > 0;) {
        if (c->lent[i].ptr != ptr) continue;
        const lent found = c->lent[i];
        c->lent[i] = c->lent[--c->n_lent];
        if (found.host != NULL) return &c->table[place_of(c, found.host, found.bytes)].on_card;
        for (size_t t = 0; t < c->n_transient; t++)
            if (c->transient[t].ptr == ptr) return &c->transient[t];
    }
    return NULL;
}

status weight_cache_return(weight_cache *c, cuda_stream *s, const void *ptr)
{
    status st = ST_OK;
    pthread_mutex_lock(&c->lock);
    block *b = take_lent(c, ptr);
    if (b == NULL) {
        st = err_set(ST_DEVICE, "weights: %p was returned, but not lent", ptr);
        goto fail;
    }
    b->n_lent--;
    /* `used` means the work of every stream that has had it. */
    if (b->used_on != NULL && b->used_on != s->queue.stream)
        TRY(cuda_status(cudaStreamWaitEvent(s->queue.stream, b->used, 0), "return of weights"));
    TRY(cuda_status(cudaEventRecord(b->used, s->queue.stream), "return of weights"));
    b->used_on = s->queue.stream;
fail:
    pthread_mutex_unlock(&c->lock);
    return st;
}
