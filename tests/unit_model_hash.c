/* The model's hash follows its contents: not its place, its dates or what else lies in the folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/evp.h>

#include "model_hash.h"
#include "tempdir.h"
#include "tiny_model.h"

typedef struct {
    char dir[TEMPDIR_PATH], cache[TEMPDIR_PATH];
    model *m;
    int64_t done_bytes, all_bytes;
} fixture;

/* Every file one day old: only such are cached. */
static void make_old(const char *dir)
{
    DIR *folder = opendir(dir);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        char path[2 * TEMPDIR_PATH];
        struct stat info;
        if (item->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "%s/%s", dir, item->d_name);
        assert_int_equal(stat(path, &info), 0);
        if (S_ISDIR(info.st_mode)) make_old(path);
        struct timespec times[2] = {{.tv_sec = info.st_mtim.tv_sec - 86400}, {.tv_sec = info.st_mtim.tv_sec - 86400}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    closedir(folder);
}

static int open_fixture(void **state)
{
    static fixture f;
    tiny_model tiny = tiny_model_get('d');
    memset(&f, 0, sizeof(f));
    if (tempdir_open(f.dir) != ST_OK || tempdir_open(f.cache) != ST_OK) return -1;
    if (tiny_model_write(&tiny, TINY_ALL, f.dir) != ST_OK || model_open(&f.m, f.dir) != ST_OK) return -1;
    make_old(f.dir);
    *state = &f;
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    model_close(f->m);
    tempdir_close(f->dir);
    tempdir_close(f->cache);
    return 0;
}

static void note_progress(void *context, int64_t done_bytes, int64_t all_bytes)
{
    fixture *f = context;
    assert_true(done_bytes >= f->done_bytes && done_bytes <= all_bytes);
    f->done_bytes = done_bytes;
    f->all_bytes = all_bytes;
}

static model_digest digest_with(fixture *f, const char *cache)
{
    f->done_bytes = 0;
    model_hash_opts opts = {.progress = note_progress, .context = f, .cache_dir = cache};
    model_digest digest;
    if (model_hash(&digest, f->m, &opts) != ST_OK) fail_msg("%s", err_text());
    assert_int_equal(strlen(digest.whole), 64);
    assert_int_equal(strlen(digest.encoders), 64);
    assert_true(f->done_bytes > 0 && f->done_bytes == f->all_bytes);
    return digest;
}

static void hash_with(fixture *f, const char *cache, char hex[MODEL_HASH_TEXT])
{
    strcpy(hex, digest_with(f, cache).whole);
}

static void put(const fixture *f, const char *name, const char *text)
{
    char path[2 * TEMPDIR_PATH];
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(tempdir_write(path, text), ST_OK);
}

static const char *const files[] = {"model_index.json",
                                    "scheduler/scheduler_config.json",
                                    "text_encoder/config.json",
                                    "text_encoder/model.safetensors",
                                    "text_encoder_2/config.json",
                                    "text_encoder_2/model.safetensors",
                                    "tokenizer/merges.txt",
                                    "tokenizer/special_tokens_map.json",
                                    "tokenizer/tokenizer_config.json",
                                    "tokenizer/vocab.json",
                                    "tokenizer_2/special_tokens_map.json",
                                    "tokenizer_2/spiece.model",
                                    "tokenizer_2/tokenizer_config.json",
                                    "transformer/config.json",
                                    "transformer/diffusion_pytorch_model.safetensors",
                                    "vae/config.json",
                                    "vae/diffusion_pytorch_model.safetensors"};

/* The formula of the header, by one-shot digests over whole files: those of files[first, end). */
static void by_formula(const fixture *f, size_t first, size_t end, char hex[MODEL_HASH_TEXT])
{
    unsigned char digest[32];
    EVP_MD_CTX *all = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestInit_ex(all, EVP_sha256(), NULL), 1);
    for (size_t i = first; i < end; i++) {
        char path[2 * TEMPDIR_PATH];
        snprintf(path, sizeof(path), "%s/%s", f->dir, files[i]);
        FILE *file = fopen(path, "rb");
        if (file == NULL) continue;
        fseek(file, 0, SEEK_END);
        uint64_t n = (uint64_t)ftell(file);
        rewind(file);
        char *bytes = malloc(n + 1);
        assert_int_equal(fread(bytes, 1, n, file), n);
        fclose(file);
        EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL);
        free(bytes);
        EVP_DigestUpdate(all, files[i], strlen(files[i]) + 1);
        EVP_DigestUpdate(all, &n, 8); /* these machines are little-endian */
        EVP_DigestUpdate(all, digest, 32);
    }
    EVP_DigestFinal_ex(all, digest, NULL);
    EVP_MD_CTX_free(all);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void the_formula_holds(void **state)
{
    fixture *f = *state;
    char want[MODEL_HASH_TEXT];
    const model_digest got = digest_with(f, f->cache);
    by_formula(f, 0, sizeof(files) / sizeof(files[0]), want);
    assert_string_equal(got.whole, want);
    by_formula(f, 2, 6, want);
    assert_string_equal(got.encoders, want);
}

