/* A linear layer or convolution of a model: its tensors in the file, and lending them to a stream. */
#ifndef DYPE_LINEAR_H
#define DYPE_LINEAR_H

#include "device.h"
#include "weights.h"

/* As the file has it; b.data is NULL where the model has no bias. */
typedef struct linear {
    weight w, b;
} linear;

/* Lends weight and bias to the work that follows on s, until linear_return in stream order. */
status linear_lend(stream *s, const linear *l, linear_weight *out);
status linear_return(stream *s, const linear_weight *lent);

int64_t weight_count(const weight *w);
size_t  weight_bytes(const weight *w);

/* Applies l to n_rows rows, lending it for the call: y = act(x W^T + b), or y += gate * (x W^T + b). */
typedef struct linear_rows {
    const void  *x;
    void        *y;
    int64_t      ldx, ldy;
    int32_t      n_rows, n_first; /* see linear_args */
    activation   act;
    const float *gate;
    dtype        type, y_type;
    bool         parity;
} linear_rows;
status linear_put(stream *s, const linear *l, const linear_rows *rows);

/* After the work put on s so far, the pages of a struct made of `weight`s alone may leave memory. */
status stream_drop(stream *s, weights *files, const void *weights_struct, size_t bytes);

/* Whether mapped weights of so many bytes should leave memory after use: they are over a quarter of this machine's. */
bool linear_pages_are_scarce(int64_t bytes);

/* Widens a small tensor to fp32; with `round`, to bf16 first, as a bf16 model holds it. out: [weight_count]. */
void weight_widen(const weight *w, bool round, float *out);

#endif
