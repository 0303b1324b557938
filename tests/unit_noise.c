/* Generator words to the bit, normals against PyTorch (vectors/noise), and rows that do not depend on who asks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "noise.h"
#include "rng.h"

static json_t *load(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof(path), TEST_DIR "/vectors/noise/%s", name);
    json_t *vectors = json_load_file(path, 0, &error);
    if (vectors == NULL) fail_msg("%s:%d: %s", path, error.line, error.text);
    return vectors;
}

static int64_t integer(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

/* A string, since it may exceed 2^63; "-1" wraps to 2^64 - 1. */
static uint64_t seed_of(const json_t *object)
{
    return strtoull(json_string_value(json_object_get(object, "seed")), NULL, 10);
}

static geometry geometry_of_latent(int32_t latent_h, int32_t latent_w)
{
    geometry g;
    assert_int_equal(geometry_make(&g, latent_w, latent_h, 1), ST_OK);
    return g;
}

/* The whole latent in its own order. */
static float *latent_of(const noise_opts *opts, uint64_t seed, const geometry *g, int32_t channels, bool bf16)
{
    size_t n = (size_t)channels * (size_t)g->latent_h * (size_t)g->latent_w;
    float *packed = calloc(n, sizeof(*packed));
    float *latent = calloc(n, sizeof(*latent));
    assert_true(packed != NULL && latent != NULL);
    assert_int_equal(noise_fill(opts, seed, g, channels, 0, g->n_image, bf16, packed), ST_OK);
    geometry_unpack(g, channels, packed, 0, g->n_image, latent);
    free(packed);
    return latent;
}

/* PyTorch's sines and logarithms differ from the C library's by at most 4e-7; a bf16 value may then round the other
 * way, by one of its last places. */
static void assert_case(const json_t *c, const noise_opts *opts, size_t *n_off, size_t *n_all)
{
    const json_t *shape = json_object_get(c, "shape");
    const json_t *values = json_object_get(c, "values");
    bool bf16 = json_is_true(json_object_get(c, "bf16"));
    int32_t channels = (int32_t)json_integer_value(json_array_get(shape, 0));
    geometry g = geometry_of_latent((int32_t)json_integer_value(json_array_get(shape, 1)),
                                    (int32_t)json_integer_value(json_array_get(shape, 2)));
    size_t stride = (size_t)integer(c, "stride");
    size_t n = (size_t)(channels * g.latent_h * g.latent_w);
    float *latent = latent_of(opts, seed_of(c), &g, channels, bf16);
    assert_int_equal(json_array_size(values), (n + stride - 1) / stride);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double want = (double)(float)json_number_value(json_array_get(values, i)); /* 9 digits name the float */
        double got = (double)latent[i * stride];
        if (bf16) {
            assert_true(got == (double)bf16_round((float)got));
            *n_off += got != want;
            *n_all += 1;
        }
        if (fabs(got - want) <= (bf16 ? fabs(want) * 0x1p-7 : 1e-6)) continue;
        fail_msg("seed %s, %d channels, element %zu of %zu, bf16 %d: got %.9g, want %.9g",
                 json_string_value(json_object_get(c, "seed")), channels, i * stride, n, bf16, got, want);
    }
    free(latent);
}

static void assert_torch_cpu(const char *name, noise_kind kind, double share_off)
{
    json_t *vectors = load(name);
    const json_t *cases = json_object_get(vectors, "cases");
    const noise_opts opts = {.kind = kind};
    size_t n_off = 0;
    size_t n_all = 0;
    assert_int_equal(json_array_size(cases), 50);
    for (size_t i = 0; i < json_array_size(cases); i++)
        assert_case(json_array_get(cases, i), &opts, &n_off, &n_all);
    assert_true(n_all > 2000);
    if ((double)n_off > share_off * (double)n_all) fail_msg("%zu of %zu bf16 values differ", n_off, n_all);
    json_decref(vectors);
}

/* Sizes below 16, with and without a tail of 16; seeds 0, 42, -1, past 2^32 and 2^63 - 1; in fp32 and bf16. */
static void torch_cpu_normals(void **state)
{
    (void)state;
    assert_torch_cpu("torch_cpu.json", NOISE_TORCH_CPU, 0.001);
}

/* Older releases have the same fp32 normals and quite other bf16 ones: those to the bit. */
static void torch_cpu_legacy_normals(void **state)
{
    (void)state;
    assert_torch_cpu("torch_cpu_legacy.json", NOISE_TORCH_CPU_LEGACY, 0.0);
}

static void mt19937_words(void **state)
{
    static const char *const names[] = {"torch_cpu.json", "torch_cpu_legacy.json"};
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        json_t *vectors = load(names[f]);
        const json_t *runs = json_object_get(vectors, "words");
        assert_int_equal(json_array_size(runs), 15);
        for (size_t r = 0; r < json_array_size(runs); r++) {
            const json_t *run = json_array_get(runs, r);
            const json_t *values = json_object_get(run, "values");
            mt19937 mt;
            mt19937_seed(&mt, seed_of(run));
            for (int64_t i = 0; i < integer(run, "first"); i++)
                mt19937_next(&mt);
            assert_int_equal(json_array_size(values), 8);
            for (size_t i = 0; i < 8; i++)
                assert_int_equal(mt19937_next(&mt), json_integer_value(json_array_get(values, i)));
        }
        json_decref(vectors);
    }
}