static void only_contents_that_are_read_count(void **state)
{
    fixture *f = *state;
    char first[MODEL_HASH_TEXT], second[MODEL_HASH_TEXT], third[MODEL_HASH_TEXT];
    hash_with(f, f->cache, first);
    put(f, "README.md", "words");
    put(f, "transformer/other.txt", "words");
    make_old(f->dir);
    hash_with(f, f->cache, second);
    assert_string_equal(first, second);
    put(f, "tokenizer/merges.txt", "#version: 0.2\na b\n");
    hash_with(f, f->cache, third);
    assert_string_not_equal(first, third);
}

static void digests_come_from_the_cache(void **state)
{
    fixture *f = *state;
    char first[MODEL_HASH_TEXT], second[MODEL_HASH_TEXT];
    hash_with(f, f->cache, first);
    int n_entries = 0;
    DIR *folder = opendir(f->cache);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        char path[2 * TEMPDIR_PATH], line[256];
        if (item->d_name[0] == '.') continue;
        n_entries++;
        /* Another digest in a valid entry: when it is used, the hash is another one. */
        snprintf(path, sizeof(path), "%s/%s", f->cache, item->d_name);
        FILE *file = fopen(path, "r+");
        assert_non_null(fgets(line, sizeof(line), file));
        char *last = strchr(line, '\n') - 1;
        *last = *last == '0' ? '1' : '0';
        rewind(file);
        fputs(line, file);
        fclose(file);
    }
    closedir(folder);
    assert_in_range(n_entries, 10, 20);
    hash_with(f, f->cache, second);
    assert_string_not_equal(first, second);
    make_old(f->dir); /* another time of change: the entries no longer count */
    hash_with(f, f->cache, second);
    assert_string_equal(first, second);
}

static void a_broken_or_missing_cache_is_no_error(void **state)
{
    fixture *f = *state;
    char first[MODEL_HASH_TEXT], second[MODEL_HASH_TEXT], no_folder[2 * TEMPDIR_PATH];
    hash_with(f, f->cache, first);
    DIR *folder = opendir(f->cache);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        char path[2 * TEMPDIR_PATH];
        snprintf(path, sizeof(path), "%s/%s", f->cache, item->d_name);
        if (item->d_name[0] != '.') assert_int_equal(truncate(path, 20), 0);
    }
    closedir(folder);
    hash_with(f, f->cache, second);
    assert_string_equal(first, second);
    snprintf(no_folder, sizeof(no_folder), "%s/model_index.json/cache", f->dir);
    hash_with(f, no_folder, second);
    assert_string_equal(first, second);
}

#define WITH_MODEL(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MODEL(the_formula_holds),
        WITH_MODEL(only_contents_that_are_read_count),
        WITH_MODEL(digests_come_from_the_cache),
        WITH_MODEL(a_broken_or_missing_cache_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
