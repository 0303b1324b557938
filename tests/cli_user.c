/* The program as a user meets it: mistakes get the right exit code and a message that names the place; a good job leaves
 * a whole PNG under its name and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "program.h"
#include "tiny_model.h"

enum { LIMIT_S = 240 };

static char dir[TEMPDIR_PATH];

static const char GOOD[] = "model: model\noutput: '{name}.png'\nprecision: fp32\n"
                           "defaults: {steps: 1, max_sequence_length: 16}\n"
                           "pictures:\n  - {name: hill, prompt: 'a hill', width: 64, height: 48}\n";

static const char STEEPER[] = "model: model\noutput: '{name}.png'\nprecision: fp32\n"
                              "defaults: {steps: 1, max_sequence_length: 16}\n"
                              "pictures:\n  - {name: hill, prompt: 'a steeper hill', width: 64, height: 48}\n";

static void write_in(const char *name, const char *text)
{
    char path[TEMPDIR_PATH + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(tempdir_write(path, text), ST_OK);
}

/* Runs and expects an exit code and a piece of the output. */
static void expect(const char *arguments, int exit_code, const char *piece)
{
    program_run run;
    program_start(&run, dir, NULL, 0, LIMIT_S, arguments);
    if (run.exit_code != exit_code || strstr(run.output, piece) == NULL)
        fail_msg("dype-dist %s: got exit code %d and\n%s\nwant %d and \"%s\"", arguments, run.exit_code, run.output,
                 exit_code, piece);
    program_run_free(&run);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    write_in("good.yaml", GOOD);
    write_in("typo.yaml", "model: model\npictures:\n  - {name: a, prompt: b, widht: 64, height: 64}\n");
    write_in("nomodel.yaml", "model: not-there\npictures:\n  - {name: a, prompt: b, width: 64, height: 64}\n");
    expect("", 2, "--help");
    expect("--bakend cpu good.yaml", 2, "--backend");
    expect("missing.yaml", 3, "missing.yaml");
    expect("typo.yaml", 3, "typo.yaml:3:");
    expect("typo.yaml", 3, "width");
    expect("nomodel.yaml", 4, "not-there");
    expect("nomodel.yaml", 4, "huggingface-cli download");
    expect("--backend cuda good.yaml", 7, "CUDA");
    expect("--check good.yaml", 0, "1 picture");
    expect("--help", 0, "JOB.yaml");
    expect("--version", 0, "dype-dist");
}

