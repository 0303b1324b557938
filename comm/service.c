#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rank 0 is asked by all; the others only look for answers. About 0.1 % and 0.05 % of a core (Zen 5, two ranks). */
static const double POLL_S[] = {0.05, 0.1};
static const double POLL_ASKING_S = 0.001;

status service_send(service *s, int to, packet_head head, const void *body, size_t bytes)
{
    char *packet = malloc(sizeof(head) + bytes);
    if (packet == NULL) return err_set(ST_NO_MEMORY, "service: message of %zu bytes", bytes);
    memcpy(packet, &head, sizeof(head));
    if (bytes > 0) memcpy(packet + sizeof(head), body, bytes);
    status st = s->transport->post(s->transport, to, packet, sizeof(head) + bytes);
    free(packet);
    return st;
}

/* ---- the thread */

static status receive(service *s, int from, const char *packet, size_t bytes)
{
    packet_head head;
    if (bytes < sizeof(head)) return err_set(ST_COMM, "service: %zu bytes from rank %d, want %zu", bytes, from, sizeof(head));
    memcpy(&head, packet, sizeof(head));
    if (head.kind == PACKET_RECORD) return watchdog_receive(s, from, packet + sizeof(head), bytes - sizeof(head));
    if (head.kind != PACKET_BYE) return clerk_receive(s, from, head, packet + sizeof(head), bytes - sizeof(head));
    pthread_mutex_lock(&s->lock);
    s->n_byes++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return ST_OK;
}

static status receive_all(service *s)
{
    for (;;) {
        int    from = 0;
        void  *packet = NULL;
        size_t bytes = 0;
        status st = s->transport->poll(s->transport, &from, &packet, &bytes);
        if (st == ST_OK && packet == NULL) return ST_OK;
        if (st == ST_OK) st = receive(s, from, packet, bytes);
        free(packet);
        if (st != ST_OK) return st;
    }
}

/* With the lock; not when the end has come already. */
static void sleep_until_nudged(service *s, double seconds)
{
    if (s->over) return;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    const int64_t ns = at.tv_nsec + (int64_t)(seconds * 1e9);
    at.tv_sec += ns / 1000000000;
    at.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(&s->nudge, &s->lock, &at);
}

static void *serve(void *arg)
{
    service   *s = arg;
    transport *t = s->transport;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        sleep_until_nudged(s, s->desk.asking ? POLL_ASKING_S : POLL_S[t->rank != 0]);
        pthread_mutex_unlock(&s->lock);
        if (receive_all(s) != ST_OK) { /* no rank can rely on this channel any more */
            fprintf(stderr, "dype-dist: rank %d (%s): %s\n", t->world_rank, t->host, err_text());
            t->abort(t, ST_COMM);
        }
        pthread_mutex_lock(&s->lock);
        /* Rank 0's goodbye is the last message; rank 0 itself leaves when it has said it. */
        const bool goes_on = !s->over && (t->rank == 0 || s->n_byes == 0);
        pthread_mutex_unlock(&s->lock);
        if (!goes_on) return NULL;
        channel_tick(s);
        watchdog_tick(s);
    }
}

/* ---- open and close */

static void release(service *s)
{
    pthread_cond_destroy(&s->changed);
    pthread_cond_destroy(&s->nudge);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->desk.listener_lock);
    pthread_mutex_destroy(&s->channels_lock);
    free(s->desk.n_marks);
    watchdog_close(s);
    free(s);
}

status service_open(service **out, transport *t)
{
    status   st = ST_OK;
    service *s = calloc(1, sizeof(*s));
    if (s == NULL) return err_set(ST_NO_MEMORY, "service: %zu bytes", sizeof(*s));
    s->transport = t;
    pthread_condattr_t steady;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, NULL);
    pthread_cond_init(&s->nudge, &steady);
    pthread_condattr_destroy(&steady);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->desk.listener_lock, NULL);
    pthread_mutex_init(&s->channels_lock, NULL);
    TRY(watchdog_open(s));
    s->desk.n_marks = calloc((size_t)t->size, sizeof(*s->desk.n_marks));
    if (s->desk.n_marks == NULL) {
        st = err_set(ST_NO_MEMORY, "service: %d ranks", t->size);
        goto fail;
    }
    int error = t->size > 1 ? pthread_create(&s->thread, NULL, serve, s) : 0;
    if (error != 0) {
        st = err_set(ST_NO_MEMORY, "service: no thread: %s", strerror(error));
        goto fail;
    }
    s->has_thread = t->size > 1;
    *out = s;
    return ST_OK;
fail:
    release(s);
    return st;
}

/* Goodbyes gather at rank 0, behind all that was posted; then rank 0's ends all threads. */
static void part(service *s)
{
    transport        *t = s->transport;
    const packet_head bye = {.kind = PACKET_BYE};
    if (t->rank != 0) {
        (void)service_send(s, 0, bye, NULL, 0);
        return;
    }
    pthread_mutex_lock(&s->lock);
    while (s->n_byes < t->size - 1) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    for (int r = 1; r < t->size; r++) (void)service_send(s, r, bye, NULL, 0);
}

void service_close(service *s, bool together)
{
    if (s == NULL) return;
    if (s->has_thread) {
        s->transport->waits->n_now++;
        if (together) part(s);
        if (!together || s->transport->rank == 0) {
            pthread_mutex_lock(&s->lock);
            s->over = true;
            pthread_cond_signal(&s->nudge);
            pthread_mutex_unlock(&s->lock);
        }
        pthread_join(s->thread, NULL);
        s->transport->waits->n_now--;
    }
    release(s);
}
