/* A job file becomes pictures with every default filled in, one per seed, each with its own id and path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "job.h"
#include "suggest.h"

/* The file's own model and one picture, around what a test adds. */
#define TOP "model: m\n"
#define SIZE "width: 64, height: 32"

static job *parse(const char *text, const job_opts *opts)
{
    job *j = NULL;
    status st = job_parse(&j, "jobs/t.yaml", text, strlen(text), opts);
    if (st != ST_OK) fail_msg("%s", err_text());
    return j;
}

static void a_short_job_gets_every_default(void **state)
{
    (void)state;
    job *j = parse(TOP "pictures:\n  - {name: alps, prompt: hills, width: 8192, height: 2048}\n", NULL);
    assert_string_equal(j->path, "jobs/t.yaml");
    assert_string_equal(j->model, "jobs/m");
    assert_int_equal(j->precision, DT_BF16);
    assert_int_equal(j->parallel.ulysses, 0);
    assert_int_equal(j->parallel.ring, 0);
    assert_int_equal(j->parallel.replicas, 0);
    assert_int_equal(j->parallel.schedule, SCHEDULE_ORDERED);
    assert_int_equal(j->checkpoint_every, 4);
    assert_int_equal(j->n_pictures, 1);
    const job_picture *p = &j->pictures[0];
    assert_string_equal(p->name, "alps");
    assert_string_equal(p->id, "alps");
    assert_string_equal(p->prompt, "hills");
    assert_string_equal(p->prompt_2, "hills");
    assert_int_equal(p->width, 8192);
    assert_int_equal(p->height, 2048);
    assert_true(p->seed == 0);
    assert_int_equal(p->steps, 28);
    assert_true(p->guidance == 4.5);
    assert_int_equal(p->max_sequence_length, 0);
    assert_int_equal(p->position.method, POSITION_YARN);
    assert_true(p->position.dype);
    assert_int_equal(p->position.variant, VARIANT_OFFICIAL);
    assert_true(isnan(p->position.lambda_s));
    assert_true(p->position.lambda_t == 2);
    assert_int_equal(p->position.base_resolution, 0);
    assert_int_equal(p->shift.kind, SHIFT_DYPE);
    assert_int_equal(p->noise.kind, NOISE_TORCH_CPU);
    assert_int_equal(p->wrap, WRAP_NONE);
    assert_int_equal(p->preview_every, 0);
    assert_false(p->parity_diffusers);
    assert_null(p->latents_in);
    assert_null(p->latents_out);
    assert_null(p->embeddings_in);
    assert_string_equal(p->output, "outputs/alps-0.png");
    assert_int_equal(p->index, 1);
    assert_int_equal(p->line, 3);
    assert_int_equal(p->column, 5);
    job_close(j);
}

static void every_key_arrives(void **state)
{
    (void)state;
    job *j = parse("model: /models/flux\n"
                   "output: o/{index}/{name}-{width}x{height}-{method}.{seed}.png\n"
                   "precision: fp32\n"
                   "parallel: {ulysses: 2, ring: 4, replicas: 3, schedule: neighbour}\n"
                   "checkpoint: {every: 0}\n"
                   "pictures:\n"
                   "  - name: a\n"
                   "    prompt: \"one \\\"two\\\"\\n\\u00e9\"\n"
                   "    prompt_2: 'it''s'\n"
                   "    width: 64\n"
                   "    height: 128\n"
                   "    seed: 18446744073709551615\n"
                   "    steps: 4\n"
                   "    guidance: 3.5e0\n"
                   "    max_sequence_length: 256\n"
                   "    position: {method: yarn, dype: true, variant: v1, lambda_s: 1.5, lambda_t: 0.5, "
                   "base_resolution: 1328}\n"
                   "    shift: 1.15\n"
                   "    noise: {kind: torch-cuda, sms: 108, threads_per_sm: 1536}\n"
                   "    wrap: horizontal\n"
                   "    preview_every: 7\n"
                   "    parity: diffusers\n"
                   "    latents_in: in/l.safetensors\n"
                   "    latents_out: o/{name}.safetensors\n"
                   "    embeddings_in: /e.safetensors\n",
                   NULL);
    const job_picture *p = &j->pictures[0];
    assert_string_equal(j->model, "/models/flux");
    assert_int_equal(j->precision, DT_F32);
    assert_int_equal(j->parallel.ulysses, 2);
    assert_int_equal(j->parallel.ring, 4);
    assert_int_equal(j->parallel.replicas, 3);
    assert_int_equal(j->parallel.schedule, SCHEDULE_NEIGHBOUR);
    assert_int_equal(j->checkpoint_every, 0);
    assert_string_equal(p->prompt, "one \"two\"\n\xc3\xa9");
    assert_string_equal(p->prompt_2, "it's");
    assert_true(p->seed == UINT64_MAX);
    assert_int_equal(p->steps, 4);
    assert_true(p->guidance == 3.5);
    assert_int_equal(p->max_sequence_length, 256);
    assert_int_equal(p->position.variant, VARIANT_V1);
    assert_true(p->position.lambda_s == 1.5);
    assert_true(p->position.lambda_t == 0.5);
    assert_int_equal(p->position.base_resolution, 1328);
    assert_int_equal(p->shift.kind, SHIFT_EXPLICIT);
    assert_true(p->shift.mu == 1.15);
    assert_int_equal(p->noise.kind, NOISE_TORCH_CUDA);
    assert_int_equal(p->noise.sms, 108);
    assert_int_equal(p->noise.threads_per_sm, 1536);
    assert_int_equal(p->wrap, WRAP_HORIZONTAL);
    assert_int_equal(p->preview_every, 7);
    assert_true(p->parity_diffusers);
    assert_string_equal(p->latents_in, "jobs/in/l.safetensors");
    assert_string_equal(p->latents_out, "o/a.safetensors");
    assert_string_equal(p->embeddings_in, "/e.safetensors");
    assert_string_equal(p->output, "o/1/a-64x128-dy-yarn-v1.18446744073709551615.png");
    job_close(j);
}

