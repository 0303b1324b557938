/* Floating-point arithmetic: fp32 and fp64 as IEEE 754 says, 16-bit formats rounded once, the approximate functions
 * (ex2, lg2, sin, ...) at least as exact as the hardware's. Rounding modes and flush to zero are the processor's own:
 * with_modes sets them around the plain operation. */
#include <cfenv>
#include <cmath>
#include "lanes.h"

namespace vgpu
{
namespace
{

/* 2^x: whole part into the exponent, the rest by its Taylor polynomial in double; error below 1e-10 before rounding. */
inline float exp2_of(float x)
{
    double v = x < -200.0f ? -200.0 : x > 200.0f ? 200.0 : static_cast<double>(x);
    double whole = __builtin_rint(v), f = (v - whole) * 0.69314718055994530942;
    double p = 1.0 / 3628800;
    p = p * f + 1.0 / 362880;
    p = p * f + 1.0 / 40320;
    p = p * f + 1.0 / 5040;
    p = p * f + 1.0 / 720;
    p = p * f + 1.0 / 120;
    p = p * f + 1.0 / 24;
    p = p * f + 1.0 / 6;
    p = p * f + 0.5;
    p = p * f + 1.0;
    p = p * f + 1.0;
    s64 n = static_cast<s32>(whole);
    float y = static_cast<float>(p * double_of(static_cast<u64>(n + 1023) << 52));
    return x != x ? x : y;
}

/* max and min return the number when one operand is NaN; the .NaN forms return NaN. -0 is below +0. */
inline float maximum(float a, float b)
{
    float larger = a > b ? a : b;
    float same = float_of(bits_of(a) & bits_of(b)); /* of +0 and -0: +0 */
    return a != a ? b : b != b ? a : a == b ? same : larger;
}

inline float minimum(float a, float b)
{
    float smaller = a < b ? a : b;
    float same = float_of(bits_of(a) | bits_of(b));
    return a != a ? b : b != b ? a : a == b ? same : smaller;
}

inline double maximum(double a, double b)
{
    double larger = a > b ? a : b, same = double_of(bits_of(a) & bits_of(b));
    return a != a ? b : b != b ? a : a == b ? same : larger;
}

inline double minimum(double a, double b)
{
    double smaller = a < b ? a : b, same = double_of(bits_of(a) | bits_of(b));
    return a != a ? b : b != b ? a : a == b ? same : smaller;
}

inline float nan_of(float a, float b, float otherwise)
{
    return a != a || b != b ? float_of(0x7fffffff) : otherwise;
}

/* A double that keeps in its last bit whether the sum was inexact (round to odd): narrowing it to at most 51 bits
 * afterwards rounds once. a * b is exact for factors of 24 bits and fewer. */
inline double fused_odd(double a, double b, double c)
{
    double p = a * b, s = p + c;
    double from = s - p, error = (p - (s - from)) + (c - from);
    u64 bits = bits_of(s);
    if (error != 0 && error == error && !(bits & 1)) {
        bool away = (error > 0) == (s > 0);
        bits = away ? bits + 1 : bits - 1;
    }
    return double_of(bits);
}

/* The same for the step from double to float. */
inline float narrowed_odd(double x)
{
    float f = static_cast<float>(x);
    u32 bits = bits_of(f);
    double back = static_cast<double>(f);
    if (back == x || f != f || (bits & 0x7fffffff) == 0x7f800000) return f;
    if (bits & 1) return f;
    bool away = (x > back) == (x > 0);
    return float_of(away ? bits + 1 : bits - 1);
}

struct Bf16 {
    static float wide(u16 h)
    {
        return float_of_bf16(h);
    }
    static u16 narrow(float f)
    {
        return bf16_of_float(f);
    }
};

struct F16 {
    static float wide(u16 h)
    {
        return float_of_f16(h);
    }
    static u16 narrow(float f)
    {
        return f16_of_float(f);
    }
};

template <class H> u16 half_fma(u16 a, u16 b, u16 c)
{
    double wide =
        fused_odd(static_cast<double>(H::wide(a)), static_cast<double>(H::wide(b)), static_cast<double>(H::wide(c)));
    return H::narrow(narrowed_odd(wide));
}

/* Sums and products of two are exact enough in float's double: one rounding through odd. */
template <class H> u16 half_add(u16 a, u16 b)
{
    return H::narrow(narrowed_odd(fused_odd(static_cast<double>(H::wide(a)), 1.0, static_cast<double>(H::wide(b)))));
}

template <class H> u16 half_mul(u16 a, u16 b)
{
    return H::narrow(narrowed_odd(static_cast<double>(H::wide(a)) * static_cast<double>(H::wide(b))));
}

template <class H> u16 half_max(u16 a, u16 b)
{
    return H::narrow(maximum(H::wide(a), H::wide(b)));
}

template <class H> u16 half_min(u16 a, u16 b)
{
    return H::narrow(minimum(H::wide(a), H::wide(b)));
}

template <class H> u16 half_relu(u16 a)
{
    float x = H::wide(a);
    return x != x ? u16{0x7fff} : x > 0 ? a : u16{0};
}

inline u16 half_sat_f16(u16 a)
{
    float x = float_of_f16(a);
    return x != x ? u16{0} : f16_of_float(x < 0 ? 0.0f : x > 1 ? 1.0f : x);
}

template <class F> inline u32 both(u32 a, u32 b, u32 c, F f)
{
    u32 low = f(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c));
    u32 high = f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16));
    return low | high << 16;
}

