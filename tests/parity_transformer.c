/* The transformer against FluxTransformer2DModel: every block, whole forwards, whole runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "flux_transformer.h"
#include "rig.h"
#include "schedule.h"
#include "tiny_model.h"

static comm     *group;
static comm_grid all; /* of the group: one ring */

/* Relative L2 (spec: numerics): sums in another order, over the depth that lies before the tensor. */
static const double BLOCK_FP32 = 1e-5, FORWARD_FP32 = 1e-4, FORWARD_FP32_GIVEN_TEMB = 2e-5, RUN_FP32 = 1e-4;

typedef struct forward {
    flux_transformer *transformer;
    geometry g;
    position_plan plan;
    dtype type;
    int32_t channels;
    float *table, *latents, *velocity; /* host */
    void *latents_dev, *velocity_dev;
} forward;

static size_t values(const forward *f)
{
    return (size_t)f->g.n_image * (size_t)f->channels;
}

/* seq: n_text, n_steps, t, guidance, text, pooled and temb are the caller's. */
static void forward_open(forward *f, rig *r, int rows, int cols, dtype type, flux_sequence seq, bool parity)
{
    const model *m = r->model;
    const int side = PATCH * m->vae.scale;
    const position_opts base = {.method = POSITION_BASE, .variant = VARIANT_OFFICIAL};
    *f = (forward){.type = type, .channels = m->flux.in_channels};
    rig_expect(geometry_make(&f->g, cols * side, rows * side, m->vae.scale));
    rig_expect(position_plan_make(&f->plan, &base, m->flux.axes_dims_rope, 64, rows, cols, false));
    const flux_transformer_opts opts = {
        .model = m, .grid = &all, .dev = r->dev, .compute = r->compute, .tap = &r->tap, .type = type};
    rig_expect(flux_transformer_open(&f->transformer, &opts));
    seq.geometry = &f->g;
    seq.positions = &f->plan;
    flux_transformer_parity(f->transformer, parity);
    rig_expect(flux_transformer_prepare(f->transformer, &seq));
    f->table = malloc(f->plan.n_floats * sizeof(float));
    f->velocity = malloc(values(f) * sizeof(float));
    assert_true(f->table != NULL && f->velocity != NULL);
    position_plan_tables(&f->plan, 1.0, f->table);
    rig_expect(device_alloc(r->dev, values(f) * sizeof(float), "latents", &f->latents_dev));
    rig_expect(device_alloc(r->dev, values(f) * sizeof(float), "velocity", &f->velocity_dev));
}

static void forward_close(forward *f, rig *r)
{
    device_free(r->dev, f->velocity_dev);
    device_free(r->dev, f->latents_dev);
    free(f->velocity);
    free(f->table);
    flux_transformer_release(f->transformer);
    flux_transformer_close(f->transformer);
}

static void put_latents(forward *f, rig *r, const float *latents)
{
    rig_expect(stream_copy_in(r->compute, f->latents_dev, latents, values(f) * sizeof(float)));
}

/* One forward; velocity in f->velocity, widened. */
static void run_step(forward *f, rig *r, int step)
{
    const size_t n = values(f), bytes = n * dtype_bytes(f->type);
    uint16_t *half = (uint16_t *)f->velocity;
    rig_expect(flux_transformer_step(f->transformer, step, f->table, f->latents_dev, f->velocity_dev));
    rig_expect(flux_transformer_sync(f->transformer));
    rig_expect(stream_copy_out(r->compute, f->velocity, f->velocity_dev, bytes));
    rig_expect(stream_sync(r->compute));
    if (f->type == DT_BF16) /* in place, from the end */
        for (size_t i = n; i-- > 0;) {
            uint16_t h;
            memcpy(&h, half + i, sizeof(h));
            f->velocity[i] = bf16_to_f32(h);
        }
}

typedef struct shape {
    const char *file;
    char model;
    int rows, cols, n_text;
    bool blocks; /* module boundaries are in the file */
    bool bf16;
} shape;

