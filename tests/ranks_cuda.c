/* Many GPUs render one picture: virtual ones (tests/vgpu), with NCCL between them. The picture has the same bits on any number of
 * them, in every grid, and when transfers are staged in host memory; devices that cannot work together are refused by name; a
 * rank that dies, or a transfer that fails, ends all. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "background.h"
#include "latents_file.h"
#include "processes.h"
#include "program.h"
#include "tiny_model.h"

#if defined(WITH_CUDA) && defined(WITH_NCCL) && defined(VGPU_DIR)

enum { LIMIT_S = 500, END_S = 10, STEPS = 2, N_PICTURES = 2 };

/* More text than image on some ranks, fewer tiles than 8 ranks; scaled on one axis and closed to a ring. */
static const char JOB[] =
    "model: %c\n"
    "output: '{name}.png'\n"
    "precision: %s\n"
    "parallel: %s\n"
    "defaults: {steps: 2, seed: 3, max_sequence_length: 45, latents_out: '{name}.safetensors', position: {method: yarn, dype: true}}\n"
    "pictures:\n"
    "  - {name: few, prompt: 'a hill', width: 96, height: 64}\n"
    "  - {name: wide, prompt: 'a range of mountains', width: 528, height: 80, wrap: horizontal}\n";
static const char *const NAMES[] = {"few", "wide"};
static const int         N_IMAGE[] = {24, 165};

static char dir[TEMPDIR_PATH];

typedef struct variant {
    char        model;
    int         n_ranks, n_gpus;
    const char *precision, *parallel, *environment;
    unsigned    seed; /* of the virtual GPU's order of independent work; 0: this run's (tests/run.sh) */
} variant;

static void write_job(const variant *v)
{
    char text[sizeof(JOB) + 96];
    snprintf(text, sizeof(text), JOB, v->model, v->precision, v->parallel);
    assert_int_equal(tempdir_write(tempdir_in(dir, "job.yaml"), text), ST_OK);
}

static void environment_of(const variant *v, char *out, size_t size)
{
    char seed[32] = "";
    if (v->seed != 0) snprintf(seed, sizeof(seed), "VGPU_SEED=%u", v->seed);
    snprintf(out, size, "LD_LIBRARY_PATH='%s' VGPU_DEVICES=%d %s %s", VGPU_DIR, v->n_gpus, seed,
             v->environment != NULL ? v->environment : "");
}

/* Renders both pictures; the "picture" events of the log, sorted by name. */
static json_t *render(const variant *v)
{
    program_run run;
    char        environment[2 * TEMPDIR_PATH];
    environment_of(v, environment, sizeof(environment));
    write_job(v);
    remove(tempdir_in(dir, "log.json"));
    program_start(&run, dir, environment, v->n_ranks, LIMIT_S,
                  "job.yaml --overwrite --log-json log.json --backend cuda --threads 1");
    const char *how = v->environment != NULL ? "transfers between GPUs: MPI, staged" : "transfers between GPUs: NCCL";
    if (run.exit_code != 0 || (v->n_ranks > 1 && strstr(run.output, how) == NULL))
        fail_msg("%d GPUs, %s, %s: exit code %d\n%s", v->n_ranks, v->precision, v->parallel, run.exit_code, run.output);
    program_run_free(&run);
    json_t *events = program_events(tempdir_in(dir, "log.json"), "picture");
    assert_int_equal(json_array_size(events), N_PICTURES);
    if (strcmp(json_string_value(json_object_get(json_array_get(events, 0), "picture")), NAMES[0]) != 0) { /* replicas */
        json_t *first = json_incref(json_array_get(events, 0));
        json_array_remove(events, 0);
        json_array_append_new(events, first);
    }
    return events;
}

static const char *text_of(const json_t *events, size_t picture, const char *key)
{
    return json_string_value(json_object_get(json_array_get(events, picture), key));
}

