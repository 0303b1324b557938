/* What replicas need of world rank 0 while its own replica is busy: tickets, and a place for what they have to say.
 * Served by the service thread of world rank 0 (service.h), so nobody waits for what its other threads do. `world` is
 * the first group or any group split from it. */
#ifndef DYPE_CLERK_H
#define DYPE_CLERK_H

#include "comm.h"

/* 0, 1, 2, ...: each once over all ranks, in the order in which they are asked for. Not collective; one thread of a rank
 * at a time. */
status clerk_next(comm *world, int *ticket);

/* One call at a time, in the service thread or, for what world rank 0 itself posts, in the thread that posts. text is lent.
 * It may not call clerk_post. */
typedef void (*clerk_listener)(void *context, int from_world_rank, int kind, const char *text);

/* World rank 0: who hears what is posted from now on; NULL: nobody, texts are dropped. */
void clerk_listen(comm *world, clerk_listener listener, void *context);

/* A text on its way to world rank 0's listener; does not wait. Those of one rank arrive in order. Any thread. */
status clerk_post(comm *world, int kind, const char *text);

/* Collective over the first group: when it returns on world rank 0, the listener has heard all that was posted before. */
status clerk_settle(comm *world);

#endif