static const shape shapes[] = {
    {"transformer_a", 'a', 1, 13, 7, true, true},  {"transformer_a", 'a', 17, 31, 77, false, true},
    {"transformer_b", 'b', 3, 7, 33, true, false}, {"transformer_b", 'b', 23, 29, 131, false, true},
    {"transformer_c", 'c', 5, 3, 3, true, false},  {"transformer_c", 'c', 1, 211, 64, false, false},
    {"transformer_d", 'd', 4, 6, 5, true, false},  {"transformer_e", 'e', 6, 4, 5, true, false},
};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

/* got against the file's tensor of this name, in the manner of its type. */
static void compare(vectors *v, const char *tag, const char *name, const float *got, dtype type, double limit)
{
    char label[128];
    const vector fp32 = vectors_get(v, "%s.fp32.%s", tag, name);
    snprintf(label, sizeof(label), "%s %s %s", tag, dtype_name(type), name);
    if (type == DT_F32)
        rig_check(label, got, fp32.f32, fp32.n, limit);
    else
        rig_check_bf16(label, got, vectors_get(v, "%s.bf16.%s", tag, name).f32, fp32.f32, fp32.n);
}

static void compare_blocks(const rig *r, vectors *v, const char *tag, dtype type)
{
    static const char *const streams[] = {"image", "text"};
    const flux_config *c = &r->model->flux;
    char name[64];
    for (int block = 0; block < c->num_layers + c->num_single_layers; block++) {
        const bool is_double = block < c->num_layers;
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof(name), "%s.%d.%s", is_double ? "double" : "single",
                     is_double ? block : block - c->num_layers, streams[i]);
            const size_t n = vectors_get(v, "%s.fp32.%s", tag, name).n;
            compare(v, tag, name, rig_seen(r, 0, n, "dit.%d.%s", block, streams[i]), type, BLOCK_FP32);
        }
    }
    static const char *const others[] = {"temb", "x_embedder", "context_embedder", "norm_out"};
    for (int i = 0; i < 4; i++) {
        const size_t n = vectors_get(v, "%s.fp32.%s", tag, others[i]).n;
        compare(v, tag, others[i], rig_seen(r, 0, n, "dit.%s", others[i]), type, BLOCK_FP32);
    }
}

/* given_temb: the reference's conditioning vector takes the place of the embedders', and blocks are compared too. */
static void check_forward(rig *r, vectors *v, const shape *s, dtype type, bool given_temb)
{
    char tag[64];
    snprintf(tag, sizeof(tag), "%dx%d+%d", s->rows, s->cols, s->n_text);
    const float t = vectors_get(v, "%s.timestep", tag).f32[0] * 1000.0f;
    flux_sequence seq = {.n_text = s->n_text,
                         .n_steps = 1,
                         .t = &t,
                         .text = vectors_get(v, "%s.prompt_embeds", tag).f32,
                         .pooled = vectors_get(v, "%s.pooled", tag).f32};
    if (r->model->flux.guidance_embeds) seq.guidance = vectors_get(v, "%s.guidance", tag).f32[0] * 1000.0f;
    if (given_temb) seq.temb = vectors_get(v, "%s.fp32.temb", tag).f32;
    forward f;
    forward_open(&f, r, s->rows, s->cols, type, seq, false);
    put_latents(&f, r, vectors_get(v, "%s.latents", tag).f32);
    run_step(&f, r, 0);
    if (s->blocks && (given_temb || type == DT_BF16)) compare_blocks(r, v, tag, type);
    compare(v, tag, "v", f.velocity, type, given_temb ? FORWARD_FP32_GIVEN_TEMB : FORWARD_FP32);
    rig_forget(r);
    forward_close(&f, r);
}

/* The plain kernels are slow: they judge the small shapes. */
static bool is_for(const rig_device *dev, const shape *s)
{
    return dev->kind != DEVICE_PLAIN || s->rows * s->cols < 100;
}

