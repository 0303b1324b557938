/* What the strips of a decode say to each other. Each rank that has rows holds one strip: some rows of tokens, at every
 * resolution the same part of the picture. Its neighbours hold the rows above and below.
 *
 *   halo     one input row from each neighbour, for a 3 x 3 convolution
 *   totals   sums for GroupNorm pass through the strips from top to bottom, each adding its rows one after the other, then
 *            the last one tells all: the same additions in the same order as on one rank
 *   edges    the mid block's attention takes keys in tiles of KEY_TILE pixels that start at pixel 0 of the whole latent,
 *            so a rank's block of keys ends at a multiple of KEY_TILE, not where its strip ends: the first few pixels of a
 *            strip go to the rank whose block they finish
 *
 * All but open and close put work on the compute stream and return; they work also after the stream has failed, so that a
 * rank that has failed leaves nobody waiting. */
#ifndef DYPE_VAE_STRIPS_H
#define DYPE_VAE_STRIPS_H

#include "comm.h"
#include "geometry.h"

typedef struct vae_strips {
    comm    *whole;  /* borrowed */
    comm    *group;  /* the ranks that have rows, top to bottom; whole itself when all have */
    stream  *compute;
    int      rank, n_strips;
    strip    mine;
    message *sends, *receives; /* [n_strips] edges */
} vae_strips;

/* Pixels [first, end) of the whole latent: those of a strip, and those whose keys its rank brings to attention. */
typedef struct pixel_range {
    int64_t first, end;
} pixel_range;
pixel_range vae_strip_pixels(const geometry *g, int n_strips, int index);
pixel_range vae_strip_keys(const geometry *g, int n_strips, int index);

/* Collective over whole. */
status vae_strips_open(vae_strips *s, comm *whole, const geometry *g, device *dev, stream *compute);
void   vae_strips_close(vae_strips *s); /* also all zero */

/* x: [n_rows, row_bytes], device. above, below: room for a row; used where there is a neighbour. */
status vae_strips_halo(vae_strips *s, void *x, int32_t n_rows, size_t row_bytes, void *above, void *below);

/* carry: [bytes] totals of the rows above, before this rank adds its own; stays as it is on the topmost. */
status vae_strips_take_carry(vae_strips *s, double *carry, size_t bytes);
/* carry: with this rank's rows; total: the last strip's carry, on all. */
status vae_strips_pass_carry(vae_strips *s, double *carry, double *total, size_t bytes);

/* head: rows of this strip's first pixels, as many as belong to blocks of ranks above; block: [keys of this rank], the
 * rows of its own pixels are there already. */
status vae_strips_edges(vae_strips *s, const geometry *g, void *head, void *block, size_t row_bytes);

#endif
