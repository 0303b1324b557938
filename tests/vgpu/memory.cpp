#include "memory.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>
#include <sys/mman.h>
#include "fault.h"
#include "settings.h"

namespace vgpu
{
namespace
{

struct Pinned {
    u64 n_bytes;
    bool registered, live;
};

struct Memory {
    u64 base = 0; /* first device address */
    u8 *data = nullptr, *state = nullptr;
    std::atomic<Allocation *> *table = nullptr; /* [MAX_DEVICES * DEVICE_SPAN / GRANULE]: who owns a granule */
    u64 next[MAX_DEVICES] = {};                 /* bytes of the span given out so far */
    u64 used[MAX_DEVICES] = {};
    bool peers[MAX_DEVICES][MAX_DEVICES] = {};
    std::vector<Allocation *> all; /* in the order of their numbers; the table is no memory that leak checkers see */
    std::mutex lock;
    std::map<u64, Pinned> pinned;
};

void *reserve(u64 n_bytes, int protection)
{
    void *p = mmap(nullptr, n_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("vgpu: reserving address space");
        abort();
    }
    return p;
}

Memory &memory()
{
    static Memory *m = [] {
        auto *x = new Memory;
        u64 span = MAX_DEVICES * DEVICE_SPAN;
        x->base = reinterpret_cast<u64>(reserve(span, PROT_NONE));
        x->base = (x->base + GRANULE - 1) / GRANULE * GRANULE;
        x->data = static_cast<u8 *>(reserve(span, PROT_READ | PROT_WRITE));
        x->state = static_cast<u8 *>(reserve(span, PROT_READ | PROT_WRITE));
        x->table =
            static_cast<std::atomic<Allocation *> *>(reserve(span / GRANULE * sizeof(void *), PROT_READ | PROT_WRITE));
        return x;
    }();
    return *m;
}

Allocation *owner(u64 address)
{
    Memory &m = memory();
    u64 offset = address - m.base;
    return offset < MAX_DEVICES * DEVICE_SPAN - GRANULE ? m.table[offset / GRANULE].load(std::memory_order_acquire)
                                                        : nullptr;
}

/* The pinned range that holds address, or the last one before it. */
std::map<u64, Pinned>::iterator pinned_at(Memory &m, u64 address)
{
    auto it = m.pinned.upper_bound(address);
    return it == m.pinned.begin() ? m.pinned.end() : --it;
}

/* The allocation is known as freed from here on, its pages go back. */
void end(Memory &m, Allocation *a)
{
    a->live = false;
    m.used[a->device] -= a->n_bytes;
    u64 pages = (a->n_bytes + 4095) / 4096 * 4096;
    madvise(m.data + (a->begin - m.base), pages, MADV_DONTNEED);
    madvise(m.state + (a->begin - m.base), pages, MADV_DONTNEED);
}

} // namespace

cudaError_t memory_allocate(int device, u64 n_bytes, const char *name, bool is_symbol, u64 *address)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    u64 granules =
        (n_bytes + GRANULE - 1) / GRANULE + 1; /* one unused granule behind: running past the end hits nothing */
    if (n_bytes > settings().memory_bytes - m.used[device]) return cudaErrorMemoryAllocation;
    if (m.next[device] + granules * GRANULE > DEVICE_SPAN - GRANULE) {
        fault_report(-1, cudaSuccess,
                     fault_format("out of device addresses: %llu allocations so far",
                                  static_cast<unsigned long long>(m.all.size())));
        return cudaErrorMemoryAllocation;
    }
    u64 offset = static_cast<u64>(device) * DEVICE_SPAN + m.next[device];
    auto *a = new Allocation{m.base + offset, n_bytes, device, m.all.size() + 1, true, is_symbol, name};
    m.all.push_back(a);
    for (u64 g = 0; g < granules; ++g)
        m.table[offset / GRANULE + g].store(a, std::memory_order_release);
    m.next[device] += granules * GRANULE;
    m.used[device] += n_bytes;
    *address = a->begin;
    return cudaSuccess;
}

cudaError_t memory_free(u64 address, const char *call)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    Allocation *a = owner(address);
    if (!a || a->begin != address || !a->live || a->is_symbol) {
        fault_report(-1, cudaSuccess,
                     fault_format("%s(0x%llx): %s", call, static_cast<unsigned long long>(address),
                                  a && a->begin == address && !a->is_symbol
                                      ? ("double free: " + memory_describe(address)).c_str()
                                      : ("not the start of an allocation: " + memory_describe(address)).c_str()));
        return cudaErrorInvalidValue;
    }
    end(m, a);
    return cudaSuccess;
}

void memory_release_device(int device)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    for (Allocation *a : m.all)
        if (a->device == device && a->live && !a->is_symbol) end(m, a);
}

u64 memory_used(int device)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    return m.used[device];
}

int memory_report_leaks()
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    int n = 0;
    for (const Allocation *a : m.all) {
        if (!a->live || a->is_symbol) continue;
        ++n;
        fprintf(stderr, "vgpu: leak: %s never freed: allocation %llu (%llu bytes at 0x%llx, device %d)\n",
                a->name.c_str(), static_cast<unsigned long long>(a->number),
                static_cast<unsigned long long>(a->n_bytes), static_cast<unsigned long long>(a->begin), a->device);
    }
    for (auto &[address, p] : m.pinned)
        if (p.live) {
            ++n;
            fprintf(stderr, "vgpu: leak: pinned host memory never %s: %llu bytes at 0x%llx\n",
                    p.registered ? "unregistered" : "freed", static_cast<unsigned long long>(p.n_bytes),
                    static_cast<unsigned long long>(address));
        }
    return n;
}

