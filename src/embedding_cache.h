/* Rows of prompts that were encoded before: a second run never loads T5. One safetensors file per entry,
 * CACHE/embeddings/KEY.safetensors, KEY the SHA-256 of everything that changes a bit of the rows: token ids and so the
 * length, contents of the encoders, precision, parity, device and instruction set, numerics version.
 *
 * An entry appears complete or not at all, so any number of jobs may share the folder. Reading checks the entry's own
 * SHA-256; one that is damaged is told, counts as missing and is written again. The folder grows up to a limit: then those
 * not used for longest go. A cache that cannot be used costs time, nothing else. Jobs that miss the same prompt at the same
 * moment, the tasks of an array say, claim it: one encodes, the others wait for its rows (KEY.safetensors.lock,
 * file_lock.h). Open, read, claim and write, close; one thread. */
#ifndef DYPE_EMBEDDING_CACHE_H
#define DYPE_EMBEDDING_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "model.h"
#include "report.h"

typedef struct embedding_cache embedding_cache;

typedef struct embedding_cache_opts {
    const char  *dir;             /* of the cache (cache_dir.h); made when it is missing */
    const model *model;           /* borrowed, as all below */
    const char  *encoders_sha256; /* model_hash.h */
    const char  *device;          /* device_name */
    report      *report;          /* hears of damaged entries and of a folder that cannot be written, once */
    int64_t      limit_bytes;     /* of all entries; 0: 4 GiB, about 500 prompts of FLUX.1-dev */
    int          wait_s;          /* for another job's rows; 0: 120, then this one encodes too */
} embedding_cache_opts;

/* What is encoded. */
typedef struct embedding_key {
    const int32_t *clip_ids, *t5_ids; /* padding included */
    int            n_clip, n_t5;
    dtype          type;
    bool           parity;
} embedding_key;

typedef struct embedding_rows {
    float *text;   /* [n_t5, joint_attention_dim] */
    float *pooled; /* [pooled_projection_dim] */
} embedding_rows;

status embedding_cache_open(embedding_cache **out, const embedding_cache_opts *opts);
void   embedding_cache_close(embedding_cache *c); /* accepts NULL */

/* Fills rows, which have room, where there is a sound entry: *found. */
status embedding_cache_read(embedding_cache *c, const embedding_key *key, const embedding_rows *rows, bool *found);
/* After a miss: nobody else encodes this prompt, until it is written or dropped; or somebody has, and rows are filled: *found.
 * Waits for a job that is at it; one that was killed is waited for only where it ran on another machine, LOCK_STALE_S. */
status embedding_cache_claim(embedding_cache *c, const embedding_key *key, const embedding_rows *rows, bool *found);
/* Gives a claim up, if there is one; so does close. */
void   embedding_cache_drop(embedding_cache *c);
/* Leaves rows for others, and ends the claim. A failure is a warning. */
status embedding_cache_write(embedding_cache *c, const embedding_key *key, const embedding_rows *rows);

#endif
