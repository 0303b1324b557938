#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "file_kind.h"
#include "json_config.h"

enum { MAX_LAYERS = 512, MAX_HEADS = 512, MAX_DIM = 1 << 20 };

#define HOW_TO_OBTAIN                                                                                                  \
    "to obtain one: accept the licence at https://huggingface.co/black-forest-labs/FLUX.1-Krea-dev, log in with "      \
    "`huggingface-cli login`, then `huggingface-cli download black-forest-labs/FLUX.1-Krea-dev --local-dir DIR` and "  \
    "give DIR as model"

/* What a pipeline class is, for those that people have beside FLUX.1. The first match of the name's beginning counts.
 */
static const struct {
    const char *begins, *is;
} pipelines[] = {
    {"Flux2", "FLUX.2, another model family"},
    {"FluxFill", "FLUX.1 Fill (inpainting)"},
    {"FluxControlNet", "FLUX.1 with a ControlNet"},
    {"FluxControl", "FLUX.1 Depth or Canny (control image)"},
    {"FluxKontext", "FLUX.1 Kontext (picture editing)"},
    {"FluxPriorRedux", "FLUX.1 Redux (image prompts)"},
    {"FluxImg2Img", "FLUX.1 image-to-image"},
    {"FluxInpaint", "FLUX.1 inpainting"},
    {"Flux", "another kind of FLUX pipeline"},
    {"Chroma", "Chroma"},
    {"StableDiffusion3", "Stable Diffusion 3"},
    {"StableDiffusionXL", "Stable Diffusion XL"},
    {"StableDiffusion", "Stable Diffusion"},
    {"QwenImage", "Qwen-Image"},
    {"PixArt", "PixArt"},
    {"Sana", "Sana"},
    {"HiDream", "HiDream"},
    {"ZImage", "Z-Image"},
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* dir has no model_index.json: say what it is instead. */
static status explain_folder(const char *dir)
{
    char found[300] = "";
    bool has_parts = false, has_snapshots = false;
    DIR *folder = opendir(dir);
    for (struct dirent *item = folder == NULL ? NULL : readdir(folder); item != NULL; item = readdir(folder)) {
        const char *name = item->d_name;
        if (strcmp(name, "transformer") == 0 || strcmp(name, "vae") == 0) has_parts = true;
        if (strcmp(name, "snapshots") == 0) has_snapshots = true;
        if (ends_with(name, ".gguf") || ends_with(name, ".safetensors")) snprintf(found, sizeof(found), "%s", name);
    }
    if (folder != NULL) closedir(folder);
    if (has_snapshots) {
        return err_set(ST_BAD_MODEL, "%s: a folder of the Hugging Face cache: give the folder %s/snapshots/REVISION",
                       dir, dir);
    }
    if (has_parts) {
        return err_set(ST_BAD_MODEL,
                       "%s/model_index.json: missing, though the folder has parts of a model: an unfinished "
                       "download?",
                       dir);
    }
    if (ends_with(found, ".gguf")) {
        return err_set(ST_BAD_MODEL, "%s: unsupported: holds %s, a quantised GGUF model, no diffusers folder; %s", dir,
                       found, HOW_TO_OBTAIN);
    }
    if (found[0] != '\0') {
        return err_set(ST_BAD_MODEL, "%s: unsupported: holds %s, a single-file checkpoint, no diffusers folder; %s",
                       dir, found, HOW_TO_OBTAIN);
    }
    return err_set(ST_BAD_MODEL, "%s: no model_index.json: this is no model folder; %s", dir, HOW_TO_OBTAIN);
}

/* dir is a folder with a model_index.json, or the answer says what it is. */
static status check_folder(const char *dir)
{
    struct stat info;
    if (stat(dir, &info) != 0) {
        if (errno != ENOENT) return err_set(ST_BAD_MODEL, "%s: %s", dir, strerror(errno));
        return err_set(ST_BAD_MODEL, "%s: no such model folder; %s", dir, HOW_TO_OBTAIN);
    }
    if (!S_ISDIR(info.st_mode)) {
        const char *is = ends_with(dir, ".gguf") ? "a quantised GGUF model" : "a file";
        if (ends_with(dir, ".safetensors")) is = "a single-file checkpoint";
        return err_set(ST_BAD_MODEL, "%s: unsupported: %s, want a folder in diffusers layout; %s", dir, is,
                       HOW_TO_OBTAIN);
    }
    char *path = NULL;
    if (asprintf(&path, "%s/model_index.json", dir) < 0) return err_set(ST_NO_MEMORY, "model: the name %s", dir);
    bool found = stat(path, &info) == 0;
    free(path);
    return found ? ST_OK : explain_folder(dir);
}

static status check_pipeline(const json_config *config)
{
    const char *name = json_config_text(config, "_class_name");
    if (name == NULL) {
        return json_config_error(config, "_class_name", "absent, want \"FluxPipeline\": no model index of diffusers");
    }
    if (strcmp(name, "FluxPipeline") == 0) return ST_OK;
    for (size_t i = 0; i < sizeof(pipelines) / sizeof(pipelines[0]); i++) {
        if (strncmp(name, pipelines[i].begins, strlen(pipelines[i].begins)) != 0) continue;
        return json_config_error(config, "_class_name",
                                 "unsupported: %.100s is %s; only FluxPipeline (FLUX.1 dev, Krea-dev, "
                                 "schnell) is rendered",
                                 name, pipelines[i].is);
    }
    return json_config_error(config, "_class_name", "unsupported: got %.100s, want FluxPipeline", name);
}

/* model_index.json names the class of every component: [library, class]. */
static status read_index(const char *dir)
{
    static const struct {
        const char *key, *class_name, *other; /* other: an equal class, may be NULL */
    } components[] = {
        {"transformer", "FluxTransformer2DModel", NULL},
        {"vae", "AutoencoderKL", NULL},
        {"text_encoder", "CLIPTextModel", NULL},
        {"text_encoder_2", "T5EncoderModel", NULL},
        {"tokenizer", "CLIPTokenizer", "CLIPTokenizerFast"},
        {"tokenizer_2", "T5TokenizerFast", "T5Tokenizer"},
        {"scheduler", "FlowMatchEulerDiscreteScheduler", NULL},
    };
    status st = ST_OK;
    char *path = NULL;
    json_config *config = NULL;
    if (asprintf(&path, "%s/model_index.json", dir) < 0) return err_set(ST_NO_MEMORY, "model: the name %s", dir);
    TRY(json_config_open(&config, path));
    TRY(check_pipeline(config));
    for (size_t i = 0; i < sizeof(components) / sizeof(components[0]); i++) {
        const char *key = components[i].key;
        const json_t *pair = json_config_get(config, key);
        const char *name = json_string_value(json_array_get(pair, 1));
        if (name == NULL) {
            st = json_config_error(config, key, "absent or null, want [library, \"%s\"]", components[i].class_name);
            goto fail;
        }
        if (strcmp(name, components[i].class_name) == 0) continue;
        if (components[i].other != NULL && strcmp(name, components[i].other) == 0) continue;
        st = json_config_error(config, key, "unsupported: got class %.100s, want %s", name, components[i].class_name);
        goto fail;
    }
fail:
    json_config_close(config);
    free(path);
    return st;
}

/* The config says of which class it is, where it says it at all. */
static status check_class(const json_config *config, const char *key, const char *wanted)
{
    const char *name = json_config_text(config, key);
    if (name == NULL || strcmp(name, wanted) == 0) return ST_OK;
    return json_config_error(config, key, "unsupported: got %.100s, want %s", name, wanted);
}

static status check_not_quantised(const json_config *config)
{
    const json_t *q = json_config_get(config, "quantization_config");
    if (q == NULL) return ST_OK;
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    const char *bits = json_is_true(json_object_get(q, "load_in_4bit"))   ? ", 4 bits"
                       : json_is_true(json_object_get(q, "load_in_8bit")) ? ", 8 bits"
                                                                          : "";
    return json_config_error(config, "quantization_config",
                             "unsupported: this part is quantised (%.50s%s); use the folder "
                             "with BF16 weights",
                             method == NULL ? "method not told" : method, bits);
}

/* What the attention kernels take: ops.h. */
static status check_head_width(json_config *config, const char *key, int width)
{
    if (width % 8 == 0 && width <= 512) return ST_OK;
    return json_config_error(config, key, "attention heads of width %d are unsupported, want a multiple of 8, at most 512",
                             width);
}

static status read_flux(flux_config *c, json_config *config)
{
    status st = ST_OK;
    int patch_size = 1, n_axes = 3;
    *c = (flux_config){.in_channels = 64,
                       .num_layers = 19,
                       .num_single_layers = 38,
                       .head_dim = 128,
                       .n_heads = 24,
                       .joint_attention_dim = 4096,
                       .pooled_projection_dim = 768,
                       .axes_dims_rope = {16, 56, 56}};
    TRY(check_class(config, "_class_name", "FluxTransformer2DModel"));
    TRY(check_not_quantised(config));
    TRY(json_config_int(config, "patch_size", &patch_size, 1, 64));
    if (patch_size != 1) {
        st = json_config_error(config, "patch_size", "unsupported: got %d, want 1", patch_size);
        goto fail;
    }
    TRY(json_config_int(config, "in_channels", &c->in_channels, 1, 4096));
    c->out_channels = c->in_channels;
    TRY(json_config_int(config, "out_channels", &c->out_channels, 1, 4096));
    TRY(json_config_int(config, "num_layers", &c->num_layers, 0, MAX_LAYERS));
    TRY(json_config_int(config, "num_single_layers", &c->num_single_layers, 0, MAX_LAYERS));
    TRY(json_config_int(config, "attention_head_dim", &c->head_dim, 2, 1024));
    TRY(json_config_int(config, "num_attention_heads", &c->n_heads, 1, MAX_HEADS));
    TRY(json_config_int(config, "joint_attention_dim", &c->joint_attention_dim, 1, MAX_DIM));
    TRY(json_config_int(config, "pooled_projection_dim", &c->pooled_projection_dim, 1, MAX_DIM));
    TRY(json_config_bool(config, "guidance_embeds", &c->guidance_embeds));
    TRY(json_config_ints(config, "axes_dims_rope", c->axes_dims_rope, &n_axes, 3, 2, 1024));
    const int *axes = c->axes_dims_rope;
    if (n_axes != 3) {
        st = json_config_error(config, "axes_dims_rope", "got %d axes, want 3", n_axes);
    } else if (axes[0] % 2 != 0 || axes[1] % 2 != 0 || axes[2] % 2 != 0) {
        st = json_config_error(config, "axes_dims_rope", "got [%d, %d, %d], want even numbers", axes[0], axes[1],
                               axes[2]);
    } else if (axes[0] + axes[1] + axes[2] != c->head_dim) {
        st = json_config_error(config, "axes_dims_rope",
                               "got [%d, %d, %d], sum %d, want the sum to be attention_head_dim %d", axes[0], axes[1],
                               axes[2], axes[0] + axes[1] + axes[2], c->head_dim);
    } else if (c->head_dim * c->n_heads > MAX_DIM / 4) {
        st = json_config_error(config, "num_attention_heads", "%d heads of %d: wider than %d", c->n_heads, c->head_dim,
                               MAX_DIM / 4);
    }
    if (st == ST_OK) st = check_head_width(config, "attention_head_dim", c->head_dim);
fail:
    return st;
}

/* Every block is of the plain kind and there are n_blocks of them. */
static status check_vae_blocks(const json_config *config, const char *key, const char *wanted, int n_blocks)
{
    const json_t *list = json_config_get(config, key);
    if (list == NULL) return ST_OK;
    if (!json_is_array(list) || json_array_size(list) != (size_t)n_blocks) {
        return json_config_error(config, key, "got %zu blocks, block_out_channels has %d", json_array_size(list),
                                 n_blocks);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name != NULL && strcmp(name, wanted) == 0) continue;
        return json_config_error(config, key, "unsupported: got %.100s, want %s", name == NULL ? "no text" : name,
                                 wanted);
    }
    return ST_OK;
}

