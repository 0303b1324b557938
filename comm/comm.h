/* Who takes part, and what they say to each other. comm.c is the same for all transports; mpi.c and single.c move bytes
 * between hosts, channel.c and nccl.c between devices.
 * Built on it: exchange.h (keys and values for attention), grid.h (the ranks as replicas x ulysses x ring).
 *
 * Waits sleep between polls, so that a waiting rank leaves its core to a computing one. Host calls are made by one
 * thread of a rank at a time per group; exchanges run on a stream of their own, on a communicator of their own. */
#ifndef DYPE_COMM_H
#define DYPE_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "status.h"

typedef struct comm comm;

/* Starts MPI (thread multiple) or a group of one. Collective. argc, argv as main has them. */
status comm_open(comm **out, int *argc, char ***argv);
/* Collective. After it no other call. Accepts NULL. */
void comm_close(comm *c);
/* Ends all ranks at once with this exit code, after a failure that not all can know. Does not return. */
_Noreturn void comm_abort(comm *c, int exit_code);

/* Collective over c: ranks of one colour (>= 0) become a group of their own, in the order of their keys, then ranks. Close
 * it before c. Errors and comm_world_rank go on naming ranks as mpirun counts them. */
status comm_split(comm **out, comm *c, int color, int key);
/* The same by nodes: the ranks that share this one's memory. */
status comm_split_node(comm **out, comm *c);

int comm_rank(const comm *c);
int comm_size(const comm *c);
int comm_world_rank(const comm *c);
int comm_local_rank(const comm *c); /* among the ranks of this node */
int comm_local_size(const comm *c);
const char *comm_host(const comm *c);

/* Collective: ranks tell each other how they fare. Returns ST_OK when all are well, else the same status on every rank
 * (that of the lowest failing rank) with err_text "rank 3 (node07): ..." everywhere, the message of the rank that
 * failed. Call it before each collective phase. */
status comm_agree(comm *c, status mine);

/* Collective: fails on all ranks (status `st`), naming the ranks that differ, unless all have the same text. */
status comm_same(comm *c, status st, const char *what, const char *text);

/* Collective: fails on all ranks unless no two ranks of one host have the same text. */
status comm_distinct(comm *c, status st, const char *what, const char *text);

/* Collective, host memory. */
status comm_bcast(comm *c, int root, void *buf, size_t bytes);
status comm_min_int(comm *c, int *value); /* in: mine, out: the smallest */

/* Collective: blocks of bytes[r] (known on every rank) to root, in rank order; `all` is read on root only. */
status comm_gather(comm *c, int root, const void *mine, const size_t *bytes, void *all);
/* The reverse. */
status comm_scatter(comm *c, int root, const void *all, const size_t *bytes, void *mine);

/* From one rank to another, host memory; the other calls the other. */
status comm_send(comm *c, int to, const void *buf, size_t bytes);
status comm_receive(comm *c, int from, void *buf, size_t bytes);

/* A run of bytes to or from another rank of the group. */
typedef struct message {
    int    peer;
    void  *data; /* only read when it is sent */
    size_t bytes;
} message;

/* Opens what device memory needs to travel between the ranks of c: on a CUDA device NCCL, else MPI (*how tells, for
 * people; static, may be NULL). Collective; once is enough. */
status comm_open_channel(comm *c, device *dev, const char **how);
/* Collective, before the device is closed; comm_close does it too. */
void comm_close_channel(comm *c);

/* Where a transfer tells what it does. */
typedef struct travel_log {
    int     hop;     /* of the watchdog; -1: it tells none */
    double *seconds; /* that it has taken, waits for others included, are added here; NULL: nowhere */
} travel_log;
#define TRAVEL_LOG_NONE (&(travel_log){.hop = -1})

/* Work of s, done in its order also after a failure: all of these messages at once, device memory. Messages between two
 * ranks arrive in the order given; those of 0 bytes are left out on both sides. Lists of more than COMM_FEW messages, sends
 * and receives together, stay until the work is done. Transfers of c follow each other in the order in which they are put, also
 * on different streams. */
enum { COMM_FEW = 8 };
status comm_put_swap(comm *c, stream *s, const message *sends, int n_sends, const message *receives, int n_receives,
                     const travel_log *log);
/* Likewise: root's block, device memory, to all. */
status comm_put_chain(comm *c, stream *s, int root, void *buf, size_t bytes, const travel_log *log);

/* Seconds of a clock that only goes forward. */
double comm_now(void);

/* Payload bytes this rank has sent in exchanges (keys and values, swaps), in c and all groups split from it. */
int64_t comm_exchange_bytes(const comm *c);

#endif
