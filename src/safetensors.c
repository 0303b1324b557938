#include "safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"
#include "file_kind.h"
#include "file_map.h"
#include "json_config.h"

enum {
    LENGTH_BYTES = 8, /* u64 little-endian before the header */
    MAX_HEADER_BYTES = 100000000,
    MAX_DEPTH = 4, /* file { tensor { shape [ */
    MAX_NAME_BYTES = 1024
};

struct safetensors {
    file_map *map;
    json_t *header;
    safetensors_entry *entries; /* by place in the file */
    size_t n_entries;
    const safetensors_entry **by_name;
    status bad;
};

typedef struct {
    const char *name;
    int bits;
    dtype type;
} known_type;

static const known_type types[] = {
    {"F32", 32, DT_F32},
    {"BF16", 16, DT_BF16},
    {"F16", 16, DT_F16},
    {"F64", 64, DT_F64},
    {"I64", 64, DT_I64},
    {"I32", 32, DT_I32},
    {"U8", 8, DT_U8},
    {"BOOL", 8, DT_OTHER},
    {"I8", 8, DT_OTHER},
    {"I16", 16, DT_OTHER},
    {"U16", 16, DT_OTHER},
    {"U32", 32, DT_OTHER},
    {"U64", 64, DT_OTHER},
    {"C64", 64, DT_OTHER},
    {"F8_E4M3", 8, DT_OTHER},
    {"F8_E5M2", 8, DT_OTHER},
    {"F8_E8M0", 8, DT_OTHER},
    {"F8_E4M3FNUZ", 8, DT_OTHER},
    {"F8_E5M2FNUZ", 8, DT_OTHER},
    {"F6_E2M3", 6, DT_OTHER},
    {"F6_E3M2", 6, DT_OTHER},
    {"F4", 4, DT_OTHER},
};

static const known_type *type_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, name) == 0) return &types[i];
    }
    return NULL;
}

const char *shape_text(char text[SHAPE_TEXT], const int64_t *shape, int n_dims)
{
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < n_dims; i++) {
        used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%" PRId64, i == 0 ? "" : ", ", shape[i]);
    }
    snprintf(text + used, SHAPE_TEXT - used, "]");
    return text;
}

static uint64_t header_length(const unsigned char *data)
{
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | data[i];
    return length;
}

/* *text: the header; its length is checked against the limit and the file. */
static status find_header(const safetensors *file, const char **text, size_t *n)
{
    const char *path = file_map_path(file->map);
    const unsigned char *data = file_map_data(file->map);
    size_t size = file_map_bytes(file->map);
    if (size == 0) return err_set(file->bad, "%s: the file is empty, want safetensors: download it again", path);
    uint64_t length = size < LENGTH_BYTES ? UINT64_MAX : header_length(data);
    bool plausible = length <= MAX_HEADER_BYTES && size > LENGTH_BYTES && data[LENGTH_BYTES] == '{';
    const char *kind = plausible ? NULL : file_kind(data, size);
    if (kind != NULL) return err_set(file->bad, "%s: this is %s", path, kind);
    if (!plausible && data[0] == '{') return err_set(file->bad, "%s: this is a JSON text, want safetensors", path);
    if (size < LENGTH_BYTES) {
        return err_set(file->bad, "%s: the file has %zu bytes, safetensors begins with a length of 8", path, size);
    }
    if (length > MAX_HEADER_BYTES) {
        return err_set(file->bad, "%s: no safetensors file: a header of %" PRIu64 " bytes, at most %d are allowed",
                       path, length, MAX_HEADER_BYTES);
    }
    if (length > size - LENGTH_BYTES) {
        return err_set(file->bad,
                       "%s: truncated: the header says %" PRIu64 " bytes, the file has %zu after its first 8: "
                       "download it again",
                       path, length, size - LENGTH_BYTES);
    }
    const char *header = (const char *)data + LENGTH_BYTES;
    size_t used = (size_t)length;
    if (used == 0 || header[0] != '{') return err_set(file->bad, "%s: the header does not begin with '{'", path);
    while (used > 0 && header[used - 1] == ' ')
        used--; /* the padding */
    if (header[used - 1] != '}') {
        return err_set(file->bad, "%s: byte %zu: the header ends with something after its '}'", path,
                       LENGTH_BYTES + used - 1);
    }
    *text = header;
    *n = used;
    return ST_OK;
}

