/* The transformer's weights by name: one table (flux_weights.c) that binds, checks and counts them.
 * Names and shapes: FluxTransformer2DModel of diffusers. D = heads * head_dim. */
#ifndef DYPE_FLUX_WEIGHTS_H
#define DYPE_FLUX_WEIGHTS_H

#include "linear.h"
#include "model.h"

/* What one stream (image or text) of a double block owns. */
typedef struct flux_stream_weights {
    linear modulation;     /* [6D, D]: shift, scale, gate of attention, then of the MLP */
    linear q, k, v, out;   /* [D, D] */
    linear ff_in, ff_out;  /* [4D, D], [D, 4D] */
    weight norm_q, norm_k; /* [head_dim] */
} flux_stream_weights;

typedef struct flux_double_weights {
    flux_stream_weights image, text;
} flux_double_weights;

typedef struct flux_single_weights {
    linear modulation; /* [3D, D]: shift, scale, gate */
    linear q, k, v;    /* [D, D] */
    linear mlp;        /* [4D, D] */
    linear out;        /* [D, D + 4D]: attention first, then MLP */
    weight norm_q, norm_k;
} flux_single_weights;

typedef struct flux_mlp_weights {
    linear in, out;
} flux_mlp_weights;

typedef struct flux_global_weights {
    linear           x_embedder, context_embedder;
    flux_mlp_weights time, guidance, pooled; /* guidance.in.w.data is NULL without guidance_embeds */
    linear           norm_out;               /* [2D, D]: scale, then shift */
    linear           proj_out;
} flux_global_weights;

typedef struct flux_weights {
    weights             *files;
    flux_global_weights  global;
    flux_double_weights *doubles; /* [num_layers] */
    flux_single_weights *singles; /* [num_single_layers] */
} flux_weights;

/* Binds every tensor; nothing is read yet beyond headers. */
status flux_weights_open(flux_weights **out, const model *m);
void   flux_weights_close(flux_weights *w); /* accepts NULL */

#endif
