/* People submit pictures on a Friday; whatever happens, the same command on Monday finishes what is not finished, repeats
 * nothing, and leaves the bytes of an unbroken run and nothing else. */
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
#include "file_lock.h"
#include "journal.h"
#include "outputs.h"
#include "processes.h"
#include "tiny_model.h"

enum { LIMIT_S = 120, N_NAMES = 4, STEPS = 8 };
#ifdef WITH_MPI
enum { N_RANKS = 2 };
#else
enum { N_RANKS = 0 };
#endif

static char              dir[TEMPDIR_PATH];
static const char *const names[N_NAMES] = {"a", "b", "c", "d"};
#define PICTURES "{name: a}, {name: b, prompt: 'a hill'}, {name: c, width: 384}, {name: d, prompt: 'a wood', height: 128}"

static void write_job(const char *name, const char *pictures)
{
    char text[2048];
    snprintf(text, sizeof(text), "model: model\noutput: 'out/{name}.png'\nprecision: fp32\ncheckpoint: {every: 2}\n"
             "defaults: {steps: %d, seed: 3, max_sequence_length: 45, prompt: 'a lake', width: 256, height: 256}\n"
             "pictures: [%s]\n", STEPS, pictures);
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", name), text), ST_OK);
}

static const char *arguments_of(const char *folder, const char *job)
{
    static char text[4 * TEMPDIR_PATH];
    snprintf(text, sizeof(text), "--out '%s' --log-json '%s' --threads 1 %s", tempdir_in(dir, "%s", folder),
             tempdir_in(dir, "%s.json", folder), job);
    return text;
}

static void expect_run(program_run *run, const char *folder, const char *job, int n_ranks, int exit_code)
{
    program_start(run, dir, NULL, n_ranks, LIMIT_S, arguments_of(folder, job));
    if (run->exit_code != exit_code) fail_msg("%s: exit code %d, want %d\n%s", folder, run->exit_code, exit_code, run->output);
}

static void expect_says(program_run *run, const char *piece)
{
    if (strstr(run->output, piece) == NULL) fail_msg("want \"%s\" in\n%s", piece, run->output);
}

/* All pictures of the job are those of the unbroken run, done once each, and nothing else lies there. */
static void expect_finished(const char *folder)
{
    static const char *const pngs[] = {"a.png", "b.png", "c.png", "d.png", ".dype-dist", NULL};
    static const char *const journals[] = {"a.journal", "b.journal", "c.journal", "d.journal", NULL};
    for (int i = 0; i < N_NAMES; i++) {
        if (!outputs_equal(tempdir_in(dir, "whole/out/%s.png", names[i]),
                           tempdir_in(dir, "%s/out/%s.png", folder, names[i])))
            fail_msg("%s/out/%s.png is not that of the unbroken run", folder, names[i]);
        journal *j = NULL;
        assert_int_equal(journal_read(&j, tempdir_in(dir, "%s/out/.dype-dist/%s.journal", folder, names[i])), ST_OK);
        int n_done = 0;
        for (size_t k = 0; k < journal_count(j); k++) n_done += journal_get(j, k)->state == JOURNAL_DONE;
        if (n_done != 1 || journal_get(j, journal_count(j) - 1)->state != JOURNAL_DONE)
            fail_msg("%s: %s has %d records of done, and ends with %s", folder, names[i], n_done,
                     journal_state_name(journal_get(j, journal_count(j) - 1)->state));
        assert_int_equal(journal_torn_bytes(j) + journal_spoiled_bytes(j), 0);
        journal_close(j);
    }
    outputs_expect(tempdir_in(dir, "%s/out", folder), pngs);
    outputs_expect(tempdir_in(dir, "%s/out/.dype-dist", folder), journals);
}

static double whole_s;

