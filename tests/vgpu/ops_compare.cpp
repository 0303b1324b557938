/* setp and set: comparisons into predicates, joined with another predicate when asked. */
#include "lanes.h"

namespace vgpu
{
namespace
{

/* imm: bits 0-1 how the result joins operand c (0 not at all, 1 and, 2 or, 3 xor), bit 2 c is negated,
 * bits 4-5 set writes 1.0f or 0xffffffff to r[0] instead of predicates. r: p or d, a, b, q, c. */
enum { JOIN = 3, JOIN_NEGATED = 4, SET_BITS = 16, SET_FLOAT = 32, SET_HALF = 64 };

inline void finish(Warp &w, const Instr &i, u32 m, u32 p)
{
    u32 q = ~p;
    if (i.imm & JOIN) {
        u32 c = *reg<u32>(w, i.r[4]);
        if (i.imm & JOIN_NEGATED) c = ~c;
        p = (i.imm & JOIN) == 1 ? p & c : (i.imm & JOIN) == 2 ? p | c : p ^ c;
        q = (i.imm & JOIN) == 1 ? q & c : (i.imm & JOIN) == 2 ? q | c : q ^ c;
    }
    if (i.imm & (SET_BITS | SET_FLOAT)) {
        u32 t[LANES], one = i.imm & SET_FLOAT ? 0x3f800000u : ~0u;
        EACH_LANE t[l] = (p >> l & 1) ? one : 0;
        write_lanes(reg<u32>(w, i.r[0]), t, m);
        return;
    }
    write_predicate(w, i.r[0], p, m);
    write_predicate(w, i.r[3], q, m);
}

template <class A, class F> inline void compare(Warp &w, const Instr &i, u32 m, F f)
{
    const A *a = reg<A>(w, i.r[1]), *b = reg<A>(w, i.r[2]);
    alignas(32) u8 is[LANES];
    EACH_LANE is[l] = f(a[l], b[l]) ? 0xff : 0;
    finish(w, i, m, gather_bits(is));
}

/* Halves are compared as floats. */
template <float (*Wide)(u16), class F> inline void compare_half(Warp &w, const Instr &i, u32 m, F f)
{
    const u16 *a = reg<u16>(w, i.r[1]), *b = reg<u16>(w, i.r[2]);
    alignas(32) u8 is[LANES];
    EACH_LANE is[l] = f(Wide(a[l]), Wide(b[l])) ? 0xff : 0;
    finish(w, i, m, gather_bits(is));
}

/* Pairs of halves: two predicates (r[0] low, r[3] high), or set into both halves of d. */
template <float (*Wide)(u16), class F> inline void compare_pair(Warp &w, const Instr &i, u32 m, F f, u32 one)
{
    const u32 *a = reg<u32>(w, i.r[1]), *b = reg<u32>(w, i.r[2]);
    u32 low = 0, high = 0, d[LANES];
    for (int l = 0; l < LANES; ++l) {
        bool x = f(Wide(static_cast<u16>(a[l])), Wide(static_cast<u16>(b[l])));
        bool y = f(Wide(static_cast<u16>(a[l] >> 16)), Wide(static_cast<u16>(b[l] >> 16)));
        low |= static_cast<u32>(x) << l;
        high |= static_cast<u32>(y) << l;
        d[l] = (x ? one : 0) | (y ? one << 16 : 0);
        if (i.imm & SET_BITS) d[l] = (x ? 0xffffu : 0) | (y ? 0xffff0000u : 0);
    }
    if (i.imm & (SET_BITS | SET_HALF)) {
        write_lanes(reg<u32>(w, i.r[0]), d, m);
        return;
    }
    write_predicate(w, i.r[0], low, m);
    write_predicate(w, i.r[3], high, m);
}

#define CMP(name, T, expression) OP(name, (compare<T>(w, i, m, [](T a, T b) { return expression; })))
#define ORDER(prefix, T, n)                                                                                            \
    CMP(prefix "eq." n, T, a == b), CMP(prefix "ne." n, T, a != b), CMP(prefix "lt." n, T, a < b),                     \
        CMP(prefix "le." n, T, a <= b), CMP(prefix "gt." n, T, a > b), CMP(prefix "ge." n, T, a >= b)
#define ORDER_U(T, n)                                                                                                  \
    ORDER("setp.", T, n), CMP("setp.lo." n, T, a < b), CMP("setp.ls." n, T, a <= b), CMP("setp.hi." n, T, a > b),      \
        CMP("setp.hs." n, T, a >= b)
/* ne is ordered: false when one operand is NaN; neu and its like are true then. */
#define EACH_FLOAT_ORDER(X)                                                                                            \
    X("eq", a == b), X("ne", a<b || a> b), X("lt", a < b), X("le", a <= b), X("gt", a > b), X("ge", a >= b),           \
        X("equ", !(a < b || a > b)), X("neu", a != b), X("ltu", !(a >= b)), X("leu", !(a > b)), X("gtu", !(a <= b)),   \
        X("geu", !(a < b)), X("num", a == a && b == b), X("nan", a != a || b != b)
#define F32(o, e) OP("setp." o ".f32", (compare<float>(w, i, m, [](float a, float b) { return e; })))
#define F64(o, e) OP("setp." o ".f64", (compare<double>(w, i, m, [](double a, double b) { return e; })))
#define BF(o, e) OP("setp." o ".bf16", (compare_half<float_of_bf16>(w, i, m, [](float a, float b) { return e; })))
#define HF(o, e) OP("setp." o ".f16", (compare_half<float_of_f16>(w, i, m, [](float a, float b) { return e; })))
#define BF2(o, e)                                                                                                      \
    OP("setp." o ".bf16x2", (compare_pair<float_of_bf16>(                                                              \
                                w, i, m, [](float a, float b) { return e; }, 0x3f80)))
#define HF2(o, e)                                                                                                      \
    OP("setp." o ".f16x2", (compare_pair<float_of_f16>(                                                                \
                               w, i, m, [](float a, float b) { return e; }, 0x3c00)))

} // namespace

namespace VGPU_ISA
{
extern const OpEntry compare_ops[];
const OpEntry compare_ops[] = {
    ORDER("setp.", s16, "s16"), ORDER("setp.", s32, "s32"), ORDER("setp.", s64, "s64"), ORDER_U(u16, "u16"),
    ORDER_U(u32, "u32"),        ORDER_U(u64, "u64"),        EACH_FLOAT_ORDER(F32),      EACH_FLOAT_ORDER(F64),
    EACH_FLOAT_ORDER(BF),       EACH_FLOAT_ORDER(HF),       EACH_FLOAT_ORDER(BF2),      EACH_FLOAT_ORDER(HF2),
    {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
