/* What the kernels share: elements of F32, BF16 and F16 arrays, alone or N at once, activations, launch shapes. */
#ifndef DYPE_CUDA_MATH_CUH
#define DYPE_CUDA_MATH_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda.h"

typedef __nv_bfloat16 bf16;

/* ---- elements */

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

/* One rounding of the bf16 reference, where it is asked for. */
__device__ __forceinline__ float round_if(bool parity, float x)
{
    return parity ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

template <class T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) pack {
    T v[N];
};

/* N elements from x[at] on; 16 bytes at once when N > 1. */
template <int N, class T> __device__ __forceinline__ void load(float out[N], const T *x, int64_t at)
{
    const pack<T, N> p = *reinterpret_cast<const pack<T, N> *>(x + at);
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_float(p.v[i]);
}

template <int N, class T> __device__ __forceinline__ void store(T *y, int64_t at, const float in[N])
{
    pack<T, N> p;
#pragma unroll
    for (int i = 0; i < N; i++) p.v[i] = from_float<T>(in[i]);
    *reinterpret_cast<pack<T, N> *>(y + at) = p;
}

/* Element i of a weight, as a product with bf16 activations (round) or fp32 ones uses it. */
__device__ __forceinline__ float weight_at(const void *w, dtype type, bool round, int64_t i)
{
    const float x = type == DT_F32 ? ((const float *)w)[i]
                    : type == DT_BF16 ? to_float(((const bf16 *)w)[i]) : to_float(((const __half *)w)[i]);
    return round_if(round, x);
}

/* ---- activations: fp32 within a few units of the last place */

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

/* x / 2 (1 + tanh u) = x / (1 + e^-2u), which loses nothing where tanh u is near -1. */
__device__ __forceinline__ float gelu_tanh(float x)
{
    const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x); /* sqrt(2 / pi) */
    return x / (1.0f + expf(-2.0f * u));
}

__device__ __forceinline__ float activate(activation act, float x, bool parity)
{
    switch (act) {
    case ACT_NONE: break;
    case ACT_SILU: return silu(x);
    case ACT_GELU_TANH: return gelu_tanh(x);
    case ACT_GELU: return 0.5f * x * erfcf(-0.7071067811865476f * x);
    case ACT_QUICK_GELU: /* three operations in the reference */
        if (parity) return x * round_if(true, sigmoid(round_if(true, 1.702f * x)));
        return x / (1.0f + expf(-1.702f * x));
    }
    return x;
}

/* ---- sums over a warp or a block, in a fixed order */

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

/* All threads get the sum. THREADS of the block; `slots`: shared, one float per warp; may be used again at once. */
template <int THREADS> __device__ __forceinline__ float block_sum(float x, float *slots)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++) sum += slots[w];
    __syncthreads();
    return sum;
}

/* ---- launch */

static inline bool aligned_16(const void *x, int64_t ld_bytes)
{
    return (((uintptr_t)x | (uint64_t)ld_bytes) & 15) == 0;
}

/* Blocks of a grid-stride loop over n items. */
static inline unsigned int blocks_for(const cuda_queue *q, int64_t n, int threads)
{
    const int64_t wanted = (n + threads - 1) / threads, most = (int64_t)q->n_multiprocessors * 16;
    return (unsigned int)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

#endif
