/* Attention without tensor cores: fp32 fused multiply-adds, any head width that is a multiple of 8, F32 or BF16 inputs.
 *
 *   m' = max(m, s of the tile)   f = e^(m - m')   p = e^(s - m')   l = l f + sum p   out = out f + p v
 *
 * One block of 256 threads has 16 query rows of one head, 16 threads a row; a tile is KEY_TILE keys. For s, K comes
 * through shared memory in chunks of 32 channels (rows of 36 floats: no bank conflicts); a thread has 4 keys. For p v,
 * V comes in chunks of 8 keys; a thread has 4 neighbouring channels in every 64. m, l and out stay in registers over all
 * tiles and are what travels between blocks of keys. q: [n_q, heads, D], k, v: [n_kv, heads, D] with strides; grid
 * (rows / 16, heads). Shared memory q, a chunk of K or V, and p: 17 KiB at D = 64, 52 KiB at D = 512. */
#include "attention.cuh"

enum { THREADS = 256, ROWS = 16, LANES = 16, CHANNELS = 32, K_ROW = 36, V_KEYS = 8 };

/* 8 elements, wide where the rows are aligned. */
template <class T, bool WIDE> __device__ __forceinline__ void load_8(float out[8], const T *x)
{
    if (WIDE) {
        load<16 / sizeof(T)>(out, x, 0);
        if (sizeof(T) == 4) load<16 / sizeof(T)>(out + 16 / sizeof(T) % 8, x, 16 / sizeof(T) % 8);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = to_float(x[i]);
    }
}

__device__ __forceinline__ float row_max(float x)
{
#pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}

__device__ __forceinline__ float row_sum(float x)
{
#pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

template <class T, int MAX_DIM, bool WIDE> __global__ void __launch_bounds__(THREADS, MAX_DIM == 512 ? 1 : 2) attention_f32_kernel(attention_args a)
{
    extern __shared__ __align__(16) float shared[];
    const int dim = a.head_dim, row = threadIdx.x / LANES, lane = threadIdx.x % LANES, head = blockIdx.y;
    float *q = shared, *chunk = q + ROWS * dim, *p = chunk + (KEY_TILE * K_ROW > V_KEYS * dim ? KEY_TILE * K_ROW : V_KEYS * dim);
    const int64_t query = (int64_t)blockIdx.x * ROWS + row, at = query * a.n_heads + head;
    const bool there = query < a.n_q;
    const T *k = (const T *)a.k + (int64_t)head * dim, *v = (const T *)a.v + (int64_t)head * dim;
    for (int c = lane; c < dim; c += LANES)
        q[row * dim + c] = there && (a.q_keep == NULL || a.q_keep[c] != 0.0f)
                               ? to_float(((const T *)a.q)[query * a.ldq + (int64_t)head * dim + c]) : 0.0f;
    float max = -INFINITY, sum = 0.0f, out[MAX_DIM / 64][4] = {};
    if (!a.first && there) {
        max = a.state_max[at];
        sum = a.state_sum[at];
#pragma unroll
        for (int j = 0; j < MAX_DIM / 64; j++)
            if (lane * 4 + 64 * j < dim) load<4>(out[j], a.state_out + at * dim, lane * 4 + 64 * j);
    }
    const key_tiles tiles(a);
    const int32_t n_tiles = tiles.count();
    for (int32_t tile = 0; tile < n_tiles; tile++) {
        int32_t first, n;
        tiles.get(tile, &first, &n);
        float s[4] = {};
        for (int c0 = 0; c0 < dim; c0 += CHANNELS) {
            const int key = threadIdx.x / 4, c = threadIdx.x % 4 * 8;
            float x[8] = {};
            __syncthreads();
            if (key < n && c0 + c < dim) load_8<T, WIDE>(x, k + (first + key) * a.ldk + c0 + c);
            store<4>(chunk, key * K_ROW + c, x);
            store<4>(chunk, key * K_ROW + c + 4, x + 4);
            __syncthreads();
            const int width = dim - c0 < CHANNELS ? dim - c0 : CHANNELS;
#pragma unroll 1
            for (int i = 0; i < width; i += 8) {
                float qv[8], kv[8];
                load<4>(qv, q, row * dim + c0 + i);
                load<4>(qv + 4, q, row * dim + c0 + i + 4);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    load<4>(kv, chunk, (lane + LANES * j) * K_ROW + i);
                    load<4>(kv + 4, chunk, (lane + LANES * j) * K_ROW + i + 4);
#pragma unroll
                    for (int e = 0; e < 8; e++) s[j] = fmaf(qv[e], kv[e], s[j]);
                }
            }
        }
        float tile_max = max;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t key = (int64_t)first + lane + LANES * j;
            s[j] *= a.scale;
            if (lane + LANES * j >= n || (a.causal && key > query)) s[j] = -INFINITY;
            else if (a.bias != NULL && there) s[j] += a.bias[head * a.bias_ld + key - query + a.n_q - 1];
            tile_max = fmaxf(tile_max, s[j]);
        }
        tile_max = row_max(tile_max);
        const float base = base_of(tile_max), factor = expf(max - base);
        float tile_sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[j] = expf(s[j] - base);
            tile_sum += s[j];
            p[row * KEY_TILE + lane + LANES * j] = s[j];
        }
        max = tile_max;
        sum = fmaf(sum, factor, row_sum(tile_sum));
#pragma unroll
        for (int j = 0; j < MAX_DIM / 64; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) out[j][e] *= factor;
        for (int k0 = 0; k0 < n; k0 += V_KEYS) {
            __syncthreads();
#pragma unroll
            for (int j = 0; j < (V_KEYS * MAX_DIM / 8 + THREADS - 1) / THREADS; j++) {
                const int i = threadIdx.x + j * THREADS, key = i / (dim / 8), c = i % (dim / 8) * 8;
                float x[8] = {};
                if (key >= V_KEYS) break;
                if (k0 + key < n) load_8<T, WIDE>(x, v + (first + k0 + key) * a.ldv + c);
                store<4>(chunk, key * dim + c, x);
                store<4>(chunk, key * dim + c + 4, x + 4);
            }
            __syncthreads();
#pragma unroll
            for (int key = 0; key < V_KEYS; key++) {
                const float weight = p[row * KEY_TILE + k0 + key];
#pragma unroll
                for (int j = 0; j < MAX_DIM / 64; j++) {
                    float x[4];
                    if (lane * 4 + 64 * j >= dim) continue;
                    load<4>(x, chunk, key * dim + lane * 4 + 64 * j);
#pragma unroll
                    for (int e = 0; e < 4; e++) out[j][e] = fmaf(weight, x[e], out[j][e]);
                }
            }
        }
    }
    if (!there) return;
    if (!a.last) {
        if (lane == 0) {
            a.state_max[at] = max;
            a.state_sum[at] = sum;
        }
#pragma unroll
        for (int j = 0; j < MAX_DIM / 64; j++)
            if (lane * 4 + 64 * j < dim) store<4>(a.state_out + at * dim, lane * 4 + 64 * j, out[j]);
        return;
    }
    T *y = (T *)a.out + query * a.ldo + (int64_t)head * dim;
