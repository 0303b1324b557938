/* What travels for attention: every rank's queries meet the keys and values of all ranks, one interface for all schedules.
 *
 *   open -> { begin -> queries -> next, next, ... -> output -> end } per attention -> close
 *
 * ring (comm): each member's block of keys and values, in one message, is seen by all members. Two buffers: while one
 * block is computed on, the next one travels.
 *   ordered    blocks in the order of the sequence on every rank, so that sums do not depend on the number of ranks; a
 *              block goes member to member in chunks, each passed on while the next arrives
 *   neighbour  the classic ring: own block first, then those of the members before; every link carries one whole block at
 *              a time, sums are made in another order on every rank
 * ulysses: the ranks of one ring member share its rows by heads. Before attention each gets its heads of all the member's
 * rows; afterwards the outputs go home. With a ring of one member this is plain Ulysses, with ulysses of one rank a plain
 * ring, else the hybrid of both. What is sent, per rank and attention, with B bytes of keys and values of all rows of the
 * sequence, n = ring members, u = ulysses ranks: ring B / u x (n - 1) / n, ulysses 2 B / (n u) x (u - 1) / u (equal cuts).
 *
 * Transfers are made by a stream of their own, beside the compute stream (on the cpu device: a thread). */
#ifndef DYPE_EXCHANGE_H
#define DYPE_EXCHANGE_H

#include "arena.h"
#include "comm.h"

typedef struct kv_exchange kv_exchange;

typedef enum exchange_schedule { EXCHANGE_ORDERED, EXCHANGE_NEIGHBOUR } exchange_schedule;

/* Who holds what: all that sizes and bytes follow from. */
typedef struct exchange_layout {
    int      n_members, member; /* of the ring, and ours */
    int      n_ulysses, ulysses; /* ranks of a member, and our place among them */
    const int32_t *n_rows; /* [n_members * n_ulysses]: rank u of member m holds n_rows[m * n_ulysses + u], may be 0 */
    size_t   row_bytes; /* one row of keys and values. With ulysses: keys of all heads, then values of all heads */
    int      n_heads; /* with ulysses; not used without */
} exchange_layout;

/* What this rank attends with: rows and heads. Without ulysses its own rows, all heads. */
typedef struct exchange_share {
    int32_t first_row, n_rows; /* of the sequence: those of our ring member */
    int     first_head, n_heads;
} exchange_share;
exchange_share exchange_share_of(const exchange_layout *l);

/* Memory that an exchange allocates (names and bytes of arena parts), and bytes that this rank sends per attention. */
void    exchange_plan(const exchange_layout *l, arena *parts);
int64_t exchange_bytes_sent(const exchange_layout *l, exchange_schedule schedule);

typedef struct kv_exchange_opts {
    comm             *comm;    /* the ring; rank = member */
    comm             *ulysses; /* NULL: heads are not shared */
    device           *dev;
    const int32_t    *n_rows;    /* as in the layout; copied */
    size_t            row_bytes; /* as in the layout; without ulysses a block is opaque: laid out as its owner likes */
    int               n_heads;
    exchange_schedule schedule;
    bool              reverse_order; /* blocks in the wrong order on purpose: a test of the tests */
} kv_exchange_opts;

typedef struct kv_block {
    const void *data; /* device memory, n_rows * row_bytes (with ulysses: keys, then values of our heads); lent until the next kv_exchange_next */
    int         owner; /* ring member */
    int32_t     first_row, n_rows; /* of the sequence */
} kv_block;

/* Collective over comm and ulysses, as all below. Plans and allocates once per picture; the step loop allocates nothing. */
status kv_exchange_open(kv_exchange **out, const kv_exchange_opts *opts);
void   kv_exchange_close(kv_exchange *x); /* accepts NULL */

exchange_share kv_exchange_share(const kv_exchange *x);

/* Begins a round: `mine` (device memory, n_rows * row_bytes of this rank) is complete once the work now on `compute` is
 * done, and stays untouched until kv_exchange_end. The first transfer starts. */
status kv_exchange_begin(kv_exchange *x, stream *compute, const void *mine);
/* With ulysses, once per round, before the first next: `mine` [n_rows, all heads] likewise. *shared: queries of our share,
 * [share rows, share heads], for work put on `compute` after the first next; without ulysses it is `mine`. */
status kv_exchange_queries(kv_exchange *x, stream *compute, const void *mine, const void **shared);
/* The next block; work put on `compute` from now on sees it. After the last one block->data is NULL. */
status kv_exchange_next(kv_exchange *x, stream *compute, kv_block *block);
/* With ulysses: where attention has to leave its outputs, [share rows, share heads]; NULL without. */
void  *kv_exchange_out(kv_exchange *x);
/* With ulysses, after the last next: brings outputs home, row i to out + i * ld_bytes; nothing to do without. */
status kv_exchange_output(kv_exchange *x, stream *compute, void *out, size_t ld_bytes);
/* Ends the round: `mine` may be overwritten by work put on `compute` from now on. */
status kv_exchange_end(kv_exchange *x, stream *compute);

/* Rounds begun since open. */
int64_t kv_exchange_rounds(const kv_exchange *x);
/* For a rank that has failed and cannot go on, while others wait for its block and for those that it passes on: takes
 * part in the rest of the current round and in all rounds up to n_rounds since open. What it sends is worthless; the next
 * comm_agree tells. `mine` is n_rows * row_bytes of anything. */
status kv_exchange_carry_on(kv_exchange *x, stream *compute, const void *mine, int64_t n_rounds);
/* Waits until nothing travels; the first failure since the last sync, or ST_OK. */
status kv_exchange_sync(kv_exchange *x);
/* Seconds that transfers have taken since open, waits for others included; call it after kv_exchange_sync. */
double kv_exchange_travel_s(const kv_exchange *x);

#endif
