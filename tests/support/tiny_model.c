#include "tiny_model.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "counter.h"
#include "tempdir.h"

enum { NAME_BYTES = 128, PATH_BYTES = 1024, CLIP_POSITIONS = 77, T5_BUCKETS = 32 };

static const tiny_model models[] = {
    {.seed = 1001,
     .type = DT_BF16,
     .shards = 1,
     .dynamic_shift = true,
     .shift = 3.0,
     .transformer = {64, 2, 2, 128, 2, {16, 56, 56}, 48, 32, true},
     .vae = {16, 4, {16, 24, 32, 32}, 2, 8, 0.3611, 0.1159, false},
     .clip = {514, 32, 64, 2, 4, 2},
     .t5 = {320, 48, 16, 3, 96, 2}},
    {.seed = 1002,
     .type = DT_BF16,
     .shards = 1,
     .dynamic_shift = false,
     .shift = 1.0,
     .transformer = {16, 1, 2, 64, 3, {8, 28, 28}, 40, 24, false},
     .vae = {4, 2, {16, 24}, 1, 4, 0.18215, 0.0625, true},
     .clip = {520, 24, 80, 3, 3, 513},
     .t5 = {320, 40, 24, 3, 56, 3}},
    {.seed = 1003,
     .type = DT_F16,
     .shards = 1,
     .dynamic_shift = true,
     .shift = 3.0,
     .transformer = {32, 1, 1, 32, 5, {8, 12, 12}, 20, 16, true},
     .vae = {8, 3, {12, 12, 24}, 1, 6, 0.5, 0.03125, false},
     .clip = {520, 16, 20, 1, 2, 2},
     .t5 = {320, 20, 8, 5, 28, 1}},
    {.seed = 1004,
     .type = DT_F32,
     .shards = 1,
     .dynamic_shift = true,
     .shift = 3.0,
     .transformer = {16, 1, 0, 32, 2, {8, 12, 12}, 24, 16, false},
     .vae = {4, 1, {8}, 1, 2, 1.0, 0.0, false},
     .clip = {514, 16, 24, 1, 2, 2},
     .t5 = {320, 24, 8, 2, 32, 1}},
    {.seed = 1005,
     .type = DT_F32,
     .shards = 1,
     .dynamic_shift = false,
     .shift = 1.0,
     .transformer = {16, 0, 1, 32, 1, {4, 12, 16}, 24, 16, true},
     .vae = {4, 4, {8, 8, 16, 16}, 1, 8, 0.75, 0.25, true},
     .clip = {514, 16, 24, 1, 2, 2},
     .t5 = {320, 24, 8, 2, 32, 1}},
    {.seed = 1006,
     .type = DT_BF16,
     .shards = 1,
     .dynamic_shift = true,
     .shift = 3.0,
     .transformer = {64, 1, 1, 128, 24, {16, 56, 56}, 4096, 768, true},
     .vae = {16, 1, {16}, 1, 8, 0.3611, 0.1159, false},
     .clip = {514, 768, 32, 1, 12, 2},
     .t5 = {320, 4096, 16, 2, 32, 1}},
    {.seed = 1007,
     .type = DT_BF16,
     .shards = 3,
     .dynamic_shift = true,
     .shift = 3.0,
     .transformer = {64, 19, 38, 128, 24, {16, 56, 56}, 4096, 768, true},
     .vae = {16, 4, {128, 256, 512, 512}, 2, 32, 0.3611, 0.1159, false},
     .clip = {49408, 768, 3072, 12, 12, 2},
     .t5 = {32128, 4096, 64, 64, 10240, 24}},
};

tiny_model tiny_model_get(char which)
{
    assert(which >= 'a' && which <= 'g');
    return models[which - 'a'];
}

/* The tensors of one part, in the order of the file. */
typedef struct weight {
    char name[NAME_BYTES];
    int n_dims;
    int64_t shape[4];
} weight;

typedef struct weights {
    weight *at;
    int n, room;
} weights;