static void an_unbroken_run(void **state)
{
    program_run run;
    (void)state;
    write_job("job.yaml", PICTURES);
    const double began = processes_now();
    expect_run(&run, "whole", "job.yaml", N_RANKS, 0);
    whole_s = processes_now() - began;
    expect_says(&run, "pictures: 4 done\n");
    program_run_free(&run);
    expect_finished("whole");
    expect_run(&run, "whole", "job.yaml", N_RANKS, 0);
    expect_says(&run, "pictures: 4 done already\n");
    program_run_free(&run);
    expect_finished("whole");
    json_t *events = program_events(tempdir_in(dir, "whole.json"), "picture");
    assert_int_equal(json_array_size(events), 2 * N_NAMES);
    for (size_t i = 0; i < N_NAMES; i++) { /* what was done once is told again */
        const json_t *again = json_array_get(events, N_NAMES + i);
        assert_string_equal(json_string_value(json_object_get(again, "state")), "done already");
        bool found = false;
        for (size_t k = 0; k < N_NAMES; k++) {
            const json_t *first = json_array_get(events, k);
            found |= json_equal(json_object_get(first, "picture"), json_object_get(again, "picture")) &&
                     json_equal(json_object_get(first, "latents_sha256"), json_object_get(again, "latents_sha256")) &&
                     json_equal(json_object_get(first, "pixels_sha256"), json_object_get(again, "pixels_sha256"));
        }
        assert_true(found);
    }
    json_decref(events);
}

/* SIGKILL for all ranks at a random moment; how many there were. */
static int kill_all(background *b, double at_s)
{
    pid_t pids[MAX_PROCESSES];
    for (double left_s; (left_s = b->began + at_s - processes_now()) > 0;) usleep((useconds_t)(left_s * 1e6) + 1);
    const int n = processes_find(DYPE_BINARY, dir, pids);
    for (int i = 0; i < n; i++) kill(pids[i], SIGKILL);
    background_end(b);
    assert_int_equal(processes_left(DYPE_BINARY, dir, 2), 0);
    return n;
}

static void killed_and_run_again(void **state)
{
    const unsigned n_times = program_full() ? 50 : 5;
    int            n_hit = 0;
    (void)state;
    for (unsigned i = 0; i < n_times; i++) {
        background     b;
        program_run    run;
        const unsigned n_kills = 1 + program_draw(5 * i, 3); /* also the run that goes on may be killed */
        outputs_remove(tempdir_in(dir, "killed"));
        for (unsigned k = 0; k < n_kills; k++) {
            const double at_s = whole_s * (0.1 + 0.0009 * program_draw(5 * i + 100 * k + 1, 1000));
            background_begin(&b, dir, N_RANKS > 0 ? 1 + (int)program_draw(5 * i + k + 2, 3) : 0, LIMIT_S,
                             arguments_of("killed", "job.yaml"));
            const bool hit = kill_all(&b, at_s) > 0;
            n_hit += hit;
            print_message("  killed after %.2f of %.2f s: %s%s\n", at_s, whole_s,
                          outputs_list(tempdir_in(dir, "killed/out")), hit ? "" : "(too late)");
            if (!hit) whole_s /= 2; /* the machine is less busy than it was: aim earlier */
            program_run_free(&b.run);
        }
        expect_run(&run, "killed", "job.yaml", N_RANKS > 0 ? 1 + (int)program_draw(5 * i + 4, 3) : 0, 0);
        program_run_free(&run);
        expect_finished("killed");
    }
    assert_true(n_hit > 0);
}

/* A copy of the finished folder in which something is not as it was. */
static void begin_again(const char *folder)
{
    outputs_remove(tempdir_in(dir, "%s", folder));
    outputs_copy(tempdir_in(dir, "whole"), tempdir_in(dir, "%s", folder));
}

static void a_kill_between_a_png_and_its_record(void **state)
{
    program_run run;
    size_t      n = 0;
    (void)state;
    begin_again("between");
    const char *path = tempdir_in(dir, "between/out/.dype-dist/b.journal");
    char       *bytes = outputs_read(path, &n), *last = NULL;
    for (size_t i = 0; i + 4 <= n; i++)
        if (memcmp(bytes + i, "DyJ1", 4) == 0) last = bytes + i;
    assert_non_null(last);
    assert_int_equal(truncate(path, last - bytes + 7), 0); /* torn, too */
    free(bytes);
    assert_int_equal(remove(tempdir_in(dir, "between/out/.dype-dist/c.journal")), 0);
    expect_run(&run, "between", "job.yaml", N_RANKS, 0);
    expect_says(&run, "b: done already");
    expect_says(&run, "a record torn by a kill (7 bytes) was cut");
    expect_says(&run, "c: done already");
    program_run_free(&run);
    expect_finished("between");
}

