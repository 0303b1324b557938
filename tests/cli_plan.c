/* --plan as a user runs it: every figure is told, configs are enough, nothing is rendered, what cannot fit ends with
 * exit code 5; and what a run then does (rows, bytes, memory) is what was planned. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "program.h"

enum { LIMIT_S = 240 };

static char dir[TEMPDIR_PATH];

static void write_in(const char *name, const char *text)
{
    char path[TEMPDIR_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (tempdir_write(path, text) != ST_OK) fail_msg("%s", err_text());
}

static void make_folder(const char *name)
{
    char path[TEMPDIR_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

/* FLUX.1-dev's published configs and nothing else: no weights, no tokenizers. */
static void write_configs(void)
{
    static const char *const folders[] = {"dev", "dev/transformer", "dev/vae", "dev/text_encoder", "dev/text_encoder_2",
                                          "dev/scheduler"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) make_folder(folders[i]);
    write_in("dev/model_index.json",
             "{\"_class_name\": \"FluxPipeline\", \"scheduler\": [\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"],"
             " \"text_encoder\": [\"transformers\", \"CLIPTextModel\"], \"text_encoder_2\": [\"transformers\", "
             "\"T5EncoderModel\"], \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"], \"tokenizer_2\": "
             "[\"transformers\", \"T5TokenizerFast\"], \"transformer\": [\"diffusers\", \"FluxTransformer2DModel\"], "
             "\"vae\": [\"diffusers\", \"AutoencoderKL\"]}");
    write_in("dev/transformer/config.json",
             "{\"attention_head_dim\": 128, \"guidance_embeds\": true, \"in_channels\": 64, "
             "\"joint_attention_dim\": 4096, \"num_attention_heads\": 24, \"num_layers\": 19, "
             "\"num_single_layers\": 38, \"pooled_projection_dim\": 768}");
    write_in("dev/vae/config.json",
             "{\"block_out_channels\": [128, 256, 512, 512], \"latent_channels\": 16, \"layers_per_block\": 2, "
             "\"norm_num_groups\": 32, \"sample_size\": 1024, \"scaling_factor\": 0.3611, \"shift_factor\": 0.1159, "
             "\"use_quant_conv\": false, \"use_post_quant_conv\": false}");
    write_in("dev/text_encoder/config.json",
             "{\"hidden_size\": 768, \"intermediate_size\": 3072, \"num_hidden_layers\": 12, "
             "\"num_attention_heads\": 12, \"max_position_embeddings\": 77, \"vocab_size\": 49408, "
             "\"eos_token_id\": 2}");
    write_in("dev/text_encoder_2/config.json",
             "{\"d_model\": 4096, \"d_kv\": 64, \"num_heads\": 64, \"d_ff\": 10240, \"num_layers\": 24, "
             "\"vocab_size\": 32128, \"feed_forward_proj\": \"gated-gelu\"}");
    write_in("dev/scheduler/scheduler_config.json", "{\"use_dynamic_shifting\": true, \"shift\": 3.0}");
}

/* A job of one picture called `name`; its file is NAME.yaml. */
static void write_job(const char *name, const char *model, int width, int height, const char *more)
{
    char file[64], text[1024];
    snprintf(file, sizeof(file), "%s.yaml", name);
    snprintf(text, sizeof(text),
             "model: %s\noutput: '{name}.png'\n%spictures:\n  - {name: %s, prompt: a hill, width: %d, height: %d}\n",
             model, more, name, width, height);
    write_in(file, text);
}

#ifdef WITH_MPI
enum { TWO = 2, MOST_RANKS = 4 };
#define RANKS_OF_TWO "2 ranks"
#else
enum { TWO = 0, MOST_RANKS = 1 };
#define RANKS_OF_TWO "1 rank"
#endif

/* Runs, and fails unless the exit code and all pieces (up to NULL) are there. */
static void expect(int n_ranks, const char *arguments, int exit_code, const char *const *pieces)
{
    program_run run;
    program_start(&run, dir, NULL, n_ranks, LIMIT_S, arguments);
    if (run.exit_code != exit_code)
        fail_msg("%s: got exit code %d, want %d\n%s", arguments, run.exit_code, exit_code, run.output);
    for (; *pieces != NULL; pieces++)
        if (strstr(run.output, *pieces) == NULL) fail_msg("%s: no \"%s\" in\n%s", arguments, *pieces, run.output);
    program_run_free(&run);
}

