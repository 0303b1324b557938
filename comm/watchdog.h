/* Names a rank that has fallen silent, and ends the job then, instead of letting all others wait for it for ever.
 *
 * Every rank keeps a record of where it is. Its service thread sends it to world rank 0 once a second or more often and at
 * each new phase; world rank 0 sends its own to all. For `timeout_s` seconds
 *   no record has come        the rank is stopped, its node is gone, or the network is
 *   nothing has moved         the rank neither waits for others nor works: no progress, no CPU time, no page or block read
 *                             from a disk or written to it
 *   all ranks only wait       they wait for each other
 * and the job ends with ST_COMM, after one message. Polls of waits and the service thread do not count as work. An idle
 * thread that spins (OMP_WAIT_POLICY=active) does, and hides the second and third case. A process that was stopped as a
 * whole and goes on (a suspended job) is not taken for a silent one. One process alone has no watchdog. */
#ifndef DYPE_WATCHDOG_H
#define DYPE_WATCHDOG_H

#include "comm.h"

/* Where a rank was when it last told; -1 and "" are "nowhere". */
typedef struct watchdog_record {
    int32_t rank;  /* world */
    int32_t step;  /* of the picture */
    int32_t layer; /* transformer block that the compute stream has begun last */
    int32_t hop;   /* block of keys of that layer whose transfer has begun last */
    int32_t waits; /* threads that wait for other ranks */
    double  still_s; /* nothing has moved for so long */
    char    host[64], phase[32], picture[96];
} watchdog_record;

typedef enum watchdog_reason { WATCHDOG_FINE, WATCHDOG_NO_RECORD, WATCHDOG_STILL, WATCHDOG_DEADLOCK } watchdog_reason;

typedef struct watchdog_alarm {
    watchdog_reason reason;
    double          silent_s; /* the longest of those ranks */
    const char     *text;     /* what stderr gets: one line, with WATCHDOG_DEADLOCK one more per rank */
    int             n_ranks;
    const watchdog_record *ranks; /* [n_ranks] the silent ones; all with WATCHDOG_DEADLOCK */
} watchdog_alarm;

/* Collective over the first group, once: watches from now on; rank 0's timeout counts. 0: no watchdog. */
status watchdog_start(comm *world, double timeout_s);

/* World rank 0: who hears of an alarm, in the service thread, before the job ends; NULL: nobody. */
typedef void (*watchdog_listener)(void *context, const watchdog_alarm *alarm);
void watchdog_listen(comm *world, watchdog_listener listener, void *context);

/* Where this rank is; c is any group. Any thread. A phase (NULL: none) forgets step, layer and hop, a step layer and hop,
 * a layer the hop. */
void watchdog_phase(comm *c, const char *picture, const char *phase);
void watchdog_step(comm *c, int step);
void watchdog_layer(comm *c, int layer);
void watchdog_hop(comm *c, int hop);

#endif
