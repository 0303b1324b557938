/* What a kind of device brings: the functions behind device.h, in a table that every device carries. Seen only by the
 * devices themselves: src/device_host.c (cpu, strict, plain) and kernels/cuda. */
#ifndef DYPE_DEVICE_IMPL_H
#define DYPE_DEVICE_IMPL_H

#include "device.h"

enum { DEVICE_ALIGNMENT = 64 };

typedef struct device_impl {
    void (*close)(device *dev);
    status (*alloc)(device *dev, size_t bytes, const char *what, void **out);
    void (*free)(device *dev, void *ptr);        /* ptr is not NULL */
    void (*forget)(device *dev);
    void (*drop)(device *dev, const void *host, size_t bytes); /* host is not NULL */
    size_t (*memory_free)(device *dev);
    status (*open_stream)(stream **out, device *dev);
    void (*close_stream)(stream *s);
    status (*lend)(stream *s, const void *host, size_t bytes, const void **out); /* host is not NULL */
    status (*take_back)(stream *s, const void *ptr);                              /* ptr is not NULL */
    status (*place)(stream *s, const void *host, size_t bytes, void **out, bool *filled);
    status (*filled)(stream *s, const void *ptr);
    status (*copy_in)(stream *s, void *dst, const void *host, size_t bytes);  /* bytes > 0, here and below */
    status (*copy_out)(stream *s, void *host, const void *src, size_t bytes);
    status (*copy)(stream *s, void *dst, const void *src, size_t bytes);
    status (*call)(stream *s, status (*fn)(void *args), const void *args, size_t bytes); /* bytes fit */
    status (*sync)(stream *s);
    status (*open_event)(event **out, device *dev);
    void (*close_event)(event *e);
    status (*record)(event *e, stream *s);
    status (*wait)(stream *s, event *e);
    double (*waited_s)(const stream *s);
#define DEVICE_IMPL_OP(op) status (*op)(stream *s, const op##_args *args);
    KERNEL_OPS(DEVICE_IMPL_OP)
#undef DEVICE_IMPL_OP
} device_impl;

/* The first member of every implementation's own struct. */
struct device {
    const device_impl *impl;
    device_kind        kind;
    size_t             used_bytes, peak_bytes, limit_bytes;
    device_counts      counts;
    char               name[128];
};

struct stream {
    device *dev;
};

struct event {
    device *dev;
};

status device_host_open(device **out, const device_opts *opts);
status device_cuda_open(device **out, const device_opts *opts);

/* Counts one call. The caller keeps others from doing so at the same time. */
#define DEVICE_COUNT(dev, args) ((dev)->counts.n_calls++, (dev)->counts.flops += DEVICE_FLOPS(args))

#define DEVICE_FLOPS(args)                                                                                             \
    _Generic((args), const linear_args *: device_linear_flops, const attention_args *: device_attention_flops,         \
             const conv_args *: device_conv_flops, default: device_no_flops)(args)

static inline double device_linear_flops(const linear_args *a)
{
    return 2.0 * a->n_rows * a->n_in * a->n_out;
}

static inline double device_attention_flops(const attention_args *a)
{
    return 4.0 * a->n_q * a->n_kv * a->n_heads * a->head_dim;
}

static inline double device_conv_flops(const conv_args *a)
{
    return 2.0 * a->height * a->width * a->c_in * a->c_out * a->kernel * a->kernel;
}

static inline double device_no_flops(const void *args)
{
    (void)args;
    return 0;
}

#endif
