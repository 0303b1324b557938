#include "watchdog.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

static const double BEAT_S = 1.0;      /* between records, or a quarter of the timeout */
static const double WORKING = 0.01;    /* share of a core; less is not taken for work */
static const double HEIRS_WAIT_S = 2.0; /* rank 1 speaks of a silent rank 0; if it is silent too, the others do */
enum { LAST_RESORT_S = 5 };            /* for the message and the orderly abort */

/* ---- where this rank is */

void watchdog_phase(comm *c, const char *picture, const char *phase)
{
    watchdog *w = &c->whole->service->dog;
    pthread_mutex_lock(&w->words_lock);
    snprintf(w->phase, sizeof(w->phase), "%s", phase != NULL ? phase : "");
    snprintf(w->picture, sizeof(w->picture), "%s", phase != NULL && picture != NULL ? picture : "");
    pthread_mutex_unlock(&w->words_lock);
    watchdog_step(c, -1);
    w->news = true; /* whoever stops from now on is to be named with this phase */
    pthread_cond_signal(&c->whole->service->nudge);
}

void watchdog_step(comm *c, int step)
{
    c->whole->service->dog.step = step;
    watchdog_layer(c, -1);
}

void watchdog_layer(comm *c, int layer)
{
    c->whole->service->dog.layer = layer;
    watchdog_hop(c, -1);
}

void watchdog_hop(comm *c, int hop)
{
    c->whole->service->dog.hop = hop;
    c->whole->service->dog.n_places++;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* In the service thread: its own CPU time is not the rank's work. */
static watchdog_motion motion_now(service *s, double now)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (watchdog_motion){
        .progress = s->transport->waits->n_done + s->dog.n_places,
        .work_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - clock_ns(CLOCK_THREAD_CPUTIME_ID) - s->transport->waits->cpu_ns,
        .io = u.ru_majflt + u.ru_inblock + u.ru_oublock,
        .when = now};
}

static watchdog_record record_now(service *s, double now)
{
    watchdog       *w = &s->dog;
    watchdog_record r = {.rank = s->transport->world_rank, .step = w->step, .layer = w->layer, .hop = w->hop};
    /* Before the motion: who is seen not to wait any more is seen to have moved. */
    r.waits = s->transport->waits->n_now;
    const watchdog_motion before = w->motion, motion = motion_now(s, now);
    const double          worked_s = (double)(motion.work_ns - before.work_ns) * 1e-9;
    if (motion.progress != before.progress || motion.io != before.io || worked_s > WORKING * (now - before.when))
        w->moved = now;
    w->motion = motion;
    r.still_s = now - w->moved;
    snprintf(r.host, sizeof(r.host), "%s", s->transport->host);
    pthread_mutex_lock(&w->words_lock);
    memcpy(r.phase, w->phase, sizeof(r.phase));
    memcpy(r.picture, w->picture, sizeof(r.picture));
    pthread_mutex_unlock(&w->words_lock);
    return r;
}

/* ---- verdict */

watchdog_reason watchdog_judge(const watchdog_seat *seats, int n, double now, double timeout_s, bool *silent)
{
    bool unheard = false, still = false, deadlock = true;
    for (int i = 0; i < n; i++) {
        const bool stands = seats[i].record.still_s >= timeout_s;
        unheard |= now - seats[i].heard >= timeout_s;
        still |= stands && seats[i].record.waits == 0;
        deadlock &= stands && seats[i].record.waits > 0;
    }
    for (int i = 0; i < n; i++) {
        if (unheard)
            silent[i] = now - seats[i].heard >= timeout_s;
        else
            silent[i] = deadlock || (seats[i].record.still_s >= timeout_s && seats[i].record.waits == 0);
    }
    if (unheard) return WATCHDOG_NO_RECORD;
    if (still) return WATCHDOG_STILL;
    return deadlock ? WATCHDOG_DEADLOCK : WATCHDOG_FINE;
}

