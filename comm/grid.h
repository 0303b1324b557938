/* The ranks as a grid, replicas x ulysses x ring: replicas render different pictures; inside one, `ring` members follow
 * each other along the sequence, and the `ulysses` ranks of a member share its rows by heads (design D3).
 *
 *   place        0   1   2   3   4   5   6   7      replicas 1, ulysses 2, ring 4
 *   ring member  0   0   1   1   2   2   3   3      places count ranks node by node, so that the ranks of one member,
 *   in ulysses   0   1   0   1   0   1   0   1      which speak most, are neighbours
 *
 * Rows of the sequence are cut over the places of a replica in order, so a member's rows are contiguous too. */
#ifndef DYPE_GRID_H
#define DYPE_GRID_H

#include "comm.h"

typedef struct grid_shape {
    int replicas, ulysses, ring; /* their product is the number of ranks */
} grid_shape;

/* ST_BAD_JOB unless the shape fits the ranks, and every rank of a ulysses group gets at least one head. */
status grid_shape_check(grid_shape shape, int n_ranks, int n_heads);

/* This rank's place. world is rank 0's group of everybody, borrowed; the others belong to the grid. */
typedef struct comm_grid {
    grid_shape shape;
    comm      *world;
    comm      *replica; /* those that render one picture with us; rank = place in the replica */
    comm      *ring;    /* those with our place in ulysses; rank = ring member */
    comm      *ulysses; /* those of our ring member */
    int        index;   /* of our replica */
    bool       nodes_crossed; /* some ulysses group has ranks of different nodes: right, but slow */
} comm_grid;

/* Collective over world; shape as all agree, checked before. */
status grid_open(comm_grid *out, comm *world, grid_shape shape);
void   grid_close(comm_grid *g); /* also one that is all zero */

/* Heads of a rank of a ulysses group: as even as can be, the first ranks have one more. */
void grid_heads(int n_heads, int n_ranks, int rank, int *first, int *count);

#endif
