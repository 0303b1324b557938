/* --spectra and --loss: the same bytes on any number of ranks; the loss against plain sums over a dumped velocity, the spectra
 * against the finished latents of the render itself; and what they refuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "counter.h"
#include "latents_file.h"
#include "noise.h"
#include "program.h"
#include "safetensors.h"
#include "spectra.h"
#include "tiny_model.h"

enum { ROWS = 6, COLS = 4, N_STEPS = 4, LIMIT_S = 240, BYTES_MAX = 1 << 20 };

static char dir[TEMPDIR_PATH];

static int channels(void)
{
    return tiny_model_get('a').transformer.in_channels;
}

static int token_px(void)
{
    return 1 << tiny_model_get('a').vae.n_levels;
}

static float *clean_latent(void)
{
    const size_t  n = (size_t)(ROWS * COLS * channels());
    const counter values = counter_input(5, "clean");
    float        *x = malloc(n * sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = counter_value(&values, (int64_t)i);
    return x;
}

static void write_job(const char *precision, const char *more)
{
    char   text[2048];
    float *clean = clean_latent();
    const safetensors_tensor latents = {.name = "latents", .type = DT_F32, .n_dims = 2, .data = clean, .shape = {ROWS * COLS, channels()}};
    assert_int_equal(safetensors_write(tempdir_in(dir, "clean.safetensors"), &latents, 1, NULL, 0), ST_OK);
    free(clean);
    snprintf(text, sizeof(text),
             "model: a\noutput: '{name}-{seed}.png'\nprecision: %s\n%s"
             "defaults: {prompt: 'a lake', width: %d, height: %d, steps: %d, max_sequence_length: 21, shift: 0, noise: counter, "
             "position: {method: yarn, base_resolution: %d}}\n"
             "pictures:\n  - {name: p, seed: 3, latents_in: clean.safetensors}\n"
             "  - {name: q, seed: 4, latents_in: clean.safetensors, position: {method: pi, dype: false, base_resolution: %d}}\n",
             precision, more, COLS * token_px(), ROWS * token_px(), N_STEPS, 4 * token_px(), 4 * token_px());
    if (tempdir_write(tempdir_in(dir, "loss.yaml"), text) != ST_OK) fail_msg("%s", err_text());
    snprintf(text, sizeof(text),
             "model: a\noutput: '{name}-{seed}.png'\nprecision: %s\n%s"
             "defaults: {prompt: 'a lake', width: %d, height: %d, steps: %d, max_sequence_length: 21, noise: counter, "
             "latents_out: '{name}-{seed}.out.safetensors', position: {method: yarn, base_resolution: %d}}\n"
             "pictures:\n  - {name: p, seeds: [3, 4]}\n  - {name: q, seed: 5}\n",
             precision, more, COLS * token_px(), ROWS * token_px(), N_STEPS, 4 * token_px());
    if (tempdir_write(tempdir_in(dir, "spectra.yaml"), text) != ST_OK) fail_msg("%s", err_text());
}

static void run(int n_ranks, int exit_code, const char *piece, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void run(int n_ranks, int exit_code, const char *piece, const char *fmt, ...)
{
    char        arguments[512];
    program_run r;
    va_list     ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof(arguments), fmt, ap);
    va_end(ap);
    program_start(&r, dir, NULL, n_ranks, LIMIT_S, arguments);
    if (r.exit_code != exit_code) fail_msg("%s: got exit code %d, want %d\n%s", arguments, r.exit_code, exit_code, r.output);
    if (piece != NULL && strstr(r.output, piece) == NULL) fail_msg("%s: no \"%s\" in\n%s", arguments, piece, r.output);
    program_run_free(&r);
}

static char *read_text(const char *name)
{
    char *text = calloc(BYTES_MAX, 1);
    FILE *f = fopen(tempdir_in(dir, "%s", name), "r");
    assert_non_null(text);
    if (f == NULL) fail_msg("no %s", name);
    assert_true(fread(text, 1, BYTES_MAX - 1, f) > 0);
    fclose(f);
    return text;
}

static void assert_same_text(const char *a, const char *b)
{
    char *x = read_text(a), *y = read_text(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

#ifdef WITH_MPI
static const int rank_counts[] = {2, 3, 5}; /* 26 rows of 21 + 24 in few tiles: some have none */
enum { N_COUNTS = 3 };
#else
static const int rank_counts[] = {0};
enum { N_COUNTS = 1 };
#endif

