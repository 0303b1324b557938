/* Colours of latents: a linear map is found again from its samples, tokens become the right four pixels, and what the
 * decoder of a model tells is kept in the cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "preview_map.h"
#include "rig.h"
#include "tiny_model.h"

enum { CHANNELS = 5, SAMPLES = 200 };

/* red = 100 + 3 c0 - 2 c4, green = 50 + c1, blue = -7 c2 + 0.5 c3, from samples that wander through the channels. */
static void a_linear_map_is_found_again(void **state)
{
    static const float want[3][CHANNELS + 1] = {{3, 0, 0, 0, -2, 100}, {0, 1, 0, 0, 0, 50}, {0, 0, -7, 0.5f, 0, 0}};
    float              x[SAMPLES * CHANNELS], y[SAMPLES * 3];
    preview_map        map;
    (void)state;
    for (int s = 0; s < SAMPLES; s++) {
        for (int c = 0; c < CHANNELS; c++) x[s * CHANNELS + c] = (float)((s * (c + 3) + c * c) % 17) - 8;
        const float *v = x + s * CHANNELS;
        y[s * 3] = 100 + 3 * v[0] - 2 * v[4];
        y[s * 3 + 1] = 50 + v[1];
        y[s * 3 + 2] = -7 * v[2] + 0.5f * v[3];
    }
    assert_int_equal(preview_map_fit(&map, CHANNELS, SAMPLES, x, y), ST_OK);
    assert_int_equal(map.channels, CHANNELS);
    for (int k = 0; k < 3; k++)
        for (int c = 0; c <= CHANNELS; c++)
            if (fabsf(map.weight[k][c] - want[k][c]) > 1e-4f)
                fail_msg("%d %d: got %g, want %g", k, c, (double)map.weight[k][c], (double)want[k][c]);
}

/* Noise around the map averages out: 1 +- 1 in turn is 1. */
static void the_rest_is_least_squares(void **state)
{
    float       x[SAMPLES], y[SAMPLES * 3];
    preview_map map;
    (void)state;
    for (int s = 0; s < SAMPLES; s++) {
        x[s] = (float)(s / 2 % 2);
        for (int k = 0; k < 3; k++) y[s * 3 + k] = 10 + 4 * x[s] + (s % 2 == 0 ? 1.0f : -1.0f);
    }
    assert_int_equal(preview_map_fit(&map, 1, SAMPLES, x, y), ST_OK);
    assert_true(fabsf(map.weight[1][0] - 4) < 1e-5f && fabsf(map.weight[1][1] - 10) < 1e-5f);
}

static void samples_that_tell_nothing_are_refused(void **state)
{
    float       x[SAMPLES] = {0}, y[SAMPLES * 3] = {0};
    preview_map map = {.channels = 99};
    (void)state;
    assert_int_equal(preview_map_fit(&map, 1, SAMPLES, x, y), ST_FAILED);
    assert_int_equal(map.channels, 99);
}

/* Feature c * 4 + dy * 2 + dx is channel c of pixel (dx, dy). */
static void a_token_becomes_four_pixels(void **state)
{
    static const preview_map   map = {.channels = 2, .weight = {{1, 0, 0}, {0, 10, 0}, {-1, 0, 128}}};
    static const float         token[8] = {1.4f, 1.6f, 300, -5, 0, 1, 2, 3};
    static const unsigned char want[12] = {1, 0, 127, 2, 10, 126, 255, 20, 0, 0, 30, 133};
    unsigned char              rgb[12];
    (void)state;
    preview_map_colour(&map, token, rgb);
    assert_memory_equal(rgb, want, sizeof(want));
}

static preview_map get(rig *r, comm *c, const char *cache)
{
    preview_map map;
    memset(&map, 0, sizeof(map));
    rig_expect(preview_map_get(&map, &(preview_map_opts){.model = r->model, .model_sha256 = "m1", .cache_dir = cache, .comm = c,
                                                        .dev = r->dev, .compute = r->compute, .type = DT_F32}));
    return map;
}

static void replace(const char *path, long at, int byte)
{
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    fputc(byte, file);
    fclose(file);
}

/* Fitted once; then the cache has it, and the decoder is not asked: weights that are gone are not missed. Damage is. */
static void the_decoder_is_asked_once(void **state)
{
    rig           r;
    rig_device    devices[RIG_DEVICES];
    comm         *c = NULL;
    char          cache[TEMPDIR_PATH], path[TEMPDIR_PATH + 64], part[TEMPDIR_PATH + 64], aside[TEMPDIR_PATH + 64];
    (void)state;
    rig_devices(devices);
    rig_open(&r, 'b', TINY_ALL, devices[0]);
    rig_expect(tempdir_open(cache));
    rig_expect(comm_open(&c, NULL, NULL));
    const preview_map first = get(&r, c, cache), none = get(&r, c, NULL);
    assert_memory_equal(&first, &none, sizeof(first));
    float largest = 0;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < first.channels; i++) largest = fmaxf(largest, fabsf(first.weight[k][i]));
    assert_true(largest > 0.1f && largest < 1e4f);
    snprintf(path, sizeof(path), "%s/latent-rgb-m1.safetensors", cache);
    assert_int_equal(access(path, F_OK), 0);

    snprintf(part, sizeof(part), "%s/vae/diffusion_pytorch_model.safetensors", r.dir);
    snprintf(aside, sizeof(aside), "%s/aside", r.dir);
    assert_int_equal(rename(part, aside), 0);
    const preview_map kept = get(&r, c, cache);
    assert_memory_equal(&first, &kept, sizeof(first));
    assert_int_equal(rename(aside, part), 0);

    replace(path, -2, 0x55);
    const preview_map again = get(&r, c, cache);
    assert_memory_equal(&first, &again, sizeof(first));
    assert_int_equal(truncate(path, 40), 0);
    const preview_map anew = get(&r, c, cache);
    assert_memory_equal(&first, &anew, sizeof(first));
    comm_close(c);
    tempdir_close(cache);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_linear_map_is_found_again),
        cmocka_unit_test(the_rest_is_least_squares),
        cmocka_unit_test(samples_that_tell_nothing_are_refused),
        cmocka_unit_test(a_token_becomes_four_pixels),
        cmocka_unit_test(the_decoder_is_asked_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
