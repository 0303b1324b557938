#include "stream.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include "device.h"
#include "fault.h"
#include "memory.h"
#include "settings.h"

namespace vgpu
{

using Clock = std::chrono::steady_clock;

struct Stream {
    int device = 0, priority = 0;
    unsigned flags = 0;
    bool legacy = false, busy = false, blocked = false; /* blocked: its task said AGAIN in this round */
    uint64_t id = 0, put = 0, done = 0;                 /* tasks put and done */
    int n_external = 0;
    std::deque<Task> tasks;
};

namespace
{

struct Event {
    int device;
    unsigned flags;
    Mark mark; /* stream NULL: never recorded */
    std::shared_ptr<Clock::time_point> time;
};

struct Engine {
    std::mutex lock;
    std::condition_variable changed;
    std::map<cudaStream_t, StreamRef> streams;
    std::vector<StreamRef> draining; /* destroyed with tasks left */
    StreamRef legacy[MAX_DEVICES];
    std::map<std::pair<std::thread::id, int>, StreamRef> per_thread;
    std::map<cudaEvent_t, std::shared_ptr<Event>> events;
    uint64_t n_streams = 0, random = 0;
    bool progress_thread = false;
    std::condition_variable external;
};

Engine &engine()
{
    static Engine *e = [] {
        auto *x = new Engine;
        x->random = settings().seed * 0x9e3779b97f4a7c15ull + 1;
        return x;
    }();
    return *e;
}

uint64_t draw(Engine &e, uint64_t n)
{
    e.random ^= e.random << 13;
    e.random ^= e.random >> 7;
    e.random ^= e.random << 17;
    return e.random % n;
}

StreamRef legacy_stream(Engine &e, int device)
{
    StreamRef &s = e.legacy[device];
    if (!s) {
        s = std::make_shared<Stream>();
        s->device = device;
        s->legacy = true;
        s->id = ++e.n_streams;
    }
    return s;
}

/* In the order of their creation, whatever their addresses are. */
template <class F> void each_stream(Engine &e, F f)
{
    std::vector<StreamRef> all(e.draining);
    for (StreamRef &s : e.legacy)
        if (s) all.push_back(s);
    for (auto &[handle, s] : e.streams)
        all.push_back(s);
    for (auto &[key, s] : e.per_thread)
        all.push_back(s);
    std::sort(all.begin(), all.end(), [](const StreamRef &a, const StreamRef &b) { return a->id < b->id; });
    for (StreamRef &s : all)
        f(s);
}

/* A stream whose first task can run and must, for s to go on. */
StreamRef needed(const StreamRef &s)
{
    if (s->busy || s->blocked || s->tasks.empty()) return nullptr;
    for (const Mark &m : s->tasks.front().after)
        if (m.stream->done < m.seq) return needed(m.stream);
    return s;
}

void drop(Engine &e, const StreamRef &s)
{
    /* A task under way stays in front; its owner takes it off. */
    while (s->tasks.size() > (s->busy ? 1u : 0u)) {
        if (s->tasks.back().external) --s->n_external;
        s->tasks.pop_back();
    }
    if (!s->busy) s->done = s->put;
    e.changed.notify_all();
}

/* Runs the first task of s. False when it said AGAIN. */
bool run_first(Engine &e, std::unique_lock<std::mutex> &guard, const StreamRef &s)
{
    s->busy = true;
    Task &task = s->tasks.front();
    guard.unlock();
    int saved = device_current();
    device_set_current(s->device);
    vgpu_progress state = task.run ? task.run() : VGPU_DONE;
    device_set_current(saved);
    guard.lock();
    s->busy = false;
    if (state == VGPU_AGAIN && device_sticky(s->device) == cudaSuccess) {
        s->blocked = true;
        e.changed.notify_all();
        return false;
    }
    Task finished = std::move(s->tasks.front());
    s->tasks.pop_front();
    ++s->done;
    if (finished.external) --s->n_external;
    if (state == VGPU_FAILED || device_sticky(s->device) != cudaSuccess) {
        device_stick(s->device, cudaErrorUnknown);
        int device = s->device;
        each_stream(e, [&](StreamRef &o) {
            if (o->device == device) drop(e, o);
        });
    }
    for (size_t k = 0; k < e.draining.size(); ++k)
        if (e.draining[k]->tasks.empty()) e.draining.erase(e.draining.begin() + static_cast<long>(k--));
    e.changed.notify_all();
    guard.unlock();
    finished.run = nullptr; /* what it holds is freed without the lock */
    guard.lock();
    return true;
}

/* With a seed: sometimes a task that nobody asked for; not a host function, which may hold this thread. */
StreamRef somebody(Engine &e)
{
    if (!settings().seed || draw(e, 3)) return nullptr;
    std::vector<StreamRef> all;
    each_stream(e, [&](StreamRef &s) {
        if (!s->tasks.empty()) all.push_back(s);
    });
    StreamRef found = all.empty() ? nullptr : needed(all[draw(e, all.size())]);
    return found && !found->tasks.front().host ? found : nullptr;
}

/* External work of all streams, as far as it goes. True when something ran. */
bool run_external(Engine &e, std::unique_lock<std::mutex> &guard)
{
    std::vector<StreamRef> all;
    each_stream(e, [&](StreamRef &s) {
        if (s->n_external) all.push_back(s);
    });
    bool any = false;
    for (StreamRef &s : all) {
        StreamRef next = needed(s);
        if (next && run_first(e, guard, next)) any = true;
    }
    return any;
}

void unblock(Engine &e)
{
    each_stream(e, [](StreamRef &s) { s->blocked = false; });
}

void wait_mark(Engine &e, std::unique_lock<std::mutex> &guard, const Mark &mark)
{
    int pause_us = 0;
    while (mark.stream->done < mark.seq) {
        StreamRef extra = somebody(e);
        if (extra) run_first(e, guard, extra);
        if (mark.stream->done >= mark.seq) break;
        StreamRef next = needed(mark.stream);
        if (next) {
            if (run_first(e, guard, next)) pause_us = 0;
            continue;
        }
        /* Blocked by a peer, or another thread is at it: everything external may help. */
        if (run_external(e, guard)) {
            pause_us = 0;
            continue;
        }
        pause_us = pause_us == 0 ? 20 : pause_us < 1000 ? pause_us * 2 : 1000;
        e.changed.wait_for(guard, std::chrono::microseconds(pause_us));
        unblock(e);
    }
}

/* Does external work that has waited for a while, so that peers need not wait for this host thread. */
void progress(Engine *e)
{
    std::unique_lock<std::mutex> guard(e->lock);
    for (;;) {
        bool any = false;
        each_stream(*e, [&](StreamRef &s) { any = any || s->n_external; });
        if (!any) {
            e->external.wait(guard);
        }
        guard.unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        guard.lock();
        while (run_external(*e, guard)) {
        }
        unblock(*e);
    }
}

std::shared_ptr<Event> event_of(Engine &e, cudaEvent_t handle)
{
    auto it = e.events.find(handle);
    return it == e.events.end() ? nullptr : it->second;
}

cudaError_t bad_event(const char *call, cudaEvent_t handle)
{
    fault_report(-1, cudaSuccess, fault_format("%s(%p): not a live event", call, static_cast<void *>(handle)));
    return cudaErrorInvalidResourceHandle;
}

} // namespace

cudaError_t stream_create(cudaStream_t *out, unsigned flags, int priority)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    auto s = std::make_shared<Stream>();
    s->device = device_current();
    s->flags = flags;
    s->priority = priority;
    s->id = ++e.n_streams;
    *out = reinterpret_cast<cudaStream_t>(s.get());
    e.streams[*out] = s;
    return cudaSuccess;
}

