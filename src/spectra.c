#include "spectra.h"

#include <fftw3.h>
#include <math.h>
#include <stdlib.h>

#include "geometry.h" /* PATCH */

struct spectra {
    int           height, width, half; /* half: columns of a real plane's transform, width / 2 + 1 */
    int           n_bins;
    double       *plane;     /* [height, width] */
    fftw_complex *transform; /* [height, half] */
    fftw_plan     plan;
    double       *sums;  /* [n_bins] */
    int64_t      *modes; /* [n_bins], of the whole plane */
};

/* Bin of a mode, 0 when it has none; *weight: 2 where its mirror image is not among the columns kept. */
static int bin_of(const spectra *s, int row, int col, int *weight)
{
    const int    n = s->height < s->width ? s->height : s->width;
    const double fy = (double)(row <= s->height / 2 ? row : row - s->height) / s->height;
    const double fx = (double)col / s->width;
    const double bin = floor(n * sqrt(fy * fy + fx * fx) + 0.5);
    *weight = col == 0 || 2 * col == s->width ? 1 : 2;
    return bin <= s->n_bins ? (int)bin : 0;
}

static void count_modes(spectra *s)
{
    int weight = 0;
    for (int row = 0; row < s->height; row++)
        for (int col = 0; col < s->half; col++) {
            const int bin = bin_of(s, row, col, &weight);
            if (bin > 0) s->modes[bin - 1] += weight;
        }
}

status spectra_open(spectra **out, int height, int width)
{
    status   st = ST_OK;
    spectra *s = calloc(1, sizeof(*s));
    if (s == NULL) return err_set(ST_NO_MEMORY, "spectra: %zu bytes", sizeof(*s));
    s->height = height;
    s->width = width;
    s->half = width / 2 + 1;
    s->n_bins = (height < width ? height : width) / 2;
    s->plane = fftw_alloc_real((size_t)height * (size_t)width);
    s->transform = fftw_alloc_complex((size_t)height * (size_t)s->half);
    s->sums = calloc((size_t)s->n_bins + 1, sizeof(*s->sums));
    s->modes = calloc((size_t)s->n_bins + 1, sizeof(*s->modes));
    /* FFTW_ESTIMATE: measured plans, and with them the last bits, would differ from run to run */
    if (s->plane != NULL && s->transform != NULL)
        s->plan = fftw_plan_dft_r2c_2d(height, width, s->plane, s->transform, FFTW_ESTIMATE);
    if (s->plan == NULL || s->sums == NULL || s->modes == NULL) {
        st = err_set(ST_NO_MEMORY, "spectra: planes of %d x %d", height, width);
        goto fail;
    }
    count_modes(s);
    *out = s;
    return ST_OK;
fail:
    spectra_close(s);
    return st;
}

void spectra_close(spectra *s)
{
    if (s == NULL) return;
    if (s->plan != NULL) fftw_destroy_plan(s->plan);
    fftw_free(s->plane);
    fftw_free(s->transform);
    free(s->sums);
    free(s->modes);
    free(s);
}

int spectra_bins(const spectra *s)
{
    return s->n_bins;
}

int64_t spectra_modes(const spectra *s, int bin)
{
    return s->modes[bin - 1];
}

double *spectra_plane(spectra *s)
{
    return s->plane;
}

void spectra_add(spectra *s, double *power)
{
    int weight = 0;
    fftw_execute(s->plan);
    for (int k = 0; k < s->n_bins; k++) s->sums[k] = 0.0;
    for (int row = 0; row < s->height; row++)
        for (int col = 0; col < s->half; col++) {
            const double *f = s->transform[(size_t)row * (size_t)s->half + (size_t)col];
            const int     bin = bin_of(s, row, col, &weight);
            if (bin > 0) s->sums[bin - 1] += weight * (f[0] * f[0] + f[1] * f[1]);
        }
    const double area = (double)s->height * s->width;
    for (int k = 0; k < s->n_bins; k++)
        if (s->modes[k] > 0) power[k] += s->sums[k] / (area * (double)s->modes[k]);
}

void spectra_of_latent(spectra *s, int32_t channels, const float *packed, double *power)
{
    const int n_planes = channels / (PATCH * PATCH), cols = s->width / PATCH;
    for (int k = 0; k < s->n_bins; k++) power[k] = 0.0;
    for (int plane = 0; plane < n_planes; plane++) {
        for (int y = 0; y < s->height; y++)
            for (int x = 0; x < s->width; x++) {
                const size_t token = (size_t)(y / PATCH) * (size_t)cols + (size_t)(x / PATCH);
                const int    feature = plane * PATCH * PATCH + y % PATCH * PATCH + x % PATCH;
                s->plane[(size_t)y * (size_t)s->width + (size_t)x] = (double)packed[token * (size_t)channels + (size_t)feature];
            }
        spectra_add(s, power);
    }
    for (int k = 0; k < s->n_bins; k++) power[k] /= n_planes;
}

double spectra_remaining(double power, double noise, double clean)
{
    const double span = log(noise) - log(clean);
    return fabs(span) < 0.1 ? NAN : (log(power) - log(clean)) / span;
}

void spectra_fit(const double *power, int n_bins, double *c, double *w)
{
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (int bin = 2; bin <= n_bins / 2; bin++) {
        const double x = log(bin / (2.0 * n_bins)), y = log(power[bin - 1]);
        n += 1;
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    const double spread = n * sxx - sx * sx;
    *w = n >= 2 ? -(n * sxy - sx * sy) / spread : NAN;
    *c = n >= 2 ? exp((sy + *w * sx) / n) : NAN;
}
