/* A latent on its way or finished, as a safetensors file: tensor `latents` [rows, channels] in fp32 (the values
 * themselves: a picture that goes on from here has the same bits), and what it belongs to in the file's notes. Saved
 * latents, checkpoints and latents_out are all of this kind. Written under a temporary name, flushed, renamed. */
#ifndef DYPE_CHECKPOINT_H
#define DYPE_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "sha256.h"
#include "status.h"

typedef struct checkpoint {
    char   *picture; /* id */
    char   *recipe;  /* JSON, see recipe.h */
    char    recipe_sha256[SHA256_HEX];
    char    latents_sha256[SHA256_HEX];
    int     step, n_steps; /* steps done, of so many */
    int64_t rows, channels;
    float  *latents;
} checkpoint;

/* latents_sha256 and recipe_sha256 are computed. */
status checkpoint_write(const char *path, const checkpoint *c);
/* All is checked, also the checksum of the latents: ST_BAD_JOB with what is wrong. Yours to free. */
status checkpoint_read(checkpoint *out, const char *path);
void   checkpoint_free(checkpoint *c); /* also one that is all zero */

#endif
