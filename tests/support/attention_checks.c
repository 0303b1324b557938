#include "attention_checks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "kernel_context.h"
#include "plain/plain.h"

/* Tolerances, relative L2 over the output of a case with scores up to about 8. F32: a score is scale times a sum of
 * head_dim products, added in fp32 one after another: at 264 channels the largest sums are about 65, and 264 roundings
 * of such a sum come to 2.5e-5, times the scale 2.3e-6; a weight is off by that relative to itself, and so is the
 * output. BF16 inputs are compared as they are, so what counts is the rounding of the output (half an ulp, 2^-9 at
 * most, about 1.2e-3 on average) and, in the dot product kernel, that of the weights, which averages out. */
static const double tolerance[] = {[DT_F32] = 4e-6, [DT_BF16] = 2.5e-3};

typedef struct subject {
    const attention_kernel *kernel; /* NULL: that of the table, or attention_plain */
    const kernel_table     *table;  /* NULL: none */
    kernel_context         *ctx;    /* of the table */
    dtype                   type;
} subject;

/* One problem: inputs, room for the result and for a state. Gaps between rows are NaN, in the result too. */
typedef struct problem {
    attention_args a;
    char          *q, *k, *v, *out;
    float         *bias;
    int32_t        width; /* n_heads * head_dim */
    size_t         out_bytes;
} problem;

typedef struct shape {
    int32_t n_q, n_kv, kv_first, n_heads, head_dim, gap; /* gap: elements between rows */
    bool    bias, causal;
} shape;

static float noise(uint32_t seed, int64_t i)
{
    uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15u + seed * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (float)(x >> 40) * 0x1p-22f - 2.0f; /* [-2, 2) */
}

static void put(void *x, int64_t i, dtype type, float value)
{
    if (type == DT_F32)
        ((float *)x)[i] = value;
    else
        ((uint16_t *)x)[i] = f32_to_bf16(value);
}

static double get(const void *x, int64_t i, dtype type)
{
    return type == DT_F32 ? (double)((const float *)x)[i] : (double)bf16_to_f32(((const uint16_t *)x)[i]);
}

static void *rows_new(int32_t n, int32_t width, int64_t ld, dtype type, uint32_t seed)
{
    char *x = malloc((size_t)(n + 1) * (size_t)ld * dtype_bytes(type));
    assert_non_null(x);
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < ld; c++)
            put(x, i * ld + c, type, c < width ? noise(seed, (int64_t)i * width + c) : NAN);
    return x;
}

static void problem_open(problem *p, const shape *s, dtype type)
{
    const int32_t width = s->n_heads * s->head_dim;
    const int64_t ld = width + s->gap;
    *p = (problem){.width = width};
    p->q = rows_new(s->n_q, width, ld, type, 1);
    p->k = rows_new(s->n_kv, width, ld + s->gap, type, 2);
    p->v = rows_new(s->n_kv, width, ld + 2 * s->gap, type, 3);
    p->out = rows_new(s->n_q, width, ld + 3 * s->gap, type, 4);
    p->out_bytes = (size_t)s->n_q * (size_t)(ld + 3 * s->gap) * dtype_bytes(type);
    p->a = (attention_args){
        .q = p->q, .k = p->k, .v = p->v, .out = p->out,
        .ldq = ld, .ldk = ld + s->gap, .ldv = ld + 2 * s->gap, .ldo = ld + 3 * s->gap,
        .n_q = s->n_q, .n_kv = s->n_kv, .kv_first = s->kv_first, .n_heads = s->n_heads, .head_dim = s->head_dim,
        .scale = 1.5f / sqrtf((float)s->head_dim), .type = type, .causal = s->causal, .first = true, .last = true,
    };
    if (s->bias) {
        p->a.bias_ld = s->n_q + s->n_kv + 5;
        p->bias = rows_new(s->n_heads, s->n_q + s->n_kv - 1, p->a.bias_ld, DT_F32, 5);
        p->a.bias = p->bias;
    }
}

static void problem_close(problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->out);
    free(p->bias);
}

