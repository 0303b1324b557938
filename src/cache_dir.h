/* Where things are kept that take long to make and only depend on a model: digests of its files (model_hash.h), rows of
 * prompts (embedding_cache.h), the colours of latents (preview_map.h). Any number of jobs share the folder: its files
 * appear complete or not at all, and deleting any of them costs time, nothing else. */
#ifndef DYPE_CACHE_DIR_H
#define DYPE_CACHE_DIR_H

#include "status.h"

/* The folder asked for (--cache), else $DYPE_DIST_CACHE, $XDG_CACHE_HOME/dype-dist, ~/.cache/dype-dist. *out is yours to
 * free; NULL: none, because "none" was asked for or there is no home. It need not exist. */
status cache_dir_find(char **out, const char *asked);

#endif
