#include "vae_weights.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { DIM_IN, DIM_OUT, DIM_3, DIM_1, DIM_LATENT, DIM_RGB };
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CONV3(type, field, name, out, in)                                                                              \
    {offsetof(type, field.w), name ".weight", 4, {out, in, DIM_3, DIM_3}, false, NULL},                                \
    {offsetof(type, field.b), name ".bias", 1, {out}, false, NULL}
#define CONV1(type, field, name, out, in)                                                                              \
    {offsetof(type, field.w), name ".weight", 4, {out, in, DIM_1, DIM_1}, false, NULL},                                \
    {offsetof(type, field.b), name ".bias", 1, {out}, false, NULL}
#define LINEAR(type, field, name, old)                                                                                 \
    {offsetof(type, field.w), name ".weight", 2, {DIM_OUT, DIM_IN}, false, old ".weight"},                             \
    {offsetof(type, field.b), name ".bias", 1, {DIM_OUT}, false, old ".bias"}
#define NORM(type, field, name, n)                                                                                     \
    {offsetof(type, field.scale), name ".weight", 1, {n}, false, NULL},                                                \
    {offsetof(type, field.shift), name ".bias", 1, {n}, false, NULL}

static const weight_spec resnet_specs[] = {
    NORM(resnet, norm1, "norm1", DIM_IN),
    CONV3(resnet, conv1, "conv1", DIM_OUT, DIM_IN),
    NORM(resnet, norm2, "norm2", DIM_OUT),
    CONV3(resnet, conv2, "conv2", DIM_OUT, DIM_OUT),
};
static const weight_spec shortcut_specs[] = {CONV1(resnet, shortcut, "conv_shortcut", DIM_OUT, DIM_IN)};
static const weight_spec upsample_specs[] = {CONV3(up_block, upsample, "upsamplers.0.conv", DIM_OUT, DIM_IN)};
static const weight_spec attention_specs[] = {
    NORM(mid_attention, norm, "group_norm", DIM_IN),
    LINEAR(mid_attention, q, "to_q", "query"),
    LINEAR(mid_attention, k, "to_k", "key"),
    LINEAR(mid_attention, v, "to_v", "value"),
    LINEAR(mid_attention, out, "to_out.0", "proj_attn"),
};
static const weight_spec post_quant_specs[] = {
    CONV1(decoder_ends, post_quant, "post_quant_conv", DIM_LATENT, DIM_LATENT),
};
static const weight_spec end_specs[] = {
    CONV3(decoder_ends, conv_in, "conv_in", DIM_IN, DIM_LATENT),
    NORM(decoder_ends, norm_out, "conv_norm_out", DIM_OUT),
    CONV3(decoder_ends, conv_out, "conv_out", DIM_RGB, DIM_OUT),
};

static status bind_resnet(vae_weights *v, const char *prefix, resnet *r)
{
    status        st = ST_OK;
    const int64_t dims[] = {[DIM_IN] = r->c_in, [DIM_OUT] = r->c_out, [DIM_3] = 3, [DIM_1] = 1};
    TRY(weights_bind_under(v->files, prefix, resnet_specs, COUNT(resnet_specs), dims, r));
    if (r->c_in != r->c_out) TRY(weights_bind_under(v->files, prefix, shortcut_specs, COUNT(shortcut_specs), dims, r));
fail:
    return st;
}

static status bind_all(vae_weights *v, const vae_config *c)
{
    status            st = ST_OK;
    const int     n = c->n_blocks;
    char              prefix[96];
    int32_t           width = c->block_out_channels[n - 1];
    const int64_t     dims[] = {[DIM_IN] = width, [DIM_OUT] = c->block_out_channels[0], [DIM_3] = 3, [DIM_1] = 1,
                                [DIM_LATENT] = c->latent_channels, [DIM_RGB] = c->out_channels};
    const int64_t     mid_dims[] = {[DIM_IN] = width, [DIM_OUT] = width};

    TRY(weights_bind_under(v->files, "decoder.", end_specs, COUNT(end_specs), dims, &v->ends));
    if (c->use_post_quant_conv)
        TRY(weights_bind_under(v->files, "", post_quant_specs, COUNT(post_quant_specs), dims, &v->ends));
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof(prefix), "decoder.mid_block.resnets.%d.", i);
        TRY(bind_resnet(v, prefix, &v->mid[i]));
    }
    if (c->mid_block_add_attention)
        TRY(weights_bind_under(v->files, "decoder.mid_block.attentions.0.", attention_specs, COUNT(attention_specs),
                               mid_dims, &v->attention));
    for (int i = 0; i < n; i++) {
        up_block *u = &v->up[i];
        for (int j = 0; j < vae_resnets(c); j++) {
            snprintf(prefix, sizeof(prefix), "decoder.up_blocks.%d.resnets.%d.", i, j);
            TRY(bind_resnet(v, prefix, &u->resnets[j]));
        }
        width = u->c_out;
        if (i == n - 1) continue;
        const int64_t up_dims[] = {[DIM_IN] = width, [DIM_OUT] = width, [DIM_3] = 3};
        snprintf(prefix, sizeof(prefix), "decoder.up_blocks.%d.", i);
        TRY(weights_bind_under(v->files, prefix, upsample_specs, COUNT(upsample_specs), up_dims, u));
    }