cudaError_t stream_destroy(cudaStream_t handle)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    auto it = e.streams.find(handle);
    if (it == e.streams.end()) {
        fault_report(-1, cudaSuccess,
                     fault_format("cudaStreamDestroy(%p): not a live stream", static_cast<void *>(handle)));
        return cudaErrorInvalidResourceHandle;
    }
    if (!it->second->tasks.empty()) e.draining.push_back(it->second);
    e.streams.erase(it);
    return cudaSuccess;
}

StreamRef stream_of(cudaStream_t handle)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream(e, device_current());
    if (handle == cudaStreamPerThread) {
        StreamRef &s = e.per_thread[{std::this_thread::get_id(), device_current()}];
        if (!s) {
            s = std::make_shared<Stream>();
            s->device = device_current();
            s->id = ++e.n_streams;
        }
        return s;
    }
    auto it = e.streams.find(handle);
    return it == e.streams.end() ? nullptr : it->second;
}

int stream_device(const StreamRef &s)
{
    return s->device;
}

unsigned stream_flags(const StreamRef &s)
{
    return s->flags;
}

int stream_priority(const StreamRef &s)
{
    return s->priority;
}

uint64_t stream_id(const StreamRef &s)
{
    return s->id;
}

cudaError_t stream_put(const StreamRef &s, Task task)
{
    Engine &e = engine();
    std::unique_lock<std::mutex> guard(e.lock);
    if (device_sticky(s->device) != cudaSuccess) return device_sticky(s->device);
    if (s->legacy) {
        each_stream(e, [&](StreamRef &o) {
            if (o != s && o->device == s->device && !(o->flags & cudaStreamNonBlocking) && o->done < o->put)
                task.after.push_back({o, o->put});
        });
    } else if (!(s->flags & cudaStreamNonBlocking)) {
        StreamRef &l = e.legacy[s->device];
        if (l && l->done < l->put) task.after.push_back({l, l->put});
    }
    bool external = task.external;
    if (external) ++s->n_external;
    s->tasks.push_back(std::move(task));
    ++s->put;
    if (external) {
        if (!e.progress_thread) {
            e.progress_thread = true;
            std::thread(progress, &e).detach();
        }
        e.external.notify_one();
    }
    if (settings().eager) {
        Mark all{s, s->put};
        wait_mark(e, guard, all);
    } else if (settings().seed && draw(e, 4) == 0) {
        StreamRef extra = somebody(e);
        if (extra) run_first(e, guard, extra);
        unblock(e);
    }
    return cudaSuccess;
}

