/* Whether a file's bytes can be YAML at all: UTF-8, and no characters that YAML forbids. */
#ifndef DYPE_YAML_TEXT_H
#define DYPE_YAML_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "mistakes.h"

/* Steps over a byte order mark. False when the text cannot be read; the mistake is then in m. */
bool yaml_text_check(const char **text, size_t *n_bytes, mistakes *m);

/* Bytes of the UTF-8 character at text[0] and, in *point, its number; 0 when it is not UTF-8. */
size_t yaml_text_decode(const char *text, size_t n_bytes, unsigned *point);

#endif
