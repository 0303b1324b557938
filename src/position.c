#include "position.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "dtype.h"

enum { MAX_WIDTH = 2 * POSITION_MAX_WAVES }; /* a head's width, as device operations limit it */

static const double ROTARY_BASE = 10000.0;
static const double TWO_PI = 6.283185307179586476925286766559;

/* Thresholds of the three bands, in turns over the trained length: from FiT's "NTK by parts". */
static const double BETA[2] = {1.25, 0.75}; /* interpolation below, NTK above */
static const double GAMMA[2] = {16.0, 2.0}; /* NTK below, native above */

/* Lumina-Next's switch from interpolation to NTK, on its clock 1 - t. */
static const double WATERSHED = 0.3;

/* An axis that is longer than trained. */
typedef struct axis {
    int width;        /* D */
    int n_waves;      /* D / 2 */
    int base_patches; /* L */
    double s;         /* patches / base_patches > 1 */
} axis;

/* base and time-aware have one form and ignore `dype`. */
static bool is_dype(const position_opts *opts)
{
    return opts->dype && position_method_can_dype(opts->method);
}

status position_check(const position_opts *opts)
{
    if (!isnan(opts->lambda_s) && !(opts->lambda_s >= 0.0 && isfinite(opts->lambda_s)))
        return err_set(ST_BAD_JOB, "position: lambda_s: got %g, want 0 or more", opts->lambda_s);
    if (!(opts->lambda_t >= 0.0 && isfinite(opts->lambda_t)))
        return err_set(ST_BAD_JOB, "position: lambda_t: got %g, want 0 or more", opts->lambda_t);
    if (!position_variant_exists(opts->method, is_dype(opts), opts->variant))
        return err_set(ST_BAD_JOB, "position: method %s %s dype has no variant %s", position_method_names[opts->method],
                       is_dype(opts) ? "with" : "without", position_variant_names[opts->variant]);
    return ST_OK;
}

static double native_wave(const axis *a, int i)
{
    return pow(ROTARY_BASE, -2.0 * i / a->width);
}

/* Base enlarged by scale^(D/(D-2)): wave 0 stays, the slowest is divided by scale. */
static double ntk_wave(const axis *a, double scale, double power, int i)
{
    if (i == 0) return 1.0; /* also where D = 2 and the exponent has no value */
    double base = ROTARY_BASE * pow(scale, power * a->width / (a->width - 2.0));
    return pow(base, -2.0 * i / a->width);
}

/* The fractional index whose wave turns r times over L patches. */
static double index_of_turns(const axis *a, double r)
{
    return a->width * log(a->base_patches / (r * TWO_PI)) / (2.0 * log(ROTARY_BASE));
}

/* Integer ends of an index ramp between thresholds r[0] > r[1]. The ends never cross: thresholds near 0 leave every
 * wave above them (low = high = D/2), and where all waves are below (L of a few patches) only wave 0 is kept. */
static void ramp_ends(const axis *a, const double r[2], int ends[2])
{
    double low = a->n_waves;
    double high = a->n_waves;
    if (r[1] > 0.0) {
        low = fmin(fmax(floor(index_of_turns(a, r[0])), 0.0), a->n_waves);
        high = fmin(fmin(ceil(index_of_turns(a, r[1])), a->width - 1.0), a->n_waves);
    }
    ends[0] = (int)low;
    ends[1] = (int)fmax(high, low);
}

/* 1 up to low, 0 from high on, straight between. */
static double ramp_weight(const int ends[2], int i)
{
    double length = ends[0] == ends[1] ? 0.001 : ends[1] - ends[0];
    return 1.0 - fmin(fmax((i - ends[0]) / length, 0.0), 1.0);
}

static void yarn_three_bands(const axis *a, const double beta[2], const double gamma[2], double ntk_power,
                             double *inv_freq, position_ramps *ramps)
{
    ramp_ends(a, beta, ramps->beta);
    ramp_ends(a, gamma, ramps->gamma);
    for (int i = 0; i < a->n_waves; i++) {
        double native = native_wave(a, i);
        double wb = ramp_weight(ramps->beta, i);
        double wg = ramp_weight(ramps->gamma, i);
        double slow = native / a->s * (1.0 - wb) + ntk_wave(a, a->s, ntk_power, i) * wb;
        inv_freq[i] = slow * (1.0 - wg) + native * wg;
    }
}

