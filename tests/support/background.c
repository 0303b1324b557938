#include "background.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "processes.h"

enum { START_S = 30 };

static void *run_program(void *arg)
{
    background *b = arg;
    if (b->executable == NULL) program_start(&b->run, b->dir, b->environment, b->n_ranks, b->limit_s, b->arguments);
    else program_start_other(&b->run, b->executable, b->dir, b->environment, b->n_ranks, b->limit_s, b->arguments);
    b->ended = processes_now();
    return NULL;
}

void background_begin(background *b, const char *dir, int n_ranks, int limit_s, const char *arguments)
{
    background_begin_other(b, NULL, dir, NULL, n_ranks, limit_s, arguments);
}

void background_begin_other(background *b, const char *executable, const char *dir, const char *environment, int n_ranks,
                            int limit_s, const char *arguments)
{
    *b = (background){.executable = executable, .dir = dir, .environment = environment, .arguments = arguments,
                      .n_ranks = n_ranks, .limit_s = limit_s, .began = processes_now()};
    assert_int_equal(pthread_create(&b->thread, NULL, run_program, b), 0);
}

void background_end(background *b)
{
    pthread_join(b->thread, NULL);
}

/* The file that `mpirun` is on PATH. */
static bool find_mpirun(char path[PATH_MAX])
{
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        const size_t n = strcspn(at, ":");
        snprintf(path, PATH_MAX, "%.*s/mpirun", (int)n, at);
        if (access(path, X_OK) == 0) return true;
        at += n + (at[n] == ':');
    }
    return false;
}

pid_t background_mpirun(const char *word)
{
    char  path[PATH_MAX];
    pid_t pids[MAX_PROCESSES];
    assert_true(find_mpirun(path));
    for (const double until = processes_now() + START_S; processes_now() < until; usleep(5000))
        if (processes_find(path, word, pids) > 0) return pids[0];
    fail_msg("no mpirun with %s", word);
    return 0;
}

static bool has_line(const char *log, const char *const *pieces)
{
    bool   found = false;
    char  *line = NULL;
    size_t room = 0;
    FILE  *file = fopen(log, "re");
    while (file != NULL && !found && getline(&line, &room, file) > 0) {
        found = true;
        for (int i = 0; pieces[i] != NULL; i++) found = found && strstr(line, pieces[i]) != NULL;
    }
    free(line);
    if (file != NULL) fclose(file);
    return found;
}

int background_wait(const background *b, const char *log, const char *const *pieces)
{
    while (!has_line(log, pieces)) {
        if (b->ended > 0) return has_line(log, pieces);
        usleep(2000);
    }
    return true;
}
