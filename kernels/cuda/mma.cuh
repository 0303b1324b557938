/* Tensor core instructions of compute capability 8.0, and what feeds them. */
#ifndef DYPE_MMA_CUH
#define DYPE_MMA_CUH

#include "cuda_math.cuh"

__device__ __forceinline__ uint32_t shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes from global to shared memory; zeros when not `there`. */
__device__ __forceinline__ void copy_async_16(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}

__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;\n");
}

/* Until at most N of this thread's groups are under way. */
template <int N> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N));
}

/* Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void load_matrices(uint32_t r[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t r[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

/* Of a row whose pieces of 16 bytes lie at piece ^ (row % 8), in whole 128 bytes: the address of piece p + 2 c from that of
 * piece p < 2. One exclusive or for each c % 4; the rest is an offset that the instruction holds. */
__device__ __forceinline__ uint32_t piece_after(uint32_t at, int c)
{
    return (at ^ (uint32_t)(c % 4 * 32)) + (uint32_t)(c / 4 * 128);
}

/* d += a b: [16, 16] by [16, 8], bf16, fp32 sums. Lane l holds d at rows l / 4 and l / 4 + 8, columns l % 4 * 2 + {0, 1}. */
__device__ __forceinline__ void mma_16_8_16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Two values as neighbouring bf16, `low` first in memory. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

#endif