static status read_vae(vae_config *c, json_config *config)
{
    static const char *const acts[] = {"silu", "swish", NULL};
    status st = ST_OK;
    int act = 0;
    *c = (vae_config){.block_out_channels = {64},
                      .n_blocks = 1,
                      .layers_per_block = 1,
                      .latent_channels = 4,
                      .out_channels = 3,
                      .norm_num_groups = 32,
                      .scaling_factor = 0.18215,
                      .use_post_quant_conv = true,
                      .mid_block_add_attention = true,
                      .sample_size = 32};
    TRY(check_class(config, "_class_name", "AutoencoderKL"));
    TRY(check_not_quantised(config));
    TRY(json_config_ints(config, "block_out_channels", c->block_out_channels, &c->n_blocks, VAE_MAX_BLOCKS, 1,
                         1 << 14));
    c->scale = 1 << (c->n_blocks - 1);
    TRY(json_config_int(config, "layers_per_block", &c->layers_per_block, 1, 32));
    TRY(json_config_int(config, "latent_channels", &c->latent_channels, 1, 1024));
    TRY(json_config_int(config, "out_channels", &c->out_channels, 1, 1024));
    if (c->out_channels != 3) {
        st = json_config_error(config, "out_channels", "unsupported: got %d, want 3 (RGB)", c->out_channels);
        goto fail;
    }
    TRY(json_config_int(config, "norm_num_groups", &c->norm_num_groups, 1, 1024));
    for (int i = 0; i < c->n_blocks; i++) {
        if (c->block_out_channels[i] % c->norm_num_groups == 0) continue;
        st = json_config_error(config, "block_out_channels", "got %d, want a multiple of norm_num_groups %d",
                               c->block_out_channels[i], c->norm_num_groups);
        goto fail;
    }
    TRY(json_config_double(config, "scaling_factor", &c->scaling_factor, 1e-6, 1e6));
    TRY(json_config_double(config, "shift_factor", &c->shift_factor, -1e6, 1e6));
    TRY(json_config_bool(config, "use_post_quant_conv", &c->use_post_quant_conv));
    TRY(json_config_bool(config, "mid_block_add_attention", &c->mid_block_add_attention));
    if (c->mid_block_add_attention)
        TRY(check_head_width(config, "block_out_channels", c->block_out_channels[c->n_blocks - 1]));
    TRY(json_config_int(config, "sample_size", &c->sample_size, 1, 1 << 16));
    TRY(json_config_choice(config, "act_fn", &act, acts));
    TRY(check_vae_blocks(config, "up_block_types", "UpDecoderBlock2D", c->n_blocks));
    if (json_config_get(config, "latents_mean") != NULL || json_config_get(config, "latents_std") != NULL) {
        st = json_config_error(config, "latents_mean", "unsupported: statistics of latents; FLUX.1 has none");
    }
fail:
    return st;
}

