#include "png_reader.h"

#include <errno.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOTE_BYTES_MAX = 16 << 20, SIDE_MAX = 1 << 20 };

typedef struct png_reader {
    png_structp png;
    png_infop   info;
    FILE       *file;
    sha256     *hash;
    png_byte   *row;
    const char *path;
    status      bad, failed;
    char        message[256];
} png_reader;

static void on_error(png_structp png, png_const_charp text)
{
    png_reader *r = png_get_error_ptr(png);
    snprintf(r->message, sizeof(r->message), "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png, (void)text;
}

/* Texts of a PNG stand before or behind its pixels; ours before. */
static status take_note(png_facts *f, const png_reader *r, const char *key)
{
    png_textp texts = NULL;
    int       n = 0;
    png_get_text(r->png, r->info, &texts, &n);
    for (int i = 0; i < n && f->note == NULL; i++)
        if (strcmp(texts[i].key, key) == 0 && (f->note = strdup(texts[i].text)) == NULL)
            return err_set(ST_NO_MEMORY, "%s: no memory for its text", r->path);
    return ST_OK;
}

static status read_head(png_facts *f, png_reader *r, const char *key)
{
    if (setjmp(png_jmpbuf(r->png)) != 0) return err_set(r->bad, "%s: %s", r->path, r->message);
    png_init_io(r->png, r->file);
    png_set_user_limits(r->png, SIDE_MAX, SIDE_MAX);
    png_set_chunk_malloc_max(r->png, NOTE_BYTES_MAX);
    png_set_benign_errors(r->png, false); /* a chunk past the limits is among what libpng would only warn of, and allocate */
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(r->png, r->info);
    f->width = (int32_t)png_get_image_width(r->png, r->info);
    f->height = (int32_t)png_get_image_height(r->png, r->info);
    if (png_get_color_type(r->png, r->info) != PNG_COLOR_TYPE_RGB || png_get_bit_depth(r->png, r->info) != 8 ||
        png_get_interlace_type(r->png, r->info) != PNG_INTERLACE_NONE)
        return err_set(r->bad, "%s: no 8-bit RGB picture in rows", r->path);
    return take_note(f, r, key);
}

/* To the hash, or to a taker. libpng jumps back here. */
static status read_rows(const png_facts *f, png_reader *r, const png_taker *taker)
{
    const size_t row_bytes = (size_t)f->width * 3;
    r->row = malloc(row_bytes);
    if (r->row == NULL) return err_set(ST_NO_MEMORY, "%s: a row of %zu bytes", r->path, row_bytes);
    if (setjmp(png_jmpbuf(r->png)) != 0) return err_set(r->bad, "%s: %s", r->path, r->message);
    for (int32_t y = 0; y < f->height && r->failed == ST_OK; y++) {
        png_read_row(r->png, r->row, NULL);
        if (taker != NULL)
            taker->row(taker->context, r->row);
        else
            r->failed = sha256_add(r->hash, r->row, row_bytes);
    }
    if (r->failed == ST_OK) png_read_end(r->png, NULL);
    return r->failed;
}

static status hash_rows(png_facts *f, png_reader *r)
{
    status st = ST_OK;
    TRY(sha256_open(&r->hash));
    TRY(read_rows(f, r, NULL));
    st = sha256_finish(r->hash, f->pixels_sha256);
    r->hash = NULL;
fail:
    return st;
}

static status open_reader(png_reader *r, const char *path, status bad)
{
    *r = (png_reader){.path = path, .bad = bad, .file = fopen(path, "rbe")};
    if (r->file == NULL) return err_set(bad, "%s: %s", path, strerror(errno));
    r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_error, on_warning);
    if (r->png != NULL) r->info = png_create_info_struct(r->png);
    return r->info != NULL ? ST_OK : err_set(ST_NO_MEMORY, "%s: libpng does not start", path);
}

static void close_reader(png_reader *r)
{
    free(r->row);
    sha256_close(r->hash);
    if (r->png != NULL) png_destroy_read_struct(&r->png, &r->info, NULL);
    if (r->file != NULL) fclose(r->file);
}

status png_reader_read(png_facts *out, const char *path, const char *key, int head_only, status bad)
{
    status     st = ST_OK;
    png_facts  f = {0};
    png_reader r;
    TRY(open_reader(&r, path, bad));
    TRY(read_head(&f, &r, key));
    if (!head_only) TRY(hash_rows(&f, &r));
    *out = f;
    f.note = NULL;
fail:
    free(f.note);
    close_reader(&r);
    return st;
}

status png_reader_take(const char *path, const png_taker *taker, status bad)
{
    status     st = ST_OK;
    png_facts  f = {0};
    png_reader r;
    TRY(open_reader(&r, path, bad));
    TRY(read_head(&f, &r, ""));
    TRY(taker->begin(taker->context, f.width, f.height));
    TRY(read_rows(&f, &r, taker));
fail:
    free(f.note);
    close_reader(&r);
    return st;
}
