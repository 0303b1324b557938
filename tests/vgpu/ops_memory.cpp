/* Loads and stores in every space. All checks are here: bounds, alignment, memory never written. */
#include "shared_bytes.h"

namespace vgpu
{
namespace
{

/* Addresses of all lanes; those of idle lanes are the first active lane's, so that loops need no mask. */
inline void addresses(Warp &w, s32 r, u8 width, s64 offset, u32 m, u64 *a)
{
    if (r == NO_REGISTER) {
        EACH_LANE a[l] = static_cast<u64>(offset);
        return;
    }
    if (width == 8) {
        const u64 *base = reg<u64>(w, r);
        EACH_LANE a[l] = base[l] + static_cast<u64>(offset);
    } else {
        const u32 *base = reg<u32>(w, r);
        EACH_LANE a[l] = static_cast<u64>(base[l]) + static_cast<u64>(offset);
    }
    if (m != ALL_LANES) {
        u64 first = a[__builtin_ctz(m)];
        EACH_LANE a[l] = (m >> l & 1) ? a[l] : first;
    }
}

inline bool contiguous(const u64 *a, u64 n)
{
    u64 odd = 0;
    EACH_LANE odd |= a[l] ^ (a[0] + n * static_cast<u64>(l));
    return odd == 0;
}

__attribute__((noinline, cold)) void misaligned(Warp &w, const Instr &i, u32 m, const u64 *a, u32 n, const char *verb)
{
    for (int l = 0; l < LANES; ++l)
        if ((m >> l & 1) && a[l] % n)
            warp_fault(w, i, l, cudaErrorMisalignedAddress, "%s %u bytes at 0x%llx: not a multiple of %u", verb, n,
                       static_cast<unsigned long long>(a[l]), n);
}

/* The one allocation that holds all lanes' bytes, or NULL when they lie in several. Faults when one lies in none. */
inline const Range *common_range(Warp &w, const Instr &i, u32 m, const u64 *a, u32 n, const char *verb)
{
    s64 low = static_cast<s64>(a[0]), high = low, bits = 0;
    EACH_LANE
    {
        s64 x = static_cast<s64>(a[l]);
        low = x < low ? x : low;
        high = x > high ? x : high;
        bits |= x;
    }
    if (bits & (n - 1)) misaligned(w, i, m, a, n, verb);
    Range &range = w.block->ranges[i.table];
    u64 begin = static_cast<u64>(low), end = static_cast<u64>(high) + n;
    if (begin >= range.begin && end <= range.end) return &range;
    Range found;
    for (int l = 0; l < LANES; ++l)
        if ((m >> l & 1) && (!warp_find_range(w, a[l], &found) || a[l] + n > found.end))
            warp_bad_address(w, i, l, a[l], n, verb);
    if (begin < found.begin || end > found.end) return nullptr;
    range = found;
    return &range;
}

/* Widths: M in memory, the register may be wider (loads extend, stores cut). */
template <class M> inline void set_lane(Warp &w, s32 r, u8 width, int l, M v)
{
    if (r == NO_REGISTER) return;
    if (width == 8)
        reg<u64>(w, r)[l] = static_cast<u64>(static_cast<s64>(v));
    else if (width == 4)
        reg<u32>(w, r)[l] = static_cast<u32>(v);
    else
        reg<u16>(w, r)[l] = static_cast<u16>(v);
}

template <class M> inline M get_lane(Warp &w, s32 r, u8 width, int l)
{
    if (width == 8) return static_cast<M>(reg<u64>(w, r)[l]);
    if (width == 4) return static_cast<M>(reg<u32>(w, r)[l]);
    return static_cast<M>(reg<u16>(w, r)[l]);
}

template <class D, class M, int N> inline void take_strided(Warp &w, s32 r, const u8 *p, int k)
{
    D *d = reg<D>(w, r);
    EACH_LANE d[l] = static_cast<D>(load<M>(p + (static_cast<size_t>(l) * N + static_cast<size_t>(k)) * sizeof(M)));
}

template <class D, class M, int N> inline void give_strided(Warp &w, s32 r, u8 *p, int k)
{
    const D *d = reg<D>(w, r);
    EACH_LANE store<M>(p + (static_cast<size_t>(l) * N + static_cast<size_t>(k)) * sizeof(M), static_cast<M>(d[l]));
}

/* All 32 lanes from, or to, one run of memory. */
template <class M, int N> inline void load_run(Warp &w, const Instr &i, const u8 *p)
{
    for (int k = 0; k < N; ++k) {
        if (i.r[k] == NO_REGISTER) continue;
        if (i.width[k] == sizeof(M) && N == 1)
            memcpy(w.r + i.r[k], p, sizeof(M) * LANES);
        else if (i.width[k] == 8)
            take_strided<typename std::conditional<(M(-1) < M(0)), s64, u64>::type, M, N>(w, i.r[k], p, k);
        else if (i.width[k] == 4)
            take_strided<u32, M, N>(w, i.r[k], p, k);
        else
            take_strided<u16, M, N>(w, i.r[k], p, k);
    }
}

template <class M, int N> inline void store_run(Warp &w, const Instr &i, u8 *p)
{
    for (int k = 0; k < N; ++k) {
        if (i.width[1 + k] == sizeof(M) && N == 1)
            memcpy(p, w.r + i.r[1 + k], sizeof(M) * LANES);
        else if (i.width[1 + k] == 8)
            give_strided<u64, M, N>(w, i.r[1 + k], p, k);
        else if (i.width[1 + k] == 4)
            give_strided<u32, M, N>(w, i.r[1 + k], p, k);
        else
            give_strided<u16, M, N>(w, i.r[1 + k], p, k);
    }
}

inline bool all_written(const u8 *state, size_t n)
{
    u64 missing = 0;
    for (size_t k = 0; k < n; k += 8)
        missing |= load<u64>(state + k) ^ repeated<u64>(BYTE_WRITTEN);
    return missing == 0;
}

__attribute__((noinline, cold)) void unwritten(Warp &w, const Instr &i, int lane, u64 address, const u8 *state, u32 n)
{
    for (u32 k = 0; k < n; ++k)
        if (state[k] != BYTE_WRITTEN)
            warp_fault(w, i, lane, cudaErrorIllegalAddress,
                       "reads %u bytes at 0x%llx: byte %u of them was never written", n,
                       static_cast<unsigned long long>(address), k);
}

template <class M, int N> void load_global(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    const Range *range = common_range(w, i, m, a, bytes, "reads");
    if (range == nullptr) { /* several allocations: lane by lane */
        for (int l = 0; l < LANES; ++l) {
            if (!(m >> l & 1)) continue;
            u64 one[LANES];
            for (u64 &x : one)
                x = a[l];
            load_global<M, N>(w, i, 1u << l, one);
        }
        return;
    }
    if (w.block->global_races)
        for (int l = 0; l < LANES; ++l)
            if (m >> l & 1) global_read(w, i, l, a[l], bytes);
    if (m == ALL_LANES && bytes * LANES % 8 == 0 && contiguous(a, bytes)) {
        const u8 *state =
            range->to_state ? reinterpret_cast<const u8 *>(a[0] + static_cast<u64>(range->to_state)) : nullptr;
        if (state && !all_written(state, bytes * LANES))
            for (int l = 0; l < LANES; ++l)
                unwritten(w, i, l, a[l], state + static_cast<u32>(l) * bytes, bytes);
        load_run<M, N>(w, i, reinterpret_cast<const u8 *>(a[0] + static_cast<u64>(range->to_data)));
        return;
    }
    using U = typename UintOf<bytes>::type;
    if (range->to_state)
        for (int l = 0; l < LANES; ++l) {
            const u8 *state = reinterpret_cast<const u8 *>(a[l] + static_cast<u64>(range->to_state));
            if (load<U>(state) != repeated<U>(BYTE_WRITTEN) && (m >> l & 1)) unwritten(w, i, l, a[l], state, bytes);
        }
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        const u8 *p = reinterpret_cast<const u8 *>(a[l] + static_cast<u64>(range->to_data));
        for (int k = 0; k < N; ++k)
            set_lane<M>(w, i.r[k], i.width[k], l, load<M>(p + static_cast<size_t>(k) * sizeof(M)));
    }
}

template <class M, int N> void store_global(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    const Range *range = common_range(w, i, m, a, bytes, "writes");
    if (range == nullptr) {
        for (int l = 0; l < LANES; ++l) {
            if (!(m >> l & 1)) continue;
            u64 one[LANES];
            for (u64 &x : one)
                x = a[l];
            store_global<M, N>(w, i, 1u << l, one);
        }
        return;
    }
    if (m == ALL_LANES && !w.block->global_races && contiguous(a, bytes)) {
        store_run<M, N>(w, i, reinterpret_cast<u8 *>(a[0] + static_cast<u64>(range->to_data)));
        if (range->to_state)
            memset(reinterpret_cast<u8 *>(a[0] + static_cast<u64>(range->to_state)), BYTE_WRITTEN, bytes * LANES);
        return;
    }
    using U = typename UintOf<bytes>::type;
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        u8 *p = reinterpret_cast<u8 *>(a[l] + static_cast<u64>(range->to_data));
        const U before = load<U>(p);
        for (int k = 0; k < N; ++k)
            store<M>(p + static_cast<size_t>(k) * sizeof(M), get_lane<M>(w, i.r[1 + k], i.width[1 + k], l));
        if (w.block->global_races) global_write(w, i, l, a[l], bytes, reinterpret_cast<const u8 *>(&before), p);
        if (range->to_state)
            store<U>(reinterpret_cast<u8 *>(a[l] + static_cast<u64>(range->to_state)), repeated<U>(BYTE_WRITTEN));
    }
}

