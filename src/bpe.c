#include "bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t pair; /* left in the upper half, right in the lower */
    int32_t rank;
} ranked_pair;

struct bpe {
    bpe_merge *merges;  /* [n_merges], by rank */
    ranked_pair *pairs; /* [n_pairs], by pair, each once */
    int32_t n_merges, n_pairs;
};

/* A word while it is being joined: a linked list over the places of its first symbols. */
typedef struct {
    int32_t *symbols; /* GONE where a symbol went into the one on its left */
    int32_t *next;    /* place of the symbol on the right; n at the end */
    int32_t *previous;
    int32_t n;
    uint64_t *heap; /* candidates, rank in the upper half and place of the left symbol in the lower; smallest first */
    int64_t n_heap;
    uint64_t *later; /* candidates that the current round made, growing down from the end of the heap's memory */
} joining;

enum { GONE = -2 };

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static int by_pair_last_rank_first(const void *va, const void *vb)
{
    const ranked_pair *a = va, *b = vb;
    if (a->pair != b->pair) return a->pair < b->pair ? -1 : 1;
    return a->rank > b->rank ? -1 : 1;
}

status bpe_open(bpe **out, const bpe_merge *merges, int32_t n)
{
    size_t bytes = (size_t)n * sizeof(*merges);
    bpe *b = calloc(1, sizeof(*b));
    if (b == NULL) return err_set(ST_NO_MEMORY, "bpe: %zu bytes", sizeof(*b));
    b->merges = malloc(bytes + 1);
    b->pairs = malloc((size_t)n * sizeof(*b->pairs) + 1);
    if (b->merges == NULL || b->pairs == NULL) {
        bpe_close(b);
        return err_set(ST_NO_MEMORY, "bpe: %d merges", n);
    }
    if (n > 0) memcpy(b->merges, merges, bytes);
    b->n_merges = n;
    for (int32_t i = 0; i < n; i++) b->pairs[i] = (ranked_pair){pair_of(merges[i].left, merges[i].right), i};
    qsort(b->pairs, (size_t)n, sizeof(*b->pairs), by_pair_last_rank_first);
    for (int32_t i = 0; i < n; i++) {
        if (i == 0 || b->pairs[i].pair != b->pairs[i - 1].pair) b->pairs[b->n_pairs++] = b->pairs[i];
    }
    *out = b;
    return ST_OK;
}

void bpe_close(bpe *b)
{
    if (b == NULL) return;
    free(b->pairs);
    free(b->merges);
    free(b);
}

/* The rank of a pair, -1 when it has no merge. */
static int32_t rank_of(const bpe *b, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return -1;
    uint64_t pair = pair_of(left, right);
    int32_t low = 0, high = b->n_pairs;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (b->pairs[middle].pair < pair) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < b->n_pairs && b->pairs[low].pair == pair ? b->pairs[low].rank : -1;
}

static void heap_push(joining *w, uint64_t candidate)
{
    int64_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2] > candidate) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = candidate;
}

static uint64_t heap_pop(joining *w)
{
    uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= w->n_heap) break;
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= last) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* The candidate whose left symbol is at place, if there is one. */
static bool candidate_at(const bpe *b, const joining *w, int32_t place, uint64_t *candidate)
{
    int32_t rank = rank_of(b, w->symbols[place], w->symbols[w->next[place]]);
    if (rank < 0) return false;
    *candidate = (uint64_t)(uint32_t)rank << 32 | (uint32_t)place;
    return true;
}

/* The symbol at place takes in the one on its right. Its new neighbourhoods become candidates of the next round: at
 * most two for the one that was popped, so heap and later together never hold more than 2 n. */
static void join_at(const bpe *b, joining *w, int32_t place, int32_t joined, int64_t *n_lookups)
{
    int32_t gone = w->next[place], right = w->next[gone], left = w->previous[place];
    w->symbols[place] = joined;
    w->symbols[gone] = GONE;
    w->next[place] = right;
    if (right < w->n) {
        w->previous[right] = place;
        *n_lookups += 1;
        if (candidate_at(b, w, place, w->later - 1)) w->later--;
    }
    if (left >= 0) {
        *n_lookups += 1;
        if (candidate_at(b, w, left, w->later - 1)) w->later--;
    }
}

static void join_rounds(const bpe *b, joining *w, uint64_t *end, int64_t *n_lookups)
{
    while (w->n_heap > 0) {
        int32_t rank = (int32_t)(w->heap[0] >> 32);
        const bpe_merge *m = &b->merges[rank];
        while (w->n_heap > 0 && (int32_t)(w->heap[0] >> 32) == rank) {
            int32_t place = (int32_t)(heap_pop(w) & 0xffffffffu);
            int32_t right = w->next[place];
            /* A candidate may have lost one of its symbols since it was pushed. */
            if (w->symbols[place] != m->left || right >= w->n || w->symbols[right] != m->right) continue;
            join_at(b, w, place, m->joined, n_lookups);
        }
        while (w->later < end) heap_push(w, *w->later++);
    }
}

status bpe_join(const bpe *b, int32_t *symbols, int32_t *n, int64_t *n_lookups)
{
    int64_t ignored = 0;
    if (n_lookups == NULL) n_lookups = &ignored;
    if (*n < 2) return ST_OK;
    size_t n_places = (size_t)*n;
    /* One candidate more than the bound: candidate_at writes before it is known whether there is one. */
    size_t heap_bytes = (2 * n_places + 1) * sizeof(uint64_t), links_bytes = 2 * n_places * sizeof(int32_t);
    uint64_t *memory = malloc(heap_bytes + links_bytes);
    if (memory == NULL) return err_set(ST_NO_MEMORY, "bpe: %zu bytes for one word", heap_bytes + links_bytes);
    uint64_t *end = memory + 2 * n_places + 1;
    joining w = {.symbols = symbols, .n = *n, .heap = memory, .later = end};
    w.next = (int32_t *)end;
    w.previous = w.next + n_places;
    for (int32_t i = 0; i < w.n; i++) {
        w.next[i] = i + 1;
        w.previous[i] = i - 1;
    }
    *n_lookups += w.n - 1;
    for (int32_t i = 0; i + 1 < w.n; i++) {
        uint64_t candidate;
        if (candidate_at(b, &w, i, &candidate)) heap_push(&w, candidate);
    }
    join_rounds(b, &w, end, n_lookups);
    int32_t n_left = 0;
    for (int32_t i = 0; i < w.n; i = w.next[i]) symbols[n_left++] = symbols[i];
    *n = n_left;
    free(memory);
    return ST_OK;
}
