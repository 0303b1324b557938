/* Rotary positions: which angle per patch each wave of an axis gets, by every method and variant (position_kind.h,
 * docs/method.md), and the cos/sin tables made of them.
 *
 * An axis of width D has D/2 waves; wave i natively turns theta_i = 10000^(-2i/D) per patch. With P patches on an axis
 * trained for L, s = P/L; an axis with s <= 1 keeps its native waves whatever the method and whatever other axes do.
 * Axis 0 is never altered: its positions are all 0. Only rank 0 calls this; the others receive its tables. */
#ifndef DYPE_POSITION_H
#define DYPE_POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "position_kind.h"
#include "status.h"

enum { POSITION_AXES = 3, POSITION_MAX_WAVES = 256 /* of an axis */ };

/* ST_BAD_JOB for a variant that the method does not have and for constants out of range. base and time-aware take
 * either `dype`. */
status position_check(const position_opts *opts);

/* Angle per patch of each wave, and the factor on cos and sin, of one spatial axis at noise level t (1 = noise).
 * width is even; inv_freq holds width / 2. opts has passed position_check. */
void position_frequencies(const position_opts *opts, int width, int base_patches, int patches, double t,
                          double *inv_freq, double *mscale);

/* The same with the integer ends of the index ramps: weight 1 up to low, 0 from high on. -1 where a method has no such
 * ramp, and on an axis that is native. For plots and tests. */
typedef struct position_ramps {
    int beta[2];  /* low, high: from NTK to interpolation (fit2: from native to interpolation) */
    int gamma[2]; /* low, high: from native to NTK */
} position_ramps;
void position_frequencies_ramps(const position_opts *opts, int width, int base_patches, int patches, double t,
                                double *inv_freq, double *mscale, position_ramps *ramps);

/* How far the method is taken at noise level t: lambda_s t^lambda_t of a dynamic method; 1, the static method, of others. */
double position_kappa(const position_opts *opts, double t);

/* table[p][i] = (cos, sin) * mscale of position p, wave i; [patches, width / 2, 2]. Angle, cos and sin in fp64, stored
 * as fp32, multiplied in fp32. bf16_ids: position p is rounded to bf16, as the reference does in a bf16 run. */
void position_table(int width, int patches, const double *inv_freq, double mscale, bool bf16_ids, float *table);

/* Waves of a closed axis (`wrap: horizontal`): each angle per patch is rounded to a whole number of turns over all patches,
 * so that position `patches` is position 0 again. Waves of less than half a turn stand still. */
void position_wrap(int width, int patches, double *inv_freq);

/* The tables of one picture in one buffer of n_floats, axis a from offset[a] on; the layout of device operations. Text
 * rows use row 0 of every axis. */
typedef struct position_plan {
    position_opts opts;
    int           base_patches;           /* L */
    int           width[POSITION_AXES];   /* axes_dims_rope of the transformer's config */
    int           patches[POSITION_AXES]; /* table rows: 1, token rows, token columns */
    size_t        offset[POSITION_AXES];  /* in floats */
    size_t        n_floats;
    bool          wrap; /* columns are a ring: position_plan_close */
    size_t        keep; /* with wrap, in floats: [sum of widths], 0 for channels of waves that turn with the column */
    bool          bf16_ids; /* `parity: diffusers` in bf16: positions past 256 collide, and s sees the rounded ones */
} position_plan;

/* A width that is odd or an option that position_check refuses is an error. */
status position_plan_make(position_plan *out, const position_opts *opts, const int axes_dims_rope[POSITION_AXES],
                          int base_patches, int rows, int cols, bool bf16_ids);

/* Closes the columns to a ring: whole turns per width (position_wrap), and between text and image the channels of waves
 * that turn are left out, their mean over all columns being 0: otherwise text, which has no column, would tell one
 * column from another. Once, after position_plan_make. */
void position_plan_close(position_plan *plan);

/* Angle per patch of each wave of axis a, and the factor on cos and sin, as the tables have them. inv_freq: [width / 2]. */
void position_plan_frequencies(const position_plan *plan, int a, double t, double *inv_freq, double *mscale);

/* All tables at noise level t. tables: [n_floats]. Allocates nothing. */
void position_plan_tables(const position_plan *plan, double t, float *tables);

/* Whether any axis is longer than the model was trained for, under a method that minds. When not, the picture is
 * that of method base, and users should be told. */
bool position_plan_is_active(const position_plan *plan);

/* True when tables depend on t, so that they must be made anew at each step. */
bool position_plan_is_dynamic(const position_plan *plan);

/* One line for the log: "dy-yarn, lambda_s 1, lambda_t 2: rows 256 patches (4.00 x base 64), columns native (64
 * patches, base 64)". Cut at size; returns buf. */
char *position_plan_describe(const position_plan *plan, char *buf, size_t size);

#endif