/* Adds prefix + suffix with n_dims ints of shape; NULL suffix: the prefix is the whole name. */
static void add(weights *w, int n_dims, const int64_t *shape, const char *fmt, va_list args)
{
    if (w->n == w->room) {
        w->room = w->room == 0 ? 64 : 2 * w->room;
        w->at = realloc(w->at, (size_t)w->room * sizeof(*w->at));
        if (w->at == NULL) abort();
    }
    weight *t = &w->at[w->n++];
    *t = (weight){.n_dims = n_dims};
    memcpy(t->shape, shape, (size_t)n_dims * sizeof(*shape));
    int n = vsnprintf(t->name, NAME_BYTES, fmt, args);
    assert(n < NAME_BYTES);
    (void)n;
}

__attribute__((format(printf, 3, 4))) static void add_1d(weights *w, int64_t n, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(w, 1, &n, fmt, args);
    va_end(args);
}

__attribute__((format(printf, 4, 5))) static void add_2d(weights *w, int64_t out, int64_t in, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(w, 2, (int64_t[]){out, in}, fmt, args);
    va_end(args);
}

static void add_linear(weights *w, int64_t out, int64_t in, const char *prefix, const char *name)
{
    add_2d(w, out, in, "%s%s.weight", prefix, name);
    add_1d(w, out, "%s%s.bias", prefix, name);
}

static void add_norm(weights *w, int64_t n, const char *prefix, const char *name)
{
    add_1d(w, n, "%s%s.weight", prefix, name);
    add_1d(w, n, "%s%s.bias", prefix, name);
}

__attribute__((format(printf, 3, 4))) static void add_4d(weights *w, const int64_t shape[4], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(w, 4, shape, fmt, args);
    va_end(args);
}

static void add_conv(weights *w, int64_t out, int64_t in, int64_t side, const char *prefix, const char *name)
{
    add_4d(w, (int64_t[]){out, in, side, side}, "%s%s.weight", prefix, name);
    add_1d(w, out, "%s%s.bias", prefix, name);
}

