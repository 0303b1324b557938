/* A job that is asked to stop leaves its latents behind, in time; the same command goes on from there, on any number of
 * ranks, to the same bytes. The short run sends one signal of three each way, and lets two of the stopped jobs go on: which,
 * and on how many ranks, the seed says. */
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
#include "checkpoint.h"
#include "outputs.h"
#include "processes.h"
#include "tiny_model.h"

enum { LIMIT_S = 120, STEPS = 80, EARLY = 10 /* steps: mpirun passes SIGTERM on a second late */ };

static char dir[TEMPDIR_PATH];

/* No checkpoints but those of signals. */
static void write_job(const char *name, const char *parallel, const char *b)
{
    char text[2048];
    snprintf(text, sizeof(text), "model: model\noutput: 'out/{name}.png'\nprecision: fp32\ncheckpoint: {every: 0}\n%s"
             "defaults: {steps: %d, seed: 3, max_sequence_length: 45, prompt: 'a lake', width: 448, height: 384}\n"
             "pictures: [{name: a}, {name: b, %s}]\n", parallel, STEPS, b);
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", name), text), ST_OK);
}
#define ONE_REPLICA "parallel: {replicas: 1}\n"
#define SMALL "prompt: 'a hill', width: 64, height: 64"

static const char *arguments_of(const char *folder, const char *job)
{
    static char text[4 * TEMPDIR_PATH];
    snprintf(text, sizeof(text), "--out '%s' --log-json '%s' --threads 1 %s", tempdir_in(dir, "%s", folder),
             tempdir_in(dir, "%s.json", folder), job);
    return text;
}

static void expect_whole(const char *folder)
{
    static const char *const pngs[] = {"a.png", "b.png", ".dype-dist", NULL};
    static const char *const journals[] = {"a.journal", "b.journal", NULL};
    outputs_expect(tempdir_in(dir, "%s/out", folder), pngs);
    outputs_expect(tempdir_in(dir, "%s/out/.dype-dist", folder), journals);
    for (int i = 0; i < 2; i++)
        if (!outputs_equal(tempdir_in(dir, "whole/out/%s", pngs[i]), tempdir_in(dir, "%s/out/%s", folder, pngs[i])))
            fail_msg("%s/out/%s is not that of the unbroken run", folder, pngs[i]);
}

static void an_unbroken_run(void **state)
{
    program_run run;
    (void)state;
    write_job("job.yaml", ONE_REPLICA, SMALL);
    write_job("any.yaml", "", SMALL); /* the number of ranks chooses */
    program_start(&run, dir, NULL, 0, LIMIT_S, arguments_of("whole", "any.yaml"));
    if (run.exit_code != 0) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
    expect_whole("whole");
}

/* The run of `job` has finished this step of a; false: it is over already. */
static bool wait_for_step(const background *b, const char *folder, int step)
{
    char              number[32];
    const char *const pieces[] = {"\"event\":\"step\"", "\"picture\":\"a\"", number, NULL};
    snprintf(number, sizeof(number), "\"step\":%d,", step);
    return background_wait(b, tempdir_in(dir, "%s.json", folder), pieces);
}

static void begin(background *b, const char *folder, const char *job, int n_ranks)
{
    outputs_remove(tempdir_in(dir, "%s", folder));
    remove(tempdir_in(dir, "%s.json", folder));
    background_begin(b, dir, n_ranks, LIMIT_S, arguments_of(folder, job));
}

/* Steps that a checkpoint has, checked as a resume would. */
static int saved_steps(const char *path)
{
    checkpoint c = {0};
    if (checkpoint_read(&c, path) != ST_OK) fail_msg("%s", err_text());
    const int step = c.step;
    checkpoint_free(&c);
    return step;
}

