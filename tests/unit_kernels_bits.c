/* A result's bits depend on its row, not on the call: any number of rows, any cut on the tile grid, any number of threads,
 * any strip of an image. This is what makes a picture independent of the number of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "device_kernels.h"
#include "kernel_check.h"

static const kernel_table *cpu;
static kernel_context *one, *three; /* threads */

static const dtype types[] = {DT_F32, DT_BF16};

/* ---- linear ---- */

enum { ROWS = 210, FIRST = 70, N_IN = 130, N_OUT = 200 };

static void linear_rows(kernel_context *ctx, const linear_args *whole, void *y, int32_t begin, int32_t end,
                        int32_t n_first)
{
    linear_args args = *whole;
    size_t bytes = dtype_bytes(args.type);
    args.x = (const char *)args.x + (size_t)begin * (size_t)args.ldx * bytes;
    args.y = (char *)y + (size_t)begin * (size_t)args.ldy * bytes;
    args.n_rows = end - begin;
    args.n_first = n_first;
    assert_ok(cpu->linear(ctx, &args));
}

static void linear_rows_do_not_depend_on_the_call(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        dtype type = types[t];
        size_t bytes = dtype_bytes(type), row_bytes = N_OUT * bytes;
        void *x = array_make("x", type, ROWS * N_IN, 0.1f, 1.0f), *w = array_make("w", DT_BF16, N_OUT * N_IN, 0.0f, 0.1f);
        void *want = array_make("y", type, ROWS * N_OUT, 0.0f, 1.0f), *got = array_copy(want, type, ROWS * N_OUT);
        linear_args args = {.x = x, .y = want, .w = {w, NULL, DT_BF16, DT_F32}, .ldx = N_IN, .ldy = N_OUT,
                            .n_rows = ROWS, .n_first = FIRST, .n_in = N_IN, .n_out = N_OUT, .type = type,
                            .y_type = type, .act = ACT_GELU_TANH};
        linear_rows(one, &args, want, 0, ROWS, FIRST);

        linear_rows(three, &args, got, 0, ROWS, FIRST);
        assert_same_bits(got, want, ROWS * row_bytes, "three threads");

        /* ranks: text rows 0..63 | text 64..69 and image 70..133 | image 134..197 | 198..209 */
        static const int32_t cuts[] = {0, 64, 134, 198, ROWS};
        memset(got, 0x55, ROWS * row_bytes);
        for (int i = 0; i < 4; i++) {
            int32_t n_first = FIRST - cuts[i];
            linear_rows(one, &args, got, cuts[i], cuts[i + 1], n_first < 0 || n_first > cuts[i + 1] - cuts[i] ? 0 : n_first);
        }
        assert_same_bits(got, want, ROWS * row_bytes, "cut on the tile grid");

        static const int32_t counts[] = {1, 5, 63, 64, 65, 130};
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            memset(got, 0x55, ROWS * row_bytes);
            linear_rows(one, &args, got, FIRST, FIRST + counts[i], 0);
            assert_same_bits((char *)got + FIRST * row_bytes, (char *)want + FIRST * row_bytes,
                             (size_t)counts[i] * row_bytes, "fewer rows");
        }
        free(x), free(w), free(want), free(got);
    }
}

/* Other rows of a tile may hold anything, also NaN. */
static void linear_rows_do_not_see_each_other(void **state)
{
    (void)state;
    enum { N = 64, HERE = 17 };
    float *x = array_make("x", DT_F32, N * N_IN, 0.1f, 1.0f), *w = array_make("w", DT_F32, N_OUT * N_IN, 0.0f, 0.1f);
    float want[N_OUT], *y = calloc(N * N_OUT, sizeof(float));
    assert_non_null(y);
    linear_args args = {.x = x, .y = y, .w = {w, NULL, DT_F32, DT_F32}, .ldx = N_IN, .ldy = N_OUT, .n_rows = N,
                        .n_in = N_IN, .n_out = N_OUT, .type = DT_F32, .y_type = DT_F32};
    assert_ok(cpu->linear(one, &args));
    memcpy(want, y + HERE * N_OUT, sizeof(want));
    for (int i = 0; i < N * N_IN; i++)
        if (i / N_IN != HERE) x[i] = i % 2 ? 1e30f : NAN;
    assert_ok(cpu->linear(one, &args));
    assert_same_bits(y + HERE * N_OUT, want, sizeof(want), "a row among others");
    free(x), free(w), free(y);
}