static void an_output_that_cannot_be_written_is_told_first(void **state)
{
    (void)state;
    write_in("blocked", "a file where a folder is wanted\n");
    write_in("blocked.yaml", "model: model\noutput: 'blocked/{name}.png'\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                             "pictures:\n  - {name: hill, prompt: 'a hill', width: 64, height: 48}\n");
    expect("blocked.yaml", 8, "blocked");
}

/* Found out before the steps, not after them. */
static void a_name_that_cannot_be_used_is_told_before_the_steps(void **state)
{
    (void)state;
    char        path[TEMPDIR_PATH + 64];
    program_run run;
    snprintf(path, sizeof(path), "%s/taken.png", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    write_in("taken.yaml", "model: model\noutput: taken.png\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                           "pictures:\n  - {name: a, prompt: 'a hill', width: 64, height: 48}\n");
    program_start(&run, dir, NULL, 0, LIMIT_S, "taken.yaml");
    assert_int_equal(run.exit_code, 8);
    assert_non_null(strstr(run.output, "taken.png: a folder has this name already"));
    assert_null(strstr(run.output, "step 1/1"));
    program_run_free(&run);
    write_in("lost.yaml", "model: model\noutput: 'l.png'\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                          "pictures:\n  - {name: l, prompt: 'a hill', width: 64, height: 48, "
                          "latents_out: 'blocked/l.safetensors'}\n");
    program_start(&run, dir, NULL, 0, LIMIT_S, "lost.yaml");
    assert_int_equal(run.exit_code, 8);
    assert_null(strstr(run.output, "step 1/1"));
    program_run_free(&run);
    write_in("deep.yaml", "model: model\noutput: 'new/p/d.png'\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                          "pictures:\n  - {name: d, prompt: 'a hill', width: 64, height: 48, "
                          "latents_out: 'new/l/d.safetensors'}\n");
    expect("deep.yaml", 0, "new/p/d.png");
}

/* Entries of the folder whose names hold `piece`. */
static int count_entries(const char *piece)
{
    int            n = 0;
    DIR           *folder = opendir(dir);
    struct dirent *entry;
    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL) n += strstr(entry->d_name, piece) != NULL;
    closedir(folder);
    return n;
}

static void a_picture_is_whole_and_an_old_one_is_kept(void **state)
{
    (void)state;
    char      path[TEMPDIR_PATH + 64];
    png_image image = {.version = PNG_IMAGE_VERSION};
    write_in("good.yaml", GOOD);
    expect("good.yaml --log-json log.json", 0, "hill.png");
    snprintf(path, sizeof(path), "%s/hill.png", dir);
    assert_int_not_equal(png_image_begin_read_from_file(&image, path), 0);
    assert_int_equal(image.width, 64);
    assert_int_equal(image.height, 48);
    png_image_free(&image);
    assert_int_equal(count_entries("hill"), 1);
    expect("good.yaml", 0, "hill: done already"); /* the same recipe */
    assert_int_equal(count_entries("hill"), 1);
    write_in("steeper.yaml", STEEPER);
    expect("steeper.yaml", 0, "hill: its recipe has changed: rendered anew");
    assert_int_equal(count_entries("hill"), 2);
    assert_int_equal(count_entries("hill.1.png"), 1);
    expect("good.yaml --overwrite", 0, "phase");
    assert_int_equal(count_entries("hill"), 2);
}

static void keys_without_effect_are_named(void **state)
{
    (void)state;
    write_in("idle.yaml", "model: model\noutput: 'i.png'\n"
                          "defaults: {steps: 1, max_sequence_length: 16, preview_every: 1}\n"
                          "pictures:\n  - {name: i, prompt: 'a hill', width: 64, height: 48}\n");
    expect("idle.yaml --overwrite", 0, "warning: preview_every");
}

/* A folder's name is bytes: the log still has its checksums, and a prompt cannot send commands to the terminal. */
static void strange_bytes_do_no_harm(void **state)
{
    (void)state;
    char path[TEMPDIR_PATH + 64];
    write_in("strange.yaml", "model: model\noutput: 's.png'\ndefaults: {steps: 1, max_sequence_length: 4}\n"
                             "pictures:\n  - {name: s, prompt: \"a hill and a hill and a \\e[31m hill and a hill\", "
                             "width: 64, height: 48}\n");
    expect("strange.yaml --log-json strange.json --out 'caf\xe9'", 0, "caf?/s.png");
    expect("strange.yaml --overwrite", 0, "?[31m");
    snprintf(path, sizeof(path), "%s/strange.json", dir);
    json_t *events = program_events(path, "picture");
    assert_string_equal(json_string_value(json_object_get(json_array_get(events, 0), "path")), "caf?/s.png");
    json_decref(events);
}

/* SHA-256 of latents in the log of a run. */
static char *latents_of(const char *arguments)
{
    char path[TEMPDIR_PATH + 64], with_log[512];
    snprintf(path, sizeof(path), "%s/latents.json", dir);
    remove(path);
    snprintf(with_log, sizeof(with_log), "%s --overwrite --log-json latents.json", arguments);
    expect(with_log, 0, "");
    json_t *events = program_events(path, "picture");
    char   *hex = strdup(json_string_value(json_object_get(json_array_get(events, 0), "latents_sha256")));
    json_decref(events);
    return hex;
}

/* Latents that a picture left are where another begins; of a wrong size they are refused. */
static void latents_go_out_and_in(void **state)
{
    (void)state;
    write_in("out.yaml", "model: model\noutput: 'x.png'\nprecision: fp32\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                         "pictures:\n  - {name: x, prompt: 'a hill', width: 64, height: 48, latents_out: 'x.safetensors'}\n");
    write_in("in.yaml", "model: model\noutput: 'y.png'\nprecision: fp32\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                        "pictures:\n  - {name: y, prompt: 'a hill', width: 64, height: 48, latents_in: 'x.safetensors'}\n");
    write_in("wrong.yaml", "model: model\noutput: 'z.png'\ndefaults: {steps: 1, max_sequence_length: 16}\n"
                           "pictures:\n  - {name: z, prompt: 'a hill', width: 64, height: 64, latents_in: 'x.safetensors'}\n");
    char *first = latents_of("out.yaml"), *second = latents_of("in.yaml"), *again = latents_of("in.yaml");
    assert_string_not_equal(first, second);
    assert_string_equal(second, again);
    expect("wrong.yaml", 3, "x.safetensors");
    free(first);
    free(second);
    free(again);
}

static int open_folder(void **state)
{
    (void)state;
    char       path[TEMPDIR_PATH + 16];
    tiny_model m = tiny_model_get('a');
    if (tempdir_open(dir) != ST_OK) return -1;
    snprintf(path, sizeof(path), "%s/model", dir);
    return mkdir(path, 0777) == 0 && tiny_model_write(&m, TINY_ALL, path) == ST_OK ? 0 : -1;
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
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(an_output_that_cannot_be_written_is_told_first),
        cmocka_unit_test(a_name_that_cannot_be_used_is_told_before_the_steps),
        cmocka_unit_test(a_picture_is_whole_and_an_old_one_is_kept),
        cmocka_unit_test(strange_bytes_do_no_harm),
        cmocka_unit_test(latents_go_out_and_in),
        cmocka_unit_test(keys_without_effect_are_named),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
