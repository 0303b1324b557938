#include "contact_sheet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic_file.h"
#include "label_font.h"
#include "png_reader.h"
#include "png_writer.h"
#include "thumbnail.h"

enum { BACKGROUND = 0x18, TILE = 0x30, LABEL = 0xd0, PAD = 4 };

/* One row of tiles. */
typedef struct sheet {
    const sheet_layout *layout;
    report             *report;
    uint8_t            *pixels; /* [height, width, 3] */
    int                 height; /* of this row of tiles, labels and gap included */
} sheet;

void contact_sheet_fit(const sheet_layout *l, int width, int height, int *w, int *h)
{
    const double largest = width > height ? width : height;
    const double scale = largest > l->box ? l->box / largest : 1;
    *w = (int)lround(width * scale);
    *h = (int)lround(height * scale);
    if (*w < 1) *w = 1;
    if (*h < 1) *h = 1;
}

sheet_layout contact_sheet_layout(const job_picture *pictures, size_t n)
{
    sheet_layout l = {.label_scale = 2};
    double       flat = 0;   /* height over width, at most 1, in the mean */
    double       height = 0; /* of a tile, in the mean */
    int          w = 0, h = 0;
    for (size_t i = 0; i < n; i++) flat += fmin(1, (double)pictures[i].height / pictures[i].width) / (double)n;
    l.box = (int)lround(fmin(SHEET_BOX / sqrt(flat), SHEET_BOX_MAX)); /* a panorama's thumbnail has the area of a square's */
    for (size_t i = 0; i < n; i++) {
        contact_sheet_fit(&l, pictures[i].width, pictures[i].height, &w, &h);
        height += (double)h / (double)n;
    }
    l.n_columns = (int)ceil(sqrt((double)n * (height + 2 * LABEL_GLYPH_H + PAD + SHEET_GAP) / (l.box + SHEET_GAP)));
    if (l.n_columns < 1) l.n_columns = 1;
    if ((size_t)l.n_columns > n) l.n_columns = (int)n;
    l.n_rows = (int)((n + (size_t)l.n_columns - 1) / (size_t)l.n_columns);
    if (l.n_columns * (l.box + SHEET_GAP) + SHEET_GAP > SHEET_WIDTH) {
        l.box = (SHEET_WIDTH - SHEET_GAP) / l.n_columns - SHEET_GAP;
        if (l.box < SHEET_BOX_MIN) l.box = SHEET_BOX_MIN;
        l.label_scale = l.box < SHEET_BOX / 2 ? 1 : 2;
    }
    l.label_height = PAD + l.label_scale * LABEL_GLYPH_H;
    l.width = SHEET_GAP + l.n_columns * (l.box + SHEET_GAP);
    return l;
}

static void fill(sheet *s, int x, int y, int w, int h, int value)
{
    for (int row = y; row < y + h; row++)
        memset(s->pixels + ((size_t)row * (size_t)s->layout->width + (size_t)x) * 3, value, (size_t)w * 3);
}

/* Text of at most `room` px, its end cut where it is longer. */
static void write_text(sheet *s, int x, int y, int room, const char *text)
{
    const int scale = s->layout->label_scale, advance = (LABEL_GLYPH_W + 1) * scale;
    for (; *text != '\0' && room >= advance - scale; text++, x += advance, room -= advance) {
        const uint8_t *glyph = label_glyph(*text);
        for (int row = 0; row < LABEL_GLYPH_H; row++)
            for (int column = 0; column < LABEL_GLYPH_W; column++)
                if (glyph[row] >> (LABEL_GLYPH_W - 1 - column) & 1)
                    fill(s, x + column * scale, y + row * scale, scale, scale, LABEL);
    }
}

/* A picture on its way into its place. */
typedef struct reading {
    const sheet_layout *layout;
    thumbnail          *small;
    int                 w, h;
} reading;

static status begin_reading(void *context, int32_t width, int32_t height)
{
    reading *r = context;
    contact_sheet_fit(r->layout, width, height, &r->w, &r->h);
    return thumbnail_open(&r->small, width, height, r->w, r->h);
}

static void read_row(void *context, const uint8_t *rgb)
{
    thumbnail_row(((reading *)context)->small, rgb);
}

