/* Attention on tensor cores for one head width, D = 512: the VAE's mid block.
 *
 *   m' = max(m, s of the tile)   f = e^(m - m')   p = e^(s - m')   l = l f + sum p   out = out f + p v
 *
 * 16 rows by 512 channels of fp32 output are 256 registers a thread: so two warps share 16 rows, each with half the keys
 * of s and half the channels of out. One block of 8 warps has 64 query rows, which stay in shared memory; K, then V, of a
 * tile of KEY_TILE keys pass in 8 chunks of 64 channels each through three cp.async stages, one barrier a chunk. p (bf16)
 * and the two halves of max and sum meet in shared memory. Pieces of 16 bytes lie at piece ^ (row % 8): no bank
 * conflicts. State and its order are those of attention_bf16.cu. grid (rows / 64, heads); shared memory 97 KiB, which fits
 * every GPU from 8.0 on. Per chunk and warp 16 mma. */
#include "attention.cuh"

enum {
    D = 512, WARPS = 8, THREADS = WARPS * 32, ROWS = 64, CHUNK = 64, N_CHUNKS = D / CHUNK, STAGES = 3,
    STAGE = KEY_TILE * CHUNK /* elements */
};

static constexpr float LOG2_E = 1.4426950408889634f;

/* Element offset of a piece in rows of `pieces` pieces. */
__device__ __forceinline__ int piece_at(int row, int pieces, int piece)
{
    return (row * pieces + (piece ^ (row & 7))) * 8;
}

/* Chunk g of the sequence K0 .. K7, V0 .. V7 of each tile. */
__device__ __forceinline__ void chunk_begin(bf16 *stages, const attention_args &a, const key_tiles &tiles, int head, int32_t g)
{
    const int32_t tile = g / (2 * N_CHUNKS), part = g % (2 * N_CHUNKS);
    const bool is_k = part < N_CHUNKS;
    int32_t first, n;
    tiles.get(tile, &first, &n);
    const int64_t ld = is_k ? a.ldk : a.ldv;
    const bf16 *from = (const bf16 *)(is_k ? a.k : a.v) + (int64_t)head * D + part % N_CHUNKS * CHUNK + first * ld;
    bf16 *to = stages + g % STAGES * STAGE;
#pragma unroll
    for (int j = 0; j < STAGE / 8 / THREADS; j++) {
        const int i = threadIdx.x + j * THREADS, row = i / (CHUNK / 8), piece = i % (CHUNK / 8);
        const bool there = row < n;
        copy_async_16(shared_at(to + piece_at(row, CHUNK / 8, piece)), from + (there ? row : 0) * ld + piece * 8, there);
    }
}

