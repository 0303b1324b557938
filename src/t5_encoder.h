/* T5 v1.1 encoder: token ids -> one row per token for the transformer. Source: T5EncoderModel (transformers).
 * Open, encode any number of prompts, close. Runs on one rank; not collective. */
#ifndef DYPE_T5_ENCODER_H
#define DYPE_T5_ENCODER_H

#include "arena.h"
#include "device.h"
#include "model.h"
#include "tap.h"

typedef struct t5_encoder t5_encoder;

typedef struct t5_encoder_opts {
    const model *model; /* borrowed, as all below */
    device      *dev;
    stream      *compute;
    const tap   *tap;
    dtype        type;
    bool         parity;
} t5_encoder_opts;

status t5_encoder_open(t5_encoder **out, const t5_encoder_opts *opts);
void   t5_encoder_close(t5_encoder *t); /* accepts NULL */

/* ids: [n], padding included: FLUX masks nothing. rows: [n, d_model] host fp32, values of the activations' type. */
status t5_encoder_encode(t5_encoder *t, const int32_t *ids, int n, float *rows);

/* What encoding n tokens allocates (device memory beside the weights), as names and bytes; needs neither. */
void t5_encoder_plan(const t5_config *c, dtype type, int n, arena *parts);

/* Bucket of a key's distance from a query, bidirectional (transformers: _relative_position_bucket). */
int t5_bucket(int key_minus_query, int n_buckets, int max_distance);

#endif
