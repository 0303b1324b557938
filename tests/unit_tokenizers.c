/* Tokenizers in the small: hand-made vocabularies, the published ids of a few prompts, broken folders, huge prompts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpe.h"
#include "clip_folder.h"
#include "clip_pieces.h"
#include "clip_tokenizer.h"
#include "outputs.h"
#include "t5_tokenizer.h"
#include "tempdir.h"

#define SPIECE TEST_DIR "/vectors/tokenizers/spiece.model"

static char dir[TEMPDIR_PATH];

static int open_dir(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

static void write_file(const char *name, const char *text)
{
    char path[2 * TEMPDIR_PATH];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(tempdir_write(path, text), ST_OK);
}

/* A vocabulary that knows l, o, w, e, r and a few joins; everything else is unknown, 8. */
static void write_small_folder(void)
{
    write_file("vocab.json", "{\"l\": 0, \"o\": 1, \"w\": 2, \"w</w>\": 3, \"e\": 4, \"r</w>\": 5, \"lo\": 6, "
                             "\"low</w>\": 7, \"<|endoftext|>\": 8, \"<|startoftext|>\": 9, \"er</w>\": 10}");
    write_file("merges.txt", "#version: 0.2\nl o\nlo w</w>\ne r</w>\n");
}

static clip_tokenizer *open_clip(void)
{
    clip_tokenizer *t = NULL;
    if (clip_tokenizer_open(&t, dir) != ST_OK) fail_msg("%s", err_text());
    return t;
}

static void expect_clip(const clip_tokenizer *t, const char *text, const int32_t *want, int n_want, int max_length)
{
    int32_t ids[128];
    int n_used = -1;
    char *lost = NULL;
    assert_in_range(max_length, n_want, 128);
    assert_int_equal(clip_tokenizer_encode(t, text, max_length, ids, &n_used, &lost), ST_OK);
    assert_null(lost);
    assert_int_equal(n_used, n_want);
    assert_memory_equal(ids, want, (size_t)n_want * sizeof(*ids));
}

#define EXPECT_CLIP(t, text, ...)                                                                                      \
    expect_clip(t, text, (const int32_t[]){__VA_ARGS__}, (int)(sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)), 77)

static void published_prompts_have_their_published_ids(void **state)
{
    (void)state;
    assert_int_equal(clip_folder_write(dir, false), ST_OK);
    clip_tokenizer *t = open_clip();
    assert_int_equal(clip_tokenizer_n_ids(t), 49408);
    EXPECT_CLIP(t, "a photo of a cat", 49406, 320, 1125, 539, 320, 2368, 49407);
    EXPECT_CLIP(t, "Hello, world!", 49406, 3306, 267, 1002, 256, 49407);
    EXPECT_CLIP(t, "A cat holding a sign that says hello world", 49406, 320, 2368, 5050, 320, 2292, 682, 1563, 3306,
                1002, 49407);
    EXPECT_CLIP(t, "it's 2024 \xe2\x80\x94 caf\xc3\xa9 \xe2\x98\x95", 49406, 585, 568, 273, 271, 273, 275, 2005, 15304,
                26561, 49407);
    EXPECT_CLIP(t, "don't stop!!!", 49406, 847, 713, 1691, 995, 49407);
    EXPECT_CLIP(t, "", 49406, 49407);
    clip_tokenizer_close(t);
}

static void small_vocabulary_joins_pads_and_has_unknowns(void **state)
{
    (void)state;
    write_small_folder();
    clip_tokenizer *t = open_clip();
    int32_t ids[8];
    int n_used;
    char *lost;
    assert_int_equal(clip_tokenizer_n_ids(t), 11);
    assert_int_equal(clip_tokenizer_max_length(t), 77);
    EXPECT_CLIP(t, "low LOWER", 9, 7, 6, 2, 10, 8);
    EXPECT_CLIP(t, "lox", 9, 6, 8, 8);
    assert_int_equal(clip_tokenizer_encode(t, "low", 5, ids, &n_used, &lost), ST_OK);
    assert_int_equal(n_used, 3);
    assert_memory_equal(ids, ((int32_t[]){9, 7, 8, 8, 8}), 5 * sizeof(*ids));
    clip_tokenizer_close(t);
}

