#include "dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "safetensors.h"

struct dump {
    dump_opts   opts;
    tap         tap;
    const char *picture;
};

static bool matches(const char *asked, const char *name, int step)
{
    const char *at = strchr(asked, '@');
    size_t n = at == NULL ? strlen(asked) : (size_t)(at - asked);
    if (at != NULL && atoi(at + 1) != step) return false;
    if (n > 0 && asked[n - 1] == '*') return strncmp(asked, name, n - 1) == 0;
    return strlen(name) == n && strncmp(asked, name, n) == 0;
}

static bool wants(void *ctx, const char *name, int step)
{
    const dump *d = ctx;
    for (size_t i = 0; i < d->opts.n_names; i++)
        if (matches(d->opts.names[i], name, step)) return true;
    return false;
}

static status take(void *ctx, const char *name, int step, const float *rows, int64_t first_row, int64_t n_rows,
                   int64_t width)
{
    dump *d = ctx;
    char  path[4096], step_text[32], row_text[32];
    if (mkdir(d->opts.dir, 0777) != 0 && errno != EEXIST)
        return err_set(ST_OUTPUT, "%s: %s", d->opts.dir, strerror(errno));
    snprintf(path, sizeof(path), "%s/%s.%s@%d.rank%d.safetensors", d->opts.dir, d->picture, name, step, d->opts.rank);
    snprintf(step_text, sizeof(step_text), "%d", step);
    snprintf(row_text, sizeof(row_text), "%lld", (long long)first_row);
    safetensors_tensor tensor = {.name = name, .type = DT_F32, .n_dims = 2, .shape = {n_rows, width}, .data = rows};
    safetensors_note   notes[] = {{"first_row", row_text}, {"step", step_text}};
    return safetensors_write(path, &tensor, 1, notes, 2);
}

status dump_open(dump **out, const dump_opts *opts)
{
    dump *d = calloc(1, sizeof(*d));
    if (d == NULL) return err_set(ST_NO_MEMORY, "dump: %zu bytes", sizeof(*d));
    d->opts = *opts;
    d->tap = (tap){.ctx = d, .wants = wants, .take = take};
    d->picture = "";
    *out = d;
    return ST_OK;
}

void dump_close(dump *d)
{
    free(d);
}

void dump_picture(dump *d, const char *id)
{
    if (d != NULL) d->picture = id;
}

const tap *dump_tap(dump *d)
{
    return d != NULL && d->opts.n_names > 0 ? &d->tap : NULL;
}
