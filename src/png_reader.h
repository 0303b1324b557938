/* What a finished PNG says of itself. */
#ifndef DYPE_PNG_READER_H
#define DYPE_PNG_READER_H

#include <stdint.h>

#include "sha256.h"
#include "status.h"

typedef struct png_facts {
    int32_t width, height;
    char   *note; /* the text under the key that was asked for; NULL: none; yours to free */
    char    pixels_sha256[SHA256_HEX]; /* of the RGB rows */
} png_facts;

/* Reads the whole file, row by row: one that is cut, spoiled (every chunk has a CRC) or no 8-bit RGB PNG is `bad`. Only the
 * head is read, and pixels_sha256 left empty, where `head_only`. */
status png_reader_read(png_facts *out, const char *path, const char *key, int head_only, status bad);

#endif
