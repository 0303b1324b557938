/* Execution of one kernel launch: blocks over threads, warps of a block in turns from barrier to barrier. */
#ifndef VGPU_LAUNCH_H
#define VGPU_LAUNCH_H

#include <atomic>
#include <string>
#include <vector>
#include "program.h"

namespace vgpu
{

struct Launch {
    Program *program;
    int device;
    dim3 grid, block;
    u32 dynamic_shared;
    std::vector<u8> params;
    std::vector<u64> symbols; /* address of each ProgramConstant's symbol on the device, 0 for plain numbers */
    u64 number;               /* counts launches, for messages and permutations */
    std::atomic<bool> failed{false};
    std::atomic<u64> next_block{0}, n_instr{0};
};

/* Runs to the end on the calling thread and its helpers. False when a fault was reported (the device's error sticks).
 */
bool launch_run(Launch *launch);

} // namespace vgpu
#endif
