/* Places the many virtual registers of PTX into few: one that is no longer needed gives its place to another of the
 * same width. A warp's registers then fit a cache. Each lane has a place of its own in every register, so what holds
 * for one thread holds for a warp whose lanes are at different instructions. */
#include <algorithm>
#include <unordered_map>
#include "program.h"

namespace vgpu
{
namespace
{

using Bits = std::vector<u64>;

struct BasicBlock {
    size_t begin, end; /* instructions [begin, end) */
    std::vector<size_t> next;
    Bits used, written, live_in, live_out; /* used: read before it is written in the block */
};

struct Interval {
    size_t begin, end, id;
    bool known = false;
};

bool has(const Bits &b, size_t k)
{
    return b[k / 64] >> (k % 64) & 1;
}

void put(Bits &b, size_t k)
{
    b[k / 64] |= 1ull << (k % 64);
}

std::vector<BasicBlock> cut(const Program &p)
{
    std::vector<bool> first(p.code.size() + 1);
    first[0] = true;
    for (size_t pc = 0; pc < p.code.size(); ++pc) {
        const Instr &i = p.code[pc];
        if (i.kind == Kind::BRANCH) first[static_cast<size_t>(i.target)] = true;
        if (i.kind == Kind::BRANCH_TABLE)
            for (s32 target : p.tables[static_cast<size_t>(i.table)])
                first[static_cast<size_t>(target)] = true;
        if (i.kind == Kind::BRANCH || i.kind == Kind::BRANCH_TABLE || i.kind == Kind::EXIT) first[pc + 1] = true;
    }
    std::vector<BasicBlock> blocks;
    std::vector<size_t> block_of(p.code.size() + 1);
    for (size_t pc = 0; pc < p.code.size(); ++pc) {
        if (first[pc]) blocks.push_back({pc, pc, {}, {}, {}, {}, {}});
        blocks.back().end = pc + 1;
        block_of[pc] = blocks.size() - 1;
    }
    for (BasicBlock &b : blocks) {
        const Instr &i = p.code[b.end - 1];
        bool through = true;
        if (i.kind == Kind::BRANCH) {
            b.next.push_back(block_of[static_cast<size_t>(i.target)]);
            through = i.guard != NO_REGISTER;
        } else if (i.kind == Kind::BRANCH_TABLE) {
            for (s32 target : p.tables[static_cast<size_t>(i.table)])
                b.next.push_back(block_of[static_cast<size_t>(target)]);
            through = i.guard != NO_REGISTER;
        } else if (i.kind == Kind::EXIT) {
            through = i.guard != NO_REGISTER;
        }
        if (through && b.end < p.code.size()) b.next.push_back(block_of[b.end]);
    }
    return blocks;
}

} // namespace

void program_place_registers(Program *program, const std::vector<ProgramRegister> &registers)
{
    Program &p = *program;
    std::unordered_map<s32, size_t> id_of;
    for (size_t k = 0; k < registers.size(); ++k)
        id_of[registers[k].offset] = k;
    const size_t n = registers.size(), words = (n + 63) / 64;
    auto id = [&](s32 offset) {
        auto it = id_of.find(offset);
        return it == id_of.end() ? n : it->second; /* n: a constant or a special register */
    };
    auto each_operand = [&](const Instr &i, auto f) {
        for (int k = 0; k < MAX_OPERANDS; ++k)
            if (i.r[k] != NO_REGISTER && id(i.r[k]) < n) f(id(i.r[k]), (i.written >> k & 1) != 0);
        if (i.guard != NO_REGISTER && id(i.guard) < n) f(id(i.guard), false);
    };

    std::vector<BasicBlock> blocks = cut(p);
    for (BasicBlock &b : blocks) {
        b.used = b.written = b.live_in = b.live_out = Bits(words);
        for (size_t pc = b.begin; pc < b.end; ++pc) {
            const Instr &i = p.code[pc];
            each_operand(i, [&](size_t k, bool is_written) {
                if (!is_written && !has(b.written, k)) put(b.used, k);
            });
            each_operand(i, [&](size_t k, bool is_written) {
                if (!is_written) return;
                /* A guarded write leaves the old value to some lanes. */
                if (i.guard != NO_REGISTER && !has(b.written, k))
                    put(b.used, k);
                else
                    put(b.written, k);
            });
        }
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t k = blocks.size(); k-- > 0;) {
            BasicBlock &b = blocks[k];
            for (size_t word = 0; word < words; ++word) {
                u64 out = 0;
                for (size_t next : b.next)
                    out |= blocks[next].live_in[word];
                u64 in = b.used[word] | (out & ~b.written[word]);
                changed = changed || in != b.live_in[word] || out != b.live_out[word];
                b.live_in[word] = in;
                b.live_out[word] = out;
            }
        }
    }

    std::vector<Interval> intervals(n);
    auto cover = [&](size_t k, size_t at) {
        Interval &v = intervals[k];
        if (!v.known) v = {at, at, k, true};
        v.begin = std::min(v.begin, at);
        v.end = std::max(v.end, at);
    };
    for (const BasicBlock &b : blocks) {
        for (size_t pc = b.begin; pc < b.end; ++pc)
            each_operand(p.code[pc], [&](size_t k, bool) { cover(k, pc); });
        for (size_t k = 0; k < n; ++k) {
            if (has(b.live_in, k)) cover(k, b.begin);
            if (has(b.live_out, k)) cover(k, b.end - 1);
        }
    }

    /* Constants and special registers first: they keep their places. */
    u32 end = 0;
    std::unordered_map<s32, s32> moved;
    auto fresh = [&](unsigned width) {
        if (width) end = (end + 63) / 64 * 64;
        s32 offset = static_cast<s32>(end);
        end += width == 0 ? 4 : width * LANES;
        return offset;
    };
    for (ProgramConstant &c : p.constants)
        c.offset = moved[c.offset] = fresh(c.width);
    for (ProgramSpecial &s : p.specials)
        s.offset = moved[s.offset] = fresh(s.width);

    std::sort(intervals.begin(), intervals.end(),
              [](const Interval &a, const Interval &b) { return a.begin < b.begin; });
    std::vector<s32> unused[9];                    /* by width */
    std::vector<std::pair<size_t, size_t>> living; /* a heap: (last instruction, register), the earliest on top */
    auto later = [](const std::pair<size_t, size_t> &a, const std::pair<size_t, size_t> &b) {
        return a.first > b.first;
    };
    for (const Interval &v : intervals) {
        if (!v.known) continue;
        /* Strictly before: a result never takes the place of its own operands. */
        while (!living.empty() && living.front().first < v.begin) {
            size_t k = living.front().second;
            unused[registers[k].width].push_back(moved[registers[k].offset]);
            std::pop_heap(living.begin(), living.end(), later);
            living.pop_back();
        }
        std::vector<s32> &free_places = unused[registers[v.id].width];
        s32 offset;
        if (free_places.empty()) {
            offset = fresh(registers[v.id].width);
        } else {
            offset = free_places.back();
            free_places.pop_back();
        }
        moved[registers[v.id].offset] = offset;
        living.emplace_back(v.end, v.id);
        std::push_heap(living.begin(), living.end(), later);
    }
    for (Instr &i : p.code) {
        for (s32 &r : i.r)
            if (r != NO_REGISTER) r = moved.at(r);
        if (i.guard != NO_REGISTER) i.guard = moved.at(i.guard);
    }
    p.register_bytes = (end + 63) / 64 * 64;
}

} // namespace vgpu
