/* Entries of `pictures` and `defaults`. Private to the job reader (job*.c). */
#ifndef DYPE_JOB_PICTURE_H
#define DYPE_JOB_PICTURE_H

#include "job_keys.h"

typedef struct picture_draft {
    job_picture p; /* latents_out is still the template; `dype` what was asked for, whether or not the method can */
    unsigned parity;
    const tree_node *seeds; /* a checked list; NULL: p.seed alone */
    bool given[JOB_KEYS_MAX];
} picture_draft;

/* What holds where a job file says nothing. */
picture_draft picture_draft_begin(void);
/* Lays `defaults` over d. */
void picture_draft_defaults(job_reader *r, const tree_node *defaults, picture_draft *d);
/* Lays an entry of `pictures` over d and looks for what is missing. */
void picture_draft_entry(job_reader *r, const tree_node *entry, picture_draft *d);

size_t picture_draft_count(const picture_draft *d); /* one picture per seed */
/* Picture i of d, with its id; paths and index are still to be set. */
job_picture picture_draft_take(job_reader *r, const picture_draft *d, size_t i);

#endif
