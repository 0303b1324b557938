#include "nccl_comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static const char COMM[] = "ncclComm_t";

double nccl_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double nccl_timeout_s(void)
{
    const char *text = getenv("VGPU_NCCL_TIMEOUT_S");
    return text != NULL ? atof(text) : 600;
}

/* ---- errors */

static _Thread_local char last_error[1024];

static void set_last(const char *format, va_list args)
{
    vsnprintf(last_error, sizeof(last_error), format, args);
}

/* A call with wrong arguments: it does nothing. */
static ncclResult_t refuse(ncclResult_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));
static ncclResult_t refuse(ncclResult_t result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_last(format, args);
    va_end(args);
    vgpu_fault(cudaSuccess, "NCCL: %s", last_error);
    return result;
}

ncclResult_t comm_fail(ncclComm_t c, ncclResult_t result, const char *format, ...)
{
    va_list args;
    if (c->result != ncclSuccess) return c->result;
    va_start(args, format);
    vsnprintf(c->message, sizeof(c->message), format, args);
    va_end(args);
    return c->result = result;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                        "invalid argument", "invalid usage", "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return (int)result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t c)
{
    return c != NULL && vgpu_object_is_open(COMM, c) && c->result != ncclSuccess ? c->message : last_error;
}

ncclResult_t ncclGetVersion(int *version)
{
    if (version == NULL) return refuse(ncclInvalidArgument, "ncclGetVersion: version is NULL");
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    uint64_t random = 0;
    if (id == NULL) return refuse(ncclInvalidArgument, "ncclGetUniqueId: uniqueId is NULL");
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) return ncclSystemError;
    memset(id, 0, sizeof(*id));
    snprintf(id->internal, sizeof(id->internal), "vgpu-nccl-%016llx", (unsigned long long)random);
    return ncclSuccess;
}

/* ---- communicators */

static bool is_comm(ncclComm_t c)
{
    return c != NULL && vgpu_object_is_open(COMM, c);
}

static void release(ncclComm_t c)
{
    pthread_mutex_lock(&c->lock);
    const bool last = --c->n_users == 0;
    pthread_mutex_unlock(&c->lock);
    if (!last) return;
    mesh_close(c);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static ncclResult_t open_comm(ncclComm_t *out, int n, const char *name, int rank)
{
    ncclComm_t c = calloc(1, sizeof(*c));
    if (c == NULL) return ncclSystemError;
    c->rank = rank;
    c->n = n;
    c->n_users = 1;
    snprintf(c->name, sizeof(c->name), "%s", name);
    pthread_mutex_init(&c->lock, NULL);
    if (cudaGetDevice(&c->device) != cudaSuccess ||
        cudaDeviceGetPCIBusId(c->device_id, (int)sizeof(c->device_id), c->device) != cudaSuccess)
        comm_fail(c, ncclUnhandledCudaError, "ncclCommInitRank: rank %d: no device", rank);
    ncclResult_t result = c->result != ncclSuccess ? c->result : mesh_open(c);
    if (result != ncclSuccess) {
        refuse(result, "%s", c->message);
        release(c);
        return result;
    }
    vgpu_object_open(COMM, c);
    *out = c;
    return ncclSuccess;
}

static _Thread_local int depth; /* of ncclGroupStart */

ncclResult_t ncclCommInitRank(ncclComm_t *out, int n, ncclUniqueId id, int rank)
{
    if (out == NULL || n < 1 || rank < 0 || rank >= n)
        return refuse(ncclInvalidArgument, "ncclCommInitRank: rank %d of %d", rank, n);
    if (strncmp(id.internal, "vgpu-nccl-", 10) != 0 || memchr(id.internal, 0, sizeof(id.internal)) == NULL)
        return refuse(ncclInvalidArgument, "ncclCommInitRank: the id is none of ncclGetUniqueId");
    if (depth > 0) return refuse(ncclInvalidUsage, "ncclCommInitRank inside a group: not in this replacement");
    return open_comm(out, n, id.internal, rank);
}

static ncclResult_t check_config(const ncclConfig_t *config, const char *who)
{
    if (config == NULL) return ncclSuccess;
    if (config->magic != 0xcafebeef) return refuse(ncclInvalidArgument, "%s: config is not NCCL_CONFIG_INITIALIZER", who);
    if (config->blocking == 0) return refuse(ncclInvalidUsage, "%s: blocking = 0: not in this replacement", who);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    const ncclResult_t result = check_config(config, "ncclCommInitRankConfig");
    return result != ncclSuccess ? result : ncclCommInitRank(out, n, id, rank);
}

static bool split_there(const nccl_peer *p)
{
    return p->n_splits > 0;
}

ncclResult_t ncclCommSplit(ncclComm_t c, int color, int key, ncclComm_t *out, ncclConfig_t *config)
{
    char         name[sizeof(c->name)];
    int          n = 0, rank = 0;
    ncclResult_t result = check_config(config, "ncclCommSplit");
    if (result != ncclSuccess) return result;
    if (!is_comm(c) || out == NULL) return refuse(ncclInvalidArgument, "ncclCommSplit: not a communicator");
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR) return refuse(ncclInvalidArgument, "ncclCommSplit: colour %d", color);
    if (depth > 0) return refuse(ncclInvalidUsage, "ncclCommSplit inside a group: not in this replacement");
    pthread_mutex_lock(&c->lock);
    const int mine[2] = {color, key};
    for (int r = 0; r < c->n; r++)
        if (r != c->rank) mesh_put(&c->peers[r], FRAME_SPLIT, mine, sizeof(mine));
    if (!mesh_await(c, split_there)) {
        comm_fail(c, ncclInvalidUsage, "ncclCommSplit: rank %d of %d: another rank does not split", c->rank, c->n);
        result = c->result;
    }
    const int index = c->n_splits++;
    for (int r = 0; r < c->n && result == ncclSuccess; r++) {
        nccl_peer *p = &c->peers[r];
        int   theirs[2] = {color, key};
        if (r != c->rank) {
            memcpy(theirs, p->split[0], sizeof(theirs));
            memmove(p->split[0], p->split[1], (size_t)(--p->n_splits) * sizeof(p->split[0]));
        }
        if (theirs[0] != color) continue;
        n++;
        rank += theirs[1] < key || (theirs[1] == key && r < c->rank);
    }
    snprintf(name, sizeof(name), "%.60s/%d.%d", c->name, index, color);
    pthread_mutex_unlock(&c->lock);
    if (result != ncclSuccess) return refuse(result, "%s", c->message);
    *out = NULL;
    return color == NCCL_SPLIT_NOCOLOR ? ncclSuccess : open_comm(out, n, name, rank);
}