/* product(shape) * bits / 8, every step checked. */
static status count_bytes(const safetensors *file, const safetensors_entry *entry, int bits, uint64_t *bytes)
{
    char shape[SHAPE_TEXT];
    uint64_t count = 1;
    bool overflow = false;
    for (int i = 0; i < entry->n_dims; i++)
        overflow |= __builtin_mul_overflow(count, (uint64_t)entry->shape[i], &count);
    overflow |= __builtin_mul_overflow(count, (uint64_t)bits, &count);
    if (overflow) {
        return err_set(file->bad, "%s: tensor %s: shape %s of %s overflows 64 bits", file_map_path(file->map),
                       entry->name, shape_text(shape, entry->shape, entry->n_dims), entry->type_name);
    }
    if (count % 8 != 0) {
        return err_set(file->bad, "%s: tensor %s: shape %s of %s is no whole number of bytes", file_map_path(file->map),
                       entry->name, shape_text(shape, entry->shape, entry->n_dims), entry->type_name);
    }
    *bytes = count / 8;
    return ST_OK;
}

static status read_entry(safetensors *file, const char *name, const json_t *value, safetensors_entry *entry)
{
    const char *path = file_map_path(file->map);
    entry->name = name;
    if (strlen(name) > MAX_NAME_BYTES) {
        return err_set(file->bad, "%s: a tensor name of %zu bytes, at most %d are read", path, strlen(name),
                       MAX_NAME_BYTES);
    }
    if (!json_is_object(value)) return err_set(file->bad, "%s: tensor %s: not described by an object", path, name);

    const char *type_name = json_string_value(json_object_get(value, "dtype"));
    const known_type *type = type_find(type_name);
    if (type == NULL) {
        return err_set(file->bad, "%s: tensor %s: dtype %.32s is unknown", path, name,
                       type_name == NULL ? "(no text)" : type_name);
    }
    entry->type = type->type;
    entry->type_name = type->name;

    const json_t *shape = json_object_get(value, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS) {
        return err_set(file->bad, "%s: tensor %s: shape is no list of at most %d numbers", path, name,
                       SAFETENSORS_MAX_DIMS);
    }
    entry->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < entry->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return err_set(file->bad, "%s: tensor %s: shape[%d] is no whole number from 0", path, name, i);
        }
        entry->shape[i] = json_integer_value(dim);
    }

    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin)) {
        return err_set(file->bad, "%s: tensor %s: data_offsets is no [begin, end] with 0 <= begin <= end", path, name);
    }
    uint64_t bytes = 0;
    status st = count_bytes(file, entry, type->bits, &bytes);
    if (st != ST_OK) return st;
    uint64_t span = (uint64_t)(json_integer_value(end) - json_integer_value(begin));
    if (span != bytes) {
        char text[SHAPE_TEXT];
        return err_set(file->bad, "%s: tensor %s: data_offsets span %" PRIu64 " bytes, %s of %s takes %" PRIu64, path,
                       name, span, shape_text(text, entry->shape, entry->n_dims), type->name, bytes);
    }
    entry->bytes = (size_t)bytes;
    /* An offset until check_places knows that it lies in the file. */
    entry->data = (const void *)(uintptr_t)json_integer_value(begin);
    return ST_OK;
}

static int by_place(const void *left, const void *right)
{
    const safetensors_entry *a = left, *b = right;
    if (a->data != b->data) return (uintptr_t)a->data < (uintptr_t)b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1; /* empty tensors before what begins there */
    return strcmp(a->name, b->name);
}

