#include "positions_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "geometry.h"
#include "plot.h"
#include "position.h"
#include "schedule.h"
#include "text_file.h"

enum {
    MOST_PICTURES = 64, /* that differ */
    PANEL_W = 300, PANEL_H = 190, LEFT = 56, TOP = 64, GAP = 76, HIGH = 290, /* HIGH: of a picture's row of panels */
    WIDE = 3 * (PANEL_W + GAP) + LEFT
};

static const char *const axis_names[POSITION_AXES] = {"", "rows", "columns"};

/* One picture's positions over its steps. */
typedef struct subject {
    const job_picture *picture;
    position_plan      plan;
    schedule          *schedule;
} subject;

static status subject_open(subject *s, const job *j, const job_picture *p, const model *m)
{
    status    st = ST_OK;
    geometry  g;
    const int base_px = p->position.base_resolution > 0 ? p->position.base_resolution : m->vae.sample_size;
    const bool        bf16 = j->precision == DT_BF16;
    const bool        parity = bf16 && p->parity_diffusers;
    schedule_rounding rounding = parity ? SCHEDULE_PARITY : bf16 ? SCHEDULE_BF16 : SCHEDULE_F32;
    *s = (subject){.picture = p};
    TRY(geometry_make(&g, p->width, p->height, m->vae.scale));
    TRY(position_plan_make(&s->plan, &p->position, m->flux.axes_dims_rope, base_px / (m->vae.scale * PATCH), g.rows, g.cols,
                           parity));
    if (p->wrap == WRAP_HORIZONTAL) position_plan_close(&s->plan);
    TRY(schedule_open(&s->schedule, &(schedule_opts){.config = m->scheduler, .shift = p->shift, .n_steps = p->steps,
                                                     .n_image = g.n_image, .guidance = p->guidance, .rounding = rounding}));
fail:
    return st;
}

/* Whether both would give the same rows. */
static bool same_positions(const subject *a, const subject *b)
{
    const position_opts *x = &a->plan.opts, *y = &b->plan.opts;
    const bool           same_lambda = x->lambda_s == y->lambda_s || (isnan(x->lambda_s) && isnan(y->lambda_s));
    if (x->method != y->method || x->dype != y->dype || x->variant != y->variant || !same_lambda || x->lambda_t != y->lambda_t)
        return false;
    if (a->plan.base_patches != b->plan.base_patches || a->plan.wrap != b->plan.wrap || a->plan.bf16_ids != b->plan.bf16_ids)
        return false;
    if (memcmp(a->plan.patches, b->plan.patches, sizeof(a->plan.patches)) != 0) return false;
    if (a->schedule->n_steps != b->schedule->n_steps) return false;
    for (int i = 0; i < a->schedule->n_steps; i++)
        if (a->schedule->steps[i].t_position != b->schedule->steps[i].t_position) return false;
    return true;
}

/* The waves of one axis at one step. */
typedef struct waves {
    int    n;
    double s, mscale; /* s: patches / base, as far as it exceeds 1 */
    double native[POSITION_MAX_WAVES], pi[POSITION_MAX_WAVES], ntk[POSITION_MAX_WAVES], used[POSITION_MAX_WAVES];
} waves;

static void waves_at(waves *w, const subject *s, int axis, double t)
{
    static const position_opts base = {.method = POSITION_BASE}, pi = {.method = POSITION_PI}, ntk = {.method = POSITION_NTK};
    const position_plan       *plan = &s->plan;
    const int                  width = plan->width[axis], patches = plan->patches[axis];
    double                     m;
    w->n = width / 2;
    w->s = patches > plan->base_patches ? (double)patches / plan->base_patches : 1.0;
    position_frequencies(&base, width, plan->base_patches, patches, t, w->native, &m);
    position_frequencies(&pi, width, plan->base_patches, patches, t, w->pi, &m);
    position_frequencies(&ntk, width, plan->base_patches, patches, t, w->ntk, &m);
    position_plan_frequencies(plan, axis, t, w->used, &w->mscale);
}

