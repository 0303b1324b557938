/* From a recipe back to a job file (--recipe): what renders the same bytes again. */
#ifndef DYPE_RECIPE_JOB_H
#define DYPE_RECIPE_JOB_H

#include <stdio.h>

#include "status.h"

/* path: a PNG of this program, or a saved latent, a checkpoint, a latents_out. model: what to write as the model's folder;
 * NULL: a word to be replaced, since a recipe knows the model by its contents only. ST_BAD_JOB when the file has no recipe
 * or one that this version cannot read. */
status recipe_job_print(FILE *out, const char *path, const char *model);

#endif
