#include "clip_tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "clip_pieces.h"
#include "clip_vocab.h"

enum { TEXT_MAX_BYTES = 1 << 26, WORD_END = sizeof("</w>") - 1 };

/* Typed in capitals, or with chars in between that cleaning drops, these two only show among the pieces. They are never
 * taken apart there, whatever the folder's special tokens are. */
static const char *const whole_tokens[2] = {"<|startoftext|>", "<|endoftext|>"};

/* How a token turns to text again: by its bytes; as it is; as it is with spaces around. */
typedef enum { NAME_PIECE, NAME_SPECIAL, NAME_ADDED } name_kind;

struct clip_tokenizer {
    clip_vocab *vocab;
    uint8_t *kinds;         /* [n_ids] name_kind */
    int32_t whole_ids[2];   /* of whole_tokens */
    bool starts_added[256]; /* bytes that an added token begins with */
    int16_t byte_of[0x200]; /* of a char in the names of tokens; -1: none */
};

/* A stretch of the prompt: text, or exactly one added token. */
typedef struct {
    const char *text;
    size_t n;
    char *owned; /* where text had to be put together anew */
} segment;

typedef struct {
    segment *at;
    size_t n, capacity;
} segments;

typedef struct {
    int32_t *at;
    size_t n, capacity;
} id_list;

