/* Rows and heads change places among the ranks of one ring member (Ulysses, arXiv 2309.14509). Before: each rank has some
 * rows with all heads. After: each has all rows of the member with some heads. Part of exchange.h, internal to comm/.
 *
 * Rows are packed per receiver by the compute stream; what is ours goes to its place at once, the rest travels and
 * arrives at its place without a copy. Outputs travel from where attention left them and are unpacked. */
#ifndef DYPE_ULYSSES_H
#define DYPE_ULYSSES_H

#include "exchange.h"

typedef struct ulysses {
    comm          *group;
    device        *dev;
    stream        *travel; /* borrowed from the exchange */
    int32_t       *n_rows; /* [ranks] of this member */
    int32_t        n_mine, n_all;
    int           *first_head, *n_heads; /* [ranks] */
    int            all_heads;
    size_t         head_bytes; /* one row of one head of keys, of values, of queries or of outputs */
    arena          memory;
    unsigned char *packed_kv;  /* per receiver [own rows, its keys | its values] */
    unsigned char *packed_q;   /* per receiver [own rows, its heads] */
    unsigned char *kv;         /* [all rows, our keys | our values] */
    unsigned char *q, *out;    /* [all rows, our heads] */
    unsigned char *returned;   /* per sender [own rows, its heads] */
    message       *sends, *receives; /* [3][ranks]: keys and values, queries, outputs */
    event         *kv_packed, *q_packed, *arrived, *out_ready, *home;
    double        *travel_s; /* where the exchange counts */
} ulysses;

void   ulysses_plan(const exchange_layout *l, ulysses *u, arena *parts);
status ulysses_open(ulysses *u, const exchange_layout *l, comm *group, device *dev, stream *travel, double *travel_s);
void   ulysses_close(ulysses *u); /* also all zero */

/* In this order in every round. `mine` NULL: sends whatever is there (a rank that has failed). */
status ulysses_put_keys(ulysses *u, stream *compute, const void *mine);
status ulysses_put_queries(ulysses *u, stream *compute, const void *mine);
status ulysses_put_outputs(ulysses *u, stream *compute, void *out, size_t ld_bytes);

#endif
