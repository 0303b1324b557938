/* Attention on tensor cores, head widths D = 64 and 128, flash style.
 *
 *   m' = max(m, s of the tile)   f = e^(m - m')   p = e^(s - m')   l = l f + sum p   out = out f + p v
 *
 * One block of 8 warps has 256 query rows of one head, a warp 32 (M = 2), or 128 and 16 (M = 1) where those do not fill the
 * GPU, do not fit its shared memory, or there is a mask; a row's bits are the same. A tile is KEY_TILE keys. K and V of the
 * next tile come by cp.async while this one is multiplied (two stages). Rows lie in pieces of 16 bytes, piece c of row r at
 * c ^ (r % 8): neither ldmatrix nor cp.async meets a bank conflict. q stays in registers as mma fragments (M = 2: is loaded
 * again for each tile), and so do s, p (rounded to bf16 where it is multiplied with v) and out; m, l and out are fp32 and
 * travel between blocks of keys. The row sum is completed in every tile, so that a cut between tiles changes no bit. q: [n_q,
 * heads, D], k, v: [n_kv, heads, D] with strides of whole 16 bytes; grid (rows / (128 M), heads). Shared memory (128 M + 4 x
 * 64) x D x 2 bytes: 128 KiB at D = 128 and M = 2 (8.0, 9.0, 10.0), 96 KiB at M = 1, which fits every GPU from 8.0 on. Per
 * tile and warp M D mma and D / 2 ldmatrix of K and V: what that means is in docs/cost-model.md (tests/sass_report.py). */
#include "attention.cuh"

enum { WARPS = 8, THREADS = WARPS * 32 };

static constexpr float LOG2_E = 1.4426950408889634f;

static constexpr int shared_bytes(int d, int m)
{
    return (WARPS * 16 * m + 4 * KEY_TILE) * d * (int)sizeof(bf16);
}

template <int D> __device__ __forceinline__ int piece_at(int row, int piece)
{
    return (row * (D / 8) + (piece ^ (row & 7))) * 8;
}

/* N rows from `from` on, n of them there. */
template <int D, int N> __device__ __forceinline__ void rows_begin(bf16 *to, const bf16 *from, int64_t ld, int32_t n)
{
    static_assert(N * D / 8 % THREADS == 0, "every thread has as many pieces");
#pragma unroll
    for (int j = 0; j < N * D / 8 / THREADS; j++) {
        const int i = threadIdx.x + j * THREADS, row = i / (D / 8), piece = i % (D / 8);
        const bool there = row < n;
        copy_async_16(shared_at(to + piece_at<D>(row, piece)), from + (there ? row : 0) * ld + piece * 8, there);
    }
}

/* Two channels of q that count, as a mask. */
__device__ __forceinline__ uint32_t keep_mask(const float *keep, int channel)
{
    return (keep[channel] != 0.0f ? 0xffffu : 0u) | (keep[channel + 1] != 0.0f ? 0xffff0000u : 0u);
}

