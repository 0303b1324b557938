/* One holder at a time; a lock whose holder is gone is taken over, one whose holder may live is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "file_lock.h"
#include "processes.h"
#include "tempdir.h"

static char dir[TEMPDIR_PATH], path[2 * TEMPDIR_PATH], next[2 * TEMPDIR_PATH + 16];

static status take(file_lock **out)
{
    return file_lock_take(out, &(file_lock_opts){.path = path, .what = "picture alps"});
}

static void expect_free(void)
{
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(next, F_OK), 0);
}

static void one_holder_at_a_time(void **state)
{
    file_lock *first = NULL, *second = NULL;
    char       want[64];
    (void)state;
    assert_int_equal(take(&first), ST_OK);
    assert_int_equal(file_lock_check(first), ST_OK);
    snprintf(want, sizeof(want), "process %ld on ", (long)getpid());
    assert_int_equal(take(&second), ST_OUTPUT);
    assert_non_null(strstr(err_text(), "picture alps is in the hands of another job: process "));
    assert_non_null(strstr(err_text(), want));
    assert_non_null(strstr(err_text(), path));
    file_lock_release(first);
    expect_free();
    assert_int_equal(take(&second), ST_OK);
    file_lock_release(second);
    file_lock_release(NULL);
    expect_free();
}

/* A child that takes the lock and dies of SIGKILL. */
static void hold_and_die(bool reap)
{
    int        pipes[2];
    char       said = 0;
    file_lock *lock = NULL;
    assert_int_equal(pipe(pipes), 0);
    const pid_t child = fork();
    if (child == 0) {
        said = take(&lock) == ST_OK;
        (void)!write(pipes[1], &said, 1);
        for (;;) pause();
    }
    assert_int_equal(read(pipes[0], &said, 1), 1);
    assert_int_equal(said, 1);
    assert_int_equal(take(&lock), ST_OUTPUT); /* it lives */
    kill(child, SIGKILL);
    if (reap) {
        assert_int_equal(waitpid(child, NULL, 0), child);
    } else { /* it stays a zombie for the moment */
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    }
    assert_int_equal(take(&lock), ST_OK);
    assert_int_equal(file_lock_check(lock), ST_OK);
    file_lock_release(lock);
    expect_free();
    if (!reap) waitpid(child, NULL, 0);
    close(pipes[0]);
    close(pipes[1]);
}

static void a_killed_holder_is_replaced(void **state)
{
    (void)state;
    hold_and_die(true);
    hold_and_die(false);
}