/* "phase denoise, picture alps-7, step 3, layer 12, hop 1" */
static void print_place(FILE *out, const watchdog_record *r)
{
    if (r->phase[0] == '\0') fprintf(out, "between pictures");
    if (r->phase[0] != '\0') fprintf(out, "phase %s", r->phase);
    if (r->picture[0] != '\0') fprintf(out, ", picture %s", r->picture);
    if (r->step >= 0) fprintf(out, ", step %d", r->step);
    if (r->layer >= 0) fprintf(out, ", layer %d", r->layer);
    if (r->hop >= 0) fprintf(out, ", hop %d", r->hop);
}

static void print_alarm(FILE *out, const watchdog_alarm *a, double timeout_s)
{
    if (a->reason == WATCHDOG_DEADLOCK)
        fprintf(out, "watchdog: all ranks wait for each other for %.1f s (limit %g s)", a->silent_s, timeout_s);
    for (int i = 0; i < a->n_ranks; i++) {
        const watchdog_record *r = &a->ranks[i];
        if (a->reason == WATCHDOG_DEADLOCK)
            fprintf(out, "\n  rank %d (%s): ", r->rank, r->host);
        else
            fprintf(out, "%swatchdog: rank %d (%s) is silent for %.1f s (limit %g s; %s): ", i > 0 ? "\n" : "", r->rank,
                    r->host, r->still_s, timeout_s,
                    a->reason == WATCHDOG_STILL ? "it neither works nor waits for others"
                                                : "stopped, or its node or network is gone");
        print_place(out, r);
    }
}

void watchdog_tell_place(service *s, FILE *out)
{
    const watchdog_record r = record_now(s, comm_now());
    print_place(out, &r);
}

/* The message or the abort hangs, on a lock of a stuck thread perhaps: the job ends all the same. */
static void end_at_once(int signal_number)
{
    (void)signal_number;
    _exit(ST_COMM);
}

void watchdog_last_resort(void)
{
    signal(SIGALRM, end_at_once);
    alarm(LAST_RESORT_S);
}

/* w->found[n] has the silent ranks, their still_s how long they have been silent. */
static void sound_alarm(service *s, watchdog_reason reason, int n)
{
    watchdog      *w = &s->dog;
    watchdog_alarm a = {.reason = reason, .ranks = w->found, .n_ranks = n, .text = "watchdog: a rank is silent"};
    char          *text = NULL;
    size_t         n_text = 0;
    watchdog_last_resort();
    for (int i = 0; i < n; i++)
        if (w->found[i].still_s > a.silent_s) a.silent_s = w->found[i].still_s;
    FILE *out = open_memstream(&text, &n_text);
    if (out != NULL) {
        print_alarm(out, &a, w->timeout_s);
        fclose(out);
        a.text = text;
    }
    fprintf(stderr, "dype-dist: %s\n", a.text);
    pthread_mutex_lock(&w->words_lock);
    if (w->listener != NULL) w->listener(w->context, &a);
    pthread_mutex_unlock(&w->words_lock);
    channel_abort_all(s);
    s->transport->abort(s->transport, ST_COMM);
    _exit(ST_COMM);
}

/* Rank 0 judges all, the others only whether rank 0 is still heard; rank 1 first. */
static void judge(service *s, double now)
{
    watchdog             *w = &s->dog;
    const int             rank = s->transport->rank, n = rank == 0 ? s->transport->size : 1;
    const watchdog_reason reason = watchdog_judge(w->seats, n, now, w->timeout_s + (rank > 1 ? HEIRS_WAIT_S : 0), w->silent);
    int                   n_found = 0;
    if (reason == WATCHDOG_FINE || (rank != 0 && reason != WATCHDOG_NO_RECORD)) return;
    for (int i = 0; i < n; i++) {
        if (!w->silent[i]) continue;
        w->found[n_found] = w->seats[i].record;
        if (reason == WATCHDOG_NO_RECORD) w->found[n_found].still_s = now - w->seats[i].heard;
        n_found++;
    }
    sound_alarm(s, reason, n_found);
}

/* ---- records on their way */

