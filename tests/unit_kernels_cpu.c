/* Every operation of the fast kernels against the plain ones: the cpu's on every instruction set of this machine, or with
 * DYPE_TEST_DEVICE=cuda the GPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "device_kernels.h"
#include "kernel_check.h"
#include "program.h"

static const kernel_table *cpu, *plain;
static kernel_context *cpu_ctx, *plain_ctx;

/* ---- products ---- */

typedef struct linear_case {
    int32_t    n_rows, n_first, n_in, n_out, gap; /* gap: row strides beyond the width */
    dtype      type, y_type, w_type, bias_type;   /* DT_OTHER: no bias */
    activation act;
    bool       gate, parity;
} linear_case;

static const linear_case linear_cases[] = {
    {1, 0, 64, 64, 0, DT_F32, DT_F32, DT_F32, DT_F32, ACT_NONE, false, false},
    {64, 0, 192, 128, 0, DT_F32, DT_F32, DT_BF16, DT_BF16, ACT_NONE, false, false},
    {130, 70, 67, 129, 5, DT_F32, DT_F32, DT_F16, DT_OTHER, ACT_GELU_TANH, false, false},
    {65, 1, 33, 3, 7, DT_F32, DT_F32, DT_F32, DT_F16, ACT_SILU, false, false},
    {28, 0, 300, 500, 0, DT_F32, DT_F32, DT_BF16, DT_BF16, ACT_QUICK_GELU, false, false},
    {70, 6, 96, 200, 3, DT_F32, DT_F32, DT_BF16, DT_F32, ACT_NONE, true, false},
    {64, 0, 192, 128, 0, DT_BF16, DT_BF16, DT_BF16, DT_BF16, ACT_NONE, false, false},
    {131, 67, 97, 260, 9, DT_BF16, DT_BF16, DT_F32, DT_F32, ACT_GELU_TANH, false, false},
    {20, 0, 128, 96, 0, DT_BF16, DT_F32, DT_F16, DT_F16, ACT_SILU, false, false},
    {5, 0, 3072, 130, 0, DT_BF16, DT_BF16, DT_BF16, DT_OTHER, ACT_NONE, true, false},
    {70, 6, 96, 200, 3, DT_BF16, DT_BF16, DT_BF16, DT_BF16, ACT_NONE, true, true},
    {33, 0, 80, 72, 1, DT_BF16, DT_BF16, DT_BF16, DT_BF16, ACT_QUICK_GELU, false, true},
    {33, 0, 80, 72, 1, DT_BF16, DT_F32, DT_BF16, DT_BF16, ACT_GELU_TANH, false, true},
    {9, 0, 50, 140, 0, DT_F32, DT_F32, DT_F32, DT_F32, ACT_GELU, false, false},
    {9, 0, 50, 140, 0, DT_BF16, DT_BF16, DT_BF16, DT_BF16, ACT_GELU, false, true},
    {3, 0, 4096, 40, 0, DT_F32, DT_F32, DT_F32, DT_OTHER, ACT_NONE, false, false},
    /* products of more than 24 MiB in fp32, which a GPU finishes in runs of rows */
    {70, 0, 8, 98304, 0, DT_BF16, DT_BF16, DT_BF16, DT_BF16, ACT_SILU, false, false},
};

static void linear_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(linear_cases) / sizeof(linear_cases[0]); i++) {
        const linear_case *c = &linear_cases[i];
        int64_t ldx = c->n_in + c->gap, ldy = c->n_out + 2 * c->gap, n_y = c->n_rows * ldy;
        void *x = array_make("x", c->type, c->n_rows * ldx, 0.1f, 1.0f);
        void *w = array_make("w", c->w_type, (int64_t)c->n_out * c->n_in, 0.0f, 1.0f / sqrtf((float)c->n_in));
        void *bias = c->bias_type == DT_OTHER ? NULL : array_make("bias", c->bias_type, c->n_out, 0.0f, 0.5f);
        float *gate = c->gate ? array_make("gate", DT_F32, c->n_out, 0.0f, 1.0f) : NULL;
        void *want = array_make("y", c->y_type, n_y, 0.0f, 1.0f), *got = array_copy(want, c->y_type, n_y);
        void *before = array_copy(want, c->y_type, n_y);
        linear_args args = {.x = x, .y = want, .w = {w, bias, c->w_type, bias == NULL ? DT_F32 : c->bias_type},
                            .gate = gate, .ldx = ldx, .ldy = ldy, .n_rows = c->n_rows, .n_first = c->n_first,
                            .n_in = c->n_in, .n_out = c->n_out, .type = c->type, .y_type = c->y_type, .act = c->act,
                            .parity = c->parity};
        assert_ok(plain->linear(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->linear(cpu_ctx, &args));

        char what[64];
        snprintf(what, sizeof(what), "linear case %zu", i);
        assert_close(got, want, c->y_type, n_y, what);
        size_t bytes = dtype_bytes(c->y_type);
        for (int64_t row = 0; row < c->n_rows; row++) /* what lies between the rows is not ours */
            assert_same_bits((char *)got + (size_t)(row * ldy + c->n_out) * bytes,
                             (char *)before + (size_t)(row * ldy + c->n_out) * bytes, 2 * (size_t)c->gap * bytes, what);
        free(x), free(w), free(bias), free(gate), free(want), free(got), free(before);
    }
}