/* ---- conv ---- */

enum { H = 22, W = 46, C_IN = 24, C_OUT = 40 };

/* Rows [begin, end) of the image as a rank holds them: neighbours lent, the rest unknown. */
static void conv_strip(kernel_context *ctx, const conv_args *whole, void *y, int32_t begin, int32_t end)
{
    conv_args args = *whole;
    int32_t shrink = args.upsample ? 2 : 1;
    size_t bytes = dtype_bytes(args.type), x_row = (size_t)(W / shrink) * C_IN * bytes, y_row = W * C_OUT * bytes;
    const char *x = args.x;
    args.x = x + (size_t)(begin / shrink) * x_row;
    args.x_above = begin == 0 ? NULL : x + (size_t)(begin / shrink - 1) * x_row;
    args.x_below = end == H ? NULL : x + (size_t)(end / shrink) * x_row;
    args.y = (char *)y + (size_t)begin * y_row;
    if (args.residual != NULL) args.residual = (const char *)args.residual + (size_t)begin * y_row;
    args.first_row = begin;
    args.height = end - begin;
    assert_ok(cpu->conv(ctx, &args));
}

static void conv_strips_equal_the_whole(void **state)
{
    (void)state;
    static const int32_t cuts[][5] = {{0, 8, 16, 22, 22}, {0, 2, 4, 12, 22}, {0, 10, 14, 20, 22}, {0, 1, 5, 21, 22}};
    for (int form = 0; form < 8; form++) { /* bits: type, upsample, 1x1 */
        dtype type = types[form & 1];
        bool upsample = (form & 2) != 0;
        int32_t kernel = (form & 4) != 0 ? 1 : 3;
        size_t y_bytes = (size_t)H * W * C_OUT * dtype_bytes(type);
        void *x = array_make("x", type, H * W * C_IN, 0.2f, 1.0f);
        void *w = array_make("w", DT_BF16, C_OUT * C_IN * 9, 0.0f, 0.07f);
        float *mul = array_make("mul", DT_F32, C_IN, 1.0f, 0.3f), *plus = array_make("plus", DT_F32, C_IN, 0.0f, 0.3f);
        void *residual = array_make("residual", type, H * W * C_OUT, 0.0f, 1.0f);
        void *want = array_copy(residual, type, H * W * C_OUT), *got = array_copy(residual, type, H * W * C_OUT);
        conv_args args = {.x = x, .residual = residual, .norm_mul = mul, .norm_add = plus,
                          .w = {w, NULL, DT_BF16, DT_F32}, .width = W, .c_in = C_IN, .c_out = C_OUT, .kernel = kernel,
                          .type = type, .y_type = type, .silu = true, .upsample = upsample};
        conv_strip(one, &args, want, 0, H);
        conv_strip(three, &args, got, 0, H);
        assert_same_bits(got, want, y_bytes, "three threads");
        for (size_t i = 0; i < (upsample ? 3 : 4); i++) { /* the last cuts rows that nearest x2 made from one */
            memset(got, 0x55, y_bytes);
            for (int part = 0; part < 4; part++) conv_strip(one, &args, got, cuts[i][part], cuts[i][part + 1]);
            assert_same_bits(got, want, y_bytes, "strips");
        }
        free(x), free(w), free(mul), free(plus), free(residual), free(want), free(got);
    }
}

/* ---- the rest: any sub-range, any number of threads ---- */

enum { N_LONG = 300001 }; /* enough for a team */

