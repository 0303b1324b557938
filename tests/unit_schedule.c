/* Schedules against diffusers' numbers (FLUX.1-dev at 28 steps, schnell at 4) and vectors/dype. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "dtype.h"
#include "schedule.h"

static schedule_opts dev_opts(void)
{
    schedule_opts opts = {.config = SCHEDULE_CONFIG_INIT,
                          .shift = SHIFT_OPTS_INIT,
                          .n_steps = 28,
                          .n_image = 4096,
                          .guidance = 3.5,
                          .rounding = SCHEDULE_BF16};
    opts.config.shift = 3.0;
    opts.config.use_dynamic_shifting = true;
    return opts;
}

static schedule *open_schedule(const schedule_opts *opts)
{
    schedule *s = NULL;
    assert_int_equal(schedule_open(&s, opts), ST_OK);
    return s;
}

/* 7 decimals of diffusers' fp32 sigmas. */
static void dev_sigmas_are_those_of_diffusers(void **state)
{
    static const double sigmas[] = {1,        .9884086, .9762225, .9633944, .9498726, .9355989, .9205090,
                                    .9045308, .8875834, .8695759, .8504057, .8299564, .8080955, .7846716,
                                    .7595109, .7324128, .7031447, .6714348, .6369645, .5993567, .5581629,
                                    .5128441, .4627484, .4070784, .3448489, .2748280, .1954546, .1047209};
    schedule_opts opts = dev_opts();
    schedule *s = open_schedule(&opts);
    (void)state;
    assert_int_equal(s->n_steps, 28);
    assert_true(s->mu == 1.15 && s->mu_used);
    for (int i = 0; i < 28; i++) {
        float next = i < 27 ? s->steps[i + 1].sigma : 0.0f;
        assert_true(fabs((double)s->steps[i].sigma - sigmas[i]) <= 6e-8);
        assert_true(s->steps[i].dt == next - s->steps[i].sigma);
    }
    schedule_close(s);
}

/* Rows of (sigma as fp32, t, t squared, sinusoid input): all exact. */
static void bf16_times_are_rounded_twice(void **state)
{
    json_t *vectors = json_load_file(TEST_DIR "/vectors/dype/dype_vectors.json", 0, NULL);
    const json_t *rows = json_object_get(json_object_get(vectors, "schedule_28_mu_1.15"), "rows");
    schedule_opts opts = dev_opts();
    schedule *s = open_schedule(&opts);
    (void)state;
    assert_int_equal(json_array_size(rows), 28);
    for (size_t i = 0; i < 28; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_true((double)s->steps[i].sigma == json_number_value(json_array_get(row, 0)));
        assert_true(s->steps[i].t_position == json_number_value(json_array_get(row, 1)));
        assert_true(s->steps[i].t_position * s->steps[i].t_position == json_number_value(json_array_get(row, 2)));
        assert_true((double)s->steps[i].t_model == json_number_value(json_array_get(row, 3)));
    }
    schedule_close(s);
    json_decref(vectors);
}

static void bf16_times_of_the_whole_pipeline(void **state)
{
    static const float times[] = {1000, 988, 976, 964, 948, 936, 920, 904, 888, 868, 852, 828, 808, 784,
                                  760,  732, 704, 672, 636, 600, 560, 512, 462, 408, 344, 274, 195, 104.5f};
    schedule_opts opts = dev_opts();
    schedule *s = open_schedule(&opts);
    (void)state;
    for (int i = 0; i < 28; i++)
        assert_true(s->steps[i].t_model == times[i]);
    schedule_close(s);
}

static void fp32_times_are_sigma(void **state)
{
    schedule_opts opts = dev_opts();
    (void)state;
    opts.rounding = SCHEDULE_F32;
    opts.guidance = 3.3;
    schedule *s = open_schedule(&opts);
    for (int i = 0; i < 28; i++) {
        double sigma = (double)s->steps[i].sigma;
        assert_true(fabs(s->steps[i].t_position - sigma) <= 1.2e-7 * sigma);
        assert_true(fabs((double)s->steps[i].t_model - 1000.0 * sigma) <= 1.8e-7 * 1000.0 * sigma);
    }
    assert_true(s->guidance_model == 3.3f * 1000.0f);
    schedule_close(s);
}

/* In bf16 the reference's steps add up to -1.00018; ours to -1. */
static void parity_rounds_dt(void **state)
{
    schedule_opts opts = dev_opts();
    double sum = 0.0;
    double sum_parity = 0.0;
    (void)state;
    schedule *s = open_schedule(&opts);
    opts.rounding = SCHEDULE_PARITY;
    schedule *parity = open_schedule(&opts);
    for (int i = 0; i < 28; i++) {
        sum += (double)s->steps[i].dt;
        sum_parity += (double)parity->steps[i].dt;
        assert_true(parity->steps[i].dt == bf16_round(s->steps[i].dt));
        assert_true(parity->steps[i].t_model == s->steps[i].t_model);
    }
    assert_true(fabs(sum + 1.0) <= 1e-6);
    assert_true(fabs(sum_parity + 1.00018) <= 5e-6);
    schedule_close(parity);
    schedule_close(s);
}