fail:
    return st;
}

/* Visits all norms in one order: first to count (host NULL), then to widen them. */
static void place_norm(vae_weights *v, norm *n, dtype type, float *host)
{
    const size_t channels = (size_t)weight_count(&n->scale);
    if (n->scale.data == NULL) return;
    if (host != NULL) {
        const bool round = type == DT_BF16;
        weight_widen(&n->scale, round, host + v->norm_floats);
        weight_widen(&n->shift, round, host + v->norm_floats + channels);
        n->on_device = v->norms + v->norm_floats;
    }
    v->norm_floats += 2 * channels;
}

static void place_norms(vae_weights *v, const vae_config *c, dtype type, float *host)
{
    v->norm_floats = 0;
    for (int i = 0; i < 2; i++) {
        place_norm(v, &v->mid[i].norm1, type, host);
        place_norm(v, &v->mid[i].norm2, type, host);
    }
    place_norm(v, &v->attention.norm, type, host);
    for (int i = 0; i < c->n_blocks; i++)
        for (int j = 0; j < vae_resnets(c); j++) {
            place_norm(v, &v->up[i].resnets[j].norm1, type, host);
            place_norm(v, &v->up[i].resnets[j].norm2, type, host);
        }
    place_norm(v, &v->ends.norm_out, type, host);
}

static status upload_norms(vae_weights *v, const vae_config *c, dtype type, stream *compute)
{
    status st = ST_OK;
    place_norms(v, c, type, NULL);
    float *host = malloc(v->norm_floats * sizeof(float));
    if (host == NULL) return err_set(ST_NO_MEMORY, "VAE norm weights: %zu floats", v->norm_floats);
    TRY(device_alloc(v->dev, v->norm_floats * sizeof(float), "VAE norm weights", (void **)&v->norms));
    place_norms(v, c, type, host);
    TRY(stream_copy_in(compute, v->norms, host, v->norm_floats * sizeof(float)));
    TRY(stream_sync(compute));
fail:
    free(host);
    return st;
}

int vae_resnets(const vae_config *c)
{
    return c->layers_per_block + 1;
}

void vae_widths(vae_weights *w, const vae_config *c)
{
    const int n = c->n_blocks;
    int32_t   width = c->block_out_channels[n - 1];
    for (int i = 0; i < 2; i++) w->mid[i].c_in = w->mid[i].c_out = width;
    for (int i = 0; i < n; i++) {
        up_block *u = &w->up[i];
        u->c_out = c->block_out_channels[n - 1 - i];
        for (int j = 0; j < vae_resnets(c); j++) {
            u->resnets[j].c_in = j == 0 ? width : u->c_out;
            u->resnets[j].c_out = u->c_out;
        }
        width = u->c_out;
    }
}

status vae_weights_open(vae_weights **out, const model *m, dtype type, device *dev, stream *compute)
{
    status       st = ST_OK;
    vae_weights *w = calloc(1, sizeof(*w));
    if (w == NULL) return err_set(ST_NO_MEMORY, "VAE: %zu bytes", sizeof(*w));
    w->dev = dev;
    if (vae_resnets(&m->vae) > VAE_MAX_RESNETS) {
        st = err_set(ST_BAD_MODEL, "vae/config.json: layers_per_block: got %d, at most %d", m->vae.layers_per_block,
                     VAE_MAX_RESNETS - 1);
        goto fail;
    }
    vae_widths(w, &m->vae);
    TRY(model_open_weights(&w->files, m, MODEL_VAE));
    TRY(bind_all(w, &m->vae));
    TRY(upload_norms(w, &m->vae, type, compute));
    *out = w;
    return ST_OK;
fail:
    vae_weights_close(w);
    return st;
}

void vae_weights_close(vae_weights *w)
{
    if (w == NULL) return;
    device_free(w->dev, w->norms);
    device_forget(w->dev);
    weights_close(w->files);
    free(w);
}
