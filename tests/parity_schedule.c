/* Sigmas, mu and timesteps against FlowMatchEulerDiscreteScheduler as FluxPipeline sets it up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "schedule.h"
#include "tiny_model.h"
#include "vectors.h"

/* The scheduler of a tiny model: dev's or schnell's numbers. */
static schedule_config config_of(char which)
{
    const tiny_model model = tiny_model_get(which);
    schedule_config config = SCHEDULE_CONFIG_INIT;
    config.shift = model.shift;
    config.use_dynamic_shifting = model.dynamic_shift;
    return config;
}

static void assert_close(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want))) fail_msg("got %.9g, want %.9g", got, want);
}

static void sigmas_are_the_schedulers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        char model;
        shift_kind kind;
        int n_steps;
        int32_t n_image;
    } cases[] = {
        {"dev", 'a', SHIFT_STOCK, 28, 4096},     {"dev", 'a', SHIFT_STOCK, 8, 13},
        {"dev", 'a', SHIFT_STOCK, 50, 256},      {"dev", 'a', SHIFT_STOCK, 20, 65536},
        {"dev", 'a', SHIFT_STOCK, 1, 1024},      {"dype", 'a', SHIFT_DYPE, 28, 4096},
        {"dype", 'a', SHIFT_DYPE, 28, 65536},    {"dype", 'a', SHIFT_DYPE, 5, 77},
        {"schnell", 'b', SHIFT_STOCK, 4, 4096},  {"schnell", 'b', SHIFT_STOCK, 1, 256},
        {"schnell", 'b', SHIFT_STOCK, 7, 65536},
    };
    vectors *v = vectors_open("schedule");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int n = cases[i].n_steps, n_image = cases[i].n_image;
        const schedule_opts opts = {.config = config_of(cases[i].model),
                                    .shift = {.kind = cases[i].kind},
                                    .n_steps = n,
                                    .n_image = n_image,
                                    .guidance = 3.5,
                                    .rounding = SCHEDULE_F32};
        const vector sigmas = vectors_get(v, "%s.%d.%d.sigmas", cases[i].name, n, n_image);
        const vector times = vectors_get(v, "%s.%d.%d.timesteps", cases[i].name, n, n_image);
        const vector mu = vectors_get(v, "%s.%d.%d.mu", cases[i].name, n, n_image);
        schedule *s = NULL;
        assert_int_equal(schedule_open(&s, &opts), ST_OK);
        assert_int_equal(s->n_steps, n);
        assert_close(s->mu, *(const double *)mu.raw, 1e-12);
        for (int k = 0; k < n; k++) {
            assert_close(s->steps[k].sigma, sigmas.f32[k], 1e-6);
            /* The difference of two sigmas keeps their absolute error. */
            assert_true(fabsf(s->steps[k].dt - (sigmas.f32[k + 1] - sigmas.f32[k])) <= 2e-6f);
            assert_close(s->steps[k].t_model, times.f32[k], 1e-6);
        }
        schedule_close(s);
    }
    vectors_close(v);
}

static void bf16_runs_see_the_reference_timesteps_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        char model;
    } cases[] = {{"denoise_a", 'a'}, {"denoise_b", 'b'}};
    for (size_t i = 0; i < 2; i++) {
        vectors *v = vectors_open(cases[i].file);
        const vector times = vectors_get(v, "bf16.embedded_timestep"), grid = vectors_get(v, "grid");
        const schedule_opts opts = {.config = config_of(cases[i].model),
                                    .shift = {.kind = SHIFT_STOCK},
                                    .n_steps = (int)times.n,
                                    .n_image = (int32_t)(grid.f32[0] * grid.f32[1]),
                                    .guidance = (double)vectors_get(v, "guidance").f32[0],
                                    .rounding = SCHEDULE_BF16};
        schedule *s = NULL;
        assert_int_equal(schedule_open(&s, &opts), ST_OK);
        for (size_t k = 0; k < times.n; k++)
            assert_true(s->steps[k].t_model == times.f32[k]);
        if (vectors_has(v, "bf16.embedded_guidance"))
            assert_true(s->guidance_model == vectors_get(v, "bf16.embedded_guidance").f32[0]);
        schedule_close(s);
        vectors_close(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigmas_are_the_schedulers),
        cmocka_unit_test(bf16_runs_see_the_reference_timesteps_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
