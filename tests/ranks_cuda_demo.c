/* jobs/demo.yaml as it ships, on two virtual GPUs (tests/vgpu) with NCCL between them. In fp32 it shows the cpu device's picture. In
 * bf16 each step is as good as the reference's: from the latents that it started from, its velocity is compared with that of fp32,
 * and so is the velocity of the cpu device with `parity: diffusers`, which repeats every rounding of the reference's bf16 run.
 * (Numbers of the reference itself are in parity_transformer, of tiny models.) The first picture in a few steps; all of them as they
 * ship with every count. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "flux_transformer.h"
#include "job.h"
#include "noise.h"
#include "picture_read.h"
#include "program.h"
#include "rig.h"
#include "safetensors.h"
#include "schedule.h"
#include "sha256.h"

#if defined(WITH_CUDA) && defined(WITH_NCCL) && defined(VGPU_DIR)

enum { N_GPUS = 2, LIMIT_S = 1200, PICTURES_MAX = 16, SAMPLE_STEPS = 6 };
static const double FP32_DB = 40; /* sums in another order, over all steps: less than one of 256 values (48 dB) twice */

static const char JOB[] = PROJECT_DIR "/jobs/demo.yaml", MODEL[] = PROJECT_DIR "/models/demo";

/* The four runs; each has a folder. */
static const struct run {
    const char *name, *precision;
    int         gpu;
} runs[] = {{"cpu-fp32", "fp32", 0}, {"gpu-fp32", "fp32", 1}, {"cpu-bf16", "bf16", 0}, {"gpu-bf16", "bf16", 1}};
enum { CPU_FP32, GPU_FP32, CPU_BF16, GPU_BF16, N_RUNS };

static char    dir[TEMPDIR_PATH];
static job    *demo;                            /* as it is rendered; precision is that of the first run */
static size_t  n_pictures;                      /* that are rendered */
static json_t *rendered[N_RUNS][PICTURES_MAX]; /* events of the log */

/* ---- the runs: before anything here starts MPI, which mpirun does not take twice */

/* The shipped file, but for its precision, and for its steps in a sample. */
static void write_job(const struct run *r)
{
    char  line[4096], path[2 * TEMPDIR_PATH];
    snprintf(path, sizeof(path), "%s/%s.yaml", dir, r->name);
    FILE *in = fopen(JOB, "re"), *out = fopen(path, "we");
    assert_true(in != NULL && out != NULL);
    fprintf(out, "precision: %s\n", r->precision);
    while (fgets(line, sizeof(line), in) != NULL)
        if (!program_full() && strncmp(line, "  steps:", 8) == 0) fprintf(out, "  steps: %d\n", SAMPLE_STEPS);
        else if (strncmp(line, "precision:", 10) != 0) fputs(line, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static const char *text_of(const json_t *of, const char *key)
{
    return json_string_value(json_object_get(of, key));
}

static void render(int number)
{
    const struct run *r = &runs[number];
    program_run       run;
    char              path[2 * TEMPDIR_PATH], environment[2 * TEMPDIR_PATH], *arguments = NULL;
    size_t            n = 0, i;
    json_t           *found;
    snprintf(environment, sizeof(environment), "LD_LIBRARY_PATH='%s' VGPU_DEVICES=%d", VGPU_DIR, N_GPUS);
    assert_true(asprintf(&arguments,
                         "%s.yaml --model '%s' --out %s --log-json %s.json --dump 'text.*' --dump dit.velocity --backend %s %s %s", r->name,
                         MODEL, r->name, r->name, r->gpu ? "cuda --threads 1" : "cpu", program_full() ? "" : "--only",
                         program_full() ? "" : demo->pictures[0].id) > 0);
    program_start(&run, dir, r->gpu ? environment : NULL, r->gpu ? N_GPUS : 1, LIMIT_S, arguments);
    if (run.exit_code != 0 || (r->gpu && strstr(run.output, "transfers between GPUs: NCCL") == NULL))
        fail_msg("%s: exit code %d\n%s", r->name, run.exit_code, run.output);
    program_run_free(&run);
    free(arguments);
    snprintf(path, sizeof(path), "%s/%s.json", dir, r->name);
    json_t *events = program_events(path, "picture");
    assert_int_equal(json_array_size(events), n_pictures);
    for (; n < n_pictures; n++) /* replicas end in any order */
        json_array_foreach(events, i, found)
            if (strcmp(text_of(found, "picture"), demo->pictures[n].id) == 0) rendered[number][n] = json_incref(found);
    json_decref(events);
    for (n = 0; n < n_pictures; n++) assert_non_null(rendered[number][n]);
}

static void the_demo_job_is_rendered(void **state)
{
    (void)state;
    for (int i = 0; i < N_RUNS; i++) render(i);
}

/* ---- the pictures */

/* dB between the pictures of two runs, 8-bit RGB. */
static double psnr_of(int a, int b, size_t picture)
{
    char     path[2][2 * TEMPDIR_PATH];
    int      w[2] = {0}, h[2] = {0};
    uint8_t *rgb[2];
    double   square = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%s", dir, text_of(rendered[i == 0 ? a : b][picture], "path"));
        rgb[i] = picture_read(path[i], &w[i], &h[i]);
        assert_non_null(rgb[i]);
    }
    assert_true(w[0] == w[1] && h[0] == h[1] && w[0] == demo->pictures[picture].width && h[0] == demo->pictures[picture].height);
    for (int64_t i = 0; i < (int64_t)3 * w[0] * h[0]; i++) square += pow((double)rgb[0][i] - (double)rgb[1][i], 2);
    free(rgb[0]);
    free(rgb[1]);
    return 10 * log10(255.0 * 255.0 * 3 * w[0] * h[0] / square);
}

static void in_fp32_it_shows_the_picture_of_the_processor(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_pictures; i++) {
        const double db = psnr_of(GPU_FP32, CPU_FP32, i);
        print_message("  %s: %d GPUs, fp32, against cpu, fp32: %.1f dB\n", demo->pictures[i].id, N_GPUS, db);
        print_message("  %s: %d GPUs, bf16, against cpu, fp32: %.1f dB (cpu, bf16: %.1f dB)\n", demo->pictures[i].id, N_GPUS,
                      psnr_of(GPU_BF16, CPU_FP32, i), psnr_of(CPU_BF16, CPU_FP32, i));
        assert_true(db >= FP32_DB);
    }
}