static void assert_same_pictures(const json_t *got, const json_t *want, const char *what)
{
    static const char *const keys[] = {"latents_sha256", "pixels_sha256"};
    for (size_t i = 0; i < N_PICTURES; i++)
        for (size_t k = 0; k < 2; k++)
            if (strcmp(text_of(got, i, keys[k]), text_of(want, i, keys[k])) != 0)
                fail_msg("%s: %s of %s: got %s, want %s", what, keys[k], NAMES[i], text_of(got, i, keys[k]),
                         text_of(want, i, keys[k]));
}

/* Bytes that all ranks have sent for keys and values, against each row's to all other ranks. */
static void assert_bytes(const json_t *events, const variant *v)
{
    const tiny_model m = tiny_model_get(v->model);
    const int64_t    row = 2 * (int64_t)m.transformer.heads * m.transformer.head_dim * (strcmp(v->precision, "bf16") == 0 ? 2 : 4);
    const int64_t    rounds = (m.transformer.num_layers + m.transformer.num_single_layers) * STEPS;
    for (size_t i = 0; i < N_PICTURES; i++) {
        int64_t       sent = 0;
        size_t        r;
        const json_t *rank;
        json_array_foreach(json_object_get(json_array_get(events, i), "ranks"), r, rank)
            sent += json_integer_value(json_object_get(rank, "exchange_bytes"));
        assert_int_equal(sent, (45 + N_IMAGE[i]) * row * (v->n_ranks - 1) * rounds);
    }
}

static const char *const precisions[] = {"bf16", "fp32"};

static void any_number_of_gpus_gives_the_same_bits(void **state)
{
    static const int counts[] = {2, 3, 4, 8};
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        json_t        *want = render(&(variant){'a', 1, 1, precisions[p], "{}", NULL, 0});
        const unsigned drawn = program_draw(400 + p, 4);
        for (unsigned c = 0; c < 4; c++) {
            char          what[64];
            const variant v = {'a', counts[c], counts[c], precisions[p], "{}", NULL, c == drawn ? 1 + program_draw(500 + p, 1000) : 0};
            if (!program_full() && c != drawn && counts[c] != 2) continue;
            snprintf(what, sizeof(what), "%d GPUs, %s, order %u", v.n_ranks, v.precision, v.seed);
            print_message("  %s\n", what);
            json_t *got = render(&v);
            assert_same_pictures(got, want, what);
            assert_bytes(got, &v);
            json_decref(got);
        }
        json_decref(want);
    }
}

static void every_grid_gives_the_same_bits(void **state)
{
    static const struct {
        int         n;
        const char *parallel;
    } grids[] = {{2, "{ulysses: 2}"}, {3, "{ulysses: 3}"}, {4, "{ulysses: 2, ring: 2}"}, {4, "{replicas: 2, ulysses: 2}"},
                 {5, "{ulysses: 5}"}, {8, "{ulysses: 4, ring: 2}"}, {8, "{ulysses: 2, ring: 4}"}};
    enum { N_GRIDS = sizeof(grids) / sizeof(grids[0]) };
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        json_t *want = NULL;
        for (unsigned g = 0; g < N_GRIDS; g++) {
            const variant v = {'c', grids[g].n, grids[g].n, precisions[p], grids[g].parallel, NULL, 0};
            char          what[64];
            if (!program_full() && g != program_draw(600 + p, N_GRIDS)) continue;
            if (want == NULL) want = render(&(variant){'c', 1, 1, precisions[p], "{}", NULL, 0});
            snprintf(what, sizeof(what), "%d GPUs, %s, %s", v.n_ranks, v.precision, v.parallel);
            print_message("  %s\n", what);
            json_t *got = render(&v);
            assert_same_pictures(got, want, what);
            json_decref(got);
        }
        json_decref(want);
    }
}