static status try_to_attend(const subject *s, int n_threads, const attention_args *a)
{
    kernel_context *ctx = NULL;
    if (s->table != NULL) return s->table->attention(s->ctx, a);
    assert_int_equal(kernel_context_open(&ctx, ISA_PLAIN, n_threads), ST_OK);
    status st = s->kernel != NULL ? attention_run(s->kernel, ctx, a) : attention_plain(ctx, a);
    kernel_context_close(ctx);
    return st;
}

static void attend(const subject *s, int n_threads, const attention_args *a)
{
    if (try_to_attend(s, n_threads, a) != ST_OK) fail_msg("%s", err_text());
}

/* softmax(scale q k^T + bias) v of one row and head as the textbook has it, in fp64. */
static void direct(const attention_args *a, int32_t head, int32_t row, double *out)
{
    double *s = malloc((size_t)a->n_kv * sizeof(*s)), max = -INFINITY, sum = 0;
    assert_non_null(s);
    for (int32_t key = 0; key < a->n_kv; key++) {
        double dot = 0;
        for (int32_t c = 0; c < a->head_dim; c++)
            dot += get(a->q, row * a->ldq + head * a->head_dim + c, a->type) *
                   get(a->k, key * a->ldk + head * a->head_dim + c, a->type);
        s[key] = dot * (double)a->scale;
        if (a->bias != NULL) s[key] += (double)a->bias[head * a->bias_ld + key - row + a->n_q - 1];
        if (a->causal && key > row) s[key] = -INFINITY;
        if (s[key] > max) max = s[key];
    }
    memset(out, 0, (size_t)a->head_dim * sizeof(*out));
    for (int32_t key = 0; key < a->n_kv; key++) {
        const double w = exp(s[key] - max);
        sum += w;
        for (int32_t c = 0; c < a->head_dim; c++)
            out[c] += w * get(a->v, key * a->ldv + head * a->head_dim + c, a->type);
    }
    for (int32_t c = 0; c < a->head_dim; c++) out[c] /= sum;
    free(s);
}

/* Relative L2 distance of the result from the direct one; rows by a stride, to be quick. */
static double distance(const attention_args *a, int32_t step)
{
    double difference = 0, size = 0, want[512];
    for (int32_t head = 0; head < a->n_heads; head++)
        for (int32_t row = 0; row < a->n_q; row += step) {
            direct(a, head, row, want);
            for (int32_t c = 0; c < a->head_dim; c++) {
                const double d = get(a->out, row * a->ldo + head * a->head_dim + c, a->type) - want[c];
                difference += d * d;
                size += want[c] * want[c];
            }
        }
    return sqrt(difference / size);
}

static void equals_the_textbook(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {
        {1, 1, 0, 1, 8, 0, false, false},     {5, 3, 0, 2, 32, 7, false, false},    {33, 64, 0, 2, 64, 0, false, false},
        {50, 65, 0, 1, 128, 8, false, false}, {24, 200, 77, 3, 40, 3, false, false},
        {70, 130, 64, 1, 64, 0, false, false},
        {13, 190, 5, 1, 512, 1, false, false}, {7, 90, 300, 1, 264, 0, false, false},
        {77, 77, 0, 2, 64, 0, false, true},
        {90, 90, 0, 2, 64, 5, true, false},    {40, 150, 20, 1, 16, 0, true, true},
        /* rows on whole 16 bytes, for kernels that load so: their three head widths, masked and not */
        {140, 150, 77, 2, 128, 8, false, false}, {70, 131, 65, 2, 64, 16, false, false},
        {70, 200, 77, 1, 512, 8, false, false},  {90, 90, 0, 2, 128, 8, true, false},
        {77, 77, 0, 2, 128, 8, false, true},     {66, 90, 0, 2, 64, 8, true, true},
        {20, 70, 0, 1, 512, 8, true, false},
        /* and rows on any element, at widths that only the general kernels have */
        {20, 70, 5, 2, 104, 8, false, false},    {20, 70, 5, 2, 104, 3, false, false},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        problem p;
        problem_open(&p, &shapes[i], s->type);
        attend(s, 1, &p.a);
        const double error = distance(&p.a, shapes[i].head_dim >= 128 ? 7 : 3);
        if (!(error <= tolerance[s->type])) fail_msg("shape %zu: off by %g, allowed %g", i, error, tolerance[s->type]);
        for (int32_t row = 0; row < p.a.n_q; row++) /* gaps are still NaN */
            for (int64_t c = p.width; c < p.a.ldo; c++) assert_true(isnan(get(p.out, row * p.a.ldo + c, s->type)));
        problem_close(&p);
    }
}

