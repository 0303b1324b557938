#include "weights.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_config.h"
#include "safetensors.h"

enum {
    MAX_SHARDS = 512,
    MAX_NAME = 1024,      /* of a tensor in a spec */
    COPY_ALIGNMENT = 64,
    ERRORS_SHOWN = 5
};

/* One tensor of the part. */
typedef struct {
    const safetensors_entry *entry;
    int shard;
    bool mapped_by_index; /* false: in a shard, but the index does not name it */
    bool used;
    void *copy; /* of a misaligned tensor; NULL: data is used in place */
} part_tensor;

typedef struct {
    char *name; /* bare file name */
    safetensors *file;
} shard;

struct weights {
    char *dir, *what, *unneeded;
    char *index_name; /* NULL: no index */
    json_config *index;
    shard *shards;
    size_t n_shards;
    part_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    size_t n_unmapped, n_copied;
    char note[512];
};

/* ---- finding the files ---- */

static status join(char **out, const char *dir, const char *name)
{
    if (asprintf(out, "%s/%s", dir, name) < 0) {
        *out = NULL;
        return err_set(ST_NO_MEMORY, "weights: the name %s/%s", dir, name);
    }
    return ST_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool exists(const char *dir, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0) return false;
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* What lies in a folder without usable weights, as an explanation. */
static status explain_nothing(const weights *w, const char *stem)
{
    int n_safetensors = 0;
    char other[256] = "";
    const char *why = "an unfinished download?";
    DIR *folder = opendir(w->dir);
    if (folder == NULL) {
        return err_set(ST_BAD_MODEL, "%s: %s: %s", w->what, w->dir, strerror(errno));
    }
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        const char *name = item->d_name;
        const char *reason = NULL;
        if (ends_with(name, ".safetensors")) n_safetensors++;
        if (ends_with(name, ".gguf")) reason = "a quantised GGUF model: not supported";
        if (ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth") || ends_with(name, ".ckpt")) {
            reason = "PyTorch pickles are not read: download the safetensors files";
        }
        if (ends_with(name, ".msgpack") || ends_with(name, ".h5") || ends_with(name, ".onnx")) {
            reason = "weights of another framework: download the safetensors files";
        }
        if (ends_with(name, ".incomplete") || ends_with(name, ".part")) reason = "an unfinished download";
        if (reason == NULL) continue;
        snprintf(other, sizeof(other), "%s", name);
        why = reason;
    }
    closedir(folder);
    if (n_safetensors > 1) {
        return err_set(ST_BAD_MODEL, "%s: %s: %d *.safetensors files and no %s.safetensors.index.json that joins them",
                       w->what, w->dir, n_safetensors, stem);
    }
    if (other[0] != '\0') {
        return err_set(ST_BAD_MODEL, "%s: %s: no %s.safetensors; found %s: %s", w->what, w->dir, stem, other, why);
    }
    return err_set(ST_BAD_MODEL, "%s: %s: no %s.safetensors and no %s.safetensors.index.json (%s)", w->what, w->dir,
                   stem, stem, why);
}

/* *name, yours: the index or the single file to read. *is_index tells which. */
static status find_files(const weights *w, const char *stem, char **name, bool *is_index)
{
    static const char *const indices[] = {"%s.safetensors.index.json", "%s.safetensors.index.bf16.json",
                                          "%s.safetensors.index.fp16.json"};
    static const char *const singles[] = {"%s.safetensors", "%s.bf16.safetensors", "%s.fp16.safetensors"};
    char candidate[256];
    for (int i = 0; i < 6; i++) {
        const char *pattern = i < 3 ? indices[i] : singles[i - 3];
        const char *after = strstr(pattern, "%s") + 2;
        snprintf(candidate, sizeof(candidate), "%s%s", stem, after);
        if (!exists(w->dir, candidate)) continue;
        *is_index = i < 3;
        *name = strdup(candidate);
        return *name != NULL ? ST_OK : err_set(ST_NO_MEMORY, "weights: the name %s", candidate);
    }
    /* Our own leniency: one file of any name. */
    int n_found = 0;
    DIR *folder = opendir(w->dir);
    if (folder == NULL) return explain_nothing(w, stem);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        if (item->d_name[0] == '.' || !ends_with(item->d_name, ".safetensors")) continue;
        if (n_found++ == 0) snprintf(candidate, sizeof(candidate), "%s", item->d_name);
    }
    closedir(folder);
    if (n_found != 1) return explain_nothing(w, stem);
    *is_index = false;
    *name = strdup(candidate);
    return *name != NULL ? ST_OK : err_set(ST_NO_MEMORY, "weights: the name %s", candidate);
}