static void check_shapes(dtype type)
{
    rig_device devices[RIG_DEVICES];
    const int n_devices = rig_devices(devices);
    for (int d = 0; d < n_devices; d++) {
        for (int i = 0; i < N_SHAPES; i++) {
            if (!is_for(&devices[d], &shapes[i]) || (type == DT_BF16 && !shapes[i].bf16)) continue;
            rig r;
            rig_open(&r, shapes[i].model, TINY_ALL, devices[d]);
            vectors *v = vectors_open(shapes[i].file);
            check_forward(&r, v, &shapes[i], type, false);
            if (type == DT_F32 && shapes[i].blocks) check_forward(&r, v, &shapes[i], type, true);
            vectors_close(v);
            rig_close(&r);
        }
    }
}

static void forwards_match_in_fp32(void **state)
{
    (void)state;
    check_shapes(DT_F32);
}

static void forwards_in_bf16_are_as_good_as_the_reference(void **state)
{
    (void)state;
    check_shapes(DT_BF16);
}

static void position_tables_are_obeyed(void **state)
{
    (void)state;
    rig_device devices[RIG_DEVICES];
    rig_devices(devices);
    rig r;
    rig_open(&r, 'a', TINY_ALL, devices[0]);
    vectors *v = vectors_open("tables_a");
    const float t = vectors_get(v, "3x5+7.timestep").f32[0] * 1000.0f;
    const flux_sequence seq = {.n_text = 7,
                               .n_steps = 1,
                               .t = &t,
                               .guidance = vectors_get(v, "3x5+7.guidance").f32[0] * 1000.0f,
                               .text = vectors_get(v, "3x5+7.prompt_embeds").f32,
                               .pooled = vectors_get(v, "3x5+7.pooled").f32};
    forward f;
    forward_open(&f, &r, 3, 5, DT_F32, seq, false);
    for (int axis = 0; axis < POSITION_AXES; axis++) {
        const vector cos = vectors_get(v, "3x5+7.cos.%d", axis), sin = vectors_get(v, "3x5+7.sin.%d", axis);
        for (size_t i = 0; i < cos.n; i++) {
            f.table[f.plan.offset[axis] + 2 * i] = cos.f32[i];
            f.table[f.plan.offset[axis] + 2 * i + 1] = sin.f32[i];
        }
    }
    put_latents(&f, &r, vectors_get(v, "3x5+7.latents").f32);
    run_step(&f, &r, 0);
    compare(v, "3x5+7", "v", f.velocity, DT_F32, FORWARD_FP32);
    forward_close(&f, &r);
    vectors_close(v);
    rig_close(&r);
}

static const struct {
    const char *file;
    char model;
} runs[] = {{"denoise_a", 'a'}, {"denoise_b", 'b'}};
enum { N_RUNS = sizeof(runs) / sizeof(runs[0]) };

static void runs_match_in_fp32(void **state)
{
    (void)state;
    rig_device devices[RIG_DEVICES];
    rig_devices(devices);
    for (int i = 0; i < N_RUNS; i++) {
        rig r;
        rig_open(&r, runs[i].model, TINY_ALL, devices[0]);
        vectors *v = vectors_open(runs[i].file);
        const vector grid = vectors_get(v, "grid"), latents = vectors_get(v, "fp32.latents_out");
        const schedule_opts opts = {.config = r.model->scheduler,
                                    .shift = {.kind = SHIFT_STOCK},
                                    .n_steps = (int)latents.shape[0],
                                    .n_image = (int32_t)latents.shape[1],
                                    .guidance = (double)vectors_get(v, "guidance").f32[0],
                                    .rounding = SCHEDULE_F32};
        schedule *s = NULL;
        rig_expect(schedule_open(&s, &opts));
        float *t = malloc((size_t)s->n_steps * sizeof(float));
        assert_non_null(t);
        for (int k = 0; k < s->n_steps; k++)
            t[k] = s->steps[k].t_model;
        forward f;
        forward_open(&f, &r, (int)grid.f32[0], (int)grid.f32[1], DT_F32,
                     (flux_sequence){.n_text = (int32_t)vectors_get(v, "prompt_embeds").shape[0],
                                     .n_steps = s->n_steps,
                                     .t = t,
                                     .guidance = s->guidance_model,
                                     .text = vectors_get(v, "prompt_embeds").f32,
                                     .pooled = vectors_get(v, "pooled").f32}, false);
        float *now = malloc(values(&f) * sizeof(float));
        assert_non_null(now);
        put_latents(&f, &r, vectors_get(v, "latents").f32);
        for (int k = 0; k < s->n_steps; k++) {
            char label[64];
            run_step(&f, &r, k);
            const euler_args euler = {.latents = f.latents_dev,
                                      .v = f.velocity_dev,
                                      .n = (int64_t)values(&f),
                                      .dt = s->steps[k].dt,
                                      .type = DT_F32};
            rig_expect(stream_euler(r.compute, &euler));
            rig_expect(stream_copy_out(r.compute, now, f.latents_dev, values(&f) * sizeof(float)));
            rig_expect(stream_sync(r.compute));
            snprintf(label, sizeof(label), "%s: latents after step %d", runs[i].file, k);
            rig_check(label, now, latents.f32 + (size_t)k * values(&f), values(&f), RUN_FP32);
            rig_forget(&r);
        }
        free(now);
        free(t);
        forward_close(&f, &r);
        schedule_close(s);
        vectors_close(v);
        rig_close(&r);
    }
}

