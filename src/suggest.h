/* Which known word was meant: begin with what was found, offer every known word, look at `best`.
 * Letters' case and `-` against `_` do not count; a swap of neighbours counts as one edit. */
#ifndef DYPE_SUGGEST_H
#define DYPE_SUGGEST_H

#include <stddef.h>

typedef struct suggestion {
    const char *found;
    const char *best; /* the nearest word offered; NULL while none is near enough */
    size_t edits;     /* from found to best */
} suggestion;

suggestion suggest_begin(const char *found);
/* known: lent for as long as the suggestion is used. The first of several equally near words wins. */
void suggest_offer(suggestion *s, const char *known);

#endif
