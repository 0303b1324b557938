/* Tensors that a picture takes from safetensors files: latents_in, embeddings_in (docs/job-file.md). Read on rank 0.
 * checkpoint.h writes those that it leaves. */
#ifndef DYPE_LATENTS_FILE_H
#define DYPE_LATENTS_FILE_H

#include <stdint.h>

#include "status.h"

/* Tensor `name` of the file as fp32, [rows, width] with any leading 1s; rows or width 0: any, and told in *n. A file or
 * tensor that is missing or has another shape is ST_BAD_JOB. Yours to free. out NULL: only
 * the shape is looked at. */
status latents_file_read(float **out, const char *path, const char *name, int64_t rows, int64_t width, int64_t n[2]);
/* Whether the file has the tensor. */
status latents_file_has(const char *path, const char *name, int *has);

#endif
