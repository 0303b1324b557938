/* What this processor and operating system run. */
#include "ops.h"

cpu_isa cpu_isa_best(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
        return ISA_PLAIN;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return ISA_AVX2;
    return __builtin_cpu_supports("avx512bf16") ? ISA_AVX512_BF16 : ISA_AVX512;
}

const char *cpu_isa_name(cpu_isa isa)
{
    static const char *const names[ISA_COUNT] = {
        [ISA_PLAIN] = "portable",
        [ISA_AVX2] = "avx2",
        [ISA_AVX512] = "avx512",
        [ISA_AVX512_BF16] = "avx512-bf16",
    };
    return names[isa];
}
