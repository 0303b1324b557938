/* Configs of a model folder become numbers; whatever they leave out has the reference's default. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "model.h"
#include "tempdir.h"
#include "tiny_model.h"

static char dir[TEMPDIR_PATH];

static int make_folder(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

static void put(const char *relative, const char *text)
{
    char path[TEMPDIR_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, relative);
    assert_int_equal(tempdir_write(path, text), ST_OK);
}

static model *open_good(void)
{
    model *m = NULL;
    if (model_open(&m, dir) != ST_OK) fail_msg("%s", err_text());
    return m;
}

static void tiny_models_are_read_as_written(void **state)
{
    (void)state;
    for (char which = 'a'; which <= 'e'; which++) {
        tiny_model tiny = tiny_model_get(which);
        make_folder(NULL);
        assert_int_equal(tiny_model_write(&tiny, TINY_ALL, dir), ST_OK);
        model *m = open_good();
        assert_int_equal(m->flux.in_channels, tiny.transformer.in_channels);
        assert_int_equal(m->flux.out_channels, tiny.transformer.in_channels);
        assert_int_equal(m->flux.num_layers, tiny.transformer.num_layers);
        assert_int_equal(m->flux.num_single_layers, tiny.transformer.num_single_layers);
        assert_int_equal(m->flux.head_dim, tiny.transformer.head_dim);
        assert_int_equal(m->flux.n_heads, tiny.transformer.heads);
        assert_memory_equal(m->flux.axes_dims_rope, tiny.transformer.axes, sizeof(tiny.transformer.axes));
        assert_int_equal(m->flux.joint_attention_dim, tiny.transformer.joint_dim);
        assert_int_equal(m->flux.pooled_projection_dim, tiny.transformer.pooled_dim);
        assert_int_equal(m->flux.guidance_embeds, tiny.transformer.guidance);
        assert_int_equal(m->vae.n_blocks, tiny.vae.n_levels);
        assert_int_equal(m->vae.scale, 1 << (tiny.vae.n_levels - 1));
        for (int i = 0; i < tiny.vae.n_levels; i++)
            assert_int_equal(m->vae.block_out_channels[i], tiny.vae.widths[i]);
        assert_int_equal(m->vae.layers_per_block, tiny.vae.layers_per_block);
        assert_int_equal(m->vae.latent_channels, tiny.vae.latent_channels);
        assert_int_equal(m->vae.norm_num_groups, tiny.vae.groups);
        assert_true(m->vae.scaling_factor == tiny.vae.scaling_factor);
        assert_true(m->vae.shift_factor == tiny.vae.shift_factor);
        assert_int_equal(m->vae.use_post_quant_conv, tiny.vae.post_quant);
        assert_int_equal(m->clip.vocab_size, tiny.clip.vocab);
        assert_int_equal(m->clip.hidden, tiny.clip.hidden);
        assert_int_equal(m->clip.intermediate, tiny.clip.intermediate);
        assert_int_equal(m->clip.layers, tiny.clip.layers);
        assert_int_equal(m->clip.heads, tiny.clip.heads);
        assert_int_equal(m->clip.eos_token_id, tiny.clip.eos_token_id);
        assert_int_equal(m->t5.vocab_size, tiny.t5.vocab);
        assert_int_equal(m->t5.d_model, tiny.t5.d_model);
        assert_int_equal(m->t5.d_kv, tiny.t5.d_kv);
        assert_int_equal(m->t5.heads, tiny.t5.heads);
        assert_int_equal(m->t5.d_ff, tiny.t5.d_ff);
        assert_int_equal(m->t5.layers, tiny.t5.layers);
        assert_int_equal(m->scheduler.use_dynamic_shifting, tiny.dynamic_shift);
        assert_true(m->scheduler.shift == tiny.shift);
        for (int part = 0; part < MODEL_N_PARTS; part++) {
            weights *w = NULL;
            if (model_open_weights(&w, m, (model_part)part) != ST_OK) fail_msg("%c: %s", which, err_text());
            assert_true(weights_bytes(w) > 0);
            assert_string_equal(weights_note(w), "");
            weights_close(w);
        }
        model_close(m);
        remove_folder(NULL);
    }
}

/* The published folder of FLUX.1-dev leaves out what is default; an empty config is the class's own defaults
 * (diffusers FluxTransformer2DModel, AutoencoderKL; transformers CLIPTextConfig, T5Config). */