/* Without NCCL: slow, and the same. */
static void staged_transfers_give_the_same_bits(void **state)
{
    (void)state;
    json_t *want = render(&(variant){'a', 1, 1, "fp32", "{}", NULL, 0});
    json_t *got = render(&(variant){'a', 3, 3, "fp32", "{}", "DYPE_TEST_STAGE_TRANSFERS=1", 0});
    assert_same_pictures(got, want, "staged");
    json_decref(got);
    json_decref(want);
}

/* Tolerance and reason as in ranks_render: sums in another order, 1e-4 of the latent's root mean square. */
static void the_classic_ring_stays_close(void **state)
{
    float  *want[N_PICTURES] = {NULL};
    double  worst = 0;
    (void)state;
    for (int neighbour = 0; neighbour < 2; neighbour++) {
        json_decref(render(&(variant){'a', 4, 4, "fp32", neighbour ? "{schedule: neighbour}" : "{}", NULL, 0}));
        for (int i = 0; i < N_PICTURES; i++) {
            const int width = tiny_model_get('a').transformer.in_channels;
            char      name[32];
            float    *latent = NULL;
            double    square = 0, largest = 0;
            snprintf(name, sizeof(name), "%s.safetensors", NAMES[i]);
            assert_int_equal(
                latents_file_read(&latent, tempdir_in(dir, "%s", name), "latents", N_IMAGE[i], width, NULL), ST_OK);
            if (!neighbour) {
                want[i] = latent;
                continue;
            }
            for (int k = 0; k < N_IMAGE[i] * width; k++) {
                largest = fmax(largest, fabs((double)latent[k] - (double)want[i][k]));
                square += (double)want[i][k] * (double)want[i][k];
            }
            worst = fmax(worst, largest / sqrt(square / (N_IMAGE[i] * width)));
            free(latent);
            free(want[i]);
        }
    }
    print_message("  %.1e\n", worst);
    assert_true(worst > 0 && worst <= 1e-4); /* it is another schedule */
}

/* ---- weights on the card */

enum { MOST_DEMO = 3 };

typedef struct demo_run {
    char       latents[65], pixels[65];
    json_int_t loaded[MOST_DEMO], peak[MOST_DEMO]; /* of ranks */
    json_int_t weights[MOST_DEMO], buffers[MOST_DEMO]; /* as planned: of the step loop */
} demo_run;

static json_int_t sum_of(json_t *parts)
{
    json_int_t  sum = 0;
    const char *name;
    json_t     *bytes;
    json_object_foreach(parts, name, bytes) sum += json_integer_value(bytes);
    return sum;
}

/* 64 text and 169 image rows: a tile of the one, three of the other, so that each of 2 or 3 ranks has image rows. */
static void write_demo(int n_steps)
{
    char text[1024];
    snprintf(text, sizeof(text), "model: '" PROJECT_DIR "/models/demo'\noutput: '{name}.png'\nprecision: bf16\n"
             "defaults: {steps: %d, seed: 3, max_sequence_length: 64}\npictures:\n"
             "  - {name: small, prompt: 'a hill', width: 208, height: 208}\n", n_steps);
    assert_int_equal(tempdir_write(tempdir_in(dir, "small.yaml"), text), ST_OK);
    remove(tempdir_in(dir, "small.json"));
}

/* The demo model on GPUs of which each rank may use so much; NULL: all. The program says `says`. With `more` and all memory in
 * an order that the seed draws, else in the plain one: whatever nobody waits for comes late. */