/* Mean of (v - (e - x0))^2, in another order than the program's: one long double sum. */
static double plain_loss(const char *picture, uint64_t seed, int step)
{
    const size_t n = (size_t)(ROWS * COLS * channels());
    char         name[160];
    float       *velocity = NULL, *noise = malloc(n * sizeof(float)), *clean = clean_latent();
    geometry     g;
    long double  sum = 0;
    assert_non_null(noise);
    assert_int_equal(geometry_make(&g, COLS * token_px(), ROWS * token_px(), token_px() / 2), ST_OK);
    assert_int_equal(noise_fill(&(noise_opts){.kind = NOISE_COUNTER}, seed, &g, channels() / 4, 0, ROWS * COLS, false, noise), ST_OK);
    snprintf(name, sizeof(name), "dumps/%s.dit.velocity@%d.rank0.safetensors", picture, step);
    if (latents_file_read(&velocity, tempdir_in(dir, "%s", name), "dit.velocity", ROWS * COLS, channels(), NULL) !=
        ST_OK)
        fail_msg("%s", err_text());
    for (size_t i = 0; i < n; i++) {
        const long double d = (long double)velocity[i] - ((long double)noise[i] - (long double)clean[i]);
        sum += d * d;
    }
    free(velocity);
    free(noise);
    free(clean);
    return (double)(sum / (long double)n);
}

static void the_loss_is_that_of_plain_sums(void **state)
{
    (void)state;
    write_job("fp32", "");
    run(0, 0, "loss of 2 pictures: one.csv", "--loss one.csv --dump dit.velocity loss.yaml");
    char *text = read_text("one.csv");
    char *line = strtok(text, "\n");
    int   n = 0;
    assert_string_equal(line, "picture,method,step,t,sigma,loss");
    while ((line = strtok(NULL, "\n")) != NULL) {
        char   picture[32], method[32];
        int    step = 0;
        double t = 0, sigma = 0, loss = 0;
        assert_int_equal(sscanf(line, "%31[^,],%31[^,],%d,%lf,%lf,%lf", picture, method, &step, &t, &sigma, &loss), 6);
        assert_string_equal(picture, n < N_STEPS ? "p" : "q");
        assert_string_equal(method, n < N_STEPS ? "dy-yarn" : "pi");
        assert_int_equal(step, n % N_STEPS);
        assert_true(fabs(sigma - (1 - 0.25 * step)) < 1e-6); /* shift 0: even levels */
        const double want = plain_loss(picture, n < N_STEPS ? 3 : 4, step);
        if (!(fabs(loss / want - 1) < 1e-12)) fail_msg("%s step %d: got %.17g, want %.17g", picture, step, loss, want);
        n++;
    }
    assert_int_equal(n, 2 * N_STEPS);
    free(text);
    assert_int_not_equal(access(tempdir_in(dir, "p-3.png"), F_OK), 0);
}

/* What enters the model is (1 - s) x0 + s e: at s = 1 the noise alone, so the velocity is that of the first step of a render. */
static void the_first_level_is_the_first_step_of_a_render(void **state)
{
    const size_t n = (size_t)(ROWS * COLS * channels());
    float       *a = NULL, *b = NULL;
    (void)state;
    write_job("fp32", "");
    run(0, 0, NULL, "--quiet --spectra s.csv --dump dit.velocity@0 --only p-3 spectra.yaml");
    assert_int_equal(latents_file_read(&a, tempdir_in(dir, "dumps/p-3.dit.velocity@0.rank0.safetensors"),
                                       "dit.velocity", ROWS * COLS, channels(), NULL),
                     ST_OK);
    run(0, 0, NULL, "--quiet --loss l.csv --dump dit.velocity@0 --only p loss.yaml");
    assert_int_equal(latents_file_read(&b, tempdir_in(dir, "dumps/p.dit.velocity@0.rank0.safetensors"), "dit.velocity",
                                       ROWS * COLS, channels(), NULL),
                     ST_OK);
    assert_memory_equal(a, b, n * sizeof(float));
    free(a);
    free(b);
}

static void ranks_do_not_matter(void **state)
{
    (void)state;
    for (int bf16 = program_full() ? 0 : 1; bf16 < 2; bf16++) {
        write_job(bf16 ? "bf16" : "fp32", "");
        run(0, 0, NULL, "--quiet --loss one.csv loss.yaml");
        run(0, 0, NULL, "--quiet --spectra one.spectra.csv spectra.yaml");
        for (int i = 0; i < N_COUNTS; i++) {
            run(rank_counts[i], 0, NULL, "--quiet --loss more.csv loss.yaml");
            assert_same_text("one.csv", "more.csv");
            run(rank_counts[i], 0, NULL, "--quiet --spectra more.spectra.csv spectra.yaml");
            assert_same_text("one.spectra.csv", "more.spectra.csv");
            assert_same_text("one.spectra.svg", "more.spectra.svg");
        }
    }
}

/* The sha of the finished latents is the render's, and their spectrum is that of the file it leaves; the first row is the
 * noise's. */
