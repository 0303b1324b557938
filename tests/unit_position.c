/* Position methods against the reference numbers of vectors/dype (595 frequency sets, the paper's ablation, edge cases,
 * tables), the guards that those have no numbers for, and the plan of a picture.
 * Not used here: psd_example and progression_map_example, which belong to the spectra of finished runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"
#include "position.h"

enum { WIDTH = 56, WAVES = 28, BASE_PATCHES = 64 };

static json_t *vectors;

static int load_vectors(void **state)
{
    json_error_t error;
    (void)state;
    vectors = json_load_file(TEST_DIR "/vectors/dype/dype_vectors.json", 0, &error);
    if (vectors == NULL) fprintf(stderr, "%s:%d: %s\n", error.source, error.line, error.text);
    return vectors == NULL;
}

static int free_vectors(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static double item(const json_t *array, size_t i)
{
    const json_t *value = json_array_get(array, i);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* The options that an entry names: "dy-yarn" is yarn with dype, "default" is official. */
static position_opts opts_of(const json_t *entry)
{
    position_opts opts = POSITION_OPTS_INIT;
    const char *method = json_string_value(json_object_get(entry, "method"));
    const char *variant = json_string_value(json_object_get(entry, "variant"));
    const json_t *lambda_s = json_object_get(entry, "lambda_s");
    int m = POSITION_BASE;
    int v = VARIANT_OFFICIAL;
    opts.dype = strncmp(method, "dy-", 3) == 0;
    while (strcmp(position_method_names[m], method + (opts.dype ? 3 : 0)) != 0)
        assert_true(++m <= POSITION_TIME_AWARE);
    while (strcmp(variant, "default") != 0 && strcmp(position_variant_names[v], variant) != 0)
        assert_true(++v <= VARIANT_ABLATE_BOTH);
    opts.method = (position_method)m;
    opts.variant = (position_variant)v;
    if (lambda_s != NULL) {
        opts.lambda_s = number(entry, "lambda_s");
        opts.lambda_t = number(entry, "lambda_t");
    }
    assert_int_equal(position_check(&opts), ST_OK);
    return opts;
}

static void assert_waves(const double *got, const json_t *want, const char *what)
{
    assert_int_equal(json_array_size(want), WAVES);
    for (size_t i = 0; i < WAVES; i++) {
        double w = item(want, i);
        if (fabs(got[i] - w) <= 1e-15 + 1e-14 * fabs(w)) continue;
        fail_msg("%s: wave %zu: got %.17g, want %.17g", what, i, got[i], w);
    }
}

static void assert_ramp(const int got[2], const json_t *want)
{
    assert_int_equal(got[0], want != NULL ? (int)item(want, 0) : -1);
    assert_int_equal(got[1], want != NULL ? (int)item(want, 1) : -1);
}

static void assert_entries(const char *key, size_t n_want)
{
    const json_t *entries = json_object_get(vectors, key);
    assert_int_equal(json_array_size(entries), n_want);
    for (size_t e = 0; e < n_want; e++) {
        const json_t *entry = json_array_get(entries, e);
        const json_t *want_ramps = json_object_get(entry, "ramps");
        position_opts opts = opts_of(entry);
        int patches = (int)number(entry, "patches");
        double t = number(entry, "t");
        double inv_freq[WAVES];
        double mscale;
        position_ramps ramps;
        char what[128];
        snprintf(what, sizeof(what), "%s %zu: %s %s, %d patches, t %g", key, e, position_method_names[opts.method],
                 position_variant_names[opts.variant], patches, t);
        position_frequencies_ramps(&opts, WIDTH, BASE_PATCHES, patches, t, inv_freq, &mscale, &ramps);
        assert_waves(inv_freq, json_object_get(entry, "inv_freq"), what);
        assert_true(fabs(mscale - number(entry, "mscale")) <= 1e-14);
        assert_ramp(ramps.beta, json_object_get(want_ramps, "beta"));
        assert_ramp(ramps.gamma, json_object_get(want_ramps, "gamma"));
    }
}

static void every_method_gives_the_reference_frequencies(void **state)
{
    (void)state;
    assert_entries("vectors", 595);
}

static void ablation_of_table_5_gives_the_reference_frequencies(void **state)
{
    (void)state;
    assert_entries("ablation_dy_ntk", 60);
}