static status read_clip(clip_config *c, json_config *config)
{
    static const char *const acts[] = {"quick_gelu", "gelu", NULL};
    status st = ST_OK;
    int act = CLIP_QUICK_GELU;
    *c = (clip_config){.vocab_size = 49408,
                       .hidden = 512,
                       .intermediate = 2048,
                       .layers = 12,
                       .heads = 8,
                       .max_position = 77,
                       .eps = 1e-5,
                       .eos_token_id = 49407};
    TRY(check_not_quantised(config));
    const char *type = json_config_text(config, "model_type");
    if (type != NULL && strcmp(type, "clip") == 0)
        json_config_enter(config, "text_config"); /* a whole CLIP */
    else
        TRY(check_class(config, "model_type", "clip_text_model"));
    TRY(json_config_int(config, "vocab_size", &c->vocab_size, 1, 1 << 22));
    TRY(json_config_int(config, "hidden_size", &c->hidden, 1, 1 << 16));
    TRY(json_config_int(config, "intermediate_size", &c->intermediate, 1, 1 << 18));
    TRY(json_config_int(config, "num_hidden_layers", &c->layers, 1, MAX_LAYERS));
    TRY(json_config_int(config, "num_attention_heads", &c->heads, 1, MAX_HEADS));
    TRY(json_config_int(config, "max_position_embeddings", &c->max_position, 2, 1 << 16));
    TRY(json_config_choice(config, "hidden_act", &act, acts));
    TRY(json_config_double(config, "layer_norm_eps", &c->eps, 0, 1));
    TRY(json_config_int(config, "eos_token_id", &c->eos_token_id, 0, 1 << 22));
    c->act = act == 0 ? CLIP_QUICK_GELU : CLIP_GELU;
    if (c->hidden % c->heads != 0) {
        st = json_config_error(config, "hidden_size", "got %d, want a multiple of num_attention_heads %d", c->hidden,
                               c->heads);
    }
    if (st == ST_OK) st = check_head_width(config, "hidden_size", c->hidden / c->heads);
fail:
    return st;
}