/* FiT's own "yarn". */
static void yarn_index_ramp(const axis *a, double *inv_freq, position_ramps *ramps)
{
    static const double turns[2] = {32.0, 1.0};
    ramp_ends(a, turns, ramps->beta);
    for (int i = 0; i < a->n_waves; i++) {
        double native = native_wave(a, i);
        double w = ramp_weight(ramps->beta, i);
        inv_freq[i] = native / a->s * (1.0 - w) + native * w;
    }
}

/* The paper's two bands: a ramp linear in turns over `length`, between 1 and 32 of them, both times kappa. */
static void yarn_two_bands(const axis *a, double length, double kappa, double *inv_freq)
{
    double alpha = 1.0 * kappa;
    double beta = 32.0 * kappa;
    for (int i = 0; i < a->n_waves; i++) {
        double native = native_wave(a, i);
        double r = length * native / TWO_PI;
        double g = r < alpha ? 0.0 : r > beta ? 1.0 : (r - alpha) / (beta - alpha);
        inv_freq[i] = (1.0 - g) * native / a->s + g * native;
    }
}

/* lambda_s when the job leaves it to the variant: what the authors use. */
static double lambda_s_of(const position_opts *opts)
{
    if (!isnan(opts->lambda_s)) return opts->lambda_s;
    if (opts->method != POSITION_YARN) return 2.0;
    switch (opts->variant) {
    case VARIANT_V1:
    case VARIANT_ABLATE_NTK_ONLY:
    case VARIANT_ABLATE_BOTH:
        return 2.0;
    default:
        return 1.0;
    }
}

double position_kappa(const position_opts *opts, double t)
{
    return is_dype(opts) ? lambda_s_of(opts) * pow(t, opts->lambda_t) : 1.0;
}

static void yarn(const position_opts *opts, const axis *a, double t, double *inv_freq, double *mscale,
                 position_ramps *ramps)
{
    double tau = 1.0 + 0.1 * log(a->s);
    double kappa = position_kappa(opts, t);
    double beta[2] = {BETA[0], BETA[1]};
    double gamma[2] = {GAMMA[0], GAMMA[1]};
    double ntk_power = 1.0;
    *mscale = tau;
    switch (opts->variant) {
    case VARIANT_PAPER:
    case VARIANT_PAPER_L1024:
        *mscale = sqrt(tau); /* on q and on k: the logit receives tau once */
        yarn_two_bands(a, opts->variant == VARIANT_PAPER ? a->base_patches : 1024.0, kappa, inv_freq);
        return;
    case VARIANT_FIT2:
        yarn_index_ramp(a, inv_freq, ramps);
        return;
    case VARIANT_ABLATE_NTK_ONLY:
        ntk_power = kappa;
        kappa = 1.0;
        break;
    case VARIANT_ABLATE_BOTH:
        ntk_power = kappa;
        kappa = pow(t, opts->lambda_t);
        break;
    default:
        break;
    }
    for (int j = 0; j < 2; j++) {
        bool power = opts->dype && opts->variant == VARIANT_V1;
        beta[j] = power ? pow(beta[j], kappa) : beta[j] * kappa;
        gamma[j] = power ? pow(gamma[j], kappa) : gamma[j] * kappa;
    }
    yarn_three_bands(a, beta, gamma, ntk_power, inv_freq, ramps);
}

static double time_aware_wave(const position_opts *opts, const axis *a, double t, int i)
{
    double clock = 1.0 - t; /* Lumina's: 0 is noise */
    double interpolated = native_wave(a, i) / a->s;
    if (opts->variant == VARIANT_CONTINUOUS) {
        double d = (a->width - 1.0) * clock + 1.0;
        double base = ROTARY_BASE * pow(a->s, a->width / d);
        return fmax(pow(base, -2.0 * i / a->width), interpolated);
    }
    return clock < WATERSHED ? interpolated : pow(ROTARY_BASE * a->s, -2.0 * i / a->width);
}