static void a_cut_prompt_keeps_its_end_and_tells_what_is_lost(void **state)
{
    (void)state;
    write_small_folder();
    clip_tokenizer *t = open_clip();
    int32_t ids[4];
    int n_used;
    char *lost;
    assert_int_equal(clip_tokenizer_encode(t, "low low Lower low", 4, ids, &n_used, &lost), ST_OK);
    assert_int_equal(n_used, 4);
    assert_memory_equal(ids, ((int32_t[]){9, 7, 7, 8}), sizeof(ids));
    assert_string_equal(lost, "lower low");
    free(lost);
    assert_int_equal(clip_tokenizer_encode(t, "low low", 4, ids, &n_used, &lost), ST_OK);
    assert_null(lost);
    assert_int_equal(clip_tokenizer_encode(t, "low", 2, ids, &n_used, &lost), ST_OK);
    assert_string_equal(lost, "low");
    free(lost);
    assert_int_equal(clip_tokenizer_encode(t, "low", 1, ids, &n_used, &lost), ST_BAD_JOB);
    clip_tokenizer_close(t);
}

static void malformed_bytes_are_dropped(void **state)
{
    (void)state;
    write_small_folder();
    clip_tokenizer *t = open_clip();
    EXPECT_CLIP(t, "l\xff\xfeow\xc3 \x80low\xe2\x82\xed\xa0\x80\xf4\x90\x80\x80", 9, 7, 7, 8);
    clip_tokenizer_close(t);
}

/* Folder file by file: what is written over the small folder, and words that the message must have. */
static void broken_clip_folders_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *message;
    } cases[] = {
        {"vocab.json", NULL, "vocab.json: No such file"},
        {"merges.txt", NULL, "merges.txt: No such file"},
        {"vocab.json", "", "vocab.json:"},
        {"vocab.json", "{\"l\": 0,", "vocab.json:1:"},
        {"vocab.json", "[]", "want a JSON object"},
        {"vocab.json", "{}", "no tokens"},
        {"vocab.json", "{\"l\": 0, \"l\": 1}", "duplicate"},
        {"vocab.json", "{\"l\": 0, \"o\": 0}", "id 0 stands for both"},
        {"vocab.json", "{\"l\": -1}", "\"l\": want a whole number"},
        {"vocab.json", "{\"l\": 1.5}", "\"l\": want a whole number"},
        {"vocab.json", "{\"l\": 1e12}", "\"l\": want a whole number"},
        {"vocab.json", "{\"l\": \"0\"}", "\"l\": want a whole number"},
        {"vocab.json", "{\"\xff\": 0}", "vocab.json:1:"},
        {"vocab.json", "version https://git-lfs.github.com/spec/v1\n", "this is a Git LFS pointer"},
        {"merges.txt", "<!DOCTYPE html><html>", "this is an HTML page"},
        {"merges.txt", "#version: 0.2\nl o\nx y\n", "merges.txt:3: \"x\" is not in vocab.json"},
        {"merges.txt", "#version: 0.2\nl w\n", "merges.txt:2: \"lw\" is not in vocab.json"},
        {"merges.txt", "#version: 0.2\nl o\nlo", "merges.txt:3: want two tokens"},
        {"merges.txt", "#version: 0.2\nl o w\n", "merges.txt:2: want two tokens"},
        {"tokenizer_config.json", "{", "tokenizer_config.json:1:"},
        {"tokenizer_config.json", "{\"model_max_length\": 1}", "model_max_length: got 1"},
        {"tokenizer_config.json", "{\"model_max_length\": -1e300}", "model_max_length: got -1e+300"},
        {"tokenizer_config.json", "{\"padding_side\": \"left\"}", "padding_side: \"left\""},
        {"tokenizer_config.json", "{\"bos_token\": 7}", "bos_token: want a string"},
        {"tokenizer_config.json", "{\"pad_token\": \"\"}", "pad_token: want a token"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"y\"}}}", "\"x\": want an id"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"99999999\": {\"content\": \"y\"}}}", "want an id"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"11\": {}}}", "want a string"},
        {"special_tokens_map.json", "[]", "special_tokens_map.json: want a JSON object"},
        {"special_tokens_map.json", "{\"eos_token\": {\"lstrip\": true}}", "eos_token: want a string"},
        {"special_tokens_map.json", "{\"additional_special_tokens\": [7]}", "additional_special_tokens: want a string"},
        {"added_tokens.json", "{\"<x>\": null}", "added_tokens.json: want an id"},
        {"tokenizer.json", "{\"added_tokens\": [{\"content\": \"<x>\"}]}", "tokenizer.json: added_tokens: want an id"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[2 * TEMPDIR_PATH];
        clip_tokenizer *t = NULL;
        snprintf(path, sizeof(path), "%s/%s", dir, cases[i].file);
        write_small_folder();
        if (cases[i].text == NULL) {
            assert_int_equal(remove(path), 0);
        } else {
            write_file(cases[i].file, cases[i].text);
        }
        err_clear();
        assert_int_equal(clip_tokenizer_open(&t, dir), ST_BAD_MODEL);
        assert_null(t);
        if (strstr(err_text(), cases[i].message) == NULL || strstr(err_text(), dir) == NULL) {
            fail_msg("case %zu: got \"%s\", want \"%s\" and %s", i, err_text(), cases[i].message, dir);
        }
        remove(path);
    }
}

