#include "channel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* ---- the host channel: the stream calls the transport */

typedef struct host_channel {
    channel        base;
    event         *last; /* end of the last transfer: they follow each other also on different streams, so that messages
                          * of two do not meet the wrong ones and the stage has one user at a time */
    bool           staged;
    unsigned char *stage; /* for what the host cannot reach */
    size_t         stage_bytes;
    message       *list; /* [MAX_MESSAGES] of the call that runs */
} host_channel;

typedef struct chain_work {
    comm      *comm;
    int        root;
    void      *buf;
    size_t     bytes;
    travel_log log;
} chain_work;

static void tell_travel(comm *c, const travel_log *log, double began, int64_t sent)
{
    if (log->seconds != NULL) *log->seconds += comm_now() - began;
    comm_count_bytes(c, sent);
}

static status do_chain(void *args)
{
    const chain_work *work = args;
    transport        *t = work->comm->transport;
    const double      began = comm_now();
    int64_t           sent = 0;
    if (work->log.hop >= 0) watchdog_hop(work->comm, work->log.hop);
    status st = t->chain(t, work->root, work->buf, work->bytes, &sent);
    tell_travel(work->comm, &work->log, began, sent);
    return st;
}

/* Lists of few messages travel in the work itself. */
typedef struct swap_work {
    host_channel  *channel;
    const message *sends, *receives; /* NULL: in few, sends first */
    int            n_sends, n_receives;
    travel_log     log;
    message        few[COMM_FEW];
} swap_work;

_Static_assert(sizeof(swap_work) <= STREAM_CALL_BYTES, "arguments of a swap");

/* The same messages, one after the other in the stage. */
static const message *at_stage(const host_channel *c, const message *list, int n, int n_before, size_t *at)
{
    message *out = c->list + n_before;
    for (int i = 0; i < n; i++) {
        out[i] = (message){list[i].peer, c->stage + *at, list[i].bytes};
        *at += list[i].bytes;
    }
    return out;
}

static status do_swap(void *args)
{
    const swap_work *work = args;
    comm            *c = work->channel->base.comm;
    transport       *t = c->transport;
    const message   *sends = work->sends != NULL ? work->sends : work->few;
    const message   *receives = work->receives != NULL ? work->receives : work->few + work->n_sends;
    const double     began = comm_now();
    size_t           at = 0;
    int64_t          sent = 0;
    if (work->channel->staged) {
        sends = at_stage(work->channel, sends, work->n_sends, 0, &at);
        receives = at_stage(work->channel, receives, work->n_receives, work->n_sends, &at);
    }
    if (work->log.hop >= 0) watchdog_hop(c, work->log.hop);
    status st = t->swap(t, sends, work->n_sends, receives, work->n_receives, &sent);
    tell_travel(c, &work->log, began, sent);
    return st;
}

/* Once per size: what is put on s before may still use the old stage. */
static status grow_stage(host_channel *c, stream *s, size_t bytes)
{
    status st = ST_OK;
    if (bytes <= c->stage_bytes) return ST_OK;
    TRY(stream_sync(s));
    free(c->stage);
    c->stage = malloc(bytes);
    c->stage_bytes = c->stage != NULL ? bytes : 0;
    if (c->stage == NULL) st = err_set(ST_NO_MEMORY, "stage of messages: %zu bytes", bytes);
fail:
    return st;
}

static status host_chain(channel *base, stream *s, int root, void *buf, size_t bytes, const travel_log *log)
{
    status        st = ST_OK;
    host_channel *c = (host_channel *)base;
    chain_work    work = {base->comm, root, buf, bytes, *log};
    const bool    is_root = comm_rank(base->comm) == root;
    TRY(stream_wait(s, c->last));
    if (c->staged) {
        TRY(grow_stage(c, s, bytes));
        work.buf = c->stage;
    }
    if (c->staged && is_root) TRY(stream_copy_out(s, c->stage, buf, bytes));
    TRY(stream_call(s, do_chain, &work, sizeof(work)));
    if (c->staged && !is_root) TRY(stream_copy_in(s, buf, c->stage, bytes));
    TRY(event_record(c->last, s));
fail:
    return st;
}

