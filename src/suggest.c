#include "suggest.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum { WORD_MAX = 40 }; /* longer words get no suggestion */

static char fold(char c)
{
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t d[WORD_MAX + 1][WORD_MAX + 1];
    for (size_t j = 0; j <= n_b; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        d[i][0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            bool same = fold(a[i - 1]) == fold(b[j - 1]);
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same ? 0 : 1));
            bool swapped = i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]);
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n_a][n_b];
}

suggestion suggest_begin(const char *found)
{
    return (suggestion){.found = found};
}

void suggest_offer(suggestion *s, const char *known)
{
    size_t n_found = strlen(s->found), n_known = strlen(known);
    if (n_found == 0 || n_found > WORD_MAX || n_known > WORD_MAX) return;
    size_t edits = edit_distance(s->found, n_found, known, n_known);
    size_t near = n_found < 6 ? 2 : n_found / 3; /* a third of the letters may be wrong */
    if (edits > near || edits >= n_known) return;
    if (s->best != NULL && edits >= s->edits) return;
    s->best = known;
    s->edits = edits;
}
