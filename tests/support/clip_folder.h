/* CLIP tokenizer folders with the real vocabulary. Only merges.txt is in the repository: vocab.json follows from it. */
#ifndef DYPE_CLIP_FOLDER_H
#define DYPE_CLIP_FOLDER_H

#include <stdbool.h>

#include "status.h"

/* Writes vocab.json and merges.txt into dir. reversed: the merges in the opposite order, so that ranks and lengths of
 * tokens disagree as they never do in a trained vocabulary. */
status clip_folder_write(const char *dir, bool reversed);

#endif
