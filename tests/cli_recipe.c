/* What a picture says of itself is enough to make it again, and a saved latent enough to decode it again: the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "outputs.h"
#include "program.h"
#include "tiny_model.h"

enum { LIMIT_S = 120, N_NAMES = 6 };

static char              dir[TEMPDIR_PATH];
static const char *const names[N_NAMES] = {"plain", "quoted", "ntk", "ring", "parity", "from"};

/* One of each kind of key that changes pixels; text that is awkward in YAML. */
static const char JOB[] =
    "model: model\noutput: '{name}.png'\n"
    "defaults: {steps: 2, width: 80, height: 64, max_sequence_length: 20, prompt: 'a lake'}\n"
    "pictures:\n"
    "  - {name: plain, latents_out: 'plain.safetensors'}\n"
    "  - {name: quoted, prompt: \"\\\"a\\\" \\\\ \\x07 \\t\\n # { caf\\u00e9 \\U0001F600 \\x7f \\x85 \\u2028 : -\", prompt_2: '', guidance: 3.3, seed: -1,\n"
    "     max_sequence_length: 7}\n"
    "  - {name: ntk, position: {method: ntk, variant: ablate-exp, lambda_s: 1.7, lambda_t: 0.1, base_resolution: 32}, shift: stock,\n"
    "     noise: {kind: torch-cuda, sms: 108}}\n"
    "  - {name: ring, wrap: horizontal, position: {method: time-aware}, shift: -1.15, noise: counter}\n"
    "  - {name: parity, parity: diffusers, position: {method: base}, noise: torch-cpu-legacy}\n"
    "  - {name: from, latents_in: start.safetensors}\n";

static void expect(int n_ranks, const char *arguments, int exit_code, const char *piece)
{
    program_run run;
    program_start(&run, dir, NULL, n_ranks, LIMIT_S, arguments);
    if (run.exit_code != exit_code || strstr(run.output, piece) == NULL)
        fail_msg("dype-dist %s: got exit code %d and\n%s\nwant %d and \"%s\"", arguments, run.exit_code, run.output, exit_code,
                 piece);
    program_run_free(&run);
}

static void a_picture_is_made_again_from_its_recipe(void **state)
{
    char arguments[512];
    (void)state;
    expect(0, "--only plain job.yaml", 0, "1 done");
    outputs_copy(tempdir_in(dir, "plain.safetensors"), tempdir_in(dir, "start.safetensors"));
    expect(0, "--quiet job.yaml", 0, "");
    for (int i = 0; i < N_NAMES; i++) {
        program_run run;
        snprintf(arguments, sizeof(arguments), "--model model --recipe %s.png", names[i]);
        program_start(&run, dir, NULL, 0, LIMIT_S, arguments);
        if (run.exit_code != 0) fail_msg("%s: exit code %d\n%s", arguments, run.exit_code, run.output);
        const char *text = run.output, *input = strstr(text, "PATH.safetensors");
        char       *filled = NULL;
        assert_int_equal(input != NULL, strcmp(names[i], "from") == 0);
        assert_true(asprintf(&filled, "%.*s%s%s", (int)(input != NULL ? (size_t)(input - text) : strlen(text)), text,
                             input != NULL ? "start" : "", input != NULL ? input + strlen("PATH") : "") > 0); /* as a person would */
        assert_int_equal(tempdir_write(tempdir_in(dir, "%s.yaml", names[i]), filled), ST_OK);
        free(filled);
        program_run_free(&run);
        snprintf(arguments, sizeof(arguments), "--quiet --out again %s.yaml", names[i]);
        expect(0, arguments, 0, "");
        if (!outputs_equal(tempdir_in(dir, "%s.png", names[i]), tempdir_in(dir, "again/%s.png", names[i])))
            fail_msg("%s.png of its recipe has other bytes", names[i]);
    }
}

static void a_latent_has_a_recipe_too(void **state)
{
    program_run png, latent;
    (void)state;
    program_start(&png, dir, NULL, 0, LIMIT_S, "--recipe plain.png");
    program_start(&latent, dir, NULL, 0, LIMIT_S, "--recipe plain.safetensors");
    assert_int_equal(png.exit_code + latent.exit_code, 0);
    assert_string_equal(strstr(png.output, "\n"), strstr(latent.output, "\n")); /* the first line names the file */
    assert_non_null(strstr(png.output, "model: \"MODEL\" # its folder, or --model DIR"));
    program_run_free(&png);
    program_run_free(&latent);
}

static void other_files_have_none(void **state)
{
    (void)state;
    expect(0, "--recipe " PROJECT_DIR "/docs/demo-model-sheet.png", 3, "demo-model-sheet.png: no");
    expect(0, "--recipe job.yaml", 3, "job.yaml");
    expect(0, "--recipe missing.png", 3, "missing.png");
    expect(0, "--recipe model/vae/diffusion_pytorch_model.safetensors", 3, "no latent of this program");
}

static void a_decode_is_done_again_alone(void **state)
{
    (void)state;
    const int ranks[] = {0, 1, 3};
    for (int i = 0; i < 3; i++) {
#ifndef WITH_MPI
        if (ranks[i] > 1) continue;
#endif
        outputs_remove(tempdir_in(dir, "decoded"));
        expect(ranks[i], "--out decoded --decode plain.safetensors job.yaml", 0, "1 done");
        assert_true(outputs_equal(tempdir_in(dir, "plain.png"), tempdir_in(dir, "decoded/plain.png")));
        assert_int_equal(outputs_states(tempdir_in(dir, "decoded/.dype-dist/plain.journal"), "denoising"), 0);
    }
    /* it stands there already: the old one is kept, unless told otherwise */
    expect(0, "--overwrite --out decoded --decode plain.safetensors job.yaml", 0, "1 done");
    assert_int_not_equal(access(tempdir_in(dir, "decoded/plain.1.png"), F_OK), 0);
    expect(0, "--out decoded --decode plain.safetensors job.yaml", 0, "1 done");
    assert_true(outputs_equal(tempdir_in(dir, "plain.png"), tempdir_in(dir, "decoded/plain.1.png")));
}

static void a_latent_of_another_recipe_is_refused(void **state)
{
    (void)state;
    assert_int_equal(tempdir_write(tempdir_in(dir, "more.yaml"),
                                   "model: model\npictures: [{name: plain, steps: 3, width: 80, height: 64, "
                                   "max_sequence_length: 20, prompt: 'a lake'}]\n"),
                     ST_OK);
    expect(0, "--decode plain.safetensors more.yaml", 3, "differs in steps (2, here 3)");
    expect(0, "--decode plain.safetensors ntk.yaml", 3, "it is of plain, and no picture of ntk.yaml has its recipe");
    expect(0, "--decode missing.safetensors job.yaml", 3, "missing.safetensors");
}

static int open_folder(void **state)
{
    tiny_model m = tiny_model_get('a');
    (void)state;
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0) return -1;
    if (tempdir_write(tempdir_in(dir, "job.yaml"), JOB) != ST_OK) return -1;
    return tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "model")) == ST_OK ? 0 : -1;
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
        cmocka_unit_test(a_picture_is_made_again_from_its_recipe),
        cmocka_unit_test(a_latent_has_a_recipe_too),
        cmocka_unit_test(other_files_have_none),
        cmocka_unit_test(a_decode_is_done_again_alone),
        cmocka_unit_test(a_latent_of_another_recipe_is_refused),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
