#include "flux_weights.h"

#include <stdlib.h>

enum { DIM_D, DIM_2D, DIM_3D, DIM_4D, DIM_5D, DIM_6D, DIM_HEAD, DIM_IN, DIM_OUT, DIM_TEXT, DIM_POOLED, DIM_SIN, N_DIMS };

#define VECTOR(type, field, name, n) {offsetof(type, field), name, 1, {n}, false, NULL}
#define MATRIX(type, field, name, n_out, n_in) {offsetof(type, field), name, 2, {n_out, n_in}, false, NULL}
#define LINEAR(type, field, name, n_out, n_in)                                                                         \
    MATRIX(type, field.w, name ".weight", n_out, n_in), VECTOR(type, field.b, name ".bias", n_out)

static const weight_spec global_specs[] = {
    LINEAR(flux_global_weights, x_embedder, "x_embedder", DIM_D, DIM_IN),
    LINEAR(flux_global_weights, context_embedder, "context_embedder", DIM_D, DIM_TEXT),
    LINEAR(flux_global_weights, time.in, "time_text_embed.timestep_embedder.linear_1", DIM_D, DIM_SIN),
    LINEAR(flux_global_weights, time.out, "time_text_embed.timestep_embedder.linear_2", DIM_D, DIM_D),
    LINEAR(flux_global_weights, pooled.in, "time_text_embed.text_embedder.linear_1", DIM_D, DIM_POOLED),
    LINEAR(flux_global_weights, pooled.out, "time_text_embed.text_embedder.linear_2", DIM_D, DIM_D),
    LINEAR(flux_global_weights, norm_out, "norm_out.linear", DIM_2D, DIM_D),
    LINEAR(flux_global_weights, proj_out, "proj_out", DIM_OUT, DIM_D),
};

static const weight_spec guidance_specs[] = {
    LINEAR(flux_global_weights, guidance.in, "time_text_embed.guidance_embedder.linear_1", DIM_D, DIM_SIN),
    LINEAR(flux_global_weights, guidance.out, "time_text_embed.guidance_embedder.linear_2", DIM_D, DIM_D),
};

#define BLOCK "transformer_blocks.%d."
static const weight_spec double_specs[] = {
    LINEAR(flux_double_weights, image.modulation, BLOCK "norm1.linear", DIM_6D, DIM_D),
    LINEAR(flux_double_weights, image.q, BLOCK "attn.to_q", DIM_D, DIM_D),
    LINEAR(flux_double_weights, image.k, BLOCK "attn.to_k", DIM_D, DIM_D),
    LINEAR(flux_double_weights, image.v, BLOCK "attn.to_v", DIM_D, DIM_D),
    LINEAR(flux_double_weights, image.out, BLOCK "attn.to_out.0", DIM_D, DIM_D),
    LINEAR(flux_double_weights, image.ff_in, BLOCK "ff.net.0.proj", DIM_4D, DIM_D),
    LINEAR(flux_double_weights, image.ff_out, BLOCK "ff.net.2", DIM_D, DIM_4D),
    VECTOR(flux_double_weights, image.norm_q, BLOCK "attn.norm_q.weight", DIM_HEAD),
    VECTOR(flux_double_weights, image.norm_k, BLOCK "attn.norm_k.weight", DIM_HEAD),
    LINEAR(flux_double_weights, text.modulation, BLOCK "norm1_context.linear", DIM_6D, DIM_D),
    LINEAR(flux_double_weights, text.q, BLOCK "attn.add_q_proj", DIM_D, DIM_D),
    LINEAR(flux_double_weights, text.k, BLOCK "attn.add_k_proj", DIM_D, DIM_D),
    LINEAR(flux_double_weights, text.v, BLOCK "attn.add_v_proj", DIM_D, DIM_D),
    LINEAR(flux_double_weights, text.out, BLOCK "attn.to_add_out", DIM_D, DIM_D),
    LINEAR(flux_double_weights, text.ff_in, BLOCK "ff_context.net.0.proj", DIM_4D, DIM_D),
    LINEAR(flux_double_weights, text.ff_out, BLOCK "ff_context.net.2", DIM_D, DIM_4D),
    VECTOR(flux_double_weights, text.norm_q, BLOCK "attn.norm_added_q.weight", DIM_HEAD),
    VECTOR(flux_double_weights, text.norm_k, BLOCK "attn.norm_added_k.weight", DIM_HEAD),
};
#undef BLOCK

