#include "job_keys.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suggest.h"

enum { LIST_BYTES = 448 };

/* Why a value that looks like a number to a person is none here; "" when it does not look like one. */
static const char *number_trouble(const tree_node *value)
{
    if (value->kind != TREE_SCALAR) return "";
    const char *t = value->text;
    if (*t == '-' || *t == '+') t++;
    if (!value->plain) return isdigit((unsigned char)*t) ? " (text: numbers stand without quotes)" : "";
    if (t[0] == '0' && (t[1] == 'x' || t[1] == 'X')) return " (hexadecimal)";
    if (t[0] == '0' && (t[1] == 'o' || t[1] == 'b')) return " (octal or binary)";
    if (t[0] == '0' && isdigit((unsigned char)t[1])) return " (a leading zero means octal to some readers)";
    if (isdigit((unsigned char)*t) && strchr(t, '_') != NULL) return " (underscores)";
    if (strcasecmp(t, ".inf") == 0 || strcasecmp(t, ".nan") == 0 || strcasecmp(t, "inf") == 0 ||
        strcasecmp(t, "nan") == 0)
        return " (not a finite number)";
    return "";
}

void job_mistake(job_reader *r, const char *name, const tree_node *value, const char *allowed, ...)
{
    char shown[TREE_SHOWN_BYTES], text[LIST_BYTES];
    va_list ap;
    va_start(ap, allowed);
    vsnprintf(text, sizeof(text), allowed, ap);
    va_end(ap);
    mistakes_add(&r->m, value->line, value->column, "%s%s: found %s%s; allowed: %s", r->prefix, name,
                 tree_show(value, shown), number_trouble(value), text);
}

static void list_add(char list[LIST_BYTES], const char *word)
{
    size_t used = strlen(list);
    snprintf(list + used, LIST_BYTES - used, "%s%s", used == 0 ? "" : ", ", word);
}

static void unknown_key(job_reader *r, const job_table *table, const tree_node *key)
{
    char shown[TREE_SHOWN_BYTES], list[LIST_BYTES] = "";
    if (r->m.n_found >= MISTAKES_MAX) { /* only counted */
        mistakes_add(&r->m, key->line, key->column, " ");
        return;
    }
    tree_show(key, shown);
    if (strcmp(key->text, "<<") == 0) {
        mistakes_add(
            &r->m, key->line, key->column,
            "found a merge key (<<); allowed: aliases of whole values, and `defaults` for what pictures share");
        return;
    }
    for (const struct job_stranger *s = table->strangers; s != NULL && s->name != NULL; s++) {
        if (strcmp(s->name, key->text) != 0) continue;
        mistakes_add(&r->m, key->line, key->column, "%s%s: %s", r->prefix, s->name, s->advice);
        return;
    }
    suggestion nearest = suggest_begin(key->text);
    for (size_t i = 0; i < table->n_keys; i++) {
        list_add(list, table->keys[i].name);
        suggest_offer(&nearest, table->keys[i].name);
    }
    mistakes_add(&r->m, key->line, key->column, "found unknown key %s in %s%s%s; allowed: %s", shown, table->place,
                 nearest.best != NULL ? "; nearest known key: " : "", nearest.best != NULL ? nearest.best : "", list);
}

bool job_read_mapping(job_reader *r, const job_table *table, const tree_node *node, void *into,
                      const tree_node *found[JOB_KEYS_MAX])
{
    memset(found, 0, JOB_KEYS_MAX * sizeof(found[0]));
    if (node->kind != TREE_MAPPING) {
        char shown[TREE_SHOWN_BYTES];
        mistakes_add(&r->m, node->line, node->column, "found %s where %s belongs; allowed: a mapping (key: value)",
                     tree_show(node, shown), table->place);
        return false;
    }
    const char *outer = r->prefix;
    r->prefix = table->prefix;
    for (size_t i = 0; i + 1 < node->n_items; i += 2) {
        const tree_node *key = node->items[i], *value = node->items[i + 1];
        size_t k = 0;
        while (k < table->n_keys && strcmp(table->keys[k].name, key->text) != 0)
            k++;
        if (k == table->n_keys) {
            unknown_key(r, table, key);
        } else if (found[k] != NULL) {
            mistakes_add(&r->m, key->line, key->column,
                         "found key %s%s a second time; allowed: once (its first value is in line %d)", r->prefix,
                         key->text, found[k]->line);
        } else {
            found[k] = value;
            table->keys[k].read(r, &table->keys[k], value, into);
        }
    }
    r->prefix = outer;
    return true;
}