static int count_pictures(void)
{
    int            n = 0;
    DIR           *folder = opendir(dir);
    struct dirent *entry;
    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL) n += strstr(entry->d_name, ".png") != NULL;
    closedir(folder);
    return n;
}

/* 4096^2 on 8 H100: 66 048 rows are 8256 each; hops are hidden from 989e12 x 0.60 / 360e9 = 1648 on; 7 x 57 hops of
 * 12 288 B per row; 3.055 + 0.853 PFLOP; a step of 0.875 s by the cost model's table; weights 6 456 904 000 and 2
 * 164 794 112 parameters in bf16, T5 and CLIP 4 885 371 136; two buffers of 8256 x 12 288 B; modulation 28 x 1 056
 * 768 fp32. */
static void every_figure_is_told(void **state)
{
    static const char *const pieces[] = {
        "p: 4096 x 4096, 8 ranks",
        "replicas 1 x ulysses 1 x ring 8, ordered: 8256 rows per ring member; a hop is hidden from 1648 on",
        "512 text + 65536 image: 8256 to 8256 per rank; 1 rank has text rows",
        "323827.5 MB per step by all ranks",
        "3908 TFLOP per step (attention 78 %), 299.5 for the decode",
        "0.874 s per step on h100: attention ",
        "waiting for others 0; 28 steps 24.4",
        "writing the PNG ",
        "rank 0      rank 7",
        "encode, anonymous",
        "step loop, anonymous",
        "modulation                                      118.4        118.4",
        "buffer of keys and values                       202.9        202.9",
        "decode, anonymous",
        "largest at once, anonymous",
        "shared memory: none but MPI's own",
        "rank 0    with text rows: fits: ",
        "rank 7    without text rows: fits: ",
        "on the card of 80.00 GB, all the time",
        "image stream and single blocks                12913.8      12913.8",
        "text stream                                    4329.6          0.0",
        "T5 and CLIP                                    9770.7          0.0",
        "modulation, a share each                        819.9        819.9",
        NULL,
    };
    (void)state;
    write_job("p", "dev", 4096, 4096, "");
    expect(0, "--plan --for h100 --ranks 8 p.yaml --log-json p.json", 0, pieces);
    char path[TEMPDIR_PATH + 16];
    snprintf(path, sizeof(path), "%s/p.json", dir);
    json_t *plans = program_events(path, "plan"), *steps = program_events(path, "step");
    assert_int_equal(json_array_size(plans), 1);
    assert_int_equal(json_array_size(json_object_get(json_array_get(plans, 0), "ranks")), 8);
    assert_int_equal(json_array_size(steps), 0);
    json_decref(plans);
    json_decref(steps);
    assert_int_equal(count_pictures(), 0);
}

/* The folder that was just planned for has no weights: a render says so. */
static void a_plan_needs_no_weights(void **state)
{
    static const char *const missing[] = {"dev/", NULL}, *const planned[] = {"s per step on h100", NULL};
    (void)state;
    write_job("small", "dev", 64, 64, "defaults: {steps: 1}\n");
    expect(0, "--plan --for h100 small.yaml", 0, planned);
    expect(0, "small.yaml", 4, missing);
    assert_int_equal(count_pictures(), 0);
}

/* 24 GB cards: both kinds of rank of every count, with what fits. 6144^2 on two: rank 0 streams 3.38 GB, 0.169 s at 20 GB/s
 * (unit_plan has the arithmetic); on one the decode alone is too much. */
