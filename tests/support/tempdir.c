#include "tempdir.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_OPEN = 64 };

static struct {
    char path[TEMPDIR_PATH];
    pid_t owner; /* a forked child removes nothing of its parent's; 0: free */
} open_dirs[MOST_OPEN];

static void close_all(void)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (open_dirs[i].owner == getpid()) tempdir_close(open_dirs[i].path);
}

static void remember(const char *path)
{
    static bool registered;
    if (!registered) registered = atexit(close_all) == 0;
    for (int i = 0; i < MOST_OPEN; i++) {
        if (open_dirs[i].owner != 0) continue;
        open_dirs[i].owner = getpid();
        snprintf(open_dirs[i].path, TEMPDIR_PATH, "%s", path);
        return;
    }
}

status tempdir_open(char path[TEMPDIR_PATH])
{
    const char *base = getenv("TMPDIR");
    int n = snprintf(path, TEMPDIR_PATH, "%s/dype-test-XXXXXX", base != NULL ? base : "/tmp");
    if (n >= TEMPDIR_PATH) return err_set(ST_OUTPUT, "tempdir: $TMPDIR is too long");
    if (mkdtemp(path) == NULL) return err_set(ST_OUTPUT, "tempdir: %s: %s", path, strerror(errno));
    remember(path);
    return ST_OK;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

void tempdir_close(const char *path)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (open_dirs[i].owner != 0 && strcmp(open_dirs[i].path, path) == 0) open_dirs[i].owner = 0;
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

char *tempdir_in(const char *dir, const char *fmt, ...)
{
    static char paths[8][2 * TEMPDIR_PATH];
    static unsigned next;
    char *path = paths[next++ % 8];
    const int n = snprintf(path, sizeof(paths[0]), "%s/", dir);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path + n, sizeof(paths[0]) - (size_t)n, fmt, ap);
    va_end(ap);
    return path;
}

status tempdir_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL) return err_set(ST_OUTPUT, "%s: %s", path, strerror(errno));
    size_t n = strlen(text);
    int bad = fwrite(text, 1, n, file) != n;
    bad |= fclose(file) != 0;
    return bad ? err_set(ST_OUTPUT, "%s: not written", path) : ST_OK;
}
