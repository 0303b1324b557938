#include "launch.h"

#include <algorithm>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <time.h>
#include "fault.h"
#include "memory.h"
#include "settings.h"

namespace vgpu
{
namespace
{

struct Stopped {
}; /* thrown through the operations after a fault was reported */

u64 mixed(u64 x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* ---- one warp ---- */

void find_next(Warp &w)
{
    w.next_pc = INT_MAX;
    for (int k = 0; k < w.n_groups; ++k)
        w.next_pc = std::min(w.next_pc, w.groups[k].pc);
}

void add_group(Warp &w, s32 pc, u32 mask)
{
    for (int k = 0; k < w.n_groups; ++k)
        if (w.groups[k].pc == pc) {
            w.groups[k].mask |= mask;
            return;
        }
    w.groups[w.n_groups++] = {pc, mask};
}

/* Makes the group with the smallest pc current, so that lanes which went apart meet again as early as they can. */
bool take_group(Warp &w)
{
    if (w.mask) add_group(w, w.pc, w.mask);
    w.mask = 0;
    if (w.n_groups == 0) return false;
    int best = 0;
    for (int k = 1; k < w.n_groups; ++k)
        if (w.groups[k].pc < w.groups[best].pc) best = k;
    w.pc = w.groups[best].pc;
    w.mask = w.groups[best].mask;
    w.groups[best] = w.groups[--w.n_groups];
    find_next(w);
    return true;
}

void wait_here(Warp &w, u32 mask)
{
    for (int k = 0; k < w.n_waiting; ++k)
        if (w.waiting[k].pc == w.pc) {
            w.waiting[k].mask |= mask;
            return;
        }
    w.waiting[w.n_waiting++] = {w.pc, mask};
}

std::string line_of(const Program &p, const Instr &i)
{
    return fault_format("PTX line %u: %s", p.texts[i.text].line, p.texts[i.text].text.c_str());
}

/* Nobody in the warp can go on, and it is not one barrier that all wait at. */
[[noreturn]] void stuck(Warp &w)
{
    const Program &p = *w.block->launch->program;
    const Instr &first = p.code[static_cast<size_t>(w.waiting[0].pc)];
    if (first.kind == Kind::BARRIER) {
        const Instr &other = p.code[static_cast<size_t>(w.waiting[1].pc)];
        warp_fault(w, first, __builtin_ctz(w.waiting[0].mask), cudaErrorLaunchFailure,
                   "divergent barrier: lanes 0x%08x wait here, lanes 0x%08x at %s", w.waiting[0].mask,
                   w.waiting[1].mask, line_of(p, other).c_str());
    }
    u32 need = first.r[MASK_OPERAND] == NO_REGISTER
                   ? ALL_LANES
                   : reg<u32>(w, first.r[MASK_OPERAND])[__builtin_ctz(w.waiting[0].mask)];
    u32 here = w.waiting[0].mask;
    if (first.guard != NO_REGISTER) {
        u32 g = *reg<u32>(w, first.guard);
        here &= first.guard_negated ? ~g : g;
    }
    warp_fault(w, first, __builtin_ctz(w.waiting[0].mask), cudaErrorLaunchFailure,
               "missing lanes: lanes 0x%08x are wanted, lanes 0x%08x are here, lanes 0x%08x never come", need, here,
               need & ~here);
}

/* All lanes that the instruction's mask names must be here. False: the group waits for others. */
__attribute__((noinline)) bool gather(Warp &w, const Instr &i, u32 *m)
{
    for (int k = 0; k < w.n_waiting; ++k)
        if (w.waiting[k].pc == w.pc) {
            w.mask |= w.waiting[k].mask;
            w.waiting[k] = w.waiting[--w.n_waiting];
            --k;
        }
    u32 all = w.mask;
    if (i.guard != NO_REGISTER) {
        u32 g = *reg<u32>(w, i.guard);
        all &= i.guard_negated ? ~g : g;
    }
    if (!all) {
        *m = 0;
        return true;
    }
    const u32 *wanted = i.r[MASK_OPERAND] == NO_REGISTER ? nullptr : reg<u32>(w, i.r[MASK_OPERAND]);
    for (u32 left = all; left;) {
        int lane = __builtin_ctz(left);
        u32 need = wanted ? wanted[lane] : ALL_LANES, same = 0;
        for (int l = 0; l < LANES; ++l)
            if ((left >> l & 1) && (!wanted || wanted[l] == need)) same |= 1u << l;
        if (same & ~need)
            warp_fault(w, i, __builtin_ctz(same & ~need), cudaErrorLaunchFailure,
                       "the lane is not in its own mask 0x%08x", need);
        if (need & ~same) {
            u32 gone = need & ~w.alive;
            if (gone)
                warp_fault(w, i, lane, cudaErrorLaunchFailure,
                           "missing lanes: lanes 0x%08x are wanted, but lanes 0x%08x have ended or never were", need,
                           gone);
            wait_here(w, w.mask);
            w.mask = 0;
            return false;
        }
        if (same != all) { /* several subsets, each complete: one after the other */
            i.op(w, i, same);
            all &= ~same;
            left &= ~same;
            continue;
        }
        left = 0;
    }
    *m = all;
    return true;
}

/* The usual case at once: the whole warp is here, and wanted. */
inline bool collective(Warp &w, const Instr &i, u32 *m)
{
    if (*m == ALL_LANES) {
        if (i.r[MASK_OPERAND] == NO_REGISTER) return true;
        const u32 *wanted = reg<u32>(w, i.r[MASK_OPERAND]);
        u32 every = ALL_LANES;
        for (int l = 0; l < LANES; ++l)
            every &= wanted[l];
        if (every == ALL_LANES) return true;
    }
    return gather(w, i, m);
}

void branch_table(Warp &w, const Instr &i, const Program &p, u32 m)
{
    const std::vector<s32> &table = p.tables[static_cast<size_t>(i.table)];
    const u32 *index = reg<u32>(w, i.r[0]);
    u32 rest = w.mask & ~m;
    s32 after = w.pc + 1;
    w.mask = 0;
    if (rest) add_group(w, after, rest);
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        if (index[l] >= table.size())
            warp_fault(w, i, l, cudaErrorLaunchFailure, "brx.idx %u of %zu targets", index[l], table.size());
        add_group(w, table[index[l]], 1u << l);
    }
}

/* Until the warp ends (true) or all its lanes wait at a barrier (false). */
bool run_warp(Warp &w, Program &p)
{
    const Instr *code = p.code.data();
    u8 *executed = p.executed.data();
    u64 count = 0;
    const u64 limit = settings().max_instructions;
    if (!w.mask && !take_group(w)) return true;
    for (;;) {
        if (w.pc >= w.next_pc || !w.mask) {
            if (!take_group(w)) {
                w.n_instr += count;
                if (w.n_waiting == 0) return true;
                if (w.n_waiting > 1 || code[w.waiting[0].pc].kind != Kind::BARRIER) stuck(w);
                w.at_barrier = true;
                return false;
            }
        }
        const Instr &i = code[w.pc];
        u32 m = w.mask;
        if (i.guard != NO_REGISTER) {
            u32 g = *reg<u32>(w, i.guard);
            m &= i.guard_negated ? ~g : g;
        }
        ++count;
        /* A branch is executed also when it is not taken. */
        if ((m || i.kind == Kind::BRANCH) && !executed[w.pc]) executed[w.pc] = 1;
        switch (i.kind) {
        case Kind::PLAIN:
            if (m) i.op(w, i, m);
            ++w.pc;
            break;
        case Kind::COLLECTIVE:
            if (collective(w, i, &m)) {
                if (m) i.op(w, i, m);
                ++w.pc;
            }
            break;
        case Kind::BRANCH:
            if (m == w.mask) {
                if (i.target <= w.pc && w.n_instr + count > limit)
                    warp_fault(w, i, __builtin_ctz(m), cudaErrorLaunchTimeout,
                               "the warp has run %llu instructions (VGPU_MAX_INSTRUCTIONS)",
                               static_cast<unsigned long long>(w.n_instr + count));
                w.pc = i.target;
            } else if (!m) {
                ++w.pc;
            } else {
                add_group(w, i.target, m);
                w.mask &= ~m;
                ++w.pc;
                find_next(w);
            }
            break;
        case Kind::BRANCH_TABLE:
            if (m)
                branch_table(w, i, p, m);
            else
                ++w.pc;
            break;
        case Kind::EXIT:
            w.alive &= ~m;
            w.mask &= ~m;
            ++w.pc;
            break;
        case Kind::BARRIER:
            if (m) {
                wait_here(w, m);
                w.mask &= ~m;
            }
            ++w.pc;
            break;
        case Kind::NOTHING:
            ++w.pc;
            break;
        }
    }
}

/* ---- one block ---- */

/* What a thread needs to run blocks of any launch; grows and is kept. */
struct Worker {
    std::vector<u8> registers, local, local_state, shared; /* shared: data, state, writer, reader */
    std::vector<Range> ranges;
    Warp warps[MAX_WARPS] = {};
    u8 *register_base = nullptr, *shared_base = nullptr;
    ~Worker()
    {
        for (Warp &w : warps)
            free(w.copies);
    }
};

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
                           line_of(p, j).c_str());
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

/* The same for every block of a launch. */
void prepare(Worker &worker, Launch &l, Block &b)
{
    Program &p = *l.program;
    b.launch = &l;
    b.n_threads = static_cast<int>(l.block.x * l.block.y * l.block.z);
    b.n_warps = (b.n_threads + LANES - 1) / LANES;
    b.races = b.n_warps > 1;
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

void run_block(Worker &worker, Launch &l, Block &b, u64 index)
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
        u64 draw = seed ? mixed(seed ^ mixed(index * 1315423911u + round)) : 0;
        int n = b.n_warps, begin = static_cast<int>(draw % static_cast<u64>(n)), step = draw >> 40 & 1 ? n - 1 : 1;
        if (n == 1) step = 0;
        for (int k = 0; k < n; ++k) {
            Warp &w = worker.warps[(begin + k * (step ? step : 1)) % n];
            if (w.done || w.at_barrier) continue;
            if (run_warp(w, p)) w.done = true, ++done;
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

/* Which block runs as number k: every block once, in an order that the seed turns around. */
u64 permuted(u64 k, u64 n, u64 seed, u64 launch)
{
    if (!seed || n < 2) return k;
    u64 draw = mixed(seed ^ mixed(launch));
    u64 step = draw % n, begin = (draw >> 32) % n;
    auto divisor = [](u64 a, u64 b) {
        while (b) {
            u64 t = a % b;
            a = b;
            b = t;
        }
        return a;
    };
    while (step == 0 || divisor(step, n) != 1)
        step = (step + 1) % n;
    return (begin + static_cast<u64>(static_cast<unsigned __int128>(k) * step % n)) % n;
}

/* Not inlined: the thread's own worker is looked up once per launch. */
__attribute__((noinline)) void work_with(Worker &worker, Launch &l)
{
    Block b = {};
    prepare(worker, l, b);
    u64 n = static_cast<u64>(l.grid.x) * l.grid.y * l.grid.z;
    try {
        while (!l.failed.load(std::memory_order_relaxed)) {
            u64 k = l.next_block.fetch_add(1);
            if (k >= n) break;
            run_block(worker, l, b, permuted(k, n, settings().seed, l.number));
        }
    } catch (const Stopped &) {
        l.failed = true;
    }
    u64 count = 0;
    for (int k = 0; k < b.n_warps; ++k)
        count += worker.warps[k].n_instr;
    l.n_instr += count;
}

void work(Launch &l)
{
    static thread_local Worker worker;
    work_with(worker, l);
}

/* ---- threads ---- */

/* Helpers that all take part in one launch at a time. */
class Pool
{
  public:
    void run(Launch *l)
    {
        std::lock_guard<std::mutex> one(use_);
        u64 blocks = static_cast<u64>(l->grid.x) * l->grid.y * l->grid.z;
        u64 helpers = std::min<u64>(static_cast<u64>(settings().n_threads - 1), blocks - 1);
        {
            std::lock_guard<std::mutex> guard(lock_);
            while (threads_ < helpers) {
                ++threads_;
                std::thread(&Pool::help, this).detach();
            }
            launch_ = l;
            wanted_ = helpers;
        }
        wake_.notify_all();
        work(*l);
        std::unique_lock<std::mutex> guard(lock_);
        wanted_ = 0; /* who has not come by now is not needed */
        idle_.wait(guard, [&] { return busy_ == 0; });
        launch_ = nullptr;
    }

  private:
    std::mutex use_, lock_;
    std::condition_variable wake_, idle_;
    Launch *launch_ = nullptr;
    u64 threads_ = 0, wanted_ = 0, busy_ = 0;

    void help()
    {
        std::unique_lock<std::mutex> guard(lock_);
        for (;;) {
            wake_.wait(guard, [&] { return wanted_ > 0; });
            --wanted_;
            ++busy_;
            Launch *l = launch_;
            guard.unlock();
            work(*l);
            guard.lock();
            if (--busy_ == 0) idle_.notify_all();
        }
    }
};

Pool &pool()
{
    static Pool *p = new Pool; /* its threads may outlive everything */
    return *p;
}

std::mutex fault_lock;

} // namespace

bool launch_run(Launch *launch)
{
    pool().run(launch);
    return !launch->failed;
}

void warp_fault(Warp &w, const Instr &i, int lane, cudaError_t error, const char *format, ...)
{
    Block &b = *w.block;
    Launch &l = *b.launch;
    va_list args;
    va_start(args, format);
    std::string what = fault_vformat(format, args);
    va_end(args);
    std::lock_guard<std::mutex> guard(fault_lock);
    if (!l.failed.exchange(true)) { /* the first fault of a launch is the one that is told */
        const ProgramText &text = l.program->texts[i.text];
        u32 t = w.index * LANES + static_cast<u32>(lane < 0 ? 0 : lane);
        std::string source = text.source_line ? fault_format(", source line %d", text.source_line) : std::string();
        fault_report(
            l.device, error,
            fault_format(
                "%s\n    kernel %s, PTX line %u: %s%s\n    block (%u, %u, %u), thread (%u, %u, %u), warp %u, lane %d",
                what.c_str(), l.program->pretty.c_str(), text.line, text.text.c_str(), source.c_str(), b.id.x, b.id.y,
                b.id.z, t % l.block.x, t / l.block.x % l.block.y, t / l.block.x / l.block.y, w.index, lane));
    }
    throw Stopped{};
}

bool warp_find_range(Warp &w, u64 address, Range *range)
{
    return memory_find(w.block->launch->device, address, range);
}

void warp_bad_address(Warp &w, const Instr &i, int lane, u64 address, unsigned n_bytes, const char *verb)
{
    int owner = memory_device_of(address), device = w.block->launch->device;
    std::string more = owner >= 0 && owner != device
                           ? fault_format(" (the kernel runs on device %d, without peer access)", device)
                           : std::string();
    u64 last = address + n_bytes - 1;
    const Allocation *a = memory_allocation(address);
    std::string where = a && a->device == device ? memory_describe(last) : memory_describe(address);
    warp_fault(w, i, lane, cudaErrorIllegalAddress, "%s %u bytes at 0x%llx: %s%s", verb, n_bytes,
               static_cast<unsigned long long>(address), where.c_str(), more.c_str());
}

AsyncCopy *warp_new_copy(Warp &w)
{
    if (w.n_copies == w.max_copies) {
        w.max_copies = w.max_copies ? 2 * w.max_copies : 64;
        w.copies = static_cast<AsyncCopy *>(realloc(w.copies, static_cast<size_t>(w.max_copies) * sizeof(AsyncCopy)));
        if (!w.copies) abort();
    }
    return &w.copies[w.n_copies++];
}

u64 warp_clock(Warp &)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<u64>(t.tv_sec) * 1000000000ull + static_cast<u64>(t.tv_nsec);
}

} // namespace vgpu
