/* What a run leaves in its folder. */
#ifndef DYPE_OUTPUTS_H
#define DYPE_OUTPUTS_H

#include <stdbool.h>
#include <stddef.h>

/* The file's bytes and a zero; yours to free. NULL: there is none. */
char *outputs_read(const char *path, size_t *n);
/* Whether both are there and have the same bytes. */
bool  outputs_equal(const char *a, const char *b);
/* Fails the test unless the folder has exactly these entries (NULL ends them), in any order. */
void  outputs_expect(const char *folder, const char *const *names);
/* What `ls -A` shows, by spaces; lent until the next call. */
const char *outputs_list(const char *folder);
/* How many records of a journal have this state (its name). 0 when there is no journal. */
int   outputs_states(const char *journal, const char *state);
/* cp -a */
void  outputs_copy(const char *from, const char *to);
void  outputs_remove(const char *folder);

#endif