/* M: 16 rows each of a warp. */
template <int D, bool MASKED, int M> __global__ void __launch_bounds__(THREADS, 1)
    attention_bf16_kernel(attention_args a)
{
    constexpr int ROWS = WARPS * 16 * M;
    extern __shared__ __align__(128) bf16 shared[];
    bf16 *sq = shared, *sk = sq + ROWS * D, *sv = sk + 2 * KEY_TILE * D;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
    const int32_t query0 = blockIdx.x * ROWS;
    const bf16 *q = (const bf16 *)a.q + (int64_t)query0 * a.ldq + (int64_t)head * D;
    const bf16 *k = (const bf16 *)a.k + (int64_t)head * D, *v = (const bf16 *)a.v + (int64_t)head * D;
    const key_tiles tiles(a);
    const int32_t n_tiles = tiles.count();
    int32_t first, n;
    rows_begin<D, ROWS>(sq, q, a.ldq, a.n_q - query0);
    if (n_tiles > 0) {
        tiles.get(0, &first, &n);
        rows_begin<D, KEY_TILE>(sk, k + first * a.ldk, a.ldk, n);
        rows_begin<D, KEY_TILE>(sv, v + first * a.ldv, a.ldv, n);
    }
    copy_commit();

    const int32_t query1 = query0 + warp * 16 * M + lane / 4; /* this thread's first row; the others are 8 apart */
    float out[M][D / 8][4] = {}, max[2 * M], sum[2 * M];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int64_t at = (int64_t)(query1 + i * 8) * a.n_heads + head;
        max[i] = -INFINITY;
        sum[i] = 0.0f;
        if (MASKED || a.first || query1 + i * 8 >= a.n_q) continue; /* a mask wants one block */
        max[i] = a.state_max[at];
        sum[i] = a.state_sum[at];
#pragma unroll
        for (int c = 0; c < D / 8; c++) load<2>(out[i / 2][c] + i % 2 * 2, a.state_out + at * D, c * 8 + lane % 4 * 2);
    }

    uint32_t fq[M == 1 ? D / 16 : M][4];
    const float to_2 = a.scale * LOG2_E;
    const uint32_t q_at = shared_at(sq + piece_at<D>(warp * 16 * M + lane % 16, lane / 16)); /* of this lane, for ldmatrix */
    const uint32_t k_at = shared_at(sk + piece_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2));
    const uint32_t v_at = shared_at(sv + piece_at<D>(lane % 16, lane / 16));
    for (int32_t tile = 0; tile < n_tiles; tile++) {
        const int stage = tile & 1;
        tiles.get(tile, &first, &n);
        if (tile + 1 < n_tiles) {
            int32_t next, n_next;
            tiles.get(tile + 1, &next, &n_next);
            rows_begin<D, KEY_TILE>(sk + (stage ^ 1) * KEY_TILE * D, k + next * a.ldk, a.ldk, n_next);
            rows_begin<D, KEY_TILE>(sv + (stage ^ 1) * KEY_TILE * D, v + next * a.ldv, a.ldv, n_next);
            copy_commit();
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        if (M == 1 && tile == 0) {
#pragma unroll
            for (int c = 0; c < D / 16; c++) {
                load_matrices(fq[c], piece_after(q_at, c));
                if (a.q_keep != NULL) {
                    const uint32_t low = keep_mask(a.q_keep, c * 16 + lane % 4 * 2);
                    const uint32_t high = keep_mask(a.q_keep, c * 16 + 8 + lane % 4 * 2);
                    fq[c][0] &= low;
                    fq[c][1] &= low;
                    fq[c][2] &= high;
                    fq[c][3] &= high;
                }
            }
        }
        float s[M][KEY_TILE / 8][4] = {};
        const uint32_t stage_at = (uint32_t)(stage * KEY_TILE * D * (int)sizeof(bf16)), tk = k_at + stage_at, tv = v_at + stage_at;
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            if (M > 1)
#pragma unroll
                for (int m = 0; m < M; m++) load_matrices(fq[m], piece_after(q_at, c) + m * 16 * D * (int)sizeof(bf16));
#pragma unroll
            for (int j = 0; j < KEY_TILE / 16; j++) {
                uint32_t b[4];
                load_matrices(b, piece_after(tk, c) + j * 16 * D * (int)sizeof(bf16));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma_16_8_16(s[m][2 * j], fq[M == 1 ? c : m], b);
                    mma_16_8_16(s[m][2 * j + 1], fq[M == 1 ? c : m], b + 2);
                }
            }
        }

        if (MASKED) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int64_t query = query1 + m * 16 + i / 2 * 8;
                        const int32_t place = j * 8 + lane % 4 * 2 + i % 2;
                        const int64_t key = (int64_t)first + place;
                        s[m][j][i] *= a.scale;
                        if (place >= n || (a.causal && key > query)) s[m][j][i] = -INFINITY;
                        else if (a.bias != NULL && query < a.n_q)
                            s[m][j][i] += a.bias[head * a.bias_ld + key - query + a.n_q - 1];
                    }
        } else if (n < KEY_TILE) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int j = 0; j < KEY_TILE / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (j * 8 + lane % 4 * 2 + i % 2 >= n) s[m][j][i] = -INFINITY;
        }

        uint32_t p[M][KEY_TILE / 16][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            float base_2[2], factor[2], tile_sum[2] = {0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float most = -INFINITY;
#pragma unroll
                for (int j = 0; j < KEY_TILE / 8; j++) most = fmaxf(most, fmaxf(s[m][j][2 * i], s[m][j][2 * i + 1]));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                const float new_max = fmaxf(max[2 * m + i], MASKED ? most : most * a.scale), base = base_of(new_max);
                factor[i] = power_of_2((max[2 * m + i] - base) * LOG2_E);
                max[2 * m + i] = new_max;
                base_2[i] = base * LOG2_E;
            }
            if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) { /* a new maximum: rare after some tiles */
#pragma unroll
                for (int c = 0; c < D / 8; c++)
#pragma unroll
                    for (int i = 0; i < 4; i++) out[m][c][i] *= factor[i / 2];
                sum[2 * m] *= factor[0];
                sum[2 * m + 1] *= factor[1];
            }
