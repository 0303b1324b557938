/* Sockets between all ranks of a communicator. A frame is a head and its body; the bytes of a transfer follow their frame
 * straight from and to where they lie. Nothing here waits, but for opening and splitting. */
#include "nccl_comm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What ranks tell each other first. */
typedef struct hello {
    uint32_t magic;
    int32_t  rank, n;
    char     device[32];
} hello;

static const uint32_t MAGIC = 0x4c434356;

/* ---- frames out */

static void put_bytes(nccl_peer *p, const void *bytes, size_t n)
{
    if (p->out_at > 0) {
        memmove(p->out, p->out + p->out_at, p->n_out - p->out_at);
        p->n_out -= p->out_at;
        p->out_at = 0;
    }
    if (p->n_out + n > p->out_room) {
        p->out_room = 2 * (p->n_out + n);
        p->out = realloc(p->out, p->out_room);
        if (p->out == NULL) abort(); /* some hundred bytes */
    }
    if (n > 0) memcpy(p->out + p->n_out, bytes, n);
    p->n_out += n;
}

void mesh_put(nccl_peer *p, frame_kind kind, const void *body, size_t bytes)
{
    const frame head = {.kind = kind, .bytes = bytes};
    put_bytes(p, &head, sizeof(head));
    put_bytes(p, body, bytes);
}

/* The bytes of a transfer that are still to go or to come, as the device's memory is now. NULL: told as a fault. */
static unsigned char *bytes_left(const transfer *t)
{
    unsigned char *base = t->host;
    if (base == NULL)
        base = vgpu_memory((const void *)t->at, t->bytes, VGPU_ADDRESS, t->out ? "NCCL: data to send" : "NCCL: place of arriving data");
    return base != NULL ? base + t->done : NULL;
}

