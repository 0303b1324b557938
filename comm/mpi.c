/* The transport over MPI. Every wait polls and sleeps: a rank that waits leaves its core to one that computes, which
 * matters when there are more ranks than cores (Open MPI itself spins). */
#include "transport.h"

#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    TAG_ROWS = 1, /* host channel: gather and scatter */
    TAG_CHAIN = 2, /* exchange channel */
    TAG_SWAP = 3,
    TAG_SERVICE = 4 /* service channel */
};

static const size_t PIECE_BYTES = (size_t)1 << 30; /* MPI counts are int */
/* A chain passes on chunks: small enough to keep all links busy, large enough to reach the link's speed. */
static const size_t CHUNK_BYTES = (size_t)1 << 18;
enum { MAX_CHUNKS = 64 };

/* A message on its way over the service channel. */
typedef struct post {
    struct post  *next;
    MPI_Request   request;
    unsigned char data[];
} post;

typedef struct mpi_transport {
    transport base;
    MPI_Comm  host, exchange;
    bool      is_world; /* MPI ends with it; it alone has what follows */
    MPI_Comm  service;
    post     *posts; /* not yet known to be gone */
    pthread_mutex_t posts_lock;
    transport_waits waits;
} mpi_transport;

static status mpi_failed(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int  n = 0;
    MPI_Error_string(code, text, &n);
    return err_set(ST_COMM, "%s: %s", what, text);
}

#define TRY_MPI(call, what)                                                                                            \
    do {                                                                                                               \
        int code_ = (call);                                                                                            \
        if (code_ != MPI_SUCCESS) {                                                                                    \
            st = mpi_failed(code_, what);                                                                              \
            goto fail;                                                                                                 \
        }                                                                                                              \
    } while (0)

static int64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Polls at once a few times, then sleeps an eighth of the time waited so far, 20 us to 2 ms: late by an eighth at most,
 * and a rank that waits long costs the others nothing, also when there are many more ranks than cores. What slow polls
 * cost is counted, so that the watchdog can tell waiting from work. */
static status wait_all(mpi_transport *t, int n, MPI_Request *requests, const char *what)
{
    enum { YIELDS = 10, COUNT_EVERY = 16, LEAST_NS = 20000, MOST_NS = 2000000 };
    status           st = ST_OK;
    transport_waits *w = t->base.waits;
    int              done = 0;
    double           began = 0;
    int64_t          counted = 0; /* CPU time of this thread up to which polls have been counted; 0: none yet */
    w->n_now++;
    for (int tries = 0;; tries++) {
        TRY_MPI(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what);
        if (done) break;
        if (tries == 0) began = comm_now();
        if (tries < YIELDS) {
            sched_yield();
            continue;
        }
        if (tries % COUNT_EVERY == 0) {
            const int64_t now = thread_cpu_ns();
            if (counted > 0) w->cpu_ns += now - counted;
            counted = now;
        }
        const double ns = (comm_now() - began) * 1e9 / 8;
        nanosleep(&(struct timespec){.tv_nsec = ns < LEAST_NS ? LEAST_NS : ns > MOST_NS ? MOST_NS : (long)ns}, NULL);
    }
    w->n_done++;
fail:
    if (counted > 0) w->cpu_ns += thread_cpu_ns() - counted;
    w->n_now--;
    return st;
}

static int piece_at(const mpi_transport *t, size_t bytes, size_t at)
{
    return (int)(bytes - at < t->base.piece_bytes ? bytes - at : t->base.piece_bytes);
}

static status mpi_bcast(transport *base, int root, void *buf, size_t bytes)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    for (size_t at = 0; at < bytes; at += t->base.piece_bytes) {
        MPI_Request request;
        TRY_MPI(MPI_Ibcast((char *)buf + at, piece_at(t, bytes, at), MPI_BYTE, root, t->host, &request), "broadcast");
        TRY(wait_all(t, 1, &request, "broadcast"));
    }
fail:
    return st;
}

static status mpi_min_max(transport *base, int *min_value, int *max_value)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    int            mine[2] = {*min_value, -*max_value}, least[2];
    MPI_Request    request;
    TRY_MPI(MPI_Iallreduce(mine, least, 2, MPI_INT, MPI_MIN, t->host, &request), "agreement");
    TRY(wait_all(t, 1, &request, "agreement"));
    *min_value = least[0];
    *max_value = -least[1];
