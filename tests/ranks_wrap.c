/* `wrap: horizontal` closes a picture to a ring: initial noise rolled by any whole number of token columns gives the rolled
 * picture, latents, fp32 samples and 8-bit samples alike, on one rank and on three; without wrap it does not. */
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "counter.h"
#include "latents_file.h"
#include "program.h"
#include "safetensors.h"
#include "tiny_model.h"
#include "vectors.h"

enum { ROWS = 6, RGB = 3, MAX_SHIFTS = 32, LIMIT_S = 240 };

/* Both runs add the same terms in another order, in fp32: some 1e-6 of the scale, not amplified a hundredfold. Latents in
 * units of their root mean square, samples in [-1, 1]. An 8-bit sample follows by at most one, where its value lies that
 * close to a rounding border: 1e-4 of a range of 2 is 1/78 of a level, so of 39 samples one may. */
static const double TOLERANCE = 1e-4, OFF_BY_ONE = 1.0 / 39;

static char dir[TEMPDIR_PATH];

/* One job: the same noise rolled by each of the shifts. */
typedef struct ring {
    char        model; /* of the tiny models */
    int         cols;  /* of tokens */
    int         n_ranks, n_threads;
    const char *position, *wrap, *parallel;
} ring;

static int channels_of(const ring *r)
{
    return tiny_model_get(r->model).transformer.in_channels;
}

static int token_px(const ring *r)
{
    return 1 << tiny_model_get(r->model).vae.n_levels; /* 2 latent values of 2^(levels - 1) px */
}

static size_t n_latents(const ring *r)
{
    return (size_t)ROWS * (size_t)r->cols * (size_t)channels_of(r);
}

static size_t n_samples(const ring *r)
{
    return (size_t)ROWS * (size_t)r->cols * (size_t)token_px(r) * (size_t)token_px(r) * RGB;
}

/* None, then all that there are; without --full the least, the greatest and one between. */
static int shifts_of(const ring *r, int shifts[MAX_SHIFTS])
{
    int n = 0;
    assert_in_range(r->cols, 3, MAX_SHIFTS);
    for (int shift = 0; shift < r->cols; shift++)
        if (program_full() || shift <= 1 || shift == r->cols / 2 || shift == r->cols - 1) shifts[n++] = shift;
    return n;
}

static void name_of(int shift, char name[16])
{
    snprintf(name, 16, "by%d", shift);
}

/* [rows, cols, width] moved right by `shift` columns. */
static void roll(const float *x, int rows, int cols, int width, int shift, float *y)
{
    for (int row = 0; row < rows; row++)
        for (int col = 0; col < cols; col++)
            memcpy(y + ((size_t)row * (size_t)cols + (size_t)((col + shift) % cols)) * (size_t)width,
                   x + ((size_t)row * (size_t)cols + (size_t)col) * (size_t)width, (size_t)width * sizeof(float));
}

static void write_noise(const ring *r, const int *shifts, int n_shifts)
{
    const size_t  n = n_latents(r);
    const counter values = counter_input(77, "noise");
    float        *noise = malloc(n * sizeof(float)), *rolled = malloc(n * sizeof(float));
    char          name[16];
    assert_non_null(noise);
    assert_non_null(rolled);
    for (size_t i = 0; i < n; i++) noise[i] = counter_value(&values, (int64_t)i);
    for (int i = 0; i < n_shifts; i++) {
        roll(noise, ROWS, r->cols, channels_of(r), shifts[i], rolled);
        name_of(shifts[i], name);
        const safetensors_tensor latents = {.name = "latents", .type = DT_F32, .n_dims = 2, .data = rolled,
                                            .shape = {ROWS * r->cols, channels_of(r)}};
        assert_int_equal(safetensors_write(tempdir_in(dir, "%s.in.safetensors", name), &latents, 1, NULL, 0), ST_OK);
    }
    free(rolled);
    free(noise);
}

