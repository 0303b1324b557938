/* What a decoded instruction, a warp and a block look like to the functions that execute them. Plain data only: the
 * files of operations are compiled once per instruction set and must not bring inline code of the C++ library along. */
#ifndef VGPU_WARP_H
#define VGPU_WARP_H

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

namespace vgpu
{

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

constexpr u32 ALL_LANES = 0xffffffffu;
enum : int { LANES = 32, MAX_OPERANDS = 16, MAX_WARPS = 32, NO_REGISTER = -1 };

/* Generic addresses: shared and local memory and parameters live in windows that no host address reaches. */
enum : u64 {
    WINDOW_BITS = 56,
    WINDOW_SHARED = 1ull << WINDOW_BITS,
    WINDOW_LOCAL = 2ull << WINDOW_BITS,
    WINDOW_PARAM = 3ull << WINDOW_BITS,
};

/* State of a byte of shared memory. Local memory and the shadow of global memory know the first two. */
enum : u8 { BYTE_UNWRITTEN = 0, BYTE_WRITTEN = 1, BYTE_PENDING = 2, BYTE_GAP = 3 };
/* Last writer and reader of a byte of shared memory since the last barrier: 0 none, warp + 1, or one of these. */
enum : u8 { WARP_MANY = 0xff, WARP_ATOMIC = 0xfe };

struct Warp;
struct Instr;
using Op = void (*)(Warp &w, const Instr &i, u32 mask);

enum class Kind : u8 {
    PLAIN,      /* op */
    COLLECTIVE, /* op, once all lanes of the mask operand (r[MASK_OPERAND], or all 32) are there */
    BRANCH,
    BRANCH_TABLE,
    EXIT,
    BARRIER,
    NOTHING,
};

enum : int { MASK_OPERAND = MAX_OPERANDS - 1 };
/* Modes of arithmetic: rounding as in the bits of <cfenv>, order rn rm rp rz. */
enum : u8 { MODE_ROUND = 3, MODE_FTZ = 4, MODE_SAT = 8 };

struct Instr {
    Op op = nullptr;
    Op inner = nullptr; /* what op calls when op sets modes or writes flags only */
    Kind kind = Kind::PLAIN;
    bool guard_negated = false;
    u8 mode = 0;
    u8 n = 1;                /* elements of a vector access; fragments of ldmatrix */
    u16 written = 0;         /* operands that are results, a bit each */
    s32 guard = NO_REGISTER; /* predicate */
    s32 r[MAX_OPERANDS];     /* byte offsets into the registers of the warp */
    u8 width[MAX_OPERANDS];  /* bytes per lane of that register; 0 for a predicate */
    s64 imm = 0, imm2 = 0;   /* address offset, logic table, ... : the operation says */
    s32 target = -1;
    s32 table = -1; /* branch targets, or index of the range last met by a memory access */
    u32 line = 0;   /* of the PTX text */
    u32 text = 0;   /* index into the program's texts */
};

/* A live allocation as an access sees it: data of address a at a + to_data, state at a + to_state (0: always written).
 */
struct Range {
    u64 begin, end;
    s64 to_data, to_state;
};

struct Program;
struct Launch;

struct Block {
    Launch *launch;
    dim3 id;
    int n_threads, n_warps;
    u8 *shared, *state, *writer, *reader; /* shared_bytes each */
    u32 shared_bytes;
    bool races; /* more than one warp: writers and readers are recorded */
    bool global_races; /* the same for global memory, by block (global_races.cpp) */
    const u8 *params;
    u32 param_bytes;
    Range *ranges; /* [n_memory_instructions], this worker's */
};

struct Group {
    s32 pc;
    u32 mask;
};

/* A cp.async that nobody has waited for: one record per instruction and group. */
struct AsyncCopy {
    u32 mask;
    u32 group; /* of each lane in mask: the number of groups it had committed when it issued the copy */
    u32 n_bytes;
    u32 line;
    u32 to[LANES];
    u64 from[LANES];
    s64 to_data[LANES], to_state[LANES];
    u8 n_source[LANES]; /* the rest is filled with zeros */
};

struct Warp {
    u8 *r; /* registers */
    Block *block;
    u32 index;
    u32 mask, alive;
    s32 pc, next_pc; /* next_pc: smallest of groups[], a large number when there is none */
    Group groups[LANES];
    int n_groups;
    Group waiting[LANES]; /* at a barrier, or at a collective operation whose lanes are not all there */
    int n_waiting;
    bool at_barrier, done;
    u32 barrier_id, barrier_threads; /* 0: all */
    u32 carry;                       /* condition code, a bit per lane */
    u8 *local, *local_state;         /* local_bytes per lane */
    u32 local_bytes;
    u64 n_instr;
    u32 committed[LANES]; /* cp.async groups */
    AsyncCopy *copies;
    int n_copies, max_copies;
};

template <class T> inline T *reg(Warp &w, s32 offset)
{
    return reinterpret_cast<T *>(w.r + offset);
}

/* Ends the execution of the launch: message with kernel, line, block, thread. lane -1: the whole warp. */
[[noreturn]] void warp_fault(Warp &w, const Instr &i, int lane, cudaError_t error, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* The allocation around address that the launch's device may touch; false when there is none. */
bool warp_find_range(Warp &w, u64 address, Range *range);
[[noreturn]] void warp_bad_address(Warp &w, const Instr &i, int lane, u64 address, unsigned n_bytes, const char *verb);
/* Where global_races is set: a fault when an access of another block makes the result uncertain; else it is recorded.
 * before and now: the bytes, of a write that has been done. */
void global_read(Warp &w, const Instr &i, int lane, u64 address, u32 n);
void global_write(Warp &w, const Instr &i, int lane, u64 address, u32 n, const u8 *before, const u8 *now);
void global_atomic(Warp &w, const Instr &i, int lane, u64 address, u32 n);
/* Records and performs asynchronous copies (async_copy.cpp). */
AsyncCopy *warp_new_copy(Warp &w);
void warp_print(Warp &w, const Instr &i, u32 mask);
u64 warp_clock(Warp &w);

struct OpEntry {
    const char *key;
    Op op;
};

} // namespace vgpu
#endif
