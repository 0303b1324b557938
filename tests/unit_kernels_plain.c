/* The judge itself: values worked out by hand, and by PyTorch where a bf16 sequence of roundings is the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "ops.h"

static const kernel_table *plain;
static kernel_context *ctx;

static int plain_open(void **state)
{
    (void)state;
    plain = kernels_plain();
    return plain->open(&ctx, 4) == ST_OK ? 0 : -1;
}

static int plain_close(void **state)
{
    (void)state;
    plain->close(ctx);
    return 0;
}

static void assert_floats(const float *got, const float *want, int n)
{
    for (int i = 0; i < n; i++)
        if (fabsf(got[i] - want[i]) > 1e-6f * fmaxf(1.0f, fabsf(want[i])))
            fail_msg("element %d: got %.8g, want %.8g", i, (double)got[i], (double)want[i]);
}

static void linear_by_hand(void **state)
{
    (void)state;
    const float x[] = {1, 2, 99, 3, 4, 99}, w[] = {1, 0, 0, 1, 1, 1}, bias[] = {0.5f, 0, -1}, gate[] = {2, 1, 0};
    float y[8] = {0, 0, 0, -7, 0, 0, 0, -7};
    linear_args args = {.x = x, .y = y, .w = {w, bias, DT_F32, DT_F32}, .ldx = 3, .ldy = 4, .n_rows = 2, .n_in = 2,
                        .n_out = 3, .type = DT_F32, .y_type = DT_F32};
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(y, (float[]){1.5f, 2, 2, -7, 3.5f, 4, 6, -7}, 8);

    args.gate = gate;
    for (int i = 0; i < 8; i++) y[i] = 10;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(y, (float[]){13, 12, 10, 10, 17, 14, 10, 10}, 8);
}

static void linear_activations(void **state)
{
    (void)state;
    const float x[] = {1}, w[] = {1};
    float y;
    linear_args args = {.x = x, .y = &y, .w = {w, NULL, DT_F32, DT_F32}, .ldx = 1, .ldy = 1, .n_rows = 1, .n_in = 1,
                        .n_out = 1, .type = DT_F32, .y_type = DT_F32};
    args.act = ACT_SILU;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(&y, (float[]){0.7310586f}, 1); /* 1 / (1 + 1/e) */
    args.act = ACT_GELU_TANH;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(&y, (float[]){0.8411920f}, 1); /* torch.nn.functional.gelu(1, approximate="tanh") */
    args.act = ACT_GELU;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(&y, (float[]){0.8413447f}, 1); /* the normal distribution up to one deviation */
    args.act = ACT_QUICK_GELU;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_floats(&y, (float[]){0.8457958f}, 1); /* 1 / (1 + e^-1.702) */
}

/* -1 + (1 + 2^-7 + 2^-9): one rounding keeps the last bit; the reference rounds the product first and loses it. */
static void linear_parity_rounds_before_the_sum(void **state)
{
    (void)state;
    const uint16_t x[] = {0x3f80}, w[] = {f32_to_bf16(1.0f + 0x1p-7f)}, bias[] = {f32_to_bf16(0x1p-9f)};
    const float gate[] = {1};
    uint16_t y = f32_to_bf16(-1.0f);
    linear_args args = {.x = x, .y = &y, .w = {w, bias, DT_BF16, DT_BF16}, .gate = gate, .ldx = 1, .ldy = 1,
                        .n_rows = 1, .n_in = 1, .n_out = 1, .type = DT_BF16, .y_type = DT_BF16};
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_true(bf16_to_f32(y) == 0x1p-7f + 0x1p-9f);
    y = f32_to_bf16(-1.0f);
    args.parity = true;
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_true(bf16_to_f32(y) == 0x1p-7f);
}

/* 1 + 2^-8 is not a bf16 number: as a weight of a bf16 layer it counts as 1. */
static void wide_weights_are_rounded_on_use(void **state)
{
    (void)state;
    const uint16_t x[] = {0x3f80};
    const float w[] = {1.0f + 0x1p-8f};
    float y;
    linear_args args = {.x = x, .y = &y, .w = {w, NULL, DT_F32, DT_F32}, .ldx = 1, .ldy = 1, .n_rows = 1, .n_in = 1,
                        .n_out = 1, .type = DT_BF16, .y_type = DT_F32};
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    assert_true(y == 1.0f);
}

