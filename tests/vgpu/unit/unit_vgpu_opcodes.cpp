/* Every family of opcodes against results worked out by hand, with all lanes and with half of them. */
#include "ptx_rig.h"

#define ROWS(...)                                                                                                      \
    static const PtxRow rows[] = {__VA_ARGS__};                                                                        \
    ptx_check_rows(rows, sizeof rows / sizeof rows[0])

static void integers(void **)
{
    ROWS({'r', "add.s32 %r10, %r2, %r3;", 0x7fffffff, 1, 0, 0x80000000}, {'r', "add.u32 %r10, %r2, -1;", 5, 0, 0, 4},
         {'h', "add.s16 %h10, %h2, %h3;", 0x7fff, 1, 0, 0x8000},
         {'q', "add.s64 %q10, %q2, %q3;", 0xffffffffffffffff, 2, 0, 1},
         {'r', "sub.s32 %r10, %r2, %r3;", 3, 5, 0, 0xfffffffe},
         {'q', "sub.u64 %q10, %q2, %q3;", 0, 1, 0, 0xffffffffffffffff},
         {'r', "add.sat.s32 %r10, %r2, %r3;", 0x7fffffff, 1, 0, 0x7fffffff},
         {'r', "sub.sat.s32 %r10, %r2, %r3;", 0x80000000, 1, 0, 0x80000000},
         {'r', "mul.lo.s32 %r10, %r2, %r3;", 0x10001, 0x10001, 0, 0x00020001},
         {'r', "mul.hi.u32 %r10, %r2, %r3;", 0xffffffff, 0xffffffff, 0, 0xfffffffe},
         {'r', "mul.hi.s32 %r10, %r2, %r3;", 0xffffffff, 2, 0, 0xffffffff},
         {'q', "mul.hi.u64 %q10, %q2, %q3;", 0x8000000000000000, 4, 0, 2},
         {'q', "mul.hi.s64 %q10, %q2, %q3;", 0xffffffffffffffff, 3, 0, 0xffffffffffffffff},
         {'q', "mul.lo.s64 %q10, %q2, %q3;", 0x100000001, 3, 0, 0x300000003},
         {'h', "mul.lo.s16 %h10, %h2, %h3;", 300, 300, 0, 24464}, {'h', "mul.hi.s16 %h10, %h2, %h3;", 300, 300, 0, 1},
         {'h', "mul.hi.u16 %h10, %h2, %h3;", 0xffff, 0xffff, 0, 0xfffe},
         {'q', "mul.wide.s32 %q10, %r2, %r3;", 0xffffffff, 5, 0, 0xfffffffffffffffb},
         {'q', "mul.wide.u32 %q10, %r2, %r3;", 0xffffffff, 5, 0, 0x4fffffffb},
         {'r', "mul.wide.s16 %r10, %h2, %h3;", 0xffff, 7, 0, 0xfffffff9},
         {'r', "mul.wide.u16 %r10, %h2, %h3;", 0xffff, 7, 0, 0x6fff9},
         {'q', "mad.wide.u32 %q10, %r2, %r3, %q4;", 0xffffffff, 2, 3, 0x200000001},
         {'q', "mad.wide.s32 %q10, %r2, %r3, %q4;", 0xffffffff, 2, 3, 1},
         {'r', "mad.wide.s16 %r10, %h2, %h3, %r4;", 0xfffe, 3, 10, 4},
         {'r', "mad.wide.u16 %r10, %h2, %h3, %r4;", 2, 3, 10, 16},
         {'r', "mad.lo.s32 %r10, %r2, %r3, %r4;", 7, 6, 0xffffffff, 41},
         {'r', "mad.hi.u32 %r10, %r2, %r3, %r4;", 0x80000000, 4, 5, 7},
         {'r', "mad.hi.s32 %r10, %r2, %r3, %r4;", 0xffffffff, 4, 5, 4},
         {'q', "mad.lo.u64 %q10, %q2, %q3, %q4;", 1ull << 40, 2, 1, (2ull << 40) + 1},
         {'h', "mad.lo.u16 %h10, %h2, %h3, %h4;", 0x100, 0x100, 9, 9},
         {'r', "mul24.lo.s32 %r10, %r2, %r3;", 0x01ffffff, 3, 0, 0xfffffffd},
         {'r', "mul24.lo.u32 %r10, %r2, %r3;", 0xff000003, 3, 0, 9},
         {'r', "sad.s32 %r10, %r2, %r3, %r4;", 0xfffffffe, 3, 10, 15},
         {'r', "sad.u32 %r10, %r2, %r3, %r4;", 9, 3, 10, 16},
         {'r', "div.s32 %r10, %r2, %r3;", 0xfffffff9, 2, 0, 0xfffffffd},
         {'r', "div.u32 %r10, %r2, %r3;", 0xfffffff9, 2, 0, 0x7ffffffc},
         {'r', "div.s32 %r10, %r2, %r3;", 0x80000000, 0xffffffff, 0, 0x80000000},
         {'q', "div.s64 %q10, %q2, %q3;", 0xffffffffffffff9c, 7, 0, 0xfffffffffffffff2},
         {'q', "div.u64 %q10, %q2, %q3;", 100, 7, 0, 14}, {'h', "div.u16 %h10, %h2, %h3;", 0xffff, 3, 0, 0x5555},
         {'h', "div.s16 %h10, %h2, %h3;", 0xfff9, 2, 0, 0xfffd},
         {'r', "rem.s32 %r10, %r2, %r3;", 0xfffffff9, 2, 0, 0xffffffff}, {'r', "rem.u32 %r10, %r2, %r3;", 17, 5, 0, 2},
         {'q', "rem.s64 %q10, %q2, %q3;", 0xffffffffffffff9c, 7, 0, 0xfffffffffffffffe},
         {'q', "rem.u64 %q10, %q2, %q3;", 100, 7, 0, 2}, {'h', "rem.u16 %h10, %h2, %h3;", 100, 7, 0, 2},
         {'r', "min.s32 %r10, %r2, %r3;", 0xffffffff, 1, 0, 0xffffffff},
         {'r', "min.u32 %r10, %r2, %r3;", 0xffffffff, 1, 0, 1}, {'r', "max.s32 %r10, %r2, %r3;", 0xffffffff, 1, 0, 1},
         {'r', "max.u32 %r10, %r2, %r3;", 0xffffffff, 1, 0, 0xffffffff},
         {'q', "min.s64 %q10, %q2, %q3;", 0xffffffffffffffff, 1, 0, 0xffffffffffffffff},
         {'q', "max.u64 %q10, %q2, %q3;", 0xffffffffffffffff, 1, 0, 0xffffffffffffffff},
         {'q', "max.s64 %q10, %q2, %q3;", 0xffffffffffffffff, 1, 0, 1}, {'q', "min.u64 %q10, %q2, %q3;", 3, 4, 0, 3},
         {'h', "min.s16 %h10, %h2, %h3;", 0xffff, 1, 0, 0xffff}, {'h', "max.u16 %h10, %h2, %h3;", 0xffff, 1, 0, 0xffff},
         {'r', "abs.s32 %r10, %r2;", 0xfffffffb, 0, 0, 5}, {'q', "abs.s64 %q10, %q2;", 0xfffffffffffffffb, 0, 0, 5},
         {'h', "abs.s16 %h10, %h2;", 0xfffb, 0, 0, 5}, {'r', "neg.s32 %r10, %r2;", 5, 0, 0, 0xfffffffb},
         {'q', "neg.s64 %q10, %q2;", 5, 0, 0, 0xfffffffffffffffb}, {'h', "neg.s16 %h10, %h2;", 5, 0, 0, 0xfffb},
         {'r', "dp4a.s32.s32 %r10, %r2, %r3, %r4;", 0x01ff0203, 0x01020304, 5, 5 + 1 - 2 + 6 + 12},
         {'r', "dp4a.u32.u32 %r10, %r2, %r3, %r4;", 0x01ff0203, 0x01020304, 5, 5 + 1 + 510 + 6 + 12});
}

/* 96-bit sums and products from 32-bit pieces, as sinf reduces large arguments. */
static void carries(void **)
{
    ROWS({'r', "add.cc.u32 %r11, %r2, %r3; addc.u32 %r10, %r4, 0;", 0xffffffff, 1, 7, 8},
         {'r', "add.cc.u32 %r11, %r2, %r3; addc.u32 %r10, %r4, 0;", 0xfffffffe, 1, 7, 7},
         {'r', "add.cc.u32 %r11, %r2, %r3; addc.cc.u32 %r11, 0xffffffff, 0; addc.u32 %r10, %r4, %r4;", 0xffffffff, 1, 7,
          15},
         {'r', "sub.cc.u32 %r11, %r2, %r3; subc.u32 %r10, %r4, 0;", 0, 1, 7, 6},
         {'r', "sub.cc.u32 %r11, %r2, %r3; subc.u32 %r10, %r4, 0;", 1, 1, 7, 7},
         {'r', "mad.lo.cc.u32 %r11, %r2, %r3, %r4; madc.hi.u32 %r10, %r2, %r3, 0;", 0xffffffff, 0xffffffff, 0xffffffff,
          0xffffffff},
         {'r', "mad.lo.cc.u32 %r11, %r2, %r3, %r4; madc.hi.u32 %r10, %r2, %r3, 5;", 3, 4, 5, 5},
         {'r', "mad.lo.cc.u32 %r11, %r2, %r3, %r4; madc.lo.u32 %r10, %r2, %r3, 5;", 0xffffffff, 1, 1,
          0xffffffff + 5ull + 1 - 0x100000000ull},
         {'q', "add.cc.u64 %q11, %q2, %q3; addc.u64 %q10, %q4, 0;", 0xffffffffffffffff, 1, 7, 8},
         {'q', "sub.cc.s64 %q11, %q2, %q3; subc.s64 %q10, %q4, 0;", 0, 1, 7, 6},
         {'q', "mad.lo.cc.u64 %q11, %q2, %q3, %q4; madc.hi.u64 %q10, %q2, %q3, 0;", 0xffffffffffffffff, 2, 2, 2});
}