/* Runs p in blocks that end at the given keys, with a state that starts as NaN. */
static void attend_chained(const subject *s, const problem *p, const int32_t *ends, int n_blocks)
{
    const size_t n = (size_t)p->a.n_q * (size_t)p->a.n_heads, dim = (size_t)p->a.head_dim;
    float *memory = malloc(n * (dim + 2) * sizeof(float));
    assert_non_null(memory);
    for (size_t i = 0; i < n * (dim + 2); i++) memory[i] = NAN;
    int32_t start = 0;
    for (int b = 0; b < n_blocks; b++) {
        attention_args a = p->a;
        a.k = p->k + (size_t)(start * a.ldk) * dtype_bytes(a.type);
        a.v = p->v + (size_t)(start * a.ldv) * dtype_bytes(a.type);
        a.n_kv = ends[b] - start;
        a.kv_first = a.kv_first > start ? a.kv_first - start : 0;
        a.state_max = memory;
        a.state_sum = memory + n;
        a.state_out = memory + 2 * n;
        a.first = b == 0;
        a.last = b == n_blocks - 1;
        attend(s, 1 + b % 2, &a);
        start = ends[b];
    }
    free(memory);
}

/* A sequence cut over ranks: blocks end on the tile grid, which restarts at the first image row (77 here); some are
 * empty. */
static void blocks_chain_to_the_same_bits(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {{29, 300, 77, 2, 64, 3, false, false}, {50, 300, 77, 1, 136, 0, false, false},
                                   {140, 300, 77, 1, 64, 8, false, false}, {40, 300, 77, 2, 128, 8, false, false},
                                   {70, 300, 77, 1, 512, 8, false, false}, {9, 300, 77, 1, 104, 3, false, false},
                                   {9, 300, 77, 1, 136, 3, false, false}, {9, 300, 77, 1, 104, 8, false, false},
                                   {9, 300, 77, 1, 56, 8, false, false}};
    static const struct {
        int     n;
        int32_t ends[5];
    } cuts[] = {
        {1, {300}}, {2, {77, 300}}, {2, {64, 300}}, {3, {141, 141, 300}}, {4, {64, 77, 205, 300}},
        {5, {0, 77, 141, 205, 300}},
        {5, {64, 141, 269, 300, 300}},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        problem whole, cut;
        problem_open(&whole, &shapes[i], s->type);
        attend(s, 1, &whole.a);
        for (size_t j = 0; j < sizeof(cuts) / sizeof(cuts[0]); j++) {
            problem_open(&cut, &shapes[i], s->type);
            attend_chained(s, &cut, cuts[j].ends, cuts[j].n);
            assert_memory_equal(whole.out, cut.out, whole.out_bytes);
            problem_close(&cut);
        }
        /* The test can fail: a cut off the grid changes bits (most of which rounding to bf16 hides). */
        problem_open(&cut, &shapes[i], s->type);
        attend_chained(s, &cut, (const int32_t[]){100, 300}, 2);
        if (s->type == DT_F32) assert_memory_not_equal(whole.out, cut.out, whole.out_bytes);
        problem_close(&cut);
        problem_close(&whole);
    }
}