/* 0: native, 1: interpolated, 2: twice as far; NaN where that says nothing. */
static double slowed(const waves *w, double used, int i)
{
    return w->s > 1.0 && used > 0.0 ? log(w->native[i] / used) / log(w->s) : NAN;
}

static void print_rows(FILE *out, const subject *s)
{
    char          label[POSITION_LABEL_BYTES];
    position_opts opts = s->plan.opts;
    waves         w;
    opts.dype = opts.dype && position_method_can_dype(opts.method);
    position_label(&opts, label);
    for (int step = 0; step < s->schedule->n_steps; step++) {
        const schedule_step *at = &s->schedule->steps[step];
        for (int axis = 1; axis < POSITION_AXES; axis++) {
            waves_at(&w, s, axis, at->t_position);
            for (int i = 0; i < w.n; i++) {
                const double by = slowed(&w, w.used[i], i);
                fprintf(out, "%s,%s,%d,%.7g,%.9g,%.9g,%s,%d,%d,%d,%.9g,%.9g,%.9g,%.9g,", s->picture->id, label, step,
                        (double)at->sigma, at->t_position, position_kappa(&s->plan.opts, at->t_position), axis_names[axis],
                        s->plan.patches[axis], s->plan.base_patches, i, w.native[i], w.pi[i], w.ntk[i], w.used[i]);
                if (!isnan(by)) fprintf(out, "%.6f", by);
                fprintf(out, ",%.9g\n", w.mscale);
            }
        }
    }
}

static double color_share(const subject *s, int step)
{
    return 1.0 - s->schedule->steps[step].t_position;
}

static void draw_axis(FILE *out, const subject *s, int axis, int top)
{
    const int  n_steps = s->schedule->n_steps;
    double     x[POSITION_MAX_WAVES], y[POSITION_MAX_WAVES], most = 1.1;
    char       title[96], color[PLOT_COLOR];
    waves      w;
    for (int pass = 0; pass < 2; pass++) { /* first how high the curves go, then the curves */
        plot_panel p = {.left = LEFT + (axis - 1) * (PANEL_W + GAP), .top = top, .width = PANEL_W, .height = PANEL_H, .title = title,
                        .x = {"wave (0: fastest)", 0, s->plan.width[axis] / 2 - 1, false}, .y = {"slowed by s to the power", -0.1, most, false}};
        if (p.x.to <= 0) p.x.to = 1;
        waves_at(&w, s, axis, 1.0);
        snprintf(title, sizeof(title), "%s: %d patches, trained for %d%s", axis_names[axis], s->plan.patches[axis], s->plan.base_patches,
                 w.s > 1.0 ? "" : ": native");
        if (pass == 1) plot_axes(out, &p);
        for (int step = 0; w.s > 1.0 && step < n_steps; step++) {
            waves_at(&w, s, axis, s->schedule->steps[step].t_position);
            for (int i = 0; i < w.n; i++) {
                x[i] = i;
                y[i] = slowed(&w, w.used[i], i);
                if (y[i] + 0.1 > most && pass == 0) most = fmin(y[i] + 0.1, 3.0);
            }
            if (pass == 1) plot_curve(out, &p, x, y, w.n, plot_ramp(color_share(s, step), color), false);
        }
        for (int k = 0; pass == 1 && w.s > 1.0 && k < 3; k++) {
            for (int i = 0; i < w.n; i++) y[i] = slowed(&w, k == 0 ? w.native[i] : k == 1 ? w.pi[i] : w.ntk[i], i);
            plot_curve(out, &p, x, y, w.n, "#222222", true);
        }
    }
}