static void bits(void **)
{
    ROWS({'r', "and.b32 %r10, %r2, %r3;", 0xff00ff00, 0x0ff00ff0, 0, 0x0f000f00},
         {'r', "or.b32 %r10, %r2, %r3;", 0xf0, 0x0f, 0, 0xff}, {'r', "xor.b32 %r10, %r2, %r3;", 0xff, 0x0f, 0, 0xf0},
         {'r', "not.b32 %r10, %r2;", 0xf, 0, 0, 0xfffffff0}, {'r', "cnot.b32 %r10, %r2;", 0, 0, 0, 1},
         {'r', "cnot.b32 %r10, %r2;", 4, 0, 0, 0}, {'q', "and.b64 %q10, %q2, 28;", 0xffffffffffffffff, 0, 0, 28},
         {'q', "or.b64 %q10, %q2, %q3;", 1ull << 63, 1, 0, 0x8000000000000001},
         {'q', "xor.b64 %q10, %q2, %q3;", ~0ull, 1, 0, 0xfffffffffffffffe}, {'q', "not.b64 %q10, %q2;", 0, 0, 0, ~0ull},
         {'h', "and.b16 %h10, %h2, %h3;", 0xff0, 0xff, 0, 0xf0}, {'h', "or.b16 %h10, %h2, %h3;", 0xff0, 0xff, 0, 0xfff},
         {'h', "xor.b16 %h10, %h2, %h3;", 0xff0, 0xff, 0, 0xf0f}, {'h', "not.b16 %h10, %h2;", 0xff, 0, 0, 0xff00},
         {'r', "shl.b32 %r10, %r2, %r3;", 1, 31, 0, 0x80000000}, {'r', "shl.b32 %r10, %r2, %r3;", 1, 32, 0, 0},
         {'r', "shr.u32 %r10, %r2, %r3;", 0x80000000, 31, 0, 1}, {'r', "shr.u32 %r10, %r2, 40;", 0x80000000, 0, 0, 0},
         {'r', "shr.s32 %r10, %r2, %r3;", 0x80000000, 31, 0, 0xffffffff},
         {'r', "shr.s32 %r10, %r2, 99;", 0x80000000, 0, 0, 0xffffffff},
         {'r', "shr.b32 %r10, %r2, 4;", 0x80000000, 0, 0, 0x08000000},
         {'q', "shl.b64 %q10, %q2, %r3;", 1, 63, 0, 1ull << 63}, {'q', "shr.u64 %q10, %q2, %r3;", 1ull << 63, 63, 0, 1},
         {'q', "shr.s64 %q10, %q2, 70;", 1ull << 63, 0, 0, ~0ull}, {'h', "shl.b16 %h10, %h2, %r3;", 1, 15, 0, 0x8000},
         {'h', "shr.u16 %h10, %h2, 1;", 0x8000, 0, 0, 0x4000}, {'h', "shr.s16 %h10, %h2, 1;", 0x8000, 0, 0, 0xc000},
         /* lop3: the table of f(0xf0, 0xcc, 0xaa) */
         {'r', "lop3.b32 %r10, %r2, %r3, %r4, 0xe8;", 0xffff0000, 0xff00ff00, 0xf0f0f0f0, 0xfff0f000}, /* majority */
         {'r', "lop3.b32 %r10, %r2, %r3, %r4, 0x96;", 0xffff0000, 0xff00ff00, 0xf0f0f0f0, 0xf00f0ff0}, /* a ^ b ^ c */
         {'r', "lop3.b32 %r10, %r2, %r3, %r4, 0xca;", 0xffff0000, 0x12345678, 0x9abcdef0, 0x1234def0}, /* a ? b : c */
         {'r', "lop3.b32 %r10, %r2, %r3, %r4, 0x01;", 0xffff0000, 0xff00ff00, 0xf0f0f0f0, 0x0000000f},
         {'r', "shf.l.wrap.b32 %r10, %r2, %r3, %r4;", 0x89abcdef, 0x01234567, 8, 0x23456789},
         {'r', "shf.r.wrap.b32 %r10, %r2, %r3, %r4;", 0x89abcdef, 0x01234567, 8, 0x6789abcd},
         {'r', "shf.l.wrap.b32 %r10, %r2, %r3, %r4;", 0x89abcdef, 0x01234567, 40, 0x23456789},
         {'r', "shf.l.clamp.b32 %r10, %r2, %r3, %r4;", 0x89abcdef, 0x01234567, 40, 0x89abcdef},
         {'r', "shf.r.clamp.b32 %r10, %r2, %r3, %r4;", 0x89abcdef, 0x01234567, 32, 0x01234567},
         {'r', "shf.r.wrap.b32 %r10, %r2, %r3, 0;", 0x89abcdef, 0x01234567, 0, 0x89abcdef},
         {'r', "prmt.b32 %r10, %r2, %r3, %r4;", 0x33221100, 0x77665544, 0x7531, 0x77553311},
         {'r', "prmt.b32 %r10, %r2, %r3, %r4;", 0x80221100, 0, 0xb021, 0xff002211},
         {'r', "prmt.b32 %r10, %r2, %r3, 0x5410;", 0x1111aaaa, 0x2222bbbb, 0, 0xbbbbaaaa},
         {'r', "prmt.b32.f4e %r10, %r2, %r3, %r4;", 0x33221100, 0x77665544, 1, 0x44332211},
         {'r', "prmt.b32.b4e %r10, %r2, %r3, %r4;", 0x33221100, 0x77665544, 1, 0x66770011},
         {'r', "prmt.b32.rc8 %r10, %r2, %r3, %r4;", 0x33221100, 0, 2, 0x22222222},
         {'r', "prmt.b32.ecl %r10, %r2, %r3, %r4;", 0x33221100, 0, 1, 0x33221111},
         {'r', "prmt.b32.ecr %r10, %r2, %r3, %r4;", 0x33221100, 0, 2, 0x22221100},
         {'r', "prmt.b32.rc16 %r10, %r2, %r3, %r4;", 0x33221100, 0, 1, 0x33223322},
         {'r', "bfe.u32 %r10, %r2, %r3, %r4;", 0x12345678, 8, 12, 0x456},
         {'r', "bfe.s32 %r10, %r2, %r3, %r4;", 0x00000f00, 8, 4, 0xffffffff},
         {'r', "bfe.s32 %r10, %r2, %r3, %r4;", 0x80000000, 28, 8, 0xfffffff8},
         {'r', "bfe.u32 %r10, %r2, %r3, %r4;", 0x80000000, 28, 8, 8},
         {'r', "bfe.u32 %r10, %r2, 0, 0;", 0xffffffff, 0, 0, 0},
         {'q', "bfe.u64 %q10, %q2, 60, 4;", 0xa000000000000000, 0, 0, 10},
         {'q', "bfe.s64 %q10, %q2, 60, 4;", 0xa000000000000000, 0, 0, 0xfffffffffffffffa},
         {'r', "bfi.b32 %r10, %r2, %r3, 8, 4;", 0xff, 0x12345678, 0, 0x12345f78},
         {'r', "bfi.b32 %r10, %r2, %r3, 32, 4;", 0xff, 0x12345678, 0, 0x12345678},
         {'r', "bfi.b32 %r10, %r2, %r3, 28, 8;", 0xff, 0x12345678, 0, 0xf2345678},
         {'q', "bfi.b64 %q10, %q2, %q3, 32, 32;", 0x12345678, 0x9abcdef0, 0, 0x123456789abcdef0},
         {'r', "popc.b32 %r10, %r2;", 0xf0f0, 0, 0, 8}, {'r', "popc.b64 %r10, %q2;", ~0ull, 0, 0, 64},
         {'r', "clz.b32 %r10, %r2;", 0x00010000, 0, 0, 15}, {'r', "clz.b32 %r10, %r2;", 0, 0, 0, 32},
         {'r', "clz.b64 %r10, %q2;", 1, 0, 0, 63}, {'r', "bfind.u32 %r10, %r2;", 0x00010000, 0, 0, 16},
         {'r', "bfind.u32 %r10, %r2;", 0, 0, 0, 0xffffffff}, {'r', "bfind.s32 %r10, %r2;", 0xffff0000, 0, 0, 15},
         {'r', "bfind.shiftamt.u32 %r10, %r2;", 0x00010000, 0, 0, 15},
         {'r', "bfind.u64 %r10, %q2;", 1ull << 40, 0, 0, 40}, {'r', "bfind.s64 %r10, %q2;", ~0ull << 40, 0, 0, 39},
         {'r', "bfind.shiftamt.u64 %r10, %q2;", 1ull << 40, 0, 0, 23},
         {'r', "brev.b32 %r10, %r2;", 0x00000001, 0, 0, 0x80000000},
         {'r', "brev.b32 %r10, %r2;", 0x12345678, 0, 0, 0x1e6a2c48}, {'q', "brev.b64 %q10, %q2;", 1, 0, 0, 1ull << 63});
}

static void moves(void **)
{
    ROWS({'r', "mov.b32 %r10, {%h2, %h3};", 0x1111, 0x2222, 0, 0x22221111},
         {'q', "mov.b64 %q10, {%r2, %r3};", 0x11111111, 0x22222222, 0, 0x2222222211111111},
         {'q', "mov.b64 %q10, {%h2, %h3, %h4, %h5};", 1, 2, 3, 0x0004000300020001, 4},
         {'h', "mov.b32 {%h11, %h10}, %r2;", 0x22221111, 0, 0, 0x2222},
         {'h', "mov.b32 {%h10, _}, %r2;", 0x22221111, 0, 0, 0x1111},
         {'r', "mov.b64 {%r11, %r10}, %q2;", 0x2222222211111111, 0, 0, 0x22222222},
         {'h', "mov.b64 {%h9, %h9, %h10, %h9}, %q2;", 0x0004000300020001, 0, 0, 3},
         {'f', "mov.b32 %f10, %r2;", 0x3f800000, 0, 0, 0x3f800000},
         {'r', "mov.u32 %r10, -2147483648;", 0, 0, 0, 0x80000000},
         {'f', "mov.f32 %f10, 0fBFC90FDA;", 0, 0, 0, 0xbfc90fda},
         {'d', "mov.f64 %d10, 0d3FF0000000000000;", 0, 0, 0, 0x3ff0000000000000},
         {'q', "mov.u64 %q10, 0xFFFFFFFFFFFFFFFE;", 0, 0, 0, 0xfffffffffffffffe},
         {'r', "mov.u32 %r10, WARP_SZ;", 0, 0, 0, 32}, {'r', "selp.b32 %r10, %r2, %r3, %p9;", 1, 2, 0, 2},
         {'q', "setp.eq.u32 %p2, %r2, 1; selp.b64 %q10, %q3, %q4, %p2;", 1, 5, 6, 5},
         {'h', "selp.u16 %h10, %h2, %h3, %p9;", 1, 2, 0, 2},
         {'f', "setp.eq.u32 %p2, %r2, 1; selp.f32 %f10, 0f3F800000, %f3, %p2;", 1, 0, 0, 0x3f800000},
         {'r', "slct.u32.s32 %r10, %r2, %r3, %r4;", 1, 2, 0xffffffff, 2},
         {'r', "slct.u32.f32 %r10, %r2, %r3, %f4;", 1, 2, 0, 1},
         {'r', "{ .reg .b32 t; mov.b32 t, %r2; add.u32 %r10, t, 1; }", 4, 0, 0, 5},
         {'r', "{ .reg .b32 %r3; mov.b32 %r3, 9; } mov.b32 %r10, %r3;", 0, 4, 0,
          4}, /* an inner name hides the outer one, no more */
         {'r', "mov.u32 %r10, %nwarpid;", 0, 0, 0, 1}, {'r', "mov.u32 %r10, %ntid.x;", 0, 0, 0, 32},
         {'r', "mov.u32 %r11, %laneid; mov.u32 %r12, %lanemask_lt; popc.b32 %r12, %r12; sub.u32 %r10, %r11, %r12;", 0,
          0, 0, 0},
         {'r',
          "mov.u32 %r11, %lanemask_eq; mov.u32 %r12, %lanemask_gt; mov.u32 %r13, %lanemask_lt; or.b32 %r11, %r11, "
          "%r12; or.b32 %r10, %r11, %r13;",
          0, 0, 0, 0xffffffff},
         {'p', "mov.u64 %q11, %clock64; mov.u64 %q12, %clock64; setp.ge.u64 %p1, %q12, %q11;", 0, 0, 0, 1});
}

