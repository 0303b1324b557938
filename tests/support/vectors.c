#include "vectors.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { NAME_BYTES = 256 };

typedef struct entry {
    char name[NAME_BYTES];
    vector tensor;
    float *widened; /* made on first use */
    void *copy;     /* aligned bytes */
} entry;

struct vectors {
    char path[512];
    entry *entries;
    size_t n_entries;
};

static dtype dtype_of(const char *name)
{
    for (dtype t = DT_F32; t < DT_OTHER; t++)
        if (strcmp(name, dtype_name(t)) == 0) return t;
    return DT_OTHER;
}

static bool read_entry(entry *e, const char *name, json_t *value, FILE *file, long data_start)
{
    json_t *shape = json_object_get(value, "shape");
    json_t *offsets = json_object_get(value, "data_offsets");
    const char *type = json_string_value(json_object_get(value, "dtype"));
    if (type == NULL || !json_is_array(shape) || json_array_size(shape) > VECTORS_DIMS) return false;
    if ((size_t)snprintf(e->name, NAME_BYTES, "%s", name) >= NAME_BYTES) return false;
    vector *t = &e->tensor;
    *t = (vector){.type = dtype_of(type), .n_dims = (int)json_array_size(shape), .shape = {1, 1, 1, 1}, .n = 1};
    for (int i = 0; i < t->n_dims; i++) {
        t->shape[i] = json_integer_value(json_array_get(shape, (size_t)i));
        t->n *= (size_t)t->shape[i];
    }
    size_t n_bytes = t->n * dtype_bytes(t->type);
    long begin = (long)json_integer_value(json_array_get(offsets, 0));
    e->copy = malloc(n_bytes + 1);
    if (t->type == DT_OTHER || e->copy == NULL || fseek(file, data_start + begin, SEEK_SET) != 0) return false;
    t->raw = e->copy;
    return fread(e->copy, 1, n_bytes, file) == n_bytes;
}

vectors *vectors_open_path(const char *path)
{
    vectors *v = calloc(1, sizeof(*v));
    FILE *file = fopen(path, "rb");
    uint64_t n_header = 0;
    if (v == NULL || file == NULL || fread(&n_header, 8, 1, file) != 1 || n_header > 1 << 24)
        fail_msg("%s: cannot be read", path);
    snprintf(v->path, sizeof(v->path), "%s", path);
    char *header = malloc(n_header);
    if (header == NULL || fread(header, 1, n_header, file) != n_header) fail_msg("%s: no header", path);
    json_t *root = json_loadb(header, n_header, 0, NULL);
    if (!json_is_object(root)) fail_msg("%s: the header is not JSON", path);
    v->entries = calloc(json_object_size(root), sizeof(*v->entries));
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        if (!read_entry(&v->entries[v->n_entries++], name, value, file, (long)n_header + 8))
            fail_msg("%s: %s cannot be read", path, name);
    }
    json_decref(root);
    free(header);
    fclose(file);
    return v;
}

vectors *vectors_open(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/vectors/%s.safetensors", TEST_DIR, name);
    return vectors_open_path(path);
}

void vectors_close(vectors *v)
{
    if (v == NULL) return;
    for (size_t i = 0; i < v->n_entries; i++) {
        free(v->entries[i].widened);
        free(v->entries[i].copy);
    }
    free(v->entries);
    free(v);
}

static entry *find(const vectors *v, const char *fmt, va_list args, char name[NAME_BYTES])
{
    vsnprintf(name, NAME_BYTES, fmt, args);
    for (size_t i = 0; i < v->n_entries; i++)
        if (strcmp(v->entries[i].name, name) == 0) return &v->entries[i];
    return NULL;
}

static float widen(const vector *t, size_t i)
{
    switch (t->type) {
    case DT_F32:
        return ((const float *)t->raw)[i];
    case DT_BF16:
        return bf16_to_f32(((const uint16_t *)t->raw)[i]);
    case DT_F16:
        return f16_to_f32(((const uint16_t *)t->raw)[i]);
    case DT_F64:
        return (float)((const double *)t->raw)[i];
    case DT_I64:
        return (float)((const int64_t *)t->raw)[i];
    case DT_I32:
        return (float)((const int32_t *)t->raw)[i];
    case DT_U8:
        return (float)((const uint8_t *)t->raw)[i];
    case DT_OTHER:
        break;
    }
    return NAN;
}

vector vectors_get(vectors *v, const char *fmt, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, fmt);
    entry *e = find(v, fmt, args, name);
    va_end(args);
    if (e == NULL) fail_msg("%s: no tensor %s", v->path, name);
    if (e->widened == NULL) {
        e->widened = malloc((e->tensor.n + 1) * sizeof(float));
        if (e->widened == NULL) fail_msg("%s: %s: no memory", v->path, name);
        for (size_t i = 0; i < e->tensor.n; i++)
            e->widened[i] = widen(&e->tensor, i);
        e->tensor.f32 = e->widened;
    }
    return e->tensor;
}

bool vectors_has(const vectors *v, const char *fmt, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, fmt);
    const entry *e = find(v, fmt, args, name);
    va_end(args);
    return e != NULL;
}

uint64_t vectors_sum(const vectors *v, size_t *n_tensors)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < v->n_entries; i++) {
        const vector *t = &v->entries[i].tensor;
        for (size_t j = 0; j < t->n; j++) {
            uint64_t word = 0;
            memcpy(&word, (const char *)t->raw + j * dtype_bytes(t->type), dtype_bytes(t->type));
            sum += word;
        }
    }
    *n_tensors = v->n_entries;
    return sum;
}

double rel_l2(const float *a, const float *b, size_t n)
{
    double apart = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        apart += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(apart / size);
}

double max_abs(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (isnan(d)) return NAN;
        if (d > most) most = d;
    }
    return most;
}

double cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}
