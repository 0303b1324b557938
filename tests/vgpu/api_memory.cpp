/* CUDA calls about memory, and the door that replacement libraries use. */
#include <cstdlib>
#include <cstring>
#include <vector>
#include "device.h"
#include "fault.h"
#include "memory.h"
#include "module.h"
#include "settings.h"
#include "stream.h"

using namespace vgpu;

namespace
{

struct Side {
    u64 address = 0;
    size_t pitch = 0;
    bool device = false;                   /* else host memory, pinned or not */
    std::shared_ptr<std::vector<u8>> copy; /* of pageable host memory, taken when the call was made */
};

struct Copy {
    const char *call;
    Side to, from;
    size_t width, height;
};

unsigned long long number(u64 x)
{
    return static_cast<unsigned long long>(x);
}

/* Whether rows of width bytes at s are inside one live allocation; reports. */
bool inside(const char *call, const char *role, const Side &s, size_t width, size_t height)
{
    if (!s.device) return true;
    size_t bytes = height ? (height - 1) * s.pitch + width : 0;
    const Allocation *a = memory_allocation(s.address);
    if (a && s.address + bytes <= a->begin + a->n_bytes) return true;
    u64 last = a ? s.address + bytes - 1 : s.address;
    fault_report(-1, cudaSuccess,
                 fault_format("%s: %s of %zu bytes at 0x%llx: %s", call, role, bytes, number(s.address),
                              memory_describe(last).c_str()));
    return false;
}

/* First unwritten byte of a row, or n. */
size_t first_unwritten(u64 address, size_t n)
{
    const u8 *state = memory_state(address);
    const void *hole = memchr(state, BYTE_UNWRITTEN, n);
    return hole ? static_cast<size_t>(static_cast<const u8 *>(hole) - state) : n;
}

vgpu_progress copy_now(const Copy &c)
{
    if (!inside(c.call, "target", c.to, c.width, c.height) || !inside(c.call, "source", c.from, c.width, c.height)) {
        device_stick(device_current(), cudaErrorIllegalAddress);
        return VGPU_FAILED;
    }
    for (size_t row = 0; row < c.height; ++row) {
        u64 to = c.to.address + row * c.to.pitch, from = c.from.address + row * c.from.pitch;
        const u8 *source = c.from.device ? memory_data(from)
                           : c.from.copy ? c.from.copy->data() + row * c.width
                                         : reinterpret_cast<const u8 *>(from);
        u8 *target = c.to.device ? memory_data(to) : reinterpret_cast<u8 *>(to);
        if (c.from.device && !c.to.device) {
            size_t hole = first_unwritten(from, c.width);
            if (hole < c.width) {
                fault_report(device_current(), cudaErrorIllegalAddress,
                             fault_format("%s to the host: byte %zu of row %zu was never written: %s", c.call, hole,
                                          row, memory_describe(from + hole).c_str()));
                return VGPU_FAILED;
            }
        }
        memmove(target, source, c.width);
        if (!c.to.device) continue;
        if (c.from.device)
            memmove(memory_state(to), memory_state(from), c.width); /* what was not written stays so */
        else
            memset(memory_state(to), BYTE_WRITTEN, c.width);
    }
    return VGPU_DONE;
}

/* Asynchronous copies from pageable memory are staged at once, those to it are waited for: as CUDA documents. */
cudaError_t copy(const char *call, void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                 size_t height, cudaMemcpyKind kind, cudaStream_t stream, bool async)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    if (width == 0 || height == 0) return error_return(cudaSuccess);
    Copy c{call,
           {reinterpret_cast<u64>(to), to_pitch, false, nullptr},
           {reinterpret_cast<u64>(from), from_pitch, false, nullptr},
           width,
           height};
    c.to.device = memory_is_device(c.to.address);
    c.from.device = memory_is_device(c.from.address);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (to_device != c.to.device || from_device != c.from.device)) {
        bool target = to_device != c.to.device;
        /* Pinned memory is reachable by the device too, and may stand for device memory. */
        if (!(target ? to_device && memory_is_pinned(to, 1) : from_device && memory_is_pinned(from, 1))) {
            fault_report(-1, cudaSuccess,
                         fault_format("%s: the %s is said to be %s memory, but is %s", call,
                                      target ? "target" : "source",
                                      (target ? to_device : from_device) ? "device" : "host",
                                      memory_describe(target ? c.to.address : c.from.address).c_str()));
            return error_return(cudaErrorInvalidValue);
        }
    }
    if (height > 1 && (to_pitch < width || from_pitch < width)) return error_return(cudaErrorInvalidPitchValue);
    if (!inside(call, "target", c.to, width, height) || !inside(call, "source", c.from, width, height))
        return error_return(cudaErrorInvalidValue);
    StreamRef s = stream_of(stream);
    if (!s) {
        fault_report(-1, cudaSuccess, fault_format("%s: not a live stream: %p", call, static_cast<void *>(stream)));
        return error_return(cudaErrorInvalidResourceHandle);
    }
    bool wait = !async && !(c.to.device && c.from.device);
    if (!c.from.device && async && !memory_is_pinned(from, (height - 1) * from_pitch + width)) {
        c.from.copy = std::make_shared<std::vector<u8>>(width * height);
        for (size_t row = 0; row < height; ++row)
            memcpy(c.from.copy->data() + row * width, static_cast<const u8 *>(from) + row * from_pitch, width);
    }
    if (!c.to.device && async && !memory_is_pinned(to, (height - 1) * to_pitch + width)) wait = true;
    cudaError_t error = stream_put(s, {call, [c] { return copy_now(c); }, false, {}, false});
    if (error == cudaSuccess && wait) error = stream_wait(stream_end(s));
    return error_return(error);
}

