/* JSON of a model folder: strict parsing, and fields read with their type and range checked. An error names the file,
 * the key, what was found and what is allowed. */
#ifndef DYPE_JSON_CONFIG_H
#define DYPE_JSON_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "status.h"

/* n bytes of text -> a JSON object, yours to json_decref. Duplicate keys, a NUL, bytes that are no UTF-8, a
 * number past 64 bits and nesting past max_depth are errors of status bad that name path, line and column. */
status json_object_parse(json_t **out, const char *path, const char *text, size_t n, int max_depth, status bad);

typedef struct json_config json_config;

/* A file of at most 16 MiB that holds one object. Failures are ST_BAD_MODEL. */
status json_config_open(json_config **out, const char *path);
void json_config_close(json_config *config); /* accepts NULL */

/* The value, lent; NULL when absent or null. */
const json_t *json_config_get(const json_config *config, const char *key);
/* The text, lent; NULL when absent, null or no string. */
const char *json_config_text(const json_config *config, const char *key);
/* From now on fields are read from the object under key, when there is one. */
void json_config_enter(json_config *config, const char *key);

/* Fields. An absent or null key leaves *value, so that it holds the default beforehand. */
status json_config_int(const json_config *config, const char *key, int *value, int min, int max);
status json_config_double(const json_config *config, const char *key, double *value, double min, double max);
status json_config_bool(const json_config *config, const char *key, bool *value);
/* *n values of at most max_n; a list of another length is left to the caller. */
status json_config_ints(const json_config *config, const char *key, int *values, int *n, int max_n, int min, int max);
/* *value: the index in allowed, which ends with NULL. */
status json_config_choice(const json_config *config, const char *key, int *value, const char *const *allowed);

/* err_set with "file: key: " before the message; ST_BAD_MODEL. */
status json_config_error(const json_config *config, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
