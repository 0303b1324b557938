/* Streams and events of the CUDA device.
 *
 * 1. Everything is handed to CUDA at once and in the order of the calls; CUDA keeps the order of a stream.
 * 2. Host memory is ordinary memory. A copy goes piece by piece through a pinned stage of the stream: a host call fills
 *    (or empties) it, in stream order, so one stage for each direction is enough and the caller never waits.
 * 3. A failure marks the stream. Operations put after that are left out, host calls are not: where CUDA itself refuses
 *    one, it is made at once. Operations that were put before a failing host call has run are done all the same.
 * 4. `lock` guards what driver threads change: failure, message, slots. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_device.h"

cudaStream_t stream_native(stream *s)
{
    return s->dev->kind == DEVICE_CUDA ? ((cuda_stream *)s)->queue.stream : NULL;
}

cudaEvent_t event_native(event *e)
{
    return e->dev->kind == DEVICE_CUDA ? ((cuda_event *)e)->native : NULL;
}

void stream_fail(stream *base, status st)
{
    cuda_stream *s = (cuda_stream *)base;
    pthread_mutex_lock(&s->lock);
    if (s->failed == ST_OK) {
        s->failed = st;
        snprintf(s->message, sizeof(s->message), "%s", err_text());
    }
    pthread_mutex_unlock(&s->lock);
}

static bool has_failed(cuda_stream *s)
{
    pthread_mutex_lock(&s->lock);
    const bool failed = s->failed != ST_OK;
    pthread_mutex_unlock(&s->lock);
    return failed;
}

/* ST_OK: a failure is told by the next sync. */
static status put_result(cuda_stream *s, cudaError_t error, const char *what)
{
    status st = cuda_status(error, what);
    if (st != ST_OK) stream_fail(&s->base, st);
    return ST_OK;
}

status cuda_scratch(cuda_queue *q, size_t bytes, void **out)
{
    status st = ST_OK;
    if (bytes > q->scratch_bytes) {
        TRY(cuda_status(cudaStreamSynchronize(q->stream), "scratch memory"));
        TRY(cuda_status(cudaFree(q->scratch), "scratch memory"));
        q->scratch = NULL;
        q->scratch_bytes = 0;
        TRY(cuda_status(cudaMalloc(&q->scratch, bytes), "scratch memory"));
        q->scratch_bytes = bytes;
    }
    *out = q->scratch;
fail:
    return st;
}

status cuda_stream_open(stream **out, device *dev)
{
    status       st = ST_OK;
    cuda_stream *s = calloc(1, sizeof(*s));
    if (s == NULL) return err_set(ST_NO_MEMORY, "stream: %zu bytes", sizeof(*s));
    s->base.dev = dev;
    s->queue = (cuda_queue){.products = cuda_of(dev)->products, .ordinal = cuda_of(dev)->ordinal,
                            .n_multiprocessors = cuda_of(dev)->n_multiprocessors,
                            .most_shared_bytes = cuda_of(dev)->most_shared_bytes};
    pthread_mutex_init(&s->lock, NULL);
    s->slots = calloc(CALL_SLOTS, sizeof(*s->slots));
    if (s->slots == NULL) {
        st = err_set(ST_NO_MEMORY, "stream: %zu bytes", CALL_SLOTS * sizeof(*s->slots));
        goto fail;
    }
    TRY(cuda_use(dev));
    TRY(cuda_status(cudaStreamCreateWithFlags(&s->queue.stream, cudaStreamNonBlocking), "stream"));
    TRY(cuda_status(cudaMallocHost(&s->stage_in, STAGE_BYTES), "pinned memory of a stream"));
    TRY(cuda_status(cudaMallocHost(&s->stage_out, STAGE_BYTES), "pinned memory of a stream"));
    *out = &s->base;
    return ST_OK;
fail:
    cuda_stream_close(&s->base);
    return st;
}

void cuda_stream_close(stream *base)
{
    cuda_stream *s = (cuda_stream *)base;
    if (cuda_use(base->dev) == ST_OK) {
        if (s->queue.stream != NULL) (void)cudaStreamSynchronize(s->queue.stream);
        for (int i = 0; i < WAIT_SPANS; i++)
            for (int j = 0; j < 2; j++)
                if (s->span[i][j] != NULL) (void)cudaEventDestroy(s->span[i][j]);
        (void)cudaFree(s->queue.scratch);
        (void)cudaFreeHost(s->stage_in);
        (void)cudaFreeHost(s->stage_out);
        if (s->queue.stream != NULL) (void)cudaStreamDestroy(s->queue.stream);
    }
    pthread_mutex_destroy(&s->lock);
    free(s->slots);
    free(s);
}

/* ---- host calls */

static void CUDART_CB run_slot(void *at)
{
    call_slot   *slot = at;
    cuda_stream *s = slot->s;
    status       st = slot->fn(slot->args);
    if (st != ST_OK) stream_fail(&s->base, st);
    pthread_mutex_lock(&s->lock);
    s->n_done++;
    pthread_mutex_unlock(&s->lock);
}

status cuda_stream_call(stream *base, status (*fn)(void *args), const void *args, size_t bytes)
{
    cuda_stream *s = (cuda_stream *)base;
    (void)cuda_use(base->dev);
    pthread_mutex_lock(&s->lock);
    const bool full = s->n_put - s->n_done == CALL_SLOTS;
    pthread_mutex_unlock(&s->lock);
    if (full) put_result(s, cudaStreamSynchronize(s->queue.stream), "host call"); /* so far ahead, this costs little */
    call_slot *slot = &s->slots[s->n_put++ % CALL_SLOTS];
    slot->s = s;
    slot->fn = fn;
    if (bytes > 0) memcpy(slot->args, args, bytes);
    cudaError_t error = cudaLaunchHostFunc(s->queue.stream, run_slot, slot);
    if (error == cudaSuccess) return ST_OK;
    put_result(s, error, "host call");
    run_slot(slot); /* order means nothing any more, but another rank may wait for what the call sends */
    return ST_OK;
}

