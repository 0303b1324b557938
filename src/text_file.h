/* A text that is put together in memory and appears as a file under its name only when complete. Begin, print to `out`,
 * commit or free. */
#ifndef DYPE_TEXT_FILE_H
#define DYPE_TEXT_FILE_H

#include <stdio.h>

#include "status.h"

typedef struct text_file {
    FILE  *out;
    char  *text;
    size_t bytes;
} text_file;

status text_file_begin(text_file *f);
/* Writes it, makes its folder where that is missing; empty afterwards. */
status text_file_commit(text_file *f, const char *path);
void   text_file_free(text_file *f); /* also of one that is empty */

/* path with another ending: "a/b.svg", ".csv" -> "a/b.csv"; "a/b" -> "a/b.csv". Yours to free. */
status text_file_beside(char **out, const char *path, const char *ending);

#endif
