#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "job_keys.h"
#include "job_path.h"
#include "job_picture.h"
#include "sha256.h"
#include "suggest.h"
#include "yaml_text.h"
#include "yaml_tree.h"

_Static_assert(sizeof(dtype) == sizeof(unsigned) && sizeof(job_schedule) == sizeof(unsigned),
               "job_read_word writes an unsigned");

typedef struct top_level {
    const char *model;
    const char *output; /* template; NULL after a mistake in it */
    unsigned precision;
    job_parallel parallel;
    int checkpoint_every;
    const char *contact_sheet; /* as written; NULL: none */
    const tree_node *contact_sheet_node;
    const tree_node *defaults, *pictures; /* NULL where absent */
} top_level;

static const char *const schedule_words[] = {"ordered", "neighbour", NULL};
static const char *const precision_words[] = {"bf16", "fp32", NULL};
static const dtype precisions[] = {DT_BF16, DT_F32};

static const job_key parallel_keys[] = {
    {"ulysses", job_read_auto_int, offsetof(job_parallel, ulysses), .min = 1, .max = 65536},
    {"ring", job_read_auto_int, offsetof(job_parallel, ring), .min = 1, .max = 65536},
    {"replicas", job_read_auto_int, offsetof(job_parallel, replicas), .min = 1, .max = 65536},
    {"schedule", job_read_word, offsetof(job_parallel, schedule), .words = schedule_words},
};
static const job_table parallel_table = {"parallel", "parallel.", parallel_keys,
                                         sizeof(parallel_keys) / sizeof(parallel_keys[0]), NULL};

static const job_key checkpoint_keys[] = {
    {"every", job_read_int, 0, .min = 0, .max = 1000}, /* into an int */
};
static const job_table checkpoint_table = {"checkpoint", "checkpoint.", checkpoint_keys, 1, NULL};

static void read_parallel(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    const tree_node *found[JOB_KEYS_MAX];
    (void)key;
    job_read_mapping(r, &parallel_table, value, &((top_level *)into)->parallel, found);
}

static void read_checkpoint(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    const tree_node *found[JOB_KEYS_MAX];
    (void)key;
    job_read_mapping(r, &checkpoint_table, value, &((top_level *)into)->checkpoint_every, found);
}

static void read_output(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    ((top_level *)into)->output = NULL;
    if (job_template_check(r, key->name, value, ".png")) job_read_text(r, key, value, into);
}

static void read_contact_sheet(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    top_level *top = into;
    if (!job_template_check(r, key->name, value, ".png")) return;
    if (strchr(value->text, '{') != NULL) {
        job_mistake(r, key->name, value, "a path without placeholders: there is one sheet");
        return;
    }
    top->contact_sheet = job_text(r, value->text);
    top->contact_sheet_node = value;
}

enum { KEY_MODEL, KEY_OUTPUT, KEY_PRECISION, KEY_PARALLEL, KEY_CHECKPOINT, KEY_CONTACT_SHEET, KEY_DEFAULTS, KEY_PICTURES, N_TOP_KEYS };

static const job_key top_keys[N_TOP_KEYS] = {
    [KEY_MODEL] = {"model", job_read_path, offsetof(top_level, model)},
    [KEY_OUTPUT] = {"output", read_output, offsetof(top_level, output)},
    [KEY_PRECISION] = {"precision", job_read_word, offsetof(top_level, precision), .words = precision_words},
    [KEY_PARALLEL] = {"parallel", read_parallel},
    [KEY_CHECKPOINT] = {"checkpoint", read_checkpoint},
    [KEY_CONTACT_SHEET] = {"contact_sheet", read_contact_sheet},
    [KEY_DEFAULTS] = {"defaults", job_read_node, offsetof(top_level, defaults)},
    [KEY_PICTURES] = {"pictures", job_read_node, offsetof(top_level, pictures)},
};
static const struct job_stranger strangers[] = {
    {"prompt", "found a key of a picture at the top; allowed: in an entry of `pictures`, or in `defaults`"},
    {"width", "found a key of a picture at the top; allowed: in an entry of `pictures`, or in `defaults`"},
    {"height", "found a key of a picture at the top; allowed: in an entry of `pictures`, or in `defaults`"},
    {"images", "found unknown key images; nearest known key: pictures"},
    {NULL, NULL},
};
static const job_table top_table = {"a job", "", top_keys, N_TOP_KEYS, strangers};

static void read_top(job_reader *r, const tree_node *root, const job_opts *opts, top_level *top)
{
    const tree_node *found[JOB_KEYS_MAX];
    *top = (top_level){.output = "outputs/{name}-{seed}.png", .checkpoint_every = 4};
    if (!job_read_mapping(r, &top_table, root, top, found)) return;
    if (opts->model != NULL)
        top->model = job_text(r, opts->model);
    else if (found[KEY_MODEL] == NULL)
        mistakes_add(&r->m, root->line, root->column,
                     "found no model; allowed: model: a folder in diffusers layout (or --model DIR)");
    if (found[KEY_PICTURES] == NULL)
        mistakes_add(&r->m, root->line, root->column, "found no pictures; allowed: pictures: a list of pictures");
}