/* Where thresholds get so small that the authors' ramps cross over and slow down waves that should be native (division
 * by zero at t = 0), ours stop at the last wave. Before that point both agree; past it the authors' waves are off. */
static void ramps_do_not_flip_near_the_end(void **state)
{
    const json_t *cases = json_object_get(vectors, "edge_cases_dy_yarn");
    const json_t *rows = json_object_get(cases, "rows");
    (void)state;
    assert_int_equal(json_array_size(rows), 5);
    for (size_t r = 0; r < json_array_size(rows); r++) {
        const json_t *row = json_array_get(rows, r);
        const json_t *unguarded = json_object_get(row, "unguarded_inv_freq");
        const json_t *want_ramps = json_object_get(row, "guarded_ramps");
        position_opts opts = POSITION_OPTS_INIT;
        double t = number(row, "t");
        double inv_freq[WAVES];
        double mscale;
        position_ramps ramps;
        char what[64];
        snprintf(what, sizeof(what), "guarded, t %g", t);
        position_frequencies_ramps(&opts, WIDTH, BASE_PATCHES, (int)number(cases, "patches"), t, inv_freq, &mscale,
                                   &ramps);
        assert_waves(inv_freq, json_object_get(row, "guarded_inv_freq"), what);
        assert_ramp(ramps.beta, json_object_get(want_ramps, "beta"));
        assert_ramp(ramps.gamma, json_object_get(want_ramps, "gamma"));
        assert_true(fabs(mscale - 1.1386294361119891) <= 1e-14); /* 1 + ln(4) / 10, to the end */
        if (unguarded == NULL) continue;
        double furthest = 0.0;
        for (size_t i = 0; i < WAVES; i++)
            furthest = fmax(furthest, fabs(inv_freq[i] - item(unguarded, i)));
        if (t > number(cases, "beta_flip_below_t"))
            assert_true(furthest <= 1e-14);
        else if (t > number(cases, "gamma_flip_below_t"))
            assert_true(furthest <= 1e-5); /* the authors' slowest waves are interpolated */
        else
            assert_true(furthest > 0.7); /* the authors' wave 0 is interpolated */
    }
}

/* Every dynamic form is native at t = 0 save v1, whose thresholds all end at one turn. */
static void dynamic_methods_let_go_at_the_end(void **state)
{
    static const struct {
        position_method method;
        position_variant variant;
    } cases[] = {{POSITION_PI, VARIANT_OFFICIAL},      {POSITION_NTK, VARIANT_OFFICIAL},
                 {POSITION_YARN, VARIANT_OFFICIAL},    {POSITION_YARN, VARIANT_PAPER},
                 {POSITION_YARN, VARIANT_PAPER_L1024}, {POSITION_NTK, VARIANT_ABLATE_MULT}};
    position_opts opts = POSITION_OPTS_INIT;
    double native[WAVES];
    double inv_freq[WAVES];
    double mscale;
    position_ramps ramps;
    (void)state;
    opts.method = POSITION_BASE;
    position_frequencies(&opts, WIDTH, BASE_PATCHES, 256, 0.0, native, &mscale);
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        opts.method = cases[c].method;
        opts.variant = cases[c].variant;
        position_frequencies(&opts, WIDTH, BASE_PATCHES, 256, 0.0, inv_freq, &mscale);
        for (int i = 0; i < WAVES; i++)
            assert_true(fabs(inv_freq[i] - native[i]) <= 1e-15 * native[i]);
    }
    opts.method = POSITION_YARN;
    opts.variant = VARIANT_V1;
    position_frequencies_ramps(&opts, WIDTH, BASE_PATCHES, 256, 0.0, inv_freq, &mscale, &ramps);
    assert_int_equal(ramps.beta[0], 7);
    assert_int_equal(ramps.beta[1], 8);
    assert_int_equal(ramps.gamma[0], 7);
    assert_int_equal(ramps.gamma[1], 8);
    assert_true(fabs(inv_freq[27] - native[27] / 4) <= 1e-15);
}

/* cos and sin of the vectors are fp64; ours are rounded twice: to fp32 and after the factor, each 6e-8 of at most 1.2.
 */
