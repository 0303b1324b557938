/* Speed of the cpu kernels on one thread, by shape: GFLOP/s, and as a share of what oneDNN does with the same numbers as one
 * matrix product of many rows in the layout that it likes best, measured in the same run (this machine's practical peak).
 * Seconds are CPU seconds of the thread, so that other programs on the machine disturb less. Not a test: run it by hand
 * (--quick: fewer rows). Median of three after a warm-up. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ops.h"

static const kernel_table *cpu;
static kernel_context *ctx;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const char *what)
{
    fprintf(stderr, "bench_kernels: %s: %s\n", what, err_text());
    exit(1);
}

/* Values of the size of activations and weights; zeros would be faster on some processors. */
static void *values(int64_t n, dtype type)
{
    void *x = aligned_alloc(64, ((size_t)n * dtype_bytes(type) + 63) / 64 * 64);
    if (x == NULL) stop("no memory");
    uint32_t u = 1;
    for (int64_t i = 0; i < n; i++) {
        u = u * 1664525u + 1013904223u;
        float f = (float)(int32_t)u * 0x1p-32f;
        if (type == DT_F32) ((float *)x)[i] = f;
        else ((uint16_t *)x)[i] = f32_to_bf16(f);
    }
    return x;
}

typedef status (*run_fn)(const void *args);

static double median_s(run_fn run, const void *args)
{
    double s[3];
    if (run(args) != ST_OK) stop("warm-up");
    for (int i = 0; i < 3; i++) {
        double start = now_s();
        if (run(args) != ST_OK) stop("run");
        s[i] = now_s() - start;
    }
    double low = s[0] < s[1] ? s[0] : s[1], high = s[0] < s[1] ? s[1] : s[0];
    return s[2] < low ? low : s[2] > high ? high : s[2];
}

static status run_linear(const void *args)
{
    return cpu->linear(ctx, args);
}

static status run_conv(const void *args)
{
    return cpu->conv(ctx, args);
}

/* oneDNN alone: x [m, k] times w [k, n], weights packed by its own choice. */
typedef struct library_product {
    dnnl_primitive_t run;
    dnnl_stream_t    stream;
    dnnl_exec_arg_t  args[3];
} library_product;

static status run_library(const void *args)
{
    const library_product *p = args;
    return dnnl_primitive_execute(p->run, p->stream, 3, p->args) == dnnl_success ? ST_OK : ST_DEVICE;
}

static double library_gflops(dtype type, int64_t m, int64_t k, int64_t n)
{
    dnnl_data_type_t data = type == DT_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_engine_t engine;
    library_product p;
    dnnl_memory_t memory[3];
    dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, k}, data, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){k, n}, data, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, n}, dnnl_f32, dnnl_ab);
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success || dnnl_stream_create(&p.stream, engine, 0) != dnnl_success ||
        dnnl_matmul_desc_init(&desc, &x, &w, NULL, &y) != dnnl_success)
        stop("oneDNN");
    if (dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL) != dnnl_success) return 0.0; /* not in this type */
    if (dnnl_primitive_create(&p.run, pd) != dnnl_success) stop("oneDNN");
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const dnnl_memory_desc_t *descs[3] = {&x, packed, &y};
    static const int names[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    void *data_of[3];
    for (int i = 0; i < 3; i++) {
        data_of[i] = values((int64_t)dnnl_memory_desc_get_size(descs[i]) / (int64_t)dtype_bytes(i == 2 ? DT_F32 : type),
                            i == 2 ? DT_F32 : type);
        if (dnnl_memory_create(&memory[i], descs[i], engine, data_of[i]) != dnnl_success) stop("oneDNN");
        p.args[i] = (dnnl_exec_arg_t){names[i], memory[i]};
    }
    double s = median_s(run_library, &p);
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(memory[i]);
        free(data_of[i]);
    }
    dnnl_primitive_destroy(p.run);
    dnnl_primitive_desc_destroy(pd);
    dnnl_stream_destroy(p.stream);
    dnnl_engine_destroy(engine);
    return 2e-9 * (double)m * (double)k * (double)n / s;
}

