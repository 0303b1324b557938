/* --dump NAME[@STEP]: tensors of a run written to safetensors files, one per tensor, step and rank, in a folder.
 * Names: tap.h. The tensor in the file has the name that was asked for; its metadata say step and first row. */
#ifndef DYPE_DUMP_H
#define DYPE_DUMP_H

#include "tap.h"

typedef struct dump dump;

typedef struct dump_opts {
    const char       *dir;   /* made when something is dumped */
    const char *const *names; /* NAME or NAME@STEP; NAME may end in * */
    size_t            n_names;
    int               rank;
} dump_opts;

status     dump_open(dump **out, const dump_opts *opts);
void       dump_close(dump *d); /* accepts NULL */
/* The picture that follows; its id begins the files' names. Lent string. */
/* Both accept NULL: nothing is dumped. */
void       dump_picture(dump *d, const char *id);
const tap *dump_tap(dump *d);

#endif
