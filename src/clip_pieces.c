#include "clip_pieces.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct clip_pieces {
    uint8_t *bytes; /* all pieces, one behind the other */
    size_t *ends;   /* [n], in bytes */
    size_t n;
};

/* Code points; every step below reads one of these and appends to the next. */
typedef struct {
    int32_t *chars;
    size_t n;
} chars;

/* After str.lower a word has at most two chars for one; NFC may take up to four in between. */
enum { DECOMPOSED_MAX = 4, LOWER_MAX = 2, UTF8_MAX = 4 };

static status chars_reserve(chars *c, size_t n)
{
    c->n = 0;
    c->chars = malloc((n + 1) * sizeof(*c->chars));
    return c->chars != NULL ? ST_OK : err_set(ST_NO_MEMORY, "clip_pieces: %zu chars", n);
}

bool clip_is_space(int32_t c)
{
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0x2028 || c == 0x2029) return true;
    return c >= 0x80 && utf8proc_category(c) == UTF8PROC_CATEGORY_ZS;
}

static bool is_cjk_ideograph(int32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_control(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO ||
           category == UTF8PROC_CATEGORY_CS || category == UTF8PROC_CATEGORY_CN;
}

/* Controls, private use and unassigned chars vanish, all spaces become U+0020, ideographs stand alone. */
static status clean(chars *out, const char *text, size_t n_bytes)
{
    status st = chars_reserve(out, n_bytes); /* an ideograph has three bytes or more and becomes three chars */
    for (size_t i = 0; st == ST_OK && i < n_bytes;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t taken =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n_bytes - i), &c);
        i += taken > 0 ? (size_t)taken : 1;
        if (taken <= 0 || c == 0 || c == 0xfffd) continue;
        if (c == '\t' || c == '\n' || c == '\r') c = ' ';
        if (is_control(c)) continue;
        if (utf8proc_category(c) == UTF8PROC_CATEGORY_ZS) c = ' ';
        bool alone = is_cjk_ideograph(c);
        if (alone) out->chars[out->n++] = ' ';
        out->chars[out->n++] = c;
        if (alone) out->chars[out->n++] = ' ';
    }
    return st;
}

static int by_value(const void *va, const void *vb)
{
    uint64_t a = *(const uint64_t *)va, b = *(const uint64_t *)vb;
    return a < b ? -1 : a > b;
}

/* A run of marks into canonical order: by combining class, equal ones as they stood. Marks of a hostile prompt can be
 * a million in one run, hence no insertion sort (which utf8proc_decompose has). */
static status order_marks(int32_t *marks, size_t n)
{
    uint64_t *keys = NULL; /* class, place, char: 8, 32 and 24 bits */
    int last = 0;
    bool in_order = true;
    for (size_t i = 0; i < n; i++) {
        int class = utf8proc_get_property(marks[i])->combining_class;
        if (class < last) in_order = false;
        last = class;
    }
    if (in_order) return ST_OK;
    keys = malloc(n * sizeof(*keys));
    if (keys == NULL) return err_set(ST_NO_MEMORY, "clip_pieces: %zu combining marks", n);
    for (size_t i = 0; i < n; i++) {
        uint64_t class = (uint64_t)utf8proc_get_property(marks[i])->combining_class;
        keys[i] = class << 56 | (uint64_t)i << 24 | (uint64_t)marks[i];
    }
    qsort(keys, n, sizeof(*keys), by_value);
    for (size_t i = 0; i < n; i++) marks[i] = (int32_t)(keys[i] & 0xffffff);
    free(keys);
    return ST_OK;
}

/* in -> NFC. Frees in's chars. */
static status compose(chars *out, chars *in)
{
    status st = ST_OK;
    int32_t highest = 0;
    for (size_t i = 0; i < in->n; i++) highest = in->chars[i] > highest ? in->chars[i] : highest;
    if (highest < 0x300) { /* nothing below the first combining mark composes */
        *out = *in;
        in->chars = NULL;
        return ST_OK;
    }
    TRY(chars_reserve(out, in->n * DECOMPOSED_MAX));
    for (size_t i = 0; i < in->n; i++) {
        int boundary = 0;
        out->n += (size_t)utf8proc_decompose_char(in->chars[i], out->chars + out->n, DECOMPOSED_MAX,
                                                  UTF8PROC_DECOMPOSE, &boundary);
    }
    for (size_t i = 0; i < out->n;) {
        size_t start = i;
        while (i < out->n && utf8proc_get_property(out->chars[i])->combining_class != 0) i++;
        TRY(order_marks(out->chars + start, i - start));
        if (i == start) i++;
    }
    out->n = (size_t)utf8proc_normalize_utf32(out->chars, (utf8proc_ssize_t)out->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
fail:
    free(in->chars);
    in->chars = NULL;
    return st;
}

/* Unicode's Case_Ignorable: marks, formats and modifiers, and the signs that stand inside words. */
static bool is_case_ignorable(int32_t c)
{
    static const int32_t inside_words[] = {0x27,   0x2e,   0x3a,   0xb7,   0x387,  0x55f,  0x5f4,  0x2018, 0x2019,
                                           0x2024, 0x2027, 0xfe13, 0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: break;
    }
    for (size_t i = 0; i < sizeof(inside_words) / sizeof(inside_words[0]); i++) {
        if (c == inside_words[i]) return true;
    }
    return false;
}

/* Unicode's Cased, for chars that are not case-ignorable: letters with a case, ordinal signs, Roman numerals, letters
 * in circles and squares. */
static bool is_cased(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT: return true;
    default: break;
    }
    return c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
}