/* The thumbnail, or an empty tile, in the middle of box x inner px at x. inner: height of this row's tiles. */
static status place(sheet *s, const job_picture *p, int x, int inner)
{
    status              st = ST_OK;
    const sheet_layout *l = s->layout;
    reading             r = {.layout = l};
    const bool          there = access(p->output, F_OK) == 0;
    if (there)
        st = png_reader_take(p->output, &(png_taker){.context = &r, .begin = begin_reading, .row = read_row}, ST_OUTPUT);
    const bool good = there && st == ST_OK;
    if (st == ST_OUTPUT) {
        report_warn(s->report, "contact sheet: %s", err_text());
        err_clear();
        st = ST_OK;
    }
    if (!good) contact_sheet_fit(l, p->width, p->height, &r.w, &r.h);
    if (r.h > inner) r.h = inner; /* of another shape than the job says: its upper part */
    const int left = x + (l->box - r.w) / 2, top = (inner - r.h) / 2;
    for (int y = 0; good && y < r.h; y++)
        thumbnail_get(r.small, y, s->pixels + ((size_t)(top + y) * (size_t)l->width + (size_t)left) * 3);
    if (!good) {
        fill(s, left, top, r.w, r.h, TILE);
        if (r.h >= l->label_height + PAD && r.w > 2 * PAD)
            write_text(s, left + PAD, top + (r.h - LABEL_GLYPH_H * l->label_scale) / 2, r.w - 2 * PAD,
                       there ? "unreadable" : "missing");
    }
    write_text(s, x, inner + PAD, l->box, p->id);
    thumbnail_close(r.small);
    return st;
}

/* Height of the tallest of a row's thumbnails. */
static int inner_height(const sheet_layout *l, const job_picture *pictures, size_t n)
{
    int tallest = 1, w = 0, h = 0;
    for (size_t i = 0; i < n; i++) {
        contact_sheet_fit(l, pictures[i].width, pictures[i].height, &w, &h);
        if (h > tallest) tallest = h;
    }
    return tallest;
}

/* Pictures in the row of tiles that begins with `first`. */
static size_t count_row(const sheet_layout *l, size_t n, size_t first)
{
    return n - first < (size_t)l->n_columns ? n - first : (size_t)l->n_columns;
}

static status write_row(sheet *s, png_writer *png, const job_picture *pictures, size_t n)
{
    status              st = ST_OK;
    const sheet_layout *l = s->layout;
    const int           inner = inner_height(l, pictures, n);
    s->height = inner + l->label_height + SHEET_GAP;
    fill(s, 0, 0, l->width, s->height, BACKGROUND);
    for (size_t i = 0; i < n; i++) TRY(place(s, &pictures[i], SHEET_GAP + (int)i * (l->box + SHEET_GAP), inner));
    TRY(png_writer_rows(png, s->height, s->pixels));
fail:
    return st;
}

/* Of the whole sheet, px. */
static int total_height(const sheet_layout *l, const job_picture *pictures, size_t n)
{
    int sum = SHEET_GAP;
    for (size_t first = 0; first < n; first += (size_t)l->n_columns)
        sum += inner_height(l, pictures + first, count_row(l, n, first)) + l->label_height + SHEET_GAP;
    return sum;
}

status contact_sheet_write(const char *path, const job_picture *pictures, size_t n, report *r)
{
    status             st = ST_OK;
    png_writer        *png = NULL;
    const sheet_layout l = contact_sheet_layout(pictures, n);
    sheet              s = {.layout = &l, .report = r};
    const png_note     note = {"Software", "dype-dist"};
    s.pixels = malloc((size_t)(l.box + l.label_height + SHEET_GAP) * (size_t)l.width * 3);
    if (s.pixels == NULL) return err_set(ST_NO_MEMORY, "%s: a row of tiles, %d px wide", path, l.width);
    TRY(atomic_file_make_folder(path));
    TRY(png_writer_open(&png, &(png_writer_opts){.path = path, .width = l.width, .height = total_height(&l, pictures, n),
                                                 .notes = &note, .n_notes = 1, .overwrite = true}));
    fill(&s, 0, 0, l.width, SHEET_GAP, BACKGROUND);
    TRY(png_writer_rows(png, SHEET_GAP, s.pixels));
    for (size_t first = 0; first < n; first += (size_t)l.n_columns)
        TRY(write_row(&s, png, pictures + first, count_row(&l, n, first)));
    st = png_writer_commit(png);
    png = NULL;
fail:
    png_writer_abandon(png);
    free(s.pixels);
    return st;
}