Mark stream_end(const StreamRef &s)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    return {s, s->put};
}

cudaError_t stream_wait(const Mark &mark)
{
    Engine &e = engine();
    std::unique_lock<std::mutex> guard(e.lock);
    wait_mark(e, guard, mark);
    return device_sticky(mark.stream->device);
}

cudaError_t stream_poll(const Mark &mark)
{
    Engine &e = engine();
    std::unique_lock<std::mutex> guard(e.lock);
    if (mark.stream->done < mark.seq) {
        StreamRef next = needed(mark.stream);
        if (next)
            run_first(e, guard, next);
        else
            run_external(e, guard);
        unblock(e);
    }
    cudaError_t sticky = device_sticky(mark.stream->device);
    if (sticky != cudaSuccess) return sticky;
    return mark.stream->done < mark.seq ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t stream_wait_device(int device)
{
    Engine &e = engine();
    std::unique_lock<std::mutex> guard(e.lock);
    std::vector<Mark> all;
    each_stream(e, [&](StreamRef &s) {
        if (s->device == device) all.push_back({s, s->put});
    });
    if (settings().seed)
        for (size_t k = all.size(); k > 1; --k)
            std::swap(all[k - 1], all[draw(e, k)]);
    for (const Mark &m : all)
        wait_mark(e, guard, m);
    return device_sticky(device);
}

void stream_drop_device(int device)
{
    Engine &e = engine();
    std::unique_lock<std::mutex> guard(e.lock);
    each_stream(e, [&](StreamRef &s) {
        if (s->device == device) drop(e, s);
    });
}

cudaError_t event_create(cudaEvent_t *out, unsigned flags)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    auto event = std::make_shared<Event>();
    event->device = device_current();
    event->flags = flags;
    *out = reinterpret_cast<cudaEvent_t>(event.get());
    e.events[*out] = event;
    return cudaSuccess;
}

cudaError_t event_destroy(cudaEvent_t handle)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    return e.events.erase(handle) ? cudaSuccess : bad_event("cudaEventDestroy", handle);
}

cudaError_t event_record(cudaEvent_t handle, const StreamRef &s)
{
    Engine &e = engine();
    std::shared_ptr<Event> event;
    auto time = std::make_shared<Clock::time_point>();
    {
        std::lock_guard<std::mutex> guard(e.lock);
        event = event_of(e, handle);
        if (!event) return bad_event("cudaEventRecord", handle);
        if (event->device != s->device) {
            fault_report(
                -1, cudaSuccess,
                fault_format("cudaEventRecord: event of device %d on a stream of device %d", event->device, s->device));
            return cudaErrorInvalidResourceHandle;
        }
    }
    Task task{"event",
              [time] {
                  *time = Clock::now();
                  return VGPU_DONE;
              },
              false,
              {},
              true};
    cudaError_t error = stream_put(s, std::move(task));
    if (error != cudaSuccess) return error;
    std::lock_guard<std::mutex> guard(e.lock);
    event->mark = {s, s->put};
    event->time = time;
    return cudaSuccess;
}

