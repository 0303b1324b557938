/* Radial power spectra of signals whose spectrum is known: pure waves, white noise, a 1/f^2 field, Parseval; planes of odd and
 * unequal sides against a plain DFT; the reference's examples of the spectrum and of equation 12. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <jansson.h>

#include "rng.h"
#include "spectra.h"

static const double TWO_PI = 6.283185307179586476925286766559;

enum { MOST_BINS = 256 };

static spectra *open_spectra(int height, int width)
{
    spectra *s = NULL;
    assert_int_equal(spectra_open(&s, height, width), ST_OK);
    assert_int_equal(spectra_bins(s), (height < width ? height : width) / 2);
    return s;
}

static json_t *vectors(void)
{
    json_t *v = json_load_file(TEST_DIR "/vectors/dype/dype_vectors.json", 0, NULL);
    assert_non_null(v);
    return v;
}

/* Standard normals by Box and Muller from uniforms of 24 bits. */
static double normal(mt19937 *mt)
{
    const double a = ((mt19937_next(mt) >> 8) + 0.5) * 0x1p-24, b = ((mt19937_next(mt) >> 8) + 0.5) * 0x1p-24;
    return sqrt(-2 * log(a)) * cos(TWO_PI * b);
}

static void the_reference_example(void **state)
{
    json_t       *v = vectors();
    const json_t *want = json_object_get(json_object_get(v, "psd_example"), "psd_bins_1_to_8");
    spectra      *s = open_spectra(16, 16);
    double        power[MOST_BINS] = {0};
    (void)state;
    for (int y = 0; y < 16; y++)
        for (int x = 0; x < 16; x++)
            spectra_plane(s)[16 * y + x] = sin(0.7 * x + 0.3 * y) + 0.5 * cos(2.1 * x - 1.3 * y) + 0.01 * x * y;
    spectra_add(s, power);
    assert_int_equal(json_array_size(want), 8);
    for (int k = 0; k < 8; k++) assert_true(fabs(power[k] / json_real_value(json_array_get(want, (size_t)k)) - 1) < 1e-12);
    spectra_close(s);
    json_decref(v);
}

/* a cos: two modes of |F|^2 = (a N / 2)^2, so their bin has 2 (a / 2)^2 N over the count of its modes, the others nothing. */
static void a_pure_wave_lies_in_one_bin(void **state)
{
    enum { H = 24, W = 40 };
    static const struct {
        int fy, fx; /* turns over the plane */
    } waves[] = {{0, 5}, {3, 0}, {-2, 4}, {5, 7}, {0, 1}, {6, -3}};
    spectra *s = open_spectra(H, W);
    (void)state;
    for (size_t i = 0; i < sizeof(waves) / sizeof(waves[0]); i++) {
        double power[MOST_BINS] = {0};
        const double f = sqrt(pow((double)waves[i].fy / H, 2) + pow((double)waves[i].fx / W, 2));
        const int    bin = (int)floor(H * f + 0.5); /* H is the shorter side */
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                spectra_plane(s)[W * y + x] = 3 * cos(TWO_PI * ((double)waves[i].fy * y / H + (double)waves[i].fx * x / W) + 0.4) + 7;
        spectra_add(s, power);
        for (int k = 1; k <= spectra_bins(s); k++) {
            const double want = k == bin ? 2 * 2.25 * H * W / (double)spectra_modes(s, k) : 0;
            assert_true(fabs(power[k - 1] - want) < 1e-9 * (1 + want));
        }
    }
    spectra_close(s);
}

/* Unit variance gives 1 in every bin. The power of a mode has the spread of an exponential, 1, and half of a bin's modes are
 * mirror images: its mean over `planes` planes has the spread sqrt(2 / (modes planes)); 5 of them. */
static void white_noise_is_flat(void **state)
{
    enum { H = 64, W = 96, PLANES = 40 };
    spectra *s = open_spectra(H, W);
    double   power[MOST_BINS] = {0}, all = 0, modes = 0;
    mt19937  mt;
    (void)state;
    mt19937_seed(&mt, 11);
    for (int p = 0; p < PLANES; p++) {
        for (int i = 0; i < H * W; i++) spectra_plane(s)[i] = normal(&mt);
        spectra_add(s, power);
    }
    for (int k = 1; k <= spectra_bins(s); k++) {
        const double n = (double)spectra_modes(s, k);
        assert_true(fabs(power[k - 1] / PLANES - 1) < 5 * sqrt(2 / (n * PLANES)));
        all += n * power[k - 1] / PLANES;
        modes += n;
    }
    assert_true(fabs(all / modes - 1) < 5 * sqrt(2 / (modes * PLANES)));
    spectra_close(s);
}

