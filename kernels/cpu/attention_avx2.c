/* Attention with AVX2 and FMA: fp32 products, bf16 widened on copying. */
#include <immintrin.h>

#include "ops.h"

enum { LANES = 8, GROUP = 4, CHANNEL_BLOCK = 128 };
#define PACK 1

typedef __m256 vec;
typedef float unit;
typedef __m256 units;

static inline vec vec_load(const float *x) { return _mm256_loadu_ps(x); }
static inline void vec_store(float *x, vec a) { _mm256_storeu_ps(x, a); }
static inline vec vec_set1(float x) { return _mm256_set1_ps(x); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }

static inline vec vec_power2(vec t)
{
    __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(127 << 23)));
}

static inline vec vec_keep(vec p, vec x, vec limit)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), p);
}

static inline units units_load(const float *x) { return _mm256_loadu_ps(x); }
static inline void units_store(float *x, units a) { _mm256_storeu_ps(x, a); }
static inline units units_set1(unit x) { return _mm256_set1_ps(x); }
static inline vec units_dot(units a, units b, vec acc) { return _mm256_fmadd_ps(a, b, acc); }

static inline units weights_pack(const vec p[PACK], vec *sum)
{
    *sum = vec_add(*sum, p[0]);
    return p[0];
}

#include "cpu/attention_kernel.inc.h"

const attention_kernel attention_avx2 = {"avx2", PANEL, scratch_bytes, run};
