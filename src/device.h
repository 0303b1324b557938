/* The only door to what computes: memory, streams, events and the operations of kernels/ops.h.
 *
 * Work is put on a stream and done later, in the stream's order; two streams are ordered by events only. An operation
 * that fails marks its stream; the next stream_sync on it returns the status. Devices:
 *   cpu     memory of the process; each stream is a worker thread; kernels by instruction set
 *   strict  the cpu kernels behind separate memory: weights are lent as copies and spoiled with NaN on return, memory
 *           starts as NaN, and work is done only when somebody waits for it, by the waiting thread: one thread for all
 *           streams of the device. Finds stale pointers and missing waits.
 *   plain   the slow, readable kernels (tests)
 *   cuda    one GPU: work is handed to it at once, host calls run on a thread of the CUDA driver and must not call CUDA
 *           (kernels/cuda/cuda_device.h) */
#ifndef DYPE_DEVICE_H
#define DYPE_DEVICE_H

#include "ops.h"

typedef enum device_kind { DEVICE_CPU = 0, DEVICE_STRICT, DEVICE_PLAIN, DEVICE_CUDA } device_kind;

typedef struct device device;
typedef struct stream stream; /* used by one caller at a time */
typedef struct event event;

typedef struct device_opts {
    device_kind kind;
    cpu_isa     isa;       /* at most the best of the processor */
    int         n_threads; /* of each operation, at least 1 */
    size_t      limit_bytes; /* 0: none; else device_alloc refuses beyond it */
    int         ordinal;     /* cuda: which of the GPUs that this process sees */
} device_opts;
#define DEVICE_OPTS_INIT ((device_opts){.kind = DEVICE_CPU, .isa = cpu_isa_best(), .n_threads = 1})

status device_open(device **out, const device_opts *opts);
void   device_close(device *dev); /* accepts NULL; streams and memory of the device must be closed before */
const char *device_name(const device *dev); /* "cpu (avx2)"; lent */
device_kind device_kind_of(const device *dev);

/* GPUs of compute capability 8.0 or later that this process sees; ST_DEVICE, naming the CUDA error, when there is none. */
status device_gpu_count(int *out);
/* Bytes of the GPU that are free now; 0 where memory is the host's. */
size_t device_memory_free(device *dev);
/* What tells one GPU of a host from another, whatever each process sees of them. */
enum { DEVICE_GPU_ID = 64 };
status device_gpu_id(int ordinal, char out[DEVICE_GPU_ID]);

/* Memory, 64-byte aligned. `what` names it in errors. */
status device_alloc(device *dev, size_t bytes, const char *what, void **out);
void   device_free(device *dev, void *ptr); /* accepts NULL; no work that uses it may be pending */
size_t device_peak_bytes(const device *dev);

/* Lends host memory (mapped weights) to the work that follows on s; *out is its address on the device. The host memory
 * must stay until stream_return, itself in stream order, gives it back. Free of cost where memory is shared; a
 * GPU keeps what it was lent as long as there is room, and finds it again by address and size. */
status stream_lend(stream *s, const void *host, size_t bytes, const void **out);
status stream_return(stream *s, const void *ptr);
/* Before host memory goes that was ever lent, all of it given back: a device may keep copies for the next time, by
 * address. */
void device_forget(device *dev);
/* For weights that come from elsewhere than the host: where host will be lent from, on s or another stream. *filled: it is there
 * already; else work of s writes it, and stream_filled, in its order, says so. Lent, until stream_return. *out NULL: this
 * device keeps no copies, or has no room for one. */
status stream_place(stream *s, const void *host, size_t bytes, void **out, bool *filled);
status stream_filled(stream *s, const void *ptr);
/* What was lent will not be for some time: a GPU need not keep it. The work that it was lent to is done. */
void device_drop(device *dev, const void *host, size_t bytes);

status stream_open(stream **out, device *dev);
void   stream_close(stream *s); /* waits for its work; accepts NULL */

/* Copies in stream order. Host memory must stay as it is until the work is done. */
status stream_copy_in(stream *s, void *dst, const void *host, size_t bytes);
status stream_copy_out(stream *s, void *host, const void *src, size_t bytes);
status stream_copy(stream *s, void *dst, const void *src, size_t bytes);

/* Runs fn(args) on the host in stream order; args (at most STREAM_CALL_BYTES) are copied now. Done even after a failure
 * of the stream, so that a rank that waits for this call's message is not left waiting. */
enum { STREAM_ARGS_BYTES = 256, STREAM_CALL_BYTES = STREAM_ARGS_BYTES - 16 };
status stream_call(stream *s, status (*fn)(void *args), const void *args, size_t bytes);

/* Waits until everything put on s is done; the first failure since the last sync, or ST_OK. */
status stream_sync(stream *s);
/* The end of a function that put work on s: waits for it whatever st is, so that its memory can go. st and its message
 * if it is a failure, else what stream_sync returns. */
status stream_settle(stream *s, status st);

/* An event marks the point of a stream reached at record; a later record, also on another stream, moves it. It may be
 * closed while waits for it are pending, but before its device. */
status event_open(event **out, device *dev);
void   event_close(event *e); /* accepts NULL */
status event_record(event *e, stream *s);
status stream_wait(stream *s, event *e); /* work put on s from now on starts after e's last record; no-op if none */

/* Seconds that work of s has stood waiting for events since stream_open; call it after stream_sync. 0 on strict, where
 * the waiting stream does the work of the other. */
double stream_waited_s(const stream *s);

/* The operations: stream_linear(s, &args), stream_attention(s, &args), ... Arguments are copied. */
#define DEVICE_OP(op) status stream_##op(stream *s, const op##_args *args);
KERNEL_OPS(DEVICE_OP)
#undef DEVICE_OP

/* Counts since device_open, for the assertions of tests and the planner: calls and multiply-adds times 2. */
typedef struct device_counts {
    int64_t n_calls;
    double  flops;
    int64_t weight_bytes; /* of lent weights that were copied from the host to a GPU; 0 where memory is shared */
} device_counts;
device_counts device_count(const device *dev);

#endif
