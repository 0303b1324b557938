/* What moves bytes between ranks: MPI, or nothing at all for one process. Internal to comm/. */
#ifndef DYPE_TRANSPORT_H
#define DYPE_TRANSPORT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "comm.h"

/* Waits for other ranks, of all threads and groups of this rank: what the watchdog judges by. */
typedef struct transport_waits {
    _Atomic int     n_now;  /* threads that wait at this moment */
    _Atomic int64_t n_done; /* waits that have ended */
    _Atomic int64_t cpu_ns; /* that polls of these threads have used */
} transport_waits;

enum { MAX_MESSAGES = 1024, SPLIT_BY_NODE = -1 };

typedef struct transport {
    int  rank, size, local_rank, local_size;
    int  world_rank; /* the same in every group: what messages to people say */
    char host[64];
    size_t piece_bytes; /* the most that goes in one message; tests make it small */
    transport_waits *waits; /* the same in every group */

    void (*close)(struct transport *t);
    void (*abort)(struct transport *t, int exit_code);
    /* Ranks of one colour, or with SPLIT_BY_NODE of one node, become a group, in the order of their keys. */
    status (*split)(struct transport *t, int color, int key, struct transport **out);

    /* Host channel: one thread at a time. */
    status (*bcast)(struct transport *t, int root, void *buf, size_t bytes);
    status (*min_max)(struct transport *t, int *min_value, int *max_value); /* in: mine */
    status (*gather)(struct transport *t, int root, const void *mine, const size_t *bytes, void *all);
    status (*scatter)(struct transport *t, int root, const void *all, const size_t *bytes, void *mine);
    status (*send)(struct transport *t, int to, const void *buf, size_t bytes);
    status (*receive)(struct transport *t, int from, void *buf, size_t bytes);

    /* Exchange channel, a communicator of its own: `bytes` of root's buf travel root -> root + 1 -> ... -> root - 1 in
     * chunks, each passed on while the next arrives. *sent grows by what this rank sends. */
    status (*chain)(struct transport *t, int root, void *buf, size_t bytes, int64_t *sent);
    /* Exchange channel: all of these at once, returns when all are done. Messages between two ranks arrive in the order
     * in which they were given; empty ones are left out on both sides. At most MAX_MESSAGES pieces in all. */
    status (*swap)(struct transport *t, const message *sends, int n_sends, const message *receives, int n_receives,
                   int64_t *sent);

    /* Service channel of the first group, a communicator of its own. post, any thread: a copy of buf sets off to another
     * rank; never waits. Messages between two ranks arrive in order. poll, one thread: a message that has arrived, *buf
     * yours to free, or NULL. */
    status (*post)(struct transport *t, int to, const void *buf, size_t bytes);
    status (*poll)(struct transport *t, int *from, void **buf, size_t *bytes);
} transport;

status transport_mpi_open(transport **out, int *argc, char ***argv);
status transport_single_open(transport **out);

#endif