static void list_transformer(weights *w, const tiny_transformer *c)
{
    static const char *const image[] = {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"};
    static const char *const text[] = {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"};
    static const char *const norms[] = {"attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k"};
    const int64_t d = (int64_t)c->heads * c->head_dim, f = 4 * d;
    char p[NAME_BYTES / 2];
    add_linear(w, d, c->in_channels, "", "x_embedder");
    add_linear(w, d, c->joint_dim, "", "context_embedder");
    add_linear(w, d, 256, "time_text_embed.", "timestep_embedder.linear_1");
    add_linear(w, d, d, "time_text_embed.", "timestep_embedder.linear_2");
    if (c->guidance) {
        add_linear(w, d, 256, "time_text_embed.", "guidance_embedder.linear_1");
        add_linear(w, d, d, "time_text_embed.", "guidance_embedder.linear_2");
    }
    add_linear(w, d, c->pooled_dim, "time_text_embed.", "text_embedder.linear_1");
    add_linear(w, d, d, "time_text_embed.", "text_embedder.linear_2");
    for (int i = 0; i < c->num_layers; i++) {
        snprintf(p, sizeof(p), "transformer_blocks.%d.", i);
        add_linear(w, 6 * d, d, p, "norm1.linear");
        add_linear(w, 6 * d, d, p, "norm1_context.linear");
        for (int j = 0; j < 4; j++) {
            add_linear(w, d, d, p, image[j]);
            add_linear(w, d, d, p, text[j]);
            add_1d(w, c->head_dim, "%s%s.weight", p, norms[j]);
        }
        add_linear(w, f, d, p, "ff.net.0.proj");
        add_linear(w, d, f, p, "ff.net.2");
        add_linear(w, f, d, p, "ff_context.net.0.proj");
        add_linear(w, d, f, p, "ff_context.net.2");
    }
    for (int i = 0; i < c->num_single_layers; i++) {
        snprintf(p, sizeof(p), "single_transformer_blocks.%d.", i);
        add_linear(w, 3 * d, d, p, "norm.linear");
        for (int j = 0; j < 3; j++)
            add_linear(w, d, d, p, image[j]);
        for (int j = 0; j < 2; j++)
            add_1d(w, c->head_dim, "%s%s.weight", p, norms[j]);
        add_linear(w, f, d, p, "proj_mlp");
        add_linear(w, d, d + f, p, "proj_out");
    }
    add_linear(w, 2 * d, d, "", "norm_out.linear");
    add_linear(w, c->in_channels, d, "", "proj_out");
}

static void list_resnet(weights *w, int64_t out, int64_t in, const char *prefix)
{
    add_norm(w, in, prefix, "norm1");
    add_conv(w, out, in, 3, prefix, "conv1");
    add_norm(w, out, prefix, "norm2");
    add_conv(w, out, out, 3, prefix, "conv2");
    if (in != out) add_conv(w, out, in, 1, prefix, "conv_shortcut");
}

/* The decoder only: a text-to-image run reads nothing else. */
static void list_vae(weights *w, const tiny_vae *c)
{
    static const char *const attention[] = {"to_q", "to_k", "to_v", "to_out.0"};
    const int64_t top = c->widths[c->n_levels - 1];
    char p[NAME_BYTES / 2];
    if (c->post_quant) add_conv(w, c->latent_channels, c->latent_channels, 1, "", "post_quant_conv");
    add_conv(w, top, c->latent_channels, 3, "decoder.", "conv_in");
    list_resnet(w, top, top, "decoder.mid_block.resnets.0.");
    add_norm(w, top, "decoder.mid_block.attentions.0.", "group_norm");
    for (int j = 0; j < 4; j++)
        add_linear(w, top, top, "decoder.mid_block.attentions.0.", attention[j]);
    list_resnet(w, top, top, "decoder.mid_block.resnets.1.");
    int64_t in = top;
    for (int i = 0; i < c->n_levels; i++) {
        int64_t out = c->widths[c->n_levels - 1 - i];
        for (int j = 0; j <= c->layers_per_block; j++) {
            snprintf(p, sizeof(p), "decoder.up_blocks.%d.resnets.%d.", i, j);
            list_resnet(w, out, j == 0 ? in : out, p);
        }
        snprintf(p, sizeof(p), "decoder.up_blocks.%d.upsamplers.0.", i);
        if (i < c->n_levels - 1) add_conv(w, out, out, 3, p, "conv");
        in = out;
    }
    add_norm(w, in, "decoder.", "conv_norm_out");
    add_conv(w, 3, in, 3, "decoder.", "conv_out");
}

static void list_clip(weights *w, const tiny_clip *c)
{
    static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    char p[NAME_BYTES / 2];
    add_2d(w, c->vocab, c->hidden, "text_model.embeddings.token_embedding.weight");
    add_2d(w, CLIP_POSITIONS, c->hidden, "text_model.embeddings.position_embedding.weight");
    for (int i = 0; i < c->layers; i++) {
        snprintf(p, sizeof(p), "text_model.encoder.layers.%d.", i);
        add_norm(w, c->hidden, p, "layer_norm1");
        add_norm(w, c->hidden, p, "layer_norm2");
        add_linear(w, c->intermediate, c->hidden, p, "mlp.fc1");
        add_linear(w, c->hidden, c->intermediate, p, "mlp.fc2");
        snprintf(p, sizeof(p), "text_model.encoder.layers.%d.self_attn.", i);
        for (int j = 0; j < 4; j++)
            add_linear(w, c->hidden, c->hidden, p, attention[j]);
    }
    add_norm(w, c->hidden, "text_model.", "final_layer_norm");
}

static void list_t5(weights *w, const tiny_t5 *c)
{
    const int64_t inner = (int64_t)c->heads * c->d_kv;
    add_2d(w, c->vocab, c->d_model, "shared.weight");
    add_2d(w, T5_BUCKETS, c->heads, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    for (int i = 0; i < c->layers; i++) {
        for (const char *qkv = "qkv"; *qkv != '\0'; qkv++)
            add_2d(w, inner, c->d_model, "encoder.block.%d.layer.0.SelfAttention.%c.weight", i, *qkv);
        add_2d(w, c->d_model, inner, "encoder.block.%d.layer.0.SelfAttention.o.weight", i);
        add_1d(w, c->d_model, "encoder.block.%d.layer.0.layer_norm.weight", i);
        add_2d(w, c->d_ff, c->d_model, "encoder.block.%d.layer.1.DenseReluDense.wi_0.weight", i);
        add_2d(w, c->d_ff, c->d_model, "encoder.block.%d.layer.1.DenseReluDense.wi_1.weight", i);
        add_2d(w, c->d_model, c->d_ff, "encoder.block.%d.layer.1.DenseReluDense.wo.weight", i);
        add_1d(w, c->d_model, "encoder.block.%d.layer.1.layer_norm.weight", i);
    }
    add_1d(w, c->d_model, "encoder.final_layer_norm.weight");
}

static int64_t weight_count(const weight *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* To nearest even; |f| < 65504. */
static uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    uint32_t sign = (u >> 16) & 0x8000u, size = u & 0x7fffffffu;
    if (size < 0x38800000u) return (uint16_t)(sign | (uint32_t)lrintf(fabsf(f) * 0x1p24f)); /* subnormal */
    size += 0xfffu + ((size >> 13) & 1u);
    return (uint16_t)(sign | ((size - 0x38000000u) >> 13));
}

static void store(void *out, dtype type, float value, int64_t i)
{
    switch (type) {
    case DT_F32:
        ((float *)out)[i] = value;
        break;
    case DT_BF16:
        ((uint16_t *)out)[i] = f32_to_bf16(value);
        break;
    case DT_F16:
        ((uint16_t *)out)[i] = f32_to_f16(value);
        break;
    default:
        assert(!"tiny models are stored in F32, BF16 or F16");
    }
}

/* One safetensors file with every step-th tensor from first. */
static status write_tensors(const char *path, const weights *w, int first, int step, uint64_t seed, dtype type)
{
    size_t offset = 0, most = 0, length = 0;
    char *header = malloc((size_t)w->n * (NAME_BYTES + 128) + 64);
    FILE *file = fopen(path, "wb");
    char *data = NULL;
    status st = err_set(ST_OUTPUT, "%s: not written", path);
    if (header == NULL || file == NULL) goto done;
    length += (size_t)sprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = first; i < w->n; i += step) {
        const weight *t = &w->at[i];
        size_t n_bytes = (size_t)weight_count(t) * dtype_bytes(type);
        length += (size_t)sprintf(header + length, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dtype_name(type));
        for (int k = 0; k < t->n_dims; k++)
            length += (size_t)sprintf(header + length, "%s%lld", k > 0 ? "," : "", (long long)t->shape[k]);
        length += (size_t)sprintf(header + length, "],\"data_offsets\":[%zu,%zu]}", offset, offset + n_bytes);
        offset += n_bytes;
        most = n_bytes > most ? n_bytes : most;
    }
    header[length++] = '}';
    while (length % 8 != 0)
        header[length++] = ' ';
    data = malloc(most);
    if (data == NULL || fwrite(&(uint64_t){length}, 8, 1, file) != 1 || fwrite(header, 1, length, file) != length)
        goto done;
    for (int i = first; i < w->n; i += step) {
        const weight *t = &w->at[i];
        const counter c = counter_weight(seed, t->name, t->shape, t->n_dims);
        const int64_t n = weight_count(t);
#pragma omp parallel for if (n > 1 << 20)
        for (int64_t k = 0; k < n; k++)
            store(data, type, counter_value(&c, k), k);
        if (fwrite(data, dtype_bytes(type), (size_t)n, file) != (size_t)n) goto done;
    }
    st = ST_OK;
done:
    if (file != NULL && fclose(file) != 0) st = ST_OUTPUT;
    if (st == ST_OK) err_clear();
    free(data);
    free(header);
    return st;
}

static status write_index(const char *dir, const char *stem, const weights *w, int shards, dtype type)
{
    char path[PATH_BYTES];
    long long total = 0;
    for (int i = 0; i < w->n; i++)
        total += (long long)(weight_count(&w->at[i]) * (int64_t)dtype_bytes(type));
    snprintf(path, sizeof(path), "%s/%s.safetensors.index.json", dir, stem);
    FILE *file = fopen(path, "wb");
    if (file == NULL) return err_set(ST_OUTPUT, "%s: %s", path, strerror(errno));
    fprintf(file, "{\"metadata\": {\"total_size\": %lld},\n \"weight_map\": {", total);
    for (int i = 0; i < w->n; i++)
        fprintf(file, "%s\n  \"%s\": \"%s-%05d-of-%05d.safetensors\"", i > 0 ? "," : "", w->at[i].name, stem,
                i % shards + 1, shards);
    fprintf(file, "\n}}\n");
    return fclose(file) == 0 ? ST_OK : err_set(ST_OUTPUT, "%s: not written", path);
}

/* dir/part/config.json and the weights; w is emptied. */
static status write_part(const tiny_model *m, const char *dir, const char *part, const char *stem, int shards,
                         const char *config, weights *w)
{
    status st = ST_OK;
    char folder[PATH_BYTES / 2], path[PATH_BYTES];
    snprintf(folder, sizeof(folder), "%s/%s", dir, part);
    if (mkdir(folder, 0777) != 0) st = err_set(ST_OUTPUT, "%s: %s", folder, strerror(errno));
    TRY(st);
    snprintf(path, sizeof(path), "%s/config.json", folder);
    TRY(tempdir_write(path, config));
    if (shards > 1) TRY(write_index(folder, stem, w, shards, m->type));
    for (int i = 0; i < shards; i++) {
        if (shards > 1)
            snprintf(path, sizeof(path), "%s/%s-%05d-of-%05d.safetensors", folder, stem, i + 1, shards);
        else
            snprintf(path, sizeof(path), "%s/%s.safetensors", folder, stem);
        TRY(write_tensors(path, w, i, shards, m->seed, m->type));
    }
fail:
    free(w->at);
    *w = (weights){0};
    return st;
}

static status write_transformer(const tiny_model *m, const char *dir)
{
    const tiny_transformer *c = &m->transformer;
    weights w = {0};
    char config[1024];
    snprintf(config, sizeof(config),
             "{\"_class_name\": \"FluxTransformer2DModel\", \"patch_size\": 1, \"in_channels\": %d,\n"
             " \"num_layers\": %d, \"num_single_layers\": %d, \"attention_head_dim\": %d,\n"
             " \"num_attention_heads\": %d, \"joint_attention_dim\": %d, \"pooled_projection_dim\": %d,\n"
             " \"guidance_embeds\": %s, \"axes_dims_rope\": [%d, %d, %d]}\n",
             c->in_channels, c->num_layers, c->num_single_layers, c->head_dim, c->heads, c->joint_dim, c->pooled_dim,
             c->guidance ? "true" : "false", c->axes[0], c->axes[1], c->axes[2]);
    list_transformer(&w, c);
    return write_part(m, dir, "transformer", "diffusion_pytorch_model", m->shards, config, &w);
}

static void repeat(char *out, size_t room, int n, const char *word)
{
    size_t length = 0;
    for (int i = 0; i < n; i++)
        length += (size_t)snprintf(out + length, room - length, "%s\"%s\"", i > 0 ? ", " : "", word);
}

static status write_vae(const tiny_model *m, const char *dir)
{
    const tiny_vae *c = &m->vae;
    weights w = {0};
    char config[2048], widths[64] = "", down[256], up[256];
    for (int i = 0, at = 0; i < c->n_levels; i++)
        at += snprintf(widths + at, sizeof(widths) - (size_t)at, "%s%d", i > 0 ? ", " : "", c->widths[i]);
    repeat(down, sizeof(down), c->n_levels, "DownEncoderBlock2D");
    repeat(up, sizeof(up), c->n_levels, "UpDecoderBlock2D");
    snprintf(config, sizeof(config),
             "{\"_class_name\": \"AutoencoderKL\", \"act_fn\": \"silu\", \"in_channels\": 3, \"out_channels\": 3,\n"
             " \"latent_channels\": %d, \"block_out_channels\": [%s], \"layers_per_block\": %d,\n"
             " \"norm_num_groups\": %d, \"scaling_factor\": %.17g, \"shift_factor\": %.17g, \"use_quant_conv\": %s,\n"
             " \"use_post_quant_conv\": %s, \"mid_block_add_attention\": true, \"force_upcast\": true,\n"
             " \"sample_size\": 64, \"down_block_types\": [%s],\n \"up_block_types\": [%s]}\n",
             c->latent_channels, widths, c->layers_per_block, c->groups, c->scaling_factor, c->shift_factor,
             c->post_quant ? "true" : "false", c->post_quant ? "true" : "false", down, up);
    list_vae(&w, c);
    return write_part(m, dir, "vae", "diffusion_pytorch_model", 1, config, &w);
}

static status write_clip(const tiny_model *m, const char *dir)
{
    const tiny_clip *c = &m->clip;
    weights w = {0};
    char config[1024];
    snprintf(config, sizeof(config),
             "{\"architectures\": [\"CLIPTextModel\"], \"model_type\": \"clip_text_model\", \"vocab_size\": %d,\n"
             " \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d,\n"
             " \"num_attention_heads\": %d, \"max_position_embeddings\": %d, \"hidden_act\": \"quick_gelu\",\n"
             " \"layer_norm_eps\": 1e-05, \"bos_token_id\": 0, \"eos_token_id\": %d, \"pad_token_id\": 1,\n"
             " \"projection_dim\": %d}\n",
             c->vocab, c->hidden, c->intermediate, c->layers, c->heads, CLIP_POSITIONS, c->eos_token_id, c->hidden);
    list_clip(&w, c);
    return write_part(m, dir, "text_encoder", "model", 1, config, &w);
}

static status write_t5(const tiny_model *m, const char *dir)
{
    const tiny_t5 *c = &m->t5;
    weights w = {0};
    char config[1024];
    snprintf(config, sizeof(config),
             "{\"architectures\": [\"T5EncoderModel\"], \"model_type\": \"t5\", \"vocab_size\": %d, \"d_model\": %d,\n"
             " \"d_kv\": %d, \"num_heads\": %d, \"d_ff\": %d, \"num_layers\": %d,\n"
             " \"feed_forward_proj\": \"gated-gelu\", \"relative_attention_num_buckets\": %d,\n"
             " \"relative_attention_max_distance\": 128, \"layer_norm_epsilon\": 1e-06, \"pad_token_id\": 0,\n"
             " \"eos_token_id\": 1}\n",
             c->vocab, c->d_model, c->d_kv, c->heads, c->d_ff, c->layers, T5_BUCKETS);
    list_t5(&w, c);
    return write_part(m, dir, "text_encoder_2", "model", m->shards, config, &w);
}

/* dir/part/name holds text; the folder is made when it is not there. */
static status write_text(const char *dir, const char *part, const char *name, const char *text)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/%s", dir, part);
    if (mkdir(path, 0777) != 0 && errno != EEXIST) return err_set(ST_OUTPUT, "%s: %s", path, strerror(errno));
    snprintf(path, sizeof(path), "%s/%s/%s", dir, part, name);
    return tempdir_write(path, text);
}

static status write_scheduler(const tiny_model *m, const char *dir)
{
    char config[512];
    snprintf(config, sizeof(config),
             "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"num_train_timesteps\": 1000, \"shift\": %.17g,\n"
             " \"use_dynamic_shifting\": %s, \"base_shift\": 0.5, \"max_shift\": 1.15,\n"
             " \"base_image_seq_len\": 256, \"max_image_seq_len\": 4096}\n",
             m->shift, m->dynamic_shift ? "true" : "false");
    return write_text(dir, "scheduler", "scheduler_config.json", config);
}

/* The byte symbols of CLIP's vocabulary in its order: printable bytes as they are, the others from U+0100 on. */
static int byte_symbols(int code[256])
{
    int n = 0;
    for (int b = 0; b < 256; b++)
        if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae) code[n++] = b;
    for (int c = 0x100; n < 256; c++)
        code[n++] = c;
    return n;
}