static void tables_hold_cos_and_sin(void **state)
{
    const json_t *samples = json_object_get(vectors, "cos_sin");
    static float table[384 * WAVES * 2];
    (void)state;
    assert_int_equal(json_array_size(samples), 16);
    for (size_t e = 0; e < json_array_size(samples); e++) {
        const json_t *entry = json_array_get(samples, e);
        position_opts opts = opts_of(entry);
        int patches = (int)number(entry, "patches");
        int pos = (int)number(entry, "pos");
        double inv_freq[WAVES];
        double mscale;
        position_frequencies(&opts, WIDTH, BASE_PATCHES, patches, number(entry, "t"), inv_freq, &mscale);
        position_table(WIDTH, patches, inv_freq, mscale, false, table);
        for (size_t i = 0; i < WAVES; i++) {
            const float *pair = &table[((size_t)pos * WAVES + i) * 2];
            assert_true(fabs((double)pair[0] - item(json_object_get(entry, "cos"), i)) <= 1.5e-7);
            assert_true(fabs((double)pair[1] - item(json_object_get(entry, "sin"), i)) <= 1.5e-7);
        }
    }
}

/* In a bf16 run of the reference 257 lands on 256, 259 on 260; 384 patches give 321 rows and s of 385. */
static void bf16_positions_collide_on_request(void **state)
{
    const json_t *pairs = json_object_get(vectors, "bf16_positions_above_256");
    const int axes[POSITION_AXES] = {16, 56, 56};
    position_opts opts = POSITION_OPTS_INIT;
    position_plan exact;
    position_plan rounded;
    double inv_freq[WAVES];
    double mscale;
    static float tables[2][16 + 2 * 384 * WAVES * 2];
    (void)state;
    assert_int_equal(position_plan_make(&exact, &opts, axes, BASE_PATCHES, 384, 1, false), ST_OK);
    assert_int_equal(position_plan_make(&rounded, &opts, axes, BASE_PATCHES, 384, 1, true), ST_OK);
    position_plan_tables(&exact, 1.0, tables[0]);
    position_plan_tables(&rounded, 1.0, tables[1]);
    position_frequencies(&opts, WIDTH, BASE_PATCHES, 385, 1.0, inv_freq, &mscale);
    assert_true(json_array_size(pairs) == 9);
    for (size_t e = 0; e < 9; e++) {
        size_t from = (size_t)item(json_array_get(pairs, e), 0);
        double to = item(json_array_get(pairs, e), 1);
        const float *row = &tables[1][rounded.offset[1] + from * WIDTH];
        assert_true((double)bf16_round((float)from) == to);
        for (size_t i = 0; i < WAVES; i++) {
            assert_true(fabs((double)row[2 * i] - cos(to * inv_freq[i]) * mscale) <= 1.5e-7);
            assert_true(fabs((double)row[2 * i + 1] - sin(to * inv_freq[i]) * mscale) <= 1.5e-7);
        }
    }
    size_t n_distinct = 1;
    for (size_t p = 1; p < 384; p++) {
        const float *row = &tables[1][rounded.offset[1] + p * WIDTH];
        n_distinct += memcmp(row, row - WIDTH, WIDTH * sizeof(*row)) != 0;
        row = &tables[0][exact.offset[1] + p * WIDTH];
        assert_true(memcmp(row, row - WIDTH, WIDTH * sizeof(*row)) != 0);
    }
    assert_int_equal(n_distinct, 321);
}

/* Axis 0 is the identity, a native axis has the bits of method base, whatever happens to the other. */
static void plan_scales_only_long_axes(void **state)
{
    const int axes[POSITION_AXES] = {16, 56, 56};
    position_opts opts = POSITION_OPTS_INIT;
    position_opts base = POSITION_OPTS_INIT;
    position_plan plan;
    position_plan native;
    static float tables[2][16 + (64 + 256) * WIDTH];
    char line[256];
    (void)state;
    base.method = POSITION_BASE;
    assert_int_equal(position_plan_make(&plan, &opts, axes, BASE_PATCHES, 64, 256, false), ST_OK);
    assert_int_equal(position_plan_make(&native, &base, axes, BASE_PATCHES, 64, 256, false), ST_OK);
    assert_int_equal(plan.n_floats, 16 + (64 + 256) * WIDTH);
    assert_int_equal(plan.offset[0], 0);
    assert_int_equal(plan.offset[1], 16);
    assert_int_equal(plan.offset[2], 16 + 64 * WIDTH);
    position_plan_tables(&plan, 0.5, tables[0]);
    position_plan_tables(&native, 0.5, tables[1]);
    for (size_t i = 0; i < 8; i++)
        assert_true(tables[0][2 * i] == 1.0f && tables[0][2 * i + 1] == 0.0f);
    assert_memory_equal(tables[0], tables[1], plan.offset[2] * sizeof(float));
    assert_memory_not_equal(tables[0] + plan.offset[2], tables[1] + plan.offset[2], 256 * WIDTH * sizeof(float));
    /* Text rows sit at position 0: their cos is the attention factor. */
    for (size_t i = 0; i < WAVES; i++) {
        assert_true(fabs((double)tables[0][plan.offset[2] + 2 * i] - 1.1386294361119891) <= 1e-7);
        assert_true(tables[0][plan.offset[2] + 2 * i + 1] == 0.0f);
    }
    assert_true(position_plan_is_active(&plan) && position_plan_is_dynamic(&plan));
    assert_false(position_plan_is_active(&native) || position_plan_is_dynamic(&native));
    assert_string_equal(
        position_plan_describe(&plan, line, sizeof(line)),
        "dy-yarn, lambda_s 1, lambda_t 2: rows native (64 patches, base 64), columns 256 patches (4.00 x "
        "base 64)");
    assert_string_equal(position_plan_describe(&plan, line, 8), "dy-yarn");
}