/* Offsets of all lanes in shared memory, checked at once; told lane by lane when one is wrong. */
inline void shared_offsets(Warp &w, const Instr &i, u32 m, const u64 *a, u32 n, const char *verb, u32 *at)
{
    u64 high = 0, bits = 0;
    EACH_LANE
    {
        high = a[l] > high ? a[l] : high;
        bits |= a[l];
        at[l] = static_cast<u32>(a[l]);
    }
    if (high + n > w.block->shared_bytes || high + n < high || (bits & (n - 1)))
        for (int l = 0; l < LANES; ++l)
            if (m >> l & 1) shared_offset(w, i, l, a[l], n, verb);
}

template <class D, class M> inline void gather(Warp &w, s32 r, u32 m, const u8 *from, const u32 *at)
{
    D t[LANES];
    EACH_LANE t[l] = static_cast<D>(load<M>(from + at[l]));
    write_lanes(reg<D>(w, r), t, m);
}

template <class M, int N> void load_shared(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    using U = typename UintOf<bytes>::type;
    u32 at[LANES];
    shared_offsets(w, i, m, a, bytes, "reads", at);
    /* Neighbours often read the same bytes: one check for all of them. */
    u32 last = ~0u;
    for (int l = 0; l < LANES; ++l) {
        if (at[l] == last || !(m >> l & 1)) continue;
        last = at[l];
        shared_read<U>(w, i, l, last);
    }
    for (int k = 0; k < N; ++k) {
        const u8 *from = w.block->shared + static_cast<size_t>(k) * sizeof(M);
        if (i.r[k] == NO_REGISTER) continue;
        if (i.width[k] == 8)
            gather<typename std::conditional<(M(-1) < M(0)), s64, u64>::type, M>(w, i.r[k], m, from, at);
        else if (i.width[k] == 4)
            gather<u32, M>(w, i.r[k], m, from, at);
        else
            gather<u16, M>(w, i.r[k], m, from, at);
    }
}

