/* y = residual + conv(x') + b on channels-last rows, stride 1, kernel 3 or 1; x' = silu(x * mul + add), read through
 * nearest x2 when asked, zero (or the other edge's column) outside the image.
 *
 *   y[p][n] = sum over taps t, channels c of x'[p + t][c] * w[n][c][t]
 *
 * An implicit matrix product: pixels by output channels, summed over channels in chunks and, in a chunk, over taps. x:
 * [height, width, c_in] (or halves), y: [height, width, c_out]; rows -1 and height are lent. Weights are packed into
 * scratch first as [chunk][tap][c_out][c_in of the chunk] (bf16) or [chunk][tap][c_in of the chunk][c_out] (fp32), padded
 * with zeros. A block keeps the input of its tile and its halo, normalised once, and weights in shared memory:
 *   bf16  8 x 16 pixels by 64 channels, chunks of 32; 8 warps, each 2 rows of pixels by 32 channels, mma.sync m16n8k16. A
 *         stage is one row of taps: its weights, and before a chunk's first stage the chunk's input, come by cp.async while
 *         the stage before is multiplied (two buffers of each). A thread normalises the input that it copied itself. Rows
 *         of 80 bytes keep ldmatrix free of bank conflicts. 58 KiB, two blocks on a multiprocessor of 8.0.
 *   fp32  8 x 8 pixels by 64 channels, chunks of 16; a thread has 4 pixels by 4 channels, plain fused multiply-adds.
 * The order of a pixel's sum is that of chunks and taps wherever its tile lies: strips of any height give the same bits. */
#include "mma.cuh"

enum {
    THREADS = 256, COUT = 64, MAX_TAPS = 9, TILE_H = 8,
    TILE_W_BF16 = 16, CHUNK_BF16 = 32, ROW_BF16 = 40, /* elements from one row of a chunk to the next */
    TILE_W_F32 = 8, CHUNK_F32 = 16
};

static __host__ __device__ __forceinline__ int32_t pieces(int32_t n, int32_t of)
{
    return (n + of - 1) / of;
}

/* ---- weights */

/* To [chunk][tap][c_out padded][CHUNK_BF16]. */
__global__ void __launch_bounds__(THREADS, 4) pack_bf16_kernel(conv_args a, bf16 *to, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * THREADS;
    const int32_t taps = a.kernel * a.kernel, n_out = pieces(a.c_out, COUT) * COUT;
#pragma unroll 1
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        const int32_t c = (int32_t)(i % CHUNK_BF16), out = (int32_t)(i / CHUNK_BF16 % n_out);
        const int32_t tap = (int32_t)(i / CHUNK_BF16 / n_out % taps);
        const int32_t in = (int32_t)(i / CHUNK_BF16 / n_out / taps) * CHUNK_BF16 + c;
        float w = 0.0f;
        if (in < a.c_in && out < a.c_out)
            w = weight_at(a.w.data, a.w.type, true, ((int64_t)out * a.c_in + in) * taps + tap);
        to[i] = from_float<bf16>(w);
    }
}

/* To [chunk][tap][CHUNK_F32][c_out padded]. */
__global__ void __launch_bounds__(THREADS, 4) pack_f32_kernel(conv_args a, float *to, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * THREADS;
    const int32_t taps = a.kernel * a.kernel, n_out = pieces(a.c_out, COUT) * COUT;
#pragma unroll 1
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        const int32_t out = (int32_t)(i % n_out), c = (int32_t)(i / n_out % CHUNK_F32);
        const int32_t tap = (int32_t)(i / n_out / CHUNK_F32 % taps);
        const int32_t in = (int32_t)(i / n_out / CHUNK_F32 / taps) * CHUNK_F32 + c;
        to[i] = in < a.c_in && out < a.c_out
                    ? weight_at(a.w.data, a.w.type, false, ((int64_t)out * a.c_in + in) * taps + tap) : 0.0f;
    }
}

/* ---- input */

