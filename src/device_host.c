/* The devices of the host: cpu, strict and plain. */
#include "device_impl.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A stream is a ring of work items.
 *
 *   put            head                     tail
 *   ----->  [ done | running | waiting ... | free ]
 *
 * 1. Only the owner of a stream puts; only its worker (cpu, plain) or whoever waits (strict) takes.
 * 2. A failed operation marks the stream; later kernels of the stream are skipped, but events and host calls still
 *    happen, so that neither another stream nor another rank is left waiting.
 * 3. An event is a point of a stream: so many items done. A wait copies that point when it is put, so neither a later
 *    record nor the end of the event changes what it waits for.
 * 4. `lock` guards queues and events of all streams of the device; it is never held while work runs.
 * 5. A stream's struct lives until it is closed and no event or wait means a point of it. */

enum { RING_ITEMS = 512 };
/* strict: what was lent and returned stays for a while as NaN, so that late use of it reads NaN, not its successor. */
enum { KEPT_BLOCKS = 64, KEPT_BYTES = 64 << 20 };

typedef struct host_device host_device;
typedef struct host_stream host_stream;
typedef status (*work_fn)(host_stream *s, void *args);

typedef struct work_item {
    work_fn fn;
    bool    skip_after_failure;
    _Alignas(16) unsigned char args[STREAM_ARGS_BYTES];
} work_item;

struct host_device {
    device              base;
    const kernel_table *kernels;
    kernel_context     *context;
    pthread_mutex_t     context_lock; /* one kernel at a time */
    pthread_mutex_t     lock;
    pthread_cond_t      changed; /* an item of some stream was done */
    void               *kept[KEPT_BLOCKS]; /* strict: a ring of returned blocks */
    uint64_t            n_kept, n_let_go;
    size_t              kept_bytes;
};

struct host_stream {
    stream         base;
    host_device   *dev;
    pthread_t      worker;
    pthread_cond_t more;  /* work was put, or closing */
    pthread_cond_t fewer; /* an item was done */
    work_item     *ring;
    uint64_t       put, done;
    int            n_users; /* the stream itself until it is closed, events, waits */
    bool           has_worker, closing;
    status         failed;
    double         waited_s;
    char           message[1024];
};

typedef struct host_event {
    event        base;
    host_stream *on; /* NULL: never recorded */
    uint64_t     point; /* reached when that many items of the stream are done */
} host_event;

/* What stands before each device allocation. */
typedef struct block_header {
    size_t bytes;
    void  *raw;
} block_header;

static block_header header_of(const void *ptr)
{
    block_header header;
    memcpy(&header, (const unsigned char *)ptr - sizeof(header), sizeof(header));
    return header;
}

static void let_go_oldest(host_device *dev)
{
    block_header header = header_of(dev->kept[dev->n_let_go++ % KEPT_BLOCKS]);
    dev->kept_bytes -= header.bytes;
    free(header.raw);
}

