/* A run of the program while the test does something to it. */
#ifndef DYPE_BACKGROUND_H
#define DYPE_BACKGROUND_H

#include <pthread.h>
#include <sys/types.h>

#include "program.h"

typedef struct background {
    pthread_t   thread;
    program_run run; /* after background_end */
    const char *executable, *dir, *environment, *arguments; /* lent until background_end */
    int         n_ranks, limit_s;
    double      began;
    _Atomic double ended; /* processes_now; 0: it runs */
} background;

void background_begin(background *b, const char *dir, int n_ranks, int limit_s, const char *arguments);
/* As program_start_other has them; executable NULL: the program. */
void background_begin_other(background *b, const char *executable, const char *dir, const char *environment, int n_ranks,
                            int limit_s, const char *arguments);
/* Waits for its end; run is yours to free. */
void background_end(background *b);

/* The mpirun of a run whose command line has `word`; waits for it, fails the test when it does not come. */
pid_t background_mpirun(const char *word);
/* Waits until the JSON log has a line with all pieces (NULL ends them) or the run is over; whether it has. */
int background_wait(const background *b, const char *log, const char *const *pieces);

#endif