status clip_tokenizer_open(clip_tokenizer **out, const char *dir)
{
    status st = ST_OK;
    clip_tokenizer *t = calloc(1, sizeof(*t));
    if (t == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %zu bytes", sizeof(*t));
    TRY(clip_vocab_open(&t->vocab, dir));
    const clip_vocab *v = t->vocab;
    t->kinds = calloc((size_t)v->n_ids, 1);
    if (t->kinds == NULL) {
        st = err_set(ST_NO_MEMORY, "clip tokenizer: %d tokens", v->n_ids);
        goto fail;
    }
    for (size_t i = 0; i < v->n_added; i++) {
        bool beyond = (size_t)v->added[i].id >= json_object_size(v->tokens);
        t->kinds[v->added[i].id] = v->added[i].special && !beyond ? NAME_SPECIAL : NAME_ADDED;
        t->starts_added[(uint8_t)v->added[i].text[0]] = !v->split_special;
    }
    for (size_t i = 0; i < 2; i++) t->whole_ids[i] = clip_vocab_id(v, whole_tokens[i]);
    memset(t->byte_of, 0xff, sizeof(t->byte_of));
    for (int byte = 0; byte < 256; byte++) t->byte_of[clip_vocab_char_of_byte(byte)] = (int16_t)byte;
    *out = t;
    return ST_OK;
fail:
    clip_tokenizer_close(t);
    return st;
}

void clip_tokenizer_close(clip_tokenizer *t)
{
    if (t == NULL) return;
    free(t->kinds);
    clip_vocab_close(t->vocab);
    free(t);
}

int32_t clip_tokenizer_n_ids(const clip_tokenizer *t)
{
    return t->vocab->n_ids;
}

int clip_tokenizer_max_length(const clip_tokenizer *t)
{
    return t->vocab->max_length;
}

static status segments_push(segments *list, const char *text, size_t n)
{
    if (n == 0) return ST_OK;
    if (list->n == list->capacity) {
        size_t capacity = 2 * list->capacity + 8;
        segment *at = realloc(list->at, capacity * sizeof(*at));
        if (at == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %zu stretches of text", capacity);
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->n++] = (segment){.text = text, .n = n};
    return ST_OK;
}

static status ids_push(id_list *list, int32_t id)
{
    if (list->n == list->capacity) {
        size_t capacity = 2 * list->capacity + 128;
        int32_t *at = realloc(list->at, capacity * sizeof(*at));
        if (at == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %zu ids", capacity);
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->n++] = id;
    return ST_OK;
}

/* The longest added token that text begins with, NULL for none. */
static const clip_added_token *added_at(const clip_tokenizer *t, const char *text, size_t n)
{
    const clip_added_token *best = NULL;
    size_t longest = 0;
    if (n == 0 || !t->starts_added[(uint8_t)text[0]]) return NULL;
    for (size_t i = 0; i < t->vocab->n_added; i++) {
        size_t length = strlen(t->vocab->added[i].text);
        if (length > longest && length <= n && memcmp(text, t->vocab->added[i].text, length) == 0) {
            best = &t->vocab->added[i];
            longest = length;
        }
    }
    return best;
}

/* The added token that a segment is, NULL when it is text. */
static const clip_added_token *added_of(const clip_tokenizer *t, const segment *s)
{
    const clip_added_token *token = added_at(t, s->text, s->n);
    return token != NULL && strlen(token->text) == s->n ? token : NULL;
}

/* Text is cut at the leftmost, there longest, added token, again and again. */
static status cut_at_added(const clip_tokenizer *t, segments *list, const char *text, size_t n)
{
    status st = ST_OK;
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        const clip_added_token *token = added_at(t, text + i, n - i);
        if (token == NULL) {
            i++;
            continue;
        }
        size_t length = strlen(token->text);
        TRY(segments_push(list, text + start, i - start));
        TRY(segments_push(list, text + i, length));
        i += length;
        start = i;
    }
    TRY(segments_push(list, text + start, n - start));
fail:
    return st;
}

static void strip_left(segment *s)
{
    utf8proc_int32_t c;
    while (s->n > 0) {
        utf8proc_ssize_t taken = utf8proc_iterate((const utf8proc_uint8_t *)s->text, (utf8proc_ssize_t)s->n, &c);
        if (taken <= 0 || !clip_is_space(c)) break;
        s->text += taken;
        s->n -= (size_t)taken;
    }
}

static void strip_right(segment *s)
{
    utf8proc_int32_t c;
    while (s->n > 0) {
        size_t start = s->n - 1;
        while (start > 0 && ((uint8_t)s->text[start] & 0xc0) == 0x80) start--;
        utf8proc_ssize_t taken =
            utf8proc_iterate((const utf8proc_uint8_t *)s->text + start, (utf8proc_ssize_t)(s->n - start), &c);
        if (taken != (utf8proc_ssize_t)(s->n - start) || !clip_is_space(c)) break;
        s->n = start;
    }
}

/* to becomes a followed by b. */
static status put_together(segment *to, const segment *a, const segment *b)
{
    size_t n = a->n + b->n;
    char *text = malloc(n + 1);
    if (text == NULL) return err_set(ST_NO_MEMORY, "clip tokenizer: %zu bytes of text", n);
    memcpy(text, a->text, a->n);
    memcpy(text + a->n, b->text, b->n);
    char *before = to->owned;
    *to = (segment){.text = text, .n = n, .owned = text};
    free(before);
    return ST_OK;
}

/* Added tokens eat spaces beside them, or fall back into the text because they are part of a word, where the folder
 * asks for it. One after the other from the left, as the reference does: what one does the next one sees. */
static status settle_added(const clip_tokenizer *t, segments *list)
{
    status st = ST_OK;
    segment nothing = {0};
    for (size_t i = 0; i < list->n; i++) {
        segment *s = &list->at[i], *left = i > 0 ? s - 1 : &nothing, *right = i + 1 < list->n ? s + 1 : &nothing;
        const clip_added_token *token = added_of(t, s);
        if (token == NULL) continue;
        bool joins_left = token->single_word && left->n > 0 && left->text[left->n - 1] != ' ';
        bool joins_right = token->single_word && right->n > 0 && right->text[0] != ' ';
        if (token->rstrip && right != &nothing) strip_left(right);
        if (token->lstrip && left != &nothing) strip_right(left);
        if (joins_left) {
            TRY(put_together(left, left, s));
        } else if (joins_right) {
            TRY(put_together(right, s, right));
        }
        if (joins_left || joins_right) s->n = 0;
    }
fail:
    return st;
}

/* One piece -> ids. symbols: room for n_bytes. */
static status encode_piece(const clip_tokenizer *t, id_list *ids, const char *piece, size_t n_bytes, int32_t *symbols)
{
    status st = ST_OK;
    const clip_vocab *v = t->vocab;
    for (size_t i = 0; i < 2; i++) {
        if (strlen(whole_tokens[i]) == n_bytes && memcmp(whole_tokens[i], piece, n_bytes) == 0) {
            return ids_push(ids, t->whole_ids[i]);
        }
    }
    int32_t n = (int32_t)n_bytes;
    for (int32_t i = 0; i < n; i++) symbols[i] = v->byte_ids[(uint8_t)piece[i]];
    symbols[n - 1] = v->byte_end_ids[(uint8_t)piece[n - 1]];
    TRY(bpe_join(v->merges, symbols, &n, NULL));
    for (int32_t i = 0; i < n; i++) TRY(ids_push(ids, symbols[i] >= 0 ? symbols[i] : v->unk));
fail:
    return st;
}

static status encode_text(const clip_tokenizer *t, id_list *ids, const char *text, size_t n_bytes)
{
    status st = ST_OK;
    clip_pieces *pieces = NULL;
    int32_t *symbols = NULL;
    size_t longest = 0, n;
    TRY(clip_pieces_open(&pieces, text, n_bytes));
    for (size_t i = 0; i < clip_pieces_count(pieces); i++) {
        clip_pieces_get(pieces, i, &n);
        longest = n > longest ? n : longest;
    }
    symbols = malloc(longest * sizeof(*symbols) + 1);
    if (symbols == NULL) {
        st = err_set(ST_NO_MEMORY, "clip tokenizer: a word of %zu bytes", longest);
        goto fail;
    }
    for (size_t i = 0; i < clip_pieces_count(pieces); i++) {
        const char *piece = clip_pieces_get(pieces, i, &n);
        TRY(encode_piece(t, ids, piece, n, symbols));
    }
fail:
    free(symbols);
    clip_pieces_close(pieces);
    return st;
}

/* The bytes that a token stands for, to at, start being where the text begins; returns where they end. At most two
 * more than the name has. */
static char *put_token(const clip_tokenizer *t, const char *start, char *at, int32_t id)
{
    const char *name = t->vocab->names[id] != NULL ? t->vocab->names[id] : "";
    size_t n = strlen(name);
    if (t->kinds[id] == NAME_ADDED && at > start && at[-1] != ' ') *at++ = ' ';
    if (t->kinds[id] != NAME_PIECE) {
        memcpy(at, name, n);
        at += n;
        if (t->kinds[id] == NAME_ADDED) *at++ = ' ';
        return at;
    }
    bool ends_word = n > WORD_END && strcmp(name + n - WORD_END, "</w>") == 0;
    if (ends_word) n -= WORD_END;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c = -1;
        utf8proc_ssize_t taken = utf8proc_iterate((const utf8proc_uint8_t *)name + i, (utf8proc_ssize_t)(n - i), &c);
        if (taken <= 0) break;
        if (c < 0x200 && t->byte_of[c] >= 0) {
            *at++ = (char)t->byte_of[c];
        } else {
            memcpy(at, name + i, (size_t)taken);
            at += taken;
        }
        i += (size_t)taken;
    }
    if (ends_word) *at++ = ' ';
    return at;
}

/* Tokens back to text, as the reference's decode: a char whose first bytes are in an earlier token becomes U+FFFD. */
static status decode(const clip_tokenizer *t, char **out, const int32_t *ids, size_t n_ids)
{
    size_t n_bytes = 0, n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        const char *name = t->vocab->names[ids[i]];
        n_bytes += (name != NULL ? strlen(name) : 0) + 2;
    }
    char *bytes = malloc(n_bytes + 1), *end = bytes;
    char *text = malloc(3 * n_bytes + 1); /* U+FFFD takes three bytes */
    if (bytes == NULL || text == NULL) {
        free(bytes);
        free(text);
        return err_set(ST_NO_MEMORY, "clip tokenizer: %zu bytes of text", n_bytes);
    }
    for (size_t i = 0; i < n_ids; i++) end = put_token(t, bytes, end, ids[i]);
    while (end > bytes && end[-1] == ' ') end--;
    for (const char *at = bytes; at < end;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t taken = utf8proc_iterate((const utf8proc_uint8_t *)at, end - at, &c);
        n += (size_t)utf8proc_encode_char(taken > 0 ? c : 0xfffd, (utf8proc_uint8_t *)text + n);
        at += taken > 0 ? taken : 1;
    }
    text[n] = '\0';
    free(bytes);
    *out = text;
    return ST_OK;
}