static void guidance_is_rounded_twice(void **state)
{
    static const double pairs[][2] = {{3.5, 3504}, {4.5, 4512}, {30, 29952}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        schedule_opts opts = dev_opts();
        opts.guidance = pairs[i][0];
        schedule *s = open_schedule(&opts);
        assert_true((double)s->guidance_model == pairs[i][1]);
        schedule_close(s);
    }
}

static void mu_follows_the_kind_of_shift(void **state)
{
    static const struct {
        int32_t n_image;
        double mu;
    } stock[] = {{256, 0.5}, {1024, 0.63}, {4096, 1.15}, {16384, 3.23}, {36864, 6.70}, {65536, 11.55}};
    schedule_config config = SCHEDULE_CONFIG_INIT;
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        double mu = schedule_mu(&config, (shift_opts){.kind = SHIFT_STOCK}, stock[i].n_image);
        assert_true(fabs(mu - stock[i].mu) <= 0.0051);
        assert_true(schedule_mu(&config, (shift_opts){.kind = SHIFT_DYPE}, stock[i].n_image) == 1.15);
        assert_true(schedule_mu(&config, (shift_opts){.kind = SHIFT_EXPLICIT, .mu = 2.5}, stock[i].n_image) == 2.5);
    }
    assert_true(fabs(schedule_mu(&config, (shift_opts){.kind = SHIFT_STOCK}, 4096) - 1.15) <= 1e-15);
}

/* At 4096 x 4096 the stock rule leaves nearly all noise to the last of 28 steps. */
static void stock_shift_explodes_at_large_sizes(void **state)
{
    schedule_opts opts = dev_opts();
    (void)state;
    opts.shift.kind = SHIFT_STOCK;
    opts.n_image = 65536;
    schedule *s = open_schedule(&opts);
    assert_true(fabs((double)s->steps[27].sigma - 0.99974) <= 5e-6);
    schedule_close(s);
}

static void schnell_is_static(void **state)
{
    schedule_opts opts = dev_opts();
    (void)state;
    opts.config = SCHEDULE_CONFIG_INIT;
    opts.n_steps = 4;
    schedule *s = open_schedule(&opts);
    static const float sigmas[] = {1.0f, 0.75f, 0.5f, 0.25f};
    for (int i = 0; i < 4; i++) {
        assert_true(s->steps[i].sigma == sigmas[i]);
        assert_true(s->steps[i].dt == -0.25f);
    }
    assert_false(s->mu_used);
    schedule_close(s);
    opts.config.shift = 3.0; /* 3 s / (1 + 2 s) */
    opts.n_steps = 1;
    s = open_schedule(&opts);
    assert_true(s->steps[0].sigma == 1.0f && s->steps[0].dt == -1.0f && s->steps[0].t_model == 1000.0f);
    schedule_close(s);
    opts.n_steps = 2;
    s = open_schedule(&opts);
    assert_true(s->steps[1].sigma == 0.75f);
    schedule_close(s);
}

static void linear_time_shift_takes_mu_itself(void **state)
{
    schedule_opts opts = dev_opts();
    (void)state;
    opts.config.time_shift_type = TIME_SHIFT_LINEAR;
    opts.shift = (shift_opts){.kind = SHIFT_EXPLICIT, .mu = 3.0};
    opts.n_steps = 2;
    schedule *s = open_schedule(&opts);
    assert_true(s->steps[1].sigma == 0.75f); /* 3 / (3 + 1/0.5 - 1) */
    schedule_close(s);
}

static void schedules_without_meaning_are_refused(void **state)
{
    schedule *s = NULL;
    schedule_opts opts = dev_opts();
    (void)state;
    opts.n_steps = 0;
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_JOB);
    opts = dev_opts();
    opts.shift = (shift_opts){.kind = SHIFT_EXPLICIT, .mu = NAN};
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_JOB);
    opts = dev_opts();
    opts.shift.kind = SHIFT_STOCK;
    opts.n_image = 4 << 20; /* mu about 700 */
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "4194304 image rows"));
    opts = dev_opts();
    opts.shift.kind = SHIFT_STOCK;
    opts.config.max_image_seq_len = 256;
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_MODEL);
    opts = dev_opts();
    opts.config.num_train_timesteps = 0;
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_MODEL);
    opts = dev_opts();
    opts.config.use_dynamic_shifting = false;
    opts.config.shift = 0.0;
    assert_int_equal(schedule_open(&s, &opts), ST_BAD_MODEL);
    assert_null(s);
    schedule_close(NULL);
    err_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dev_sigmas_are_those_of_diffusers),
        cmocka_unit_test(bf16_times_are_rounded_twice),
        cmocka_unit_test(bf16_times_of_the_whole_pipeline),
        cmocka_unit_test(fp32_times_are_sigma),
        cmocka_unit_test(parity_rounds_dt),
        cmocka_unit_test(guidance_is_rounded_twice),
        cmocka_unit_test(mu_follows_the_kind_of_shift),
        cmocka_unit_test(stock_shift_explodes_at_large_sizes),
        cmocka_unit_test(schnell_is_static),
        cmocka_unit_test(linear_time_shift_takes_mu_itself),
        cmocka_unit_test(schedules_without_meaning_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
