#include "weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor_set.h"

enum {
    MAX_NAME = 1024, /* of a tensor in a spec */
    COPY_ALIGNMENT = 64,
    ERRORS_SHOWN = 5
};

struct weights {
    char *dir, *what, *unneeded;
    tensor_set *set;
    bool *used;    /* per tensor of the set */
    void **copies; /* per tensor: of a misaligned one; NULL: used in place */
    size_t n_copied;
    char note[512];
};

static void write_note(weights *w)
{
    char unlisted[160] = "", copied[160] = "";
    size_t n_unlisted = tensor_set_n_unlisted(w->set);
    if (n_unlisted > 0) {
        snprintf(unlisted, sizeof(unlisted), "%zu tensors are in the files but not in their index", n_unlisted);
    }
    if (w->n_copied > 0) {
        snprintf(copied, sizeof(copied),
                 "%zu misaligned tensors were copied to memory, which ranks of a node do not share", w->n_copied);
    }
    snprintf(w->note, sizeof(w->note), "%s%s%s", unlisted, n_unlisted > 0 && w->n_copied > 0 ? "; " : "", copied);
}

status weights_open(weights **out, const weights_opts *opts)
{
    status st = ST_OK;
    weights *w = calloc(1, sizeof(*w));
    if (w == NULL) return err_set(ST_NO_MEMORY, "weights: %zu bytes", sizeof(*w));
    TRY(tensor_set_open(&w->set, opts->dir, opts->stem, opts->what));
    size_t n = tensor_set_count(w->set);
    w->dir = strdup(opts->dir);
    w->what = strdup(opts->what);
    w->unneeded = strdup(opts->unneeded == NULL ? "" : opts->unneeded);
    w->used = calloc(n, sizeof(*w->used));
    w->copies = calloc(n, sizeof(*w->copies));
    if (w->dir == NULL || w->what == NULL || w->unneeded == NULL || w->used == NULL || w->copies == NULL) {
        st = err_set(ST_NO_MEMORY, "weights: a table of %zu tensors", n);
        goto fail;
    }
    write_note(w);
    *out = w;
    return ST_OK;
fail:
    weights_close(w);
    return st;
}

void weights_close(weights *w)
{
    if (w == NULL) return;
    for (size_t i = 0; w->copies != NULL && i < tensor_set_count(w->set); i++)
        free(w->copies[i]);
    free(w->copies);
    free(w->used);
    free(w->unneeded);
    free(w->what);
    free(w->dir);
    tensor_set_close(w->set);
    free(w);
}

/* What is wrong with a table, the first few lines of it. */
typedef struct {
    char text[3500];
    size_t used;
    int n;
} complaints;