static void predicates(void **)
{
    ROWS({'p', "setp.lt.s32 %p1, %r2, %r3;", 0xffffffff, 1, 0, 1},
         {'p', "setp.lt.u32 %p1, %r2, %r3;", 0xffffffff, 1, 0, 0}, {'p', "setp.lo.u32 %p1, %r2, %r3;", 1, 2, 0, 1},
         {'p', "setp.ls.u32 %p1, %r2, %r3;", 2, 2, 0, 1}, {'p', "setp.hi.u32 %p1, %r2, %r3;", 2, 2, 0, 0},
         {'p', "setp.hs.u32 %p1, %r2, %r3;", 2, 2, 0, 1}, {'p', "setp.ge.s64 %p1, %q2, %q3;", ~0ull, 0, 0, 0},
         {'p', "setp.ge.u64 %p1, %q2, %q3;", ~0ull, 0, 0, 1}, {'p', "setp.eq.b64 %p1, %q2, %q3;", 5, 5, 0, 1},
         {'p', "setp.ne.s16 %p1, %h2, %h3;", 0x10005, 5, 0, 0}, {'p', "setp.le.s16 %p1, %h2, %h3;", 0xffff, 5, 0, 1},
         {'p', "setp.gt.u16 %p1, %h2, %h3;", 0xffff, 5, 0, 1}, {'p', "setp.gt.s32 %p1, %r2, 2;", 3, 0, 0, 1},
         /* 1.0 2.0 NaN: ordered comparisons are false with NaN, unordered true */
         {'p', "setp.lt.f32 %p1, %f2, %f3;", 0x3f800000, 0x40000000, 0, 1},
         {'p', "setp.lt.f32 %p1, %f2, %f3;", 0x7fc00000, 0x40000000, 0, 0},
         {'p', "setp.ltu.f32 %p1, %f2, %f3;", 0x7fc00000, 0x40000000, 0, 1},
         {'p', "setp.ne.f32 %p1, %f2, %f3;", 0x7fc00000, 0x40000000, 0, 0},
         {'p', "setp.neu.f32 %p1, %f2, %f3;", 0x7fc00000, 0x40000000, 0, 1},
         {'p', "setp.equ.f32 %p1, %f2, %f3;", 0x7fc00000, 0x40000000, 0, 1},
         {'p', "setp.eq.f32 %p1, %f2, %f3;", 0x80000000, 0, 0, 1},
         {'p', "setp.geu.f32 %p1, %f2, %f3;", 0x3f800000, 0x40000000, 0, 0},
         {'p', "setp.gtu.f32 %p1, %f2, %f3;", 0x40000000, 0x3f800000, 0, 1},
         {'p', "setp.leu.f32 %p1, %f2, %f3;", 0x40000000, 0x7fc00000, 0, 1},
         {'p', "setp.num.f32 %p1, %f2, %f3;", 0x40000000, 0x7fc00000, 0, 0},
         {'p', "setp.nan.f32 %p1, %f2, %f3;", 0x40000000, 0x7fc00000, 0, 1},
         {'p', "setp.le.f32 %p1, %f2, %f3;", 0x40000000, 0x40000000, 0, 1},
         {'p', "setp.ge.f32 %p1, %f2, %f3;", 0x3f800000, 0x40000000, 0, 0},
         {'p', "setp.gt.f32 %p1, %f2, %f3;", 0x7f800000, 0x40000000, 0, 1},
         {'p', "setp.lt.ftz.f32 %p1, %f2, %f3;", 0, 1, 0, 0}, /* the smallest denormal counts as zero */
         {'p', "setp.lt.f32 %p1, %f2, %f3;", 0, 1, 0, 1},
         {'p', "setp.gt.f64 %p1, %d2, %d3;", 0x4000000000000000, 0x3ff0000000000000, 0, 1},
         {'p', "setp.neu.f64 %p1, %d2, %d3;", 0x7ff8000000000000, 0, 0, 1},
         {'p', "setp.lt.bf16 %p1, %h2, %h3;", 0x3f80, 0x4000, 0, 1},
         {'p', "setp.gt.f16 %p1, %h2, %h3;", 0x4000, 0x3c00, 0, 1},
         {'p', "setp.lt.bf16x2 %p2|%p1, %r2, %r3;", 0x3f804000, 0x40003f80, 0, 1},
         {'p', "setp.lt.bf16x2 %p1|%p2, %r2, %r3;", 0x3f804000, 0x40003f80, 0, 0},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.lt.and.s32 %p1, %r2, %r3, %p2;", 1, 2, 0, 1},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.lt.and.s32 %p1, %r2, %r3, !%p2;", 1, 2, 0, 0},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.lt.or.s32 %p1, %r2, %r3, %p2;", 2, 1, 0, 1},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.lt.xor.s32 %p1, %r2, %r3, %p2;", 1, 2, 0, 0},
         {'p', "setp.lt.s32 %p2|%p1, %r2, %r3;", 1, 2, 0, 0}, {'p', "setp.lt.s32 %p2|%p1, %r2, %r3;", 3, 2, 0, 1},
         {'r', "set.lt.u32.s32 %r10, %r2, %r3;", 1, 2, 0, 0xffffffff},
         {'f', "set.lt.f32.s32 %f10, %r2, %r3;", 1, 2, 0, 0x3f800000},
         {'r', "set.gt.u32.f32 %r10, %f2, %f3;", 0x3f800000, 0x40000000, 0, 0},
         {'r', "set.eq.bf16x2.bf16x2 %r10, %r2, %r3;", 0x3f804000, 0x40004000, 0, 0x00003f80},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.eq.u32 %p3, 0, 1; and.pred %p1, %p2, %p3;", 0, 0, 0, 0},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.eq.u32 %p3, 0, 1; or.pred %p1, %p2, %p3;", 0, 0, 0, 1},
         {'p', "setp.eq.u32 %p2, 0, 0; setp.eq.u32 %p3, 0, 0; xor.pred %p1, %p2, %p3;", 0, 0, 0, 0},
         {'p', "setp.eq.u32 %p2, 0, 1; not.pred %p1, %p2;", 0, 0, 0, 1},
         {'p', "setp.eq.u32 %p2, 0, 0; mov.pred %p1, %p2;", 0, 0, 0, 1},
         {'p', "testp.finite.f32 %p1, %f2;", 0x7f800000, 0, 0, 0},
         {'p', "testp.infinite.f32 %p1, %f2;", 0x7f800000, 0, 0, 1},
         {'p', "testp.notanumber.f32 %p1, %f2;", 0x7fc00000, 0, 0, 1},
         {'p', "testp.subnormal.f32 %p1, %f2;", 1, 0, 0, 1},
         {'p', "testp.normal.f64 %p1, %d2;", 0x3ff0000000000000, 0, 0, 1},
         {'p', "testp.number.f32 %p1, %f2;", 0x3f800000, 0, 0, 1},
         {'r', "setp.eq.u32 %p2, 0, 0; @%p2 mov.u32 %r10, 7; @!%p2 mov.u32 %r10, 8;", 0, 0, 0, 7});
}

