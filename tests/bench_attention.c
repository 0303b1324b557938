/* Speed of the attention kernels on one thread: GFLOP/s (4 S^2 d per head) and share of the peak of fused
 * multiply-adds, which is measured in the same run, before and after each row. Then what a cut over ranks costs in the
 * kernel alone: seconds of all parts together against those of the whole. Usage: bench_attention [S [S of the cut]]. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cpu/attention.h"
#include "kernel_context.h"

/* The thread's own time: other load on the machine does not count. */
static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { CHAINS = 12, PEAK_STEPS = 4000000 };

__attribute__((target("avx2,fma"))) static double peak_avx2(void)
{
    __m256 acc[CHAINS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_set1_ps((float)i);
    double start = now_s();
    for (int n = 0; n < PEAK_STEPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
    }
    double seconds = now_s() - start;
    for (int i = 0; i < CHAINS; i++) a = _mm256_add_ps(a, acc[i]);
    volatile float keep = _mm256_cvtss_f32(a);
    (void)keep;
    return 2.0 * 8 * CHAINS * PEAK_STEPS / seconds * 1e-9;
}

__attribute__((target("avx512f"))) static double peak_avx512(void)
{
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_set1_ps((float)i);
    double start = now_s();
    for (int n = 0; n < PEAK_STEPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
    }
    double seconds = now_s() - start;
    for (int i = 0; i < CHAINS; i++) a = _mm512_add_ps(a, acc[i]);
    volatile float keep = _mm512_cvtss_f32(a);
    (void)keep;
    return 2.0 * 16 * CHAINS * PEAK_STEPS / seconds * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Random queries, keys and values of all heads, and room for the output and a state. */
typedef struct problem {
    attention_args a;
    char          *x;
    float         *state;
} problem;

static problem problem_new(dtype type, int32_t head_dim, int32_t n_heads, int32_t n)
{
    const size_t  count = (size_t)n * (size_t)(n_heads * head_dim), bytes = count * dtype_bytes(type);
    const int64_t ld = (int64_t)n_heads * head_dim;
    problem       p = {.x = malloc(4 * bytes)};
    uint32_t      seed = 1;
    if (posix_memalign((void **)&p.state, 64, (count + 2 * (size_t)n * (size_t)n_heads) * sizeof(float)) != 0) exit(1);
    if (p.x == NULL) exit(1);
    for (size_t i = 0; i < 3 * count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float f = (float)(seed >> 8) * 0x1p-22f - 2.0f;
        if (type == DT_F32)
            ((float *)(void *)p.x)[i] = f;
        else
            ((uint16_t *)(void *)p.x)[i] = f32_to_bf16(f);
    }
    p.a = (attention_args){
        .q = p.x, .k = p.x + bytes, .v = p.x + 2 * bytes, .out = p.x + 3 * bytes, .ldq = ld, .ldk = ld, .ldv = ld,
        .ldo = ld, .n_q = n, .n_kv = n, .n_heads = n_heads, .head_dim = head_dim, .scale = 0.1f, .type = type,
        .state_out = p.state, .state_max = p.state + count, .state_sum = p.state + count + (size_t)n * (size_t)n_heads,
        .first = true, .last = true,
    };
    return p;
}

static void problem_free(problem *p)
{
    free(p->x);
    free(p->state);
}

static void measure(cpu_isa isa, dtype type, int32_t head_dim, int32_t n_heads, int32_t n)
{
    const attention_kernel *kernel = attention_kernel_get(isa, type, head_dim);
    kernel_context *ctx = NULL;
    if (kernel_context_open(&ctx, isa, 1) != ST_OK) exit(1);
    problem p = problem_new(type, head_dim, n_heads, n);
    double share[3], gflops[3];
    for (int i = -1; i < 3; i++) {
        double peak = isa >= ISA_AVX512 ? peak_avx512() : peak_avx2();
        double start = now_s();
        if (attention_run(kernel, ctx, &p.a) != ST_OK) exit(1);
        double rate = 4.0 * n * n * (double)p.a.ldq / (now_s() - start) * 1e-9;
        double after = isa >= ISA_AVX512 ? peak_avx512() : peak_avx2();
        if (i < 0) continue;
        gflops[i] = rate;
        share[i] = 2 * rate / (peak + after);
    }
    qsort(gflops, 3, sizeof(double), by_value);
    qsort(share, 3, sizeof(double), by_value);
    printf("%-11s %-4s head %3d x %d  S %5d  %7.1f GFLOP/s  %3.0f %% of the fp32 peak\n", kernel->name,
           dtype_name(type), head_dim, n_heads, n, gflops[1], 100 * share[1]);
    kernel_context_close(ctx);
    problem_free(&p);
}

/* All ranks' parts, one after the other: each n / n_ranks rows of queries with as many blocks of keys. */
static double cut_seconds(const attention_kernel *kernel, kernel_context *ctx, const problem *p, int n_ranks)
{
    const size_t  element = dtype_bytes(p->a.type);
    const int32_t n = p->a.n_q / n_ranks; /* S is a multiple of 8 tiles */
    const double  start = now_s();
    for (int rank = 0; rank < n_ranks; rank++)
        for (int block = 0; block < n_ranks; block++) {
            const size_t   q = (size_t)(rank * n) * (size_t)p->a.ldq * element;
            const size_t   k = (size_t)(block * n) * (size_t)p->a.ldk * element;
            attention_args a = p->a;
            a.q = (const char *)p->a.q + q;
            a.out = (char *)p->a.out + q;
            a.k = (const char *)p->a.k + k;
            a.v = (const char *)p->a.v + k;
            a.n_q = a.n_kv = n;
            a.first = block == 0;
            a.last = block == n_ranks - 1;
            if (attention_run(kernel, ctx, &a) != ST_OK) exit(1);
        }
    return now_s() - start;
}

static void measure_cut(cpu_isa isa, dtype type, int32_t head_dim, int32_t n_heads, int32_t n)
{
    enum { ROUNDS = 7, CUTS = 3 };
    static const int cuts[CUTS] = {2, 4, 8};
    const attention_kernel *kernel = attention_kernel_get(isa, type, head_dim);
    kernel_context         *ctx = NULL;
    double                  ratio[CUTS][ROUNDS];
    if (kernel_context_open(&ctx, isa, 1) != ST_OK) exit(1);
    problem p = problem_new(type, head_dim, n_heads, n);
    cut_seconds(kernel, ctx, &p, 1);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CUTS; i++) {
            const double before = cut_seconds(kernel, ctx, &p, 1), part = cut_seconds(kernel, ctx, &p, cuts[i]);
            ratio[i][round] = 2 * part / (before + cut_seconds(kernel, ctx, &p, 1));
        }
    printf("%-11s %-4s head %3d x %d  S %5d  cut over", kernel->name, dtype_name(type), head_dim, n_heads, n);
    for (int i = 0; i < CUTS; i++) {
        qsort(ratio[i], ROUNDS, sizeof(double), by_value);
        printf("  %d: %.3f", cuts[i], ratio[i][ROUNDS / 2]);
    }
    printf("\n");
    kernel_context_close(ctx);
    problem_free(&p);
}

int main(int argc, char **argv)
{
    const int32_t n = argc > 1 ? atoi(argv[1]) : 2048;
    const int32_t n_cut = argc > 2 ? atoi(argv[2]) : 4096;
    static const struct { int32_t dim, heads; } shapes[] = {{32, 4}, {64, 4}, {128, 2}, {512, 1}};
    for (cpu_isa isa = ISA_PLAIN; isa <= cpu_isa_best(); isa++)
        for (int type = DT_F32; type <= DT_BF16; type++)
            for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                measure(isa, (dtype)type, shapes[i].dim, shapes[i].heads, n);
    for (int type = DT_F32; type <= DT_BF16; type++)
        for (size_t i = 1; i < sizeof(shapes) / sizeof(shapes[0]); i++)
            measure_cut(cpu_isa_best(), (dtype)type, shapes[i].dim, 1, n_cut / (8 * KEY_TILE) * (8 * KEY_TILE));
    return 0;
}
