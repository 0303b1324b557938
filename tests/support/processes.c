#include "processes.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A file of /proc/PID, its NULs replaced by line ends; "" when it cannot be read. */
static void read_proc(long pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%ld/%s", pid, name);
    FILE  *file = fopen(path, "re");
    size_t n = file == NULL ? 0 : fread(text, 1, size - 1, file);
    if (file != NULL) fclose(file);
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\0') text[i] = '\n';
    text[n] = '\0';
}

static bool is_zombie(long pid)
{
    char stat[512];
    read_proc(pid, "stat", stat, sizeof(stat));
    const char *state = strrchr(stat, ')'); /* "PID (name) Z ..." */
    return state == NULL || strncmp(state, ") Z", 3) == 0;
}

static bool is_ours(long pid, const char *executable, const char *word)
{
    char path[64], exe[PATH_MAX], command[16384];
    snprintf(path, sizeof(path), "/proc/%ld/exe", pid);
    ssize_t n = readlink(path, exe, sizeof(exe) - 1);
    if (n < 0) return false;
    exe[n] = '\0';
    if (strcmp(exe, executable) != 0) return false;
    read_proc(pid, "cmdline", command, sizeof(command));
    return strstr(command, word) != NULL && !is_zombie(pid);
}

int processes_find(const char *executable, const char *word, pid_t pids[MAX_PROCESSES])
{
    int   n = 0;
    char *real = realpath(executable, NULL);
    DIR  *proc = opendir("/proc");
    for (struct dirent *entry; real != NULL && proc != NULL && n < MAX_PROCESSES && (entry = readdir(proc)) != NULL;) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0 && is_ours(pid, real, word)) pids[n++] = (pid_t)pid;
    }
    if (proc != NULL) closedir(proc);
    free(real);
    return n;
}

pid_t processes_rank(const char *executable, const char *word, int rank)
{
    pid_t pids[MAX_PROCESSES];
    char  want[64], environment[65536];
    int   n = processes_find(executable, word, pids);
    snprintf(want, sizeof(want), "\nOMPI_COMM_WORLD_RANK=%d\n", rank);
    for (int i = 0; i < n; i++) {
        read_proc(pids[i], "environ", environment, sizeof(environment));
        if (strstr(environment, want) != NULL) return pids[i];
    }
    return 0;
}

pid_t processes_wait_rank(const char *executable, const char *word, int rank, double limit_s)
{
    pid_t pid = 0;
    for (const double until = processes_now() + limit_s; pid == 0 && processes_now() < until;)
        pid = processes_rank(executable, word, rank);
    return pid;
}

int processes_left(const char *executable, const char *word, double limit_s)
{
    pid_t        pids[MAX_PROCESSES];
    const double end = processes_now() + limit_s;
    int          n = 0;
    while ((n = processes_find(executable, word, pids)) > 0 && processes_now() < end) usleep(20000);
    return n;
}

double processes_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
