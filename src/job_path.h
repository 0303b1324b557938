/* Paths that a job writes: templates with {name} {seed} {width} {height} {method} {index}, and who shares one.
 * Private to the job reader (job*.c). */
#ifndef DYPE_JOB_PATH_H
#define DYPE_JOB_PATH_H

#include "job_keys.h"

/* A text that ends in suffix and has only known placeholders? Records a mistake when not. */
bool job_template_check(job_reader *r, const char *name, const tree_node *value, const char *suffix);
/* The path of one picture, as the job owns it, relative ones below out_dir (may be NULL); NULL after a mistake. */
const char *job_template_fill(job_reader *r, const char *name, const char *template, const char *out_dir,
                              const job_picture *p);
/* No two pictures may have one id, nor write one file. */
void job_check_unique(job_reader *r, const job_picture *pictures, size_t n_pictures);
/* Nor may one write the contact sheet; node: where it is named. */
void job_check_sheet(job_reader *r, const char *sheet, const tree_node *node, const job_picture *pictures, size_t n_pictures);

#endif