static status add_shard(weights *w, const char *name)
{
    status st = ST_OK;
    char *path = NULL;
    shard *s = &w->shards[w->n_shards];
    s->name = strdup(name);
    if (s->name == NULL) return err_set(ST_NO_MEMORY, "weights: the name %s", name);
    w->n_shards++;
    TRY(join(&path, w->dir, name));
    if (access(path, F_OK) != 0 && w->index != NULL) {
        st = err_set(ST_BAD_MODEL, "%s: %s: the index %s names it, but it is missing: an unfinished download?",
                     w->what, path, w->index_name);
        goto fail;
    }
    TRY(safetensors_open(&s->file, path, ST_BAD_MODEL));
fail:
    free(path);
    return st;
}

static int find_shard(const weights *w, const char *name)
{
    for (size_t i = 0; i < w->n_shards; i++) {
        if (strcmp(w->shards[i].name, name) == 0) return (int)i;
    }
    return -1;
}

/* A shard is a file beside its index, whatever the index says. */
static bool bare_name(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strpbrk(name, "/\\") == NULL &&
           strlen(name) < 256;
}

static status open_shards(weights *w)
{
    status st = ST_OK;
    char *path = NULL;
    const char *tensor;
    json_t *value;
    TRY(join(&path, w->dir, w->index_name));
    TRY(json_config_open(&w->index, path));
    json_t *map = (json_t *)json_config_get(w->index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        st = json_config_error(w->index, "weight_map", "absent or empty, want an object of tensor: file");
        goto fail;
    }
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || !bare_name(name)) {
            st = json_config_error(w->index, "weight_map", "%.200s: got %.100s, want the bare name of a file in the folder",
                                   tensor, name == NULL ? "no text" : name);
            goto fail;
        }
        if (find_shard(w, name) >= 0) continue;
        if (w->n_shards == MAX_SHARDS) {
            st = json_config_error(w->index, "weight_map", "more than %d files", MAX_SHARDS);
            goto fail;
        }
        TRY(add_shard(w, name));
    }
fail:
    free(path);
    return st;
}

/* ---- the tensors ---- */

static int by_name(const void *left, const void *right)
{
    const part_tensor *a = left, *b = right;
    int order = strcmp(a->entry->name, b->entry->name);
    return order != 0 ? order : (int)b->mapped_by_index - (int)a->mapped_by_index;
}

