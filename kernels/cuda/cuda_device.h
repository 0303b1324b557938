/* The inside of the CUDA device: for kernels/cuda and for what puts work of its own on its streams (comm over NCCL).
 *
 * Work put on stream_native(s) takes its place in the order of s. Before: cuda_use(dev), since the current GPU is a
 * property of the calling thread. A host call (stream_call) runs on a thread of the CUDA driver: it must not call CUDA
 * and should not wait for other ranks, since calls of all streams may share that thread. */
#ifndef DYPE_CUDA_DEVICE_H
#define DYPE_CUDA_DEVICE_H

#include <pthread.h>

#include "cuda.h"
#include "device_impl.h"

enum {
    STAGE_BYTES = 4 << 20, /* of one pinned stage: enough for a link's full speed, little beside a weight */
    CALL_SLOTS = 256,      /* host calls of a stream that wait at once */
    WAIT_SPANS = 256       /* waits for events that are timed between two syncs */
};

typedef struct weight_cache weight_cache; /* cuda_weights.c */

typedef struct cuda_device {
    device          base;
    int             ordinal, n_multiprocessors, most_shared_bytes; /* of a block */
    cuda_products  *products;
    weight_cache   *weights;
    pthread_mutex_t lock; /* of counts, bytes and allocations */
    struct allocation *allocations; /* what device_alloc gave: cudaFree does not tell sizes */
    _Atomic uint64_t n_changes; /* of our memory on the GPU */
} cuda_device;

typedef struct cuda_stream cuda_stream;

typedef struct call_slot {
    cuda_stream *s;
    status (*fn)(void *args);
    _Alignas(16) unsigned char args[STREAM_ARGS_BYTES];
} call_slot;

struct cuda_stream {
    stream          base;
    cuda_queue      queue;
    pthread_mutex_t lock; /* of what follows, which driver threads change too */
    call_slot      *slots; /* a ring */
    uint64_t        n_put, n_done;                  /* put: by the caller alone */
    status          failed;
    char            message[1024];
    void           *stage_in, *stage_out;           /* pinned, STAGE_BYTES each */
    cudaEvent_t     span[WAIT_SPANS][2];            /* before and after a wait */
    uint64_t        n_spans, n_spans_added;
    double          waited_s;
};

typedef struct cuda_event {
    event       base;
    cudaEvent_t native;
} cuda_event;

static inline cuda_device *cuda_of(device *dev)
{
    return (cuda_device *)dev;
}

/* Makes the device the calling thread's current one. */
status cuda_use(device *dev);

/* NULL for a stream or an event of another kind of device. */
cudaStream_t stream_native(stream *s);
cudaEvent_t  event_native(event *e);

/* Marks s as failed, with this thread's err_text; the first failure stays. */
void stream_fail(stream *s, status st);

/* cuda_device.c: memory of the GPU. When there is no room, weights of `evict` go; NULL: none. */
status cuda_memory_take(cuda_device *dev, weight_cache *evict, size_t bytes, const char *what, void **out);
void   cuda_memory_give(cuda_device *dev, void *ptr, size_t bytes);

/* cuda_weights.c: weights on the card (D5). */
status weight_cache_open(weight_cache **out, cuda_device *dev);
void   weight_cache_close(weight_cache *c); /* accepts NULL; no stream of the device is left */
status weight_cache_lend(weight_cache *c, cuda_stream *s, const void *host, size_t bytes, const void **out);
status weight_cache_return(weight_cache *c, cuda_stream *s, const void *ptr);
/* A resident place for others to fill; weight_cache_filled, in the order of s, says that it is. *out NULL: no room. */
status weight_cache_place(weight_cache *c, const void *host, size_t bytes, void **out, bool *filled);
status weight_cache_filled(weight_cache *c, cuda_stream *s, const void *ptr);
/* Frees weights that nobody has borrowed, the longest unused first, until `bytes` are free. Whether any was. */
bool weight_cache_evict(weight_cache *c, size_t bytes);
void weight_cache_forget(weight_cache *c);
void weight_cache_drop(weight_cache *c, const void *host, size_t bytes);

/* cuda_stream.c */
status cuda_stream_open(stream **out, device *dev);
void   cuda_stream_close(stream *s);
status cuda_stream_copy_in(stream *s, void *dst, const void *host, size_t bytes);
status cuda_stream_copy_out(stream *s, void *host, const void *src, size_t bytes);
status cuda_stream_copy(stream *s, void *dst, const void *src, size_t bytes);
status cuda_stream_call(stream *s, status (*fn)(void *args), const void *args, size_t bytes);
status cuda_stream_sync(stream *s);
status cuda_event_open(event **out, device *dev);
void   cuda_event_close(event *e);
status cuda_event_record(event *e, stream *s);
status cuda_stream_wait(stream *s, event *e);
double cuda_stream_waited_s(const stream *s);

#endif