static void rows_do_not_know_their_call(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {{110, 150, 20, 2, 64, 5, false, false}, {110, 150, 20, 2, 64, 8, false, false},
                                   {110, 150, 20, 1, 128, 8, false, false}, {110, 150, 20, 1, 512, 8, false, false}};
    static const struct {
        int32_t first, n;
    } calls[] = {{0, 1}, {109, 1}, {3, 20}, {47, 50}, {13, 97}};
    for (size_t j = 0; j < sizeof(shapes) / sizeof(shapes[0]); j++) {
        problem p, part;
        problem_open(&p, &shapes[j], s->type);
        problem_open(&part, &shapes[j], s->type);
        attend(s, 1, &p.a);
        const size_t row_bytes = (size_t)p.a.ldo * dtype_bytes(s->type);
        for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
            attention_args a = part.a;
            a.q = part.q + (size_t)(calls[i].first * a.ldq) * dtype_bytes(s->type);
            a.n_q = calls[i].n;
            attend(s, 1, &a);
            assert_memory_equal(part.out, p.out + (size_t)calls[i].first * row_bytes, (size_t)calls[i].n * row_bytes);
        }
        problem_close(&part);
        problem_close(&p);
    }
}

/* A GPU takes other kernels for calls that fill it: a row does not notice, whole or in blocks, the last one ragged. */
static void rows_of_large_calls_are_the_same(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {{290, 150, 20, 60, 64, 8, false, false}, {290, 150, 20, 60, 128, 8, false, false}};
    static const int32_t ends[] = {20, 84, 150};
    if (s->table == NULL || s->type != DT_BF16) return;
    for (size_t j = 0; j < sizeof(shapes) / sizeof(shapes[0]); j++) {
        problem p, part;
        problem_open(&p, &shapes[j], s->type);
        problem_open(&part, &shapes[j], s->type);
        attend(s, 1, &p.a);
        const double error = distance(&p.a, 41);
        if (!(error <= tolerance[s->type])) fail_msg("off by %g, allowed %g", error, tolerance[s->type]);
        attend_chained(s, &part, ends, 3);
        assert_memory_equal(p.out, part.out, p.out_bytes);
        const size_t row_bytes = (size_t)p.a.ldo * dtype_bytes(s->type), first = 137;
        attention_args a = part.a;
        a.q = part.q + first * (size_t)a.ldq * dtype_bytes(s->type);
        a.n_q = 100;
        attend(s, 1, &a);
        assert_memory_equal(part.out, p.out + first * row_bytes, 100 * row_bytes);
        problem_close(&part);
        problem_close(&p);
    }
}

static void threads_change_no_bit(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {{150, 90, 7, 3, 64, 0, false, false}, {200, 70, 0, 1, 128, 0, false, false}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        problem one, many;
        problem_open(&one, &shapes[i], s->type);
        attend(s, 1, &one.a);
        for (int n = 2; n <= 3; n++) {
            problem_open(&many, &shapes[i], s->type);
            attend(s, n, &many.a);
            assert_memory_equal(one.out, many.out, one.out_bytes);
            problem_close(&many);
        }
        problem_close(&one);
    }
}

/* Keys above the diagonal, whole tiles of them too, leave the bits of a row alone. */
static void masked_keys_do_nothing(void **state)
{
    const subject *s = *state;
    static const shape wide = {60, 250, 0, 1, 64, 0, false, true}, narrow = {60, 64, 0, 1, 64, 0, false, true};
    problem p, few;
    problem_open(&p, &wide, s->type);
    problem_open(&few, &narrow, s->type);
    attend(s, 1, &p.a);
    attend(s, 1, &few.a);
    assert_memory_equal(p.out, few.out, few.out_bytes);
    problem_close(&few);
    problem_close(&p);
}