static void floats(void **)
{
    /* 3f800000 1, 3f800001 the next, 33800000 2^-24 (half an ulp of 1), 40400000 3, 3eaaaaab 1/3 to nearest */
    ROWS({'f', "add.f32 %f10, %f2, %f3;", 0x3f800000, 0x33800000, 0, 0x3f800000},
         {'f', "add.rn.f32 %f10, %f2, %f3;", 0x3f800001, 0x33800000, 0, 0x3f800002},
         {'f', "add.rp.f32 %f10, %f2, %f3;", 0x3f800000, 0x33800000, 0, 0x3f800001},
         {'f', "add.rm.f32 %f10, %f2, %f3;", 0x3f800001, 0x33800000, 0, 0x3f800001},
         {'f', "add.rz.f32 %f10, %f2, %f3;", 0xbf800001, 0xb3800000, 0, 0xbf800001},
         {'f', "add.rm.f32 %f10, %f2, %f3;", 0xbf800000, 0xb3800000, 0, 0xbf800001},
         {'f', "sub.f32 %f10, %f2, %f3;", 0x40400000, 0x3f800000, 0, 0x40000000},
         {'f', "mul.f32 %f10, %f2, %f3;", 0x40400000, 0x40400000, 0, 0x41100000},
         {'f', "mul.rn.f32 %f10, %f2, %f3;", 0x3f800001, 0x3f800001, 0, 0x3f800002},
         {'f', "mul.rp.f32 %f10, %f2, %f3;", 0x3f800001, 0x3f800001, 0, 0x3f800003},
         {'f', "add.sat.f32 %f10, %f2, %f3;", 0x3f800000, 0x3f800000, 0, 0x3f800000},
         {'f', "mul.sat.f32 %f10, %f2, %f3;", 0xbf800000, 0x3f800000, 0, 0},
         {'f', "add.sat.f32 %f10, %f2, %f3;", 0x7fc00000, 0, 0, 0},
         {'f', "add.ftz.f32 %f10, %f2, %f3;", 0x00000001, 0x00000001, 0, 0},
         {'f', "add.f32 %f10, %f2, %f3;", 0x00000001, 0x00000001, 0, 2},
         {'f', "mul.ftz.f32 %f10, %f2, %f3;", 0x00800000, 0x3f000000, 0, 0},
         {'f', "mul.f32 %f10, %f2, %f3;", 0x00800000, 0x3f000000, 0, 0x00400000},
         /* fma rounds once: (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46 */
         {'f', "fma.rn.f32 %f10, %f2, %f3, %f4;", 0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},
         {'f', "fma.rm.f32 %f10, %f2, %f3, %f4;", 0x3f800001, 0x3f800001, 0x3f800000, 0x40000001},
         {'f', "fma.rp.f32 %f10, %f2, %f3, %f4;", 0x3f800001, 0x3f800001, 0x3f800000, 0x40000002},
         {'f', "fma.rz.f32 %f10, %f2, %f3, %f4;", 0x3f800001, 0x3f800001, 0x3f800000, 0x40000001},
         {'f', "fma.rn.ftz.f32 %f10, %f2, %f3, %f4;", 0x00800000, 0x3f000000, 0, 0},
         {'f', "fma.rn.sat.f32 %f10, %f2, %f3, %f4;", 0x40400000, 0x40400000, 0, 0x3f800000},
         {'f', "mad.rn.f32 %f10, %f2, %f3, %f4;", 0x40400000, 0x40400000, 0x3f800000, 0x41200000},
         {'f', "div.rn.f32 %f10, %f2, %f3;", 0x3f800000, 0x40400000, 0, 0x3eaaaaab},
         {'f', "div.rm.f32 %f10, %f2, %f3;", 0x3f800000, 0x40400000, 0, 0x3eaaaaaa},
         {'f', "div.approx.f32 %f10, %f2, %f3;", 0x40c00000, 0x40400000, 0, 0x40000000},
         {'f', "div.full.f32 %f10, %f2, %f3;", 0x40c00000, 0x40400000, 0, 0x40000000},
         {'f', "rcp.rn.f32 %f10, %f2;", 0x40400000, 0, 0, 0x3eaaaaab},
         {'f', "rcp.approx.ftz.f32 %f10, %f2;", 0x40000000, 0, 0, 0x3f000000},
         {'f', "sqrt.rn.f32 %f10, %f2;", 0x40000000, 0, 0, 0x3fb504f3},
         {'f', "sqrt.approx.f32 %f10, %f2;", 0x40800000, 0, 0, 0x40000000},
         {'f', "rsqrt.approx.f32 %f10, %f2;", 0x40800000, 0, 0, 0x3f000000},
         {'f', "rsqrt.approx.f32 %f10, %f2;", 0, 0, 0, 0x7f800000},
         {'f', "ex2.approx.f32 %f10, %f2;", 0x40400000, 0, 0, 0x41000000},
         {'f', "ex2.approx.ftz.f32 %f10, %f2;", 0xbf800000, 0, 0, 0x3f000000},
         {'f', "ex2.approx.f32 %f10, %f2;", 0x3f000000, 0, 0, 0x3fb504f3},
         {'f', "ex2.approx.f32 %f10, %f2;", 0xff800000, 0, 0, 0},
         {'f', "ex2.approx.f32 %f10, %f2;", 0x7f800000, 0, 0, 0x7f800000},
         {'f', "ex2.approx.f32 %f10, %f2;", 0xc3120000, 0, 0, 0x00000008},
         {'f', "ex2.approx.ftz.f32 %f10, %f2;", 0xc3120000, 0, 0, 0}, /* 2^-146: a denormal */
         {'f', "lg2.approx.f32 %f10, %f2;", 0x41000000, 0, 0, 0x40400000},
         {'f', "lg2.approx.f32 %f10, %f2;", 0, 0, 0, 0xff800000}, {'f', "sin.approx.f32 %f10, %f2;", 0, 0, 0, 0},
         {'f', "cos.approx.f32 %f10, %f2;", 0, 0, 0, 0x3f800000},
         {'f', "tanh.approx.f32 %f10, %f2;", 0x41a00000, 0, 0, 0x3f800000},
         {'f', "sin.approx.f32 %f10, %f2;", 0x3f800000, 0, 0, 0x3f576aa4},
         {'f', "cos.approx.f32 %f10, %f2;", 0x3f800000, 0, 0, 0x3f0a5140},
         {'f', "neg.f32 %f10, %f2;", 0, 0, 0, 0x80000000}, {'f', "abs.f32 %f10, %f2;", 0xbf800000, 0, 0, 0x3f800000},
         {'f', "neg.ftz.f32 %f10, %f2;", 1, 0, 0, 0x80000000}, {'f', "abs.ftz.f32 %f10, %f2;", 0x80000001, 0, 0, 0},
         {'f', "max.f32 %f10, %f2, %f3;", 0x7fc00000, 0x3f800000, 0, 0x3f800000},
         {'f', "min.f32 %f10, %f2, %f3;", 0x3f800000, 0x7fc00000, 0, 0x3f800000},
         {'f', "max.NaN.f32 %f10, %f2, %f3;", 0x7fc00000, 0x3f800000, 0, 0x7fffffff},
         {'f', "min.NaN.f32 %f10, %f2, %f3;", 0x40000000, 0x3f800000, 0, 0x3f800000},
         {'f', "max.f32 %f10, %f2, %f3;", 0x80000000, 0, 0, 0},
         {'f', "min.f32 %f10, %f2, %f3;", 0, 0x80000000, 0, 0x80000000},
         {'f', "max.f32 %f10, %f2, %f3;", 0xc0400000, 0xbf800000, 0, 0xbf800000},
         {'f', "copysign.f32 %f10, %f2, %f3;", 0x80000000, 0x40400000, 0, 0xc0400000});
}

static void doubles(void **)
{
    ROWS({'d', "add.f64 %d10, %d2, %d3;", 0x3ff0000000000000, 0x3ca0000000000000, 0, 0x3ff0000000000000},
         {'d', "add.rp.f64 %d10, %d2, %d3;", 0x3ff0000000000000, 0x3ca0000000000000, 0, 0x3ff0000000000001},
         {'d', "sub.f64 %d10, %d2, %d3;", 0x4008000000000000, 0x3ff0000000000000, 0, 0x4000000000000000},
         {'d', "mul.f64 %d10, %d2, %d3;", 0x4008000000000000, 0x4008000000000000, 0, 0x4022000000000000},
         {'d', "div.rn.f64 %d10, %d2, %d3;", 0x3ff0000000000000, 0x4008000000000000, 0, 0x3fd5555555555555},
         {'d', "fma.rn.f64 %d10, %d2, %d3, %d4;", 0x3ff0000000000001, 0x3ff0000000000001, 0xbff0000000000002,
          0x3970000000000000},
         {'d', "fma.rm.f64 %d10, %d2, %d3, %d4;", 0x3ff0000000000001, 0x3ff0000000000001, 0xbff0000000000000,
          0x3cc0000000000000},
         {'d', "rcp.rn.f64 %d10, %d2;", 0x4010000000000000, 0, 0, 0x3fd0000000000000},
         {'d', "sqrt.rn.f64 %d10, %d2;", 0x4010000000000000, 0, 0, 0x4000000000000000},
         {'d', "rsqrt.approx.ftz.f64 %d10, %d2;", 0x4010000000000000, 0, 0, 0x3fe0000000000000},
         {'d', "rcp.approx.ftz.f64 %d10, %d2;", 0x4010000000000000, 0, 0, 0x3fd0000000000000},
         {'d', "neg.f64 %d10, %d2;", 0, 0, 0, 0x8000000000000000},
         {'d', "abs.f64 %d10, %d2;", 0xbff0000000000000, 0, 0, 0x3ff0000000000000},
         {'d', "max.f64 %d10, %d2, %d3;", 0x7ff8000000000000, 0x3ff0000000000000, 0, 0x3ff0000000000000},
         {'d', "min.f64 %d10, %d2, %d3;", 0x4000000000000000, 0x3ff0000000000000, 0, 0x3ff0000000000000},
         {'d', "copysign.f64 %d10, %d2, %d3;", 0x8000000000000000, 0x3ff0000000000000, 0, 0xbff0000000000000},
         {'d', "add.sat.f64 %d10, %d2, %d3;", 0x4000000000000000, 0, 0, 0x3ff0000000000000});
}

static void halves(void **)
{
    /* bf16: 3f80 1, 3f81 the next (ulp 2^-7), 3b80 2^-8 = half an ulp, 3b00 a quarter; f16: 3c00 1, 1000 2^-11 = half
     * an ulp */
    ROWS({'h', "add.bf16 %h10, %h2, %h3;", 0x3f80, 0x3b80, 0, 0x3f80},
         {'h', "add.bf16 %h10, %h2, %h3;", 0x3f81, 0x3b80, 0, 0x3f82},
         {'h', "sub.bf16 %h10, %h2, %h3;", 0x4040, 0x3f80, 0, 0x4000},
         {'h', "mul.bf16 %h10, %h2, %h3;", 0x4040, 0x4040, 0, 0x4110},
         {'h', "fma.rn.bf16 %h10, %h2, %h3, %h4;", 0x3f81, 0x3f81, 0xbf82, 0x3880}, /* 2^-14 */
         /* 1 + (2^-8 + a crumb of 2^-40): a tie only after a first rounding to float; one rounding goes up */
         {'h', "fma.rn.bf16 %h10, %h2, %h3, %h4;", 0x3f80, 0x3f80, 0x3b80, 0x3f80},
         {'h', "fma.rn.bf16 %h10, %h2, %h3, %h4;", 0x3b81, 0x3f80, 0x3f80, 0x3f81},
         {'r', "fma.rn.bf16x2 %r10, %r2, %r3, %r4;", 0x40403f80, 0x40404000, 0x3f803f80, 0x41204040},
         {'r', "add.bf16x2 %r10, %r2, %r3;", 0x3f814040, 0x3b803f80, 0, 0x3f824080},
         {'r', "sub.bf16x2 %r10, %r2, %r3;", 0x40403f80, 0x3f803f80, 0, 0x40000000},
         {'r', "mul.bf16x2 %r10, %r2, %r3;", 0x40403f80, 0x40404040, 0, 0x41104040},
         {'r', "max.bf16x2 %r10, %r2, %r3;", 0x40403f80, 0x3f804040, 0, 0x40404040},
         {'r', "min.bf16x2 %r10, %r2, %r3;", 0x40403f80, 0x3f804040, 0, 0x3f803f80},
         {'r', "neg.bf16x2 %r10, %r2;", 0x40403f80, 0, 0, 0xc040bf80},
         {'r', "abs.bf16x2 %r10, %r2;", 0xc040bf80, 0, 0, 0x40403f80},
         {'h', "max.bf16 %h10, %h2, %h3;", 0x7fc0, 0x3f80, 0, 0x3f80},
         {'h', "max.NaN.bf16 %h10, %h2, %h3;", 0x7fc0, 0x3f80, 0, 0x7fff},
         {'h', "min.bf16 %h10, %h2, %h3;", 0x4000, 0x3f80, 0, 0x3f80},
         {'h', "neg.bf16 %h10, %h2;", 0x3f80, 0, 0, 0xbf80}, {'h', "abs.bf16 %h10, %h2;", 0xbf80, 0, 0, 0x3f80},
         {'h', "fma.rn.relu.bf16 %h10, %h2, %h3, %h4;", 0xbf80, 0x3f80, 0, 0},
         {'h', "ex2.approx.ftz.bf16 %h10, %h2;", 0x4040, 0, 0, 0x4100},
         {'h', "tanh.approx.bf16 %h10, %h2;", 0x41a0, 0, 0, 0x3f80},
         {'r', "ex2.approx.ftz.bf16x2 %r10, %r2;", 0x40403f80, 0, 0, 0x41004000},
         {'h', "add.f16 %h10, %h2, %h3;", 0x3c00, 0x1000, 0, 0x3c00},
         {'h', "add.rn.f16 %h10, %h2, %h3;", 0x3c01, 0x1000, 0, 0x3c02},
         {'h', "mul.f16 %h10, %h2, %h3;", 0x4200, 0x4200, 0, 0x4880},
         {'h', "fma.rn.f16 %h10, %h2, %h3, %h4;", 0x3c01, 0x3c01, 0xbc02, 0x0010},
         {'r', "fma.rn.f16x2 %r10, %r2, %r3, %r4;", 0x42003c00, 0x42004000, 0x3c003c00, 0x49004200},
         {'r', "add.f16x2 %r10, %r2, %r3;", 0x3c003c00, 0x3c004000, 0, 0x40004200},
         {'h', "sub.f16 %h10, %h2, %h3;", 0x4200, 0x3c00, 0, 0x4000}, {'h', "neg.f16 %h10, %h2;", 0x3c00, 0, 0, 0xbc00},
         {'h', "max.f16 %h10, %h2, %h3;", 0x4000, 0x3c00, 0, 0x4000},
         {'h', "add.sat.f16 %h10, %h2, %h3;", 0x3c00, 0x3c00, 0, 0x3c00});
}

