#include "nccl_comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const NAMES[] = {"ncclSend", "ncclRecv", "ncclBroadcast", "ncclAllGather", "ncclAllReduce",
                                    "ncclReduceScatter"};

size_t type_bytes(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8: case ncclUint8: return 1;
    case ncclFloat16: case ncclBfloat16: return 2;
    case ncclInt32: case ncclUint32: case ncclFloat32: return 4;
    case ncclInt64: case ncclUint64: case ncclFloat64: return 8;
    default: return 0;
    }
}

const char *type_name(int type)
{
    static const char *const names[] = {"int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32",
                                        "float64", "bfloat16"};
    return type >= 0 && type < (int)(sizeof(names) / sizeof(names[0])) ? names[type] : "unknown type";
}

/* "ncclSend of 100 float32 to rank 1", "ncclBroadcast of 5 int8 from rank 0", "ncclAllReduce of 3 float32, sum" */
void call_describe(const call_note *note, char *text, size_t size)
{
    static const char *const ops[] = {"sum", "prod", "max", "min", "avg"};
    int n = snprintf(text, size, "%s of %llu %s", NAMES[note->kind], (unsigned long long)note->count, type_name(note->type));
    if (n < 0 || (size_t)n >= size) return;
    if (note->kind == CALL_SEND) snprintf(text + n, size - (size_t)n, " to rank %d", note->peer);
    if (note->kind == CALL_RECEIVE || note->kind == CALL_BROADCAST) snprintf(text + n, size - (size_t)n, " from rank %d", note->peer);
    if (note->kind == CALL_ALL_REDUCE || note->kind == CALL_REDUCE_SCATTER)
        snprintf(text + n, size - (size_t)n, ", %s", ops[note->op]);
}

static bool is_collective(int kind)
{
    return kind >= CALL_BROADCAST;
}

/* Whether their call is the one that ours meets, before what it is about is compared. */
static bool meets(const call_note *ours, const call_note *theirs)
{
    if (ours->index != theirs->index) return false;
    if (is_collective(ours->kind)) return is_collective(theirs->kind);
    return theirs->kind == (ours->kind == CALL_SEND ? CALL_RECEIVE : CALL_SEND);
}

static bool agrees(const call_note *ours, const call_note *theirs)
{
    if (ours->count != theirs->count || ours->type != theirs->type) return false;
    if (!is_collective(ours->kind)) return true; /* peers are those of the socket */
    return ours->kind == theirs->kind && ours->peer == theirs->peer && ours->op == theirs->op;
}

static vgpu_progress fault(ncclComm_t c)
{
    vgpu_fault(cudaErrorLaunchFailure, "NCCL: %s", c->message);
    return VGPU_FAILED;
}

/* ---- beginning */

static bool involves(const nccl_call *call, int rank)
{
    return is_collective(call->note.kind) || call->note.peer == rank;
}

static unsigned char *lend(const void *address, size_t bytes, vgpu_access access, const nccl_call *of, const char *operand)
{
    char what[96];
    snprintf(what, sizeof(what), "%s: %s", NAMES[of->note.kind], operand);
    return vgpu_memory(address, bytes, access, what);
}

static size_t bytes_of(const nccl_call *call)
{
    return call->note.count * type_bytes((ncclDataType_t)call->note.type);
}

/* All that a call reads and writes is there, and what it reads has been written. */
static bool check_memory(const ncclComm_t c, const nccl_call *call)
{
    const size_t bytes = bytes_of(call), n = (size_t)c->n;
    size_t       from = bytes, to = bytes;
    switch (call->note.kind) {
    case CALL_SEND: to = 0; break;
    case CALL_RECEIVE: from = 0; break;
    case CALL_BROADCAST: from = c->rank == call->note.peer ? bytes : 0; break;
    case CALL_ALL_GATHER: to = n * bytes; break;
    case CALL_REDUCE_SCATTER: from = n * bytes; break;
    default: break;
    }
    return (from == 0 || lend(call->from, from, VGPU_READ, call, "sendbuff") != NULL) &&
           (to == 0 || lend(call->to, to, VGPU_ADDRESS, call, "recvbuff") != NULL);
}