/* 64 patches are native and 65 are not: the test is strict. */
static void activity_begins_past_the_base(void **state)
{
    const int axes[POSITION_AXES] = {16, 56, 56};
    position_opts opts = POSITION_OPTS_INIT;
    position_plan plan;
    (void)state;
    assert_int_equal(position_plan_make(&plan, &opts, axes, BASE_PATCHES, 64, 64, false), ST_OK);
    assert_false(position_plan_is_active(&plan));
    assert_int_equal(position_plan_make(&plan, &opts, axes, BASE_PATCHES, 65, 64, false), ST_OK);
    assert_true(position_plan_is_active(&plan) && position_plan_is_dynamic(&plan));
    opts.dype = false;
    assert_int_equal(position_plan_make(&plan, &opts, axes, BASE_PATCHES, 64, 65, false), ST_OK);
    assert_true(position_plan_is_active(&plan));
    assert_false(position_plan_is_dynamic(&plan));
}

/* Small models have narrow axes and short bases: no wave may leave [native / s^2, native], no value may be NaN. On a
 * base of 4 patches the authors' static ramp would flip to all native; ours keeps wave 0 alone. */
static void any_width_and_base_stays_in_range(void **state)
{
    static const int widths[] = {2, 4, 6, 16, 28, 56, 128, 512};
    static const int bases[] = {1, 4, 8, 16, 83};
    static const double times[] = {1.0, 0.5, 0.01, 0.0};
    (void)state;
    for (size_t w = 0; w < 8; w++)
        for (size_t b = 0; b < 5; b++)
            for (int m = POSITION_BASE; m <= POSITION_TIME_AWARE; m++)
                for (int v = VARIANT_OFFICIAL; v <= VARIANT_ABLATE_BOTH; v++)
                    for (int k = 0; k < 8; k++) {
                        position_opts opts = POSITION_OPTS_INIT;
                        double native[256];
                        double inv_freq[256];
                        double mscale;
                        double t = times[k / 2];
                        opts.method = (position_method)m;
                        opts.variant = (position_variant)v;
                        opts.dype = k % 2 == 1;
                        if (position_check(&opts) != ST_OK) continue;
                        position_frequencies(&opts, widths[w], bases[b], bases[b], t, native, &mscale);
                        position_frequencies(&opts, widths[w], bases[b], bases[b] * 3, t, inv_freq, &mscale);
                        assert_true(mscale >= 1.0 && mscale <= 1.11);
                        for (int i = 0; i < widths[w] / 2; i++) {
                            assert_true(native[i] == pow(10000.0, -2.0 * i / widths[w]));
                            assert_true(inv_freq[i] <= native[i] * (1 + 1e-14));
                            assert_true(inv_freq[i] >= native[i] / 9 * (1 - 1e-14));
                        }
                    }
    position_opts opts = POSITION_OPTS_INIT;
    position_ramps ramps;
    double inv_freq[WAVES];
    double mscale;
    opts.dype = false;
    position_frequencies_ramps(&opts, WIDTH, 4, 8, 1.0, inv_freq, &mscale, &ramps);
    assert_int_equal(ramps.gamma[0], 0);
    assert_int_equal(ramps.gamma[1], 0);
    assert_true(inv_freq[0] == 1.0 && fabs(inv_freq[27] - pow(10000.0, -54.0 / 56) / 2) <= 1e-15);
}