/* Where the pixel at output coordinates (row, col) lies, or NULL outside the image. */
template <class T> __device__ __forceinline__ const T *pixel_at(const conv_args &a, int64_t row, int64_t col)
{
    if (a.wrap) col = col < 0 ? col + a.width : col >= a.width ? col - a.width : col;
    if (col < 0 || col >= a.width || row < -1 || row > a.height) return NULL;
    const void *x = row < 0 ? a.x_above : row >= a.height ? a.x_below : a.x;
    if (x == NULL) return NULL;
    const int64_t source_row = row < 0 || row >= a.height ? 0 : a.upsample ? row / 2 : row;
    const int64_t source_width = a.upsample ? a.width / 2 : a.width, source_col = a.upsample ? col / 2 : col;
    return (const T *)x + (source_row * source_width + source_col) * a.c_in;
}

template <class T> __device__ __forceinline__ float prepare(const conv_args &a, float x, int32_t c)
{
    if (a.norm_mul != NULL) x = x * a.norm_mul[c] + a.norm_add[c];
    if (a.silu) x = silu(round_if(a.parity && sizeof(T) == 2, x));
    return x;
}

/* ---- output */

/* X: the activations' type. */
template <class X> __device__ __forceinline__ float bias_of(const conv_args &a, int32_t out)
{
    return a.w.bias != NULL && out < a.c_out ? weight_at(a.w.bias, a.w.bias_type, sizeof(X) == 2, out) : 0.0f;
}

/* N neighbouring channels of one pixel; N = 2 only where c_out is even. */
template <class X, class Y, int N> __device__ __forceinline__ void finish(const conv_args &a, int64_t row, int64_t col,
                                                                          int32_t out, const float product[N],
                                                                          const float bias[N])
{
    if (row >= a.height || col >= a.width || out >= a.c_out) return;
    const bool parity = a.parity && sizeof(X) == 2;
    const int64_t at = (row * a.width + col) * a.c_out + out;
    float y[N], residual[N] = {};
    if (a.residual != NULL) load<N>(residual, (const Y *)a.residual, at);
#pragma unroll
    for (int i = 0; i < N; i++) y[i] = round_if(parity, round_if(parity, product[i]) + bias[i]) + residual[i];
    store<N>((Y *)a.y, at, y);
}

/* ---- products */

/* A thread's share of a tile's input: pieces of 8 channels, of the same pixels in every chunk. */
enum { PIECES = ((TILE_H + 2) * (TILE_W_BF16 + 2) * 4 + THREADS - 1) / THREADS };

__device__ __forceinline__ int piece_at(int i)
{
    return (threadIdx.x + i * THREADS) / 4 * ROW_BF16 + threadIdx.x % 4 * 8;
}

/* By cp.async, as it is. pixels: NULL outside the image. */
__device__ __forceinline__ void input_begin(const conv_args &a, bf16 *to, const bf16 *const pixels[PIECES], int n_pieces, int chunk)
{
    const int c = chunk * CHUNK_BF16 + threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        if ((int)threadIdx.x + i * THREADS >= n_pieces) break;
        const bool there = pixels[i] != NULL && c < a.c_in;
        copy_async_16(shared_at(to + piece_at(i)), there ? pixels[i] + c : (const bf16 *)a.x, there);
    }
}

/* Where channels are no multiple of 8: at once, normalised; row, col: of the tile's halo. */
__device__ __forceinline__ void input_at_once(const conv_args &a, bf16 *to, int64_t row, int64_t col, int halo_w, int n_pieces,
                                              int chunk)
{
    const int c = chunk * CHUNK_BF16 + threadIdx.x % 4 * 8;
#pragma unroll 1
    for (int i = 0; (int)threadIdx.x + i * THREADS < n_pieces; i++) {
        const int pixel = (threadIdx.x + i * THREADS) / 4;
        const bf16 *x = pixel_at<bf16>(a, row + pixel / halo_w, col + pixel % halo_w);
        float v[8] = {};
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (x != NULL && c + j < a.c_in) v[j] = prepare<bf16>(a, to_float(x[c + j]), c + j);
        store<8>(to, piece_at(i), v);
    }
}