static void conversions(void **)
{
    ROWS({'q', "cvt.s64.s32 %q10, %r2;", 0xfffffffe, 0, 0, 0xfffffffffffffffe},
         {'q', "cvt.u64.u32 %q10, %r2;", 0xfffffffe, 0, 0, 0xfffffffe},
         {'r', "cvt.u32.u64 %r10, %q2;", 0x123456789, 0, 0, 0x23456789},
         {'r', "cvt.u32.u16 %r10, %h2;", 0xffff, 0, 0, 0xffff},
         {'r', "cvt.s32.s16 %r10, %h2;", 0xffff, 0, 0, 0xffffffff},
         {'h', "cvt.u16.u32 %h10, %r2;", 0x12345, 0, 0, 0x2345}, {'r', "cvt.s32.s8 %r10, %r2;", 0x80, 0, 0, 0xffffff80},
         {'r', "cvt.u32.u8 %r10, %r2;", 0x1ff, 0, 0, 0xff}, {'h', "cvt.u16.u8 %h10, %h2;", 0x1ff, 0, 0, 0xff},
         {'h', "cvt.s16.s8 %h10, %r2;", 0x80, 0, 0, 0xff80}, {'r', "cvt.u8.u32 %r10, %r2;", 0x1ff, 0, 0, 0xff},
         {'r', "cvt.sat.u8.s32 %r10, %r2;", 300, 0, 0, 255}, {'r', "cvt.sat.u8.s32 %r10, %r2;", 0xffffffff, 0, 0, 0},
         {'r', "cvt.sat.s8.s32 %r10, %r2;", 300, 0, 0, 127},
         {'h', "cvt.sat.s16.s32 %h10, %r2;", 0xfffe0000, 0, 0, 0x8000},
         {'r', "cvt.sat.u32.s32 %r10, %r2;", 0xffffffff, 0, 0, 0},
         {'r', "cvt.sat.s32.u32 %r10, %r2;", 0xffffffff, 0, 0, 0x7fffffff},
         {'f', "cvt.rn.f32.s32 %f10, %r2;", 0xffffffff, 0, 0, 0xbf800000},
         {'f', "cvt.rn.f32.u32 %f10, %r2;", 0xffffffff, 0, 0, 0x4f800000},
         {'f', "cvt.rz.f32.u32 %f10, %r2;", 0xffffffff, 0, 0, 0x4f7fffff},
         {'f', "cvt.rn.f32.s32 %f10, %r2;", 16777217, 0, 0, 0x4b800000},
         {'f', "cvt.rp.f32.s32 %f10, %r2;", 16777217, 0, 0, 0x4b800001},
         {'f', "cvt.rn.f32.u64 %f10, %q2;", 1ull << 63, 0, 0, 0x5f000000},
         {'f', "cvt.rz.f32.s64 %f10, %q2;", 0x7fffffffffffffff, 0, 0, 0x5effffff},
         {'f', "cvt.rn.f32.u16 %f10, %h2;", 0xffff, 0, 0, 0x477fff00},
         {'f', "cvt.rn.f32.u8 %f10, %h2;", 0x1ff, 0, 0, 0x437f0000},
         {'f', "cvt.rn.f32.s8 %f10, %r2;", 0x80, 0, 0, 0xc3000000},
         {'d', "cvt.rn.f64.s64 %d10, %q2;", 0xffffffffffffffff, 0, 0, 0xbff0000000000000},
         {'d', "cvt.rn.f64.u32 %d10, %r2;", 0xffffffff, 0, 0, 0x41efffffffe00000},
         {'d', "cvt.rz.f64.u64 %d10, %q2;", ~0ull, 0, 0, 0x43efffffffffffff},
         {'h', "cvt.rn.bf16.s32 %h10, %r2;", 257, 0, 0, 0x4380}, {'h', "cvt.rn.f16.u32 %h10, %r2;", 2049, 0, 0, 0x6800},
         /* 2.5 3.5 -2.5 and what does not fit */
         {'r', "cvt.rni.s32.f32 %r10, %f2;", 0x40200000, 0, 0, 2},
         {'r', "cvt.rni.s32.f32 %r10, %f2;", 0x40600000, 0, 0, 4},
         {'r', "cvt.rzi.s32.f32 %r10, %f2;", 0xc0200000, 0, 0, 0xfffffffe},
         {'r', "cvt.rmi.s32.f32 %r10, %f2;", 0xc0200000, 0, 0, 0xfffffffd},
         {'r', "cvt.rpi.s32.f32 %r10, %f2;", 0x40200000, 0, 0, 3},
         {'r', "cvt.rzi.u32.f32 %r10, %f2;", 0xbf800000, 0, 0, 0},
         {'r', "cvt.rzi.s32.f32 %r10, %f2;", 0x4f800000, 0, 0, 0x7fffffff},
         {'r', "cvt.rzi.s32.f32 %r10, %f2;", 0x7fc00000, 0, 0, 0},
         {'r', "cvt.rzi.u32.f32 %r10, %f2;", 0x7f800000, 0, 0, 0xffffffff},
         {'q', "cvt.rzi.s64.f32 %q10, %f2;", 0xff800000, 0, 0, 1ull << 63},
         {'q', "cvt.rzi.u64.f64 %q10, %d2;", 0x43e0000000000000, 0, 0, 1ull << 63},
         {'r', "cvt.rni.s32.f64 %r10, %d2;", 0xc004000000000000, 0, 0, 0xfffffffe},
         {'h', "cvt.rzi.u8.f32 %h10, %f2;", 0x43c80000, 0, 0, 255},
         {'h', "cvt.rzi.s16.f32 %h10, %f2;", 0xc7c35000, 0, 0, 0x8000},
         {'r', "cvt.rzi.u8.f32 %r10, %f2;", 0x42f60000, 0, 0, 123},
         {'f', "cvt.rni.f32.f32 %f10, %f2;", 0x40200000, 0, 0, 0x40000000},
         {'f', "cvt.rzi.f32.f32 %f10, %f2;", 0xc0200000, 0, 0, 0xc0000000},
         {'f', "cvt.rmi.f32.f32 %f10, %f2;", 0xc0200000, 0, 0, 0xc0400000},
         {'f', "cvt.rpi.f32.f32 %f10, %f2;", 0x40200000, 0, 0, 0x40400000},
         {'f', "cvt.sat.f32.f32 %f10, %f2;", 0x40200000, 0, 0, 0x3f800000},
         {'f', "cvt.sat.f32.f32 %f10, %f2;", 0xc0200000, 0, 0, 0},
         {'f', "cvt.sat.f32.f32 %f10, %f2;", 0x7fc00000, 0, 0, 0}, {'f', "cvt.ftz.f32.f32 %f10, %f2;", 1, 0, 0, 0},
         {'d', "cvt.rni.f64.f64 %d10, %d2;", 0x4004000000000000, 0, 0, 0x4000000000000000},
         {'d', "cvt.f64.f32 %d10, %f2;", 0x3f800000, 0, 0, 0x3ff0000000000000},
         {'f', "cvt.rn.f32.f64 %f10, %d2;", 0x3ff0000010000000, 0, 0, 0x3f800000},
         {'f', "cvt.rp.f32.f64 %f10, %d2;", 0x3ff0000000000001, 0, 0, 0x3f800001},
         {'f', "cvt.rz.f32.f64 %f10, %d2;", 0x3ff000001fffffff, 0, 0, 0x3f800000},
         {'f', "cvt.rm.f32.f64 %f10, %d2;", 0xbff0000000000001, 0, 0, 0xbf800001},
         {'h', "cvt.rn.bf16.f32 %h10, %f2;", 0x3f808000, 0, 0, 0x3f80},
         {'h', "cvt.rn.bf16.f32 %h10, %f2;", 0x3f818000, 0, 0, 0x3f82},
         {'h', "cvt.rz.bf16.f32 %h10, %f2;", 0x3f81ffff, 0, 0, 0x3f81},
         {'h', "cvt.rn.bf16.f32 %h10, %f2;", 0x7f7fffff, 0, 0, 0x7f80},
         {'h', "cvt.rn.bf16.f32 %h10, %f2;", 0xffc00000, 0, 0, 0x7fff},
         {'h', "cvt.rn.relu.bf16.f32 %h10, %f2;", 0xbf800000, 0, 0, 0},
         {'r', "cvt.rn.bf16x2.f32 %r10, %f2, %f3;", 0x3f800000, 0x40000000, 0, 0x3f804000},
         {'r', "cvt.rn.f16x2.f32 %r10, %f2, %f3;", 0x3f800000, 0x40000000, 0, 0x3c004000},
         {'r', "cvt.rz.bf16x2.f32 %r10, %f2, %f3;", 0x3f81ffff, 0x40000000, 0, 0x3f814000},
         {'h', "cvt.rn.f16.f32 %h10, %f2;", 0x477fe000, 0, 0, 0x7bff},
         {'h', "cvt.rn.f16.f32 %h10, %f2;", 0x477ff000, 0, 0, 0x7c00},
         {'h', "cvt.rz.f16.f32 %h10, %f2;", 0x477ff000, 0, 0, 0x7bff},
         {'h', "cvt.rn.f16.f32 %h10, %f2;", 0x33800000, 0, 0, 0x0001},
         {'f', "cvt.f32.f16 %f10, %h2;", 0x0001, 0, 0, 0x33800000},
         {'f', "cvt.f32.bf16 %f10, %h2;", 0x3f81, 0, 0, 0x3f810000},
         {'d', "cvt.f64.f16 %d10, %h2;", 0x3c00, 0, 0, 0x3ff0000000000000},
         {'h', "cvt.rni.f16.f16 %h10, %h2;", 0x4100, 0, 0, 0x4000},
         {'r', "cvt.rzi.s32.f16 %r10, %h2;", 0xc100, 0, 0, 0xfffffffe},
         {'r', "cvt.rni.s32.bf16 %r10, %h2;", 0x4060, 0, 0, 4},
         {'r', "cvt.rna.tf32.f32 %r10, %f2;", 0x3f801000, 0, 0, 0x3f802000},
         {'r', "cvt.rna.tf32.f32 %r10, %f2;", 0x3f800fff, 0, 0, 0x3f800000});
}