static void spectra_are_those_of_the_render(void **state)
{
    double       want[64] = {0}, noise_power[64] = {0}, mean[64], one[64];
    spectra     *s = NULL;
    geometry     g;
    const size_t n = (size_t)(ROWS * COLS * channels());
    float       *noise = malloc(n * sizeof(float)), *latent = NULL;
    int          seen = 0;
    (void)state;
    assert_non_null(noise);
    write_job("bf16", "");
    run(0, 0, "spectra of 2 entries: s.csv, s.svg", "--log-json s.json --spectra s.csv spectra.yaml");
    assert_int_not_equal(access(tempdir_in(dir, "p-3.png"), F_OK), 0);
    run(0, 0, NULL, "--quiet --log-json r.json spectra.yaml");
    char log[TEMPDIR_PATH + 160];
    snprintf(log, sizeof(log), "%s", tempdir_in(dir, "s.json"));
    json_t *spectra_events = program_events(log, "spectra");
    snprintf(log, sizeof(log), "%s", tempdir_in(dir, "r.json"));
    json_t *pictures = program_events(log, "picture");
    assert_int_equal(json_array_size(spectra_events), 3);
    assert_int_equal(json_array_size(pictures), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(spectra_events, i), "latents_sha256")),
                            json_string_value(json_object_get(json_array_get(pictures, i), "latents_sha256")));
    json_decref(spectra_events);
    json_decref(pictures);

    assert_int_equal(geometry_make(&g, COLS * token_px(), ROWS * token_px(), token_px() / 2), ST_OK);
    assert_int_equal(spectra_open(&s, g.latent_h, g.latent_w), ST_OK);
    const int n_bins = spectra_bins(s);
    for (uint64_t seed = 3; seed <= 4; seed++) {
        char name[64];
        snprintf(name, sizeof(name), "p-%d.out.safetensors", (int)seed);
        if (latents_file_read(&latent, tempdir_in(dir, "%s", name), "latents", ROWS * COLS, channels(), NULL) != ST_OK)
            fail_msg("%s", err_text());
        spectra_of_latent(s, channels(), latent, one);
        for (int k = 0; k < n_bins; k++) want[k] += one[k] / 2;
        free(latent);
        assert_int_equal(noise_fill(&(noise_opts){.kind = NOISE_COUNTER}, seed, &g, channels() / 4, 0, ROWS * COLS, true, noise), ST_OK);
        spectra_of_latent(s, channels(), noise, mean);
        for (int k = 0; k < n_bins; k++) noise_power[k] += mean[k] / 2;
    }
    char *text = read_text("s.csv");
    for (char *line = strtok(text, "\n"); (line = strtok(NULL, "\n")) != NULL;) {
        char   name[32], rest[64];
        int    pictures_of_it = 0, step = 0, bin = 0;
        double sigma = 0, f = 0, state_power = 0, clean_power = 0;
        assert_int_equal(sscanf(line, "%31[^,],%d,%d,%lf,%d,%lf,%lf,%lf,%63s", name, &pictures_of_it, &step, &sigma, &bin, &f, &state_power,
                                &clean_power, rest), 9);
        if (strcmp(name, "p") != 0) continue;
        assert_int_equal(pictures_of_it, 2);
        assert_true(fabs(f - bin / (2.0 * n_bins)) < 1e-6);
        if (step == 0) assert_true(sigma == 1 && fabs(state_power / noise_power[bin - 1] - 1) < 1e-8);
        if (step == N_STEPS) assert_true(sigma == 0 && fabs(state_power / want[bin - 1] - 1) < 1e-8 && clean_power == state_power);
        seen++;
    }
    assert_int_equal(seen, (N_STEPS + 1) * n_bins);
    free(text);
    free(noise);
    spectra_close(s);
}

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    write_job("fp32", "");
    run(0, 3, "p-3: --loss needs latents_in, the clean latent of a true picture", "--loss l2.csv spectra.yaml");
    assert_int_not_equal(access(tempdir_in(dir, "l2.csv"), F_OK), 0);
    run(0, 2, "--spectra x.svg: names the table", "--spectra x.svg spectra.yaml");
    write_job("fp32", "parallel: {replicas: 2}\n");
    run(rank_counts[0], 3, "2 replicas: --loss wants all ranks in one", "--loss l2.csv loss.yaml");
}

static int open_dir(void **state)
{
    const tiny_model m = tiny_model_get('a');
    (void)state;
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "a"), 0777) != 0) return -1;
    return tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "a")) == ST_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_is_that_of_plain_sums),
        cmocka_unit_test(the_first_level_is_the_first_step_of_a_render),
        cmocka_unit_test(ranks_do_not_matter),
        cmocka_unit_test(spectra_are_those_of_the_render),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
    };
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
