/* A picture made small by area averaging, row by row as it is read: each thumbnail pixel is the mean of what it covers,
 * pixels on its edge by their share. Open, rows from top to bottom, get, close. */
#ifndef DYPE_THUMBNAIL_H
#define DYPE_THUMBNAIL_H

#include <stdint.h>

#include "status.h"

typedef struct thumbnail thumbnail;

/* w, h: at least 1, at most width, height. */
status thumbnail_open(thumbnail **out, int32_t width, int32_t height, int32_t w, int32_t h);
void   thumbnail_close(thumbnail *t); /* accepts NULL */
/* The next row, [width, 3]. */
void   thumbnail_row(thumbnail *t, const uint8_t *rgb);
/* Row y of the thumbnail, [w, 3], once all rows that it covers are in. */
void   thumbnail_get(const thumbnail *t, int32_t y, uint8_t *rgb);

#endif