static status put_staged_swap(host_channel *c, stream *s, const swap_work *work, const message *sends,
                              const message *receives)
{
    status st = ST_OK;
    size_t bytes = 0, at = 0;
    if (work->n_sends + work->n_receives > MAX_MESSAGES)
        return err_set(ST_COMM, "swap: more than %d messages", MAX_MESSAGES);
    for (int i = 0; i < work->n_sends; i++) bytes += sends[i].bytes;
    for (int i = 0; i < work->n_receives; i++) bytes += receives[i].bytes;
    TRY(grow_stage(c, s, bytes));
    for (int i = 0; i < work->n_sends; at += sends[i++].bytes)
        TRY(stream_copy_out(s, c->stage + at, sends[i].data, sends[i].bytes));
    TRY(stream_call(s, do_swap, work, sizeof(*work)));
    for (int i = 0; i < work->n_receives; at += receives[i++].bytes)
        TRY(stream_copy_in(s, receives[i].data, c->stage + at, receives[i].bytes));
fail:
    return st;
}

static status host_swap(channel *base, stream *s, const message *sends, int n_sends, const message *receives,
                        int n_receives, const travel_log *log)
{
    status        st = ST_OK;
    host_channel *c = (host_channel *)base;
    swap_work     work = {.channel = c, .sends = sends, .receives = receives, .n_sends = n_sends,
                          .n_receives = n_receives, .log = *log};
    if (n_sends + n_receives <= COMM_FEW) {
        work.sends = work.receives = NULL;
        if (n_sends > 0) memcpy(work.few, sends, (size_t)n_sends * sizeof(*sends));
        if (n_receives > 0) memcpy(work.few + n_sends, receives, (size_t)n_receives * sizeof(*receives));
    }
    TRY(stream_wait(s, c->last));
    TRY(c->staged ? put_staged_swap(c, s, &work, sends, receives) : stream_call(s, do_swap, &work, sizeof(work)));
    TRY(event_record(c->last, s));
fail:
    return st;
}

static void host_close(channel *base)
{
    host_channel *c = (host_channel *)base;
    if (c->last != NULL) event_close(c->last);
    free(c->stage);
    free(c->list);
    free(c);
}

status channel_host_open(channel **out, comm *c, device *dev, bool staged)
{
    status        st = ST_OK;
    host_channel *h = calloc(1, sizeof(*h));
    if (h == NULL) return err_set(ST_NO_MEMORY, "channel: %zu bytes", sizeof(*h));
    h->base = (channel){.comm = c, .close = host_close, .chain = host_chain, .swap = host_swap};
    h->staged = staged;
    TRY(event_open(&h->last, dev));
    if (staged) h->list = calloc(MAX_MESSAGES, sizeof(*h->list));
    if (staged && h->list == NULL) {
        st = err_set(ST_NO_MEMORY, "channel: %d messages", MAX_MESSAGES);
        goto fail;
    }
    *out = &h->base;
    return ST_OK;
fail:
    host_close(&h->base);
    return st;
}

/* ---- the service thread's eye on channels */

void channel_watch(service *s, channel *c)
{
    pthread_mutex_lock(&s->channels_lock);
    c->next = s->channels;
    s->channels = c;
    pthread_mutex_unlock(&s->channels_lock);
}

void channel_forget(service *s, channel *c)
{
    pthread_mutex_lock(&s->channels_lock);
    for (channel **at = &s->channels; *at != NULL; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    pthread_mutex_unlock(&s->channels_lock);
}

void channel_abort_all(service *s)
{
    if (s == NULL) return;
    pthread_mutex_lock(&s->channels_lock);
    while (s->channels != NULL) {
        channel *c = s->channels;
        s->channels = c->next;
        c->abort(c);
    }
    pthread_mutex_unlock(&s->channels_lock);
}

void channel_tick(service *s)
{
    status st = ST_OK;
    pthread_mutex_lock(&s->channels_lock);
    for (channel *c = s->channels; c != NULL && st == ST_OK; c = c->next) st = c->check(c);
    pthread_mutex_unlock(&s->channels_lock);
    if (st == ST_OK) return;
    /* Others may wait on their devices for what never comes: no agreement is possible any more. */
    watchdog_last_resort();
    char  *text = NULL;
    size_t n_text = 0;
    FILE  *out = open_memstream(&text, &n_text);
    if (out != NULL) {
        fprintf(out, ": ");
        watchdog_tell_place(s, out);
        fclose(out);
    }
    fprintf(stderr, "dype-dist: rank %d (%s): %s%s\n", s->transport->world_rank, s->transport->host, err_text(),
            text != NULL ? text : "");
    channel_abort_all(s);
    s->transport->abort(s->transport, ST_COMM);
    _Exit(ST_COMM);
}
