#include "plot.h"

#include <math.h>
#include <stdarg.h>

void plot_begin(FILE *out, int width, int height)
{
    fprintf(out, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='11'>\n"
                 "<rect width='100%%' height='100%%' fill='white'/>\n", width, height);
}

void plot_end(FILE *out)
{
    fprintf(out, "</svg>\n");
}

static double share_of(const plot_axis *a, double value)
{
    const double share = a->log ? log(value / a->from) / log(a->to / a->from) : (value - a->from) / (a->to - a->from);
    return fmin(fmax(share, 0.0), 1.0);
}

static double x_at(const plot_panel *p, double x)
{
    return p->left + p->width * share_of(&p->x, x);
}

static double y_at(const plot_panel *p, double y)
{
    return p->top + p->height * (1.0 - share_of(&p->y, y));
}

/* The first tick at or after `from` and the step to the next: 1, 2 or 5 times a power of ten, about `wanted` of them. */
static double tick_step(const plot_axis *a, int wanted)
{
    const double raw = (a->to - a->from) / wanted;
    const double ten = pow(10.0, floor(log10(raw)));
    const double lead = raw / ten;
    return ten * (lead <= 1.0 ? 1.0 : lead <= 2.0 ? 2.0 : lead <= 5.0 ? 5.0 : 10.0);
}

static void x_tick(FILE *out, const plot_panel *p, double value)
{
    const double x = x_at(p, value);
    fprintf(out, "<line x1='%.1f' y1='%d' x2='%.1f' y2='%d' stroke='#ddd'/><text x='%.1f' y='%d' text-anchor='middle'>%g</text>\n",
            x, p->top, x, p->top + p->height, x, p->top + p->height + 14, value);
}

static void y_tick(FILE *out, const plot_panel *p, double value)
{
    const double y = y_at(p, value);
    fprintf(out, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#ddd'/><text x='%d' y='%.1f' text-anchor='end'>%g</text>\n",
            p->left, y, p->left + p->width, y, p->left - 5, y + 4, value);
}

static void ticks(FILE *out, const plot_panel *p, const plot_axis *a, int wanted, void (*draw)(FILE *, const plot_panel *, double))
{
    if (a->log) {
        const int first = (int)ceil(log10(a->from) - 1e-9), last = (int)floor(log10(a->to) + 1e-9);
        const int step = 1 + (last - first) / (wanted + 1);
        for (int e = first; e <= last; e += step) draw(out, p, pow(10.0, e));
        return;
    }
    const double step = tick_step(a, wanted);
    const double first = ceil(a->from / step - 1e-9);
    for (int k = 0; (first + k) * step <= a->to + 1e-9 * step; k++) draw(out, p, (first + k) * step);
}

void plot_axes(FILE *out, const plot_panel *p)
{
    fprintf(out, "<text x='%d' y='%d' font-size='12'>%s</text>\n", p->left, p->top - 8, p->title);
    ticks(out, p, &p->x, 6, x_tick);
    ticks(out, p, &p->y, 5, y_tick);
    fprintf(out, "<rect x='%d' y='%d' width='%d' height='%d' fill='none' stroke='#999'/>\n", p->left, p->top, p->width, p->height);
    fprintf(out, "<text x='%d' y='%d' text-anchor='middle'>%s</text>\n", p->left + p->width / 2, p->top + p->height + 29, p->x.label);
    fprintf(out, "<text transform='translate(%d,%d) rotate(-90)' text-anchor='middle'>%s</text>\n", p->left - 34,
            p->top + p->height / 2, p->y.label);
}

void plot_curve(FILE *out, const plot_panel *p, const double *x, const double *y, int n, const char *color, bool dashed)
{
    bool open = false;
    for (int i = 0; i < n; i++) {
        const bool here = !isnan(x[i]) && !isnan(y[i]);
        if (here && !open) fprintf(out, "<polyline fill='none' stroke='%s' stroke-width='1.3'%s points='", color,
                                   dashed ? " stroke-dasharray='4 3'" : "");
        if (here) fprintf(out, "%s%.1f,%.1f", open ? " " : "", x_at(p, x[i]), y_at(p, y[i]));
        if (!here && open) fprintf(out, "'/>\n");
        open = here;
    }
    if (open) fprintf(out, "'/>\n");
}

void plot_cell(FILE *out, const plot_panel *p, double x0, double y0, double x1, double y1, const char *color)
{
    fprintf(out, "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='%s'/>\n", x_at(p, x0), y_at(p, y1),
            x_at(p, x1) - x_at(p, x0), y_at(p, y0) - y_at(p, y1), color);
}

void plot_text(FILE *out, int x, int y, bool bold, const char *fmt, ...)
{
    va_list ap;
    fprintf(out, "<text x='%d' y='%d'%s>", x, y, bold ? " font-size='13' font-weight='bold'" : "");
    va_start(ap, fmt);
    vfprintf(out, fmt, ap);
    va_end(ap);
    fprintf(out, "</text>\n");
}

const char *plot_ramp(double share, char color[PLOT_COLOR])
{
    static const double stops[3][3] = {{20, 40, 110}, {170, 60, 130}, {250, 165, 50}};
    const double        at = 2.0 * fmin(fmax(share, 0.0), 1.0);
    const int           i = at < 1.0 ? 0 : 1;
    int                 rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = (int)(stops[i][c] + (stops[i + 1][c] - stops[i][c]) * (at - i) + 0.5);
    snprintf(color, PLOT_COLOR, "#%02x%02x%02x", (unsigned)rgb[0] & 255u, (unsigned)rgb[1] & 255u, (unsigned)rgb[2] & 255u);
    return color;
}
