#include "bench_plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "atomic_file.h"

enum { WIDE = 420, HIGH = 300, LEFT = 56, TOP = 40, PANEL = 520, CANVAS_W = 2 * PANEL, CANVAS_H = 420 };

/* One curve: a kind of grid and schedule. */
static const struct {
    const char *name, *color;
} CURVES[] = {
    {"ordered ring", "#1b6ca8"}, {"neighbour ring", "#c8553d"}, {"ulysses", "#3b8e4d"}, {"hybrid", "#8a5aa8"},
};
enum { N_CURVES = sizeof(CURVES) / sizeof(CURVES[0]) };

static int curve_of(const bench_row *row)
{
    if (row->schedule == EXCHANGE_NEIGHBOUR) return 1;
    if (row->shape.ulysses == 1) return 0;
    return row->shape.ring == 1 ? 2 : 3;
}

static status open_file(FILE **out, char *path, size_t size, const char *dir, const char *name, const char *ending)
{
    snprintf(path, size, "%s/scaling-%s.%s", dir != NULL ? dir : ".", name, ending);
    const status st = atomic_file_make_folder(path);
    if (st != ST_OK) return st;
    *out = fopen(path, "we");
    return *out != NULL ? ST_OK : err_set(ST_OUTPUT, "%s: %s", path, strerror(errno));
}

static status close_file(FILE *file, const char *path)
{
    const bool failed = ferror(file) != 0;
    return fclose(file) != 0 || failed ? err_set(ST_OUTPUT, "%s: %s", path, strerror(errno)) : ST_OK;
}

static status write_csv(const char *path, FILE *f, const bench_row *rows, int n_rows)
{
    static const char *const verdicts[] = {"reference", "same bits", "close", "wrong"};
    fprintf(f, "picture,scaling,ranks,schedule,ulysses,ring,width,height,step_s,speedup,efficiency,cpu_s,travel_s,exposed_s,"
               "hidden,bytes,planned_bytes,bytes_over_least,flops,latents,difference,latents_sha256\n");
    for (int i = 0; i < n_rows; i++) {
        const bench_row    *r = &rows[i];
        const step_figures *s = &r->figures;
        fprintf(f, "%s,%s,%d,%s,%d,%d,%d,%d,%.6f,%.4f,%.4f,%.6f,%.6f,%.6f,%.4f,%lld,%lld,%.4f,%lld,%s,%.3e,%s\n", r->picture,
                r->weak ? "weak" : "strong", r->n_ranks, r->schedule == EXCHANGE_NEIGHBOUR ? "neighbour" : "ordered",
                r->shape.ulysses, r->shape.ring, r->width, r->height, s->step_s, r->speedup, r->efficiency, s->cpu_s,
                s->travel_s, s->exposed_s, r->hidden, (long long)s->bytes, (long long)s->planned_bytes, r->bytes_over_least,
                (long long)s->flops, verdicts[r->verdict], r->difference, s->latents_sha256);
    }
    return close_file(f, path);
}

/* ---- SVG: two panels over ranks (log 2): speedup (log 2) and efficiency of weak scaling */

typedef struct panel {
    int    left, most; /* x of the panel; most ranks */
    bool   weak;
} panel;

static double x_at(const panel *p, double ranks)
{
    return p->left + LEFT + WIDE * (p->most > 1 ? log2(ranks) / log2(p->most) : 0);
}

static double y_at(const panel *p, double value)
{
    const double share = p->weak ? fmin(1.2, value) / 1.2 : p->most > 1 ? log2(fmax(0.5, value) * 2) / log2(2.0 * p->most) : 0;
    return TOP + HIGH * (1 - share);
}

