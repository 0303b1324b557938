/* The weights of a part of a model: an index and two shards. Accepted: every tensor is found at its place, in one of the files. */
#include "fuzz.h"

#include <string.h>

#include "tempdir.h"
#include "tensor_set.h"

#define STEM "model"
static const char INDEX[] = "part/" STEM ".safetensors.index.json", FIRST[] = "part/one.safetensors", SECOND[] = "part/two.safetensors";

static status read_shards(const uint8_t *data, size_t n)
{
    tensor_set  *set = NULL;
    const status st = tensor_set_open(&set, fuzz_path("part"), STEM, "transformer");
    (void)data, (void)n;
    if (st != ST_OK) return st;
    FUZZ_EXPECT(tensor_set_count(set) >= 1 && tensor_set_n_files(set) >= 1);
    for (int i = 0; i < (int)tensor_set_count(set); i++) {
        const safetensors_entry *e = tensor_set_get(set, i);
        unsigned                 sum = 0;
        FUZZ_EXPECT(tensor_set_find(set, e->name) == i && strchr(tensor_set_home(set, i), '/') == NULL);
        for (size_t b = 0; b < e->bytes; b++) sum += ((const unsigned char *)e->data)[b];
        FUZZ_EXPECT(sum <= 255 * e->bytes);
        tensor_set_drop(set, e->data, e->bytes);
    }
    FUZZ_EXPECT(tensor_set_find(set, "no such tensor") == TENSOR_NONE);
    FUZZ_EXPECT(tensor_set_find(set, tensor_set_nearest(set, "a.weigth")) != TENSOR_NONE);
    tensor_set_close(set);
    return ST_OK;
}

static void make_seeds(void)
{
    static const float       values[12];
    const safetensors_tensor a = {.name = "a.weight", .type = DT_F32, .n_dims = 2, .shape = {4, 3}, .data = values};
    const safetensors_tensor b = {.name = "b.bias", .type = DT_BF16, .n_dims = 1, .shape = {5}, .data = values};
    FUZZ_EXPECT(safetensors_write(fuzz_path(FIRST), &a, 1, NULL, 0) == ST_OK);
    FUZZ_EXPECT(safetensors_write(fuzz_path(SECOND), &b, 1, NULL, 0) == ST_OK);
    FUZZ_EXPECT(tempdir_write(fuzz_path(INDEX), "{\"metadata\":{\"total_size\":58},\"weight_map\":"
                              "{\"a.weight\":\"one.safetensors\",\"b.bias\":\"two.safetensors\"}}") == ST_OK);
    fuzz_seed_files();
}

/* The second shard last: its bytes may be separators. */
const fuzz_target target = {.files = {INDEX, FIRST, SECOND}, .bad = ST_BAD_MODEL, .read = read_shards, .seeds = make_seeds};