/* Whether something moved. */
static bool write_some(ncclComm_t c, int rank, launch *l)
{
    nccl_peer *p = &c->peers[rank];
    bool  moved = false;
    while (!p->gone && !p->deaf) {
        const unsigned char *from = p->out + p->out_at;
        size_t               n = p->n_out - p->out_at;
        if (n == 0 && p->writing == NULL) {
            for (int i = 0; l != NULL && i < l->n_transfers && p->writing == NULL; i++) {
                transfer *t = &l->transfers[i];
                if (t->out && t->peer == rank && t->met && t->done < t->bytes) p->writing = t;
            }
            if (p->writing == NULL) return moved;
            const call_note *note = &p->writing->of->note;
            const frame      head = {.kind = FRAME_DATA, .stream = (uint32_t)(note->kind == CALL_SEND ? CALL_RECEIVE : note->kind),
                                     .index = note->index, .bytes = p->writing->bytes};
            put_bytes(p, &head, sizeof(head));
            continue;
        }
        if (n == 0) {
            from = bytes_left(p->writing);
            if (from == NULL) {
                comm_fail(c, ncclUnhandledCudaError, "rank %d: memory of a call is gone", c->rank);
                return true;
            }
            n = p->writing->bytes - p->writing->done;
        }
        const ssize_t sent = send(p->fd, from, n, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return moved;
        if (sent < 0) { /* what it has said before may still be read */
            p->deaf = true;
            return moved;
        }
        moved = true;
        if (p->out_at < p->n_out) {
            p->out_at += (size_t)sent;
            continue;
        }
        p->writing->done += (size_t)sent;
        if (p->writing->done == p->writing->bytes) p->writing = NULL;
    }
    return moved;
}

/* ---- frames in */

static void take_body(ncclComm_t c, int rank)
{
    nccl_peer *p = &c->peers[rank];
    if (p->head.kind == FRAME_NOTE) {
        if (p->n_notes == p->notes_room) {
            p->notes_room = 2 * p->notes_room + 8;
            p->notes = realloc(p->notes, (size_t)p->notes_room * sizeof(*p->notes));
            if (p->notes == NULL) abort();
        }
        memcpy(&p->notes[p->n_notes++], p->body, sizeof(call_note));
        p->all_told = false;
    } else if (p->head.kind == FRAME_THESE_ARE_ALL) {
        p->all_told = true;
    } else if (p->head.kind == FRAME_SPLIT && p->n_splits < SPLITS) {
        memcpy(p->split[p->n_splits++], p->body, sizeof(p->split[0]));
    } else if (p->head.kind == FRAME_VERDICT) {
        memcpy(&p->verdict, p->body, sizeof(p->verdict));
    } else if (p->head.kind == FRAME_BYE) {
        p->bye = true;
    } else {
        comm_fail(c, ncclInternalError, "rank %d: frame %u of rank %d", c->rank, p->head.kind, rank);
    }
}

static transfer *find_arriving(launch *l, int rank, const frame *head)
{
    for (int i = 0; l != NULL && i < l->n_transfers; i++) {
        transfer *t = &l->transfers[i];
        if (!t->out && t->peer == rank && (uint32_t)t->of->note.kind == head->stream && t->of->note.index == head->index &&
            t->bytes == head->bytes)
            return t;
    }
    return NULL;
}

static bool read_some(ncclComm_t c, int rank, launch *l)
{
    nccl_peer *p = &c->peers[rank];
    bool  moved = false;
    while (!p->gone) {
        transfer      *t = NULL;
        unsigned char *to = (unsigned char *)&p->head + p->head_at;
        size_t         n = sizeof(p->head) - p->head_at;
        if (n == 0 && p->head.kind == FRAME_DATA) {
            t = find_arriving(l, rank, &p->head);
            if (t == NULL) {
                if (l == NULL) return moved; /* it waits until that launch runs */
                comm_fail(c, ncclInternalError, "rank %d: %llu bytes of rank %d that nobody waits for", c->rank,
                          (unsigned long long)p->head.bytes, rank);
                return true;
            }
            to = bytes_left(t);
            n = t->bytes - t->done;
            if (to == NULL) {
                comm_fail(c, ncclUnhandledCudaError, "rank %d: memory of a call is gone", c->rank);
                return true;
            }
        } else if (n == 0) {
            to = p->body + p->body_at;
            n = p->head.bytes - p->body_at;
        }
        const ssize_t got = n > 0 ? recv(p->fd, to, n, 0) : 0;
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return moved;
        if (got < 0 || (got == 0 && n > 0)) {
            p->gone = true; /* whoever waits for it tells */
            return true;
        }
        moved = true;
        if (t != NULL) {
            t->done += (size_t)got;
            if (t->done == t->bytes) p->head_at = 0;
        } else if (p->head_at < sizeof(p->head)) {
            p->head_at += (size_t)got;
            p->body_at = 0;
            if (p->head_at == sizeof(p->head) && p->head.kind != FRAME_DATA && p->head.bytes > BODY_BYTES) {
                comm_fail(c, ncclInternalError, "rank %d: frame of %llu bytes", c->rank, (unsigned long long)p->head.bytes);
                return true;
            }
        } else {
            p->body_at += (size_t)got;
        }
        if (t == NULL && p->head_at == sizeof(p->head) && p->head.kind != FRAME_DATA && p->body_at == p->head.bytes) {
            take_body(c, rank);
            p->head_at = 0;
        }
    }
    return moved;
}

bool mesh_pump(ncclComm_t c, launch *l)
{
    bool moved = false;
    for (int r = 0; r < c->n; r++) {
        if (r == c->rank) continue;
        moved |= write_some(c, r, l);
        moved |= read_some(c, r, l);
    }
    return moved;
}

/* ---- opening */

static socklen_t address_of(struct sockaddr_un *a, const char *name, int rank)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "%s-%d", name, rank); /* abstract: no file */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool exchange_all(int fd, const hello *mine, hello *theirs, double until)
{
    size_t sent = 0, got = 0;
    while (sent < sizeof(*mine) || got < sizeof(*theirs)) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < sizeof(*mine) ? POLLOUT : 0))};
        if (nccl_now() > until || poll(&p, 1, 100) < 0) return false;
        if (sent < sizeof(*mine) && (p.revents & POLLOUT) != 0) {
            const ssize_t n = send(fd, (const char *)mine + sent, sizeof(*mine) - sent, MSG_NOSIGNAL);
            if (n > 0) sent += (size_t)n;
        }
        if ((p.revents & (POLLIN | POLLHUP)) != 0) {
            const ssize_t n = recv(fd, (char *)theirs + got, sizeof(*theirs) - got, 0);
            if (n == 0 || (n < 0 && errno != EAGAIN)) return false;
            if (n > 0) got += (size_t)n;
        }
    }
    return theirs->magic == MAGIC;
}

static int connect_to(const char *name, int rank, double until)
{
    struct sockaddr_un a;
    while (nccl_now() < until) {
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) return -1;
        const socklen_t n = address_of(&a, name, rank);
        if (connect(fd, (const struct sockaddr *)&a, n) == 0) return fd;
        close(fd);
        usleep(2000); /* it is not there yet */
    }
    return -1;
}