static void add_transfer(launch *l, const nccl_call *of, int peer, bool out, const void *base, size_t at, size_t bytes)
{
    l->transfers[l->n_transfers++] = (transfer){.of = of, .peer = peer, .out = out, .at = (uintptr_t)base + at, .bytes = bytes};
}

static bool plan_call(launch *l, nccl_call *call)
{
    const ncclComm_t c = l->comm;
    const size_t     bytes = bytes_of(call);
    const bool       reduces = call->note.kind == CALL_ALL_REDUCE || call->note.kind == CALL_REDUCE_SCATTER;
    if (reduces) call->scratch = malloc((size_t)c->n * bytes + 1);
    if (reduces && call->scratch == NULL) return false;
    for (int r = 0; r < c->n; r++) {
        const size_t at = (size_t)r * bytes;
        if (r == c->rank || !involves(call, r)) continue;
        switch (call->note.kind) {
        case CALL_SEND: add_transfer(l, call, r, true, call->from, 0, bytes); break;
        case CALL_RECEIVE: add_transfer(l, call, r, false, call->to, 0, bytes); break;
        case CALL_BROADCAST: /* between other ranks nothing but the notes */
            if (c->rank == call->note.peer) add_transfer(l, call, r, true, call->from, 0, bytes);
            else add_transfer(l, call, r, false, call->to, 0, r == call->note.peer ? bytes : 0);
            break;
        case CALL_ALL_GATHER:
            add_transfer(l, call, r, true, call->from, 0, bytes);
            add_transfer(l, call, r, false, call->to, at, bytes);
            break;
        default:
            add_transfer(l, call, r, true, call->from, call->note.kind == CALL_REDUCE_SCATTER ? at : 0, bytes);
            add_transfer(l, call, r, false, NULL, 0, bytes);
            l->transfers[l->n_transfers - 1].host = call->scratch + at;
        }
    }
    return true;
}

static bool begin(launch *l)
{
    const ncclComm_t c = l->comm;
    l->transfers = calloc((size_t)l->n_calls * 2 * (size_t)c->n, sizeof(*l->transfers));
    for (int i = 0; i < l->n_calls; i++) {
        if (!check_memory(c, &l->calls[i])) {
            comm_fail(c, ncclUnhandledCudaError, "rank %d: memory of a call cannot be used", c->rank);
            return false;
        }
        if (l->transfers == NULL || !plan_call(l, &l->calls[i])) {
            comm_fail(c, ncclSystemError, "rank %d: no memory for %d calls", c->rank, l->n_calls);
            return false;
        }
    }
    for (int r = 0; r < c->n; r++) {
        bool any = false;
        if (r == c->rank) continue;
        for (int i = 0; i < l->n_calls; i++) {
            if (!involves(&l->calls[i], r)) continue;
            any = true;
            mesh_put(&c->peers[r], FRAME_NOTE, &l->calls[i].note, sizeof(l->calls[i].note));
        }
        if (any) mesh_put(&c->peers[r], FRAME_THESE_ARE_ALL, NULL, 0);
    }
    l->begun = true;
    l->moved = nccl_now();
    return true;
}

/* ---- meeting */

static void drop_note(nccl_peer *p, int i)
{
    memmove(p->notes + i, p->notes + i + 1, (size_t)(--p->n_notes - i) * sizeof(*p->notes));
}

static void meet(launch *l, int rank, const nccl_call *call)
{
    for (int i = 0; i < l->n_transfers; i++)
        if (l->transfers[i].of == call && l->transfers[i].peer == rank) l->transfers[i].met = true;
}

/* A call of the launch that waits for that rank's; NULL: none does. */
static const nccl_call *first_waiting(const launch *l, int rank)
{
    for (int i = 0; i < l->n_transfers; i++)
        if (l->transfers[i].peer == rank && !l->transfers[i].met) return l->transfers[i].of;
    return NULL;
}