__global__ void __launch_bounds__(THREADS, 1) attention_bf16_wide_kernel(attention_args a)
{
    extern __shared__ __align__(128) bf16 shared[];
    __shared__ float max_of[2][ROWS], sum_of[2][ROWS]; /* of each half of the keys */
    bf16 *sq = shared, *stages = sq + ROWS * D, *sp = stages + STAGES * STAGE;
    const int lane = threadIdx.x % 32, group = threadIdx.x / 64 * 16, half = threadIdx.x / 32 % 2, head = blockIdx.y;
    const int32_t query0 = blockIdx.x * ROWS;
    const key_tiles tiles(a);
    const int32_t n_tiles = tiles.count(), n_steps = n_tiles * 2 * N_CHUNKS;
#pragma unroll 4
    for (int j = 0; j < ROWS * D / 8 / THREADS; j++) {
        const int i = threadIdx.x + j * THREADS, row = i / (D / 8), piece = i % (D / 8);
        uint4 eight = {0, 0, 0, 0};
        if (query0 + row < a.n_q)
            eight = *(const uint4 *)((const bf16 *)a.q + (int64_t)(query0 + row) * a.ldq + (int64_t)head * D + piece * 8);
        if (a.q_keep != NULL) {
            uint32_t *pairs = (uint32_t *)&eight;
#pragma unroll
            for (int c = 0; c < 4; c++) {
                if (a.q_keep[piece * 8 + 2 * c] == 0.0f) pairs[c] &= 0xffff0000u;
                if (a.q_keep[piece * 8 + 2 * c + 1] == 0.0f) pairs[c] &= 0xffffu;
            }
        }
        *(uint4 *)(sq + piece_at(row, D / 8, piece)) = eight;
    }

    float out[N_CHUNKS][4][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    int64_t at[2];
    bool there[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t query = query0 + group + lane / 4 + i * 8;
        there[i] = query < a.n_q;
        at[i] = (int64_t)query * a.n_heads + head;
        if (a.first || !there[i]) continue;
        max[i] = a.state_max[at[i]];
        sum[i] = a.state_sum[at[i]];
#pragma unroll
        for (int c = 0; c < N_CHUNKS; c++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                load<2>(out[c][j] + 2 * i, a.state_out + at[i] * D, c * CHUNK + half * 32 + j * 8 + lane % 4 * 2);
    }

    const float to_2 = a.scale * LOG2_E;
    const uint32_t q_at = shared_at(sq + piece_at(group + lane % 16, D / 8, lane / 16)); /* of this lane, for ldmatrix */
    const uint32_t p_at = shared_at(sp + piece_at(group + lane % 16, KEY_TILE / 8, lane / 16));
    const uint32_t k_at = shared_at(stages + piece_at(half * 32 + lane % 8 + lane / 16 * 8, CHUNK / 8, lane / 8 % 2));
    const uint32_t v_at = shared_at(stages + piece_at(lane % 16, CHUNK / 8, half * 4 + lane / 16));
#pragma unroll
    for (int g = 0; g < STAGES - 1; g++) {
        if (g < n_steps) chunk_begin(stages, a, tiles, head, g);
        copy_commit();
    }
    /* Chunk g is there for all, the one before it is no longer read by anybody, and its place is filled anew. */
    auto step = [&](int32_t g) -> uint32_t { /* its place among the stages, in bytes */
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (g + STAGES - 1 < n_steps) chunk_begin(stages, a, tiles, head, g + STAGES - 1);
        copy_commit();
        return (uint32_t)(g % STAGES * STAGE * (int)sizeof(bf16));
    };
    for (int32_t tile = 0; tile < n_tiles; tile++) {
        int32_t first, n;
        tiles.get(tile, &first, &n);
        float s[4][4] = {};
        for (int c = 0; c < N_CHUNKS; c++) {
            const uint32_t k = k_at + step(tile * 2 * N_CHUNKS + c);
#pragma unroll
            for (int i = 0; i < CHUNK / 16; i++) {
                uint32_t fq[4];
                load_matrices(fq, piece_after(q_at + c * CHUNK * (int)sizeof(bf16), i));
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    uint32_t b[4];
                    load_matrices(b, piece_after(k, i) + j * 16 * CHUNK * (int)sizeof(bf16));
                    mma_16_8_16(s[2 * j], fq, b);
                    mma_16_8_16(s[2 * j + 1], fq, b + 2);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (half * 32 + j * 8 + lane % 4 * 2 + i % 2 >= n) s[j][i] = -INFINITY;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < 4; j++) most = fmaxf(most, fmaxf(s[j][2 * i], s[j][2 * i + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            if (lane % 4 == 0) max_of[half][group + lane / 4 + i * 8] = most;
        }
        __syncthreads();
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = group + lane / 4 + i * 8;
            const float new_max = fmaxf(max[i], fmaxf(max_of[0][row], max_of[1][row]) * a.scale), base = base_of(new_max);
            factor[i] = power_of_2((max[i] - base) * LOG2_E);
            max[i] = new_max;
            float part = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float p0 = power_of_2(fmaf(s[j][2 * i], to_2, -base * LOG2_E));
                const float p1 = power_of_2(fmaf(s[j][2 * i + 1], to_2, -base * LOG2_E));
                part += p0 + p1;
                *(uint32_t *)(sp + piece_at(row, KEY_TILE / 8, half * 4 + j) + lane % 4 * 2) = pack_bf16(p0, p1);
            }
            part += __shfl_xor_sync(0xffffffffu, part, 1);
            part += __shfl_xor_sync(0xffffffffu, part, 2);
            if (lane % 4 == 0) sum_of[half][row] = part;
        }
        if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) { /* a new maximum: rare after some tiles */
#pragma unroll
            for (int c = 0; c < N_CHUNKS; c++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) out[c][j][i] *= factor[i / 2];
        }
        uint32_t p[KEY_TILE / 16][4];
#pragma unroll
        for (int c = 0; c < N_CHUNKS; c++) {
            const uint32_t v = v_at + step(tile * 2 * N_CHUNKS + N_CHUNKS + c);
            if (c == 0) { /* behind the barrier of the step: p and the sums are whole */
#pragma unroll
                for (int j = 0; j < KEY_TILE / 16; j++)
                    load_matrices(p[j], piece_after(p_at, j));
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int row = group + lane / 4 + i * 8;
                    sum[i] = fmaf(sum[i], factor[i], sum_of[0][row] + sum_of[1][row]);
                }
            }
#pragma unroll
            for (int j = 0; j < KEY_TILE / 16; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    uint32_t b[4];
                    load_matrices_transposed(b, piece_after(v, i) + j * 16 * CHUNK * (int)sizeof(bf16));
                    mma_16_8_16(out[c][2 * i], p[j], b);
                    mma_16_8_16(out[c][2 * i + 1], p[j], b + 2);
                }
        }
    }
    copy_wait<0>();

#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (!there[i]) continue;
        const int32_t query = query0 + group + lane / 4 + i * 8;
        if (!a.last && half == 0 && lane % 4 == 0) {
            a.state_max[at[i]] = max[i];
            a.state_sum[at[i]] = sum[i];
        }
        bf16 *y = (bf16 *)a.out + query * a.ldo + (int64_t)head * D;
        const float divisor = sum[i] == 0.0f ? 1.0f : sum[i]; /* a row that met no key is 0 */
#pragma unroll
        for (int c = 0; c < N_CHUNKS; c++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int channel = c * CHUNK + half * 32 + j * 8 + lane % 4 * 2;
                const float pair[2] = {out[c][j][2 * i] / divisor, out[c][j][2 * i + 1] / divisor};
                if (!a.last) store<2>(a.state_out + at[i] * D, channel, out[c][j] + 2 * i);
                else store<2>(y, channel, pair);
            }
    }
}

status attention_bf16_wide_put(cuda_queue *q, const attention_args *a)
{
    const int bytes = (ROWS * D + STAGES * STAGE + ROWS * KEY_TILE) * (int)sizeof(bf16);
    status st = cuda_status(cudaFuncSetAttribute(attention_bf16_wide_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 bytes), "attention");
    if (st != ST_OK) return st;
    const dim3 grid((unsigned int)((a->n_q + ROWS - 1) / ROWS), (unsigned int)a->n_heads);
    attention_bf16_wide_kernel<<<grid, THREADS, (size_t)bytes, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "attention");
}