static void render(const ring *r, const int *shifts, int n_shifts)
{
    program_run run;
    char        text[4096], name[16], arguments[128];
    int         n = snprintf(text, sizeof(text),
                             "model: %c\noutput: '{name}.png'\nprecision: fp32\nparallel: %s\n"
                             "defaults: {prompt: 'a lake', width: %d, height: %d, steps: 3, max_sequence_length: 21, wrap: %s, "
                             "latents_out: '{name}.out.safetensors', position: %s}\npictures:\n",
                             r->model, r->parallel, r->cols * token_px(r), ROWS * token_px(r), r->wrap, r->position);
    for (int i = 0; i < n_shifts; i++) {
        name_of(shifts[i], name);
        n += snprintf(text + n, sizeof(text) - (size_t)n, "  - {name: %s, latents_in: %s.in.safetensors}\n", name, name);
    }
    assert_true((size_t)n < sizeof(text));
    assert_int_equal(tempdir_write(tempdir_in(dir, "job.yaml"), text), ST_OK);
    snprintf(arguments, sizeof(arguments), "job.yaml --overwrite --dump vae.rgb --threads %d", r->n_threads);
    program_start(&run, dir, NULL, r->n_ranks, LIMIT_S, arguments);
    if (run.exit_code != 0) fail_msg("%d ranks, wrap %s: exit code %d\n%s", r->n_ranks, r->wrap, run.exit_code, run.output);
    program_run_free(&run);
}

/* The decoder's fp32 samples: strips of the ranks, one under the other. */
static void read_samples(const ring *r, const char *name, float *rgb)
{
    size_t at = 0;
    for (int rank = 0; rank < r->n_ranks; rank++) {
        char suffix[48];
        snprintf(suffix, sizeof(suffix), ".vae.rgb@0.rank%d.safetensors", rank);
        char file[64];
        snprintf(file, sizeof(file), "dumps/%s", name);
        vectors *v = vectors_open_path(tempdir_in(dir, "%s%s", file, suffix));
        const vector strip = vectors_get(v, "vae.rgb");
        assert_true(at + strip.n <= n_samples(r));
        memcpy(rgb + at, strip.f32, strip.n * sizeof(float));
        at += strip.n;
        vectors_close(v);
    }
    assert_int_equal(at, n_samples(r));
}

static void read_pixels(const ring *r, const char *name, uint8_t *pixels)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_int_not_equal(png_image_begin_read_from_file(&image, tempdir_in(dir, "%s.png", name)), 0);
    image.format = PNG_FORMAT_RGB;
    assert_int_equal(image.width, r->cols * token_px(r));
    assert_int_equal(image.height, ROWS * token_px(r));
    assert_int_not_equal(png_image_finish_read(&image, NULL, pixels, 0, NULL), 0);
}

/* What came out, moved back by `shift`. */
typedef struct result {
    float   *latents; /* [rows, cols, channels] */
    float   *samples; /* [height, width, 3] in about [-1, 1] */
    uint8_t *pixels;  /* [height, width, 3] */
} result;

static result result_read(const ring *r, int shift)
{
    const int    px = token_px(r), width = r->cols * px, height = ROWS * px;
    const size_t n = n_samples(r);
    result       out = {malloc(n_latents(r) * sizeof(float)), malloc(n * sizeof(float)), malloc(n)};
    float       *samples = malloc(n * sizeof(float)), *latents = NULL;
    uint8_t     *pixels = malloc(n);
    char         name[16];
    name_of(shift, name);
    assert_true(out.latents != NULL && out.samples != NULL && out.pixels != NULL && samples != NULL && pixels != NULL);
    assert_int_equal(latents_file_read(&latents, tempdir_in(dir, "%s.out.safetensors", name), "latents", ROWS * r->cols,
                                       channels_of(r), NULL),
                     ST_OK);
    read_samples(r, name, samples);
    read_pixels(r, name, pixels);
    roll(latents, ROWS, r->cols, channels_of(r), r->cols - shift, out.latents);
    roll(samples, height, width, RGB, width - shift * px, out.samples);
    for (int row = 0; row < height; row++)
        for (int col = 0; col < width; col++)
            memcpy(out.pixels + (row * width + col) * RGB, pixels + (row * width + (col + shift * px) % width) * RGB, RGB);
    free(latents);
    free(samples);
    free(pixels);
    return out;
}