static demo_run run_demo(int n_ranks, const char *limit, int n_steps, const char *more, const char *says)
{
    demo_run    p = {.loaded = {0}};
    char        environment[2 * TEMPDIR_PATH], arguments[256];
    program_run run;
    write_demo(n_steps);
    environment_of(&(variant){.n_gpus = n_ranks, .environment = more,
                               .seed = more != NULL && limit == NULL ? 1 + program_draw(951, 1000) : 0}, environment, sizeof(environment));
    snprintf(arguments, sizeof(arguments), "small.yaml --overwrite --log-json small.json --backend cuda --threads 1%s%s",
             limit != NULL ? " --memory-limit " : "", limit != NULL ? limit : "");
    program_start(&run, dir, environment, n_ranks, LIMIT_S, arguments);
    if (run.exit_code != 0 || strstr(run.output, says) == NULL)
        fail_msg("%s: exit code %d, no \"%s\"?\n%s", arguments, run.exit_code, says, run.output);
    program_run_free(&run);
    json_t *pictures = program_events(tempdir_in(dir, "small.json"), "picture"),
           *plans = program_events(tempdir_in(dir, "small.json"), "plan");
    snprintf(p.latents, sizeof(p.latents), "%s", text_of(pictures, 0, "latents_sha256"));
    snprintf(p.pixels, sizeof(p.pixels), "%s", text_of(pictures, 0, "pixels_sha256"));
    for (size_t r = 0; r < (size_t)n_ranks; r++) {
        const json_t *done = json_array_get(json_object_get(json_array_get(pictures, 0), "ranks"), r);
        const json_t *planned = json_array_get(json_object_get(json_array_get(plans, 0), "ranks"), r);
        p.loaded[r] = json_integer_value(json_object_get(done, "weight_bytes"));
        p.peak[r] = json_integer_value(json_object_get(done, "device_peak_bytes"));
        p.weights[r] = json_integer_value(json_object_get(planned, "mapped_bytes"));
        p.buffers[r] = sum_of(json_object_get(planned, "step_loop"));
        assert_true(p.weights[r] > 0 && p.buffers[r] > 0);
    }
    json_decref(pictures);
    json_decref(plans);
    return p;
}

static const char WHAT_IT_NEEDS[] = "weights: each rank reads what it needs (one node";

/* 5 MiB where the weights and buffers of a rank are 7, of the other 5.3: the weights that find no room pass through in each
 * step, as many bytes as the planner says, to a weight (5 x 192 x 192 x 2 B the largest), and the picture has the same bits.
 * The ring holds two of the largest, which is more than an eighth of this card. */
static void weights_that_pass_through_give_the_same_bits(void **state)
{
    enum { LIMIT = 5 << 20, LARGEST = 5 * 192 * 192 * 2 };
    (void)state;
    const demo_run whole = run_demo(2, NULL, 4, NULL, WHAT_IT_NEEDS), three = run_demo(2, "5M", 3, NULL, WHAT_IT_NEEDS);
    const demo_run four = run_demo(2, "5M", 4, NULL, WHAT_IT_NEEDS);
    assert_string_equal(four.latents, whole.latents);
    assert_string_equal(four.pixels, whole.pixels);
    for (int r = 0; r < 2; r++) {
        const json_int_t room = LIMIT - LIMIT / 16 - four.buffers[r], want = four.weights[r] - (room - 2 * LARGEST);
        const json_int_t got = four.loaded[r] - three.loaded[r];
        if (want <= LARGEST || got < want - LARGEST || got > want + LARGEST)
            fail_msg("rank %d: %lld bytes in a step, planned %lld", r, got, want);
        assert_true(four.peak[r] <= LIMIT && whole.peak[r] > LIMIT && whole.loaded[r] < four.loaded[r]);
    }
}

/* What all ranks need is read once, a part by each, and the picture has the same bits: by counts, what each rank has not read
 * any more is that sum less its own part, an n-th to a weight. Bytes by hand, D = 192, 2 double and 6 single blocks: 12 D^2 + 9 D
 * of an image stream's linears, 12 D^2 + 8 D of a single block's, 2 x 64 D + D + 64 of latents in and velocity out. On small
 * cards too, where some of them find no room and each rank reads those. */
