/* The watchdog names a rank that is stopped, one that hangs, and ranks that wait for each other; and it lets long work, slow
 * disks and a suspended job alone. The test starts itself under mpirun; `--worker CASE FOLDER` is one rank. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "comm.h"
#include "processes.h"
#include "program.h"
#include "watchdog.h"

enum { N_RANKS = 3, LIMIT_S = 2, GRACE_S = 10 /* the issue's own bound */ };

/* ---- a rank */

static void sleep_s(double seconds)
{
    usleep((useconds_t)(seconds * 1e6));
}

/* Computes without passing any place. */
static void compute(double seconds)
{
    volatile double x = 1;
    for (double end = comm_now() + seconds; comm_now() < end;)
        for (int i = 0; i < 100000; i++) x = x * 1.0000001 + 1e-9;
}

static long blocks_moved(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_inblock + u.ru_oublock;
}

/* Like a slow disk: next to no CPU time, a block now and then. */
static status write_slowly(const char *dir, double seconds)
{
    char path[TEMPDIR_PATH + 16], block[4096] = "x";
    snprintf(path, sizeof(path), "%s/slow", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return err_set(ST_OUTPUT, "%s", path);
    const long before = blocks_moved();
    for (double end = comm_now() + seconds; comm_now() < end; sleep_s(0.5)) {
        if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || fdatasync(fd) != 0) break;
        if (blocks_moved() > before) continue;
        fprintf(stderr, "not run: the watchdog and a slow disk (%s is not on a disk)\n", dir);
        break;
    }
    close(fd);
    return ST_OK;
}

static status act(comm *c, const char *what, const char *dir)
{
    status    st = ST_OK;
    const int rank = comm_rank(c);
    int       data = 0;
    watchdog_phase(c, "alps-7", "denoise");
    watchdog_step(c, 3);
    watchdog_layer(c, 12);
    watchdog_hop(c, 1);
    if (strncmp(what, "stopped", 7) == 0) compute(LIMIT_S); /* all have told their place */
    if (strcmp(what, "stopped-2") == 0 && rank == 2) raise(SIGSTOP);
    if (strcmp(what, "stopped-0") == 0 && rank == 0) raise(SIGSTOP);
    if (strcmp(what, "stopped-01") == 0 && rank <= 1) raise(SIGSTOP);
    if (strcmp(what, "hangs-1") == 0 && rank == 1) sleep_s(60);
    if (strcmp(what, "hangs-0") == 0 && rank == 0) sleep_s(60);
    if (strcmp(what, "deadlock") == 0) {
        watchdog_layer(c, rank);
        TRY(comm_receive(c, (rank + 1) % N_RANKS, &data, sizeof(data)));
    }
    if (strcmp(what, "computes") == 0 && rank == 1) compute(3 * LIMIT_S);
    if (strcmp(what, "slow-disk") == 0 && rank == 1) TRY(write_slowly(dir, 3 * LIMIT_S));
    if (strcmp(what, "suspended") == 0) compute(2 * LIMIT_S); /* of the clock, which goes on meanwhile */
    TRY(comm_agree(c, ST_OK)); /* the others wait here, longer than the limit */
fail:
    return st;
}

static void hear(void *context, const watchdog_alarm *alarm)
{
    (void)context;
    fprintf(stderr, "listener: %d rank(s), first %d\n", alarm->n_ranks, alarm->ranks[0].rank);
}

static int worker(int argc, char **argv, const char *what, const char *dir)
{
    comm  *c = NULL, *part = NULL;
    status st = ST_OK;
    TRY(comm_open(&c, &argc, &argv));
    TRY(comm_split(&part, c, 0, -comm_rank(c))); /* records are the world's, whatever group tells the place */
    if (comm_rank(c) == 0) watchdog_listen(c, hear, NULL);
    TRY(watchdog_start(c, strcmp(what, "off") == 0 ? 0 : LIMIT_S));
    TRY(act(c, what, dir));
    comm_close(part);
    comm_close(c);
    return 0;
fail:
    fprintf(stderr, "worker: %s\n", err_text());
    return 1;
}

/* ---- the tests */

static const char *self;
static char        dir[TEMPDIR_PATH];

static void start(program_run *run, const char *what, int n_ranks)
{
    char arguments[TEMPDIR_PATH + 64];
    snprintf(arguments, sizeof(arguments), "--worker %s %s", what, dir);
    program_start_other(run, self, dir, NULL, n_ranks, 60, arguments);
}

