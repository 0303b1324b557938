/* The contact sheet of a batch: made at its end, also when a picture has failed, by whichever of several jobs on one file ends
 * last, and by a run that finds all done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "program.h"
#include "tiny_model.h"

enum { LIMIT_S = 240 };

static char dir[TEMPDIR_PATH];

static void write_job(const char *name, const char *sheet, const char *more)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "model: model\noutput: '{name}.png'\ncontact_sheet: '%s'\n"
             "defaults: {steps: 1, max_sequence_length: 16, width: 64, height: 48, prompt: a hill}\n"
             "pictures: [{name: a}, {name: b, seed: 2}, {name: c, seed: 3}%s]\n",
             sheet, more);
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", name), text), ST_OK);
}

/* Runs; the exit code must be this, and the output hold `piece` (NULL: anything). */
static void run(const char *arguments, int exit_code, const char *piece)
{
    program_run r;
    program_start(&r, dir, NULL, 0, LIMIT_S, arguments);
    if (r.exit_code != exit_code || (piece != NULL && strstr(r.output, piece) == NULL))
        fail_msg("%s: got exit code %d and\n%s\nwant %d and \"%s\"", arguments, r.exit_code, r.output, exit_code,
                 piece != NULL ? piece : "");
    program_run_free(&r);
}

static bool is_png(const char *name)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    bool good = png_image_begin_read_from_file(&image, tempdir_in(dir, "%s", name));
    png_image_free(&image);
    return good;
}

static void the_last_of_several_jobs_makes_it(void **state)
{
    (void)state;
    write_job("job.yaml", "sheets/all.png", "");
    run("--only a job.yaml", 0, NULL);
    run("--only b job.yaml", 0, NULL);
    assert_false(is_png("sheets/all.png"));
    run("--only c job.yaml", 0, "contact sheet: sheets/all.png");
    assert_true(is_png("sheets/all.png"));
    assert_int_equal(unlink(tempdir_in(dir, "sheets/all.png")), 0);
    run("job.yaml", 0, "contact sheet: sheets/all.png"); /* all done already */
    assert_true(is_png("sheets/all.png"));
}

/* c cannot be written: a folder has its name. The sheet says so by an empty tile, the exit code is the batch's. */
static void a_failed_picture_is_an_empty_tile(void **state)
{
    (void)state;
    write_job("job.yaml", "failed.png", ", {name: d, seed: 4}");
    unlink(tempdir_in(dir, "d.png"));
    assert_int_equal(mkdir(tempdir_in(dir, "d.png"), 0777), 0);
    run("job.yaml", 1, "contact sheet: failed.png");
    assert_true(is_png("failed.png"));
    assert_int_equal(rmdir(tempdir_in(dir, "d.png")), 0);
}

static void a_sheet_that_cannot_be_written_is_told(void **state)
{
    (void)state;
    write_job("job.yaml", "job.yaml/sheet.png", "");
    run("job.yaml", 8, "job.yaml/sheet.png");
}

static void wrong_paths_are_mistakes(void **state)
{
    (void)state;
    write_job("job.yaml", "./b.png", "");
    run("--check job.yaml", 3, "job.yaml:3:16: contact_sheet: found ./b.png, which the picture in line 5 writes");
    write_job("job.yaml", "{name}.png", "");
    run("--check job.yaml", 3, "without placeholders");
    write_job("job.yaml", "sheet.jpg", "");
    run("--check job.yaml", 3, ".png");
}

static int open_dir(void **state)
{
    (void)state;
    tiny_model tiny = tiny_model_get('d');
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0) return -1;
    return tiny_model_write(&tiny, TINY_ALL, tempdir_in(dir, "model")) == ST_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_of_several_jobs_makes_it),
        cmocka_unit_test(a_failed_picture_is_an_empty_tile),
        cmocka_unit_test(a_sheet_that_cannot_be_written_is_told),
        cmocka_unit_test(wrong_paths_are_mistakes),
    };
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
