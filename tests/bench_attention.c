/* Speed of the attention kernels on one thread: GFLOP/s (4 S^2 d per head) and share of the peak of fused
 * multiply-adds, which is measured in the same run, before and after each row. Usage: bench_attention [S]. */
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

static void measure(cpu_isa isa, dtype type, int32_t head_dim, int32_t n_heads, int32_t n)
{
    const attention_kernel *kernel = attention_kernel_get(isa, type, head_dim);
    const size_t count = (size_t)n * (size_t)(n_heads * head_dim);
    char *x = malloc(4 * count * dtype_bytes(type));
    kernel_context *ctx = NULL;
    if (x == NULL || kernel_context_open(&ctx, isa, 1) != ST_OK) exit(1);
    uint32_t seed = 1;
    for (size_t i = 0; i < 3 * count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float f = (float)(seed >> 8) * 0x1p-22f - 2.0f;
        if (type == DT_F32)
            ((float *)(void *)x)[i] = f;
        else
            ((uint16_t *)(void *)x)[i] = f32_to_bf16(f);
    }
    const size_t bytes = count * dtype_bytes(type);
    const int64_t ld = (int64_t)n_heads * head_dim;
    attention_args a = {
        .q = x, .k = x + bytes, .v = x + 2 * bytes, .out = x + 3 * bytes, .ldq = ld, .ldk = ld, .ldv = ld, .ldo = ld,
        .n_q = n, .n_kv = n, .n_heads = n_heads, .head_dim = head_dim, .scale = 0.1f, .type = type,
        .first = true, .last = true,
    };
    double share[3], gflops[3];
    for (int i = -1; i < 3; i++) {
        double peak = isa >= ISA_AVX512 ? peak_avx512() : peak_avx2();
        double start = now_s();
        if (attention_run(kernel, ctx, &a) != ST_OK) exit(1);
        double rate = 4.0 * n * n * (double)ld / (now_s() - start) * 1e-9;
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
    free(x);
}

int main(int argc, char **argv)
{
    const int32_t n = argc > 1 ? atoi(argv[1]) : 2048;
    static const struct { int32_t dim, heads; } shapes[] = {{32, 4}, {64, 4}, {128, 2}, {512, 1}};
    for (cpu_isa isa = ISA_PLAIN; isa <= cpu_isa_best(); isa++)
        for (int type = DT_F32; type <= DT_BF16; type++)
            for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                measure(isa, (dtype)type, shapes[i].dim, shapes[i].heads, n);
    return 0;
}