static int by_name(const void *left, const void *right)
{
    const safetensors_entry *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* Tensors fill the data area from its first byte to its last, without hole or overlap; then offsets become pointers. */
static status check_places(safetensors *file, const char *area, size_t area_bytes)
{
    const char *path = file_map_path(file->map);
    uint64_t next = 0;
    if (file->n_entries > 0) qsort(file->entries, file->n_entries, sizeof(*file->entries), by_place);
    for (size_t i = 0; i < file->n_entries; i++) {
        const safetensors_entry *entry = &file->entries[i];
        uint64_t begin = (uint64_t)(uintptr_t)entry->data;
        if (begin != next) {
            return err_set(file->bad,
                           "%s: tensor %s: begins at byte %" PRIu64 " of the data, the one before ends at %" PRIu64
                           " (%s)",
                           path, entry->name, begin, next, begin > next ? "a hole" : "they overlap");
        }
        next = begin + entry->bytes;
    }
    if (next > area_bytes) {
        return err_set(file->bad,
                       "%s: truncated: its tensors take %" PRIu64 " bytes, the file holds %zu (%.1f %%): "
                       "an unfinished download, download it again",
                       path, next, area_bytes, 100.0 * (double)area_bytes / (double)next);
    }
    if (next < area_bytes) {
        return err_set(file->bad, "%s: %" PRIu64 " bytes follow the last tensor", path, (uint64_t)area_bytes - next);
    }
    for (size_t i = 0; i < file->n_entries; i++) {
        safetensors_entry *entry = &file->entries[i];
        entry->data = area + (uintptr_t)entry->data;
        size_t element = dtype_bytes(entry->type);
        entry->aligned = element <= 1 || (uintptr_t)entry->data % element == 0;
    }
    return ST_OK;
}

static status check_metadata(const safetensors *file, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return err_set(file->bad, "%s: __metadata__ is no object", file_map_path(file->map));
    }
    json_object_foreach(metadata, key, value)
    {
        if (json_is_string(value)) continue;
        return err_set(file->bad, "%s: __metadata__: %.200s is no text", file_map_path(file->map), key);
    }
    return ST_OK;
}

static status read_entries(safetensors *file)
{
    status st = ST_OK;
    const char *name;
    json_t *value;
    size_t room = json_object_size(file->header) + 1;
    file->entries = calloc(room, sizeof(*file->entries));
    file->by_name = calloc(room, sizeof(*file->by_name));
    if (file->entries == NULL || file->by_name == NULL) {
        return err_set(ST_NO_MEMORY, "%s: a table of %zu tensors", file_map_path(file->map), room);
    }
    json_object_foreach(file->header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            TRY(check_metadata(file, value));
        } else {
            TRY(read_entry(file, name, value, &file->entries[file->n_entries]));
            file->n_entries++;
        }
    }
fail:
    return st;
}

status safetensors_open(safetensors **out, const char *path, status bad)
{
    status st = ST_OK;
    const char *text = NULL;
    size_t n = 0;
    safetensors *file = calloc(1, sizeof(*file));
    if (file == NULL) return err_set(ST_NO_MEMORY, "safetensors: %zu bytes", sizeof(*file));
    file->bad = bad;
    TRY(file_map_open(&file->map, path, bad));
    TRY(find_header(file, &text, &n));
    TRY(json_object_parse(&file->header, path, text, n, MAX_DEPTH, bad));
    TRY(read_entries(file));
    const char *data = file_map_data(file->map);
    size_t before = LENGTH_BYTES + (size_t)header_length((const unsigned char *)data);
    TRY(check_places(file, data + before, file_map_bytes(file->map) - before));
    for (size_t i = 0; i < file->n_entries; i++)
        file->by_name[i] = &file->entries[i];
    if (file->n_entries > 0) qsort(file->by_name, file->n_entries, sizeof(*file->by_name), by_name);
    *out = file;
    return ST_OK;
fail:
    safetensors_close(file);
    return st;
}

void safetensors_close(safetensors *file)
{
    if (file == NULL) return;
    free(file->by_name);
    free(file->entries);
    json_decref(file->header);
    file_map_close(file->map);
    free(file);
}

const char *safetensors_path(const safetensors *file)
{
    return file_map_path(file->map);
}

size_t safetensors_count(const safetensors *file)
{
    return file->n_entries;
}

const safetensors_entry *safetensors_get(const safetensors *file, size_t index)
{
    return index < file->n_entries ? &file->entries[index] : NULL;
}

