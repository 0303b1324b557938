/* The VAE decoder's weights: bound by name, norms widened and put on the device. */
#ifndef DYPE_VAE_WEIGHTS_H
#define DYPE_VAE_WEIGHTS_H

#include "device.h"
#include "linear.h"
#include "model.h"

enum { VAE_MAX_RESNETS = 16 };

typedef struct norm {
    weight scale, shift;
    float *on_device; /* [2, channels]: scale, then shift */
} norm;

typedef struct resnet {
    norm    norm1, norm2;
    linear  conv1, conv2, shortcut; /* shortcut.w.data is NULL when the widths are equal */
    int32_t c_in, c_out;
} resnet;

typedef struct mid_attention {
    norm   norm;
    linear q, k, v, out;
} mid_attention;

typedef struct up_block {
    resnet  resnets[VAE_MAX_RESNETS];
    linear  upsample; /* w.data is NULL in the last block */
    int32_t c_out;
} up_block;

typedef struct decoder_ends {
    linear post_quant; /* w.data is NULL without use_post_quant_conv */
    linear conv_in, conv_out;
    norm   norm_out;
} decoder_ends;

typedef struct vae_weights {
    weights      *files;
    device       *dev;
    decoder_ends  ends;
    resnet        mid[2];
    mid_attention attention;
    up_block      up[VAE_MAX_BLOCKS];
    float        *norms; /* device: all of them */
    size_t        norm_floats;
} vae_weights;

/* Resnets per up block. */
int vae_resnets(const vae_config *c);
/* Channels of all layers, from the config alone; nothing is loaded. */
void vae_widths(vae_weights *w, const vae_config *c);

/* type: of activations; norm weights are rounded to bf16 when that is bf16. */
status vae_weights_open(vae_weights **out, const model *m, dtype type, device *dev, stream *compute);
void   vae_weights_close(vae_weights *w); /* accepts NULL */

#endif
