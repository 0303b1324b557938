/* Token ids equal those of the reference tokenizers (tests/vectors/tokenizers/README.md): CLIP in six kinds of
 * tokenizer folder, T5 by SentencePiece; prompts in many scripts, with signs of all kinds, and very long ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clip_folder.h"
#include "clip_tokenizer.h"
#include "t5_tokenizer.h"
#include "tempdir.h"

#define VECTORS TEST_DIR "/vectors/tokenizers"

enum { LONGEST = 100000, MIN_PROMPTS = 250 };

typedef status (*encode_fn)(const void *tokenizer, const char *text, int max_length, int32_t *ids, int *n_used,
                            char **lost);

static json_t *prompts_file;
static int32_t ids[LONGEST];

static status encode_clip(const void *t, const char *text, int max_length, int32_t *out, int *n_used, char **lost)
{
    return clip_tokenizer_encode(t, text, max_length, out, n_used, lost);
}

static status encode_t5(const void *t, const char *text, int max_length, int32_t *out, int *n_used, char **lost)
{
    return t5_tokenizer_encode(t, text, max_length, out, n_used, lost);
}

/* FNV-1a 64 over the ids as little-endian words: what the file has of sequences too long to list. */
static void hash_ids(char text[17], const int32_t *list, int n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < n; i++) {
        for (int byte = 0; byte < 4; byte++) {
            hash = (hash ^ ((uint32_t)list[i] >> (8 * byte) & 0xffu)) * 0x100000001b3u;
        }
    }
    snprintf(text, 17, "%016llx", (unsigned long long)hash);
}

static char *prompt_text(const json_t *prompt)
{
    const json_t *unit = json_object_get(prompt, "text"), *times = json_object_get(prompt, "times");
    size_t n_bytes = json_string_length(unit), n = times != NULL ? (size_t)json_integer_value(times) : 1;
    char *text = malloc(n * n_bytes + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) memcpy(text + i * n_bytes, json_string_value(unit), n_bytes);
    text[n * n_bytes] = '\0';
    return text;
}

static const json_t *field(const json_t *prompt, const char *name, const char *suffix)
{
    char key[32];
    snprintf(key, sizeof(key), "%s%s", name, suffix);
    return json_object_get(prompt, key);
}

/* Whether ids and lost text of one prompt are the reference's, cut at max_length and whole. */
static bool check_prompt(const json_t *prompt, const char *name, encode_fn encode, const void *t, int max_length,
                         int32_t pad)
{
    const json_t *want = field(prompt, name, ""), *all = field(prompt, name, "_all");
    const char *want_lost = json_string_value(field(prompt, name, "_lost"));
    int n_want = (int)json_array_size(want), n_all = (int)json_integer_value(json_array_get(all, 0)), n_used;
    char *text = prompt_text(prompt), *lost = NULL, hash[17];
    assert_int_equal(encode(t, text, max_length, ids, &n_used, &lost), ST_OK);
    bool same = n_used == n_want && (lost != NULL) == (n_all > max_length);
    for (int i = 0; same && i < n_want; i++) same = ids[i] == json_integer_value(json_array_get(want, (size_t)i));
    for (int i = n_want; same && i < max_length; i++) same = ids[i] == pad;
    if (same && want_lost != NULL && strcmp(lost, want_lost) != 0) {
        print_message("lost text: got \"%s\", want \"%s\"\n", lost, want_lost);
        same = false;
    }
    free(lost);
    assert_int_equal(encode(t, text, LONGEST, ids, &n_used, &lost), ST_OK);
    assert_null(lost);
    hash_ids(hash, ids, n_used);
    same = same && n_used == n_all && strcmp(hash, json_string_value(json_array_get(all, 1))) == 0;
    if (!same) print_message("%s: got %d ids, want %d: %.200s\n", name, n_used, n_all, text);
    free(text);
    return same;
}

