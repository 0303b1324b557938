/* Job file -> what to render, with every default filled in (docs/job-file.md). Open, read, close. Nothing in
 * a job changes after job_open; any number of threads may read it. Ranks that open the same bytes with the
 * same options hold the same job; compare `sha256`. */
#ifndef DYPE_JOB_H
#define DYPE_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "noise_kind.h"
#include "position_kind.h"
#include "schedule_kind.h"
#include "status.h"

enum {
    JOB_FILE_BYTES_MAX = 16 << 20,
    JOB_PICTURES_MAX = 100000, /* every seed counts */
    JOB_SIDE_MIN = 16,         /* px */
    JOB_SIDE_MAX = 65536,
    JOB_SIDE_STEP = 16
};

typedef enum job_schedule { SCHEDULE_ORDERED, SCHEDULE_NEIGHBOUR } job_schedule;
typedef enum job_wrap { WRAP_NONE, WRAP_HORIZONTAL } job_wrap;

typedef struct job_parallel {
    int ulysses, ring, replicas; /* 0 = auto */
    job_schedule schedule;
} job_parallel;

/* One picture: one entry of `pictures` with one of its seeds. Strings live as long as the job. */
typedef struct job_picture {
    const char *name;
    const char *id;       /* name, or name-seed where the entry has `seeds`; no two pictures share one */
    const char *prompt;   /* UTF-8; "" is a prompt */
    const char *prompt_2; /* for T5; the same as prompt unless given */
    int width, height;    /* px, multiples of JOB_SIDE_STEP */
    uint64_t seed;        /* negative seeds as torch maps them: + 2^64 */
    int steps;
    double guidance;
    int max_sequence_length; /* T5 tokens; 0 = the model's own */
    position_opts position;  /* `dype` only where the method can */
    shift_opts shift;
    noise_opts noise;
    job_wrap wrap;
    int preview_every;      /* steps; 0 = never */
    bool parity_diffusers;  /* reproduce every rounding of the reference */
    const char *latents_in; /* NULL unless given, as the two below */
    const char *latents_out;
    const char *embeddings_in;
    const char *output; /* final path of the PNG */
    int index;          /* among all pictures of the file, from 1 */
    int line, column;   /* of the entry, from 1 */
} job_picture;

typedef struct job {
    const char *path;  /* as given to job_open */
    char sha256[65];   /* of the file's bytes, hexadecimal */
    const char *model; /* diffusers folder */
    dtype precision;   /* DT_BF16 or DT_F32 */
    job_parallel parallel;
    int checkpoint_every; /* steps; 0 = only on a signal */
    const char *contact_sheet; /* path of a PNG; NULL: none */
    const job_picture *pictures;
    size_t n_pictures; /* at least 1 */
    const job_picture *all_pictures; /* of the file, also those that `only` leaves out: the contact sheet's */
    size_t n_all_pictures;
    struct job_memory *memory;
} job;

typedef struct job_opts {
    const char *model;       /* instead of the file's; NULL = the file's */
    const char *out_dir;     /* relative outputs start here; NULL = the current directory */
    const char *const *only; /* names or ids of the pictures wanted; the others are checked and left out */
    size_t n_only;           /* 0 = all */
} job_opts;

/* All mistakes of the file are reported at once, `path:line:column: what was found, what is allowed`, one per line:
 * ST_BAD_JOB. An `only` that matches nothing is ST_USAGE. opts may be NULL. */
status job_open(job **out, const char *path, const job_opts *opts);
/* The same for bytes in memory; path only names them and says which folder they count from. */
status job_parse(job **out, const char *path, const char *text, size_t n_bytes, const job_opts *opts);
void job_close(job *j); /* accepts NULL */

#endif