/* A sum of cosines, one per mode, with amplitude 1 / |f| and random phases: |F|^2 of a mode is known exactly. */
static void a_field_of_one_over_f_squared_is_found(void **state)
{
    enum { N = 64 };
    spectra *s = open_spectra(N, N);
    double   power[MOST_BINS] = {0}, c = 0, w = 0, *plane = spectra_plane(s);
    mt19937  mt;
    (void)state;
    mt19937_seed(&mt, 3);
    for (int i = 0; i < N * N; i++) plane[i] = 0;
    for (int fy = -N / 2 + 1; fy < N / 2; fy++)
        for (int fx = 0; fx < N / 2; fx++) {
            if (fx == 0 && fy <= 0) continue; /* each pair of mirror images once */
            const double f = sqrt((double)fy * fy + (double)fx * fx) / N, phase = TWO_PI * (mt19937_next(&mt) >> 8) * 0x1p-24;
            for (int y = 0; y < N; y++)
                for (int x = 0; x < N; x++) plane[N * y + x] += 2.0 / N / f * cos(TWO_PI * (fy * y + fx * x) / N + phase);
        }
    spectra_add(s, power);
    /* |F|^2 / N^2 = 1 / f^2 in every mode; the mean over a bin of unit width is a little above that at its centre */
    for (int k = 2; k < N / 2; k++) assert_true(fabs(power[k - 1] * k * k / (N * N) - 1) < 1.0 / k);
    spectra_fit(power, spectra_bins(s), &c, &w);
    assert_true(fabs(w - 2) < 0.1 && fabs(log(c)) < 0.2);
    spectra_close(s);
}

static void a_power_law_is_fitted_exactly(void **state)
{
    double power[32], c = 0, w = 0;
    (void)state;
    for (int k = 1; k <= 32; k++) power[k - 1] = 0.3 * pow(k / 64.0, -1.7);
    spectra_fit(power, 32, &c, &w);
    assert_true(fabs(c - 0.3) < 1e-12 && fabs(w - 1.7) < 1e-12);
    spectra_fit(power, 5, &c, &w);
    assert_true(isnan(c) && isnan(w)); /* bin 2 alone */
}

/* Planes of all kinds of sides against the definition, term by term: sums over the bins, too, which is Parseval for what lies
 * in them. */
static void it_is_the_plain_transform(void **state)
{
    static const int sides[][2] = {{6, 10}, {9, 4}, {7, 7}, {12, 2}};
    mt19937          mt;
    (void)state;
    mt19937_seed(&mt, 5);
    for (size_t t = 0; t < sizeof(sides) / sizeof(sides[0]); t++) {
        const int h = sides[t][0], w = sides[t][1], n = h < w ? h : w;
        spectra  *s = open_spectra(h, w);
        double    x[256], power[MOST_BINS] = {0}, want[MOST_BINS] = {0}, count[MOST_BINS] = {0};
        for (int i = 0; i < h * w; i++) spectra_plane(s)[i] = x[i] = normal(&mt);
        for (int v = 0; v < h; v++)
            for (int u = 0; u < w; u++) {
                double re = 0, im = 0;
                for (int i = 0; i < h * w; i++) {
                    const double angle = TWO_PI * ((double)v * (i / w) / h + (double)u * (i % w) / w);
                    re += x[i] * cos(angle);
                    im -= x[i] * sin(angle);
                }
                const double fy = 2 * v <= h ? (double)v / h : (double)(v - h) / h, fx = 2 * u <= w ? (double)u / w : (double)(u - w) / w;
                const int    k = (int)floor(n * sqrt(fy * fy + fx * fx) + 0.5);
                if (k < 1 || k > n / 2) continue;
                want[k - 1] += (re * re + im * im) / (h * w);
                count[k - 1]++;
            }
        spectra_add(s, power);
        for (int k = 1; k <= n / 2; k++) {
            assert_true((double)spectra_modes(s, k) == count[k - 1]);
            assert_true(fabs(power[k - 1] * count[k - 1] - want[k - 1]) < 1e-10 * (1 + want[k - 1]));
        }
        spectra_close(s);
    }
}

