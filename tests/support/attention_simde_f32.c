/* The AVX-512 kernel, with every instruction replaced by portable C, so that it runs on any machine. */
#include "attention_checks.h"

#if __has_include(<simde/x86/avx512.h>)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define attention_avx512 attention_avx512_emulated
#include "cpu/attention_avx512.c"

const attention_kernel *const attention_simde_f32 = &attention_avx512_emulated;
#else
const attention_kernel *const attention_simde_f32 = NULL;
#endif