static void weights_in_parts_give_the_same_bits(void **state)
{
    enum { D = 192, LARGEST = 5 * D * D * 2 };
    enum { SHARED = 2 * (2 * (12 * D * D + 9 * D) + 6 * (12 * D * D + 8 * D) + 2 * 64 * D + D + 64) };
    static const char parts[] = "DYPE_DIST_LOAD_PARTS=1";
    static const char says[] = "weights: each rank reads a part of what all need (DYPE_DIST_LOAD_PARTS)";
    (void)state;
    for (int n = 2; n <= MOST_DEMO; n++) {
        if (!program_full() && n != 2 + (int)program_draw(950, 2)) continue;
        const demo_run whole = run_demo(n, NULL, 2, NULL, WHAT_IT_NEEDS), shared = run_demo(n, NULL, 2, parts, says);
        const demo_run small = run_demo(n, "5M", 2, parts, says);
        json_int_t     own = 0;
        assert_string_equal(shared.latents, whole.latents);
        assert_string_equal(shared.pixels, whole.pixels);
        assert_string_equal(small.latents, whole.latents);
        for (int r = 0; r < n; r++) {
            const json_int_t mine = SHARED - (whole.loaded[r] - shared.loaded[r]);
            own += mine;
            if (mine < SHARED / n - LARGEST || mine > SHARED / n + LARGEST)
                fail_msg("rank %d of %d reads %lld of %d bytes", r, n, mine, (int)SHARED);
            assert_true(small.loaded[r] > shared.loaded[r] && small.peak[r] <= 5 << 20);
        }
        assert_int_equal(own, SHARED);
    }
}

/* Until the log has this. Files are mapped when the first picture's first phase is over. */
static void wait_for_log(const char *path, const char *words)
{
    for (const double until = processes_now() + 60; processes_now() < until; usleep(2000)) {
        char   text[65536];
        FILE  *log = fopen(path, "re");
        size_t n = log != NULL ? fread(text, 1, sizeof(text) - 1, log) : 0;
        if (log != NULL) fclose(log);
        text[n] = '\0';
        if (strstr(text, words) != NULL) return;
    }
    fail_msg("no %s in a minute", words);
}

/* A shard of one rank alone is cut short, while rank 0 encodes and before the other has read its part, or before all: the file
 * is named, and nobody waits for what does not come. */
static void a_part_that_cannot_be_read_ends_all(void **state)
{
    enum { WHOLE, CUT_LATE, CUT_EARLY };
    static const char shard[] = "broken/transformer/diffusion_pytorch_model.safetensors";
    static const char asked[] = "small.yaml --overwrite --backend cuda --threads 1 --watchdog 100 --log-json small.json";
    char        environment[2 * TEMPDIR_PATH], command[8 * TEMPDIR_PATH], text[4 * TEMPDIR_PATH];
    program_run copy;
    (void)state;
    snprintf(text, sizeof(text), "-r '" PROJECT_DIR "/models/demo' broken");
    program_start_other(&copy, "cp", dir, NULL, 0, 60, text);
    assert_int_equal(copy.exit_code, 0);
    program_run_free(&copy);
    environment_of(&(variant){.n_gpus = 2, .environment = "DYPE_DIST_LOAD_PARTS=1"}, environment, sizeof(environment));
    snprintf(command, sizeof(command), "-n 1 '%s' %s : -n 1 '%s' %s --model broken", DYPE_BINARY, asked, DYPE_BINARY, asked);
    for (int when = WHOLE; when <= CUT_EARLY; when++) {
        background b;
        write_demo(2);
        background_begin_other(&b, "mpirun", dir, environment, 0, 90, command);
        if (when == CUT_LATE) {
            wait_for_log(tempdir_in(dir, "small.json"), "\"phase\":\"start\"");
            assert_int_equal(truncate(tempdir_in(dir, "%s", shard), 1 << 20), 0);
        }
        background_end(&b);
        if (b.run.exit_code != (when == WHOLE ? 0 : ST_BAD_MODEL) || (when != WHOLE && strstr(b.run.output, shard + 7) == NULL) ||
            (when == CUT_LATE && strstr(b.run.output, "truncated or became unreadable while in use") == NULL))
            fail_msg("case %d: exit code %d\n%s", when, b.run.exit_code, b.run.output);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 1), 0);
        program_run_free(&b.run);
    }
}

