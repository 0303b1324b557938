/* How fast a rank is: measured here in about a second, or one of a few GPUs by name. For the planner. */
#ifndef DYPE_MACHINE_H
#define DYPE_MACHINE_H

#include "comm.h"
#include "device.h"
#include "model.h"

/* Kinds of products in a block, by their widths in units of D. */
typedef enum product { PRODUCT_1_1, PRODUCT_1_4, PRODUCT_4_1, PRODUCT_5_1, N_PRODUCTS } product;

typedef struct machine {
    char    name[64];
    bool    measured;
    double  attention;              /* FLOP/s of a rank, head width of the transformer */
    double  wide_attention;         /* the same, of the VAE's one wide head */
    double  products[N_PRODUCTS];   /* FLOP/s */
    double  row_s;                  /* seconds per row and block of all that is neither */
    double  conv[VAE_MAX_BLOCKS];   /* FLOP/s at the channels of the decoder's up blocks, in its order */
    double  link;                   /* bytes/s that a rank sends while another sends to it */
    double  host_link;              /* bytes/s from host memory to a GPU; 0: computes in host memory */
    double  png;                    /* bytes/s of 8-bit samples that rank 0 hashes and writes as PNG: one core */
    double  overhead;               /* factor on all: 1 when measured */
    int64_t memory_bytes;           /* that a rank may use; a measured node's ranks together, unless own_memory */
    bool    own_memory;             /* a GPU: a rank's memory is its own, and weights may pass through it */
} machine;

/* NULL-terminated names for --for. */
extern const char *const machine_names[];
/* ST_USAGE when the name is not one of them. */
status machine_named(machine *out, const char *name);

/* How busy the ranks of a node keep its cores. */
typedef struct machine_load {
    int    n_threads;  /* of this rank */
    double core_share; /* of a core for each of them: 1, or less where threads outnumber cores */
} machine_load;

/* Collective: all ranks measure at the same time, so that what they share (cores, memory) is in the figures; the
 * slowest rank's count. n_rows: of a rank; n_keys: of a block of keys. budget_s: seconds to spend, roughly. */
status machine_measure(machine *out, comm *c, device *dev, const model *m, dtype type, int32_t n_rows, int32_t n_keys,
                       const machine_load *load, double budget_s);

/* Bytes that this process may still take: of the machine and of the cgroup it is in. */
int64_t machine_memory_available(void);

#endif
