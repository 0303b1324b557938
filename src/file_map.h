/* A file mapped for reading. Every process of a machine that maps the same file shares its pages (the page cache), so
 * the weights are in memory once per node. A file that is cut while mapped ends the process with ST_BAD_MODEL and one
 * line that names the file; touching the lost pages would otherwise be a SIGBUS. Open, read, close; any thread. */
#ifndef DYPE_FILE_MAP_H
#define DYPE_FILE_MAP_H

#include <stddef.h>

#include "status.h"

typedef struct file_map file_map;

/* bad: the status of a file that cannot be opened or is no regular file (ST_BAD_MODEL, ST_BAD_JOB). */
status file_map_open(file_map **out, const char *path, status bad);
void file_map_close(file_map *map); /* accepts NULL */

const void *file_map_data(const file_map *map); /* lent until close; NULL when the file is empty */
size_t file_map_bytes(const file_map *map);
const char *file_map_path(const file_map *map);

/* The pages of [data, data + bytes) leave this process's resident set; reading them again brings them back. */
void file_map_drop(const file_map *map, const void *data, size_t bytes);

#endif