/* ---- devices that cannot work together */

static void expect_refusal(const char *command, const char *environment, int n_ranks, int exit_code, const char *says)
{
    program_run run;
    if (n_ranks > 0) program_start(&run, dir, environment, n_ranks, 60, command);
    else program_start_other(&run, "mpirun", dir, environment, 0, 60, command);
    if (run.exit_code != exit_code || strstr(run.output, says) == NULL)
        fail_msg("%s %s: want exit code %d and \"%s\", got %d\n%s", environment, command, exit_code, says, run.exit_code, run.output);
    program_run_free(&run);
}

static void devices_that_cannot_work_together_are_refused(void **state)
{
    static const char asked[] = "job.yaml --overwrite --backend cuda --threads 1";
    char              environment[2 * TEMPDIR_PATH], command[8 * TEMPDIR_PATH];
    (void)state;
    write_job(&(variant){.model = 'a', .precision = "fp32", .parallel = "{}"});
    environment_of(&(variant){.n_gpus = 2}, environment, sizeof(environment));
    expect_refusal(asked, environment, 3, ST_DEVICE, "got 2, want 3, one for each rank");
    environment_of(&(variant){.n_gpus = 1}, environment, sizeof(environment));
    expect_refusal(asked, environment, 2, ST_DEVICE, "have one GPU: ");
    environment_of(&(variant){.n_gpus = 2}, environment, sizeof(environment));
    snprintf(command, sizeof(command), "-n 1 '%s' %s : -n 1 env VGPU_CC=8.6 '%s' %s", DYPE_BINARY, asked, DYPE_BINARY, asked);
    expect_refusal(command, environment, 0, ST_DEVICE, "device differs: got \"cuda (");
    /* No GPU at all: exit code 7 when it was asked for, else the processor, with a word about it. */
    environment_of(&(variant){.n_gpus = 0}, environment, sizeof(environment));
    expect_refusal(asked, environment, 2, ST_DEVICE, "no GPU: ");
    expect_refusal("job.yaml --overwrite --threads 1", environment, 2, 0, "computing on the processor: ");
}

/* ---- a rank that dies */

/* Killed or, every other time, stopped in the middle of the work, while the others wait for it on their devices: of a
 * stopped one the watchdog tells. */
static void a_rank_that_dies_or_stops_ends_all(void **state)
{
    const unsigned n_moments = program_full() ? 6 : 2;
    char           environment[2 * TEMPDIR_PATH], says[48];
    char           arguments[2 * TEMPDIR_PATH]; /* with the folder: other tests run programs of this name */
    (void)state;
    write_job(&(variant){.model = 'a', .precision = "fp32", .parallel = "{}"});
    environment_of(&(variant){.n_gpus = 3}, environment, sizeof(environment));
    snprintf(arguments, sizeof(arguments),
             "job.yaml --overwrite --backend cuda --threads 1 --watchdog 3 --log-json '%s'",
             tempdir_in(dir, "log.json"));
    for (unsigned i = 0; i < n_moments; i++) {
        background b;
        const int  rank = (int)program_draw(700 + i, 3), sent = i % 2 == 0 ? SIGKILL : SIGSTOP;
        snprintf(says, sizeof(says), "watchdog: rank %d (", rank);
        remove(tempdir_in(dir, "log.json"));
        background_begin_other(&b, NULL, dir, environment, 3, LIMIT_S, arguments);
        wait_for_log(tempdir_in(dir, "log.json"), "\"event\":\"step\""); /* the watchdog is awake */
        const pid_t pid = processes_wait_rank(DYPE_BINARY, dir, rank, END_S);
        assert_true(pid > 0);
        usleep(1000 * program_draw(800 + i, 800));
        const double at = processes_now();
        const bool   hit = kill(pid, sent) == 0;
        background_end(&b);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 1), 0);
        if (hit && (b.run.exit_code == 0 || b.ended - at > (sent == SIGSTOP ? END_S + 3 : END_S)))
            fail_msg("rank %d, signal %d: exit code %d, %.1f s later\n%s", rank, sent, b.run.exit_code, b.ended - at, b.run.output);
        if (sent == SIGSTOP && (b.run.exit_code != ST_COMM || strstr(b.run.output, says) == NULL))
            fail_msg("rank %d stopped: exit code %d\n%s", rank, b.run.exit_code, b.run.output);
        program_run_free(&b.run);
    }
}

