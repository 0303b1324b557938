/* Keys of a job file: a table says which keys a mapping may have, how each value is read and where it goes.
 * Private to the job reader (job*.c). A reading function that finds a mistake records it and leaves its place alone;
 * the reader goes on and looks at `mistakes` in the end. */
#ifndef DYPE_JOB_KEYS_H
#define DYPE_JOB_KEYS_H

#include <stdint.h>

#include "job.h"
#include "job_memory.h"
#include "mistakes.h"
#include "yaml_tree.h"

enum { JOB_KEYS_MAX = 32 };

typedef struct job_reader {
    mistakes m;
    const char *prefix; /* of the keys being read: "position." */
    const char *dir;    /* folder of the job file, with its last slash; "" is the current one */
    job_memory *memory; /* strings go here */
    bool out_of_memory; /* a string found no room: the job must not be used */
} job_reader;

typedef struct job_key job_key;
struct job_key {
    const char *name;
    void (*read)(job_reader *r, const job_key *key, const tree_node *value, void *into);
    size_t offset;            /* into + offset: where the value goes */
    double min, max;          /* numbers */
    const char *const *words; /* enumerations: index is the value */
};

typedef struct job_table {
    const char *place;  /* "a picture" */
    const char *prefix; /* "" or "position." */
    const job_key *keys;
    size_t n_keys; /* at most JOB_KEYS_MAX */
    /* Keys that people bring along from elsewhere, and what to tell them; ends with a NULL. May be NULL. */
    const struct job_stranger {
        const char *name, *advice;
    } * strangers;
} job_table;

/* Reads a mapping into `into`. found[i]: the value of keys[i], NULL where it is absent. False when node is no mapping.
 */
bool job_read_mapping(job_reader *r, const job_table *table, const tree_node *node, void *into,
                      const tree_node *found[JOB_KEYS_MAX]);

void job_read_int(job_reader *r, const job_key *key, const tree_node *value, void *into);         /* int */
void job_read_auto_int(job_reader *r, const job_key *key, const tree_node *value, void *into);    /* int, auto = 0 */
void job_read_size(job_reader *r, const job_key *key, const tree_node *value, void *into);        /* int, px */
void job_read_auto_size(job_reader *r, const job_key *key, const tree_node *value, void *into);   /* int, auto = 0 */
void job_read_number(job_reader *r, const job_key *key, const tree_node *value, void *into);      /* double */
void job_read_auto_number(job_reader *r, const job_key *key, const tree_node *value, void *into); /* auto = NaN */
void job_read_bool(job_reader *r, const job_key *key, const tree_node *value, void *into);        /* bool */
void job_read_word(job_reader *r, const job_key *key, const tree_node *value, void *into);        /* unsigned */
void job_read_text(job_reader *r, const job_key *key, const tree_node *value, void *into);        /* const char * */
void job_read_path(job_reader *r, const job_key *key, const tree_node *value, void *into); /* from the file's folder */
void job_read_node(job_reader *r, const job_key *key, const tree_node *value, void *into); /* const tree_node * */

/* An integer from -2^63 to 2^64 - 1, negative ones + 2^64; false when it is none. No mistake is recorded. */
bool job_seed(const tree_node *value, uint64_t *seed);
/* The value as a word of words; -1 when it is none of them. */
int job_word_index(const tree_node *value, const char *const *words);
/* A finite decimal number within [min, max]? No mistake is recorded. */
bool job_number(const tree_node *value, double min, double max, double *number);

/* A copy that the job owns; NULL (and out_of_memory) without memory. */
char *job_text(job_reader *r, const char *text);
/* path, seen from the folder of the job file, as the job owns it. */
char *job_path(job_reader *r, const char *path);

/* Records "prefix.name: found ..., allowed: ..." at the place of the value; allowed is printf style. */
void job_mistake(job_reader *r, const char *name, const tree_node *value, const char *allowed, ...)
    __attribute__((format(printf, 4, 5)));

#endif
