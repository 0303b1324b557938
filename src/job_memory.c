#include "job_memory.h"

#include <stdalign.h>
#include <stdlib.h>

enum { BLOCK_BYTES = 64 * 1024 };

typedef struct block {
    struct block *next;
    size_t used, room;
    alignas(max_align_t) char bytes[];
} block;

struct job_memory {
    block *blocks; /* the newest first */
};

job_memory *job_memory_open(void)
{
    return calloc(1, sizeof(job_memory));
}

void *job_memory_take(job_memory *memory, size_t n_bytes)
{
    n_bytes = (n_bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    block *b = memory->blocks;
    if (b == NULL || b->room - b->used < n_bytes) {
        size_t room = n_bytes > BLOCK_BYTES ? n_bytes : BLOCK_BYTES;
        b = calloc(1, sizeof(*b) + room);
        if (b == NULL) return NULL;
        b->room = room;
        b->next = memory->blocks;
        memory->blocks = b;
    }
    void *piece = b->bytes + b->used;
    b->used += n_bytes;
    return piece;
}

void job_memory_close(job_memory *memory)
{
    if (memory == NULL) return;
    for (block *b = memory->blocks; b != NULL;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(memory);
}