/* ---- the steps */

/* A tensor that a rank has written; [rows, width], rows known. */
static void read_dump(const char *picture, const char *name, int step, int rank, int64_t rows, int64_t width, float *out)
{
    char         path[2 * TEMPDIR_PATH];
    safetensors *file = NULL;
    snprintf(path, sizeof(path), "%s/%s/dumps/%s.%s@%d.rank%d.safetensors", dir, runs[GPU_BF16].name, picture, name, step, rank);
    rig_expect(safetensors_open(&file, path, ST_BAD_JOB));
    const safetensors_entry *e = safetensors_find(file, name);
    assert_true(e != NULL && e->type == DT_F32 && e->shape[0] == rows && e->shape[1] == width);
    memcpy(out, e->data, e->bytes);
    safetensors_close(file);
}

/* What all runs of a picture share, as bf16 rounds it, and the GPUs' run of it. */
typedef struct trail {
    const job_picture *job;
    geometry           g;
    position_plan      positions;
    schedule          *schedule;
    int32_t            n_text;
    size_t             n;            /* values of a latent */
    float             *text, *pooled, *t, *tables;
    float             *latents;      /* [n], before the step */
    float             *velocity;     /* [n], of the step */
} trail;

static float *floats(size_t n)
{
    float *p = malloc(n * sizeof(float));
    assert_non_null(p);
    return p;
}