static part_tensor *find_tensor(const weights *w, const char *name)
{
    size_t low = 0, high = w->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(w->tensors[middle].entry->name, name);
        if (order == 0) return &w->tensors[middle];
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Every name of the index is in the file that it says. */
static status check_index(const weights *w)
{
    const char *tensor;
    json_t *value;
    if (w->index == NULL) return ST_OK;
    json_t *map = (json_t *)json_config_get(w->index, "weight_map");
    json_object_foreach(map, tensor, value)
    {
        const shard *s = &w->shards[find_shard(w, json_string_value(value))];
        if (safetensors_find(s->file, tensor) == NULL) {
            return err_set(ST_BAD_MODEL, "%s: %s: tensor %.200s is missing: %s says that it is there", w->what,
                           safetensors_path(s->file), tensor, w->index_name);
        }
    }
    return ST_OK;
}

static status collect_tensors(weights *w)
{
    size_t room = 1;
    const json_t *map = w->index == NULL ? NULL : json_config_get(w->index, "weight_map");
    for (size_t i = 0; i < w->n_shards; i++) room += safetensors_count(w->shards[i].file);
    w->tensors = calloc(room, sizeof(*w->tensors));
    if (w->tensors == NULL) return err_set(ST_NO_MEMORY, "weights: a table of %zu tensors", room);
    for (size_t i = 0; i < w->n_shards; i++) {
        const safetensors *file = w->shards[i].file;
        for (size_t t = 0; t < safetensors_count(file); t++) {
            const safetensors_entry *entry = safetensors_get(file, t);
            const char *home = json_string_value(json_object_get(map, entry->name));
            if (home != NULL && strcmp(home, w->shards[i].name) != 0) continue; /* the index has decided */
            w->tensors[w->n_tensors++] =
                (part_tensor){.entry = entry, .shard = (int)i, .mapped_by_index = home != NULL};
            if (map != NULL && home == NULL) w->n_unmapped++;
        }
    }
    if (w->n_tensors == 0) {
        return err_set(ST_BAD_MODEL, "%s: %s: no tensors", w->what, safetensors_path(w->shards[0].file));
    }
    qsort(w->tensors, w->n_tensors, sizeof(*w->tensors), by_name);
    for (size_t i = 1; i < w->n_tensors; i++) {
        const part_tensor *a = &w->tensors[i - 1], *b = &w->tensors[i];
        if (strcmp(a->entry->name, b->entry->name) != 0) continue;
        return err_set(ST_BAD_MODEL, "%s: tensor %.200s is in %s and in %s", w->what, a->entry->name,
                       w->shards[a->shard].name, w->shards[b->shard].name);
    }
    return ST_OK;
}

/* Files of other kinds that people have under these names, told by one tensor. */
static status refuse_other_kinds(const weights *w)
{
    static const struct {
        const char *part, *kind;
    } signs[] = {
        {".absmax", "quantised with bitsandbytes"},
        {".quant_state.", "quantised with bitsandbytes"},
        {".SCB", "quantised with bitsandbytes (int8)"},
        {"scaled_fp8", "quantised to scaled fp8"},
        {".scale_weight", "quantised to scaled fp8"},
        {".weight_scale", "quantised to scaled fp8"},
        {".comfy_quant", "quantised for ComfyUI"},
        {".qweight", "quantised (GPTQ, AWQ or Nunchaku)"},
        {".wscales", "quantised with SVDQuant (Nunchaku)"},
        {".weight._data", "quantised with quanto"},
        {".lora_A.", "a LoRA adapter, no model"},
        {".lora_down.", "a LoRA adapter, no model"},
        {"double_blocks.0.", "the original single-file layout, not the diffusers layout"},
        {"model.diffusion_model.", "the original single-file layout, not the diffusers layout"},
    };
    for (size_t i = 0; i < w->n_tensors; i++) {
        const part_tensor *t = &w->tensors[i];
        const char *kind = NULL;
        const char *type = t->entry->type_name;
        if (strncmp(type, "F8_", 3) == 0 || strncmp(type, "F6_", 3) == 0 || strcmp(type, "F4") == 0) {
            kind = "quantised to fp8 or less";
        }
        for (size_t s = 0; s < sizeof(signs) / sizeof(signs[0]) && kind == NULL; s++) {
            if (strstr(t->entry->name, signs[s].part) != NULL) kind = signs[s].kind;
        }
        if (kind == NULL) continue;
        return err_set(ST_BAD_MODEL,
                       "%s: %s: unsupported: %s (tensor %.200s of type %s); use the BF16, F16 or F32 weights in "
                       "diffusers layout",
                       w->what, w->shards[t->shard].name, kind, t->entry->name, type);
    }
    return ST_OK;
}

static void write_note(weights *w)
{
    size_t used = 0;
    w->note[0] = '\0';
    if (w->n_unmapped > 0) {
        used += (size_t)snprintf(w->note, sizeof(w->note), "%zu tensors are in the files but not in %s; ", w->n_unmapped,
                                 w->index_name);
    }
    if (w->n_copied > 0 && used < sizeof(w->note)) {
        used += (size_t)snprintf(w->note + used, sizeof(w->note) - used,
                                 "%zu misaligned tensors were copied to memory, which the ranks of a node do not share; ",
                                 w->n_copied);
    }
    if (used >= 2 && used < sizeof(w->note)) w->note[used - 2] = '\0';
}

status weights_open(weights **out, const weights_opts *opts)
{
    status st = ST_OK;
    char *name = NULL;
    bool is_index = false;
    weights *w = calloc(1, sizeof(*w));
    if (w == NULL) return err_set(ST_NO_MEMORY, "weights: %zu bytes", sizeof(*w));
    w->dir = strdup(opts->dir);
    w->what = strdup(opts->what);
    w->unneeded = opts->unneeded == NULL ? NULL : strdup(opts->unneeded);
    w->shards = calloc(MAX_SHARDS, sizeof(*w->shards));
    if (w->dir == NULL || w->what == NULL || w->shards == NULL || (opts->unneeded != NULL && w->unneeded == NULL)) {
        st = err_set(ST_NO_MEMORY, "weights: a table of files");
        goto fail;
    }
    TRY(find_files(w, opts->stem, &name, &is_index));
    if (is_index) {
        w->index_name = name;
        name = NULL;
        TRY(open_shards(w));
        TRY(check_index(w));
    } else {
        TRY(add_shard(w, name));
    }
    TRY(collect_tensors(w));
    TRY(refuse_other_kinds(w));
    write_note(w);
    free(name);
    *out = w;
    return ST_OK;
fail:
    free(name);
    weights_close(w);
    return st;
}

void weights_close(weights *w)
{
    if (w == NULL) return;
    for (size_t i = 0; i < w->n_tensors; i++) free(w->tensors[i].copy);
    for (size_t i = 0; i < w->n_shards; i++) {
        safetensors_close(w->shards[i].file);
        free(w->shards[i].name);
    }
    json_config_close(w->index);
    free(w->index_name);
    free(w->tensors);
    free(w->shards);
    free(w->unneeded);
    free(w->what);
    free(w->dir);
    free(w);
}

/* ---- binding ---- */

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
    int n = mark == NULL ? snprintf(out, MAX_NAME, "%s%s", prefix, pattern)
                         : snprintf(out, MAX_NAME, "%s%.*s%d%s", prefix, (int)(mark - pattern), pattern, layer, mark + 2);
    return n >= 0 && n < MAX_NAME;
}

