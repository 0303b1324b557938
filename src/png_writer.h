/* A PNG written row by row (libpng): no rank ever holds the whole file. It has its final name only when complete: rows go
 * to a temporary name beside it; commit flushes, syncs and renames. Open, rows in order, commit or abandon. */
#ifndef DYPE_PNG_WRITER_H
#define DYPE_PNG_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct png_writer png_writer;

typedef struct png_note {
    const char *key, *text; /* tEXt where the text is Latin-1 safe ASCII, else iTXt */
} png_note;

typedef struct png_writer_opts {
    const char     *path; /* its folder must exist: atomic_file_probe makes it. NULL: what is made is thrown away, to
                             see how long that takes */
    int32_t         width, height;
    const png_note *notes;
    size_t          n_notes;
    bool            overwrite; /* false: a file of that name is kept as NAME.1.png, NAME.2.png, ... */
} png_writer_opts;

/* Fast settings: fixed SUB filter, compression level 2 (docs/speed.md). All failures are ST_OUTPUT and name the file. */
status png_writer_open(png_writer **out, const png_writer_opts *opts);
/* The next n_rows rows of 8-bit RGB. */
status png_writer_rows(png_writer *w, int32_t n_rows, const uint8_t *rgb);
/* Completes the file and closes w, also on failure. */
status png_writer_commit(png_writer *w);
/* Removes the temporary file and closes w; accepts NULL. */
void png_writer_abandon(png_writer *w);

#endif