static void trail_open(trail *x, const model *m, const job_picture *p)
{
    const flux_config *c = &m->flux;
    const int          base_px = p->position.base_resolution > 0 ? p->position.base_resolution : m->vae.sample_size;
    *x = (trail){.job = p, .n_text = p->max_sequence_length > 0 ? p->max_sequence_length : m->max_text_rows};
    rig_expect(geometry_make(&x->g, p->width, p->height, m->vae.scale));
    rig_expect(position_plan_make(&x->positions, &p->position, c->axes_dims_rope, base_px / (m->vae.scale * PATCH), x->g.rows,
                                  x->g.cols, false));
    if (p->wrap == WRAP_HORIZONTAL) position_plan_close(&x->positions);
    rig_expect(schedule_open(&x->schedule, &(schedule_opts){
        .config = m->scheduler, .shift = p->shift, .n_steps = p->steps, .n_image = x->g.n_image, .guidance = p->guidance,
        .rounding = SCHEDULE_BF16}));
    x->n = (size_t)x->g.n_image * (size_t)c->in_channels;
    x->text = floats((size_t)x->n_text * (size_t)c->joint_attention_dim);
    x->pooled = floats((size_t)c->pooled_projection_dim);
    x->tables = floats(x->positions.n_floats);
    x->t = floats((size_t)p->steps);
    x->latents = floats(x->n);
    x->velocity = floats(x->n);
    read_dump(p->id, "text.t5", 0, 0, x->n_text, c->joint_attention_dim, x->text);
    read_dump(p->id, "text.clip", 0, 0, 1, c->pooled_projection_dim, x->pooled);
    for (int i = 0; i < p->steps; i++) x->t[i] = x->schedule->steps[i].t_model;
    rig_expect(noise_fill(&p->noise, p->seed, &x->g, c->in_channels / (PATCH * PATCH), 0, x->g.n_image, true, x->latents));
}

static void trail_close(trail *x)
{
    schedule_close(x->schedule);
    free(x->text);
    free(x->pooled);
    free(x->t);
    free(x->tables);
    free(x->latents);
    free(x->velocity);
}

/* The GPUs' velocity of this step: each has written its share of the rows. */
static void trail_step(trail *x, const model *m, int step)
{
    const int32_t width = m->flux.in_channels;
    position_plan_tables(&x->positions, x->schedule->steps[step].t_position, x->tables);
    for (int rank = 0; rank < N_GPUS; rank++) {
        const row_range rows = geometry_split(x->n_text, x->g.n_image, N_GPUS, rank);
        const int64_t   first = geometry_first_token(rows, x->n_text);
        if (rows.n_image > 0) read_dump(x->job->id, "dit.velocity", step, rank, rows.n_image, width, x->velocity + first * width);
    }
}

static void trail_advance(trail *x, int step)
{
    const float dt = x->schedule->steps[step].dt;
    for (size_t i = 0; i < x->n; i++) x->latents[i] += dt * x->velocity[i];
}

/* One of the processor's transformers beside the GPUs'. */
typedef struct judge {
    flux_transformer *transformer;
    device           *dev;
    stream           *compute;
    dtype             type;
    void             *latents, *velocity; /* device */
} judge;

static void judge_open(judge *j, const model *m, const comm_grid *grid, const trail *x, dtype type)
{
    *j = (judge){.type = type};
    rig_expect(device_open(&j->dev, &DEVICE_OPTS_INIT));
    rig_expect(stream_open(&j->compute, j->dev));
    rig_expect(flux_transformer_open(&j->transformer, &(flux_transformer_opts){
        .model = m, .grid = grid, .dev = j->dev, .compute = j->compute, .type = type}));
    flux_transformer_parity(j->transformer, type == DT_BF16);
    rig_expect(flux_transformer_prepare(j->transformer, &(flux_sequence){
        .geometry = &x->g, .positions = &x->positions, .n_text = x->n_text, .n_steps = x->job->steps, .t = x->t,
        .guidance = x->schedule->guidance_model, .text = x->text, .pooled = x->pooled}));
    rig_expect(device_alloc(j->dev, x->n * sizeof(float), "latents", &j->latents));
    rig_expect(device_alloc(j->dev, x->n * sizeof(float), "velocity", &j->velocity));
}

/* Its velocity, widened, from these latents. */
static void judge_step(judge *j, const trail *x, int step, const float *latents, float *velocity)
{
    uint16_t *half = (uint16_t *)velocity;
    rig_expect(stream_copy_in(j->compute, j->latents, latents, x->n * sizeof(float)));
    rig_expect(flux_transformer_step(j->transformer, step, x->tables, j->latents, j->velocity));
    rig_expect(flux_transformer_sync(j->transformer));
    rig_expect(stream_copy_out(j->compute, velocity, j->velocity, x->n * dtype_bytes(j->type)));
    rig_expect(stream_sync(j->compute));
    for (size_t i = x->n; j->type == DT_BF16 && i-- > 0;) { /* in place, from the end */
        uint16_t h;
        memcpy(&h, half + i, sizeof(h));
        velocity[i] = bf16_to_f32(h);
    }
}

