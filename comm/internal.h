/* Shared by comm.c and exchange.c. */
#ifndef DYPE_COMM_INTERNAL_H
#define DYPE_COMM_INTERNAL_H

#include <stdatomic.h>

#include "comm.h"
#include "transport.h"

struct comm {
    transport   *transport;
    comm        *whole; /* the group this one was split from, itself for the first: it counts bytes */
    _Atomic int64_t exchange_bytes;
};

/* For this many bytes of an exchange that this rank has sent. */
void comm_count_bytes(comm *c, int64_t sent);

#endif
