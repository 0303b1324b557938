/* One warp: lanes that part at a branch become groups, and the group with the smallest instruction number runs, so that
 * they meet again as early as they can. Collective operations wait for the lanes they name, barriers for all. */
#include <algorithm>
#include <climits>
#include "execute.h"
#include "fault.h"
#include "settings.h"

namespace vgpu
{

std::string warp_line(const Program &p, const Instr &i)
{
    return fault_format("PTX line %u: %s", p.texts[i.text].line, p.texts[i.text].text.c_str());
}

namespace
{

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

/* Nobody in the warp can go on, and it is not one barrier that all wait at. */
[[noreturn]] void stuck(Warp &w)
{
    const Program &p = *w.block->launch->program;
    const Instr &first = p.code[static_cast<size_t>(w.waiting[0].pc)];
    if (first.kind == Kind::BARRIER) {
        const Instr &other = p.code[static_cast<size_t>(w.waiting[1].pc)];
        warp_fault(w, first, __builtin_ctz(w.waiting[0].mask), cudaErrorLaunchFailure,
                   "divergent barrier: lanes 0x%08x wait here, lanes 0x%08x at %s", w.waiting[0].mask,
                   w.waiting[1].mask, warp_line(p, other).c_str());
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

} // namespace

bool warp_run(Warp &w, Program &p)
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

} // namespace vgpu