__attribute__((noinline)) void set_modes(u8 mode, u32 *saved)
{
    static const int rounding[4] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    *saved = _mm_getcsr();
    if (mode & MODE_ROUND) fesetround(rounding[mode & MODE_ROUND]);
    if (mode & MODE_FTZ) _mm_setcsr(_mm_getcsr() | 0x8040); /* flush results, denormals are zeros */
}

__attribute__((noinline)) void reset_modes(u8 mode, u32 saved)
{
    if (mode & MODE_ROUND) fesetround(FE_TONEAREST);
    _mm_setcsr(saved);
}

/* Runs i.inner under the instruction's rounding and flush modes, then clamps to [0, 1] when it saturates. */
void with_modes(Warp &w, const Instr &i, u32 m)
{
    u32 saved;
    set_modes(i.mode, &saved);
    i.inner(w, i, m);
    reset_modes(i.mode, saved);
    if (!(i.mode & MODE_SAT)) return;
    if (i.width[0] == 8) {
        double *d = reg<double>(w, i.r[0]), t[LANES];
        EACH_LANE t[l] = d[l] > 0 ? d[l] < 1 ? d[l] : 1.0 : 0.0;
        write_lanes(d, t, m);
    } else {
        float *d = reg<float>(w, i.r[0]), t[LANES];
        EACH_LANE t[l] = d[l] > 0 ? d[l] < 1 ? d[l] : 1.0f : 0.0f;
        write_lanes(d, t, m);
    }
}

inline float flushed(float x)
{
    u32 bits = bits_of(x);
    return (bits & 0x7f800000) == 0 ? float_of(bits & 0x80000000) : x;
}

/* testp: kind in imm, order finite infinite number notanumber normal subnormal. */
template <class T> void test_property(Warp &w, const Instr &i, u32 m)
{
    const T *a = reg<T>(w, i.r[1]);
    u32 p = 0;
    for (int l = 0; l < LANES; ++l) {
        int c = std::fpclassify(a[l]);
        bool is[] = {c != FP_NAN && c != FP_INFINITE,
                     c == FP_INFINITE,
                     c != FP_NAN,
                     c == FP_NAN,
                     c == FP_NORMAL,
                     c == FP_SUBNORMAL};
        p |= static_cast<u32>(is[i.imm]) << l;
    }
    write_predicate(w, i.r[0], p, m);
}

#define HALF(H, n)                                                                                                     \
    OP2("add." n, u16, half_add<H>(a, b)), OP2("sub." n, u16, half_add<H>(a, b ^ 0x8000)),                             \
        OP2("mul." n, u16, half_mul<H>(a, b)), OP3("fma." n, u16, half_fma<H>(a, b, c)),                               \
        OP3("fma.relu." n, u16, half_relu<H>(half_fma<H>(a, b, c))), OP2("max." n, u16, half_max<H>(a, b)),            \
        OP2("min." n, u16, half_min<H>(a, b)), OP1("neg." n, u16, u16, a ^ 0x8000),                                    \
        OP2("max.NaN." n, u16, H::narrow(nan_of(H::wide(a), H::wide(b), maximum(H::wide(a), H::wide(b))))),            \
        OP2("min.NaN." n, u16, H::narrow(nan_of(H::wide(a), H::wide(b), minimum(H::wide(a), H::wide(b))))),            \
        OP1("abs." n, u16, u16, a & 0x7fff), OP1("ex2." n, u16, u16, H::narrow(exp2_of(H::wide(a)))),                  \
        OP1("tanh." n, u16, u16, H::narrow(tanhf(H::wide(a)))),                                                        \
        OP2("add." n "x2", u32, both(a, b, 0, [](u16 x, u16 y, u16) { return half_add<H>(x, y); })),                   \
        OP2("sub." n "x2", u32,                                                                                        \
            both(a, b, 0, [](u16 x, u16 y, u16) { return half_add<H>(x, static_cast<u16>(y ^ 0x8000)); })),            \
        OP2("mul." n "x2", u32, both(a, b, 0, [](u16 x, u16 y, u16) { return half_mul<H>(x, y); })),                   \
        OP3("fma." n "x2", u32, both(a, b, c, [](u16 x, u16 y, u16 z) { return half_fma<H>(x, y, z); })),              \
        OP3("fma.relu." n "x2", u32,                                                                                   \
            both(a, b, c, [](u16 x, u16 y, u16 z) { return half_relu<H>(half_fma<H>(x, y, z)); })),                    \
        OP2("max." n "x2", u32, both(a, b, 0, [](u16 x, u16 y, u16) { return half_max<H>(x, y); })),                   \
        OP2("min." n "x2", u32, both(a, b, 0, [](u16 x, u16 y, u16) { return half_min<H>(x, y); })),                   \
        OP1("neg." n "x2", u32, u32, a ^ 0x80008000), OP1("abs." n "x2", u32, u32, a & 0x7fff7fff),                    \
        OP1("ex2." n "x2", u32, u32, both(a, 0, 0, [](u16 x, u16, u16) { return H::narrow(exp2_of(H::wide(x))); })),   \
        OP1("tanh." n "x2", u32, u32, both(a, 0, 0, [](u16 x, u16, u16) { return H::narrow(tanhf(H::wide(x))); }))

} // namespace

