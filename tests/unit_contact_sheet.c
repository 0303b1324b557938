/* Thumbnails are means of areas; the sheet shows pictures in the order of the job, with labels, and empty tiles for those that
 * are not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "contact_sheet.h"
#include "label_font.h"
#include "png_writer.h"
#include "tempdir.h"
#include "thumbnail.h"

static char dir[TEMPDIR_PATH];
static int  n_warnings;

static void hear(void *context, report_kind kind, const char *text)
{
    (void)context, (void)text;
    if (kind == REPORT_WARNING) n_warnings++;
}

/* 3 x 3 to 2 x 2: each pixel is 1.5 x 1.5 px. With 0 30 60 / 90 120 150 / 180 210 240 the first is
 * (0 + 30/2 + 90/2 + 120/4) / 2.25 = 40, then (30/2 + 60 + 120/4 + 150/2) / 2.25 = 80, 160 and 200. */
static void means_of_areas(void **state)
{
    static const uint8_t source[9] = {0, 30, 60, 90, 120, 150, 180, 210, 240}, want[4] = {40, 80, 160, 200};
    thumbnail           *t = NULL;
    (void)state;
    assert_int_equal(thumbnail_open(&t, 3, 3, 2, 2), ST_OK);
    for (int y = 0; y < 3; y++) {
        uint8_t row[9];
        for (int x = 0; x < 3; x++) row[3 * x] = source[3 * y + x], row[3 * x + 1] = 255, row[3 * x + 2] = (uint8_t)(7 * x);
        thumbnail_row(t, row);
    }
    for (int y = 0; y < 2; y++) {
        uint8_t got[6];
        thumbnail_get(t, y, got);
        for (int x = 0; x < 2; x++) {
            assert_int_equal(got[3 * x], want[2 * y + x]);
            assert_int_equal(got[3 * x + 1], 255);
            assert_int_equal(got[3 * x + 2], x == 0 ? 2 : 12); /* 7/3 and 35/3, to the nearest */
        }
    }
    thumbnail_close(t);
}

/* Any size to any smaller one: a flat picture stays flat, and the mean of all stays. */
static void no_area_is_lost(void **state)
{
    static const int sizes[][4] = {{1, 1, 1, 1}, {17, 5, 17, 5}, {640, 480, 320, 240}, {1000, 37, 320, 12}, {7, 1000, 2, 320}};
    (void)state;
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const int  width = sizes[k][0], height = sizes[k][1], w = sizes[k][2], h = sizes[k][3];
        double     mean = 0, got_mean = 0;
        thumbnail *t = NULL;
        uint8_t   *row = malloc((size_t)width * 3), *got = malloc((size_t)w * 3);
        assert_non_null(row);
        assert_non_null(got);
        assert_int_equal(thumbnail_open(&t, width, height, w, h), ST_OK);
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                row[3 * x] = 201, row[3 * x + 1] = 0, row[3 * x + 2] = (uint8_t)((x * 31 + y * 17) % 256);
                mean += row[3 * x + 2] / ((double)width * height);
            }
            thumbnail_row(t, row);
        }
        for (int y = 0; y < h; y++) {
            thumbnail_get(t, y, got);
            for (int x = 0; x < w; x++) {
                assert_int_equal(got[3 * x], 201);
                assert_int_equal(got[3 * x + 1], 0);
                got_mean += got[3 * x + 2] / ((double)w * h);
            }
        }
        if (got_mean < mean - 0.6 || got_mean > mean + 0.6) fail_msg("case %zu: mean %g, want %g", k, got_mean, mean);
        thumbnail_close(t);
        free(row);
        free(got);
    }
}

