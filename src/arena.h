/* One allocation per phase, cut into named parts: sizes are asked for first, then the memory is taken at once. */
#ifndef DYPE_ARENA_H
#define DYPE_ARENA_H

#include "device.h"

enum { ARENA_PARTS = 32 };

typedef struct arena {
    struct {
        void       *at; /* where the pointer goes: void ** of the owner's field */
        size_t      bytes;
        const char *what;
    } part[ARENA_PARTS];
    int     n_parts;
    device *dev;
    void   *base;
} arena;

/* Plans `bytes` (may be 0) whose address arena_take will store at `field` (the address of a pointer). */
void   arena_plan(arena *a, void *field, size_t bytes, const char *what);
size_t arena_bytes(const arena *a);
/* Allocates what was planned; `what` names the phase in errors. */
status arena_take(arena *a, device *dev, const char *what);
void   arena_free(arena *a); /* also when nothing was taken */

#endif
