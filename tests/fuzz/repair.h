/* Safetensors inputs with notes that are checksums of their contents: made right again after a mutation. */
#ifndef DYPE_REPAIR_H
#define DYPE_REPAIR_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Calls set(header, body, n_body) with the header, if it is JSON, and what lies behind it, and writes the header anew; the new
 * length, or n where the input is too broken for that. */
size_t repair_header(uint8_t *data, size_t n, size_t room, void (*set)(json_t *header, const uint8_t *body, size_t n_body));
/* The bytes of a tensor as the header says, inside of the body; NULL: it says nothing of the kind. */
const uint8_t *repair_tensor(const json_t *header, const char *name, const uint8_t *body, size_t n_body, size_t *n);
void repair_note(json_t *header, const char *key, const char *text);

#endif