/* Every end of a product with every kind of bias: activations (or a gate), roundings, types, whole and ragged columns. */
static void linear_ends_are_right(void **state)
{
    (void)state;
    enum { ROWS = 3, IN = 16, MOST = 40, N_ENDS = ACT_GELU + 2 };
    static const dtype both[][2] = {{DT_F32, DT_F32}, {DT_BF16, DT_BF16}, {DT_BF16, DT_F32}};
    static const dtype biases[] = {DT_OTHER, DT_F32, DT_BF16, DT_F16};
    for (int form = 0; form < 3 * N_ENDS * 4 * 2 * 2; form++) {
        const dtype   type = both[form % 3][0], y_type = both[form % 3][1];
        const int     end = form / 3 % N_ENDS;
        const dtype   bias_type = biases[form / 3 / N_ENDS % 4];
        const bool    parity = form / 3 / N_ENDS / 4 % 2 == 1;
        const int32_t n_out = form / 3 / N_ENDS / 8 == 0 ? MOST : MOST - 1;
        void *x = array_make("x", type, ROWS * IN, 0.1f, 1.0f), *w = array_make("w", DT_F32, n_out * IN, 0.0f, 0.5f);
        void *bias = bias_type == DT_OTHER ? NULL : array_make("bias", bias_type, n_out, 0.0f, 0.5f);
        float *gate = end > ACT_GELU ? array_make("gate", DT_F32, n_out, 0.0f, 1.0f) : NULL;
        void *want = array_make("y", y_type, ROWS * n_out, 0.0f, 1.0f), *got = array_copy(want, y_type, ROWS * n_out);
        linear_args args = {.x = x, .y = want, .w = {w, bias, DT_F32, bias == NULL ? biases[1 + end % 3] : bias_type}, .gate = gate,
                            .ldx = IN, .ldy = n_out, .n_rows = ROWS, .n_in = IN, .n_out = n_out, .type = type,
                            .y_type = y_type, .act = gate != NULL ? ACT_NONE : (activation)end, .parity = parity};
        assert_ok(plain->linear(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->linear(cpu_ctx, &args));
        char what[64];
        snprintf(what, sizeof(what), "linear form %d", form);
        assert_close(got, want, y_type, ROWS * n_out, what);
        free(x), free(w), free(bias), free(gate), free(want), free(got);
    }
}

typedef struct conv_case {
    int32_t height, width, first_row, c_in, c_out, kernel;
    dtype   type, y_type, w_type;
    bool    above, below, norm, silu, upsample, residual, parity;
} conv_case;

static const conv_case conv_cases[] = {
    {8, 32, 0, 16, 32, 3, DT_F32, DT_F32, DT_F32, false, false, false, false, false, false, false},
    {5, 37, 11, 3, 24, 3, DT_F32, DT_F32, DT_BF16, true, true, true, true, false, true, false},
    {10, 34, 6, 24, 3, 3, DT_F32, DT_F32, DT_F16, true, false, true, true, false, false, false},
    {6, 70, 14, 48, 16, 3, DT_F32, DT_F32, DT_BF16, true, true, false, false, true, false, false},
    {3, 5, 0, 20, 12, 1, DT_F32, DT_F32, DT_F32, true, true, false, false, false, true, false},
    {1, 1, 0, 8, 8, 3, DT_F32, DT_F32, DT_F32, false, false, true, false, false, false, false},
    {8, 32, 0, 16, 32, 3, DT_BF16, DT_BF16, DT_BF16, false, false, false, false, false, false, false},
    {5, 37, 11, 24, 40, 3, DT_BF16, DT_BF16, DT_F32, false, true, true, true, false, true, false},
    {6, 70, 14, 32, 16, 3, DT_BF16, DT_F32, DT_BF16, true, true, false, false, true, false, false},
    {9, 33, 7, 48, 32, 3, DT_BF16, DT_BF16, DT_BF16, true, true, true, true, false, true, true},
    {9, 33, 7, 48, 32, 1, DT_BF16, DT_BF16, DT_BF16, false, false, false, false, false, false, true},
    {4, 6, 8, 300, 10, 3, DT_BF16, DT_BF16, DT_BF16, true, true, true, true, false, true, false},
    {5, 20, 3, 12, 6, 3, DT_BF16, DT_F32, DT_BF16, false, true, true, true, false, true, false},
    {5, 20, 3, 12, 5, 3, DT_BF16, DT_F32, DT_BF16, false, true, true, true, false, true, true},
};

static void conv_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(conv_cases) / sizeof(conv_cases[0]); i++) { /* each without and with wrap */
        const conv_case *c = &conv_cases[i / 2];
        int64_t source = c->upsample ? 4 : 1, n_y = (int64_t)c->height * c->width * c->c_out;
        int64_t row = (int64_t)(c->upsample ? c->width / 2 : c->width) * c->c_in;
        float fan = sqrtf((float)(c->c_in * c->kernel * c->kernel));
        void *x = array_make("x", c->type, (int64_t)c->height * c->width * c->c_in / source, 0.2f, 1.0f);
        void *above = c->above ? array_make("above", c->type, row, 0.0f, 1.0f) : NULL;
        void *below = c->below ? array_make("below", c->type, row, 0.0f, 1.0f) : NULL;
        void *w = array_make("w", c->w_type, (int64_t)c->c_out * c->c_in * c->kernel * c->kernel, 0.0f, 1.0f / fan);
        void *bias = array_make("bias", c->w_type, c->c_out, 0.0f, 0.5f);
        float *mul = c->norm ? array_make("mul", DT_F32, c->c_in, 1.0f, 0.3f) : NULL;
        float *plus = c->norm ? array_make("plus", DT_F32, c->c_in, 0.0f, 0.3f) : NULL;
        void *residual = c->residual ? array_make("residual", c->y_type, n_y, 0.0f, 1.0f) : NULL;
        void *want = array_make("y", c->y_type, n_y, 0.0f, 1.0f), *got = array_copy(want, c->y_type, n_y);
        conv_args args = {.x = x, .x_above = above, .x_below = below, .y = want, .residual = residual, .norm_mul = mul,
                          .norm_add = plus, .w = {w, bias, c->w_type, c->w_type}, .height = c->height,
                          .width = c->width, .first_row = c->first_row, .c_in = c->c_in, .c_out = c->c_out,
                          .kernel = c->kernel, .type = c->type, .y_type = c->y_type, .silu = c->silu,
                          .upsample = c->upsample, .wrap = i % 2 == 1, .parity = c->parity};
        assert_ok(plain->conv(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->conv(cpu_ctx, &args));
        char what[64];
        snprintf(what, sizeof(what), "conv case %zu%s", i / 2, i % 2 == 1 ? " wrapped" : "");
        assert_close(got, want, c->y_type, n_y, what);

        const void **moved = (const void **[]){&args.x, &args.x_above, &args.x_below}[i % 3]; /* one of them on any address */
        const int64_t n_moved = moved == &args.x ? (int64_t)c->height * c->width * c->c_in / source : row;
        const size_t element = dtype_bytes(c->type);
        if (*moved != NULL) {
            char *room = malloc((size_t)(n_moved + 1) * element);
            const void *before = *moved;
            assert_non_null(room);
            *moved = memcpy(room + element, before, (size_t)n_moved * element);
            args.y = want;
            assert_ok(cpu->conv(cpu_ctx, &args));
            assert_same_bits(want, got, (size_t)n_y * dtype_bytes(c->y_type), what);
            *moved = before;
            free(room);
        }
        if (residual != NULL) { /* the sum may be made in place */
            args.y = residual;
            assert_ok(cpu->conv(cpu_ctx, &args));
            assert_same_bits(residual, got, (size_t)n_y * dtype_bytes(c->y_type), what);
        }
        free(x), free(above), free(below), free(w), free(bias), free(mul), free(plus), free(residual), free(want),
            free(got);
    }
}

