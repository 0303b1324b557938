/* Norms of rows.
 *
 *   layernorm     y = (x - mean) / sqrt(var + eps) * scale + shift, or * (1 + scale) + shift
 *   rmsnorm       y = x / sqrt(mean(x^2) + eps) * scale
 *   qk_norm_rope  rmsnorm of each head, then pairs (2j, 2j + 1) turn by (cos, sin) of their axis and position
 *
 * x: [n_rows, width] with strides, F32 or BF16. Layernorm and rmsnorm: one block of 256 threads a row, which reads the row
 * again for each pass (a row of 3072 stays in the first cache), 16 bytes a thread where bases and strides allow.
 * qk_norm_rope: one warp for each row and head, which holds it in registers, head_dim <= 512. All are bound by memory:
 * they move 2 x elements x size bytes. */
#include "cuda_math.cuh"

enum { THREADS = 256, HEAD_WARPS = 8, MAX_HEAD = 512 };

template <class T, int N> __global__ void __launch_bounds__(THREADS, 4) layernorm_kernel(layernorm_args a)
{
    __shared__ float slots[THREADS / 32];
    const int64_t row = blockIdx.x;
    const T *x = (const T *)a.x + row * a.ldx;
    T *y = (T *)a.y + row * a.ldy;
    const bool parity = a.parity && a.one_plus && sizeof(T) == 2;
    float v[N], sum = 0.0f, squares = 0.0f;
    for (int32_t at = threadIdx.x * N; at < a.width; at += THREADS * N) {
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) sum += v[i];
    }
    const float mean = block_sum<THREADS>(sum, slots) / (float)a.width;
    for (int32_t at = threadIdx.x * N; at < a.width; at += THREADS * N) {
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) squares = fmaf(v[i] - mean, v[i] - mean, squares);
    }
    const float inverse = 1.0f / sqrtf(block_sum<THREADS>(squares, slots) / (float)a.width + a.eps);
    for (int32_t at = threadIdx.x * N; at < a.width; at += THREADS * N) {
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float norm = round_if(parity, (v[i] - mean) * inverse);
            float scale = a.scale == NULL ? (a.one_plus ? 0.0f : 1.0f) : a.scale[at + i];
            const float shift = a.shift == NULL ? 0.0f : a.shift[at + i];
            if (a.one_plus) scale = round_if(parity, 1.0f + scale);
            v[i] = round_if(parity, norm * scale) + shift;
        }
        store<N>(y, at, v);
    }
}

template <class T, int N> __global__ void __launch_bounds__(THREADS, 4) rmsnorm_kernel(rmsnorm_args a)
{
    __shared__ float slots[THREADS / 32];
    const int64_t row = blockIdx.x;
    const T *x = (const T *)a.x + row * a.ldx;
    T *y = (T *)a.y + row * a.ldy;
    const bool parity = a.parity && sizeof(T) == 2;
    float v[N], squares = 0.0f;
    for (int32_t at = threadIdx.x * N; at < a.width; at += THREADS * N) {
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) squares = fmaf(v[i], v[i], squares);
    }
    const float inverse = 1.0f / sqrtf(block_sum<THREADS>(squares, slots) / (float)a.width + a.eps);
    for (int32_t at = threadIdx.x * N; at < a.width; at += THREADS * N) {
        load<N>(v, x, at);
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = round_if(parity, v[i] * inverse) * a.scale[at + i];
        store<N>(y, at, v);
    }
}