/* Waits until all that was put is done or has failed. */
static ncclResult_t settle(ncclComm_t c)
{
    pthread_mutex_lock(&c->lock);
    while (c->n_done < c->n_put && c->result == ncclSuccess && !c->aborted) {
        pthread_mutex_unlock(&c->lock);
        usleep(500);
        pthread_mutex_lock(&c->lock);
    }
    if (!c->finalized && c->result == ncclSuccess) {
        for (int r = 0; r < c->n; r++)
            if (r != c->rank) mesh_put(&c->peers[r], FRAME_BYE, NULL, 0);
        for (int i = 0; i < 1000 && mesh_pump(c, NULL); i++) continue;
        for (int r = 0; r < c->n && c->result == ncclSuccess; r++) {
            char theirs[128];
            if (r == c->rank || c->peers[r].n_notes == 0) continue;
            call_describe(&c->peers[r].notes[0], theirs, sizeof(theirs));
            comm_fail(c, ncclInvalidUsage, "calls do not match: rank %d closes the communicator, rank %d waits in %s", c->rank,
                      r, theirs);
        }
        if (c->result != ncclSuccess) vgpu_fault(cudaSuccess, "NCCL: %s", c->message);
    }
    c->finalized = true;
    const ncclResult_t result = c->result;
    pthread_mutex_unlock(&c->lock);
    return result;
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    if (!is_comm(c)) return refuse(ncclInvalidArgument, "ncclCommFinalize: not a communicator");
    return settle(c);
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (c == NULL) return ncclSuccess;
    if (!is_comm(c)) return refuse(ncclInvalidArgument, "ncclCommDestroy: not a communicator");
    const ncclResult_t result = settle(c);
    vgpu_object_close(COMM, c);
    release(c);
    return result;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    if (c == NULL) return ncclSuccess;
    if (!is_comm(c)) return refuse(ncclInvalidArgument, "ncclCommAbort: not a communicator");
    vgpu_object_close(COMM, c);
    pthread_mutex_lock(&c->lock);
    c->aborted = true;
    for (int r = 0; r < c->n; r++) {
        if (c->peers[r].fd >= 0) close(c->peers[r].fd); /* the others see it */
        c->peers[r].fd = -1;
        c->peers[r].gone = true;
    }
    pthread_mutex_unlock(&c->lock);
    release(c);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *error)
{
    if (!is_comm(c) || error == NULL) return refuse(ncclInvalidArgument, "ncclCommGetAsyncError: not a communicator");
    pthread_mutex_lock(&c->lock);
    *error = c->result;
    pthread_mutex_unlock(&c->lock);
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t c, int *count)
{
    if (!is_comm(c) || count == NULL) return refuse(ncclInvalidArgument, "ncclCommCount: not a communicator");
    *count = c->n;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t c, int *device)
{
    if (!is_comm(c) || device == NULL) return refuse(ncclInvalidArgument, "ncclCommCuDevice: not a communicator");
    *device = c->device;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t c, int *rank)
{
    if (!is_comm(c) || rank == NULL) return refuse(ncclInvalidArgument, "ncclCommUserRank: not a communicator");
    *rank = c->rank;
    return ncclSuccess;
}

