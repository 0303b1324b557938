#include "png_writer.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic_file.h"

enum { COMPRESSION_LEVEL = 2, MAX_KEPT = 100000 };

struct png_writer {
    char        *path;
    atomic_file *file;
    png_structp  png;
    png_infop    info;
    int32_t      width, height, row;
    bool         overwrite;
    status       failed; /* of the file; ST_OK: the failure is libpng's own */
    char         message[256];
};

static void on_error(png_structp png, png_const_charp text)
{
    png_writer *w = png_get_error_ptr(png);
    snprintf(w->message, sizeof(w->message), "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png, (void)text;
}

static void on_write(png_structp png, png_bytep data, size_t bytes)
{
    png_writer *w = png_get_io_ptr(png);
    if (w->file == NULL) return; /* nobody wants it */
    w->failed = atomic_file_write(w->file, data, bytes);
    if (w->failed != ST_OK) png_error(png, "write failed");
}

static void on_flush(png_structp png)
{
    (void)png; /* atomic_file_commit does */
}

/* After libpng has jumped back: the file's own message stands where the file failed. */
static status failure(const png_writer *w)
{
    return w->failed != ST_OK ? w->failed : err_set(ST_OUTPUT, "%s: %s", w->path, w->message);
}

static void close_writer(png_writer *w)
{
    if (w->png != NULL) png_destroy_write_struct(&w->png, &w->info);
    atomic_file_close(w->file);
    free(w->path);
    free(w);
}

static bool is_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text >= 0x80) return false;
    return true;
}

/* Everything before the first row; libpng jumps back here on failure. */
static status write_head(png_writer *w, const png_writer_opts *opts)
{
    png_text *texts = calloc(opts->n_notes + 1, sizeof(*texts));
    if (texts == NULL) return err_set(ST_NO_MEMORY, "%s: no memory for its notes", w->path);
    for (size_t i = 0; i < opts->n_notes; i++) {
        const png_note *note = &opts->notes[i];
        texts[i].compression = is_ascii(note->text) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        memcpy(&texts[i].key, &note->key, sizeof(note->key)); /* libpng reads them only */
        memcpy(&texts[i].text, &note->text, sizeof(note->text));
    }
    if (setjmp(png_jmpbuf(w->png)) != 0) {
        free(texts);
        return failure(w);
    }
    png_set_write_fn(w->png, w, on_write, on_flush);
    png_set_user_limits(w->png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(w->png, w->info, (png_uint_32)w->width, (png_uint_32)w->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB_gAMA_and_cHRM(w->png, w->info, PNG_sRGB_INTENT_PERCEPTUAL);
    png_set_compression_level(w->png, COMPRESSION_LEVEL);
    png_set_filter(w->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
    if (opts->n_notes > 0) png_set_text(w->png, w->info, texts, (int)opts->n_notes);
    png_write_info(w->png, w->info);
    free(texts);
    return ST_OK;
}

status png_writer_open(png_writer **out, const png_writer_opts *opts)
{
    status      st = ST_OK;
    png_writer *w = calloc(1, sizeof(*w));
    const char *path = opts->path != NULL ? opts->path : "PNG";
    if (w == NULL) return err_set(ST_NO_MEMORY, "%s: no memory to write it", path);
    w->width = opts->width;
    w->height = opts->height;
    w->overwrite = opts->overwrite;
    w->path = strdup(path);
    if (w->path == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: no memory to write it", path);
        goto fail;
    }
    if (opts->path != NULL) TRY(atomic_file_open(&w->file, w->path));
    w->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, w, on_error, on_warning);
    if (w->png != NULL) w->info = png_create_info_struct(w->png);
    if (w->info == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: libpng does not start", path);
        goto fail;
    }
    TRY(write_head(w, opts));
    *out = w;
    return ST_OK;
fail:
    png_writer_abandon(w);
    return st;
}

status png_writer_rows(png_writer *w, int32_t n_rows, const uint8_t *rgb)
{
    if (setjmp(png_jmpbuf(w->png)) != 0) return failure(w);
    for (int32_t i = 0; i < n_rows; i++) png_write_row(w->png, rgb + (size_t)i * (size_t)w->width * 3);
    w->row += n_rows;
    return ST_OK;
}

static status write_end(png_writer *w)
{
    if (setjmp(png_jmpbuf(w->png)) != 0) return failure(w);
    png_write_end(w->png, NULL);
    return ST_OK;
}

/* Where links are refused (a file system without them, a file of another user): claims the name, then moves the old file
 * over the claim. For a moment no file has the picture's name. */
static int move_without_link(const char *path, const char *kept)
{
    int fd = open(kept, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return errno;
    close(fd);
    if (rename(path, kept) == 0) return 0;
    int error = errno;
    unlink(kept);
    return error;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A file that has the name already becomes NAME.N.png, with the first N that is free. Neither way replaces a file. A run
 * that was killed between this and the rename has kept it already. */
static status keep_old(const char *path)
{
    size_t stem = strlen(path) - strlen(".png");
    for (long n = 1; n < MAX_KEPT; n++) {
        char *kept = NULL;
        if (asprintf(&kept, "%.*s.%ld.png", (int)stem, path, n) < 0)
            return err_set(ST_NO_MEMORY, "%s: no memory for the kept file's name", path);
        int error = link(path, kept) == 0 ? 0 : errno;
        if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK)
            error = move_without_link(path, kept);
        if (error == EEXIST && is_same_file(path, kept)) error = 0;
        free(kept);
        if (error == 0 || error == ENOENT) return ST_OK;
        if (error != EEXIST) return err_set(ST_OUTPUT, "%s: cannot keep the old file: %s", path, strerror(error));
    }
    return err_set(ST_OUTPUT, "%s: %d old files are kept already", path, MAX_KEPT);
}

status png_writer_commit(png_writer *w)
{
    status st = ST_OK;
    if (w->row != w->height) {
        st = err_set(ST_OUTPUT, "%s: got %d rows, want %d", w->path, w->row, w->height);
        goto fail;
    }
    TRY(write_end(w));
    if (w->file != NULL) {
        if (!w->overwrite) TRY(keep_old(w->path));
        TRY(atomic_file_commit(w->file));
    }
    close_writer(w);
    return ST_OK;
fail:
    png_writer_abandon(w);
    return st;
}

void png_writer_abandon(png_writer *w)
{
    if (w != NULL) close_writer(w);
}