/* Whether the capital sigma at place ends its word: a cased char before it and none after, ignorable ones aside. */
static bool is_final_sigma(const int32_t *word, size_t n, size_t place)
{
    size_t before = place, after = place + 1;
    while (before > 0 && is_case_ignorable(word[before - 1])) before--;
    if (before == 0 || !is_cased(word[before - 1])) return false;
    while (after < n && is_case_ignorable(word[after])) after++;
    return after == n || !is_cased(word[after]);
}

/* Python's str.lower of one word, appended to out. Two rules of Unicode's SpecialCasing matter: the final sigma, and
 * U+0130, the capital i with a dot, which becomes i and a combining dot. */
static void lower(chars *out, const int32_t *word, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (word[i] == 0x3a3) {
            out->chars[out->n++] = is_final_sigma(word, n, i) ? 0x3c2 : 0x3c3;
        } else if (word[i] == 0x130) {
            out->chars[out->n++] = 'i';
            out->chars[out->n++] = 0x307;
        } else {
            out->chars[out->n++] = utf8proc_tolower(word[i]);
        }
    }
}

typedef enum { KIND_LETTER, KIND_NUMBER, KIND_SIGN, KIND_NONE } char_kind;

static char_kind kind_of(int32_t c)
{
    /* Ignoring case, the reference's regex takes U+0345, a mark whose capital is a letter, for none of the three. */
    if (c == ' ' || c == 0x345) return KIND_NONE;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return KIND_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return KIND_NUMBER;
    default: return KIND_SIGN;
    }
}

/* The length of literal when the n chars begin with it, else 0. Text is in lower case already; ignoring case also
 * makes U+017F, the long s, an s. */
static size_t match(const int32_t *text, size_t n, const char *literal)
{
    size_t i = 0;
    for (; literal[i] != '\0'; i++) {
        if (i == n) return 0;
        if (text[i] != literal[i] && !(text[i] == 0x17f && literal[i] == 's')) return 0;
    }
    return i;
}

/* The reference's pattern: <|startoftext|> | <|endoftext|> | 's | 't | 're | 've | 'm | 'll | 'd | letters+ | number |
 * (no space, letter or number)+. Length of the piece at the front of text; 0 when nothing matches. */
static size_t piece_length(const int32_t *text, size_t n)
{
    static const char *const literals[] = {"<|startoftext|>", "<|endoftext|>", "'s",  "'t", "'re",
                                           "'ve",             "'m",            "'ll", "'d"};
    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        size_t length = match(text, n, literals[i]);
        if (length > 0) return length;
    }
    char_kind kind = kind_of(text[0]);
    if (kind == KIND_NONE) return 0;
    size_t length = 1;
    while (kind != KIND_NUMBER && length < n && kind_of(text[length]) == kind) length++;
    return length;
}

/* text: words in lower case with spaces between. */
static status split(clip_pieces *p, const chars *text)
{
    p->bytes = malloc(text->n * UTF8_MAX + 1);
    p->ends = malloc((text->n + 1) * sizeof(*p->ends));
    if (p->bytes == NULL || p->ends == NULL) return err_set(ST_NO_MEMORY, "clip_pieces: %zu chars", text->n);
    size_t n_bytes = 0;
    for (size_t i = 0; i < text->n;) {
        size_t length = piece_length(text->chars + i, text->n - i);
        if (length == 0) {
            i++;
            continue;
        }
        for (size_t end = i + length; i < end; i++) {
            n_bytes += (size_t)utf8proc_encode_char(text->chars[i], p->bytes + n_bytes);
        }
        p->ends[p->n++] = n_bytes;
    }
    return ST_OK;
}

/* Words of in, in lower case, with single spaces between. */
static status lower_words(chars *out, const chars *in)
{
    status st = chars_reserve(out, in->n * LOWER_MAX);
    for (size_t i = 0; st == ST_OK && i < in->n;) {
        size_t start = i;
        while (i < in->n && !clip_is_space(in->chars[i])) i++;
        lower(out, in->chars + start, i - start);
        if (i < in->n) out->chars[out->n++] = ' ';
        while (i < in->n && clip_is_space(in->chars[i])) i++;
    }
    return st;
}

status clip_pieces_open(clip_pieces **out, const char *text, size_t n_bytes)
{
    status st = ST_OK;
    chars cleaned = {0}, composed = {0}, lowered = {0};
    clip_pieces *p = calloc(1, sizeof(*p));
    if (p == NULL) return err_set(ST_NO_MEMORY, "clip_pieces: %zu bytes", sizeof(*p));
    TRY(clean(&cleaned, text, n_bytes));
    TRY(compose(&composed, &cleaned));
    TRY(lower_words(&lowered, &composed));
    TRY(split(p, &lowered));
    *out = p;
    p = NULL;
fail:
    clip_pieces_close(p);
    free(lowered.chars);
    free(composed.chars);
    free(cleaned.chars);
    return st;
}

void clip_pieces_close(clip_pieces *p)
{
    if (p == NULL) return;
    free(p->ends);
    free(p->bytes);
    free(p);
}

size_t clip_pieces_count(const clip_pieces *p)
{
    return p->n;
}

const char *clip_pieces_get(const clip_pieces *p, size_t i, size_t *n_bytes)
{
    size_t start = i > 0 ? p->ends[i - 1] : 0;
    *n_bytes = p->ends[i] - start;
    return (const char *)p->bytes + start;
}