template <class D, class M> inline void scatter(Warp &w, s32 r, u32 m, u8 *to, const u32 *at)
{
    const D *d = reg<D>(w, r);
    for (int l = 0; l < LANES; ++l)
        if (m >> l & 1) store<M>(to + at[l], static_cast<M>(d[l]));
}

template <class M, int N> void store_shared(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    using U = typename UintOf<bytes>::type;
    u32 at[LANES];
    shared_offsets(w, i, m, a, bytes, "writes", at);
    for (int l = 0; l < LANES; ++l)
        if (m >> l & 1) shared_write<U>(w, i, l, at[l]);
    for (int k = 0; k < N; ++k) {
        u8 *to = w.block->shared + static_cast<size_t>(k) * sizeof(M);
        if (i.width[1 + k] == 8)
            scatter<u64, M>(w, i.r[1 + k], m, to, at);
        else if (i.width[1 + k] == 4)
            scatter<u32, M>(w, i.r[1 + k], m, to, at);
        else
            scatter<u16, M>(w, i.r[1 + k], m, to, at);
    }
}

inline u32 local_offset(Warp &w, const Instr &i, int lane, u64 address, u32 n, const char *verb)
{
    if (address >= w.local_bytes || w.local_bytes - address < n)
        warp_fault(w, i, lane, cudaErrorIllegalAddress,
                   "%s %u bytes at local 0x%llx: the thread has %u bytes of local memory", verb, n,
                   static_cast<unsigned long long>(address), w.local_bytes);
    if (address % n)
        warp_fault(w, i, lane, cudaErrorMisalignedAddress, "%s %u bytes at local %llu: not a multiple of %u", verb, n,
                   static_cast<unsigned long long>(address), n);
    return static_cast<u32>(address);
}

