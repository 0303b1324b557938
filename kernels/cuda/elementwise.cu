/* Operations that look at one element at a time, and those that only move elements. Each is a functor with run<N>(at): N
 * elements from `at` on, N > 1 where all bases are aligned; one grid-stride loop serves all. Bound by memory. */
#include "cuda_math.cuh"

enum { THREADS = 256, WIDE = 8 };

template <int N, class F> __global__ void __launch_bounds__(THREADS, 4) each_kernel(F f, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * THREADS, first = (int64_t)blockIdx.x * THREADS + threadIdx.x;
#pragma unroll 1
    for (int64_t i = first; i < n / N; i += step) f.template run<N>(i * N);
    if (N > 1)
#pragma unroll 1
        for (int64_t i = n / N * N + first; i < n; i += step) f.template run<1>(i);
}

/* One element at a time. */
template <class F> static status each_one(cuda_queue *q, const F &f, int64_t n, const char *what)
{
    if (n == 0) return ST_OK;
    each_kernel<1><<<blocks_for(q, n, THREADS), THREADS, 0, q->stream>>>(f, n);
    return cuda_status(cudaGetLastError(), what);
}

template <class F> static status each(cuda_queue *q, const F &f, int64_t n, bool wide, const char *what)
{
    if (n == 0 || !wide) return each_one(q, f, n, what);
    each_kernel<WIDE><<<blocks_for(q, n / WIDE, THREADS), THREADS, 0, q->stream>>>(f, n);
    return cuda_status(cudaGetLastError(), what);
}

template <class T> struct silu_each {
    const T *x;
    T *y;
    template <int N> __device__ void run(int64_t at) const
    {
        float v[N];
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = silu(v[i]);
        store<N>(y, at, v);
    }
};

template <class T> struct add_each {
    const T *a, *b;
    T *y;
    template <int N> __device__ void run(int64_t at) const
    {
        float v[N], w[N];
        load<N>(v, a, at);
        load<N>(w, b, at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] += w[i];
        store<N>(y, at, v);
    }
};

/* transformers' NewGELUActivation in bf16: each operation is rounded; pow(x, 3) is two multiplications. */
static __device__ __forceinline__ float gelu_new(float x)
{
    const float cube = round_if(true, round_if(true, x * x) * x);
    const float inner = round_if(true, x + round_if(true, 0.044715f * cube));
    const float t = round_if(true, tanhf(round_if(true, 0.79788456f * inner)));
    return round_if(true, 0.5f * x * round_if(true, 1.0f + t)); /* x / 2 is exact */
}

