/* Replacement NCCL for virtual GPUs (vgpu.h): ranks are processes of one machine, joined by sockets.
 *
 *   nccl.c        the calls: arguments, groups, communicators' lives
 *   nccl_mesh.c   sockets between all ranks of a communicator, and the frames on them
 *   nccl_launch.c what a group does when its turn on the stream has come
 *   nccl_reduce.c sums and the like, in the order of the ranks
 *
 * A launch is all that one group (or one call outside of groups) does on one communicator. It is put on its stream and runs
 * in stream order, launches of one communicator one after the other, as NCCL orders them.
 *
 * 1. A launch that begins tells every peer which calls it makes with it (a note each), then that these are all.
 * 2. Calls meet in the order in which they are made: the i-th send to a rank and that rank's i-th receive from us; the i-th
 *    collective of both. Both sides compare the two notes: what differs is told by both, and is an error.
 * 3. Data set off when the receiver's note has come, straight to their place.
 * 4. Two launches that each wait for a call that the other one does not make would wait for ever: an error too, as are
 *    ranks that destroy the communicator while one still waits for them. What only time can tell (three ranks in a
 *    circle) is an error after VGPU_NCCL_TIMEOUT_S seconds (600).
 * 5. A rank that dies makes the communicator fail with ncclRemoteError; what waits goes on waiting until ncclCommAbort. So it
 *    does after a failure by order (VGPU_NCCL_FAIL), which is ncclSystemError. */
#ifndef VGPU_NCCL_COMM_H
#define VGPU_NCCL_COMM_H

#include <pthread.h>
#include <stdbool.h>
#include <nccl.h>

#include "vgpu.h"

typedef enum call_kind {
    CALL_SEND,
    CALL_RECEIVE,
    CALL_BROADCAST, /* from here on: collectives */
    CALL_ALL_GATHER,
    CALL_ALL_REDUCE,
    CALL_REDUCE_SCATTER
} call_kind;

/* What the two sides of a call compare. */
typedef struct call_note {
    int32_t  kind, type, op;
    int32_t  peer;  /* or root; -1: has none */
    uint64_t count; /* elements, as the caller said */
    uint64_t index; /* of the sends to, the receives from that rank, or of the collectives */
} call_note;

typedef struct nccl_call {
    call_note   note;
    const void *from; /* device addresses */
    void       *to;
    unsigned char *scratch; /* [ranks, bytes] of a reduction */
} nccl_call;

/* A run of bytes to or from one rank, part of a call. */
typedef struct transfer {
    const nccl_call    *of;
    int            peer;
    bool           out;
    uintptr_t      at;    /* device address; 0: host */
    unsigned char *host;
    size_t         bytes, done;
    bool           met;   /* the other side's note has come */
} transfer;

typedef enum frame_kind { FRAME_NOTE = 1, FRAME_THESE_ARE_ALL, FRAME_DATA, FRAME_SPLIT, FRAME_VERDICT, FRAME_BYE } frame_kind;

typedef struct frame {
    uint32_t kind;
    uint32_t stream; /* FRAME_DATA: kind of call at the receiver: CALL_RECEIVE or a collective */
    uint64_t index;  /* and its index */
    uint64_t bytes;  /* that follow */
} frame;

enum { BODY_BYTES = 128, SPLITS = 8 };

/* The other end of a socket. */
typedef struct nccl_peer {
    int            fd; /* -1: ourselves */
    char           device[32]; /* its PCI bus id */
    unsigned char *out; /* frames that wait to be written */
    size_t         n_out, out_at, out_room;
    transfer      *writing; /* whose bytes follow on `out` */
    frame          head; /* of the frame that is being read */
    size_t         head_at, body_at;
    unsigned char  body[BODY_BYTES];
    call_note     *notes; /* theirs that have met no call of ours yet */
    int            n_notes, notes_room;
    bool           all_told; /* no more notes of their present launch will come */
    bool           bye;      /* it has closed the communicator */
    bool           deaf, gone; /* it takes nothing any more; nothing comes any more either */
    int            split[SPLITS][2]; /* colour and key of splits that we have not come to yet */
    int            n_splits;
    int            verdict; /* on opening: -1 not heard */
    uint64_t       n_sends, n_receives; /* calls made so far */
} nccl_peer;

typedef struct launch {
    struct ncclComm *comm;
    uint64_t         turn;
    nccl_call            *calls;
    int              n_calls;
    transfer        *transfers;
    int              n_transfers;
    bool             begun;
    double           moved; /* when something moved last */
} launch;

struct ncclComm {
    char            name[96]; /* of its sockets */
    int             rank, n, device;
    char            device_id[32];
    nccl_peer           *peers;
    pthread_mutex_t lock; /* all below, and the peers */
    uint64_t        n_put, n_done; /* launches */
    uint64_t        n_collectives;
    int             n_splits;
    ncclResult_t    result;
    char            message[1024]; /* why */
    bool            aborted, finalized;
    int             n_users; /* the handle, and launches on their way */
};

double nccl_now(void);
double nccl_timeout_s(void);

/* Marks the communicator failed, for ncclCommGetAsyncError and ncclGetLastError; the first failure counts. Returns it. */
ncclResult_t comm_fail(ncclComm_t c, ncclResult_t result, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- nccl_mesh.c */

/* Joins the n ranks of a name; c->rank, n, device_id and name are set. Waits for all. */
ncclResult_t mesh_open(ncclComm_t c);
void         mesh_close(ncclComm_t c);
void         mesh_put(nccl_peer *p, frame_kind kind, const void *body, size_t bytes);
/* Everything that can move now moves; l: the launch whose transfers may, NULL: none. Whether something did. */
bool         mesh_pump(ncclComm_t c, launch *l);
/* Waits until all peers have sent a split (verdict), or somebody is gone. */
bool         mesh_await(ncclComm_t c, bool (*there)(const nccl_peer *p));

/* ---- nccl_launch.c */

size_t        type_bytes(ncclDataType_t type);
const char   *type_name(int type);
void          call_describe(const call_note *note, char *text, size_t size);
vgpu_progress launch_step(void *arg);
void          launch_free(void *arg);

/* ---- nccl_reduce.c */

/* out[i] = op over the n ranks' in[rank * count + i], from rank 0 up, in the type itself (16-bit types in float). */
ncclResult_t reduce_ranks(void *out, const void *in, size_t count, int n, ncclDataType_t type, ncclRedOp_t op);

#endif
