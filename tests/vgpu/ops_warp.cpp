/* Lanes that talk to each other: shuffles, votes, matches, reductions. The executor has seen to it that all lanes of
 * the mask operand are here. */
#include "lanes.h"

namespace vgpu
{
namespace
{

/* imm: 0 up, 1 down, 2 bfly, 3 idx. r: d, a, b, c, predicate of d. */
void shuffle(Warp &w, const Instr &i, u32 m)
{
    const u32 *a = reg<u32>(w, i.r[1]), *b = reg<u32>(w, i.r[2]), *c = reg<u32>(w, i.r[3]);
    u32 d[LANES], in_range = 0;
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(m >> lane & 1)) continue;
        int clamp = c[lane] & 31, segment = c[lane] >> 8 & 31, by = b[lane] & 31;
        int high = (lane & segment) | (clamp & ~segment), low = lane & segment;
        int from = lane;
        bool inside = false;
        switch (i.imm) {
        case 0:
            from = lane - by, inside = from >= high;
            break;
        case 1:
            from = lane + by, inside = from <= high;
            break;
        case 2:
            from = lane ^ by, inside = from <= high;
            break;
        default:
            from = low | (by & ~segment), inside = from <= high;
            break;
        }
        if (!inside) from = lane;
        if (!(m >> from & 1))
            warp_fault(w, i, lane, cudaErrorLaunchFailure, "shfl reads lane %d, which takes no part (lanes 0x%08x do)",
                       from, m);
        d[lane] = a[from];
        in_range |= static_cast<u32>(inside) << lane;
    }
    write_lanes(reg<u32>(w, i.r[0]), d, m);
    write_predicate(w, i.r[4], in_range, m);
}

/* imm: 0 all, 1 any, 2 uni, 3 ballot; bit 4: the predicate is negated. */
void vote(Warp &w, const Instr &i, u32 m)
{
    u32 p = *reg<u32>(w, i.r[1]);
    if (i.imm & 16) p = ~p;
    p &= m;
    u32 yes = 0;
    switch (i.imm & 15) {
    case 0:
        yes = p == m ? ALL_LANES : 0;
        break;
    case 1:
        yes = p != 0 ? ALL_LANES : 0;
        break;
    case 2:
        yes = p == m || p == 0 ? ALL_LANES : 0;
        break;
    default: {
        u32 d[LANES];
        EACH_LANE d[l] = p;
        write_lanes(reg<u32>(w, i.r[0]), d, m);
        return;
    }
    }
    write_predicate(w, i.r[0], yes, m);
}

template <class T> void match_any(Warp &w, const Instr &i, u32 m)
{
    const T *a = reg<T>(w, i.r[1]);
    u32 d[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        u32 same = 0;
        for (int other = 0; other < LANES; ++other)
            same |= static_cast<u32>(a[other] == a[lane]) << other;
        d[lane] = same & m;
    }
    write_lanes(reg<u32>(w, i.r[0]), d, m);
}

template <class T> void match_all(Warp &w, const Instr &i, u32 m)
{
    const T *a = reg<T>(w, i.r[1]);
    bool same = true;
    for (int lane = 0; lane < LANES; ++lane)
        same = same && (!(m >> lane & 1) || a[lane] == a[__builtin_ctz(m)]);
    u32 d[LANES];
    EACH_LANE d[l] = same ? m : 0;
    write_lanes(reg<u32>(w, i.r[0]), d, m);
    write_predicate(w, i.r[4], same ? ALL_LANES : 0, m);
}

template <class T, class F> inline void reduce(Warp &w, const Instr &i, u32 m, F f)
{
    const T *a = reg<T>(w, i.r[1]);
    T x = a[__builtin_ctz(m)];
    for (int l = __builtin_ctz(m) + 1; l < LANES; ++l)
        if (m >> l & 1) x = f(x, a[l]);
    T d[LANES];
    for (T &y : d)
        y = x;
    write_lanes(reg<T>(w, i.r[0]), d, m);
}

void active_mask(Warp &w, const Instr &i, u32 m)
{
    u32 d[LANES];
    EACH_LANE d[l] = m;
    write_lanes(reg<u32>(w, i.r[0]), d, m);
}

#define REDUX(name, T, expression) OP("redux." name, (reduce<T>(w, i, m, [](T a, T b) -> T { return expression; })))

} // namespace

extern const OpEntry warp_ops[];
const OpEntry warp_ops[] = {
    {"shfl", shuffle},
    {"vote", vote},
    {"match.any.b32", match_any<u32>},
    {"match.any.b64", match_any<u64>},
    {"match.all.b32", match_all<u32>},
    {"match.all.b64", match_all<u64>},
    REDUX("add.u32", u32, a + b),
    REDUX("add.s32", u32, a + b),
    REDUX("min.u32", u32, a < b ? a : b),
    REDUX("max.u32", u32, a > b ? a : b),
    REDUX("min.s32", s32, a < b ? a : b),
    REDUX("max.s32", s32, a > b ? a : b),
    REDUX("and.b32", u32, a &b),
    REDUX("or.b32", u32, a | b),
    REDUX("xor.b32", u32, a ^ b),
    {"activemask", active_mask},
    {"nothing", [](Warp &, const Instr &, u32) {}},
    {"trap",
     [](Warp &w, const Instr &i, u32 m) { warp_fault(w, i, __builtin_ctz(m), cudaErrorLaunchFailure, "trap"); }},
    {"vprintf", warp_print},
    {nullptr, nullptr},
};

} // namespace vgpu
