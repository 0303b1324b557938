/* What moves bytes between ranks: MPI, or nothing at all for one process. Internal to comm/. */
#ifndef DYPE_TRANSPORT_H
#define DYPE_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct transport {
    int  rank, size, local_rank, local_size;
    char host[64];
    size_t piece_bytes; /* the most that goes in one message; tests make it small */

    void (*close)(struct transport *t);
    void (*abort)(struct transport *t, int exit_code);

    /* Host channel: one thread at a time. */
    status (*bcast)(struct transport *t, int root, void *buf, size_t bytes);
    status (*min_max)(struct transport *t, int *min_value, int *max_value); /* in: mine */
    status (*gather)(struct transport *t, int root, const void *mine, const size_t *bytes, void *all);
    status (*scatter)(struct transport *t, int root, const void *all, const size_t *bytes, void *mine);

    /* Exchange channel, a communicator of its own: `bytes` of root's buf travel root -> root + 1 -> ... -> root - 1 in
     * chunks, each passed on while the next arrives. *sent grows by what this rank sends. */
    status (*chain)(struct transport *t, int root, void *buf, size_t bytes, int64_t *sent);
} transport;

status transport_mpi_open(transport **out, int *argc, char ***argv);
status transport_single_open(transport **out);

#endif
