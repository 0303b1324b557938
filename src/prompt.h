/* A prompt as the transformer takes it: T5 rows and CLIP's pooled vector. Tokenizes, looks into the cache, else encodes and
 * frees the encoders again: they are never resident beside the transformer. Runs on rank 0 of a replica; not collective. */
#ifndef DYPE_PROMPT_H
#define DYPE_PROMPT_H

#include "device.h"
#include "embedding_cache.h"
#include "model.h"
#include "report.h"
#include "tap.h"

typedef struct prompt_opts {
    const model *model; /* borrowed, as all below */
    device      *dev;
    stream      *compute;
    const tap   *tap;
    report      *report;   /* hears of text that was cut, and where the rows come from */
    embedding_cache *cache; /* NULL: none */
    const char  *picture;  /* its id, for messages */
    const char  *prompt;   /* for CLIP */
    const char  *prompt_2; /* for T5 */
    int          n_text;   /* T5 tokens, padding included */
    dtype        type;
    bool         parity;
} prompt_opts;

typedef struct prompt_rows {
    float *text;   /* [n_text, joint_attention_dim] */
    float *pooled; /* [pooled_projection_dim] */
    int    n_text;
} prompt_rows;

status prompt_encode(prompt_rows *out, const prompt_opts *opts);
void   prompt_free(prompt_rows *p); /* accepts an empty one */

#endif