static void put(void *into, const job_key *key, const void *value, size_t n_bytes)
{
    memcpy((char *)into + key->offset, value, n_bytes);
}

static bool is_auto(const tree_node *value)
{
    return value->kind == TREE_SCALAR && strcmp(value->text, "auto") == 0;
}

/* [-+]digits without a leading zero. */
static bool is_integer(const tree_node *value)
{
    if (value->kind != TREE_SCALAR || !value->plain) return false;
    const char *t = value->text;
    if (*t == '-' || *t == '+') t++;
    if (t[0] == '\0' || (t[0] == '0' && t[1] != '\0')) return false;
    return t[strspn(t, "0123456789")] == '\0';
}

/* [-+]digits[.digits][e[-+]digits], at least one digit before e, no leading zero. */
static bool is_decimal(const tree_node *value)
{
    if (value->kind != TREE_SCALAR || !value->plain) return false;
    const char *t = value->text;
    if (*t == '-' || *t == '+') t++;
    if (t[0] == '0' && isdigit((unsigned char)t[1])) return false;
    size_t n_whole = strspn(t, "0123456789"), n_fraction = 0;
    t += n_whole;
    if (*t == '.') n_fraction = strspn(++t, "0123456789");
    if (n_whole + n_fraction == 0) return false;
    t += n_fraction;
    if (*t == 'e' || *t == 'E') {
        t++;
        if (*t == '-' || *t == '+') t++;
        if (*t == '\0') return false;
        t += strspn(t, "0123456789");
    }
    return *t == '\0';
}

bool job_number(const tree_node *value, double min, double max, double *number)
{
    if (!is_decimal(value)) return false;
    double x = strtod(value->text, NULL);
    if (!(x >= min && x <= max)) return false;
    *number = x;
    return true;
}

bool job_seed(const tree_node *value, uint64_t *seed)
{
    if (!is_integer(value)) return false;
    errno = 0;
    if (value->text[0] == '-') {
        long long negative = strtoll(value->text, NULL, 10);
        if (errno != 0) return false;
        *seed = (uint64_t)negative;
        return true;
    }
    unsigned long long positive = strtoull(value->text, NULL, 10);
    if (errno != 0) return false;
    *seed = positive;
    return true;
}

static bool get_int(const job_key *key, const tree_node *value, int *out)
{
    double x;
    if (!is_integer(value) || !job_number(value, key->min, key->max, &x)) return false;
    *out = (int)x;
    return true;
}

void job_read_int(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    int x;
    if (get_int(key, value, &x))
        put(into, key, &x, sizeof(x));
    else
        job_mistake(r, key->name, value, "an integer from %.0f to %.0f", key->min, key->max);
}

void job_read_auto_int(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    int x = 0;
    if (is_auto(value) || get_int(key, value, &x))
        put(into, key, &x, sizeof(x));
    else
        job_mistake(r, key->name, value, "auto, or an integer from %.0f to %.0f", key->min, key->max);
}

static void read_size(job_reader *r, const job_key *key, const tree_node *value, void *into, const char *or_auto)
{
    int x;
    if (!get_int(key, value, &x)) {
        job_mistake(r, key->name, value, "%sa multiple of %d from %.0f to %.0f (pixels)", or_auto, JOB_SIDE_STEP,
                    key->min, key->max);
    } else if (x % JOB_SIDE_STEP != 0) {
        int below = x / JOB_SIDE_STEP * JOB_SIDE_STEP;
        job_mistake(r, key->name, value, "%smultiples of %d; the nearest are %d and %d", or_auto, JOB_SIDE_STEP, below,
                    below + JOB_SIDE_STEP);
    } else {
        put(into, key, &x, sizeof(x));
    }
}

