/* A finished picture. Accepted: the rows that a taker gets are those whose checksum is told. */
#include "fuzz.h"

#include <string.h>
#include <zlib.h>

#include "png_reader.h"
#include "png_writer.h"

enum { SIGN = 8, CHUNK = 12 /* length, name, checksum */ };

static const char PATH[] = "a.png";

typedef struct taken {
    sha256 *hash;
    size_t  row_bytes;
    int32_t rows;
} taken;

static status begin(void *context, int32_t width, int32_t height)
{
    taken *t = context;
    (void)height;
    t->row_bytes = (size_t)width * 3;
    return sha256_open(&t->hash);
}

static void take_row(void *context, const uint8_t *rgb)
{
    taken *t = context;
    FUZZ_EXPECT(sha256_add(t->hash, rgb, t->row_bytes) == ST_OK);
    t->rows++;
}

static status read_png(const uint8_t *data, size_t n)
{
    png_facts whole = {0}, head = {0};
    taken     t = {0};
    char      sha[SHA256_HEX];
    (void)data, (void)n;
    status st = png_reader_read(&whole, fuzz_path(PATH), "dype-dist", false, ST_BAD_JOB);
    if (st != ST_OK) {
        FUZZ_EXPECT(whole.note == NULL);
        return st;
    }
    FUZZ_EXPECT(whole.width >= 1 && whole.height >= 1 && strlen(whole.pixels_sha256) == SHA256_HEX - 1);
    FUZZ_EXPECT(png_reader_take(fuzz_path(PATH), &(png_taker){.context = &t, .begin = begin, .row = take_row}, ST_BAD_JOB) == ST_OK);
    FUZZ_EXPECT(sha256_finish(t.hash, sha) == ST_OK && strcmp(sha, whole.pixels_sha256) == 0 && t.rows == whole.height);
    FUZZ_EXPECT(png_reader_read(&head, fuzz_path(PATH), "dype-dist", true, ST_BAD_JOB) == ST_OK);
    FUZZ_EXPECT(head.width == whole.width && (head.note == NULL) == (whole.note == NULL));
    free(head.note);
    free(whole.note);
    return ST_OK;
}

static void make_seed(const char *key, const char *text)
{
    png_writer    *w = NULL;
    uint8_t        rows[2 * 4 * 3];
    const png_note note = {key, text};
    for (size_t i = 0; i < sizeof(rows); i++) rows[i] = (uint8_t)(i * 37);
    FUZZ_EXPECT(png_writer_open(&w, &(png_writer_opts){.path = fuzz_path(PATH), .width = 4, .height = 2, .notes = &note,
                                                       .n_notes = 1, .overwrite = true}) == ST_OK);
    FUZZ_EXPECT(png_writer_rows(w, 2, rows) == ST_OK && png_writer_commit(w) == ST_OK);
    fuzz_seed_files();
}

static void make_seeds(void)
{
    make_seed("dype-dist", "{\"seed\":\"7\"}");
    make_seed("dype-dist", "{\"prompt\":\"caf\xc3\xa9\"}"); /* iTXt */
    make_seed("Comment", "of another program");
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static void put_u32(uint8_t *at, uint32_t x)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* Every chunk that fits; the last one is made to fit. */
static size_t set_checksums(uint8_t *data, size_t n, size_t room)
{
    (void)room;
    for (size_t at = SIGN; at + CHUNK <= n;) {
        if (get_u32(data + at) > n - at - CHUNK) put_u32(data + at, (uint32_t)(n - at - CHUNK));
        const uint32_t length = get_u32(data + at);
        put_u32(data + at + 8 + length, (uint32_t)crc32(0, data + at + 4, length + 4));
        at += CHUNK + length;
    }
    return n;
}

const fuzz_target target = {.files = {PATH}, .bad = ST_BAD_JOB, .read = read_png, .seeds = make_seeds, .repair = set_checksums};