/* What was stopped goes on on n ranks: the bytes of an unbroken run, and no step twice. */
static void expect_goes_on(const char *stopped, const char *job, int n_ranks)
{
    program_run run;
    const int step = saved_steps(tempdir_in(dir, "%s/out/.dype-dist/a.checkpoint", stopped));
    outputs_remove(tempdir_in(dir, "again"));
    remove(tempdir_in(dir, "again.json"));
    outputs_copy(tempdir_in(dir, "%s", stopped), tempdir_in(dir, "again"));
    program_start(&run, dir, NULL, n_ranks, LIMIT_S, arguments_of("again", job));
    if (run.exit_code != 0) fail_msg("%s on %d ranks: exit code %d\n%s", stopped, n_ranks, run.exit_code, run.output);
    program_run_free(&run);
    expect_whole("again");
    json_t *steps = program_events(tempdir_in(dir, "again.json"), "step");
    int     n_of_a = 0;
    for (size_t i = 0; i < json_array_size(steps); i++)
        n_of_a += strcmp(json_string_value(json_object_get(json_array_get(steps, i), "picture")), "a") == 0;
    assert_int_equal(n_of_a, STEPS - step);
    json_decref(steps);
    json_t *pictures = program_events(tempdir_in(dir, "again.json"), "picture");
    for (size_t i = 0; i < json_array_size(pictures); i++) {
        const json_t *p = json_array_get(pictures, i);
        if (strcmp(json_string_value(json_object_get(p, "picture")), "a") == 0)
            assert_int_equal(json_integer_value(json_object_get(p, "from_step")), step);
    }
    json_decref(pictures);
}

static const int signals[] = {SIGTERM, SIGINT, SIGUSR1};

/* Whether this run sends signal i the k-th way: all, or one of three, another one each way. */
static bool sends(unsigned i, unsigned k)
{
    return program_full() || i == (program_draw(0, 3) + k) % 3;
}

/* Ways to stop a job; the short run lets the first go on, and one of the others. */
enum way { TO_MPIRUN, TO_THE_RANKS, TO_ONE_RANK, WITHOUT_THE_STEP, TO_A_LONE_PROCESS, N_WAYS };

static bool goes_on_after(enum way way)
{
#ifdef WITH_MPI
    return program_full() || way == TO_MPIRUN || way == 1 + (enum way)program_draw(1, N_WAYS - 1);
#else
    return way == TO_A_LONE_PROCESS;
#endif
}

#ifdef WITH_MPI

/* mpirun passes a signal on; of SIGTERM and SIGINT it makes SIGTERM, kills its ranks soon after and returns 1 itself. */
static void signals_to_mpirun(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        background b;
        const int  step = 2 + (int)program_draw(2 + i, EARLY);
        if (!sends(i, 0)) continue;
        begin(&b, "stopped", "job.yaml", 2);
        const pid_t mpirun = background_mpirun(dir);
        assert_true(wait_for_step(&b, "stopped", step));
        assert_int_equal(kill(mpirun, signals[i]), 0);
        background_end(&b);
        assert_int_equal(processes_left(DYPE_BINARY, dir, 2), 0);
        const bool right = signals[i] == SIGUSR1 ? b.run.exit_code == 75 : b.run.exit_code == 1 || b.run.exit_code == 75;
        if (!right) fail_msg("%s: exit code %d\n%s", strsignal(signals[i]), b.run.exit_code, b.run.output);
        program_run_free(&b.run);
        assert_int_not_equal(access(tempdir_in(dir, "stopped/out/a.png"), F_OK), 0);
        assert_true(saved_steps(tempdir_in(dir, "stopped/out/.dype-dist/a.checkpoint")) >= step);
        for (int n = 1; n <= 3; n++)
            if (program_full() || n == 1 + (int)program_draw(10, 3)) expect_goes_on("stopped", "any.yaml", n);
    }
}

