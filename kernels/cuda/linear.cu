/* y = act(x W^T + b), or y = y + gate * (x W^T + b).
 *
 * The product is cuBLASLt's (products.c). Where its epilogue is the same arithmetic (bias and gelu_tanh on the fp32 sum,
 * one rounding) the call is all there is. Else (gate, other activations, the reference's roundings, fp32 output of bf16
 * with a bias) the product goes into scratch in fp32, a run of rows at a time that fits a large second cache, and
 * linear_end_kernel does the rest. Weights of another type are converted into scratch at each use: no second copy is
 * kept. x: [n_rows, n_in], w: [n_out, n_in], y: [n_rows, n_out]. linear_end: 4 columns a thread, 256 threads, blocks over
 * columns and rows; 2 to 8 bytes of y and 4 of the product an element. */
#include "cuda_math.cuh"

enum { THREADS = 256 };
static const int64_t PRODUCT_BYTES = (int64_t)24 << 20; /* of fp32 products at once */

/* N neighbouring columns a thread; blocks in y take rows in turn. */
template <class Y, int N> __global__ void __launch_bounds__(THREADS, 4)
    linear_end_kernel(linear_args a, const float *product, int64_t first_row, int32_t n_rows)
{
    const int32_t col = (int32_t)(blockIdx.x * THREADS + threadIdx.x) * N;
    const bool parity = a.parity && a.type == DT_BF16;
    if (col >= a.n_out) return;
    float bias[N] = {}, gate[N] = {}, p[N], y[N] = {};
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (a.w.bias != NULL) bias[i] = weight_at(a.w.bias, a.w.bias_type, a.type == DT_BF16, col + i);
        if (a.gate != NULL) gate[i] = a.gate[col + i];
    }
    for (int32_t row = blockIdx.y; row < n_rows; row += gridDim.y) {
        Y *to = (Y *)a.y + (first_row + row) * a.ldy;
        load<N>(p, product, (int64_t)row * a.n_out + col);
        if (a.gate != NULL) load<N>(y, to, col);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float sum = round_if(parity, p[i] + bias[i]);
            const float result = a.gate != NULL ? y[i] + round_if(parity, gate[i] * sum) : activate(a.act, sum, parity);
            p[i] = round_if(parity, result);
        }
        store<N>(to, col, p);
    }
}

template <class Y> static status linear_end(cuda_queue *q, const linear_args *a, const float *product, int64_t first_row,
                                            int32_t n_rows)
{
    const bool wide = a->n_out % 4 == 0 && a->ldy % 4 == 0 && aligned_16(a->y, 0);
    const int32_t cols = wide ? 4 * THREADS : THREADS;
    const dim3 grid((unsigned int)((a->n_out + cols - 1) / cols), (unsigned int)(n_rows < 4096 ? n_rows : 4096));
    if (wide) linear_end_kernel<Y, 4><<<grid, THREADS, 0, q->stream>>>(*a, product, first_row, n_rows);
    else linear_end_kernel<Y, 1><<<grid, THREADS, 0, q->stream>>>(*a, product, first_row, n_rows);
    return cuda_status(cudaGetLastError(), "linear");
}

/* Whether cuBLASLt's epilogue does the same as linear_end. */
static bool fuses(const linear_args *a)
{
    if (a->gate != NULL) return false;
    if (a->type != a->y_type && (a->w.bias != NULL || a->parity)) return false; /* no rounding between sum and fp32 */
    if (a->act == ACT_NONE) return true;
    return a->act == ACT_GELU_TANH && a->w.bias != NULL && !(a->parity && a->type == DT_BF16);
}

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

extern "C" status linear_cuda(cuda_queue *q, const linear_args *a)
{
    status st = ST_OK;
    const size_t element = dtype_bytes(a->type);
    const bool fused = fuses(a), convert = a->w.type != a->type;
    const bool convert_bias = fused && a->w.bias != NULL && a->w.bias_type != a->type;
    const int64_t n_weights = (int64_t)a->n_in * a->n_out;
    if (a->n_rows == 0 || a->n_out == 0) return ST_OK;
    int64_t run_rows = a->n_rows;
    if (!fused && run_rows * a->n_out * (int64_t)sizeof(float) > PRODUCT_BYTES)
        run_rows = PRODUCT_BYTES / ((int64_t)sizeof(float) * a->n_out) / ROW_TILE * ROW_TILE;
    if (run_rows < ROW_TILE) run_rows = a->n_rows < ROW_TILE ? a->n_rows : ROW_TILE;

    const size_t bias_at = convert ? padded((size_t)n_weights * element) : 0;
    const size_t product_at = bias_at + (convert_bias ? padded((size_t)a->n_out * element) : 0);
    const size_t bytes = product_at + (fused ? 0 : (size_t)run_rows * (size_t)a->n_out * sizeof(float));
    void *memory = NULL;
    cuda_product p = {.x = a->x, .w = a->w.data, .bias = NULL, .d = a->y, .ldx = a->ldx, .ldd = a->ldy, .n_rows = a->n_rows,
                      .n_in = a->n_in, .n_out = a->n_out, .type = a->type, .d_type = a->y_type, .act = ACT_NONE};
    if (bytes > 0) st = cuda_scratch(q, bytes, &memory);
    if (st == ST_OK && convert) {
        st = weights_convert(q, a->w.data, a->w.type, memory, a->type, n_weights);
        p.w = memory;
    }
    if (fused) {
        p.bias = a->w.bias;
        p.act = a->act;
        if (st == ST_OK && convert_bias) {
            p.bias = (char *)memory + bias_at;
            st = weights_convert(q, a->w.bias, a->w.bias_type, (char *)memory + bias_at, a->type, a->n_out);
        }
        return st != ST_OK ? st : cuda_product_put(q, &p);
    }
    p.d = (char *)memory + product_at;
    p.ldd = a->n_out;
    p.d_type = DT_F32;
    for (int64_t row = 0; row < a->n_rows && st == ST_OK; row += run_rows) {
        p.x = (const char *)a->x + (size_t)(row * a->ldx) * element;
        p.n_rows = (int32_t)(a->n_rows - row < run_rows ? a->n_rows - row : run_rows);
        st = cuda_product_put(q, &p);
        if (st == ST_OK)
            st = a->y_type == DT_F32 ? linear_end<float>(q, a, (const float *)p.d, row, p.n_rows)
                                     : linear_end<bf16>(q, a, (const float *)p.d, row, p.n_rows);
    }
    return st;
}