static void one_picture_per_seed(void **state)
{
    (void)state;
    job *j = parse(TOP "defaults: {prompt: p, " SIZE ", seeds: [1, 2]}\n"
                       "pictures:\n"
                       "  - {name: a}\n"
                       "  - {name: b, seed: 5}\n"
                       "  - {name: c, seeds: [-1, -9223372036854775808]}\n",
                   NULL);
    static const struct {
        const char *id;
        uint64_t seed;
    } want[] = {{"a-1", 1},
                {"a-2", 2},
                {"b", 5},
                {"c-18446744073709551615", UINT64_MAX},
                {"c-9223372036854775808", (uint64_t)1 << 63}};
    assert_int_equal(j->n_pictures, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(j->pictures[i].id, want[i].id);
        assert_true(j->pictures[i].seed == want[i].seed);
        assert_int_equal(j->pictures[i].index, (int)i + 1);
    }
    job_close(j);
}

/* What a picture says lies over defaults; a method brings its own variant, the rest of `position` stays. */
static void defaults_lie_below_pictures(void **state)
{
    (void)state;
    job *j = parse(TOP "defaults:\n"
                       "  prompt: p\n"
                       "  prompt_2: q\n"
                       "  width: 64\n"
                       "  height: 64\n"
                       "  position: {method: yarn, dype: true, variant: v1, lambda_t: 3, base_resolution: 256}\n"
                       "  noise: counter\n"
                       "  shift: stock\n"
                       "pictures:\n"
                       "  - {name: a}\n"
                       "  - {name: b, position: {method: ntk}, prompt: r, shift: -0.5, noise: torch-cpu-legacy}\n"
                       "  - {name: c, position: {method: base}}\n"
                       "  - {name: d, position: {method: time-aware}}\n"
                       "  - {name: e, position: {lambda_s: 0}}\n"
                       "  - {name: f, position: {dype: false, method: yarn, variant: fit2}}\n",
                   NULL);
    const job_picture *p = j->pictures;
    assert_int_equal(p[0].position.variant, VARIANT_V1);
    assert_int_equal(p[0].noise.kind, NOISE_COUNTER);
    assert_int_equal(p[0].shift.kind, SHIFT_STOCK);
    assert_string_equal(p[1].prompt, "r");
    assert_string_equal(p[1].prompt_2, "q");
    assert_int_equal(p[1].position.method, POSITION_NTK);
    assert_true(p[1].position.dype);
    assert_int_equal(p[1].position.variant, VARIANT_OFFICIAL);
    assert_true(p[1].position.lambda_t == 3);
    assert_int_equal(p[1].position.base_resolution, 256);
    assert_true(p[1].shift.kind == SHIFT_EXPLICIT && p[1].shift.mu == -0.5);
    assert_int_equal(p[1].noise.kind, NOISE_TORCH_CPU_LEGACY);
    assert_false(p[2].position.dype);
    assert_false(p[3].position.dype);
    assert_int_equal(p[3].position.variant, VARIANT_SWITCH);
    assert_int_equal(p[4].position.variant, VARIANT_V1);
    assert_true(p[4].position.lambda_s == 0);
    assert_int_equal(p[5].position.variant, VARIANT_FIT2);
    job_close(j);
}

