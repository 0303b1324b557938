#include "kernel_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "counter.h"

/* Exact for the values used here: 11 significant bits, normal range. */
static uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    uint32_t magnitude = u & 0x7fffffffu;
    uint32_t half = magnitude < 0x38800000u ? 0 : (magnitude - 0x38000000u) >> 13;
    return (uint16_t)((u >> 16 & 0x8000u) | half);
}

void *array_make(const char *name, dtype type, int64_t n, float offset, float deviation)
{
    counter c = counter_input(7, name);
    void *x = aligned_alloc(64, ((size_t)n * dtype_bytes(type) + 64) / 64 * 64);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        float f = offset + deviation * counter_value(&c, i);
        if (type == DT_F32) ((float *)x)[i] = f;
        else ((uint16_t *)x)[i] = type == DT_BF16 ? f32_to_bf16(f) : f32_to_f16(f);
    }
    return x;
}

void *array_copy(const void *x, dtype type, int64_t n)
{
    size_t bytes = (size_t)n * dtype_bytes(type);
    void *copy = aligned_alloc(64, (bytes + 64) / 64 * 64);
    assert_non_null(copy);
    memcpy(copy, x, bytes);
    return copy;
}

float array_get(const void *x, dtype type, int64_t i)
{
    if (type == DT_F32) return ((const float *)x)[i];
    uint16_t h = ((const uint16_t *)x)[i];
    return type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

double relative_l2(const void *got, const void *want, dtype type, int64_t n)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double a = array_get(got, type, i), b = array_get(want, type, i);
        if (isnan(a) && isnan(b)) continue;
        if (isnan(a) || isnan(b)) return INFINITY;
        difference += (a - b) * (a - b);
        size += b * b;
    }
    return difference == 0.0 ? 0.0 : sqrt(difference / size);
}

double tolerance_of(dtype type)
{
    return type == DT_F32 ? 2e-6 : 1e-3;
}

void assert_close(const void *got, const void *want, dtype type, int64_t n, const char *what)
{
    double error = relative_l2(got, want, type, n);
    if (error > tolerance_of(type))
        fail_msg("%s: relative L2 %.3g, allowed %.3g (%s)", what, error, tolerance_of(type), dtype_name(type));
}

void assert_same_bits(const void *got, const void *want, size_t bytes, const char *what)
{
    const unsigned char *a = got, *b = want;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i]) fail_msg("%s: byte %zu of %zu differs", what, i, bytes);
}

void assert_ok(status st)
{
    if (st != ST_OK) fail_msg("%s: %s", status_name(st), err_text());
}

int each_isa(int (*group)(cpu_isa isa))
{
    int n_failed = 0;
    for (cpu_isa isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
        if (isa > cpu_isa_best()) {
            printf("not run: %s kernels on the processor itself (it lacks them)\n", cpu_isa_name(isa));
            continue;
        }
        printf("%s:\n", cpu_isa_name(isa));
        fflush(stdout);
        fflush(stderr);
        pid_t child = fork();
        if (child == 0) exit(group(isa) == 0 ? 0 : 1);
        int how = 0;
        if (child < 0 || waitpid(child, &how, 0) != child || how != 0) n_failed++;
    }
    return n_failed;
}
