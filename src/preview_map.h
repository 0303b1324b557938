/* How latents look: a linear map from the channels of one latent value to the mean colour of the pixels it stands for.
 * Fitted by least squares to pictures that the model's own decoder makes of smooth random latents; kept in the cache
 * (cache_dir.h), so that this is done once per model. */
#ifndef DYPE_PREVIEW_MAP_H
#define DYPE_PREVIEW_MAP_H

#include "comm.h"
#include "device.h"
#include "model.h"

enum { PREVIEW_CHANNELS_MAX = 64 };

typedef struct preview_map {
    int   channels;                            /* of the latent: 16 for FLUX.1 */
    float weight[3][PREVIEW_CHANNELS_MAX + 1]; /* red, green, blue in 0 to 255; the constant stands behind the channels */
} preview_map;

typedef struct preview_map_opts {
    const model *model; /* borrowed, as all below */
    const char  *model_sha256;
    const char  *cache_dir; /* NULL: none */
    comm        *comm;
    device      *dev;
    stream      *compute;
    dtype        type; /* of the decode */
} preview_map_opts;

/* Collective: from the cache, else fitted. The same map and status on all ranks. */
status preview_map_get(preview_map *out, const preview_map_opts *opts);

/* A token's features [channels * 4] to its 2 x 2 pixels [dy][dx][3]. */
void preview_map_colour(const preview_map *map, const float *token, unsigned char rgb[12]);

/* Least squares, with one more column of ones: n samples of x [n, channels] and y [n, 3]. For preview_map_get and its test.
 * ST_FAILED when the samples do not tell. */
status preview_map_fit(preview_map *out, int channels, int64_t n, const float *x, const float *y);

#endif