/* The rows of the table of methods: each pair of method and form has exactly these variants. */
static void every_variant_is_accepted_where_its_method_has_it(void **state)
{
    (void)state;
    static const struct {
        const char *method, *dype, *variants; /* words between spaces */
    } rows[] = {
        {"base", "false", " official "},
        {"pi", "false", " official "},
        {"pi", "true", " official "},
        {"ntk", "false", " official "},
        {"ntk", "true", " official ablate-exp ablate-mult "},
        {"yarn", "false", " official paper paper-L1024 fit2 "},
        {"yarn", "true", " official v1 paper paper-L1024 ablate-ntk-only ablate-both "},
        {"time-aware", "false", " switch continuous "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int v = 0; position_variant_names[v] != NULL; v++) {
            char text[256], word[32];
            job *j = NULL;
            snprintf(text, sizeof(text),
                     TOP "pictures: [{name: a, prompt: p, " SIZE ", position: {method: %s, dype: %s, variant: %s}}]\n",
                     rows[i].method, rows[i].dype, position_variant_names[v]);
            snprintf(word, sizeof(word), " %s ", position_variant_names[v]);
            status st = job_parse(&j, "t.yaml", text, strlen(text), NULL);
            assert_int_equal(st, strstr(rows[i].variants, word) != NULL ? ST_OK : ST_BAD_JOB);
            if (st == ST_OK) job_close(j);
        }
    }
}

static void labels_tell_methods_apart(void **state)
{
    (void)state;
    static const struct {
        position_opts opts;
        const char *label;
    } rows[] = {
        {{.method = POSITION_BASE}, "base"},
        {{.method = POSITION_YARN}, "yarn"},
        {{.method = POSITION_YARN, .dype = true}, "dy-yarn"},
        {{.method = POSITION_YARN, .dype = true, .variant = VARIANT_PAPER_L1024}, "dy-yarn-paper-L1024"},
        {{.method = POSITION_TIME_AWARE, .variant = VARIANT_SWITCH}, "time-aware-switch"},
    };
    char label[POSITION_LABEL_BYTES];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(position_label(&rows[i].opts, label), rows[i].label);
}

static void model_and_out_come_from_the_command_line(void **state)
{
    (void)state;
    static const char text[] = "output: a/{name}.png\n"
                               "pictures:\n"
                               "  - {name: x, prompt: '', " SIZE ", latents_out: 'l/{name}.safetensors'}\n";
    job_opts opts = {.model = "there/flux", .out_dir = "/scratch"};
    job *j = parse(text, &opts);
    assert_string_equal(j->model, "there/flux");
    assert_string_equal(j->pictures[0].output, "/scratch/a/x.png");
    assert_string_equal(j->pictures[0].latents_out, "/scratch/l/x.safetensors");
    assert_string_equal(j->pictures[0].prompt, "");
    job_close(j);
    j = parse("model: m\noutput: /abs/{name}.png\npictures: [{name: x, prompt: '', " SIZE "}]\n",
              &(job_opts){.out_dir = "/scratch"});
    assert_string_equal(j->pictures[0].output, "/abs/x.png");
    job_close(j);
}

static void only_selects_by_name_or_id(void **state)
{
    (void)state;
    static const char text[] = TOP "defaults: {prompt: p, " SIZE "}\n"
                                   "pictures: [{name: alps, seeds: [1, 2]}, {name: city}, {name: sea, seeds: [3]}]\n";
    const char *two[] = {"alps-2", "city"}, *all_of_one[] = {"alps"}, *none[] = {"citty"};
    job *j = parse(text, &(job_opts){.only = two, .n_only = 2});
    assert_int_equal(j->n_pictures, 2);
    assert_string_equal(j->pictures[0].id, "alps-2");
    assert_int_equal(j->pictures[0].index, 2);
    assert_string_equal(j->pictures[1].id, "city");
    job_close(j);
    j = parse(text, &(job_opts){.only = all_of_one, .n_only = 1});
    assert_int_equal(j->n_pictures, 2);
    job_close(j);
    job *absent = NULL;
    assert_int_equal(job_parse(&absent, "t.yaml", text, strlen(text), &(job_opts){.only = none, .n_only = 1}),
                     ST_USAGE);
    assert_null(absent);
    assert_string_equal(err_text(), "--only citty: t.yaml has no picture of that name or id; nearest: city");
}

