#include "json_config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_kind.h"

enum { CONFIG_MAX_BYTES = 16 << 20, CONFIG_MAX_DEPTH = 16, SHOWN_TEXT = 64 };

struct json_config {
    char *path;
    json_t *root;
    json_t *section; /* root or an object in it: where fields are read */
};

/* Where brackets nest deeper than max_depth, outside strings; n when nowhere. The parser recurses once per level. */
static size_t too_deep_at(const char *text, size_t n, int max_depth)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth) return i;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return n;
}

status json_object_parse(json_t **out, const char *path, const char *text, size_t n, int max_depth, status bad)
{
    size_t deep = too_deep_at(text, n, max_depth);
    if (deep < n) return err_set(bad, "%s: byte %zu: JSON nested deeper than %d levels", path, deep, max_depth);
    json_error_t error;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory) {
        return err_set(ST_NO_MEMORY, "%s: %zu bytes of JSON", path, n);
    }
    if (root == NULL) return err_set(bad, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(bad, "%s: a JSON list, want an object", path);
    }
    *out = root;
    return ST_OK;
}

/* The whole file, yours to free. */
static status read_text(char **out, size_t *n, const char *path)
{
    status st = ST_OK;
    char *text = NULL;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0) {
        st = err_set(ST_BAD_MODEL, "%s: %s%s", path, strerror(errno),
                     errno == ENOENT ? " (an unfinished download, or no diffusers model folder)" : "");
        goto fail;
    }
    if (!S_ISREG(info.st_mode)) {
        st = err_set(ST_BAD_MODEL, "%s: no regular file", path);
        goto fail;
    }
    if (info.st_size > CONFIG_MAX_BYTES) {
        st = err_set(ST_BAD_MODEL, "%s: %lld bytes, want JSON of at most %d", path, (long long)info.st_size,
                     CONFIG_MAX_BYTES);
        goto fail;
    }
    if (info.st_size == 0) {
        st = err_set(ST_BAD_MODEL, "%s: the file is empty", path);
        goto fail;
    }
    size_t size = (size_t)info.st_size, got = 0;
    text = malloc(size);
    if (text == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: %zu bytes", path, size);
        goto fail;
    }
    while (got < size) {
        ssize_t part = read(fd, text + got, size - got);
        if (part < 0 && errno == EINTR) continue;
        if (part <= 0) {
            st = err_set(ST_BAD_MODEL, "%s: %s after %zu of %zu bytes", path, part < 0 ? strerror(errno) : "the end",
                         got, size);
            goto fail;
        }
        got += (size_t)part;
    }
    close(fd);
    *out = text;
    *n = size;
    return ST_OK;
fail:
    free(text);
    if (fd >= 0) close(fd);
    return st;
}

status json_config_open(json_config **out, const char *path)
{
    status st = ST_OK;
    char *text = NULL;
    size_t n = 0;
    json_config *config = calloc(1, sizeof(*config));
    if (config == NULL) return err_set(ST_NO_MEMORY, "json_config: %zu bytes", sizeof(*config));
    config->path = strdup(path);
    if (config->path == NULL) {
        st = err_set(ST_NO_MEMORY, "json_config: the name %s", path);
        goto fail;
    }
    TRY(read_text(&text, &n, path));
    const char *kind = file_kind(text, n);
    if (kind != NULL) {
        st = err_set(ST_BAD_MODEL, "%s: this is %s", path, kind);
        goto fail;
    }
    TRY(json_object_parse(&config->root, path, text, n, CONFIG_MAX_DEPTH, ST_BAD_MODEL));
    config->section = config->root;
    free(text);
    *out = config;
    return ST_OK;
fail:
    free(text);
    json_config_close(config);
    return st;
}

void json_config_close(json_config *config)
{
    if (config == NULL) return;
    json_decref(config->root);
    free(config->path);
    free(config);
}

const json_t *json_config_get(const json_config *config, const char *key)
{
    const json_t *value = json_object_get(config->section, key);
    return json_is_null(value) ? NULL : value;
}

const char *json_config_text(const json_config *config, const char *key)
{
    return json_string_value(json_config_get(config, key));
}

void json_config_enter(json_config *config, const char *key)
{
    json_t *section = json_object_get(config->root, key);
    if (json_is_object(section)) config->section = section;
}

status json_config_error(const json_config *config, const char *key, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(ST_BAD_MODEL, "%s: %s: %s", config->path, key, text);
}

/* value as JSON, cut to a few words. */
static const char *shown(const json_t *value, char text[SHOWN_TEXT])
{
    char *full = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    snprintf(text, SHOWN_TEXT, "%s", full == NULL ? "a value" : full);
    if (full != NULL && strlen(full) >= SHOWN_TEXT) strcpy(text + SHOWN_TEXT - 4, "...");
    free(full);
    return text;
}

static bool int_fits(const json_t *value, int min, int max)
{
    return json_is_integer(value) && json_integer_value(value) >= min && json_integer_value(value) <= max;
}

status json_config_int(const json_config *config, const char *key, int *value, int min, int max)
{
    char text[SHOWN_TEXT];
    const json_t *found = json_config_get(config, key);
    if (found == NULL) return ST_OK;
    if (!int_fits(found, min, max)) {
        return json_config_error(config, key, "got %s, want a whole number from %d to %d", shown(found, text), min,
                                 max);
    }
    *value = (int)json_integer_value(found);
    return ST_OK;
}

status json_config_double(const json_config *config, const char *key, double *value, double min, double max)
{
    char text[SHOWN_TEXT];
    const json_t *found = json_config_get(config, key);
    if (found == NULL) return ST_OK;
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= min && number <= max)) {
        return json_config_error(config, key, "got %s, want a number from %g to %g", shown(found, text), min, max);
    }
    *value = number;
    return ST_OK;
}

status json_config_bool(const json_config *config, const char *key, bool *value)
{
    char text[SHOWN_TEXT];
    const json_t *found = json_config_get(config, key);
    if (found == NULL) return ST_OK;
    if (!json_is_boolean(found)) {
        return json_config_error(config, key, "got %s, want true or false", shown(found, text));
    }
    *value = json_is_true(found);
    return ST_OK;
}

status json_config_ints(const json_config *config, const char *key, int *values, int *n, int max_n, int min, int max)
{
    char text[SHOWN_TEXT];
    const json_t *found = json_config_get(config, key);
    if (found == NULL) return ST_OK;
    size_t count = json_array_size(found);
    bool good = json_is_array(found) && count >= 1 && count <= (size_t)max_n;
    for (size_t i = 0; good && i < count; i++)
        good = int_fits(json_array_get(found, i), min, max);
    if (!good) {
        return json_config_error(config, key, "got %s, want a list of 1 to %d whole numbers from %d to %d",
                                 shown(found, text), max_n, min, max);
    }
    for (size_t i = 0; i < count; i++)
        values[i] = (int)json_integer_value(json_array_get(found, i));
    *n = (int)count;
    return ST_OK;
}

status json_config_choice(const json_config *config, const char *key, int *value, const char *const *allowed)
{
    char text[SHOWN_TEXT];
    char list[512] = "";
    const json_t *found = json_config_get(config, key);
    if (found == NULL) return ST_OK;
    const char *word = json_string_value(found);
    for (int i = 0; allowed[i] != NULL; i++) {
        if (word != NULL && strcmp(word, allowed[i]) == 0) {
            *value = i;
            return ST_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s\"%s\"", i == 0 ? "" : " or ", allowed[i]);
    }
    return json_config_error(config, key, "got %s, want %s", shown(found, text), list);
}