static status draw_kappa(FILE *out, const subject *s, int top)
{
    const int n = s->schedule->n_steps;
    double   *x = calloc(3 * (size_t)n, sizeof(*x)), *kappa = x + n, *t = x + 2 * n;
    double    most = 1.1;
    if (x == NULL) return err_set(ST_NO_MEMORY, "%s: %d steps", s->picture->id, n);
    for (int i = 0; i < n; i++) {
        x[i] = i;
        t[i] = s->schedule->steps[i].t_position;
        kappa[i] = position_kappa(&s->plan.opts, t[i]);
        most = fmax(most, kappa[i] * 1.05);
    }
    const plot_panel p = {.left = LEFT + 2 * (PANEL_W + GAP), .top = top, .width = PANEL_W, .height = PANEL_H,
                          .title = "kappa (line) and t (dashed) of each step", .x = {"step", 0, n > 1 ? n - 1 : 1, false},
                          .y = {"", 0, most, false}};
    plot_axes(out, &p);
    plot_curve(out, &p, x, kappa, n, "#b8452f", false);
    plot_curve(out, &p, x, t, n, "#222222", true);
    free(x);
    return ST_OK;
}

static status draw(FILE *out, const subject *subjects, int n)
{
    status st = ST_OK;
    char   text[512];
    plot_begin(out, WIDE, n * HIGH + 24);
    for (int k = 0; k < n; k++) {
        const int top = k * HIGH + TOP;
        plot_text(out, LEFT, top - 40, true, "%s", subjects[k].picture->id);
        plot_text(out, LEFT, top - 24, false, "%s", position_plan_describe(&subjects[k].plan, text, sizeof(text)));
        for (int axis = 1; axis < POSITION_AXES; axis++) draw_axis(out, &subjects[k], axis, top);
        TRY(draw_kappa(out, &subjects[k], top));
    }
    plot_text(out, LEFT, n * HIGH + 14, false, "Colour: the step, from noise (blue) to picture (orange). Dashed: native (0), "
              "interpolation (1) and NTK (rising).");
    plot_end(out);
fail:
    return st;
}

/* Those of the job that differ. */
static status gather(subject *subjects, int *n, const job *j, const model *m)
{
    status st = ST_OK;
    for (size_t i = 0; i < j->n_pictures; i++) {
        subject s;
        bool    known = false;
        st = subject_open(&s, j, &j->pictures[i], m);
        for (int k = 0; st == ST_OK && k < *n; k++) known = known || same_positions(&subjects[k], &s);
        if (st == ST_OK && !known && *n == MOST_PICTURES)
            st = err_set(ST_USAGE, "--plot-positions: %s: more than %d pictures with positions of their own; choose with --only",
                         j->path, MOST_PICTURES);
        if (st != ST_OK || known) schedule_close(s.schedule);
        TRY(st);
        if (!known) subjects[(*n)++] = s;
    }
fail:
    return st;
}

status positions_plot(const char *path, const job *j, const model *m, report *r)
{
    status    st = ST_OK;
    int       n = 0;
    char     *csv_path = NULL;
    text_file svg = {0}, csv = {0};
    subject  *subjects = calloc(MOST_PICTURES, sizeof(*subjects));
    if (subjects == NULL) {
        st = err_set(ST_NO_MEMORY, "positions of %d pictures", MOST_PICTURES);
        goto fail;
    }
    TRY(gather(subjects, &n, j, m));
    TRY(text_file_beside(&csv_path, path, ".csv"));
    if (strcmp(csv_path, path) == 0) {
        st = err_set(ST_USAGE, "--plot-positions %s: names the drawing; the numbers get its name with .csv", path);
        goto fail;
    }
    TRY(text_file_begin(&csv));
    fprintf(csv.out, "picture,method,step,sigma,t,kappa,axis,patches,base_patches,wave,native,pi,ntk,used,slowed,mscale\n");
    for (int k = 0; k < n; k++) print_rows(csv.out, &subjects[k]);
    TRY(text_file_begin(&svg));
    TRY(draw(svg.out, subjects, n));
    TRY(text_file_commit(&csv, csv_path));
    TRY(text_file_commit(&svg, path));
    report_line(r, "positions of %d picture%s: %s, %s", n, n == 1 ? "" : "s", path, csv_path);
fail:
    for (int k = 0; subjects != NULL && k < n; k++) schedule_close(subjects[k].schedule);
    free(subjects);
    free(csv_path);
    text_file_free(&svg);
    text_file_free(&csv);
    return st;
}