/* Our own words with one of them changed: {"host":...,"pid":...,...}. */
static void write_lock(const char *key, const char *value, int age_s)
{
    file_lock *lock = NULL;
    char       words[2048];
    assert_int_equal(take(&lock), ST_OK);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t n = fread(words, 1, sizeof(words) - 1, file);
    words[n] = '\0';
    fclose(file);
    file_lock_release(lock);
    char want[64];
    snprintf(want, sizeof(want), "\"%s\":", key);
    char *at = strstr(words, want);
    assert_non_null(at);
    at += strlen(want);
    const size_t old = at[0] == '"' ? strcspn(at + 1, "\"") + 2 : strcspn(at, ",}");
    file = fopen(path, "we");
    assert_non_null(file);
    fprintf(file, "%.*s%s%s", (int)(at - words), words, value, at + old);
    fclose(file);
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= age_s;
    times[1] = times[0];
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void expect_taken_over(void)
{
    file_lock   *lock = NULL;
    const double began = processes_now();
    assert_int_equal(take(&lock), ST_OK);
    assert_true(processes_now() - began < LOCK_TORN_S);
    file_lock_release(lock);
    expect_free();
}

static void a_number_used_again_is_no_holder(void **state)
{
    (void)state;
    write_lock("start", "1", 0);
    expect_taken_over();
    write_lock("boot", "\"another boot of this machine\"", 0);
    expect_taken_over();
}

static void another_machine_is_judged_by_its_beat(void **state)
{
    file_lock *lock = NULL;
    (void)state;
    write_lock("host", "\"node07\"", LOCK_STALE_S + 30);
    expect_taken_over();
    write_lock("space", "\"pid:[1]\"", LOCK_STALE_S + 30); /* a container of this machine */
    expect_taken_over();

    /* Its holder touches the lock while we look. */
    write_lock("host", "\"node07\"", LOCK_STALE_S - 30);
    const pid_t child = fork();
    if (child == 0) {
        for (;;) {
            usleep(300000);
            utimensat(AT_FDCWD, path, NULL, 0);
        }
    }
    const double began = processes_now();
    assert_int_equal(take(&lock), ST_OUTPUT);
    assert_non_null(strstr(err_text(), " on node07 since "));
    assert_true(processes_now() - began < LOCK_BEAT_S);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(remove(path), 0);
    expect_free();
}

static int n_waits;

static void count_wait(void *context)
{
    assert_ptr_equal(context, path);
    n_waits++;
}

/* Killed between making the lock and writing into it. */
static void an_empty_lock_is_given_some_seconds(void **state)
{
    file_lock *lock = NULL;
    (void)state;
    assert_int_equal(tempdir_write(path, ""), ST_OK);
    const double began = processes_now();
    assert_int_equal(file_lock_take(&lock, &(file_lock_opts){.path = path, .what = "it", .waiting = count_wait, .context = path}),
                     ST_OK);
    assert_true(processes_now() - began >= LOCK_TORN_S - 1);
    assert_true(n_waits >= LOCK_TORN_S - 1);
    file_lock_release(lock);
    expect_free();
}

static void a_killed_taker_is_in_nobodys_way(void **state)
{
    char words[2048];
    (void)state;
    write_lock("start", "1", 0);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t n = fread(words, 1, sizeof(words) - 1, file);
    words[n] = '\0';
    fclose(file);
    assert_int_equal(tempdir_write(next, words), ST_OK);
    expect_taken_over();
}

/* A process that was stopped for long finds its lock in other hands, and leaves it there. */
static void a_lost_lock_is_noticed(void **state)
{
    file_lock *lock = NULL;
    (void)state;
    assert_int_equal(take(&lock), ST_OK);
    assert_int_equal(tempdir_write(path, "{\"host\":\"node08\",\"pid\":12,\"since\":1764000000}\n"), ST_OK);
    assert_int_equal(file_lock_check(lock), ST_OUTPUT);
    assert_non_null(strstr(err_text(), "process 12 on node08 since 2025-11-24 16:00:00 UTC holds it now"));
    file_lock_release(lock);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(remove(path), 0);
}

/* Many at once after a stale lock: never two inside. */
static void many_takers_of_a_stale_lock(void **state)
{
    enum { N_TAKERS = 8, N_ROUNDS = 5 };
    char inside[2 * TEMPDIR_PATH];
    (void)state;
    snprintf(inside, sizeof(inside), "%s/inside", dir);
    for (int round = 0; round < N_ROUNDS; round++) {
        int n_in = 0, n_bad = 0;
        write_lock("start", "1", 0);
        for (int i = 0; i < N_TAKERS; i++) {
            if (fork() != 0) continue;
            file_lock *lock = NULL;
            if (take(&lock) != ST_OK) _exit(0);
            const int fd = open(inside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            if (fd < 0) _exit(2); /* somebody else is in there */
            usleep(20000);
            unlink(inside);
            file_lock_release(lock);
            _exit(1);
        }
        for (int i = 0; i < N_TAKERS; i++) {
            int how = 0;
            wait(&how);
            n_in += WEXITSTATUS(how) == 1;
            n_bad += WEXITSTATUS(how) == 2;
        }
        assert_int_equal(n_bad, 0);
        assert_true(n_in >= 1);
        expect_free();
    }
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    snprintf(path, sizeof(path), "%s/alps.lock", dir);
    snprintf(next, sizeof(next), "%s.next", path);
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
        cmocka_unit_test(one_holder_at_a_time),
        cmocka_unit_test(a_killed_holder_is_replaced),
        cmocka_unit_test(a_number_used_again_is_no_holder),
        cmocka_unit_test(another_machine_is_judged_by_its_beat),
        cmocka_unit_test(an_empty_lock_is_given_some_seconds),
        cmocka_unit_test(a_killed_taker_is_in_nobodys_way),
        cmocka_unit_test(a_lost_lock_is_noticed),
        cmocka_unit_test(many_takers_of_a_stale_lock),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