/* A list of pictures that grows; the job takes its final copy. */
typedef struct picture_list {
    job_picture *items;
    size_t n, room;
} picture_list;

/* Appends the pictures of one entry, one per seed, their paths filled in. */
static void add_entry(job_reader *r, const picture_draft *d, const top_level *top, const job_opts *opts,
                      picture_list *list)
{
    size_t n_more = picture_draft_count(d);
    if (list->n + n_more > list->room) {
        size_t room = 2 * list->room + n_more;
        job_picture *larger = realloc(list->items, room * sizeof(*larger));
        if (larger == NULL) {
            r->out_of_memory = true;
            return;
        }
        list->items = larger;
        list->room = room;
    }
    for (size_t i = 0; i < n_more && !r->out_of_memory; i++) {
        job_picture p = picture_draft_take(r, d, i);
        p.index = (int)list->n + 1;
        const char *latents_out = p.latents_out; /* template */
        p.output = job_template_fill(r, "output", top->output, opts->out_dir, &p);
        if (latents_out != NULL) p.latents_out = job_template_fill(r, "latents_out", latents_out, opts->out_dir, &p);
        if (p.output != NULL && (latents_out == NULL || p.latents_out != NULL)) list->items[list->n++] = p;
    }
}

static void read_pictures(job_reader *r, top_level *top, const job_opts *opts, picture_list *list)
{
    picture_draft defaults = picture_draft_begin();
    size_t n_wanted = 0, n_before_defaults = r->m.n_found;
    if (top->defaults != NULL) picture_draft_defaults(r, top->defaults, &defaults);
    bool defaults_are_sound = r->m.n_found == n_before_defaults;
    const tree_node *entries = top->pictures;
    if (entries == NULL) return;
    if (entries->kind != TREE_SEQUENCE || entries->n_items == 0) {
        job_mistake(r, "pictures", entries, "a list of at least one picture");
        return;
    }
    for (size_t i = 0; i < entries->n_items && !r->out_of_memory; i++) {
        picture_draft d = defaults;
        size_t n_before = r->m.n_found;
        picture_draft_entry(r, entries->items[i], &d);
        n_wanted += picture_draft_count(&d);
        if (n_wanted > JOB_PICTURES_MAX) {
            mistakes_add(&r->m, d.p.line, d.p.column,
                         "found picture number %d; allowed: at most %d in a job (each seed is one)",
                         JOB_PICTURES_MAX + 1, JOB_PICTURES_MAX);
            return;
        }
        bool sound = defaults_are_sound && r->m.n_found == n_before && top->output != NULL;
        if (sound) add_entry(r, &d, top, opts, list);
    }
    if (!r->out_of_memory) job_check_unique(r, list->items, list->n);
    if (!r->out_of_memory && top->contact_sheet != NULL && list->n > 0) {
        top->contact_sheet = job_template_fill(r, "contact_sheet", top->contact_sheet, opts->out_dir, &list->items[0]);
        if (top->contact_sheet != NULL)
            job_check_sheet(r, top->contact_sheet, top->contact_sheet_node, list->items, list->n);
    }
}

/* Leaves only the pictures that `only` names. */
static status select_pictures(picture_list *list, const job_opts *opts, const char *path)
{
    if (opts->n_only == 0) return ST_OK;
    bool *wanted = calloc(list->n, sizeof(*wanted));
    if (wanted == NULL) return err_set(ST_NO_MEMORY, "%s: %zu pictures", path, list->n);
    for (size_t k = 0; k < opts->n_only; k++) {
        suggestion nearest = suggest_begin(opts->only[k]);
        bool any = false;
        for (size_t i = 0; i < list->n; i++) {
            const job_picture *p = &list->items[i];
            bool match = strcmp(p->name, opts->only[k]) == 0 || strcmp(p->id, opts->only[k]) == 0;
            wanted[i] = wanted[i] || match;
            any = any || match;
            suggest_offer(&nearest, p->name);
            suggest_offer(&nearest, p->id);
        }
        if (any) continue;
        free(wanted);
        return err_set(ST_USAGE, "--only %s: %s has no picture of that name or id%s%s", opts->only[k], path,
                       nearest.best != NULL ? "; nearest: " : "", nearest.best != NULL ? nearest.best : "");
    }
    size_t n_kept = 0;
    for (size_t i = 0; i < list->n; i++)
        if (wanted[i]) list->items[n_kept++] = list->items[i];
    list->n = n_kept;
    free(wanted);
    return ST_OK;
}