status watchdog_receive(service *s, int from, const char *body, size_t bytes)
{
    if (bytes != sizeof(watchdog_record))
        return err_set(ST_COMM, "watchdog: record of %zu bytes from rank %d, want %zu", bytes, from, sizeof(watchdog_record));
    memcpy(&s->dog.seats[from].record, body, bytes);
    s->dog.seats[from].heard = comm_now();
    return ST_OK;
}

static void tell_record(service *s, double now)
{
    const watchdog_record r = record_now(s, now);
    const packet_head     head = {.kind = PACKET_RECORD};
    if (s->transport->rank != 0) {
        (void)service_send(s, 0, head, &r, sizeof(r)); /* who is not heard is named */
        return;
    }
    s->dog.seats[0] = (watchdog_seat){.record = r, .heard = now};
    for (int to = 1; to < s->transport->size; to++) (void)service_send(s, to, head, &r, sizeof(r));
}

/* Time starts anew: at the start, and for a process that was stopped itself and knows nothing of the others. */
static void forgive(service *s, double now)
{
    watchdog *w = &s->dog;
    for (int i = 0; i < s->transport->size; i++) {
        w->seats[i].heard = now;
        w->seats[i].record.still_s = 0;
    }
    w->moved = now;
}

void watchdog_tick(service *s)
{
    watchdog    *w = &s->dog;
    const double timeout_s = w->timeout_s, now = comm_now();
    if (timeout_s <= 0) return;
    if (w->ticked == 0 || now - w->ticked > timeout_s / 2) forgive(s, now);
    w->ticked = now;
    if (atomic_exchange(&w->news, false) || now - w->told >= (timeout_s / 4 < BEAT_S ? timeout_s / 4 : BEAT_S)) {
        tell_record(s, now);
        w->told = now;
    }
    judge(s, now);
}

/* ---- life */

status watchdog_open(service *s)
{
    watchdog *w = &s->dog;
    pthread_mutex_init(&w->words_lock, NULL);
    w->step = w->layer = w->hop = -1;
    w->seats = calloc((size_t)s->transport->size, sizeof(*w->seats));
    w->silent = calloc((size_t)s->transport->size, sizeof(*w->silent));
    w->found = calloc((size_t)s->transport->size, sizeof(*w->found));
    if (w->seats == NULL || w->silent == NULL || w->found == NULL)
        return err_set(ST_NO_MEMORY, "watchdog: %d ranks", s->transport->size);
    return ST_OK;
}

void watchdog_close(service *s)
{
    pthread_mutex_destroy(&s->dog.words_lock);
    free(s->dog.seats);
    free(s->dog.silent);
    free(s->dog.found);
}

/* First records: nobody's service thread looks at seats before it knows the timeout, which comes after them. */
static status meet(comm *world)
{
    status          st = ST_OK;
    service        *s = world->whole->service;
    watchdog_record mine = record_now(s, comm_now());
    const int       n = s->transport->size;
    watchdog_record *all = calloc((size_t)n, sizeof(*all));
    size_t          *bytes = calloc((size_t)n, sizeof(*bytes));
    st = all != NULL && bytes != NULL ? ST_OK : err_set(ST_NO_MEMORY, "watchdog: %d ranks", n);
    TRY(comm_agree(world, st));
    for (int i = 0; i < n; i++) bytes[i] = sizeof(*all);
    TRY(comm_gather(world, 0, &mine, bytes, all));
    TRY(comm_bcast(world, 0, all, (size_t)n * sizeof(*all)));
    for (int i = 0; i < n; i++) s->dog.seats[i].record = all[i];
fail:
    free(all);
    free(bytes);
    return st;
}

status watchdog_start(comm *world, double timeout_s)
{
    status st = ST_OK;
    TRY(meet(world));
    TRY(comm_bcast(world, 0, &timeout_s, sizeof(timeout_s)));
    world->whole->service->dog.timeout_s = timeout_s;
fail:
    return st;
}

void watchdog_listen(comm *world, watchdog_listener listener, void *context)
{
    watchdog *w = &world->whole->service->dog;
    pthread_mutex_lock(&w->words_lock);
    w->listener = listener;
    w->context = context;
    pthread_mutex_unlock(&w->words_lock);
}
