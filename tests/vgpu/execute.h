/* The layers of execution: a warp between barriers, a block, and (launch.h) a grid. */
#ifndef VGPU_EXECUTE_H
#define VGPU_EXECUTE_H

#include <cstdlib>
#include <vector>
#include "launch.h"

namespace vgpu
{

struct Stopped {
}; /* thrown through the operations after a fault was reported */

/* Until the warp ends (true) or all its lanes wait at a barrier (false). */
bool warp_run(Warp &w, Program &p);
/* "PTX line 12: bar.sync 0", for messages. */
std::string warp_line(const Program &p, const Instr &i);

/* What a thread needs to run blocks of any launch; grows and is kept. */
struct Worker {
    std::vector<u8> registers, local, local_state, shared; /* shared: data, state, writer, reader */
    std::vector<Range> ranges;
    Warp warps[MAX_WARPS] = {};
    ~Worker()
    {
        for (Warp &w : warps)
            free(w.copies);
    }
};

/* What is the same for every block of a launch: constants, parameters, memory. */
void block_prepare(Worker &worker, Launch &l, Block &b);
void block_run(Worker &worker, Launch &l, Block &b, u64 index);
/* Forgets who wrote and read global memory: a launch begins that is to be checked (global_races.cpp). */
void global_races_begin();
/* A well-mixed function of a number, for everything that VGPU_SEED permutes. */
u64 seed_mix(u64 x);

} // namespace vgpu
#endif
