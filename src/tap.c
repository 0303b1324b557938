#include "tap.h"

#include <stdlib.h>

status tap_rows(const tap *t, stream *s, const char *name, int step, dtype type, const void *data, int64_t ld,
                int64_t first_row, int64_t n_rows, int64_t width)
{
    if (t == NULL || !t->wants(t->ctx, name, step)) return ST_OK;
    status st = ST_OK;
    size_t row_bytes = (size_t)width * dtype_bytes(type);
    size_t n = (size_t)(n_rows * width);
    unsigned char *host = malloc(n * dtype_bytes(type) + 1);
    float *wide = malloc(n * sizeof(float) + 1);
    if (host == NULL || wide == NULL) {
        st = err_set(ST_NO_MEMORY, "dump of %s: %zu values", name, n);
        goto fail;
    }
    for (int64_t i = 0; i < n_rows; i++)
        TRY(stream_copy_out(s, host + (size_t)i * row_bytes,
                            (const unsigned char *)data + (size_t)(i * ld) * dtype_bytes(type), row_bytes));
    TRY(stream_sync(s));
    for (size_t i = 0; i < n; i++)
        wide[i] = type == DT_F32 ? ((const float *)(void *)host)[i] : bf16_to_f32(((const uint16_t *)(void *)host)[i]);
    st = t->take(t->ctx, name, step, wide, first_row, n_rows, width);
fail:
    free(host);
    free(wide);
    return st;
}