static void variants_that_a_method_lacks_are_refused(void **state)
{
    const int axes[POSITION_AXES] = {16, 56, 56};
    const int odd[POSITION_AXES] = {16, 55, 57};
    position_opts opts = POSITION_OPTS_INIT;
    position_plan plan;
    (void)state;
    opts.variant = VARIANT_FIT2;
    assert_int_equal(position_plan_make(&plan, &opts, axes, BASE_PATCHES, 64, 64, false), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "method yarn with dype has no variant fit2"));
    opts.dype = false;
    assert_int_equal(position_check(&opts), ST_OK);
    opts.variant = VARIANT_V1;
    assert_int_equal(position_check(&opts), ST_BAD_JOB);
    opts.variant = VARIANT_OFFICIAL;
    opts.lambda_t = -1.0;
    assert_int_equal(position_check(&opts), ST_BAD_JOB);
    opts.lambda_t = 2.0;
    assert_int_equal(position_plan_make(&plan, &opts, odd, BASE_PATCHES, 64, 64, false), ST_BAD_MODEL);
    assert_non_null(strstr(err_text(), "axes_dims_rope[1]: got 55"));
    assert_int_equal(position_plan_make(&plan, &opts, axes, 0, 64, 64, false), ST_BAD_JOB);
    err_clear();
}

/* Turns over 512 columns of a native axis: 512 * 10000^(-2 i / 56) / (2 pi), rounded; made with Python. */
static void a_ring_turns_whole_times(void **state)
{
    static const int turns[WAVES] = {81, 59, 42, 30, 22, 16, 11, 8, 6, 4, 3, 2, 2, 1,
                                     1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    const int        axes[POSITION_AXES] = {16, 56, 56};
    position_opts    base = POSITION_OPTS_INIT;
    position_plan    open, ring;
    double           inv_freq[WAVES], mscale;
    static float     tables[2][16 + (64 + 512) * WIDTH + 128], around[513 * WIDTH];
    (void)state;
    base.method = POSITION_BASE;
    position_frequencies(&base, WIDTH, BASE_PATCHES, 512, 1.0, inv_freq, &mscale);
    position_wrap(WIDTH, 512, inv_freq);
    for (int i = 0; i < WAVES; i++) assert_true(fabs(inv_freq[i] * 512 / (2 * acos(-1.0)) - turns[i]) <= 1e-9);
    position_table(WIDTH, 513, inv_freq, mscale, false, around);
    for (size_t i = 0; i < WIDTH; i++) /* column 512 is column 0 */
        assert_true(fabs((double)(around[512 * WIDTH + i] - around[i])) <= 1e-7);

    assert_int_equal(position_plan_make(&open, &base, axes, BASE_PATCHES, 64, 512, false), ST_OK);
    ring = open;
    position_plan_close(&ring);
    assert_int_equal(ring.n_floats, open.n_floats + 128);
    position_plan_tables(&open, 0.5, tables[0]);
    position_plan_tables(&ring, 0.5, tables[1]);
    assert_memory_equal(tables[0], tables[1], open.offset[2] * sizeof(float)); /* rows are as they were */
    assert_memory_equal(tables[1] + ring.offset[2], around, 512 * WIDTH * sizeof(float));
    /* Only waves that turn are left out between text and image, both channels of each. */
    for (int c = 0; c < 128; c++)
        assert_true(tables[1][ring.keep + (size_t)c] == (c >= 72 && turns[(c - 72) / 2] > 0 ? 0.0f : 1.0f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_gives_the_reference_frequencies),
        cmocka_unit_test(ablation_of_table_5_gives_the_reference_frequencies),
        cmocka_unit_test(ramps_do_not_flip_near_the_end),
        cmocka_unit_test(dynamic_methods_let_go_at_the_end),
        cmocka_unit_test(tables_hold_cos_and_sin),
        cmocka_unit_test(bf16_positions_collide_on_request),
        cmocka_unit_test(plan_scales_only_long_axes),
        cmocka_unit_test(a_ring_turns_whole_times),
        cmocka_unit_test(activity_begins_past_the_base),
        cmocka_unit_test(any_width_and_base_stays_in_range),
        cmocka_unit_test(variants_that_a_method_lacks_are_refused),
    };
    return cmocka_run_group_tests(tests, load_vectors, free_vectors);
}
