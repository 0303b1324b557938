/* The door itself: what is the same for every kind of device, and the way to the rest. */
#include "device.h"

#include <stdio.h>

#include "device_impl.h"

status device_open(device **out, const device_opts *opts)
{
    if (opts->kind != DEVICE_CUDA) return device_host_open(out, opts);
#ifdef WITH_CUDA
    return device_cuda_open(out, opts);
#else
    return err_set(ST_DEVICE, "this build has no CUDA backend (WITH_CUDA=OFF)");
#endif
}

#ifndef WITH_CUDA
status device_gpu_count(int *out)
{
    (void)out;
    return err_set(ST_DEVICE, "this build has no CUDA backend (WITH_CUDA=OFF)");
}

status device_gpu_id(int ordinal, char out[DEVICE_GPU_ID])
{
    (void)ordinal, (void)out;
    return err_set(ST_DEVICE, "this build has no CUDA backend (WITH_CUDA=OFF)");
}
#endif

void device_close(device *dev)
{
    if (dev != NULL) dev->impl->close(dev);
}

device_kind device_kind_of(const device *dev)
{
    return dev->kind;
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

status device_alloc(device *dev, size_t bytes, const char *what, void **out)
{
    return dev->impl->alloc(dev, bytes, what, out);
}

void device_free(device *dev, void *ptr)
{
    if (ptr != NULL) dev->impl->free(dev, ptr);
}

size_t device_memory_free(device *dev)
{
    return dev->impl->memory_free(dev);
}

void device_forget(device *dev)
{
    dev->impl->forget(dev);
}

void device_drop(device *dev, const void *host, size_t bytes)
{
    if (host != NULL) dev->impl->drop(dev, host, bytes);
}

status stream_open(stream **out, device *dev)
{
    return dev->impl->open_stream(out, dev);
}

void stream_close(stream *s)
{
    if (s != NULL) s->dev->impl->close_stream(s);
}

status stream_lend(stream *s, const void *host, size_t bytes, const void **out)
{
    if (host != NULL) return s->dev->impl->lend(s, host, bytes, out);
    *out = NULL;
    return ST_OK;
}

status stream_return(stream *s, const void *ptr)
{
    return ptr == NULL ? ST_OK : s->dev->impl->take_back(s, ptr);
}

status stream_place(stream *s, const void *host, size_t bytes, void **out, bool *filled)
{
    return s->dev->impl->place(s, host, bytes, out, filled);
}

status stream_filled(stream *s, const void *ptr)
{
    return s->dev->impl->filled(s, ptr);
}

status stream_copy_in(stream *s, void *dst, const void *host, size_t bytes)
{
    return bytes == 0 ? ST_OK : s->dev->impl->copy_in(s, dst, host, bytes);
}

status stream_copy_out(stream *s, void *host, const void *src, size_t bytes)
{
    return bytes == 0 ? ST_OK : s->dev->impl->copy_out(s, host, src, bytes);
}

status stream_copy(stream *s, void *dst, const void *src, size_t bytes)
{
    return bytes == 0 ? ST_OK : s->dev->impl->copy(s, dst, src, bytes);
}

status stream_call(stream *s, status (*fn)(void *args), const void *args, size_t bytes)
{
    if (bytes > STREAM_CALL_BYTES)
        return err_set(ST_USAGE, "stream_call: %zu bytes of arguments, at most %d", bytes, STREAM_CALL_BYTES);
    return s->dev->impl->call(s, fn, args, bytes);
}

status stream_sync(stream *s)
{
    return s->dev->impl->sync(s);
}

status stream_settle(stream *s, status st)
{
    if (st == ST_OK) return stream_sync(s);
    char cause[1024];
    snprintf(cause, sizeof(cause), "%s", err_text());
    (void)stream_sync(s); /* what fails now follows from the cause */
    return err_set(st, "%s", cause);
}

status event_open(event **out, device *dev)
{
    return dev->impl->open_event(out, dev);
}

void event_close(event *e)
{
    if (e != NULL) e->dev->impl->close_event(e);
}

status event_record(event *e, stream *s)
{
    return s->dev->impl->record(e, s);
}

status stream_wait(stream *s, event *e)
{
    return s->dev->impl->wait(s, e);
}

double stream_waited_s(const stream *s)
{
    return s->dev->impl->waited_s(s);
}

#define DEFINE_OP(op)                                                                                                  \
    status stream_##op(stream *s, const op##_args *args)                                                               \
    {                                                                                                                  \
        return s->dev->impl->op(s, args);                                                                              \
    }

KERNEL_OPS(DEFINE_OP)
