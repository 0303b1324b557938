/* A FLUX.1 model folder in the diffusers layout: its configs, read and checked against each other. Weights are opened
 * part by part, when they are needed. Open, read the fields, close; read-only, so any thread. Numbers that a config
 * leaves out have the class defaults of diffusers and transformers. */
#ifndef DYPE_MODEL_H
#define DYPE_MODEL_H

#include <stdbool.h>

#include "schedule.h"
#include "status.h"
#include "weights.h"

enum { VAE_MAX_BLOCKS = 8, MODEL_TEXT_ROWS = 512 /* FLUX takes no more */ };

typedef struct flux_config {   /* transformer/config.json */
    int in_channels;           /* of a packed token: 4 x the VAE's latent_channels */
    int out_channels;          /* = in_channels */
    int num_layers;            /* double blocks; may be 0 */
    int num_single_layers;     /* single blocks; may be 0 */
    int head_dim, n_heads;     /* width D = head_dim * n_heads, MLP width 4 D */
    int joint_attention_dim;   /* width of the T5 rows */
    int pooled_projection_dim; /* width of the CLIP vector */
    bool guidance_embeds;
    int axes_dims_rope[3]; /* each even; the sum is head_dim */
} flux_config;

typedef struct vae_config {                           /* vae/config.json */
    int block_out_channels[VAE_MAX_BLOCKS], n_blocks; /* encoder order: the decoder goes from the last to the first */
    int layers_per_block;                             /* the decoder has one resnet more per block */
    int latent_channels, out_channels;                /* out_channels is 3 */
    int norm_num_groups;                              /* divides every block_out_channels */
    double scaling_factor, shift_factor;              /* z / scaling + shift; shift null is 0 */
    bool use_post_quant_conv, mid_block_add_attention;
    int sample_size; /* pixels a side of the training pictures: 1024 */
    int scale;       /* pixels per latent row: 2^(n_blocks - 1) */
} vae_config;

typedef enum clip_act { CLIP_QUICK_GELU, CLIP_GELU } clip_act;

typedef struct clip_config { /* text_encoder/config.json */
    int vocab_size, hidden, intermediate, layers, heads, max_position;
    clip_act act;
    double eps;
    int eos_token_id; /* 2: the legacy value, pool at the first largest id */
} clip_config;

typedef struct t5_config { /* text_encoder_2/config.json */
    int vocab_size, d_model, d_kv, heads, d_ff, layers;
    int num_buckets, max_distance; /* of the relative attention bias */
    double eps;
} t5_config;

typedef struct model {
    char *dir;
    flux_config flux;
    vae_config vae;
    clip_config clip;
    t5_config t5;
    int max_text_rows; /* model_max_length of tokenizer_2/tokenizer_config.json; at most MODEL_TEXT_ROWS, also when absent */
    schedule_config scheduler; /* scheduler/scheduler_config.json */
} model;

typedef enum model_part { MODEL_TRANSFORMER, MODEL_VAE, MODEL_CLIP, MODEL_T5, MODEL_N_PARTS } model_part;

/* Reads every config of dir. A folder that is missing, broken or not FLUX.1 text-to-image is ST_BAD_MODEL, with what it
 * is and, when it is missing, how to obtain one. */
status model_open(model **out, const char *dir);
void model_close(model *m); /* accepts NULL */

/* Opens the weights of one part: yours to close. */
status model_open_weights(weights **out, const model *m, model_part part);
/* dir/relative, yours to free: "tokenizer/vocab.json". */
status model_path(char **out, const model *m, const char *relative);
/* "transformer", "vae", "text_encoder", "text_encoder_2". Static. */
const char *model_part_name(model_part part);

#endif
