#include "tensor_set.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_config.h"

enum { MAX_SHARDS = 512 };

typedef struct {
    char *name; /* bare file name */
    safetensors *file;
} shard;

typedef struct {
    const safetensors_entry *entry;
    int shard;
} set_tensor;

struct tensor_set {
    char *dir, *what;
    char *index_name;   /* NULL: one file, no index */
    json_config *index; /* its weight_map says where each tensor is */
    shard *shards;
    size_t n_shards;
    set_tensor *tensors; /* by name */
    size_t n_tensors;
    size_t n_unlisted;
};

static status join(char **out, const char *dir, const char *name)
{
    if (asprintf(out, "%s/%s", dir, name) < 0) {
        *out = NULL;
        return err_set(ST_NO_MEMORY, "tensor_set: the name %s/%s", dir, name);
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
static status explain_nothing(const tensor_set *set, const char *stem)
{
    int n_safetensors = 0;
    char other[256] = "";
    const char *why = "an unfinished download?";
    DIR *folder = opendir(set->dir);
    if (folder == NULL) {
        return err_set(ST_BAD_MODEL, "%s: %s: %s", set->what, set->dir, strerror(errno));
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
                       set->what, set->dir, n_safetensors, stem);
    }
    if (other[0] != '\0') {
        return err_set(ST_BAD_MODEL, "%s: %s: no %s.safetensors; found %s: %s", set->what, set->dir, stem, other, why);
    }
    return err_set(ST_BAD_MODEL, "%s: %s: no %s.safetensors and no %s.safetensors.index.json (%s)", set->what, set->dir,
                   stem, stem, why);
}

/* *name, yours: the index or the single file to read. *is_index tells which. */
static status find_files(const tensor_set *set, const char *stem, char **name, bool *is_index)
{
    static const char *const indices[] = {"%s.safetensors.index.json", "%s.safetensors.index.bf16.json",
                                          "%s.safetensors.index.fp16.json"};
    static const char *const singles[] = {"%s.safetensors", "%s.bf16.safetensors", "%s.fp16.safetensors"};
    char candidate[256];
    for (int i = 0; i < 6; i++) {
        const char *pattern = i < 3 ? indices[i] : singles[i - 3];
        const char *after = strstr(pattern, "%s") + 2;
        snprintf(candidate, sizeof(candidate), "%s%s", stem, after);
        if (!exists(set->dir, candidate)) continue;
        *is_index = i < 3;
        *name = strdup(candidate);
        return *name != NULL ? ST_OK : err_set(ST_NO_MEMORY, "tensor_set: the name %s", candidate);
    }
    /* Our own leniency: one file of any name. */
    int n_found = 0;
    DIR *folder = opendir(set->dir);
    if (folder == NULL) return explain_nothing(set, stem);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        if (item->d_name[0] == '.' || !ends_with(item->d_name, ".safetensors")) continue;
        if (n_found++ == 0) snprintf(candidate, sizeof(candidate), "%s", item->d_name);
    }
    closedir(folder);
    if (n_found != 1) return explain_nothing(set, stem);
    *is_index = false;
    *name = strdup(candidate);
    return *name != NULL ? ST_OK : err_set(ST_NO_MEMORY, "tensor_set: the name %s", candidate);
}

static status add_shard(tensor_set *set, const char *name)
{
    status st = ST_OK;
    char *path = NULL;
    shard *s = &set->shards[set->n_shards];
    s->name = strdup(name);
    if (s->name == NULL) return err_set(ST_NO_MEMORY, "tensor_set: the name %s", name);
    set->n_shards++;
    TRY(join(&path, set->dir, name));
    if (access(path, F_OK) != 0 && set->index != NULL) {
        st = err_set(ST_BAD_MODEL, "%s: %s: the index %s names it, but it is missing: an unfinished download?",
                     set->what, path, set->index_name);
        goto fail;
    }
    TRY(safetensors_open(&s->file, path, ST_BAD_MODEL));
fail:
    free(path);
    return st;
}

