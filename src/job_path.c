#include "job_path.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suggest.h"

enum { COMPONENT_BYTES_MAX = 240 }; /* of 255: a temporary file's suffix must fit */

enum { HOLE_NAME, HOLE_SEED, HOLE_WIDTH, HOLE_HEIGHT, HOLE_METHOD, HOLE_INDEX, N_HOLES };
static const char *const holes[N_HOLES] = {"name", "seed", "width", "height", "method", "index"};

/* at: behind the opening brace. The placeholder's number and in *n its length; -1 when it is unknown or not closed. */
static int hole_at(const char *at, size_t *n)
{
    *n = strcspn(at, "{}");
    for (int i = 0; i < N_HOLES; i++)
        if (at[*n] == '}' && strlen(holes[i]) == *n && memcmp(holes[i], at, *n) == 0) return i;
    return -1;
}

static void hole_mistake(job_reader *r, const char *name, const tree_node *value, const char *at, size_t n)
{
    static const char known[] = "{name} {seed} {width} {height} {method} {index}";
    char word[32];
    if (at[n] != '}' || n >= sizeof(word)) {
        job_mistake(r, name, value, "every { closed by a }, around one of %s", known);
        return;
    }
    memcpy(word, at, n);
    word[n] = '\0';
    suggestion nearest = suggest_begin(word);
    for (int i = 0; i < N_HOLES; i++)
        suggest_offer(&nearest, holes[i]);
    bool near = nearest.best != NULL;
    mistakes_add(&r->m, value->line, value->column, "%s%s: found unknown placeholder {%s}%s%s%s; allowed: %s",
                 r->prefix, name, word, near ? "; nearest: {" : "", near ? nearest.best : "", near ? "}" : "", known);
}

bool job_template_check(job_reader *r, const char *name, const tree_node *value, const char *suffix)
{
    if (value->kind != TREE_SCALAR || tree_is_null(value) || value->text[0] == '~') {
        job_mistake(r, name, value, "a path that ends in %s%s", suffix,
                    value->kind == TREE_SCALAR && value->text[0] == '~' ? " (~ is not replaced)" : "");
        return false;
    }
    const char *text = value->text;
    size_t n_bytes = strlen(text), n_suffix = strlen(suffix);
    if (n_bytes <= n_suffix || strcmp(text + n_bytes - n_suffix, suffix) != 0) {
        job_mistake(r, name, value, "a path that ends in %s", suffix);
        return false;
    }
    for (const char *c = text; *c != '\0'; c++) {
        size_t n = 0;
        if ((unsigned char)*c < 0x20) {
            job_mistake(r, name, value, "a path without control characters");
            return false;
        }
        if (*c != '{' && *c != '}') continue;
        if (*c == '}') {
            job_mistake(r, name, value, "every } opened by a {");
            return false;
        }
        if (hole_at(c + 1, &n) < 0) {
            hole_mistake(r, name, value, c + 1, n);
            return false;
        }
        c += n + 1;
    }
    return true;
}

static int hole_fill(int hole, const job_picture *p, char *out, size_t room)
{
    char label[POSITION_LABEL_BYTES];
    switch (hole) {
    case HOLE_NAME:
        return snprintf(out, room, "%s", p->name);
    case HOLE_SEED:
        return snprintf(out, room, "%" PRIu64, p->seed);
    case HOLE_WIDTH:
        return snprintf(out, room, "%d", p->width);
    case HOLE_HEIGHT:
        return snprintf(out, room, "%d", p->height);
    case HOLE_METHOD:
        return snprintf(out, room, "%s", position_label(&p->position, label));
    default:
        return snprintf(out, room, "%d", p->index);
    }
}

/* False when the path, or a component of it, is too long. */
static bool fits(const char *path)
{
    for (const char *c = path; *c != '\0';) {
        size_t n = strcspn(c, "/");
        if (n > COMPONENT_BYTES_MAX) return false;
        c += n + (c[n] == '/' ? 1 : 0);
    }
    return strlen(path) < PATH_MAX - 16;
}

/* What is filled in holds no slash and is never `.` or `..` (read_name), so a path leaves its folder only where the
 * template itself says so. */
