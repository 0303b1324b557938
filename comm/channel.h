/* How device memory travels between the ranks of a group, as work of a stream. Internal to comm/; used through
 * comm_open_channel, comm_put_chain and comm_put_swap.
 *
 *   host    the stream calls the transport on the host; memory that the host cannot reach is staged through a host buffer
 *   nccl    work of the device itself (nccl.c)
 *
 * All calls by one thread at a time but for check and abort, which the service thread makes. */
#ifndef DYPE_CHANNEL_H
#define DYPE_CHANNEL_H

#include "comm.h"

typedef struct service service;

typedef struct channel {
    comm           *comm; /* borrowed */
    struct channel *next; /* in the service's list of those that it watches */

    void   (*close)(struct channel *c); /* collective where others may still need us */
    status (*chain)(struct channel *c, stream *s, int root, void *buf, size_t bytes, const travel_log *log);
    status (*swap)(struct channel *c, stream *s, const message *sends, int n_sends, const message *receives, int n_receives,
                   const travel_log *log);
    /* NULL on those that fail nowhere but in their calls. check: the failure of something under way, or ST_OK. abort: ends
     * what is under way, also in the middle of another call; afterwards nothing but close. */
    status (*check)(struct channel *c);
    void   (*abort)(struct channel *c);
} channel;

status channel_host_open(channel **out, comm *c, device *dev, bool staged);
/* Collective over c, with the same status on all. */
status channel_nccl_open(channel **out, comm *c, device *dev);

/* The service thread looks after it from now on, until channel_forget. */
void channel_watch(service *s, channel *c);
void channel_forget(service *s, channel *c);
/* In the service thread: ends the job when a channel has failed. */
void channel_tick(service *s);
/* Before the job ends without its goodbyes: nothing is left running on a device. */
void channel_abort_all(service *s);

#endif
