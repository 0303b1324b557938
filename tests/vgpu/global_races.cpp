/* Races in global memory between the blocks of one launch, told when VGPU_CHECK_GLOBAL asks for it: who last wrote and
 * read each byte in this launch. Blocks may run in any order, so a read of what another block writes, or two writes of
 * different values, have no certain result. Atomics do not race with atomics. A launch that is checked runs on one
 * thread. */
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>
#include "execute.h"
#include "memory.h"

namespace vgpu
{
namespace
{

/* 0 nobody, block + 1, or MANY; a writer also with ATOMIC. */
enum : u32 { ATOMIC = 0x80000000u, MANY = 0x7fffffffu };
enum : u64 { PAGE = 4096 };

struct Page {
    u32 writer[PAGE], reader[PAGE];
};

struct Races {
    std::unordered_map<u64, Page *> pages;
    std::vector<std::unique_ptr<Page>> all;
    size_t n_used = 0;
    u64 last = 0; /* number of the page met last */
    Page *last_page = nullptr;
};

Races &races()
{
    static Races *r = new Races; /* helpers of the pool may outlive everything */
    return *r;
}

Page &page_of(u64 address)
{
    Races &r = races();
    u64 number = address / PAGE;
    if (r.last_page && r.last == number) return *r.last_page;
    Page *&p = r.pages[number];
    if (!p) {
        if (r.n_used == r.all.size()) r.all.push_back(std::make_unique<Page>());
        p = r.all[r.n_used++].get();
        memset(p, 0, sizeof *p);
    }
    r.last = number;
    r.last_page = p;
    return *p;
}

u32 block_number(const Warp &w)
{
    const Block &b = *w.block;
    const dim3 &grid = b.launch->grid;
    return b.id.x + grid.x * (b.id.y + grid.y * b.id.z) + 1;
}

[[noreturn]] void race(Warp &w, const Instr &i, int lane, u64 address, const char *verb, u32 other, const char *did)
{
    const dim3 &grid = w.block->launch->grid;
    u32 n = (other & ~ATOMIC) - 1;
    char who[64];
    if ((other & ~ATOMIC) == MANY)
        snprintf(who, sizeof who, "several blocks have");
    else
        snprintf(who, sizeof who, "block (%u, %u, %u) has", n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y);
    warp_fault(w, i, lane, cudaErrorLaunchFailure,
               "race between blocks: %s global byte 0x%llx, which %s %s in this launch: %s", verb,
               static_cast<unsigned long long>(address), who, did, memory_describe(address).c_str());
}

const char *written(u32 writer)
{
    return writer & ATOMIC ? "changed by atomics" : "written";
}

} // namespace

void global_races_begin()
{
    Races &r = races();
    r.pages.clear();
    r.n_used = 0;
    r.last_page = nullptr;
}

void global_read(Warp &w, const Instr &i, int lane, u64 address, u32 n)
{
    u32 me = block_number(w);
    for (u64 k = address; k < address + n; ++k) {
        Page &p = page_of(k);
        u32 writer = p.writer[k % PAGE], &reader = p.reader[k % PAGE];
        if (writer && (writer & ~ATOMIC) != me) race(w, i, lane, k, "reads", writer, written(writer));
        reader = reader == 0 || reader == me ? me : u32{MANY};
    }
}

void global_write(Warp &w, const Instr &i, int lane, u64 address, u32 n, const u8 *before, const u8 *now)
{
    u32 me = block_number(w);
    for (u64 k = address; k < address + n; ++k) {
        Page &p = page_of(k);
        u32 &writer = p.writer[k % PAGE], reader = p.reader[k % PAGE];
        if (reader && reader != me) race(w, i, lane, k, "writes", reader, "read");
        bool others = writer && (writer & ~ATOMIC) != me;
        if (others && (writer & ATOMIC)) race(w, i, lane, k, "writes", writer, written(writer));
        if (others && before[k - address] != now[k - address])
            race(w, i, lane, k, "writes another value to", writer, written(writer));
        writer = others ? u32{MANY} : me;
    }
}

void global_atomic(Warp &w, const Instr &i, int lane, u64 address, u32 n)
{
    u32 me = block_number(w);
    for (u64 k = address; k < address + n; ++k) {
        Page &p = page_of(k);
        u32 &writer = p.writer[k % PAGE], reader = p.reader[k % PAGE];
        if (reader && reader != me) race(w, i, lane, k, "changes by atomics", reader, "read");
        bool others = writer && (writer & ~ATOMIC) != me;
        if (others && !(writer & ATOMIC)) race(w, i, lane, k, "changes by atomics", writer, written(writer));
        writer = others ? u32{MANY} | ATOMIC : writer == me ? me : me | ATOMIC; /* what I wrote alone stays written */
    }
}

} // namespace vgpu