static void host_close(device *base)
{
    host_device *dev = (host_device *)base;
    while (dev->n_let_go != dev->n_kept) let_go_oldest(dev);
    if (dev->context != NULL) dev->kernels->close(dev->context);
    pthread_cond_destroy(&dev->changed);
    pthread_mutex_destroy(&dev->context_lock);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

static const device_impl host_impl;

status device_host_open(device **out, const device_opts *opts)
{
    status       st = ST_OK;
    host_device *dev = calloc(1, sizeof(*dev));
    if (dev == NULL) return err_set(ST_NO_MEMORY, "device: %zu bytes", sizeof(*dev));
    dev->base.impl = &host_impl;
    dev->base.kind = opts->kind;
    dev->base.limit_bytes = opts->limit_bytes;
    pthread_mutex_init(&dev->lock, NULL);
    pthread_mutex_init(&dev->context_lock, NULL);
    pthread_cond_init(&dev->changed, NULL);
    dev->kernels = opts->kind == DEVICE_PLAIN ? kernels_plain() : kernels_cpu(opts->isa);
    TRY(dev->kernels->open(&dev->context, opts->n_threads));
    static const char *const kinds[] = {"cpu", "strict", "plain"};
    snprintf(dev->base.name, sizeof(dev->base.name), "%s (%s)", kinds[opts->kind], dev->kernels->name);
    *out = &dev->base;
    return ST_OK;
fail:
    host_close(&dev->base);
    return st;
}

/* ---- memory */

static status host_alloc(device *base, size_t bytes, const char *what, void **out)
{
    host_device *dev = (host_device *)base;
    size_t total = bytes + DEVICE_ALIGNMENT + sizeof(block_header);
    if (total < bytes) return err_set(ST_NO_MEMORY, "%s: %zu bytes", what, bytes);
    pthread_mutex_lock(&dev->lock);
    const size_t used_bytes = dev->base.used_bytes;
    bool         refused = dev->base.limit_bytes != 0 && used_bytes + bytes > dev->base.limit_bytes;
    if (!refused) {
        dev->base.used_bytes += bytes;
        if (dev->base.used_bytes > dev->base.peak_bytes) dev->base.peak_bytes = dev->base.used_bytes;
    }
    pthread_mutex_unlock(&dev->lock);
    if (refused)
        return err_set(ST_NO_MEMORY, "%s: %zu bytes refused, %zu of at most %zu are in use", what, bytes, used_bytes,
                       dev->base.limit_bytes);
    unsigned char *raw = malloc(total);
    if (raw == NULL) {
        pthread_mutex_lock(&dev->lock);
        dev->base.used_bytes -= bytes;
        pthread_mutex_unlock(&dev->lock);
        return err_set(ST_NO_MEMORY, "%s: %zu bytes", what, bytes);
    }
    uintptr_t at = ((uintptr_t)raw + sizeof(block_header) + DEVICE_ALIGNMENT - 1) & ~(uintptr_t)(DEVICE_ALIGNMENT - 1);
    block_header header = {.bytes = bytes, .raw = raw};
    memcpy((void *)(at - sizeof(header)), &header, sizeof(header));
    if (dev->base.kind == DEVICE_STRICT) memset((void *)at, 0xff, bytes); /* NaN in F32 and BF16 alike */
    *out = (void *)at;
    return ST_OK;
}

/* The bytes no longer count; the memory itself is still there. */
static void give_up(host_device *dev, void *ptr)
{
    const size_t bytes = header_of(ptr).bytes;
    if (dev->base.kind == DEVICE_STRICT) memset(ptr, 0xff, bytes);
    pthread_mutex_lock(&dev->lock);
    dev->base.used_bytes -= bytes;
    pthread_mutex_unlock(&dev->lock);
}

static void host_free(device *dev, void *ptr)
{
    give_up((host_device *)dev, ptr);
    free(header_of(ptr).raw);
}

static void keep_returned(host_device *dev, void *ptr)
{
    give_up(dev, ptr);
    dev->kept_bytes += header_of(ptr).bytes;
    while (dev->n_kept != dev->n_let_go && (dev->n_kept - dev->n_let_go == KEPT_BLOCKS || dev->kept_bytes > KEPT_BYTES))
        let_go_oldest(dev);
    dev->kept[dev->n_kept++ % KEPT_BLOCKS] = ptr;
}

/* Lent memory is the host's own, or a copy that goes with its return. */
static status host_place(stream *s, const void *host, size_t bytes, void **out, bool *filled)
{
    (void)s, (void)host, (void)bytes;
    *out = NULL;
    *filled = false;
    return ST_OK;
}

static status host_filled(stream *s, const void *ptr)
{
    (void)s;
    return err_set(ST_DEVICE, "%p was filled, but it is no place of a weight", ptr);
}

static void host_forget(device *dev)
{
    (void)dev;
}

static void host_drop(device *dev, const void *host, size_t bytes)
{
    (void)dev, (void)host, (void)bytes;
}

static size_t host_memory_free(device *dev)
{
    (void)dev;
    return 0;
}

/* ---- streams */

static void fail_stream(host_stream *s, status st)
{
    if (s->failed != ST_OK) return;
    s->failed = st;
    snprintf(s->message, sizeof(s->message), "%s", err_text());
}

/* Does the oldest item. Called without the lock. */
static void run_item(host_stream *s, work_item *item)
{
    if (item->skip_after_failure && s->failed != ST_OK) return;
    status st = item->fn(s, item->args);
    if (st != ST_OK) fail_stream(s, st);
}

static void *worker_main(void *arg)
{
    host_stream *s = arg;
    host_device *dev = s->dev;
    pthread_mutex_lock(&dev->lock);
    for (;;) {
        while (s->done == s->put && !s->closing) pthread_cond_wait(&s->more, &dev->lock);
        if (s->done == s->put) break;
        work_item *item = &s->ring[s->done % RING_ITEMS];
        pthread_mutex_unlock(&dev->lock);
        run_item(s, item);
        pthread_mutex_lock(&dev->lock);
        s->done++;
        pthread_cond_signal(&s->fewer);
        pthread_cond_broadcast(&dev->changed);
    }
    pthread_mutex_unlock(&dev->lock);
    return NULL;
}

/* strict: the waiting caller does the work itself, as late as possible. */
static void run_one_late(host_stream *s)
{
    run_item(s, &s->ring[s->done % RING_ITEMS]);
    s->done++;
}

static status put(host_stream *s, work_fn fn, const void *args, size_t bytes, bool skip_after_failure)
{
    host_device *dev = s->dev;
    if (!s->has_worker && s->put - s->done == RING_ITEMS) run_one_late(s);
    pthread_mutex_lock(&dev->lock);
    while (s->put - s->done == RING_ITEMS) pthread_cond_wait(&s->fewer, &dev->lock);
    work_item *item = &s->ring[s->put % RING_ITEMS];
    item->fn = fn;
    item->skip_after_failure = skip_after_failure;
    if (bytes > 0) memcpy(item->args, args, bytes);
    s->put++;
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&dev->lock);
    return ST_OK;
}