/* Known answers published with the generator (Random123). */
static void philox_words(void **state)
{
    static const struct {
        uint64_t key;
        uint32_t counter[4], words[4];
    } known[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822u,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        uint32_t words[4];
        philox4x32(known[i].key, known[i].counter, words);
        assert_memory_equal(words, known[i].words, sizeof(words));
    }
}

/* First values of a 1024 x 1024 picture, as users of PyTorch know them. */
static void first_values_of_well_known_seeds(void **state)
{
    static const struct {
        noise_opts opts;
        uint64_t seed;
        bool bf16;
        float values[4];
        float off;
    } known[] = {
        {{.kind = NOISE_TORCH_CPU}, 0, false, {-1.1258398f, -1.1523602f, -0.2505786f, -0.4338788f}, 1e-6f},
        {{.kind = NOISE_TORCH_CPU}, 42, false, {1.9269153f, 1.4872841f, 0.9007172f, -2.1055210f}, 1e-6f},
        {{.kind = NOISE_TORCH_CPU}, 0, true, {-1.125f, -1.15625f, -0.25f, -0.43359375f}, 0.0f},
        {{.kind = NOISE_TORCH_CPU}, 42, true, {1.9296875f, 1.484375f, 0.90234375f, -2.109375f}, 0.0f},
        {{.kind = NOISE_TORCH_CPU_LEGACY}, 0, true, {1.4609375f, 0.291015625f, 0.9609375f, 1.5703125f}, 0.0f},
        {{.kind = NOISE_TORCH_CPU_LEGACY}, 42, true, {-0.80859375f, -1.53125f, 0.40625f, 0.171875f}, 0.0f},
        {NOISE_OPTS_INIT, 0, false, {-0.9247f, -0.4253f, -2.6438f, 0.1452f}, 6e-5f},
        {NOISE_OPTS_INIT, 42, false, {0.1940f, 2.1614f, -0.1721f, 0.8491f}, 6e-5f},
    };
    geometry g = geometry_of_latent(128, 128);
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        noise_opts opts = known[i].opts;
        float row[2 * 64]; /* tokens 0 and 1: latent columns 0 to 3 */
        if (opts.sms != 0) opts.kind = NOISE_TORCH_CUDA;
        assert_int_equal(noise_fill(&opts, known[i].seed, &g, 16, 0, 2, known[i].bf16, row), ST_OK);
        for (int x = 0; x < 4; x++)
            assert_true(fabsf(row[x / 2 * 64 + x % 2] - known[i].values[x]) <= known[i].off);
    }
}

static void torch_cuda_normals(void **state)
{
    json_t *vectors = load("torch_cuda.json");
    const json_t *cases = json_object_get(vectors, "cases");
    size_t n_off = 0;
    (void)state;
    assert_int_equal(json_array_size(cases), 8);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        noise_opts opts = {.kind = NOISE_TORCH_CUDA};
        opts.sms = (int)integer(c, "sms");
        opts.threads_per_sm = (int)integer(c, "threads_per_sm");
        assert_case(c, &opts, &n_off, &n_off);
    }
    json_decref(vectors);
}

/* The noise of a 4096 x 4096 picture depends on the GPU; a 1024 x 1024 one is equal on those of 132 and 148 SMs. */
static void torch_cuda_noise_depends_on_the_gpu(void **state)
{
    noise_opts h100 = {.kind = NOISE_TORCH_CUDA, .sms = 132, .threads_per_sm = 2048};
    noise_opts b200 = {.kind = NOISE_TORCH_CUDA, .sms = 148, .threads_per_sm = 2048};
    float a[64];
    float b[64];
    (void)state;
    for (int side = 128; side <= 512; side += 384) {
        geometry g = geometry_of_latent(side, side);
        assert_int_equal(noise_fill(&h100, 1, &g, 16, g.n_image - 1, 1, false, a), ST_OK);
        assert_int_equal(noise_fill(&b200, 1, &g, 16, g.n_image - 1, 1, false, b), ST_OK);
        assert_int_equal(memcmp(a, b, sizeof(a)) == 0, side == 128);
    }
}

static void a_gpu_without_blocks_is_refused(void **state)
{
    geometry g = geometry_of_latent(4, 4);
    noise_opts opts = {.kind = NOISE_TORCH_CUDA, .sms = 132, .threads_per_sm = 255};
    float row[64];
    (void)state;
    assert_int_equal(noise_fill(&opts, 0, &g, 16, 0, 1, false, row), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "132 sms of 255 threads"));
    err_clear();
}