fail:
    return st;
}

static status mpi_send(transport *base, int to, const void *buf, size_t bytes)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    for (size_t at = 0; at < bytes; at += t->base.piece_bytes) {
        MPI_Request request;
        TRY_MPI(MPI_Isend((const char *)buf + at, piece_at(t, bytes, at), MPI_BYTE, to, TAG_ROWS, t->host, &request),
                "sending rows");
        TRY(wait_all(t, 1, &request, "sending rows"));
    }
fail:
    return st;
}

static status mpi_receive(transport *base, int from, void *buf, size_t bytes)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    for (size_t at = 0; at < bytes; at += t->base.piece_bytes) {
        MPI_Request request;
        TRY_MPI(MPI_Irecv((char *)buf + at, piece_at(t, bytes, at), MPI_BYTE, from, TAG_ROWS, t->host, &request),
                "receiving rows");
        TRY(wait_all(t, 1, &request, "receiving rows"));
    }
fail:
    return st;
}

static status mpi_gather(transport *base, int root, const void *mine, const size_t *bytes, void *all)
{
    status         st = ST_OK;
    if (base->rank != root) return mpi_send(base, root, mine, bytes[base->rank]);
    char *at = all;
    for (int r = 0; r < base->size; r++) {
        if (bytes[r] == 0) continue;
        if (r == root)
            memcpy(at, mine, bytes[r]);
        else
            TRY(mpi_receive(base, r, at, bytes[r]));
        at += bytes[r];
    }
fail:
    return st;
}

static status mpi_scatter(transport *base, int root, const void *all, const size_t *bytes, void *mine)
{
    status         st = ST_OK;
    if (base->rank != root) return mpi_receive(base, root, mine, bytes[base->rank]);
    const char *at = all;
    for (int r = 0; r < base->size; r++) {
        if (bytes[r] == 0) continue;
        if (r == root)
            memcpy(mine, at, bytes[r]);
        else
            TRY(mpi_send(base, r, at, bytes[r]));
        at += bytes[r];
    }
fail:
    return st;
}

static status mpi_chain(transport *base, int root, void *buf, size_t bytes, int64_t *sent)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    const int      n = base->size;
    const int      place = (base->rank - root + n) % n; /* 0 is the root, n - 1 the end of the chain */
    const int      before = (base->rank - 1 + n) % n, after = (base->rank + 1) % n;
    MPI_Request    received[MAX_CHUNKS], passed[MAX_CHUNKS];
    size_t         chunk = CHUNK_BYTES;
    while ((bytes + chunk - 1) / chunk > MAX_CHUNKS) chunk *= 2;
    if (chunk > base->piece_bytes) return err_set(ST_COMM, "exchange: a block of %zu bytes is too large", bytes);
    const int n_chunks = (int)((bytes + chunk - 1) / chunk);

    for (int i = 0; i < n_chunks; i++) received[i] = passed[i] = MPI_REQUEST_NULL;
    for (int i = 0; i < n_chunks && place > 0; i++) {
        size_t at = (size_t)i * chunk;
        size_t here = bytes - at < chunk ? bytes - at : chunk;
        TRY_MPI(MPI_Irecv((char *)buf + at, (int)here, MPI_BYTE, before, TAG_CHAIN, t->exchange, &received[i]), "exchange");
    }
    for (int i = 0; i < n_chunks; i++) {
        size_t at = (size_t)i * chunk;
        size_t here = bytes - at < chunk ? bytes - at : chunk;
        TRY(wait_all(t, 1, &received[i], "exchange"));
        if (place == n - 1) continue;
        TRY_MPI(MPI_Isend((char *)buf + at, (int)here, MPI_BYTE, after, TAG_CHAIN, t->exchange, &passed[i]), "exchange");
        *sent += (int64_t)here;
    }
    TRY(wait_all(t, n_chunks, passed, "exchange"));
fail:
    return st;
}