static void a_png_that_is_gone_or_another(void **state)
{
    static const char *const pngs[] = {"a.png", "b.png", "b.1.png", "c.png", "c.1.png", "d.png", ".dype-dist", NULL};
    program_run run;
    (void)state;
    begin_again("another");
    assert_int_equal(remove(tempdir_in(dir, "another/out/a.png")), 0);
    assert_int_equal(tempdir_write(tempdir_in(dir, "another/out/b.png"), "somebody's own file"), ST_OK);
    assert_int_equal(truncate(tempdir_in(dir, "another/out/c.png"), 5000), 0);
    expect_run(&run, "another", "job.yaml", N_RANKS, 0);
    expect_says(&run, "a.png was done and is gone since: rendered anew");
    expect_says(&run, "b.png was done and has been changed since: rendered anew");
    expect_says(&run, "c.png was done and has been changed since: rendered anew");
    expect_says(&run, "d: done already");
    program_run_free(&run);
    outputs_expect(tempdir_in(dir, "another/out"), pngs);
    for (int i = 0; i < N_NAMES; i++)
        assert_true(outputs_equal(tempdir_in(dir, "whole/out/%s.png", names[i]),
                                  tempdir_in(dir, "another/out/%s.png", names[i])));
    assert_int_equal(outputs_states(tempdir_in(dir, "another/out/.dype-dist/b.journal"), "done"), 2);
    size_t n = 0;
    char *kept = outputs_read(tempdir_in(dir, "another/out/b.1.png"), &n);
    assert_string_equal(kept, "somebody's own file");
    free(kept);
}

/* Half-done pictures: a run that is killed when b has a checkpoint of step 4 or more. */
static void leave_half_done(const char *folder)
{
    static const char *const pieces[] = {"\"event\":\"step\"", "\"picture\":\"b\"", "\"step\":6", NULL};
    background b;
    outputs_remove(tempdir_in(dir, "%s", folder));
    remove(tempdir_in(dir, "%s.json", folder));
    background_begin(&b, dir, N_RANKS, LIMIT_S, arguments_of(folder, "slow.yaml"));
    assert_true(background_wait(&b, tempdir_in(dir, "%s.json", folder), pieces));
    assert_true(kill_all(&b, 0) > 0);
    program_run_free(&b.run);
    assert_int_equal(access(tempdir_in(dir, "%s/out/.dype-dist/b.checkpoint", folder), F_OK), 0);
}

static void a_checkpoint_is_used_only_where_it_belongs(void **state)
{
    program_run run;
    struct stat about;
    (void)state;
    /* Steps slow enough to be caught between two of them. */
    write_job("slow.yaml", "{name: b, prompt: 'a hill', width: 512, height: 512}");
    expect_run(&run, "slow", "slow.yaml", N_RANKS, 0);
    program_run_free(&run);

    leave_half_done("half");
    expect_run(&run, "half", "slow.yaml", N_RANKS, 0);
    expect_says(&run, "b: goes on after step ");
    program_run_free(&run);
    assert_true(outputs_equal(tempdir_in(dir, "slow/out/b.png"), tempdir_in(dir, "half/out/b.png")));

    leave_half_done("spoiled"); /* one bit of one value */
    const char *path = tempdir_in(dir, "spoiled/out/.dype-dist/b.checkpoint");
    assert_int_equal(stat(path, &about), 0);
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, about.st_size - 1000, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, about.st_size - 1000, SEEK_SET), 0);
    fputc(byte ^ 1, file);
    fclose(file);
    expect_run(&run, "spoiled", "slow.yaml", N_RANKS, 0);
    expect_says(&run, "b.checkpoint: the latents are spoiled: got SHA-256 ");
    program_run_free(&run);
    assert_true(outputs_equal(tempdir_in(dir, "slow/out/b.png"), tempdir_in(dir, "spoiled/out/b.png")));

    leave_half_done("changed"); /* another prompt in between */
    write_job("slow.yaml", "{name: b, prompt: 'a steep hill', width: 512, height: 512}");
    expect_run(&run, "changed", "slow.yaml", N_RANKS, 0);
    expect_says(&run, "b.checkpoint is of another recipe: not used");
    program_run_free(&run);
    static const char *const journals[] = {"b.journal", NULL};
    outputs_expect(tempdir_in(dir, "changed/out/.dype-dist"), journals);
    assert_false(outputs_equal(tempdir_in(dir, "slow/out/b.png"), tempdir_in(dir, "changed/out/b.png")));
}