static status read_t5(t5_config *c, json_config *config)
{
    static const char *const feed_forwards[] = {"gated-gelu", NULL};
    status st = ST_OK;
    int kind = -1;
    *c = (t5_config){.vocab_size = 32128,
                     .d_model = 512,
                     .d_kv = 64,
                     .heads = 8,
                     .d_ff = 2048,
                     .layers = 6,
                     .num_buckets = 32,
                     .max_distance = 128,
                     .eps = 1e-6};
    TRY(check_not_quantised(config));
    TRY(check_class(config, "model_type", "t5"));
    TRY(json_config_int(config, "vocab_size", &c->vocab_size, 1, 1 << 22));
    TRY(json_config_int(config, "d_model", &c->d_model, 1, 1 << 16));
    TRY(json_config_int(config, "d_kv", &c->d_kv, 1, 1024));
    TRY(json_config_int(config, "num_heads", &c->heads, 1, MAX_HEADS));
    TRY(json_config_int(config, "d_ff", &c->d_ff, 1, 1 << 18));
    TRY(json_config_int(config, "num_layers", &c->layers, 1, MAX_LAYERS));
    TRY(json_config_int(config, "relative_attention_num_buckets", &c->num_buckets, 4, 1024));
    TRY(json_config_int(config, "relative_attention_max_distance", &c->max_distance, 2, 1 << 20));
    TRY(json_config_double(config, "layer_norm_epsilon", &c->eps, 0, 1));
    TRY(json_config_choice(config, "feed_forward_proj", &kind, feed_forwards));
    if (kind < 0) {
        st = json_config_error(config, "feed_forward_proj",
                               "absent, which means \"relu\": unsupported, want \"gated-gelu\"");
    } else if (c->num_buckets % 4 != 0) {
        st =
            json_config_error(config, "relative_attention_num_buckets", "got %d, want a multiple of 4", c->num_buckets);
    } else if (c->max_distance <= c->num_buckets / 4) {
        st = json_config_error(config, "relative_attention_max_distance",
                               "got %d, want more than a quarter of the %d buckets", c->max_distance, c->num_buckets);
    }
    if (st == ST_OK) st = check_head_width(config, "d_kv", c->d_kv);
fail:
    return st;
}