/* Calls of both sides find each other. False: they do not match, told. */
static bool meet_all(launch *l, int rank)
{
    const ncclComm_t c = l->comm;
    nccl_peer            *p = &c->peers[rank];
    char             ours[128], theirs[128];
    for (int i = 0; i < p->n_notes;) {
        const nccl_call *found = NULL;
        for (int k = 0; k < l->n_calls && found == NULL; k++)
            if (involves(&l->calls[k], rank) && meets(&l->calls[k].note, &p->notes[i])) found = &l->calls[k];
        if (found == NULL) {
            i++;
            continue;
        }
        if (!agrees(&found->note, &p->notes[i])) {
            call_describe(&found->note, ours, sizeof(ours));
            call_describe(&p->notes[i], theirs, sizeof(theirs));
            comm_fail(c, ncclInvalidUsage, "calls do not match: rank %d makes %s, rank %d makes %s", c->rank, ours, rank, theirs);
            return false;
        }
        meet(l, rank, found);
        drop_note(p, i);
    }
    const nccl_call *waiting = first_waiting(l, rank);
    if (waiting == NULL) return true;
    call_describe(&waiting->note, ours, sizeof(ours));
    if (p->all_told && p->n_notes > 0) { /* their launch needs a call of us that comes after this launch */
        call_describe(&p->notes[0], theirs, sizeof(theirs));
        comm_fail(c, ncclInvalidUsage, "calls do not match: rank %d waits in %s, rank %d in %s", c->rank, ours, rank, theirs);
        return false;
    }
    if (p->bye) {
        comm_fail(c, ncclInvalidUsage, "calls do not match: rank %d waits in %s, rank %d has closed the communicator", c->rank,
                  ours, rank);
        return false;
    }
    return true;
}

/* ---- end */

static bool copy(const nccl_call *of, const void *to, const void *from, size_t bytes)
{
    if (bytes == 0 || to == from) return true;
    const unsigned char *source = lend(from, bytes, VGPU_ADDRESS, of, "sendbuff");
    unsigned char       *target = source != NULL ? lend(to, bytes, VGPU_WRITE, of, "recvbuff") : NULL;
    if (target == NULL) return false;
    memmove(target, source, bytes);
    return true;
}

/* What needs no other rank any more; what has arrived counts as written. */
static bool finish_call(const ncclComm_t c, const nccl_call *call)
{
    const size_t bytes = bytes_of(call), mine = (size_t)c->rank * bytes, n = (size_t)c->n;
    if (bytes == 0) return true;
    switch (call->note.kind) {
    case CALL_SEND: return true;
    case CALL_RECEIVE: return lend(call->to, bytes, VGPU_WRITE, call, "recvbuff") != NULL;
    case CALL_BROADCAST:
        if (c->rank == call->note.peer) return copy(call, call->to, call->from, bytes);
        return lend(call->to, bytes, VGPU_WRITE, call, "recvbuff") != NULL;
    case CALL_ALL_GATHER:
        return copy(call, (const unsigned char *)call->to + mine, call->from, bytes) &&
               lend(call->to, n * bytes, VGPU_WRITE, call, "recvbuff") != NULL;
    default: break;
    }
    const size_t         at = call->note.kind == CALL_REDUCE_SCATTER ? mine : 0;
    const unsigned char *own = lend((const unsigned char *)call->from + at, bytes, VGPU_ADDRESS, call, "sendbuff");
    unsigned char       *to = own != NULL ? lend(call->to, bytes, VGPU_WRITE, call, "recvbuff") : NULL;
    if (to == NULL) return false;
    memcpy(call->scratch + mine, own, bytes);
    return reduce_ranks(to, call->scratch, call->note.count, c->n, (ncclDataType_t)call->note.type,
                        (ncclRedOp_t)call->note.op) == ncclSuccess;
}

/* Sends to oneself, in their order, to one's own receives; the call has checked that there are as many. */
static bool finish_own(const launch *l)
{
    const int rank = l->comm->rank;
    for (int i = 0; i < l->n_calls; i++) {
        const nccl_call *send = &l->calls[i];
        if (send->note.kind != CALL_SEND || send->note.peer != rank) continue;
        for (int k = 0; k < l->n_calls; k++) {
            const nccl_call *receive = &l->calls[k];
            if (receive->note.kind == CALL_RECEIVE && receive->note.peer == rank && receive->note.index == send->note.index &&
                !copy(send, receive->to, send->from, bytes_of(send)))
                return false;
        }
    }
    return true;
}

static vgpu_progress end(launch *l)
{
    const ncclComm_t c = l->comm;
    bool             good = finish_own(l);
    for (int i = 0; i < l->n_calls && good; i++)
        if (is_collective(l->calls[i].note.kind) || l->calls[i].note.peer != c->rank) good = finish_call(c, &l->calls[i]);
    c->n_done++;
    if (good) return VGPU_DONE;
    comm_fail(c, ncclUnhandledCudaError, "rank %d: memory of a call cannot be used", c->rank);
    return VGPU_FAILED;
}

