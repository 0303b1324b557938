/* Signals that ask a job to stop: SIGTERM and SIGINT (mpirun forwards them and kills its ranks about a second later;
 * srun and kill send them directly), SIGUSR1 (a batch system's warning ahead of the time limit). They are blocked in all threads; one
 * thread waits for them. Outside of hold they do what they do in any program. While held:
 *
 *   SIGTERM, SIGINT   are noted, and whoever is `urgent` is called at once, in the waiting thread
 *   SIGUSR1           is noted
 *   a second SIGINT   ends the process at once
 *
 * One process has one set of signals: there is one watch. */
#ifndef DYPE_SIGNALS_H
#define DYPE_SIGNALS_H

#include <stdbool.h>

#include "status.h"

/* Before any other thread is made, and until the process ends. */
status signals_open(void);

/* From now on signals are noted, or again not. */
void signals_hold(bool hold);
/* The first signal noted, "SIGUSR1"; NULL: none. Static. Any thread. */
const char *signals_noted(void);
/* NULL: nobody. Returns when a call that is under way has ended. */
void signals_urgent(void (*urgent)(void *context), void *context);

#endif