static double ntk_dynamic_wave(const position_opts *opts, const axis *a, double kappa, int i)
{
    /* Under 1 the product would speed the waves up without bound. */
    if (opts->variant == VARIANT_ABLATE_MULT) return ntk_wave(a, fmax(1.0, a->s * kappa), 1.0, i);
    return ntk_wave(a, a->s, kappa, i);
}

void position_frequencies_ramps(const position_opts *opts, int width, int base_patches, int patches, double t,
                                double *inv_freq, double *mscale, position_ramps *ramps)
{
    const axis a = {
        .width = width,
        .n_waves = width / 2,
        .base_patches = base_patches,
        .s = (double)patches / base_patches,
    };
    assert(width > 0 && width % 2 == 0 && base_patches > 0 && patches > 0);
    double kappa = position_kappa(opts, t);
    position_method method = patches > base_patches ? opts->method : POSITION_BASE;
    *mscale = 1.0;
    *ramps = (position_ramps){{-1, -1}, {-1, -1}};
    if (method == POSITION_YARN) {
        yarn(opts, &a, t, inv_freq, mscale, ramps);
        return;
    }
    for (int i = 0; i < a.n_waves; i++) {
        switch (method) {
        case POSITION_PI:
            inv_freq[i] = native_wave(&a, i) / pow(a.s, kappa);
            break;
        case POSITION_NTK:
            inv_freq[i] = ntk_dynamic_wave(opts, &a, kappa, i);
            break;
        case POSITION_TIME_AWARE:
            inv_freq[i] = time_aware_wave(opts, &a, t, i);
            break;
        default:
            inv_freq[i] = native_wave(&a, i);
            break;
        }
    }
}

void position_frequencies(const position_opts *opts, int width, int base_patches, int patches, double t,
                          double *inv_freq, double *mscale)
{
    position_ramps ramps;
    position_frequencies_ramps(opts, width, base_patches, patches, t, inv_freq, mscale, &ramps);
}

void position_table(int width, int patches, const double *inv_freq, double mscale, bool bf16_ids, float *table)
{
    float m = (float)mscale;
    for (int p = 0; p < patches; p++) {
        double position = bf16_ids ? (double)bf16_round((float)p) : p;
        for (int i = 0; i < width / 2; i++) {
            double angle = position * inv_freq[i];
            *table++ = (float)cos(angle) * m;
            *table++ = (float)sin(angle) * m;
        }
    }
}

status position_plan_make(position_plan *out, const position_opts *opts, const int axes_dims_rope[POSITION_AXES],
                          int base_patches, int rows, int cols, bool bf16_ids)
{
    status st = ST_OK;
    position_plan plan = {
        .opts = *opts, .base_patches = base_patches, .patches = {1, rows, cols}, .bf16_ids = bf16_ids};
    TRY(position_check(opts));
    if (base_patches < 1)
        return err_set(ST_BAD_JOB, "position: base resolution of %d patches, want at least 1", base_patches);
    assert(rows > 0 && cols > 0);
    for (int a = 0; a < POSITION_AXES; a++) {
        plan.width[a] = axes_dims_rope[a];
        if (plan.width[a] < 2 || plan.width[a] % 2 != 0 || plan.width[a] > MAX_WIDTH)
            return err_set(ST_BAD_MODEL, "position: axes_dims_rope[%d]: got %d, want an even number from 2 to %d", a,
                           plan.width[a], MAX_WIDTH);
        plan.offset[a] = plan.n_floats;
        plan.n_floats += (size_t)plan.patches[a] * (size_t)plan.width[a];
    }
    *out = plan;
fail:
    return st;
}

/* P as the method sees it: the largest position plus one. */
static int patches_seen(const position_plan *plan, int a)
{
    if (!plan->bf16_ids) return plan->patches[a];
    return (int)bf16_round((float)(plan->patches[a] - 1)) + 1;
}