static status mpi_swap(transport *base, const message *sends, int n_sends, const message *receives, int n_receives,
                       int64_t *sent)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    MPI_Request    requests[MAX_MESSAGES];
    int            n = 0;
    for (int pass = 0; pass < 2; pass++) { /* receives first */
        const message *list = pass == 0 ? receives : sends;
        const int      n_list = pass == 0 ? n_receives : n_sends;
        for (int i = 0; i < n_list; i++)
            for (size_t at = 0; at < list[i].bytes; at += base->piece_bytes) {
                char     *data = (char *)list[i].data + at;
                const int here = piece_at(t, list[i].bytes, at);
                if (n == MAX_MESSAGES) return err_set(ST_COMM, "swap: more than %d messages", MAX_MESSAGES);
                if (pass == 0)
                    TRY_MPI(MPI_Irecv(data, here, MPI_BYTE, list[i].peer, TAG_SWAP, t->exchange, &requests[n++]), "swap");
                else
                    TRY_MPI(MPI_Isend(data, here, MPI_BYTE, list[i].peer, TAG_SWAP, t->exchange, &requests[n++]), "swap");
                if (pass == 1) *sent += here;
            }
    }
    TRY(wait_all(t, n, requests, "swap"));
fail:
    return st;
}

/* ---- service channel */

/* Lets go of messages that are gone. With posts_lock held. */
static status reap_posts(mpi_transport *t)
{
    status st = ST_OK;
    for (post **at = &t->posts; *at != NULL;) {
        post *p = *at;
        int   done = 0;
        TRY_MPI(MPI_Test(&p->request, &done, MPI_STATUS_IGNORE), "service");
        if (done) {
            *at = p->next;
            free(p);
        } else {
            at = &p->next;
        }
    }
fail:
    return st;
}

static status mpi_post(transport *base, int to, const void *buf, size_t bytes)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    post          *p = bytes <= PIECE_BYTES ? malloc(sizeof(*p) + bytes) : NULL;
    if (p == NULL) return err_set(ST_NO_MEMORY, "service: message of %zu bytes", bytes);
    memcpy(p->data, buf, bytes);
    pthread_mutex_lock(&t->posts_lock);
    TRY(reap_posts(t));
    TRY_MPI(MPI_Isend(p->data, (int)bytes, MPI_BYTE, to, TAG_SERVICE, t->service, &p->request), "service");
    p->next = t->posts;
    t->posts = p;
    p = NULL;
fail:
    pthread_mutex_unlock(&t->posts_lock);
    free(p);
    return st;
}

static status mpi_poll(transport *base, int *from, void **buf, size_t *bytes)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    int            there = 0, n = 0;
    MPI_Message    found;
    MPI_Status     about;
    void          *data = NULL;
    *buf = NULL;
    TRY_MPI(MPI_Improbe(MPI_ANY_SOURCE, TAG_SERVICE, t->service, &there, &found, &about), "service");
    if (!there) return ST_OK;
    TRY_MPI(MPI_Get_count(&about, MPI_BYTE, &n), "service");
    data = malloc((size_t)n + 1);
    if (data == NULL) return err_set(ST_NO_MEMORY, "service: message of %d bytes", n);
    TRY_MPI(MPI_Mrecv(data, n, MPI_BYTE, &found, MPI_STATUS_IGNORE), "service");
    *from = about.MPI_SOURCE;
    *buf = data;
    *bytes = (size_t)n;
    return ST_OK;
fail:
    free(data);
    return st;
}

/* When all have said goodbye: what is left is on its way, and somebody takes it. */
static void close_service(mpi_transport *t)
{
    while (t->posts != NULL) {
        post *p = t->posts;
        t->posts = p->next;
        (void)wait_all(t, 1, &p->request, "service");
        free(p);
    }
    pthread_mutex_destroy(&t->posts_lock);
    if (t->service != MPI_COMM_NULL) MPI_Comm_free(&t->service);
}

/* ---- groups */

static status mpi_split(transport *base, int color, int key, transport **out);

static void mpi_close(transport *base)
{
    mpi_transport *t = (mpi_transport *)base;
    if (t->is_world) close_service(t);
    if (t->host != MPI_COMM_NULL) MPI_Comm_free(&t->host);
    if (t->exchange != MPI_COMM_NULL) MPI_Comm_free(&t->exchange);
    if (t->is_world) MPI_Finalize();
    free(t);
}