static void layernorm_by_hand(void **state)
{
    (void)state;
    const float x[] = {1, 2, 3, 4}, scale[] = {1, 2, 1, 0}, shift[] = {0, 0, 1, 5}; /* mean 2.5, variance 1.25 */
    float y[4];
    layernorm_args args = {.x = x, .y = y, .ldx = 4, .ldy = 4, .n_rows = 1, .width = 4, .type = DT_F32};
    assert_int_equal(plain->layernorm(ctx, &args), ST_OK);
    assert_floats(y, (float[]){-1.3416408f, -0.4472136f, 0.4472136f, 1.3416408f}, 4);
    args.scale = scale;
    args.shift = shift;
    assert_int_equal(plain->layernorm(ctx, &args), ST_OK);
    assert_floats(y, (float[]){-1.3416408f, -0.8944272f, 1.4472136f, 5}, 4);
    args.one_plus = true;
    assert_int_equal(plain->layernorm(ctx, &args), ST_OK);
    assert_floats(y, (float[]){-2.6832816f, -1.3416408f, 1.8944272f, 6.3416408f}, 4);
}

static void rmsnorm_by_hand(void **state)
{
    (void)state;
    const float x[] = {3, 4}, scale[] = {1, 2}; /* mean square 12.5 */
    float y[2];
    rmsnorm_args args = {.x = x, .y = y, .scale = scale, .ldx = 2, .ldy = 2, .n_rows = 1, .width = 2, .type = DT_F32};
    assert_int_equal(plain->rmsnorm(ctx, &args), ST_OK);
    assert_floats(y, (float[]){0.8485281f, 2.2627417f}, 2);
    args.eps = 12.5f;
    assert_int_equal(plain->rmsnorm(ctx, &args), ST_OK);
    assert_floats(y, (float[]){0.6f, 1.6f}, 2);
}

/* Pair 0 turns by a right angle, pair 1 by (0.6, 0.8); the second axis' table begins at 4. */
static void qk_norm_rope_by_hand(void **state)
{
    (void)state;
    float x[] = {3, 4, 3, 4};
    const float scale[] = {1, 1, 2, 2}, table[] = {1, 0, 0, 1, 0.6f, 0.8f};
    const int32_t pos[] = {1, 0, 0};
    qk_norm_rope_args args = {.x = x, .scale = scale, .table = table, .pos = pos, .ld = 4, .table_at = {0, 4, 6},
                              .n_pairs = {1, 1, 0}, .n_rows = 1, .n_heads = 1, .head_dim = 4, .type = DT_F32};
    assert_int_equal(plain->qk_norm_rope(ctx, &args), ST_OK);
    assert_floats(x, (float[]){-1.1313708f, 0.8485281f, -0.7919596f, 2.7152900f}, 4);
}

/* 0.5 * x * (1.0 + tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3)))) and x * sigmoid(1.702 * x), PyTorch 2.15, bf16, CPU. */
static void gelus_of_the_bf16_reference(void **state)
{
    (void)state;
    enum { N = 13 };
    const uint16_t x[N] = {0xc080, 0xc020, 0xbf80, 0xbe9a, 0xbc24, 0x3b83, 0x3d4d,
                           0x3e9a, 0x3f45, 0x3f80, 0x3fc0, 0x4040, 0x41a0};
    const uint16_t gelu[N] = {0x8000, 0xbc70, 0xbe22, 0xbdec, 0xbba3, 0x3b03, 0x3cd5,
                              0x3e3e, 0x3f1a, 0x3f58, 0x3fb2, 0x4040, 0x41a0};
    const uint16_t quick[N] = {0xbb90, 0xbd10, 0xbe1e, 0xbde7, 0xbba3, 0x3b03, 0x3cd5,
                               0x3e40, 0x3f1b, 0x3f59, 0x3fb2, 0x403e, 0x41a0};
    uint16_t one[N], y[N];
    for (int i = 0; i < N; i++) one[i] = 0x3f80;
    gated_gelu_args gated = {.a = x, .b = one, .y = y, .n = N, .type = DT_BF16, .parity = true};
    assert_int_equal(plain->gated_gelu(ctx, &gated), ST_OK);
    for (int i = 0; i < N; i++) assert_int_equal(y[i], gelu[i]);

    linear_args args = {.x = x, .y = y, .w = {one, NULL, DT_BF16, DT_F32}, .ldx = 1, .ldy = 1, .n_rows = N, .n_in = 1,
                        .n_out = 1, .type = DT_BF16, .y_type = DT_BF16, .act = ACT_QUICK_GELU, .parity = true};
    assert_int_equal(plain->linear(ctx, &args), ST_OK);
    for (int i = 0; i < N; i++) assert_int_equal(y[i], quick[i]);
}

