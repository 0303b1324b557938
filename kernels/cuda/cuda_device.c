/* The CUDA device: one GPU of this process, its memory and its operations. */
#include "cuda_device.h"

#include <stdio.h>
#include <stdlib.h>

enum { MIN_CAPABILITY = 8 }; /* mma.sync of bf16, cp.async */

status cuda_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return ST_OK;
    (void)cudaGetLastError(); /* told here; the next call starts clean, unless the context is lost */
    return err_set(error == cudaErrorMemoryAllocation ? ST_NO_MEMORY : ST_DEVICE, "%s: CUDA error %d (%s): %s", what,
                   (int)error, cudaGetErrorName(error), cudaGetErrorString(error));
}

status cuda_use(device *dev)
{
    return cuda_status(cudaSetDevice(cuda_of(dev)->ordinal), "choosing the GPU");
}

status device_gpu_count(int *out)
{
    int         n = 0, n_good = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) return cuda_status(error, "no GPU");
    if (n == 0) return err_set(ST_DEVICE, "no GPU: CUDA sees none (CUDA_VISIBLE_DEVICES?)");
    int major = 0, minor = 0;
    for (int i = 0; i < n; i++) {
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i);
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i);
        if (error != cudaSuccess) return cuda_status(error, "GPU attributes");
        if (major < MIN_CAPABILITY) break; /* GPUs are numbered fastest first: those after it are no use either */
        n_good++;
    }
    if (n_good == 0)
        return err_set(ST_DEVICE, "no GPU: compute capability %d.%d, want %d.0 or later", major, minor, MIN_CAPABILITY);
    *out = n_good;
    return ST_OK;
}

status device_gpu_id(int ordinal, char out[DEVICE_GPU_ID])
{
    return cuda_status(cudaDeviceGetPCIBusId(out, DEVICE_GPU_ID, ordinal), "PCI bus id of the GPU");
}

/* ---- memory */

static void count_bytes(cuda_device *dev, size_t bytes, bool taken)
{
    pthread_mutex_lock(&dev->lock);
    if (taken) dev->base.used_bytes += bytes;
    else dev->base.used_bytes -= bytes;
    dev->n_changes++;
    if (dev->base.used_bytes > dev->base.peak_bytes) dev->base.peak_bytes = dev->base.used_bytes;
    pthread_mutex_unlock(&dev->lock);
}

static bool over_limit(cuda_device *dev, size_t bytes)
{
    pthread_mutex_lock(&dev->lock);
    const size_t limit = dev->base.limit_bytes, used = dev->base.used_bytes;
    const bool over = limit != 0 && (used > limit || bytes > limit - used);
    pthread_mutex_unlock(&dev->lock);
    return over;
}

status cuda_memory_take(cuda_device *dev, weight_cache *evict, size_t bytes, const char *what, void **out)
{
    void *ptr = NULL;
    while (over_limit(dev, bytes))
        if (!weight_cache_evict(evict, bytes))
            return err_set(ST_NO_MEMORY, "%s: %zu bytes refused, %zu of at most %zu are in use", what, bytes,
                           dev->base.used_bytes, dev->base.limit_bytes);
    cudaError_t error = cudaMalloc(&ptr, bytes > 0 ? bytes : 1);
    while (error == cudaErrorMemoryAllocation && weight_cache_evict(evict, bytes)) {
        (void)cudaGetLastError();
        error = cudaMalloc(&ptr, bytes);
    }
    if (error == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total);
        return err_set(ST_NO_MEMORY, "%s: %zu bytes; %zu of the GPU's %zu are free", what, bytes, free_bytes, total);
    }
    if (error != cudaSuccess) return cuda_status(error, what);
    count_bytes(dev, bytes, true);
    *out = ptr;
    return ST_OK;
}

void cuda_memory_give(cuda_device *dev, void *ptr, size_t bytes)
{
    (void)cudaFree(ptr); /* after an error of the context there is nothing left to free */
    count_bytes(dev, bytes, false);
}

typedef struct allocation {
    struct allocation *next;
    void              *ptr;
    size_t             bytes;
} allocation;

static status cuda_alloc(device *base, size_t bytes, const char *what, void **out)
{
    status       st = ST_OK;
    cuda_device *dev = cuda_of(base);
    void         *ptr = NULL;
    allocation   *a = malloc(sizeof(*a));
    if (a == NULL) return err_set(ST_NO_MEMORY, "%s: %zu bytes", what, sizeof(*a));
    TRY(cuda_use(base));
    TRY(cuda_memory_take(dev, dev->weights, bytes, what, &ptr));
    pthread_mutex_lock(&dev->lock);
    *a = (allocation){.next = dev->allocations, .ptr = ptr, .bytes = bytes};
    dev->allocations = a;
    pthread_mutex_unlock(&dev->lock);
    *out = ptr;
    return ST_OK;
fail:
    free(a);
    return st;
}

static void cuda_free(device *base, void *ptr)
{
    cuda_device *dev = cuda_of(base);
    if (cuda_use(base) != ST_OK) return;
    pthread_mutex_lock(&dev->lock);
    allocation **at = &dev->allocations;
    while (*at != NULL && (*at)->ptr != ptr) at = &(*at)->next;
    allocation *found = *at;
    if (found != NULL) *at = found->next;
    pthread_mutex_unlock(&dev->lock);
    if (found == NULL) return;
    cuda_memory_give(dev, ptr, found->bytes);
    free(found);
}

/* ---- operations */

