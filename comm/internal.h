/* Shared by comm.c and exchange.c. */
#ifndef DYPE_COMM_INTERNAL_H
#define DYPE_COMM_INTERNAL_H

#include <stdatomic.h>

#include "comm.h"
#include "transport.h"

struct comm {
    transport   *transport;
    _Atomic int64_t exchange_bytes;
};

#endif
