/* Who takes part and what travels. comm.c and exchange.c are the same for all transports; mpi.c and single.c move bytes.
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

/* All of these at once, device memory; returns when all are done, so call it in stream order (stream_call). Messages
 * between two ranks arrive in the order given; those of 0 bytes are left out on both sides. Goes over the exchange channel
 * of c: not while a kv_exchange on c is between begin and end. */
status comm_swap(comm *c, const message *sends, int n_sends, const message *receives, int n_receives);

/* Payload bytes this rank has sent in exchanges (keys and values, swaps), in c and all groups split from it. */
int64_t comm_exchange_bytes(const comm *c);

/* Exchange of keys and values, the `ordered` schedule: every rank sees the blocks of all ranks in rank order, which is
 * the order of the sequence. Two buffers: while one block is computed on, the next one travels. */
typedef struct kv_exchange kv_exchange;

typedef struct kv_exchange_opts {
    comm          *comm;
    device        *dev;
    const int32_t *n_rows; /* [n_ranks] rows that each rank holds, may be 0; copied */
    size_t         row_bytes; /* of one row of keys and values together */
    bool           reverse_order; /* blocks in the wrong order on purpose: a test of the tests */
} kv_exchange_opts;

typedef struct kv_block {
    const void *data; /* device memory, n_rows * row_bytes as its owner laid it out; lent until the next kv_exchange_next */
    int         owner; /* rank */
    int32_t     n_rows;
} kv_block;

/* Collective. Plans and allocates once per picture; the step loop allocates nothing. */
status kv_exchange_open(kv_exchange **out, const kv_exchange_opts *opts);
void   kv_exchange_close(kv_exchange *x); /* accepts NULL */

/* Collective. Begins a round: `mine` (device memory of this rank's block) is complete once the work now on `compute`
 * is done, and stays untouched until kv_exchange_end. The first transfer starts. */
status kv_exchange_begin(kv_exchange *x, stream *compute, const void *mine);
/* The next block in order; work put on `compute` from now on sees it. After the last one block->data is NULL. */
status kv_exchange_next(kv_exchange *x, stream *compute, kv_block *block);
/* Rounds begun since open. */
int64_t kv_exchange_rounds(const kv_exchange *x);
/* For a rank that has failed and cannot go on, while others wait for its block and for those that it passes on: takes
 * part in the rest of the current round and in all rounds up to n_rounds since open. What it sends is worthless; the next
 * comm_agree tells. */
status kv_exchange_carry_on(kv_exchange *x, stream *compute, const void *mine, int64_t n_rounds);
/* Waits until nothing travels; the first failure since the last sync, or ST_OK. */
status kv_exchange_sync(kv_exchange *x);
/* Ends the round: `mine` may be overwritten by work put on `compute` from now on. */
status kv_exchange_end(kv_exchange *x, stream *compute);

#endif
