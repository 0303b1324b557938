/* atom and red on global and shared memory. Blocks run on several threads, so global atomics are the processor's. */
#include "shared_bytes.h"

namespace vgpu
{
namespace
{

/* Half formats are added as floats and rounded once: the sum of two is exact in float or rounds to the same half. */
inline u16 add_bf16(u16 a, u16 b)
{
    return bf16_of_float(float_of_bf16(a) + float_of_bf16(b));
}

inline u16 add_f16(u16 a, u16 b)
{
    return f16_of_float(float_of_f16(a) + float_of_f16(b));
}

/* Where lane's operand lies; checks bounds, alignment and that it was written. *is_shared tells who else may touch it.
 */
template <class T>
inline u8 *operand(Warp &w, const Instr &i, int lane, u64 address, bool shared_space, bool *is_shared)
{
    *is_shared = shared_space || address >> WINDOW_BITS == WINDOW_SHARED >> WINDOW_BITS;
    if (*is_shared) {
        u32 at = shared_offset(w, i, lane, address & ((1ull << WINDOW_BITS) - 1), sizeof(T), "atomic on");
        shared_atomic<T>(w, i, lane, at);
        return w.block->shared + at;
    }
    if (address % sizeof(T))
        warp_fault(w, i, lane, cudaErrorMisalignedAddress, "atomic on %zu bytes at 0x%llx: not a multiple", sizeof(T),
                   static_cast<unsigned long long>(address));
    Range &range = w.block->ranges[i.table];
    if (address < range.begin || address + sizeof(T) > range.end) {
        Range found;
        if (!warp_find_range(w, address, &found) || address + sizeof(T) > found.end)
            warp_bad_address(w, i, lane, address, sizeof(T), "atomic on");
        range = found;
    }
    if (range.to_state &&
        load<T>(reinterpret_cast<u8 *>(address + static_cast<u64>(range.to_state))) != repeated<T>(BYTE_WRITTEN))
        warp_fault(w, i, lane, cudaErrorIllegalAddress, "atomic on %zu bytes at 0x%llx, which were never written",
                   sizeof(T), static_cast<unsigned long long>(address));
    if (w.block->global_races) global_atomic(w, i, lane, address, sizeof(T));
    return reinterpret_cast<u8 *>(address + static_cast<u64>(range.to_data));
}

/* r: d (or none), address, b, c; imm the offset, imm2 is 1 for the shared space. F: old value, b, c -> new value. */
template <class T, class F> inline void atomic(Warp &w, const Instr &i, u32 m, F f)
{
    const T *b = reg<T>(w, i.r[2]), *c = reg<T>(w, i.r[3]);
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        u64 base = i.r[1] == NO_REGISTER ? 0 : i.width[1] == 8 ? reg<u64>(w, i.r[1])[l] : reg<u32>(w, i.r[1])[l];
        bool is_shared;
        T *p = reinterpret_cast<T *>(operand<T>(w, i, l, base + static_cast<u64>(i.imm), i.imm2 & 1, &is_shared));
        T old = is_shared ? *p : __atomic_load_n(p, __ATOMIC_RELAXED);
        for (;;) {
            T now = f(old, b[l], c[l]);
            if (is_shared) {
                *p = now;
                break;
            }
            if (__atomic_compare_exchange_n(p, &old, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
        }
        if (i.r[0] != NO_REGISTER) reg<T>(w, i.r[0])[l] = old;
    }
}

#define ATOM(name, T, expression)                                                                                      \
    OP("atom." name, (atomic<T>(w, i, m, [](T a, T b, T c) -> T {                                                      \
           (void)a;                                                                                                    \
           (void)b;                                                                                                    \
           (void)c;                                                                                                    \
           return static_cast<T>(expression);                                                                          \
       })))
#define AS_SIGNED(x) static_cast<s64>(x)

inline u32 signed_less(u32 a, u32 b)
{
    return static_cast<s32>(a) < static_cast<s32>(b);
}

} // namespace

extern const OpEntry atomic_ops[];
const OpEntry atomic_ops[] = {
    ATOM("add.u32", u32, a + b),
    ATOM("add.s32", u32, a + b),
    ATOM("add.u64", u64, a + b),
    ATOM("add.s64", u64, a + b),
    ATOM("add.f32", u32, bits_of(float_of(a) + float_of(b))),
    ATOM("add.f64", u64, bits_of(double_of(a) + double_of(b))),
    ATOM("add.bf16", u16, add_bf16(a, b)),
    ATOM("add.f16", u16, add_f16(a, b)),
    ATOM("add.bf16x2", u32,
         static_cast<u32>(add_bf16(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))) << 16 |
             add_bf16(static_cast<u16>(a), static_cast<u16>(b))),
    ATOM("add.f16x2", u32,
         static_cast<u32>(add_f16(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))) << 16 |
             add_f16(static_cast<u16>(a), static_cast<u16>(b))),
    ATOM("min.u32", u32, a < b ? a : b),
    ATOM("max.u32", u32, a > b ? a : b),
    ATOM("min.s32", u32, signed_less(a, b) ? a : b),
    ATOM("max.s32", u32, signed_less(a, b) ? b : a),
    ATOM("min.u64", u64, a < b ? a : b),
    ATOM("max.u64", u64, a > b ? a : b),
    ATOM("min.s64", u64, AS_SIGNED(a) < AS_SIGNED(b) ? a : b),
    ATOM("max.s64", u64, AS_SIGNED(a) < AS_SIGNED(b) ? b : a),
    ATOM("and.b32", u32, a &b),
    ATOM("or.b32", u32, a | b),
    ATOM("xor.b32", u32, a ^ b),
    ATOM("and.b64", u64, a &b),
    ATOM("or.b64", u64, a | b),
    ATOM("xor.b64", u64, a ^ b),
    ATOM("exch.b32", u32, b),
    ATOM("exch.b64", u64, b),
    ATOM("inc.u32", u32, a >= b ? 0 : a + 1),
    ATOM("dec.u32", u32, a == 0 || a > b ? b : a - 1),
    ATOM("cas.b16", u16, a == b ? c : a),
    ATOM("cas.b32", u32, a == b ? c : a),
    ATOM("cas.b64", u64, a == b ? c : a),
    {nullptr, nullptr},
};

} // namespace vgpu