/* Bits as if the caller had put zeros into q, in one block or several. */
static void left_out_channels_are_zeros(void **state)
{
    const subject *s = *state;
    static const shape shapes[] = {{59, 200, 77, 2, 64, 3, false, false}, {59, 200, 77, 1, 128, 8, false, false},
                                   {59, 200, 77, 1, 512, 8, false, false}, {59, 59, 0, 1, 64, 8, false, true},
                                   {59, 200, 0, 1, 128, 8, true, false}, {9, 70, 0, 1, 104, 8, true, false},
                                   {59, 200, 77, 1, 64, 8, false, false}, {9, 200, 77, 1, 104, 3, false, false},
                                   {9, 200, 77, 1, 264, 3, false, false}, {9, 70, 0, 1, 56, 8, true, false}};
    static const int32_t ends[] = {77, 141, 200};
    float keep[512];
    for (int32_t c = 0; c < 512; c++) keep[c] = c % 64 == 3 || (c % 64 >= 20 && c % 64 < 51) ? 0.0f : 1.0f;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        problem p, zeros;
        problem_open(&p, &shapes[i], s->type);
        problem_open(&zeros, &shapes[i], s->type);
        for (int64_t row = 0; row < p.a.n_q; row++)
            for (int64_t c = 0; c < zeros.width; c++)
                if (keep[c % p.a.head_dim] == 0.0f) put(zeros.q, row * zeros.a.ldq + c, s->type, 0.0f);
        attend(s, 1, &zeros.a);
        attend(s, 1, &p.a);
        assert_memory_not_equal(p.out, zeros.out, p.out_bytes);
        p.a.q_keep = keep;
        attend(s, 1, &p.a);
        assert_memory_equal(p.out, zeros.out, p.out_bytes);
        if (!shapes[i].bias && !shapes[i].causal) attend_chained(s, &p, ends, 3);
        assert_memory_equal(p.out, zeros.out, p.out_bytes);
        problem_close(&zeros);
        problem_close(&p);
    }
}

/* Scores are integers times 2^12, exact in fp32, up to 2^19: the weights are a mean over the largest, or over all. */
static void huge_scores_do_not_overflow(void **state)
{
    const subject *s = *state;
    static const shape all = {30, 140, 0, 1, 32, 0, false, false};
    problem p;
    problem_open(&p, &all, s->type);
    p.a.scale = 4096.0f;
    for (int64_t i = 0; i < 30 * 32; i++) put(p.q, i, s->type, floorf(noise(6, i)));
    for (int64_t i = 0; i < 140 * 32; i++) put(p.k, i, s->type, floorf(noise(7, i)));
    for (int64_t c = 0; c < 32; c++) put(p.q, c, s->type, 0.0f); /* row 0: all scores are 0 */
    for (int64_t c = 0; c < 32; c++) put(p.q, 32 + c, s->type, c == 0 ? -1e30f : 0.0f); /* row 1: far below 0 */
    for (int64_t i = 0; i < 140; i++) put(p.k, i * 32, s->type, i == 100 ? 1.0f : 2.0f);
    attend(s, 1, &p.a);
    const double error = distance(&p.a, 1);
    if (!(error <= tolerance[s->type])) fail_msg("off by %g, allowed %g", error, tolerance[s->type]);
    problem_close(&p);
}

/* The strict device spoils memory with NaN: one that is read must show. */
static void nan_stays_visible(void **state)
{
    const subject *s = *state;
    static const shape all = {30, 140, 0, 1, 32, 0, false, false};
    for (int place = 0; place < 3; place++) {
        problem p;
        problem_open(&p, &all, s->type);
        put(place == 0 ? p.q : place == 1 ? p.k : p.v, 20 * 32 + 5, s->type, NAN);
        attend(s, 1, &p.a);
        for (int64_t row = 0; row < 30; row++)
            for (int64_t c = 0; c < 32; c++) {
                const bool reached = place == 0 ? row == 20 : place == 1 ? true : c == 5;
                assert_true(isnan(get(p.out, row * 32 + c, s->type)) == reached);
            }
        problem_close(&p);
    }
}

/* Of one head: element c of row i. Vector kernels keep a panel's rows side by side, the judge has rows as they are. */
static float state_get(const subject *s, const float *out, int32_t n_q, int32_t dim, int32_t i, int32_t c)
{
    if (s->kernel == NULL) return out[i * dim + c];
    const int32_t panel = s->kernel->panel, first = i / panel * panel;
    const int32_t n_rows = n_q - first < panel ? n_q - first : panel;
    return out[first * dim + c * n_rows + i - first];
}