/* ---- groups */

/* The calls of the open group on one communicator. */
typedef struct part {
    ncclComm_t   comm;
    cudaStream_t stream;
    nccl_call        *calls;
    int          n_calls, room;
} part;

static _Thread_local part        *parts;
static _Thread_local int          n_parts;
static _Thread_local ncclResult_t group_result;

void launch_free(void *arg)
{
    launch *l = arg;
    for (int i = 0; i < l->n_calls; i++) free(l->calls[i].scratch);
    free(l->calls);
    free(l->transfers);
    release(l->comm);
    free(l);
}

/* The i-th send to oneself needs an i-th receive of as much. */
static ncclResult_t check_own(const part *p)
{
    uint64_t n_sends = 0, n_receives = 0, bytes[2] = {0};
    for (int i = 0; i < p->n_calls; i++) {
        const call_note *note = &p->calls[i].note;
        if (note->peer != p->comm->rank || note->kind > CALL_RECEIVE) continue;
        if (note->kind == CALL_SEND) n_sends++;
        else n_receives++;
        bytes[note->kind] = bytes[note->kind] * 31 + note->count * type_bytes((ncclDataType_t)note->type);
    }
    if (n_sends == n_receives && bytes[0] == bytes[1]) return ncclSuccess;
    return refuse(ncclInvalidUsage, "rank %d: %llu sends to itself and %llu receives from itself in one group, or of other sizes",
                  p->comm->rank, (unsigned long long)n_sends, (unsigned long long)n_receives);
}

static ncclResult_t put_part(part *p)
{
    ncclComm_t   c = p->comm;
    ncclResult_t result = check_own(p);
    launch      *l = calloc(1, sizeof(*l));
    if (result != ncclSuccess || l == NULL) {
        free(p->calls);
        free(l);
        return result != ncclSuccess ? result : ncclSystemError;
    }
    *l = (launch){.comm = c, .calls = p->calls, .n_calls = p->n_calls};
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < p->n_calls; i++) {
        call_note *note = &p->calls[i].note;
        if (note->kind == CALL_SEND) note->index = c->peers[note->peer].n_sends++;
        else if (note->kind == CALL_RECEIVE) note->index = c->peers[note->peer].n_receives++;
        else note->index = c->n_collectives++;
    }
    l->turn = c->n_put++;
    c->n_users++;
    result = c->result;
    pthread_mutex_unlock(&c->lock);
    const cudaError_t error = vgpu_enqueue(p->stream, "NCCL", launch_step, l, launch_free, VGPU_EXTERNAL);
    if (error != cudaSuccess) return refuse(ncclUnhandledCudaError, "rank %d: %s", c->rank, cudaGetErrorString(error));
    return result;
}

ncclResult_t ncclGroupStart(void)
{
    if (depth++ == 0) group_result = ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (--depth > 0) return ncclSuccess;
    ncclResult_t result = group_result;
    for (int i = 0; i < n_parts; i++) {
        const ncclResult_t put = result == ncclSuccess ? put_part(&parts[i]) : (free(parts[i].calls), result);
        if (result == ncclSuccess) result = put;
    }
    free(parts);
    parts = NULL;
    n_parts = 0;
    return result;
}

