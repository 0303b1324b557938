#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MESSAGE_BYTES = 2048 };

status comm_open(comm **out, int *argc, char ***argv)
{
    status st = ST_OK;
    comm  *c = calloc(1, sizeof(*c));
    if (c == NULL) return err_set(ST_NO_MEMORY, "comm: %zu bytes", sizeof(*c));
#ifdef WITH_MPI
    st = transport_mpi_open(&c->transport, argc, argv);
#else
    (void)argc, (void)argv;
    st = transport_single_open(&c->transport);
#endif
    if (st != ST_OK) {
        free(c);
        return st;
    }
    c->whole = c;
    c->stages = getenv("DYPE_TEST_STAGE_TRANSFERS") != NULL;
    st = comm_agree(c, service_open(&c->service, c->transport));
    if (st != ST_OK) {
        service_close(c->service, false);
        c->transport->close(c->transport);
        free(c);
        return st;
    }
    *out = c;
    return ST_OK;
}

static status split(comm **out, comm *c, int color, int key, bool by_node)
{
    status st = ST_OK;
    comm  *part = calloc(1, sizeof(*part));
    if (part == NULL) st = err_set(ST_NO_MEMORY, "comm: %zu bytes", sizeof(*part));
    TRY(comm_agree(c, st));
    part->whole = c->whole;
    TRY(c->transport->split(c->transport, by_node ? SPLIT_BY_NODE : color, key, &part->transport));
    *out = part;
    return ST_OK;
fail:
    free(part);
    return st;
}

status comm_split(comm **out, comm *c, int color, int key)
{
    return split(out, c, color, key, false);
}

status comm_split_node(comm **out, comm *c)
{
    return split(out, c, 0, comm_rank(c), true);
}

void comm_close(comm *c)
{
    if (c == NULL) return;
    comm_close_channel(c);
    service_close(c->service, true);
    c->transport->close(c->transport);
    free(c);
}

_Noreturn void comm_abort(comm *c, int exit_code)
{
    channel_abort_all(c->whole->service);
    c->transport->abort(c->transport, exit_code);
    _Exit(exit_code);
}

int comm_rank(const comm *c)
{
    return c->transport->rank;
}

int comm_size(const comm *c)
{
    return c->transport->size;
}

int comm_world_rank(const comm *c)
{
    return c->transport->world_rank;
}

int comm_local_rank(const comm *c)
{
    return c->transport->local_rank;
}

int comm_local_size(const comm *c)
{
    return c->transport->local_size;
}

const char *comm_host(const comm *c)
{
    return c->transport->host;
}

double comm_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t comm_exchange_bytes(const comm *c)
{
    return c->whole->exchange_bytes;
}

void comm_count_bytes(comm *c, int64_t sent)
{
    c->whole->exchange_bytes += sent;
}

status comm_agree(comm *c, status mine)
{
    transport *t = c->transport;
    if (t->size == 1) return mine;
    /* Healthy ranks say t->size; so the minimum is the lowest failing rank. */
    int    lowest = mine == ST_OK ? t->size : t->rank, unused = 0;
    status st = t->min_max(t, &lowest, &unused);
    if (st != ST_OK || lowest == t->size) return st;
    struct {
        int  code;
        char text[MESSAGE_BYTES];
    } report = {.code = (int)mine};
    if (t->rank == lowest) {
        /* A message that already names its rank has been agreed on before. */
        if (strncmp(err_text(), "rank ", 5) == 0)
            snprintf(report.text, sizeof(report.text), "%s", err_text());
        else
            snprintf(report.text, sizeof(report.text), "rank %d (%s): %s", t->world_rank, t->host, err_text());
    }
    st = t->bcast(t, lowest, &report, sizeof(report));
    return st != ST_OK ? st : err_set((status)report.code, "%s", report.text);
}

status comm_same(comm *c, status failure, const char *what, const char *text)
{
    transport *t = c->transport;
    char       first[MESSAGE_BYTES] = "";
    snprintf(first, sizeof(first), "%s", text);
    status st = t->bcast(t, 0, first, sizeof(first));
    if (st == ST_OK && strncmp(first, text, sizeof(first) - 1) != 0)
        st = err_set(failure, "%s differs: got \"%.200s\", rank 0 has \"%.200s\"", what, text, first);
    return comm_agree(c, st);
}

