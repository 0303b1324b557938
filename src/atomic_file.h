/* A file that appears under its name only when complete: written under a temporary name in the same folder, flushed to
 * the disk, renamed. Open, write, commit, close; close without commit leaves no trace. */
#ifndef DYPE_ATOMIC_FILE_H
#define DYPE_ATOMIC_FILE_H

#include <stddef.h>

#include "status.h"

typedef struct atomic_file atomic_file;

/* Makes the folder that path lies in, and those above it, where they are missing. */
status atomic_file_make_folder(const char *path);

/* Whether a file could be written there, before the expensive part: makes its folder; refuses a name that something else
 * than a file has. */
status atomic_file_probe(const char *path);

/* All failures are ST_OUTPUT. The folder must exist. */
status atomic_file_open(atomic_file **out, const char *path);
status atomic_file_write(atomic_file *file, const void *data, size_t bytes);
/* fsync, rename over what was there, fsync of the folder. Call once. */
status atomic_file_commit(atomic_file *file);
void atomic_file_close(atomic_file *file); /* accepts NULL */

#endif