/* A failed launch marks the stream, as a failure on the GPU does, so that the host calls of the stream go on. */
#define DEFINE_OP(op)                                                                                                  \
    static status cuda_put_##op(stream *base, const op##_args *args)                                                   \
    {                                                                                                                  \
        cuda_stream *s = (cuda_stream *)base;                                                                          \
        cuda_device *dev = cuda_of(base->dev);                                                                         \
        pthread_mutex_lock(&s->lock);                                                                                  \
        const bool failed = s->failed != ST_OK;                                                                        \
        pthread_mutex_unlock(&s->lock);                                                                                \
        if (failed) return ST_OK;                                                                                      \
        status st = cuda_use(base->dev);                                                                               \
        if (st == ST_OK) st = op##_cuda(&s->queue, args);                                                              \
        if (st != ST_OK) stream_fail(base, st);                                                                        \
        pthread_mutex_lock(&dev->lock);                                                                                \
        DEVICE_COUNT(&dev->base, args);                                                                                \
        pthread_mutex_unlock(&dev->lock);                                                                              \
        return ST_OK;                                                                                                  \
    }

KERNEL_OPS(DEFINE_OP)

static status cuda_lend(stream *s, const void *host, size_t bytes, const void **out)
{
    status st = cuda_use(s->dev);
    return st != ST_OK ? st : weight_cache_lend(cuda_of(s->dev)->weights, (cuda_stream *)s, host, bytes, out);
}

static status cuda_take_back(stream *s, const void *ptr)
{
    status st = cuda_use(s->dev);
    return st != ST_OK ? st : weight_cache_return(cuda_of(s->dev)->weights, (cuda_stream *)s, ptr);
}

static status cuda_place(stream *s, const void *host, size_t bytes, void **out, bool *filled)
{
    status st = cuda_use(s->dev);
    return st != ST_OK ? st : weight_cache_place(cuda_of(s->dev)->weights, host, bytes, out, filled);
}

static status cuda_filled(stream *s, const void *ptr)
{
    status st = cuda_use(s->dev);
    return st != ST_OK ? st : weight_cache_filled(cuda_of(s->dev)->weights, (cuda_stream *)s, ptr);
}

static void cuda_forget(device *dev)
{
    if (cuda_use(dev) == ST_OK) weight_cache_forget(cuda_of(dev)->weights);
}

static void cuda_drop(device *dev, const void *host, size_t bytes)
{
    if (cuda_use(dev) == ST_OK) weight_cache_drop(cuda_of(dev)->weights, host, bytes);
}

static size_t cuda_memory_free(device *dev)
{
    size_t free_bytes = 0, total = 0;
    if (cuda_use(dev) != ST_OK || cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) return 0;
    return free_bytes;
}

static void cuda_close(device *base)
{
    cuda_device *dev = cuda_of(base);
    if (dev->products != NULL && cuda_use(base) == ST_OK) {
        weight_cache_close(dev->weights);
        cuda_products_close(dev->products);
    }
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

static const device_impl cuda_impl = {
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .forget = cuda_forget,
    .drop = cuda_drop,
    .memory_free = cuda_memory_free,
    .open_stream = cuda_stream_open,
    .close_stream = cuda_stream_close,
    .lend = cuda_lend,
    .take_back = cuda_take_back,
    .place = cuda_place,
    .filled = cuda_filled,
    .copy_in = cuda_stream_copy_in,
    .copy_out = cuda_stream_copy_out,
    .copy = cuda_stream_copy,
    .call = cuda_stream_call,
    .sync = cuda_stream_sync,
    .open_event = cuda_event_open,
    .close_event = cuda_event_close,
    .record = cuda_event_record,
    .wait = cuda_stream_wait,
    .waited_s = cuda_stream_waited_s,
#define CUDA_IMPL_OP(op) .op = cuda_put_##op,
    KERNEL_OPS(CUDA_IMPL_OP)
#undef CUDA_IMPL_OP
};

/* "cuda (NVIDIA H100 80GB HBM3, 9.0)": the kind of GPU is part of a picture's recipe. */
static status name_device(cuda_device *dev)
{
    status                st = ST_OK;
    struct cudaDeviceProp properties;
    TRY(cuda_status(cudaGetDeviceProperties(&properties, dev->ordinal), "GPU properties"));
    dev->n_multiprocessors = properties.multiProcessorCount;
    dev->most_shared_bytes = (int)properties.sharedMemPerBlockOptin;
    snprintf(dev->base.name, sizeof(dev->base.name), "cuda (%.80s, %d.%d)", properties.name, properties.major,
             properties.minor);
fail:
    return st;
}

status device_cuda_open(device **out, const device_opts *opts)
{
    status       st = ST_OK;
    int          n_gpus = 0;
    cuda_device *dev = calloc(1, sizeof(*dev));
    if (dev == NULL) return err_set(ST_NO_MEMORY, "device: %zu bytes", sizeof(*dev));
    dev->base = (device){.impl = &cuda_impl, .kind = DEVICE_CUDA, .limit_bytes = opts->limit_bytes};
    dev->ordinal = opts->ordinal;
    pthread_mutex_init(&dev->lock, NULL);
    TRY(device_gpu_count(&n_gpus));
    if (opts->ordinal < 0 || opts->ordinal >= n_gpus) {
        st = err_set(ST_DEVICE, "GPU %d wanted, but this process sees %d", opts->ordinal, n_gpus);
        goto fail;
    }
    TRY(cuda_use(&dev->base));
    TRY(name_device(dev));
    TRY(cuda_products_open(&dev->products));
    TRY(weight_cache_open(&dev->weights, dev));
    *out = &dev->base;
    return ST_OK;
fail:
    cuda_close(&dev->base);
    return st;
}
