/* What a group is made of; shared by the files of comm/. */
#ifndef DYPE_COMM_INTERNAL_H
#define DYPE_COMM_INTERNAL_H

#include <stdatomic.h>

#include "channel.h"
#include "comm.h"
#include "service.h"
#include "transport.h"

struct comm {
    transport   *transport;
    comm        *whole; /* the first group, this one was split from it or is it: it counts bytes and has the service */
    service     *service;
    channel     *channel; /* NULL until comm_open_channel, and for a rank alone */
    bool         stages;  /* first group, for tests, set before channels are opened: stage transfers that could do without */
    _Atomic int64_t exchange_bytes;
};

/* For this many bytes of an exchange that this rank has sent. */
void comm_count_bytes(comm *c, int64_t sent);

#endif
