/* GroupNorm in three parts: fp64 sums of each image row, their total in row order, a factor and a summand per channel.
 *
 *   group_sums    sums[row][group] = {sum x, sum x^2}     x: [height, width, channels], F32 or BF16
 *   group_add     totals[group] += sums[row][group], one row after the other
 *   group_finish  mul = scale / sqrt(var + eps), add = shift - mean * mul
 *
 * group_sums: one block of 256 threads an image row. A thread takes N neighbouring channels of every so-manieth pixel;
 * then one thread per group adds its parts in order. So a row's bits depend on its width and channels alone. Bound by
 * memory where fp64 is not very slow (2 fused operations an element). */
#include "cuda_math.cuh"

enum { THREADS = 256, MAX_GROUPS = 128 };

template <class T, int N> __global__ void __launch_bounds__(THREADS, 4) group_sums_kernel(group_sums_args a)
{
    __shared__ double part[THREADS][2], total[MAX_GROUPS][2];
    const int64_t row = blockIdx.x;
    const T *x = (const T *)a.x + row * a.width * a.channels;
    const int n_vec = a.channels / N, group_vec = n_vec / a.groups; /* vectors of channels, and of a group */
    const int cols = n_vec < THREADS ? n_vec : THREADS, lanes = THREADS / cols;
    const int col = threadIdx.x % cols, lane = threadIdx.x / cols;
    const int g = threadIdx.x;
    static_assert(MAX_GROUPS <= THREADS, "a thread has one group at most");
    if (g < a.groups) total[g][0] = total[g][1] = 0.0;
    for (int first = 0; first < n_vec; first += cols) {
        double sum = 0.0, squares = 0.0;
        if (lane < lanes && first + col < n_vec)
            for (int64_t pixel = lane; pixel < a.width; pixel += lanes) {
                float v[N];
                load<N>(v, x, pixel * a.channels + (int64_t)(first + col) * N);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    sum += (double)v[i];
                    squares = fma((double)v[i], (double)v[i], squares);
                }
            }
        part[threadIdx.x][0] = sum;
        part[threadIdx.x][1] = squares;
        __syncthreads();
        if (g < a.groups) {
            const int begin = g * group_vec > first ? g * group_vec : first;
            const int end = (g + 1) * group_vec < first + cols ? (g + 1) * group_vec : first + cols;
            for (int v = begin; v < end; v++)
                for (int l = 0; l < lanes; l++) {
                    total[g][0] += part[l * cols + v - first][0];
                    total[g][1] += part[l * cols + v - first][1];
                }
        }
        __syncthreads();
    }
    if (g < a.groups) {
        a.sums[(row * a.groups + g) * 2] = total[g][0];
        a.sums[(row * a.groups + g) * 2 + 1] = total[g][1];
    }
}

__global__ void group_add_kernel(group_add_args a)
{
    const int64_t n = 2 * (int64_t)a.groups, i = threadIdx.x;
    if (i >= n) return;
    double total = a.first ? 0.0 : a.totals[i];
#pragma unroll 8
    for (int64_t y = 0; y < a.height; y++) total += a.sums[y * n + i];
    a.totals[i] = total;
}

__global__ void group_finish_kernel(group_finish_args a)
{
    const int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= a.channels) return;
    const int width = a.channels / a.groups, group = c / width;
    const double count = (double)a.n_pixels * (double)width;
    double mean = a.totals[group * 2] / count;
    const double variance = a.totals[group * 2 + 1] / count - mean * mean; /* fp64 loses nothing that fp32 data has */
    double inverse = 1.0 / sqrt((variance > 0.0 ? variance : variance <= 0.0 ? 0.0 : variance) + (double)a.eps);
    if (a.parity) {
        mean = (double)round_if(true, (float)mean);
        inverse = (double)round_if(true, (float)inverse);
    }
    const double mul = inverse * (double)a.scale[c];
    a.mul[c] = (float)mul;
    a.add[c] = (float)((double)a.shift[c] - mean * mul);
}

extern "C" status group_sums_cuda(cuda_queue *q, const group_sums_args *a)
{
    if (a->groups < 1 || a->groups > MAX_GROUPS || a->channels % a->groups != 0)
        return err_set(ST_FAILED, "group_sums: %d channels in %d groups, want at most %d equal ones", a->channels, a->groups,
                       MAX_GROUPS);
    if (a->height == 0) return ST_OK;
    const unsigned int n = (unsigned int)a->height;
    const bool by_4 = a->channels / a->groups % 4 == 0 && aligned_16(a->x, 0);
    if (a->type == DT_F32 && by_4) group_sums_kernel<float, 4><<<n, THREADS, 0, q->stream>>>(*a);
    else if (a->type == DT_F32) group_sums_kernel<float, 1><<<n, THREADS, 0, q->stream>>>(*a);
    else if (by_4) group_sums_kernel<bf16, 4><<<n, THREADS, 0, q->stream>>>(*a);
    else group_sums_kernel<bf16, 1><<<n, THREADS, 0, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "group_sums");
}

extern "C" status group_add_cuda(cuda_queue *q, const group_add_args *a)
{
    if (a->groups > MAX_GROUPS) return err_set(ST_FAILED, "group_add: %d groups, at most %d", a->groups, MAX_GROUPS);
    group_add_kernel<<<1, 2 * MAX_GROUPS, 0, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "group_add");
}

extern "C" status group_finish_cuda(cuda_queue *q, const group_finish_args *a)
{
    group_finish_kernel<<<(unsigned int)(a->channels + THREADS - 1) / THREADS, THREADS, 0, q->stream>>>(*a);
    return cuda_status(cudaGetLastError(), "group_finish");
}
