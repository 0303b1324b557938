/* A model folder broken in each way that downloads, editors and other programs break them is refused with the code of a
 * bad model, and the message names the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "model.h"
#include "tempdir.h"
#include "tiny_model.h"

enum { PATH_BYTES = TEMPDIR_PATH + 128 };

static char root[TEMPDIR_PATH];     /* of one case */
static char dir[TEMPDIR_PATH + 16]; /* the model folder in it */

typedef struct {
    weight x_embedder, q, ff, single_out, conv_in, up_conv, norm, token, clip_q, shared, t5_q, bias;
} bound;
enum {
    D,
    D4,
    D5,
    CHANNELS,
    LATENT,
    VAE_TOP,
    THREE,
    CLIP_VOCAB,
    CLIP_D,
    T5_VOCAB,
    T5_D,
    T5_INNER,
    T5_HEADS,
    BUCKETS,
    N_DIMS
};

static const weight_spec flux_specs[] = {
    {offsetof(bound, x_embedder), "x_embedder.weight", 2, {D, CHANNELS}, false, NULL},
    {offsetof(bound, q), "transformer_blocks.%d.attn.to_q.weight", 2, {D, D}, false, NULL},
    {offsetof(bound, ff), "transformer_blocks.%d.ff.net.0.proj.weight", 2, {D4, D}, false, NULL},
    {offsetof(bound, single_out), "single_transformer_blocks.%d.proj_out.weight", 2, {D, D5}, false, NULL},
};
static const weight_spec vae_specs[] = {
    {offsetof(bound, conv_in), "decoder.conv_in.weight", 4, {VAE_TOP, LATENT, THREE, THREE}, false, NULL},
    {offsetof(bound, norm), "decoder.mid_block.attentions.0.group_norm.weight", 1, {VAE_TOP}, false, NULL},
};
static const weight_spec clip_specs[] = {
    {offsetof(bound, token), "text_model.embeddings.token_embedding.weight", 2, {CLIP_VOCAB, CLIP_D}, false, NULL},
    {offsetof(bound, clip_q), "text_model.encoder.layers.%d.self_attn.q_proj.weight", 2, {CLIP_D, CLIP_D}, false, NULL},
};
static const weight_spec t5_specs[] = {
    {offsetof(bound, shared), "shared.weight", 2, {T5_VOCAB, T5_D}, false, "encoder.embed_tokens.weight"},
    {offsetof(bound, t5_q), "encoder.block.%d.layer.0.SelfAttention.q.weight", 2, {T5_INNER, T5_D}, false, NULL},
    {offsetof(bound, bias),
     "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
     2,
     {BUCKETS, T5_HEADS},
     false,
     NULL},
};

/* Opens the folder as a run does: configs, then every part's files, then tensors by name. */
static status read_model(void)
{
    static const struct {
        const weight_spec *specs;
        size_t n;
    } tables[MODEL_N_PARTS] = {{flux_specs, 4}, {vae_specs, 2}, {clip_specs, 2}, {t5_specs, 3}};
    status st = ST_OK;
    model *m = NULL;
    weights *w = NULL;
    bound b;
    err_clear();
    TRY(model_open(&m, dir));
    int64_t d = m->flux.head_dim * m->flux.n_heads;
    const int64_t dims[N_DIMS] = {[D] = d,
                                  [D4] = 4 * d,
                                  [D5] = 5 * d,
                                  [CHANNELS] = m->flux.in_channels,
                                  [LATENT] = m->vae.latent_channels,
                                  [THREE] = 3,
                                  [VAE_TOP] = m->vae.block_out_channels[m->vae.n_blocks - 1],
                                  [CLIP_VOCAB] = m->clip.vocab_size,
                                  [CLIP_D] = m->clip.hidden,
                                  [T5_VOCAB] = m->t5.vocab_size,
                                  [T5_D] = m->t5.d_model,
                                  [T5_INNER] = m->t5.heads * m->t5.d_kv,
                                  [T5_HEADS] = m->t5.heads,
                                  [BUCKETS] = m->t5.num_buckets};
    for (int part = 0; part < MODEL_N_PARTS; part++) {
        TRY(model_open_weights(&w, m, (model_part)part));
        TRY(weights_bind(w, tables[part].specs, tables[part].n, 0, dims, &b));
        weights_close(w);
        w = NULL;
    }
fail:
    weights_close(w);
    model_close(m);
    return st;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", name), text), ST_OK);
}

