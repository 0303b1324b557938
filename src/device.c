#include "device.h"

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

enum { RING_ITEMS = 512, ALIGNMENT = 64 };
/* strict: what was lent and returned stays for a while as NaN, so that late use of it reads NaN, not its successor. */
enum { KEPT_BLOCKS = 64, KEPT_BYTES = 64 << 20 };

typedef status (*work_fn)(stream *s, void *args);

typedef struct work_item {
    work_fn fn;
    bool    skip_after_failure;
    _Alignas(16) unsigned char args[STREAM_ARGS_BYTES];
} work_item;

struct device {
    device_kind         kind;
    const kernel_table *kernels;
    kernel_context     *context;
    pthread_mutex_t     context_lock; /* one kernel at a time */
    pthread_mutex_t     lock;
    pthread_cond_t      changed; /* an item of some stream was done */
    size_t              used_bytes, peak_bytes, limit_bytes;
    device_counts       counts;
    void               *kept[KEPT_BLOCKS]; /* strict: a ring of returned blocks */
    uint64_t            n_kept, n_let_go;
    size_t              kept_bytes;
    char                name[64];
};

struct stream {
    device        *dev;
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

struct event {
    stream  *on; /* NULL: never recorded */
    uint64_t point; /* reached when that many items of the stream are done */
};

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

static void let_go_oldest(device *dev)
{
    block_header header = header_of(dev->kept[dev->n_let_go++ % KEPT_BLOCKS]);
    dev->kept_bytes -= header.bytes;
    free(header.raw);
}

status device_open(device **out, const device_opts *opts)
{
    status  st = ST_OK;
    device *dev = calloc(1, sizeof(*dev));
    if (dev == NULL) return err_set(ST_NO_MEMORY, "device: %zu bytes", sizeof(*dev));
    dev->kind = opts->kind;
    dev->limit_bytes = opts->limit_bytes;
    pthread_mutex_init(&dev->lock, NULL);
    pthread_mutex_init(&dev->context_lock, NULL);
    pthread_cond_init(&dev->changed, NULL);
    dev->kernels = opts->kind == DEVICE_PLAIN ? kernels_plain() : kernels_cpu(opts->isa);
    TRY(dev->kernels->open(&dev->context, opts->n_threads));
    static const char *const kinds[] = {"cpu", "strict", "plain"};
    snprintf(dev->name, sizeof(dev->name), "%s (%s)", kinds[opts->kind], dev->kernels->name);
    *out = dev;
    return ST_OK;
fail:
    device_close(dev);
    return st;
}

void device_close(device *dev)
{
    if (dev == NULL) return;
    while (dev->n_let_go != dev->n_kept) let_go_oldest(dev);
    if (dev->context != NULL) dev->kernels->close(dev->context);
    pthread_cond_destroy(&dev->changed);
    pthread_mutex_destroy(&dev->context_lock);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

const char *device_name(const device *dev)
{
    return dev->name;
}

size_t device_peak_bytes(const device *dev)
{
    return dev->peak_bytes;
}

device_counts device_count(const device *dev)
{
    return dev->counts;
}

/* ---- memory */

status device_alloc(device *dev, size_t bytes, const char *what, void **out)
{
    size_t total = bytes + ALIGNMENT + sizeof(block_header);
    if (total < bytes) return err_set(ST_NO_MEMORY, "%s: %zu bytes", what, bytes);
    pthread_mutex_lock(&dev->lock);
    const size_t used_bytes = dev->used_bytes;
    bool         refused = dev->limit_bytes != 0 && used_bytes + bytes > dev->limit_bytes;
    if (!refused) {
        dev->used_bytes += bytes;
        if (dev->used_bytes > dev->peak_bytes) dev->peak_bytes = dev->used_bytes;
    }
    pthread_mutex_unlock(&dev->lock);
    if (refused)
        return err_set(ST_NO_MEMORY, "%s: %zu bytes refused, %zu of at most %zu are in use", what, bytes, used_bytes,
                       dev->limit_bytes);
    unsigned char *raw = malloc(total);
    if (raw == NULL) {
        pthread_mutex_lock(&dev->lock);
        dev->used_bytes -= bytes;
        pthread_mutex_unlock(&dev->lock);
        return err_set(ST_NO_MEMORY, "%s: %zu bytes", what, bytes);
    }
    uintptr_t at = ((uintptr_t)raw + sizeof(block_header) + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    block_header header = {.bytes = bytes, .raw = raw};
    memcpy((void *)(at - sizeof(header)), &header, sizeof(header));
    if (dev->kind == DEVICE_STRICT) memset((void *)at, 0xff, bytes); /* NaN in F32 and BF16 alike */
    *out = (void *)at;
    return ST_OK;
}

/* The bytes no longer count; the memory itself is still there. */
static void give_up(device *dev, void *ptr)
{
    const size_t bytes = header_of(ptr).bytes;
    if (dev->kind == DEVICE_STRICT) memset(ptr, 0xff, bytes);
    pthread_mutex_lock(&dev->lock);
    dev->used_bytes -= bytes;
    pthread_mutex_unlock(&dev->lock);
}

void device_free(device *dev, void *ptr)
{
    if (ptr == NULL) return;
    give_up(dev, ptr);
    free(header_of(ptr).raw);
}

static void keep_returned(device *dev, void *ptr)
{
    give_up(dev, ptr);
    dev->kept_bytes += header_of(ptr).bytes;
    while (dev->n_kept != dev->n_let_go && (dev->n_kept - dev->n_let_go == KEPT_BLOCKS || dev->kept_bytes > KEPT_BYTES))
        let_go_oldest(dev);
    dev->kept[dev->n_kept++ % KEPT_BLOCKS] = ptr;
}

/* ---- streams */

static void fail_stream(stream *s, status st)
{
    if (s->failed != ST_OK) return;
    s->failed = st;
    snprintf(s->message, sizeof(s->message), "%s", err_text());
}

/* Does the oldest item. Called without the lock. */
static void run_item(stream *s, work_item *item)
{
    if (item->skip_after_failure && s->failed != ST_OK) return;
    status st = item->fn(s, item->args);
    if (st != ST_OK) fail_stream(s, st);
}

static void *worker_main(void *arg)
{
    stream *s = arg;
    device *dev = s->dev;
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
static void run_one_late(stream *s)
{
    run_item(s, &s->ring[s->done % RING_ITEMS]);
    s->done++;
}

static status put(stream *s, work_fn fn, const void *args, size_t bytes, bool skip_after_failure)
{
    device *dev = s->dev;
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

status stream_open(stream **out, device *dev)
{
    stream *s = calloc(1, sizeof(*s));
    if (s == NULL) return err_set(ST_NO_MEMORY, "stream: %zu bytes", sizeof(*s));
    s->dev = dev;
    s->n_users = 1;
    pthread_cond_init(&s->more, NULL);
    pthread_cond_init(&s->fewer, NULL);
    s->ring = calloc(RING_ITEMS, sizeof(*s->ring));
    if (s->ring == NULL) {
        stream_close(s);
        return err_set(ST_NO_MEMORY, "stream: %zu bytes", RING_ITEMS * sizeof(*s->ring));
    }
    if (dev->kind != DEVICE_STRICT) {
        int error = pthread_create(&s->worker, NULL, worker_main, s);
        if (error != 0) {
            stream_close(s);
            return err_set(ST_NO_MEMORY, "stream: no thread: %s", strerror(error));
        }
        s->has_worker = true;
    }
    *out = s;
    return ST_OK;
}

static void release(stream *s)
{
    pthread_mutex_lock(&s->dev->lock);
    bool last = --s->n_users == 0;
    pthread_mutex_unlock(&s->dev->lock);
    if (last) free(s);
}

void stream_close(stream *s)
{
    if (s == NULL) return;
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

status stream_sync(stream *s)
{
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

status stream_settle(stream *s, status st)
{
    if (st == ST_OK) return stream_sync(s);
    char cause[sizeof(s->message)];
    snprintf(cause, sizeof(cause), "%s", err_text());
    (void)stream_sync(s); /* what fails now follows from the cause */
    return err_set(st, "%s", cause);
}

/* ---- copies, lending, host calls */

typedef struct copy_work {
    void       *dst;
    const void *src;
    size_t      bytes;
} copy_work;

static status do_copy(stream *s, void *args)
{
    (void)s;
    copy_work *work = args;
    memmove(work->dst, work->src, work->bytes);
    return ST_OK;
}

status stream_copy(stream *s, void *dst, const void *src, size_t bytes)
{
    copy_work work = {.dst = dst, .src = src, .bytes = bytes};
    return bytes == 0 ? ST_OK : put(s, do_copy, &work, sizeof(work), true);
}

status stream_copy_in(stream *s, void *dst, const void *host, size_t bytes)
{
    return stream_copy(s, dst, host, bytes);
}

status stream_copy_out(stream *s, void *host, const void *src, size_t bytes)
{
    return stream_copy(s, host, src, bytes);
}

status stream_lend(stream *s, const void *host, size_t bytes, const void **out)
{
    if (s->dev->kind != DEVICE_STRICT || host == NULL) {
        *out = host;
        return ST_OK;
    }
    void  *copy = NULL;
    status st = device_alloc(s->dev, bytes, "lent weights", &copy);
    if (st != ST_OK) return st;
    *out = copy;
    return stream_copy_in(s, copy, host, bytes);
}

static status do_return(stream *s, void *args)
{
    copy_work *work = args;
    keep_returned(s->dev, work->dst);
    return ST_OK;
}

status stream_return(stream *s, const void *ptr)
{
    if (s->dev->kind != DEVICE_STRICT || ptr == NULL) return ST_OK;
    copy_work work = {.src = ptr};
    memcpy(&work.dst, &ptr, sizeof(ptr)); /* ours to spoil: it was allocated by stream_lend */
    return put(s, do_return, &work, sizeof(work), false);
}

typedef struct call_work {
    status (*fn)(void *args);
    _Alignas(16) unsigned char args[STREAM_CALL_BYTES];
} call_work;

static status do_call(stream *s, void *args)
{
    (void)s;
    call_work *work = args;
    return work->fn(work->args);
}

status stream_call(stream *s, status (*fn)(void *args), const void *args, size_t bytes)
{
    call_work work = {.fn = fn};
    if (bytes > sizeof(work.args))
        return err_set(ST_USAGE, "stream_call: %zu bytes of arguments, at most %zu", bytes, sizeof(work.args));
    if (bytes > 0) memcpy(work.args, args, bytes);
    return put(s, do_call, &work, sizeof(work), false);
}

/* ---- events */

status event_open(event **out, device *dev)
{
    (void)dev;
    event *e = calloc(1, sizeof(*e));
    if (e == NULL) return err_set(ST_NO_MEMORY, "event: %zu bytes", sizeof(*e));
    *out = e;
    return ST_OK;
}

void event_close(event *e)
{
    if (e == NULL) return;
    if (e->on != NULL) release(e->on);
    free(e);
}

status event_record(event *e, stream *s)
{
    stream *before = e->on;
    pthread_mutex_lock(&s->dev->lock);
    s->n_users++;
    *e = (event){.on = s, .point = s->put};
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

static status do_wait(stream *s, void *args)
{
    const event *at = args;
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

status stream_wait(stream *s, event *e)
{
    if (e->on == NULL || e->on == s) return ST_OK; /* its own work comes first anyway */
    pthread_mutex_lock(&s->dev->lock);
    event at = *e;
    at.on->n_users++;
    pthread_mutex_unlock(&s->dev->lock);
    return put(s, do_wait, &at, sizeof(at), false);
}

double stream_waited_s(const stream *s)
{
    return s->waited_s;
}

/* ---- operations */

static double linear_flops(const linear_args *a)
{
    return 2.0 * a->n_rows * a->n_in * a->n_out;
}

static double attention_flops(const attention_args *a)
{
    return 4.0 * a->n_q * a->n_kv * a->n_heads * a->head_dim;
}

static double conv_flops(const conv_args *a)
{
    return 2.0 * a->height * a->width * a->c_in * a->c_out * a->kernel * a->kernel;
}

#define FLOPS_OF(op, args) \
    _Generic((args), const linear_args *: linear_flops, const attention_args *: attention_flops, \
             const conv_args *: conv_flops, default: no_flops)(args)

static double no_flops(const void *args)
{
    (void)args;
    return 0;
}

#define DEFINE_OP(op)                                                                                                  \
    _Static_assert(sizeof(op##_args) <= STREAM_ARGS_BYTES, #op);                                                       \
    static status do_##op(stream *s, void *args)                                                                       \
    {                                                                                                                  \
        device *dev = s->dev;                                                                                          \
        const op##_args *a = args;                                                                                     \
        pthread_mutex_lock(&dev->context_lock);                                                                        \
        status st = dev->kernels->op(dev->context, a);                                                                 \
        dev->counts.n_calls++;                                                                                         \
        dev->counts.flops += FLOPS_OF(op, a);                                                                          \
        pthread_mutex_unlock(&dev->context_lock);                                                                      \
        return st;                                                                                                     \
    }                                                                                                                  \
    status stream_##op(stream *s, const op##_args *args)                                                               \
    {                                                                                                                  \
        return put(s, do_##op, args, sizeof(*args), true);                                                             \
    }

KERNEL_OPS(DEFINE_OP)
