#include "arena.h"

#include <assert.h>
#include <string.h>

enum { PART_ALIGNMENT = 64 };

static size_t part_bytes(size_t bytes)
{
    return (bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT;
}

void arena_plan(arena *a, void *field, size_t bytes, const char *what)
{
    assert(a->n_parts < ARENA_PARTS);
    a->part[a->n_parts].at = field;
    a->part[a->n_parts].bytes = bytes;
    a->part[a->n_parts].what = what;
    a->n_parts++;
}

size_t arena_bytes(const arena *a)
{
    size_t total = 0;
    for (int i = 0; i < a->n_parts; i++) total += part_bytes(a->part[i].bytes);
    return total;
}

status arena_take(arena *a, device *dev, const char *what)
{
    status st = device_alloc(dev, arena_bytes(a), what, &a->base);
    if (st != ST_OK) return st;
    a->dev = dev;
    unsigned char *at = a->base;
    for (int i = 0; i < a->n_parts; i++) {
        void *ptr = at;
        memcpy(a->part[i].at, &ptr, sizeof(ptr));
        at += part_bytes(a->part[i].bytes);
    }
    return ST_OK;
}

void arena_free(arena *a)
{
    if (a->base != NULL) device_free(a->dev, a->base);
    memset(a, 0, sizeof(*a));
}