static void release(host_stream *s)
{
    pthread_mutex_lock(&s->dev->lock);
    bool last = --s->n_users == 0;
    pthread_mutex_unlock(&s->dev->lock);
    if (last) free(s);
}

static void host_close_stream(stream *base)
{
    host_stream *s = (host_stream *)base;
    if (s->has_worker) {
        pthread_mutex_lock(&s->dev->lock);
        s->closing = true;
        pthread_cond_signal(&s->more);
        pthread_mutex_unlock(&s->dev->lock);
        pthread_join(s->worker, NULL);
    } else {
        while (s->done != s->put) run_one_late(s);
    }
    pthread_cond_destroy(&s->more);
    pthread_cond_destroy(&s->fewer);
    free(s->ring);
    release(s);
}

static status host_open_stream(stream **out, device *base)
{
    host_device *dev = (host_device *)base;
    host_stream *s = calloc(1, sizeof(*s));
    if (s == NULL) return err_set(ST_NO_MEMORY, "stream: %zu bytes", sizeof(*s));
    s->base.dev = base;
    s->dev = dev;
    s->n_users = 1;
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->fewer, NULL);
    s->ring = calloc(RING_ITEMS, sizeof(*s->ring));
    if (s->ring == NULL) {
        host_close_stream(&s->base);
        return err_set(ST_NO_MEMORY, "stream: %zu bytes", RING_ITEMS * sizeof(*s->ring));
    }
    if (dev->base.kind != DEVICE_STRICT) {
        int error = pthread_create(&s->worker, NULL, worker_main, s);
        if (error != 0) {
            host_close_stream(&s->base);
            return err_set(ST_NO_MEMORY, "stream: no thread: %s", strerror(error));
        }
        s->has_worker = true;
    }
    *out = &s->base;
    return ST_OK;
}

static status host_sync(stream *base)
{
    host_stream *s = (host_stream *)base;
    if (s->has_worker) {
        pthread_mutex_lock(&s->dev->lock);
        while (s->done != s->put) pthread_cond_wait(&s->fewer, &s->dev->lock);
        pthread_mutex_unlock(&s->dev->lock);
    } else {
        while (s->done != s->put) run_one_late(s);
    }
    status st = s->failed;
    s->failed = ST_OK;
    return st == ST_OK ? ST_OK : err_set(st, "%s", s->message);
}

/* ---- copies, lending, host calls */

typedef struct copy_work {
    void       *dst;
    const void *src;
    size_t      bytes;
} copy_work;

static status do_copy(host_stream *s, void *args)
{
    (void)s;
    copy_work *work = args;
    memmove(work->dst, work->src, work->bytes);
    return ST_OK;
}

static status host_copy(stream *s, void *dst, const void *src, size_t bytes)
{
    copy_work work = {.dst = dst, .src = src, .bytes = bytes};
    return put((host_stream *)s, do_copy, &work, sizeof(work), true);
}

static status host_lend(stream *s, const void *host, size_t bytes, const void **out)
{
    if (s->dev->kind != DEVICE_STRICT) {
        *out = host;
        return ST_OK;
    }
    void  *copy = NULL;
    status st = device_alloc(s->dev, bytes, "lent weights", &copy);
    if (st != ST_OK) return st;
    *out = copy;
    return host_copy(s, copy, host, bytes);
}

static status do_return(host_stream *s, void *args)
{
    copy_work *work = args;
    keep_returned(s->dev, work->dst);
    return ST_OK;
}

