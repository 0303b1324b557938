/* The weights of one part of a model (transformer, vae, text_encoder, text_encoder_2): all its safetensors files as one
 * set of named tensors. Names are met once, in a table of weight_spec: weights_bind looks each up, checks its shape and
 * type and fills a struct; afterwards code says layer.q. The data stays in the mapped files, shared by the ranks of a
 * node. Open, bind any number of structs, drop what is not needed for now, close. One thread at a time binds;
 * what is bound is read from any thread. */
#ifndef DYPE_WEIGHTS_H
#define DYPE_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "status.h"

enum { WEIGHT_MAX_DIMS = 4 };

/* One tensor. data and name are lent by the weights that bound it. */
typedef struct weight {
    const void *data; /* C order, aligned to its element; NULL: optional and absent */
    dtype type;       /* DT_BF16, DT_F16 or DT_F32 */
    int n_dims;
    int64_t shape[WEIGHT_MAX_DIMS];
    const char *name; /* as in the file */
} weight;

/* One line of a binding table:
 * { offsetof(t5_layer, q), "encoder.block.%d.layer.0.SelfAttention.q.weight", 2, { DIM_INNER, DIM_MODEL } } */
typedef struct weight_spec {
    size_t offset;    /* of the `weight` in the struct to fill */
    const char *name; /* may hold one %d: the layer */
    int n_dims;
    int8_t dim[WEIGHT_MAX_DIMS]; /* indices into dims[] of weights_bind */
    bool optional;               /* absent: the weight is all zero bytes */
    const char *alias;           /* an older name of the same tensor; NULL: none */
} weight_spec;

typedef struct weights weights;

typedef struct weights_opts {
    const char *dir;      /* folder of the part */
    const char *stem;     /* "diffusion_pytorch_model" or "model" */
    const char *what;     /* word for messages: "transformer" */
    const char *unneeded; /* tensors whose names begin so are not reported as unused; NULL: none */
} weights_opts;

/* Finds the files (index first, then one file, then a variant, then any single *.safetensors) and checks every header.
 * All failures but lack of memory are ST_BAD_MODEL. */
status weights_open(weights **out, const weights_opts *opts);
void weights_close(weights *w); /* accepts NULL */

/* Fills the `weight` members of out_struct. Shapes must be equal; 1s at the end of a stored shape are let go (old VAE
 * attention is stored as a convolution). When tensors are missing or wrong, the first five are told in one message. */
status weights_bind(weights *w, const weight_spec *specs, size_t n_specs, int layer, const int64_t *dims,
                    void *out_struct);
/* The same with prefix before every name and alias: "decoder.up_blocks.2.resnets.1.". */
status weights_bind_under(weights *w, const char *prefix, const weight_spec *specs, size_t n_specs, const int64_t *dims,
                          void *out_struct);

/* Gives back the memory pages of n weights until they are read again; the weights stay valid. */
void weights_drop(weights *w, const weight *list, size_t n);

/* Tensors that nobody has bound so far. *first: the name of one, lent; may be NULL. */
int64_t weights_unused(const weights *w, const char **first);
/* Bytes of all tensors, and of those bound so far. */
int64_t weights_bytes(const weights *w);
int64_t weights_bound_bytes(const weights *w);
/* What is odd but no error (tensors that the index does not name, misaligned tensors that had to be copied): one
 * sentence, "" when nothing is. Lent until the next bind or close. */
const char *weights_note(const weights *w);

/* The files behind it, index included: for hashing. Names are relative to opts.dir. */
size_t weights_n_files(const weights *w);
const char *weights_file(const weights *w, size_t index);

#endif
