#include "spectra_plot.h"

#include <math.h>
#include <stdlib.h>

#include "plot.h"
#include "spectra.h"

enum { PANEL_W = 300, PANEL_H = 200, LEFT = 56, GAP = 76, HEAD = 56 };

static double frequency(const spectra_record *r, int bin)
{
    return bin / (2.0 * r->n_bins);
}

static double remaining(const spectra_record *r, int step, int k)
{
    const size_t n = (size_t)r->n_bins;
    return spectra_remaining(r->state[(size_t)step * n + (size_t)k], r->state[k], r->state[(size_t)r->n_steps * n + (size_t)k]);
}

void spectra_print_head(FILE *out)
{
    fprintf(out, "picture,pictures,step,sigma,bin,frequency,power_state,power_clean,remaining,progress\n");
}

void spectra_print(FILE *out, const spectra_record *r)
{
    for (int step = 0; step <= r->n_steps; step++)
        for (int k = 0; k < r->n_bins; k++) {
            const size_t at = (size_t)step * (size_t)r->n_bins + (size_t)k;
            const double left = remaining(r, step, k);
            fprintf(out, "%s,%d,%d,%.7g,%d,%.7g,%.9g,%.9g,", r->name, r->n_pictures, step, r->sigma[step], k + 1, frequency(r, k + 1),
                    r->state[at], r->clean[at]);
            if (isnan(left)) fprintf(out, ",\n");
            else fprintf(out, "%.6f,%.6f\n", left, 1.0 - left);
        }
}

static void draw_spectra(FILE *out, const spectra_record *r, const double *power, const plot_panel *p, const double *x)
{
    char color[PLOT_COLOR];
    plot_axes(out, p);
    for (int step = 0; step <= r->n_steps; step++)
        plot_curve(out, p, x, power + (size_t)step * (size_t)r->n_bins, r->n_bins, plot_ramp(1.0 - r->sigma[step], color), false);
}

static void draw_map(FILE *out, const spectra_record *r, const plot_panel *p)
{
    char color[PLOT_COLOR];
    for (int step = 0; step <= r->n_steps; step++)
        for (int k = 0; k < r->n_bins; k++) {
            const double left = remaining(r, step, k);
            plot_cell(out, p, fmax(frequency(r, k + 1) - 0.25 / r->n_bins, p->x.from), step, frequency(r, k + 1) + 0.25 / r->n_bins,
                      step + 1, isnan(left) ? "#dddddd" : plot_ramp(1.0 - left, color));
        }
    plot_axes(out, p);
}

static plot_panel panel_at(const spectra_record *r, int column, int top, const char *title)
{
    return (plot_panel){.left = LEFT + column * (PANEL_W + GAP), .top = top + HEAD, .width = PANEL_W, .height = PANEL_H, .title = title,
                        .x = {"cycles per latent value", 0.5 * frequency(r, 1), 0.5, true}};
}

status spectra_draw(FILE *out, const spectra_record *r, int top)
{
    const size_t n = (size_t)(r->n_steps + 1) * (size_t)r->n_bins;
    double       low = INFINITY, high = 0, c = 0, w = 0;
    double      *x = calloc((size_t)r->n_bins, sizeof(*x));
    if (x == NULL) return err_set(ST_NO_MEMORY, "%s: %d bins", r->name, r->n_bins);
    for (int k = 0; k < r->n_bins; k++) x[k] = frequency(r, k + 1);
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, fmin(r->state[i], r->clean[i]));
        high = fmax(high, fmax(r->state[i], r->clean[i]));
    }
    const plot_axis power = {"power", fmax(low * 0.7, 1e-9), fmax(high * 1.4, 1e-8), true};
    plot_panel      clean = panel_at(r, 0, top, "predicted clean latent, by step");
    plot_panel      state = panel_at(r, 1, top, "state, by step");
    plot_panel      map = panel_at(r, 2, top, "progress: 0 noise (blue), 1 picture (orange)");
    clean.y = power;
    state.y = power;
    map.y = (plot_axis){"steps done", 0, r->n_steps + 1, false};
    spectra_fit(r->state + (size_t)r->n_steps * (size_t)r->n_bins, r->n_bins, &c, &w);
    plot_text(out, LEFT, top + 18, true, "%s", r->name);
    plot_text(out, LEFT, top + 34, false, "%d picture%s, %d steps; final latent: %.3g / f^%.2f", r->n_pictures,
              r->n_pictures == 1 ? "" : "s", r->n_steps, c, w);
    draw_spectra(out, r, r->clean, &clean, x);
    draw_spectra(out, r, r->state, &state, x);
    draw_map(out, r, &map);
    free(x);
    return ST_OK;
}