static double best(dtype type, int64_t m, int64_t k, int64_t n)
{
    double f32 = library_gflops(DT_F32, m, k, n), bf16 = type == DT_BF16 ? library_gflops(DT_BF16, m, k, n) : 0.0;
    return bf16 > f32 ? bf16 : f32;
}

static void bench_linear(const char *name, int32_t n_rows, int32_t n_in, int32_t n_out, dtype type, dtype w_type)
{
    void *x = values((int64_t)n_rows * n_in, type), *y = values((int64_t)n_rows * n_out, type);
    void *w = values((int64_t)n_out * n_in, w_type);
    linear_args args = {.x = x, .y = y, .w = {w, NULL, w_type, DT_F32}, .ldx = n_in, .ldy = n_out, .n_rows = n_rows,
                        .n_in = n_in, .n_out = n_out, .type = type, .y_type = type};
    double s = median_s(run_linear, &args);
    double ours = 2e-9 * n_rows * (double)n_in * n_out / s, theirs = best(type, n_rows < 512 ? 512 : n_rows, n_in, n_out);
    printf("linear %-18s [%5d,%5d] -> %5d  x %-4s w %-4s %8.1f GFLOP/s %9.3f ms  %3.0f %% of oneDNN's %.1f\n", name, n_rows,
           n_in, n_out, dtype_name(type), dtype_name(w_type), ours, 1e3 * s, 100 * ours / theirs, theirs);
    fflush(stdout);
    free(x), free(y), free(w);
}

static void bench_conv(const char *name, int32_t height, int32_t width, int32_t c_in, int32_t c_out, dtype type)
{
    int64_t pixels = (int64_t)height * width;
    void *x = values(pixels * c_in, type), *y = values(pixels * c_out, type);
    void *w = values((int64_t)c_out * c_in * 9, DT_BF16);
    float *mul = values(c_in, DT_F32);
    conv_args args = {.x = x, .y = y, .norm_mul = mul, .norm_add = mul, .w = {w, NULL, DT_BF16, DT_F32}, .height = height,
                      .width = width, .c_in = c_in, .c_out = c_out, .kernel = 3, .type = type, .y_type = type,
                      .silu = true};
    double s = median_s(run_conv, &args);
    double ours = 2e-9 * (double)pixels * 9.0 * c_in * c_out / s, theirs = best(type, 1024, 9 * (int64_t)c_in, c_out);
    printf("conv   %-18s [%4d,%4d,%4d] -> %4d  x %-4s        %8.1f GFLOP/s %9.3f ms  %3.0f %% of oneDNN's %.1f\n", name,
           height, width, c_in, c_out, dtype_name(type), ours, 1e3 * s, 100 * ours / theirs, theirs);
    fflush(stdout);
    free(x), free(y), free(w), free(mul);
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    cpu_isa isa = cpu_isa_best();
    cpu = kernels_cpu(isa);
    omp_set_num_threads(1);
    if (cpu->open(&ctx, 1) != ST_OK) stop("open");
    printf("%s, one thread\n", cpu_isa_name(isa));
    for (dtype type = DT_F32; type <= DT_BF16; type++) {
        bench_linear("demo qkv", 1024, 192, 192, type, DT_BF16);
        bench_linear("demo mlp up", 1024, 192, 768, type, DT_BF16);
        bench_linear("demo mlp down", 1024, 768, 192, type, DT_BF16);
        bench_linear("flux qkv", quick ? 256 : 1024, 3072, 3072, type, DT_BF16);
        bench_linear("flux modulation", 28, 3072, quick ? 3072 : 18432, type, DT_BF16);
        bench_conv("demo 256 px", 256, 256, 32, 32, type);
        bench_conv("demo 64 px", 64, 64, 96, 96, type);
        bench_conv("flux top", quick ? 64 : 256, 256, 128, 128, type);
        bench_conv("flux latent", 32, 64, 512, 512, type);
        bench_conv("flux out", 64, 256, 128, 3, type);
    }
    cpu->close(ctx);
    return 0;
}
