/* The recipe of a picture: everything that changes its pixels, and nothing else (no grid, threads, paths, host or date),
 * as one line of JSON with sorted keys. It goes into the PNG; its SHA-256 identifies the picture. */
#ifndef DYPE_RECIPE_H
#define DYPE_RECIPE_H

#include "job.h"
#include "sha256.h"

/* Raised by every change that moves a bit of a picture. */
enum { NUMERICS_VERSION = 2 };

typedef struct recipe_facts {
    const char *model_sha256;
    const char *device; /* device_name: backend and instruction set */
    int         n_text; /* rows of text */
    int         base_resolution;
    int         n_blocks; /* of the transformer that run; 0: all */
    const char *latents_in_sha256, *embeddings_in_sha256; /* of the files; NULL without */
} recipe_facts;

typedef struct recipe {
    char *json; /* free with recipe_free */
    char  sha256[SHA256_HEX];
} recipe;

status recipe_make(recipe *out, const job *j, const job_picture *p, const recipe_facts *facts);
void   recipe_free(recipe *r);
/* The keys in which two recipes differ, with both values: "seed (\"7\", here \"8\"), steps (4, here 8)". Returns text. */
const char *recipe_difference(const char *a, const char *here, char *text, size_t size);

#endif