void job_read_size(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    read_size(r, key, value, into, "");
}

void job_read_auto_size(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    int automatic = 0;
    if (is_auto(value))
        put(into, key, &automatic, sizeof(automatic));
    else
        read_size(r, key, value, into, "auto, or ");
}

void job_read_number(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    double x;
    if (job_number(value, key->min, key->max, &x))
        put(into, key, &x, sizeof(x));
    else
        job_mistake(r, key->name, value, "a number from %g to %g", key->min, key->max);
}

void job_read_auto_number(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    double x = NAN;
    if (is_auto(value) || job_number(value, key->min, key->max, &x))
        put(into, key, &x, sizeof(x));
    else
        job_mistake(r, key->name, value, "auto, or a number from %g to %g", key->min, key->max);
}

void job_read_bool(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    static const char *const words[] = {"false", "true", NULL};
    int index = value->kind == TREE_SCALAR && value->plain ? job_word_index(value, words) : -1;
    bool x = index == 1;
    if (index >= 0)
        put(into, key, &x, sizeof(x));
    else
        job_mistake(r, key->name, value, "true or false");
}

int job_word_index(const tree_node *value, const char *const *words)
{
    if (value->kind != TREE_SCALAR) return -1;
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], value->text) == 0) return i;
    return -1;
}

void job_read_word(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    int index = job_word_index(value, key->words);
    if (index >= 0) {
        unsigned x = (unsigned)index;
        put(into, key, &x, sizeof(x));
        return;
    }
    char list[LIST_BYTES] = "";
    suggestion nearest = suggest_begin(value->kind == TREE_SCALAR ? value->text : "");
    for (int i = 0; key->words[i] != NULL; i++) {
        list_add(list, key->words[i]);
        suggest_offer(&nearest, key->words[i]);
    }
    job_mistake(r, key->name, value, "%s%s%s", list, nearest.best != NULL ? "; nearest: " : "",
                nearest.best != NULL ? nearest.best : "");
}

char *job_text(job_reader *r, const char *text)
{
    size_t n_bytes = strlen(text) + 1;
    char *copy = job_memory_take(r->memory, n_bytes);
    if (copy == NULL) {
        r->out_of_memory = true;
        return NULL;
    }
    return memcpy(copy, text, n_bytes);
}

char *job_path(job_reader *r, const char *path)
{
    size_t n_dir = path[0] == '/' ? 0 : strlen(r->dir);
    size_t n_bytes = n_dir + strlen(path) + 1;
    char *whole = job_memory_take(r->memory, n_bytes);
    if (whole == NULL) {
        r->out_of_memory = true;
        return NULL;
    }
    snprintf(whole, n_bytes, "%.*s%s", (int)n_dir, r->dir, path);
    return whole;
}

void job_read_text(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    if (value->kind != TREE_SCALAR || tree_is_null(value)) {
        job_mistake(r, key->name, value, "a text (\"\" is the empty one)");
        return;
    }
    const char *copy = job_text(r, value->text);
    if (copy != NULL) put(into, key, &copy, sizeof(copy));
}

void job_read_path(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    if (value->kind != TREE_SCALAR || tree_is_null(value) || value->text[0] == '\0') {
        job_mistake(r, key->name, value, "a path, absolute or from the folder of the job file");
        return;
    }
    if (value->text[0] == '~') {
        job_mistake(r, key->name, value, "a path, absolute or from the folder of the job file (~ is not replaced)");
        return;
    }
    const char *copy = job_path(r, value->text);
    if (copy != NULL) put(into, key, &copy, sizeof(copy));
}

void job_read_node(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    (void)r;
    put(into, key, &value, sizeof(value));
}
