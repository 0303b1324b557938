/* Attention with AVX-512: fp32 products, bf16 widened on copying. */
#ifndef SIMDE_ENABLE_NATIVE_ALIASES /* tests bring functions that stand for the instructions */
#include <immintrin.h>
#endif

#include "ops.h"

enum { LANES = 16, GROUP = 8, CHANNEL_BLOCK = 128 };
#define PACK 1

typedef __m512 vec;
typedef float unit;
typedef __m512 units;

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

static inline units units_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void units_store(float *x, units a) { _mm512_storeu_ps(x, a); }
static inline units units_set1(unit x) { return _mm512_set1_ps(x); }
static inline vec units_dot(units a, units b, vec acc) { return _mm512_fmadd_ps(a, b, acc); }

static inline units weights_pack(const vec p[PACK], vec *sum)
{
    *sum = vec_add(*sum, p[0]);
    return p[0];
}

#include "cpu/attention_kernel.inc.h"

const attention_kernel attention_avx512 = {"avx512", PANEL, scratch_bytes, run};