static status read_scheduler(schedule_config *c, json_config *config)
{
    static const char *const shifts[] = {"exponential", "linear", NULL};
    static const char *const unsupported[] = {"shift_terminal",  "use_karras_sigmas", "use_exponential_sigmas",
                                              "use_beta_sigmas", "invert_sigmas",     "stochastic_sampling"};
    status st = ST_OK;
    int shift = TIME_SHIFT_EXPONENTIAL;
    *c = SCHEDULE_CONFIG_INIT;
    TRY(check_class(config, "_class_name", "FlowMatchEulerDiscreteScheduler"));
    TRY(json_config_int(config, "num_train_timesteps", &c->num_train_timesteps, 1, 1000000));
    TRY(json_config_double(config, "shift", &c->shift, 1e-3, 1e3));
    TRY(json_config_bool(config, "use_dynamic_shifting", &c->use_dynamic_shifting));
    TRY(json_config_double(config, "base_shift", &c->base_shift, -100, 100));
    TRY(json_config_double(config, "max_shift", &c->max_shift, -100, 100));
    TRY(json_config_int(config, "base_image_seq_len", &c->base_image_seq_len, 1, 1 << 30));
    TRY(json_config_int(config, "max_image_seq_len", &c->max_image_seq_len, 1, 1 << 30));
    TRY(json_config_choice(config, "time_shift_type", &shift, shifts));
    c->time_shift_type = shift == 0 ? TIME_SHIFT_EXPONENTIAL : TIME_SHIFT_LINEAR;
    if (c->base_image_seq_len == c->max_image_seq_len) {
        st = json_config_error(config, "max_image_seq_len", "got %d, want another number than base_image_seq_len",
                               c->max_image_seq_len);
        goto fail;
    }
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
        const json_t *value = json_config_get(config, unsupported[i]);
        if (value == NULL || json_is_false(value)) continue;
        st = json_config_error(config, unsupported[i], "unsupported: it is set, want null or false");
        goto fail;
    }
fail:
    return st;
}

