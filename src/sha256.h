/* SHA-256 of bytes that come in pieces (libcrypto). */
#ifndef DYPE_SHA256_H
#define DYPE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct sha256 sha256;

enum { SHA256_HEX = 65 }; /* 64 hexadecimal digits and the end */

status sha256_open(sha256 **out);
status sha256_add(sha256 *h, const void *data, size_t bytes);
/* Writes the digest and closes h. */
status sha256_finish(sha256 *h, char hex[SHA256_HEX]);
void   sha256_close(sha256 *h); /* accepts NULL */

/* All at once. */
status sha256_of(const void *data, size_t bytes, char hex[SHA256_HEX]);
/* Of a file's bytes, and how many they are (n_bytes may be NULL). bad: the status of one that cannot be read. */
status sha256_of_file(const char *path, status bad, int64_t *n_bytes, char hex[SHA256_HEX]);

#endif