static void state_is_that_of_the_judge(void **state)
{
    const subject *s = *state, judge = {.type = s->type};
    enum { N_Q = 20, DIM = 64 };
    static const shape all = {N_Q, 150, 20, 1, DIM, 0, false, false};
    float max[2][N_Q], sum[2][N_Q], out[2][N_Q * DIM];
    problem p;
    problem_open(&p, &all, s->type);
    for (int i = 0; i < 2; i++) {
        p.a.last = false;
        p.a.state_max = max[i];
        p.a.state_sum = sum[i];
        p.a.state_out = out[i];
        attend(i == 0 ? s : &judge, 1, &p.a);
    }
    for (int i = 0; i < N_Q; i++) {
        assert_true(fabsf(max[0][i] - max[1][i]) < 1e-5f);
        assert_true(fabsf(sum[0][i] / sum[1][i] - 1.0f) < (s->type == DT_F32 ? 2e-5f : 4e-3f));
        for (int c = 0; c < DIM; c++)
            assert_true(fabsf(state_get(s, out[0], N_Q, DIM, i, c) - state_get(&judge, out[1], N_Q, DIM, i, c)) <
                        (s->type == DT_F32 ? 2e-5f : 4e-3f) * sum[1][i]);
    }
    problem_close(&p);
}

/* One key has score 0 and the largest; key i has score x_i and a value that is 1 in channel i: the output is e^x_i. */
static void exponential_is_within_2_ulp(void **state)
{
    const subject *s = *state;
    if (s->type != DT_F32) return; /* the same function serves both */
    enum { DIM = 64, CALLS = 40 };
    static const shape all = {1, DIM, 0, 1, DIM, 0, false, false};
    problem p;
    float max, sum, out[DIM];
    problem_open(&p, &all, s->type);
    float *q = (void *)p.q, *k = (void *)p.k, *v = (void *)p.v;
    memset(q, 0, DIM * sizeof(float));
    memset(k, 0, DIM * DIM * sizeof(float));
    memset(v, 0, DIM * DIM * sizeof(float));
    q[0] = 1.0f;
    for (int i = 0; i < DIM; i++) v[i * DIM + i] = 1.0f;
    p.a.scale = 1.0f;
    p.a.state_max = &max;
    p.a.state_sum = &sum;
    p.a.state_out = out;
    p.a.last = false;
    for (int call = 0; call < CALLS; call++) {
        for (int i = 1; i < DIM; i++) {
            const float u = (noise(8, call * DIM + i) + 2.0f) / 4.0f;
            k[i * DIM] = call < 5 ? -1e-3f * u : call < 15 ? -u : -87.3f * u;
        }
        k[1 * DIM] = -110.0f - (float)call; /* leaves the normal numbers: 0 */
        k[2 * DIM] = -INFINITY;
        q[0] = 1.0f;
        attend(s, 1, &p.a);
        assert_true(out[0] == 1.0f && out[1] == 0.0f && out[2] == 0.0f);
        for (int i = 3; i < DIM; i++) {
            const double want = exp((double)k[i * DIM]);
            const double ulp = (double)(nextafterf((float)want, INFINITY) - (float)want);
            const double error = fabs((double)out[i] - want) / ulp;
            if (!(error <= 2.0)) fail_msg("e^%a: %a, off by %.2f ulp", (double)k[i * DIM], (double)out[i], error);
        }
    }
    problem_close(&p);
}

