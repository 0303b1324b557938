#include "program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

/* Open MPI as root, more ranks than cores, no binding; idle threads sleep (cmake/mpi.sh). No cache unless a test wants one. */
static const char MPI_SETTINGS[] =
    "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
    "OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive "
    "DYPE_DIST_CACHE=none";

void program_start(program_run *run, const char *dir, const char *environment, int n_ranks, int limit_s,
                   const char *arguments)
{
    const char *other = getenv("DYPE_TEST_PROGRAM");
    program_start_other(run, other != NULL ? other : DYPE_BINARY, dir, environment, n_ranks, limit_s, arguments);
}

void program_start_other(program_run *run, const char *executable, const char *dir, const char *environment, int n_ranks,
                         int limit_s, const char *arguments)
{
    char launcher[64] = "", *command = NULL;
    if (n_ranks > 0) snprintf(launcher, sizeof(launcher), "mpirun -n %d", n_ranks);
    assert_true(asprintf(&command, "cd '%s' && env %s %s timeout %d %s '%s' %s 2>&1 </dev/null", dir, MPI_SETTINGS,
                         environment != NULL ? environment : "", limit_s, launcher, executable, arguments) > 0);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t capacity = 1 << 16, n = 0;
    run->output = malloc(capacity);
    assert_non_null(run->output);
    for (size_t got; (got = fread(run->output + n, 1, capacity - n - 1, pipe)) > 0;) {
        n += got;
        if (capacity - n < 4096) {
            capacity *= 2;
            run->output = realloc(run->output, capacity);
            assert_non_null(run->output);
        }
    }
    run->output[n] = '\0';
    int state = pclose(pipe);
    run->exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    free(command);
}

void program_run_free(program_run *run)
{
    free(run->output);
    run->output = NULL;
}

json_t *program_events(const char *log, const char *event)
{
    json_t *found = json_array();
    FILE   *file = fopen(log, "re");
    char   *line = NULL;
    size_t  capacity = 0;
    if (file == NULL) fail_msg("no log %s", log);
    while (getline(&line, &capacity, file) > 0) {
        json_t *object = json_loads(line, 0, NULL);
        if (object == NULL) fail_msg("%s: not JSON: %s", log, line);
        if (strcmp(json_string_value(json_object_get(object, "event")), event) == 0)
            json_array_append_new(found, object);
        else
            json_decref(object);
    }
    free(line);
    fclose(file);
    return found;
}

int program_full(void)
{
    const char *full = getenv("DYPE_FULL");
    return full != NULL && strcmp(full, "1") == 0;
}

unsigned program_draw(unsigned k, unsigned n)
{
    const char *seed = getenv("DYPE_SEED");
    uint64_t    x = (seed != NULL ? strtoull(seed, NULL, 10) : 0) * 0x9e3779b97f4a7c15ull + k + 1;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull; /* splitmix64 */
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (unsigned)((x ^ (x >> 31)) % n);
}
