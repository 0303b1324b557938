/* Bytes of shared memory and their states: was the byte written, and which warps wrote and read it since the last
 * barrier. A read by one warp of what another wrote, a write over what another wrote or read: a race. Included by the
 * files of operations only (see lanes.h). */
#ifndef VGPU_SHARED_BYTES_H
#define VGPU_SHARED_BYTES_H

#include "lanes.h"

namespace vgpu
{
namespace
{

template <int N> struct UintOf;
template <> struct UintOf<1> {
    using type = u8;
};
template <> struct UintOf<2> {
    using type = u16;
};
template <> struct UintOf<4> {
    using type = u32;
};
template <> struct UintOf<8> {
    using type = u64;
};
template <> struct UintOf<16> {
    using type = unsigned __int128;
};

template <class U> inline U load(const u8 *p)
{
    U x;
    memcpy(&x, p, sizeof x);
    return x;
}

template <class U> inline void store(u8 *p, U x)
{
    memcpy(p, &x, sizeof x);
}

/* Every byte of the result is b. */
template <class U> inline U repeated(u8 b)
{
    if constexpr (sizeof(U) == 16)
        return static_cast<U>(0x0101010101010101ull * b) << 64 | 0x0101010101010101ull * b;
    else
        return static_cast<U>(static_cast<U>(0x0101010101010101ull) * b);
}

__attribute__((noinline, cold, unused)) void shared_read_fault(Warp &w, const Instr &i, int lane, u32 at, u32 n)
{
    Block &b = *w.block;
    u8 me = static_cast<u8>(w.index + 1);
    for (u32 k = at; k < at + n; ++k) {
        if (b.state[k] == BYTE_PENDING)
            warp_fault(w, i, lane, cudaErrorIllegalAddress,
                       "reads shared byte %u before the cp.async that fills it was waited for (cp.async.wait_group)",
                       k);
        if (b.state[k] == BYTE_GAP)
            warp_fault(w, i, lane, cudaErrorIllegalAddress,
                       "reads %u bytes at shared %u, past the end of a shared variable", n, at);
        if (b.state[k] != BYTE_WRITTEN)
            warp_fault(w, i, lane, cudaErrorIllegalAddress, "reads shared byte %u, which nobody has written", k);
        if (b.races && b.writer[k] != 0 && b.writer[k] != me) {
            if (b.writer[k] >= WARP_ATOMIC)
                warp_fault(w, i, lane, cudaErrorLaunchFailure,
                           "race: reads shared byte %u, changed by atomics since the last barrier", k);
            warp_fault(w, i, lane, cudaErrorLaunchFailure,
                       "race: reads shared byte %u, written by warp %d since the last barrier", k, b.writer[k] - 1);
        }
    }
}

__attribute__((noinline, cold, unused)) void shared_write_fault(Warp &w, const Instr &i, int lane, u32 at, u32 n,
                                                                bool atomic)
{
    Block &b = *w.block;
    u8 me = static_cast<u8>(w.index + 1);
    for (u32 k = at; k < at + n; ++k) {
        if (b.state[k] == BYTE_PENDING)
            warp_fault(w, i, lane, cudaErrorLaunchFailure,
                       "race: writes shared byte %u while a cp.async to it is still under way", k);
        if (b.state[k] == BYTE_GAP)
            warp_fault(w, i, lane, cudaErrorIllegalAddress,
                       "writes %u bytes at shared %u, past the end of a shared variable", n, at);
        if (!b.races) continue;
        if (b.writer[k] != 0 && b.writer[k] != me && !(atomic && b.writer[k] == WARP_ATOMIC)) {
            if (b.writer[k] >= WARP_ATOMIC)
                warp_fault(w, i, lane, cudaErrorLaunchFailure,
                           "race: writes shared byte %u, changed by atomics since the last barrier", k);
            warp_fault(w, i, lane, cudaErrorLaunchFailure,
                       "race: writes shared byte %u, written by warp %d since the last barrier", k, b.writer[k] - 1);
        }
        if (b.reader[k] == WARP_MANY)
            warp_fault(w, i, lane, cudaErrorLaunchFailure,
                       "race: writes shared byte %u, read by several warps since the last barrier", k);
        if (b.reader[k] != 0 && b.reader[k] != me)
            warp_fault(w, i, lane, cudaErrorLaunchFailure,
                       "race: writes shared byte %u, read by warp %d since the last barrier", k, b.reader[k] - 1);
    }
}

/* Checks and records a read of sizeof(U) bytes inside shared memory. */
template <class U> inline void shared_read(Warp &w, const Instr &i, int lane, u32 at)
{
    Block &b = *w.block;
    if (load<U>(b.state + at) != repeated<U>(BYTE_WRITTEN)) shared_read_fault(w, i, lane, at, sizeof(U));
    if (!b.races) return;
    U me = repeated<U>(static_cast<u8>(w.index + 1));
    U writer = load<U>(b.writer + at);
    if (writer != 0 && writer != me) shared_read_fault(w, i, lane, at, sizeof(U));
    U reader = load<U>(b.reader + at);
    if (reader == me || reader == repeated<U>(WARP_MANY)) return;
    if (reader == 0) {
        store<U>(b.reader + at, me);
        return;
    }
    for (u32 k = at; k < at + sizeof(U); ++k)
        b.reader[k] = b.reader[k] == 0 || b.reader[k] == w.index + 1 ? static_cast<u8>(w.index + 1) : u8{WARP_MANY};
}

/* Checks and records a write; state is what the bytes become. */
template <class U> inline void shared_write(Warp &w, const Instr &i, int lane, u32 at, u8 state = BYTE_WRITTEN)
{
    Block &b = *w.block;
    U old = load<U>(b.state + at);
    /* pending and gap have bit 1 set */
    if ((old & repeated<U>(2)) != 0) shared_write_fault(w, i, lane, at, sizeof(U), false);
    if (b.races) {
        U me = repeated<U>(static_cast<u8>(w.index + 1));
        U writer = load<U>(b.writer + at), reader = load<U>(b.reader + at);
        if ((writer != 0 && writer != me) || (reader != 0 && reader != me))
            shared_write_fault(w, i, lane, at, sizeof(U), false);
        store<U>(b.writer + at, me);
    }
    store<U>(b.state + at, repeated<U>(state));
}

/* An atomic operation reads and writes; atomics of other warps are no race. */
template <class U> inline void shared_atomic(Warp &w, const Instr &i, int lane, u32 at)
{
    Block &b = *w.block;
    if (load<U>(b.state + at) != repeated<U>(BYTE_WRITTEN)) shared_read_fault(w, i, lane, at, sizeof(U));
    if (!b.races) return;
    shared_write_fault(w, i, lane, at, sizeof(U), true);
    store<U>(b.writer + at, repeated<U>(WARP_ATOMIC));
}

inline u32 shared_offset(Warp &w, const Instr &i, int lane, u64 address, u32 n, const char *verb)
{
    if (address >= w.block->shared_bytes || w.block->shared_bytes - address < n)
        warp_fault(w, i, lane, cudaErrorIllegalAddress,
                   "%s %u bytes at shared 0x%llx: the block has %u bytes of shared memory", verb, n,
                   static_cast<unsigned long long>(address), w.block->shared_bytes);
    if (address % n)
        warp_fault(w, i, lane, cudaErrorMisalignedAddress, "%s %u bytes at shared %llu: not a multiple of %u", verb, n,
                   static_cast<unsigned long long>(address), n);
    return static_cast<u32>(address);
}

} // namespace
} // namespace vgpu
#endif
