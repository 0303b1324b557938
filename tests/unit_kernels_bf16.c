/* The cpu kernels' flow for processors that multiply bf16, on any processor: this program brings its own primitive.h,
 * products in plain C, in place of oneDNN's. What is tested is what linear.c and conv.c hand to them and do after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/primitive.h"
#include "cpu/vector.h"
#include "kernel_check.h"
#include "plain/plain.h"

struct primitive {
    int32_t n_in, n_out, kernel;
};

enum { PRIMITIVES = 16 };
static primitive made[PRIMITIVES];
static int n_made;

static status make(dtype type, int32_t n_in, int32_t n_out, int32_t kernel, const primitive **out)
{
    assert_int_equal(type, DT_BF16);
    assert_true(n_made < PRIMITIVES);
    made[n_made] = (primitive){n_in, n_out, kernel};
    *out = &made[n_made++];
    return ST_OK;
}

status primitive_get_matmul(primitive_cache *cache, dtype type, int32_t n_in, int32_t n_cols, const primitive **out)
{
    (void)cache;
    return make(type, n_in, n_cols, 0, out);
}

status primitive_get_conv(primitive_cache *cache, dtype type, int32_t c_in, int32_t c_out, int32_t kernel,
                          const primitive **out)
{
    (void)cache;
    return make(type, c_in, c_out, kernel, out);
}

size_t primitive_packed_bytes(const primitive *p)
{
    return (size_t)p->n_in * (size_t)p->n_out * (size_t)(p->kernel * p->kernel) * sizeof(uint16_t);
}

size_t primitive_scratch_bytes(const primitive *p)
{
    (void)p;
    return 0;
}

/* "Packed" is the order reversed: a convolution that reads what was not packed is wrong. */
status primitive_pack(const primitive *p, const void *weights, void *packed)
{
    size_t n = primitive_packed_bytes(p) / sizeof(uint16_t);
    for (size_t i = 0; i < n; i++) ((uint16_t *)packed)[i] = ((const uint16_t *)weights)[n - 1 - i];
    return ST_OK;
}

static void run_matmul(const primitive *p, const uint16_t *x, const uint16_t *w, float *product)
{
    for (int row = 0; row < ROW_TILE; row++) {
        for (int col = 0; col < p->n_out; col++) {
            float sum = 0.0f;
            for (int i = 0; i < p->n_in; i++)
                sum += bf16_to_f32(x[row * p->n_in + i]) * bf16_to_f32(w[col * p->n_in + i]);
            product[row * p->n_out + col] = sum;
        }
    }
}

static void run_conv(const primitive *p, const uint16_t *x, const uint16_t *w, float *product)
{
    int k = p->kernel, across = CONV_TILE_W + k - 1, last = p->n_in * p->n_out * k * k - 1;
    for (int at = 0; at < CONV_TILE_H * CONV_TILE_W; at++) {
        for (int c_out = 0; c_out < p->n_out; c_out++) {
            float sum = 0.0f;
            for (int tap = 0; tap < k * k; tap++) {
                int pixel = (at / CONV_TILE_W + tap / k) * across + at % CONV_TILE_W + tap % k;
                for (int c = 0; c < p->n_in; c++)
                    sum += bf16_to_f32(x[pixel * p->n_in + c]) *
                           bf16_to_f32(w[last - ((c_out * p->n_in + c) * k * k + tap)]);
            }
            product[at * p->n_out + c_out] = sum;
        }
    }
}

bool primitive_run(const primitive *p, int thread, const void *x, const void *weights, float *product, void *scratch)
{
    (void)thread, (void)scratch;
    if (p->kernel == 0) run_matmul(p, x, weights, product);
    else run_conv(p, x, weights, product);
    return true;
}

static kernel_context *ctx, *plain_ctx;

static int contexts_open(void **state)
{
    (void)state;
    if (kernel_context_open(&ctx, ISA_AVX512_BF16, 2) != ST_OK || kernels_plain()->open(&plain_ctx, 1) != ST_OK) return -1;
    ctx->vec = &vector_plain;
    return 0;
}

static int contexts_close(void **state)
{
    (void)state;
    kernel_context_close(ctx);
    kernels_plain()->close(plain_ctx);
    return 0;
}

static void linear_multiplies_bf16(void **state)
{
    (void)state;
    enum { ROWS = 70, FIRST = 3, IN = 37, OUT = 204, LDX = IN + 2, LDY = OUT + 1 };
    static const dtype weights[] = {DT_BF16, DT_F32, DT_F16};
    for (int i = 0; i < 3; i++) {
        void *x = array_make("x", DT_BF16, ROWS * LDX, 0.0f, 1.0f), *w = array_make("w", weights[i], OUT * IN, 0.0f, 0.2f);
        void *bias = array_make("bias", DT_F32, OUT, 0.0f, 0.5f);
        void *want = array_make("y", DT_BF16, ROWS * LDY, 0.0f, 1.0f), *got = array_copy(want, DT_BF16, ROWS * LDY);
        linear_args args = {.x = x, .y = want, .w = {w, bias, weights[i], DT_F32}, .ldx = LDX, .ldy = LDY,
                            .n_rows = ROWS, .n_first = FIRST, .n_in = IN, .n_out = OUT, .type = DT_BF16,
                            .y_type = DT_BF16, .act = ACT_SILU};
        n_made = 0;
        assert_int_equal(linear_plain(plain_ctx, &args), ST_OK);
        args.y = got;
        assert_int_equal(linear_cpu(ctx, &args), ST_OK);
        assert_int_equal(n_made, 2); /* 192 columns, and the 12 left */
        assert_close(got, want, DT_BF16, ROWS * LDY, "linear");
        free(x), free(w), free(bias), free(want), free(got);
    }
}

static void conv_multiplies_bf16(void **state)
{
    (void)state;
    enum { HEIGHT = 5, WIDTH = 35, IN = 12, OUT = 9 };
    static const dtype weights[] = {DT_BF16, DT_F32, DT_F16};
    for (int i = 0; i < 3; i++) {
        void *x = array_make("x", DT_BF16, HEIGHT * WIDTH * IN, 0.0f, 1.0f);
        void *above = array_make("above", DT_BF16, WIDTH * IN, 0.0f, 1.0f);
        void *w = array_make("w", weights[i], OUT * IN * 9, 0.0f, 0.1f);
        float *mul = array_make("mul", DT_F32, IN, 1.0f, 0.3f), *plus = array_make("plus", DT_F32, IN, 0.0f, 0.3f);
        void *want = array_make("y", DT_BF16, HEIGHT * WIDTH * OUT, 0.0f, 1.0f);
        void *got = array_copy(want, DT_BF16, HEIGHT * WIDTH * OUT);
        conv_args args = {.x = x, .x_above = above, .y = want, .norm_mul = mul, .norm_add = plus,
                          .w = {w, NULL, weights[i], DT_F32}, .height = HEIGHT, .width = WIDTH, .first_row = 6,
                          .c_in = IN, .c_out = OUT, .kernel = 3, .type = DT_BF16, .y_type = DT_BF16, .silu = true};
        n_made = 0;
        assert_int_equal(conv_plain(plain_ctx, &args), ST_OK);
        args.y = got;
        assert_int_equal(conv_cpu(ctx, &args), ST_OK);
        assert_close(got, want, DT_BF16, HEIGHT * WIDTH * OUT, "conv");
        free(x), free(above), free(w), free(mul), free(plus), free(want), free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_multiplies_bf16),
        cmocka_unit_test(conv_multiplies_bf16),
    };
    return cmocka_run_group_tests(tests, contexts_open, contexts_close);
}