static void absent_fields_have_the_defaults_of_the_reference(void **state)
{
    (void)state;
    tiny_model tiny = tiny_model_get('a');
    assert_int_equal(tiny_model_write(&tiny, TINY_ALL, dir), ST_OK);
    put("transformer/config.json", "{\"axes_dims_rope\": null, \"out_channels\": null}");
    put("vae/config.json", "{\"latent_channels\": 16, \"shift_factor\": null}");
    put("text_encoder/config.json", "{\"hidden_size\": 768}");
    put("text_encoder_2/config.json", "{\"d_model\": 4096, \"feed_forward_proj\": \"gated-gelu\"}");
    put("scheduler/scheduler_config.json", "{\"use_karras_sigmas\": false, \"shift_terminal\": null}");
    model *m = open_good();
    assert_int_equal(m->flux.in_channels, 64);
    assert_int_equal(m->flux.out_channels, 64);
    assert_int_equal(m->flux.num_layers, 19);
    assert_int_equal(m->flux.num_single_layers, 38);
    assert_int_equal(m->flux.head_dim, 128);
    assert_int_equal(m->flux.n_heads, 24);
    assert_int_equal(m->flux.axes_dims_rope[0], 16);
    assert_int_equal(m->flux.axes_dims_rope[2], 56);
    assert_false(m->flux.guidance_embeds);
    assert_int_equal(m->vae.n_blocks, 1);
    assert_int_equal(m->vae.block_out_channels[0], 64);
    assert_int_equal(m->vae.sample_size, 32);
    assert_true(m->vae.scaling_factor == 0.18215);
    assert_true(m->vae.shift_factor == 0);
    assert_true(m->vae.use_post_quant_conv);
    assert_int_equal(m->clip.vocab_size, 49408);
    assert_int_equal(m->clip.intermediate, 2048);
    assert_int_equal(m->clip.heads, 8);
    assert_int_equal(m->clip.eos_token_id, 49407);
    assert_int_equal(m->clip.act, CLIP_QUICK_GELU);
    assert_int_equal(m->t5.d_ff, 2048);
    assert_int_equal(m->t5.num_buckets, 32);
    assert_int_equal(m->t5.max_distance, 128);
    assert_int_equal(m->scheduler.num_train_timesteps, 1000);
    assert_true(m->scheduler.shift == 1.0);
    assert_false(m->scheduler.use_dynamic_shifting);
    assert_true(m->scheduler.max_shift == 1.15);
    assert_int_equal(m->scheduler.time_shift_type, TIME_SHIFT_EXPONENTIAL);
    model_close(m);
}

static void a_whole_clip_and_a_slash_at_the_end_are_accepted(void **state)
{
    (void)state;
    tiny_model tiny = tiny_model_get('b');
    char text[256], path[TEMPDIR_PATH + 8];
    assert_int_equal(tiny_model_write(&tiny, TINY_ALL, dir), ST_OK);
    snprintf(text, sizeof(text),
             "{\"model_type\": \"clip\", \"text_config\": {\"hidden_size\": %d, \"hidden_act\": \"gelu\", "
             "\"num_attention_heads\": 1}}",
             tiny.clip.hidden);
    put("text_encoder/config.json", text);
    snprintf(path, sizeof(path), "%s//", dir);
    model *m = NULL;
    if (model_open(&m, path) != ST_OK) fail_msg("%s", err_text());
    assert_int_equal(m->clip.hidden, tiny.clip.hidden);
    assert_int_equal(m->clip.act, CLIP_GELU);
    assert_string_equal(m->dir, dir);
    model_close(m);
}

static void rows_of_text_come_from_the_tokenizer(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int rows;
    } cases[] = {
        {"{\"model_max_length\": 32}", 32},
        {"{\"model_max_length\": 4096}", 512},
        {"{\"model_max_length\": 1000000000000000019884624838656}", 512}, /* what unlimited tokenizers write */
        {"{}", 512},
    };
    tiny_model tiny = tiny_model_get('a');
    assert_int_equal(tiny_model_write(&tiny, TINY_ALL, dir), ST_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put("tokenizer_2/tokenizer_config.json", cases[i].config);
        model *m = open_good();
        assert_int_equal(m->max_text_rows, cases[i].rows);
        model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_models_are_read_as_written),
        cmocka_unit_test_setup_teardown(absent_fields_have_the_defaults_of_the_reference, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_whole_clip_and_a_slash_at_the_end_are_accepted, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(rows_of_text_come_from_the_tokenizer, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