static void judge_close(judge *j)
{
    device_free(j->dev, j->velocity);
    device_free(j->dev, j->latents);
    flux_transformer_release(j->transformer);
    flux_transformer_close(j->transformer);
    stream_close(j->compute);
    device_close(j->dev);
}

/* Latents come from noise and the GPUs' velocities; that the last ones are those of the log shows that all before were, too. */
static void check_steps(const model *m, const comm_grid *grid, size_t picture)
{
    trail  x;
    judge  fp32, bf16;
    char   hex[SHA256_HEX];
    double ours = 0, reference = 0, worst = 0;
    trail_open(&x, m, &demo->pictures[picture]);
    judge_open(&fp32, m, grid, &x, DT_F32);
    judge_open(&bf16, m, grid, &x, DT_BF16);
    float *start = floats(x.n), *truth = floats(x.n), *half = floats(x.n);
    for (int step = 0; step < x.job->steps; step++) {
        trail_step(&x, m, step);
        for (size_t i = 0; i < x.n; i++) start[i] = bf16_round(x.latents[i]); /* as a bf16 run of the reference has them */
        judge_step(&fp32, &x, step, start, truth);
        judge_step(&bf16, &x, step, start, half);
        const double mine = rel_l2(x.velocity, truth, x.n), theirs = rel_l2(half, truth, x.n);
        char         label[160];
        snprintf(label, sizeof(label), "%s: velocity of step %d", x.job->id, step);
        rig_check_bf16(label, x.velocity, half, truth, x.n);
        ours += mine / x.job->steps;
        reference += theirs / x.job->steps;
        worst = fmax(worst, mine / theirs);
        trail_advance(&x, step);
    }
    print_message("  %s: %d steps in bf16: mean error against fp32 %.2e, the reference's %.2e; largest ratio %.2f\n", x.job->id,
                  x.job->steps, ours, reference, worst);
    rig_expect(sha256_of(x.latents, x.n * sizeof(float), hex));
    assert_string_equal(hex, text_of(rendered[GPU_BF16][picture], "latents_sha256"));
    free(start);
    free(truth);
    free(half);
    judge_close(&bf16);
    judge_close(&fp32);
    trail_close(&x);
}

static void in_bf16_each_step_is_as_good_as_the_reference(void **state)
{
    comm     *alone = NULL;
    comm_grid grid;
    model    *m = NULL;
    (void)state;
    rig_expect(comm_open(&alone, NULL, NULL));
    rig_expect(grid_open(&grid, alone, (grid_shape){1, 1, 1}));
    rig_expect(model_open(&m, MODEL));
    for (size_t i = 0; i < n_pictures; i++) check_steps(m, &grid, i);
    model_close(m);
    grid_close(&grid);
    comm_close(alone);
}

static int open_job(void **state)
{
    char path[2 * TEMPDIR_PATH];
    (void)state;
    if (tempdir_open(dir) != ST_OK) {
        print_error("%s\n", err_text());
        return -1;
    }
    for (int i = 0; i < N_RUNS; i++) write_job(&runs[i]);
    snprintf(path, sizeof(path), "%s/%s.yaml", dir, runs[0].name);
    if (job_open(&demo, path, &(job_opts){.model = MODEL}) != ST_OK) {
        print_error("%s\n", err_text());
        return -1;
    }
    n_pictures = program_full() ? demo->n_pictures : 1;
    return n_pictures <= PICTURES_MAX ? 0 : -1;
}

static int close_job(void **state)
{
    (void)state;
    for (int i = 0; i < N_RUNS; i++)
        for (size_t p = 0; p < n_pictures; p++) json_decref(rendered[i][p]);
    job_close(demo);
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_job_is_rendered),
        cmocka_unit_test(in_fp32_it_shows_the_picture_of_the_processor),
        cmocka_unit_test(in_bf16_each_step_is_as_good_as_the_reference),
    };
    return cmocka_run_group_tests(tests, open_job, close_job);
}

#else

int main(void)
{
    printf("not run: the demo job on GPUs (built without CUDA, NCCL or MPI)\n");
    return 0;
}

#endif