/* A transfer that fails on one rank's GPU, without a call of that rank failing: the others wait for it on theirs. It is looked
 * for beside the work, the rank says where it is, and all end, long before the watchdog would speak or with none at all. */
static void an_asynchronous_error_ends_all(void **state)
{
    static const struct {
        char        model;
        int         rank, launch;
        const char *parallel, *watchdog;
    } cases[] = {{'a', 1, 0, "{}", "100"}, {'a', 2, 7, "{}", "0"}, {'c', 0, 3, "{ulysses: 3}", "100"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        program_run run;
        char        order[32], environment[2 * TEMPDIR_PATH], arguments[128], who[32];
        if (!program_full() && i != program_draw(900, 3)) continue;
        snprintf(order, sizeof(order), "VGPU_NCCL_FAIL=%d:%d", cases[i].rank, cases[i].launch);
        snprintf(who, sizeof(who), "dype-dist: rank %d (", cases[i].rank);
        snprintf(arguments, sizeof(arguments), "job.yaml --overwrite --backend cuda --threads 1 --watchdog %s", cases[i].watchdog);
        write_job(&(variant){.model = cases[i].model, .precision = "fp32", .parallel = cases[i].parallel});
        environment_of(&(variant){.n_gpus = 3, .environment = order}, environment, sizeof(environment));
        const double began = processes_now();
        program_start(&run, dir, environment, 3, 90, arguments);
        const char *says = strstr(run.output, who);
        if (run.exit_code != ST_COMM || says == NULL || strstr(says, "NCCL: transfers between GPUs: unhandled system error") == NULL ||
            strstr(run.output, "fails: VGPU_NCCL_FAIL)") == NULL || strstr(run.output, "phase ") == NULL ||
            strstr(run.output, "watchdog: ") != NULL)
            fail_msg("%s: exit code %d after %.1f s\n%s", order, run.exit_code, processes_now() - began, run.output);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 1), 0);
        program_run_free(&run);
    }
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    for (const char *letter = "ac"; *letter != '\0'; letter++) {
        char       path[TEMPDIR_PATH + 16];
        tiny_model m = tiny_model_get(*letter);
        snprintf(path, sizeof(path), "%s/%c", dir, *letter);
        if (mkdir(path, 0777) == 0 && tiny_model_write(&m, TINY_ALL, path) == ST_OK) continue;
        print_error("%s\n", err_text());
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
        cmocka_unit_test(any_number_of_gpus_gives_the_same_bits),
        cmocka_unit_test(every_grid_gives_the_same_bits),
        cmocka_unit_test(staged_transfers_give_the_same_bits),
        cmocka_unit_test(the_classic_ring_stays_close),
        cmocka_unit_test(weights_that_pass_through_give_the_same_bits),
        cmocka_unit_test(weights_in_parts_give_the_same_bits),
        cmocka_unit_test(a_part_that_cannot_be_read_ends_all),
        cmocka_unit_test(devices_that_cannot_work_together_are_refused),
        cmocka_unit_test(a_rank_that_dies_or_stops_ends_all),
        cmocka_unit_test(an_asynchronous_error_ends_all),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}

#else

int main(void)
{
    printf("not run: many GPUs (built without CUDA, NCCL or MPI)\n");
    return 0;
}

#endif