/* Independent arithmetic: token (i, j), channel c is the Philox block of counter (j, i, c, 0). */
static void counter_noise_is_a_function_of_seed_and_element(void **state)
{
    const double two_pi = 8.0 * atan(1.0);
    noise_opts opts = {.kind = NOISE_COUNTER};
    uint64_t seed = 0xfedcba9876543210u;
    geometry g = geometry_of_latent(6, 10);
    float *latent = latent_of(&opts, seed, &g, 3, false);
    (void)state;
    for (uint32_t c = 0; c < 3; c++)
        for (uint32_t y = 0; y < 6; y++)
            for (uint32_t x = 0; x < 10; x++) {
                uint32_t counter[4] = {x / 2, y / 2, c, 0};
                uint32_t words[4];
                philox4x32(seed, counter, words);
                double u1 = (words[y % 2 * 2] + 0.5) / 4294967296.0;
                double u2 = (words[y % 2 * 2 + 1] + 0.5) / 4294967296.0;
                double want = sqrt(-2.0 * log(u1)) * (x % 2 ? sin(two_pi * u2) : cos(two_pi * u2));
                assert_true(fabs((double)latent[(c * 6 + y) * 10 + x] - want) <= 1e-6);
            }
    free(latent);
}

static void counter_noise_does_not_depend_on_the_size(void **state)
{
    noise_opts opts = {.kind = NOISE_COUNTER};
    geometry small = geometry_of_latent(4, 6);
    geometry large = geometry_of_latent(8, 20);
    float *a = latent_of(&opts, 5, &small, 2, false);
    float *b = latent_of(&opts, 5, &large, 2, false);
    (void)state;
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < 4; y++)
            assert_memory_equal(a + (c * 4 + y) * 6, b + (c * 8 + y) * 20, 6 * sizeof(*a));
    free(b);
    free(a);
}

/* Mean 0, variance 1, no correlation between the members of a pair: 5 standard errors. */
static void every_kind_is_standard_normal(void **state)
{
    (void)state;
    for (int kind = NOISE_TORCH_CPU; kind <= NOISE_TORCH_CUDA; kind++) {
        noise_opts opts = NOISE_OPTS_INIT;
        geometry g = geometry_of_latent(64, 64);
        int n = 16 * 64 * 64;
        double sum = 0.0;
        double squares = 0.0;
        double pairs = 0.0;
        opts.kind = (noise_kind)kind;
        float *latent = latent_of(&opts, 3, &g, 16, false);
        for (int i = 0; i < n; i++) {
            double v = (double)latent[i];
            sum += v;
            squares += v * v;
            if (i % 2) pairs += v * (double)latent[i - 1];
        }
        assert_true(fabs(sum / n) <= 5.0 / sqrt(n));
        assert_true(fabs(squares / n - 1.0) <= 5.0 * sqrt(2.0 / n));
        assert_true(fabs(pairs / (n / 2)) <= 5.0 / sqrt(n / 2));
        free(latent);
    }
}

/* A rank's rows have the same bits as those of one rank that draws all, tails included. */
static void rows_do_not_depend_on_who_asks(void **state)
{
    static const int32_t shapes[][3] = {{16, 6, 10}, {5, 2, 2}, {3, 2, 10}, {1, 2, 6}};
    (void)state;
    for (int kind = NOISE_TORCH_CPU; kind <= NOISE_TORCH_CUDA; kind++)
        for (size_t s = 0; s < 4; s++)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                noise_opts opts = {.kind = (noise_kind)kind, .sms = 1, .threads_per_sm = 256};
                int32_t channels = shapes[s][0];
                int32_t width = channels * 4;
                geometry g = geometry_of_latent(shapes[s][1], shapes[s][2]);
                size_t n = (size_t)g.n_image * (size_t)width;
                float *whole = calloc(n, sizeof(*whole));
                float *parts = calloc(n, sizeof(*parts));
                assert_true(whole != NULL && parts != NULL);
                assert_int_equal(noise_fill(&opts, 9, &g, channels, 0, g.n_image, bf16, whole), ST_OK);
                for (int32_t first = 0, count = 1; first < g.n_image; first += count, count++) {
                    if (count > g.n_image - first) count = g.n_image - first;
                    assert_int_equal(noise_fill(&opts, 9, &g, channels, first, count, bf16, parts + first * width),
                                     ST_OK);
                }
                assert_int_equal(noise_fill(&opts, 9, &g, channels, g.n_image, 0, bf16, NULL), ST_OK);
                assert_memory_equal(parts, whole, n * sizeof(*whole));
                free(parts);
                free(whole);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mt19937_words),
        cmocka_unit_test(philox_words),
        cmocka_unit_test(torch_cpu_normals),
        cmocka_unit_test(torch_cpu_legacy_normals),
        cmocka_unit_test(first_values_of_well_known_seeds),
        cmocka_unit_test(torch_cuda_normals),
        cmocka_unit_test(torch_cuda_noise_depends_on_the_gpu),
        cmocka_unit_test(a_gpu_without_blocks_is_refused),
        cmocka_unit_test(counter_noise_is_a_function_of_seed_and_element),
        cmocka_unit_test(counter_noise_does_not_depend_on_the_size),
        cmocka_unit_test(every_kind_is_standard_normal),
        cmocka_unit_test(rows_do_not_depend_on_who_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
