#include "clerk.h"

#include <string.h>

#include "internal.h"

static void tell_listener(clerk_desk *d, int from, int kind, const char *text)
{
    pthread_mutex_lock(&d->listener_lock);
    if (d->listener != NULL) d->listener(d->context, from, kind, text);
    pthread_mutex_unlock(&d->listener_lock);
}

status clerk_receive(service *s, int from, packet_head head, const char *body, size_t bytes)
{
    clerk_desk *d = &s->desk;
    packet_head answer = {.kind = PACKET_TICKET};
    if (head.kind == PACKET_TEXT && bytes > 0 && body[bytes - 1] == '\0') {
        tell_listener(d, from, head.value, body);
        return ST_OK;
    }
    pthread_mutex_lock(&s->lock);
    if (head.kind == PACKET_ASK) answer.value = d->ticket++;
    if (head.kind == PACKET_MARK) d->n_marks[from]++;
    if (head.kind == PACKET_TICKET) {
        d->ticket = head.value;
        d->asking = false;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (head.kind == PACKET_ASK) return service_send(s, from, answer, NULL, 0);
    if (head.kind == PACKET_MARK || head.kind == PACKET_TICKET) return ST_OK;
    return err_set(ST_COMM, "service: message of kind %d and %zu bytes from rank %d", head.kind, bytes, from);
}

status clerk_next(comm *world, int *ticket)
{
    status      st = ST_OK;
    service    *s = world->whole->service;
    clerk_desk *d = &s->desk;
    pthread_mutex_lock(&s->lock);
    if (s->transport->rank == 0) {
        *ticket = d->ticket++;
        pthread_mutex_unlock(&s->lock);
        return ST_OK;
    }
    d->asking = true;
    pthread_mutex_unlock(&s->lock);
    s->transport->waits->n_now++;
    TRY(service_send(s, 0, (packet_head){.kind = PACKET_ASK}, NULL, 0));
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->nudge); /* the thread now polls for the answer */
    while (d->asking) pthread_cond_wait(&s->changed, &s->lock);
    *ticket = d->ticket;
    pthread_mutex_unlock(&s->lock);
    s->transport->waits->n_done++;
fail:
    s->transport->waits->n_now--;
    return st;
}

void clerk_listen(comm *world, clerk_listener listener, void *context)
{
    clerk_desk *d = &world->whole->service->desk;
    pthread_mutex_lock(&d->listener_lock);
    d->listener = listener;
    d->context = context;
    pthread_mutex_unlock(&d->listener_lock);
}

status clerk_post(comm *world, int kind, const char *text)
{
    service *s = world->whole->service;
    if (s->transport->rank != 0)
        return service_send(s, 0, (packet_head){PACKET_TEXT, kind}, text, strlen(text) + 1);
    tell_listener(&s->desk, 0, kind, text);
    return ST_OK;
}

status clerk_settle(comm *world)
{
    service    *s = world->whole->service;
    clerk_desk *d = &s->desk;
    if (s->transport->rank != 0) return service_send(s, 0, (packet_head){.kind = PACKET_MARK}, NULL, 0);
    s->transport->waits->n_now++;
    pthread_mutex_lock(&s->lock);
    d->n_settled++;
    for (int r = 1; r < s->transport->size; r++)
        while (d->n_marks[r] < d->n_settled) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    s->transport->waits->n_now--;
    return ST_OK;
}