/* What has come as it is, is normalised in place, after copy_wait by the thread that copied it. */
__device__ __forceinline__ void input_end(const conv_args &a, bf16 *input, const bf16 *const pixels[PIECES], int chunk)
{
    const int c = chunk * CHUNK_BF16 + threadIdx.x % 4 * 8;
    if (c >= a.c_in || (a.norm_mul == NULL && !a.silu)) return;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        float v[8];
        if (pixels[i] == NULL) continue;
        load<8>(v, input, piece_at(i));
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = prepare<bf16>(a, v[j], c + j);
        store<8>(input, piece_at(i), v);
    }
}

/* A row of taps: [tap][COUT][CHUNK_BF16]; from: its first. */
__device__ __forceinline__ void weights_begin(bf16 *to, const bf16 *from, int kernel, int n_out)
{
#pragma unroll 1
    for (int tap = 0; tap < kernel; tap++) { /* 16 bytes a thread: COUT rows of 4 pieces */
        const int n = threadIdx.x / 4, part = threadIdx.x % 4;
        copy_async_16(shared_at(to + (tap * COUT + n) * ROW_BF16 + part * 8),
                      from + ((int64_t)tap * n_out + n) * CHUNK_BF16 + part * 8, true);
    }
}

template <class Y, bool WIDE> __global__ void __launch_bounds__(THREADS, 2)
    conv_bf16_kernel(conv_args a, const bf16 *weights, int32_t n_across)
{
    extern __shared__ __align__(16) bf16 shared[];
    const int reach = a.kernel / 2, halo_w = TILE_W_BF16 + 2 * reach, n_halo = (TILE_H + 2 * reach) * halo_w;
    const int n_chunks = pieces(a.c_in, CHUNK_BF16), n_out = pieces(a.c_out, COUT) * COUT;
    bf16 *inputs = shared, *ws = shared + 2 * n_halo * ROW_BF16; /* two of each */
    const int64_t row = (int64_t)(blockIdx.x / n_across) * TILE_H, col = (int64_t)(blockIdx.x % n_across) * TILE_W_BF16;
    const int out = blockIdx.y * COUT, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_row = warp / 2 * 2, first_out = warp % 2 * 32; /* of the warp */
    const int64_t row_of_taps = (int64_t)a.kernel * n_out * CHUNK_BF16;
    const bf16 *from = weights + (int64_t)out * CHUNK_BF16; /* of the stage that comes */
    const bf16 *pixels[PIECES]; /* read where WIDE */
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const int pixel = (threadIdx.x + i * THREADS) / 4;
        pixels[i] = pixel < n_halo ? pixel_at<bf16>(a, row + pixel / halo_w - reach, col + pixel % halo_w - reach) : NULL;
    }
    float sum[2][4][4] = {};
    if constexpr (WIDE) input_begin(a, inputs, pixels, n_halo * 4, 0);
    else input_at_once(a, inputs, row - reach, col - reach, halo_w, n_halo * 4, 0);
    weights_begin(ws, from, a.kernel, n_out);
    copy_commit();
    int stage = 0;
    for (int chunk = 0; chunk < n_chunks; chunk++) {
        bf16 *input = inputs + chunk % 2 * n_halo * ROW_BF16;
        for (int ky = 0; ky < a.kernel; ky++) {
            const bf16 *w = ws + stage * a.kernel * COUT * ROW_BF16;
            stage ^= 1;
            copy_wait<0>();
            if (WIDE && ky == 0) input_end(a, input, pixels, chunk);
            __syncthreads(); /* the stage is complete, and nobody reads the one before */
            from += row_of_taps;
            if (ky + 1 < a.kernel || chunk + 1 < n_chunks)
                weights_begin(ws + stage * a.kernel * COUT * ROW_BF16, from, a.kernel, n_out);
            if (ky + 1 == a.kernel && chunk + 1 < n_chunks) {
                bf16 *next = inputs + (chunk + 1) % 2 * n_halo * ROW_BF16;
                if constexpr (WIDE) input_begin(a, next, pixels, n_halo * 4, chunk + 1);
                else input_at_once(a, next, row - reach, col - reach, halo_w, n_halo * 4, chunk + 1);
            }
            copy_commit();
            for (int kx = 0; kx < a.kernel; kx++) {
#pragma unroll
                for (int k = 0; k < CHUNK_BF16 / 16; k++) {
                    uint32_t x[2][4], b[2][4];
#pragma unroll
                    for (int m = 0; m < 2; m++)
                        load_matrices(x[m], shared_at(input + ((first_row + m + ky) * halo_w + lane % 16 + kx) * ROW_BF16 +
                                                      k * 16 + lane / 16 * 8));
#pragma unroll
                    for (int n = 0; n < 2; n++)
                        load_matrices(b[n], shared_at(w + (kx * COUT + first_out + n * 16 + lane % 8 + lane / 16 * 8) * ROW_BF16 +
                                                      k * 16 + lane / 8 % 2 * 8));
#pragma unroll
                    for (int m = 0; m < 2; m++)
#pragma unroll
                        for (int n = 0; n < 4; n++) mma_16_8_16(sum[m][n], x[m], b[n / 2] + n % 2 * 2);
                }
            }
        }
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const int channel = out + first_out + n * 8 + lane % 4 * 2;
        const float bias[2] = {bias_of<bf16>(a, channel), bias_of<bf16>(a, channel + 1)};
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int64_t y = row + first_row + m, x = col + lane / 4 + i * 8;
                const float *two = sum[m][n] + 2 * i;
                if (a.c_out % 2 == 0) finish<bf16, Y, 2>(a, y, x, channel, two, bias);
                else finish<bf16, Y, 1>(a, y, x, channel, two, bias), finish<bf16, Y, 1>(a, y, x, channel + 1, two + 1, bias + 1);
            }
    }
}

