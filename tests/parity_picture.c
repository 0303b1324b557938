/* From a job file to a PNG: latents and 8-bit values are those of diffusers' FluxPipeline, on one rank and on three, on
 * processors and on GPUs (DYPE_TEST_DEVICE=cuda); where there is no MPI, without mpirun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "device_kernels.h"
#include "program.h"
#include "safetensors.h"
#include "tiny_model.h"
#include "vectors.h"

enum { WIDTH = 80, HEIGHT = 64, LIMIT_S = 240 };
static const double LATENTS_FP32 = 1e-4;     /* relative L2 after 8 steps: rounding in another order, spec class */
static const double PIXELS_OFF_BY_ONE = 0.005; /* share of samples; none may be off by more */

static const char JOB[] =
    "model: model\noutput: '{name}.png'\nprecision: fp32\n"
    "defaults: {steps: 8, guidance: 3.5, shift: stock, position: {method: base, dype: false}}\n"
    "pictures:\n"
    "  - {name: p, prompt: '', width: 80, height: 64, embeddings_in: in.safetensors, latents_out: out.safetensors}\n";

#ifdef WITH_MPI
static const int N_RANKS[] = {1, 3};
#else
static const int N_RANKS[] = {0};
#endif

static char dir[TEMPDIR_PATH];

static safetensors_tensor tensor_of(const char *name, vector v, int64_t rows)
{
    return (safetensors_tensor){.name = name, .type = v.type, .n_dims = 2,
                                .shape = {rows, (int64_t)v.n / rows}, .data = v.raw};
}

static void check_latents(vectors *v)
{
    safetensors *file = NULL;
    assert_int_equal(safetensors_open(&file, tempdir_in(dir, "out.safetensors"), ST_BAD_JOB), ST_OK);
    const safetensors_entry *got = safetensors_find(file, "latents");
    const vector             want = vectors_get(v, "fp32.latents_out");
    assert_non_null(got);
    const size_t n = got->bytes / sizeof(float), steps = (size_t)want.shape[0];
    assert_int_equal(n * steps, want.n);
    const double distance = rel_l2(got->data, want.f32 + (steps - 1) * n, n);
    print_message("  latents: relative L2 %.2e\n", distance);
    assert_true(distance <= LATENTS_FP32);
    safetensors_close(file);
}

static void check_pixels(vectors *v)
{
    const vector want = vectors_get(v, "fp32.pixels");
    png_image    image = {.version = PNG_IMAGE_VERSION};
    static uint8_t got[WIDTH * HEIGHT * 3];
    size_t       n_off = 0;
    assert_int_not_equal(png_image_begin_read_from_file(&image, tempdir_in(dir, "p.png")), 0);
    image.format = PNG_FORMAT_RGB;
    assert_int_equal(PNG_IMAGE_SIZE(image), sizeof(got));
    assert_int_not_equal(png_image_finish_read(&image, NULL, got, 0, NULL), 0);
    assert_int_equal(want.n, sizeof(got));
    for (size_t i = 0; i < want.n; i++) {
        int off = abs((int)got[i] - (int)want.f32[i]);
        if (off > 1) fail_msg("sample %zu: got %d, want %d", i, got[i], (int)want.f32[i]);
        n_off += off == 1;
    }
    print_message("  pixels: %zu of %zu samples off by one\n", n_off, want.n);
    assert_true((double)n_off <= PIXELS_OFF_BY_ONE * (double)want.n);
}

static void a_picture_is_that_of_the_reference(void **state)
{
    (void)state;
    vectors           *v = vectors_open("denoise_a");
    const vector       text = vectors_get(v, "prompt_embeds"), latents = vectors_get(v, "latents");
    safetensors_tensor tensors[] = {
        tensor_of("latents", latents, latents.shape[0]),
        tensor_of("prompt_embeds", text, text.shape[0]),
        tensor_of("pooled_prompt_embeds", vectors_get(v, "pooled"), 1),
    };
    assert_int_equal(safetensors_write(tempdir_in(dir, "in.safetensors"), tensors, 3, NULL, 0), ST_OK);
    assert_int_equal(tempdir_write(tempdir_in(dir, "job.yaml"), JOB), ST_OK);
    for (size_t i = 0; i < sizeof(N_RANKS) / sizeof(N_RANKS[0]); i++) {
        program_run run;
        program_start(&run, dir, NULL, N_RANKS[i], LIMIT_S,
                      test_device_is_cuda() ? "job.yaml --overwrite --threads 1 --backend cuda" : "job.yaml --overwrite --threads 1");
        if (run.exit_code != 0) fail_msg("%d ranks: exit code %d\n%s", N_RANKS[i], run.exit_code, run.output);
        program_run_free(&run);
        check_latents(v);
        check_pixels(v);
    }
    vectors_close(v);
}

static int open_folder(void **state)
{
    (void)state;
    tiny_model m = tiny_model_get('a');
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0) return -1;
    return tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "model")) == ST_OK ? 0 : -1;
}

static int close_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_picture_is_that_of_the_reference)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