/* ---- copies */

typedef struct stage_work {
    void       *dst;
    const void *src;
    size_t      bytes;
} stage_work;

static status move_stage(void *args)
{
    const stage_work *work = args;
    memcpy(work->dst, work->src, work->bytes);
    return ST_OK;
}

status cuda_stream_copy_in(stream *base, void *dst, const void *host, size_t bytes)
{
    cuda_stream *s = (cuda_stream *)base;
    status       st = cuda_use(base->dev);
    for (size_t at = 0, n; st == ST_OK && at < bytes && !has_failed(s); at += n) {
        n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        stage_work work = {.dst = s->stage_in, .src = (const char *)host + at, .bytes = n};
        st = cuda_stream_call(base, move_stage, &work, sizeof(work));
        put_result(s, cudaMemcpyAsync((char *)dst + at, s->stage_in, n, cudaMemcpyHostToDevice, s->queue.stream),
                   "copy to the GPU");
    }
    return st;
}

status cuda_stream_copy_out(stream *base, void *host, const void *src, size_t bytes)
{
    cuda_stream *s = (cuda_stream *)base;
    status       st = cuda_use(base->dev);
    for (size_t at = 0, n; st == ST_OK && at < bytes && !has_failed(s); at += n) {
        n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        stage_work work = {.dst = (char *)host + at, .src = s->stage_out, .bytes = n};
        put_result(s, cudaMemcpyAsync(s->stage_out, (const char *)src + at, n, cudaMemcpyDeviceToHost, s->queue.stream),
                   "copy from the GPU");
        st = cuda_stream_call(base, move_stage, &work, sizeof(work));
    }
    return st;
}

status cuda_stream_copy(stream *base, void *dst, const void *src, size_t bytes)
{
    cuda_stream *s = (cuda_stream *)base;
    status       st = cuda_use(base->dev);
    if (st != ST_OK || has_failed(s)) return st;
    return put_result(s, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, s->queue.stream), "copy on the GPU");
}

/* ---- waiting */

/* Adds the time of the waits that are over; all of them after a sync. */
static void add_spans(cuda_stream *s)
{
    for (; s->n_spans_added < s->n_spans; s->n_spans_added++) {
        const cudaEvent_t *span = s->span[s->n_spans_added % WAIT_SPANS];
        float              ms = 0;
        if (cudaEventElapsedTime(&ms, span[0], span[1]) == cudaSuccess) s->waited_s += 1e-3 * (double)ms;
        else (void)cudaGetLastError();
    }
}

status cuda_stream_sync(stream *base)
{
    cuda_stream *s = (cuda_stream *)base;
    status       st = cuda_use(base->dev);
    if (st != ST_OK) return st;
    put_result(s, cudaStreamSynchronize(s->queue.stream), "work on the GPU");
    add_spans(s);
    pthread_mutex_lock(&s->lock);
    st = s->failed;
    s->failed = ST_OK;
    pthread_mutex_unlock(&s->lock);
    return st == ST_OK ? ST_OK : err_set(st, "%s", s->message);
}

double cuda_stream_waited_s(const stream *s)
{
    return ((const cuda_stream *)s)->waited_s;
}

status cuda_event_open(event **out, device *dev)
{
    status      st = ST_OK;
    cuda_event *e = calloc(1, sizeof(*e));
    if (e == NULL) return err_set(ST_NO_MEMORY, "event: %zu bytes", sizeof(*e));
    e->base.dev = dev;
    TRY(cuda_use(dev));
    TRY(cuda_status(cudaEventCreateWithFlags(&e->native, cudaEventDisableTiming), "event"));
    *out = &e->base;
    return ST_OK;
fail:
    free(e);
    return st;
}

void cuda_event_close(event *base)
{
    if (cuda_use(base->dev) == ST_OK) (void)cudaEventDestroy(((cuda_event *)base)->native);
    free(base);
}

status cuda_event_record(event *base, stream *on)
{
    cuda_stream *s = (cuda_stream *)on;
    status       st = cuda_use(on->dev);
    return st != ST_OK ? st : put_result(s, cudaEventRecord(((cuda_event *)base)->native, s->queue.stream), "event");
}

/* Timed, unless more waits are under way than there are spans. */
status cuda_stream_wait(stream *base, event *until)
{
    status       st = ST_OK;
    cuda_stream *s = (cuda_stream *)base;
    cuda_event  *e = (cuda_event *)until;
    TRY(cuda_use(base->dev));
    const bool   timed = s->n_spans - s->n_spans_added < WAIT_SPANS;
    cudaEvent_t *span = s->span[s->n_spans % WAIT_SPANS];
    for (int i = 0; timed && i < 2; i++)
        if (span[i] == NULL) TRY(cuda_status(cudaEventCreate(&span[i]), "event"));
    if (timed) put_result(s, cudaEventRecord(span[0], s->queue.stream), "event");
    put_result(s, cudaStreamWaitEvent(s->queue.stream, e->native, 0), "waiting for an event");
    if (timed) {
        put_result(s, cudaEventRecord(span[1], s->queue.stream), "event");
        s->n_spans++;
    }
fail:
    return st;
}
