/* Whatever befalls one rank, the job ends soon, on all ranks, with the right exit code and a reason, leaves no process
 * behind and no half-written output. */
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
#include <sys/types.h>
#include <unistd.h>
#include <cmocka.h>

#include "background.h"
#include "outputs.h"
#include "processes.h"
#include "program.h"
#include "tiny_model.h"

enum { N_RANKS = 3, WATCHDOG_S = 2, END_S = 10 /* issue: always ended within 10 s */, LIMIT_S = 120 };

static char dir[TEMPDIR_PATH];

static void write_job(const char *name, const char *model, const char *pictures, int steps)
{
    char text[2048];
    snprintf(text, sizeof(text), "model: %s\noutput: 'out/{name}.png'\nprecision: fp32\n"
             "defaults: {steps: %d, seed: 3, max_sequence_length: 45, prompt: 'a lake', width: 256, height: 256}\n"
             "pictures: [%s]\n", model, steps, pictures);
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", name), text), ST_OK);
}

/* Long enough to be hit in every phase: four pictures of some seconds in all. */
#define PICTURES "{name: a}, {name: b, prompt: 'a hill'}, {name: c, width: 384}, {name: d, prompt: 'a wood', height: 128}"
static const char *const names[] = {"a", "b", "c", "d"};
enum { N_NAMES = 4, STEPS = 12 };

/* ---- outputs */

/* Each picture is as whole as the one of an undisturbed run, byte by byte, or not there; how many are there. */
static int whole_pictures(const char *folder)
{
    int n_there = 0;
    for (int i = 0; i < N_NAMES; i++) {
        char   name[64];
        size_t n_want = 0, n_got = 0;
        snprintf(name, sizeof(name), "whole/out/%s.png", names[i]);
        char *want = outputs_read(tempdir_in(dir, "%s", name), &n_want);
        assert_non_null(want);
        snprintf(name, sizeof(name), "%s/out/%s.png", folder, names[i]);
        char *got = outputs_read(tempdir_in(dir, "%s", name), &n_got);
        if (got != NULL && (n_got != n_want || memcmp(got, want, n_want) != 0)) fail_msg("%s is not whole", name);
        n_there += got != NULL;
        free(got);
        free(want);
    }
    return n_there;
}

static const char *arguments_of(const char *folder)
{
    static char text[4 * TEMPDIR_PATH];
    snprintf(text, sizeof(text), "--out '%s' --log-json '%s.json' --overwrite --threads 1 --watchdog %d job.yaml",
             tempdir_in(dir, "%s", folder), tempdir_in(dir, "%s", folder), WATCHDOG_S);
    return text;
}

static double whole_s; /* an undisturbed run */

static void an_undisturbed_run(void **state)
{
    program_run run;
    (void)state;
    write_job("job.yaml", "model", PICTURES, STEPS);
    const double began = processes_now();
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("whole"));
    whole_s = processes_now() - began;
    if (run.exit_code != 0) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    assert_int_equal(whole_pictures("whole"), N_NAMES);
    assert_int_equal(processes_left(DYPE_BINARY, dir, 0), 0);
    program_run_free(&run);
}

/* ---- killed, stopped */

static void a_killed_rank_ends_all(void **state)
{
    const unsigned n_moments = program_full() ? 20 : 3;
    (void)state;
    for (unsigned i = 0; i < n_moments; i++) {
        background   b;
        const int    rank = (int)program_draw(2 * i, N_RANKS);
        const double at_s = whole_s * (0.05 + 0.0009 * program_draw(2 * i + 1, 1000)); /* 5 % to 95 % of a run */
        print_message("  rank %d after %.2f of %.2f s\n", rank, at_s, whole_s);
        background_begin(&b, dir, N_RANKS, LIMIT_S, arguments_of("killed"));
        const pid_t pid = processes_wait_rank(DYPE_BINARY, dir, rank, END_S);
        assert_true(pid > 0);
        const double left_s = b.began + at_s - processes_now();
        if (left_s > 0) usleep((useconds_t)(left_s * 1e6));
        const double killed = processes_now();
        const bool   hit = kill(pid, SIGKILL) == 0;
        background_end(&b);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 1), 0);
        whole_pictures("killed");
        /* The machine was faster this time: the rank had ended, though nobody may have asked after it yet. */
        if (!hit || (b.run.exit_code == 0 && strstr(b.run.output, "pictures: 4 done") != NULL))
            assert_int_equal(b.run.exit_code, 0);
        else if (b.run.exit_code == 0 || strstr(b.run.output, "signal 9") == NULL || b.ended - killed > END_S)
            fail_msg("exit code %d, %.1f s after the kill\n%s", b.run.exit_code, b.ended - killed, b.run.output);
        program_run_free(&b.run);
    }
    /* What killed runs have left behind is in nobody's way. */
    program_run run;
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("killed"));
    if (run.exit_code != 0) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    assert_int_equal(whole_pictures("killed"), N_NAMES);
    program_run_free(&run);
}

