/* Device memory between GPUs over NCCL, as work of their streams. One communicator per group, opened over the host channel
 * of that group. A transfer stands between two host calls of its stream, which tell where the rank is and that it waits. */
#include <nccl.h>
#include <stdlib.h>

#include "cuda/cuda_device.h"
#include "internal.h"

typedef struct nccl_channel {
    channel         base;
    device         *dev;
    ncclComm_t      nccl; /* NULL once aborted */
    double          began; /* of the transfer that runs: they follow each other */
    _Atomic int     put_failed; /* an ncclResult_t: of a call that put work */
    pthread_mutex_t lock; /* nccl's end against its use */
} nccl_channel;

static status nccl_status(ncclComm_t c, ncclResult_t result, const char *what)
{
    if (result == ncclSuccess) return ST_OK;
    return err_set(ST_COMM, "NCCL: %s: %s (%s)", what, ncclGetErrorString(result), ncclGetLastError(c));
}

/* ---- before and after a transfer, on the host */

typedef struct travel_mark {
    nccl_channel *channel;
    travel_log    log;
} travel_mark;

static status set_off(void *args)
{
    const travel_mark *mark = args;
    comm              *c = mark->channel->base.comm;
    if (mark->log.hop >= 0) watchdog_hop(c, mark->log.hop);
    c->transport->waits->n_now++;
    mark->channel->began = comm_now();
    return ST_OK;
}

static status arrive(void *args)
{
    const travel_mark *mark = args;
    comm              *c = mark->channel->base.comm;
    if (mark->log.seconds != NULL) *mark->log.seconds += comm_now() - mark->channel->began;
    c->transport->waits->n_done++;
    c->transport->waits->n_now--;
    return ST_OK;
}

/* ---- transfers */

/* A transfer that cannot be put: others wait for it on their GPUs, so the service thread ends the job (check). */
static status fail(nccl_channel *c, ncclResult_t result, const char *what)
{
    if (result != ncclSuccess) c->put_failed = (int)result;
    return nccl_status(c->nccl, result, what);
}

static status nccl_chain(channel *base, stream *s, int root, void *buf, size_t bytes, const travel_log *log)
{
    status            st = ST_OK, put_st = ST_OK;
    nccl_channel     *c = (nccl_channel *)base;
    const travel_mark mark = {c, *log};
    const int         n = comm_size(base->comm);
    TRY(cuda_use(c->dev));
    TRY(stream_call(s, set_off, &mark, sizeof(mark)));
    put_st = fail(c, ncclBroadcast(buf, buf, bytes, ncclUint8, root, c->nccl, stream_native(s)), "broadcast");
    TRY(stream_call(s, arrive, &mark, sizeof(mark)));
    if ((comm_rank(base->comm) + 1) % n != root) comm_count_bytes(base->comm, (int64_t)bytes); /* as a chain passes it on */
fail:
    return st != ST_OK ? st : put_st;
}

static ncclResult_t put_messages(nccl_channel *c, cudaStream_t s, const message *sends, int n_sends, const message *receives,
                                 int n_receives)
{
    ncclResult_t result = ncclGroupStart();
    for (int i = 0; i < n_receives && result == ncclSuccess; i++)
        if (receives[i].bytes > 0)
            result = ncclRecv(receives[i].data, receives[i].bytes, ncclUint8, receives[i].peer, c->nccl, s);
    for (int i = 0; i < n_sends && result == ncclSuccess; i++)
        if (sends[i].bytes > 0) result = ncclSend(sends[i].data, sends[i].bytes, ncclUint8, sends[i].peer, c->nccl, s);
    const ncclResult_t ended = ncclGroupEnd();
    return result != ncclSuccess ? result : ended;
}

static size_t bytes_of(const message *list, int n)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += list[i].bytes;
    return bytes;
}

static status nccl_swap(channel *base, stream *s, const message *sends, int n_sends, const message *receives, int n_receives,
                        const travel_log *log)
{
    status            st = ST_OK, put_st = ST_OK;
    nccl_channel     *c = (nccl_channel *)base;
    const travel_mark mark = {c, *log};
    const size_t      sent = bytes_of(sends, n_sends);
    if (sent + bytes_of(receives, n_receives) == 0) return ST_OK;
    TRY(cuda_use(c->dev));
    TRY(stream_call(s, set_off, &mark, sizeof(mark)));
    put_st = fail(c, put_messages(c, stream_native(s), sends, n_sends, receives, n_receives), "messages");
    TRY(stream_call(s, arrive, &mark, sizeof(mark)));
    comm_count_bytes(base->comm, (int64_t)sent);
fail:
    return st != ST_OK ? st : put_st;
}

/* ---- failures of what is under way */

static status nccl_check(channel *base)
{
    nccl_channel *c = (nccl_channel *)base;
    ncclResult_t  result = ncclSuccess;
    pthread_mutex_lock(&c->lock);
    if (c->nccl != NULL) (void)ncclCommGetAsyncError(c->nccl, &result);
    if (result == ncclSuccess || result == ncclInProgress) result = (ncclResult_t)c->put_failed;
    const status st = nccl_status(c->nccl, result, "transfers between GPUs");
    pthread_mutex_unlock(&c->lock);
    return st;
}

static void nccl_abort(channel *base)
{
    nccl_channel *c = (nccl_channel *)base;
    pthread_mutex_lock(&c->lock);
    if (c->nccl != NULL) (void)ncclCommAbort(c->nccl);
    c->nccl = NULL;
    pthread_mutex_unlock(&c->lock);
}

/* ---- open and close */

static void nccl_close(channel *base)
{
    nccl_channel *c = (nccl_channel *)base;
    channel_forget(base->comm->whole->service, base);
    if (c->nccl != NULL) (void)ncclCommDestroy(c->nccl);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Waits for all ranks of the group: the watchdog may know. */
static ncclResult_t join(nccl_channel *c, comm *group, ncclUniqueId id)
{
    group->transport->waits->n_now++;
    const ncclResult_t result = ncclCommInitRank(&c->nccl, comm_size(group), id, comm_rank(group));
    group->transport->waits->n_done++;
    group->transport->waits->n_now--;
    return result;
}

status channel_nccl_open(channel **out, comm *group, device *dev)
{
    status        st = ST_OK;
    ncclUniqueId  id = {{0}};
    nccl_channel *c = calloc(1, sizeof(*c));
    if (c == NULL) st = err_set(ST_NO_MEMORY, "channel: %zu bytes", sizeof(*c));
    if (st == ST_OK) {
        c->base = (channel){.comm = group, .close = nccl_close, .chain = nccl_chain, .swap = nccl_swap, .check = nccl_check,
                            .abort = nccl_abort};
        c->dev = dev;
        pthread_mutex_init(&c->lock, NULL);
        st = cuda_use(dev);
    }
    if (st == ST_OK && comm_rank(group) == 0) st = nccl_status(NULL, ncclGetUniqueId(&id), "unique id");
    TRY(comm_agree(group, st));
    TRY(comm_bcast(group, 0, &id, sizeof(id)));
    TRY(comm_agree(group, nccl_status(NULL, join(c, group, id), "opening a communicator")));
    channel_watch(group->whole->service, &c->base);
    *out = &c->base;
    return ST_OK;
fail:
    if (c != NULL) nccl_close(&c->base);
    return st;
}