static cudaError_t event_mark(const char *call, cudaEvent_t handle, Mark *mark)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    std::shared_ptr<Event> event = event_of(e, handle);
    if (!event) return bad_event(call, handle);
    *mark = event->mark;
    return cudaSuccess;
}

cudaError_t event_wait(cudaEvent_t handle)
{
    Mark mark;
    cudaError_t error = event_mark("cudaEventSynchronize", handle, &mark);
    return error != cudaSuccess || !mark.stream ? error : stream_wait(mark);
}

cudaError_t event_query(cudaEvent_t handle)
{
    Mark mark;
    cudaError_t error = event_mark("cudaEventQuery", handle, &mark);
    return error != cudaSuccess || !mark.stream ? error : stream_poll(mark);
}

cudaError_t event_elapsed(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    Engine &e = engine();
    std::lock_guard<std::mutex> guard(e.lock);
    std::shared_ptr<Event> a = event_of(e, from), b = event_of(e, to);
    if (!a) return bad_event("cudaEventElapsedTime", from);
    if (!b) return bad_event("cudaEventElapsedTime", to);
    if (!a->mark.stream || !b->mark.stream || ((a->flags | b->flags) & cudaEventDisableTiming))
        return cudaErrorInvalidResourceHandle;
    if (a->mark.stream->done < a->mark.seq || b->mark.stream->done < b->mark.seq) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(*b->time - *a->time).count();
    return cudaSuccess;
}

cudaError_t stream_wait_event(const StreamRef &s, cudaEvent_t handle)
{
    Mark mark;
    cudaError_t error = event_mark("cudaStreamWaitEvent", handle, &mark);
    if (error != cudaSuccess || !mark.stream) return error; /* never recorded: nothing to wait for, as in CUDA */
    Task task{"wait for an event", nullptr, false, {mark}, true};
    return stream_put(s, std::move(task));
}

int stream_report_leaks()
{
    Engine &e = engine();
    for (auto &[handle, s] : e.streams)
        fprintf(stderr, "vgpu: leak: stream %llu of device %d never destroyed\n",
                static_cast<unsigned long long>(s->id), s->device);
    for (auto &[handle, event] : e.events)
        fprintf(stderr, "vgpu: leak: event %p of device %d never destroyed\n", static_cast<void *>(handle),
                event->device);
    return static_cast<int>(e.streams.size() + e.events.size());
}

int stream_report_pending()
{
    Engine &e = engine();
    int n = 0;
    each_stream(e, [&](StreamRef &s) {
        for (const Task &task : s->tasks) {
            if (task.marker) continue;
            fprintf(stderr, "vgpu: stream %llu of device %d ends with work that nobody waited for, the first: %s\n",
                    static_cast<unsigned long long>(s->id), s->device, task.what);
            ++n;
            return;
        }
    });
    return n;
}

} // namespace vgpu

using namespace vgpu;

extern "C" {

cudaError_t vgpu_enqueue(cudaStream_t stream, const char *what, vgpu_work work, void *arg, void (*destroy)(void *arg),
                         unsigned flags)
{
    std::shared_ptr<void> owned(arg, [destroy](void *p) {
        if (destroy) destroy(p);
    });
    StreamRef s = stream_of(stream);
    if (!s) {
        fault_report(-1, cudaSuccess, fault_format("%s: not a stream: %p", what, static_cast<void *>(stream)));
        return cudaErrorInvalidResourceHandle;
    }
    Task task{what, [work, owned] { return work(owned.get()); }, (flags & VGPU_EXTERNAL) != 0, {}, false};
    owned.reset();
    return stream_put(s, std::move(task));
}

int vgpu_stream_device(cudaStream_t stream)
{
    StreamRef s = stream_of(stream);
    return s ? stream_device(s) : -1;
}

} // extern "C"