/* Accesses narrower than their registers, every width, in global, shared and local memory. */
static void accesses(void **)
{
    ROWS({'r', "ld.global.u8 %r10, [%q0+1];", 0xfe80, 0, 0, 0xfe},
         {'r', "ld.global.s8 %r10, [%q0+1];", 0xfe80, 0, 0, 0xfffffffe},
         {'h', "ld.global.u8 %h10, [%q0+1];", 0xfe80, 0, 0, 0xfe},
         {'h', "ld.global.s8 %h10, [%q0+1];", 0xfe80, 0, 0, 0xfffe},
         {'q', "ld.global.s8 %q10, [%q0+1];", 0xfe80, 0, 0, 0xfffffffffffffffe},
         {'r', "ld.global.s16 %r10, [%q0];", 0xfe80, 0, 0, 0xfffffe80},
         {'r', "ld.global.u16 %r10, [%q0];", 0xfe80, 0, 0, 0xfe80},
         {'q', "ld.global.s32 %q10, [%q0];", 0x80000000, 0, 0, 0xffffffff80000000},
         {'q', "ld.global.u32 %q10, [%q0];", 0x80000000, 0, 0, 0x80000000},
         {'q', "ld.global.b64 %q10, [%q0+8];", 0, 77, 0, 77},
         {'r', "ld.global.v2.u32 {%r11, %r10}, [%q0];", 0x200000001, 0, 0, 2},
         {'r', "ld.global.v4.u32 {%r11, %r12, %r10, %r13}, [%q0];", 0, 0x500000004, 0, 4},
         {'h', "ld.global.v4.u16 {%h9, %h8, %h10, %h7}, [%q0];", 0x0004000300020001, 0, 0, 3},
         {'r', "ld.global.v4.u8 {%r11, %r12, %r13, %r10}, [%q0];", 0x04030201, 0, 0, 4},
         {'q', "ld.global.v2.u64 {%q11, %q10}, [%q0];", 1, 2, 0, 2},
         {'r', "ld.global.nc.u32 %r10, [%q0+4];", 0x500000000, 0, 0, 5},
         {'r', "ld.volatile.global.u32 %r10, [%q0];", 5, 0, 0, 5}, {'r', "ld.u32 %r10, [%q0];", 5, 0, 0, 5},
         {'r', "ld.global.L1::no_allocate.L2::128B.u32 %r10, [%q0];", 5, 0, 0, 5},
         {'r', "ld.relaxed.gpu.global.u32 %r10, [%q0];", 5, 0, 0, 5},
         {'h', "ld.param.u16 %h11, [lanes+2]; or.b16 %h10, %h11, 0x5555;", 0, 0, 0, 0xffff},
         /* stores: the operands' own memory is written and read again */
         {'q', "st.global.u8 [%q0], %r3; ld.global.u64 %q10, [%q0];", 0x1111111111111111, 0x12345678, 0,
          0x1111111111111178},
         {'q', "st.global.u8 [%q0+7], %h3; ld.global.u64 %q10, [%q0];", 0, 0x1ff, 0, 0xff00000000000000},
         {'q', "st.global.u32 [%q0+4], %q3; ld.global.u64 %q10, [%q0];", 1, 0x123456789, 0, 0x2345678900000001},
         {'q', "st.global.u16 [%q0+2], %r3; ld.global.u64 %q10, [%q0];", 0, 0x12345678, 0, 0x56780000},
         {'q', "st.global.u16 [%q0], %q3; ld.global.u64 %q10, [%q0];", 0, 0x12345678, 0, 0x5678},
         {'q', "st.global.v2.u32 [%q0], {%r3, %r4}; ld.global.u64 %q10, [%q0];", 0, 1, 2, 0x200000001},
         {'q', "st.global.v4.u16 [%q0], {%h3, %h4, %h3, %h4}; ld.global.u64 %q10, [%q0];", 0, 1, 2, 0x0002000100020001},
         {'q', "st.global.v4.u8 [%q0], {%r3, %r4, %r3, %r4}; ld.global.u64 %q10, [%q0];", 0, 1, 2, 0x02010201},
         {'q', "st.global.v2.u64 [%q0], {%q4, %q3}; ld.global.u64 %q10, [%q0+8];", 0, 9, 3, 9},
         {'f', "st.global.v4.f32 [%q0], {%f3, %f4, %f3, %f4}; ld.global.f32 %f10, [%q0+12];", 0, 1, 0x3f800000,
          0x3f800000},
         {'q', "st.b64 [%q0], %q3; ld.b64 %q10, [%q0];", 0, 9, 0, 9},
         /* a lane's own 16 bytes of shared memory */
         {'r',
          ".shared .align 16 .b8 s[512]; shl.b32 %r20, %r1, 4; mov.u32 %r21, s; add.u32 %r20, %r20, %r21; "
          "st.shared.u32 [%r20+8], %q3; ld.shared.u32 %r10, [%r20+8];",
          0, 0x123456789, 0, 0x23456789},
         {'q',
          ".shared .align 16 .b8 s[512]; shl.b32 %r20, %r1, 4; mov.u32 %r21, s; add.u32 %r20, %r20, %r21; "
          "st.shared.v2.u64 [%r20], {%q2, %q3}; ld.shared.u64 %q10, [%r20+8];",
          1, 2, 0, 2},
         {'r',
          ".shared .align 16 .b8 s[512]; shl.b32 %r20, %r1, 4; cvt.u64.u32 %q20, %r20; mov.u64 %q21, s; "
          "cvta.shared.u64 %q21, %q21; add.u64 %q20, %q20, %q21; st.u16 [%q20], %r3; ld.u16 %r10, [%q20];",
          0, 0x12345, 0, 0x2345},
         {'r',
          ".shared .align 16 .b8 s[512]; mov.u64 %q21, s; cvta.shared.u64 %q22, %q21; cvta.to.shared.u64 %q23, %q22; "
          "sub.u64 %q23, %q23, %q21; cvt.u32.u64 %r10, %q23;",
          0, 0, 0, 0},
         {'p', ".shared .align 16 .b8 s[512]; mov.u64 %q21, s; cvta.shared.u64 %q22, %q21; isspacep.shared %p1, %q22;",
          0, 0, 0, 1},
         {'p', "isspacep.shared %p1, %q0;", 0, 0, 0, 0}, {'p', "isspacep.global %p1, %q0;", 0, 0, 0, 1},
         {'h',
          ".shared .align 2 .b16 s[32]; shl.b32 %r20, %r1, 1; mov.u32 %r21, s; add.u32 %r20, %r20, %r21; st.shared.b16 "
          "[%r20], %r3; ld.shared.b16 %h10, [%r20];",
          0, 0x12345, 0, 0x2345},
         /* local memory is each lane's own */
         {'r', ".local .align 8 .b8 l[16]; mov.u64 %q20, l; st.local.u32 [%q20+4], %q3; ld.local.u32 %r10, [%q20+4];",
          0, 0x123456789, 0, 0x23456789},
         {'r',
          ".local .align 8 .b8 l[16]; mov.u64 %q20, l; st.local.u8 [l+3], %r1; ld.local.u8 %r11, [%q20+3]; sub.u32 "
          "%r10, %r11, %r1;",
          0, 0, 0, 0},
         {'q',
          ".local .align 8 .b8 l[16]; mov.u64 %q20, l; cvta.local.u64 %q21, %q20; st.v2.u32 [%q21], {%r2, %r3}; "
          "ld.local.u64 %q10, [l];",
          1, 2, 0, 0x200000001});
}

