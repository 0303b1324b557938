/* Folders of a test: made under $TMPDIR or /tmp, removed with everything in them, at the latest when the process that
 * made them exits (a failing test jumps over its end). */
#ifndef DYPE_TEMPDIR_H
#define DYPE_TEMPDIR_H

#include "status.h"

enum { TEMPDIR_PATH = 512 };

status tempdir_open(char path[TEMPDIR_PATH]);
void tempdir_close(const char *path);

/* What printf makes of fmt, in the folder; lent until the eighth call after this. */
char *tempdir_in(const char *dir, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Replaces the file's contents; text ends at its NUL. */
status tempdir_write(const char *path, const char *text);

#endif
