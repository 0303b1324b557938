#include "self_check.h"

#include <string.h>

#include "arena.h"

/* One row alone, and the same row first among enough to fill a tile and begin another. */
enum { N_ROWS = ROW_TILE + 5, N_IN = 192, N_OUT = 136 };

/* Values in [-1, 1) that are exact in bf16. */
static void fill(float *out, size_t n)
{
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        out[i] = (float)((int)(x >> 24) - 128) / 128.0f;
    }
}

status self_check_rows(device *dev, dtype type, bool *same)
{
    status  st = ST_OK;
    stream *s = NULL;
    arena   memory = {0};
    float   values[N_ROWS * N_IN], alone[N_OUT], among[N_OUT], weights[N_OUT * N_IN];
    float  *wide = NULL, *one = NULL, *all = NULL, *w = NULL;
    void   *x = NULL;
    fill(values, N_ROWS * N_IN);
    fill(weights, N_OUT * N_IN);
    TRY(stream_open(&s, dev));
    arena_plan(&memory, &wide, sizeof(values), "inputs");
    arena_plan(&memory, &x, sizeof(values), "inputs");
    arena_plan(&memory, &w, sizeof(weights), "weights");
    arena_plan(&memory, &one, sizeof(alone), "one row");
    arena_plan(&memory, &all, N_ROWS * sizeof(among), "all rows");
    TRY(arena_take(&memory, dev, "self-check"));
    TRY(stream_copy_in(s, wide, values, sizeof(values)));
    TRY(stream_copy_in(s, w, weights, sizeof(weights)));
    TRY(stream_convert(s, &(convert_args){.x = wide, .y = x, .n = N_ROWS * N_IN, .x_type = DT_F32, .y_type = type}));
    linear_args args = {.x = x, .y = one, .w = {.data = w, .type = DT_F32}, .ldx = N_IN, .ldy = N_OUT, .n_rows = 1,
                        .n_in = N_IN, .n_out = N_OUT, .type = type, .y_type = DT_F32};
    TRY(stream_linear(s, &args));
    args.y = all;
    args.n_rows = N_ROWS;
    TRY(stream_linear(s, &args));
    TRY(stream_copy_out(s, alone, one, sizeof(alone)));
    TRY(stream_copy_out(s, among, all, sizeof(among)));
    TRY(stream_sync(s));
    *same = memcmp(alone, among, sizeof(alone)) == 0;
fail:
    stream_close(s);
    arena_free(&memory);
    return st;
}