/* Waits until the log of the run has so many events of this name. */
static void wait_for_events(const char *folder, const char *event, int n_wanted)
{
    char log[64], want[64];
    snprintf(log, sizeof(log), "%s.json", folder);
    snprintf(want, sizeof(want), "{\"event\":\"%s\"", event);
    for (double until = processes_now() + LIMIT_S; processes_now() < until; usleep(10000)) {
        size_t n = 0;
        char *text = outputs_read(tempdir_in(dir, "%s", log), &n);
        int    n_there = 0;
        for (const char *at = text; at != NULL && (at = strstr(at, want)) != NULL; at++) n_there++;
        free(text);
        if (n_there >= n_wanted) return;
    }
    fail_msg("no %d events %s in %s", n_wanted, event, log);
}

static void a_stopped_rank_is_named(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        background b;
        char       want[64];
        const int  rank = k == 0 ? 0 : 1 + (int)program_draw(100, N_RANKS - 1);
        remove(tempdir_in(dir, "stopped.json"));
        background_begin(&b, dir, N_RANKS, LIMIT_S, arguments_of("stopped"));
        wait_for_events("stopped", "step", STEPS / 2);
        const pid_t  pid = processes_wait_rank(DYPE_BINARY, dir, rank, END_S);
        const double stopped = processes_now();
        assert_int_equal(kill(pid, SIGSTOP), 0);
        background_end(&b);
        snprintf(want, sizeof(want), "watchdog: rank %d (", rank);
        const char *line = strstr(b.run.output, want);
        const char *line_end = line != NULL ? strchr(line, '\n') : NULL;
        const char *phase = line != NULL ? strstr(line, "s (limit 2 s; stopped, or its node or network is gone): phase ") : NULL;
        if (b.run.exit_code != ST_COMM || phase == NULL || line_end == NULL || phase > line_end)
            fail_msg("rank %d: exit code %d\n%s", rank, b.run.exit_code, b.run.output);
        if (b.ended - stopped > WATCHDOG_S + END_S) fail_msg("ended %.1f s after the stop", b.ended - stopped);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 0), 0);
        whole_pictures("stopped");
        if (rank != 0) { /* rank 0 has the log */
            json_t *alarms = program_events(tempdir_in(dir, "stopped.json"), "watchdog");
            assert_int_equal(json_array_size(alarms), 1);
            const json_t *silent = json_array_get(json_object_get(json_array_get(alarms, 0), "ranks"), 0);
            assert_int_equal(json_integer_value(json_object_get(silent, "rank")), rank);
            assert_true(json_string_length(json_object_get(silent, "picture")) == 1);
            json_decref(alarms);
        }
        program_run_free(&b.run);
    }
}

/* ---- one rank is not like the others */

typedef struct odd_one {
    int         rank;
    const char *program, *options, *job; /* of that rank */
} odd_one;

/* N_RANKS ranks, one of them odd. */
static void start_with_odd_one(program_run *run, const odd_one *odd, const char *options, const char *job)
{
    char  *line = NULL;
    size_t n = 0;
    FILE  *out = open_memstream(&line, &n);
    assert_non_null(out);
    for (int r = 0; r < N_RANKS; r++)
        fprintf(out, "%s-n 1 '%s' --overwrite --watchdog %d --out '%s' %s '%s' ", r > 0 ? ": " : "",
                r == odd->rank && odd->program != NULL ? odd->program : DYPE_BINARY, WATCHDOG_S, tempdir_in(dir, "odd"),
                r == odd->rank && odd->options != NULL ? odd->options : options,
                r == odd->rank && odd->job != NULL ? odd->job : job);
    fclose(out);
    program_start_other(run, "mpirun", dir, NULL, 0, LIMIT_S, line);
    free(line);
}

