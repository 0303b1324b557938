/* Streams and events: queues of tasks that nobody runs until somebody has to know.
 *
 * A task runs when (1) all tasks before it on its stream are done, (2) all tasks of other streams that it depends on
 * are done, and (3) somebody waits: for it, for a task that depends on it, or for anything at all when it is external.
 * With VGPU_SEED other runnable tasks are done in between as well, so that no order is relied on by chance. */
#ifndef VGPU_STREAM_H
#define VGPU_STREAM_H

#include <functional>
#include <memory>
#include <vector>
#include "vgpu.h"

namespace vgpu
{

struct Stream;
using StreamRef = std::shared_ptr<Stream>;

/* A place in a stream: everything up to task number seq. */
struct Mark {
    StreamRef stream;
    uint64_t seq = 0;
};

struct Task {
    const char *what;
    std::function<vgpu_progress()> run;
    bool external = false;
    std::vector<Mark> after;
    bool marker = false; /* an event, a wait: nothing is lost when it never runs */
    bool host = false;   /* code of the host, which may wait for what the thread that put it does next */
};

/* Handles. stream_of also takes 0, cudaStreamLegacy and cudaStreamPerThread; NULL when it is not a stream. */
cudaError_t stream_create(cudaStream_t *out, unsigned flags, int priority);
cudaError_t stream_destroy(cudaStream_t handle);
StreamRef stream_of(cudaStream_t handle);
int stream_device(const StreamRef &s);
unsigned stream_flags(const StreamRef &s);
int stream_priority(const StreamRef &s);
uint64_t stream_id(const StreamRef &s);

/* Puts a task at the end. The legacy default stream waits for all blocking streams of its device, and they for it. */
cudaError_t stream_put(const StreamRef &s, Task task);
Mark stream_end(const StreamRef &s);

/* Runs what is needed until the mark is reached; the sticky error of the stream's device. */
cudaError_t stream_wait(const Mark &mark);
/* Makes a little progress; cudaErrorNotReady when the mark is not reached. */
cudaError_t stream_poll(const Mark &mark);
/* Everything on a device. */
cudaError_t stream_wait_device(int device);
/* Drops all that is queued on a device: its error sticks. */
void stream_drop_device(int device);

cudaError_t event_create(cudaEvent_t *out, unsigned flags);
cudaError_t event_destroy(cudaEvent_t handle);
cudaError_t event_record(cudaEvent_t handle, const StreamRef &s);
cudaError_t event_wait(cudaEvent_t handle);
cudaError_t event_query(cudaEvent_t handle);
cudaError_t event_elapsed(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t stream_wait_event(const StreamRef &s, cudaEvent_t handle);

int stream_report_leaks();
/* Tasks that were never run at the end of the process. */
int stream_report_pending();

} // namespace vgpu
#endif
