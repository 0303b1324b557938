/* Mistakes found in one file, each with its place; all of them become one message. */
#ifndef DYPE_MISTAKES_H
#define DYPE_MISTAKES_H

#include <stddef.h>

#include "status.h"

enum {
    MISTAKES_MAX = 20, /* more are counted, not kept */
    MISTAKE_BYTES = 640
};

typedef struct mistake {
    int line, column; /* from 1 */
    char text[MISTAKE_BYTES];
} mistake;

typedef struct mistakes {
    size_t n_found;
    mistake kept[MISTAKES_MAX]; /* the first min(n_found, MISTAKES_MAX) */
} mistakes;

void mistakes_add(mistakes *m, int line, int column, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ST_OK when none was found. Else sorts them by place, records `path:line:column: text` for as many as
 * a message holds, one per line, and returns st. */
status mistakes_end(mistakes *m, const char *path, status st);

#endif
