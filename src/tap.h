/* Looks inside a running model: named tensors are handed to whoever asked (--dump, parity tests).
 * Names: text.t5, text.clip, dit.temb, dit.x_embedder, dit.context_embedder, dit.BLOCK.q, .k, .attn_out, .image, .text
 * (BLOCK counts double blocks, then single ones), dit.norm_out, dit.velocity, vae.STAGE. */
#ifndef DYPE_TAP_H
#define DYPE_TAP_H

#include "device.h"

typedef struct tap {
    void *ctx;
    bool (*wants)(void *ctx, const char *name, int step);
    /* rows: [n_rows, width] widened to fp32, lent for the call; first_row in the tensor of all ranks. */
    status (*take)(void *ctx, const char *name, int step, const float *rows, int64_t first_row, int64_t n_rows,
                   int64_t width);
} tap;

/* Waits for the stream and hands over device rows (F32 or BF16, row stride ld) when the tap wants them; t may be NULL. */
status tap_rows(const tap *t, stream *s, const char *name, int step, dtype type, const void *data, int64_t ld,
                int64_t first_row, int64_t n_rows, int64_t width);

#endif
