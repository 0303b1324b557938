/* Every check of the interpreter: a kernel with a fault, which must be told in the right words, and its corrected twin,
 * which must run in silence. */
#include "ptx_rig.h"

#include <cstdlib>

namespace
{

struct Case {
    const char *what;
    const char *bad,
        *good; /* bodies; %r1 is the thread, %q0 and %q1 two arrays of 4 bytes per thread, all written / none */
    const char *message; /* part of what must be told; and the PTX line always is */
    unsigned block;
};

uint64_t written, blank;

std::string run(const char *body, unsigned block)
{
    written = ptx_memory(4 * 256);
    blank = ptx_memory(4 * 256);
    uint32_t numbers[256];
    for (uint32_t k = 0; k < 256; ++k)
        numbers[k] = k;
    ptx_upload(written, numbers, sizeof numbers);
    return ptx_run(
        std::string(
            ".extern .shared .align 16 .b8 dynamic[];\n.visible .entry k(.param .u64 a, .param .u64 b)\n{ .reg .pred "
            "%p<10>; .reg .b16 %h<10>; .reg .b32 %r<40>; .reg .b64 %q<20>; .reg .f32 %f<20>;\n"
            ".shared .align 16 .b8 s[1024];\n"
            "ld.param.u64 %q0, [a]; ld.param.u64 %q1, [b]; mov.u32 %r1, %tid.x; mul.wide.u32 %q2, %r1, 4; add.u64 %q4, "
            "%q0, %q2; add.u64 %q5, %q1, %q2; mov.u32 %r2, s; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3;\n") +
            body + "\nret; }\n",
        1, block, {written, blank}, 0);
}

const Case cases[] = {
    {"global memory past its end", "ld.global.u32 %r10, [%q4+1021];", "ld.global.u32 %r10, [%q4+896];",
     "not a multiple of 4", 32},
    {"one element past the end", "ld.global.u32 %r10, [%q4+900];", "ld.global.u32 %r10, [%q4+896];",
     "0 bytes past the end of allocation", 32},
    {"a write past the end", "st.global.u32 [%q4+1024], %r1;", "st.global.u32 [%q4], %r1;", "writes 4 bytes", 32},
    {"before the beginning", "ld.global.u32 %r10, [%q5+-4];", "ld.global.u32 %r10, [%q4];", "4 bytes before allocation",
     32},
    {"a null pointer", "mov.u64 %q9, 0; ld.global.u32 %r10, [%q9+16];", "ld.global.u32 %r10, [%q4+16];",
     "a null pointer", 32},
    {"a vector that hangs over the end", "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%q0+1020];",
     "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%q0+1008];", "not a multiple of 16", 32},
    {"misaligned vector", "ld.global.v2.u32 {%r10, %r11}, [%q0+4];", "ld.global.v2.u32 {%r10, %r11}, [%q0+8];",
     "reads 8 bytes at", 32},
    {"misaligned write", "st.global.u16 [%q1+1], %r1;", "st.global.u16 [%q1+2], %r1;", "not a multiple of 2", 32},
    {"an address that was cut to 32 bits", "cvt.u32.u64 %r9, %q0; cvt.u64.u32 %q9, %r9; ld.global.u32 %r10, [%q9];",
     "ld.global.u32 %r10, [%q0];", "no device address", 32},
    {"memory never written", "ld.global.u32 %r10, [%q5];", "st.global.u32 [%q5], %r1; ld.global.u32 %r10, [%q5];",
     "byte 0 of them was never written", 32},
    {"half written", "st.global.u16 [%q5], %r1; ld.global.u32 %r10, [%q5];",
     "st.global.u16 [%q5], %r1; st.global.u16 [%q5+2], %r1; ld.global.u32 %r10, [%q5];",
     "byte 2 of them was never written", 32},
    {"an atomic on memory never written", "atom.global.add.u32 %r10, [%q1], 1;", "atom.global.add.u32 %r10, [%q0], 1;",
     "never written", 32},
    {"a misaligned atomic", "atom.global.add.u32 %r10, [%q0+2], 1;", "atom.global.add.u32 %r10, [%q0+4], 1;",
     "atomic on 4 bytes", 32},
    {"shared memory past its end", "st.shared.u32 [%r2+1048576], %r1;", "st.shared.u32 [%r4], %r1;", "the block has",
     32},
    {"past a shared variable, into what follows", "st.shared.u32 [%r2+1024], %r1;", "st.shared.u32 [%r4], %r1;",
     "past the end of a shared variable", 32},
    {"shared memory never written", "ld.shared.u32 %r10, [%r4];",
     "st.shared.u32 [%r4], %r1; ld.shared.u32 %r10, [%r4];", "which nobody has written", 32},
    {"misaligned shared", "st.shared.u32 [%r4+2], %r1;", "st.shared.u32 [%r4], %r1;", "not a multiple of 4", 32},
    {"dynamic shared memory that the launch did not give", "st.shared.u32 [dynamic], %r1;", "st.shared.u32 [%r4], %r1;",
     "the block has", 1},
    {"local memory past its end", ".local .align 4 .b8 l[8]; mov.u64 %q9, l; st.local.u32 [%q9+16], %r1;",
     ".local .align 4 .b8 l[8]; mov.u64 %q9, l; st.local.u32 [%q9+4], %r1;", "the thread has", 32},
    {"local memory never written", ".local .align 4 .b8 l[8]; mov.u64 %q9, l; ld.local.u32 %r10, [%q9+4];",
     ".local .align 4 .b8 l[8]; mov.u64 %q9, l; st.local.u32 [%q9+4], %r1; ld.local.u32 %r10, [%q9+4];",
     "which the thread has not written", 32},
    {"a shuffle that names absent lanes",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1; L:",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r10, %r1, 1, 31, 0xffff; L:", "missing lanes", 32},
    {"a shuffle in a partial warp", "shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1;",
     "shfl.sync.bfly.b32 %r10, %r1, 1, 31, 0xffff;", "have ended or never were", 16},
    {"a shuffle from a lane outside the mask",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r10, %r1, 16, 31, 0xffff; L:",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; shfl.sync.bfly.b32 %r10, %r1, 8, 31, 0xffff; L:", "takes no part", 32},
    {"a shuffle by a lane that its mask leaves out", "shfl.sync.bfly.b32 %r10, %r1, 1, 31, 0xffff;",
     "shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1;", "not in its own mask", 32},
    {"a guarded shuffle", "setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1;",
     "setp.lt.u32 %p1, %r1, 16; @%p1 shfl.sync.bfly.b32 %r10, %r1, 1, 31, 0xffff;", "missing lanes", 32},
    {"a vote that names absent lanes", "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; vote.sync.ballot.b32 %r10, %p1, -1; L:",
     "setp.lt.u32 %p1, %r1, 16; vote.sync.ballot.b32 %r10, %p1, -1;", "missing lanes", 32},
    {"a warp barrier that not all reach",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; bar.warp.sync -1; L:", "bar.warp.sync -1;", "missing lanes", 32},
    {"mma by half a warp",
     "mov.u32 %r10, 0; mov.f32 %f1, 0f00000000; setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; "
     "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2, %f3, %f4, %f5}, {%r10, %r10, %r10, %r10}, {%r10, "
     "%r10}, {%f1, %f1, %f1, %f1}; L:",
     "mov.u32 %r10, 0; mov.f32 %f1, 0f00000000; mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2, %f3, %f4, "
     "%f5}, {%r10, %r10, %r10, %r10}, {%r10, %r10}, {%f1, %f1, %f1, %f1};",
     "missing lanes", 32},
    {"ldmatrix by half a warp",
     "st.shared.u32 [%r4], %r1; bar.warp.sync -1; setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; "
     "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2]; L:",
     "st.shared.u32 [%r4], %r1; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2];",
     "missing lanes", 32},
    {"ldmatrix of a row that is not aligned",
     "st.shared.u32 [%r4], %r1; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2+8];",
     "st.shared.u32 [%r4], %r1; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2+16];",
     "not a multiple of 16", 32},
    {"ldmatrix of what nobody wrote", "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2];",
     "st.shared.u32 [%r4], %r1; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2];",
     "which nobody has written", 32},
    {"a barrier in a branch that part of a warp takes",
     "setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; bar.sync 0; bra E; L: add.u32 %r10, %r1, 1; bar.sync 0; E:", "bar.sync 0;",
     "divergent barrier", 32},
    {"a barrier that one warp passes elsewhere",
     "setp.lt.u32 %p1, %r1, 32; @!%p1 bra L; bar.sync 0; bra E; L: bar.sync 0; E:",
     "setp.lt.u32 %p1, %r1, 32; @!%p1 bra L; add.u32 %r10, %r1, 1; L: bar.sync 0;", "divergent barrier", 64},
    {"a barrier that waits for more warps than come",
     "setp.lt.u32 %p1, %r1, 32; @!%p1 bra L; bar.sync 1, 64; L: bar.sync 0;", "bar.sync 1, 64; bar.sync 0;",
     "never complete", 64},
    {"a read before the barrier",
     "st.shared.u32 [%r4], %r1; xor.b32 %r5, %r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; ld.shared.u32 %r10, "
     "[%r5];",
     "st.shared.u32 [%r4], %r1; xor.b32 %r5, %r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; bar.sync 0; "
     "ld.shared.u32 %r10, [%r5];",
     "shared byte", 64},
    {"a read after a write of another warp",
     "bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 st.shared.u32 [%r4], %r1; xor.b32 %r5, %r1, 32; shl.b32 %r5, %r5, 2; "
     "add.u32 %r5, %r5, %r2; @!%p1 ld.shared.u32 %r10, [%r5];",
     "bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 st.shared.u32 [%r4], %r1; xor.b32 %r5, %r1, 32; shl.b32 %r5, %r5, 2; "
     "add.u32 %r5, %r5, %r2; bar.sync 0; @!%p1 ld.shared.u32 %r10, [%r5];",
     "written by warp 0 since the last barrier", 64},
    {"a write after a read of another warp",
     "st.shared.u32 [%r4], %r1; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r10, [%r4]; xor.b32 %r5, "
     "%r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; @!%p1 st.shared.u32 [%r5], %r1;",
     "st.shared.u32 [%r4], %r1; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r10, [%r4]; xor.b32 %r5, "
     "%r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; bar.sync 0; @!%p1 st.shared.u32 [%r5], %r1;",
     "read by warp 0 since the last barrier", 64},
    {"two warps that write one word", "st.shared.u32 [%r2], %r1;",
     "setp.lt.u32 %p1, %r1, 32; @%p1 st.shared.u32 [%r2], 1; bar.sync 0; @!%p1 st.shared.u32 [%r2], 2;",
     "written by warp", 64},
    {"a plain read of what atomics change",
     "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0; atom.shared.add.u32 %r10, [%r2], 1; "
     "ld.shared.u32 %r11, [%r2];",
     "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0; atom.shared.add.u32 %r10, [%r2], 1; bar.sync "
     "0; ld.shared.u32 %r11, [%r2];",
     "changed by atomics", 64},
    {"neighbouring bytes of one word are no race", "st.shared.u8 [%r2], %r1;",
     "add.u32 %r5, %r2, %r1; st.shared.u8 [%r5], %r1; bar.sync 0; ld.shared.u8 %r10, [%r5];", "written by warp", 64},
    {"cp.async that nobody waits for",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; ld.shared.u32 %r10, [%r4];",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r10, "
     "[%r4];",
     "before the cp.async that fills it was waited for", 32},
    {"cp.async with one group too many left",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r10, "
     "[%r4];",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 1; "
     "ld.shared.u32 %r10, [%r4];",
     "before the cp.async", 32},
    {"cp.async without a commit",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.wait_group 0; ld.shared.u32 %r10, [%r4];",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.wait_all; ld.shared.u32 %r10, [%r4];", "before the cp.async",
     32},
    {"cp.async waited for, but no barrier before another warp reads",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; bar.sync 0; cp.async.wait_group 0; xor.b32 "
     "%r5, %r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; ld.shared.u32 %r10, [%r5];",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; xor.b32 "
     "%r5, %r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; ld.shared.u32 %r10, [%r5];",
     "shared byte", 64},
    {"cp.async over what another warp still reads",
     "st.shared.u32 [%r4], %r1; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r10, [%r4]; xor.b32 %r5, "
     "%r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; @%p1 bra E; cp.async.ca.shared.global [%r5], [%q4], 4; E:",
     "st.shared.u32 [%r4], %r1; bar.sync 0; setp.lt.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r10, [%r4]; xor.b32 %r5, "
     "%r1, 32; shl.b32 %r5, %r5, 2; add.u32 %r5, %r5, %r2; bar.sync 0; @%p1 bra E; cp.async.ca.shared.global [%r5], "
     "[%q4], 4; E:",
     "read by warp 0", 64},
    {"a store while a cp.async to the place is under way",
     "cp.async.ca.shared.global [%r4], [%q4], 4; st.shared.u32 [%r4], %r1;",
     "cp.async.ca.shared.global [%r4], [%q4], 4; cp.async.wait_all; st.shared.u32 [%r4], %r1;", "still under way", 32},
    {"cp.async of what was never written",
     "cp.async.ca.shared.global [%r4], [%q5], 4; cp.async.wait_all; ld.shared.u32 %r10, [%r4];",
     "cp.async.ca.shared.global [%r4], [%q5], 4; cp.async.wait_all;", "which nobody has written", 32},
    {"cp.async from past the end", "cp.async.ca.shared.global [%r4], [%q4+1024], 4;",
     "mov.u32 %r9, 0; cp.async.ca.shared.global [%r4], [%q4+1024], 4, %r9;", "cp.async reads", 32},
    {"misaligned cp.async", "cp.async.cg.shared.global [%r2], [%q0+4], 16;",
     "setp.eq.u32 %p1, %r1, 0; @%p1 cp.async.cg.shared.global [%r2], [%q0+16], 16;", "cp.async", 32},
    {"trap", "trap;", "add.u32 %r10, %r1, 1;", "trap", 32},
    {"a branch table that is too short", "T: .branchtargets A, B; brx.idx %r1, T; A: B:",
     "and.b32 %r9, %r1, 1; T: .branchtargets A, B; brx.idx %r9, T; A: B:", "2 targets", 32},
    {"a loop without end", "L: add.u32 %r10, %r1, 1; bra L;", "add.u32 %r10, %r1, 1;", "VGPU_MAX_INSTRUCTIONS", 32},
};

void each_check_finds_its_fault(void **)
{
    int wrong = 0;
    for (const Case &c : cases) {
        std::string good = run(c.good, c.block), bad = run(c.bad, c.block);
        if (!good.empty()) print_error("%s: the corrected kernel: %s\n", c.what, good.c_str()), ++wrong;
        if (bad.find(c.message) == std::string::npos || bad.find("PTX line 9") == std::string::npos ||
            bad.find("block (0, 0, 0), thread (") == std::string::npos)
            print_error("%s: got '%s', want '%s' with line, block and thread\n", c.what, bad.c_str(), c.message),
                ++wrong;
    }
    assert_int_equal(wrong, 0);
}

/* The message tells the thread that did it: here number 37 of the second block. */
void the_thread_is_named(void **)
{
    uint64_t memory = ptx_memory(4);
    std::string fault = ptx_run(
        ".visible .entry k(.param .u64 a)\n{ .reg .pred %p<3>; .reg .b32 %r<3>; .reg .b64 %q<3>;\nld.param.u64 %q1, "
        "[a]; mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 37; mov.u32 %r2, %ctaid.x; setp.eq.and.u32 %p1, %r2, 1, %p1;\n"
        "@%p1 st.global.u32 [%q1+64], %r1;\nret; }\n",
        2, 64, {memory});
    assert_true(fault.find("block (1, 0, 0), thread (37, 0, 0), warp 1, lane 5") != std::string::npos);
    assert_true(fault.find("PTX line 7: @%p1 st.global.u32 [%q1+64], %r1") != std::string::npos);
    assert_true(fault.find("60 bytes past the end of allocation") != std::string::npos);
    assert_true(fault.find("[cudaErrorIllegalAddress]") != std::string::npos);
}

/* Races between the blocks of a launch: bodies, run by one thread of each of three blocks. %r1 is the block, %q0 an
 * array of words, all written; %p1 to %p3: it is the first, the second, the third. */
const Case races[] = {
    {"two blocks write different values", "st.global.u32 [%q0], %r1;", "st.global.u32 [%q0], 7;",
     "writes another value to global byte", 1},
    {"two blocks write different values into one word", "@%p1 st.global.u32 [%q0], 7; @%p2 st.global.u16 [%q0+2], 7;",
     "@%p1 st.global.u16 [%q0], 7; @%p2 st.global.u16 [%q0+2], 8;", "which block (0, 0, 0) has written in this launch",
     1},
    {"a third value after two that were the same", "selp.u32 %r2, 8, 7, %p3; st.global.u32 [%q0], %r2;",
     "mov.u32 %r2, 7; st.global.u32 [%q0], %r2;", "which several blocks have written", 1},
    {"a read of what another block writes", "@%p1 st.global.u32 [%q0], 7; @%p2 ld.global.u32 %r2, [%q0];",
     "@%p1 st.global.u32 [%q0], 7; @%p1 ld.global.u32 %r2, [%q0]; @%p2 ld.global.u32 %r2, [%q0+4];",
     "reads global byte", 1},
    {"a read of what two blocks write", "@%p3 ld.global.u32 %r2, [%q0]; @!%p3 st.global.u32 [%q0], 7;",
     "@%p3 ld.global.u32 %r2, [%q0+4]; @!%p3 st.global.u32 [%q0], 7;", "which several blocks have written", 1},
    {"a write of what another block reads", "@%p1 ld.global.u32 %r2, [%q0+4]; @%p2 st.global.u16 [%q0+6], 1;",
     "@%p1 ld.global.u16 %r2, [%q0+4]; @%p2 st.global.u16 [%q0+6], 1;", "which block (0, 0, 0) has read in this launch",
     1},
    {"a write of what two blocks read", "@!%p3 ld.global.u32 %r2, [%q0]; @%p3 st.global.u32 [%q0], 1;",
     "@!%p3 ld.global.u32 %r2, [%q0]; @%p3 ld.global.u32 %r2, [%q0]; @%p3 st.global.u32 [%q0+4], 1;",
     "which several blocks have read", 1},
    {"a vector over what another block writes",
     "@%p1 st.global.u32 [%q0+12], 7; @%p2 ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%q0];",
     "@%p1 st.global.u32 [%q0+12], 7; @%p2 ld.global.v2.u32 {%r2, %r3}, [%q0];", "reads global byte", 1},
    {"a generic address of what another block writes", "@%p1 st.u32 [%q0], 7; @%p2 ld.u32 %r2, [%q0];",
     "@%p1 st.u32 [%q0], 7; @%p2 ld.u32 %r2, [%q0+4];", "reads global byte", 1},
    {"a read beside atomics", "@%p1 atom.global.add.u32 %r2, [%q0], 1; @%p2 ld.global.u32 %r2, [%q0];",
     "atom.global.add.u32 %r2, [%q0], 1;", "which block (0, 0, 0) has changed by atomics", 1},
    {"a write beside atomics", "@!%p3 atom.global.add.u32 %r2, [%q0], 1; @%p3 st.global.u32 [%q0], 9;",
     "@!%p3 atom.global.add.u32 %r2, [%q0], 1; @%p3 st.global.u32 [%q0+4], 9;",
     "which several blocks have changed by atomics", 1},
    {"atomics beside a write", "@%p1 st.global.u32 [%q0], 9; @%p2 atom.global.add.u32 %r2, [%q0], 1;",
     "@%p1 st.global.u32 [%q0], 9; @%p1 atom.global.add.u32 %r2, [%q0], 1;", "changes by atomics", 1},
    {"atomics beside a read", "@%p1 ld.global.u32 %r2, [%q0]; @%p2 atom.global.add.u32 %r2, [%q0], 1;",
     "@%p1 ld.global.u32 %r2, [%q0]; @%p1 atom.global.add.u32 %r2, [%q0], 1;", "which block (0, 0, 0) has read", 1},
    {"cp.async of what another block writes",
     "@%p1 st.global.u32 [%q0+8], 9; mov.u32 %r2, s; @%p2 cp.async.cg.shared.global [%r2], [%q0], 16;",
     "@%p1 st.global.u32 [%q0+8], 9; mov.u32 %r2, s; @%p2 cp.async.cg.shared.global [%r2], [%q0+16], 16;",
     "reads global byte", 1},
};

std::string run_blocks(const char *body, uint64_t words)
{
    return ptx_run(std::string(".visible .entry k(.param .u64 a)\n{ .reg .pred %p<4>; .reg .b32 %r<8>; .reg .b64 "
                               "%q<2>; .shared .align 16 .b8 s[16];\n"
                               "ld.param.u64 %q0, [a]; mov.u32 %r1, %ctaid.x;\n"
                               "setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1; setp.eq.u32 %p3, %r1, 2;\n") +
                       body + "\nret; }\n",
                   3, 1, {words});
}

void each_race_between_blocks_is_found(void **)
{
    int wrong = 0;
    const uint32_t numbers[8] = {};
    const uint64_t words = ptx_memory(sizeof numbers);
    ptx_upload(words, numbers, sizeof numbers);
    for (const Case &c : races) {
        std::string good = run_blocks(c.good, words), bad = run_blocks(c.bad, words);
        if (!good.empty()) print_error("%s: the corrected kernel: %s\n", c.what, good.c_str()), ++wrong;
        if (bad.find(c.message) == std::string::npos || bad.find("race between blocks: ") == std::string::npos ||
            bad.find("bytes into allocation") == std::string::npos)
            print_error("%s: got '%s', want '%s'\n", c.what, bad.c_str(), c.message), ++wrong;
    }
    assert_int_equal(wrong, 0);
}

} // namespace

int main(void)
{
    setenv("VGPU_MAX_INSTRUCTIONS", "100000", 1); /* for the loop without end */
    setenv("VGPU_CHECK_GLOBAL", "1", 1);
    setenv("VGPU_SEED", "0", 1); /* messages name the block that came first */
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_check_finds_its_fault),
                                       cmocka_unit_test(the_thread_is_named),
                                       cmocka_unit_test(each_race_between_blocks_is_found)};
    return cmocka_run_group_tests(tests, nullptr, ptx_release);
}
