/* A small bitmap font for labels: what names of pictures are made of, A-Z a-z 0-9 . _ - and the blank. */
#ifndef DYPE_LABEL_FONT_H
#define DYPE_LABEL_FONT_H

#include <stdint.h>

enum { LABEL_GLYPH_W = 5, LABEL_GLYPH_H = 9 };

/* Rows from the top, the left pixel is bit 4; the two last are below the line. Other characters are an empty box. */
const uint8_t *label_glyph(char c);

#endif