static status write_clip_tokenizer(const char *dir)
{
    static const char config[] =
        "{\"tokenizer_class\": \"CLIPTokenizer\", \"model_max_length\": 77, \"add_prefix_space\": false,\n"
        " \"bos_token\": \"<|startoftext|>\", \"eos_token\": \"<|endoftext|>\", \"pad_token\": \"<|endoftext|>\",\n"
        " \"unk_token\": \"<|endoftext|>\", \"do_lower_case\": true, \"errors\": \"replace\"}\n";
    static const char special[] =
        "{\"bos_token\": \"<|startoftext|>\", \"eos_token\": \"<|endoftext|>\", \"pad_token\": \"<|endoftext|>\",\n"
        " \"unk_token\": \"<|endoftext|>\"}\n";
    status st = ST_OK;
    int code[256];
    const int n = byte_symbols(code);
    char *vocab = malloc((size_t)n * 2 * 32 + 128), *at = vocab;
    if (vocab == NULL) return err_set(ST_NO_MEMORY, "tiny_model: CLIP vocabulary");
    at += sprintf(at, "{");
    for (int i = 0; i < 2 * n; i++) {
        char symbol[4] = {(char)code[i % n]};
        if (code[i % n] >= 0x80) {
            symbol[0] = (char)(0xc0 | code[i % n] >> 6);
            symbol[1] = (char)(0x80 | (code[i % n] & 0x3f));
        }
        bool escape = symbol[0] == '"' || symbol[0] == '\\';
        at += sprintf(at, "\"%s%s%s\": %d, ", escape ? "\\" : "", symbol, i >= n ? "</w>" : "", i);
    }
    sprintf(at, "\"<|startoftext|>\": %d, \"<|endoftext|>\": %d}\n", 2 * n, 2 * n + 1);
    TRY(write_text(dir, "tokenizer", "vocab.json", vocab));
    TRY(write_text(dir, "tokenizer", "merges.txt", "#version: 0.2\n"));
    TRY(write_text(dir, "tokenizer", "tokenizer_config.json", config));
    TRY(write_text(dir, "tokenizer", "special_tokens_map.json", special));
fail:
    free(vocab);
    return st;
}