/* Edit distance (insert, delete, replace), names cut to 127 bytes. */
static int distance(const char *a, const char *b)
{
    enum { CUT = 127 };
    int row[CUT + 1];
    int n = (int)strnlen(a, CUT), m = (int)strnlen(b, CUT);
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < change) change = row[j] + 1;
            if (row[j - 1] + 1 < change) change = row[j - 1] + 1;
            row[j] = change;
        }
    }
    return row[m];
}

static const char *nearest(const weights *w, const char *name)
{
    const char *best = w->tensors[0].entry->name;
    int least = distance(name, best);
    for (size_t i = 1; i < w->n_tensors; i++) {
        int d = distance(name, w->tensors[i].entry->name);
        if (d >= least) continue;
        least = d;
        best = w->tensors[i].entry->name;
    }
    return best;
}

static void complain_missing(complaints *c, const weights *w, const char *name)
{
    if (c->n >= ERRORS_SHOWN) {
        c->n++;
        return;
    }
    complain(c, "%s: tensor %.200s is missing in %s; the nearest name there is %.200s", w->what, name, w->dir,
             nearest(w, name));
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

static status align(weights *w, part_tensor *t)
{
    if (t->entry->aligned || t->copy != NULL) return ST_OK;
    size_t room = (t->entry->bytes + COPY_ALIGNMENT - 1) / COPY_ALIGNMENT * COPY_ALIGNMENT;
    t->copy = aligned_alloc(COPY_ALIGNMENT, room);
    if (t->copy == NULL) {
        return err_set(ST_NO_MEMORY, "%s: %.200s: %zu bytes for a copy (misaligned in its file)", w->what,
                       t->entry->name, t->entry->bytes);
    }
    memcpy(t->copy, t->entry->data, t->entry->bytes);
    safetensors_drop(w->shards[t->shard].file, t->entry->data, t->entry->bytes);
    w->n_copied++;
    write_note(w);
    return ST_OK;
}

static status bind_one(weights *w, const char *prefix, const weight_spec *spec, int layer, const int64_t *dims,
                       weight *out, complaints *c)
{
    char name[MAX_NAME], alias[MAX_NAME], got[SHAPE_TEXT], wanted[SHAPE_TEXT];
    int64_t want[WEIGHT_MAX_DIMS] = {0};
    *out = (weight){0};
    for (int i = 0; i < spec->n_dims; i++) want[i] = dims[spec->dim[i]];
    if (!full_name(name, prefix, spec->name, layer)) return err_set(ST_BAD_MODEL, "%s: the name %s is too long", w->what, name);
    part_tensor *t = find_tensor(w, name);
    if (t == NULL && spec->alias != NULL && full_name(alias, prefix, spec->alias, layer)) t = find_tensor(w, alias);
    if (t == NULL) {
        if (!spec->optional) complain_missing(c, w, name);
        return ST_OK;
    }
    const safetensors_entry *entry = t->entry;
    const char *file = w->shards[t->shard].name;
    t->used = true;
    if (entry->type != DT_BF16 && entry->type != DT_F16 && entry->type != DT_F32) {
        complain(c, "%s: tensor %.200s in %s: type %s is not supported, want BF16, F16 or F32", w->what, entry->name, file,
                 entry->type_name);
        return ST_OK;
    }
    if (!shape_fits(entry, want, spec->n_dims)) {
        complain(c, "%s: tensor %.200s in %s: got %s %s, want %s", w->what, entry->name, file, entry->type_name,
                 shape_text(got, entry->shape, entry->n_dims), shape_text(wanted, want, spec->n_dims));
        return ST_OK;
    }
    status st = align(w, t);
    if (st != ST_OK) return st;
    *out = (weight){.data = t->copy != NULL ? t->copy : entry->data,
                    .type = entry->type,
                    .n_dims = spec->n_dims,
                    .name = entry->name};
    memcpy(out->shape, want, sizeof(want));
    return ST_OK;
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
        for (int d = 0; d < list[i].n_dims; d++) bytes *= (size_t)list[i].shape[d];
        for (size_t s = 0; s < w->n_shards; s++) {
            if (safetensors_drop(w->shards[s].file, list[i].data, bytes)) break;
        }
    }
}

int64_t weights_unused(const weights *w, const char **first)
{
    int64_t n = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const part_tensor *t = &w->tensors[i];
        if (t->used) continue;
        if (w->unneeded != NULL && strncmp(t->entry->name, w->unneeded, strlen(w->unneeded)) == 0) continue;
        if (n++ == 0 && first != NULL) *first = t->entry->name;
    }
    return n;
}

static int64_t sum_bytes(const weights *w, bool only_used)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        if (!only_used || w->tensors[i].used) bytes += (int64_t)w->tensors[i].entry->bytes;
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
    return w->n_shards + (w->index_name != NULL);
}

const char *weights_file(const weights *w, size_t index)
{
    return index < w->n_shards ? w->shards[index].name : w->index_name;
}
