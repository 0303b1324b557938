/* Attention with AVX-512 and its BF16 dot products: pairs of channels, or of keys, are multiplied in bf16 and added in
 * fp32. The weights are rounded to bf16 for the second product, and their sum is that of the rounded ones, so that the
 * errors cancel where values are alike. */
#ifndef SIMDE_ENABLE_NATIVE_ALIASES /* tests bring functions that stand for the instructions */
#include <immintrin.h>
#endif

#include "ops.h"

enum { LANES = 16, GROUP = 8, CHANNEL_BLOCK = 128 };
#define PACK 2

typedef __m512 vec;
typedef uint32_t unit;
typedef __m512i units;

static inline vec vec_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void vec_store(float *x, vec a) { _mm512_storeu_ps(x, a); }
static inline vec vec_set1(float x) { return _mm512_set1_ps(x); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }

static inline vec vec_power2(vec t)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(127 << 23)));
}

static inline vec vec_keep(vec p, vec x, vec limit)
{
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), _mm512_setzero_ps());
}

static inline units units_load(const void *x) { return _mm512_load_si512(x); }
static inline void units_store(void *x, units a) { _mm512_store_si512(x, a); }
static inline units units_set1(unit x) { return _mm512_set1_epi32((int32_t)x); }
static inline vec units_dot(units a, units b, vec acc) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

static inline units weights_pack(const vec p[PACK], vec *sum)
{
    /* 16 weights of the first key, 16 of the second; then one of each in turn. */
    const __m512i in_turn =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    units u = _mm512_permutexvar_epi16(in_turn, (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]));
    *sum = vec_add(*sum, _mm512_castsi512_ps(_mm512_slli_epi32(u, 16)));
    *sum = vec_add(*sum, _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int32_t)0xffff0000u))));
    return u;
}

#include "cpu/attention_kernel.inc.h"

const attention_kernel attention_avx512bf16 = {"avx512bf16", PANEL, scratch_bytes, run};