/* Teacher forcing: each step starts from the latents that the reference's step started from. */
static void steps_in_bf16_are_as_good_as_the_reference(void **state)
{
    (void)state;
    rig_device devices[RIG_DEVICES];
    rig_devices(devices);
    for (int i = 0; i < N_RUNS; i++) {
        rig r;
        rig_open(&r, runs[i].model, TINY_ALL, devices[0]);
        vectors *v = vectors_open(runs[i].file);
        const vector grid = vectors_get(v, "grid"), times = vectors_get(v, "bf16.embedded_timestep");
        flux_sequence seq = {.n_text = (int32_t)vectors_get(v, "prompt_embeds").shape[0],
                             .n_steps = (int)times.n,
                             .t = times.f32,
                             .text = vectors_get(v, "prompt_embeds").f32,
                             .pooled = vectors_get(v, "pooled").f32};
        if (r.model->flux.guidance_embeds) seq.guidance = vectors_get(v, "bf16.embedded_guidance").f32[0];
        forward f;
        forward_open(&f, &r, (int)grid.f32[0], (int)grid.f32[1], DT_BF16, seq, false);
        for (int k = 0; k < seq.n_steps; k++) {
            char label[64];
            const size_t n = values(&f), at = (size_t)k * n;
            put_latents(&f, &r, vectors_get(v, "bf16.latents_in").f32 + at);
            run_step(&f, &r, k);
            snprintf(label, sizeof(label), "%s: velocity of step %d", runs[i].file, k);
            rig_check_bf16(label, f.velocity, vectors_get(v, "bf16.v").f32 + at,
                           vectors_get(v, "fp32_of_bf16.v").f32 + at, n);
            rig_forget(&r);
        }
        forward_close(&f, &r);
        vectors_close(v);
        rig_close(&r);
    }
}

/* `parity: diffusers`: from the reference's velocity the Euler step gives the reference's latents to the bit, and with
 * every rounding repeated our velocity is closer to the reference's than without. */