static status write_t5_tokenizer(const char *dir)
{
    static const char special[] = "{\"eos_token\": \"</s>\", \"pad_token\": \"<pad>\", \"unk_token\": \"<unk>\"}\n";
    static const char config[] =
        "{\"tokenizer_class\": \"T5Tokenizer\", \"model_max_length\": 512, \"extra_ids\": 100,\n"
        " \"eos_token\": \"</s>\", \"pad_token\": \"<pad>\", \"unk_token\": \"<unk>\"}\n";
    status st = ST_OK;
    char path[PATH_BYTES], bytes[4096];
    FILE *from = NULL, *to = NULL;
    TRY(write_text(dir, "tokenizer_2", "tokenizer_config.json", config));
    TRY(write_text(dir, "tokenizer_2", "special_tokens_map.json", special));
    from = fopen(TEST_DIR "/vectors/tiny_spiece.model", "rb");
    snprintf(path, sizeof(path), "%s/tokenizer_2/spiece.model", dir);
    to = fopen(path, "wb");
    if (from == NULL || to == NULL) TRY(err_set(ST_OUTPUT, "%s: %s", path, strerror(errno)));
    for (size_t n; (n = fread(bytes, 1, sizeof(bytes), from)) > 0;)
        if (fwrite(bytes, 1, n, to) != n) TRY(err_set(ST_OUTPUT, "%s: not written", path));
fail:
    if (from != NULL) fclose(from);
    if (to != NULL && fclose(to) != 0 && st == ST_OK) st = err_set(ST_OUTPUT, "%s: not written", path);
    return st;
}