/* A byte order mark, CRLF, a document marker, comments, tabs inside text, anchors and aliases are all YAML. */
static void legal_spellings_are_read(void **state)
{
    (void)state;
    job *j = parse("\xef\xbb\xbf# comment\r\n"
                   "---\r\n"
                   "model: m\r\n"
                   "pictures:\r\n"
                   "- name: a\r\n"
                   "  prompt: &p >\r\n"
                   "    two\r\n"
                   "    lines\r\n"
                   "  width: &w 64\r\n"
                   "  height: *w\r\n"
                   "  position: &pos {method: pi}\r\n"
                   "- {name: \"b\", prompt: *p, width: *w, height: *w, position: *pos}\r\n"
                   "- {name: 007, prompt: \"tab\there\", width: +64, height: *w}\r\n",
                   NULL);
    assert_string_equal(j->pictures[0].prompt, "two lines\n");
    assert_string_equal(j->pictures[1].prompt, "two lines\n");
    assert_int_equal(j->pictures[1].height, 64);
    assert_int_equal(j->pictures[1].position.method, POSITION_PI);
    assert_string_equal(j->pictures[2].name, "007");
    assert_string_equal(j->pictures[2].prompt, "tab\there");
    job_close(j);
}

static void a_picture_from_embeddings_needs_no_prompt(void **state)
{
    (void)state;
    job *j = parse(TOP "pictures: [{name: a, " SIZE ", embeddings_in: e.safetensors}]\n", NULL);
    assert_string_equal(j->pictures[0].prompt, "");
    assert_string_equal(j->pictures[0].prompt_2, "");
    job_close(j);
}

/* SHA-256 of the bytes, by coreutils' sha256sum. */
static void the_hash_is_of_the_bytes(void **state)
{
    (void)state;
    static const char text[] = "model: m\npictures: [{name: a, prompt: p, width: 16, height: 16}]\n";
    char path[] = "/tmp/unit_job_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    job *j = NULL;
    assert_int_equal(job_open(&j, path, NULL), ST_OK);
    assert_string_equal(j->sha256, "8bf17a5838b146ffa65cc81170ac574d2fcc40af0ccf6dd2e71d3c4923d5e1fd");
    assert_string_equal(j->model, "/tmp/m");
    job_close(j);
    unlink(path);
}

static void shipped_jobs_are_good(void **state)
{
    (void)state;
    static const struct {
        const char *file, *model;
        int width, height;
        size_t n_pictures;
    } rows[] = {
        {"demo", "models/demo", 768, 256, 1},
        {"panorama", "models/FLUX.1-Krea-dev", 8192, 2048, 1},
        {"4k", "models/FLUX.1-Krea-dev", 4096, 4096, 1},
        {"6k", "models/FLUX.1-Krea-dev", 6144, 6144, 1},
        {"methods", "models/demo", 768, 256, 8},
        {"methods-flux", "models/FLUX.1-Krea-dev", 2048, 2048, 8},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[512], model[512];
        job *j = NULL;
        snprintf(path, sizeof(path), "%s/jobs/%s.yaml", PROJECT_DIR, rows[i].file);
        snprintf(model, sizeof(model), "%s/jobs/../%s", PROJECT_DIR, rows[i].model);
        if (job_open(&j, path, NULL) != ST_OK) fail_msg("%s", err_text());
        assert_string_equal(j->model, model);
        assert_int_equal(j->pictures[0].width, rows[i].width);
        assert_int_equal(j->pictures[0].height, rows[i].height);
        assert_true(j->n_pictures >= rows[i].n_pictures);
        for (size_t k = 0; i > 0 && k < j->n_pictures; k++)
            assert_int_equal(j->pictures[k].max_sequence_length, 0);
        job_close(j);
    }
}

static void the_nearest_word_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *found, *best;
    } rows[] = {
        {"widht", "width"},
        {"Height", "height"},
        {"hieght", "height"},
        {"gudance", "guidance"},
        {"max-sequence-length", "max_sequence_length"},
        {"zebra", NULL},
        {"", NULL},
        {"an_extremely_long_word_that_is_no_key_of_anything_at_all", NULL},
    };
    static const char *const words[] = {"width", "height", "guidance", "max_sequence_length"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        suggestion s = suggest_begin(rows[i].found);
        for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++)
            suggest_offer(&s, words[k]);
        if (rows[i].best == NULL)
            assert_null(s.best);
        else
            assert_string_equal(s.best, rows[i].best);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_job_gets_every_default),
        cmocka_unit_test(every_key_arrives),
        cmocka_unit_test(one_picture_per_seed),
        cmocka_unit_test(defaults_lie_below_pictures),
        cmocka_unit_test(every_variant_is_accepted_where_its_method_has_it),
        cmocka_unit_test(labels_tell_methods_apart),
        cmocka_unit_test(model_and_out_come_from_the_command_line),
        cmocka_unit_test(only_selects_by_name_or_id),
        cmocka_unit_test(legal_spellings_are_read),
        cmocka_unit_test(a_picture_from_embeddings_needs_no_prompt),
        cmocka_unit_test(the_hash_is_of_the_bytes),
        cmocka_unit_test(shipped_jobs_are_good),
        cmocka_unit_test(the_nearest_word_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
