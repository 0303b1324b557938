/* A safetensors file: tensors by name in one mapped file. Opening checks the whole header (spec: no holes, no overlap,
 * no duplicate names, every size exact), so that what is lent lies inside the file. Open, get or find, close.
 * Reading is safe from any thread. */
#ifndef DYPE_SAFETENSORS_H
#define DYPE_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "status.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensors safetensors;

typedef struct safetensors_entry {
    const char *name;
    const char *type_name; /* as the format spells it: "BF16", "F8_E4M3" */
    dtype type;            /* DT_OTHER: a type that this program does not compute with */
    int n_dims;            /* 0: one element */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; /* little-endian, C order; in the mapped file */
    size_t bytes;     /* 0: some dim is 0 */
    bool aligned;     /* data is a multiple of the element's size; writers of old did not care */
} safetensors_entry;

/* bad: the status of a file that cannot be read or breaks a rule (ST_BAD_MODEL, ST_BAD_JOB). */
status safetensors_open(safetensors **out, const char *path, status bad);
void safetensors_close(safetensors *file); /* accepts NULL */

const char *safetensors_path(const safetensors *file);
size_t safetensors_count(const safetensors *file);
/* Lent until close. By place in the file; by name, NULL when there is none. */
const safetensors_entry *safetensors_get(const safetensors *file, size_t index);
const safetensors_entry *safetensors_find(const safetensors *file, const char *name);
/* The text under key in __metadata__, NULL when there is none. */
const char *safetensors_metadata(const safetensors *file, const char *key);
/* The pages of data leave memory until they are read again (file_map_drop). False: data is not in this file. */
bool safetensors_drop(const safetensors *file, const void *data, size_t bytes);

/* "[3072, 64]" into text; the shape of error messages. Returns text. */
enum { SHAPE_TEXT = 192 };
const char *shape_text(char text[SHAPE_TEXT], const int64_t *shape, int n_dims);

typedef struct safetensors_tensor {
    const char *name;
    dtype type; /* not DT_OTHER */
    int n_dims;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data;
} safetensors_tensor;

typedef struct safetensors_note {
    const char *key, *text;
} safetensors_note; /* one line of __metadata__ */

/* Writes the file in the order of the format, header padded to 8 bytes; it has its name only when complete. */
status safetensors_write(const char *path, const safetensors_tensor *tensors, size_t n_tensors,
                         const safetensors_note *notes, size_t n_notes);

#endif
