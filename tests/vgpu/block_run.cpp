/* One block: its warps in turns, each from barrier to barrier, in an order that the seed turns around. */
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include "execute.h"
#include "settings.h"

namespace vgpu
{
namespace
{

u8 *aligned(std::vector<u8> &v, size_t n)
{
    if (v.size() < n + 128) v.assign(n + 128, 0);
    return reinterpret_cast<u8 *>((reinterpret_cast<uintptr_t>(v.data()) + 63) / 64 * 64);
}

void fill(Warp &w, s32 offset, u8 width, u64 value)
{
    if (width == 8)
        std::fill_n(reg<u64>(w, offset), LANES, value);
    else if (width == 4)
        std::fill_n(reg<u32>(w, offset), LANES, static_cast<u32>(value));
    else
        std::fill_n(reg<u16>(w, offset), LANES, static_cast<u16>(value));
}

u32 special_value(const Launch &l, const Block &b, int warp, int lane, Special what)
{
    u32 t = static_cast<u32>(warp * LANES + lane);
    switch (what) {
    case Special::TID_X:
        return t % l.block.x;
    case Special::TID_Y:
        return t / l.block.x % l.block.y;
    case Special::TID_Z:
        return t / l.block.x / l.block.y;
    case Special::NTID_X:
        return l.block.x;
    case Special::NTID_Y:
        return l.block.y;
    case Special::NTID_Z:
        return l.block.z;
    case Special::NCTAID_X:
        return l.grid.x;
    case Special::NCTAID_Y:
        return l.grid.y;
    case Special::NCTAID_Z:
        return l.grid.z;
    case Special::CTAID_X:
        return b.id.x;
    case Special::CTAID_Y:
        return b.id.y;
    case Special::CTAID_Z:
        return b.id.z;
    case Special::LANEID:
        return static_cast<u32>(lane);
    case Special::WARPID:
        return static_cast<u32>(warp);
    case Special::NWARPID:
        return static_cast<u32>(b.n_warps);
    case Special::LANEMASK_EQ:
        return 1u << lane;
    case Special::LANEMASK_LT:
        return (1u << lane) - 1;
    case Special::LANEMASK_LE:
        return (1u << lane) | ((1u << lane) - 1);
    case Special::LANEMASK_GT:
        return ~((1u << lane) | ((1u << lane) - 1));
    case Special::LANEMASK_GE:
        return ~((1u << lane) - 1);
    case Special::SMID:
        return (b.id.x + b.id.y * l.grid.x) % 108;
    case Special::NSMID:
        return 108;
    case Special::GRIDID:
        return static_cast<u32>(l.number);
    case Special::DYNAMIC_SMEM:
        return l.dynamic_shared;
    case Special::TOTAL_SMEM:
        return l.program->shared_bytes + l.dynamic_shared;
    }
    return 0;
}

void fill_special(Warp &w, const Launch &l, const ProgramSpecial &s, int warp)
{
    for (int lane = 0; lane < LANES; ++lane) {
        u32 v = special_value(l, *w.block, warp, lane, s.what);
        if (s.width == 8)
            reg<u64>(w, s.offset)[lane] = v;
        else if (s.width == 4)
            reg<u32>(w, s.offset)[lane] = v;
        else
            reg<u16>(w, s.offset)[lane] = static_cast<u16>(v);
    }
}

bool changes_with_block(Special s)
{
    return s == Special::CTAID_X || s == Special::CTAID_Y || s == Special::CTAID_Z || s == Special::SMID;
}

/* Releases the warps that wait at a barrier all of whose warps have come; false when none can go on. */
bool release_barriers(Block &b, Warp *warps, const Program &p)
{
    bool any = false;
    for (int first = 0; first < b.n_warps; ++first) {
        Warp &w = warps[first];
        if (w.done || !w.at_barrier) continue;
        const Instr &i = p.code[static_cast<size_t>(w.waiting[0].pc)];
        int lane = __builtin_ctz(w.waiting[0].mask);
        u32 id = reg<u32>(w, i.r[0])[lane];
        u32 threads = i.r[1] == NO_REGISTER ? 0 : reg<u32>(w, i.r[1])[lane];
        u32 arrived = 0, set = 0;
        int alive = 0;
        for (int k = 0; k < b.n_warps; ++k) {
            Warp &o = warps[k];
            if (o.done) {
                if (threads) continue;
                continue;
            }
            ++alive;
            if (!o.at_barrier) continue;
            const Instr &j = p.code[static_cast<size_t>(o.waiting[0].pc)];
            if (reg<u32>(o, j.r[0])[__builtin_ctz(o.waiting[0].mask)] != id) continue;
            if (&i != &j)
                warp_fault(w, i, lane, cudaErrorLaunchFailure,
                           "divergent barrier %u: warp %d waits here, warp %d at %s", id, first, k,
                           warp_line(p, j).c_str());
            arrived += LANES;
            set |= 1u << k;
        }
        if (threads ? arrived < threads : arrived < static_cast<u32>(alive) * LANES) continue;
        if (i.imm == 2) { /* bar.red: over the predicates of all threads */
            u32 total = 0, n = 0;
            for (int k = 0; k < b.n_warps; ++k) {
                if (!(set >> k & 1)) continue;
                u32 bits = *reg<u32>(warps[k], i.r[3]);
                if (i.n == 2) bits = ~bits;
                total += static_cast<u32>(__builtin_popcount(bits & warps[k].waiting[0].mask));
                n += static_cast<u32>(__builtin_popcount(warps[k].waiting[0].mask));
            }
            for (int k = 0; k < b.n_warps; ++k) {
                if (!(set >> k & 1) || i.r[2] == NO_REGISTER) continue;
                u32 m = warps[k].waiting[0].mask;
                if (i.imm2 == 0) {
                    for (int l = 0; l < LANES; ++l)
                        if (m >> l & 1) reg<u32>(warps[k], i.r[2])[l] = total;
                } else {
                    u32 yes = (i.imm2 == 1 ? total == n : total != 0) ? ALL_LANES : 0;
                    u32 *d = reg<u32>(warps[k], i.r[2]);
                    *d = (*d & ~m) | (yes & m);
                }
            }
        }
        for (int k = 0; k < b.n_warps; ++k) {
            if (!(set >> k & 1)) continue;
            Warp &o = warps[k];
            o.groups[0] = {o.waiting[0].pc + 1, o.waiting[0].mask};
            o.n_groups = 1;
            o.n_waiting = 0;
            o.mask = 0;
            o.next_pc = o.groups[0].pc;
            o.at_barrier = false;
        }
        any = true;
        if (!b.races) continue;
        if (static_cast<u32>(alive) * LANES == arrived) {
            memset(b.writer, 0, b.shared_bytes);
            memset(b.reader, 0, b.shared_bytes);
        } else { /* some warps only: what they did is ordered, what others did is not */
            for (u32 k = 0; k < b.shared_bytes; ++k) {
                if (b.writer[k] && b.writer[k] <= MAX_WARPS && (set >> (b.writer[k] - 1) & 1)) b.writer[k] = 0;
                if (b.reader[k] && b.reader[k] <= MAX_WARPS && (set >> (b.reader[k] - 1) & 1)) b.reader[k] = 0;
            }
        }
    }
    return any;
}

} // namespace

u64 seed_mix(u64 x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

void block_prepare(Worker &worker, Launch &l, Block &b)
{
    Program &p = *l.program;
    b.launch = &l;
    b.n_threads = static_cast<int>(l.block.x * l.block.y * l.block.z);
    b.n_warps = (b.n_threads + LANES - 1) / LANES;
    b.races = b.n_warps > 1;
    b.global_races = settings().check_global;
    b.shared_bytes = p.shared_bytes + l.dynamic_shared;
    size_t room = (b.shared_bytes + 63) / 64 * 64 + 64;
    u8 *shared = aligned(worker.shared, 4 * room);
    b.shared = shared;
    b.state = shared + room;
    b.writer = shared + 2 * room;
    b.reader = shared + 3 * room;
    b.params = l.params.data();
    b.param_bytes = static_cast<u32>(l.params.size());
    worker.ranges.assign(p.n_ranges + 1, Range{1, 0, 0, 0});
    b.ranges = worker.ranges.data();
    size_t n_warps = static_cast<size_t>(b.n_warps);
    u8 *registers = aligned(worker.registers, n_warps * p.register_bytes);
    /* Registers that nobody writes read as NaN and as huge numbers, not as zeros of the last launch. */
    memset(registers, 0xff, n_warps * p.register_bytes);
    u32 local = (p.local_bytes + 15) / 16 * 16;
    u8 *local_data = aligned(worker.local, n_warps * LANES * local);
    u8 *local_state = aligned(worker.local_state, n_warps * LANES * local);
    for (int k = 0; k < b.n_warps; ++k) {
        Warp &w = worker.warps[k];
        w.r = registers + static_cast<size_t>(k) * p.register_bytes;
        w.block = &b;
        w.index = static_cast<u32>(k);
        w.local_bytes = local;
        w.local = local_data + static_cast<size_t>(k) * LANES * local;
        w.local_state = local_state + static_cast<size_t>(k) * LANES * local;
        w.n_instr = 0;
        for (size_t c = 0; c < p.constants.size(); ++c)
            fill(w, p.constants[c].offset, p.constants[c].width, p.constants[c].value + l.symbols[c]);
        for (const ProgramSpecial &s : p.specials)
            fill_special(w, l, s, k);
    }
}

void block_run(Worker &worker, Launch &l, Block &b, u64 index)
{
    Program &p = *l.program;
    b.id = dim3(static_cast<u32>(index % l.grid.x), static_cast<u32>(index / l.grid.x % l.grid.y),
                static_cast<u32>(index / l.grid.x / l.grid.y));
    memset(b.state, BYTE_UNWRITTEN, b.shared_bytes);
    for (auto [begin, end] : p.gaps)
        memset(b.state + begin, BYTE_GAP, end - begin);
    if (b.races) {
        memset(b.writer, 0, b.shared_bytes);
        memset(b.reader, 0, b.shared_bytes);
    }
    for (int k = 0; k < b.n_warps; ++k) {
        Warp &w = worker.warps[k];
        int left = b.n_threads - k * LANES;
        w.alive = w.mask = left >= LANES ? ALL_LANES : (1u << left) - 1;
        w.pc = 0;
        w.next_pc = INT_MAX;
        w.n_groups = w.n_waiting = 0;
        w.at_barrier = w.done = false;
        w.carry = 0;
        w.n_copies = 0;
        memset(w.committed, 0, sizeof w.committed);
        if (w.local_bytes) memset(w.local_state, BYTE_UNWRITTEN, static_cast<size_t>(w.local_bytes) * LANES);
        for (const ProgramSpecial &s : p.specials)
            if (changes_with_block(s.what)) fill_special(w, l, s, k);
    }
    u64 seed = settings().seed, round = 0;
    for (int done = 0; done < b.n_warps; ++round) {
        /* Plain order without a seed; else each round begins elsewhere and may go backwards. */
        u64 draw = seed ? seed_mix(seed ^ seed_mix(index * 1315423911u + round)) : 0;
        int n = b.n_warps, begin = static_cast<int>(draw % static_cast<u64>(n)), step = draw >> 40 & 1 ? n - 1 : 1;
        if (n == 1) step = 0;
        for (int k = 0; k < n; ++k) {
            Warp &w = worker.warps[(begin + k * (step ? step : 1)) % n];
            if (w.done || w.at_barrier) continue;
            if (warp_run(w, p)) w.done = true, ++done;
            if (l.failed.load(std::memory_order_relaxed)) throw Stopped{};
        }
        if (done == b.n_warps) break;
        if (!release_barriers(b, worker.warps, p)) {
            for (int k = 0; k < n; ++k) {
                Warp &w = worker.warps[k];
                if (w.done) continue;
                const Instr &i = p.code[static_cast<size_t>(w.waiting[0].pc)];
                warp_fault(w, i, __builtin_ctz(w.waiting[0].mask), cudaErrorLaunchFailure,
                           "the barrier is never complete: not all warps that it waits for come to it");
            }
        }
    }
}

} // namespace vgpu