static part *part_of(ncclComm_t c, cudaStream_t stream)
{
    for (int i = 0; i < n_parts; i++)
        if (parts[i].comm == c) return &parts[i];
    part *grown = realloc(parts, (size_t)(n_parts + 1) * sizeof(*parts));
    if (grown == NULL) return NULL;
    parts = grown;
    parts[n_parts] = (part){.comm = c, .stream = stream};
    return &parts[n_parts++];
}

static ncclResult_t check_call(const nccl_call *call, ncclComm_t c, cudaStream_t stream)
{
    const call_note *note = &call->note;
    char             text[128];
    if (!is_comm(c)) return refuse(ncclInvalidArgument, "not a communicator");
    if (type_bytes((ncclDataType_t)note->type) == 0 || note->op < 0 || note->op >= ncclNumOps)
        return refuse(ncclInvalidArgument, "rank %d: type %d, operation %d", c->rank, note->type, note->op);
    call_describe(note, text, sizeof(text));
    if (note->peer < -1 || note->peer >= c->n || (note->peer < 0 && note->kind <= CALL_BROADCAST))
        return refuse(ncclInvalidArgument, "rank %d: %s: there are %d ranks", c->rank, text, c->n);
    const bool reads = note->kind != CALL_RECEIVE && (note->kind != CALL_BROADCAST || note->peer == c->rank);
    if (note->count > 0 && ((reads && call->from == NULL) || (note->kind != CALL_SEND && call->to == NULL)))
        return refuse(ncclInvalidArgument, "rank %d: %s: a buffer is NULL", c->rank, text);
    if ((note->kind == CALL_ALL_REDUCE || note->kind == CALL_REDUCE_SCATTER) && note->type == ncclFloat16)
        return refuse(ncclInvalidArgument, "rank %d: %s: not in this replacement", c->rank, text);
    if (vgpu_stream_device(stream) != c->device)
        return refuse(ncclInvalidUsage, "rank %d: %s: the stream is not one of device %d", c->rank, text, c->device);
    if (c->finalized) return refuse(ncclInvalidUsage, "rank %d: %s: the communicator is finalized", c->rank, text);
    return ncclSuccess;
}

static ncclResult_t add(nccl_call call, ncclComm_t c, cudaStream_t stream)
{
    ncclGroupStart();
    ncclResult_t result = check_call(&call, c, stream);
    part        *p = result == ncclSuccess ? part_of(c, stream) : NULL;
    if (result == ncclSuccess && p == NULL) result = ncclSystemError;
    if (result == ncclSuccess && p->stream != stream)
        result = refuse(ncclInvalidUsage, "rank %d: two streams in one group: not in this replacement", c->rank);
    if (result == ncclSuccess && p->n_calls == p->room) {
        const int    room = 2 * p->room + 4;
        nccl_call *grown = realloc(p->calls, (size_t)room * sizeof(*grown));
        if (grown != NULL) {
            p->calls = grown;
            p->room = room;
        } else {
            result = ncclSystemError;
        }
    }
    if (result == ncclSuccess) p->calls[p->n_calls++] = call;
    if (group_result == ncclSuccess) group_result = result;
    const ncclResult_t ended = ncclGroupEnd();
    return result != ncclSuccess ? result : ended;
}

static call_note note_of(call_kind kind, size_t count, ncclDataType_t type, int peer, ncclRedOp_t op)
{
    return (call_note){.kind = (int32_t)kind, .type = (int32_t)type, .op = (int32_t)op, .peer = peer, .count = count};
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_SEND, count, type, peer, ncclSum), .from = from}, c, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_RECEIVE, count, type, peer, ncclSum), .to = to}, c, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_BROADCAST, count, type, root, ncclSum), .from = from, .to = to}, c, stream);
}

ncclResult_t ncclBcast(void *buff, size_t count, ncclDataType_t type, int root, ncclComm_t c, cudaStream_t stream)
{
    return ncclBroadcast(buff, buff, count, type, root, c, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t c, cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_ALL_GATHER, count, type, -1, ncclSum), .from = from, .to = to}, c, stream);
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_ALL_REDUCE, count, type, -1, op), .from = from, .to = to}, c, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                               cudaStream_t stream)
{
    return add((nccl_call){.note = note_of(CALL_REDUCE_SCATTER, count, type, -1, op), .from = from, .to = to}, c, stream);
}
