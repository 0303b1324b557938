/* Where things are: picture, latent, tokens, and the rows of the one sequence that a rank owns.
 *
 *   picture   width x height px
 *   latent    [channels, latent_h, latent_w], one value per vae_scale x vae_scale px
 *   tokens    [rows, cols], row-major; token (i, j) packs the 2 x 2 latent values at (2i, 2j) of every channel:
 *             feature f = c * 4 + dy * 2 + dx holds latent[c, 2i + dy, 2j + dx]
 *   sequence  n_text text rows, then n_image = rows * cols image rows
 *   tiles     ROW_TILE rows each; the grid starts at row 0 and again at the first image row, so the last text tile
 *             and the last image tile may be short. A rank owns whole tiles.
 *
 * Plain arithmetic: knows no device and no MPI. */
#ifndef DYPE_GEOMETRY_H
#define DYPE_GEOMETRY_H

#include <stdint.h>

#include "ops.h" /* ROW_TILE */
#include "status.h"

enum { PATCH = 2 }; /* latent rows and columns per token */

typedef struct geometry {
    int32_t width, height;      /* px that come out: what was asked, floored to whole tokens */
    int32_t latent_w, latent_h; /* even */
    int32_t cols, rows;         /* tokens across and down */
    int32_t n_image;            /* rows * cols */
} geometry;

/* vae_scale: px per latent value, 2^(levels of the VAE - 1); 8 for FLUX.1. A side under one token, or more tokens
 * than an int32_t counts, is ST_BAD_JOB. */
status geometry_make(geometry *out, int32_t width, int32_t height, int32_t vae_scale);

/* Offset in the latent [channels, latent_h, latent_w] of a token's feature, and back. */
int64_t geometry_latent_offset(const geometry *g, int32_t token, int32_t feature);
void    geometry_token_of(const geometry *g, int64_t latent_offset, int32_t *token, int32_t *feature);

/* Tokens [first_token, first_token + n_tokens) of the whole latent, as [n_tokens, channels * 4], and back. */
void geometry_pack(const geometry *g, int32_t channels, const float *latent, int32_t first_token, int32_t n_tokens,
                   float *packed);
void geometry_unpack(const geometry *g, int32_t channels, const float *packed, int32_t first_token, int32_t n_tokens,
                     float *latent);

/* A run of rows of the sequence. */
typedef struct row_range {
    int32_t first;           /* in the sequence */
    int32_t count;           /* n_text + n_image; 0 for a rank that only takes part */
    int32_t n_text, n_image; /* text rows come first */
} row_range;

/* Tiles of a sequence, and the rows of one of them. */
int32_t   geometry_n_tiles(int32_t n_text, int32_t n_image);
row_range geometry_tile(int32_t n_text, int32_t n_image, int32_t tile);

/* Rows of a rank: contiguous runs in rank order that cover the sequence, cut between tiles, as even in tiles as can
 * be (the first ranks have one more). */
row_range geometry_split(int32_t n_text, int32_t n_image, int32_t n_ranks, int32_t rank);

/* Strips of the decoder: whole rows of tokens, one strip under the other, as even as can be (the first have one more).
 * There are no more strips than rows of tokens: ranks past them have nothing to decode. */
typedef struct strip {
    int32_t first, count; /* rows of tokens */
} strip;
int   geometry_n_strips(const geometry *g, int n_ranks);
strip geometry_strip(const geometry *g, int n_strips, int index);

/* First token among the image rows of a range; meaningless when it has none. */
int32_t geometry_first_token(row_range range, int32_t n_text);

/* Rotary positions of a range's rows as [count, 3] table rows: text (0, 0, 0), image (0, row, column). */
void geometry_positions(const geometry *g, row_range range, int32_t n_text, int32_t *pos);

#endif
