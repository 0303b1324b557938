#include "model_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "atomic_file.h"

enum { DIGEST = 32, READ_BYTES = 1 << 20, MAX_FILES = 2300 };

typedef struct {
    char *name; /* relative to the model's folder */
    int64_t bytes;
} listed_file;

typedef struct {
    const model *m;
    const model_hash_opts *opts;
    char *cache_dir; /* NULL: none */
    listed_file *files;
    size_t n_files;
    int64_t done_bytes, all_bytes;
} hashing;

/* Small files that count when they are there; the weights come from weights_open. */
static const char *const small_files[] = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/added_tokens.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/added_tokens.json",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
};

static void to_hex(char hex[MODEL_HASH_TEXT], const unsigned char digest[DIGEST])
{
    for (int i = 0; i < DIGEST; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* Exactly 64 digits as to_hex writes them. */
static bool from_hex(unsigned char digest[DIGEST], const char *hex)
{
    static const char digits[] = "0123456789abcdef";
    if (strlen(hex) != 2 * DIGEST || strspn(hex, digits) != 2 * DIGEST) return false;
    for (int i = 0; i < DIGEST; i++) {
        digest[i] =
            (unsigned char)((strchr(digits, hex[2 * i]) - digits) << 4 | (strchr(digits, hex[2 * i + 1]) - digits));
    }
    return true;
}

/* $XDG_CACHE_HOME/dype-dist, made when it is missing; NULL when there is no place for it. */
static char *find_cache_dir(void)
{
    char *dir = NULL;
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (cache != NULL && cache[0] == '/')
        n = asprintf(&dir, "%s/dype-dist", cache);
    else if (home != NULL && home[0] == '/')
        n = asprintf(&dir, "%s/.cache/dype-dist", home);
    return n < 0 ? NULL : dir;
}

static void make_folders(const char *dir)
{
    char *path = strdup(dir);
    for (char *at = path == NULL ? NULL : strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path, 0777); /* whatever fails shows when a file is opened there */
        *at = '/';
    }
    if (path != NULL) mkdir(path, 0777);
    free(path);
}

static int64_t changed_ns(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

/* One cache file per model file, named by the hash of its absolute path. NULL: no cache for it. */
static char *cache_path(const hashing *h, const char *path)
{
    unsigned char digest[DIGEST];
    char hex[MODEL_HASH_TEXT];
    char *out = NULL;
    char *absolute = h->cache_dir == NULL ? NULL : realpath(path, NULL);
    if (absolute != NULL && EVP_Digest(absolute, strlen(absolute), digest, NULL, EVP_sha256(), NULL) == 1) {
        to_hex(hex, digest);
        if (asprintf(&out, "%s/sha256-%s", h->cache_dir, hex) < 0) out = NULL;
    }
    free(absolute);
    return out;
}

/* The line that a cache file holds: version, size, time of change; then the digest. */
static void cache_key(char key[96], const struct stat *info)
{
    snprintf(key, 96, "1 %" PRId64 " %" PRId64, (int64_t)info->st_size, changed_ns(info));
}

static bool read_cache(const char *cached, const struct stat *info, unsigned char digest[DIGEST])
{
    char key[96], line[256] = "";
    FILE *f = cached == NULL ? NULL : fopen(cached, "re");
    if (f == NULL) return false;
    size_t n = fread(line, 1, sizeof(line) - 1, f);
    fclose(f);
    cache_key(key, info);
    size_t n_key = strlen(key);
    if (n < n_key + 2 || strncmp(line, key, n_key) != 0 || line[n_key] != ' ' || line[n - 1] != '\n') return false;
    line[n - 1] = '\0';
    return from_hex(digest, line + n_key + 1);
}

/* Failures are silent: the digest is computed again next time. */
static void write_cache(const hashing *h, const char *cached, const struct stat *info,
                        const unsigned char digest[DIGEST])
{
    char key[96], hex[MODEL_HASH_TEXT], line[192];
    atomic_file *f = NULL;
    /* A file changed in this moment may change again within the clock's tick, unseen. */
    if (cached == NULL || (int64_t)time(NULL) - (int64_t)info->st_mtim.tv_sec < 3) return;
    cache_key(key, info);
    to_hex(hex, digest);
    snprintf(line, sizeof(line), "%s %s\n", key, hex);
    make_folders(h->cache_dir);
    if (atomic_file_open(&f, cached) == ST_OK && atomic_file_write(f, line, strlen(line)) == ST_OK)
        atomic_file_commit(f);
    atomic_file_close(f);
    err_clear();
}

static void tell_progress(hashing *h, int64_t bytes)
{
    h->done_bytes += bytes;
    if (h->opts->progress != NULL) h->opts->progress(h->opts->context, h->done_bytes, h->all_bytes);
}

static status hash_bytes(hashing *h, const char *path, int fd, int64_t bytes, unsigned char digest[DIGEST])
{
    status st = ST_OK;
    char *buffer = malloc(READ_BYTES);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = buffer != NULL && context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    if (!good) st = err_set(ST_NO_MEMORY, "model_hash: a buffer of %d bytes", READ_BYTES);
    TRY(st);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (int64_t got = 0; got < bytes;) {
        ssize_t n = read(fd, buffer, READ_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            st = err_set(ST_BAD_MODEL, "%s: %s after %" PRId64 " of %" PRId64 " bytes", path,
                         n < 0 ? strerror(errno) : "it became shorter while read:", got, bytes);
            goto fail;
        }
        EVP_DigestUpdate(context, buffer, (size_t)n);
        got += n;
        tell_progress(h, n);
    }
    EVP_DigestFinal_ex(context, digest, NULL);
fail:
    EVP_MD_CTX_free(context);
    free(buffer);
    return st;
}

static status hash_file(hashing *h, const listed_file *file, unsigned char digest[DIGEST])
{
    status st = ST_OK;
    struct stat info, after;
    char *path = NULL, *cached = NULL;
    int fd = -1;
    TRY(model_path(&path, h->m, file->name));
    cached = cache_path(h, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        st = err_set(ST_BAD_MODEL, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (info.st_size != file->bytes) {
        st = err_set(ST_BAD_MODEL, "%s: changed while it was read", path);
        goto fail;
    }
    if (read_cache(cached, &info, digest)) {
        tell_progress(h, file->bytes);
        goto fail;
    }
    TRY(hash_bytes(h, path, fd, info.st_size, digest));
    if (fstat(fd, &after) != 0 || after.st_size != info.st_size || changed_ns(&after) != changed_ns(&info)) {
        st = err_set(ST_BAD_MODEL, "%s: changed while it was read", path);
        goto fail;
    }
    write_cache(h, cached, &info, digest);
fail:
    if (fd >= 0) close(fd);
    free(cached);
    free(path);
    return st;
}

/* A file that is not there is left out. */
static status list_file(hashing *h, const char *folder, const char *name)
{
    status st = ST_OK;
    char *path = NULL;
    struct stat info;
    listed_file *file = &h->files[h->n_files];
    if (h->n_files == MAX_FILES) return err_set(ST_BAD_MODEL, "%s: more than %d files", h->m->dir, MAX_FILES);
    if (asprintf(&file->name, "%s%s%s", folder, folder[0] == '\0' ? "" : "/", name) < 0) {
        file->name = NULL;
        return err_set(ST_NO_MEMORY, "model_hash: the name %s", name);
    }
    TRY(model_path(&path, h->m, file->name));
    if (stat(path, &info) != 0) {
        free(file->name);
        file->name = NULL;
    } else {
        file->bytes = info.st_size;
        h->all_bytes += file->bytes;
        h->n_files++;
    }
fail:
    free(path);
    return st;
}

static int by_name(const void *left, const void *right)
{
    const listed_file *a = left, *b = right;
    return strcmp(a->name, b->name);
}

static status list_files(hashing *h)
{
    status st = ST_OK;
    weights *w = NULL;
    for (size_t i = 0; i < sizeof(small_files) / sizeof(small_files[0]); i++)
        TRY(list_file(h, "", small_files[i]));
    for (int part = 0; part < MODEL_N_PARTS; part++) {
        TRY(model_open_weights(&w, h->m, (model_part)part));
        for (size_t i = 0; i < weights_n_files(w); i++) {
            TRY(list_file(h, model_part_name((model_part)part), weights_file(w, i)));
        }
        weights_close(w);
        w = NULL;
    }
    qsort(h->files, h->n_files, sizeof(*h->files), by_name);
fail:
    weights_close(w);
    return st;
}

status model_hash(char hex[MODEL_HASH_TEXT], const model *m, const model_hash_opts *opts)
{
    static const model_hash_opts no_opts;
    status st = ST_OK;
    unsigned char digest[DIGEST];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    hashing h = {.m = m, .opts = opts == NULL ? &no_opts : opts};
    h.cache_dir = h.opts->cache_dir == NULL ? find_cache_dir() : strdup(h.opts->cache_dir);
    h.files = calloc(MAX_FILES + 1, sizeof(*h.files));
    if (context == NULL || h.files == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        st = err_set(ST_NO_MEMORY, "model_hash: a table of %d files", MAX_FILES);
        goto fail;
    }
    TRY(list_files(&h));
    for (size_t i = 0; i < h.n_files; i++) {
        unsigned char size[8];
        TRY(hash_file(&h, &h.files[i], digest));
        for (int b = 0; b < 8; b++)
            size[b] = (unsigned char)((uint64_t)h.files[i].bytes >> (8 * b));
        EVP_DigestUpdate(context, h.files[i].name, strlen(h.files[i].name) + 1);
        EVP_DigestUpdate(context, size, sizeof(size));
        EVP_DigestUpdate(context, digest, sizeof(digest));
    }
    EVP_DigestFinal_ex(context, digest, NULL);
    to_hex(hex, digest);
fail:
    for (size_t i = 0; h.files != NULL && i < h.n_files; i++)
        free(h.files[i].name);
    free(h.files);
    free(h.cache_dir);
    EVP_MD_CTX_free(context);
    return st;
}
