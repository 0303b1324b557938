#include "signals.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static const int watched[] = {SIGTERM, SIGINT, SIGUSR1};
enum { N_WATCHED = sizeof(watched) / sizeof(watched[0]) };

static struct watch {
    pthread_t       thread;
    sigset_t        set;
    pthread_mutex_t lock; /* all below but noted */
    bool            holds;
    int             n_interrupts;
    void          (*urgent)(void *context);
    void           *context;
    _Atomic int     noted; /* 0: none */
} the_watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What the signal does by itself: ends the process. */
static void let_act(int number)
{
    sigset_t one;
    signal(number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, number);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void take(struct watch *w, int number)
{
    pthread_mutex_lock(&w->lock);
    if (number == SIGINT && w->holds) w->n_interrupts++;
    if (!w->holds || w->n_interrupts > 1) let_act(number);
    if (w->noted == 0) w->noted = number;
    if (number != SIGUSR1 && w->urgent != NULL) w->urgent(w->context);
    pthread_mutex_unlock(&w->lock);
}

static void *wait_for_signals(void *arg)
{
    struct watch *w = arg;
    for (int number = 0;; number = 0)
        if (sigwait(&w->set, &number) == 0) take(w, number);
    return NULL;
}

status signals_open(void)
{
    struct watch    *w = &the_watch;
    struct sigaction now;
    sigemptyset(&w->set);
    for (int i = 0; i < N_WATCHED; i++) /* what a parent has told us to ignore stays ignored (nohup, a shell's `&`) */
        if (sigaction(watched[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&w->set, watched[i]);
    if (pthread_sigmask(SIG_BLOCK, &w->set, NULL) != 0) return err_set(ST_NO_MEMORY, "signals: they cannot be blocked");
    const int error = pthread_create(&w->thread, NULL, wait_for_signals, w);
    if (error != 0) return err_set(ST_NO_MEMORY, "signals: no thread: %s", strerror(error));
    pthread_detach(w->thread);
    return ST_OK;
}

void signals_hold(bool hold)
{
    pthread_mutex_lock(&the_watch.lock);
    the_watch.holds = hold;
    pthread_mutex_unlock(&the_watch.lock);
}

const char *signals_noted(void)
{
    switch (the_watch.noted) {
    case 0: return NULL;
    case SIGTERM: return "SIGTERM";
    case SIGINT: return "SIGINT";
    default: return "SIGUSR1";
    }
}

void signals_urgent(void (*urgent)(void *context), void *context)
{
    pthread_mutex_lock(&the_watch.lock);
    the_watch.urgent = urgent;
    the_watch.context = context;
    pthread_mutex_unlock(&the_watch.lock);
}