static status encode_all(const clip_tokenizer *t, id_list *ids, const char *text, size_t n_bytes)
{
    status st = ST_OK;
    segments list = {0};
    TRY(cut_at_added(t, &list, text, n_bytes));
    TRY(settle_added(t, &list));
    for (size_t i = 0; i < list.n; i++) {
        const clip_added_token *token = added_of(t, &list.at[i]);
        TRY(token != NULL ? ids_push(ids, token->id) : encode_text(t, ids, list.at[i].text, list.at[i].n));
    }
fail:
    for (size_t i = 0; i < list.n; i++) free(list.at[i].owned);
    free(list.at);
    return st;
}

status clip_tokenizer_encode(const clip_tokenizer *t, const char *text, int max_length, int32_t *ids, int *n_used,
                             char **lost)
{
    status st = ST_OK;
    id_list all = {0};
    char *rest = NULL;
    size_t n_bytes = strlen(text);
    if (max_length < 2) return err_set(ST_BAD_JOB, "clip tokenizer: max_length: got %d, want at least 2", max_length);
    if (n_bytes > TEXT_MAX_BYTES) {
        return err_set(ST_BAD_JOB, "a prompt of %zu bytes, want at most %d", n_bytes, (int)TEXT_MAX_BYTES);
    }
    TRY(encode_all(t, &all, text, n_bytes));
    size_t room = (size_t)max_length - 2, n = all.n < room ? all.n : room;
    if (all.n > n) TRY(decode(t, &rest, all.at + n, all.n - n));
    ids[0] = t->vocab->bos;
    if (n > 0) memcpy(ids + 1, all.at, n * sizeof(*ids));
    ids[n + 1] = t->vocab->eos;
    for (size_t i = n + 2; i < (size_t)max_length; i++) ids[i] = t->vocab->pad;
    *n_used = (int)n + 2;
    *lost = rest;
fail:
    free(all.at);
    return st;
}