static int find_shard(const tensor_set *set, const char *name)
{
    for (size_t i = 0; i < set->n_shards; i++) {
        if (strcmp(set->shards[i].name, name) == 0) return (int)i;
    }
    return -1;
}

/* A shard is a file beside its index, whatever the index says. */
static bool bare_name(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strpbrk(name, "/\\") == NULL &&
           strlen(name) < 256;
}

static status open_shards(tensor_set *set)
{
    status st = ST_OK;
    char *path = NULL;
    const char *tensor;
    json_t *value;
    TRY(join(&path, set->dir, set->index_name));
    TRY(json_config_open(&set->index, path));
    json_t *map = (json_t *)json_config_get(set->index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        st = json_config_error(set->index, "weight_map", "absent or empty, want an object of tensor: file");
        goto fail;
    }
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || !bare_name(name)) {
            st = json_config_error(set->index, "weight_map",
                                   "%.200s: got %.100s, want the bare name of a file in the folder", tensor,
                                   name == NULL ? "no text" : name);
            goto fail;
        }
        if (find_shard(set, name) >= 0) continue;
        if (set->n_shards == MAX_SHARDS) {
            st = json_config_error(set->index, "weight_map", "more than %d files", MAX_SHARDS);
            goto fail;
        }
        TRY(add_shard(set, name));
    }
fail:
    free(path);
    return st;
}

static int by_name(const void *left, const void *right)
{
    const set_tensor *a = left, *b = right;
    return strcmp(a->entry->name, b->entry->name);
}

/* Every name of the index is in the file that it says. */
static status check_index(const tensor_set *set)
{
    const char *tensor;
    json_t *value;
    if (set->index == NULL) return ST_OK;
    json_t *map = (json_t *)json_config_get(set->index, "weight_map");
    json_object_foreach(map, tensor, value)
    {
        const shard *s = &set->shards[find_shard(set, json_string_value(value))];
        if (safetensors_find(s->file, tensor) == NULL) {
            return err_set(ST_BAD_MODEL, "%s: %s: tensor %.200s is missing: %s says that it is there", set->what,
                           safetensors_path(s->file), tensor, set->index_name);
        }
    }
    return ST_OK;
}

static status collect_tensors(tensor_set *set)
{
    size_t room = 1;
    const json_t *map = set->index == NULL ? NULL : json_config_get(set->index, "weight_map");
    for (size_t i = 0; i < set->n_shards; i++)
        room += safetensors_count(set->shards[i].file);
    set->tensors = calloc(room, sizeof(*set->tensors));
    if (set->tensors == NULL) return err_set(ST_NO_MEMORY, "tensor_set: a table of %zu tensors", room);
    for (size_t i = 0; i < set->n_shards; i++) {
        const safetensors *file = set->shards[i].file;
        for (size_t t = 0; t < safetensors_count(file); t++) {
            const safetensors_entry *entry = safetensors_get(file, t);
            const char *home = json_string_value(json_object_get(map, entry->name));
            if (home != NULL && strcmp(home, set->shards[i].name) != 0) continue; /* the index has decided */
            set->tensors[set->n_tensors++] = (set_tensor){.entry = entry, .shard = (int)i};
            if (map != NULL && home == NULL) set->n_unlisted++;
        }
    }
    if (set->n_tensors == 0) {
        return err_set(ST_BAD_MODEL, "%s: %s: no tensors", set->what, safetensors_path(set->shards[0].file));
    }
    qsort(set->tensors, set->n_tensors, sizeof(*set->tensors), by_name);
    for (size_t i = 1; i < set->n_tensors; i++) {
        const set_tensor *a = &set->tensors[i - 1], *b = &set->tensors[i];
        if (strcmp(a->entry->name, b->entry->name) != 0) continue;
        return err_set(ST_BAD_MODEL, "%s: tensor %.200s is in %s and in %s", set->what, a->entry->name,
                       set->shards[a->shard].name, set->shards[b->shard].name);
    }
    return ST_OK;
}

