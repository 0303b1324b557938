#include "embedding_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "atomic_file.h"
#include "file_lock.h"
#include "recipe.h"
#include "safetensors.h"
#include "sha256.h"

static const int64_t LIMIT_BYTES = 4ll << 30;

enum {
    LEFTOVER_S = 3600, /* a temporary file or lock older than this belongs to a writer that was killed */
    WAIT_S = 120,      /* FLUX.1's T5 takes seconds on a GPU, half a minute on CPUs, beside reading 9.5 GB */
    LOOK_US = 200000,
    VAIN_MAX = 3       /* a lock that was released just then, once or twice; no disk, no permission for ever */
};

static const char TEXT[] = "prompt_embeds", POOLED[] = "pooled_prompt_embeds"; /* as in embeddings_in */

struct embedding_cache {
    embedding_cache_opts opts;
    char                *folder; /* DIR/embeddings */
    bool                 told;   /* that it cannot be written */
    file_lock           *claim;  /* of what is being encoded; NULL: nothing */
};

status embedding_cache_open(embedding_cache **out, const embedding_cache_opts *opts)
{
    embedding_cache *c = calloc(1, sizeof(*c));
    if (c == NULL || asprintf(&c->folder, "%s/embeddings", opts->dir) < 0) {
        free(c);
        return err_set(ST_NO_MEMORY, "embedding_cache: its names");
    }
    c->opts = *opts;
    if (c->opts.limit_bytes == 0) c->opts.limit_bytes = LIMIT_BYTES;
    if (c->opts.wait_s == 0) c->opts.wait_s = WAIT_S;
    *out = c;
    return ST_OK;
}

void embedding_cache_close(embedding_cache *c)
{
    if (c == NULL) return;
    embedding_cache_drop(c);
    free(c->folder);
    free(c);
}

void embedding_cache_drop(embedding_cache *c)
{
    file_lock_release(c->claim);
    c->claim = NULL;
}

/* Shapes of an entry. */
static size_t text_bytes(const embedding_cache *c, const embedding_key *key)
{
    return (size_t)key->n_t5 * (size_t)c->opts.model->flux.joint_attention_dim * sizeof(float);
}

static size_t pooled_bytes(const embedding_cache *c)
{
    return (size_t)c->opts.model->flux.pooled_projection_dim * sizeof(float);
}

static status hash_key(const embedding_cache *c, const embedding_key *key, char hex[SHA256_HEX])
{
    status  st = ST_OK;
    sha256 *h = NULL;
    char    text[512];
    int     n = snprintf(text, sizeof(text), "numerics %d, %s, %s, parity %d, encoders %s, ids %d %d\n", NUMERICS_VERSION,
                         c->opts.device, key->type == DT_BF16 ? "bf16" : "fp32", key->parity, c->opts.encoders_sha256,
                         key->n_clip, key->n_t5);
    TRY(sha256_open(&h));
    TRY(sha256_add(h, text, (size_t)n));
    TRY(sha256_add(h, key->clip_ids, (size_t)key->n_clip * sizeof(*key->clip_ids)));
    TRY(sha256_add(h, key->t5_ids, (size_t)key->n_t5 * sizeof(*key->t5_ids)));
    return sha256_finish(h, hex);
fail:
    sha256_close(h);
    return st;
}

static status hash_rows(const embedding_cache *c, const embedding_key *key, const void *text, const void *pooled,
                        char hex[SHA256_HEX])
{
    status  st = ST_OK;
    sha256 *h = NULL;
    TRY(sha256_open(&h));
    TRY(sha256_add(h, text, text_bytes(c, key)));
    TRY(sha256_add(h, pooled, pooled_bytes(c)));
    return sha256_finish(h, hex);
fail:
    sha256_close(h);
    return st;
}

static status entry_path(const embedding_cache *c, const char *name, char **out)
{
    if (asprintf(out, "%s/%s.safetensors", c->folder, name) < 0) {
        *out = NULL;
        return err_set(ST_NO_MEMORY, "embedding_cache: the name of an entry");
    }
    return ST_OK;
}

