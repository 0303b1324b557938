/* CLIP text model: token ids -> one pooled vector for the transformer. Source: CLIPTextModel (transformers), whose pooler
 * output FLUX takes without a projection. Open, encode any number of prompts, close. Runs on one rank; not collective. */
#ifndef DYPE_CLIP_ENCODER_H
#define DYPE_CLIP_ENCODER_H

#include "arena.h"
#include "device.h"
#include "model.h"
#include "tap.h"

typedef struct clip_encoder clip_encoder;

typedef struct clip_encoder_opts {
    const model *model; /* borrowed, as all below */
    device      *dev;
    stream      *compute;
    const tap   *tap;
    dtype        type;
    bool         parity;
} clip_encoder_opts;

status clip_encoder_open(clip_encoder **out, const clip_encoder_opts *opts);
void   clip_encoder_close(clip_encoder *c); /* accepts NULL */

/* ids: [n], n at most max_position. pooled: [hidden] host fp32, values of the activations' type. */
status clip_encoder_encode(clip_encoder *c, const int32_t *ids, int n, float *pooled);

/* The most that encoding a prompt allocates (device memory beside the weights), as names and bytes; needs neither. */
void clip_encoder_plan(const clip_config *c, dtype type, arena *parts);

/* Row that is pooled: the first largest id when eos_token_id is 2 (the value of FLUX's config), else the first eos. */
int clip_pool_position(const int32_t *ids, int n, int eos_token_id);

#endif