/* In the lanes' own memory, so that each lane sees one change. */
static void atomics(void **)
{
#define OWN                                                                                                            \
    ".shared .align 8 .b8 s[256]; shl.b32 %r20, %r1, 3; mov.u32 %r21, s; add.u32 %r20, %r20, %r21; st.shared.u64 "     \
    "[%r20], %q2; "
    ROWS({'r', OWN "atom.shared.add.u32 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 5, 7, 0, 12},
         {'r', OWN "atom.shared.add.u32 %r10, [%r20], %r3;", 5, 7, 0, 5},
         {'q', OWN "atom.shared.add.u64 %q11, [%r20], %q3; ld.shared.u64 %q10, [%r20];", 0xffffffff, 1, 0, 1ull << 32},
         {'f', OWN "atom.shared.add.f32 %f11, [%r20], %f3; ld.shared.f32 %f10, [%r20];", 0x3f800000, 0x40000000, 0,
          0x40400000},
         {'d', OWN "atom.shared.add.f64 %d11, [%r20], %d3; ld.shared.f64 %d10, [%r20];", 0x3ff0000000000000,
          0x3ff0000000000000, 0, 0x4000000000000000},
         {'r', OWN "red.shared.max.s32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0xffffffff, 1, 0, 1},
         {'r', OWN "red.shared.max.u32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0xffffffff, 1, 0, 0xffffffff},
         {'r', OWN "red.shared.min.s32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0xffffffff, 1, 0, 0xffffffff},
         {'r', OWN "red.shared.min.u32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0xffffffff, 1, 0, 1},
         {'r', OWN "red.shared.and.b32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 6, 3, 0, 2},
         {'r', OWN "red.shared.or.b32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 6, 3, 0, 7},
         {'r', OWN "red.shared.xor.b32 [%r20], %r3; ld.shared.u32 %r10, [%r20];", 6, 3, 0, 5},
         {'r', OWN "atom.shared.exch.b32 %r10, [%r20], %r3;", 6, 3, 0, 6},
         {'r', OWN "atom.shared.cas.b32 %r11, [%r20], %r3, %r4; ld.shared.u32 %r10, [%r20];", 6, 6, 9, 9},
         {'r', OWN "atom.shared.cas.b32 %r11, [%r20], %r3, %r4; ld.shared.u32 %r10, [%r20];", 6, 5, 9, 6},
         {'q', OWN "atom.shared.cas.b64 %q11, [%r20], %q3, %q4; ld.shared.u64 %q10, [%r20];", 6, 6, 9, 9},
         {'h', OWN "atom.shared.cas.b16 %h11, [%r20], %h3, %h4; ld.shared.u16 %h10, [%r20];", 6, 6, 9, 9},
         {'r', OWN "atom.shared.inc.u32 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 6, 6, 0, 0},
         {'r', OWN "atom.shared.inc.u32 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 5, 6, 0, 6},
         {'r', OWN "atom.shared.dec.u32 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0, 6, 0, 6},
         {'r', OWN "atom.shared.dec.u32 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 5, 6, 0, 4},
         {'q', OWN "atom.shared.max.s64 %q11, [%r20], %q3; ld.shared.u64 %q10, [%r20];", ~0ull, 6, 0, 6},
         {'q', OWN "atom.shared.min.u64 %q11, [%r20], %q3; ld.shared.u64 %q10, [%r20];", ~0ull, 6, 0, 6},
         {'q', OWN "atom.shared.exch.b64 %q10, [%r20], %q3;", 6, 3, 0, 6},
         {'h', OWN "atom.shared.add.noftz.bf16 %h11, [%r20], %h3; ld.shared.u16 %h10, [%r20];", 0x3f80, 0x3f80, 0,
          0x4000},
         {'r', OWN "atom.shared.add.noftz.bf16x2 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0x3f803f80,
          0x40003f80, 0, 0x40404000},
         {'r', OWN "atom.shared.add.noftz.f16x2 %r11, [%r20], %r3; ld.shared.u32 %r10, [%r20];", 0x3c003c00, 0x40003c00,
          0, 0x42004000});
#undef OWN
}

static std::vector<uint32_t> lanes_of(const char *code, const char *declarations = "")
{
    uint64_t out = ptx_memory(128);
    std::string fault =
        ptx_run(std::string(".visible .entry k(.param .u64 out)\n{\n.reg .pred %p<10>; .reg .b32 %r<40>; .reg .b64 "
                            "%q<10>; .reg .f32 %f<40>;\n") +
                    declarations +
                    "ld.param.u64 %q1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 4; add.u64 %q1, %q1, %q2;\n" +
                    code + "\nst.global.u32 [%q1], %r10;\nret;\n}\n",
                1, 32, {out});
    if (!fault.empty()) print_error("%s\n   %s\n", code, fault.c_str());
    assert_true(fault.empty());
    std::vector<uint32_t> got(32);
    ptx_download(got.data(), out, 128);
    return got;
}

/* Sources of the four modes, with a segment of 8 lanes, and the predicate where the source is out of range. */
static void shuffles(void **)
{
    auto up =
        lanes_of("add.u32 %r2, %r1, 100; shfl.sync.up.b32 %r10|%p1, %r2, 3, 0, -1; @!%p1 add.u32 %r10, %r10, 1000;");
    auto down = lanes_of(
        "add.u32 %r2, %r1, 100; shfl.sync.down.b32 %r10|%p1, %r2, 3, 31, 0xffffffff; @!%p1 add.u32 %r10, %r10, 1000;");
    auto bfly = lanes_of("add.u32 %r2, %r1, 100; shfl.sync.bfly.b32 %r10, %r2, 5, 31, -1;");
    auto idx = lanes_of(
        "add.u32 %r2, %r1, 100; shfl.sync.idx.b32 %r10|%p1, %r2, %r1, 0x181f, -1; @!%p1 add.u32 %r10, %r10, 1000;");
    auto segment = lanes_of("add.u32 %r2, %r1, 100; shfl.sync.down.b32 %r10, %r2, 2, 0x181f, -1;");
    auto half = lanes_of("add.u32 %r2, %r1, 100; mov.u32 %r10, 7; setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; "
                         "shfl.sync.bfly.b32 %r10, %r2, 1, 31, 0xffff; L:");
    for (uint32_t l = 0; l < 32; ++l) {
        assert_int_equal(up[l], l < 3 ? 1100 + l : 97 + l);
        assert_int_equal(down[l], l > 28 ? 1100 + l : 103 + l);
        assert_int_equal(bfly[l], 100 + (l ^ 5));
        assert_int_equal(idx[l], 100 + (l & ~7u) + (l & 7));
        assert_int_equal(segment[l], (l & 7) < 6 ? 102 + l : 100 + l);
        assert_int_equal(half[l], l < 16 ? 100 + (l ^ 1) : 7);
    }
}

static void votes(void **)
{
    auto ballot = lanes_of("setp.lt.u32 %p1, %r1, 5; vote.sync.ballot.b32 %r10, %p1, -1;");
    auto negated = lanes_of("setp.lt.u32 %p1, %r1, 5; vote.sync.ballot.b32 %r10, !%p1, -1;");
    auto all = lanes_of("setp.lt.u32 %p1, %r1, 32; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r10, 1, 0, %p2;");
    auto any = lanes_of("setp.eq.u32 %p1, %r1, 99; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r10, 1, 0, %p2;");
    auto uni = lanes_of("setp.eq.u32 %p1, %r1, 1; vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r10, 1, 0, %p2;");
    auto match = lanes_of("and.b32 %r2, %r1, 3; match.any.sync.b32 %r10, %r2, -1;");
    auto match_all = lanes_of("mov.u32 %r2, 4; match.all.sync.b32 %r10|%p1, %r2, -1; @!%p1 mov.u32 %r10, 1;");
    auto sum = lanes_of("redux.sync.add.u32 %r10, %r1, -1;");
    auto largest = lanes_of("sub.u32 %r2, %r1, 10; redux.sync.max.s32 %r10, %r2, -1;");
    auto smallest = lanes_of("sub.u32 %r2, %r1, 10; redux.sync.min.s32 %r10, %r2, -1;");
    auto unsigned_largest = lanes_of("sub.u32 %r2, %r1, 10; redux.sync.max.u32 %r10, %r2, -1;");
    auto exclusive = lanes_of("redux.sync.xor.b32 %r10, %r1, -1;");
    auto active = lanes_of("mov.u32 %r10, 0; setp.lt.u32 %p1, %r1, 4; @!%p1 bra L; activemask.b32 %r10; L:");
    /* Two groups with masks of their own, at one instruction. */
    auto groups =
        lanes_of("setp.lt.u32 %p1, %r1, 16; selp.u32 %r2, 0xffff, 0xffff0000, %p1; redux.sync.add.u32 %r10, %r1, %r2;");
    for (uint32_t l = 0; l < 32; ++l) {
        assert_int_equal(ballot[l], 0x1f);
        assert_int_equal(negated[l], 0xffffffe0);
        assert_int_equal(all[l], 1);
        assert_int_equal(any[l], 0);
        assert_int_equal(uni[l], 0);
        assert_int_equal(match[l], 0x11111111u << (l & 3));
        assert_int_equal(match_all[l], 0xffffffff);
        assert_int_equal(sum[l], 496);
        assert_int_equal(largest[l], 21);
        assert_int_equal(smallest[l], 0xfffffff6);
        assert_int_equal(unsigned_largest[l], 0xffffffff);
        assert_int_equal(exclusive[l], 0);
        assert_int_equal(active[l], l < 4 ? 15 : 0);
        assert_int_equal(groups[l], l < 16 ? 120 : 376);
    }
}

/* Lanes part and meet again: nested branches, a loop of different lengths, a table, calls, an early end. */
static void control_flow(void **)
{
    auto nested = lanes_of("mov.u32 %r10, 0; and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra EVEN; add.u32 "
                           "%r10, %r10, 1; setp.lt.u32 %p2, %r1, 16; @%p2 bra JOIN; add.u32 %r10, %r10, 10; bra JOIN;\n"
                           "EVEN: add.u32 %r10, %r10, 100; JOIN: activemask.b32 %r3; setp.eq.u32 %p3, %r3, -1; @!%p3 "
                           "add.u32 %r10, %r10, 5000;");
    auto loop = lanes_of("mov.u32 %r10, 0; mov.u32 %r2, 0; L: setp.ge.u32 %p1, %r2, %r1; @%p1 bra E; add.u32 %r10, "
                         "%r10, %r2; add.u32 %r2, %r2, 1; bra L; E:");
    auto table = lanes_of("and.b32 %r2, %r1, 3; T: .branchtargets A, B, C, A; brx.idx %r2, T; A: mov.u32 %r10, 1; bra "
                          "E; B: mov.u32 %r10, 2; bra E; C: mov.u32 %r10, 3; E:");
    auto scoped =
        lanes_of("mov.u32 %r10, 0; { bra L; add.u32 %r10, %r10, 1; L: } { bra L; add.u32 %r10, %r10, 1; L: }");
    for (uint32_t l = 0; l < 32; ++l) {
        assert_int_equal(nested[l], l % 2 == 0 ? 100 : l < 16 ? 1 : 11);
        assert_int_equal(loop[l], l * (l - 1) / 2);
        assert_int_equal(table[l], (l & 3) == 3 ? 1 : 1 + (l & 3));
        assert_int_equal(scoped[l], 0);
    }
    uint64_t out = ptx_memory(128);
    uint32_t got[32] = {};
    ptx_upload(out, got, 128);
    /* f returns early for odd lanes; called twice, its variables are its own each time. */
    std::string fault = ptx_run(
        ".func (.param .b32 r) f(.param .b32 a)\n{ .reg .b32 %r<4>; .reg .pred %p<2>; .local .align 4 .b8 mine[4];\n"
        "ld.param.u32 %r1, [a]; st.local.u32 [mine], %r1; and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; st.param.b32 "
        "[r+0], 7; @!%p1 ret; ld.local.u32 %r3, [mine]; mul.lo.u32 %r3, %r3, 3; st.param.b32 [r+0], %r3; ret; }\n"
        ".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<9>; .reg .b64 %q<4>; .reg .pred %p<3>;\n"
        "ld.param.u64 %q1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 4; add.u64 %q1, %q1, %q2; setp.eq.u32 "
        "%p1, %r1, 31; @%p1 exit;\n"
        "{ .param .b32 x; .param .b32 y; st.param.b32 [x+0], %r1; call.uni (y), f, (x); ld.param.b32 %r2, [y+0]; }\n"
        "{ .param .b32 x; .param .b32 y; add.u32 %r3, %r1, 1; st.param.b32 [x+0], %r3; call.uni (y), f, (x); "
        "ld.param.b32 %r4, [y+0]; }\n"
        "add.u32 %r5, %r2, %r4; st.global.u32 [%q1], %r5; ret; }\n",
        1, 32, {out});
    assert_string_equal(fault.c_str(), "");
    ptx_download(got, out, 128);
    for (uint32_t l = 0; l < 32; ++l)
        assert_int_equal(got[l], l == 31 ? 0 : l % 2 ? 7 + 3 * (l + 1) : 3 * l + 7);
}

static uint32_t bf16_of(int x)
{
    float f = static_cast<float>(x);
    uint32_t bits;
    __builtin_memcpy(&bits, &f, 4);
    return bits >> 16; /* small whole numbers: exact */
}

/* A, B and C of small whole numbers: every product and sum is exact, so the answer is that of whole numbers. */
static void matrix_product(void **)
{
    const char *body = "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%q3]; ld.global.v2.u32 {%r6, %r7}, [%q3+16]; "
                       "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%q3+32];\n"
                       "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f5, %f6, %f7, %f8}, {%r2, %r3, %r4, "
                       "%r5}, {%r6, %r7}, {%f1, %f2, %f3, %f4};\n"
                       "st.global.v4.f32 [%q3+32], {%f5, %f6, %f7, %f8};";
    int a[16][16], b[16][8], c[16][8];
    for (int r = 0; r < 16; ++r)
        for (int k = 0; k < 16; ++k)
            a[r][k] = (r * 7 + k * 3) % 11 - 5;
    for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 8; ++n)
            b[k][n] = (k * 5 + n * 2) % 13 - 6;
    for (int r = 0; r < 16; ++r)
        for (int n = 0; n < 8; ++n)
            c[r][n] = r - 3 * n;
    uint32_t in[32][12] = {};
    for (int l = 0; l < 32; ++l) {
        int g = l / 4, t = l % 4 * 2;
        auto pair = [](int low, int high) { return bf16_of(high) << 16 | bf16_of(low); };
        in[l][0] = pair(a[g][t], a[g][t + 1]);
        in[l][1] = pair(a[g + 8][t], a[g + 8][t + 1]);
        in[l][2] = pair(a[g][t + 8], a[g][t + 9]);
        in[l][3] = pair(a[g + 8][t + 8], a[g + 8][t + 9]);
        in[l][4] = pair(b[t][g], b[t + 1][g]);
        in[l][5] = pair(b[t + 8][g], b[t + 9][g]);
        const float sums[4] = {static_cast<float>(c[g][t]), static_cast<float>(c[g][t + 1]),
                               static_cast<float>(c[g + 8][t]), static_cast<float>(c[g + 8][t + 1])};
        __builtin_memcpy(&in[l][8], sums, 16);
    }
    uint64_t memory = ptx_memory(sizeof in);
    ptx_upload(memory, in, sizeof in);
    std::string fault = ptx_run(
        std::string(
            ".visible .entry k(.param .u64 in)\n{ .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %q<4>;\n"
            "ld.param.u64 %q1, [in]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 48; add.u64 %q3, %q1, %q2;\n") +
            body + "\nret; }\n",
        1, 32, {memory});
    assert_string_equal(fault.c_str(), "");
    ptx_download(in, memory, sizeof in);
    for (int l = 0; l < 32; ++l) {
        float got[4];
        __builtin_memcpy(got, &in[l][8], 16);
        for (int j = 0; j < 4; ++j) {
            int r = l / 4 + (j & 2) * 4, n = l % 4 * 2 + (j & 1), want = c[r][n];
            for (int k = 0; k < 16; ++k)
                want += a[r][k] * b[k][n];
            assert_int_equal(static_cast<int>(got[j]), want);
        }
    }
}

/* Four matrices of halves whose value says where they lie: 256 matrix + 16 row + column. */
static void matrix_loads(void **)
{
    for (bool trans : {false, true}) {
        uint64_t out = ptx_memory(32 * 16);
        std::string kernel =
            std::string(".visible .entry k(.param .u64 out)\n{ .reg .pred %p<2>; .reg .b32 %r<20>; .reg .b64 %q<4>; "
                        ".shared .align 16 .b8 s[512];\n"
                        "ld.param.u64 %q1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 16; add.u64 %q1, %q1, "
                        "%q2; mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.u32 %r2, %r2, %r3;\n"
                        "shr.u32 %r4, %r1, 3; shl.b32 %r4, %r4, 8; and.b32 %r5, %r1, 7; shl.b32 %r5, %r5, 4; add.u32 "
                        "%r4, %r4, %r5; mov.u32 %r6, 0;\n"
                        "L: add.u32 %r7, %r4, %r6; shl.b32 %r8, %r6, 1; add.u32 %r8, %r8, %r2; st.shared.u16 [%r8], "
                        "%r7; add.u32 %r6, %r6, 1; setp.lt.u32 %p1, %r6, 8; @%p1 bra L;\n"
                        "bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x4") +
            (trans ? ".trans" : "") +
            ".shared.b16 {%r10, %r11, %r12, %r13}, [%r2]; st.global.v4.u32 [%q1], {%r10, %r11, %r12, %r13}; ret; }\n";
        assert_string_equal(ptx_run(kernel, 1, 32, {out}).c_str(), "");
        uint32_t got[32][4];
        ptx_download(got, out, sizeof got);
        for (uint32_t l = 0; l < 32; ++l)
            for (uint32_t m = 0; m < 4; ++m) {
                uint32_t row = l / 4, column = l % 4 * 2;
                uint32_t low = trans ? 256 * m + 16 * column + row : 256 * m + 16 * row + column;
                uint32_t high = trans ? low + 16 : low + 1;
                assert_int_equal(got[l][m], high << 16 | low);
            }
    }
}

/* Two groups in flight, the first waited for first; 16 bytes of which 4 come from the source. */
static void asynchronous_copies(void **)
{
    uint64_t in = ptx_memory(1024), out = ptx_memory(512);
    uint32_t data[256], got[128];
    for (uint32_t k = 0; k < 256; ++k)
        data[k] = k;
    ptx_upload(in, data, sizeof data);
    std::string fault = ptx_run(".visible .entry k(.param .u64 in, .param .u64 out)\n{ .reg .b32 %r<20>; .reg .b64 "
                                "%q<5>; .shared .align 16 .b8 s[512]; .shared .align 16 .b8 t[512];\n"
                                "ld.param.u64 %q0, [in]; ld.param.u64 %q1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 "
                                "%q2, %r1, 16; add.u64 %q0, %q0, %q2; add.u64 %q1, %q1, %q2;\n"
                                "mov.u32 %r2, s; mov.u32 %r3, t; shl.b32 %r4, %r1, 4; add.u32 %r2, %r2, %r4; add.u32 "
                                "%r3, %r3, %r4; mov.u32 %r5, 4;\n"
                                "cp.async.cg.shared.global [%r2], [%q0], 16; cp.async.commit_group; "
                                "cp.async.ca.shared.global [%r3], [%q0+512], 16, %r5; cp.async.commit_group;\n"
                                "cp.async.wait_group 1; ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r2]; "
                                "cp.async.wait_group 0; ld.shared.v4.u32 {%r14, %r15, %r16, %r17}, [%r3];\n"
                                "add.u32 %r10, %r10, %r14; add.u32 %r11, %r11, %r15; add.u32 %r12, %r12, %r16; add.u32 "
                                "%r13, %r13, %r17; st.global.v4.u32 [%q1], {%r10, %r11, %r12, %r13}; ret; }\n",
                                1, 32, {in, out});
    assert_string_equal(fault.c_str(), "");
    ptx_download(got, out, sizeof got);
    for (uint32_t k = 0; k < 128; ++k)
        assert_int_equal(got[k], k + (k % 4 == 0 ? k + 128 : 0));
}

/* 128 threads: a barrier that counts, named barriers of half the block, one that says whether all agree. */
static void barriers(void **)
{
    uint64_t out = ptx_memory(512);
    uint32_t got[128];
    std::string fault = ptx_run(".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<20>; .reg .b64 %q<5>; .reg .pred "
                                "%p<5>; .shared .align 4 .b32 s[128];\n"
                                "ld.param.u64 %q1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 4; add.u64 %q1, "
                                "%q1, %q2; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r2;\n"
                                "setp.lt.u32 %p1, %r1, 50; bar.red.popc.u32 %r4, 0, %p1; bar.red.and.pred %p2, 0, %p1; "
                                "bar.red.or.pred %p3, 0, %p1; st.shared.u32 [%r3], %r1;\n"
                                /* warps 0, 1 exchange among themselves, and 2, 3 */
                                "shr.u32 %r5, %r1, 6; add.u32 %r5, %r5, 1; bar.sync %r5, 64; xor.b32 %r6, %r1, 32; "
                                "shl.b32 %r6, %r6, 2; add.u32 %r6, %r6, %r2; ld.shared.u32 %r7, [%r6];\n"
                                "barrier.sync.aligned 0; @%p2 add.u32 %r7, %r7, 1000; @%p3 add.u32 %r7, %r7, 10000; "
                                "mad.lo.u32 %r7, %r4, 100000, %r7; st.global.u32 [%q1], %r7; ret; }\n",
                                1, 128, {out});
    assert_string_equal(fault.c_str(), "");
    ptx_download(got, out, sizeof got);
    for (uint32_t k = 0; k < 128; ++k)
        assert_int_equal(got[k], 5000000 + 10000 + (k ^ 32));
}

static void module_variables(void **)
{
    uint64_t out = ptx_memory(16);
    std::string fault = ptx_run(
        ".const .align 4 .f32 c[2] = {0f3F800000, 0f40000000};\n.global .align 4 .u32 g = 5;\n.global .align 8 .u64 "
        "p[2] = {g, generic(c)};\n.extern .shared .align 16 .b8 dynamic[];\n"
        ".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<9>; .reg .b64 %q<9>; .shared .align 4 .b8 fixed[4];\n"
        "ld.param.u64 %q1, [out]; ld.const.u32 %r1, [c+4]; ld.global.u64 %q2, [p]; ld.u32 %r2, [%q2]; "
        "atom.global.add.u32 %r3, [g], 2; ld.global.u32 %r4, [g];\n"
        "st.shared.u32 [dynamic+4], 9; ld.shared.u32 %r5, [dynamic+4]; mov.u32 %r6, %dynamic_smem_size; add.u32 %r5, "
        "%r5, %r6; st.global.v4.u32 [%q1], {%r1, %r2, %r4, %r5}; ret; }\n",
        1, 1, {out}, 64);
    assert_string_equal(fault.c_str(), "");
    uint32_t got[4];
    ptx_download(got, out, sizeof got);
    assert_int_equal(got[0], 0x40000000);
    assert_int_equal(got[1], 5);
    assert_int_equal(got[2], 7);
    assert_int_equal(got[3], 73);
}

/* What is not known is named, with its line. */
static void unknown_opcodes(void **)
{
    std::string fault = ptx_run(".visible .entry k()\n{ .reg .b32 %r<3>;\nfoo.s32 %r1, %r2;\nret; }\n", 1, 32, {});
    assert_true(fault.find("foo") != std::string::npos);
    assert_true(fault.find("PTX line 6") != std::string::npos);
    fault = ptx_run(".visible .entry k()\n{ .reg .b32 %r<3>;\nadd.s32 %r1, %r2, %r7;\nret; }\n", 1, 32, {});
    assert_true(fault.find("%r7") != std::string::npos);
    fault = ptx_run(".visible .entry k()\n{ .reg .b32 %r<3>; .reg .b16 %h<2>;\nadd.s32 %r1, %r2, %h1;\nret; }\n", 1, 32,
                    {});
    assert_true(fault.find("narrower") != std::string::npos);
    fault = ptx_run(".visible .entry k()\n{ bra NOWHERE; ret; }\n", 1, 32, {});
    assert_true(fault.find("NOWHERE") != std::string::npos);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(carries),
        cmocka_unit_test(bits),
        cmocka_unit_test(moves),
        cmocka_unit_test(predicates),
        cmocka_unit_test(floats),
        cmocka_unit_test(doubles),
        cmocka_unit_test(halves),
        cmocka_unit_test(conversions),
        cmocka_unit_test(accesses),
        cmocka_unit_test(atomics),
        cmocka_unit_test(shuffles),
        cmocka_unit_test(votes),
        cmocka_unit_test(control_flow),
        cmocka_unit_test(matrix_product),
        cmocka_unit_test(matrix_loads),
        cmocka_unit_test(asynchronous_copies),
        cmocka_unit_test(barriers),
        cmocka_unit_test(module_variables),
        cmocka_unit_test(unknown_opcodes),
    };
    return cmocka_run_group_tests(tests, nullptr, ptx_release);
}
