/* The tensors of one part meet their names once; what does not fit is told with got and wanted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "safetensors.h"
#include "tempdir.h"
#include "weights.h"

static char dir[TEMPDIR_PATH];
static char path[TEMPDIR_PATH + 64];

static int make_folder(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

static const char *in_dir(const char *name)
{
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

/* A block of two layers: q [2, 3], bias [2]; values tell layer and element. */
static const float q0[6] = {0, 1, 2, 3, 4, 5}, q1[6] = {10, 11, 12, 13, 14, 15};
static const uint16_t b0[2] = {0x3f80, 0x4000}, b1[2] = {0x4040, 0x4080};
static const safetensors_tensor all[] = {
    {.name = "blocks.0.q.weight", .type = DT_F32, .n_dims = 2, .shape = {2, 3}, .data = q0},
    {.name = "blocks.0.q.bias", .type = DT_BF16, .n_dims = 1, .shape = {2}, .data = b0},
    {.name = "blocks.1.q.weight", .type = DT_F32, .n_dims = 2, .shape = {2, 3}, .data = q1},
    {.name = "blocks.1.q.bias", .type = DT_BF16, .n_dims = 1, .shape = {2}, .data = b1},
};

typedef struct {
    weight q, bias, extra;
} layer;
enum { DIM_OUT, DIM_IN };
static const int64_t dims[] = {[DIM_OUT] = 2, [DIM_IN] = 3};
static const weight_spec layer_specs[] = {
    {offsetof(layer, q), "blocks.%d.q.weight", 2, {DIM_OUT, DIM_IN}, false, NULL},
    {offsetof(layer, bias), "blocks.%d.q.bias", 1, {DIM_OUT}, false, NULL},
    {offsetof(layer, extra), "blocks.%d.extra", 1, {DIM_IN}, true, NULL},
};
enum { N_SPECS = sizeof(layer_specs) / sizeof(layer_specs[0]) };

static void put_tensors(const char *name, const safetensors_tensor *tensors, size_t n)
{
    if (safetensors_write(in_dir(name), tensors, n, NULL, 0) != ST_OK) fail_msg("%s", err_text());
}

static status open_part(weights **w)
{
    return weights_open(w, &(weights_opts){.dir = dir, .stem = "model", .what = "part"});
}

static weights *open_good(void)
{
    weights *w = NULL;
    if (open_part(&w) != ST_OK) fail_msg("%s", err_text());
    return w;
}

static void check_refused(const char *wanted)
{
    weights *w = NULL;
    err_clear();
    assert_int_equal(open_part(&w), ST_BAD_MODEL);
    assert_null(w);
    if (strstr(err_text(), wanted) == NULL) fail_msg("got '%s', want '%s'", err_text(), wanted);
}

static void check_bound(weights *w)
{
    layer l[2];
    for (int i = 0; i < 2; i++) {
        if (weights_bind(w, layer_specs, N_SPECS, i, dims, &l[i]) != ST_OK) fail_msg("%s", err_text());
    }
    assert_int_equal(l[1].q.type, DT_F32);
    assert_int_equal(l[1].q.n_dims, 2);
    assert_int_equal(l[1].q.shape[1], 3);
    assert_string_equal(l[1].q.name, "blocks.1.q.weight");
    assert_memory_equal(l[0].q.data, q0, sizeof(q0));
    assert_memory_equal(l[1].q.data, q1, sizeof(q1));
    assert_memory_equal(l[1].bias.data, b1, sizeof(b1));
    assert_null(l[0].extra.data);
    weights_drop(w, &l[0].q, 3);
    assert_memory_equal(l[0].q.data, q0, sizeof(q0));
}

static void one_file_binds(void **state)
{
    (void)state;
    static const char *const names[] = {"model.safetensors", "model.bf16.safetensors", "model.fp16.safetensors",
                                        "anything.safetensors"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        put_tensors(names[i], all, 4);
        weights *w = open_good();
        const char *first = NULL;
        assert_int_equal(weights_unused(w, &first), 4);
        assert_string_equal(first, "blocks.0.q.bias");
        assert_int_equal(weights_bound_bytes(w), 0);
        check_bound(w);
        assert_int_equal(weights_unused(w, NULL), 0);
        assert_int_equal(weights_bytes(w), 2 * (24 + 4));
        assert_int_equal(weights_bound_bytes(w), 2 * (24 + 4));
        assert_int_equal(weights_n_files(w), 1);
        assert_string_equal(weights_file(w, 0), names[i]);
        assert_string_equal(weights_note(w), "");
        weights_close(w);
        unlink(in_dir(names[i]));
    }
}

static const char good_index[] = "{\"metadata\": {\"total_size\": 99999999999999}, \"weight_map\": {"
                                 "\"blocks.0.q.weight\": \"model-00001-of-00002.safetensors\", \"blocks.0.q.bias\": "
                                 "\"model-00001-of-00002.safetensors\","
                                 "\"blocks.1.q.weight\": \"model-00002-of-00002.safetensors\", \"blocks.1.q.bias\": "
                                 "\"model-00002-of-00002.safetensors\"}}";

