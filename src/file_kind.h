/* What a file is that should have been something else: the usual accidents of a download. */
#ifndef DYPE_FILE_KIND_H
#define DYPE_FILE_KIND_H

#include <stddef.h>

enum { FILE_KIND_HEAD = 64 }; /* bytes that are enough to tell */

/* head: the first n bytes of the file, at most FILE_KIND_HEAD are looked at. Returns a phrase, static, to follow
 * "this is": "a Git LFS pointer, ...". NULL: nothing known. */
const char *file_kind(const void *head, size_t n);

#endif
