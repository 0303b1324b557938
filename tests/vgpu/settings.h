/* What the environment may choose, read once. docs/virtual-gpu.md says the same in words. */
#ifndef VGPU_SETTINGS_H
#define VGPU_SETTINGS_H

#include <cstdint>
#include <string>

namespace vgpu
{

enum class OnError { STICKY, ABORT };

struct Settings {
    int n_devices;             /* VGPU_DEVICES */
    int major, minor;          /* VGPU_CC, compute capability */
    uint64_t memory_bytes;     /* VGPU_MEMORY, per device, K M G allowed */
    uint64_t seed;             /* VGPU_SEED, 0: plain order */
    int n_threads;             /* VGPU_THREADS */
    OnError on_error;          /* VGPU_ON_ERROR */
    int exit_code;             /* VGPU_EXIT_CODE, of a process with faults or leaks that would have ended with 0 */
    bool leaks;                /* VGPU_LEAKS */
    bool eager;                /* VGPU_EAGER: work is done when it is put on a stream */
    uint64_t max_instructions; /* VGPU_MAX_INSTRUCTIONS of one warp */
    std::string coverage;      /* VGPU_COVERAGE, a file to append to; empty: none */
    bool check_global;         /* VGPU_CHECK_GLOBAL: races in global memory between the blocks of a launch */
    bool profile;              /* VGPU_PROFILE: instructions and time per kernel at the end */
};

const Settings &settings();

} // namespace vgpu
#endif
