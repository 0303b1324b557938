/* The file is a protobuf message (sentencepiece_model.proto). Of its fields two matter here: 1, a piece, many times,
 * and 3, the normaliser, written after all pieces; of the normaliser's fields 2, the table:
 *
 *   u32 bytes of the trie | trie, u32 units, little-endian | replacements, each ended by a NUL
 *
 * The trie is a double array (spec/flux.md 8.2): from place p, byte b leads to unit p ^ b if that carries the label b,
 * and on to p ^ b ^ offset(unit); if the unit has a leaf, the unit there holds the start of a replacement. */
#include "spiece_check.h"

#include <stdbool.h>
#include <stdlib.h>

#include "file_kind.h"

enum { FIELD_PIECE = 1, FIELD_NORMALISER = 3, FIELD_TABLE = 2 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct {
    const uint8_t *bytes;
    size_t n, at;
} reader;

typedef struct {
    uint64_t number;
    reader content; /* empty unless the field is bytes */
} field;

static bool read_varint(reader *r, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->at == r->n) return false;
        uint8_t byte = r->bytes[r->at++];
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* The next field; false when the message is malformed or ends inside it. */
static bool read_field(reader *r, field *f)
{
    uint64_t tag, length = 0;
    if (!read_varint(r, &tag)) return false;
    *f = (field){.number = tag >> 3};
    switch (tag & 7) {
    case WIRE_VARINT: return read_varint(r, &length);
    case WIRE_64: length = 8; break;
    case WIRE_32: length = 4; break;
    case WIRE_BYTES:
        if (!read_varint(r, &length)) return false;
        break;
    default: return false;
    }
    if (length > r->n - r->at) return false;
    if ((tag & 7) == WIRE_BYTES) f->content = (reader){.bytes = r->bytes + r->at, .n = (size_t)length};
    r->at += (size_t)length;
    return true;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200u) >> 6);
}

/* Whether every walk over the trie, whatever the text, stays inside it and ends inside the replacements. places: room
 * for n_units; seen: [n_units], false. */
static bool trie_is_sound(const uint8_t *trie, uint32_t n_units, size_t n_replacements, uint32_t *places, bool *seen)
{
    size_t n_places = 0;
    if (n_units == 0) return false;
    places[n_places++] = offset_of(read_u32(trie));
    while (n_places > 0) {
        uint32_t place = places[--n_places];
        if ((place | 0xffu) >= n_units) return false;
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t unit = read_u32(trie + 4 * (size_t)(place ^ byte));
            if ((unit & 0x800000ffu) != byte) continue;
            uint32_t next = place ^ byte ^ offset_of(unit);
            if (next >= n_units) return false;
            bool has_leaf = (unit & 0x100u) != 0;
            if (has_leaf && (read_u32(trie + 4 * (size_t)next) & 0x7fffffffu) >= n_replacements) return false;
            if (!seen[next]) places[n_places++] = next;
            seen[next] = true;
        }
    }
    return true;
}

static status check_table(const reader *table, const char *path)
{
    status st = ST_OK;
    if (table->n == 0) return ST_OK; /* a model that normalises nothing */
    size_t trie_bytes = table->n >= 4 ? read_u32(table->bytes) : 0;
    if (table->n < 4 || trie_bytes % 4 != 0 || trie_bytes > table->n - 4 || table->bytes[table->n - 1] != 0) {
        return err_set(ST_BAD_MODEL, "%s: normalisation table of %zu bytes is damaged (trie of %zu bytes)", path,
                       table->n, trie_bytes);
    }
    uint32_t n_units = (uint32_t)(trie_bytes / 4);
    uint32_t *places = malloc(((size_t)n_units + 1) * sizeof(*places));
    bool *seen = calloc((size_t)n_units + 1, sizeof(*seen));
    if (places == NULL || seen == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: a trie of %zu bytes", path, trie_bytes);
    } else if (!trie_is_sound(table->bytes + 4, n_units, table->n - 4 - trie_bytes, places, seen)) {
        st = err_set(ST_BAD_MODEL, "%s: the trie of the normalisation table is damaged", path);
    }
    free(seen);
    free(places);
    return st;
}

static status check_normaliser(reader normaliser, const char *path)
{
    status st = ST_OK;
    while (st == ST_OK && normaliser.at < normaliser.n) {
        field f;
        if (!read_field(&normaliser, &f)) return err_set(ST_BAD_MODEL, "%s: the normaliser is damaged", path);
        if (f.number == FIELD_TABLE) st = check_table(&f.content, path);
    }
    return st;
}

status spiece_check(const uint8_t *bytes, size_t n, const char *path)
{
    status st = ST_OK;
    reader model = {.bytes = bytes, .n = n};
    size_t n_pieces = 0;
    bool has_normaliser = false;
    const char *kind = file_kind(bytes, n);
    if (kind != NULL) return err_set(ST_BAD_MODEL, "%s: this is %s", path, kind);
    while (st == ST_OK && model.at < model.n) {
        field f;
        if (!read_field(&model, &f)) {
            return err_set(ST_BAD_MODEL, "%s: no valid SentencePiece model: damaged or cut off at byte %zu of %zu",
                           path, model.at, n);
        }
        n_pieces += f.number == FIELD_PIECE;
        if (f.number != FIELD_NORMALISER) continue;
        has_normaliser = true;
        st = check_normaliser(f.content, path);
    }
    if (st == ST_OK && (n_pieces == 0 || !has_normaliser)) {
        st = err_set(ST_BAD_MODEL, "%s: no valid SentencePiece model: %zu pieces, %s normaliser (cut off at byte %zu?)",
                     path, n_pieces, has_normaliser ? "a" : "no", n);
    }
    return st;
}
