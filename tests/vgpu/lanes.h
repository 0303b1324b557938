/* Loops over the 32 lanes of a warp, written so that the compiler turns them into vector code. Included by the files of
 * operations only: everything here is local to one of them, since they are compiled once per instruction set. */
#ifndef VGPU_LANES_H
#define VGPU_LANES_H

#include <cstring>
#include <type_traits>
#include <immintrin.h>
#include "warp.h"

#ifndef VGPU_ISA
#error "VGPU_ISA names the instruction set of this object"
#endif

#define EACH_LANE _Pragma("GCC ivdep") for (int l = 0; l < LANES; ++l)

namespace vgpu
{
namespace
{

template <class D> inline void write_lanes(D *d, const D *from, u32 m)
{
    if (m == ALL_LANES) {
        memcpy(d, from, sizeof(D) * LANES);
        return;
    }
    EACH_LANE d[l] = (m >> l & 1) ? from[l] : d[l];
}

template <class D, class A, class F> inline void map1(Warp &w, const Instr &i, u32 m, F f)
{
    D *d = reg<D>(w, i.r[0]);
    const A *a = reg<A>(w, i.r[1]);
    if (m == ALL_LANES) {
        EACH_LANE d[l] = f(a[l]);
        return;
    }
    D t[LANES];
    EACH_LANE t[l] = f(a[l]);
    write_lanes(d, t, m);
}

template <class D, class A, class B, class F> inline void map2(Warp &w, const Instr &i, u32 m, F f)
{
    D *d = reg<D>(w, i.r[0]);
    const A *a = reg<A>(w, i.r[1]);
    const B *b = reg<B>(w, i.r[2]);
    if (m == ALL_LANES) {
        EACH_LANE d[l] = f(a[l], b[l]);
        return;
    }
    D t[LANES];
    EACH_LANE t[l] = f(a[l], b[l]);
    write_lanes(d, t, m);
}

template <class D, class A, class B, class C, class F> inline void map3(Warp &w, const Instr &i, u32 m, F f)
{
    D *d = reg<D>(w, i.r[0]);
    const A *a = reg<A>(w, i.r[1]);
    const B *b = reg<B>(w, i.r[2]);
    const C *c = reg<C>(w, i.r[3]);
    if (m == ALL_LANES) {
        EACH_LANE d[l] = f(a[l], b[l], c[l]);
        return;
    }
    D t[LANES];
    EACH_LANE t[l] = f(a[l], b[l], c[l]);
    write_lanes(d, t, m);
}

/* One bit per lane: bytes that are 0xff or 0 gathered by their top bits. */
inline u32 gather_bits(const u8 *byte)
{
    return static_cast<u32>(_mm256_movemask_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(byte))));
}

inline void write_predicate(Warp &w, s32 p, u32 bits, u32 m)
{
    if (p == NO_REGISTER) return;
    u32 *d = reg<u32>(w, p);
    *d = (*d & ~m) | (bits & m);
}

inline float float_of(u32 bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

inline u32 bits_of(float f)
{
    u32 bits;
    memcpy(&bits, &f, 4);
    return bits;
}

inline u64 bits_of(double f)
{
    u64 bits;
    memcpy(&bits, &f, 8);
    return bits;
}

inline double double_of(u64 bits)
{
    double f;
    memcpy(&f, &bits, 8);
    return f;
}

inline float float_of_bf16(u16 h)
{
    return float_of(static_cast<u32>(h) << 16);
}

/* To the nearest, ties to even; NaN becomes the canonical 0x7fff. */
inline u16 bf16_of_float(float f)
{
    u32 x = bits_of(f);
    u32 rounded = (x + 0x7fff + (x >> 16 & 1)) >> 16;
    return static_cast<u16>((x & 0x7fffffff) > 0x7f800000 ? 0x7fffu : rounded);
}

inline float float_of_f16(u16 h)
{
    return _cvtsh_ss(h);
}

inline u16 f16_of_float(float f)
{
    return f != f ? static_cast<u16>(0x7fff)
                  : static_cast<u16>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

} // namespace

#define OP(name, ...)                                                                                                  \
    {                                                                                                                  \
        name, [](Warp &w, const Instr &i, u32 m) { __VA_ARGS__; }                                                      \
    }
#define OP1(name, D, A, expression) OP(name, (map1<D, A>(w, i, m, [](A a) -> D { return static_cast<D>(expression); })))
#define OP2(name, T, expression)                                                                                       \
    OP(name, (map2<T, T, T>(w, i, m, [](T a, T b) -> T { return static_cast<T>(expression); })))
#define OP3(name, T, expression)                                                                                       \
    OP(name, (map3<T, T, T, T>(w, i, m, [](T a, T b, T c) -> T { return static_cast<T>(expression); })))
#define OP2X(name, D, A, B, expression)                                                                                \
    OP(name, (map2<D, A, B>(w, i, m, [](A a, B b) -> D { return static_cast<D>(expression); })))
#define OP3X(name, D, A, B, C, expression)                                                                             \
    OP(name, (map3<D, A, B, C>(w, i, m, [](A a, B b, C c) -> D { return static_cast<D>(expression); })))

} // namespace vgpu
#endif