#pragma unroll
            for (int j = 0; j < KEY_TILE / 8; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[m][j][i] = power_of_2(fmaf(s[m][j][i], MASKED ? LOG2_E : to_2, -base_2[i / 2]));
                    tile_sum[i / 2] += s[m][j][i];
                }
                p[m][j / 2][j % 2 * 2] = pack_bf16(s[m][j][0], s[m][j][1]);
                p[m][j / 2][j % 2 * 2 + 1] = pack_bf16(s[m][j][2], s[m][j][3]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                tile_sum[i] += __shfl_xor_sync(0xffffffffu, tile_sum[i], 1);
                tile_sum[i] += __shfl_xor_sync(0xffffffffu, tile_sum[i], 2);
                sum[2 * m + i] += tile_sum[i];
            }
        }
#pragma unroll
        for (int j = 0; j < KEY_TILE / 16; j++)
#pragma unroll
            for (int c = 0; c < D / 16; c++) {
                uint32_t b[4];
                load_matrices_transposed(b, piece_after(tv, c) + j * 16 * D * (int)sizeof(bf16));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma_16_8_16(out[m][2 * c], p[m][j], b);
                    mma_16_8_16(out[m][2 * c + 1], p[m][j], b + 2);
                }
            }
        __syncthreads(); /* before the next tile's successor overwrites this stage */
    }
    copy_wait<0>();

#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int32_t query = query1 + i * 8;
        const int64_t at = (int64_t)query * a.n_heads + head;
        const float (*row)[4] = out[i / 2];
        const int e = i % 2 * 2;
        if (query >= a.n_q) continue;
        if (!MASKED && !a.last) {
            if (lane % 4 == 0) {
                a.state_max[at] = max[i];
                a.state_sum[at] = sum[i];
            }
#pragma unroll
            for (int c = 0; c < D / 8; c++) store<2>(a.state_out + at * D, c * 8 + lane % 4 * 2, row[c] + e);
            continue;
        }
        bf16 *y = (bf16 *)a.out + query * a.ldo + (int64_t)head * D;
        const float divisor = sum[i] == 0.0f ? 1.0f : sum[i]; /* a row that met no key is 0 */
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
            const float pair[2] = {row[c][e] / divisor, row[c][e + 1] / divisor};
            store<2>(y, c * 8 + lane % 4 * 2, pair);
        }
    }
}

template <int D, bool MASKED, int M> static status launch(cuda_queue *q, const attention_args *a)
{
    constexpr int bytes = shared_bytes(D, M), rows = WARPS * 16 * M;
    status st = cuda_status(cudaFuncSetAttribute(attention_bf16_kernel<D, MASKED, M>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention");
    if (st != ST_OK) return st;
    const dim3 grid((unsigned int)((a->n_q + rows - 1) / rows), (unsigned int)a->n_heads);
    attention_bf16_kernel<D, MASKED, M><<<grid, THREADS, (size_t)bytes, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "attention");
}

/* Whether 32 rows a warp fit and fill the GPU. */
static bool wide_warps(const cuda_queue *q, const attention_args *a)
{
    return a->q_keep == NULL && shared_bytes(a->head_dim, 2) <= q->most_shared_bytes &&
           (int64_t)((a->n_q + 255) / 256) * a->n_heads >= q->n_multiprocessors;
}

status attention_bf16_put(cuda_queue *q, const attention_args *a)
{
    const bool masked = a->bias != NULL || a->causal, two = !masked && wide_warps(q, a);
    if (a->head_dim == 64)
        return masked ? launch<64, true, 1>(q, a) : two ? launch<64, false, 2>(q, a) : launch<64, false, 1>(q, a);
    return masked ? launch<128, true, 1>(q, a) : two ? launch<128, false, 2>(q, a) : launch<128, false, 1>(q, a);
}