static void another_job_holds_a_picture(void **state)
{
    program_run run;
    file_lock  *lock = NULL;
    char        want[128];
    (void)state;
    outputs_remove(tempdir_in(dir, "held"));
    assert_int_equal(mkdir(tempdir_in(dir, "held"), 0777) + mkdir(tempdir_in(dir, "held/out"), 0777) +
                         mkdir(tempdir_in(dir, "held/out/.dype-dist"), 0777),
                     0);
    assert_int_equal(
        file_lock_take(&lock, &(file_lock_opts){.path = tempdir_in(dir, "held/out/.dype-dist/c.lock"), .what = "c"}),
        ST_OK);
    expect_run(&run, "held", "job.yaml", N_RANKS, 1);
    snprintf(want, sizeof(want), "picture c is in the hands of another job: process %ld on ", (long)getpid());
    expect_says(&run, want);
    expect_says(&run, "pictures: 3 done, 1 failed\n  failed: c: ");
    program_run_free(&run);
    assert_int_equal(access(tempdir_in(dir, "held/out/.dype-dist/c.lock"), F_OK), 0);
    file_lock_release(lock);
    expect_run(&run, "held", "job.yaml", N_RANKS, 0);
    expect_says(&run, "pictures: 1 done, 3 done already\n");
    program_run_free(&run);
    expect_finished("held");
}

/* A file that is missing for one picture, and one that asks for far too much memory: both say so, the others are done. */
static void one_failure_does_not_stop_the_batch(void **state)
{
    program_run run;
    (void)state;
    write_job("mixed.yaml", "{name: huge, width: 65536, height: 65536}, {name: a}, {name: lost, latents_in: 'not-there.safetensors'}, "
                            "{name: d, prompt: 'a wood', height: 128}");
    expect_run(&run, "mixed", "mixed.yaml", N_RANKS, 1);
    expect_says(&run, "pictures: 2 done, 2 failed\n");
    expect_says(&run, "  failed: huge: 65536 x 65536 on ");
    expect_says(&run, "not-there.safetensors: cannot be read");
    program_run_free(&run);
    assert_true(outputs_equal(tempdir_in(dir, "whole/out/a.png"), tempdir_in(dir, "mixed/out/a.png")));
    assert_true(outputs_equal(tempdir_in(dir, "whole/out/d.png"), tempdir_in(dir, "mixed/out/d.png")));
    json_t *events = program_events(tempdir_in(dir, "mixed.json"), "picture");
    int     n_failed = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        n_failed += strcmp(json_string_value(json_object_get(json_array_get(events, i), "state")), "failed") == 0;
    assert_int_equal(n_failed, 2);
    json_decref(events);
    expect_run(&run, "mixed", "mixed.yaml", N_RANKS, 1);
    expect_says(&run, "pictures: 2 done already, 2 failed\n");
    program_run_free(&run);
}

static int open_model(void **state)
{
    tiny_model m = tiny_model_get('a');
    (void)state;
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unbroken_run),
        cmocka_unit_test(a_kill_between_a_png_and_its_record),
        cmocka_unit_test(a_png_that_is_gone_or_another),
        cmocka_unit_test(a_checkpoint_is_used_only_where_it_belongs),
        cmocka_unit_test(another_job_holds_a_picture),
        cmocka_unit_test(one_failure_does_not_stop_the_batch),
        cmocka_unit_test(killed_and_run_again),
    };
    return cmocka_run_group_tests(tests, open_model, remove_all);
}