status tiny_model_write(const tiny_model *m, int parts, const char *dir)
{
    static const char index[] = "{\"_class_name\": \"FluxPipeline\", \"_diffusers_version\": \"0.39.0\",\n"
                                " \"scheduler\": [\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"],\n"
                                " \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],\n"
                                " \"text_encoder_2\": [\"transformers\", \"T5EncoderModel\"],\n"
                                " \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],\n"
                                " \"tokenizer_2\": [\"transformers\", \"T5TokenizerFast\"],\n"
                                " \"transformer\": [\"diffusers\", \"FluxTransformer2DModel\"],\n"
                                " \"vae\": [\"diffusers\", \"AutoencoderKL\"]}\n";
    status st = ST_OK;
    TRY(write_text(dir, ".", "model_index.json", index));
    if (parts & TINY_TRANSFORMER) TRY(write_transformer(m, dir));
    if (parts & TINY_VAE) TRY(write_vae(m, dir));
    if (parts & TINY_CLIP) TRY(write_clip(m, dir));
    if (parts & TINY_T5) TRY(write_t5(m, dir));
    if (parts & TINY_SCHEDULER) TRY(write_scheduler(m, dir));
    if (parts & TINY_TOKENIZERS) {
        TRY(write_clip_tokenizer(dir));
        TRY(write_t5_tokenizer(dir));
    }
fail:
    return st;
}
