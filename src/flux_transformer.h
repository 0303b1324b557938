/* FLUX.1's transformer on one rank's rows of the sequence.
 * Source: FluxTransformer2DModel (diffusers); rows are cut as geometry.h says, text rows first.
 *
 *   open -> { prepare -> step, step, ... -> release } per picture -> close
 *
 * Rows live in one buffer of activations [rows, D]: this rank's text rows, then its image rows. Per block each rank
 * projects K and V of its rows, then Q, and attends with its share of rows and heads to the blocks of all (exchange.h). */
#ifndef DYPE_FLUX_TRANSFORMER_H
#define DYPE_FLUX_TRANSFORMER_H

#include "exchange.h"
#include "device.h"
#include "geometry.h"
#include "grid.h"
#include "model.h"
#include "position.h"
#include "tap.h"
#include "weight_parts.h"

typedef struct flux_transformer flux_transformer;

typedef struct flux_transformer_opts {
    const model       *model;  /* borrowed, as all below */
    const comm_grid *grid; /* all below is collective over grid->replica */
    device            *dev;
    stream            *compute;
    const tap         *tap;    /* NULL: nobody looks */
    dtype              type;   /* of activations: F32 or BF16 */
    exchange_schedule  schedule;
    bool               reverse_order; /* a test of the tests: blocks of keys in the wrong order */
    int                n_blocks; /* run only so many blocks, 0: all (parity hunting) */
} flux_transformer_opts;

/* What does not change during a picture. */
typedef struct flux_sequence {
    const geometry      *geometry;
    const position_plan *positions;
    int32_t              n_text;
    int                  n_steps;
    const float         *t;        /* [n_steps] as it enters the sinusoid, about 1000 .. 0 */
    float                guidance; /* the same; ignored without guidance_embeds */
    const float         *text;     /* [n_text, joint_attention_dim], host; read on rank 0 only */
    const float         *pooled;   /* [pooled_projection_dim], host; read on rank 0 only */
    const float         *temb;     /* NULL, or [n_steps, D] to use instead of the embedders' (tests) */
} flux_sequence;

/* What a rank of a replica holds, without a device or weights: for the planner. */
typedef struct transformer_plan {
    row_range      rows;
    exchange_share share;
    arena          parts;        /* names and bytes of all memory beside the weights */
    int64_t        sent_ordered; /* bytes per step, ordered ring and ulysses */
} transformer_plan;
status flux_transformer_plan(const flux_config *c, dtype type, const geometry *g, int n_text, int n_steps, grid_shape shape,
                             int rank, transformer_plan *out);

/* Collective from here on. */
status flux_transformer_open(flux_transformer **out, const flux_transformer_opts *opts);
void   flux_transformer_close(flux_transformer *f); /* accepts NULL */

/* Whether the next picture repeats every rounding of the bf16 reference. */
void flux_transformer_parity(flux_transformer *f, bool parity);

/* Plans memory, scatters the text rows, computes the modulation of all steps. */
status flux_transformer_prepare(flux_transformer *f, const flux_sequence *seq);
/* Weights that all ranks need, each read by one of them and sent to the others, as far as they find room everywhere; nothing
 * when some rank has no image rows. After prepare, when the device has given what else the picture needs. */
status flux_transformer_load(flux_transformer *f, weight_parts_figures *figures);
/* Puts one forward on the compute stream. table: position tables of this step as position_plan lays them out, host,
 * the same on all ranks, unchanged until the stream is synced. latents: [n_image of this rank, in_channels] fp32,
 * device. velocity: [the same, out_channels] in the activations' type, device. */
status flux_transformer_step(flux_transformer *f, int step, const float *table, const float *latents, void *velocity);
/* Waits for the compute stream and for what travels beside it. */
status flux_transformer_sync(flux_transformer *f);
void   flux_transformer_release(flux_transformer *f);

/* Seconds of transfers since prepare, and bytes that the layout makes this rank send per step; while prepared. */
double  flux_transformer_travel_s(const flux_transformer *f);
int64_t flux_transformer_bytes_per_step(const flux_transformer *f);

/* This rank's rows; valid while prepared. */
row_range flux_transformer_rows(const flux_transformer *f);

#endif
