/* The service of a rank: a thread beside its work that answers other ranks at once, on a channel of its own between all
 * world ranks. It carries the clerk (clerk.h) and the watchdog (watchdog.h). Internal to comm/. A group of one has no
 * thread. Between polls the thread sleeps. */
#ifndef DYPE_SERVICE_H
#define DYPE_SERVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "channel.h"
#include "clerk.h"
#include "transport.h"
#include "watchdog.h"

typedef enum packet_kind {
    PACKET_ASK = 1, /* to rank 0: a ticket, please */
    PACKET_TICKET,  /* from rank 0: value is it */
    PACKET_TEXT,    /* to rank 0: value is the caller's kind, the text follows */
    PACKET_MARK,    /* to rank 0: all that I posted has come before this */
    PACKET_RECORD,  /* to and from rank 0: where I am, a watchdog_record */
    PACKET_BYE      /* to rank 0: I close; from rank 0: all do, and nothing comes any more */
} packet_kind;

typedef struct packet_head {
    int32_t kind, value;
} packet_head;

/* See clerk.c; under the service's lock but for the listener. */
typedef struct clerk_desk {
    bool            asking; /* for a ticket */
    int             ticket; /* rank 0: the next one; else the answer */
    int             n_settled; /* calls of clerk_settle */
    int            *n_marks;   /* rank 0: [ranks] theirs, as far as heard */
    pthread_mutex_t listener_lock; /* one call at a time */
    clerk_listener  listener;
    void           *context;
} clerk_desk;

/* What a rank knows of another one. */
typedef struct watchdog_seat {
    watchdog_record record;
    double          heard; /* when it came; comm_now */
} watchdog_seat;

/* What has moved by a moment. */
typedef struct watchdog_motion {
    int64_t progress; /* waits ended, places passed */
    int64_t work_ns;  /* CPU time without polls and service */
    int64_t io;       /* pages and blocks */
    double  when;
} watchdog_motion;

/* See watchdog.c. */
typedef struct watchdog {
    _Atomic int32_t step, layer, hop;
    _Atomic int64_t n_places;
    pthread_mutex_t words_lock; /* phase and picture, and the listener */
    char            phase[sizeof(((watchdog_record *)0)->phase)], picture[sizeof(((watchdog_record *)0)->picture)];
    watchdog_listener listener;
    void           *context;
    _Atomic double  timeout_s; /* 0: off */
    _Atomic bool    news; /* a phase has begun that others do not know of */
    /* of the service thread: */
    watchdog_seat  *seats; /* [ranks] rank 0: all; else only that of rank 0 is used */
    bool           *silent; /* [ranks] scratch of a verdict, as the next */
    watchdog_record *found;
    watchdog_motion motion;
    double          moved, told, ticked; /* when; 0: never */
} watchdog;

struct service {
    transport      *transport;
    pthread_t       thread;
    bool            has_thread;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t  changed, nudge;
    bool            over;
    int             n_byes;
    clerk_desk      desk;
    watchdog        dog;
    pthread_mutex_t channels_lock;
    channel        *channels; /* that can fail by themselves */
};

/* Collective, as service_close, which waits until all messages have arrived; together = false: not collective, after a
 * failure to open. */
status service_open(service **out, transport *t);
void   service_close(service *s, bool together); /* accepts NULL */

/* A packet of head and body (may be NULL) sets off to another rank. Any thread. */
status service_send(service *s, int to, packet_head head, const void *body, size_t bytes);

/* In the service thread: a packet for the clerk. */
status clerk_receive(service *s, int from, packet_head head, const char *body, size_t bytes);

status watchdog_open(service *s);
void   watchdog_close(service *s);
/* In the service thread: a record has come; a round of polls has ended. */
status watchdog_receive(service *s, int from, const char *body, size_t bytes);
void   watchdog_tick(service *s);
/* In the service thread: where this rank is, for people. */
void   watchdog_tell_place(service *s, FILE *out);
/* Ends this process in some seconds, whatever may hang until then. */
void   watchdog_last_resort(void);

/* Pure arithmetic, for tests too: what is wrong at a moment, and with whom: silent[n] (WATCHDOG_DEADLOCK: with all). */
watchdog_reason watchdog_judge(const watchdog_seat *seats, int n, double now, double timeout_s, bool *silent);

#endif