static void expect_odd_one(const odd_one *odd, const char *options, const char *job, int exit_code, const char *says,
                           const char *also)
{
    program_run  run;
    const double began = processes_now();
    start_with_odd_one(&run, odd, options, job);
    const double took = processes_now() - began;
    if (run.exit_code != exit_code || strstr(run.output, says) == NULL || strstr(run.output, also) == NULL)
        fail_msg("rank %d, %s: want exit code %d, \"%s\" and \"%s\", got %d and\n%s", odd->rank,
                 odd->options != NULL ? odd->options : "", exit_code, says, also, run.exit_code, run.output);
    if (took > whole_s + END_S) fail_msg("took %.1f s\n%s", took, run.output);
    assert_int_equal(processes_left(DYPE_BINARY, dir, 0), 0);
    program_run_free(&run);
}

static void another_version_or_job_is_refused(void **state)
{
    (void)state;
    write_job("small.yaml", "model", "{name: s, width: 64}", 1);
    write_job("other.yaml", "model", "{name: s, width: 80}", 1);
    expect_odd_one(&(odd_one){.rank = 2, .program = OTHER_VERSION_BINARY}, "", "small.yaml", ST_USAGE,
                   "program version differs: got \"0.0.0-other\", rank 0 has \"", "rank 2 (");
    expect_odd_one(&(odd_one){.rank = 0, .program = OTHER_VERSION_BINARY}, "", "small.yaml", ST_USAGE,
                   "program version differs: got \"", "rank 1 (");
    expect_odd_one(&(odd_one){.rank = 1, .job = "other.yaml"}, "", "small.yaml", ST_BAD_JOB, "job file differs: got \"",
                   "rank 1 (");
    expect_odd_one(&(odd_one){.rank = 1, .job = "missing.yaml"}, "", "small.yaml", ST_BAD_JOB, "missing.yaml",
                   "rank 1 (");
    expect_odd_one(&(odd_one){.rank = 1, .options = "--blocks 1"}, "", "small.yaml", ST_USAGE,
                   "command line differs: got \"", "rank 1 (");
    expect_odd_one(&(odd_one){.rank = 1, .options = "--frobnicate"}, "", "small.yaml", ST_USAGE,
                   "unknown option --frobnicate", "rank 1 (");
}

static const char SHARD[] = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors";

/* A copy of the model whose second shard of the transformer is spoiled on one rank's "disk". */
static void an_unreadable_shard_on_one_rank(void **state)
{
    enum { REMOVED, CUT, GARBLED, FOLDER, N_WAYS };
    char       folder[16], shard[TEMPDIR_PATH], options[4 * TEMPDIR_PATH], says[32];
    tiny_model m = tiny_model_get('a');
    (void)state;
    m.shards = 2;
    for (int way = 0; way < N_WAYS; way++) {
        const int rank = (int)program_draw(200 + (unsigned)way, N_RANKS);
        snprintf(folder, sizeof(folder), "broken%d", way);
        snprintf(shard, sizeof(shard), "%s/%s", folder, SHARD);
        assert_int_equal(mkdir(tempdir_in(dir, "%s", folder), 0777), 0);
        assert_int_equal(tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "%s", folder)), ST_OK);
        if (way == REMOVED || way == FOLDER) assert_int_equal(remove(tempdir_in(dir, "%s", shard)), 0);
        if (way == FOLDER) assert_int_equal(mkdir(tempdir_in(dir, "%s", shard), 0777), 0);
        if (way == CUT) assert_int_equal(truncate(tempdir_in(dir, "%s", shard), 5000), 0);
        if (way == GARBLED)
            assert_int_equal(tempdir_write(tempdir_in(dir, "%s", shard), "this is no safetensors file"), ST_OK);
        snprintf(options, sizeof(options), "--model '%s'", tempdir_in(dir, "%s", folder));
        snprintf(says, sizeof(says), "dype-dist: rank %d (", rank);
        expect_odd_one(&(odd_one){.rank = rank, .options = options}, "", "small.yaml", ST_BAD_MODEL, says,
                       strrchr(SHARD, '/') + 1);
    }
}

