/* ldmatrix and mma.sync. Products are exact in fp32 and are added to the fp32 accumulator one after the other in the
 * order of k, each with one rounding: what tensor cores do in spirit, not in the last bits. */
#include "shared_bytes.h"

namespace vgpu
{
namespace
{

using Row = __m128i;

#define EACH_K8 _Pragma("GCC ivdep") for (int k = 0; k < 8; ++k)

/* Matrix k of n: its eight rows of 16 bytes, at the addresses of lanes 8k to 8k + 7. */
inline void read_rows(Warp &w, const Instr &i, int k, const u64 *a, Row *rows)
{
    for (int r = 0; r < 8; ++r) {
        int lane = 8 * k + r;
        u32 at = shared_offset(w, i, lane, a[lane], 16, "reads");
        shared_read<unsigned __int128>(w, i, lane, at);
        rows[r] = _mm_loadu_si128(reinterpret_cast<const Row *>(w.block->shared + at));
    }
}

/* Halves of an 8 x 8 matrix, rows to columns. */
inline void transpose(Row *m)
{
    Row a[8], b[8];
    for (int k = 0; k < 4; ++k) {
        a[2 * k] = _mm_unpacklo_epi16(m[2 * k], m[2 * k + 1]);
        a[2 * k + 1] = _mm_unpackhi_epi16(m[2 * k], m[2 * k + 1]);
    }
    for (int k = 0; k < 2; ++k) {
        b[4 * k] = _mm_unpacklo_epi32(a[4 * k], a[4 * k + 2]);
        b[4 * k + 1] = _mm_unpackhi_epi32(a[4 * k], a[4 * k + 2]);
        b[4 * k + 2] = _mm_unpacklo_epi32(a[4 * k + 1], a[4 * k + 3]);
        b[4 * k + 3] = _mm_unpackhi_epi32(a[4 * k + 1], a[4 * k + 3]);
    }
    for (int k = 0; k < 4; ++k) {
        m[2 * k] = _mm_unpacklo_epi64(b[k], b[k + 4]);
        m[2 * k + 1] = _mm_unpackhi_epi64(b[k], b[k + 4]);
    }
}

/* r[0..n-1] destinations, r[n] address. */
template <bool Trans> void load_matrix(Warp &w, const Instr &i, u32)
{
    u64 a[LANES];
    s32 r = i.r[i.n];
    for (int l = 0; l < LANES; ++l) {
        u64 base = r == NO_REGISTER ? 0 : i.width[i.n] == 8 ? reg<u64>(w, r)[l] : reg<u32>(w, r)[l];
        a[l] = base + static_cast<u64>(i.imm);
        if (a[l] >> WINDOW_BITS == WINDOW_SHARED >> WINDOW_BITS) a[l] -= WINDOW_SHARED;
    }
    Row rows[4][8];
    for (int k = 0; k < i.n; ++k) {
        read_rows(w, i, k, a, rows[k]);
        if (Trans) transpose(rows[k]);
    }
    /* A lane's fragment is two neighbours of row lane / 4: together they are the matrix, row after row. */
    for (int k = 0; k < i.n; ++k)
        memcpy(w.r + i.r[k], rows[k], sizeof rows[k]);
}

/* d[16][8] += a[16][K] * b[K][8]; columns of b and d in the order 0 2 4 6 1 3 5 7, as the fragments hold them. */
template <int K> inline void multiply(const float (*a)[K], const float (*b)[8], float (*d)[8])
{
    for (int r = 0; r < 16; r += 4) {
        __m256 s0 = _mm256_loadu_ps(d[r]), s1 = _mm256_loadu_ps(d[r + 1]);
        __m256 s2 = _mm256_loadu_ps(d[r + 2]), s3 = _mm256_loadu_ps(d[r + 3]);
        for (int k = 0; k < K; ++k) {
            __m256 v = _mm256_loadu_ps(b[k]);
            s0 = _mm256_fmadd_ps(_mm256_broadcast_ss(&a[r][k]), v, s0);
            s1 = _mm256_fmadd_ps(_mm256_broadcast_ss(&a[r + 1][k]), v, s1);
            s2 = _mm256_fmadd_ps(_mm256_broadcast_ss(&a[r + 2][k]), v, s2);
            s3 = _mm256_fmadd_ps(_mm256_broadcast_ss(&a[r + 3][k]), v, s3);
        }
        _mm256_storeu_ps(d[r], s0);
        _mm256_storeu_ps(d[r + 1], s1);
        _mm256_storeu_ps(d[r + 2], s2);
        _mm256_storeu_ps(d[r + 3], s3);
    }
}

/* Accumulators: registers of (row g, column 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) for lane 4g + t. */
inline void take_sums(Warp &w, const s32 *r, float (*d)[8])
{
    for (int g = 0; g < 8; ++g)
        for (int k = 0; k < 4; ++k)
            memcpy(&d[g + (k & 2) * 4][(k & 1) * 4], reg<float>(w, r[k]) + 4 * g, 16);
}

inline void give_sums(Warp &w, const s32 *r, float (*d)[8])
{
    for (int g = 0; g < 8; ++g)
        for (int k = 0; k < 4; ++k)
            memcpy(reg<float>(w, r[k]) + 4 * g, &d[g + (k & 2) * 4][(k & 1) * 4], 16);
}

inline int column_slot(int n)
{
    return n / 2 + (n & 1) * 4;
}

/* 16-bit factors: register j of a holds rows 8 (j & 1) + lane / 4, k 8 (j >> 1) + 2 (lane % 4) and the next. */
template <float (*Wide)(u16), int K> void mma_half(Warp &w, const Instr &i, u32)
{
    constexpr int na = K / 4, nb = K / 8;
    alignas(32) float a[16][K], b[K][8], d[16][8], column[8][K];
    for (int j = 0; j < na; ++j) {
        const u16 *from = reg<u16>(w, i.r[4 + j]);
        for (int g = 0; g < 8; ++g)
            EACH_K8 a[g + 8 * (j & 1)][8 * (j >> 1) + k] = Wide(from[8 * g + k]);
    }
    for (int j = 0; j < nb; ++j) {
        const u16 *from = reg<u16>(w, i.r[4 + na + j]);
        for (int g = 0; g < 8; ++g)
            EACH_K8 column[column_slot(g)][8 * j + k] = Wide(from[8 * g + k]);
    }
    for (int k = 0; k < K; ++k)
        for (int n = 0; n < 8; ++n)
            b[k][n] = column[n][k];
    take_sums(w, i.r + 4 + na + nb, d);
    multiply<K>(a, b, d);
    give_sums(w, i.r, d);
}

/* tf32 m16n8k8: register j of a holds row lane / 4 + 8 (j & 1), k lane % 4 + 4 (j >> 1). The low 13 bits are ignored.
 */
void mma_tf32(Warp &w, const Instr &i, u32)
{
    alignas(32) float a[16][8], b[8][8], d[16][8];
    for (int j = 0; j < 4; ++j)
        for (int l = 0; l < LANES; ++l)
            a[l / 4 + 8 * (j & 1)][l % 4 + 4 * (j >> 1)] = float_of(reg<u32>(w, i.r[4 + j])[l] & ~0x1fffu);
    for (int j = 0; j < 2; ++j)
        for (int l = 0; l < LANES; ++l)
            b[l % 4 + 4 * j][column_slot(l / 4)] = float_of(reg<u32>(w, i.r[8 + j])[l] & ~0x1fffu);
    take_sums(w, i.r + 10, d);
    multiply<8>(a, b, d);
    give_sums(w, i.r, d);
}

} // namespace

namespace VGPU_ISA
{
extern const OpEntry matrix_ops[];
const OpEntry matrix_ops[] = {
    {"ldmatrix", load_matrix<false>},
    {"ldmatrix.trans", load_matrix<true>},
    {"mma.m16n8k16.bf16", mma_half<float_of_bf16, 16>},
    {"mma.m16n8k8.bf16", mma_half<float_of_bf16, 8>},
    {"mma.m16n8k16.f16", mma_half<float_of_f16, 16>},
    {"mma.m16n8k8.f16", mma_half<float_of_f16, 8>},
    {"mma.m16n8k8.tf32", mma_tf32},
    {nullptr, nullptr},
};
} // namespace VGPU_ISA
} // namespace vgpu