static void draw_axes(FILE *f, const panel *p, const char *title)
{
    fprintf(f, "<text x='%d' y='24' font-size='15'>%s</text>\n", p->left + LEFT, title);
    for (int n = 1; n <= p->most; n *= 2) {
        fprintf(f, "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' stroke='#ddd'/>", x_at(p, n), TOP, x_at(p, n), TOP + HIGH);
        fprintf(f, "<text x='%.1f' y='%d' text-anchor='middle'>%d</text>\n", x_at(p, n), TOP + HIGH + 18, n);
    }
    fprintf(f, "<text x='%d' y='%d' text-anchor='middle'>ranks</text>\n", p->left + LEFT + WIDE / 2, TOP + HIGH + 38);
    for (int i = 0; i <= 6; i++) {
        const double value = p->weak ? 0.2 * i : ldexp(0.5, i);
        if (!p->weak && value > p->most) break;
        fprintf(f, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#ddd'/>", p->left + LEFT, y_at(p, value),
                p->left + LEFT + WIDE, y_at(p, value));
        fprintf(f, "<text x='%d' y='%.1f' text-anchor='end'>%g</text>\n", p->left + LEFT - 8, y_at(p, value) + 4, value);
    }
    fprintf(f, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#888' stroke-dasharray='5 4'/>\n", x_at(p, 1),
            y_at(p, 1), x_at(p, p->most), y_at(p, p->weak ? 1 : p->most));
}

static void draw_curve(FILE *f, const panel *p, int curve, const bench_row *rows, int n_rows)
{
    char   path[4096] = "";
    size_t used = 0;
    for (int i = 0; i < n_rows; i++) {
        const bench_row *r = &rows[i];
        const bool       alone = r->n_ranks == 1;
        if ((!alone && (r->weak != p->weak || curve_of(r) != curve)) || used > sizeof(path) - 64) continue;
        const double x = x_at(p, r->n_ranks), y = y_at(p, p->weak ? r->efficiency : r->speedup);
        fprintf(f, "<circle cx='%.1f' cy='%.1f' r='3.5' fill='%s'/>\n", x, y, CURVES[curve].color);
        used += (size_t)snprintf(path + used, sizeof(path) - used, "%s%.1f,%.1f", used > 0 ? " " : "", x, y);
    }
    fprintf(f, "<polyline points='%s' fill='none' stroke='%s' stroke-width='2'/>\n", path, CURVES[curve].color);
}

static status write_svg(const char *path, FILE *f, const char *name, const bench_row *rows, int n_rows)
{
    panel panels[2] = {{.left = 0, .most = 1}, {.left = PANEL, .most = 1, .weak = true}};
    bool  used[N_CURVES] = {false};
    for (int i = 0; i < n_rows; i++) {
        used[curve_of(&rows[i])] = true;
        for (int k = 0; k < 2; k++)
            if (rows[i].n_ranks > panels[k].most) panels[k].most = rows[i].n_ranks;
    }
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='12'>\n"
               "<rect width='100%%' height='100%%' fill='white'/>\n", CANVAS_W, CANVAS_H);
    for (int k = 0; k < 2; k++) {
        char title[256];
        snprintf(title, sizeof(title), k == 0 ? "%s: speedup, %d x %d (dashed: ideal)"
                                              : "%s: efficiency per rank, %d x %d for each rank",
                 name, rows[0].width, rows[0].height);
        draw_axes(f, &panels[k], title);
        for (int c = 0; c < N_CURVES; c++)
            if (used[c]) draw_curve(f, &panels[k], c, rows, n_rows);
    }
    for (int c = 0, x = LEFT; c < N_CURVES; c++) {
        if (!used[c]) continue;
        fprintf(f, "<rect x='%d' y='%d' width='14' height='4' fill='%s'/><text x='%d' y='%d'>%s</text>\n", x, TOP + HIGH + 60,
                CURVES[c].color, x + 20, TOP + HIGH + 66, CURVES[c].name);
        x += 150;
    }
    fprintf(f, "</svg>\n");
    return close_file(f, path);
}

status bench_write(report *r, const char *dir, const char *name, const bench_row *rows, int n_rows)
{
    status st = ST_OK;
    FILE  *file = NULL;
    char   csv[4096], svg[4096];
    TRY(open_file(&file, csv, sizeof(csv), dir, name, "csv"));
    TRY(write_csv(csv, file, rows, n_rows));
    TRY(open_file(&file, svg, sizeof(svg), dir, name, "svg"));
    TRY(write_svg(svg, file, name, rows, n_rows));
    report_line(r, "%s: %s, %s", name, csv, svg);
fail:
    return st;
}