static void elements_do_not_depend_on_their_place(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        dtype type = types[t];
        size_t bytes = dtype_bytes(type);
        char *x = array_make("x", type, N_LONG, 0.0f, 3.0f);
        char *want = array_copy(x, type, N_LONG), *got = array_copy(x, type, N_LONG);
        assert_ok(cpu->gated_gelu(one, &(gated_gelu_args){.a = x, .b = x, .y = want, .n = N_LONG, .type = type}));
        assert_ok(cpu->gated_gelu(three, &(gated_gelu_args){.a = x, .b = x, .y = got, .n = N_LONG, .type = type}));
        assert_same_bits(got, want, N_LONG * bytes, "gated_gelu, three threads");
        memset(got, 0x55, N_LONG * bytes);
        for (size_t at = 0, n = 1; at < 3000; at += n, n = n % 37 + 1) {
            gated_gelu_args args = {.a = x + at * bytes, .b = x + at * bytes, .y = got + at * bytes, .n = (int64_t)n,
                                    .type = type};
            assert_ok(cpu->gated_gelu(one, &args));
        }
        assert_same_bits(got, want, 3000 * bytes, "gated_gelu in short pieces");
        free(x), free(want), free(got);
    }
}

static void norm_rows_do_not_depend_on_the_call(void **state)
{
    (void)state;
    enum { N_ROWS = 300, WIDTH = 777 };
    for (int t = 0; t < 2; t++) {
        dtype type = types[t];
        size_t bytes = dtype_bytes(type);
        char *x = array_make("x", type, N_ROWS * WIDTH, 1.0f, 3.0f);
        char *want = array_copy(x, type, N_ROWS * WIDTH), *got = array_copy(x, type, N_ROWS * WIDTH);
        layernorm_args args = {.x = x, .y = want, .ldx = WIDTH, .ldy = WIDTH, .n_rows = N_ROWS, .width = WIDTH,
                               .eps = 1e-6f, .type = type};
        assert_ok(cpu->layernorm(one, &args));
        args.y = got;
        assert_ok(cpu->layernorm(three, &args));
        assert_same_bits(got, want, N_ROWS * WIDTH * bytes, "layernorm, three threads");
        args.x = x + 5 * WIDTH * bytes;
        args.n_rows = 1;
        assert_ok(cpu->layernorm(one, &args));
        assert_same_bits(got, want + 5 * WIDTH * bytes, WIDTH * bytes, "layernorm of one row");
        free(x), free(want), free(got);
    }
}

static void group_sums_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { HEIGHT = 30, WIDTH = 80, CHANNELS = 96, GROUPS = 32, N = HEIGHT * GROUPS * 2 };
    float *x = array_make("x", DT_F32, HEIGHT * WIDTH * CHANNELS, 0.3f, 1.0f);
    double want[N], got[N];
    group_sums_args args = {.x = x, .sums = want, .height = HEIGHT, .width = WIDTH, .channels = CHANNELS,
                            .groups = GROUPS, .type = DT_F32};
    assert_ok(cpu->group_sums(one, &args));
    args.sums = got;
    assert_ok(cpu->group_sums(three, &args));
    assert_same_bits(got, want, sizeof(want), "group_sums");
    free(x);
}

static int run_all(const kernel_table *subject)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_rows_do_not_depend_on_the_call),
        cmocka_unit_test(linear_rows_do_not_see_each_other),
        cmocka_unit_test(conv_strips_equal_the_whole),
        cmocka_unit_test(elements_do_not_depend_on_their_place),
        cmocka_unit_test(norm_rows_do_not_depend_on_the_call),
        cmocka_unit_test(group_sums_do_not_depend_on_threads),
    };
    cpu = subject;
    if (cpu->open(&one, 1) != ST_OK || cpu->open(&three, 3) != ST_OK) {
        fprintf(stderr, "%s\n", err_text());
        return 1;
    }
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    cpu->close(one);
    cpu->close(three);
    return n_failed;
}

static int group(cpu_isa isa)
{
    return run_all(kernels_cpu(isa));
}

int main(void)
{
    if (!test_device_is_cuda()) return each_isa(group);
    return cuda_is_there() ? run_all(kernels_cuda()) : 0;
}
