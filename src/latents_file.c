#include "latents_file.h"

#include <stdlib.h>
#include <string.h>

#include "linear.h"
#include "safetensors.h"

status latents_file_has(const char *path, const char *name, int *has)
{
    safetensors *file = NULL;
    status       st = safetensors_open(&file, path, ST_BAD_JOB);
    if (st != ST_OK) return st;
    *has = safetensors_find(file, name) != NULL;
    safetensors_close(file);
    return ST_OK;
}

static void widen(const safetensors_entry *e, int64_t n, float *out)
{
    const unsigned char *at = e->data; /* perhaps not aligned */
    for (int64_t i = 0; i < n; i++, at += dtype_bytes(e->type)) {
        uint16_t half;
        if (e->type == DT_F32) {
            memcpy(&out[i], at, sizeof(out[i]));
            continue;
        }
        memcpy(&half, at, sizeof(half));
        out[i] = e->type == DT_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
}

status latents_file_read(float **out, const char *path, const char *name, int64_t rows, int64_t width, int64_t n[2])
{
    status       st = ST_OK;
    safetensors *file = NULL;
    float       *values = NULL;
    char         text[SHAPE_TEXT];
    TRY(safetensors_open(&file, path, ST_BAD_JOB));
    const safetensors_entry *e = safetensors_find(file, name);
    if (e == NULL) {
        st = err_set(ST_BAD_JOB, "%s: no tensor \"%s\"", path, name);
        goto fail;
    }
    if (e->type != DT_F32 && e->type != DT_BF16 && e->type != DT_F16) {
        st = err_set(ST_BAD_JOB, "%s: %s: got type %s, want F32, BF16 or F16", path, name, e->type_name);
        goto fail;
    }
    /* [..1, rows, width]; a vector is one row */
    int64_t shape[2] = {1, 1};
    int     first = e->n_dims - 2;
    bool    fits = e->n_dims >= 1;
    for (int i = 0; i < e->n_dims; i++) {
        if (i < first)
            fits = fits && e->shape[i] == 1;
        else
            shape[i - first] = e->shape[i];
    }
    fits = fits && (rows == 0 || shape[0] == rows) && (width == 0 || shape[1] == width);
    if (!fits || shape[0] < 1 || shape[1] < 1 || shape[0] > INT32_MAX) {
        st = err_set(ST_BAD_JOB, "%s: %s: got shape %s, want [%lld, %lld] (0: any)", path, name,
                     shape_text(text, e->shape, e->n_dims), (long long)rows, (long long)width);
        goto fail;
    }
    if (out != NULL) {
        values = malloc((size_t)(shape[0] * shape[1]) * sizeof(float));
        if (values == NULL) {
            st = err_set(ST_NO_MEMORY, "%s: %s: %lld values", path, name, (long long)(shape[0] * shape[1]));
            goto fail;
        }
        widen(e, shape[0] * shape[1], values);
        *out = values;
    }
    if (n != NULL) {
        n[0] = shape[0];
        n[1] = shape[1];
    }
fail:
    safetensors_close(file);
    return st;
}