#define BLOCK "single_transformer_blocks.%d."
static const weight_spec single_specs[] = {
    LINEAR(flux_single_weights, modulation, BLOCK "norm.linear", DIM_3D, DIM_D),
    LINEAR(flux_single_weights, q, BLOCK "attn.to_q", DIM_D, DIM_D),
    LINEAR(flux_single_weights, k, BLOCK "attn.to_k", DIM_D, DIM_D),
    LINEAR(flux_single_weights, v, BLOCK "attn.to_v", DIM_D, DIM_D),
    LINEAR(flux_single_weights, mlp, BLOCK "proj_mlp", DIM_4D, DIM_D),
    LINEAR(flux_single_weights, out, BLOCK "proj_out", DIM_D, DIM_5D),
    VECTOR(flux_single_weights, norm_q, BLOCK "attn.norm_q.weight", DIM_HEAD),
    VECTOR(flux_single_weights, norm_k, BLOCK "attn.norm_k.weight", DIM_HEAD),
};
#undef BLOCK

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

status flux_weights_open(flux_weights **out, const model *m)
{
    status             st = ST_OK;
    const flux_config *config = &m->flux;
    flux_weights *w = calloc(1, sizeof(*w));
    if (w == NULL) return err_set(ST_NO_MEMORY, "transformer weights: %zu bytes", sizeof(*w));

    const int64_t d = (int64_t)config->n_heads * config->head_dim;
    const int64_t dims[N_DIMS] = {
        [DIM_D] = d,      [DIM_2D] = 2 * d, [DIM_3D] = 3 * d, [DIM_4D] = 4 * d,
        [DIM_5D] = 5 * d, [DIM_6D] = 6 * d, [DIM_SIN] = 256,  [DIM_HEAD] = config->head_dim,
        [DIM_IN] = config->in_channels,     [DIM_OUT] = config->out_channels,
        [DIM_TEXT] = config->joint_attention_dim, [DIM_POOLED] = config->pooled_projection_dim,
    };
    w->doubles = calloc((size_t)config->num_layers + 1, sizeof(*w->doubles));
    w->singles = calloc((size_t)config->num_single_layers + 1, sizeof(*w->singles));
    if (w->doubles == NULL || w->singles == NULL) {
        st = err_set(ST_NO_MEMORY, "transformer weights: tables of %d blocks",
                     config->num_layers + config->num_single_layers);
        goto fail;
    }
    TRY(model_open_weights(&w->files, m, MODEL_TRANSFORMER));
    TRY(weights_bind(w->files, global_specs, COUNT(global_specs), 0, dims, &w->global));
    if (config->guidance_embeds)
        TRY(weights_bind(w->files, guidance_specs, COUNT(guidance_specs), 0, dims, &w->global));
    for (int i = 0; i < config->num_layers; i++)
        TRY(weights_bind(w->files, double_specs, COUNT(double_specs), i, dims, &w->doubles[i]));
    for (int i = 0; i < config->num_single_layers; i++)
        TRY(weights_bind(w->files, single_specs, COUNT(single_specs), i, dims, &w->singles[i]));
    *out = w;
    return ST_OK;
fail:
    flux_weights_close(w);
    return st;
}

void flux_weights_close(flux_weights *w)
{
    if (w == NULL) return;
    weights_close(w->files);
    free(w->doubles);
    free(w->singles);
    free(w);
}
