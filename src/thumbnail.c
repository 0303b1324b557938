#include "thumbnail.h"

#include <stdlib.h>

struct thumbnail {
    int32_t width, height, w, h, row;
    float  *line; /* [w, 3]: the current row, summed across */
    float  *sum;  /* [h, w, 3] */
};

status thumbnail_open(thumbnail **out, int32_t width, int32_t height, int32_t w, int32_t h)
{
    thumbnail *t = calloc(1, sizeof(*t));
    if (t != NULL) {
        *t = (thumbnail){.width = width, .height = height, .w = w, .h = h};
        t->line = calloc((size_t)w * 3, sizeof(float));
        t->sum = calloc((size_t)h * (size_t)w * 3, sizeof(float));
    }
    if (t == NULL || t->line == NULL || t->sum == NULL) {
        thumbnail_close(t);
        return err_set(ST_NO_MEMORY, "a thumbnail of %d x %d", w, h);
    }
    *out = t;
    return ST_OK;
}

void thumbnail_close(thumbnail *t)
{
    if (t == NULL) return;
    free(t->line);
    free(t->sum);
    free(t);
}

/* What of source place i of n falls into target place *at of m (the rest into the next): in units of a source place. */
static float share(int32_t i, int32_t n, int32_t m, int32_t *at)
{
    const int64_t first = (int64_t)i * m, edge = (first / n + 1) * n; /* in units of 1 / (n m) */
    *at = (int32_t)(first / n);
    return first + m <= edge ? 1.0f : (float)(edge - first) / (float)m;
}

void thumbnail_row(thumbnail *t, const uint8_t *rgb)
{
    int32_t at = 0;
    for (int32_t i = 0; i < t->w * 3; i++) t->line[i] = 0;
    for (int32_t x = 0; x < t->width; x++) {
        const float part = share(x, t->width, t->w, &at);
        float      *to = t->line + (size_t)at * 3;
        for (int k = 0; k < 3; k++) to[k] += part * (float)rgb[(size_t)x * 3 + (size_t)k];
        for (int k = 0; part < 1 && k < 3; k++) to[3 + k] += (1 - part) * (float)rgb[(size_t)x * 3 + (size_t)k];
    }
    const float part = share(t->row++, t->height, t->h, &at);
    const size_t n = (size_t)t->w * 3;
    float       *to = t->sum + (size_t)at * n;
    for (size_t i = 0; i < n; i++) to[i] += part * t->line[i];
    for (size_t i = 0; part < 1 && i < n; i++) to[n + i] += (1 - part) * t->line[i];
}

void thumbnail_get(const thumbnail *t, int32_t y, uint8_t *rgb)
{
    const float  area = (float)t->width / (float)t->w * (float)t->height / (float)t->h;
    const size_t n = (size_t)t->w * 3;
    for (size_t i = 0; i < n; i++) {
        const float value = t->sum[(size_t)y * n + i] / area + 0.5f;
        rgb[i] = (uint8_t)(value > 255 ? 255 : value);
    }
}
