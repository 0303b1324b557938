/* Panels with axes, curves and coloured cells as SVG, printed to a FILE. Begin, draw, end. Texts must hold no markup. */
#ifndef DYPE_PLOT_H
#define DYPE_PLOT_H

#include <stdbool.h>
#include <stdio.h>

typedef struct plot_axis {
    const char *label;
    double      from, to; /* from < to; more than 0 with log */
    bool        log;
} plot_axis;

typedef struct plot_panel {
    int         left, top, width, height; /* px of the area that curves fill */
    const char *title;
    plot_axis   x, y;
} plot_panel;

enum { PLOT_COLOR = 8 };

void plot_begin(FILE *out, int width, int height);
void plot_end(FILE *out);
void plot_axes(FILE *out, const plot_panel *p);
/* Through n points; those outside are drawn at the edge; a NaN parts the curve. */
void plot_curve(FILE *out, const plot_panel *p, const double *x, const double *y, int n, const char *color, bool dashed);
/* Filled, from (x0, y0) to (x1, y1) in the axes' units. */
void plot_cell(FILE *out, const plot_panel *p, double x0, double y0, double x1, double y1, const char *color);
/* At px; bold: a heading. */
void plot_text(FILE *out, int x, int y, bool bold, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Dark blue at 0 (noise) over violet to orange at 1 (picture). Returns color. */
const char *plot_ramp(double share, char color[PLOT_COLOR]);

#endif
