/* Reads a picture back, as any viewer does. */
#ifndef DYPE_PICTURE_READ_H
#define DYPE_PICTURE_READ_H

#include <stdint.h>

/* [height, width, 3], yours to free; NULL when it is not a PNG. */
uint8_t *picture_read(const char *path, int *width, int *height);

#endif