/* As srun delivers them: to every rank, nothing in between. */
static void signals_to_the_ranks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        background b;
        pid_t      pids[MAX_PROCESSES];
        if (!sends(i, 1)) continue;
        begin(&b, "direct", "job.yaml", 2);
        assert_true(wait_for_step(&b, "direct", 3));
        const int n = processes_find(DYPE_BINARY, dir, pids);
        assert_int_equal(n, 2);
        for (int k = 0; k < n; k++) assert_int_equal(kill(pids[k], signals[i]), 0);
        background_end(&b);
        if (b.run.exit_code != 75 || strstr(b.run.output, "stopped by SIG") == NULL)
            fail_msg("%s: exit code %d\n%s", strsignal(signals[i]), b.run.exit_code, b.run.output);
        if (strstr(b.run.output, "pictures: 1 stopped, 1 not begun") == NULL) fail_msg("%s", b.run.output);
        program_run_free(&b.run);
        assert_true(saved_steps(tempdir_in(dir, "direct/out/.dype-dist/a.checkpoint")) >= 3);
        if (goes_on_after(TO_THE_RANKS)) expect_goes_on("direct", "any.yaml", 1 + (int)program_draw(20 + i, 3));
    }
}

static void a_signal_to_one_rank_stops_all(void **state)
{
    background b;
    (void)state;
    begin(&b, "one", "job.yaml", 3);
    assert_true(wait_for_step(&b, "one", 3));
    assert_int_equal(kill(processes_rank(DYPE_BINARY, dir, 2), SIGUSR1), 0);
    background_end(&b);
    if (b.run.exit_code != 75 || strstr(b.run.output, "rank 2 (") == NULL || strstr(b.run.output, "stopped by SIGUSR1 after step ") == NULL)
        fail_msg("exit code %d\n%s", b.run.exit_code, b.run.output);
    program_run_free(&b.run);
    assert_true(saved_steps(tempdir_in(dir, "one/out/.dype-dist/a.checkpoint")) >= 3);
    if (goes_on_after(TO_ONE_RANK)) expect_goes_on("one", "any.yaml", 2);
}

/* The step does not end: another rank stands still. Rank 0 saves the latent all the same, before mpirun kills it. */
static void the_latent_is_saved_without_the_step(void **state)
{
    background b;
    (void)state;
    begin(&b, "hung", "job.yaml", 2);
    const pid_t mpirun = background_mpirun(dir);
    assert_true(wait_for_step(&b, "hung", 5));
    assert_int_equal(kill(processes_rank(DYPE_BINARY, dir, 1), SIGSTOP), 0);
    usleep(300000); /* rank 0 waits for it in the middle of a step */
    assert_int_not_equal(access(tempdir_in(dir, "hung/out/.dype-dist/a.checkpoint"), F_OK), 0);
    const double began = processes_now();
    assert_int_equal(kill(mpirun, SIGTERM), 0);
    while (access(tempdir_in(dir, "hung/out/.dype-dist/a.checkpoint"), F_OK) != 0 && processes_now() < began + 10)
        usleep(1000);
    print_message("  saved %.3f s after the signal\n", processes_now() - began);
    background_end(&b);
    assert_int_not_equal(b.run.exit_code, 0);
    program_run_free(&b.run);
    assert_int_equal(processes_left(DYPE_BINARY, dir, 5), 0);
    assert_true(saved_steps(tempdir_in(dir, "hung/out/.dype-dist/a.checkpoint")) >= 5);
    if (goes_on_after(WITHOUT_THE_STEP)) expect_goes_on("hung", "any.yaml", 2);
}

/* Each replica's lead keeps its own picture. */
static void every_replica_saves_its_picture(void **state)
{
    background        b;
    const char *const pieces[] = {"\"event\":\"step\"", "\"picture\":\"b\"", "\"step\":3,", NULL};
    (void)state;
    write_job("replicas.yaml", "parallel: {replicas: 2}\n", "seed: 4");
    write_job("replicas1.yaml", "", "seed: 4");
    begin(&b, "replicas", "replicas.yaml", 2);
    const pid_t mpirun = background_mpirun(dir);
    assert_true(wait_for_step(&b, "replicas", 3) && background_wait(&b, tempdir_in(dir, "replicas.json"), pieces));
    assert_int_equal(kill(mpirun, SIGUSR1), 0);
    background_end(&b);
    if (b.run.exit_code != 75 || strstr(b.run.output, "pictures: 2 stopped") == NULL)
        fail_msg("exit code %d\n%s", b.run.exit_code, b.run.output);
    program_run_free(&b.run);
    assert_true(saved_steps(tempdir_in(dir, "replicas/out/.dype-dist/b.checkpoint")) >= 3);
    program_run run; /* and each goes on with its own, here on one rank */
    program_start(&run, dir, NULL, 0, LIMIT_S, arguments_of("replicas", "replicas1.yaml"));
    if (run.exit_code != 0 || strstr(run.output, "a: goes on after step ") == NULL || strstr(run.output, "b: goes on after step ") == NULL)
        fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
    assert_true(outputs_equal(tempdir_in(dir, "whole/out/a.png"), tempdir_in(dir, "replicas/out/a.png")));
}