static void expect_alarm(const char *what, const char *const *says)
{
    program_run  run;
    const double began = processes_now();
    start(&run, what, N_RANKS);
    const double took = processes_now() - began; /* with up to LIMIT_S of work before the silence */
    if (run.exit_code != ST_COMM) fail_msg("%s: exit code %d\n%s", what, run.exit_code, run.output);
    for (; *says != NULL; says++)
        if (strstr(run.output, *says) == NULL) fail_msg("%s: want \"%s\", got\n%s", what, *says, run.output);
    if (took > LIMIT_S + LIMIT_S + GRACE_S) fail_msg("%s: took %.1f s\n%s", what, took, run.output);
    assert_int_equal(processes_left(self, dir, 0), 0);
    program_run_free(&run);
}

#define PLACE "phase denoise, picture alps-7, step 3, layer 12, hop 1"

static void a_stopped_rank_is_named(void **state)
{
    (void)state;
    expect_alarm("stopped-2", (const char *[]){"watchdog: rank 2 (", ") is silent for 2", "s (limit 2 s; stopped, or its node",
                                               PLACE, "listener: 1 rank(s), first 2", NULL});
}

static void a_stopped_rank_0_is_named_by_another(void **state)
{
    (void)state;
    expect_alarm("stopped-0", (const char *[]){"watchdog: rank 0 (", "; stopped, or its node", PLACE, NULL});
    expect_alarm("stopped-01", (const char *[]){"watchdog: rank 0 (", "; stopped, or its node", PLACE, NULL});
}

static void a_rank_that_hangs_is_named(void **state)
{
    (void)state;
    expect_alarm("hangs-1", (const char *[]){"watchdog: rank 1 (", "it neither works nor waits for others", PLACE,
                                             "listener: 1 rank(s), first 1", NULL});
    expect_alarm("hangs-0", (const char *[]){"watchdog: rank 0 (", "it neither works nor waits for others", PLACE,
                                             "listener: 1 rank(s), first 0", NULL});
}

static void ranks_that_wait_for_each_other_are_told_with_their_places(void **state)
{
    (void)state;
    expect_alarm("deadlock", (const char *[]){"watchdog: all ranks wait for each other for", "\n  rank 0 (", "step 3, layer 0\n",
                                              "\n  rank 1 (", "layer 1\n", "\n  rank 2 (", "layer 2\n",
                                              "listener: 3 rank(s), first 0", NULL});
}

static void expect_peace(const char *what, int n_ranks)
{
    program_run run;
    start(&run, what, n_ranks);
    if (run.exit_code != 0 || strstr(run.output, "watchdog:") != NULL)
        fail_msg("%s: exit code %d\n%s", what, run.exit_code, run.output);
    if (strstr(run.output, "not run:") != NULL) printf("%s", run.output);
    program_run_free(&run);
}

static void work_and_slow_disks_are_not_silence(void **state)
{
    (void)state;
    expect_peace("computes", N_RANKS);
    expect_peace("slow-disk", N_RANKS);
}

static void one_rank_needs_no_watchdog(void **state)
{
    (void)state;
    expect_peace("hangs-not", 0); /* without mpirun */
}

static void *suspend_all(void *unused)
{
    pid_t pids[MAX_PROCESSES];
    int   n = 0;
    while ((n = processes_find(self, dir, pids)) < N_RANKS) usleep(50000);
    sleep_s(LIMIT_S); /* into the computation */
    for (int i = 0; i < n; i++) kill(pids[i], SIGSTOP);
    sleep_s(2 * LIMIT_S);
    for (int i = n - 1; i >= 0; i--, usleep(200000)) kill(pids[i], SIGCONT); /* not all at once */
    return unused;
}

static void a_suspended_job_goes_on(void **state)
{
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, suspend_all, NULL), 0);
    expect_peace("suspended", N_RANKS);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_needs_no_watchdog),
        cmocka_unit_test(a_stopped_rank_is_named),
        cmocka_unit_test(a_stopped_rank_0_is_named_by_another),
        cmocka_unit_test(a_rank_that_hangs_is_named),
        cmocka_unit_test(ranks_that_wait_for_each_other_are_told_with_their_places),
        cmocka_unit_test(work_and_slow_disks_are_not_silence),
        cmocka_unit_test(a_suspended_job_goes_on),
    };
    const struct CMUnitTest alone[] = {tests[0]};
    if (argc > 3 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv, argv[2], argv[3]);
    self = realpath("/proc/self/exe", NULL);
    if (tempdir_open(dir) != ST_OK) return 1;
#ifdef WITH_MPI
    const bool many = true;
#else
    const bool many = false;
    printf("not run: the watchdog of many ranks (built without MPI)\n");
#endif
    int failed = many ? cmocka_run_group_tests(tests, NULL, NULL) : cmocka_run_group_tests(alone, NULL, NULL);
    tempdir_close(dir);
    return failed;
}