static ncclResult_t join_all(ncclComm_t c, int listener, double until)
{
    const hello mine = {.magic = MAGIC, .rank = c->rank, .n = c->n, .device = {0}};
    hello       me = mine, theirs;
    memcpy(me.device, c->device_id, sizeof(me.device));
    for (int k = 0; k < c->n; k++) {
        if (k == c->rank) continue;
        struct pollfd p = {.fd = listener, .events = POLLIN};
        int           fd = -1;
        if (k < c->rank)
            fd = connect_to(c->name, k, until);
        else
            while (fd < 0 && nccl_now() < until)
                if (poll(&p, 1, 100) > 0) fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return comm_fail(c, ncclSystemError, "ncclCommInitRank: rank %d of %d: not all ranks came within %g s", c->rank,
                             c->n, nccl_timeout_s());
        fcntl(fd, F_SETFL, O_NONBLOCK);
        if (!exchange_all(fd, &me, &theirs, until)) {
            close(fd);
            return comm_fail(c, ncclRemoteError, "ncclCommInitRank: rank %d of %d: a rank went while it joined", c->rank, c->n);
        }
        const bool known = theirs.rank >= 0 && theirs.rank < c->n && theirs.rank != c->rank && c->peers[theirs.rank].fd < 0;
        if (!known || theirs.n != c->n) {
            close(fd);
            return comm_fail(c, ncclInvalidUsage, "ncclCommInitRank: rank %d says %d ranks, rank %d says %d", c->rank, c->n,
                             theirs.rank, theirs.n);
        }
        c->peers[theirs.rank].fd = fd;
        memcpy(c->peers[theirs.rank].device, theirs.device, sizeof(theirs.device));
    }
    return ncclSuccess;
}

static bool verdict_there(const nccl_peer *p)
{
    return p->verdict >= 0;
}

bool mesh_await(ncclComm_t c, bool (*there)(const nccl_peer *p))
{
    const double until = nccl_now() + nccl_timeout_s();
    while (nccl_now() < until && c->result == ncclSuccess && !c->aborted) {
        bool all = true;
        mesh_pump(c, NULL);
        for (int r = 0; r < c->n; r++) {
            all &= r == c->rank || there(&c->peers[r]);
            if (r != c->rank && c->peers[r].gone && !there(&c->peers[r]))
                comm_fail(c, ncclRemoteError, "rank %d of %d: rank %d is gone", c->rank, c->n, r);
        }
        if (all) return true;
        pthread_mutex_unlock(&c->lock);
        usleep(500);
        pthread_mutex_lock(&c->lock);
    }
    return false;
}

/* As NCCL has it: no device has two ranks of a communicator. All ranks fail together. */
static ncclResult_t compare_devices(ncclComm_t c)
{
    int  mine = 0;
    char message[sizeof(c->message)];
    for (int r = 0; r < c->n; r++)
        if (r != c->rank && strcmp(c->peers[r].device, c->device_id) == 0) {
            comm_fail(c, ncclInvalidUsage, "Duplicate GPU detected: rank %d and rank %d both on CUDA device %s", c->rank, r,
                      c->device_id);
            mine = 1;
        }
    const ncclResult_t ours = c->result;
    memcpy(message, c->message, sizeof(message));
    c->result = ncclSuccess; /* until all have heard */
    for (int r = 0; r < c->n; r++)
        if (r != c->rank) mesh_put(&c->peers[r], FRAME_VERDICT, &mine, sizeof(mine));
    const bool all = mesh_await(c, verdict_there);
    if (ours != ncclSuccess) {
        memcpy(c->message, message, sizeof(message));
        return c->result = ours;
    }
    if (!all) return comm_fail(c, ncclRemoteError, "ncclCommInitRank: rank %d of %d: a rank went while it joined", c->rank, c->n);
    for (int r = 0; r < c->n; r++)
        if (r != c->rank && c->peers[r].verdict > 0)
            return comm_fail(c, ncclInvalidUsage, "ncclCommInitRank: rank %d of %d: rank %d shares its device with another rank",
                             c->rank, c->n, r);
    return ncclSuccess;
}

ncclResult_t mesh_open(ncclComm_t c)
{
    struct sockaddr_un a;
    const double       until = nccl_now() + nccl_timeout_s();
    const int          listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const socklen_t    n = address_of(&a, c->name, c->rank);
    ncclResult_t       result = ncclSuccess;
    c->peers = calloc((size_t)c->n, sizeof(*c->peers));
    if (c->peers == NULL) return comm_fail(c, ncclSystemError, "ncclCommInitRank: no memory for %d ranks", c->n);
    for (int r = 0; r < c->n; r++) c->peers[r].fd = c->peers[r].verdict = -1;
    if (listener < 0 || bind(listener, (const struct sockaddr *)&a, n) != 0 || listen(listener, c->n) != 0)
        result = comm_fail(c, errno == EADDRINUSE ? ncclInvalidUsage : ncclSystemError,
                           "ncclCommInitRank: rank %d of %d: %s", c->rank, c->n,
                           errno == EADDRINUSE ? "this rank is there already" : strerror(errno));
    pthread_mutex_lock(&c->lock);
    if (result == ncclSuccess) result = join_all(c, listener, until);
    if (result == ncclSuccess) result = compare_devices(c);
    pthread_mutex_unlock(&c->lock);
    if (listener >= 0) close(listener);
    return result;
}

void mesh_close(ncclComm_t c)
{
    for (int r = 0; c->peers != NULL && r < c->n; r++) {
        if (c->peers[r].fd >= 0) close(c->peers[r].fd);
        free(c->peers[r].out);
        free(c->peers[r].notes);
    }
    free(c->peers);
    c->peers = NULL;
}