static void put_shards(const char *index)
{
    put_tensors("model-00001-of-00002.safetensors", all, 2);
    put_tensors("model-00002-of-00002.safetensors", all + 2, 2);
    assert_int_equal(tempdir_write(in_dir("model.safetensors.index.json"), index), ST_OK);
}

static void shards_bind_as_one_part(void **state)
{
    (void)state;
    put_shards(good_index);
    put_tensors("model.safetensors", all, 1); /* the index goes before a single file */
    weights *w = open_good();
    check_bound(w);
    assert_int_equal(weights_n_files(w), 3);
    assert_string_equal(weights_file(w, 1), "model-00002-of-00002.safetensors");
    assert_string_equal(weights_file(w, 2), "model.safetensors.index.json");
    weights_close(w);
}

static void the_index_is_checked(void **state)
{
    static const struct {
        const char *index, *wanted;
    } cases[] = {
        {"{\"weight_map\": {}}", "weight_map: absent or empty"},
        {"{\"metadata\": {}}", "weight_map: absent or empty"},
        {"{\"weight_map\": {\"a\": 1}}", "a: got no text"},
        {"{\"weight_map\": {\"a\": \"../model.safetensors\"}}", "a: got ../model.safetensors, want the bare name"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "bare name"},
        {"{\"weight_map\": {\"a\": \"x\\\\y\"}}", "bare name"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "bare name"},
        {"{\"weight_map\": {\"a\": \"\"}}", "bare name"},
        {"{\"weight_map\": {\"a\": \"x\\u0000y\"}}", "\\u0000"},
        {"{\"weight_map\": {\"a\": \"b\", \"a\": \"c\"}}", "duplicate"},
        {"{\"weight_map\": {\"a\": \"model-00003-of-00003.safetensors\"}}", "names it, but it is missing"},
        {"{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}", "tensor a is missing"},
        {"{\"weight_map\": {\"blocks.1.q.bias\": \"model-00001-of-00002.safetensors\"}}", "blocks.1.q.bias is missing"},
        {"<html>", "HTML page"},
        {"{", ":1:1:"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put_shards(cases[i].index);
        check_refused(cases[i].wanted);
    }
}

static void tensors_that_the_index_forgot_are_noted(void **state)
{
    (void)state;
    put_shards("{\"weight_map\": {\"blocks.0.q.weight\": \"model-00001-of-00002.safetensors\","
               "\"blocks.1.q.weight\": \"model-00002-of-00002.safetensors\"}}");
    weights *w = open_good();
    assert_non_null(strstr(weights_note(w), "2 tensors are in the files but not in their index"));
    check_bound(w);
    weights_close(w);

    /* Where two shards hold one name, the index decides; without its word it is an error. */
    put_tensors("model-00002-of-00002.safetensors", all + 1, 3);
    check_refused("tensor blocks.0.q.bias is in model-0000");
    put_shards(good_index);
    put_tensors("model-00002-of-00002.safetensors", all + 1, 3);
    w = open_good();
    check_bound(w);
    weights_close(w);
}

static void a_folder_without_weights_is_explained(void **state)
{
    static const struct {
        const char *file, *wanted;
    } cases[] = {
        {"config.json", "no model.safetensors and no model.safetensors.index.json"},
        {"pytorch_model.bin", "pickles are not read"},
        {"flux-q4.gguf", "GGUF"},
        {"model.safetensors.incomplete", "an unfinished download"},
        {"flax_model.msgpack", "another framework"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tempdir_write(in_dir(cases[i].file), "x"), ST_OK);
        check_refused(cases[i].wanted);
        unlink(in_dir(cases[i].file));
    }
    put_tensors("model-00001-of-00002.safetensors", all, 2);
    put_tensors("model-00002-of-00002.safetensors", all + 2, 2);
    check_refused("2 *.safetensors files and no model.safetensors.index.json");
    put_tensors("model.safetensors", NULL, 0);
    check_refused("no tensors");
}

static void other_kinds_of_weights_are_named(void **state)
{
    static const struct {
        const char *name, *wanted;
    } cases[] = {
        {"blocks.0.q.weight.absmax", "bitsandbytes"},
        {"blocks.0.q.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"},
        {"scaled_fp8", "scaled fp8"},
        {"blocks.0.q.scale_weight", "scaled fp8"},
        {"blocks.0.qweight", "quantised"},
        {"double_blocks.0.img_attn.qkv.weight", "original single-file layout"},
        {"transformer.blocks.0.lora_A.weight", "a LoRA adapter"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        safetensors_tensor list[] = {all[0], all[1]};
        list[1].name = cases[i].name;
        put_tensors("model.safetensors", list, 2);
        check_refused(cases[i].wanted);
        assert_non_null(strstr(err_text(), cases[i].name));
    }
}

static void wrong_tensors_are_told_with_got_and_wanted(void **state)
{
    (void)state;
    safetensors_tensor list[] = {all[0], all[1], all[2]};
    list[0].shape[0] = 3, list[0].shape[1] = 2;
    list[1].name = "blocks.0.q.biases";
    list[2].name = "blocks.0.extra";
    list[2].type = DT_I32;
    list[2].n_dims = 1, list[2].shape[0] = 3;
    put_tensors("model.safetensors", list, 3);
    weights *w = open_good();
    layer l;
    assert_int_equal(weights_bind(w, layer_specs, N_SPECS, 0, dims, &l), ST_BAD_MODEL);
    const char *text = err_text();
    assert_non_null(strstr(text, "part: tensor blocks.0.q.weight in model.safetensors: got F32 [3, 2], want [2, 3]"));
    assert_non_null(strstr(text, "tensor blocks.0.q.bias is missing"));
    assert_non_null(strstr(text, "nearest name there is blocks.0.q.biases"));
    assert_non_null(strstr(text, "tensor blocks.0.extra in model.safetensors: type I32 is not supported"));
    weights_close(w);
}

static void only_the_first_complaints_are_shown(void **state)
{
    (void)state;
    put_tensors("model.safetensors", all, 4);
    weights *w = open_good();
    weight list[8];
    weight_spec specs[8];
    for (size_t i = 0; i < 8; i++)
        specs[i] = (weight_spec){i * sizeof(weight), "absent.%d", 1, {DIM_OUT}, false, NULL};
    assert_int_equal(weights_bind(w, specs, 8, 7, dims, list), ST_BAD_MODEL);
    assert_non_null(strstr(err_text(), "absent.7"));
    assert_non_null(strstr(err_text(), "and 3 more like these"));
    weights_close(w);
}

static void aliases_prefixes_and_old_shapes_are_accepted(void **state)
{
    (void)state;
    safetensors_tensor list[] = {all[0], all[1], all[2]};
    list[0].name = "mid.query.weight";
    list[0].n_dims = 4, list[0].shape[2] = 1, list[0].shape[3] = 1;
    list[1].name = "mid.bias";
    list[2].name = "encoder.unused";
    put_tensors("model.safetensors", list, 3);
    static const weight_spec specs[] = {
        {offsetof(layer, q), "to_q.weight", 2, {DIM_OUT, DIM_IN}, false, "query.weight"},
        {offsetof(layer, bias), "bias", 1, {DIM_OUT}, false, "old_bias"},
    };
    weights *w = NULL;
    layer l;
    assert_int_equal(weights_open(&w, &(weights_opts){dir, "model", "vae", "encoder."}), ST_OK);
    if (weights_bind_under(w, "mid.", specs, 2, dims, &l) != ST_OK) fail_msg("%s", err_text());
    assert_int_equal(l.q.n_dims, 2);
    assert_string_equal(l.q.name, "mid.query.weight");
    assert_memory_equal(l.q.data, q0, sizeof(q0));
    assert_memory_equal(l.bias.data, b0, sizeof(b0));
    assert_int_equal(weights_unused(w, NULL), 0);
    weights_close(w);
}

/* Writers of old did not pad the header: the data is copied, and the copy is told. */
static void misaligned_tensors_are_copied(void **state)
{
    (void)state;
    char header[] = "{\"blocks.0.q.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}    ";
    size_t n = strlen(header);
    while ((8 + n) % 4 != 3)
        n--;
    FILE *f = fopen(in_dir("model.safetensors"), "wb");
    unsigned char prefix[8] = {(unsigned char)n};
    fwrite(prefix, 1, 8, f);
    fwrite(header, 1, n, f);
    fwrite(q0, 1, sizeof(q0), f);
    assert_int_equal(fclose(f), 0);
    weights *w = open_good();
    layer l, again;
    assert_int_equal(weights_bind(w, layer_specs, 1, 0, dims, &l), ST_OK);
    assert_int_equal((uintptr_t)l.q.data % 64, 0);
    assert_memory_equal(l.q.data, q0, sizeof(q0));
    assert_non_null(strstr(weights_note(w), "1 misaligned tensors"));
    weights_drop(w, &l.q, 1);
    assert_memory_equal(l.q.data, q0, sizeof(q0));
    assert_int_equal(weights_bind(w, layer_specs, 1, 0, dims, &again), ST_OK);
    assert_ptr_equal(l.q.data, again.q.data);
    weights_close(w);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(one_file_binds),
        IN_FOLDER(shards_bind_as_one_part),
        IN_FOLDER(the_index_is_checked),
        IN_FOLDER(tensors_that_the_index_forgot_are_noted),
        IN_FOLDER(a_folder_without_weights_is_explained),
        IN_FOLDER(other_kinds_of_weights_are_named),
        IN_FOLDER(wrong_tensors_are_told_with_got_and_wanted),
        IN_FOLDER(only_the_first_complaints_are_shown),
        IN_FOLDER(aliases_prefixes_and_old_shapes_are_accepted),
        IN_FOLDER(misaligned_tensors_are_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