template <class T> struct gated_gelu_each {
    const T *a, *b;
    T *y;
    bool parity;
    template <int N> __device__ void run(int64_t at) const
    {
        float v[N], w[N];
        load<N>(v, a, at);
        load<N>(w, b, at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = (parity && sizeof(T) == 2 ? gelu_new(v[i]) : gelu_tanh(v[i])) * w[i];
        store<N>(y, at, v);
    }
};

template <class X, class Y> struct convert_each {
    const X *x;
    Y *y;
    template <int N> __device__ void run(int64_t at) const
    {
        float v[N];
        load<N>(v, x, at);
        store<N>(y, at, v);
    }
};

template <class T> struct euler_each {
    float *latents;
    const T *v;
    float dt;
    bool parity;
    template <int N> __device__ void run(int64_t at) const
    {
        const bool rounds = parity && sizeof(T) == 2;
        float l[N], w[N];
        load<N>(l, latents, at);
        load<N>(w, v, at);
#pragma unroll
        for (int i = 0; i < N; i++) l[i] = round_if(rounds, l[i] + round_if(rounds, dt * w[i]));
        store<N>(latents, at, l);
    }
};

template <class T> struct to_u8_each {
    const T *x;
    uint8_t *y;
    bool parity;
    template <int N> __device__ void run(int64_t at) const
    {
        float v[N];
        load<N>(v, x, at);
        pack<uint8_t, N> out;
#pragma unroll
        for (int i = 0; i < N; i++) {
            float unit = round_if(parity && sizeof(T) == 2, v[i] * 0.5f + 0.5f);
            unit = unit > 0.0f ? unit : 0.0f; /* NaN becomes black */
            unit = unit < 1.0f ? unit : 1.0f;
            out.v[i] = (uint8_t)__float2int_rn(255.0f * unit);
        }
        *reinterpret_cast<pack<uint8_t, N> *>(y + at) = out;
    }
};

template <class T> struct gather_each {
    gather_rows_args a;
    template <int N> __device__ void run(int64_t at) const
    {
        const bool round = sizeof(T) == 2;
        const int64_t row = at / a.width, i = at % a.width;
        float sum = weight_at(a.table, a.table_type, round, (int64_t)a.ids[row] * a.width + i);
        if (a.add != NULL) sum += weight_at(a.add, a.add_type, round, at);
        ((T *)a.y)[at] = from_float<T>(sum);
    }
};

template <class T> struct unpack_each {
    latent_unpack_args a;
    bool parity;
    template <int N> __device__ void run(int64_t at) const
    {
        const int64_t c = at % a.channels, x = at / a.channels % a.width, y = at / a.channels / a.width;
        const int64_t token = y / 2 * (a.width / 2) + x / 2;
        const float z = a.packed[(token * a.channels + c) * 4 + y % 2 * 2 + x % 2];
        ((T *)a.z)[at] = from_float<T>(round_if(parity && sizeof(T) == 2, z / a.scaling) + a.shift);
    }
};

/* Words of B bytes of rows apart. */
template <class W> struct copy_each {
    copy_rows_args a;
    template <int N> __device__ void run(int64_t at) const
    {
        const int64_t n = a.row_bytes / (int64_t)sizeof(W), row = at / n, i = at % n;
        ((W *)((char *)a.y + row * a.ldy_bytes))[i] = ((const W *)((const char *)a.x + row * a.ldx_bytes))[i];
    }
};

extern "C" status silu_cuda(cuda_queue *q, const silu_args *a)
{
    const bool wide = aligned_16(a->x, 0) && aligned_16(a->y, 0);
    if (a->type == DT_F32) return each(q, silu_each<float>{(const float *)a->x, (float *)a->y}, a->n, wide, "silu");
    return each(q, silu_each<bf16>{(const bf16 *)a->x, (bf16 *)a->y}, a->n, wide, "silu");
}

extern "C" status add_cuda(cuda_queue *q, const add_args *a)
{
    const bool wide = aligned_16(a->a, 0) && aligned_16(a->b, 0) && aligned_16(a->y, 0);
    if (a->type == DT_F32)
        return each(q, add_each<float>{(const float *)a->a, (const float *)a->b, (float *)a->y}, a->n, wide, "add");
    return each(q, add_each<bf16>{(const bf16 *)a->a, (const bf16 *)a->b, (bf16 *)a->y}, a->n, wide, "add");
}

extern "C" status gated_gelu_cuda(cuda_queue *q, const gated_gelu_args *a)
{
    const bool wide = aligned_16(a->a, 0) && aligned_16(a->b, 0) && aligned_16(a->y, 0);
    if (a->type == DT_F32)
        return each(q, gated_gelu_each<float>{(const float *)a->a, (const float *)a->b, (float *)a->y, a->parity}, a->n,
                    wide, "gated_gelu");
    return each(q, gated_gelu_each<bf16>{(const bf16 *)a->a, (const bf16 *)a->b, (bf16 *)a->y, a->parity}, a->n, wide,
                "gated_gelu");
}

template <class X> static status convert_from(cuda_queue *q, const void *x, void *y, dtype y_type, int64_t n)
{
    const bool wide = aligned_16(x, 0) && aligned_16(y, 0);
    if (y_type == DT_F32)
        return each(q, convert_each<X, float>{(const X *)x, (float *)y}, n, wide, "convert");
    return each(q, convert_each<X, bf16>{(const X *)x, (bf16 *)y}, n, wide, "convert");
}

extern "C" status weights_convert(cuda_queue *q, const void *x, dtype x_type, void *y, dtype y_type, int64_t n)
{
    if (x_type == DT_F32) return convert_from<float>(q, x, y, y_type, n);
    if (x_type == DT_F16) return convert_from<__half>(q, x, y, y_type, n);
    return convert_from<bf16>(q, x, y, y_type, n);
}

extern "C" status convert_cuda(cuda_queue *q, const convert_args *a)
{
    return weights_convert(q, a->x, a->x_type, a->y, a->y_type, a->n);
}

extern "C" status euler_cuda(cuda_queue *q, const euler_args *a)
{
    const bool parity = a->parity && a->type == DT_BF16;
    const float dt = parity ? bf16_round(a->dt) : a->dt;
    const bool wide = aligned_16(a->latents, 0) && aligned_16(a->v, 0);
    if (a->type == DT_F32)
        return each(q, euler_each<float>{a->latents, (const float *)a->v, dt, parity}, a->n, wide, "euler");
    return each(q, euler_each<bf16>{a->latents, (const bf16 *)a->v, dt, parity}, a->n, wide, "euler");
}

extern "C" status to_u8_cuda(cuda_queue *q, const to_u8_args *a)
{
    const bool parity = a->parity && a->type == DT_BF16;
    const bool wide = aligned_16(a->x, 0) && aligned_16(a->y, 0);
    if (a->type == DT_F32) return each(q, to_u8_each<float>{(const float *)a->x, a->y, parity}, a->n, wide, "to_u8");
    return each(q, to_u8_each<bf16>{(const bf16 *)a->x, a->y, parity}, a->n, wide, "to_u8");
}

extern "C" status gather_rows_cuda(cuda_queue *q, const gather_rows_args *a)
{
    const int64_t n = (int64_t)a->n_rows * a->width;
    if (a->type == DT_F32) return each_one(q, gather_each<float>{*a}, n, "gather_rows");
    return each_one(q, gather_each<bf16>{*a}, n, "gather_rows");
}

extern "C" status latent_unpack_cuda(cuda_queue *q, const latent_unpack_args *a)
{
    const int64_t n = (int64_t)a->height * a->width * a->channels;
    const bool parity = a->parity && a->type == DT_BF16;
    if (a->type == DT_F32) return each_one(q, unpack_each<float>{*a, parity}, n, "latent_unpack");
    return each_one(q, unpack_each<bf16>{*a, parity}, n, "latent_unpack");
}

extern "C" status copy_rows_cuda(cuda_queue *q, const copy_rows_args *a)
{
    const uint64_t all = (uint64_t)(uintptr_t)a->x | (uint64_t)(uintptr_t)a->y | (uint64_t)a->ldx_bytes |
                         (uint64_t)a->ldy_bytes | (uint64_t)a->row_bytes;
    const int64_t bytes = a->row_bytes * a->n_rows;
    if (all % 16 == 0) return each_one(q, copy_each<uint4>{*a}, bytes / 16, "copy_rows");
    if (all % 4 == 0) return each_one(q, copy_each<uint32_t>{*a}, bytes / 4, "copy_rows");
    if (all % 2 == 0) return each_one(q, copy_each<uint16_t>{*a}, bytes / 2, "copy_rows");
    return each_one(q, copy_each<uint8_t>{*a}, bytes, "copy_rows");
}
