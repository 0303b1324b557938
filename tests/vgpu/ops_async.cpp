/* cp.async: nothing is copied when the copy is issued. Its target is marked as pending (reading it is a fault) until
 * the lane waits for the copy's group; only then do the bytes move. */
#include "shared_bytes.h"

namespace vgpu
{
namespace
{

/* r: shared address, source address, bytes taken from the source (the rest is zeros); imm, imm2 their offsets, n bytes.
 */
template <class U> void issue(Warp &w, const Instr &i, u32 m)
{
    constexpr u32 n = sizeof(U);
    u32 left = m;
    while (left) {
        u32 group = w.committed[__builtin_ctz(left)];
        AsyncCopy *copy = warp_new_copy(w);
        copy->mask = 0;
        copy->group = group;
        copy->n_bytes = n;
        copy->line = i.line;
        for (int l = 0; l < LANES; ++l) {
            if (!(left >> l & 1) || w.committed[l] != group) continue;
            copy->mask |= 1u << l;
            u64 to = (i.r[0] == NO_REGISTER ? 0
                      : i.width[0] == 8     ? reg<u64>(w, i.r[0])[l]
                                            : reg<u32>(w, i.r[0])[l]) +
                     static_cast<u64>(i.imm);
            if (to >> WINDOW_BITS == WINDOW_SHARED >> WINDOW_BITS) to -= WINDOW_SHARED;
            u64 from = reg<u64>(w, i.r[1])[l] + static_cast<u64>(i.imm2);
            u32 size = i.r[2] == NO_REGISTER ? n : reg<u32>(w, i.r[2])[l];
            if (size > n)
                warp_fault(w, i, l, cudaErrorInvalidValue, "cp.async of %u bytes takes %u from its source", n, size);
            u32 at = shared_offset(w, i, l, to, n, "cp.async writes");
            shared_write<U>(w, i, l, at, BYTE_PENDING);
            copy->to[l] = at;
            copy->from[l] = from;
            copy->n_source[l] = static_cast<u8>(size);
            copy->to_data[l] = copy->to_state[l] = 0;
            if (from % n)
                warp_fault(w, i, l, cudaErrorMisalignedAddress,
                           "cp.async reads %u bytes at 0x%llx: not a multiple of %u", n,
                           static_cast<unsigned long long>(from), n);
            if (size == 0) continue;
            Range &range = w.block->ranges[i.table];
            if (from < range.begin || from + size > range.end) {
                Range found;
                if (!warp_find_range(w, from, &found) || from + size > found.end)
                    warp_bad_address(w, i, l, from, size, "cp.async reads");
                range = found;
            }
            if (w.block->global_races) global_read(w, i, l, from, size);
            copy->to_data[l] = range.to_data;
            copy->to_state[l] = range.to_state;
        }
        left &= ~copy->mask;
    }
}

/* Source bytes that were never written stay so in shared memory: whoever uses them is told. */
inline void complete(Warp &w, const AsyncCopy &copy, int l)
{
    Block &b = *w.block;
    u32 at = copy.to[l], n = copy.n_source[l];
    if (n == 16 && copy.n_bytes == 16 && copy.to_state[l]) { /* the usual case, without calls */
        using U = unsigned __int128;
        store<U>(b.shared + at,
                 load<U>(reinterpret_cast<const u8 *>(copy.from[l] + static_cast<u64>(copy.to_data[l]))));
        store<U>(b.state + at,
                 load<U>(reinterpret_cast<const u8 *>(copy.from[l] + static_cast<u64>(copy.to_state[l]))));
        if (b.races) store<U>(b.writer + at, repeated<U>(static_cast<u8>(w.index + 1)));
        return;
    }
    memset(b.shared + at, 0, copy.n_bytes);
    memset(b.state + at, BYTE_WRITTEN, copy.n_bytes);
    if (n) memcpy(b.shared + at, reinterpret_cast<const u8 *>(copy.from[l] + static_cast<u64>(copy.to_data[l])), n);
    if (n && copy.to_state[l])
        memcpy(b.state + at, reinterpret_cast<const u8 *>(copy.from[l] + static_cast<u64>(copy.to_state[l])), n);
    if (b.races) memset(b.writer + at, static_cast<int>(w.index + 1), copy.n_bytes);
}

void commit(Warp &w, const Instr &, u32 m)
{
    EACH_LANE w.committed[l] += m >> l & 1;
}

/* imm: groups that may stay under way; -1: none, nor copies in no group yet (wait_all). */
void wait(Warp &w, const Instr &i, u32 m)
{
    int kept = 0;
    for (int k = 0; k < w.n_copies; ++k) {
        AsyncCopy &copy = w.copies[k];
        for (int l = 0; l < LANES; ++l) {
            if (!(copy.mask & m) || !(copy.mask >> l & m >> l & 1)) continue;
            if (i.imm >= 0 && static_cast<s64>(copy.group) >= static_cast<s64>(w.committed[l]) - i.imm) continue;
            complete(w, copy, l);
            copy.mask &= ~(1u << l);
        }
        if (copy.mask) {
            if (kept != k) w.copies[kept] = copy;
            ++kept;
        }
    }
    w.n_copies = kept;
}

} // namespace

extern const OpEntry async_ops[];
const OpEntry async_ops[] = {
    {"cp.async.4", issue<u32>},  {"cp.async.8", issue<u64>}, {"cp.async.16", issue<unsigned __int128>},
    {"cp.async.commit", commit}, {"cp.async.wait", wait},    {nullptr, nullptr},
};

} // namespace vgpu