static void both_kinds_of_rank_are_told(void **state)
{
    static const int sides[] = {2048, 4096, 6144};
    (void)state;
    for (int s = 0; s < 3; s++) {
        char name[16];
        snprintf(name, sizeof(name), "s%d", sides[s]);
        write_job(name, "dev", sides[s], sides[s], "");
        for (int n = 1; n <= 8; n *= 2) {
            const bool        streams = s == 2 && n <= 2;
            char              arguments[96], other[64];
            const char *const pieces[] = {streams ? "rank 0    with text rows: does not fit: " : "rank 0    with text rows: fits: ",
                                          streams && n == 2 ? "3.38 pass in each step from as much pinned host memory through a "
                                                              "ring of 1.07: 0.169 s at 20 GB/s, under " : "step loop, of 24.00",
                                          streams ? "of work on their blocks: hidden" : "step loop", n > 1 ? other : "1 rank", NULL};
            snprintf(arguments, sizeof(arguments), "--plan --for rtx4090 --ranks %d %s.yaml", n, name);
            snprintf(other, sizeof(other), "rank %d    without text rows: fits: ", n - 1);
            expect(0, arguments, s == 2 && n == 1 ? 5 : 0, pieces);
        }
    }
    /* A card that may be used in part, 16 GiB of it. */
    static const char *const limited[] = {"rank 0    with text rows: does not fit: 22.25 GB in the step loop, of 17.18; ",
                                          "on the card of 17.18 GB, all the time", NULL};
    expect(0, "--plan --for h100 --ranks 2 --memory-limit 16G s4096.yaml", 0, limited);
}

/* The decode of 6144^2 is more than 24 GB; the plan is shown all the same. */
static void what_cannot_fit_ends_with_5(void **state)
{
    static const char *const pieces[] = {"big: 6144 x 6144, 1 rank\n", "image stream and single blocks",
                                         "big: 6144 x 6144 on 1 rank needs ", "rtx4090 has 24.00 GB; ", " would fit; ",
                                         " ranks would fit", NULL};
    static const char *const fits[] = {"s per step on rtx4090", NULL};
    (void)state;
    write_job("big", "dev", 6144, 6144, "");
    expect(0, "--plan --for rtx4090 --ranks 1 big.yaml", 5, pieces);
    expect(0, "--plan --for rtx4090 --ranks 8 big.yaml", 0, fits);
    assert_int_equal(count_pictures(), 0);
}

/* Without --plan too, and before anything is loaded: the largest picture that a job may ask for needs hundreds of GB
 * here. */
static void a_render_that_cannot_fit_is_refused_first(void **state)
{
    static const char *const pieces[] = {"huge: 65536 x 65536 on " RANKS_OF_TWO " needs ", " GB on this node, this machine has ",
                                         " would fit", NULL};
    (void)state;
    write_job("huge", PROJECT_DIR "/models/demo", 65536, 65536, "");
    expect(TWO, "huge.yaml --log-json huge.json", 5, pieces);
    char path[TEMPDIR_PATH + 16];
    snprintf(path, sizeof(path), "%s/huge.json", dir);
    json_t *starts = program_events(path, "start"), *phases = program_events(path, "phase");
    assert_int_equal(json_array_size(starts) + json_array_size(phases), 0);
    json_decref(starts);
    json_decref(phases);
    assert_int_equal(count_pictures(), 0);
}

/* This machine, measured. */
static void the_demo_model_is_planned_here(void **state)
{
    static const char *const pieces[] = {"q: 512 x 256, " RANKS_OF_TWO, "s per step on this machine: attention ",
                                         "text + 512 image: ", "largest at once, anonymous", NULL};
    (void)state;
    write_job("q", PROJECT_DIR "/models/demo", 512, 256, "parallel: {ulysses: 1, replicas: 1}\n");
    expect(TWO, "--plan q.yaml --log-json q.json", 0, pieces);
    char path[TEMPDIR_PATH + 16];
    snprintf(path, sizeof(path), "%s/q.json", dir);
    json_t *plans = program_events(path, "plan"), *p = json_array_get(plans, 0);
    assert_true(json_real_value(json_object_get(p, "step_s")) > 0);
    assert_true(json_real_value(json_object_get(p, "decode_s")) > json_real_value(json_object_get(p, "png_s")));
    assert_true(json_real_value(json_object_get(p, "png_s")) > 0);
#ifdef WITH_MPI
    assert_true(json_real_value(json_object_get(p, "link_bytes_s")) > 0);
#endif
    json_decref(plans);
    assert_int_equal(count_pictures(), 0);
}