static void rows_are_gathered(void **state)
{
    (void)state;
    const float table[] = {1, 2, 3, 4, 5, 6}, plus[] = {0.5f, 0, 0, -1};
    const int32_t ids[] = {2, 0};
    float y[4];
    gather_rows_args args = {.table = table, .ids = ids, .y = y, .n_rows = 2, .width = 2, .table_type = DT_F32,
                             .add_type = DT_F32, .type = DT_F32};
    assert_int_equal(plain->gather_rows(ctx, &args), ST_OK);
    assert_floats(y, (float[]){5, 6, 1, 2}, 4);
    args.add = plus;
    assert_int_equal(plain->gather_rows(ctx, &args), ST_OK);
    assert_floats(y, (float[]){5.5f, 6, 1, 1}, 4);
}

/* bf(-0.3) = -77/256; times 3 is -231/256, a bf16 number; 1 - 231/256 = 25/256. Without parity: 1 - 0.9. */
static void euler_by_hand(void **state)
{
    (void)state;
    const uint16_t v[] = {f32_to_bf16(3.0f)};
    float latents = 1.0f;
    euler_args args = {.latents = &latents, .v = v, .n = 1, .dt = -0.3f, .type = DT_BF16};
    assert_int_equal(plain->euler(ctx, &args), ST_OK);
    assert_floats(&latents, (float[]){0.1f}, 1);
    latents = 1.0f;
    args.parity = true;
    assert_int_equal(plain->euler(ctx, &args), ST_OK);
    assert_true(latents == 25.0f / 256);
}

/* Token (i, j), feature c * 4 + dy * 2 + dx is latent pixel (2i + dy, 2j + dx), channel c. */
static void latents_are_unpacked(void **state)
{
    (void)state;
    enum { H = 4, W = 6, C = 3 };
    float packed[H / 2 * W / 2 * C * 4], z[H * W * C];
    for (int i = 0; i < H * W * C; i++) packed[i] = (float)i;
    latent_unpack_args args = {.packed = packed, .z = z, .height = H, .width = W, .channels = C, .scaling = 2.0f,
                               .shift = 0.25f, .type = DT_F32};
    assert_int_equal(plain->latent_unpack(ctx, &args), ST_OK);
    /* pixel (3, 4), channel 2: token 1 * 3 + 2 = 5, feature 2 * 4 + 1 * 2 + 0 = 10, so 5 * 12 + 10 = 70 */
    assert_true(z[(3 * W + 4) * C + 2] == 70 / 2.0f + 0.25f);
    /* pixel (0, 1), channel 0: token 0, feature 1 */
    assert_true(z[1 * C] == 0.75f);
}

static void group_norm_by_hand(void **state)
{
    (void)state;
    /* Two rows of one pixel, four channels in two groups: {1, 3, 5, 9} has mean 4.5 and variance 8.75, {2, 2, 2, 2} none. */
    const float x[] = {1, 3, 2, 2, 5, 9, 2, 2}, scale[] = {1, 2, 1, 1}, shift[] = {0, 1, 0, 0};
    double sums[8];
    float mul[4], plus[4];
    group_sums_args args = {.x = x, .sums = sums, .height = 2, .width = 1, .channels = 4, .groups = 2, .type = DT_F32};
    assert_int_equal(plain->group_sums(ctx, &args), ST_OK);
    const double want[] = {4, 10, 4, 8, 14, 106, 4, 8};
    for (int i = 0; i < 8; i++) assert_true(sums[i] == want[i]);

    /* A row at a time, as two ranks would, and both at once. */
    double totals[4] = {99, 99, 99, 99}, at_once[4];
    for (int row = 0; row < 2; row++) {
        group_add_args add = {.sums = sums + 4 * row, .totals = totals, .height = 1, .groups = 2, .first = row == 0};
        assert_int_equal(plain->group_add(ctx, &add), ST_OK);
    }
    group_add_args all = {.sums = sums, .totals = at_once, .height = 2, .groups = 2, .first = true};
    assert_int_equal(plain->group_add(ctx, &all), ST_OK);
    const double added[] = {18, 116, 8, 16};
    for (int i = 0; i < 4; i++) assert_true(totals[i] == added[i] && at_once[i] == added[i]);

    group_finish_args finish = {.totals = totals, .scale = scale, .shift = shift, .mul = mul, .add = plus, .n_pixels = 2,
                                .channels = 4, .groups = 2, .eps = 0.25f};
    assert_int_equal(plain->group_finish(ctx, &finish), ST_OK);
    assert_floats(mul, (float[]){1.0f / 3, 2.0f / 3, 2, 2}, 4);
    assert_floats(plus, (float[]){-1.5f, -2, -4, -4}, 4);
}