static void complain(complaints *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(complaints *c, const char *fmt, ...)
{
    if (c->n++ >= ERRORS_SHOWN || c->used >= sizeof(c->text) - 1) return;
    if (c->n > 1) c->used += (size_t)snprintf(c->text + c->used, sizeof(c->text) - c->used, "\n  ");
    if (c->used >= sizeof(c->text)) return;
    va_list ap;
    va_start(ap, fmt);
    c->used += (size_t)vsnprintf(c->text + c->used, sizeof(c->text) - c->used, fmt, ap);
    va_end(ap);
}

/* prefix + pattern with its %d replaced. False: too long. */
static bool full_name(char out[MAX_NAME], const char *prefix, const char *pattern, int layer)
{
    const char *mark = strstr(pattern, "%d");
    int n = mark == NULL
                ? snprintf(out, MAX_NAME, "%s%s", prefix, pattern)
                : snprintf(out, MAX_NAME, "%s%.*s%d%s", prefix, (int)(mark - pattern), pattern, layer, mark + 2);
    return n >= 0 && n < MAX_NAME;
}

static void complain_missing(complaints *c, const weights *w, const char *name)
{
    if (c->n >= ERRORS_SHOWN) {
        c->n++;
        return;
    }
    complain(c, "%s: tensor %.200s is missing in %s; the nearest name there is %.200s", w->what, name, w->dir,
             tensor_set_nearest(w->set, name));
}

/* The shape is the wanted one, perhaps followed by 1s. */
static bool shape_fits(const safetensors_entry *entry, const int64_t *want, int n_dims)
{
    if (entry->n_dims < n_dims) return false;
    for (int i = 0; i < entry->n_dims; i++) {
        if (entry->shape[i] != (i < n_dims ? want[i] : 1)) return false;
    }
    return true;
}

/* *data: the tensor's data, copied when it is misaligned in its file. */
static status lend_data(weights *w, int at, const void **data)
{
    const safetensors_entry *entry = tensor_set_get(w->set, at);
    if (!entry->aligned && w->copies[at] == NULL) {
        size_t room = (entry->bytes + COPY_ALIGNMENT - 1) / COPY_ALIGNMENT * COPY_ALIGNMENT;
        w->copies[at] = aligned_alloc(COPY_ALIGNMENT, room);
        if (w->copies[at] == NULL) {
            return err_set(ST_NO_MEMORY, "%s: %.200s: %zu bytes for a copy (misaligned in its file)", w->what,
                           entry->name, entry->bytes);
        }
        memcpy(w->copies[at], entry->data, entry->bytes);
        tensor_set_drop(w->set, entry->data, entry->bytes);
        w->n_copied++;
        write_note(w);
    }
    *data = w->copies[at] != NULL ? w->copies[at] : entry->data;
    return ST_OK;
}

static status bind_one(weights *w, const char *prefix, const weight_spec *spec, int layer, const int64_t *dims,
                       weight *out, complaints *c)
{
    char name[MAX_NAME], alias[MAX_NAME], got[SHAPE_TEXT], wanted[SHAPE_TEXT];
    int64_t want[WEIGHT_MAX_DIMS] = {0};
    *out = (weight){0};
    for (int i = 0; i < spec->n_dims; i++)
        want[i] = dims[spec->dim[i]];
    if (!full_name(name, prefix, spec->name, layer)) {
        return err_set(ST_BAD_MODEL, "%s: the name %s%s is too long", w->what, prefix, spec->name);
    }
    int at = tensor_set_find(w->set, name);
    if (at == TENSOR_NONE && spec->alias != NULL && full_name(alias, prefix, spec->alias, layer)) {
        at = tensor_set_find(w->set, alias);
    }
    if (at == TENSOR_NONE) {
        if (!spec->optional) complain_missing(c, w, name);
        return ST_OK;
    }
    const safetensors_entry *entry = tensor_set_get(w->set, at);
    w->used[at] = true;
    if (entry->type != DT_BF16 && entry->type != DT_F16 && entry->type != DT_F32) {
        complain(c, "%s: tensor %.200s in %s: type %s is not supported, want BF16, F16 or F32", w->what, entry->name,
                 tensor_set_home(w->set, at), entry->type_name);
        return ST_OK;
    }
    if (!shape_fits(entry, want, spec->n_dims)) {
        complain(c, "%s: tensor %.200s in %s: got %s %s, want %s", w->what, entry->name, tensor_set_home(w->set, at),
                 entry->type_name, shape_text(got, entry->shape, entry->n_dims),
                 shape_text(wanted, want, spec->n_dims));
        return ST_OK;
    }
    *out = (weight){.type = entry->type, .n_dims = spec->n_dims, .name = entry->name};
    memcpy(out->shape, want, sizeof(want));
    return lend_data(w, at, &out->data);
}

static status bind_all(weights *w, const char *prefix, const weight_spec *specs, size_t n_specs, int layer,
                       const int64_t *dims, void *out_struct)
{
    status st = ST_OK;
    complaints c = {.n = 0};
    for (size_t i = 0; i < n_specs; i++) {
        TRY(bind_one(w, prefix, &specs[i], layer, dims, (weight *)(void *)((char *)out_struct + specs[i].offset), &c));
    }
    if (c.n > ERRORS_SHOWN) {
        st = err_set(ST_BAD_MODEL, "%s\n  and %d more like these", c.text, c.n - ERRORS_SHOWN);
    } else if (c.n > 0) {
        st = err_set(ST_BAD_MODEL, "%s", c.text);
    }
fail:
    return st;
}

status weights_bind(weights *w, const weight_spec *specs, size_t n_specs, int layer, const int64_t *dims,
                    void *out_struct)
{
    return bind_all(w, "", specs, n_specs, layer, dims, out_struct);
}

status weights_bind_under(weights *w, const char *prefix, const weight_spec *specs, size_t n_specs, const int64_t *dims,
                          void *out_struct)
{
    return bind_all(w, prefix, specs, n_specs, 0, dims, out_struct);
}

void weights_drop(weights *w, const weight *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].data == NULL) continue;
        size_t bytes = dtype_bytes(list[i].type);
        for (int d = 0; d < list[i].n_dims; d++)
            bytes *= (size_t)list[i].shape[d];
        tensor_set_drop(w->set, list[i].data, bytes);
    }
}

int64_t weights_unused(const weights *w, const char **first)
{
    int64_t n = 0;
    size_t n_skip = strlen(w->unneeded);
    for (int at = 0; at < (int)tensor_set_count(w->set); at++) {
        const char *name = tensor_set_get(w->set, at)->name;
        if (w->used[at] || (n_skip > 0 && strncmp(name, w->unneeded, n_skip) == 0)) continue;
        if (n++ == 0 && first != NULL) *first = name;
    }
    return n;
}

static int64_t sum_bytes(const weights *w, bool only_used)
{
    int64_t bytes = 0;
    for (int at = 0; at < (int)tensor_set_count(w->set); at++) {
        if (!only_used || w->used[at]) bytes += (int64_t)tensor_set_get(w->set, at)->bytes;
    }
    return bytes;
}

int64_t weights_bytes(const weights *w)
{
    return sum_bytes(w, false);
}

int64_t weights_bound_bytes(const weights *w)
{
    return sum_bytes(w, true);
}

const char *weights_note(const weights *w)
{
    return w->note;
}

size_t weights_n_files(const weights *w)
{
    return tensor_set_n_files(w->set);
}

const char *weights_file(const weights *w, size_t index)
{
    return tensor_set_file(w->set, index);
}
