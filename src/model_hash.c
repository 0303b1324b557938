#include "model_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "atomic_file.h"
#include "sha256.h"

enum { DIGEST = 32, READ_BYTES = 1 << 20, MAX_FILES = 2300 };

typedef struct {
    char *name; /* relative to the model's folder */
    int64_t bytes;
} listed_file;

typedef struct {
    const model *m;
    const model_hash_opts *opts;
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

static const char hex_digits[] = "0123456789abcdef";

/* hex: 64 digits as sha256.h writes them. */
static void from_hex(unsigned char digest[DIGEST], const char *hex)
{
    for (int i = 0; i < DIGEST; i++) {
        digest[i] = (unsigned char)((strchr(hex_digits, hex[2 * i]) - hex_digits) << 4 |
                                    (strchr(hex_digits, hex[2 * i + 1]) - hex_digits));
    }
}

static int64_t changed_ns(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

/* One cache file per model file, named by the hash of its absolute path. NULL: no cache for it. */
static char *cache_path(const hashing *h, const char *path)
{
    char hex[SHA256_HEX];
    char *out = NULL;
    char *absolute = h->opts->cache_dir == NULL ? NULL : realpath(path, NULL);
    if (absolute != NULL && sha256_of(absolute, strlen(absolute), hex) == ST_OK &&
        asprintf(&out, "%s/sha256-%s", h->opts->cache_dir, hex) < 0)
        out = NULL;
    free(absolute);
    return out;
}

/* The line that a cache file holds: version, size, time of change; then the digest. */
static void cache_key(char key[96], const struct stat *info)
{
    snprintf(key, 96, "1 %" PRId64 " %" PRId64, (int64_t)info->st_size, changed_ns(info));
}

static bool read_cache(const char *cached, const struct stat *info, char hex[SHA256_HEX])
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
    const char *digest = line + n_key + 1;
    if (strlen(digest) != 2 * DIGEST || strspn(digest, hex_digits) != 2 * DIGEST) return false;
    memcpy(hex, digest, SHA256_HEX);
    return true;
}

/* Failures are silent: the digest is computed again next time. */
static void write_cache(const char *cached, const struct stat *info, const char *hex)
{
    char key[96], line[192];
    atomic_file *f = NULL;
    /* A file changed in this moment may change again within the clock's tick, unseen. */
    if (cached == NULL || (int64_t)time(NULL) - (int64_t)info->st_mtim.tv_sec < 3) return;
    cache_key(key, info);
    snprintf(line, sizeof(line), "%s %s\n", key, hex);
    if (atomic_file_make_folder(cached) == ST_OK && atomic_file_open(&f, cached) == ST_OK &&
        atomic_file_write(f, line, strlen(line)) == ST_OK)
        atomic_file_commit(f);
    atomic_file_close(f);
    err_clear();
}

static void tell_progress(hashing *h, int64_t bytes)
{
    h->done_bytes += bytes;
    if (h->opts->progress != NULL) h->opts->progress(h->opts->context, h->done_bytes, h->all_bytes);
}

static status hash_bytes(hashing *h, const char *path, int fd, int64_t bytes, char hex[SHA256_HEX])
{
    status st = ST_OK;
    char *buffer = malloc(READ_BYTES);
    sha256 *sum = NULL;
    if (buffer == NULL) return err_set(ST_NO_MEMORY, "model_hash: a buffer of %d bytes", READ_BYTES);
    TRY(sha256_open(&sum));
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (int64_t got = 0; got < bytes;) {
        ssize_t n = read(fd, buffer, READ_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            st = err_set(ST_BAD_MODEL, "%s: %s after %" PRId64 " of %" PRId64 " bytes", path,
                         n < 0 ? strerror(errno) : "it became shorter while read:", got, bytes);
            goto fail;
        }
        TRY(sha256_add(sum, buffer, (size_t)n));
        got += n;
        tell_progress(h, n);
    }
    st = sha256_finish(sum, hex);
    sum = NULL;
fail:
    sha256_close(sum);
    free(buffer);
    return st;
}

static status hash_file(hashing *h, const listed_file *file, char hex[SHA256_HEX])
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
    if (read_cache(cached, &info, hex)) {
        tell_progress(h, file->bytes);
        goto fail;
    }
    TRY(hash_bytes(h, path, fd, info.st_size, hex));
    if (fstat(fd, &after) != 0 || after.st_size != info.st_size || changed_ns(&after) != changed_ns(&info)) {
        st = err_set(ST_BAD_MODEL, "%s: changed while it was read", path);
        goto fail;
    }
    write_cache(cached, &info, hex);
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

/* name NUL size digest, as the header tells. */
static status add_file(sha256 *sum, const listed_file *file, const char *file_hex)
{
    status st = ST_OK;
    unsigned char size[8], digest[DIGEST];
    from_hex(digest, file_hex);
    for (int b = 0; b < 8; b++)
        size[b] = (unsigned char)((uint64_t)file->bytes >> (8 * b));
    TRY(sha256_add(sum, file->name, strlen(file->name) + 1));
    TRY(sha256_add(sum, size, sizeof(size)));
    TRY(sha256_add(sum, digest, sizeof(digest)));
fail:
    return st;
}

/* text_encoder/ and text_encoder_2/ */
static bool of_encoder(const char *name)
{
    return strncmp(name, "text_encoder", strlen("text_encoder")) == 0;
}

status model_hash(model_digest *out, const model *m, const model_hash_opts *opts)
{
    static const model_hash_opts no_opts;
    status st = ST_OK;
    sha256 *sum = NULL, *encoders = NULL;
    model_digest got;
    hashing h = {.m = m, .opts = opts == NULL ? &no_opts : opts};
    h.files = calloc(MAX_FILES + 1, sizeof(*h.files));
    if (h.files == NULL) {
        st = err_set(ST_NO_MEMORY, "model_hash: a table of %d files", MAX_FILES);
        goto fail;
    }
    TRY(sha256_open(&sum));
    TRY(sha256_open(&encoders));
    TRY(list_files(&h));
    for (size_t i = 0; i < h.n_files; i++) {
        char file_hex[SHA256_HEX];
        TRY(hash_file(&h, &h.files[i], file_hex));
        TRY(add_file(sum, &h.files[i], file_hex));
        if (of_encoder(h.files[i].name)) TRY(add_file(encoders, &h.files[i], file_hex));
    }
    st = sha256_finish(sum, got.whole);
    sum = NULL;
    TRY(st);
    st = sha256_finish(encoders, got.encoders);
    encoders = NULL;
    TRY(st);
    *out = got;
fail:
    for (size_t i = 0; h.files != NULL && i < h.n_files; i++)
        free(h.files[i].name);
    free(h.files);
    sha256_close(sum);
    sha256_close(encoders);
    return st;
}
