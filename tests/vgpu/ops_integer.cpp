/* Integer arithmetic, bits, shifts, selection, moves. */
#include "lanes.h"

namespace vgpu
{
namespace
{

template <class T> T divide(T a, T b)
{
    if (b == 0) return static_cast<T>(~T{0}); /* what the hardware's sequence yields */
    if constexpr (T(-1) < T(0))
        if (b == T(-1)) return static_cast<T>(T(0) - static_cast<typename std::make_unsigned<T>::type>(a));
    return static_cast<T>(a / b);
}

template <class T> T remainder(T a, T b)
{
    if (b == 0) return a;
    if constexpr (T(-1) < T(0))
        if (b == T(-1)) return 0;
    return static_cast<T>(a % b);
}

inline s64 high_half(s64 a, s64 b)
{
    return static_cast<s64>((static_cast<__int128>(a) * b) >> 64);
}

inline u64 high_half(u64 a, u64 b)
{
    return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64);
}

inline s32 high_half(s32 a, s32 b)
{
    return static_cast<s32>((static_cast<s64>(a) * b) >> 32);
}

inline u32 high_half(u32 a, u32 b)
{
    return static_cast<u32>((static_cast<u64>(a) * b) >> 32);
}

inline s16 high_half(s16 a, s16 b)
{
    return static_cast<s16>((static_cast<s32>(a) * b) >> 16);
}

inline u16 high_half(u16 a, u16 b)
{
    return static_cast<u16>((static_cast<u32>(a) * b) >> 16);
}

/* Products wrap: computed unsigned, where that is defined. */
template <class T> T product(T a, T b)
{
    using U = typename std::conditional<sizeof(T) == 8, u64, u32>::type;
    return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
}

template <class T> T sum(T a, T b)
{
    using U = typename std::conditional<sizeof(T) == 8, u64, u32>::type;
    return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
}

template <class T> T difference(T a, T b)
{
    using U = typename std::conditional<sizeof(T) == 8, u64, u32>::type;
    return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
}

inline s32 low24(s32 a)
{
    return static_cast<s32>(static_cast<u32>(a) << 8) >> 8;
}

inline s32 saturated(s64 x)
{
    return static_cast<s32>(x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x);
}

/* Position of the most significant bit that differs from the sign; all ones when there is none. */
template <class T> u32 find_high_bit(T a, bool shift_amount)
{
    using U = typename std::make_unsigned<T>::type;
    U x = static_cast<U>(a);
    if constexpr (T(-1) < T(0))
        if (a < 0) x = static_cast<U>(~x);
    for (int bit = static_cast<int>(sizeof(T) * 8) - 1; bit >= 0; --bit)
        if (x >> bit & 1) return static_cast<u32>(shift_amount ? static_cast<int>(sizeof(T) * 8) - 1 - bit : bit);
    return ~0u;
}

inline u32 reversed(u32 x)
{
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

template <class T> T extract_field(T a, u32 b, u32 c)
{
    using U = typename std::make_unsigned<T>::type;
    const u32 bits = sizeof(T) * 8, msb = bits - 1;
    u32 position = b & 0xff, length = c & 0xff;
    bool is_signed = T(-1) < T(0);
    u32 top = position + length - 1 < msb ? position + length - 1 : msb;
    U fill = 0;
    if (is_signed && length != 0) fill = static_cast<U>(static_cast<U>(a) >> top & 1 ? ~U{0} : U{0});
    if (length == 0) return 0;
    if (position > msb) return static_cast<T>(fill);
    U field = static_cast<U>(static_cast<U>(a) >> position);
    u32 have = msb - position + 1;
    u32 n = length < have ? length : have;
    if (n >= bits) return static_cast<T>(field);
    U mask = static_cast<U>((U{1} << n) - 1);
    return static_cast<T>((field & mask) | (fill & static_cast<U>(~mask)));
}

template <class U> U insert_field(U a, U b, u32 c, u32 d)
{
    const u32 bits = sizeof(U) * 8;
    u32 position = c & 0xff, length = d & 0xff;
    if (position >= bits || length == 0) return b;
    u32 n = length < bits - position ? length : bits - position;
    U mask = n >= bits ? ~U{0} : static_cast<U>(((U{1} << n) - 1) << position);
    return static_cast<U>((b & ~mask) | (static_cast<U>(a << position) & mask));
}

template <class U> void insert(Warp &w, const Instr &i, u32 m)
{
    const U *a = reg<U>(w, i.r[1]), *b = reg<U>(w, i.r[2]);
    const u32 *c = reg<u32>(w, i.r[3]), *n = reg<u32>(w, i.r[4]);
    U t[LANES];
    EACH_LANE t[l] = insert_field(a[l], b[l], c[l], n[l]);
    write_lanes(reg<U>(w, i.r[0]), t, m);
}

inline u32 permute_bytes(u32 a, u32 b, u32 selector)
{
    u64 bytes = static_cast<u64>(b) << 32 | a;
    u32 d = 0;
    for (u32 k = 0; k < 4; ++k) {
        u32 s = selector >> (4 * k);
        u32 byte = static_cast<u32>(bytes >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        d |= byte << (8 * k);
    }
    return d;
}

/* The special modes of prmt choose the selector from the two low bits of c. */
inline u32 permute_mode(u32 a, u32 b, u32 c, int mode)
{
    static const u32 table[6][4] = {
        {0x3210, 0x4321, 0x5432, 0x6543}, /* f4e: forward extract */
        {0x5670, 0x6701, 0x7012, 0x0123}, /* b4e: backward extract */
        {0x0000, 0x1111, 0x2222, 0x3333}, /* rc8 */
        {0x3210, 0x3211, 0x3222, 0x3333}, /* ecl */
        {0x0000, 0x1110, 0x2210, 0x3210}, /* ecr */
        {0x1010, 0x3232, 0x1010, 0x3232}, /* rc16 */
    };
    return permute_bytes(a, b, table[mode][c & 3]);
}

template <class U> U logic(U a, U b, U c, u32 table)
{
    U d = 0;
    d |= table & 0x01 ? ~a & ~b & ~c : U{0};
    d |= table & 0x02 ? ~a & ~b & c : U{0};
    d |= table & 0x04 ? ~a & b & ~c : U{0};
    d |= table & 0x08 ? ~a & b & c : U{0};
    d |= table & 0x10 ? a & ~b & ~c : U{0};
    d |= table & 0x20 ? a & ~b & c : U{0};
    d |= table & 0x40 ? a & b & ~c : U{0};
    d |= table & 0x80 ? a & b & c : U{0};
    return d;
}

void lop3(Warp &w, const Instr &i, u32 m)
{
    u32 table = static_cast<u32>(i.imm);
    map3<u32, u32, u32, u32>(w, i, m, [table](u32 a, u32 b, u32 c) { return logic(a, b, c, table); });
}

inline u32 funnel_left(u32 low, u32 high, u32 n)
{
    return n == 0 ? high : n >= 32 ? low : high << n | low >> (32 - n);
}

inline u32 funnel_right(u32 low, u32 high, u32 n)
{
    return n == 0 ? low : n >= 32 ? high : high << (32 - n) | low >> n;
}

/* Sums with the condition code: bit 0 of flags reads it, bit 1 writes it, bit 2 subtracts. */
template <class U> void add_carry(Warp &w, const Instr &i, u32 m)
{
    U *d = reg<U>(w, i.r[0]);
    const U *a = reg<U>(w, i.r[1]), *b = reg<U>(w, i.r[2]);
    u32 flags = static_cast<u32>(i.imm), carry = w.carry;
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        unsigned __int128 in = flags & 1 ? carry >> l & 1 : 0;
        /* A subtraction keeps the borrow in the condition code. */
        unsigned __int128 x = flags & 4 ? static_cast<unsigned __int128>(a[l]) - b[l] - in
                                        : static_cast<unsigned __int128>(a[l]) + b[l] + in;
        d[l] = static_cast<U>(x);
        u32 out = static_cast<u32>(x >> (8 * sizeof(U))) & 1;
        if (flags & 2) w.carry = (w.carry & ~(1u << l)) | out << l;
    }
}

/* The same for a * b + c; bit 3 of flags takes the high half of the product, bit 4 says that it is signed. */
template <class U> void mad_carry(Warp &w, const Instr &i, u32 m)
{
    using S = typename std::make_signed<U>::type;
    U *d = reg<U>(w, i.r[0]);
    const U *a = reg<U>(w, i.r[1]), *b = reg<U>(w, i.r[2]), *c = reg<U>(w, i.r[3]);
    u32 flags = static_cast<u32>(i.imm), carry = w.carry;
    for (int l = 0; l < LANES; ++l) {
        if (!(m >> l & 1)) continue;
        U low = static_cast<U>(a[l] * b[l]);
        U high =
            flags & 16 ? static_cast<U>(high_half(static_cast<S>(a[l]), static_cast<S>(b[l]))) : high_half(a[l], b[l]);
        unsigned __int128 x =
            static_cast<unsigned __int128>(flags & 8 ? high : low) + c[l] + (flags & 1 ? carry >> l & 1 : 0);
        d[l] = static_cast<U>(x);
        if (flags & 2) w.carry = (w.carry & ~(1u << l)) | (static_cast<u32>(x >> (8 * sizeof(U))) & 1) << l;
    }
}

template <class T> void select(Warp &w, const Instr &i, u32 m)
{
    T *d = reg<T>(w, i.r[0]);
    const T *a = reg<T>(w, i.r[1]), *b = reg<T>(w, i.r[2]);
    u32 p = *reg<u32>(w, i.r[3]);
    T t[LANES];
    EACH_LANE t[l] = (p >> l & 1) ? a[l] : b[l];
    write_lanes(d, t, m);
}

/* slct: a where c >= 0, else b. */
template <class T> void select_sign(Warp &w, const Instr &i, u32 m)
{
    map3<T, T, T, s32>(w, i, m, [](T a, T b, s32 c) { return c >= 0 ? a : b; });
}

template <class T> void select_sign_float(Warp &w, const Instr &i, u32 m)
{
    map3<T, T, T, float>(w, i, m, [](T a, T b, float c) { return c >= 0 ? a : b; });
}

/* mov of n elements E into one register T, and back; a missing destination is "_". */
template <class T, class E> void pack(Warp &w, const Instr &i, u32 m)
{
    T t[LANES] = {};
    for (u32 k = 0; k < sizeof(T) / sizeof(E); ++k) {
        const E *a = reg<E>(w, i.r[1 + k]);
        EACH_LANE t[l] = static_cast<T>(t[l] | static_cast<T>(a[l]) << (8 * sizeof(E) * k));
    }
    write_lanes(reg<T>(w, i.r[0]), t, m);
}

template <class T, class E> void unpack(Warp &w, const Instr &i, u32 m)
{
    const u32 n = sizeof(T) / sizeof(E);
    T t[LANES];
    memcpy(t, reg<T>(w, i.r[n]), sizeof t);
    for (u32 k = 0; k < n; ++k) {
        if (i.r[k] == NO_REGISTER) continue;
        E e[LANES];
        EACH_LANE e[l] = static_cast<E>(t[l] >> (8 * sizeof(E) * k));
        write_lanes(reg<E>(w, i.r[k]), e, m);
    }
}

/* Predicates are one bit per lane. r[k] as usual; imm bit k: operand k is negated. */
template <class F> inline void predicates(Warp &w, const Instr &i, u32 m, F f)
{
    u32 a = *reg<u32>(w, i.r[1]), b = i.r[2] == NO_REGISTER ? 0 : *reg<u32>(w, i.r[2]);
    if (i.imm & 2) a = ~a;
    if (i.imm & 4) b = ~b;
    write_predicate(w, i.r[0], f(a, b), m);
}

void clock32(Warp &w, const Instr &i, u32 m)
{
    u32 t[LANES];
    for (u32 &x : t)
        x = static_cast<u32>(warp_clock(w));
    write_lanes(reg<u32>(w, i.r[0]), t, m);
}

void clock64(Warp &w, const Instr &i, u32 m)
{
    u64 t[LANES];
    for (u64 &x : t)
        x = warp_clock(w);
    write_lanes(reg<u64>(w, i.r[0]), t, m);
}

inline s32 dot4(bool a_signed, bool b_signed, u32 a, u32 b, u32 c)
{
    u32 d = c;
    for (int k = 0; k < 32; k += 8) {
        s32 x = a_signed ? static_cast<s8>(a >> k) : static_cast<s32>(a >> k & 0xff);
        s32 y = b_signed ? static_cast<s8>(b >> k) : static_cast<s32>(b >> k & 0xff);
        d += static_cast<u32>(x * y);
    }
    return static_cast<s32>(d);
}

#define ARITHMETIC(T, n)                                                                                               \
    OP2("add." n, T, sum(a, b)), OP2("sub." n, T, difference(a, b)), OP2("mul.lo." n, T, product(a, b)),               \
        OP2("mul.hi." n, T, high_half(a, b)), OP2("div." n, T, divide(a, b)), OP2("rem." n, T, remainder(a, b)),       \
        OP2("min." n, T, a < b ? a : b), OP2("max." n, T, a > b ? a : b), OP3("mad.lo." n, T, sum(product(a, b), c)),  \
        OP3("mad.hi." n, T, sum(high_half(a, b), c)),                                                                  \
        OP3("sad." n, T, sum(c, a < b ? difference(b, a) : difference(a, b)))

} // namespace

namespace VGPU_ISA
{
extern const OpEntry integer_ops[];
const OpEntry integer_ops[] = {
    ARITHMETIC(s16, "s16"),
    ARITHMETIC(u16, "u16"),
    ARITHMETIC(s32, "s32"),
    ARITHMETIC(u32, "u32"),
    ARITHMETIC(s64, "s64"),
    ARITHMETIC(u64, "u64"),
    OP2X("mul.wide.s16", s32, s16, s16, static_cast<s32>(a) * b),
    OP2X("mul.wide.u16", u32, u16, u16, static_cast<u32>(a) * b),
    OP2X("mul.wide.s32", s64, s32, s32, static_cast<s64>(a) * b),
    OP2X("mul.wide.u32", u64, u32, u32, static_cast<u64>(a) * b),
    OP3X("mad.wide.s16", s32, s16, s16, s32, sum(static_cast<s32>(a) * b, c)),
    OP3X("mad.wide.u16", u32, u16, u16, u32, sum(static_cast<u32>(a) * b, c)),
    OP3X("mad.wide.s32", s64, s32, s32, s64, sum(static_cast<s64>(a) * b, c)),
    OP3X("mad.wide.u32", u64, u32, u32, u64, sum(static_cast<u64>(a) * b, c)),
    OP2("mul24.lo.s32", s32, product(low24(a), low24(b))),
    OP2("mul24.lo.u32", u32, (a & 0xffffff) * (b & 0xffffff)),
    OP2("add.sat.s32", s32, saturated(static_cast<s64>(a) + b)),
    OP2("sub.sat.s32", s32, saturated(static_cast<s64>(a) - b)),
    OP("addc.32", add_carry<u32>(w, i, m)),
    OP("addc.64", add_carry<u64>(w, i, m)),
    OP("madc.32", mad_carry<u32>(w, i, m)),
    OP("madc.64", mad_carry<u64>(w, i, m)),
    OP1("abs.s16", s16, s16, a < 0 ? difference<s16>(0, a) : a),
    OP1("abs.s32", s32, s32, a < 0 ? difference<s32>(0, a) : a),
    OP1("abs.s64", s64, s64, a < 0 ? difference<s64>(0, a) : a),
    OP1("neg.s16", s16, s16, difference<s16>(0, a)),
    OP1("neg.s32", s32, s32, difference<s32>(0, a)),
    OP1("neg.s64", s64, s64, difference<s64>(0, a)),
    OP1("popc.b32", u32, u32, __builtin_popcount(a)),
    OP1("popc.b64", u32, u64, __builtin_popcountll(a)),
    OP1("clz.b32", u32, u32, a ? __builtin_clz(a) : 32),
    OP1("clz.b64", u32, u64, a ? __builtin_clzll(a) : 64),
    OP1("brev.b32", u32, u32, reversed(a)),
    OP1("brev.b64", u64, u64,
        static_cast<u64>(reversed(static_cast<u32>(a))) << 32 | reversed(static_cast<u32>(a >> 32))),
    OP1("bfind.u32", u32, u32, find_high_bit(a, false)),
    OP1("bfind.s32", u32, s32, find_high_bit(a, false)),
    OP1("bfind.u64", u32, u64, find_high_bit(a, false)),
    OP1("bfind.s64", u32, s64, find_high_bit(a, false)),
    OP1("bfind.shiftamt.u32", u32, u32, find_high_bit(a, true)),
    OP1("bfind.shiftamt.s32", u32, s32, find_high_bit(a, true)),
    OP1("bfind.shiftamt.u64", u32, u64, find_high_bit(a, true)),
    OP1("bfind.shiftamt.s64", u32, s64, find_high_bit(a, true)),
    OP3X("bfe.u32", u32, u32, u32, u32, extract_field(a, b, c)),
    OP3X("bfe.s32", s32, s32, u32, u32, extract_field(a, b, c)),
    OP3X("bfe.u64", u64, u64, u32, u32, extract_field(a, b, c)),
    OP3X("bfe.s64", s64, s64, u32, u32, extract_field(a, b, c)),
    OP("bfi.b32", insert<u32>(w, i, m)),
    OP("bfi.b64", insert<u64>(w, i, m)),
    OP3("prmt.b32", u32, permute_bytes(a, b, c)),
    OP3("prmt.b32.f4e", u32, permute_mode(a, b, c, 0)),
    OP3("prmt.b32.b4e", u32, permute_mode(a, b, c, 1)),
    OP3("prmt.b32.rc8", u32, permute_mode(a, b, c, 2)),
    OP3("prmt.b32.ecl", u32, permute_mode(a, b, c, 3)),
    OP3("prmt.b32.ecr", u32, permute_mode(a, b, c, 4)),
    OP3("prmt.b32.rc16", u32, permute_mode(a, b, c, 5)),
    OP("lop3.b32", lop3(w, i, m)),
    OP3("shf.l.wrap.b32", u32, funnel_left(a, b, c & 31)),
    OP3("shf.r.wrap.b32", u32, funnel_right(a, b, c & 31)),
    OP3("shf.l.clamp.b32", u32, funnel_left(a, b, c < 32 ? c : 32)),
    OP3("shf.r.clamp.b32", u32, funnel_right(a, b, c < 32 ? c : 32)),
    OP2("and.b16", u16, a &b),
    OP2("or.b16", u16, a | b),
    OP2("xor.b16", u16, a ^ b),
    OP1("not.b16", u16, u16, ~a),
    OP2("and.b32", u32, a &b),
    OP2("or.b32", u32, a | b),
    OP2("xor.b32", u32, a ^ b),
    OP1("not.b32", u32, u32, ~a),
    OP2("and.b64", u64, a &b),
    OP2("or.b64", u64, a | b),
    OP2("xor.b64", u64, a ^ b),
    OP1("not.b64", u64, u64, ~a),
    OP1("cnot.b16", u16, u16, a == 0),
    OP1("cnot.b32", u32, u32, a == 0),
    OP1("cnot.b64", u64, u64, a == 0),
    OP("and.pred", predicates(w, i, m, [](u32 a, u32 b) { return a & b; })),
    OP("or.pred", predicates(w, i, m, [](u32 a, u32 b) { return a | b; })),
    OP("xor.pred", predicates(w, i, m, [](u32 a, u32 b) { return a ^ b; })),
    OP("not.pred", predicates(w, i, m, [](u32 a, u32) { return ~a; })),
    OP("mov.pred", predicates(w, i, m, [](u32 a, u32) { return a; })),
    OP2X("shl.b16", u16, u16, u32, b < 16 ? static_cast<u32>(a) << b : 0),
    OP2X("shl.b32", u32, u32, u32, b < 32 ? a << b : 0),
    OP2X("shl.b64", u64, u64, u32, b < 64 ? a << b : 0),
    OP2X("shr.u16", u16, u16, u32, b < 16 ? a >> b : 0),
    OP2X("shr.s16", s16, s16, u32, a >> (b < 15 ? b : 15)),
    OP2X("shr.u32", u32, u32, u32, b < 32 ? a >> b : 0),
    OP2X("shr.s32", s32, s32, u32, a >> (b < 31 ? b : 31)),
    OP2X("shr.u64", u64, u64, u32, b < 64 ? a >> b : 0),
    OP2X("shr.s64", s64, s64, u32, a >> (b < 63 ? b : 63)),
    OP("selp.b16", select<u16>(w, i, m)),
    OP("selp.b32", select<u32>(w, i, m)),
    OP("selp.b64", select<u64>(w, i, m)),
    OP("slct.b16.s32", select_sign<u16>(w, i, m)),
    OP("slct.b32.s32", select_sign<u32>(w, i, m)),
    OP("slct.b64.s32", select_sign<u64>(w, i, m)),
    OP("slct.b16.f32", select_sign_float<u16>(w, i, m)),
    OP("slct.b32.f32", select_sign_float<u32>(w, i, m)),
    OP("slct.b64.f32", select_sign_float<u64>(w, i, m)),
    OP1("mov.b16", u16, u16, a),
    OP1("mov.b32", u32, u32, a),
    OP1("mov.b64", u64, u64, a),
    OP("pack.b32.2", (pack<u32, u16>(w, i, m))),
    OP("pack.b64.2", (pack<u64, u32>(w, i, m))),
    OP("pack.b64.4", (pack<u64, u16>(w, i, m))),
    OP("unpack.b32.2", (unpack<u32, u16>(w, i, m))),
    OP("unpack.b64.2", (unpack<u64, u32>(w, i, m))),
    OP("unpack.b64.4", (unpack<u64, u16>(w, i, m))),
    OP("clock.b32", clock32(w, i, m)),
    OP("clock.b64", clock64(w, i, m)),
    OP3X("dp4a.s32.s32", s32, u32, u32, u32, dot4(true, true, a, b, c)),
    OP3X("dp4a.u32.u32", s32, u32, u32, u32, dot4(false, false, a, b, c)),
    OP3X("dp4a.s32.u32", s32, u32, u32, u32, dot4(true, false, a, b, c)),
    OP3X("dp4a.u32.s32", s32, u32, u32, u32, dot4(false, true, a, b, c)),
    {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
