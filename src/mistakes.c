#include "mistakes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MESSAGE_BYTES = 4000, /* of the 4095 of err_set */
    LAST_LINE_BYTES = 64  /* "... and 4000000000 more mistakes" */
};

void mistakes_add(mistakes *m, int line, int column, const char *fmt, ...)
{
    if (m->n_found++ >= MISTAKES_MAX) return;
    mistake *kept = &m->kept[m->n_found - 1];
    kept->line = line;
    kept->column = column;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(kept->text, sizeof(kept->text), fmt, ap);
    va_end(ap);
}

static int by_place(const void *a, const void *b)
{
    const mistake *x = a, *y = b;
    if (x->line != y->line) return x->line < y->line ? -1 : 1;
    return (x->column > y->column) - (x->column < y->column);
}

status mistakes_end(mistakes *m, const char *path, status st)
{
    if (m->n_found == 0) return ST_OK;
    size_t n_kept = m->n_found < MISTAKES_MAX ? m->n_found : MISTAKES_MAX;
    qsort(m->kept, n_kept, sizeof(m->kept[0]), by_place);

    char message[MESSAGE_BYTES];
    size_t used = 0, n_told = 0;
    for (; n_told < n_kept; n_told++) {
        const mistake *k = &m->kept[n_told];
        size_t room = sizeof(message) - LAST_LINE_BYTES - used;
        const char *separator = n_told == 0 ? "" : "\n";
        int n = snprintf(message + used, room, "%s%s:%d:%d: %s", separator, path, k->line, k->column, k->text);
        if (n < 0 || (size_t)n >= room) {
            if (n_told == 0) used = room - 1; /* a very long path: what fits of the first one is told */
            break;
        }
        used += (size_t)n;
    }
    message[used] = '\0';
    if (n_told == 0) n_told = 1;
    if (n_told < m->n_found)
        snprintf(message + used, sizeof(message) - used, "\n... and %zu more mistakes", m->n_found - n_told);
    return err_set(st, "%s", message);
}