/* The tensor's data; NULL when it is not what an entry has. */
static const void *tensor_data(const safetensors *file, const char *name, size_t bytes)
{
    const safetensors_entry *e = safetensors_find(file, name);
    return e != NULL && e->type == DT_F32 && e->bytes == bytes ? e->data : NULL;
}

/* Why the file is no sound entry of this name; NULL: it is, and rows are filled. */
static const char *read_entry(const embedding_cache *c, const embedding_key *key, const char *name,
                              const safetensors *file, const embedding_rows *rows)
{
    char        hex[SHA256_HEX];
    const char *key_note = safetensors_metadata(file, "key"), *sum_note = safetensors_metadata(file, "sha256");
    const void *text = tensor_data(file, TEXT, text_bytes(c, key)), *pooled = tensor_data(file, POOLED, pooled_bytes(c));
    if (text == NULL || pooled == NULL) return "its tensors are not those of an entry";
    if (key_note == NULL || strcmp(key_note, name) != 0) return "it is the entry of another prompt";
    memcpy(rows->text, text, text_bytes(c, key));
    memcpy(rows->pooled, pooled, pooled_bytes(c));
    if (sum_note == NULL || hash_rows(c, key, rows->text, rows->pooled, hex) != ST_OK || strcmp(sum_note, hex) != 0)
        return "its checksum is wrong";
    return NULL;
}

/* tells: warns of an entry that is damaged. */
static status look_up(embedding_cache *c, const embedding_key *key, const embedding_rows *rows, bool tells, bool *found)
{
    enum { TRIES = 5 }; /* another job may take the entry away, and write it anew, between our look and our open */
    status       st = ST_OK, open_st = ST_FAILED;
    char         name[SHA256_HEX], *path = NULL;
    safetensors *file = NULL;
    const char  *wrong = NULL;
    *found = false;
    TRY(hash_key(c, key, name));
    TRY(entry_path(c, name, &path));
    for (int i = 0; i < TRIES && open_st != ST_OK; i++) {
        if (access(path, F_OK) != 0) {
            err_clear();
            goto fail;
        }
        open_st = safetensors_open(&file, path, ST_OUTPUT);
    }
    wrong = open_st != ST_OK ? err_text() : read_entry(c, key, name, file, rows);
    *found = wrong == NULL;
    if (*found)
        utimensat(AT_FDCWD, path, NULL, 0); /* used just now; a folder that others own forgets it */
    else if (tells)
        report_warn(c->opts.report, "cache: %s: %s; the prompt is encoded again", path, wrong);
    err_clear();
fail:
    safetensors_close(file);
    free(path);
    return st;
}

status embedding_cache_read(embedding_cache *c, const embedding_key *key, const embedding_rows *rows, bool *found)
{
    return look_up(c, key, rows, true, found);
}

/* Where no lock can be made there is no claim, and no wait: who cannot lock cannot leave rows either. */
status embedding_cache_claim(embedding_cache *c, const embedding_key *key, const embedding_rows *rows, bool *found)
{
    status       st = ST_OK;
    const double until = report_now() + c->opts.wait_s;
    bool         waits = false;
    int          n_vain = 0;
    char         name[SHA256_HEX], *path = NULL;
    embedding_cache_drop(c);
    *found = false;
    TRY(hash_key(c, key, name));
    if (asprintf(&path, "%s/%s.safetensors.lock", c->folder, name) < 0) {
        path = NULL;
        st = err_set(ST_NO_MEMORY, "embedding_cache: the name of a lock");
        goto fail;
    }
    if (atomic_file_make_folder(path) != ST_OK) goto out;
    while (file_lock_take(&c->claim, &(file_lock_opts){.path = path, .what = "this prompt"}) != ST_OK) {
        const bool held = access(path, F_OK) == 0;
        n_vain = held ? 0 : n_vain + 1;
        if (n_vain == VAIN_MAX) goto out;
        if (held && !waits) report_line(c->opts.report, "cache: %s; waiting for its rows, %d s at most", err_text(), c->opts.wait_s);
        waits = waits || held;
        usleep(LOOK_US);
        TRY(look_up(c, key, rows, false, found));
        if (*found || report_now() > until) goto out;
    }
    TRY(look_up(c, key, rows, false, found)); /* whoever held it before may have left them */
    if (*found) embedding_cache_drop(c);
out:
    err_clear();
fail:
    free(path);
    return st;
}

