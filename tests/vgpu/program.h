/* A kernel ready to run: instructions with register offsets, and what each launch must fill in. */
#ifndef VGPU_PROGRAM_H
#define VGPU_PROGRAM_H

#include <string>
#include <vector>
#include "ptx.h"
#include "warp.h"

namespace vgpu
{

struct ProgramConstant {
    s32 offset;
    u8 width;
    u64 value;
    std::string symbol; /* empty, or a module variable whose address (on the launch's device) is added */
};

/* Special registers, written once per warp; BLOCK_* change with the block. */
enum class Special : u8 {
    TID_X,
    TID_Y,
    TID_Z,
    NTID_X,
    NTID_Y,
    NTID_Z,
    NCTAID_X,
    NCTAID_Y,
    NCTAID_Z,
    CTAID_X,
    CTAID_Y,
    CTAID_Z,
    LANEID,
    WARPID,
    NWARPID,
    LANEMASK_EQ,
    LANEMASK_LT,
    LANEMASK_LE,
    LANEMASK_GT,
    LANEMASK_GE,
    SMID,
    NSMID,
    GRIDID,
    DYNAMIC_SMEM,
    TOTAL_SMEM,
};

struct ProgramSpecial {
    s32 offset;
    u8 width;
    Special what;
};

struct ProgramText {
    std::string text;
    unsigned line, id; /* line of the PTX text, number of the statement in the module */
    int source_file, source_line;
};

struct ProgramParam {
    u32 offset, n_bytes;
};

struct Program {
    std::string name, pretty; /* as in PTX, and demangled */
    std::vector<Instr> code;
    std::vector<ProgramText> texts; /* Instr::text */
    std::vector<ProgramConstant> constants;
    std::vector<ProgramSpecial> specials;
    std::vector<ProgramParam> params;
    std::vector<std::vector<s32>> tables;  /* of brx.idx */
    std::vector<std::pair<u32, u32>> gaps; /* [begin, end) of shared memory that belongs to no variable */
    u32 param_bytes = 0, register_bytes = 0;
    u32 shared_bytes = 0;    /* static, gaps included; dynamic memory follows */
    u32 shared_declared = 0; /* static, as the source asks */
    u32 local_bytes = 0;
    u32 n_ranges = 0;
    u32 max_threads = 0;      /* .maxntid, 0: 1024 */
    std::vector<u8> executed; /* per instruction, over the whole process */
};

struct ProgramRegister {
    s32 offset;
    u8 width;
};

/* registers.cpp: gives the decoder's registers places that they share. */
void program_place_registers(Program *program, const std::vector<ProgramRegister> &registers);

/* Throws PtxError: an unknown opcode is named with its line. */
void program_decode(Program *program, const PtxModule &module, const std::string &kernel);
/* The function for a key of the tables in ops_*.cpp, for this processor; NULL when there is none. */
Op op_find(const std::string &key);

} // namespace vgpu
#endif
