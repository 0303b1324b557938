/* The AVX-512 BF16 kernel, with every instruction replaced by portable C, so that it runs on any machine. */
#include "attention_checks.h"

#if __has_include(<simde/x86/avx512.h>)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#ifndef _mm512_cvtne2ps_pbh
/* SIMDe 0.7 has the products of BF16 but not the conversion: b goes to the low half, to nearest even. */
static __m512i two_to_bf16(__m512 a, __m512 b)
{
    float f[32];
    uint16_t h[32];
    _mm512_storeu_ps(f, b);
    _mm512_storeu_ps(f + 16, a);
    for (int i = 0; i < 32; i++) h[i] = f32_to_bf16(f[i]);
    return _mm512_loadu_si512(h);
}
#define _mm512_cvtne2ps_pbh(a, b) two_to_bf16(a, b)
#endif

#define attention_avx512bf16 attention_avx512bf16_emulated
#include "cpu/attention_avx512bf16.c"

const attention_kernel *const attention_simde_bf16 = &attention_avx512bf16_emulated;
#else
const attention_kernel *const attention_simde_bf16 = NULL;
#endif