/* What comes before and after the sum, in every combination, on one tile: norm, silu, residual, the reference's roundings,
 * channels in whole pieces of 8 and not, an even and an odd number of them out; kinds of bias and weight in turn. */
static void conv_forms_are_right(void **state)
{
    (void)state;
    enum { H = 9, W = 9, MOST_IN = 40, MOST_OUT = 34 }; /* more rows and channels than a GPU takes at once */
    static const dtype both[][2] = {{DT_F32, DT_F32}, {DT_BF16, DT_BF16}, {DT_BF16, DT_F32}};
    static const dtype kinds[] = {DT_F32, DT_BF16, DT_F16, DT_OTHER};
    for (int form = 0; form < 3 * 64; form++) {
        const int     bits = form / 3;
        const dtype   type = both[form % 3][0], y_type = both[form % 3][1];
        const dtype   w_type = kinds[bits % 3], bias_type = kinds[(bits + bits / 4 + bits / 16) % 4];
        const int32_t c_in = (bits & 1) != 0 ? MOST_IN : MOST_IN - 3, c_out = (bits & 2) != 0 ? MOST_OUT : MOST_OUT - 1;
        const bool    norm = (bits & 4) != 0, silu = (bits & 8) != 0, parity = (bits & 32) != 0;
        void *x = array_make("x", type, H * W * c_in, 0.2f, 1.0f);
        void *w = array_make("w", w_type, c_out * c_in * 9, 0.0f, 1.0f / sqrtf((float)c_in * 9));
        void *bias = bias_type == DT_OTHER ? NULL : array_make("bias", bias_type, c_out, 0.0f, 0.5f);
        float *mul = norm ? array_make("mul", DT_F32, c_in, 1.0f, 0.3f) : NULL;
        float *plus = norm ? array_make("plus", DT_F32, c_in, 0.0f, 0.3f) : NULL;
        void *residual = (bits & 16) != 0 ? array_make("residual", y_type, H * W * c_out, 0.0f, 1.0f) : NULL;
        void *want = array_make("y", y_type, H * W * c_out, 0.0f, 1.0f), *got = array_copy(want, y_type, H * W * c_out);
        conv_args args = {.x = x, .y = want, .residual = residual, .norm_mul = mul, .norm_add = plus,
                          .w = {w, bias, w_type, bias == NULL ? w_type : bias_type}, .height = H, .width = W, .c_in = c_in,
                          .c_out = c_out, .kernel = 3, .type = type, .y_type = y_type, .silu = silu, .parity = parity};
        assert_ok(plain->conv(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->conv(cpu_ctx, &args));
        /* With parity the products are rounded to bf16 before anything else: sums in another order may fall on the other side. */
        const double error = relative_l2(got, want, y_type, H * W * c_out);
        const double allowed = tolerance_of(parity && type == DT_BF16 ? DT_BF16 : y_type);
        if (error > allowed) fail_msg("conv form %d: relative L2 %.3g, allowed %.3g", form, error, allowed);
        free(x), free(w), free(bias), free(mul), free(plus), free(residual), free(want), free(got);
    }
}

/* ---- rows ---- */

static const struct {
    int32_t n_rows, width, gap;
} row_cases[] = {{1, 1, 0}, {3, 7, 2}, {5, 64, 0}, {3, 64, 3}, {4, 192, 8}, {2, 257, 1}, {3, 3072, 0},
               {2, 3073, 0}, {1, 12296, 0}}; /* several rounds of a GPU's block, by elements and by vectors */

static const dtype types[] = {DT_F32, DT_BF16};

static void layernorm_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(row_cases) / sizeof(row_cases[0]); i++) {
        for (int form = 0; form < 8; form++) { /* bits: type, one_plus, parity */
            dtype type = types[form & 1];
            int32_t width = row_cases[i].width, n_rows = row_cases[i].n_rows, gap = row_cases[i].gap;
            int64_t n = (int64_t)n_rows * (width + gap);
            void *x = array_make("x", type, n, 3.0f, 2.0f), *want = array_copy(x, type, n), *got = array_copy(x, type, n);
            float *scale = array_make("scale", DT_F32, width, 0.3f, 0.5f);
            float *shift = array_make("shift", DT_F32, width, 0.1f, 0.5f);
            layernorm_args args = {.x = x, .y = want, .scale = scale, .shift = shift, .ldx = width + gap,
                                   .ldy = width + gap, .n_rows = n_rows, .width = width, .eps = 1e-6f, .type = type,
                                   .one_plus = (form & 2) != 0, .parity = (form & 4) != 0};
            assert_ok(plain->layernorm(plain_ctx, &args));
            args.y = got;
            assert_ok(cpu->layernorm(cpu_ctx, &args));
            assert_close(got, want, type, n, "layernorm");

            for (int given = 0; given < 2; given++) { /* one of the two */
                args.scale = given == 0 ? scale : NULL;
                args.shift = given == 0 ? NULL : shift;
                args.y = want;
                assert_ok(plain->layernorm(plain_ctx, &args));
                args.y = got;
                assert_ok(cpu->layernorm(cpu_ctx, &args));
                assert_close(got, want, type, n, "layernorm, scale or shift");
            }
            args.scale = args.shift = NULL; /* and in place */
            args.y = want;
            assert_ok(plain->layernorm(plain_ctx, &args));
            memcpy(got, x, (size_t)n * dtype_bytes(type));
            args.x = args.y = got;
            assert_ok(cpu->layernorm(cpu_ctx, &args));
            assert_close(got, want, type, n, "layernorm in place, no scale");
            free(x), free(want), free(got), free(scale), free(shift);
        }
    }
}

