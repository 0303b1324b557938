/* One process alone: every collective is the identity. */
#include "transport.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Nobody waits here, and nobody looks. */
static transport_waits no_waits;

static void single_close(transport *t)
{
    free(t);
}

static void single_abort(transport *t, int exit_code)
{
    (void)t;
    _exit(exit_code);
}

static status single_bcast(transport *t, int root, void *buf, size_t bytes)
{
    (void)t, (void)root, (void)buf, (void)bytes;
    return ST_OK;
}

static status single_min_max(transport *t, int *min_value, int *max_value)
{
    (void)t, (void)min_value, (void)max_value;
    return ST_OK;
}

static status single_move(transport *t, int root, const void *from, const size_t *bytes, void *to)
{
    (void)t, (void)root;
    if (bytes[0] > 0) memmove(to, from, bytes[0]);
    return ST_OK;
}

static status single_chain(transport *t, int root, void *buf, size_t bytes, int64_t *sent)
{
    (void)t, (void)root, (void)buf, (void)bytes, (void)sent;
    return ST_OK;
}

/* Nobody else is there to send to. */
static status single_send(transport *t, int to, const void *buf, size_t bytes)
{
    (void)t, (void)buf;
    return err_set(ST_COMM, "%zu bytes for rank %d of a group of one", bytes, to);
}

static status single_receive(transport *t, int from, void *buf, size_t bytes)
{
    return single_send(t, from, buf, bytes);
}

static status single_swap(transport *t, const message *sends, int n_sends, const message *receives, int n_receives,
                          int64_t *sent)
{
    (void)sent;
    for (int i = 0; i < n_sends; i++)
        if (sends[i].bytes > 0) return single_send(t, sends[i].peer, sends[i].data, sends[i].bytes);
    for (int i = 0; i < n_receives; i++)
        if (receives[i].bytes > 0) return single_send(t, receives[i].peer, receives[i].data, receives[i].bytes);
    return ST_OK;
}

static status single_post(transport *t, int to, const void *buf, size_t bytes)
{
    return single_send(t, to, buf, bytes);
}

static status single_poll(transport *t, int *from, void **buf, size_t *bytes)
{
    (void)t, (void)from, (void)bytes;
    *buf = NULL;
    return ST_OK;
}

static status single_split(transport *t, int color, int key, transport **out)
{
    (void)t, (void)color, (void)key;
    return transport_single_open(out);
}

status transport_single_open(transport **out)
{
    transport *t = calloc(1, sizeof(*t));
    if (t == NULL) return err_set(ST_NO_MEMORY, "transport: %zu bytes", sizeof(*t));
    t->size = t->local_size = 1;
    t->waits = &no_waits;
    if (gethostname(t->host, sizeof(t->host) - 1) != 0) strcpy(t->host, "localhost");
    t->close = single_close;
    t->abort = single_abort;
    t->bcast = single_bcast;
    t->min_max = single_min_max;
    t->gather = single_move;
    t->scatter = single_move;
    t->chain = single_chain;
    t->swap = single_swap;
    t->send = single_send;
    t->receive = single_receive;
    t->split = single_split;
    t->post = single_post;
    t->poll = single_poll;
    *out = t;
    return ST_OK;
}