/* The parts fit together. */
static status check_parts(const model *m)
{
    const flux_config *f = &m->flux;
    const char *where = m->dir;
    int packed = 4 * m->vae.latent_channels;
    if (f->in_channels != packed) {
        const char *is = "";
        if (f->in_channels == packed * 6) is = ": this is FLUX.1 Fill (inpainting), unsupported";
        if (f->in_channels == packed * 2) is = ": this is FLUX.1 Depth or Canny (control image), unsupported";
        return err_set(ST_BAD_MODEL,
                       "%s/transformer/config.json: in_channels: got %d, want %d (4 x latent_channels %d of the VAE)%s",
                       where, f->in_channels, packed, m->vae.latent_channels, is);
    }
    if (f->out_channels != packed) {
        return err_set(ST_BAD_MODEL, "%s/transformer/config.json: out_channels: got %d, want %d as in_channels", where,
                       f->out_channels, packed);
    }
    if (f->joint_attention_dim != m->t5.d_model) {
        return err_set(ST_BAD_MODEL,
                       "%s/transformer/config.json: joint_attention_dim: got %d, want %d (d_model of text_encoder_2)",
                       where, f->joint_attention_dim, m->t5.d_model);
    }
    if (f->pooled_projection_dim != m->clip.hidden) {
        return err_set(
            ST_BAD_MODEL,
            "%s/transformer/config.json: pooled_projection_dim: got %d, want %d (hidden_size of text_encoder)", where,
            f->pooled_projection_dim, m->clip.hidden);
    }
    return ST_OK;
}

/* Opens dir/relative and lets read fill what, a config struct. */
#define READ_CONFIG(relative, read, what)                                                                              \
    do {                                                                                                               \
        TRY(model_path(&path, m, relative));                                                                           \
        TRY(json_config_open(&config, path));                                                                          \
        TRY(read(what, config));                                                                                       \
        json_config_close(config);                                                                                     \
        config = NULL;                                                                                                 \
        free(path);                                                                                                    \
        path = NULL;                                                                                                   \
    } while (0)

/* The file is optional, and unlimited tokenizers write 10^30 there: integers are read as reals. */
static int read_max_text_rows(const model *m)
{
    char *path = NULL;
    int rows = MODEL_TEXT_ROWS;
    if (model_path(&path, m, "tokenizer_2/tokenizer_config.json") != ST_OK) return rows;
    json_t *config = json_load_file(path, JSON_DECODE_INT_AS_REAL, NULL);
    double length = json_number_value(json_object_get(config, "model_max_length"));
    if (length >= 1 && length < MODEL_TEXT_ROWS) rows = (int)length;
    json_decref(config);
    free(path);
    return rows;
}

status model_open(model **out, const char *dir)
{
    status st = ST_OK;
    char *path = NULL;
    json_config *config = NULL;
    model *m = calloc(1, sizeof(*m));
    if (m == NULL) return err_set(ST_NO_MEMORY, "model: %zu bytes", sizeof(*m));
    m->dir = strdup(dir);
    if (m->dir == NULL) {
        st = err_set(ST_NO_MEMORY, "model: the name %s", dir);
        goto fail;
    }
    for (size_t n = strlen(m->dir); n > 1 && m->dir[n - 1] == '/'; n--)
        m->dir[n - 1] = '\0';
    TRY(check_folder(m->dir));
    TRY(read_index(m->dir));
    READ_CONFIG("transformer/config.json", read_flux, &m->flux);
    READ_CONFIG("vae/config.json", read_vae, &m->vae);
    READ_CONFIG("text_encoder/config.json", read_clip, &m->clip);
    READ_CONFIG("text_encoder_2/config.json", read_t5, &m->t5);
    READ_CONFIG("scheduler/scheduler_config.json", read_scheduler, &m->scheduler);
    TRY(check_parts(m));
    m->max_text_rows = read_max_text_rows(m);
    *out = m;
    return ST_OK;
fail:
    json_config_close(config);
    free(path);
    model_close(m);
    return st;
}

void model_close(model *m)
{
    if (m == NULL) return;
    free(m->dir);
    free(m);
}

status model_path(char **out, const model *m, const char *relative)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", m->dir, relative) < 0) return err_set(ST_NO_MEMORY, "model: the name %s", relative);
    *out = path;
    return ST_OK;
}

const char *model_part_name(model_part part)
{
    static const char *const names[] = {"transformer", "vae", "text_encoder", "text_encoder_2"};
    return names[part];
}

status model_open_weights(weights **out, const model *m, model_part part)
{
    bool diffusers = part == MODEL_TRANSFORMER || part == MODEL_VAE;
    char *dir = NULL;
    status st = model_path(&dir, m, model_part_name(part));
    if (st != ST_OK) return st;
    st = weights_open(out, &(weights_opts){.dir = dir,
                                           .stem = diffusers ? "diffusion_pytorch_model" : "model",
                                           .what = model_part_name(part),
                                           .unneeded = part == MODEL_VAE ? "encoder." : NULL});
    free(dir);
    return st;
}