static void mpi_abort(transport *base, int exit_code)
{
    (void)base;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

/* Takes over both communicators, also when it fails. part_of NULL: the first group. */
static status open_group(transport **out, MPI_Comm host, MPI_Comm exchange, const mpi_transport *part_of)
{
    status         st = ST_OK;
    MPI_Comm       node = MPI_COMM_NULL;
    mpi_transport *t = calloc(1, sizeof(*t));
    if (t == NULL) return err_set(ST_NO_MEMORY, "transport: %zu bytes", sizeof(*t));
    transport *base = &t->base;
    *base = (transport){.piece_bytes = PIECE_BYTES, .close = mpi_close, .abort = mpi_abort, .split = mpi_split,
                        .bcast = mpi_bcast, .min_max = mpi_min_max, .gather = mpi_gather, .scatter = mpi_scatter,
                        .send = mpi_send, .receive = mpi_receive, .chain = mpi_chain, .swap = mpi_swap,
                        .post = mpi_post, .poll = mpi_poll};
    t->host = host;
    t->exchange = exchange;
    t->service = MPI_COMM_NULL;
    t->is_world = part_of == NULL;
    base->waits = t->is_world ? &t->waits : part_of->base.waits;
    if (t->is_world) {
        pthread_mutex_init(&t->posts_lock, NULL);
        TRY_MPI(MPI_Comm_dup(t->host, &t->service), "MPI_Comm_dup");
        TRY_MPI(MPI_Comm_set_errhandler(t->service, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    }
    TRY_MPI(MPI_Comm_set_errhandler(t->host, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    TRY_MPI(MPI_Comm_set_errhandler(t->exchange, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    TRY_MPI(MPI_Comm_rank(t->host, &base->rank), "MPI_Comm_rank");
    TRY_MPI(MPI_Comm_size(t->host, &base->size), "MPI_Comm_size");
    TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &base->world_rank), "MPI_Comm_rank");
    TRY_MPI(MPI_Comm_split_type(t->host, MPI_COMM_TYPE_SHARED, base->rank, MPI_INFO_NULL, &node), "node split");
    TRY_MPI(MPI_Comm_rank(node, &base->local_rank), "MPI_Comm_rank");
    TRY_MPI(MPI_Comm_size(node, &base->local_size), "MPI_Comm_size");
    TRY_MPI(MPI_Comm_free(&node), "MPI_Comm_free");
    if (gethostname(base->host, sizeof(base->host) - 1) != 0) strcpy(base->host, "unknown host");
    *out = base;
    return ST_OK;
fail:
    mpi_close(base);
    return st;
}

static status mpi_split(transport *base, int color, int key, transport **out)
{
    status         st = ST_OK;
    mpi_transport *t = (mpi_transport *)base;
    MPI_Comm       host = MPI_COMM_NULL, exchange = MPI_COMM_NULL;
    if (color == SPLIT_BY_NODE)
        TRY_MPI(MPI_Comm_split_type(t->host, MPI_COMM_TYPE_SHARED, key, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
    else
        TRY_MPI(MPI_Comm_split(t->host, color, key, &host), "MPI_Comm_split");
    TRY_MPI(MPI_Comm_dup(host, &exchange), "MPI_Comm_dup");
    TRY(open_group(out, host, exchange, t));
    (*out)->piece_bytes = base->piece_bytes;
fail:
    return st;
}

status transport_mpi_open(transport **out, int *argc, char ***argv)
{
    status   st = ST_OK;
    int      provided = 0;
    MPI_Comm host = MPI_COMM_NULL, exchange = MPI_COMM_NULL;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
        return err_set(ST_COMM, "MPI does not start");
    if (provided < MPI_THREAD_MULTIPLE) {
        MPI_Finalize();
        return err_set(ST_COMM, "this MPI has no MPI_THREAD_MULTIPLE: got level %d, want %d", provided, MPI_THREAD_MULTIPLE);
    }
    TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &host), "MPI_Comm_dup");
    TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &exchange), "MPI_Comm_dup");
    TRY(open_group(out, host, exchange, NULL));
fail:
    return st;
}
