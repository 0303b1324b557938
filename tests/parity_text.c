/* The text encoders against CLIPTextModel and T5EncoderModel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "clip_encoder.h"
#include "rig.h"
#include "t5_encoder.h"
#include "tiny_model.h"

static const double TEXT_FP32 = 1e-5; /* relative L2 */

static void check_clip(rig *r, vectors *v, char which, dtype type)
{
    const vector ids = vectors_get(v, "%c.clip.ids", which), want = vectors_get(v, "%c.clip.fp32.pooled", which);
    const size_t hidden = (size_t)want.shape[1];
    const clip_encoder_opts opts = {
        .model = r->model, .dev = r->dev, .compute = r->compute, .tap = &r->tap, .type = type};
    clip_encoder *encoder = NULL;
    float *got = malloc(want.n * sizeof(float));
    char label[64];
    assert_non_null(got);
    rig_expect(clip_encoder_open(&encoder, &opts));
    for (int64_t i = 0; i < ids.shape[0]; i++)
        rig_expect(clip_encoder_encode(encoder, (const int32_t *)ids.raw + i * ids.shape[1], (int)ids.shape[1],
                                       got + (size_t)i * hidden));
    snprintf(label, sizeof(label), "%c clip %s", which, dtype_name(type));
    if (type == DT_F32)
        rig_check(label, got, want.f32, want.n, TEXT_FP32);
    else
        rig_check_bf16(label, got, vectors_get(v, "%c.clip.bf16.pooled", which).f32, want.f32, want.n);
    clip_encoder_close(encoder);
    rig_forget(r);
    free(got);
}

static void check_t5(rig *r, vectors *v, char which, int length, dtype type)
{
    const vector ids = vectors_get(v, "%c.t5.%d.ids", which, length);
    const vector want = vectors_get(v, "%c.t5.%d.fp32.states", which, length);
    const t5_encoder_opts opts = {
        .model = r->model, .dev = r->dev, .compute = r->compute, .tap = &r->tap, .type = type};
    t5_encoder *encoder = NULL;
    float *got = malloc(want.n * sizeof(float));
    char label[64];
    assert_non_null(got);
    rig_expect(t5_encoder_open(&encoder, &opts));
    rig_expect(t5_encoder_encode(encoder, ids.raw, length, got));
    snprintf(label, sizeof(label), "%c t5 %d %s", which, length, dtype_name(type));
    if (type == DT_F32)
        rig_check(label, got, want.f32, want.n, TEXT_FP32);
    else
        rig_check_bf16(label, got, vectors_get(v, "%c.t5.%d.bf16.states", which, length).f32, want.f32, want.n);
    t5_encoder_close(encoder);
    rig_forget(r);
    free(got);
}

static const struct {
    char model;
    int lengths[2]; /* of T5 */
    bool bf16;
} cases[] = {{'a', {77, 512}, true}, {'b', {256}, true}, {'c', {19}, false}};
enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static void check_all(dtype type, bool clip)
{
    rig_device devices[RIG_DEVICES];
    const int n_devices = rig_devices(devices);
    vectors *v = vectors_open("text");
    for (int d = 0; d < n_devices; d++) {
        for (int i = 0; i < N_CASES; i++) {
            if (type == DT_BF16 && !cases[i].bf16) continue;
            rig r;
            rig_open(&r, cases[i].model, TINY_ALL, devices[d]);
            if (clip) check_clip(&r, v, cases[i].model, type);
            for (int k = 0; !clip && k < 2 && cases[i].lengths[k] > 0; k++)
                check_t5(&r, v, cases[i].model, cases[i].lengths[k], type);
            rig_close(&r);
        }
    }
    vectors_close(v);
}

static void clip_matches_in_fp32(void **state)
{
    (void)state;
    check_all(DT_F32, true);
}

static void clip_in_bf16_is_as_good_as_the_reference(void **state)
{
    (void)state;
    check_all(DT_BF16, true);
}

static void t5_matches_in_fp32(void **state)
{
    (void)state;
    check_all(DT_F32, false);
}

static void t5_in_bf16_is_as_good_as_the_reference(void **state)
{
    (void)state;
    check_all(DT_BF16, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_matches_in_fp32),
        cmocka_unit_test(clip_in_bf16_is_as_good_as_the_reference),
        cmocka_unit_test(t5_matches_in_fp32),
        cmocka_unit_test(t5_in_bf16_is_as_good_as_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