void position_wrap(int width, int patches, double *inv_freq)
{
    const double turn = 2 * acos(-1.0) / patches; /* per patch: one turn over all */
    for (int i = 0; i < width / 2; i++) inv_freq[i] = nearbyint(inv_freq[i] / turn) * turn;
}

void position_plan_close(position_plan *plan)
{
    assert(!plan->wrap);
    plan->wrap = true;
    plan->keep = plan->n_floats;
    for (int a = 0; a < POSITION_AXES; a++) plan->n_floats += (size_t)plan->width[a];
}

/* [width of all axes]: 1, and 0 for both channels of each column wave that turns. */
static void keep_table(const position_plan *plan, const double *inv_freq, float *keep)
{
    for (int a = 0; a < POSITION_AXES; a++)
        for (int c = 0; c < plan->width[a]; c++) *keep++ = a == 2 && inv_freq[c / 2] != 0 ? 0.0f : 1.0f;
}

void position_plan_frequencies(const position_plan *plan, int a, double t, double *inv_freq, double *mscale)
{
    static const position_opts native = {.method = POSITION_BASE};
    position_frequencies(a == 0 ? &native : &plan->opts, plan->width[a], plan->base_patches, patches_seen(plan, a), t, inv_freq,
                         mscale);
    if (a == 2 && plan->wrap) position_wrap(plan->width[a], plan->patches[a], inv_freq);
}

void position_plan_tables(const position_plan *plan, double t, float *tables)
{
    for (int a = 0; a < POSITION_AXES; a++) {
        double inv_freq[POSITION_MAX_WAVES];
        double mscale;
        position_plan_frequencies(plan, a, t, inv_freq, &mscale);
        if (a == 2 && plan->wrap) keep_table(plan, inv_freq, tables + plan->keep);
        position_table(plan->width[a], plan->patches[a], inv_freq, mscale, plan->bf16_ids, tables + plan->offset[a]);
    }
}

static bool axis_is_scaled(const position_plan *plan, int a)
{
    return plan->opts.method != POSITION_BASE && patches_seen(plan, a) > plan->base_patches;
}

bool position_plan_is_active(const position_plan *plan)
{
    return axis_is_scaled(plan, 1) || axis_is_scaled(plan, 2);
}

bool position_plan_is_dynamic(const position_plan *plan)
{
    bool moves = plan->opts.method == POSITION_TIME_AWARE || is_dype(&plan->opts);
    return moves && position_plan_is_active(plan);
}

/* Appends to a string of *length in buf, cut at size. */
__attribute__((format(printf, 4, 5))) static void append(char *buf, size_t size, size_t *length, const char *fmt, ...)
{
    va_list ap;
    if (*length + 1 >= size) return;
    va_start(ap, fmt);
    int n = vsnprintf(buf + *length, size - *length, fmt, ap);
    va_end(ap);
    if (n > 0) *length += (size_t)n;
}

char *position_plan_describe(const position_plan *plan, char *buf, size_t size)
{
    static const char *const axis_names[POSITION_AXES] = {"", "rows", "columns"};
    position_opts opts = plan->opts;
    char label[POSITION_LABEL_BYTES];
    size_t length = 0;
    opts.dype = is_dype(&opts);
    if (size > 0) buf[0] = '\0';
    append(buf, size, &length, "%s", position_label(&opts, label));
    if (opts.dype) append(buf, size, &length, ", lambda_s %g, lambda_t %g", lambda_s_of(&opts), opts.lambda_t);
    for (int a = 1; a < POSITION_AXES; a++) {
        append(buf, size, &length, "%s %s ", a == 1 ? ":" : ",", axis_names[a]);
        if (axis_is_scaled(plan, a))
            append(buf, size, &length, "%d patches (%.2f x base %d)", plan->patches[a],
                   (double)patches_seen(plan, a) / plan->base_patches, plan->base_patches);
        else
            append(buf, size, &length, "native (%d patches, base %d)", plan->patches[a], plan->base_patches);
    }
    if (plan->wrap) append(buf, size, &length, ", closed to a ring");
    return buf;
}