/* ---- what a run does */

static json_int_t whole(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) fail_msg("no number \"%s\" in the log", key);
    return json_integer_value(value);
}

static json_int_t sum_of(json_t *parts)
{
    json_int_t  sum = 0;
    const char *name;
    json_t     *bytes;
    json_object_foreach(parts, name, bytes) sum += json_integer_value(bytes);
    return sum;
}

/* Device memory beside the phases' own: norm weights, and what measuring and the self-check took earlier and gave
 * back. */
enum { BESIDE_BYTES = 256 << 10, STEPS = 2 };

static void compare_rank(const char *what, int rank, json_t *planned, json_t *done)
{
    const json_int_t encode = sum_of(json_object_get(planned, "encode"));
    const json_int_t loop = sum_of(json_object_get(planned, "step_loop"));
    const json_int_t decode = sum_of(json_object_get(planned, "decode")), peak = whole(done, "device_peak_bytes");
    const json_int_t most = encode > loop ? (encode > decode ? encode : decode) : loop > decode ? loop : decode;
    if (whole(planned, "rows") != whole(done, "rows") || whole(planned, "text_rows") != whole(done, "text_rows"))
        fail_msg("%s, rank %d: %lld rows, planned %lld", what, rank, whole(done, "rows"), whole(planned, "rows"));
    if (whole(planned, "sent_bytes") * STEPS != whole(done, "exchange_bytes"))
        fail_msg("%s, rank %d: sent %lld bytes, planned %lld", what, rank, whole(done, "exchange_bytes"),
                 whole(planned, "sent_bytes") * STEPS);
    if (peak < most || peak > most + BESIDE_BYTES)
        fail_msg("%s, rank %d: at most %lld bytes at once, planned %lld", what, rank, peak, most);
}

static void a_run_does_what_was_planned(void **state)
{
    static const struct {
        const char *name, *parallel;
        int         n_ranks, width, height;
    } cases[] = {
        {"alone", "", 1, 256, 384},
        {"ring", "parallel: {ulysses: 1}\n", 3, 256, 368},
        {"heads", "parallel: {ulysses: 2, ring: 1}\n", 2, 272, 256},
        {"hybrid", "parallel: {ulysses: 2, ring: 2}\n", 4, 304, 256},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].n_ranks > MOST_RANKS) continue;
        static const char *const none[] = {NULL};
        char                     more[256], arguments[128], path[TEMPDIR_PATH + 32];
        snprintf(more, sizeof(more), "%sdefaults: {steps: %d}\n", cases[i].parallel, STEPS);
        write_job(cases[i].name, PROJECT_DIR "/models/demo", cases[i].width, cases[i].height, more);
        snprintf(arguments, sizeof(arguments), "%s.yaml --threads 1 --log-json %s.json", cases[i].name, cases[i].name);
        expect(TWO > 0 ? cases[i].n_ranks : 0, arguments, 0, none);
        snprintf(path, sizeof(path), "%s/%s.json", dir, cases[i].name);
        json_t *plans = program_events(path, "plan"), *pictures = program_events(path, "picture");
        json_t *planned = json_object_get(json_array_get(plans, 0), "ranks");
        json_t *done = json_object_get(json_array_get(pictures, 0), "ranks");
        assert_int_equal(json_array_size(planned), cases[i].n_ranks);
        assert_int_equal(json_array_size(done), cases[i].n_ranks);
        for (int r = 0; r < cases[i].n_ranks; r++)
            compare_rank(cases[i].name, r, json_array_get(planned, (size_t)r), json_array_get(done, (size_t)r));
        json_decref(plans);
        json_decref(pictures);
    }
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    write_configs();
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_figure_is_told),
        cmocka_unit_test(a_plan_needs_no_weights),
        cmocka_unit_test(both_kinds_of_rank_are_told),
        cmocka_unit_test(what_cannot_fit_ends_with_5),
        cmocka_unit_test(a_render_that_cannot_fit_is_refused_first),
        cmocka_unit_test(the_demo_model_is_planned_here),
        cmocka_unit_test(a_run_does_what_was_planned),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