static void drop(const char *name)
{
    assert_int_equal(unlink(tempdir_in(dir, "%s", name)), 0);
}

static char *read_all(const char *name, size_t *n)
{
    FILE *f = fopen(tempdir_in(dir, "%s", name), "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = calloc(1, *n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    return bytes;
}

static void write_all(const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(tempdir_in(dir, "%s", name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* The first place of old in the file becomes new; of equal length in a safetensors header. */
static void edit(const char *name, const char *old, const char *new)
{
    size_t n;
    char *bytes = read_all(name, &n);
    char *at = memmem(bytes, n, old, strlen(old));
    if (at == NULL) fail_msg("%s: nothing like %s in it", name, old);
    char *edited = malloc(n + strlen(new));
    size_t before = (size_t)(at - bytes), after = n - before - strlen(old);
    memcpy(edited, bytes, before);
    memcpy(edited + before, new, strlen(new));
    memcpy(edited + before + strlen(new), at + strlen(old), after);
    write_all(name, edited, before + strlen(new) + after);
    free(edited);
    free(bytes);
}

static void cut(const char *name, int thousandths)
{
    struct stat info;
    assert_int_equal(stat(tempdir_in(dir, "%s", name), &info), 0);
    assert_int_equal(truncate(tempdir_in(dir, "%s", name), info.st_size * thousandths / 1000), 0);
}

static void append(const char *name, const char *text)
{
    FILE *f = fopen(tempdir_in(dir, "%s", name), "ab");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void drop_folder(void)
{
    char away[PATH_BYTES];
    snprintf(away, sizeof(away), "%s/away", root);
    assert_int_equal(rename(dir, away), 0);
}

#define INDEX "model_index.json"
#define FLUX "transformer/config.json"
#define FLUX_INDEX "transformer/diffusion_pytorch_model.safetensors.index.json"
#define SHARD_1 "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
#define SHARD_2 "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
#define VAE "vae/config.json"
#define VAE_FILE "vae/diffusion_pytorch_model.safetensors"
#define CLIP "text_encoder/config.json"
#define CLIP_FILE "text_encoder/model.safetensors"
#define T5 "text_encoder_2/config.json"
#define T5_SHARD "text_encoder_2/model-00002-of-00002.safetensors"
#define SCHEDULER "scheduler/scheduler_config.json"

typedef enum {
    NO_FOLDER,  /* moved away */
    A_FILE,     /* a file instead of the folder; text: its name */
    EMPTY_WITH, /* an empty folder with one file, text its name */
    PUT,        /* file becomes text */
    EDIT,       /* in file, text becomes other */
    DROP,       /* file is removed */
    CUT,        /* file keeps text thousandths of its bytes */
    APPEND,     /* text at the end of file */
    FOLDER,     /* file is a folder instead */
    PIPE        /* file is a named pipe instead */
} breaking;

typedef struct {
    const char *story;
    breaking how;
    const char *file, *text, *other;
    const char *wanted, *wanted_too; /* parts of the message; the second may be NULL */
} fault;

static const fault faults[] = {
    /* the folder */
    {"no folder", NO_FOLDER, NULL, NULL, NULL, "no such model folder",
     "huggingface-cli download black-forest-labs/FLUX.1-Krea-dev"},
    {"a single file", A_FILE, NULL, "flux1-dev.safetensors", NULL, "a single-file checkpoint", "huggingface-cli"},
    {"a GGUF file", A_FILE, NULL, "flux1-dev-Q4.gguf", NULL, "a quantised GGUF model", NULL},
    {"a folder with a single file", EMPTY_WITH, NULL, "flux1-dev.safetensors", NULL,
     "holds flux1-dev.safetensors, a single-file", NULL},
    {"a folder with a GGUF file", EMPTY_WITH, NULL, "flux1-dev-Q8_0.gguf", NULL,
     "holds flux1-dev-Q8_0.gguf, a quantised", NULL},
    {"a folder of something else", EMPTY_WITH, NULL, "notes.txt", NULL, "no model_index.json", "huggingface-cli"},
    {"a cache folder", EMPTY_WITH, NULL, "snapshots", NULL, "Hugging Face cache", "snapshots/REVISION"},
    {"no index of the model", DROP, INDEX, NULL, NULL, "model_index.json: missing", "unfinished"},
    /* the pipeline */
    {"FLUX.2", EDIT, INDEX, "FluxPipeline", "Flux2Pipeline", "Flux2Pipeline is FLUX.2", INDEX},
    {"Fill", EDIT, INDEX, "FluxPipeline", "FluxFillPipeline", "FLUX.1 Fill", NULL},
    {"Control", EDIT, INDEX, "FluxPipeline", "FluxControlPipeline", "Depth or Canny", NULL},
    {"Kontext", EDIT, INDEX, "FluxPipeline", "FluxKontextPipeline", "Kontext", NULL},
    {"Stable Diffusion", EDIT, INDEX, "FluxPipeline", "StableDiffusionXLPipeline", "is Stable Diffusion XL", NULL},
    {"an unknown pipeline", EDIT, INDEX, "FluxPipeline", "MyPipeline", "got MyPipeline, want FluxPipeline", NULL},
    {"no class", EDIT, INDEX, "_class_name", "_class", "_class_name: absent", NULL},
    {"a foreign transformer class", EDIT, INDEX, "FluxTransformer2DModel", "NunchakuFluxTransformer2dModel",
     "transformer: unsupported: got class Nunchaku", NULL},
    {"no text encoder", EDIT, INDEX, "\"T5EncoderModel\"", "null", "text_encoder_2: absent or null", NULL},
    {"a Git LFS pointer as index", PUT, INDEX, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
     NULL, "Git LFS pointer", INDEX},
    {"an empty index", PUT, INDEX, "", NULL, "the file is empty", INDEX},
    {"an HTML page as index", PUT, INDEX, "<!DOCTYPE html>\n<html>", NULL, "HTML page", INDEX},
    {"a list as index", PUT, INDEX, "[1]", NULL, "a JSON list", INDEX},
    {"half an index", CUT, INDEX, "500", NULL, INDEX ":", "near"},
    /* configs */
    {"a missing config", DROP, FLUX, NULL, NULL, FLUX ": No such file", NULL},
    {"a duplicate key", EDIT, FLUX, "\"num_layers\"", "\"num_layers\": 1, \"num_layers\"", "duplicate", FLUX ":"},
    {"a deeply nested config", PUT, VAE, "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]}", NULL,
     "nested deeper", VAE},
    {"a config that is not UTF-8", PUT, VAE, "{\"_class_name\": \"\xff\"}", NULL, "unable to decode", VAE},
    {"a folder instead of a config", FOLDER, VAE, NULL, NULL, VAE ": no regular file", NULL},
    {"a pipe instead of a config", PIPE, VAE, NULL, NULL, VAE ": no regular file", NULL},
    {"layers as text", EDIT, FLUX, "\"num_layers\": 1", "\"num_layers\": \"1\"",
     "num_layers: got \"1\", want a whole number from 0", NULL},
    {"layers past the limit", EDIT, FLUX, "\"num_layers\": 1", "\"num_layers\": 100000", "num_layers: got 100000",
     NULL},
    {"layers past 64 bits", EDIT, FLUX, "\"num_layers\": 1", "\"num_layers\": 99999999999999999999", "too big", FLUX},
    {"a negative head count", EDIT, FLUX, "\"num_attention_heads\": 2", "\"num_attention_heads\": -2",
     "num_attention_heads: got -2", NULL},
    {"a broken layer count", EDIT, FLUX, "\"num_layers\": 1", "\"num_layers\": 1.5", "num_layers: got 1.5", NULL},
    {"axes of another head", EDIT, FLUX, "[8, 12, 12]", "[8, 12, 10]", "axes_dims_rope: got [8, 12, 10], sum 30",
     "attention_head_dim 32"},
    {"heads of a width that attention does not take", EDIT, FLUX, "\"attention_head_dim\": 32", "\"attention_head_dim\": 34",
     "axes_dims_rope", "attention_head_dim 34"},
    {"T5 heads of a width that attention does not take", EDIT, "text_encoder_2/config.json", "\"d_kv\": ", "\"d_kv\": 1",
     "d_kv: attention heads of width 1", "a multiple of 8"},
    {"odd axes", EDIT, FLUX, "[8, 12, 12]", "[8, 11, 13]", "want even numbers", NULL},
    {"two axes", EDIT, FLUX, "[8, 12, 12]", "[8, 24]", "got 2 axes", NULL},
    {"Fill's channels", EDIT, FLUX, "\"in_channels\": 16", "\"in_channels\": 96", "in_channels: got 96, want 16",
     "FLUX.1 Fill"},
    {"Control's channels", EDIT, FLUX, "\"in_channels\": 16", "\"in_channels\": 32", "in_channels: got 32, want 16",
     "Depth or Canny"},
    {"a patched transformer", EDIT, FLUX, "{", "{\"patch_size\": 2, ", "", "patch_size"},
    {"another transformer class", EDIT, FLUX, "FluxTransformer2DModel", "Flux2Transformer2DModel",
     "got Flux2Transformer2DModel", FLUX},
    {"a bitsandbytes config", EDIT, FLUX, "{",
     "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}, ",
     "quantised (bitsandbytes, 4 bits)", FLUX},
    {"text rows of another width", EDIT, T5, "\"d_model\": 24", "\"d_model\": 48",
     "joint_attention_dim: got 24, want 48", NULL},
    {"a CLIP of another width", EDIT, CLIP, "\"hidden_size\": 16", "\"hidden_size\": 32",
     "pooled_projection_dim: got 16, want 32", NULL},
    {"CLIP heads that do not divide", EDIT, CLIP, "\"num_attention_heads\": 2", "\"num_attention_heads\": 3",
     "hidden_size: got 16", CLIP},
    {"an unknown activation of CLIP", EDIT, CLIP, "quick_gelu", "relu",
     "hidden_act: got \"relu\", want \"quick_gelu\" or \"gelu\"", CLIP},
    {"a T5 of version 1.0", EDIT, T5, "gated-gelu", "relu", "feed_forward_proj: got \"relu\", want \"gated-gelu\"", T5},
    {"a UMT5", EDIT, T5, "\"t5\"", "\"umt5\"", "model_type: unsupported: got umt5", T5},
    {"groups that do not divide", EDIT, VAE, "\"norm_num_groups\": 2", "\"norm_num_groups\": 3",
     "block_out_channels: got 8", VAE},
    {"another VAE activation", EDIT, VAE, "silu", "relu", "act_fn: got \"relu\"", VAE},
    {"another VAE block", EDIT, VAE, "UpDecoderBlock2D", "AttnUpDecoderBlock2D",
     "up_block_types: unsupported: got AttnUpDecoderBlock2D", VAE},
    {"too few VAE blocks", EDIT, VAE, "\"UpDecoderBlock2D\"", "",
     "up_block_types: got 0 blocks, block_out_channels has 1", VAE},
    {"a grey VAE", EDIT, VAE, "\"out_channels\": 3", "\"out_channels\": 1", "out_channels: unsupported: got 1", VAE},
    {"no scaling", EDIT, VAE, "\"scaling_factor\": 1", "\"scaling_factor\": 0", "scaling_factor: got 0", VAE},
    {"a video VAE", EDIT, VAE, "AutoencoderKL", "AutoencoderKLWan", "got AutoencoderKLWan", VAE},
    {"a flag of the scheduler", EDIT, SCHEDULER, "{", "{\"use_karras_sigmas\": true, ",
     "use_karras_sigmas: unsupported", SCHEDULER},
    {"a terminal shift", EDIT, SCHEDULER, "{", "{\"shift_terminal\": 0.02, ", "shift_terminal: unsupported", SCHEDULER},
    {"another scheduler", EDIT, SCHEDULER, "FlowMatchEuler", "FlowMatchHeun", "got FlowMatchHeunDiscreteScheduler",
     SCHEDULER},
    {"equal lengths of the shift", EDIT, SCHEDULER, "4096", "256", "max_image_seq_len: got 256", SCHEDULER},
    /* the shards and their index */
    {"a missing shard", DROP, SHARD_2, NULL, NULL, "00002-of-00002.safetensors", "it is missing"},
    {"a half-downloaded shard", CUT, SHARD_2, "600", NULL, SHARD_2, "an unfinished download"},
    {"a shard cut in its header", CUT, SHARD_1, "1", NULL, SHARD_1, "truncated: the header says"},
    {"an empty shard", PUT, SHARD_1, "", NULL, SHARD_1, "the file is empty"},
    {"a Git LFS pointer as shard", PUT, SHARD_1, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
     NULL, SHARD_1, "Git LFS pointer"},
    {"an HTML page as shard", PUT, SHARD_2, "<html><body>Access denied</body></html>", NULL, SHARD_2, "HTML page"},
    {"a pickle as weights", PUT, CLIP_FILE, "PK\003\004model/data.pkl", NULL, CLIP_FILE, "PyTorch pickle"},
    {"a GGUF as weights", PUT, CLIP_FILE, "GGUF\003xxxxxxxxx", NULL, CLIP_FILE, "a GGUF file"},
    {"bytes after the weights", APPEND, VAE_FILE, "more", NULL, VAE_FILE, "4 bytes follow the last tensor"},
    {"no index beside shards", DROP, FLUX_INDEX, NULL, NULL, "2 *.safetensors files", "index.json that joins them"},
    {"no weights", DROP, CLIP_FILE, NULL, NULL, "text_encoder: ", "no model.safetensors"},
    {"a shard out of the folder", EDIT, FLUX_INDEX, "diffusion_pytorch_model-00001", "../diffusion_pytorch_model-00001",
     "weight_map", "want the bare name"},
    {"an absolute shard", EDIT, FLUX_INDEX, "diffusion_pytorch_model-00001", "/etc/diffusion_pytorch_model-00001",
     "want the bare name", FLUX_INDEX},
    {"a name that no shard has", EDIT, FLUX_INDEX, "x_embedder.weight", "x_embedder.wait", "x_embedder.wait is missing",
     "says that it is there"},
    {"an index without map", PUT, FLUX_INDEX, "{\"metadata\": {}}", NULL, "weight_map: absent", FLUX_INDEX},
    {"a pipe instead of a shard", PIPE, SHARD_1, NULL, NULL, SHARD_1, "no regular file"},
    {"a folder instead of a shard", FOLDER, T5_SHARD, NULL, NULL, T5_SHARD, "a folder"},
    /* tensors */
    {"overlapping tensors", EDIT, VAE_FILE, "\"data_offsets\":[0,", "\"data_offsets\":[4,", VAE_FILE,
     "data_offsets span"},
    {"an unknown dtype", EDIT, VAE_FILE, "\"F32\"", "\"G32\"", VAE_FILE, "dtype G32 is unknown"},
    {"a dtype of another size", EDIT, VAE_FILE, "\"F32\"", "\"F64\"", VAE_FILE, "data_offsets span"},
    {"integers for weights", EDIT, CLIP_FILE, "token_embedding.weight\":{\"dtype\":\"F32\"",
     "token_embedding.weight\":{\"dtype\":\"I32\"", "type I32 is not supported", "token_embedding.weight"},
    {"a renamed tensor", EDIT, CLIP_FILE, "token_embedding.weight", "token_embeddinx.weight",
     "token_embedding.weight is missing", "nearest name there is text_model.embeddings.token_embeddinx.weight"},
    {"a larger vocabulary in the config", EDIT, CLIP, "\"vocab_size\": 514", "\"vocab_size\": 515",
     "token_embedding.weight", "got F32 [514, 16], want [515, 16]"},
    {"more heads in the config", EDIT, FLUX, "\"num_attention_heads\": 2", "\"num_attention_heads\": 3",
     "x_embedder.weight", "got F32 [64, 16], want [96, 16]"},
    {"more T5 heads in the config", EDIT, T5, "\"num_heads\": 2", "\"num_heads\": 3", "SelfAttention.q.weight",
     "want [24, 24]"},
};
enum { N_FAULTS = sizeof(faults) / sizeof(faults[0]) };

static void break_folder(const fault *f)
{
    switch (f->how) {
    case NO_FOLDER:
        drop_folder();
        break;
    case A_FILE:
        snprintf(dir, sizeof(dir), "%.400s/%s", root, f->text);
        assert_int_equal(tempdir_write(dir, "x"), ST_OK);
        break;
    case EMPTY_WITH:
        drop_folder();
        assert_int_equal(mkdir(dir, 0777), 0);
        put(f->text, "x");
        break;
    case PUT:
        put(f->file, f->text);
        break;
    case EDIT:
        edit(f->file, f->text, f->other);
        break;
    case DROP:
        drop(f->file);
        break;
    case CUT:
        cut(f->file, atoi(f->text));
        break;
    case APPEND:
        append(f->file, f->text);
        break;
    case FOLDER:
        drop(f->file);
        assert_int_equal(mkdir(tempdir_in(dir, "%s", f->file), 0777), 0);
        break;
    case PIPE:
        drop(f->file);
        assert_int_equal(mkfifo(tempdir_in(dir, "%s", f->file), 0666), 0);
        break;
    }
}

/* Two shards of a transformer and of T5, one block of each kind. */
static void write_good_folder(void)
{
    tiny_model tiny = tiny_model_get('d');
    tiny.transformer.num_single_layers = 1;
    tiny.shards = 2;
    assert_int_equal(tempdir_open(root), ST_OK);
    snprintf(dir, sizeof(dir), "%s/model", root);
    assert_int_equal(mkdir(dir, 0777), 0);
    if (tiny_model_write(&tiny, TINY_ALL, dir) != ST_OK) fail_msg("%s", err_text());
}

static void the_unbroken_folder_is_read(void **state)
{
    (void)state;
    write_good_folder();
    if (read_model() != ST_OK) fail_msg("%s", err_text());
    tempdir_close(root);
}

static void every_broken_folder_is_named(void **state)
{
    (void)state;
    assert_true(N_FAULTS >= 30);
    for (size_t i = 0; i < N_FAULTS; i++) {
        const fault *f = &faults[i];
        write_good_folder();
        break_folder(f);
        status st = read_model();
        const char *text = err_text();
        if (st != ST_BAD_MODEL) fail_msg("%s: got status %d (%s), want %d", f->story, st, text, ST_BAD_MODEL);
        if (strstr(text, f->wanted) == NULL) fail_msg("%s: got '%s', want '%s'", f->story, text, f->wanted);
        if (f->wanted_too != NULL && strstr(text, f->wanted_too) == NULL) {
            fail_msg("%s: got '%s', want '%s'", f->story, text, f->wanted_too);
        }
        tempdir_close(root);
    }
}

/* The shard is cut when its header has long been checked, as by a download that starts again. */
static void a_shard_cut_while_bound_ends_with_its_name(void **state)
{
    (void)state;
    write_good_folder();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        model *m = NULL;
        weights *w = NULL;
        weight norm;
        signal(SIGBUS, SIG_DFL); /* the test library has its own */
        dup2(ends[1], STDERR_FILENO);
        if (model_open(&m, dir) != ST_OK || model_open_weights(&w, m, MODEL_VAE) != ST_OK) _exit(99);
        const int64_t dims[] = {m->vae.block_out_channels[m->vae.n_blocks - 1]};
        const weight_spec spec = {0, "decoder.mid_block.attentions.0.group_norm.weight", 1, {0}, false, NULL};
        if (weights_bind(w, &spec, 1, 0, dims, &norm) != ST_OK) _exit(98);
        if (truncate(tempdir_in(dir, "%s", VAE_FILE), 0) != 0) _exit(97);
        _exit(*(const volatile float *)norm.data > 0 ? 96 : 95);
    }
    close(ends[1]);
    char said[1024] = "";
    ssize_t got = read(ends[0], said, sizeof(said) - 1);
    close(ends[0]);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 4);
    assert_true(got > 0);
    assert_non_null(strstr(said, VAE_FILE ": the file was truncated or became unreadable while in use"));
    tempdir_close(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unbroken_folder_is_read),
        cmocka_unit_test(every_broken_folder_is_named),
        cmocka_unit_test(a_shard_cut_while_bound_ends_with_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
