/* The tiny models of the parity tests are those of the reference vectors: the counter gives the bits that
 * tests/vectors/counter.py gives, and the files hold the tensors that the library classes were filled with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "counter.h"
#include "tempdir.h"
#include "tiny_model.h"
#include "vectors.h"

/* Both tables: make_vectors.py --literals. */
static const struct {
    const char *name;
    int64_t shape[4];
    uint32_t bits[3]; /* first, second and last element */
} weights[] = {
    {"x_embedder.weight", {256, 64}, {0xbc7e39eb, 0xbda33eef, 0x3d443155}},
    {"x_embedder.bias", {256}, {0x3ca94858, 0xbd94fd04, 0x3dad3a50}},
    {"a.attn.norm_q.weight", {128}, {0x3fc51cf7, 0x3fd157cf, 0x3fd7ea08}},
    {"encoder.final_layer_norm.weight", {48}, {0x3f96c73a, 0x3f9e24ba, 0x3f9de1e4}},
    {"shared.weight", {320, 48}, {0x3deac140, 0xbee2d750, 0xbd288300}},
    {"encoder.block.0.layer.0.SelfAttention.q.weight", {48, 48}, {0xbdc08cec, 0xbdc429d8, 0xbdc08174}},
    {"decoder.conv_in.weight", {32, 16, 3, 3}, {0xbe0ef0d2, 0x3de58089, 0xbdfd31e5}},
};

static const struct {
    char which;
    struct {
        size_t n_tensors;
        uint64_t sum;
    } parts[4]; /* transformer, vae, text_encoder, text_encoder_2 */
} sums[] = {
    {'a', {{112, 0x35cf7e819e}, {138, 0x1ba547736}, {36, 0x457cb6b1}, {21, 0x767e7d91}}},
    {'b', {{76, 0x13d6f914a9}, {70, 0x7678b94d}, {52, 0x40dc213f}, {30, 0x820f018e}}},
    {'c', {{66, 0x9b239a245}, {86, 0x69d92207}, {20, 0x146eeaf7}, {12, 0x142586b4}}},
    {'d', {{48, 0x16668ec1cb2f5}, {48, 0xab300ebe396}, {20, 0x15ee09b0cf51}, {12, 0x165f34a12678}}},
    {'e', {{34, 0x4c8a2bb13267}, {106, 0x4e0b3770f3f7}, {20, 0x163611b89438}, {12, 0x167987acc563}}},
};

static void counter_has_the_bits_of_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
        int n_dims = 0;
        int64_t n = 1;
        while (n_dims < 4 && weights[i].shape[n_dims] > 0)
            n *= weights[i].shape[n_dims++];
        const counter c = counter_weight(1001, weights[i].name, weights[i].shape, n_dims);
        const int64_t at[3] = {0, 1, n - 1};
        for (int k = 0; k < 3; k++) {
            float value = counter_value(&c, at[k]);
            uint32_t bits;
            memcpy(&bits, &value, sizeof(bits));
            assert_int_equal(bits, weights[i].bits[k]);
        }
    }
}

static void folders_hold_the_reference_weights(void **state)
{
    (void)state;
    static const char *const files[] = {"transformer/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
                                        "text_encoder_2/model.safetensors"};
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        const tiny_model model = tiny_model_get(sums[i].which);
        char dir[TEMPDIR_PATH], path[1024];
        assert_int_equal(tempdir_open(dir), ST_OK);
        assert_int_equal(tiny_model_write(&model, TINY_ALL, dir), ST_OK);
        for (int k = 0; k < 4; k++) {
            size_t n_tensors = 0;
            snprintf(path, sizeof(path), "%s/%s", dir, files[k]);
            vectors *v = vectors_open_path(path);
            assert_int_equal(vectors_sum(v, &n_tensors), sums[i].parts[k].sum);
            assert_int_equal(n_tensors, sums[i].parts[k].n_tensors);
            vectors_close(v);
        }
        tempdir_close(dir);
    }
}

static void shards_hold_the_same_tensors(void **state)
{
    (void)state;
    tiny_model model = tiny_model_get('e');
    model.shards = 3;
    char dir[TEMPDIR_PATH], path[1024];
    assert_int_equal(tempdir_open(dir), ST_OK);
    assert_int_equal(tiny_model_write(&model, TINY_TRANSFORMER, dir), ST_OK);
    uint64_t sum = 0;
    size_t n_tensors = 0;
    for (int i = 1; i <= 3; i++) {
        size_t n = 0;
        snprintf(path, sizeof(path), "%s/transformer/diffusion_pytorch_model-%05d-of-00003.safetensors", dir, i);
        vectors *v = vectors_open_path(path);
        sum += vectors_sum(v, &n);
        n_tensors += n;
        vectors_close(v);
    }
    assert_int_equal(n_tensors, sums[4].parts[0].n_tensors);
    assert_int_equal(sum, sums[4].parts[0].sum);
    tempdir_close(dir);
}

static void writing_where_a_model_is_fails(void **state)
{
    (void)state;
    const tiny_model model = tiny_model_get('d');
    char dir[TEMPDIR_PATH];
    assert_int_equal(tempdir_open(dir), ST_OK);
    assert_int_equal(tiny_model_write(&model, TINY_TRANSFORMER, dir), ST_OK);
    assert_int_equal(tiny_model_write(&model, TINY_TRANSFORMER, dir), ST_OUTPUT);
    tempdir_close(dir);
    struct stat info;
    assert_int_not_equal(stat(dir, &info), 0);
}

static void distances_are_what_they_say(void **state)
{
    (void)state;
    const float a[] = {3, 4, 1}, b[] = {3, 0, 1}, right[] = {0, 1, 0};
    assert_true(rel_l2(b, a, 2) == 0.8);
    assert_true(max_abs(a, b, 3) == 4);
    assert_true(cosine(b, right, 2) == 0);
    assert_true(cosine(a, a, 2) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counter_has_the_bits_of_the_reference), cmocka_unit_test(folders_hold_the_reference_weights),
        cmocka_unit_test(shards_hold_the_same_tensors),          cmocka_unit_test(writing_where_a_model_is_fails),
        cmocka_unit_test(distances_are_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