const safetensors_entry *safetensors_find(const safetensors *file, const char *name)
{
    safetensors_entry wanted = {.name = name};
    const safetensors_entry *key = &wanted;
    if (file->n_entries == 0) return NULL;
    const safetensors_entry **found = bsearch(&key, file->by_name, file->n_entries, sizeof(*file->by_name), by_name);
    return found == NULL ? NULL : *found;
}

const char *safetensors_metadata(const safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

bool safetensors_drop(const safetensors *file, const void *data, size_t bytes)
{
    uintptr_t offset = (uintptr_t)data - (uintptr_t)file_map_data(file->map);
    if (offset >= file_map_bytes(file->map)) return false;
    file_map_drop(file->map, data, bytes);
    return true;
}

/* The order of the format: wide elements first, so that everything is aligned; then by name. */
static int by_width(const void *left, const void *right)
{
    const safetensors_tensor *a = *(const safetensors_tensor *const *)left;
    const safetensors_tensor *b = *(const safetensors_tensor *const *)right;
    if (dtype_bytes(a->type) != dtype_bytes(b->type)) return dtype_bytes(a->type) > dtype_bytes(b->type) ? -1 : 1;
    return strcmp(a->name, b->name);
}

static size_t tensor_bytes(const safetensors_tensor *tensor)
{
    size_t bytes = dtype_bytes(tensor->type);
    for (int i = 0; i < tensor->n_dims; i++)
        bytes *= (size_t)tensor->shape[i];
    return bytes;
}

/* The header's JSON, yours to free; NULL: no memory, or a name that is no UTF-8. */
static char *header_text(const safetensors_tensor *const *order, size_t n, const safetensors_note *notes,
                         size_t n_notes)
{
    char *text = NULL;
    bool good = true;
    int64_t at = 0;
    json_t *header = json_object();
    if (n_notes > 0) {
        json_t *metadata = json_object();
        for (size_t i = 0; i < n_notes; i++) {
            good &= json_object_set_new(metadata, notes[i].key, json_string(notes[i].text)) == 0;
        }
        good &= json_object_set_new(header, "__metadata__", metadata) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < order[i]->n_dims; d++) {
            good &= json_array_append_new(shape, json_integer(order[i]->shape[d])) == 0;
        }
        int64_t end = at + (int64_t)tensor_bytes(order[i]);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(order[i]->type), "shape", shape,
                                  "data_offsets", (json_int_t)at, (json_int_t)end);
        good &= json_object_set_new(header, order[i]->name, entry) == 0;
        at = end;
    }
    if (good) text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

status safetensors_write(const char *path, const safetensors_tensor *tensors, size_t n_tensors,
                         const safetensors_note *notes, size_t n_notes)
{
    status st = ST_OK;
    char *text = NULL;
    atomic_file *file = NULL;
    const safetensors_tensor **order = calloc(n_tensors + 1, sizeof(const safetensors_tensor *));
    if (order == NULL) return err_set(ST_NO_MEMORY, "%s: a table of %zu tensors", path, n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        order[i] = &tensors[i];
    if (n_tensors > 0) qsort(order, n_tensors, sizeof(const safetensors_tensor *), by_width);
    text = header_text(order, n_tensors, notes, n_notes);
    if (text == NULL) {
        st = err_set(ST_OUTPUT, "%s: the header of %zu tensors cannot be made", path, n_tensors);
        goto fail;
    }
    size_t used = strlen(text), length = (used + 7) / 8 * 8;
    unsigned char prefix[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        prefix[i] = (unsigned char)((uint64_t)length >> (8 * i));
    TRY(atomic_file_open(&file, path));
    TRY(atomic_file_write(file, prefix, sizeof(prefix)));
    TRY(atomic_file_write(file, text, used));
    TRY(atomic_file_write(file, "       ", length - used));
    for (size_t i = 0; i < n_tensors; i++)
        TRY(atomic_file_write(file, order[i]->data, tensor_bytes(order[i])));
    TRY(atomic_file_commit(file));
fail:
    atomic_file_close(file);
    free(text);
    free(order);
    return st;
}