static void check_prompts(const json_t *folder, const char *name, encode_fn encode, const void *t, int max_length,
                          int32_t pad)
{
    const json_t *prompts = json_object_get(folder, "prompts");
    size_t n = json_array_size(prompts), n_same = 0;
    for (size_t i = 0; i < n; i++) {
        n_same += check_prompt(json_array_get(prompts, i), name, encode, t, max_length, pad);
    }
    print_message("%s: %zu of %zu prompts have the reference's ids\n", name, n_same, n);
    assert_int_equal(n_same, n);
}

static void check_clip_folder(const char *name)
{
    char dir[TEMPDIR_PATH], path[2 * TEMPDIR_PATH];
    clip_tokenizer *t = NULL;
    const char *file;
    json_t *text, *folder = json_object_get(json_object_get(prompts_file, "folders"), name);
    assert_non_null(folder);
    assert_int_equal(tempdir_open(dir), ST_OK);
    assert_int_equal(clip_folder_write(dir, strcmp(name, "reversed merges") == 0), ST_OK);
    json_object_foreach (json_object_get(folder, "files"), file, text) {
        snprintf(path, sizeof(path), "%s/%s", dir, file);
        assert_int_equal(tempdir_write(path, json_string_value(text)), ST_OK);
    }
    if (clip_tokenizer_open(&t, dir) != ST_OK) fail_msg("%s", err_text());
    assert_int_equal(clip_tokenizer_max_length(t), 77);
    check_prompts(folder, "clip", encode_clip, t, (int)json_integer_value(json_object_get(prompts_file, "clip_length")),
                  (int32_t)json_integer_value(json_object_get(folder, "pad")));
    clip_tokenizer_close(t);
    tempdir_close(dir);
}

static void clip_ids_in_the_folder_of_flux(void **state)
{
    (void)state;
    check_clip_folder("flux");
}

static void clip_ids_with_nothing_but_the_vocabulary(void **state)
{
    (void)state;
    check_clip_folder("bare");
}

/* A round of merges ends before a pair that it made is looked at, whatever that pair's rank. */
static void clip_ids_with_merges_in_another_order(void **state)
{
    (void)state;
    check_clip_folder("reversed merges");
}

static void clip_ids_with_typed_specials_as_text(void **state)
{
    (void)state;
    check_clip_folder("split");
}

static void clip_ids_with_added_tokens(void **state)
{
    (void)state;
    check_clip_folder("added");
}

static void clip_ids_in_a_folder_of_the_old_kind(void **state)
{
    (void)state;
    check_clip_folder("old");
}

static void t5_ids(void **state)
{
    (void)state;
    t5_tokenizer *t = NULL;
    if (t5_tokenizer_open(&t, VECTORS) != ST_OK) fail_msg("%s", err_text());
    check_prompts(json_object_get(json_object_get(prompts_file, "folders"), "flux"), "t5", encode_t5, t,
                  (int)json_integer_value(json_object_get(prompts_file, "t5_length")), 0);
    t5_tokenizer_close(t);
}

static int open_prompts(void **state)
{
    (void)state;
    json_error_t error;
    prompts_file = json_load_file(VECTORS "/prompts.json", 0, &error);
    if (prompts_file == NULL) print_error("%s:%d: %s\n", VECTORS "/prompts.json", error.line, error.text);
    const json_t *flux = json_object_get(json_object_get(prompts_file, "folders"), "flux");
    return json_array_size(json_object_get(flux, "prompts")) >= MIN_PROMPTS ? 0 : -1;
}

static int close_prompts(void **state)
{
    (void)state;
    json_decref(prompts_file);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_ids_in_the_folder_of_flux),
        cmocka_unit_test(clip_ids_with_nothing_but_the_vocabulary),
        cmocka_unit_test(clip_ids_with_merges_in_another_order),
        cmocka_unit_test(clip_ids_with_typed_specials_as_text),
        cmocka_unit_test(clip_ids_with_added_tokens),
        cmocka_unit_test(clip_ids_in_a_folder_of_the_old_kind),
        cmocka_unit_test(t5_ids),
    };
    return cmocka_run_group_tests(tests, open_prompts, close_prompts);
}
