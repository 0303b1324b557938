/* --plot-positions: which angle per patch each wave has at each step of a job's pictures, beside the native one,
 * interpolation and NTK, for both axes, with kappa. From the configs of the model alone; one rank. */
#ifndef DYPE_POSITIONS_PLOT_H
#define DYPE_POSITIONS_PLOT_H

#include "job.h"
#include "model.h"
#include "report.h"

/* The drawing at path, the numbers beside it with the ending .csv. Pictures with the same positions at the same noise levels
 * are told once, under the name of the first.
 *   CSV: picture, method, step, sigma, t, kappa, axis, patches, base_patches, wave, native, pi, ntk, used (all angles per
 *   patch, pi and ntk of this axis's s), slowed = ln(native / used) / ln(s) (0 native, 1 interpolated; empty on a native
 *   axis and for waves that stand still), mscale */
status positions_plot(const char *path, const job *j, const model *m, report *r);

#endif