static void pairs_join_lowest_rank_first(void **state)
{
    (void)state;
    /* 3 = 0+1 (rank 1), 4 = 1+2 (rank 0), 5 = 3+2 (rank 2), 6 = 0+0 (rank 3) */
    static const bpe_merge merges[] = {{1, 2, 4}, {0, 1, 3}, {3, 2, 5}, {0, 0, 6}};
    bpe *b = NULL;
    int32_t word[] = {0, 1, 2, 0, 1, 0, 0, 0}, n = 8;
    int64_t n_lookups = 0;
    assert_int_equal(bpe_open(&b, merges, 4), ST_OK);
    assert_int_equal(bpe_join(b, word, &n, &n_lookups), ST_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(word, ((int32_t[]){0, 4, 3, 6, 0}), 5 * sizeof(*word));
    bpe_close(b);
    /* Of a pair that stands twice the last counts: 0+1 has rank 2 now, after 1+2. */
    static const bpe_merge twice[] = {{0, 1, 3}, {1, 2, 4}, {0, 1, 3}};
    int32_t other[] = {0, 1, 2}, n_other = 3;
    assert_int_equal(bpe_open(&b, twice, 3), ST_OK);
    assert_int_equal(bpe_join(b, other, &n_other, NULL), ST_OK);
    assert_int_equal(n_other, 2);
    assert_memory_equal(other, ((int32_t[]){0, 4}), 2 * sizeof(*other));
    bpe_close(b);
}

/* A round joins all occurrences of its pair first: a new pair of lower rank waits for the next round. 0 1 0 1 becomes
 * 2 2 although 2+0 has a lower rank than 0+1. */
static void a_round_ends_before_its_new_pairs(void **state)
{
    (void)state;
    static const bpe_merge merges[] = {{2, 0, 3}, {0, 1, 2}};
    bpe *b = NULL;
    int32_t word[] = {0, 1, 0, 1}, n = 4;
    assert_int_equal(bpe_open(&b, merges, 2), ST_OK);
    assert_int_equal(bpe_join(b, word, &n, NULL), ST_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(word, ((int32_t[]){2, 2}), 2 * sizeof(*word));
    bpe_close(b);
}

static void one_word_of_a_megabyte_costs_few_lookups(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    /* 1 = 0+0, 2 = 1+1, ... : every round joins all there is. */
    bpe_merge merges[16];
    for (int32_t i = 0; i < 16; i++) merges[i] = (bpe_merge){i, i, i + 1};
    bpe *b = NULL;
    int32_t n = N, *word = calloc(N, sizeof(*word));
    int64_t n_lookups = 0;
    assert_non_null(word);
    assert_int_equal(bpe_open(&b, merges, 16), ST_OK);
    assert_int_equal(bpe_join(b, word, &n, &n_lookups), ST_OK);
    assert_int_equal(n, N >> 16);
    for (int32_t i = 0; i < n; i++) assert_int_equal(word[i], 16);
    assert_in_range(n_lookups, N - 1, 3 * N);
    free(word);
    bpe_close(b);
}

static void huge_prompts_are_cut(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    static const char *const units[] = {"lo", "low ", "\xcc\xa3\xcc\x81", "\xce\xa3'", "<|endoftext|>", "\xff"};
    char *text = malloc(N + 16), *lost;
    int32_t ids[77];
    int n_used;
    assert_non_null(text);
    write_small_folder();
    clip_tokenizer *t = open_clip();
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t n = 0, length = strlen(units[i]);
        for (; n < N; n += length) memcpy(text + n, units[i], length);
        text[n] = '\0';
        assert_int_equal(clip_tokenizer_encode(t, text, 77, ids, &n_used, &lost), ST_OK);
        assert_int_equal(n_used, units[i][0] == '\xff' ? 2 : 77);
        assert_true((lost == NULL) == (n_used == 2));
        free(lost);
    }
    clip_tokenizer_close(t);
    free(text);
}

static void pieces_are_cleaned_composed_and_lowered(void **state)
{
    (void)state;
    /* Text, and its pieces with a | behind each. */
    static const char *const cases[][2] = {
        {"", ""},
        {" \t\n", ""},
        {"Don'T 42", "don|'t|4|2|"},
        {"a\x01" "b\xc2\xad" "c\xef\xbf\xbd" "d", "abcd|"},
        {"\xe6\xbc\xa2\xe5\xad\x97", "\xe6\xbc\xa2|\xe5\xad\x97|"},
        {"e\xcc\x81", "\xc3\xa9|"},
        {"\xce\x91\xce\xa3 \xce\xa3", "\xce\xb1\xcf\x82|\xcf\x83|"},
        {"\xc4\xb0", "i|\xcc\x87|"},
        {"b\xcd\x85" "c", "b|c|"},
        {"!!'s", "!!'|s|"},
        {"<|EndOfText|>x", "<|endoftext|>|x|"},
        {"a\xe2\x80\xa8" "b", "a|b|"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        clip_pieces *p = NULL;
        char got[128] = "";
        assert_int_equal(clip_pieces_open(&p, cases[i][0], strlen(cases[i][0])), ST_OK);
        for (size_t piece = 0; piece < clip_pieces_count(p); piece++) {
            size_t n;
            const char *text = clip_pieces_get(p, piece, &n);
            strncat(got, text, n);
            strcat(got, "|");
        }
        assert_string_equal(got, cases[i][1]);
        clip_pieces_close(p);
    }
}

static void t5_takes_special_tokens_for_text(void **state)
{
    (void)state;
    t5_tokenizer *t = NULL;
    int32_t ids[16];
    int n_used;
    char *lost;
    if (t5_tokenizer_open(&t, TEST_DIR "/vectors/tokenizers") != ST_OK) fail_msg("%s", err_text());
    assert_int_equal(t5_tokenizer_n_ids(t), 3000);
    assert_int_equal(t5_tokenizer_encode(t, "", 4, ids, &n_used, &lost), ST_OK);
    assert_int_equal(n_used, 1);
    assert_memory_equal(ids, ((int32_t[]){1, 0, 0, 0}), 4 * sizeof(*ids));
    assert_int_equal(t5_tokenizer_encode(t, "</s><pad>", 16, ids, &n_used, &lost), ST_OK);
    for (int i = 0; i + 1 < n_used; i++) assert_in_range(ids[i], 2, 2999);
    assert_int_equal(t5_tokenizer_encode(t, "a cat \xff\xfe\xed\xa0\x80 \xc3", 16, ids, &n_used, &lost), ST_OK);
    assert_int_equal(ids[n_used - 1], 1);
    free(lost);
    assert_int_equal(t5_tokenizer_encode(t, "a cat", 1, ids, &n_used, &lost), ST_OK);
    assert_int_equal(ids[0], 1);
    assert_string_equal(lost, "a cat");
    free(lost);
    assert_int_equal(t5_tokenizer_encode(t, "a cat", 0, ids, &n_used, &lost), ST_BAD_JOB);
    t5_tokenizer_close(t);
}

/* The first n bytes of the shipped model, with one byte changed when flip < n. */
static void write_model(size_t n, size_t flip, int mask)
{
    static char bytes[1 << 20];
    char path[2 * TEMPDIR_PATH];
    FILE *file = fopen(SPIECE, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    if (n > size) n = size;
    if (flip < n) bytes[flip] = (char)(bytes[flip] ^ mask);
    snprintf(path, sizeof(path), "%s/spiece.model", dir);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void expect_bad_t5(const char *message)
{
    t5_tokenizer *t = NULL;
    err_clear();
    assert_int_equal(t5_tokenizer_open(&t, dir), ST_BAD_MODEL);
    assert_null(t);
    if (strstr(err_text(), message) == NULL) fail_msg("got \"%s\", want \"%s\"", err_text(), message);
}

static void broken_t5_folders_are_named(void **state)
{
    (void)state;
    char path[2 * TEMPDIR_PATH];
    snprintf(path, sizeof(path), "%s/spiece.model", dir);
    write_file("tokenizer.json", "{}");
    remove(path);
    expect_bad_t5("a folder with only tokenizer.json is not enough");
    assert_int_equal(mkdir(path, 0777), 0);
    expect_bad_t5("spiece.model");
    assert_int_equal(rmdir(path), 0);
    write_file("spiece.model", "");
    expect_bad_t5("no valid SentencePiece model");
    write_file("spiece.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    expect_bad_t5("Git LFS pointer");
    write_file("spiece.model", "{\"this\": \"is JSON\"}");
    expect_bad_t5("no valid SentencePiece model");
    write_model(1000, SIZE_MAX, 0);
    expect_bad_t5("no valid SentencePiece model");
    /* Cut exactly behind a piece (the first is 14 bytes long): a valid message, but not the whole model. */
    write_model(16, SIZE_MAX, 0);
    expect_bad_t5("1 pieces, no normaliser");
    remove(path);
}

/* Bytes of the normalisation table: each change is refused, or gives a model that can be used. */
static void a_damaged_normalisation_table_is_refused(void **state)
{
    (void)state;
    enum { STEP = 997, FIRST = 50000, LAST = 230000 };
    int n_refused = 0;
    for (size_t at = FIRST; at < LAST; at += STEP) {
        t5_tokenizer *t = NULL;
        int32_t ids[64];
        int n_used;
        char *lost = NULL;
        write_model(SIZE_MAX, at, 0x40);
        if (t5_tokenizer_open(&t, dir) != ST_OK) {
            n_refused++;
            continue;
        }
        assert_int_equal(t5_tokenizer_encode(t, "\xef\xbc\xa1 \xe3\x8e\x8f \xc2\xbd", 64, ids, &n_used, &lost), ST_OK);
        free(lost);
        t5_tokenizer_close(t);
    }
    assert_in_range(n_refused, 10, (LAST - FIRST) / STEP);
}

/* What SentencePiece throws while it builds its tables is told as of the file too. */
static void a_zero_anywhere_is_told_with_the_file(void **state)
{
    char   path[2 * TEMPDIR_PATH];
    size_t n = 0, n_refused = 0;
    char  *model = outputs_read(TEST_DIR "/vectors/tiny_spiece.model", &n);
    (void)state;
    snprintf(path, sizeof(path), "%s/spiece.model", dir);
    assert_non_null(model);
    for (size_t at = 0; at < n; at++) {
        t5_tokenizer *t = NULL;
        const char    was = model[at];
        model[at] = 0;
        FILE *file = fopen(path, "wbe");
        assert_true(file != NULL && fwrite(model, 1, n, file) == n && fclose(file) == 0);
        model[at] = was;
        err_clear();
        const status st = t5_tokenizer_open(&t, dir);
        n_refused += st != ST_OK;
        if (st != ST_OK && (st != ST_BAD_MODEL || strstr(err_text(), path) == NULL)) fail_msg("a zero at byte %zu: %s", at, err_text());
        t5_tokenizer_close(t);
    }
    assert_in_range(n_refused, n / 10, n);
    free(model);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vocabulary_joins_pads_and_has_unknowns),
        cmocka_unit_test(a_cut_prompt_keeps_its_end_and_tells_what_is_lost),
        cmocka_unit_test(malformed_bytes_are_dropped),
        cmocka_unit_test(broken_clip_folders_are_named),
        cmocka_unit_test(pairs_join_lowest_rank_first),
        cmocka_unit_test(a_round_ends_before_its_new_pairs),
        cmocka_unit_test(one_word_of_a_megabyte_costs_few_lookups),
        cmocka_unit_test(huge_prompts_are_cut),
        cmocka_unit_test(pieces_are_cleaned_composed_and_lowered),
        cmocka_unit_test(published_prompts_have_their_published_ids),
        cmocka_unit_test(t5_takes_special_tokens_for_text),
        cmocka_unit_test(broken_t5_folders_are_named),
        cmocka_unit_test(a_damaged_normalisation_table_is_refused),
        cmocka_unit_test(a_zero_anywhere_is_told_with_the_file),
    };
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