cudaError_t set(const char *call, void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    if (width == 0 || height == 0) return error_return(cudaSuccess);
    Side side{reinterpret_cast<u64>(to), pitch, memory_is_device(reinterpret_cast<u64>(to)), nullptr};
    if (!side.device && !memory_is_pinned(to, width)) {
        fault_report(-1, cudaSuccess, fault_format("%s(%p): %s", call, to, memory_describe(side.address).c_str()));
        return error_return(cudaErrorInvalidValue);
    }
    if (!inside(call, "target", side, width, height)) return error_return(cudaErrorInvalidValue);
    StreamRef s = stream_of(stream);
    if (!s) {
        fault_report(-1, cudaSuccess, fault_format("%s: not a live stream: %p", call, static_cast<void *>(stream)));
        return error_return(cudaErrorInvalidResourceHandle);
    }
    auto work = [=] {
        for (size_t row = 0; row < height; ++row) {
            u64 at = side.address + row * pitch;
            memset(side.device ? memory_data(at) : reinterpret_cast<u8 *>(at), value, width);
            if (side.device) memset(memory_state(at), BYTE_WRITTEN, width);
        }
        return VGPU_DONE;
    };
    return error_return(stream_put(s, {call, work, false, {}, false}));
}

cudaError_t pin(void **p, size_t n, const char *call)
{
    if (n == 0) {
        *p = nullptr;
        return error_return(cudaSuccess);
    }
    *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
    if (!*p) return error_return(cudaErrorMemoryAllocation);
    memory_pin(*p, n, false, call);
    return error_return(cudaSuccess);
}

cudaError_t unpin(void *p, const char *call)
{
    if (!p) return error_return(cudaSuccess);
    /* Copies under way would read freed memory: the real call waits for them too. */
    for (int d = 0; d < device_count(); ++d)
        stream_wait_device(d);
    if (!memory_unpin(p, false, call)) return error_return(cudaErrorInvalidValue);
    free(p);
    return error_return(cudaSuccess);
}

} // namespace

extern "C" {

cudaError_t cudaMalloc(void **p, size_t n)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    if (error_sticky() != cudaSuccess) return error_return(error_sticky());
    *p = nullptr;
    if (n == 0) return error_return(cudaSuccess);
    u64 address;
    cudaError_t error = memory_allocate(device_current(), n, "cudaMalloc", false, &address);
    if (error == cudaSuccess) *p = reinterpret_cast<void *>(address);
    return error_return(error);
}

cudaError_t cudaMallocPitch(void **p, size_t *pitch, size_t width, size_t height)
{
    *pitch = (width + 511) / 512 * 512;
    return cudaMalloc(p, *pitch * height);
}

cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t)
{
    return cudaMalloc(p, n);
}

cudaError_t cudaFree(void *p)
{
    if (!p) return error_return(cudaSuccess);
    int device = memory_device_of(reinterpret_cast<u64>(p));
    if (device >= 0) stream_wait_device(device); /* work under way may use it: the real call waits as well */
    return error_return(memory_free(reinterpret_cast<u64>(p), "cudaFree"));
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    StreamRef s = stream_of(stream);
    if (!s) return error_return(cudaErrorInvalidResourceHandle);
    if (!p) return error_return(cudaSuccess);
    return error_return(stream_put(s, {"cudaFreeAsync",
                                       [p] {
                                           memory_free(reinterpret_cast<u64>(p), "cudaFreeAsync");
                                           return VGPU_DONE;
                                       },
                                       false,
                                       {},
                                       false}));
}

cudaError_t cudaMallocHost(void **p, size_t n)
{
    return pin(p, n, "cudaMallocHost");
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    return pin(p, n, "cudaHostAlloc");
}

cudaError_t cudaFreeHost(void *p)
{
    return unpin(p, "cudaFreeHost");
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned)
{
    if (!p || !n) return error_return(cudaErrorInvalidValue);
    memory_pin(p, n, true, "cudaHostRegister");
    return error_return(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *p)
{
    for (int d = 0; d < device_count(); ++d)
        stream_wait_device(d);
    return error_return(memory_unpin(p, true, "cudaHostUnregister") ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned)
{
    if (!memory_is_pinned(host, 1)) return error_return(cudaErrorInvalidValue);
    *device = host;
    return error_return(cudaSuccess);
}

cudaError_t cudaHostGetFlags(unsigned *flags, void *host)
{
    *flags = cudaHostAllocMapped;
    return error_return(memory_is_pinned(host, 1) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    *total = settings().memory_bytes;
    *free_bytes = *total - memory_used(device_current());
    return error_return(cudaSuccess);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind kind)
{
    return copy("cudaMemcpy", to, n, from, n, n, 1, kind, nullptr, false);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy("cudaMemcpyAsync", to, n, from, n, n, 1, kind, stream, true);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind)
{
    return copy("cudaMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind, nullptr, false);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy("cudaMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind, stream, true);
}

cudaError_t cudaMemcpyPeer(void *to, int, const void *from, int, size_t n)
{
    return copy("cudaMemcpyPeer", to, n, from, n, n, 1, cudaMemcpyDeviceToDevice, nullptr, false);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t n, cudaStream_t stream)
{
    return copy("cudaMemcpyPeerAsync", to, n, from, n, n, 1, cudaMemcpyDeviceToDevice, stream, true);
}

cudaError_t cudaMemset(void *to, int value, size_t n)
{
    return set("cudaMemset", to, n, value, n, 1, nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t stream)
{
    return set("cudaMemsetAsync", to, n, value, n, 1, stream);
}

cudaError_t cudaMemset2D(void *to, size_t pitch, int value, size_t width, size_t height)
{
    return set("cudaMemset2D", to, pitch, value, width, height, nullptr);
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    return set("cudaMemset2DAsync", to, pitch, value, width, height, stream);
}

cudaError_t cudaGetSymbolAddress(void **p, const void *symbol)
{
    *p = reinterpret_cast<void *>(module_find_variable(symbol, device_current(), nullptr));
    return error_return(*p ? cudaSuccess : cudaErrorInvalidSymbol);
}

cudaError_t cudaGetSymbolSize(size_t *n, const void *symbol)
{
    u64 bytes = 0;
    u64 address = module_find_variable(symbol, device_current(), &bytes);
    *n = bytes;
    return error_return(address ? cudaSuccess : cudaErrorInvalidSymbol);
}

static cudaError_t symbol_at(const void *symbol, size_t n, size_t offset, char **address)
{
    u64 bytes = 0;
    *address = reinterpret_cast<char *>(module_find_variable(symbol, device_current(), &bytes)) + offset;
    if (*address == reinterpret_cast<char *>(offset)) return cudaErrorInvalidSymbol;
    return offset + n <= bytes ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t n, size_t offset, cudaMemcpyKind kind)
{
    char *to;
    cudaError_t error = symbol_at(symbol, n, offset, &to);
    return error != cudaSuccess ? error_return(error)
                                : copy("cudaMemcpyToSymbol", to, n, from, n, n, 1, kind, nullptr, false);
}

cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t n, size_t offset, cudaMemcpyKind kind)
{
    char *from;
    cudaError_t error = symbol_at(symbol, n, offset, &from);
    return error != cudaSuccess ? error_return(error)
                                : copy("cudaMemcpyFromSymbol", to, n, from, n, n, 1, kind, nullptr, false);
}

cudaError_t cudaMemcpyToSymbolAsync(const void *symbol, const void *from, size_t n, size_t offset, cudaMemcpyKind kind,
                                    cudaStream_t stream)
{
    char *to;
    cudaError_t error = symbol_at(symbol, n, offset, &to);
    return error != cudaSuccess ? error_return(error)
                                : copy("cudaMemcpyToSymbolAsync", to, n, from, n, n, 1, kind, stream, true);
}

cudaError_t cudaMemcpyFromSymbolAsync(void *to, const void *symbol, size_t n, size_t offset, cudaMemcpyKind kind,
                                      cudaStream_t stream)
{
    char *from;
    cudaError_t error = symbol_at(symbol, n, offset, &from);
    return error != cudaSuccess ? error_return(error)
                                : copy("cudaMemcpyFromSymbolAsync", to, n, from, n, n, 1, kind, stream, true);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p)
{
    memset(a, 0, sizeof *a);
    u64 address = reinterpret_cast<u64>(p);
    a->device = device_current();
    if (const Allocation *found = memory_allocation(address)) {
        a->type = cudaMemoryTypeDevice;
        a->device = found->device;
        a->devicePointer = const_cast<void *>(p);
    } else if (memory_is_pinned(p, 1)) {
        a->type = cudaMemoryTypeHost;
        a->devicePointer = a->hostPointer = const_cast<void *>(p);
    } else {
        a->type = cudaMemoryTypeUnregistered;
        a->device = cudaInvalidDeviceId;
        a->hostPointer = const_cast<void *>(p);
    }
    return error_return(cudaSuccess);
}

/* ---- the door for replacement libraries ---- */

void *vgpu_memory_2d(const void *pointer, size_t row_bytes, size_t pitch, size_t n_rows, vgpu_access access,
                     const char *what)
{
    u64 address = reinterpret_cast<u64>(pointer);
    int device = device_current();
    size_t bytes = n_rows ? (n_rows - 1) * pitch + row_bytes : 0;
    static char nothing[64];
    if (bytes == 0 || row_bytes == 0) return nothing;
    Range range;
    if (!memory_find(device, address, &range) || address + bytes > range.end) {
        const Allocation *a = memory_allocation(address);
        bool foreign = a && a->device != device;
        fault_report(device, cudaErrorIllegalAddress,
                     fault_format("%s: %zu bytes at 0x%llx: %s%s", what, bytes, number(address),
                                  memory_describe(a && !foreign ? address + bytes - 1 : address).c_str(),
                                  foreign ? " (work of another device, without peer access)" : ""));
        return nullptr;
    }
    if (range.to_state)
        for (size_t row = 0; row < n_rows; ++row) {
            u64 at = address + row * pitch;
            if (access == VGPU_WRITE) memset(memory_state(at), BYTE_WRITTEN, row_bytes);
            if (access != VGPU_READ) continue;
            size_t hole = first_unwritten(at, row_bytes);
            if (hole == row_bytes) continue;
            fault_report(device, cudaErrorIllegalAddress,
                         fault_format("%s: reads byte %zu of row %zu, which was never written: %s", what, hole, row,
                                      memory_describe(at + hole).c_str()));
            return nullptr;
        }
    return reinterpret_cast<void *>(address + static_cast<u64>(range.to_data));
}

void *vgpu_memory(const void *address, size_t n_bytes, vgpu_access access, const char *what)
{
    return vgpu_memory_2d(address, n_bytes, n_bytes, 1, access, what);
}

} // extern "C"