static void conv_by_hand(void **state)
{
    (void)state;
    const float x[] = {1, 2, 3, 4}, w[] = {0, 0, 0, 1, 2, 0, 0, 0, 0}, ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const float above[] = {10, 20}, below[] = {30, 40}, bias[] = {0.5f}, mul[] = {1}, plus[] = {100};
    float y[4];
    conv_args args = {.x = x, .y = y, .w = {w, NULL, DT_F32, DT_F32}, .height = 2, .width = 2, .c_in = 1, .c_out = 1,
                      .kernel = 3, .type = DT_F32, .y_type = DT_F32};
    assert_int_equal(plain->conv(ctx, &args), ST_OK); /* left neighbour + 2 x */
    assert_floats(y, (float[]){2, 5, 6, 11}, 4);

    args.w = (linear_weight){ones, bias, DT_F32, DT_F32};
    args.x_above = above;
    args.x_below = below;
    assert_int_equal(plain->conv(ctx, &args), ST_OK);
    assert_floats(y, (float[]){40.5f, 40.5f, 80.5f, 80.5f}, 4);

    args.x_above = args.x_below = NULL; /* outside the image is zero after the norm, not 100 */
    args.norm_mul = mul;
    args.norm_add = plus;
    args.residual = x;
    assert_int_equal(plain->conv(ctx, &args), ST_OK);
    assert_floats(y, (float[]){411.5f, 412.5f, 413.5f, 414.5f}, 4);
}

static void conv_reads_through_nearest(void **state)
{
    (void)state;
    const float x[] = {1, 2}, ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, below[] = {5, 5};
    float y[8];
    conv_args args = {.x = x, .x_below = below, .y = y, .w = {ones, NULL, DT_F32, DT_F32}, .height = 2, .width = 4,
                      .c_in = 1, .c_out = 1, .kernel = 3, .type = DT_F32, .y_type = DT_F32, .upsample = true};
    assert_int_equal(plain->conv(ctx, &args), ST_OK); /* rows 0, 1: 1 1 2 2; below: 5 5 5 5 */
    assert_floats(y, (float[]){4, 8, 10, 8, 14, 23, 25, 18}, 8);
}

/* Channels of two inputs and two outputs: [c_out, c_in, 1, 1]. */
static void conv_mixes_channels(void **state)
{
    (void)state;
    const float x[] = {1, 2}, w[] = {1, 10, 100, 1000};
    float y[2];
    conv_args args = {.x = x, .y = y, .w = {w, NULL, DT_F32, DT_F32}, .height = 1, .width = 1, .c_in = 2, .c_out = 2,
                      .kernel = 1, .type = DT_F32, .y_type = DT_F32};
    assert_int_equal(plain->conv(ctx, &args), ST_OK);
    assert_floats(y, (float[]){21, 2100}, 2);
}

static void samples_become_bytes(void **state)
{
    (void)state;
    const float x[] = {-1, 1, 0, 2, -2, NAN, -1 + 2 * 1.4f / 255, -1 + 2 * 1.6f / 255};
    const uint8_t want[] = {0, 255, 128, 255, 0, 0, 1, 2}; /* 127.5 is a tie: to even, up */
    uint8_t y[8];
    assert_int_equal(plain->to_u8(ctx, &(to_u8_args){.x = x, .y = y, .n = 8, .type = DT_F32}), ST_OK);
    for (int i = 0; i < 8; i++) assert_int_equal(y[i], want[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_by_hand),
        cmocka_unit_test(linear_activations),
        cmocka_unit_test(linear_parity_rounds_before_the_sum),
        cmocka_unit_test(wide_weights_are_rounded_on_use),
        cmocka_unit_test(layernorm_by_hand),
        cmocka_unit_test(rmsnorm_by_hand),
        cmocka_unit_test(qk_norm_rope_by_hand),
        cmocka_unit_test(gelus_of_the_bf16_reference),
        cmocka_unit_test(rows_are_gathered),
        cmocka_unit_test(euler_by_hand),
        cmocka_unit_test(latents_are_unpacked),
        cmocka_unit_test(group_norm_by_hand),
        cmocka_unit_test(conv_by_hand),
        cmocka_unit_test(conv_reads_through_nearest),
        cmocka_unit_test(conv_mixes_channels),
        cmocka_unit_test(samples_become_bytes),
    };
    return cmocka_run_group_tests(tests, plain_open, plain_close);
}
