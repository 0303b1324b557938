/* What a picture's recipe remembers of the model: one sha256 over every file of the folder that is read.
 *
 *   sha256 of, for each file in the order of its name:  name NUL size(u64 LE) sha256-of-its-bytes(32)
 *
 * and the same over the text encoders' files alone (text_encoder*), which models that were tuned from one another share.
 *
 * Hashing 33 GB takes minutes, so each file's digest is kept in the cache folder, good for as long as path, size and time
 * of change stay. A cache that cannot be read or written costs time, nothing else. */
#ifndef DYPE_MODEL_HASH_H
#define DYPE_MODEL_HASH_H

#include <stdint.h>

#include "model.h"
#include "sha256.h"
#include "status.h"

enum { MODEL_HASH_TEXT = SHA256_HEX };

typedef struct model_hash_opts {
    /* Called now and then; may be NULL. Bytes of files found in the cache count as done. */
    void (*progress)(void *context, int64_t done_bytes, int64_t all_bytes);
    void *context;
    const char *cache_dir; /* NULL: none */
} model_hash_opts;

typedef struct model_digest {
    char whole[MODEL_HASH_TEXT], encoders[MODEL_HASH_TEXT];
} model_digest;

/* Opens the headers of all parts to learn which files they are. opts may be NULL. */
status model_hash(model_digest *out, const model *m, const model_hash_opts *opts);

#endif
