/* All tensors of one part of a model: the safetensors files of its folder as one set, in the order of their names.
 * Opening finds the files (an index first, then one file) and checks them all. Open, find and get, close; reading from
 * any thread. */
#ifndef DYPE_TENSOR_SET_H
#define DYPE_TENSOR_SET_H

#include <stddef.h>

#include "safetensors.h"
#include "status.h"

typedef struct tensor_set tensor_set;

/* stem: "diffusion_pytorch_model" or "model"; what: word for messages, "transformer". Failures are ST_BAD_MODEL: also
 * quantised weights, adapters and other layouts, named for what they are. */
status tensor_set_open(tensor_set **out, const char *dir, const char *stem, const char *what);
void tensor_set_close(tensor_set *set); /* accepts NULL */

enum { TENSOR_NONE = -1 };
size_t tensor_set_count(const tensor_set *set);               /* at least 1 */
int tensor_set_find(const tensor_set *set, const char *name); /* its place, or TENSOR_NONE */
const safetensors_entry *tensor_set_get(const tensor_set *set, int at);
const char *tensor_set_home(const tensor_set *set, int at);              /* bare name of the file that holds it */
const char *tensor_set_nearest(const tensor_set *set, const char *name); /* the existing name most like this one */

/* The pages of data leave memory until they are read again. */
void tensor_set_drop(const tensor_set *set, const void *data, size_t bytes);

/* Tensors that are in a file but not in the index: 0 without an index. */
size_t tensor_set_n_unlisted(const tensor_set *set);
/* The files behind it, the index last; names relative to the folder. */
size_t tensor_set_n_files(const tensor_set *set);
const char *tensor_set_file(const tensor_set *set, size_t index);

#endif
