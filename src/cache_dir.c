#include "cache_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

status cache_dir_find(char **out, const char *asked)
{
    const char *given = asked != NULL ? asked : getenv("DYPE_DIST_CACHE");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char       *dir = NULL;
    int         n = 0;
    if (given != NULL && given[0] != '\0') {
        if (strcmp(given, "none") != 0) n = asprintf(&dir, "%s", given);
    } else if (cache != NULL && cache[0] == '/') { /* relative ones are to be ignored: XDG base directory specification */
        n = asprintf(&dir, "%s/dype-dist", cache);
    } else if (home != NULL && home[0] == '/') {
        n = asprintf(&dir, "%s/.cache/dype-dist", home);
    }
    if (n < 0) return err_set(ST_NO_MEMORY, "cache: no memory for its name");
    *out = dir;
    return ST_OK;
}
