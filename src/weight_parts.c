#include "weight_parts.h"

#include <stdlib.h>
#include <string.h>

#include "linear.h"

bool weight_parts_pay(int n_ranks, int n_local, const machine *on, const char **why)
{
    *why = "one rank";
    if (n_ranks == 1) return false;
    *why = "several nodes";
    if (n_local < n_ranks) return true;
    *why = "one node, and no link between GPUs that is known to be faster than that to the host";
    if (on == NULL || on->host_link <= 0 || on->link <= on->host_link) return false;
    *why = "the link between GPUs is faster than that to the host";
    return true;
}

status weight_parts_wanted(comm *c, device *dev, const machine *on, bool *wanted, const char **why)
{
    status      st = ST_OK;
    const char *order = getenv("DYPE_DIST_LOAD_PARTS");
    int         n_local = comm_local_size(c), parts = 0;
    *wanted = false;
    *why = "no GPUs, or one";
    if (comm_size(c) == 1 || device_kind_of(dev) != DEVICE_CUDA) return ST_OK;
    TRY(comm_min_int(c, &n_local));
    if (order != NULL && order[0] != '\0') {
        *why = "DYPE_DIST_LOAD_PARTS";
        parts = strcmp(order, "0") != 0;
    } else {
        parts = weight_parts_pay(comm_size(c), n_local, on, why);
    }
    TRY(comm_bcast(c, 0, &parts, sizeof(parts)));
    *wanted = parts != 0;
fail:
    return st;
}

/* ---- who has what */

typedef enum part_state { PART_NO_ROOM, PART_PLACED, PART_THERE } part_state;

/* One list on its way; [n] by weight. */
typedef struct parts {
    comm                *comm;
    stream              *s;
    const weight *const *list;
    size_t               n;
    void               **place;  /* NULL: no room */
    unsigned char       *states; /* [ranks][n] */
    int                 *root;   /* who sends it; -1: it does not travel */
    size_t              *bytes;  /* [ranks] of states */
} parts;

static part_state state_of(const parts *p, int rank, size_t i)
{
    return (part_state)p->states[(size_t)rank * p->n + i];
}

static status open_parts(parts *p)
{
    const size_t n_ranks = (size_t)comm_size(p->comm);
    p->place = calloc(p->n + 1, sizeof(*p->place));
    p->states = calloc(n_ranks * p->n + 1, 1);
    p->root = calloc(p->n + 1, sizeof(*p->root));
    p->bytes = calloc(n_ranks, sizeof(*p->bytes));
    if (p->place == NULL || p->states == NULL || p->root == NULL || p->bytes == NULL)
        return err_set(ST_NO_MEMORY, "loading %zu weights in parts", p->n);
    for (size_t r = 0; r < n_ranks; r++) p->bytes[r] = p->n;
    return ST_OK;
}

static status take_places(parts *p, unsigned char *mine)
{
    status st = ST_OK;
    for (size_t i = 0; i < p->n; i++) {
        bool filled = false;
        TRY(stream_place(p->s, p->list[i]->data, weight_bytes(p->list[i]), &p->place[i], &filled));
        mine[i] = p->place[i] == NULL ? PART_NO_ROOM : filled ? PART_THERE : PART_PLACED;
    }
fail:
    return st;
}

/* Places on all ranks, known to all. */
static status tell_places(parts *p)
{
    status         st = ST_OK;
    unsigned char *mine = calloc(p->n + 1, 1);
    st = mine != NULL ? take_places(p, mine) : err_set(ST_NO_MEMORY, "loading %zu weights in parts", p->n);
    TRY(comm_agree(p->comm, st));
    TRY(comm_gather(p->comm, 0, mine, p->bytes, p->states));
    TRY(comm_bcast(p->comm, 0, p->states, (size_t)comm_size(p->comm) * p->n));
fail:
    free(mine);
    return st;
}

/* A rank that has it, else the one that has least to read so far; -1 when a rank has no room, or all have it. */
static int choose_root(const parts *p, size_t i, const int64_t *read)
{
    int least = 0, has_it = -1, n_there = 0;
    for (int r = 0; r < comm_size(p->comm); r++) {
        const part_state state = state_of(p, r, i);
        if (state == PART_NO_ROOM) return -1;
        if (state == PART_THERE && n_there++ == 0) has_it = r;
        if (read[r] < read[least]) least = r;
    }
    if (n_there == comm_size(p->comm)) return -1;
    return has_it >= 0 ? has_it : least;
}

static status choose_roots(parts *p)
{
    int64_t *read = calloc((size_t)comm_size(p->comm), sizeof(*read));
    if (read == NULL) return err_set(ST_NO_MEMORY, "loading weights in parts");
    for (size_t i = 0; i < p->n; i++) {
        const int root = p->root[i] = choose_root(p, i, read);
        if (root >= 0 && state_of(p, root, i) == PART_PLACED) read[root] += (int64_t)weight_bytes(p->list[i]);
    }
    free(read);
    return ST_OK;
}

/* ---- the way */

/* The root's own upload; the stream waits for it. */
static status upload_own(const parts *p, size_t i)
{
    status      st = ST_OK;
    const void *lent = NULL;
    TRY(stream_lend(p->s, p->list[i]->data, weight_bytes(p->list[i]), &lent));
    TRY(stream_return(p->s, lent));
fail:
    return st;
}

/* Also after a failure: the others wait for what we send. The first failure counts. */
static status put_transfers(const parts *p, weight_parts_figures *f)
{
    status    st = ST_OK;
    const int rank = comm_rank(p->comm);
    for (size_t i = 0; i < p->n; i++) {
        const size_t     bytes = weight_bytes(p->list[i]);
        const part_state state = state_of(p, rank, i);
        status           own = ST_OK;
        if (p->root[i] < 0) continue;
        if (p->root[i] == rank && state == PART_PLACED) {
            own = upload_own(p, i);
            f->own_bytes += (int64_t)bytes;
        }
        status put = comm_put_chain(p->comm, p->s, p->root[i], p->place[i], bytes, TRAVEL_LOG_NONE);
        if (put == ST_OK && p->root[i] != rank && state == PART_PLACED) put = stream_filled(p->s, p->place[i]);
        f->bytes += (int64_t)bytes;
        if (st == ST_OK) st = own != ST_OK ? own : put;
    }
    return st;
}

static status return_places(const parts *p, status st)
{
    for (size_t i = 0; p->place != NULL && i < p->n; i++) {
        if (p->place[i] == NULL) continue;
        const status returned = stream_return(p->s, p->place[i]);
        if (st == ST_OK) st = returned;
    }
    return stream_settle(p->s, st);
}

status weight_parts_load(comm *c, device *dev, stream *s, const weight *const *list, size_t n, weight_parts_figures *out)
{
    status               st = ST_OK;
    const double         began = comm_now();
    weight_parts_figures f = {0};
    parts                p = {.comm = c, .s = s, .list = list, .n = n};
    TRY(comm_agree(c, open_parts(&p)));
    TRY(tell_places(&p));
    TRY(comm_agree(c, choose_roots(&p)));
    st = put_transfers(&p, &f);
fail:
    st = comm_agree(c, return_places(&p, st));
    if (st != ST_OK) /* what came is nothing to rely on */
        for (size_t i = 0; i < n; i++) device_drop(dev, list[i]->data, weight_bytes(list[i]));
    out->bytes += f.bytes;
    out->own_bytes += f.own_bytes;
    out->seconds += comm_now() - began;
    free(p.place);
    free(p.states);
    free(p.root);
    free(p.bytes);
    return st;
}