const char *job_template_fill(job_reader *r, const char *name, const char *template, const char *out_dir,
                              const job_picture *p)
{
    char filled[2 * PATH_MAX], whole[2 * PATH_MAX];
    size_t used = 0;
    for (const char *c = template; *c != '\0' && used < PATH_MAX; c++) {
        size_t n = 0;
        if (*c != '{') {
            filled[used++] = *c;
            continue;
        }
        used += (size_t)hole_fill(hole_at(c + 1, &n), p, filled + used, sizeof(filled) - used);
        c += n + 1;
    }
    filled[used] = '\0';
    bool below = out_dir != NULL && template[0] != '/';
    int length = snprintf(whole, sizeof(whole), "%s%s%s", below ? out_dir : "", below ? "/" : "", filled);
    if (used >= PATH_MAX || length < 0 || (size_t)length >= sizeof(whole) || !fits(whole)) {
        mistakes_add(&r->m, p->line, p->column,
                     "%s: found a path that is too long once filled in (%.60s...); allowed: %d bytes between slashes, "
                     "%d in all",
                     name, filled, COMPONENT_BYTES_MAX, PATH_MAX - 17);
        return NULL;
    }
    return job_text(r, whole);
}

typedef struct claim {
    const char *what; /* "id" */
    const char *text; /* compared */
    const job_picture *by;
} claim;

static int by_text(const void *a, const void *b)
{
    const claim *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order != 0 ? order : (x->by->index > y->by->index) - (x->by->index < y->by->index);
}

static bool same_id(const claim *x, const claim *y)
{
    return x->by != y->by && strcmp(x->by->id, y->by->id) == 0;
}

static void report_shared(job_reader *r, claim *claims, size_t n, bool ids)
{
    qsort(claims, n, sizeof(*claims), by_text);
    for (size_t i = 1; i < n; i++) {
        const claim *first = &claims[i - 1], *second = &claims[i];
        if (strcmp(first->text, second->text) != 0) continue;
        if (!ids && same_id(first, second)) continue; /* told already */
        mistakes_add(&r->m, second->by->line, second->by->column,
                     "found %s %.200s a second time; allowed: once (the first is of the picture in line %d)",
                     second->what, second->text, first->by->line);
    }
}

/* path without empty parts, `.` and `x/..`: two spellings of one file become equal (links aside). */
static const char *normal(job_reader *r, const char *path)
{
    char *out = job_memory_take(r->memory, strlen(path) + 1);
    if (out == NULL) {
        r->out_of_memory = true;
        return path;
    }
    size_t used = 0, floor = 0; /* out[0, floor): what `..` must not remove */
    if (path[0] == '/') out[used++] = '/', floor = 1;
    for (const char *c = path; *c != '\0';) {
        size_t n = strcspn(c, "/");
        bool up = n == 2 && memcmp(c, "..", 2) == 0;
        if (up && used > floor) {
            for (used--; used > floor && out[used - 1] != '/'; used--) {
            }
        } else if (!(n == 0 || (n == 1 && c[0] == '.') || (up && floor == 1 && path[0] == '/'))) {
            memcpy(out + used, c, n);
            used += n;
            if (c[n] == '/') out[used++] = '/';
            if (up) floor = used;
        }
        c += n + (c[n] == '/' ? 1 : 0);
    }
    out[used] = '\0';
    return out;
}

/* preview.h */
static const char *preview_of(job_reader *r, const char *output)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof(path), "%.*s.preview.png", (int)(strlen(output) - strlen(".png")), output);
    const char *kept = job_text(r, path);
    return kept != NULL ? kept : output;
}

void job_check_unique(job_reader *r, const job_picture *pictures, size_t n_pictures)
{
    if (n_pictures == 0) return;
    claim *claims = calloc(3 * n_pictures, sizeof(*claims));
    if (claims == NULL) {
        r->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < n_pictures; i++)
        claims[i] = (claim){"id", pictures[i].id, &pictures[i]};
    report_shared(r, claims, n_pictures, true);
    size_t n = 0;
    for (size_t i = 0; i < n_pictures; i++) {
        claims[n++] = (claim){"output file", normal(r, pictures[i].output), &pictures[i]};
        if (pictures[i].latents_out != NULL)
            claims[n++] = (claim){"latents_out file", normal(r, pictures[i].latents_out), &pictures[i]};
        if (pictures[i].preview_every > 0)
            claims[n++] = (claim){"preview file", normal(r, preview_of(r, pictures[i].output)), &pictures[i]};
    }
    report_shared(r, claims, n, false);
    free(claims);
}

void job_check_sheet(job_reader *r, const char *sheet, const tree_node *node, const job_picture *pictures, size_t n_pictures)
{
    const char *path = normal(r, sheet);
    for (size_t i = 0; i < n_pictures; i++) {
        const job_picture *p = &pictures[i];
        const bool         taken = strcmp(path, normal(r, p->output)) == 0 ||
                           (p->preview_every > 0 && strcmp(path, normal(r, preview_of(r, p->output))) == 0);
        if (!taken) continue;
        mistakes_add(&r->m, node->line, node->column,
                     "contact_sheet: found %.200s, which the picture in line %d writes; allowed: a path of its own", sheet,
                     p->line);
        return;
    }
}