/* A signal of modes that all lie in the bins: its energy is the sum of the spectrum over the modes. */
static void energy_is_kept(void **state)
{
    enum { N = 32 };
    spectra *s = open_spectra(N, N);
    double   power[MOST_BINS] = {0}, energy = 0, sum = 0, *plane = spectra_plane(s);
    mt19937  mt;
    (void)state;
    mt19937_seed(&mt, 9);
    for (int i = 0; i < N * N; i++) plane[i] = 0;
    for (int m = 0; m < 60; m++) {
        const int    fy = (int)(mt19937_next(&mt) % 21) - 10, fx = (int)(mt19937_next(&mt) % 11);
        const double a = normal(&mt), phase = TWO_PI * (mt19937_next(&mt) >> 8) * 0x1p-24;
        if (fx == 0 && fy == 0) continue;
        for (int y = 0; y < N; y++)
            for (int x = 0; x < N; x++) plane[N * y + x] += a * cos(TWO_PI * (fy * y + fx * x) / N + phase);
    }
    for (int i = 0; i < N * N; i++) energy += plane[i] * plane[i];
    spectra_add(s, power);
    for (int k = 1; k <= spectra_bins(s); k++) sum += power[k - 1] * (double)spectra_modes(s, k);
    assert_true(fabs(sum / energy - 1) < 1e-12);
    spectra_close(s);
}

/* A wave in one plane of a packed latent: token (i, j), feature 4 c + 2 dy + dx is value (2 i + dy, 2 j + dx) of plane c. */
static void a_packed_latent_is_unpacked(void **state)
{
    enum { ROWS = 6, COLS = 8, CHANNELS = 12, H = 2 * ROWS, W = 2 * COLS };
    static float packed[ROWS * COLS * CHANNELS];
    spectra     *s = open_spectra(H, W);
    double       power[MOST_BINS];
    (void)state;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            packed[(y / 2 * COLS + x / 2) * CHANNELS + 4 * 1 + 2 * (y % 2) + x % 2] = (float)cos(TWO_PI * (3.0 * y / H + 4.0 * x / W));
    spectra_of_latent(s, CHANNELS, packed, power);
    const int bin = (int)floor(H * sqrt(9.0 / (H * H) + 16.0 / (W * W)) + 0.5);
    for (int k = 1; k <= spectra_bins(s); k++) {
        const double want = k == bin ? 0.5 * H * W / (double)spectra_modes(s, k) / 3 : 0; /* one of three planes has it */
        assert_true(fabs(power[k - 1] - want) < 1e-6 * (1 + want));
    }
    spectra_close(s);
}

static void progress_is_equation_12(void **state)
{
    json_t       *v = vectors();
    const json_t *rows = json_object_get(json_object_get(v, "progression_map_example"), "rows"), *row;
    size_t        i;
    int           n = 0;
    (void)state;
    json_array_foreach((json_t *)rows, i, row) {
        const json_t *psd = json_object_get(row, "psd"), *gamma = json_object_get(row, "gamma");
        const double  noise = json_number_value(json_array_get(psd, 0)), clean = json_number_value(json_array_get(psd, 4));
        for (size_t t = 0; t < 5; t++) {
            const double got = spectra_remaining(json_number_value(json_array_get(psd, t)), noise, clean);
            const double span = fabs(log(noise) - log(clean));
            if (span < 0.1) assert_true(isnan(got));
            else assert_true(fabs(got - json_number_value(json_array_get(gamma, t))) < 1e-9);
            n++;
        }
    }
    assert_int_equal(n, 35);
    assert_true(isnan(spectra_remaining(0.5, 1.0, 1.09))); /* ln 1.09 < 0.1 */
    assert_true(fabs(spectra_remaining(1.0, 1.0, 2.0) - 1) < 1e-15 && fabs(spectra_remaining(2.0, 1.0, 2.0)) < 1e-15);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_example),
        cmocka_unit_test(a_pure_wave_lies_in_one_bin),
        cmocka_unit_test(white_noise_is_flat),
        cmocka_unit_test(a_field_of_one_over_f_squared_is_found),
        cmocka_unit_test(a_power_law_is_fitted_exactly),
        cmocka_unit_test(it_is_the_plain_transform),
        cmocka_unit_test(energy_is_kept),
        cmocka_unit_test(a_packed_latent_is_unpacked),
        cmocka_unit_test(progress_is_equation_12),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