static void result_free(result *x)
{
    free(x->latents);
    free(x->samples);
    free(x->pixels);
}

/* How far the rolled pictures are from the first one, rolled back; the worst of all shifts. */
typedef struct distance {
    double latents, samples;
    int    pixels;     /* levels */
    double off_by_one; /* share of samples that differ */
} distance;

static distance measure(const ring *r)
{
    const size_t n = n_samples(r);
    distance     worst = {0};
    int          shifts[MAX_SHIFTS];
    const int    n_shifts = shifts_of(r, shifts);
    write_noise(r, shifts, n_shifts);
    render(r, shifts, n_shifts);
    result want = result_read(r, 0);
    double square = 0;
    for (size_t i = 0; i < n_latents(r); i++) square += (double)want.latents[i] * (double)want.latents[i];
    for (int i = 1; i < n_shifts; i++) {
        result got = result_read(r, shifts[i]);
        size_t n_off = 0;
        worst.latents = fmax(worst.latents, max_abs(got.latents, want.latents, n_latents(r)) / sqrt(square / (double)n_latents(r)));
        worst.samples = fmax(worst.samples, max_abs(got.samples, want.samples, n));
        for (size_t k = 0; k < n; k++) {
            const int off = abs((int)got.pixels[k] - (int)want.pixels[k]);
            if (off > worst.pixels) worst.pixels = off;
            n_off += off > 0;
        }
        worst.off_by_one = fmax(worst.off_by_one, (double)n_off / (double)n);
        result_free(&got);
    }
    result_free(&want);
    print_message("  model %c, %d columns, %s, wrap %s, %d ranks: latents %.1e, samples %.1e, 8-bit by %d, on %.2g %%\n", r->model,
                  r->cols, r->position, r->wrap, r->n_ranks, worst.latents, worst.samples, worst.pixels,
                  100 * worst.off_by_one);
    return worst;
}

static const char *const positions[] = {"{method: base, dype: false}", "{method: yarn, dype: true, base_resolution: 128}"};

static void rolled_noise_rolls_the_picture(void **state)
{
    (void)state;
    static const struct {
        char        model;
        int         cols, n_ranks, n_threads;
        const char *parallel;
    } cases[] = {
        {'a', 17, 1, 2, "{}"}, {'a', 17, 3, 1, "{ulysses: 1, ring: 3}"}, {'c', 26, 4, 1, "{ulysses: 2, ring: 2}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t p = 0; p < 2; p++) {
            const distance d = measure(&(ring){cases[i].model, cases[i].cols, cases[i].n_ranks, cases[i].n_threads,
                                               positions[p], "horizontal", cases[i].parallel});
            assert_true(d.latents <= TOLERANCE);
            assert_true(d.samples <= TOLERANCE);
            assert_true(d.pixels <= 1);
            assert_true(d.off_by_one <= OFF_BY_ONE);
        }
}

/* Otherwise the test above would show nothing. */
static void without_wrap_it_does_not(void **state)
{
    (void)state;
    for (size_t p = 0; p < 2; p++) {
        const distance d = measure(&(ring){'a', 17, 1, 2, positions[p], "none", "{}"});
        assert_true(d.latents > 100 * TOLERANCE);
        assert_true(d.samples > 100 * TOLERANCE);
    }
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    for (const char *letter = "ac"; *letter != '\0'; letter++) {
        char             name[2] = {*letter, '\0'};
        const tiny_model m = tiny_model_get(*letter);
        if (mkdir(tempdir_in(dir, "%s", name), 0777) != 0 ||
            tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "%s", name)) != ST_OK)
            return -1;
    }
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_wrap_it_does_not),
        cmocka_unit_test(rolled_noise_rolls_the_picture),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
