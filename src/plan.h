/* The planner: what a picture will need and take, before anything is loaded. Pure arithmetic on configs, geometry,
 * grid and machine (docs/cost-model.md); memory comes from the very functions that allocate it.
 *
 * Kinds of memory: anonymous (activations and buffers, each rank its own), mapped (weights in the page cache, one
 * copy for the ranks of a node, given back when memory is short; on a GPU they are resident). */
#ifndef DYPE_PLAN_H
#define DYPE_PLAN_H

#include "flux_transformer.h"
#include "job.h"
#include "machine.h"
#include "report.h"

/* Weights in bytes, by who needs them when. */
typedef struct plan_weights {
    int64_t image;      /* image stream of the double blocks, single blocks, embedders of the image, projection out */
    int64_t text;       /* text stream: only on ranks with text rows */
    int64_t modulation; /* before the step loop only */
    int64_t encoders;   /* T5 and CLIP: rank 0, before the loop */
    int64_t vae;        /* decoder */
} plan_weights;
plan_weights plan_count_weights(const model *m, int weight_bytes);

/* Floating-point operations (a multiply-add is 2) of one step, and of a decode. */
typedef struct plan_flops {
    double attention, products; /* per step, all ranks */
    double conv, mid_attention; /* of the decode */
} plan_flops;
plan_flops plan_count_flops(const model *m, const geometry *g, int n_text);

/* Seconds of one step of the slowest rank. waiting: transfers that computing does not hide; upload: weights that come
 * too late to a card that is too small. */
typedef struct plan_step {
    double attention, products, rest, waiting, upload;
    double total;
} plan_step;
/* For any machine and grid, also those that are not here, with all weights in place. Both ring schedules send the same bytes
 * over every link. */
plan_step plan_step_seconds(const model *m, dtype type, int32_t n_text, int32_t n_image, grid_shape shape,
                            const machine *on);

/* The same of a decode. png: rank 0 takes the rows of all, hashes and writes them, while the others wait. */
typedef struct plan_decode {
    double convolutions, attention, waiting, png;
    double total;
} plan_decode;
plan_decode plan_decode_seconds(const model *m, dtype type, const geometry *g, int n_ranks, const machine *on);

/* A rank's GPU. What a phase holds at once is libraries, reserve, its buffers and its weights. */
typedef struct plan_card {
    int64_t libraries, reserve; /* all the time */
    int64_t room;               /* for weights in the step loop */
    int64_t ring;               /* of it, when they do not fit: what those pass through that do not stay */
    int64_t resident, streamed; /* weights of the step loop; streamed: once per step from pinned host memory */
    int64_t encode, modulation, loop, decode; /* sums of the phases, all weights in place; 0: a phase of others */
    double  upload_s;           /* per step: streamed bytes over the host's link */
    double  hiding_s;           /* of the step, while it works on the blocks that they belong to */
} plan_card;

typedef struct plan_rank {
    arena            encode;      /* parts of T5's memory, or of CLIP's where that needs more; rank 0 */
    transformer_plan denoise;
    arena            decode;      /* parts of the decode */
    int64_t          encode_bytes, denoise_bytes, decode_bytes, host_bytes, scratch_bytes;
    int64_t          anonymous;   /* the largest of its phases, with what is there all the time */
    int64_t          mapped;      /* weights that it reads in the step loop */
    int64_t          sent;        /* bytes per step */
    plan_card        card;        /* on a GPU, else all zero */
} plan_rank;

typedef struct plan {
    const model       *model; /* borrowed, as all pointers */
    const job_picture *picture;
    geometry           geometry;
    int32_t            n_text;
    dtype              type;
    grid_shape         shape;
    exchange_schedule  schedule;
    int                n_ranks; /* of all replicas */
    int                n_pictures;
    plan_weights       weights;
    plan_flops         flops;
    plan_rank         *ranks; /* [of one replica] */
    machine            machine; /* all zero: nothing was measured */
    plan_step          step;
    plan_decode        decode;
    char               why[256];  /* this grid */
} plan;

/* Of one replica: those that share a picture. */
static inline int plan_replica_ranks(const plan *p)
{
    return p->shape.ulysses * p->shape.ring;
}

typedef struct plan_opts {
    const model         *model;
    const job           *job;
    const job_picture   *picture;
    int                  n_ranks;
    int                  n_ranks_of_node; /* share the machine's memory when it was measured */
    int                  n_threads;
    const machine       *machine; /* NULL: no seconds */
} plan_opts;

/* Chooses what the job leaves open of the grid. ST_BAD_JOB when the picture or the grid is impossible. */
status plan_make(plan *out, const plan_opts *opts);
void   plan_free(plan *p); /* also all zero */

/* ST_NO_MEMORY, with what would fit, when it does not. Without a machine: ST_OK. */
status plan_fits(const plan *p, const plan_opts *opts);

/* The whole plan as lines (--plan), in short (at the start of a picture), and as JSON. */
void    plan_print(const plan *p, report *r);
void    plan_print_short(const plan *p, report *r);
json_t *plan_json(const plan *p);

/* Largest anonymous memory of a rank of a replica, and the sum over all of them. */
int64_t plan_largest(const plan *p);
int64_t plan_sum(const plan *p);

#endif