/* Files of other kinds that people have under these names, told by one tensor. */
static status refuse_other_kinds(const tensor_set *set)
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
    for (size_t i = 0; i < set->n_tensors; i++) {
        const set_tensor *t = &set->tensors[i];
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
                       set->what, set->shards[t->shard].name, kind, t->entry->name, type);
    }
    return ST_OK;
}

status tensor_set_open(tensor_set **out, const char *dir, const char *stem, const char *what)
{
    status st = ST_OK;
    char *name = NULL;
    bool is_index = false;
    tensor_set *set = calloc(1, sizeof(*set));
    if (set == NULL) return err_set(ST_NO_MEMORY, "tensor_set: %zu bytes", sizeof(*set));
    set->dir = strdup(dir);
    set->what = strdup(what);
    set->shards = calloc(MAX_SHARDS, sizeof(*set->shards));
    if (set->dir == NULL || set->what == NULL || set->shards == NULL) {
        st = err_set(ST_NO_MEMORY, "tensor_set: a table of files");
        goto fail;
    }
    TRY(find_files(set, stem, &name, &is_index));
    if (is_index) {
        set->index_name = name;
        name = NULL;
        TRY(open_shards(set));
        TRY(check_index(set));
    } else {
        TRY(add_shard(set, name));
    }
    TRY(collect_tensors(set));
    TRY(refuse_other_kinds(set));
    free(name);
    *out = set;
    return ST_OK;
fail:
    free(name);
    tensor_set_close(set);
    return st;
}

void tensor_set_close(tensor_set *set)
{
    if (set == NULL) return;
    for (size_t i = 0; i < set->n_shards; i++) {
        safetensors_close(set->shards[i].file);
        free(set->shards[i].name);
    }
    json_config_close(set->index);
    free(set->index_name);
    free(set->tensors);
    free(set->shards);
    free(set->what);
    free(set->dir);
    free(set);
}

size_t tensor_set_count(const tensor_set *set)
{
    return set->n_tensors;
}

int tensor_set_find(const tensor_set *set, const char *name)
{
    safetensors_entry wanted = {.name = name};
    set_tensor key = {.entry = &wanted};
    const set_tensor *found = bsearch(&key, set->tensors, set->n_tensors, sizeof(*set->tensors), by_name);
    return found == NULL ? TENSOR_NONE : (int)(found - set->tensors);
}

const safetensors_entry *tensor_set_get(const tensor_set *set, int at)
{
    return set->tensors[at].entry;
}

const char *tensor_set_home(const tensor_set *set, int at)
{
    return set->shards[set->tensors[at].shard].name;
}

/* Edit distance (insert, delete, replace), names cut to 127 bytes. */
static int distance(const char *a, const char *b)
{
    enum { CUT = 127 };
    int row[CUT + 1];
    int n = (int)strnlen(a, CUT), m = (int)strnlen(b, CUT);
    for (int j = 0; j <= m; j++)
        row[j] = j;
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

const char *tensor_set_nearest(const tensor_set *set, const char *name)
{
    const char *best = set->tensors[0].entry->name;
    int least = distance(name, best);
    for (size_t i = 1; i < set->n_tensors; i++) {
        int d = distance(name, set->tensors[i].entry->name);
        if (d >= least) continue;
        least = d;
        best = set->tensors[i].entry->name;
    }
    return best;
}

void tensor_set_drop(const tensor_set *set, const void *data, size_t bytes)
{
    for (size_t i = 0; i < set->n_shards; i++) {
        if (safetensors_drop(set->shards[i].file, data, bytes)) return;
    }
}

size_t tensor_set_n_unlisted(const tensor_set *set)
{
    return set->n_unlisted;
}

size_t tensor_set_n_files(const tensor_set *set)
{
    return set->n_shards + (set->index_name != NULL);
}

const char *tensor_set_file(const tensor_set *set, size_t index)
{
    return index < set->n_shards ? set->shards[index].name : set->index_name;
}
