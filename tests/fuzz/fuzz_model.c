/* The configs of a model's folder. Accepted: sizes that can be computed with. */
#include "fuzz.h"

#include <sys/stat.h>

#include "model.h"
#include "tempdir.h"
#include "tiny_model.h"

static status read_model(const uint8_t *data, size_t n)
{
    model       *m = NULL;
    const status st = model_open(&m, fuzz_path("model"));
    (void)data, (void)n;
    if (st != ST_OK) return st;
    const flux_config *f = &m->flux;
    FUZZ_EXPECT(f->head_dim >= 1 && f->n_heads >= 1 && f->num_layers >= 0 && f->num_single_layers >= 0);
    FUZZ_EXPECT(f->axes_dims_rope[0] + f->axes_dims_rope[1] + f->axes_dims_rope[2] == f->head_dim);
    FUZZ_EXPECT(f->in_channels == 4 * m->vae.latent_channels && f->out_channels == f->in_channels);
    FUZZ_EXPECT(f->joint_attention_dim == m->t5.d_model && f->pooled_projection_dim == m->clip.hidden);
    FUZZ_EXPECT(m->vae.n_blocks >= 1 && m->vae.n_blocks <= VAE_MAX_BLOCKS && m->vae.scale == 1 << (m->vae.n_blocks - 1));
    for (int i = 0; i < m->vae.n_blocks; i++)
        FUZZ_EXPECT(m->vae.block_out_channels[i] >= 1 && m->vae.block_out_channels[i] % m->vae.norm_num_groups == 0);
    FUZZ_EXPECT(m->vae.scaling_factor != 0 && m->vae.sample_size >= 1 && m->vae.out_channels == 3);
    FUZZ_EXPECT(m->clip.heads >= 1 && m->clip.hidden % m->clip.heads == 0 && m->clip.max_position >= 1 && m->clip.layers >= 0);
    FUZZ_EXPECT(m->t5.heads >= 1 && m->t5.d_kv >= 1 && m->t5.num_buckets >= 2 && m->max_text_rows >= 1);
    FUZZ_EXPECT(m->max_text_rows <= MODEL_TEXT_ROWS);
    model_close(m);
    return ST_OK;
}

static void make_seeds(void)
{
    static const char kinds[] = "abcde";
    for (int i = 0; kinds[i] != '\0'; i++) {
        const tiny_model tiny = tiny_model_get(kinds[i]);
        tempdir_close(fuzz_path("model"));
        FUZZ_EXPECT(mkdir(fuzz_path("model"), 0777) == 0);
        FUZZ_EXPECT(tiny_model_write(&tiny, TINY_ALL, fuzz_path("model")) == ST_OK);
        fuzz_seed_files();
    }
}

const fuzz_target target = {.files = {"model/model_index.json", "model/transformer/config.json", "model/vae/config.json",
                                      "model/text_encoder/config.json", "model/text_encoder_2/config.json",
                                      "model/scheduler/scheduler_config.json", "model/tokenizer_2/tokenizer_config.json"},
                            .bad = ST_BAD_MODEL, .read = read_model, .seeds = make_seeds};
