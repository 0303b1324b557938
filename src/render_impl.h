/* What the files of a render share: render.c (the recipe and its steps), render_output.c (latent -> PNG), render_decode.c (that
 * alone, of a saved latent), render_measure.c (the step loop alone). Nobody else includes this. */
#ifndef DYPE_RENDER_IMPL_H
#define DYPE_RENDER_IMPL_H

#include "arena.h"
#include "checkpoint.h"
#include "embedding_cache.h"
#include "flux_transformer.h"
#include "keeper.h"
#include "preview.h"
#include "prompt.h"
#include "recipe.h"
#include "render.h"
#include "schedule.h"
#include "sha256.h"
#include "vae_decoder.h"

struct renderer {
    renderer_opts     opts;
    comm             *comm; /* of this replica */
    const tap        *tap;
    stream           *compute;
    flux_transformer *transformer;
    vae_decoder      *vae;
    embedding_cache  *embeddings; /* rank 0; NULL: none */
    prompt_rows       prompt; /* rank 0: of the last picture, for others with the same prompt */
    char              prompt_key[SHA256_HEX];
    bool              load_parts; /* each rank reads its part of the weights that all need */
    preview_map       preview_map;
    bool              has_preview_map;
};

/* One picture on its way. */
typedef struct picture {
    const job_picture *job;
    geometry           geometry;
    position_plan      positions;
    schedule          *schedule;
    float             *t_model; /* [steps] */
    int32_t            n_text;
    recipe             recipe; /* rank 0 */
    bool               keeps;  /* its states and latents survive a kill; not those of a benchmark */
    keeper            *keeper; /* rank 0 */
    keeper_found       found;  /* of earlier runs; latents on rank 0 */
    float             *tables; /* host: position tables of the step */
    arena              memory;
    float             *latents;  /* device: [n_image of this rank, channels] */
    void              *velocity; /* device: the same in the activations' type */
    size_t            *bytes_of_ranks; /* of the latents that each rank owns */
    float             *own;      /* host: this rank's latents, on their way to or from rank 0 */
    preview           *preview;  /* NULL: none is wanted, or can be made */
    void              *own_velocity; /* host: this rank's, for it */
    float             *packed;   /* rank 0: the gathered latent [n_image, channels], unless the keeper has it */
    const float       *latent;   /* rank 0: the finished one, lent */
    char               latents_sha256[SHA256_HEX], pixels_sha256[SHA256_HEX];
    int64_t            exchanged; /* bytes that this rank sent in the step loop; during it: before it */
    double             computed;  /* floating-point operations before it */
    int64_t            loaded;    /* bytes of weights copied to a GPU before it */
    double             loop_s, loop_cpu_s; /* of the step loop: wall clock, and processor seconds of this rank */
    double             started;
} picture;

/* The stages, in the order of the recipe (renderer_picture): collective, the same status on all ranks. */
status render_begin(renderer *r, picture *x);             /* size, schedule, positions, recipe */
status render_claim(renderer *r, picture *x, bool redo);  /* lock and journal; redo: a finished picture too */
status render_encode(renderer *r, picture *x);
status render_prepare(renderer *r, picture *x);
status render_noise(renderer *r, picture *x);
status render_denoise(renderer *r, picture *x, int step);
status render_gather(renderer *r, picture *x);
status render_decode(renderer *r, picture *x);
status render_finish(renderer *r, picture *x);
void   render_end(renderer *r, picture *x, status st);    /* after all that begun, whatever became of it */

/* This rank's latents -> x->own; nobody has agreed yet. */
status render_fetch_own(renderer *r, picture *x);
/* Ends with ST_AGAIN on all ranks when one has heard a signal; `after` what, for the message. */
status render_stop_if_asked(renderer *r, picture *x, const char *after);

/* Whether this rank is the one that prints, reads and writes. */
static inline bool speaks(const renderer *r)
{
    return comm_rank(r->comm) == 0;
}

static inline status agree(renderer *r, status mine)
{
    return comm_agree(r->comm, mine);
}

static inline dtype type_of(const renderer *r)
{
    return r->opts.job->precision;
}

static inline bool parity_of(const renderer *r, const picture *x)
{
    return x->job->parity_diffusers && type_of(r) == DT_BF16;
}

#endif