static void rmsnorm_is_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(row_cases) / sizeof(row_cases[0]); i++) {
        for (int form = 0; form < 4; form++) { /* bits: type, parity */
            dtype type = types[form & 1];
            int32_t width = row_cases[i].width, n_rows = row_cases[i].n_rows, gap = row_cases[i].gap;
            int64_t n = (int64_t)n_rows * (width + gap);
            void *x = array_make("x", type, n, 0.5f, 2.0f), *want = array_copy(x, type, n), *got = array_copy(x, type, n);
            float *scale = array_make("scale", DT_F32, width, 1.0f, 0.5f);
            rmsnorm_args args = {.x = x, .y = want, .scale = scale, .ldx = width + gap, .ldy = width + gap,
                                 .n_rows = n_rows, .width = width, .eps = 1e-6f, .type = type,
                                 .parity = (form & 2) != 0};
            assert_ok(plain->rmsnorm(plain_ctx, &args));
            args.x = args.y = got;
            assert_ok(cpu->rmsnorm(cpu_ctx, &args));
            assert_close(got, want, type, n, "rmsnorm");
            free(x), free(want), free(got), free(scale);
        }
    }
}

static void qk_norm_rope_is_right(void **state)
{
    (void)state;
    static const int32_t pairs[][3] = {{8, 28, 28}, {4, 14, 14}, {0, 2, 2}, {1, 3, 4}, {32, 112, 112},
                                       {256, 0, 0}, {0, 256, 0}, {0, 0, 256}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        for (int form = 0; form < 8; form++) { /* bits: type, parity, rows on odd elements */
            enum { ROWS = 5, HEADS = 3, POSITIONS = 9 };
            const int gap = (form & 4) != 0 ? 7 : 6;
            dtype type = types[form & 1];
            int32_t head_dim = 2 * (pairs[i][0] + pairs[i][1] + pairs[i][2]), pos[ROWS * 3];
            int64_t ld = HEADS * head_dim + gap, n = ROWS * ld;
            int64_t at[3] = {0, (int64_t)pairs[i][0] * POSITIONS * 2, (int64_t)(pairs[i][0] + pairs[i][1]) * POSITIONS * 2};
            for (int p = 0; p < ROWS * 3; p++) pos[p] = p * 7 % POSITIONS;
            float *table = array_make("table", DT_F32, (int64_t)head_dim * POSITIONS, 0.0f, 0.6f);
            float *scale = array_make("scale", DT_F32, head_dim, 1.0f, 0.3f);
            void *want = array_make("x", type, n, 0.0f, 2.0f), *got = array_copy(want, type, n);
            qk_norm_rope_args args = {.x = want, .scale = scale, .table = table, .pos = pos, .ld = ld,
                                      .table_at = {at[0], at[1], at[2]},
                                      .n_pairs = {pairs[i][0], pairs[i][1], pairs[i][2]}, .n_rows = ROWS,
                                      .n_heads = HEADS, .head_dim = head_dim, .eps = 1e-6f, .type = type,
                                      .parity = (form & 2) != 0};
            assert_ok(plain->qk_norm_rope(plain_ctx, &args));
            args.x = got;
            assert_ok(cpu->qk_norm_rope(cpu_ctx, &args));
            assert_close(got, want, type, n, "qk_norm_rope");
            free(table), free(scale), free(want), free(got);
        }
    }
}

static void group_sums_are_right(void **state)
{
    (void)state;
    static const struct {
        int32_t height, width, channels, groups;
    } cases[] = {{3, 5, 6, 3}, {2, 7, 32, 8}, {1, 4, 512, 32}, {2, 3, 96, 32}, {1, 600, 6, 3}, {1, 150, 32, 8}, {1, 9, 768, 128}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int t = 0; t < 2; t++) {
            int64_t n = (int64_t)cases[i].height * cases[i].width * cases[i].channels;
            int64_t n_sums = (int64_t)cases[i].height * cases[i].groups * 2;
            void *x = array_make("x", types[t], n, 0.5f, 1.0f);
            double *want = calloc((size_t)n_sums, sizeof(double)), *got = calloc((size_t)n_sums, sizeof(double));
            assert_true(want != NULL && got != NULL);
            group_sums_args args = {.x = x, .sums = want, .height = cases[i].height, .width = cases[i].width,
                                    .channels = cases[i].channels, .groups = cases[i].groups, .type = types[t]};
            assert_ok(plain->group_sums(plain_ctx, &args));
            args.sums = got;
            assert_ok(cpu->group_sums(cpu_ctx, &args));
            for (int64_t s = 0; s < n_sums; s++) /* fp64 sums of fp32 values, another order */
                assert_true(fabs(got[s] - want[s]) <= 1e-13 * (fabs(want[s]) + 1.0));
            free(x), free(want), free(got);
        }
    }
}

/* ---- elements ---- */

enum { N_ELEMENTS = 8199 }; /* four blocks of 256 threads with 8 elements each, and a tail */

