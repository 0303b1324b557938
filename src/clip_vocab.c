#include "clip_vocab.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>

#include "file_kind.h"

enum {
    MERGES_MAX = 49152 - 256 - 2,   /* the reference reads no more lines than these after the first */
    IDS_MAX = 1 << 22,              /* a larger id is taken for a broken file: embeddings have a row per id */
    FILE_MAX_BYTES = 64 * 1024 * 1024,
    NAME_MAX_BYTES = 1024,          /* of a token that a merge makes */
    WHERE_BYTES = PATH_MAX + 128
};

/* The optional files; NULL where absent. The reference reads the last three only when the first has no
 * added_tokens_decoder: such folders are older than it. */
typedef struct {
    const char *dir;
    json_t *config;      /* tokenizer_config.json */
    json_t *special_map; /* special_tokens_map.json */
    json_t *added;       /* added_tokens.json */
    json_t *fast;        /* tokenizer.json */
} extra_files;

static status join_path(char path[PATH_MAX], const char *dir, const char *name)
{
    bool fits = snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX;
    return fits ? ST_OK : err_set(ST_BAD_MODEL, "clip tokenizer: path too long: %s", dir);
}

/* The file with a NUL behind it, yours to free; NULL when it is optional and not there. */
static status read_text(char **out, const char *path, bool optional)
{
    status st = ST_OK;
    char *text = NULL;
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (file == NULL && optional && errno == ENOENT) return ST_OK;
    if (file == NULL) return err_set(ST_BAD_MODEL, "%s: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > FILE_MAX_BYTES) {
        st = err_set(ST_BAD_MODEL, "%s: want a file of at most %d bytes", path, (int)FILE_MAX_BYTES);
        goto fail;
    }
    size_t n_bytes = (size_t)info.st_size;
    text = malloc(n_bytes + 1);
    if (text == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: %zu bytes", path, n_bytes);
        goto fail;
    }
    if (fread(text, 1, n_bytes, file) != n_bytes) {
        st = err_set(ST_BAD_MODEL, "%s: ends early, want %zu bytes", path, n_bytes);
        goto fail;
    }
    text[n_bytes] = '\0';
    const char *kind = file_kind(text, n_bytes);
    const char *nul = memchr(text, '\0', n_bytes);
    if (kind != NULL) {
        st = err_set(ST_BAD_MODEL, "%s: this is %s", path, kind);
    } else if (nul != NULL) {
        st = err_set(ST_BAD_MODEL, "%s: a NUL at byte %zu, want text", path, (size_t)(nul - text));
    }
    if (st != ST_OK) goto fail;
    *out = text;
    text = NULL;
fail:
    free(text);
    fclose(file);
    return st;
}

static status read_json(json_t **out, const char *dir, const char *name, bool optional)
{
    status st = ST_OK;
    char path[PATH_MAX], *text = NULL;
    json_error_t error;
    json_t *root = NULL;
    TRY(join_path(path, dir, name));
    TRY(read_text(&text, path, optional));
    if (text == NULL) return ST_OK;
    /* Integers as reals: transformers writes 1000000000000000019884624838656 for "no maximum length". */
    root = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory) {
        st = err_set(ST_NO_MEMORY, "%s: %zu bytes of JSON", path, strlen(text));
    } else if (root == NULL) {
        st = err_set(ST_BAD_MODEL, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    } else if (!json_is_object(root)) {
        st = err_set(ST_BAD_MODEL, "%s: want a JSON object", path);
    }
    if (st != ST_OK) goto fail;
    *out = root;
    root = NULL;
fail:
    json_decref(root);
    free(text);
    return st;
}

/* The id that value holds; -1 when it is no whole number in [0, IDS_MAX). */
static int32_t id_of(const json_t *value)
{
    double number = json_is_real(value) ? json_real_value(value) : -1.0;
    int32_t id = number >= 0.0 && number < (double)IDS_MAX ? (int32_t)number : -1;
    return (double)id == number ? id : -1;
}

static int32_t token_id(const clip_vocab *v, const char *token)
{
    const json_t *value = json_object_get(v->tokens, token);
    return value != NULL ? id_of(value) : -1;
}

int32_t clip_vocab_char_of_byte(int byte)
{
    int n_before = 0; /* bytes below this one that cannot be printed */
    for (int b = 0; b <= byte; b++) {
        bool printed = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte) return printed ? b : 0x100 + n_before;
        if (!printed) n_before++;
    }
    return -1;
}

