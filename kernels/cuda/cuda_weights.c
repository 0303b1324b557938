/* Weights on the card (design D5): what is lent is uploaded once and stays as long as there is room; what finds no room
 * passes through a ring, under the work that was put before.
 *
 *   lend:   resident? -----------------------------------------------> the stream waits for its upload
 *           else room, or weights older than its own last use? upload -> resident
 *           else the next place of the ring, whose last users the upload waits for -> upload, the stream waits
 *   return: the block's `used` event is recorded on the stream: its place in the ring is free for uploads after it, a
 *           resident one can be evicted after it.
 *
 * 1. A weight may push out only those that were used longer ago than itself: a model that does not fit, walked again and
 *    again in the same order, keeps what is resident and streams the rest, instead of pushing everything around. Arenas push
 *    out whatever is not lent, and the ring when that is not enough.
 * 2. What passes through the ring gets a pinned copy in host memory the second time (encoders and modulation have no second
 *    time). From then on its upload is one copy that the upload stream does on its own: the host never waits, and runs
 *    ahead of the GPU by what the ring holds (some blocks), so that the upload of a block is under way while earlier ones
 *    are worked on.
 * 3. Other uploads, and those that may have no pinned copy (host memory is short), go through two pinned stages: the caller
 *    fills one while the other travels.
 * 4. A reserve stays free for libraries that allocate on their own. Sizes of ring and reserve: residency.h.
 * 5. `lock` guards everything here; it is held over the filling of stages, since they are shared. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_device.h"
#include "machine.h"
#include "residency.h"

enum { N_STAGES = 2, TABLE_MIN = 256, N_PLACES = 256, ALIGNMENT = 256 };

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
    void       *pinned;  /* its copy in host memory, once it has passed through the ring again; NULL: none */
    uint64_t    last_use;
} cached;

/* Weights that pass, in the order in which they came; the oldest make place for the next. */
typedef struct passage {
    unsigned char *base;  /* NULL: not open */
    size_t         bytes, next; /* where the next one goes */
    bool           smaller;     /* than wanted: the card has no more */
    block          place[N_PLACES]; /* a ring */
    size_t         first, n;
} passage;

/* What is lent now, by its address on the card. */
typedef struct lent {
    const void *ptr, *host; /* host NULL: it passes through the ring */
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
    passage         ring;
    bool            pins_refused; /* host memory was short; until weights are forgotten */
    size_t          card_bytes;   /* of the card, or of it that we may use */
    size_t          known_free;   /* of the card, at known_at */
    uint64_t        known_at;     /* changes of our own allocations; 0: never asked */
    lent           *lent; /* [n_lent] of room for n_lent_room */
    size_t          n_lent, n_lent_room;
    uint64_t        n_lends;
};

static status events_open(block *b)
{
    status st = ST_OK;
    if (b->ready == NULL) TRY(cuda_status(cudaEventCreateWithFlags(&b->ready, cudaEventDisableTiming), "event"));
    if (b->used == NULL) TRY(cuda_status(cudaEventCreateWithFlags(&b->used, cudaEventDisableTiming), "event"));
fail:
    return st;
}

static void events_close(block *b)
{
    if (b->ready != NULL) (void)cudaEventDestroy(b->ready);
    if (b->used != NULL) (void)cudaEventDestroy(b->used);
}

static void block_close(weight_cache *c, block *b)
{
    if (b->ptr != NULL) cuda_memory_give(c->dev, b->ptr, b->bytes);
    events_close(b);
    *b = (block){0};
}

static status block_open(weight_cache *c, size_t bytes, block *out)
{
    status st = ST_OK;
    block  b = {.bytes = bytes};
    TRY(cuda_memory_take(c->dev, NULL, bytes, "weights on the GPU", &b.ptr));
    TRY(events_open(&b));
    *out = b;
    return ST_OK;
fail:
    block_close(c, &b);
    return st;
}

static void ring_close(weight_cache *c)
{
    passage *r = &c->ring;
    if (r->base == NULL) return;
    for (; r->n > 0; r->n--, r->first = (r->first + 1) % N_PLACES) (void)cudaEventSynchronize(r->place[r->first].used);
    for (int i = 0; i < N_PLACES; i++) events_close(&r->place[i]);
    cuda_memory_give(c->dev, r->base, r->bytes);
    *r = (passage){0};
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
    const size_t limit = dev->base.limit_bytes;
    c->card_bytes = limit != 0 && limit < total ? limit : total;
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
    for (size_t i = 0; c->table != NULL && i < c->n_table; i++) {
        block_close(c, &c->table[i].on_card);
        (void)cudaFreeHost(c->table[i].pinned);
    }
    ring_close(c);
    for (int i = 0; i < N_STAGES; i++) {
        (void)cudaFreeHost(c->stage[i]);
        if (c->stage_free[i] != NULL) (void)cudaEventDestroy(c->stage_free[i]);
    }
    if (c->upload != NULL) (void)cudaStreamDestroy(c->upload);
    pthread_mutex_destroy(&c->lock);
    free(c->lent);
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

static bool ring_is_lent(const passage *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->place[(r->first + i) % N_PLACES].n_lent > 0) return true;
    return false;
}

