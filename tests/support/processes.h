/* Processes of the program under test, found in /proc. */
#ifndef DYPE_PROCESSES_H
#define DYPE_PROCESSES_H

#include <sys/types.h>

enum { MAX_PROCESSES = 64 };

/* Living processes (not zombies) of this executable that have `word` inside their command line. */
int processes_find(const char *executable, const char *word, pid_t pids[MAX_PROCESSES]);
/* The same of one rank of mpirun; 0 when there is none. */
pid_t processes_rank(const char *executable, const char *word, int rank);
/* The same; mpirun may not have started it yet: waits, limit_s at most. */
pid_t processes_wait_rank(const char *executable, const char *word, int rank, double limit_s);
/* Waits until none is left, limit_s at most; how many are. */
int processes_left(const char *executable, const char *word, double limit_s);

double processes_now(void); /* seconds of a clock that only goes forward */

#endif