status comm_distinct(comm *c, status failure, const char *what, const char *text)
{
    typedef struct claim {
        char text[128], host[64];
    } claim;
    status    st = ST_OK;
    const int n = comm_size(c);
    claim     mine = {{0}, {0}}, *all = calloc((size_t)n, sizeof(*all));
    size_t   *bytes = calloc((size_t)n, sizeof(*bytes));
    snprintf(mine.text, sizeof(mine.text), "%s", text);
    snprintf(mine.host, sizeof(mine.host), "%s", comm_host(c));
    TRY(comm_agree(c, all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "%s of %d ranks", what, n)));
    for (int r = 0; r < n; r++) bytes[r] = sizeof(*all);
    TRY(comm_gather(c, 0, &mine, bytes, all));
    for (int b = 1; comm_rank(c) == 0 && b < n && st == ST_OK; b++)
        for (int a = 0; a < b && st == ST_OK; a++)
            if (strcmp(all[a].text, all[b].text) == 0 && strcmp(all[a].host, all[b].host) == 0)
                st = err_set(failure, "ranks %d and %d on %s have one %s: %s", a, b, all[a].host, what, all[a].text);
    st = comm_agree(c, st);
fail:
    free(all);
    free(bytes);
    return st;
}

status comm_bcast(comm *c, int root, void *buf, size_t bytes)
{
    return c->transport->bcast(c->transport, root, buf, bytes);
}

status comm_min_int(comm *c, int *value)
{
    int unused = 0;
    return c->transport->min_max(c->transport, value, &unused);
}

status comm_gather(comm *c, int root, const void *mine, const size_t *bytes, void *all)
{
    return c->transport->gather(c->transport, root, mine, bytes, all);
}

status comm_scatter(comm *c, int root, const void *all, const size_t *bytes, void *mine)
{
    return c->transport->scatter(c->transport, root, all, bytes, mine);
}

status comm_send(comm *c, int to, const void *buf, size_t bytes)
{
    return c->transport->send(c->transport, to, buf, bytes);
}

status comm_receive(comm *c, int from, void *buf, size_t bytes)
{
    return c->transport->receive(c->transport, from, buf, bytes);
}

status comm_open_channel(comm *c, device *dev, const char **how)
{
    const bool on_gpu = device_kind_of(dev) == DEVICE_CUDA, staged = on_gpu || c->whole->stages;
    if (how != NULL) *how = on_gpu ? "MPI, staged in host memory" : "MPI";
#ifdef WITH_NCCL
    if (on_gpu && !c->whole->stages) {
        if (how != NULL) *how = "NCCL";
        return c->channel != NULL || comm_size(c) == 1 ? ST_OK : channel_nccl_open(&c->channel, c, dev);
    }
#endif
    if (c->channel != NULL || comm_size(c) == 1) return ST_OK;
    return comm_agree(c, channel_host_open(&c->channel, c, dev, staged));
}

void comm_close_channel(comm *c)
{
    if (c->channel != NULL) c->channel->close(c->channel);
    c->channel = NULL;
}

/* A rank alone has nobody to send to, whatever its device. */
static status lacks_channel(const message *list, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i].bytes > 0)
            return err_set(ST_COMM, "%zu bytes for or from rank %d: no channel is open", list[i].bytes, list[i].peer);
    return ST_OK;
}

status comm_put_swap(comm *c, stream *s, const message *sends, int n_sends, const message *receives, int n_receives,
                     const travel_log *log)
{
    if (c->channel != NULL) return c->channel->swap(c->channel, s, sends, n_sends, receives, n_receives, log);
    const status st = lacks_channel(sends, n_sends);
    return st != ST_OK ? st : lacks_channel(receives, n_receives);
}

status comm_put_chain(comm *c, stream *s, int root, void *buf, size_t bytes, const travel_log *log)
{
    if (c->channel != NULL) return c->channel->chain(c->channel, s, root, buf, bytes, log);
    return comm_size(c) == 1 ? ST_OK : err_set(ST_COMM, "%zu bytes from rank %d: no channel is open", bytes, root);
}