static void parity_repeats_the_roundings_of_the_reference(void **state)
{
    (void)state;
    rig_device devices[RIG_DEVICES];
    rig_devices(devices);
    for (int i = 0; i < N_RUNS; i++) {
        rig r;
        rig_open(&r, runs[i].model, TINY_ALL, devices[0]);
        vectors *v = vectors_open(runs[i].file);
        const vector grid = vectors_get(v, "grid"), times = vectors_get(v, "bf16.embedded_timestep");
        const vector want = vectors_get(v, "bf16.v"), latents_in = vectors_get(v, "bf16.latents_in");
        const vector latents_out = vectors_get(v, "bf16.latents_out");
        const schedule_opts opts = {.config = r.model->scheduler,
                                    .shift = {.kind = SHIFT_STOCK},
                                    .n_steps = (int)times.n,
                                    .n_image = (int32_t)latents_in.shape[1],
                                    .guidance = (double)vectors_get(v, "guidance").f32[0],
                                    .rounding = SCHEDULE_PARITY};
        schedule *s = NULL;
        rig_expect(schedule_open(&s, &opts));
        double distance[2] = {0};
        for (int parity = 0; parity < 2; parity++) {
            flux_sequence seq = {.n_text = (int32_t)vectors_get(v, "prompt_embeds").shape[0],
                                 .n_steps = (int)times.n,
                                 .t = times.f32,
                                 .guidance = s->guidance_model,
                                 .text = vectors_get(v, "prompt_embeds").f32,
                                 .pooled = vectors_get(v, "pooled").f32};
            forward f;
            forward_open(&f, &r, (int)grid.f32[0], (int)grid.f32[1], DT_BF16, seq, parity == 1);
            for (int k = 0; k < seq.n_steps; k++) {
                const size_t n = values(&f), at = (size_t)k * n;
                assert_true(s->steps[k].t_model == times.f32[k]);
                put_latents(&f, &r, latents_in.f32 + at);
                run_step(&f, &r, k);
                distance[parity] += rel_l2(f.velocity, want.f32 + at, n);
                if (parity == 0) continue;
                const euler_args euler = {.latents = f.latents_dev, .v = f.velocity_dev, .n = (int64_t)n,
                                          .dt = s->steps[k].dt, .type = DT_BF16, .parity = true};
                rig_expect(stream_copy_in(r.compute, f.velocity_dev, (const uint16_t *)want.raw + at, n * 2));
                rig_expect(stream_euler(r.compute, &euler));
                rig_expect(stream_copy_out(r.compute, f.velocity, f.latents_dev, n * sizeof(float)));
                rig_expect(stream_sync(r.compute));
                for (size_t j = 0; j < n; j++)
                    if (f.velocity[j] != latents_out.f32[at + j])
                        fail_msg("%s: latent %zu after step %d: got %.9g, want %.9g", runs[i].file, j, k,
                                 (double)f.velocity[j], (double)latents_out.f32[at + j]);
            }
            rig_forget(&r);
            forward_close(&f, &r);
        }
        print_message("  %s: distance to the bf16 reference, mean of steps: %.2e, with parity %.2e\n", runs[i].file,
                      distance[0] / (double)times.n, distance[1] / (double)times.n);
        assert_true(distance[1] < distance[0]);
        schedule_close(s);
        vectors_close(v);
        rig_close(&r);
    }
}

/* One double and one single block in the widths of FLUX.1-dev, from make_vectors.py --full-width DIR. */
static void blocks_match_at_full_width(void **state)
{
    (void)state;
    static const shape full = {"full_width", 'f', 12, 16, 64, true, true};
    const char *dir = getenv("DYPE_FULL_WIDTH");
    char path[1024];
    if (dir == NULL) {
        print_message("not run: blocks at full width against diffusers (DYPE_FULL_WIDTH is not set)\n");
        skip();
    }
    rig_device devices[RIG_DEVICES];
    rig_devices(devices);
    rig r;
    rig_open(&r, full.model, TINY_ALL, devices[0]);
    snprintf(path, sizeof(path), "%s/full_width.safetensors", dir);
    vectors *v = vectors_open_path(path);
    check_forward(&r, v, &full, DT_F32, false);
    check_forward(&r, v, &full, DT_F32, true);
    check_forward(&r, v, &full, DT_BF16, false);
    vectors_close(v);
    rig_close(&r);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forwards_match_in_fp32),
        cmocka_unit_test(forwards_in_bf16_are_as_good_as_the_reference),
        cmocka_unit_test(position_tables_are_obeyed),
        cmocka_unit_test(runs_match_in_fp32),
        cmocka_unit_test(steps_in_bf16_are_as_good_as_the_reference),
        cmocka_unit_test(parity_repeats_the_roundings_of_the_reference),
        cmocka_unit_test(blocks_match_at_full_width),
    };
    if (comm_open(&group, &argc, &argv) != ST_OK) return 1;
    if (grid_open(&all, group, (grid_shape){1, 1, comm_size(group)}) != ST_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    grid_close(&all);
    comm_close(group);
    return failed;
}
