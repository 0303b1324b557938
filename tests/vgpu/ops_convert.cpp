/* cvt: between integers (with saturation), between floats, and across. Registers may be wider than the type. */
#include <cfenv>
#include <cmath>
#include <limits>
#include "lanes.h"

namespace vgpu
{
namespace
{

/* imm of a conversion. */
enum { TO_SAT = 16, TO_RELU = 32, TO_FTZ = 64 };

template <class S> inline void read_narrow(Warp &w, s32 r, u8 width, S *s)
{
    if (width == 8) {
        const u64 *a = reg<u64>(w, r);
        EACH_LANE s[l] = static_cast<S>(a[l]);
    } else if (width == 4) {
        const u32 *a = reg<u32>(w, r);
        EACH_LANE s[l] = static_cast<S>(a[l]);
    } else {
        const u16 *a = reg<u16>(w, r);
        EACH_LANE s[l] = static_cast<S>(a[l]);
    }
}

/* Sign or zero extension to the register's width. */
template <class D> inline void write_wide(Warp &w, s32 r, u8 width, const D *d, u32 m)
{
    using W8 = typename std::conditional<(D(-1) < D(0)), s64, u64>::type;
    using W4 = typename std::conditional<(D(-1) < D(0)), s32, u32>::type;
    using W2 = typename std::conditional<(D(-1) < D(0)), s16, u16>::type;
    if (width == 8) {
        W8 t[LANES];
        EACH_LANE t[l] = static_cast<W8>(d[l]);
        write_lanes(reg<W8>(w, r), t, m);
    } else if (width == 4) {
        W4 t[LANES];
        EACH_LANE t[l] = static_cast<W4>(d[l]);
        write_lanes(reg<W4>(w, r), t, m);
    } else {
        W2 t[LANES];
        EACH_LANE t[l] = static_cast<W2>(d[l]);
        write_lanes(reg<W2>(w, r), t, m);
    }
}

template <class D, class S> inline D clamped(S x)
{
    __int128 v = x, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
    return static_cast<D>(v < low ? low : v > high ? high : v);
}

template <class D, class S> void integer_to_integer(Warp &w, const Instr &i, u32 m)
{
    S s[LANES];
    D d[LANES];
    read_narrow(w, i.r[1], i.width[1], s);
    if (i.imm & TO_SAT) {
        for (int l = 0; l < LANES; ++l)
            d[l] = clamped<D>(s[l]);
    } else {
        EACH_LANE d[l] = static_cast<D>(s[l]);
    }
    write_wide(w, i.r[0], i.width[0], d, m);
}

/* Floats to integers clamp to the range, and NaN gives 0. The rounding mode is in i.mode. */
inline double rounded(double x, u8 mode)
{
    switch (mode & MODE_ROUND) {
    case 0:
        return __builtin_nearbyint(x);
    case 1:
        return __builtin_floor(x);
    case 2:
        return __builtin_ceil(x);
    default:
        return __builtin_trunc(x);
    }
}

inline float flushed(float x)
{
    u32 bits = bits_of(x);
    return (bits & 0x7f800000) == 0 ? float_of(bits & 0x80000000) : x;
}

template <class D> inline D integer_of(double x)
{
    constexpr double low = static_cast<double>(std::numeric_limits<D>::min());
    constexpr double high = sizeof(D) == 8 ? (D(-1) < D(0) ? 9223372036854775808.0 : 18446744073709551616.0)
                                           : static_cast<double>(std::numeric_limits<D>::max()) + 1.0;
    return x != x      ? D(0)
           : x <= low  ? std::numeric_limits<D>::min()
           : x >= high ? std::numeric_limits<D>::max()
                       : static_cast<D>(x);
}

template <class D> void f32_to_integer(Warp &w, const Instr &i, u32 m)
{
    const float *a = reg<float>(w, i.r[1]);
    D d[LANES];
    for (int l = 0; l < LANES; ++l) {
        float x = i.imm & TO_FTZ ? flushed(a[l]) : a[l];
        d[l] = integer_of<D>(rounded(static_cast<double>(x), i.mode));
    }
    write_wide(w, i.r[0], i.width[0], d, m);
}

template <class D> void f64_to_integer(Warp &w, const Instr &i, u32 m)
{
    const double *a = reg<double>(w, i.r[1]);
    D d[LANES];
    for (int l = 0; l < LANES; ++l)
        d[l] = integer_of<D>(rounded(a[l], i.mode));
    write_wide(w, i.r[0], i.width[0], d, m);
}

template <class D, float (*Wide)(u16)> void half_to_integer(Warp &w, const Instr &i, u32 m)
{
    const u16 *a = reg<u16>(w, i.r[1]);
    D d[LANES];
    for (int l = 0; l < LANES; ++l)
        d[l] = integer_of<D>(rounded(static_cast<double>(Wide(a[l])), i.mode));
    write_wide(w, i.r[0], i.width[0], d, m);
}

/* Integers of 64 bits are exact in long double, so one rounding, in the mode that with_modes has set. */
template <class F, class S> void integer_to_float(Warp &w, const Instr &i, u32 m)
{
    S s[LANES];
    F d[LANES];
    read_narrow(w, i.r[1], i.width[1], s);
    if (sizeof(S) == 8 && (i.mode & MODE_ROUND)) {
        for (int l = 0; l < LANES; ++l) {
            volatile long double x = static_cast<long double>(s[l]);
            d[l] = static_cast<F>(x);
        }
    } else if (sizeof(S) < 8) {
        EACH_LANE d[l] = static_cast<F>(static_cast<double>(s[l]));
    } else {
        for (int l = 0; l < LANES; ++l)
            d[l] = static_cast<F>(s[l]);
    }
    if (i.mode & MODE_SAT) EACH_LANE d[l] = d[l] > 0 ? d[l] < 1 ? d[l] : F(1) : F(0);
    write_lanes(reg<F>(w, i.r[0]), d, m);
}

/* To 16 bits in any mode: in double first, which holds 32-bit integers; wider ones overflow or lose bits far below. */
template <class S, u16 (*Narrow)(float)> void integer_to_half(Warp &w, const Instr &i, u32 m)
{
    S s[LANES];
    u16 d[LANES];
    read_narrow(w, i.r[1], i.width[1], s);
    for (int l = 0; l < LANES; ++l) {
        double x = static_cast<double>(s[l]);
        float f = static_cast<float>(x);
        u32 bits = bits_of(f);
        double back = static_cast<double>(f);
        /* to odd, so that the second rounding is the only one */
        if (back != x && !(bits & 1)) f = float_of((x > back) == (x > 0) ? bits + 1 : bits - 1);
        d[l] = Narrow(f);
    }
    write_lanes(reg<u16>(w, i.r[0]), d, m);
}

/* f32 to f32 and f64 to f64 with rni, rmi, rpi, rzi: to a whole number. imm bit 0 says so. */
void f32_to_f32(Warp &w, const Instr &i, u32 m)
{
    const float *a = reg<float>(w, i.r[1]);
    float d[LANES];
    for (int l = 0; l < LANES; ++l) {
        float x = i.imm & TO_FTZ ? flushed(a[l]) : a[l];
        if (i.imm & 1) x = static_cast<float>(rounded(static_cast<double>(x), i.mode));
        if (i.imm & TO_SAT) x = x > 0 ? x < 1 ? x : 1.0f : 0.0f;
        d[l] = x;
    }
    write_lanes(reg<float>(w, i.r[0]), d, m);
}

void f64_to_f64(Warp &w, const Instr &i, u32 m)
{
    const double *a = reg<double>(w, i.r[1]);
    double d[LANES];
    for (int l = 0; l < LANES; ++l) {
        double x = i.imm & 1 ? rounded(a[l], i.mode) : a[l];
        if (i.imm & TO_SAT) x = x > 0 ? x < 1 ? x : 1.0 : 0.0;
        d[l] = x;
    }
    write_lanes(reg<double>(w, i.r[0]), d, m);
}

inline float nearest_float(double x)
{
    return static_cast<float>(x);
}

/* Double to float in a chosen direction: the neighbour, when nearest went the other way. */
inline float float_towards(double x, u8 mode)
{
    float f = static_cast<float>(x);
    double back = static_cast<double>(f);
    int direction = (mode & MODE_ROUND) == 1 ? -1 : (mode & MODE_ROUND) == 2 ? 1 : x > 0 ? -1 : 1;
    if (!(mode & MODE_ROUND) || f != f || back == x) return f;
    if (direction < 0 && back > x) return nextafterf(f, -INFINITY);
    if (direction > 0 && back < x) return nextafterf(f, INFINITY);
    return f;
}

void f64_to_f32(Warp &w, const Instr &i, u32 m)
{
    const double *a = reg<double>(w, i.r[1]);
    float d[LANES];
    if (!(i.mode & MODE_ROUND) && !i.imm) {
        EACH_LANE d[l] = nearest_float(a[l]);
    } else {
        for (int l = 0; l < LANES; ++l) {
            d[l] = float_towards(a[l], i.mode);
            if (i.imm & TO_FTZ) d[l] = flushed(d[l]);
            if (i.imm & TO_SAT) d[l] = d[l] > 0 ? d[l] < 1 ? d[l] : 1.0f : 0.0f;
        }
    }
    write_lanes(reg<float>(w, i.r[0]), d, m);
}

void f32_to_f64(Warp &w, const Instr &i, u32 m)
{
    const float *a = reg<float>(w, i.r[1]);
    double d[LANES];
    EACH_LANE d[l] = static_cast<double>(a[l]);
    if (i.imm & TO_FTZ) EACH_LANE d[l] = static_cast<double>(flushed(a[l]));
    if (i.imm & TO_SAT) EACH_LANE d[l] = d[l] > 0 ? d[l] < 1 ? d[l] : 1.0 : 0.0;
    write_lanes(reg<double>(w, i.r[0]), d, m);
}

/* Float to a half format: nearest even or towards zero, negative values to 0 with relu. */
inline u16 to_bf16(float x, const Instr &i)
{
    if (i.imm & TO_RELU) x = x < 0 ? 0.0f : x;
    if (x != x) return 0x7fff;
    if ((i.mode & MODE_ROUND) == 3) return static_cast<u16>(bits_of(x) >> 16);
    return bf16_of_float(x);
}

inline u16 to_f16(float x, const Instr &i)
{
    if (i.imm & TO_RELU) x = x < 0 ? 0.0f : x;
    if (i.imm & TO_SAT) x = x > 0 ? x < 1 ? x : 1.0f : 0.0f;
    if (x != x) return 0x7fff;
    switch (i.mode & MODE_ROUND) {
    case 1:
        return static_cast<u16>(_cvtss_sh(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    case 2:
        return static_cast<u16>(_cvtss_sh(x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
    case 3:
        return static_cast<u16>(_cvtss_sh(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
    default:
        return f16_of_float(x);
    }
}

template <u16 (*To)(float, const Instr &)> void f32_to_half(Warp &w, const Instr &i, u32 m)
{
    const float *a = reg<float>(w, i.r[1]);
    u16 d[LANES];
    EACH_LANE d[l] = To(a[l], i);
    write_lanes(reg<u16>(w, i.r[0]), d, m);
}

/* The first source goes to the high half. */
template <u16 (*To)(float, const Instr &)> void f32_to_pair(Warp &w, const Instr &i, u32 m)
{
    const float *a = reg<float>(w, i.r[1]), *b = reg<float>(w, i.r[2]);
    u32 d[LANES];
    EACH_LANE d[l] = static_cast<u32>(To(a[l], i)) << 16 | To(b[l], i);
    write_lanes(reg<u32>(w, i.r[0]), d, m);
}

template <float (*Wide)(u16)> void half_to_f32(Warp &w, const Instr &i, u32 m)
{
    const u16 *a = reg<u16>(w, i.r[1]);
    float d[LANES];
    EACH_LANE d[l] = Wide(a[l]);
    if (i.imm & TO_SAT) EACH_LANE d[l] = d[l] > 0 ? d[l] < 1 ? d[l] : 1.0f : 0.0f;
    write_lanes(reg<float>(w, i.r[0]), d, m);
}

template <float (*Wide)(u16)> void half_to_f64(Warp &w, const Instr &i, u32 m)
{
    const u16 *a = reg<u16>(w, i.r[1]);
    double d[LANES];
    EACH_LANE d[l] = static_cast<double>(Wide(a[l]));
    write_lanes(reg<double>(w, i.r[0]), d, m);
}

/* Half to the same half, to a whole number. */
template <float (*Wide)(u16), u16 (*Narrow)(float)> void half_to_half(Warp &w, const Instr &i, u32 m)
{
    const u16 *a = reg<u16>(w, i.r[1]);
    u16 d[LANES];
    for (int l = 0; l < LANES; ++l) {
        float x = Wide(a[l]);
        if (i.imm & 1) x = static_cast<float>(rounded(static_cast<double>(x), i.mode));
        if (i.imm & TO_SAT) x = x > 0 ? x < 1 ? x : 1.0f : 0.0f;
        d[l] = Narrow(x);
    }
    write_lanes(reg<u16>(w, i.r[0]), d, m);
}

/* tf32 keeps 10 bits of the mantissa: ties away from zero (rna). */
inline u32 tf32_of(float x)
{
    u32 bits = bits_of(x);
    if ((bits & 0x7f800000) == 0x7f800000) return bits;
    return (bits + 0x1000) & ~0x1fffu;
}

#define FROM_TO(D, d, S, s) OP("cvt." d "." s, (integer_to_integer<D, S>(w, i, m)))
#define FROM(S, s)                                                                                                     \
    FROM_TO(s8, "s8", S, s), FROM_TO(u8, "u8", S, s), FROM_TO(s16, "s16", S, s), FROM_TO(u16, "u16", S, s),            \
        FROM_TO(s32, "s32", S, s), FROM_TO(u32, "u32", S, s), FROM_TO(s64, "s64", S, s), FROM_TO(u64, "u64", S, s),    \
        OP("cvt.f32." s, (integer_to_float<float, S>(w, i, m))),                                                       \
        OP("cvt.f64." s, (integer_to_float<double, S>(w, i, m))),                                                      \
        OP("cvt.bf16." s, (integer_to_half<S, bf16_of_float>(w, i, m))),                                               \
        OP("cvt.f16." s, (integer_to_half<S, f16_of_float>(w, i, m)))
#define TO(D, d)                                                                                                       \
    OP("cvt." d ".f32", f32_to_integer<D>(w, i, m)), OP("cvt." d ".f64", f64_to_integer<D>(w, i, m)),                  \
        OP("cvt." d ".bf16", (half_to_integer<D, float_of_bf16>(w, i, m))),                                            \
        OP("cvt." d ".f16", (half_to_integer<D, float_of_f16>(w, i, m)))

} // namespace

namespace VGPU_ISA
{
extern const OpEntry convert_ops[];
const OpEntry convert_ops[] = {
    FROM(s8, "s8"),
    FROM(u8, "u8"),
    FROM(s16, "s16"),
    FROM(u16, "u16"),
    FROM(s32, "s32"),
    FROM(u32, "u32"),
    FROM(s64, "s64"),
    FROM(u64, "u64"),
    TO(s8, "s8"),
    TO(u8, "u8"),
    TO(s16, "s16"),
    TO(u16, "u16"),
    TO(s32, "s32"),
    TO(u32, "u32"),
    TO(s64, "s64"),
    TO(u64, "u64"),
    OP("cvt.f32.f32", f32_to_f32(w, i, m)),
    OP("cvt.f64.f64", f64_to_f64(w, i, m)),
    OP("cvt.f32.f64", f64_to_f32(w, i, m)),
    OP("cvt.f64.f32", f32_to_f64(w, i, m)),
    OP("cvt.bf16.f32", f32_to_half<to_bf16>(w, i, m)),
    OP("cvt.f16.f32", f32_to_half<to_f16>(w, i, m)),
    OP("cvt.bf16x2.f32", f32_to_pair<to_bf16>(w, i, m)),
    OP("cvt.f16x2.f32", f32_to_pair<to_f16>(w, i, m)),
    OP("cvt.f32.bf16", half_to_f32<float_of_bf16>(w, i, m)),
    OP("cvt.f32.f16", half_to_f32<float_of_f16>(w, i, m)),
    OP("cvt.f64.bf16", half_to_f64<float_of_bf16>(w, i, m)),
    OP("cvt.f64.f16", half_to_f64<float_of_f16>(w, i, m)),
    OP("cvt.bf16.bf16", (half_to_half<float_of_bf16, bf16_of_float>(w, i, m))),
    OP("cvt.f16.f16", (half_to_half<float_of_f16, f16_of_float>(w, i, m))),
    OP1("cvt.tf32.f32", u32, float, tf32_of(a)),
    {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
