/* CUDA calls about streams and events. */
#include "device.h"
#include "fault.h"
#include "stream.h"

using namespace vgpu;

static StreamRef live_stream(cudaStream_t handle, const char *call)
{
    StreamRef s = stream_of(handle);
    if (!s) fault_report(-1, cudaSuccess, fault_format("%s(%p): not a live stream", call, static_cast<void *>(handle)));
    return s;
}

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    if (flags & ~1u) return error_return(cudaErrorInvalidValue);
    return error_return(stream_create(s, flags, priority < -5 ? -5 : priority > 0 ? 0 : priority));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    return cudaStreamCreateWithPriority(s, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    return cudaStreamCreateWithPriority(s, 0, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    return error_return(stream_destroy(s));
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority)
{
    StreamRef s = live_stream(handle, "cudaStreamGetPriority");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    *priority = stream_priority(s);
    return error_return(cudaSuccess);
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags)
{
    StreamRef s = live_stream(handle, "cudaStreamGetFlags");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    *flags = stream_flags(s);
    return error_return(cudaSuccess);
}

cudaError_t cudaStreamGetId(cudaStream_t handle, unsigned long long *id)
{
    StreamRef s = live_stream(handle, "cudaStreamGetId");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    *id = stream_id(s);
    return error_return(cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int *device)
{
    StreamRef s = live_stream(handle, "cudaStreamGetDevice");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    *device = stream_device(s);
    return error_return(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    StreamRef s = live_stream(handle, "cudaStreamSynchronize");
    return error_return(s ? stream_wait(stream_end(s)) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    StreamRef s = live_stream(handle, "cudaStreamQuery");
    return error_return(s ? stream_poll(stream_end(s)) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned)
{
    StreamRef s = live_stream(handle, "cudaStreamWaitEvent");
    return error_return(s ? stream_wait_event(s, event) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t f, void *data)
{
    StreamRef s = live_stream(handle, "cudaLaunchHostFunc");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    /* Another host thread may wait for what f does. */
    return error_return(stream_put(s, {"host function",
                                       [f, data] {
                                           error_host_function(true);
                                           f(data);
                                           error_host_function(false);
                                           return VGPU_DONE;
                                       },
                                       true,
                                       {},
                                       false, true}));
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t f, void *data, unsigned)
{
    StreamRef s = live_stream(handle, "cudaStreamAddCallback");
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    return error_return(stream_put(s, {"stream callback",
                                       [=] {
                                           f(handle, cudaSuccess, data);
                                           return VGPU_DONE;
                                       },
                                       true,
                                       {},
                                       false, true}));
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status)
{
    *status = cudaStreamCaptureStatusNone;
    return error_return(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    return error_return(event_create(event, flags));
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return error_return(event_destroy(event));
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    StreamRef s = live_stream(handle, "cudaEventRecord");
    return error_return(s ? event_record(event, s) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned)
{
    return cudaEventRecord(event, handle);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return error_return(event_wait(event));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return error_return(event_query(event));
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    return error_return(event_elapsed(ms, from, to));
}

} // extern "C"