#pragma unroll
    for (int j = 0; j < MAX_DIM / 64; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (lane * 4 + 64 * j < dim) /* a row that met no key is 0 */
                y[lane * 4 + 64 * j + e] = from_float<T>(sum == 0.0f ? 0.0f : out[j][e] / sum);
}

template <class T, bool WIDE> static status launch(cuda_queue *q, const attention_args *a)
{
    const int32_t dim = a->head_dim;
    const size_t floats = (size_t)(ROWS * dim + (KEY_TILE * K_ROW > V_KEYS * dim ? KEY_TILE * K_ROW : V_KEYS * dim) +
                                   ROWS * KEY_TILE);
    void (*kernel)(attention_args) = dim <= 64 ? attention_f32_kernel<T, 64, WIDE>
                                     : dim <= 128 ? attention_f32_kernel<T, 128, WIDE> : attention_f32_kernel<T, 512, WIDE>;
    const int bytes = (int)(floats * sizeof(float));
    status st = cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention");
    if (st != ST_OK) return st;
    const dim3 grid((unsigned int)((a->n_q + ROWS - 1) / ROWS), (unsigned int)a->n_heads);
    kernel<<<grid, THREADS, (size_t)bytes, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "attention");
}

status attention_f32_put(cuda_queue *q, const attention_args *a)
{
    const int64_t bytes = (int64_t)dtype_bytes(a->type);
    const bool wide = aligned_16(a->k, a->ldk * bytes) && aligned_16(a->v, a->ldv * bytes);
    if (a->type == DT_F32) return wide ? launch<float, true>(q, a) : launch<float, false>(q, a);
    return wide ? launch<bf16, true>(q, a) : launch<bf16, false>(q, a);
}