static void every_character_of_a_name_has_its_own_shape(void **state)
{
    static const char names[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    (void)state;
    for (size_t i = 0; i < strlen(names); i++) {
        int ink = 0;
        for (int row = 0; row < LABEL_GLYPH_H; row++) {
            assert_true(label_glyph(names[i])[row] < 32);
            ink += label_glyph(names[i])[row] != 0;
        }
        assert_true(ink > 0);
        assert_true(label_glyph(names[i]) != label_glyph('?'));
        for (size_t k = 0; k < i; k++)
            if (memcmp(label_glyph(names[i]), label_glyph(names[k]), LABEL_GLYPH_H) == 0)
                fail_msg("%c and %c look the same", names[k], names[i]);
    }
}

static job_picture picture_of(const char *id, int width, int height)
{
    char path[TEMPDIR_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s.png", dir, id);
    return (job_picture){.id = id, .name = id, .width = width, .height = height, .output = strdup(path)};
}

/* A picture of one colour. */
static void write_flat(const job_picture *p, int width, int height, uint8_t red, uint8_t green, uint8_t blue)
{
    png_writer *png = NULL;
    uint8_t    *row = malloc((size_t)width * 3);
    assert_non_null(row);
    for (int x = 0; x < width; x++) row[3 * x] = red, row[3 * x + 1] = green, row[3 * x + 2] = blue;
    assert_int_equal(png_writer_open(&png, &(png_writer_opts){.path = p->output, .width = width, .height = height,
                                                              .overwrite = true}), ST_OK);
    for (int y = 0; y < height; y++) assert_int_equal(png_writer_rows(png, 1, row), ST_OK);
    assert_int_equal(png_writer_commit(png), ST_OK);
    free(row);
}

typedef struct shown {
    uint8_t *pixels;
    int      width, height;
} shown;

static shown make_sheet(const job_picture *pictures, size_t n)
{
    char      path[TEMPDIR_PATH + 64];
    report   *r = NULL;
    png_image image = {.version = PNG_IMAGE_VERSION};
    snprintf(path, sizeof(path), "%s/folder/sheet.png", dir);
    assert_int_equal(report_open(&r, &(report_opts){.forward = hear}), ST_OK);
    n_warnings = 0;
    if (contact_sheet_write(path, pictures, n, r) != ST_OK) fail_msg("%s", err_text());
    report_close(r);
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGB;
    shown s = {malloc(PNG_IMAGE_SIZE(image)), (int)image.width, (int)image.height};
    assert_non_null(s.pixels);
    assert_true(png_image_finish_read(&image, NULL, s.pixels, 0, NULL));
    return s;
}

static const uint8_t *at(const shown *s, int x, int y)
{
    assert_true(x >= 0 && y >= 0 && x < s->width && y < s->height);
    return s->pixels + ((size_t)y * (size_t)s->width + (size_t)x) * 3;
}

static bool has_ink(const shown *s, int x, int y, int w, int h)
{
    for (int row = y; row < y + h; row++)
        for (int column = x; column < x + w; column++)
            if (at(s, column, row)[0] == 0xd0) return true;
    return false;
}

/* Five squares of 640 px: tiles of 320; sqrt(5 x (320 + 30) / 328) = 2.3: three columns; the fourth begins the
 * second row. The third is not there, the fifth is no PNG. */
static void the_order_is_that_of_the_job(void **state)
{
    static const uint8_t colours[5][3] = {{250, 10, 20}, {30, 240, 40}, {0}, {50, 60, 230}, {0}};
    job_picture          pictures[5];
    (void)state;
    const char *const ids[5] = {"first", "second", "third-7", "fourth", "fifth"};
    for (int i = 0; i < 5; i++) pictures[i] = picture_of(ids[i], 640, 640);
    for (int i = 0; i < 5; i++)
        if (i != 2) write_flat(&pictures[i], 640, 640, colours[i][0], colours[i][1], colours[i][2]);
    assert_int_equal(truncate(pictures[4].output, 60), 0);
    const sheet_layout l = contact_sheet_layout(pictures, 5);
    assert_int_equal(l.box, 320);
    assert_int_equal(l.n_columns, 3);
    assert_int_equal(l.n_rows, 2);
    shown     s = make_sheet(pictures, 5);
    const int across = 320 + SHEET_GAP, down = 320 + l.label_height + SHEET_GAP;
    assert_int_equal(s.width, SHEET_GAP + 3 * across);
    assert_int_equal(s.height, SHEET_GAP + 2 * down);
    for (int i = 0; i < 5; i++) {
        const int x = SHEET_GAP + i % 3 * across, y = SHEET_GAP + i / 3 * down;
        const bool there = i != 2 && i != 4;
        for (int corner = 0; corner < 4; corner++) {
            const uint8_t *pixel = at(&s, x + corner % 2 * 319, y + corner / 2 * 319);
            if (there) assert_memory_equal(pixel, colours[i], 3);
            if (!there) assert_true(pixel[0] == 0x30 && pixel[1] == 0x30 && pixel[2] == 0x30);
        }
        assert_int_equal(at(&s, x - 1, y)[0], 0x18);
        assert_int_equal(at(&s, x, y + 320)[0], 0x18);
        assert_int_equal(has_ink(&s, x, y, 320, 320), !there); /* "missing", "unreadable" */
        assert_true(has_ink(&s, x, y + 320, 320, l.label_height));
    }
    assert_false(has_ink(&s, SHEET_GAP + 2 * across, SHEET_GAP + down, 320, down - SHEET_GAP));
    assert_int_equal(n_warnings, 1); /* the unreadable one */
    free(s.pixels);
    for (int i = 0; i < 5; i++) free((char *)pictures[i].output);
}

/* Shapes are kept, small pictures are not enlarged, and a PNG of another shape than the job's stays in its tile. */
static void shapes_are_kept(void **state)
{
    job_picture pictures[3] = {picture_of("wide", 1280, 320), picture_of("small", 64, 32), picture_of("other", 1280, 320)};
    (void)state;
    write_flat(&pictures[0], 1280, 320, 200, 0, 0);
    write_flat(&pictures[1], 64, 32, 0, 200, 0);
    write_flat(&pictures[2], 320, 1280, 0, 0, 200);
    shown s = make_sheet(pictures, 3);
    int   counts[3] = {0};
    for (int y = 0; y < s.height; y++)
        for (int x = 0; x < s.width; x++)
            for (int k = 0; k < 3; k++) counts[k] += at(&s, x, y)[k] == 200 && at(&s, x, y)[(k + 1) % 3] == 0;
    /* Height over width is 1/3 in the mean: the box is 320 sqrt(3). */
    assert_int_equal(counts[0], 554 * 139);
    assert_int_equal(counts[1], 64 * 32);
    assert_int_equal(counts[2], 139 * 139); /* 139 x 554, of which its row has room for 139 */
    free(s.pixels);
    for (int i = 0; i < 3; i++) free((char *)pictures[i].output);
}

/* A panorama's thumbnail has the area of a square's, up to twice its width; a tall picture changes nothing. */
static void wide_pictures_have_wide_tiles(void **state)
{
    static const struct {
        int width, height, box, w, h;
    } rows[] = {{1024, 1024, 320, 320, 320}, {1024, 256, 640, 640, 160}, {8192, 2048, 640, 640, 160}, {8192, 512, 640, 640, 40},
                {512, 256, 453, 453, 227}, {256, 1024, 320, 80, 320}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const job_picture  p = {.id = "p", .width = rows[i].width, .height = rows[i].height};
        const sheet_layout l = contact_sheet_layout(&p, 1);
        int                w = 0, h = 0;
        contact_sheet_fit(&l, p.width, p.height, &w, &h);
        assert_int_equal(l.box, rows[i].box);
        assert_int_equal(w, rows[i].w);
        assert_int_equal(h, rows[i].h);
    }
}

/* Ten thousand pictures are a sheet of a size that a viewer opens. */
static void large_jobs_have_small_tiles(void **state)
{
    enum { N = 10000 };
    job_picture *pictures = calloc(N, sizeof(*pictures));
    (void)state;
    assert_non_null(pictures);
    for (int i = 0; i < N; i++) pictures[i] = (job_picture){.id = "p", .width = 4096, .height = 4096};
    const sheet_layout l = contact_sheet_layout(pictures, N), small = contact_sheet_layout(pictures, 1),
                       some = contact_sheet_layout(pictures, 400);
    assert_int_equal(l.box, SHEET_BOX_MIN);
    assert_true(l.width < 10000 && l.n_columns * l.n_rows >= N);
    assert_int_equal(small.width, SHEET_BOX + 2 * SHEET_GAP);
    assert_true(some.box > SHEET_BOX_MIN && some.box < SHEET_BOX && some.width <= SHEET_WIDTH);
    free(pictures);
}

static void a_sheet_that_cannot_be_written_says_so(void **state)
{
    char        path[TEMPDIR_PATH + 64];
    report     *r = NULL;
    job_picture p = picture_of("a", 64, 64);
    (void)state;
    snprintf(path, sizeof(path), "%s/blocked", dir);
    assert_int_equal(tempdir_write(path, "a file"), ST_OK);
    snprintf(path, sizeof(path), "%s/blocked/sheet.png", dir);
    assert_int_equal(report_open(&r, &(report_opts){.forward = hear}), ST_OK);
    assert_int_equal(contact_sheet_write(path, &p, 1, r), ST_OUTPUT);
    assert_non_null(strstr(err_text(), path));
    report_close(r);
    free((char *)p.output);
}

static int open_dir(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_of_areas),
        cmocka_unit_test(no_area_is_lost),
        cmocka_unit_test(every_character_of_a_name_has_its_own_shape),
        cmocka_unit_test(the_order_is_that_of_the_job),
        cmocka_unit_test(shapes_are_kept),
        cmocka_unit_test(wide_pictures_have_wide_tiles),
        cmocka_unit_test(large_jobs_have_small_tiles),
        cmocka_unit_test(a_sheet_that_cannot_be_written_says_so),
    };
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