/* Rows 2^30 + 64 elements apart: the last one starts past 2^31. The head widths of all kernels. */
static void offsets_are_64_bit(void **state)
{
    const subject *s = *state;
    enum { N = 3, PLACE = 1024 };
    static const int32_t dims[] = {8, 64, 128, 512};
    const int64_t ld = ((int64_t)1 << 30) + 64;
    const size_t bytes = (size_t)(ld * (N - 1) + 4 * PLACE) * dtype_bytes(s->type);
    for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
        const shape all = {N, N, 0, 1, dims[d], 0, false, false};
        char *x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (x == MAP_FAILED) {
            print_message("not run: attention over offsets past 2^31 (address space is limited here)\n");
            skip();
        }
        problem p;
        problem_open(&p, &all, s->type);
        const char *from[3] = {p.q, p.k, p.v};
        const size_t row = (size_t)dims[d] * dtype_bytes(s->type);
        for (int i = 0; i < 3; i++)
            for (int r = 0; r < N; r++)
                memcpy(x + (size_t)(r * ld + i * PLACE) * dtype_bytes(s->type), from[i] + (size_t)r * row, row);
        attend(s, 1, &p.a);
        attention_args far = p.a;
        far.ldq = far.ldk = far.ldv = far.ldo = ld;
        far.q = x;
        far.k = x + PLACE * dtype_bytes(s->type);
        far.v = x + 2 * PLACE * dtype_bytes(s->type);
        far.out = x + 3 * PLACE * dtype_bytes(s->type);
        attend(s, 1, &far);
        for (int r = 0; r < N; r++)
            assert_memory_equal(p.out + (size_t)r * row, x + (size_t)(r * ld + 3 * PLACE) * dtype_bytes(s->type), row);
        munmap(x, bytes);
        problem_close(&p);
    }
}

static void empty_calls_are_legal(void **state)
{
    const subject *s = *state;
    static const shape all = {4, 4, 0, 1, 8, 0, false, false};
    problem p;
    problem_open(&p, &all, s->type);
    p.a.n_kv = 0; /* no key at all: 0, not NaN */
    attend(s, 2, &p.a);
    for (int64_t i = 0; i < 4 * 8; i++) assert_true(get(p.out, i, s->type) == 0.0);
    p.a.n_q = 0;
    p.a.q = p.a.k = p.a.v = NULL;
    attend(s, 2, &p.a);
    problem_close(&p);
}

static void misuse_is_answered(void **state)
{
    const subject *s = *state;
    static const shape all = {4, 4, 0, 1, 8, 0, false, false};
    problem p;
    problem_open(&p, &all, s->type);
    attention_args wrong[6];
    for (int i = 0; i < 6; i++) wrong[i] = p.a;
    wrong[0].head_dim = 12;
    wrong[1].head_dim = 520;
    wrong[2].type = DT_F16;
    wrong[3].n_kv = -1;
    wrong[4].last = false; /* and no state */
    wrong[5].first = false;
    wrong[5].causal = true;
    for (int i = 0; i < 6; i++) {
        err_clear();
        assert_int_equal(try_to_attend(s, 1, &wrong[i]), ST_FAILED);
        assert_non_null(strstr(err_text(), "attention:"));
    }
    err_clear();
    problem_close(&p);
}

static int run(subject *s, const char *who)
{
    char name[64];
    struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_textbook),     cmocka_unit_test(blocks_chain_to_the_same_bits),
        cmocka_unit_test(rows_do_not_know_their_call), cmocka_unit_test(rows_of_large_calls_are_the_same),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(masked_keys_do_nothing),  cmocka_unit_test(left_out_channels_are_zeros),
        cmocka_unit_test(huge_scores_do_not_overflow), cmocka_unit_test(nan_stays_visible),
        cmocka_unit_test(state_is_that_of_the_judge),
        cmocka_unit_test(exponential_is_within_2_ulp), cmocka_unit_test(offsets_are_64_bit),
        cmocka_unit_test(empty_calls_are_legal),   cmocka_unit_test(misuse_is_answered),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) tests[i].initial_state = s;
    snprintf(name, sizeof(name), "attention %s %s", who, dtype_name(s->type));
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int attention_checks_run(const attention_kernel *kernel, dtype type)
{
    subject s = {.kernel = kernel, .type = type};
    return run(&s, kernel != NULL ? kernel->name : "plain");
}

int attention_checks_run_table(const kernel_table *table, dtype type)
{
    subject s = {.table = table, .type = type};
    if (table->open(&s.ctx, 1) != ST_OK) {
        fprintf(stderr, "%s\n", err_text());
        return 1;
    }
    const int n_failed = run(&s, table->name);
    table->close(s.ctx);
    return n_failed;
}
