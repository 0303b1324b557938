#include "grid.h"

#include <stdlib.h>

status grid_shape_check(grid_shape s, int n_ranks, int n_heads)
{
    if (s.replicas < 1 || s.ulysses < 1 || s.ring < 1 || (int64_t)s.replicas * s.ulysses * s.ring != n_ranks)
        return err_set(ST_BAD_JOB, "parallel: replicas %d x ulysses %d x ring %d: got %lld ranks, mpirun started %d",
                       s.replicas, s.ulysses, s.ring, (long long)s.replicas * s.ulysses * s.ring, n_ranks);
    if (s.ulysses > n_heads)
        return err_set(ST_BAD_JOB, "parallel: ulysses: got %d, at most %d, the heads of this model", s.ulysses, n_heads);
    return ST_OK;
}

void grid_heads(int n_heads, int n_ranks, int rank, int *first, int *count)
{
    const int least = n_heads / n_ranks, more = n_heads % n_ranks;
    *first = rank * least + (rank < more ? rank : more);
    *count = least + (rank < more);
}

/* Ranks in the order of their nodes, nodes in the order of their first ranks: the place of this one. */
static status find_place(comm *world, int *place)
{
    status    st = ST_OK;
    const int n = comm_size(world), rank = comm_rank(world);
    comm     *node = NULL;
    int32_t   first = rank; /* of this rank's node */
    int32_t  *firsts = calloc((size_t)n, sizeof(*firsts));
    size_t   *bytes = calloc((size_t)n, sizeof(*bytes));
    TRY(comm_agree(world, firsts != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "places of %d ranks", n)));
    TRY(comm_split_node(&node, world));
    TRY(comm_bcast(node, 0, &first, sizeof(first)));
    for (int r = 0; r < n; r++) bytes[r] = sizeof(first);
    TRY(comm_gather(world, 0, &first, bytes, firsts));
    TRY(comm_bcast(world, 0, firsts, (size_t)n * sizeof(*firsts)));
    *place = 0;
    for (int r = 0; r < n; r++) *place += firsts[r] < first || (firsts[r] == first && r < rank);
fail:
    comm_close(node);
    free(firsts);
    free(bytes);
    return st;
}

status grid_open(comm_grid *out, comm *world, grid_shape shape)
{
    status    st = ST_OK;
    const int size = shape.ulysses * shape.ring; /* of a replica */
    int       place = 0;
    comm_grid g = {.shape = shape, .world = world};
    TRY(find_place(world, &place));
    g.index = place / size;
    TRY(comm_split(&g.replica, world, g.index, place));
    TRY(comm_split(&g.ulysses, g.replica, place % size / shape.ulysses, place));
    TRY(comm_split(&g.ring, g.replica, place % shape.ulysses, place));
    int inside = comm_local_size(g.ulysses) == comm_size(g.ulysses);
    TRY(comm_min_int(world, &inside));
    g.nodes_crossed = !inside;
    *out = g;
    return ST_OK;
fail:
    grid_close(&g);
    return st;
}

void grid_close(comm_grid *g)
{
    comm_close(g->ring);
    comm_close(g->ulysses);
    comm_close(g->replica);
    *g = (comm_grid){0};
}
