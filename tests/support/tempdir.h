/* Folders of a test: made under $TMPDIR or /tmp, removed with everything in them, at the latest when the process that
 * made them exits (a failing test jumps over its end). */
#ifndef DYPE_TEMPDIR_H
#define DYPE_TEMPDIR_H

#include "status.h"

enum { TEMPDIR_PATH = 512 };

status tempdir_open(char path[TEMPDIR_PATH]);
void tempdir_close(const char *path);

/* Replaces the file's contents; text ends at its NUL. */
status tempdir_write(const char *path, const char *text);

#endif