static status host_take_back(stream *s, const void *ptr)
{
    if (s->dev->kind != DEVICE_STRICT) return ST_OK;
    copy_work work = {.src = ptr};
    memcpy(&work.dst, &ptr, sizeof(ptr)); /* ours to spoil: it was allocated by stream_lend */
    return put((host_stream *)s, do_return, &work, sizeof(work), false);
}

typedef struct call_work {
    status (*fn)(void *args);
    _Alignas(16) unsigned char args[STREAM_CALL_BYTES];
} call_work;

static status do_call(host_stream *s, void *args)
{
    (void)s;
    call_work *work = args;
    return work->fn(work->args);
}

static status host_call(stream *s, status (*fn)(void *args), const void *args, size_t bytes)
{
    call_work work = {.fn = fn};
    if (bytes > 0) memcpy(work.args, args, bytes);
    return put((host_stream *)s, do_call, &work, sizeof(work), false);
}

/* ---- events */

static status host_open_event(event **out, device *dev)
{
    host_event *e = calloc(1, sizeof(*e));
    if (e == NULL) return err_set(ST_NO_MEMORY, "event: %zu bytes", sizeof(*e));
    e->base.dev = dev;
    *out = &e->base;
    return ST_OK;
}

static void host_close_event(event *base)
{
    host_event *e = (host_event *)base;
    if (e->on != NULL) release(e->on);
    free(e);
}

static status host_record(event *base, stream *on)
{
    host_event  *e = (host_event *)base;
    host_stream *s = (host_stream *)on, *before = e->on;
    pthread_mutex_lock(&s->dev->lock);
    s->n_users++;
    e->on = s;
    e->point = s->put;
    pthread_mutex_unlock(&s->dev->lock);
    if (before != NULL) release(before);
    return ST_OK;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static status do_wait(host_stream *s, void *args)
{
    const host_event *at = args;
    if (s->has_worker) {
        const double began = now_s();
        pthread_mutex_lock(&s->dev->lock);
        while (at->on->done < at->point) pthread_cond_wait(&s->dev->changed, &s->dev->lock);
        pthread_mutex_unlock(&s->dev->lock);
        s->waited_s += now_s() - began;
    } else {
        while (at->on->done < at->point) run_one_late(at->on);
    }
    release(at->on);
    return ST_OK;
}

static status host_wait(stream *base, event *until)
{
    host_stream *s = (host_stream *)base;
    host_event  *e = (host_event *)until;
    if (e->on == NULL || e->on == s) return ST_OK; /* its own work comes first anyway */
    pthread_mutex_lock(&s->dev->lock);
    host_event at = *e;
    at.on->n_users++;
    pthread_mutex_unlock(&s->dev->lock);
    return put(s, do_wait, &at, sizeof(at), false);
}

static double host_waited_s(const stream *s)
{
    return ((const host_stream *)s)->waited_s;
}

/* ---- operations */

#define DEFINE_OP(op)                                                                                                  \
    _Static_assert(sizeof(op##_args) <= STREAM_ARGS_BYTES, #op);                                                       \
    static status do_##op(host_stream *s, void *args)                                                                  \
    {                                                                                                                  \
        host_device *dev = s->dev;                                                                                     \
        const op##_args *a = args;                                                                                     \
        pthread_mutex_lock(&dev->context_lock);                                                                        \
        status st = dev->kernels->op(dev->context, a);                                                                 \
        DEVICE_COUNT(&dev->base, a);                                                                                   \
        pthread_mutex_unlock(&dev->context_lock);                                                                      \
        return st;                                                                                                     \
    }                                                                                                                  \
    static status host_##op(stream *s, const op##_args *args)                                                          \
    {                                                                                                                  \
        return put((host_stream *)s, do_##op, args, sizeof(*args), true);                                              \
    }

KERNEL_OPS(DEFINE_OP)

static const device_impl host_impl = {
    .close = host_close,
    .alloc = host_alloc,
    .free = host_free,
    .forget = host_forget,
    .drop = host_drop,
    .memory_free = host_memory_free,
    .open_stream = host_open_stream,
    .close_stream = host_close_stream,
    .lend = host_lend,
    .take_back = host_take_back,
    .place = host_place,
    .filled = host_filled,
    .copy_in = host_copy,
    .copy_out = host_copy,
    .copy = host_copy,
    .call = host_call,
    .sync = host_sync,
    .open_event = host_open_event,
    .close_event = host_close_event,
    .record = host_record,
    .wait = host_wait,
    .waited_s = host_waited_s,
#define HOST_OP(op) .op = host_##op,
    KERNEL_OPS(HOST_OP)
#undef HOST_OP
};