static status names_reserve(clip_vocab *v, int32_t id)
{
    if (id < v->n_ids) return ST_OK;
    const char **names = realloc(v->names, ((size_t)id + 1) * sizeof(*names));
    if (names == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %d token names", id + 1);
    for (int32_t i = v->n_ids; i <= id; i++) names[i] = NULL;
    v->names = names;
    v->n_ids = id + 1;
    return ST_OK;
}

static status read_vocab(clip_vocab *v, const char *dir)
{
    status st = ST_OK;
    int32_t highest = -1;
    const char *token;
    json_t *value;
    TRY(read_json(&v->tokens, dir, "vocab.json", false));
    json_object_foreach (v->tokens, token, value) {
        int32_t id = id_of(value);
        if (id < 0) {
            return err_set(ST_BAD_MODEL, "%s/vocab.json: \"%s\": want a whole number from 0 to %d", dir, token,
                           (int)IDS_MAX - 1);
        }
        highest = id > highest ? id : highest;
    }
    if (highest < 0) return err_set(ST_BAD_MODEL, "%s/vocab.json: no tokens", dir);
    TRY(names_reserve(v, highest));
    json_object_foreach (v->tokens, token, value) {
        int32_t id = id_of(value);
        if (v->names[id] != NULL) {
            return err_set(ST_BAD_MODEL, "%s/vocab.json: id %d stands for both \"%s\" and \"%s\"", dir, id,
                           v->names[id], token);
        }
        v->names[id] = token;
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[16] = {0};
        utf8proc_ssize_t n = utf8proc_encode_char(clip_vocab_char_of_byte(byte), (utf8proc_uint8_t *)name);
        v->byte_ids[byte] = token_id(v, name);
        memcpy(name + n, "</w>", sizeof("</w>"));
        v->byte_end_ids[byte] = token_id(v, name);
    }
fail:
    return st;
}

/* One line, "left right": the three tokens must exist, or the ids after this merge would be those of another model. */
static status read_merge(const clip_vocab *v, bpe_merge *merge, char *line, const char *path, int number)
{
    static const char blanks[] = " \t\r\f\v";
    char joined[NAME_MAX_BYTES];
    char *rest = NULL, *left = strtok_r(line, blanks, &rest);
    char *right = strtok_r(NULL, blanks, &rest);
    if (right == NULL || strtok_r(NULL, blanks, &rest) != NULL) {
        return err_set(ST_BAD_MODEL, "%s:%d: want two tokens, \"left right\"", path, number);
    }
    if (snprintf(joined, sizeof(joined), "%s%s", left, right) >= (int)sizeof(joined)) {
        return err_set(ST_BAD_MODEL, "%s:%d: token longer than %d bytes", path, number, (int)NAME_MAX_BYTES - 1);
    }
    *merge = (bpe_merge){token_id(v, left), token_id(v, right), token_id(v, joined)};
    const char *missing = merge->left < 0 ? left : merge->right < 0 ? right : merge->joined < 0 ? joined : NULL;
    if (missing != NULL) {
        return err_set(ST_BAD_MODEL, "%s:%d: \"%s\" is not in vocab.json (files of two different tokenizers?)", path,
                       number, missing);
    }
    return ST_OK;
}

static status read_merges(clip_vocab *v, const char *dir)
{
    status st = ST_OK;
    char path[PATH_MAX], *text = NULL, *line = NULL;
    bpe_merge *merges = NULL;
    int32_t n_merges = 0;
    TRY(join_path(path, dir, "merges.txt"));
    TRY(read_text(&text, path, false));
    merges = malloc(MERGES_MAX * sizeof(*merges));
    if (merges == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: %d merges", path, (int)MERGES_MAX);
        goto fail;
    }
    line = text;
    for (int number = 1, n_read = -1; line != NULL && n_read < MERGES_MAX; number++) {
        char *next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        bool blank = line[strspn(line, " \t\r\f\v")] == '\0';
        /* The first line that is not blank tells the version, whatever it says; blank lines after it count. */
        if (n_read >= 0 && !blank) TRY(read_merge(v, &merges[n_merges++], line, path, number));
        if (n_read >= 0 || !blank) n_read++;
        line = next;
    }
    TRY(bpe_open(&v->merges, merges, n_merges));
fail:
    free(merges);
    free(text);
    return st;
}

static clip_added_token *find_added(const clip_vocab *v, const char *text)
{
    for (size_t i = 0; i < v->n_added; i++) {
        if (strcmp(v->added[i].text, text) == 0) return &v->added[i];
    }
    return NULL;
}

int32_t clip_vocab_id(const clip_vocab *v, const char *token)
{
    const clip_added_token *added = find_added(v, token);
    if (added != NULL) return added->id;
    int32_t id = token_id(v, token);
    return id >= 0 ? id : v->unk;
}

/* The id that the reference gives to a token without one: its place behind all names known so far. */
static int32_t next_id(const clip_vocab *v)
{
    size_t n = json_object_size(v->tokens);
    for (size_t i = 0; i < v->n_added; i++) n += json_object_get(v->tokens, v->added[i].text) == NULL;
    return n < IDS_MAX ? (int32_t)n : -1;
}

static bool flag(const json_t *token, const char *key)
{
    return json_is_true(json_object_get(token, key));
}

/* token: a string, or an object with "content". id: its own, or -1: the vocabulary's, or the next free one. A special
 * token that is known as an added one keeps what was said there. where: path and key, for messages. */
static status add_token(clip_vocab *v, const json_t *token, int32_t id, bool special, const char *where)
{
    status st = ST_OK;
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    if (text == NULL) return err_set(ST_BAD_MODEL, "%s: want a string or an object with a string \"content\"", where);
    if (text[0] == '\0') return ST_OK;
    clip_added_token *known = find_added(v, text);
    if (known != NULL && id < 0) {
        known->special = known->special || special;
        return ST_OK;
    }
    if (id < 0) id = token_id(v, text);
    if (id < 0) id = next_id(v);
    if (id < 0) return err_set(ST_BAD_MODEL, "%s: \"%s\": more than %d tokens", where, text, (int)IDS_MAX);
    TRY(names_reserve(v, id));
    if (known == NULL) {
        clip_added_token *added = realloc(v->added, (v->n_added + 1) * sizeof(*added));
        if (added == NULL) return err_set(ST_NO_MEMORY, "%s: %zu added tokens", where, v->n_added + 1);
        v->added = added;
        known = &added[v->n_added];
        *known = (clip_added_token){.text = strdup(text)};
        if (known->text == NULL) return err_set(ST_NO_MEMORY, "%s: \"%s\"", where, text);
        v->n_added++;
    }
    known->id = id;
    known->lstrip = flag(token, "lstrip");
    known->rstrip = flag(token, "rstrip");
    known->single_word = flag(token, "single_word");
    known->special = special || flag(token, "special");
    v->names[id] = known->text;
fail:
    return st;
}

static status add_token_with_id(clip_vocab *v, const json_t *token, const json_t *id, const char *where)
{
    int32_t number = id_of(id);
    if (number < 0) return err_set(ST_BAD_MODEL, "%s: want an id from 0 to %d", where, (int)IDS_MAX - 1);
    return add_token(v, token, number, false, where);
}

/* tokenizer_config.json of today: added_tokens_decoder, id -> token. */
static status add_from_decoder(clip_vocab *v, const json_t *decoder, const char *dir)
{
    status st = ST_OK;
    char where[WHERE_BYTES];
    const char *key;
    json_t *token;
    snprintf(where, sizeof(where), "%s/tokenizer_config.json: added_tokens_decoder", dir);
    json_object_foreach ((json_t *)decoder, key, token) {
        char *end = NULL;
        json_t *id = json_real(strtod(key, &end));
        st = end == key || *end != '\0' || !json_is_object(token)
                 ? err_set(ST_BAD_MODEL, "%s: \"%s\": want an id and an object", where, key)
                 : add_token_with_id(v, token, id, where);
        json_decref(id);
        if (st != ST_OK) break;
    }
    return st;
}

/* Files of the time before: added_tokens.json, token -> id; tokenizer.json, a list with ids. */
static status add_from_old_files(clip_vocab *v, const extra_files *files)
{
    status st = ST_OK;
    char where[WHERE_BYTES];
    const char *key;
    size_t i;
    json_t *value, *list = json_object_get(files->fast, "added_tokens");
    snprintf(where, sizeof(where), "%s/added_tokens.json", files->dir);
    json_object_foreach (files->added, key, value) {
        json_t *token = json_string(key);
        st = token == NULL ? err_set(ST_NO_MEMORY, "%s", where) : add_token_with_id(v, token, value, where);
        json_decref(token);
        if (st != ST_OK) return st;
    }
    snprintf(where, sizeof(where), "%s/tokenizer.json: added_tokens", files->dir);
    json_array_foreach (list, i, value) {
        TRY(add_token_with_id(v, value, json_object_get(value, "id"), where));
    }
fail:
    return st;
}

/* What the files say under key; NULL when nothing. */
static const json_t *special_value(const extra_files *files, const char *key)
{
    const json_t *value = json_object_get(files->special_map, key);
    if (value == NULL) value = json_object_get(files->config, key);
    return json_is_null(value) ? NULL : value;
}

/* The special token under key, added; its id. fallback: the class's default, NULL for none. */
static status add_special(clip_vocab *v, const extra_files *files, const char *key, const char *fallback, int32_t *id)
{
    status st = ST_OK;
    char where[WHERE_BYTES];
    const json_t *value = special_value(files, key);
    json_t *standard = fallback != NULL ? json_string(fallback) : NULL;
    snprintf(where, sizeof(where), "%s/tokenizer_config.json or special_tokens_map.json: %s", files->dir, key);
    if (value == NULL) value = standard;
    if (value == NULL) return ST_OK;
    TRY(add_token(v, value, -1, true, where));
    if (id != NULL) {
        const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
        const clip_added_token *token = find_added(v, text);
        if (token == NULL) {
            st = err_set(ST_BAD_MODEL, "%s: want a token, got an empty text", where);
            goto fail;
        }
        *id = token->id;
    }
fail:
    json_decref(standard);
    return st;
}

static status add_specials(clip_vocab *v, const extra_files *files)
{
    static const char start[] = "<|startoftext|>", end[] = "<|endoftext|>";
    status st = ST_OK;
    char where[WHERE_BYTES];
    const json_t *lists[2] = {json_object_get(files->config, "additional_special_tokens"),
                              json_object_get(files->special_map, "additional_special_tokens")};
    const char *key;
    size_t i;
    json_t *value;
    /* The reference's order: it decides the ids of tokens that no file numbers. */
    TRY(add_special(v, files, "bos_token", start, &v->bos));
    TRY(add_special(v, files, "eos_token", end, &v->eos));
    TRY(add_special(v, files, "unk_token", end, &v->unk));
    TRY(add_special(v, files, "sep_token", NULL, NULL));
    TRY(add_special(v, files, "pad_token", end, &v->pad));
    TRY(add_special(v, files, "cls_token", NULL, NULL));
    TRY(add_special(v, files, "mask_token", NULL, NULL));
    snprintf(where, sizeof(where), "%s: additional_special_tokens", files->dir);
    for (size_t list = 0; list < 2; list++) {
        json_array_foreach ((json_t *)lists[list], i, value) {
            TRY(add_token(v, value, -1, true, where));
        }
    }
    snprintf(where, sizeof(where), "%s/tokenizer_config.json: extra_special_tokens", files->dir);
    json_object_foreach (json_object_get(files->config, "extra_special_tokens"), key, value) {
        TRY(add_token(v, value, -1, true, where));
    }
fail:
    return st;
}

static status read_settings(clip_vocab *v, const json_t *config, const char *dir)
{
    static const char *const sides[] = {"padding_side", "truncation_side"};
    for (size_t i = 0; i < 2; i++) {
        const char *side = json_string_value(json_object_get(config, sides[i]));
        if (side != NULL && strcmp(side, "right") != 0) {
            return err_set(ST_BAD_MODEL, "%s/tokenizer_config.json: %s: \"%s\" is not supported, want \"right\"", dir,
                           sides[i], side);
        }
    }
    v->split_special = json_is_true(json_object_get(config, "split_special_tokens"));
    const json_t *length = json_object_get(config, "model_max_length");
    if (!json_is_real(length)) length = json_object_get(config, "max_len");
    double n = json_is_real(length) ? json_real_value(length) : CLIP_MAX_LENGTH;
    if (n < 2.0) {
        return err_set(ST_BAD_MODEL, "%s/tokenizer_config.json: model_max_length: got %g, want at least 2", dir, n);
    }
    /* A number beyond all sense is transformers' way to say that there is none. */
    v->max_length = n > 1e6 ? (int)CLIP_MAX_LENGTH : (int)n;
    return ST_OK;
}

status clip_vocab_open(clip_vocab **out, const char *dir)
{
    status st = ST_OK;
    extra_files files = {.dir = dir};
    clip_vocab *v = calloc(1, sizeof(*v));
    if (v == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %zu bytes", sizeof(*v));
    TRY(read_vocab(v, dir));
    TRY(read_merges(v, dir));
    TRY(read_json(&files.config, dir, "tokenizer_config.json", true));
    const json_t *decoder = json_object_get(files.config, "added_tokens_decoder");
    if (decoder != NULL) {
        TRY(add_from_decoder(v, decoder, dir));
    } else {
        TRY(read_json(&files.special_map, dir, "special_tokens_map.json", true));
        TRY(read_json(&files.added, dir, "added_tokens.json", true));
        TRY(read_json(&files.fast, dir, "tokenizer.json", true));
        TRY(add_from_old_files(v, &files));
    }
    TRY(add_specials(v, &files));
    TRY(read_settings(v, files.config, dir));
    *out = v;
    v = NULL;
fail:
    json_decref(files.fast);
    json_decref(files.added);
    json_decref(files.special_map);
    json_decref(files.config);
    clip_vocab_close(v);
    return st;
}

void clip_vocab_close(clip_vocab *v)
{
    if (v == NULL) return;
    for (size_t i = 0; i < v->n_added; i++) free(v->added[i].text);
    free(v->added);
    bpe_close(v->merges);
    free(v->names);
    json_decref(v->tokens);
    free(v);
}