namespace VGPU_ISA
{
extern const OpEntry float_ops[];
const OpEntry float_ops[] = {
    OP("with_modes", with_modes(w, i, m)),
    OP2("add.f32", float, a + b),
    OP2("sub.f32", float, a - b),
    OP2("mul.f32", float, a *b),
    OP2("div.f32", float, a / b),
    OP3("fma.f32", float, __builtin_fmaf(a, b, c)),
    OP1("rcp.f32", float, float, 1.0f / a),
    OP1("sqrt.f32", float, float, __builtin_sqrtf(a)),
    OP1("rsqrt.f32", float, float, 1.0 / __builtin_sqrt(static_cast<double>(a))),
    OP1("neg.f32", float, float, float_of(bits_of(a) ^ 0x80000000)),
    OP1("abs.f32", float, float, float_of(bits_of(a) & 0x7fffffff)),
    OP1("neg.ftz.f32", float, float, flushed(float_of(bits_of(a) ^ 0x80000000))),
    OP1("abs.ftz.f32", float, float, flushed(float_of(bits_of(a) & 0x7fffffff))),
    OP2("max.f32", float, maximum(a, b)),
    OP2("min.f32", float, minimum(a, b)),
    OP2("max.NaN.f32", float, nan_of(a, b, maximum(a, b))),
    OP2("min.NaN.f32", float, nan_of(a, b, minimum(a, b))),
    OP2("copysign.f32", float, float_of((bits_of(b) & 0x7fffffff) | (bits_of(a) & 0x80000000))),
    OP1("ex2.f32", float, float, exp2_of(a)),
    OP1("lg2.f32", float, float, log2f(a)),
    OP1("sin.f32", float, float, sin(static_cast<double>(a))),
    OP1("cos.f32", float, float, cos(static_cast<double>(a))),
    OP1("tanh.f32", float, float, tanh(static_cast<double>(a))),
    OP("testp.f32", test_property<float>(w, i, m)),
    OP("testp.f64", test_property<double>(w, i, m)),
    OP2("add.f64", double, a + b),
    OP2("sub.f64", double, a - b),
    OP2("mul.f64", double, a *b),
    OP2("div.f64", double, a / b),
    OP3("fma.f64", double, __builtin_fma(a, b, c)),
    OP1("rcp.f64", double, double, 1.0 / a),
    OP1("sqrt.f64", double, double, __builtin_sqrt(a)),
    OP1("rsqrt.f64", double, double, 1.0 / __builtin_sqrt(a)),
    OP1("neg.f64", double, double, double_of(bits_of(a) ^ 1ull << 63)),
    OP1("abs.f64", double, double, double_of(bits_of(a) & ~(1ull << 63))),
    OP2("max.f64", double, maximum(a, b)),
    OP2("min.f64", double, minimum(a, b)),
    OP2("copysign.f64", double, double_of((bits_of(b) & ~(1ull << 63)) | (bits_of(a) & 1ull << 63))),
    HALF(Bf16, "bf16"),
    HALF(F16, "f16"),
    OP2("add.sat.f16", u16, half_sat_f16(half_add<F16>(a, b))),
    OP2("mul.sat.f16", u16, half_sat_f16(half_mul<F16>(a, b))),
    OP3("fma.sat.f16", u16, half_sat_f16(half_fma<F16>(a, b, c))),
    {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