__global__ void __launch_bounds__(THREADS, 2) conv_f32_kernel(conv_args a, const float *weights, int32_t n_across)
{
    extern __shared__ __align__(16) float shared_f32[];
    const int reach = a.kernel / 2, halo_w = TILE_W_F32 + 2 * reach, n_halo = (TILE_H + 2 * reach) * halo_w;
    const int taps = a.kernel * a.kernel, n_chunks = pieces(a.c_in, CHUNK_F32), n_out = pieces(a.c_out, COUT) * COUT;
    float *w = shared_f32, *input = shared_f32 + taps * CHUNK_F32 * COUT; /* input: [channel][pixel] */
    const int64_t row = (int64_t)(blockIdx.x / n_across) * TILE_H, col = (int64_t)(blockIdx.x % n_across) * TILE_W_F32;
    const int out = blockIdx.y * COUT, mine = threadIdx.x / 16, mine_out = threadIdx.x % 16 * 4;
    const int y = mine / 2, x = mine % 2 * 4; /* 4 pixels side by side */
    float sum[4][4] = {};
    for (int chunk = 0; chunk < n_chunks; chunk++) {
        const float *from = weights + (int64_t)chunk * taps * CHUNK_F32 * n_out + out;
#pragma unroll 1
        for (int tap = 0; tap < taps; tap++) { /* 16 bytes a thread */
            const int i = tap * CHUNK_F32 * COUT / 4 + threadIdx.x;
            float v[4];
            load<4>(v, from, (int64_t)(i / (COUT / 4)) * n_out + i % (COUT / 4) * 4);
            store<4>(w, i * 4, v);
        }
#pragma unroll 1
        for (int i = threadIdx.x; i < n_halo * CHUNK_F32; i += THREADS) {
            const int pixel = i / CHUNK_F32, c = i % CHUNK_F32, in = chunk * CHUNK_F32 + c;
            const float *at = pixel_at<float>(a, row + pixel / halo_w - reach, col + pixel % halo_w - reach);
            input[c * n_halo + pixel] = at != NULL && in < a.c_in ? prepare<float>(a, at[in], in) : 0.0f;
        }
        __syncthreads();
        for (int tap = 0; tap < taps; tap++) {
            const float *pixels = input + (y + tap / a.kernel) * halo_w + x + tap % a.kernel;
#pragma unroll 4
            for (int c = 0; c < CHUNK_F32; c++) {
                float b[4];
                load<4>(b, w, (tap * CHUNK_F32 + c) * COUT + mine_out);
#pragma unroll
                for (int p = 0; p < 4; p++) {
                    const float v = pixels[c * n_halo + p];
#pragma unroll
                    for (int n = 0; n < 4; n++) sum[p][n] = fmaf(v, b[n], sum[p][n]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
        const float bias = bias_of<float>(a, out + mine_out + n);
#pragma unroll
        for (int p = 0; p < 4; p++) finish<float, float, 1>(a, row + y, col + x + p, out + mine_out + n, sum[p] + n, &bias);
    }
}

/* ---- launch */

static status launch_bf16(cuda_queue *q, const conv_args *a, const bf16 *weights, dim3 grid, int32_t n_across, size_t bytes)
{
    const bool wide = a->c_in % 8 == 0 && aligned_16(a->x, 0) && aligned_16(a->x_above, 0) && aligned_16(a->x_below, 0);
    void (*kernel)(conv_args, const bf16 *, int32_t) =
        a->y_type == DT_F32 ? (wide ? conv_bf16_kernel<float, true> : conv_bf16_kernel<float, false>)
                            : (wide ? conv_bf16_kernel<bf16, true> : conv_bf16_kernel<bf16, false>);
    status st = cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "conv");
    if (st != ST_OK) return st;
    kernel<<<grid, THREADS, bytes, q->stream>>>(*a, weights, n_across);
    return cuda_status(cudaGetLastError(), "conv");
}

extern "C" status conv_cuda(cuda_queue *q, const conv_args *a)
{
    if (a->height == 0 || a->width == 0 || a->c_out == 0) return ST_OK;
    if (a->kernel != 1 && a->kernel != 3) return err_set(ST_FAILED, "conv: kernel %d, want 1 or 3", a->kernel);
    const bool is_bf16 = a->type == DT_BF16;
    const int32_t taps = a->kernel * a->kernel, chunk = is_bf16 ? CHUNK_BF16 : CHUNK_F32;
    const int32_t tile_w = is_bf16 ? TILE_W_BF16 : TILE_W_F32, reach = a->kernel / 2;
    const int32_t n_across = pieces(a->width, tile_w), n_down = pieces(a->height, TILE_H);
    const int64_t n_weights = (int64_t)pieces(a->c_in, chunk) * chunk * taps * pieces(a->c_out, COUT) * COUT;
    const size_t n_halo = (size_t)((TILE_H + 2 * reach) * (tile_w + 2 * reach));
    if ((int64_t)n_across * n_down > INT32_MAX)
        return err_set(ST_FAILED, "conv: %d by %d pixels are too many for one call", a->height, a->width);
    const dim3 grid((unsigned int)(n_across * n_down), (unsigned int)pieces(a->c_out, COUT));
    void *packed = NULL;
    status st = cuda_scratch(q, (size_t)n_weights * dtype_bytes(a->type), &packed);
    if (st != ST_OK) return st;
    const unsigned int n_blocks = blocks_for(q, n_weights, THREADS);
    if (is_bf16) {
        pack_bf16_kernel<<<n_blocks, THREADS, 0, q->stream>>>(*a, (bf16 *)packed, n_weights);
        st = cuda_status(cudaGetLastError(), "conv");
        if (st != ST_OK) return st;
        return launch_bf16(q, a, (const bf16 *)packed, grid, n_across,
                           2 * (n_halo + (size_t)a->kernel * COUT) * ROW_BF16 * sizeof(bf16));
    }
    const size_t bytes = (n_halo + (size_t)taps * COUT) * CHUNK_F32 * sizeof(float);
    pack_f32_kernel<<<n_blocks, THREADS, 0, q->stream>>>(*a, (float *)packed, n_weights);
    st = cuda_status(cudaGetLastError(), "conv");
    if (st == ST_OK)
        st = cuda_status(cudaFuncSetAttribute(conv_f32_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                         "conv");
    if (st != ST_OK) return st;
    conv_f32_kernel<<<grid, THREADS, bytes, q->stream>>>(*a, (const float *)packed, n_across);
    return cuda_status(cudaGetLastError(), "conv");
}
