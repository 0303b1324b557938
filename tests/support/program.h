/* Runs the program under test as a user does, and reads its log. */
#ifndef DYPE_PROGRAM_H
#define DYPE_PROGRAM_H

#include <jansson.h>

#include "tempdir.h"

typedef struct program_run {
    int   exit_code;
    char *output; /* stdout and stderr together; free with program_run_free */
} program_run;

/* Runs `DYPE_BINARY arguments` in folder dir, on n_ranks ranks (mpirun; 0: without mpirun), with environment
 * assignments before it ("A=1 B=2", may be NULL). Ends it after limit_s seconds: exit code 124. DYPE_TEST_PROGRAM names
 * another binary to run in its place. */
void program_start(program_run *run, const char *dir, const char *environment, int n_ranks, int limit_s,
                   const char *arguments);
/* The same for another executable. */
void program_start_other(program_run *run, const char *executable, const char *dir, const char *environment, int n_ranks,
                         int limit_s, const char *arguments);
void program_run_free(program_run *run);

/* All lines of a JSON log whose "event" is event; a new array. Fails the test when the file is not there. */
json_t *program_events(const char *log, const char *event);

/* Whether this run of the tests asks for every count (tests/run.sh --full). */
int program_full(void);
/* A number below n, drawn from the seed that tests/run.sh prints (DYPE_SEED) and from k. */
unsigned program_draw(unsigned k, unsigned n);

#endif