#endif

static pid_t the_process(void)
{
    pid_t pids[MAX_PROCESSES];
    for (const double until = processes_now() + 10; processes_now() < until; usleep(2000))
        if (processes_find(DYPE_BINARY, dir, pids) == 1) return pids[0];
    fail_msg("no process");
    return 0;
}

static void signals_to_a_lone_process(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        background b;
        if (!sends(i, 2)) continue;
        begin(&b, "alone", "any.yaml", 0);
        assert_true(wait_for_step(&b, "alone", 3));
        assert_int_equal(kill(the_process(), signals[i]), 0);
        background_end(&b);
        if (b.run.exit_code != 75) fail_msg("%s: exit code %d\n%s", strsignal(signals[i]), b.run.exit_code, b.run.output);
        program_run_free(&b.run);
        assert_true(saved_steps(tempdir_in(dir, "alone/out/.dype-dist/a.checkpoint")) >= 3);
        if (goes_on_after(TO_A_LONE_PROCESS)) expect_goes_on("alone", "any.yaml", 0);
    }
}

/* Whoever presses Ctrl-C twice does not want to wait for a step, which takes minutes here. */
static void a_second_interrupt_ends_it_at_once(void **state)
{
    background   b;
    const char  *text = "model: model\noutput: 'out/{name}.png'\nprecision: fp32\ncheckpoint: {every: 0}\n"
                        "pictures: [{name: a, prompt: 'a lake', steps: 4, width: 2048, height: 2048}]\n";
    char         arguments[4 * TEMPDIR_PATH];
    const char *const pieces[] = {"\"event\":\"phase\"", "\"phase\":\"noise\"", NULL};
    (void)state;
    assert_int_equal(tempdir_write(tempdir_in(dir, "slow.yaml"), text), ST_OK);
    snprintf(arguments, sizeof(arguments), "--out '%s' --log-json '%s' --threads 1 --isa plain slow.yaml",
             tempdir_in(dir, "slow"), tempdir_in(dir, "slow.json"));
    background_begin(&b, dir, 0, LIMIT_S, arguments);
    assert_true(background_wait(&b, tempdir_in(dir, "slow.json"), pieces));
    const pid_t pid = the_process();
    assert_int_equal(kill(pid, SIGINT), 0);
    usleep(300000);
    assert_int_equal(kill(pid, 0), 0); /* it waits for its step */
    const double second = processes_now();
    assert_int_equal(kill(pid, SIGINT), 0);
    background_end(&b);
    print_message("  ended %.2f s after the second\n", b.ended - second);
    assert_int_equal(b.run.exit_code, 128 + SIGINT);
    program_run_free(&b.run);
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
#ifdef WITH_MPI
        cmocka_unit_test(signals_to_mpirun),
        cmocka_unit_test(signals_to_the_ranks),
        cmocka_unit_test(a_signal_to_one_rank_stops_all),
        cmocka_unit_test(the_latent_is_saved_without_the_step),
        cmocka_unit_test(every_replica_saves_its_picture),
#endif
        cmocka_unit_test(signals_to_a_lone_process),
        cmocka_unit_test(a_second_interrupt_ends_it_at_once),
    };
#ifndef WITH_MPI
    printf("not run: signals to ranks (built without MPI)\n");
#endif
    return cmocka_run_group_tests(tests, open_model, remove_all);
}
