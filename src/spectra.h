/* --spectra: which frequencies of a picture are settled at which step (the paper's section 3.1). The state of flow matching is
 * x_t = (1 - t) x + t e, so a mode of mean power A in the picture has (1 - t)^2 A + t^2 on the way; its progress is how far
 * the logarithm of its power has come from that of the noise to that of the picture.
 *
 * Radial power spectrum of a plane of H x W: the forward DFT F unscaled, |F|^2 / (H W) (1 on average for white noise of unit
 * variance), averaged over the bins k = floor(n |f| + 1/2) of the frequency |f| in cycles per sample, n = min(H, W), for
 * k = 1 to n / 2: neither the mean nor the corners. The DFT is FFTW's. */
#ifndef DYPE_SPECTRA_H
#define DYPE_SPECTRA_H

#include <stdint.h>

#include "status.h"

typedef struct spectra spectra;

/* Plans and buffers for planes of this size; one thread at a time. */
status  spectra_open(spectra **out, int height, int width);
void    spectra_close(spectra *s); /* accepts NULL */
int     spectra_bins(const spectra *s);
int64_t spectra_modes(const spectra *s, int bin); /* in bin 1 to n / 2 */
/* [height, width], to be filled; spectra_add adds its spectrum to power[0] (bin 1) and on, and spoils it. */
double *spectra_plane(spectra *s);
void    spectra_add(spectra *s, double *power);
/* Of a packed latent [n_image, channels] (geometry.h): the mean over its channels / 4 planes, into power. */
void    spectra_of_latent(spectra *s, int32_t channels, const float *packed, double *power);

/* Equation 12: 1 where the power is that of the noise, 0 where it is that of the picture; NaN where both are too close (0.1
 * in the logarithm) to tell. */
double spectra_remaining(double power, double noise, double clean);

/* power of bin k ~ c / f^w, f = k / n in cycles per sample, by least squares of the logarithms over bins 2 to n / 4. NaN with
 * fewer than two of them. */
void spectra_fit(const double *power, int n_bins, double *c, double *w);

#endif