static void elementwise_is_right(void **state)
{
    (void)state;
    for (int form = 0; form < 8; form++) { /* bits: type, parity, arrays that start on their second element */
        dtype type = types[form & 1];
        const size_t shift = (form & 4) != 0 ? dtype_bytes(type) : 0;
        bool parity = (form & 2) != 0;
        char *arrays[5] = {array_make("a", type, N_ELEMENTS + 1, 0.0f, 3.0f), array_make("b", type, N_ELEMENTS + 1, 0.0f, 1.0f)};
        for (int i = 2; i < 4; i++) arrays[i] = calloc(N_ELEMENTS + 1, sizeof(float));
        arrays[4] = array_make("latents", DT_F32, N_ELEMENTS + 1, 0.0f, 1.0f);
        assert_true(arrays[2] != NULL && arrays[3] != NULL);
        void *a = arrays[0] + shift, *b = arrays[1] + shift, *want = arrays[2] + shift, *got = arrays[3] + shift;

        silu_args silu = {.x = a, .y = want, .n = N_ELEMENTS, .type = type};
        assert_ok(plain->silu(plain_ctx, &silu));
        silu.y = got;
        assert_ok(cpu->silu(cpu_ctx, &silu));
        assert_close(got, want, type, N_ELEMENTS, "silu");

        add_args add = {.a = a, .b = b, .y = want, .n = N_ELEMENTS, .type = type};
        assert_ok(plain->add(plain_ctx, &add));
        memcpy(got, b, N_ELEMENTS * dtype_bytes(type));
        add.b = add.y = got;
        assert_ok(cpu->add(cpu_ctx, &add));
        assert_same_bits(got, want, N_ELEMENTS * dtype_bytes(type), "add");

        gated_gelu_args gelu = {.a = a, .b = b, .y = want, .n = N_ELEMENTS, .type = type, .parity = parity};
        assert_ok(plain->gated_gelu(plain_ctx, &gelu));
        memcpy(got, a, N_ELEMENTS * dtype_bytes(type));
        gelu.a = gelu.y = got;
        assert_ok(cpu->gated_gelu(cpu_ctx, &gelu));
        assert_close(got, want, type, N_ELEMENTS, "gated_gelu");

        for (int t = 0; t < 2; t++) {
            convert_args convert = {.x = a, .y = want, .n = N_ELEMENTS, .x_type = type, .y_type = types[t]};
            char *wanted = arrays[2] + (shift != 0 ? dtype_bytes(types[t]) : 0), *made = arrays[3] + (wanted - arrays[2]);
            convert.y = wanted;
            assert_ok(plain->convert(plain_ctx, &convert));
            convert.y = made;
            assert_ok(cpu->convert(cpu_ctx, &convert));
            assert_same_bits(made, wanted, N_ELEMENTS * dtype_bytes(types[t]), "convert");
        }

        float *latents = (float *)(void *)arrays[4] + (shift != 0);
        float *latents_want = array_copy(latents, DT_F32, N_ELEMENTS);
        euler_args euler = {.latents = latents_want, .v = b, .n = N_ELEMENTS, .dt = -0.0371f, .type = type,
                            .parity = parity};
        assert_ok(plain->euler(plain_ctx, &euler));
        euler.latents = latents;
        assert_ok(cpu->euler(cpu_ctx, &euler));
        assert_same_bits(latents, latents_want, sizeof(float) * N_ELEMENTS, "euler");

        _Alignas(16) uint8_t u8_got[N_ELEMENTS + 2], u8_want[N_ELEMENTS];
        uint8_t *u8 = u8_got + (shift != 0 ? 2 : 0);
        to_u8_args to_u8 = {.x = b, .y = u8_want, .n = N_ELEMENTS, .type = type, .parity = parity};
        assert_ok(plain->to_u8(plain_ctx, &to_u8));
        to_u8.y = u8;
        assert_ok(cpu->to_u8(cpu_ctx, &to_u8));
        assert_same_bits(u8, u8_want, N_ELEMENTS, "to_u8");
        for (int i = 0; i < 5; i++) free(arrays[i]);
        free(latents_want);
    }
}

/* silu within 4 units in the last place of the fp64 value. gelu's exponent 2u has itself five roundings, at x = -1.5
 * together up to 2.5e-7 of |2u| = 2.6, which is 5.5 units of the result: within 8. Both right at the ends of the range. */
static double silu_64(double x)
{
    return x / (1.0 + exp(-x));
}

