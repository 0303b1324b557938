#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sched.h>

namespace vgpu
{
namespace
{

uint64_t number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    if (!s || !*s) return otherwise;
    char *end;
    uint64_t v = strtoull(s, &end, 0);
    switch (*end) {
    case 'K':
        v <<= 10, ++end;
        break;
    case 'M':
        v <<= 20, ++end;
        break;
    case 'G':
        v <<= 30, ++end;
        break;
    default:
        break;
    }
    if (*end) {
        fprintf(stderr, "vgpu: %s: got '%s', want a number\n", name, s);
        exit(2);
    }
    return v;
}

Settings read()
{
    Settings s = {};
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    s.n_devices = static_cast<int>(number("VGPU_DEVICES", 2));
    if (s.n_devices > 16) s.n_devices = 16;
    s.major = 8;
    s.minor = 0;
    if (const char *cc = getenv("VGPU_CC")) sscanf(cc, "%d.%d", &s.major, &s.minor);
    s.memory_bytes = number("VGPU_MEMORY", 16ull << 30);
    s.seed = number("VGPU_SEED", 0);
    s.n_threads = static_cast<int>(number("VGPU_THREADS", static_cast<uint64_t>(cores > 8 ? 8 : cores)));
    if (s.n_threads < 1) s.n_threads = 1;
    if (s.n_threads > 64) s.n_threads = 64;
    const char *on_error = getenv("VGPU_ON_ERROR");
    s.on_error = on_error && !strcmp(on_error, "abort") ? OnError::ABORT : OnError::STICKY;
    s.exit_code = static_cast<int>(number("VGPU_EXIT_CODE", 99));
    s.leaks = number("VGPU_LEAKS", 1) != 0;
    s.eager = number("VGPU_EAGER", 0) != 0;
    s.max_instructions = number("VGPU_MAX_INSTRUCTIONS", 1ull << 36);
    if (const char *coverage = getenv("VGPU_COVERAGE")) s.coverage = coverage;
    s.check_global = number("VGPU_CHECK_GLOBAL", 0) != 0;
    s.profile = number("VGPU_PROFILE", 0) != 0;
    return s;
}

} // namespace

const Settings &settings()
{
    static const Settings *s = new Settings(read()); /* lives to the very end of the process */
    return *s;
}

} // namespace vgpu
