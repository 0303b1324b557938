#include "fault.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unistd.h>
#include "coverage.h"
#include "device.h"
#include "memory.h"
#include "settings.h"
#include "stream.h"

namespace vgpu
{
namespace
{

std::atomic<int> n_faults;
std::mutex last_lock;
std::string *last_message = nullptr;
thread_local cudaError_t last_error = cudaSuccess;
thread_local bool in_host_function = false;

struct Objects {
    std::mutex lock;
    std::map<const void *, std::string> open;
};

Objects &objects()
{
    static Objects *o = new Objects;
    return *o;
}

/* Runs as the last of all handlers, after the program's own: the first thing this library did was to ask for it. */
void at_exit(int status, void *)
{
    coverage_write();
    if (status != 0) return; /* a program that gives up need not tidy up */
    int bad = n_faults + stream_report_pending();
    if (settings().leaks) {
        bad += memory_report_leaks() + stream_report_leaks();
        Objects &o = objects();
        for (auto &[handle, kind] : o.open) {
            fprintf(stderr, "vgpu: leak: %s %p never closed\n", kind.c_str(), handle);
            ++bad;
        }
    }
    if (bad) {
        fprintf(stderr, "vgpu: %d faults and leaks: exit status %d\n", bad, settings().exit_code);
        fflush(nullptr);
        _exit(settings().exit_code);
    }
}

__attribute__((constructor)) void begin()
{
    on_exit(at_exit, nullptr);
}

} // namespace

std::string fault_vformat(const char *format, va_list args)
{
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    return text;
}

std::string fault_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    std::string s = fault_vformat(format, args);
    va_end(args);
    return s;
}

void fault_report(int device, cudaError_t error, const std::string &message)
{
    ++n_faults;
    std::string name = error != cudaSuccess ? std::string(" [") + cudaGetErrorName(error) + "]" : std::string();
    {
        std::lock_guard<std::mutex> guard(last_lock);
        if (!last_message) last_message = new std::string;
        *last_message = message + name;
    }
    fflush(stdout);
    fprintf(stderr, "vgpu: %s%s\n", message.c_str(), name.c_str());
    if (settings().on_error == OnError::ABORT) abort();
    if (device >= 0 && error != cudaSuccess) device_stick(device, error);
}

int fault_count()
{
    return n_faults;
}

std::string fault_last()
{
    std::lock_guard<std::mutex> guard(last_lock);
    return last_message ? *last_message : std::string();
}

void fault_forget()
{
    std::lock_guard<std::mutex> guard(last_lock);
    n_faults = 0;
    if (last_message) last_message->clear();
}

cudaError_t error_sticky()
{
    return device_count() ? device_sticky(device_current()) : cudaSuccess;
}

void error_host_function(bool runs)
{
    in_host_function = runs;
}

cudaError_t error_return(cudaError_t error)
{
    if (in_host_function) {
        fault_report(-1, cudaSuccess, "a host function on a stream made a CUDA call");
        error = cudaErrorNotPermitted;
    }
    cudaError_t sticky = error_sticky();
    if (sticky != cudaSuccess) error = sticky;
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
}

} // namespace vgpu

using namespace vgpu;

extern "C" {

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = error_sticky() != cudaSuccess ? error_sticky() : last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return error_sticky() != cudaSuccess ? error_sticky() : last_error;
}

void vgpu_fault(cudaError_t error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    std::string s = fault_vformat(format, args);
    va_end(args);
    fault_report(device_current(), error, s);
}

void vgpu_object_open(const char *kind, const void *handle)
{
    Objects &o = objects();
    std::lock_guard<std::mutex> guard(o.lock);
    o.open[handle] = kind;
}

int vgpu_object_close(const char *kind, const void *handle)
{
    Objects &o = objects();
    std::lock_guard<std::mutex> guard(o.lock);
    auto it = o.open.find(handle);
    if (it != o.open.end() && it->second == kind) {
        o.open.erase(it);
        return 0;
    }
    fault_report(-1, cudaSuccess,
                 fault_format("closing %s %p: %s", kind, handle,
                              it == o.open.end() ? "not open (closed twice?)" : ("it is a " + it->second).c_str()));
    return 1;
}

int vgpu_object_is_open(const char *kind, const void *handle)
{
    Objects &o = objects();
    std::lock_guard<std::mutex> guard(o.lock);
    auto it = o.open.find(handle);
    return it != o.open.end() && it->second == kind;
}

uint64_t vgpu_seed(void)
{
    return settings().seed;
}

} // extern "C"
