#include "clip_folder.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { LINE_BYTES = 512, PATH_BYTES = 1024 };

static void add_name(json_t *vocab, const char *name)
{
    json_object_set_new(vocab, name, json_integer((json_int_t)json_object_size(vocab)));
}

/* 256 bytes, first those that can be printed; the same with an end of word; merges; the two specials. */
static json_t *make_vocab(char (*lines)[LINE_BYTES], size_t n_lines)
{
    json_t *vocab = json_object();
    char chars[256][8] = {{0}};
    size_t n = 0;
    for (int b = 0x21; b < 0x100; b++) {
        if (b <= 0x7e || (b >= 0xa1 && b != 0xad)) utf8proc_encode_char(b, (utf8proc_uint8_t *)chars[n++]);
    }
    for (int c = 0x100; n < 256; c++) utf8proc_encode_char(c, (utf8proc_uint8_t *)chars[n++]);
    for (size_t i = 0; i < 256; i++) add_name(vocab, chars[i]);
    for (size_t i = 0; i < 256; i++) add_name(vocab, strcat(chars[i], "</w>"));
    for (size_t i = 0; i < n_lines; i++) {
        char name[LINE_BYTES], *space = strchr(lines[i], ' ');
        if (space == NULL) continue;
        snprintf(name, sizeof(name), "%.*s%s", (int)(space - lines[i]), lines[i], space + 1);
        add_name(vocab, name);
    }
    add_name(vocab, "<|startoftext|>");
    add_name(vocab, "<|endoftext|>");
    return vocab;
}

/* The lines of merges.txt after the first. */
static size_t read_lines(char (*lines)[LINE_BYTES], size_t max)
{
    size_t n = 0;
    char version[LINE_BYTES];
    FILE *file = fopen(TEST_DIR "/vectors/tokenizers/merges.txt", "r");
    if (file == NULL || fgets(version, sizeof(version), file) == NULL) max = 0;
    while (n < max && fgets(lines[n], LINE_BYTES, file) != NULL) {
        lines[n][strcspn(lines[n], "\n")] = '\0';
        n++;
    }
    if (file != NULL) fclose(file);
    return n;
}

status clip_folder_write(const char *dir, bool reversed)
{
    enum { N_MERGES = 48894 };
    status st = ST_OK;
    char path[PATH_BYTES];
    json_t *vocab = NULL;
    FILE *file = NULL;
    char(*lines)[LINE_BYTES] = malloc(sizeof(*lines) * N_MERGES);
    if (lines == NULL || read_lines(lines, N_MERGES) != N_MERGES) {
        st = err_set(ST_FAILED, TEST_DIR "/vectors/tokenizers/merges.txt: %s", strerror(errno));
        goto fail;
    }
    vocab = make_vocab(lines, N_MERGES);
    snprintf(path, sizeof(path), "%s/vocab.json", dir);
    if (json_object_size(vocab) != 512 + N_MERGES + 2 || json_dump_file(vocab, path, JSON_COMPACT) != 0) {
        st = err_set(ST_FAILED, "%s: %zu tokens: %s", path, json_object_size(vocab), strerror(errno));
        goto fail;
    }
    snprintf(path, sizeof(path), "%s/merges.txt", dir);
    file = fopen(path, "w");
    if (file == NULL) {
        st = err_set(ST_FAILED, "%s: %s", path, strerror(errno));
        goto fail;
    }
    fputs("#version: 0.2\n", file);
    for (size_t i = 0; i < N_MERGES; i++) fprintf(file, "%s\n", lines[reversed ? N_MERGES - 1 - i : i]);
fail:
    if (file != NULL && fclose(file) != 0 && st == ST_OK) st = err_set(ST_FAILED, "%s: %s", path, strerror(errno));
    json_decref(vocab);
    free(lines);
    return st;
}