/* From text to tree; a mistake becomes the message. */
static status read_tree(yaml_tree **out, const char *text, size_t n_bytes, mistakes *m, const char *path)
{
    if (!yaml_text_check(&text, &n_bytes, m)) return mistakes_end(m, path, ST_BAD_JOB);
    status st = yaml_tree_read(out, text, n_bytes, m);
    return st == ST_BAD_JOB ? mistakes_end(m, path, ST_BAD_JOB) : st;
}

/* "jobs/" of "jobs/demo.yaml", "" of "demo.yaml". */
static char *folder_of(job_memory *memory, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    char *folder = job_memory_take(memory, n + 1);
    if (folder != NULL) memcpy(folder, path, n);
    return folder;
}

status job_parse(job **out, const char *path, const char *text, size_t n_bytes, const job_opts *opts)
{
    static const job_opts no_opts = {0};
    status st = ST_OK;
    yaml_tree *tree = NULL;
    picture_list list = {0};
    top_level top;
    if (opts == NULL) opts = &no_opts;
    job *j = calloc(1, sizeof(*j));
    job_reader *r = calloc(1, sizeof(*r));
    if (j == NULL || r == NULL || (j->memory = job_memory_open()) == NULL) goto no_memory;
    *r = (job_reader){.prefix = "", .memory = j->memory, .dir = folder_of(j->memory, path)};
    if (r->dir == NULL) goto no_memory;

    TRY(sha256_of(text, n_bytes, j->sha256));
    TRY(read_tree(&tree, text, n_bytes, &r->m, path));
    read_top(r, yaml_tree_root(tree), opts, &top);
    read_pictures(r, &top, opts, &list);
    if (r->out_of_memory) goto no_memory;
    TRY(mistakes_end(&r->m, path, ST_BAD_JOB));
    job_picture *all = job_memory_take(j->memory, list.n * sizeof(*all));
    if (all == NULL) goto no_memory;
    memcpy(all, list.items, list.n * sizeof(*all));
    j->all_pictures = all;
    j->n_all_pictures = list.n;
    TRY(select_pictures(&list, opts, path));

    job_picture *pictures = job_memory_take(j->memory, list.n * sizeof(*pictures));
    j->path = job_text(r, path);
    if (pictures == NULL || j->path == NULL) goto no_memory;
    memcpy(pictures, list.items, list.n * sizeof(*pictures));
    j->pictures = pictures;
    j->n_pictures = list.n;
    j->model = top.model;
    j->precision = precisions[top.precision];
    j->parallel = top.parallel;
    j->checkpoint_every = top.checkpoint_every;
    j->contact_sheet = top.contact_sheet;
    free(list.items);
    yaml_tree_close(tree);
    free(r);
    *out = j;
    return ST_OK;
no_memory:
    st = err_set(ST_NO_MEMORY, "%s: no memory for the job", path);
fail:
    free(list.items);
    yaml_tree_close(tree);
    free(r);
    job_close(j);
    return st;
}

/* The whole file; *text is the caller's to free. */
static status read_file(const char *path, char **text, size_t *n_bytes)
{
    status st = ST_OK;
    struct stat about;
    char *bytes = NULL;
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (fd < 0) return err_set(ST_BAD_JOB, "%s: cannot open the job file: %s", path, strerror(errno));
    if (fstat(fd, &about) != 0) {
        st = err_set(ST_BAD_JOB, "%s: cannot read the job file: %s", path, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(about.st_mode)) {
        st = err_set(ST_BAD_JOB, "%s: found %s; allowed: a job file", path,
                     S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe");
        goto fail;
    }
    if (about.st_size > JOB_FILE_BYTES_MAX) {
        st = err_set(ST_BAD_JOB, "%s: found %lld bytes; allowed: at most %d in a job file", path,
                     (long long)about.st_size, JOB_FILE_BYTES_MAX);
        goto fail;
    }
    size_t room = (size_t)about.st_size;
    bytes = malloc(room + 1);
    if (bytes == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: %zu bytes", path, room);
        goto fail;
    }
    while (used < room) {
        ssize_t n = read(fd, bytes + used, room - used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = err_set(ST_BAD_JOB, "%s: cannot read the job file: %s", path, strerror(errno));
            goto fail;
        }
        if (n == 0) break;
        used += (size_t)n;
    }
    close(fd);
    *text = bytes;
    *n_bytes = used;
    return ST_OK;
fail:
    free(bytes);
    close(fd);
    return st;
}

status job_open(job **out, const char *path, const job_opts *opts)
{
    char *text = NULL;
    size_t n_bytes = 0;
    status st = read_file(path, &text, &n_bytes);
    if (st != ST_OK) return st;
    st = job_parse(out, path, text, n_bytes, opts);
    free(text);
    return st;
}

void job_close(job *j)
{
    if (j == NULL) return;
    job_memory_close(j->memory);
    free(j);
}