bool weight_cache_evict(weight_cache *c, size_t bytes)
{
    if (c == NULL) return false;
    pthread_mutex_lock(&c->lock);
    const size_t before = c->dev->base.used_bytes;
    while (before - c->dev->base.used_bytes < bytes && evict_oldest(c, UINT64_MAX)) {
    }
    if (before - c->dev->base.used_bytes < bytes && !ring_is_lent(&c->ring)) ring_close(c);
    const bool any = c->dev->base.used_bytes < before;
    pthread_mutex_unlock(&c->lock);
    return any;
}

void weight_cache_forget(weight_cache *c)
{
    pthread_mutex_lock(&c->lock);
    while (evict_oldest(c, UINT64_MAX)) {
    }
    if (!ring_is_lent(&c->ring)) ring_close(c); /* uploads from pinned copies are over then */
    if (c->n_lent == 0) { /* else the table keeps names without weights */
        for (size_t i = 0; i < c->n_table; i++) (void)cudaFreeHost(c->table[i].pinned);
        memset(c->table, 0, c->n_table * sizeof(*c->table));
        c->n_cached = 0;
        c->pins_refused = false;
    }
    pthread_mutex_unlock(&c->lock);
}

void weight_cache_drop(weight_cache *c, const void *host, size_t bytes)
{
    pthread_mutex_lock(&c->lock);
    block *b = &c->table[place_of(c, host, bytes)].on_card;
    if (b->ptr != NULL && b->n_lent == 0) {
        (void)cudaEventSynchronize(b->used);
        block_close(c, b);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- upload */

static void count_upload(weight_cache *c, size_t bytes)
{
    pthread_mutex_lock(&c->dev->lock);
    c->dev->base.counts.weight_bytes += (int64_t)bytes;
    pthread_mutex_unlock(&c->dev->lock);
}

/* Through the stages: the host waits for those. */
static status upload_staged(weight_cache *c, const block *to, const void *host, size_t bytes)
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
fail:
    return st;
}

/* An eighth of the host's memory is left to others. */
static bool may_pin(size_t bytes)
{
    const int64_t all = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
    return machine_memory_available() - (int64_t)bytes >= all / 8;
}

/* A pinned copy of what passes through the ring again, if there may be one. */
static void pin(weight_cache *c, cached *w)
{
    if (w->pinned != NULL || w->last_use == 0 || c->pins_refused) return;
    if (!may_pin(w->bytes) || cudaMallocHost(&w->pinned, w->bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        w->pinned = NULL;
        c->pins_refused = true;
        return;
    }
    memcpy(w->pinned, w->host, w->bytes);
}

static status upload(weight_cache *c, const block *to, const cached *w)
{
    status st = ST_OK;
    if (w->pinned != NULL)
        TRY(cuda_status(cudaMemcpyAsync(to->ptr, w->pinned, w->bytes, cudaMemcpyHostToDevice, c->upload), "upload of weights"));
    else TRY(upload_staged(c, to, w->host, w->bytes));
    TRY(cuda_status(cudaEventRecord(to->ready, c->upload), "upload of weights"));
    count_upload(c, w->bytes);
fail:
    return st;
}

/* ---- where it goes */

/* Asks the driver only when something of ours has changed: weights that pass are put many times a step. */
static bool has_room(weight_cache *c, size_t bytes)
{
    size_t       total = 0;
    const size_t reserve = (size_t)residency_reserve((int64_t)c->card_bytes), used = c->dev->base.used_bytes;
    if (c->known_at != c->dev->n_changes || c->known_at == 0) {
        if (cudaMemGetInfo(&c->known_free, &total) != cudaSuccess) return false;
        c->known_at = c->dev->n_changes;
    }
    if (c->dev->base.limit_bytes != 0 && used + bytes + reserve > c->card_bytes) return false;
    return c->known_free >= bytes + reserve;
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

/* Residents make room for the ring: it is worth more than they are. */
static status ring_open(weight_cache *c, size_t bytes)
{
    status   st = ST_OK;
    void    *base = NULL;
    passage *r = &c->ring;
    while (!has_room(c, bytes) && evict_oldest(c, UINT64_MAX)) {
    }
    TRY(cuda_memory_take(c->dev, NULL, bytes, "ring of weights on the GPU", &base));
    *r = (passage){.base = base, .bytes = bytes};
    for (int i = 0; i < N_PLACES; i++) TRY(events_open(&r->place[i]));
    return ST_OK;
fail:
    ring_close(c);
    return st;
}

/* At least two weights of this size, or, where not even that can be had, one with its bias. */
static status ring_grow(weight_cache *c, size_t bytes)
{
    const size_t wanted = (size_t)residency_ring((int64_t)c->card_bytes);
    const size_t two = 2 * bytes + ALIGNMENT, one = bytes + bytes / 8 + 16 * ALIGNMENT;
    if (c->ring.bytes >= (c->ring.smaller ? one : two)) return ST_OK;
    if (ring_is_lent(&c->ring))
        return err_set(ST_NO_MEMORY, "weights: a ring of %zu bytes, in use, want %zu", c->ring.bytes, two);
    ring_close(c);
    status st = ring_open(c, wanted > two ? wanted : two);
    if (st != ST_NO_MEMORY) return st;
    err_clear();
    st = ring_open(c, one);
    c->ring.smaller = st == ST_OK;
    return st;
}

/* The oldest weight in the ring makes place: the next upload waits for the work that reads it. */
static status ring_retire(weight_cache *c)
{
    status       st = ST_OK;
    passage     *r = &c->ring;
    const block *oldest = &r->place[r->first];
    if (oldest->n_lent > 0) return err_set(ST_NO_MEMORY, "weights: a ring of %zu bytes, all of it lent", r->bytes);
    TRY(cuda_status(cudaStreamWaitEvent(c->upload, oldest->used, 0), "upload of weights"));
    r->first = (r->first + 1) % N_PLACES;
    r->n--;
fail:
    return st;
}

static size_t offset_of(const passage *r, const block *b)
{
    return (size_t)((unsigned char *)b->ptr - r->base);
}

/* The next place of the ring. */
static status ring_take(weight_cache *c, size_t bytes, block **out)
{
    status       st = ST_OK;
    passage     *r = &c->ring;
    const size_t taken = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    TRY(ring_grow(c, taken));
    if (r->next + taken > r->bytes) { /* from the start again; the oldest are those behind `next` */
        while (r->n > 0 && offset_of(r, &r->place[r->first]) >= r->next) TRY(ring_retire(c));
        r->next = 0;
    }
    while (r->n > 0 && (r->n == N_PLACES || (offset_of(r, &r->place[r->first]) >= r->next &&
                                             offset_of(r, &r->place[r->first]) < r->next + taken)))
        TRY(ring_retire(c));
    block *b = &r->place[(r->first + r->n++) % N_PLACES];
    *b = (block){.ptr = r->base + r->next, .bytes = taken, .ready = b->ready, .used = b->used};
    r->next += taken;
    *out = b;
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
        if (!b->filled) TRY(upload(c, b, w));
        b->filled = true;
    } else {
        TRY(ring_take(c, bytes, &b));
        pin(c, w);
        TRY(upload(c, b, w));
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

status weight_cache_place(weight_cache *c, const void *host, size_t bytes, void **out, bool *filled)
{
    status  st = ST_OK;
    cached *w = NULL;
    *out = NULL;
    *filled = false;
    pthread_mutex_lock(&c->lock);
    TRY(find(c, host, bytes, &w));
    if (w->on_card.ptr == NULL && !settle(c, w)) goto fail;
    TRY(note_lent(c, w->on_card.ptr, host, bytes));
    w->last_use = ++c->n_lends;
    w->on_card.n_lent++;
    *filled = w->on_card.filled;
    *out = w->on_card.ptr;
fail:
    pthread_mutex_unlock(&c->lock);
    return st;
}

status weight_cache_filled(weight_cache *c, cuda_stream *s, const void *ptr)
{
    status st = ST_OK;
    block *b = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_lent && b == NULL; i++)
        if (c->lent[i].ptr == ptr && c->lent[i].host != NULL)
            b = &c->table[place_of(c, c->lent[i].host, c->lent[i].bytes)].on_card;
    if (b == NULL) st = err_set(ST_DEVICE, "weights: %p was filled, but not lent", ptr);
    else st = cuda_status(cudaEventRecord(b->ready, s->queue.stream), "weights from other ranks");
    if (st == ST_OK) b->filled = true;
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
        for (size_t k = 0; k < c->ring.n; k++) {
            block *b = &c->ring.place[(c->ring.first + k) % N_PLACES];
            if (b->ptr == ptr) return b;
        }
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
