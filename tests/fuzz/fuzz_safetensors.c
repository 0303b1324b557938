/* One file of weights, of latents_in or of embeddings_in. Accepted: the tensors tile what lies behind the header, no byte
 * twice, none left out; each can be read to its last byte, and found by its name. */
#include "fuzz.h"

#include <string.h>

#include "latents_file.h"
#include "safetensors.h"

static const char PATH[] = "a.safetensors";

static size_t header_bytes(const uint8_t *data)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
    return 8 + (size_t)n;
}

/* As latents_in would be read. */
static void read_values(const safetensors_entry *e)
{
    float       *values = NULL;
    int64_t      n[2] = {0};
    const status st = latents_file_read(&values, fuzz_path(PATH), e->name, 0, 0, n);
    FUZZ_EXPECT(st == ST_OK || (st == ST_BAD_JOB && strstr(err_text(), fuzz_path(PATH)) != NULL));
    if (st == ST_OK) FUZZ_EXPECT((size_t)(n[0] * n[1]) * dtype_bytes(e->type) == e->bytes);
    free(values);
    err_clear();
}

static status read_safetensors(const uint8_t *data, size_t n)
{
    safetensors *s = NULL;
    size_t       all = 0;
    const status st = safetensors_open(&s, fuzz_path(PATH), ST_BAD_MODEL);
    if (st != ST_OK) return st;
    uint8_t *covered = calloc(n, 1);
    FUZZ_EXPECT(covered != NULL);
    const uint8_t *body = NULL;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const safetensors_entry *e = safetensors_get(s, i);
        if (e->bytes > 0 && (body == NULL || (const uint8_t *)e->data < body)) body = e->data;
    }
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const safetensors_entry *e = safetensors_get(s, i);
        FUZZ_EXPECT(safetensors_find(s, e->name) == e && e->n_dims >= 0 && e->n_dims <= SAFETENSORS_MAX_DIMS);
        int64_t elements = 1;
        for (int d = 0; d < e->n_dims; d++) elements *= e->shape[d];
        if (e->type != DT_OTHER) FUZZ_EXPECT((size_t)elements * dtype_bytes(e->type) == e->bytes);
        all += e->bytes;
        if (e->bytes > 0) {
            const size_t from = header_bytes(data) + (size_t)((const uint8_t *)e->data - body);
            FUZZ_EXPECT(from + e->bytes <= n && memcmp(data + from, e->data, e->bytes) == 0);
            for (size_t b = from; b < from + e->bytes; b++) FUZZ_EXPECT(covered[b]++ == 0);
        }
        if (i < 4) read_values(e);
    }
    FUZZ_EXPECT(header_bytes(data) + all == n);
    FUZZ_EXPECT(safetensors_find(s, "no such tensor") == NULL);
    free(covered);
    safetensors_close(s);
    return ST_OK;
}

static void make_seeds(void)
{
    static const float       values[24];
    const safetensors_tensor tensors[] = {{.name = "a.weight", .type = DT_F32, .n_dims = 2, .shape = {4, 3}, .data = values},
                                          {.name = "b.bias", .type = DT_BF16, .n_dims = 1, .shape = {5}, .data = values},
                                          {.name = "none", .type = DT_F16, .n_dims = 3, .shape = {2, 0, 7}, .data = values}};
    const safetensors_note   note = {"format", "pt"};
    FUZZ_EXPECT(safetensors_write(fuzz_path(PATH), tensors, 3, &note, 1) == ST_OK);
    fuzz_seed_files();
    FUZZ_EXPECT(safetensors_write(fuzz_path(PATH), tensors, 1, NULL, 0) == ST_OK);
    fuzz_seed_files();
}

const fuzz_target target = {.files = {PATH}, .bad = ST_BAD_MODEL, .read = read_safetensors, .seeds = make_seeds};
