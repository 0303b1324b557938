/* Between the attention kernels and their table. State of all: [n_q, n_heads] max and sum, [n_q, n_heads, head_dim] out. */
#ifndef DYPE_ATTENTION_CUH
#define DYPE_ATTENTION_CUH

#include "mma.cuh"

status attention_f32_put(cuda_queue *q, const attention_args *a);
status attention_bf16_put(cuda_queue *q, const attention_args *a);      /* head widths 64 and 128 */
status attention_bf16_wide_put(cuda_queue *q, const attention_args *a); /* head width 512 */

/* Keys [first, first + n): the tile grid restarts at kv_first. */
struct key_tiles {
    int32_t n_first, n_all, n_kv;
    __host__ __device__ key_tiles(const attention_args &a)
    {
        n_kv = a.n_kv;
        n_first = a.kv_first > 0 && a.kv_first < a.n_kv ? a.kv_first : 0;
    }
    __device__ __forceinline__ int32_t count() const
    {
        return (n_first + KEY_TILE - 1) / KEY_TILE + (n_kv - n_first + KEY_TILE - 1) / KEY_TILE;
    }
    __device__ __forceinline__ void get(int32_t tile, int32_t *first, int32_t *n) const
    {
        const int32_t before = (n_first + KEY_TILE - 1) / KEY_TILE;
        const int32_t begin = tile < before ? tile * KEY_TILE : n_first + (tile - before) * KEY_TILE;
        const int32_t end = tile < before ? n_first : n_kv;
        *first = begin;
        *n = end - begin < KEY_TILE ? end - begin : KEY_TILE;
    }
};

/* 2^x within 2 units of the last place; 0 below the normal numbers, which saves the three instructions that exp2f has more.
 * -inf gives 0, NaN stays. */
__device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Where exponentials start from: 0 while every key so far is masked, so that nothing becomes inf - inf. */
__device__ __forceinline__ float base_of(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

#endif