/* Bytes of device memory that a rank needs at most, from the log of an undisturbed run of small.yaml. */
static int64_t peak_of(int rank)
{
    program_run run;
    int64_t     peak = 0;
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, "--overwrite --log-json small.json small.yaml");
    if (run.exit_code != 0) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
    json_t *events = program_events(tempdir_in(dir, "small.json"), "picture");
    peak = json_integer_value(json_object_get(json_array_get(json_object_get(json_array_get(events, 0), "ranks"),
                                                             (size_t)rank), "device_peak_bytes"));
    json_decref(events);
    remove(tempdir_in(dir, "small.json"));
    return peak;
}

/* Where `first` stands in the first line that has `then` behind it; NULL: no line has both. */
static const char *line_with(const char *text, const char *first, const char *then)
{
    for (const char *at = text; (at = strstr(at, first)) != NULL; at++) {
        const char *found = strstr(at, then);
        if (found != NULL && found < at + strcspn(at, "\n")) return at;
    }
    return NULL;
}

/* Limits from one byte to one byte too few: memory is refused in different phases, on one rank, and all end. */
static void memory_refused_on_one_rank(void **state)
{
    static const double shares[] = {0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1};
    enum { N_SHARES = sizeof(shares) / sizeof(shares[0]), SAMPLE = 5 };
    (void)state;
    for (int k = 0; k < 2; k++) {
        const int     rank = k == 0 ? 0 : 1 + (int)program_draw(300, N_RANKS - 1);
        const int64_t peak = peak_of(rank);
        char          options[64], says[64];
        assert_true(peak > 1000);
        snprintf(says, sizeof(says), "rank %d (", rank);
        for (unsigned i = 0; i < N_SHARES; i++) {
            program_run   run;
            const int64_t limit = 1 + (int64_t)(shares[i] * (double)(peak - 2));
            if (!program_full() && i > 0 && i + 1 < N_SHARES && program_draw(310 + 20 * (unsigned)k + i, N_SHARES) >= SAMPLE) continue;
            snprintf(options, sizeof(options), "--memory-limit %lld", (long long)limit);
            const double began = processes_now();
            start_with_odd_one(&run, &(odd_one){.rank = rank, .options = options}, "", "small.yaml");
            const double took = processes_now() - began;
            const char  *line = line_with(run.output, says, " refused, ");
            if (run.exit_code != ST_NO_MEMORY || line == NULL || took > whole_s + END_S)
                fail_msg("rank %d, limit %lld of %lld: exit code %d, %.1f s\n%s", rank, (long long)limit, (long long)peak,
                         run.exit_code, took, run.output);
            print_message("  limit %lld of %lld: %.*s\n", (long long)limit, (long long)peak, (int)strcspn(line, "\n"), line);
            assert_int_equal(processes_left(DYPE_BINARY, dir, 0), 0);
            program_run_free(&run);
        }
        snprintf(options, sizeof(options), "--memory-limit %lld", (long long)peak); /* and exactly enough is enough */
        expect_odd_one(&(odd_one){.rank = rank, .options = options}, "", "small.yaml", 0, "", "");
    }
}

static int open_model(void **state)
{
    tiny_model m = tiny_model_get('a');
    (void)state;
    m.shards = 2;
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0) return 1;
    return tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "model")) != ST_OK;
}

static int remove_all(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
#ifndef WITH_MPI
    printf("not run: faults of ranks (built without MPI)\n");
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_undisturbed_run),
        cmocka_unit_test(another_version_or_job_is_refused),
        cmocka_unit_test(an_unreadable_shard_on_one_rank),
        cmocka_unit_test(memory_refused_on_one_rank),
        cmocka_unit_test(a_stopped_rank_is_named),
        cmocka_unit_test(a_killed_rank_ends_all),
    };
    return cmocka_run_group_tests(tests, open_model, remove_all);
}