bool memory_find(int device, u64 address, Range *range)
{
    Memory &m = memory();
    Allocation *a = owner(address);
    if (a) {
        if (!a->live || address >= a->begin + a->n_bytes) return false;
        if (a->device != device && !m.peers[device][a->device]) return false;
        *range = {a->begin, a->begin + a->n_bytes, reinterpret_cast<s64>(m.data) - static_cast<s64>(m.base),
                  reinterpret_cast<s64>(m.state) - static_cast<s64>(m.base)};
        return true;
    }
    std::lock_guard<std::mutex> guard(m.lock);
    auto it = pinned_at(m, address);
    if (it == m.pinned.end() || !it->second.live || address >= it->first + it->second.n_bytes) return false;
    *range = {it->first, it->first + it->second.n_bytes, 0, 0};
    return true;
}

std::string memory_describe(u64 address)
{
    Memory &m = memory();
    auto number = [](u64 x) { return static_cast<unsigned long long>(x); };
    if (address < 4096) return "a null pointer";
    if (address >> WINDOW_BITS) return "an address of the shared, local or parameter window";
    if (Allocation *a = owner(address)) {
        std::string what = fault_format("allocation %llu (%s, %llu bytes at 0x%llx, device %d)", number(a->number),
                                        a->name.c_str(), number(a->n_bytes), number(a->begin), a->device);
        if (!a->live) return fault_format("%llu bytes into freed ", number(address - a->begin)) + what;
        Allocation *next = owner(address + GRANULE); /* an underrun ends in the granule before its allocation */
        u64 past = address - a->begin - a->n_bytes;
        if (address >= a->begin + a->n_bytes && next && next != a && next->live && next->begin - address < past)
            return fault_format("%llu bytes before allocation %llu (%s, %llu bytes at 0x%llx, device %d)",
                                number(next->begin - address), number(next->number), next->name.c_str(),
                                number(next->n_bytes), number(next->begin), next->device);
        if (address >= a->begin + a->n_bytes) return fault_format("%llu bytes past the end of ", number(past)) + what;
        return fault_format("%llu bytes into ", number(address - a->begin)) + what;
    }
    u64 offset = address - m.base;
    if (offset < MAX_DEVICES * DEVICE_SPAN) {
        u64 within = offset % DEVICE_SPAN;
        Allocation *next = owner(address + GRANULE);
        if (next)
            return fault_format("%llu bytes before allocation %llu", number(next->begin - address),
                                number(next->number));
        return fault_format("device %llu memory that was never allocated (offset 0x%llx)", number(offset / DEVICE_SPAN),
                            number(within));
    }
    auto it = pinned_at(m, address);
    if (it != m.pinned.end() && address < it->first + it->second.n_bytes + GRANULE) {
        u64 end = it->first + it->second.n_bytes;
        return fault_format("%llu bytes %s %s host memory of %llu bytes at 0x%llx",
                            number(address < end ? address - it->first : address - end),
                            address < end ? "into" : "past the end of", it->second.live ? "pinned" : "no longer pinned",
                            number(it->second.n_bytes), number(it->first));
    }
    return "no device address (host memory that is not pinned?)";
}

bool memory_is_device(u64 address)
{
    return address - memory().base < MAX_DEVICES * DEVICE_SPAN;
}

int memory_device_of(u64 address)
{
    return memory_is_device(address) ? static_cast<int>((address - memory().base) / DEVICE_SPAN) : -1;
}

const Allocation *memory_allocation(u64 address)
{
    Allocation *a = owner(address);
    return a && a->live && address < a->begin + a->n_bytes ? a : nullptr;
}

void memory_pin(void *p, u64 n_bytes, bool registered, const char *call)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    u64 address = reinterpret_cast<u64>(p);
    /* The host's allocator uses addresses again: what was there before is forgotten. */
    auto it = pinned_at(m, address);
    if (it != m.pinned.end() && it->second.live && address < it->first + it->second.n_bytes)
        fault_report(-1, cudaSuccess,
                     fault_format("%s(%p, %llu): %s", call, p, static_cast<unsigned long long>(n_bytes),
                                  memory_describe(address).c_str()));
    for (it = m.pinned.lower_bound(address); it != m.pinned.end() && it->first < address + n_bytes;)
        it = m.pinned.erase(it);
    m.pinned[address] = {n_bytes, registered, true};
}

bool memory_unpin(void *p, bool registered, const char *call)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    auto it = m.pinned.find(reinterpret_cast<u64>(p));
    if (it != m.pinned.end() && it->second.live && it->second.registered == registered) {
        it->second.live = false;
        return true;
    }
    fault_report(-1, cudaSuccess,
                 fault_format("%s(%p): %s", call, p,
                              it == m.pinned.end() ? "not the start of pinned memory"
                              : !it->second.live   ? "double free of pinned memory"
                                                   : "pinned by another kind of call"));
    return false;
}

bool memory_is_pinned(const void *p, u64 n_bytes)
{
    Memory &m = memory();
    std::lock_guard<std::mutex> guard(m.lock);
    u64 address = reinterpret_cast<u64>(p);
    auto it = pinned_at(m, address);
    return it != m.pinned.end() && it->second.live && address + n_bytes <= it->first + it->second.n_bytes;
}

u8 *memory_data(u64 address)
{
    return memory().data + (address - memory().base);
}

u8 *memory_state(u64 address)
{
    return memory().state + (address - memory().base);
}

void memory_allow_peer(int device, int peer, bool allowed)
{
    memory().peers[device][peer] = allowed;
}

bool memory_peer_allowed(int device, int peer)
{
    return memory().peers[device][peer];
}

} // namespace vgpu