template <class M, int N> void load_local(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    using U = typename UintOf<bytes>::type;
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        size_t at = local_offset(w, i, l, a[l], bytes, "reads") + static_cast<size_t>(l) * w.local_bytes;
        if (load<U>(w.local_state + at) != repeated<U>(BYTE_WRITTEN))
            warp_fault(w, i, l, cudaErrorIllegalAddress,
                       "reads %u bytes at local %llu, which the thread has not written", bytes,
                       static_cast<unsigned long long>(a[l]));
        for (int k = 0; k < N; ++k)
            set_lane<M>(w, i.r[k], i.width[k], l, load<M>(w.local + at + static_cast<size_t>(k) * sizeof(M)));
    }
}

template <class M, int N> void store_local(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    constexpr u32 bytes = sizeof(M) * N;
    using U = typename UintOf<bytes>::type;
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        size_t at = local_offset(w, i, l, a[l], bytes, "writes") + static_cast<size_t>(l) * w.local_bytes;
        for (int k = 0; k < N; ++k)
            store<M>(w.local + at + static_cast<size_t>(k) * sizeof(M), get_lane<M>(w, i.r[1 + k], i.width[1 + k], l));
        store<U>(w.local_state + at, repeated<U>(BYTE_WRITTEN));
    }
}

template <class M, int N> void load_param(Warp &w, const Instr &i, u32 m, const u64 *a)
{
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        if (a[l] > w.block->param_bytes || w.block->param_bytes - a[l] < sizeof(M) * N)
            warp_fault(w, i, l, cudaErrorIllegalAddress, "reads %zu bytes at parameter byte %llu: there are %u",
                       sizeof(M) * N, static_cast<unsigned long long>(a[l]), w.block->param_bytes);
        for (int k = 0; k < N; ++k)
            set_lane<M>(w, i.r[k], i.width[k], l, load<M>(w.block->params + a[l] + static_cast<size_t>(k) * sizeof(M)));
    }
}

enum Space { GLOBAL, SHARED, LOCAL, PARAM, GENERIC };