static double gelu_64(double x)
{
    return x / (1.0 + exp(-2.0 * sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static double worst_ulps(const float *x, const float *got, int n, double (*truth)(double))
{
    double worst = 0.0;
    for (int i = 0; i < n; i++) {
        float want = (float)truth(x[i]);
        double ulp = nextafterf(fabsf(want), INFINITY) - fabsf(want);
        worst = fmax(worst, fabs(got[i] - truth(x[i])) / ulp);
    }
    return worst;
}

static void activations_are_accurate(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *x = malloc(N * sizeof(float)), *y = malloc(N * sizeof(float)), *ones = malloc(N * sizeof(float));
    assert_true(x != NULL && y != NULL && ones != NULL);
    for (int i = 0; i < N; i++) x[i] = -10.0f + 20.0f * (float)i / N, ones[i] = 1.0f;
    assert_ok(cpu->silu(cpu_ctx, &(silu_args){.x = x, .y = y, .n = N, .type = DT_F32}));
    assert_true(worst_ulps(x, y, N, silu_64) <= 4.0);
    for (int i = 0; i < N; i++) x[i] = -1.5f + 6.5f * (float)i / N;
    assert_ok(cpu->gated_gelu(cpu_ctx, &(gated_gelu_args){.a = x, .b = ones, .y = y, .n = N, .type = DT_F32}));
    assert_true(worst_ulps(x, y, N, gelu_64) <= 8.0);

    const float ends[] = {0.0f, -0.0f, 200.0f, -200.0f, 3e38f, -3e38f, INFINITY, NAN, 1e-40f};
    float out[9];
    assert_ok(cpu->silu(cpu_ctx, &(silu_args){.x = ends, .y = out, .n = 9, .type = DT_F32}));
    assert_true(out[0] == 0.0f && out[1] == 0.0f && out[2] == 200.0f && fabsf(out[3]) < 1e-30f && out[4] == 3e38f &&
                fabsf(out[5]) <= 0.0f && out[6] == INFINITY && isnan(out[7]) && out[8] == 0.5f * 1e-40f);
    free(x), free(y), free(ones);
}

static void bf16_conversion_meets_every_pattern(void **state)
{
    (void)state;
    enum { N = 65536 };
    float *x = malloc(N * sizeof(float));
    uint16_t *halves = malloc(N * sizeof(uint16_t)), *back = malloc(N * sizeof(uint16_t));
    assert_true(x != NULL && halves != NULL && back != NULL);
    for (uint32_t i = 0; i < N; i++) halves[i] = (uint16_t)i;
    convert_args widen = {.x = halves, .y = x, .n = N, .x_type = DT_BF16, .y_type = DT_F32};
    convert_args narrow = {.x = x, .y = back, .n = N, .x_type = DT_F32, .y_type = DT_BF16};
    assert_ok(cpu->convert(cpu_ctx, &widen));
    assert_ok(cpu->convert(cpu_ctx, &narrow));
    const bool one_nan = cpu == kernels_cuda(); /* a GPU has one NaN for all */
    for (uint32_t i = 0; i < N; i++) {
        const float want = bf16_to_f32((uint16_t)i);
        assert_true(back[i] == f32_to_bf16(want) || (one_nan && isnan(want) && isnan(bf16_to_f32(back[i]))));
    }
    free(x), free(halves), free(back);
}

/* F16 weights of every pattern, through a product with 1; infinities and NaN are left out: they spoil the others. */
static void f16_weights_meet_every_pattern(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *w = malloc(N * sizeof(uint16_t));
    float *y = malloc(N * sizeof(float)), one = 1.0f;
    assert_true(w != NULL && y != NULL);
    for (uint32_t i = 0; i < N; i++) w[i] = (i >> 10 & 31) == 31 ? 0 : (uint16_t)i;
    linear_args args = {.x = &one, .y = y, .w = {w, NULL, DT_F16, DT_F32}, .ldx = 1, .ldy = N, .n_rows = 1, .n_in = 1,
                        .n_out = N, .type = DT_F32, .y_type = DT_F32};
    assert_ok(cpu->linear(cpu_ctx, &args));
    for (uint32_t i = 0; i < N; i++) assert_true(y[i] == f16_to_f32(w[i]));
    free(w), free(y);
}

static void weights_may_lie_anywhere(void **state)
{
    (void)state;
    enum { IN = 40, OUT = 24 };
    static const struct {
        dtype type, w_type;
        int   shift; /* bytes */
    } cases[] = {{DT_F32, DT_BF16, 1}, {DT_F32, DT_F16, 2}, {DT_BF16, DT_F16, 2}, {DT_BF16, DT_BF16, 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const dtype type = cases[i].type;
        void *w = array_make("w", cases[i].w_type, IN * OUT, 0.0f, 0.2f), *x = array_make("x", type, IN, 0.0f, 1.0f);
        float want[OUT], got[OUT];
        char *moved = malloc(IN * OUT * 2 + 2);
        assert_non_null(moved);
        memcpy(moved + cases[i].shift, w, IN * OUT * 2);
        linear_args args = {.x = x, .y = want, .w = {w, NULL, cases[i].w_type, DT_F32}, .ldx = IN, .ldy = OUT, .n_rows = 1,
                            .n_in = IN, .n_out = OUT, .type = type, .y_type = type};
        assert_ok(cpu->linear(cpu_ctx, &args));
        args.w.data = moved + cases[i].shift;
        args.y = got;
        assert_ok(cpu->linear(cpu_ctx, &args));
        assert_same_bits(got, want, OUT * dtype_bytes(type), "weights at another address");
        free(w), free(x), free(moved);
    }
}

/* ---- what only moves elements, and GroupNorm's last steps: the same arithmetic on both sides, so the same bits ---- */

static void gathered_rows_are_the_same(void **state)
{
    (void)state;
    enum { ROWS = 7, WIDTH = 37, N_TABLE = 50 };
    static const int32_t ids[ROWS] = {3, 49, 0, 0, 17, 48, 3};
    static const dtype sources[] = {DT_F32, DT_BF16, DT_F16};
    for (int form = 0; form < 18; form++) { /* type, type of the table, summand: none, of the same type, of another */
        dtype type = types[form & 1], source = sources[form / 6], add_type = sources[(form / 6 + form / 2 % 3 / 2) % 3];
        void *table = array_make("table", source, N_TABLE * WIDTH, 0.0f, 1.0f);
        void *add = form / 2 % 3 > 0 ? array_make("add", add_type, ROWS * WIDTH, 0.0f, 1.0f) : NULL;
        void *want = array_make("y", type, ROWS * WIDTH, 0.0f, 1.0f), *got = array_copy(want, type, ROWS * WIDTH);
        gather_rows_args args = {.table = table, .add = add, .ids = ids, .y = want, .n_rows = ROWS, .width = WIDTH,
                                 .table_type = source, .add_type = add_type, .type = type};
        assert_ok(plain->gather_rows(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->gather_rows(cpu_ctx, &args));
        assert_same_bits(got, want, ROWS * WIDTH * dtype_bytes(type), "gather_rows");
        free(table), free(add), free(want), free(got);
    }
}

static void copied_rows_are_the_same(void **state)
{
    (void)state;
    static const struct {
        int64_t ldx, ldy, bytes; /* of 16, 4, 2 and 1 at once */
    } cases[] = {{160, 96, 64}, {52, 44, 36}, {34, 30, 22}, {33, 29, 17}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum { ROWS = 9, BYTES = ROWS * 160 };
        void *x = array_make("x", DT_BF16, BYTES / 2, 0.0f, 1.0f);
        void *want = array_make("y", DT_BF16, BYTES / 2, 0.0f, 1.0f), *got = array_copy(want, DT_BF16, BYTES / 2);
        copy_rows_args args = {.x = x, .y = want, .ldx_bytes = cases[i].ldx, .ldy_bytes = cases[i].ldy,
                               .row_bytes = cases[i].bytes, .n_rows = ROWS};
        assert_ok(plain->copy_rows(plain_ctx, &args));
        args.y = got;
        assert_ok(cpu->copy_rows(cpu_ctx, &args));
        assert_same_bits(got, want, BYTES, "copy_rows");
        free(x), free(want), free(got);
    }
}

static void unpacked_latents_are_the_same(void **state)
{
    (void)state;
    enum { H = 6, W = 10, C = 5, N = H * W * C };
    for (int form = 0; form < 4; form++) { /* bits: type, parity */
        dtype type = types[form & 1];
        float *packed = array_make("packed", DT_F32, N, 0.0f, 1.0f);
        void *want = array_make("z", type, N, 0.0f, 1.0f), *got = array_copy(want, type, N);
        latent_unpack_args args = {.packed = packed, .z = want, .height = H, .width = W, .channels = C,
                                   .scaling = 0.3611f, .shift = 0.1159f, .type = type, .parity = (form & 2) != 0};
        assert_ok(plain->latent_unpack(plain_ctx, &args));
        args.z = got;
        assert_ok(cpu->latent_unpack(cpu_ctx, &args));
        assert_same_bits(got, want, N * dtype_bytes(type), "latent_unpack");
        free(packed), free(want), free(got);
    }
}

static void group_totals_become_factors(void **state)
{
    (void)state;
    enum { HEIGHT = 21, CHANNELS = 96, GROUPS = 32, N = GROUPS * 2 };
    double sums[HEIGHT * N], want[N], got[N];
    float *scale = array_make("scale", DT_F32, CHANNELS, 1.0f, 0.3f), *shift = array_make("shift", DT_F32, CHANNELS, 0.0f, 1.0f);
    float *noise = array_make("sums", DT_F32, HEIGHT * N, 0.1f, 1.0f);
    for (int i = 0; i < HEIGHT * N; i++) /* sums of 3 x 40 values, and of their squares */
        sums[i] = i % 2 == 0 ? 120.0 * (double)noise[i] : 120.0 * (1.0 + 2.0 * (double)noise[i - 1] * (double)noise[i - 1]);
    for (int part = 0; part < 2; part++) { /* the rows above, then the rest */
        group_add_args add = {.sums = sums + part * 10 * N, .totals = want, .height = part == 0 ? 10 : HEIGHT - 10,
                              .groups = GROUPS, .first = part == 0};
        assert_ok(plain->group_add(plain_ctx, &add));
        add.totals = got;
        assert_ok(cpu->group_add(cpu_ctx, &add));
    }
    assert_same_bits(got, want, sizeof(want), "group_add");
    for (int parity = 0; parity < 2; parity++) {
        float mul[2][CHANNELS], plus[2][CHANNELS];
        group_finish_args args = {.totals = want, .scale = scale, .shift = shift, .n_pixels = HEIGHT * 40,
                                  .channels = CHANNELS, .groups = GROUPS, .eps = 1e-6f, .parity = parity == 1};
        for (int i = 0; i < 2; i++) {
            args.mul = mul[i];
            args.add = plus[i];
            assert_ok(i == 0 ? plain->group_finish(plain_ctx, &args) : cpu->group_finish(cpu_ctx, &args));
        }
        assert_same_bits(mul[1], mul[0], sizeof(mul[0]), "group_finish, factors");
        assert_same_bits(plus[1], plus[0], sizeof(plus[0]), "group_finish, summands");
    }
    free(scale), free(shift), free(noise);
}

/* Rows 2^31 + 64 elements apart, of ordinary contents: the second row starts past what 32 bits hold. Only a GPU's table
 * leaves out what lies between; memory that nobody touches costs nothing. */
static void offsets_are_64_bit(void **state)
{
    (void)state;
    enum { WIDTH = 64 };
    const int64_t far = ((int64_t)1 << 31) + 64;
    const size_t  bytes = (size_t)(far + WIDTH) * sizeof(float);
    char *x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *y = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (x == MAP_FAILED || y == MAP_FAILED) {
        print_message("not run: kernels over offsets past 2^31 (address space is limited here)\n");
        skip();
    }
    for (int t = 0; t < 2; t++) {
        const dtype  type = types[t];
        const size_t row = WIDTH * dtype_bytes(type), at = (size_t)far * dtype_bytes(type);
        char *near = array_make("x", type, 2 * WIDTH, 0.5f, 1.0f), want[2 * WIDTH * sizeof(float)];
        void *w = array_make("w", type, WIDTH * WIDTH, 0.0f, 0.1f);
        float *scale = array_make("scale", DT_F32, WIDTH, 1.0f, 0.3f);
        memcpy(x, near, row);
        memcpy(x + at, near + row, row);
        layernorm_args norm = {.x = near, .y = want, .ldx = WIDTH, .ldy = WIDTH, .n_rows = 2, .width = WIDTH, .eps = 1e-6f,
                               .type = type};
        rmsnorm_args rms = {.x = near, .y = want, .scale = scale, .ldx = WIDTH, .ldy = WIDTH, .n_rows = 2, .width = WIDTH,
                            .eps = 1e-6f, .type = type};
        linear_args linear = {.x = near, .y = want, .w = {w, NULL, type, DT_F32}, .ldx = WIDTH, .ldy = WIDTH, .n_rows = 2,
                              .n_in = WIDTH, .n_out = WIDTH, .type = type, .y_type = type, .act = ACT_SILU};
        copy_rows_args copy = {.x = near, .y = want, .ldx_bytes = (int64_t)row, .ldy_bytes = (int64_t)row,
                               .row_bytes = (int64_t)row, .n_rows = 2};
        for (int op = 0; op < 4; op++) {
            if (op == 0) assert_ok(cpu->layernorm(cpu_ctx, &norm));
            if (op == 1) assert_ok(cpu->rmsnorm(cpu_ctx, &rms));
            if (op == 2) assert_ok(cpu->linear(cpu_ctx, &linear));
            if (op == 3) assert_ok(cpu->copy_rows(cpu_ctx, &copy));
            norm.x = rms.x = linear.x = copy.x = x;
            norm.y = rms.y = linear.y = copy.y = y;
            norm.ldx = norm.ldy = rms.ldx = rms.ldy = linear.ldx = linear.ldy = far;
            copy.ldx_bytes = copy.ldy_bytes = (int64_t)at;
            if (op == 0) assert_ok(cpu->layernorm(cpu_ctx, &norm));
            if (op == 1) assert_ok(cpu->rmsnorm(cpu_ctx, &rms));
            if (op == 2) assert_ok(cpu->linear(cpu_ctx, &linear));
            if (op == 3) assert_ok(cpu->copy_rows(cpu_ctx, &copy));
            assert_same_bits(y, want, row, "the first row");
            assert_same_bits(y + at, want + row, row, "a row past 2^31");
            norm.x = rms.x = linear.x = copy.x = near;
            norm.y = rms.y = linear.y = copy.y = want;
            norm.ldx = norm.ldy = rms.ldx = rms.ldy = linear.ldx = linear.ldy = WIDTH;
            copy.ldx_bytes = copy.ldy_bytes = (int64_t)row;
        }
        free(near), free(w), free(scale);
    }
    munmap(x, bytes);
    munmap(y, bytes);
}

/* ---- pictures of more than 2^31 elements ---- */

/* 32 rows of 2^17 pixels of 512 channels, and one row more: the last row lies wholly past 2^31. All zero but for its last pixels,
 * so little memory is really taken. What the last row gives is what it gives alone. */
enum { FAR_WIDTH = 1 << 17, FAR_ROWS = 33, FAR_CHANNELS = 512, FAR_PIXELS = 64 };

/* NULL where address space is limited. */
static uint16_t *far_picture(size_t *bytes)
{
    const int64_t n = (int64_t)FAR_ROWS * FAR_WIDTH * FAR_CHANNELS, at = n - FAR_PIXELS * FAR_CHANNELS;
    *bytes = (size_t)n * sizeof(uint16_t);
    uint16_t *x = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (x == MAP_FAILED) {
        print_message("not run: convolutions and sums past 2^31 elements (address space is limited here)\n");
        return NULL;
    }
    uint16_t *last = array_make("last", DT_BF16, FAR_PIXELS * FAR_CHANNELS, 0.1f, 1.0f);
    memcpy(x + at, last, FAR_PIXELS * FAR_CHANNELS * sizeof(uint16_t));
    free(last);
    return x;
}

static void pictures_past_2_31_are_right(void **state)
{
    (void)state;
    enum { OUT = 8, GROUPS = 4 };
    size_t    bytes = 0;
    if (test_device_is_cuda()) {
        print_message("not run: pictures of more than 2^31 elements on a GPU\n");
        return;
    }
    uint16_t *x = far_picture(&bytes);
    if (x == NULL) return;
    const uint16_t *last_row = x + (int64_t)(FAR_ROWS - 1) * FAR_WIDTH * FAR_CHANNELS;
    const int64_t   n_row = (int64_t)FAR_WIDTH * OUT;
    uint16_t *w = array_make("w", DT_BF16, OUT * FAR_CHANNELS, 0.0f, 0.05f);
    uint16_t *y = malloc((size_t)(n_row * FAR_ROWS) * sizeof(*y)), *alone = malloc((size_t)n_row * sizeof(*alone));
    double   *sums = malloc(FAR_ROWS * GROUPS * 2 * sizeof(*sums)), *sums_alone = malloc(GROUPS * 2 * sizeof(*sums));
    assert_true(y != NULL && alone != NULL && sums != NULL && sums_alone != NULL);
    conv_args conv = {.x = x, .y = y, .w = {w, NULL, DT_BF16, DT_F32}, .height = FAR_ROWS, .width = FAR_WIDTH,
                      .c_in = FAR_CHANNELS, .c_out = OUT, .kernel = 1, .type = DT_BF16, .y_type = DT_BF16};
    assert_int_equal(cpu->conv(cpu_ctx, &conv), ST_OK);
    conv.x = last_row;
    conv.y = alone;
    conv.height = 1;
    conv.first_row = FAR_ROWS - 1;
    assert_int_equal(cpu->conv(cpu_ctx, &conv), ST_OK);
    assert_same_bits(y + n_row * (FAR_ROWS - 1), alone, (size_t)n_row * sizeof(*y), "convolution of the last row");
    assert_true(array_get(alone, DT_BF16, n_row - 1) != 0.0f);

    group_sums_args group = {.x = x, .sums = sums, .height = FAR_ROWS, .width = FAR_WIDTH, .channels = FAR_CHANNELS,
                             .groups = GROUPS, .type = DT_BF16};
    assert_int_equal(cpu->group_sums(cpu_ctx, &group), ST_OK);
    group.x = last_row;
    group.sums = sums_alone;
    group.height = 1;
    assert_int_equal(cpu->group_sums(cpu_ctx, &group), ST_OK);
    assert_same_bits(sums + (FAR_ROWS - 1) * GROUPS * 2, sums_alone, GROUPS * 2 * sizeof(*sums), "sums of the last row");
    assert_true(sums_alone[1] > 0.0);
    munmap(x, bytes);
    free(w), free(y), free(alone), free(sums), free(sums_alone);
}

/* The same for what is written: 8 channels in, 512 out; 4.4 GB of memory, so only with every count. */
static void results_past_2_31_have_their_place(void **state)
{
    (void)state;
    enum { IN = 8 };
    if (!program_full() || test_device_is_cuda()) return;
    const int64_t n_x = (int64_t)FAR_ROWS * FAR_WIDTH * IN, n_row = (int64_t)FAR_WIDTH * FAR_CHANNELS;
    uint16_t *x = array_make("x", DT_BF16, n_x, 0.0f, 1.0f), *w = array_make("w", DT_BF16, FAR_CHANNELS * IN, 0.0f, 0.3f);
    uint16_t *y = malloc((size_t)(n_row * FAR_ROWS) * sizeof(*y)), *alone = malloc((size_t)n_row * sizeof(*alone));
    assert_true(y != NULL && alone != NULL);
    conv_args conv = {.x = x, .y = y, .w = {w, NULL, DT_BF16, DT_F32}, .height = FAR_ROWS, .width = FAR_WIDTH,
                      .c_in = IN, .c_out = FAR_CHANNELS, .kernel = 1, .type = DT_BF16, .y_type = DT_BF16};
    assert_int_equal(cpu->conv(cpu_ctx, &conv), ST_OK);
    conv.x = x + (int64_t)(FAR_ROWS - 1) * FAR_WIDTH * IN;
    conv.y = alone;
    conv.height = 1;
    conv.first_row = FAR_ROWS - 1;
    assert_int_equal(cpu->conv(cpu_ctx, &conv), ST_OK);
    assert_same_bits(y + n_row * (FAR_ROWS - 1), alone, (size_t)n_row * sizeof(*y), "the last row");
    free(x), free(w), free(y), free(alone);
}

static int run_all(const kernel_table *subject)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_right),
        cmocka_unit_test(linear_ends_are_right),
        cmocka_unit_test(conv_is_right),
        cmocka_unit_test(conv_forms_are_right),
        cmocka_unit_test(layernorm_is_right),
        cmocka_unit_test(rmsnorm_is_right),
        cmocka_unit_test(qk_norm_rope_is_right),
        cmocka_unit_test(group_sums_are_right),
        cmocka_unit_test(elementwise_is_right),
        cmocka_unit_test(activations_are_accurate),
        cmocka_unit_test(bf16_conversion_meets_every_pattern),
        cmocka_unit_test(f16_weights_meet_every_pattern),
        cmocka_unit_test(weights_may_lie_anywhere),
        cmocka_unit_test(pictures_past_2_31_are_right),
        cmocka_unit_test(results_past_2_31_have_their_place),
        cmocka_unit_test(gathered_rows_are_the_same),
        cmocka_unit_test(copied_rows_are_the_same),
        cmocka_unit_test(unpacked_latents_are_the_same),
        cmocka_unit_test(group_totals_become_factors),
        cmocka_unit_test(offsets_are_64_bit),
    };
    plain = kernels_plain();
    cpu = subject;
    if (plain->open(&plain_ctx, 1) != ST_OK || cpu->open(&cpu_ctx, 2) != ST_OK) {
        fprintf(stderr, "%s\n", err_text());
        return 1;
    }
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    cpu->close(cpu_ctx);
    plain->close(plain_ctx);
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
