/* Tiny FLUX.1 model folders (diffusers layout), written where a test wants them. The weights come from the counter,
 * so the reference vectors of tests/vectors/ were computed with exactly these models. */
#ifndef DYPE_TINY_MODEL_H
#define DYPE_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "dtype.h"
#include "status.h"

enum { TINY_LEVELS = 4 };

/* Fields are those of the published configs (spec names in the comments where ours are shorter). */
typedef struct tiny_transformer {
    int in_channels;
    int num_layers, num_single_layers;
    int head_dim, heads; /* attention_head_dim, num_attention_heads */
    int axes[3];         /* axes_dims_rope */
    int joint_dim;       /* joint_attention_dim */
    int pooled_dim;      /* pooled_projection_dim */
    bool guidance;       /* guidance_embeds */
} tiny_transformer;

typedef struct tiny_vae {
    int latent_channels;
    int n_levels;
    int widths[TINY_LEVELS]; /* block_out_channels */
    int layers_per_block;
    int groups; /* norm_num_groups */
    double scaling_factor, shift_factor;
    bool post_quant; /* use_post_quant_conv */
} tiny_vae;

typedef struct tiny_clip {
    int vocab, hidden, intermediate, layers, heads;
    int eos_token_id; /* 2: the legacy rule, pooled at the largest id */
} tiny_clip;

typedef struct tiny_t5 {
    int vocab, d_model, d_kv, heads, d_ff, layers;
} tiny_t5;

typedef struct tiny_model {
    uint64_t seed;
    dtype type;         /* DT_BF16, DT_F16 or DT_F32: every tensor is stored in it */
    int shards;         /* 1: single files; more: transformer and text_encoder_2 have an index */
    bool dynamic_shift; /* scheduler: use_dynamic_shifting */
    double shift;       /* scheduler: shift */
    tiny_transformer transformer;
    tiny_vae vae;
    tiny_clip clip;
    tiny_t5 t5;
} tiny_model;

/* The models of the vector files, 'a' to 'f' (tests/vectors/tiny_models.py):
 * a  FLUX.1-dev in small: heads 2 x 128, guidance, 2 + 2 blocks, VAE of 4 levels, BF16
 * b  schnell in small: heads 3 x 64, no guidance, 1 + 2 blocks, VAE of 2 levels with post_quant_conv, BF16
 * c  odd numbers: heads 5 x 32, 1 + 1 blocks, VAE of 3 levels, F16
 * d  a double block alone, VAE of 1 level, F32
 * e  a single block alone, one head, VAE of 4 levels with post_quant_conv, F32
 * f  not tiny: one block of each kind in the widths of FLUX.1-dev, BF16 (1.1 GB)
 * and of full_size/run.sh:
 * g  the published shape of FLUX.1-dev, 3 shards, BF16 (33 GB) */
tiny_model tiny_model_get(char which);

/* Parts of a folder, to be or'ed. TINY_TOKENIZERS: a CLIP vocabulary of all bytes with no merges, and the SentencePiece
 * model of tests/vectors/; both fit the vocabularies of every tiny model. */
enum {
    TINY_TRANSFORMER = 1,
    TINY_VAE = 2,
    TINY_CLIP = 4,
    TINY_T5 = 8,
    TINY_SCHEDULER = 16,
    TINY_TOKENIZERS = 32,
    TINY_ALL = 63
};

/* Writes model_index.json and the parts into dir, which exists. Same arguments, same bytes. */
status tiny_model_write(const tiny_model *m, int parts, const char *dir);

#endif