template <class M, int N, Space S> void load_space(Warp &w, const Instr &i, u32 m)
{
    u64 a[LANES];
    addresses(w, i.r[N], i.width[N], i.imm, m, a);
    if constexpr (S == GLOBAL)
        load_global<M, N>(w, i, m, a);
    else if constexpr (S == SHARED)
        load_shared<M, N>(w, i, m, a);
    else if constexpr (S == LOCAL)
        load_local<M, N>(w, i, m, a);
    else if constexpr (S == PARAM)
        load_param<M, N>(w, i, m, a);
    else {
        u32 in[4] = {0, 0, 0, 0};
        for (int l = 0; l < LANES; ++l)
            if (m >> l & 1) in[a[l] >> WINDOW_BITS < 4 ? a[l] >> WINDOW_BITS : 0] |= 1u << l;
        if (in[0]) {
            u64 own[LANES];
            EACH_LANE own[l] = (in[0] >> l & 1) ? a[l] : a[__builtin_ctz(in[0])];
            load_global<M, N>(w, i, in[0], own);
        }
        EACH_LANE a[l] &= (1ull << WINDOW_BITS) - 1;
        if (in[1]) load_shared<M, N>(w, i, in[1], a);
        if (in[2]) load_local<M, N>(w, i, in[2], a);
        if (in[3]) load_param<M, N>(w, i, in[3], a);
    }
}

template <class M, int N, Space S> void store_space(Warp &w, const Instr &i, u32 m)
{
    u64 a[LANES];
    addresses(w, i.r[0], i.width[0], i.imm, m, a);
    if constexpr (S == GLOBAL)
        store_global<M, N>(w, i, m, a);
    else if constexpr (S == SHARED)
        store_shared<M, N>(w, i, m, a);
    else if constexpr (S == LOCAL)
        store_local<M, N>(w, i, m, a);
    else {
        u32 in[3] = {0, 0, 0};
        for (int l = 0; l < LANES; ++l)
            if (m >> l & 1) in[a[l] >> WINDOW_BITS < 3 ? a[l] >> WINDOW_BITS : 0] |= 1u << l;
        if (in[0]) {
            u64 own[LANES];
            EACH_LANE own[l] = (in[0] >> l & 1) ? a[l] : a[__builtin_ctz(in[0])];
            store_global<M, N>(w, i, in[0], own);
        }
        EACH_LANE a[l] &= (1ull << WINDOW_BITS) - 1;
        if (in[1]) store_shared<M, N>(w, i, in[1], a);
        if (in[2]) store_local<M, N>(w, i, in[2], a);
    }
}

#define LOAD_N(space, S, M, t, N, n)                                                                                   \
    {                                                                                                                  \
        "ld." space "." t n, load_space<M, N, S>                                                                       \
    }
#define STORE_N(space, S, M, t, N, n)                                                                                  \
    {                                                                                                                  \
        "st." space "." t n, store_space<M, N, S>                                                                      \
    }
#define NARROW(X, space, S, M, t) X(space, S, M, t, 1, ""), X(space, S, M, t, 2, ".v2"), X(space, S, M, t, 4, ".v4")
#define WIDE(X, space, S, M, t) X(space, S, M, t, 1, ""), X(space, S, M, t, 2, ".v2")
#define LOADS(space, S)                                                                                                \
    NARROW(LOAD_N, space, S, u8, "u8"), NARROW(LOAD_N, space, S, s8, "s8"), NARROW(LOAD_N, space, S, u16, "u16"),      \
        NARROW(LOAD_N, space, S, s16, "s16"), NARROW(LOAD_N, space, S, u32, "u32"),                                    \
        NARROW(LOAD_N, space, S, s32, "s32"), WIDE(LOAD_N, space, S, u64, "u64")
#define STORES(space, S)                                                                                               \
    NARROW(STORE_N, space, S, u8, "u8"), NARROW(STORE_N, space, S, u16, "u16"), NARROW(STORE_N, space, S, u32, "u32"), \
        WIDE(STORE_N, space, S, u64, "u64")

} // namespace

namespace VGPU_ISA
{
extern const OpEntry memory_ops[];
const OpEntry memory_ops[] = {
    LOADS("global", GLOBAL),    LOADS("shared", SHARED),  LOADS("local", LOCAL),    LOADS("param", PARAM),
    LOADS("generic", GENERIC),  STORES("global", GLOBAL), STORES("shared", SHARED), STORES("local", LOCAL),
    STORES("generic", GENERIC), {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
