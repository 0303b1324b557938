/* The VAE decoder against AutoencoderKL, and the 8-bit values against VaeImageProcessor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "rig.h"
#include "tiny_model.h"
#include "vae_decoder.h"

static comm *alone; /* a group of one */

/* Of the decoder's output, whose picture lies in [-1, 1]. */
static const double IMAGE_FP32_MAX_ABS = 1e-3;
static const double PIXELS_OFF_BY_ONE = 0.005; /* share of samples; none may be off by more */

typedef struct picture {
    uint8_t *rgb;
    size_t row_bytes;
    int32_t n_rows;
} picture;

static status keep_rows(void *ctx, int32_t first_row, int32_t n_rows, const uint8_t *rgb)
{
    picture *p = ctx;
    if (first_row != p->n_rows) return err_set(ST_FAILED, "row %d after row %d", first_row, p->n_rows);
    memcpy(p->rgb + (size_t)first_row * p->row_bytes, rgb, (size_t)n_rows * p->row_bytes);
    p->n_rows += n_rows;
    return ST_OK;
}

/* [C, H, W] to [H, W, C]; yours to free. */
static float *channels_last(const vector *t)
{
    const size_t area = (size_t)(t->shape[1] * t->shape[2]), channels = (size_t)t->shape[0];
    float *out = malloc(t->n * sizeof(float));
    assert_non_null(out);
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < area; i++)
            out[i * channels + c] = t->f32[c * area + i];
    return out;
}

/* A stage that the file may have against what passed the tap; image: the whole decode. */
static void compare_stage(const rig *r, vectors *v, const char *tag, const char *name, const char *tapped, dtype type)
{
    char label[128];
    if (!vectors_has(v, "%s.fp32.%s", tag, name)) return;
    const vector fp32 = vectors_get(v, "%s.fp32.%s", tag, name);
    float *truth = channels_last(&fp32);
    const float *got = rig_seen(r, 0, fp32.n, "%s", tapped);
    snprintf(label, sizeof(label), "%s %s %s", tag, dtype_name(type), name);
    if (type == DT_BF16) {
        const vector bf16 = vectors_get(v, "%s.bf16.%s", tag, name);
        float *reference = channels_last(&bf16);
        rig_check_bf16(label, got, reference, truth, fp32.n);
        free(reference);
    } else if (strcmp(name, "image") == 0) {
        double most = max_abs(got, truth, fp32.n);
        if (!(most <= IMAGE_FP32_MAX_ABS)) fail_msg("%s: off by %.2e", label, most);
    } else {
        rig_check(label, got, truth, fp32.n, 1e-5);
    }
    free(truth);
}

static void compare_pixels(vectors *v, const char *tag, const picture *p)
{
    const vector want = vectors_get(v, "%s.fp32.pixels", tag);
    const uint8_t *pixels = want.raw;
    size_t off = 0;
    for (size_t i = 0; i < want.n; i++) {
        const int d = abs((int)p->rgb[i] - (int)pixels[i]);
        if (d > 1) fail_msg("%s: sample %zu is %d, want %d", tag, i, p->rgb[i], pixels[i]);
        off += d != 0;
    }
    if ((double)off > PIXELS_OFF_BY_ONE * (double)want.n) fail_msg("%s: %zu of %zu samples are off", tag, off, want.n);
}

static void check_decode(rig *r, vectors *v, char which, int rows, int cols, dtype type)
{
    char tag[64], name[64], tapped[64];
    const int scale = r->model->vae.scale;
    const vae_decoder_opts opts = {
        .model = r->model, .comm = alone, .dev = r->dev, .compute = r->compute, .tap = &r->tap, .type = type};
    vae_decoder *decoder = NULL;
    geometry g;
    snprintf(tag, sizeof(tag), "%c.%dx%d", which, rows, cols);
    rig_expect(geometry_make(&g, cols * scale, rows * scale, scale));
    picture p = {.row_bytes = (size_t)g.width * 3, .rgb = malloc((size_t)g.width * (size_t)g.height * 3)};
    assert_non_null(p.rgb);
    rig_expect(vae_decoder_open(&decoder, &opts));
    rig_expect(vae_decoder_decode(decoder, &g, vectors_get(v, "%s.packed", tag).f32, &(row_sink){&p, keep_rows}));
    assert_int_equal(p.n_rows, g.height);
    compare_stage(r, v, tag, "mid_block", "vae.mid", type);
    for (int i = 0; i < r->model->vae.n_blocks; i++) {
        snprintf(name, sizeof(name), "up_blocks.%d", i);
        snprintf(tapped, sizeof(tapped), "vae.up.%d", i);
        compare_stage(r, v, tag, name, tapped, type);
    }
    compare_stage(r, v, tag, "image", "vae.rgb", type);
    if (type == DT_F32) compare_pixels(v, tag, &p);
    vae_decoder_close(decoder);
    rig_forget(r);
    free(p.rgb);
}

static const struct {
    char model;
    int rows, cols; /* of the latent */
    bool bf16;
    bool plain; /* small enough for the plain kernels */
} cases[] = {{'a', 6, 10, true, false},   {'a', 26, 4, false, false}, {'b', 14, 10, true, true},
             {'b', 34, 26, false, false}, {'c', 10, 6, false, true},  {'d', 8, 6, false, true},
             {'e', 4, 12, false, false}};
enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static void check_all(dtype type)
{
    rig_device devices[RIG_DEVICES];
    const int n_devices = rig_devices(devices);
    vectors *v = vectors_open("vae");
    for (int d = 0; d < n_devices; d++) {
        for (int i = 0; i < N_CASES; i++) {
            if (type == DT_BF16 && !cases[i].bf16) continue;
            if (devices[d].kind == DEVICE_PLAIN && !cases[i].plain) continue;
            rig r;
            rig_open(&r, cases[i].model, TINY_ALL, devices[d]);
            check_decode(&r, v, cases[i].model, cases[i].rows, cases[i].cols, type);
            rig_close(&r);
        }
    }
    vectors_close(v);
}

static void decodes_match_in_fp32(void **state)
{
    (void)state;
    check_all(DT_F32);
}

static void decodes_in_bf16_are_as_good_as_the_reference(void **state)
{
    (void)state;
    check_all(DT_BF16);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_match_in_fp32),
        cmocka_unit_test(decodes_in_bf16_are_as_good_as_the_reference),
    };
    if (comm_open(&alone, &argc, &argv) != ST_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(alone);
    return failed;
}
