/* A picture that is written again keeps the old file under another name, also where hard links are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "png_reader.h"
#include "png_writer.h"
#include "tempdir.h"

enum { NOBODY = 65534 };

static char dir[TEMPDIR_PATH];

static status write_picture(const char *path, bool overwrite)
{
    static const uint8_t rgb[3] = {1, 2, 3};
    status               st = ST_OK;
    png_writer          *w = NULL;
    TRY(png_writer_open(&w, &(png_writer_opts){.path = path, .width = 1, .height = 1, .overwrite = overwrite}));
    st = png_writer_rows(w, 1, rgb);
    if (st == ST_OK) return png_writer_commit(w);
    png_writer_abandon(w);
fail:
    return st;
}

static void in_folder(char path[TEMPDIR_PATH + 64], const char *name)
{
    snprintf(path, TEMPDIR_PATH + 64, "%s/%s", dir, name);
}

static void the_first_free_number_is_taken(void **state)
{
    (void)state;
    char path[TEMPDIR_PATH + 64], kept[TEMPDIR_PATH + 64];
    in_folder(path, "a.png");
    in_folder(kept, "a.1.png");
    assert_int_equal(tempdir_write(path, "old"), ST_OK);
    assert_int_equal(tempdir_write(kept, "older"), ST_OK);
    assert_int_equal(write_picture(path, false), ST_OK);
    struct stat file;
    assert_int_equal(stat(kept, &file), 0);
    assert_int_equal(file.st_size, 5);
    in_folder(kept, "a.2.png");
    assert_int_equal(stat(kept, &file), 0);
    assert_int_equal(file.st_size, 3);
    assert_int_equal(stat(path, &file), 0);
    assert_true(file.st_size > 50);
    assert_int_equal(write_picture(path, true), ST_OK);
    in_folder(kept, "a.3.png");
    assert_int_not_equal(stat(kept, &file), 0);
}

/* A run that was killed between keeping the old file and naming the new one: the next one does not keep it a second time. */
static void what_is_kept_is_not_kept_again(void **state)
{
    (void)state;
    char        path[TEMPDIR_PATH + 64], kept[TEMPDIR_PATH + 64], more[TEMPDIR_PATH + 64];
    struct stat file;
    in_folder(path, "c.png");
    in_folder(kept, "c.1.png");
    in_folder(more, "c.2.png");
    assert_int_equal(tempdir_write(path, "old"), ST_OK);
    assert_int_equal(link(path, kept), 0);
    assert_int_equal(write_picture(path, false), ST_OK);
    assert_int_equal(stat(kept, &file), 0);
    assert_int_equal(file.st_size, 3);
    assert_int_not_equal(stat(more, &file), 0);
    assert_int_equal(stat(path, &file), 0);
    assert_true(file.st_size > 50);
}

/* Linux refuses a user links to files of others (fs.protected_hardlinks), which may still be moved. */
static void a_file_that_cannot_be_linked_is_moved(void **state)
{
    (void)state;
    char        path[TEMPDIR_PATH + 64], kept[TEMPDIR_PATH + 64];
    struct stat file;
    if (geteuid() != 0) {
        print_message("not run: a file that cannot be linked (needs root, to become another user)\n");
        skip();
    }
    in_folder(path, "b.png");
    in_folder(kept, "b.1.png");
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(tempdir_write(path, "old"), ST_OK);
    assert_int_equal(chmod(path, 0644), 0);
    pid_t child = fork();
    if (child == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) _exit(99);
        status st = write_picture(path, false);
        if (st != ST_OK) fprintf(stderr, "%s\n", err_text());
        _exit((int)st);
    }
    int state_of = -1;
    assert_int_equal(waitpid(child, &state_of, 0), child);
    assert_true(WIFEXITED(state_of));
    assert_int_equal(WEXITSTATUS(state_of), ST_OK);
    assert_int_equal(stat(kept, &file), 0);
    assert_int_equal(file.st_size, 3);
    assert_int_equal(stat(path, &file), 0);
    assert_true(file.st_size > 50);
}

static int make_dir(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

/* libpng would only warn, and ask for memory for all that a chunk claims to hold. */
static void a_chunk_of_gigabytes_is_refused_by_its_length(void **state)
{
    static const unsigned char picture[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n',
                                            0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0,
                                            0x90, 0x77, 0x53, 0xde, 0x70, 0, 0, 0, 't', 'E', 'X', 't', 'a', 0};
    char      path[TEMPDIR_PATH + 64];
    png_facts facts = {0};
    (void)state;
    in_folder(path, "huge.png");
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(picture, 1, sizeof(picture), file), sizeof(picture));
    assert_int_equal(fclose(file), 0);
    assert_int_equal(png_reader_read(&facts, path, "a", false, ST_BAD_JOB), ST_BAD_JOB);
    if (strstr(err_text(), "huge.png: ") == NULL || strstr(err_text(), "too large") == NULL) fail_msg("%s", err_text());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_free_number_is_taken),
        cmocka_unit_test(what_is_kept_is_not_kept_again),
        cmocka_unit_test(a_file_that_cannot_be_linked_is_moved),
        cmocka_unit_test(a_chunk_of_gigabytes_is_refused_by_its_length),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