/* WIDE: a pair is one load and one store. */
template <class T, bool WIDE> __global__ void __launch_bounds__(HEAD_WARPS * 32, 4) qk_norm_rope_kernel(qk_norm_rope_args a)
{
    const int64_t item = (int64_t)blockIdx.x * HEAD_WARPS + threadIdx.x / 32;
    if (item >= (int64_t)a.n_rows * a.n_heads) return;
    const int lane = threadIdx.x % 32;
    const int64_t row = item / a.n_heads, head = item % a.n_heads;
    T *x = (T *)a.x + row * a.ld + head * a.head_dim;
    const bool parity = a.parity && sizeof(T) == 2;
    const int n_pairs = a.head_dim / 2;
    float v[MAX_HEAD / 64][2], squares = 0.0f;
#pragma unroll
    for (int k = 0; k < MAX_HEAD / 64; k++) {
        const int pair = lane + 32 * k;
        v[k][0] = v[k][1] = 0.0f;
        if (pair < n_pairs) {
            if (WIDE) load<2>(v[k], x, 2 * pair);
            else load<1>(v[k], x, 2 * pair), load<1>(v[k] + 1, x, 2 * pair + 1);
        }
        squares = fmaf(v[k][0], v[k][0], squares);
        squares = fmaf(v[k][1], v[k][1], squares);
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / (float)a.head_dim + a.eps);
#pragma unroll
    for (int k = 0; k < MAX_HEAD / 64; k++) {
        const int pair = lane + 32 * k;
        if (pair >= n_pairs) continue;
        const float *entry = NULL;
        int first = 0; /* pair of the axis; no dynamic index into the arguments, which would go through local memory */
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            const int n = a.n_pairs[axis];
            if (pair >= first && pair < first + n)
                entry = a.table + a.table_at[axis] + ((int64_t)a.pos[row * 3 + axis] * n + pair - first) * 2;
            first += n;
        }
        if (entry == NULL) continue; /* a channel that belongs to no axis stays */
        const float cosine = entry[0], sine = entry[1];
        const float even = round_if(parity, v[k][0] * inverse * a.scale[2 * pair]);
        const float odd = round_if(parity, v[k][1] * inverse * a.scale[2 * pair + 1]);
        const float turned[2] = {even * cosine - odd * sine, odd * cosine + even * sine};
        if (WIDE) store<2>(x, 2 * pair, turned);
        else store<1>(x, 2 * pair, turned), store<1>(x, 2 * pair + 1, turned + 1);
    }
}

/* Whether rows of x and y can be moved 16 bytes at once. */
static bool wide(const void *x, int64_t ldx, const void *y, int64_t ldy, int32_t width, dtype type)
{
    const int64_t bytes = (int64_t)dtype_bytes(type);
    return aligned_16(x, ldx * bytes) && aligned_16(y, ldy * bytes) && width * bytes % 16 == 0;
}

#define LAUNCH_ROWS(kernel)                                                                                            \
    do {                                                                                                               \
        const bool vec = wide(a->x, a->ldx, a->y, a->ldy, a->width, a->type);                                          \
        const unsigned int n = (unsigned int)a->n_rows;                                                                \
        if (a->type == DT_F32 && vec) kernel<float, 4><<<n, THREADS, 0, q->stream>>>(*a);                              \
        else if (a->type == DT_F32) kernel<float, 1><<<n, THREADS, 0, q->stream>>>(*a);                                \
        else if (vec) kernel<bf16, 8><<<n, THREADS, 0, q->stream>>>(*a);                                               \
        else kernel<bf16, 1><<<n, THREADS, 0, q->stream>>>(*a);                                                        \
    } while (0)

extern "C" status layernorm_cuda(cuda_queue *q, const layernorm_args *a)
{
    if (a->n_rows == 0) return ST_OK;
    LAUNCH_ROWS(layernorm_kernel);
    return cuda_status(cudaGetLastError(), "layernorm");
}

extern "C" status rmsnorm_cuda(cuda_queue *q, const rmsnorm_args *a)
{
    if (a->n_rows == 0) return ST_OK;
    LAUNCH_ROWS(rmsnorm_kernel);
    return cuda_status(cudaGetLastError(), "rmsnorm");
}

extern "C" status qk_norm_rope_cuda(cuda_queue *q, const qk_norm_rope_args *a)
{
    if (a->head_dim > MAX_HEAD || a->head_dim % 2 != 0)
        return err_set(ST_FAILED, "qk_norm_rope: head width %d, want an even number, at most %d", a->head_dim, MAX_HEAD);
    const int64_t n = ((int64_t)a->n_rows * a->n_heads + HEAD_WARPS - 1) / HEAD_WARPS;
    if (n == 0) return ST_OK;
    if (n > INT32_MAX) return err_set(ST_FAILED, "qk_norm_rope: %d rows of %d heads", a->n_rows, a->n_heads);
    const bool vec = (uintptr_t)a->x % (2 * dtype_bytes(a->type)) == 0 && a->ld % 2 == 0;
    void (*kernel)(qk_norm_rope_args) =
        a->type == DT_F32 ? (vec ? qk_norm_rope_kernel<float, true> : qk_norm_rope_kernel<float, false>)
                          : (vec ? qk_norm_rope_kernel<bf16, true> : qk_norm_rope_kernel<bf16, false>);
    kernel<<<(unsigned int)n, HEAD_WARPS * 32, 0, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "qk_norm_rope");
}