static bool is_complete(const launch *l)
{
    for (int i = 0; i < l->n_transfers; i++)
        if (!l->transfers[i].met || l->transfers[i].done < l->transfers[i].bytes) return false;
    for (int r = 0; r < l->comm->n; r++) /* our notes and the frames of data are gone */
        if (l->comm->peers[r].n_out > l->comm->peers[r].out_at && !l->comm->peers[r].deaf) return false;
    return true;
}

/* A rank that a transfer needs is no more. */
static bool lacks_rank(const launch *l)
{
    const ncclComm_t c = l->comm;
    for (int i = 0; i < l->n_transfers; i++) {
        const transfer *t = &l->transfers[i];
        if ((t->met && t->done == t->bytes) || !(c->peers[t->peer].gone || (t->out && c->peers[t->peer].deaf))) continue;
        comm_fail(c, ncclRemoteError, "rank %d of %d: rank %d is gone", c->rank, c->n, t->peer);
        return true;
    }
    return false;
}

/* Our side of the story reaches the other ranks before this one ends. */
static void flush(ncclComm_t c)
{
    for (int i = 0; i < 1000 && mesh_pump(c, NULL); i++) continue;
}

/* VGPU_NCCL_FAIL=RANK:N: a fault of the network, say, in the N-th launch (from 0) of that rank on a communicator. */
static bool fails_by_order(const launch *l)
{
    const char *order = getenv("VGPU_NCCL_FAIL");
    int         rank = -1;
    uint64_t    turn = 0;
    if (order == NULL || sscanf(order, "%d:%" SCNu64, &rank, &turn) != 2) return false;
    return rank == l->comm->rank && turn == l->turn;
}

static vgpu_progress step(launch *l)
{
    const ncclComm_t c = l->comm;
    if (c->aborted) { /* as a kernel that is told to go away: the stream goes on, the results are worthless */
        c->n_done++;
        return VGPU_DONE;
    }
    if (c->result == ncclRemoteError || c->result == ncclSystemError) return VGPU_AGAIN; /* until ncclCommAbort */
    if (c->result != ncclSuccess) return VGPU_FAILED;
    if (l->turn != c->n_done) return VGPU_AGAIN;
    if (fails_by_order(l)) {
        comm_fail(c, ncclSystemError, "rank %d of %d: launch %" PRIu64 " fails: VGPU_NCCL_FAIL", c->rank, c->n, l->turn);
        return VGPU_AGAIN;
    }
    if (!l->begun && !begin(l)) return VGPU_FAILED; /* told by vgpu_memory */
    bool moved = false;
    for (int pass = 0; pass < 2; pass++) { /* data sets off as soon as calls have met */
        moved |= mesh_pump(c, l);
        for (int r = 0; r < c->n; r++)
            if (r != c->rank && !meet_all(l, r)) {
                flush(c);
                return fault(c);
            }
        if (c->result != ncclSuccess) return fault(c);
    }
    if (lacks_rank(l)) return VGPU_AGAIN;
    if (is_complete(l)) return end(l);
    if (moved) l->moved = nccl_now();
    if (nccl_now() - l->moved < nccl_timeout_s()) return VGPU_AGAIN;
    for (int r = 0; r < c->n; r++) {
        const nccl_call *waiting = r != c->rank ? first_waiting(l, r) : NULL;
        char        ours[128];
        if (waiting == NULL) continue;
        call_describe(&waiting->note, ours, sizeof(ours));
        comm_fail(c, ncclInvalidUsage, "rank %d waits in %s for %g s: rank %d makes no call that meets it", c->rank, ours,
                  nccl_timeout_s(), r);
        return fault(c);
    }
    comm_fail(c, ncclInternalError, "rank %d: nothing has moved for %g s", c->rank, nccl_timeout_s());
    return fault(c);
}

vgpu_progress launch_step(void *arg)
{
    launch          *l = arg;
    const ncclComm_t c = l->comm;
    pthread_mutex_lock(&c->lock);
    const vgpu_progress progress = step(l);
    pthread_mutex_unlock(&c->lock);
    return progress;
}