/* ---- growth */

typedef struct old_entry {
    char            name[256];
    struct timespec used;
    int64_t         bytes;
} old_entry;

typedef struct entry_list {
    old_entry *items;
    size_t     n, room;
} entry_list;

static int longest_unused_first(const void *a, const void *b)
{
    const struct timespec *x = &((const old_entry *)a)->used, *y = &((const old_entry *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Adds an entry; what a killed writer has left is removed. Other files are none of our business. */
static bool list_entry(int dir, const char *name, entry_list *list)
{
    struct stat info;
    const char *end = strstr(name, ".safetensors");
    if (end == NULL || fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) return true;
    if (strcmp(end, ".safetensors") != 0) {
        if (time(NULL) - info.st_mtim.tv_sec > LEFTOVER_S) unlinkat(dir, name, 0);
        return true;
    }
    if (list->n == list->room) {
        const size_t room = 2 * list->room + 64;
        old_entry   *larger = realloc(list->items, room * sizeof(*larger));
        if (larger == NULL) return false;
        list->items = larger;
        list->room = room;
    }
    old_entry *e = &list->items[list->n++];
    *e = (old_entry){.used = info.st_mtim, .bytes = info.st_size};
    snprintf(e->name, sizeof(e->name), "%s", name);
    return true;
}

/* Removes what was not used for longest, until the limit holds; never the entry just written. Another job may do the same
 * at the same time, or be reading what goes: its mapping stays. */
static void make_room(const embedding_cache *c, const char *keep)
{
    entry_list list = {0};
    int64_t    all = 0;
    DIR       *dir = opendir(c->folder);
    bool       complete = dir != NULL;
    if (dir == NULL) return;
    for (struct dirent *item = readdir(dir); item != NULL && complete; item = readdir(dir))
        complete = list_entry(dirfd(dir), item->d_name, &list);
    if (complete && list.n > 0) qsort(list.items, list.n, sizeof(*list.items), longest_unused_first);
    for (size_t i = 0; i < list.n; i++) all += list.items[i].bytes;
    for (size_t i = 0; complete && i < list.n && all > c->opts.limit_bytes; i++) {
        if (strncmp(list.items[i].name, keep, SHA256_HEX - 1) == 0) continue;
        unlinkat(dirfd(dir), list.items[i].name, 0);
        all -= list.items[i].bytes;
    }
    free(list.items);
    closedir(dir);
}

status embedding_cache_write(embedding_cache *c, const embedding_key *key, const embedding_rows *rows)
{
    status    st = ST_OK;
    char      name[SHA256_HEX], sum[SHA256_HEX], *path = NULL;
    const int64_t joint = c->opts.model->flux.joint_attention_dim, pooled = c->opts.model->flux.pooled_projection_dim;
    TRY(hash_key(c, key, name));
    TRY(hash_rows(c, key, rows->text, rows->pooled, sum));
    TRY(entry_path(c, name, &path));
    const safetensors_tensor tensors[] = {
        {.name = TEXT, .type = DT_F32, .n_dims = 2, .shape = {key->n_t5, joint}, .data = rows->text},
        {.name = POOLED, .type = DT_F32, .n_dims = 2, .shape = {1, pooled}, .data = rows->pooled}};
    const safetensors_note notes[] = {{"key", name}, {"sha256", sum}};
    st = atomic_file_make_folder(path);
    if (st == ST_OK) st = safetensors_write(path, tensors, 2, notes, 2);
    if (st == ST_OK) {
        make_room(c, name);
    } else {
        if (!c->told) report_warn(c->opts.report, "cache: %s; prompts are encoded anew in the next run", err_text());
        c->told = true;
        st = ST_OK;
        err_clear();
    }
fail:
    embedding_cache_drop(c);
    free(path);
    return st;
}
