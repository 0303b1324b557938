/* Weights that all ranks of a group need on GPUs of their own: each is read by one rank, and goes to the others over what
 * connects the GPUs, instead of being read by all. */
#ifndef DYPE_WEIGHT_PARTS_H
#define DYPE_WEIGHT_PARTS_H

#include <stdbool.h>

#include "comm.h"
#include "device.h"
#include "machine.h"
#include "weights.h"

/* Whether that is faster. More than one node (n_local: ranks of this, or of the smallest): yes, each would fetch all files from where
 * they are stored. One node: its ranks share what is read once (the page cache), each over its own link to the host: W bytes
 * take W / host_link, in parts W / n / host_link + (n - 1) W / n / link, which is less when link > host_link. on: NULL or all
 * zero: nothing was measured, no. why: for people, static. */
bool weight_parts_pay(int n_ranks, int n_local, const machine *on, const char **why);
/* Collective over c, the same on all. DYPE_DIST_LOAD_PARTS=1 or 0 decides otherwise. */
status weight_parts_wanted(comm *c, device *dev, const machine *on, bool *wanted, const char **why);

typedef struct weight_parts_figures {
    int64_t bytes, own_bytes; /* that went to all; of them, read by this rank */
    double  seconds;
} weight_parts_figures;

/* Collective over c, the same list on all: those that find room on every rank, and are not on all of them, get there. The rest
 * is left to be lent as ever. s: in its order. *out: added up. */
status weight_parts_load(comm *c, device *dev, stream *s, const weight *const *list, size_t n, weight_parts_figures *out);

#endif
