/* A disk that fills up: the message names the file, nothing half-written has a final name, and with room the same command
 * finishes. On a small tmpfs of its own, in which a filler takes what is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cmocka.h>

#include "background.h"
#include "journal.h"
#include "outputs.h"
#include "processes.h"
#include "tiny_model.h"

enum { LIMIT_S = 120, STEPS = 40, DISK_BYTES = 8 << 20, PAGE = 4096 };
#ifdef WITH_MPI
enum { N_RANKS = 2 };
#else
enum { N_RANKS = 0 };
#endif

static char dir[TEMPDIR_PATH];
static bool mounted;

static void write_job(int every)
{
    char text[2048];
    snprintf(text, sizeof(text), "model: model\noutput: '{name}.png'\nprecision: fp32\ncheckpoint: {every: %d}\n"
             "pictures: [{name: a, prompt: 'a lake', steps: %d, max_sequence_length: 45, width: 320, height: 256}]\n", every, STEPS);
    assert_int_equal(tempdir_write(tempdir_in(dir, "job.yaml"), text), ST_OK);
}

static const char *arguments_of(const char *folder)
{
    static char text[4 * TEMPDIR_PATH];
    snprintf(text, sizeof(text), "--out '%s' --log-json '%s' --threads 1 job.yaml", tempdir_in(dir, "%s", folder),
             tempdir_in(dir, "log.json"));
    return text;
}

/* The filler takes all but so many bytes. */
static void fill(int64_t leave)
{
    struct statvfs disk;
    static char    page[64 * PAGE];
    memset(page, 'x', sizeof(page));
    const int fd = open(tempdir_in(dir, "disk/filler"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    for (;;) {
        assert_int_equal(statvfs(tempdir_in(dir, "disk"), &disk), 0);
        const int64_t too_much = (int64_t)(disk.f_bavail * disk.f_frsize) - leave;
        if (too_much <= 0 || write(fd, page, too_much > (int64_t)sizeof(page) ? sizeof(page) : PAGE) <= 0) break;
    }
    close(fd);
}

static void empty_the_disk(void)
{
    static const char *const names[] = {"disk/filler", "disk/a.png", "disk/.dype-dist/a.journal", "disk/.dype-dist/a.latent",
                                        "disk/.dype-dist/a.checkpoint"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        remove(tempdir_in(dir, "%s", names[i]));
    remove(tempdir_in(dir, "log.json"));
}

/* There is room again: the picture is that of an undisturbed run, and alone. */
static void expect_finishes(const char *says)
{
    static const char *const names[] = {"a.png", ".dype-dist", NULL}, *const kept[] = {"a.journal", NULL};
    program_run              run;
    remove(tempdir_in(dir, "disk/filler"));
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("disk"));
    if (run.exit_code != 0 || strstr(run.output, says) == NULL)
        fail_msg("want \"%s\", got exit code %d\n%s", says, run.exit_code, run.output);
    program_run_free(&run);
    assert_true(outputs_equal(tempdir_in(dir, "whole/a.png"), tempdir_in(dir, "disk/a.png")));
    outputs_expect(tempdir_in(dir, "disk"), names);
    outputs_expect(tempdir_in(dir, "disk/.dype-dist"), kept);
    journal *j = NULL;
    assert_int_equal(journal_read(&j, tempdir_in(dir, "disk/.dype-dist/a.journal")), ST_OK);
    assert_int_equal(journal_torn_bytes(j) + journal_spoiled_bytes(j), 0);
    assert_int_equal(journal_last(j, "a.png", JOURNAL_NONE)->state, JOURNAL_DONE);
    journal_close(j);
}

/* No file has its name that should not: at most a journal, whole, a checkpoint or a latent, each as it was written. */
static void expect_failed(const program_run *run, const char *says)
{
    if (run->exit_code != ST_OUTPUT || strstr(run->output, says) == NULL || strstr(run->output, "No space left on device") == NULL)
        fail_msg("want \"%s\", got exit code %d\n%s", says, run->exit_code, run->output);
    if (strstr(outputs_list(tempdir_in(dir, "disk")), "png") != NULL ||
        strstr(outputs_list(tempdir_in(dir, "disk/.dype-dist")), "tmp") != NULL)
        fail_msg("left behind: %s", outputs_list(tempdir_in(dir, "disk")));
}

static void an_undisturbed_run(void **state)
{
    program_run run;
    (void)state;
    write_job(4);
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("whole"));
    if (run.exit_code != 0) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
}

static void full_before_it_begins(void **state)
{
    static const struct {
        int         pages; /* left */
        const char *says;
    } rows[] = {{0, "a.lock: No space left"}, {1, "a.journal: No space left"}};
    program_run run;
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        empty_the_disk();
        mkdir(tempdir_in(dir, "disk/.dype-dist"), 0777);
        fill(rows[i].pages * PAGE);
        program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("disk"));
        expect_failed(&run, rows[i].says);
        assert_null(strstr(run.output, "step 1/"));
        program_run_free(&run);
        expect_finishes("a.png (");
    }
    /* Room for journal and lock, too little for the picture: told before the steps. */
    empty_the_disk();
    fill(20 * PAGE);
    program_start(&run, dir, NULL, N_RANKS, LIMIT_S, arguments_of("disk"));
    if (run.exit_code != ST_OUTPUT || strstr(run.output, "a.png: no room: 0.1 MB are free there, the picture needs about ") == NULL ||
        strstr(run.output, "step 1/") != NULL)
        fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
    expect_finishes("failed before");
}

/* Full from the moment that the run is in the middle of its steps, or has saved its latent. */
static void full_on_the_way(int every, const char *const *moment, const char *file, const char *warns, const char *again)
{
    background b;
    empty_the_disk();
    write_job(every);
    background_begin(&b, dir, N_RANKS, LIMIT_S, arguments_of("disk"));
    if (moment != NULL) assert_true(background_wait(&b, tempdir_in(dir, "log.json"), moment));
    while (file != NULL && access(tempdir_in(dir, "%s", file), F_OK) != 0 && b.ended == 0)
        usleep(200);
    fill(0);
    background_end(&b);
    expect_failed(&b.run, warns);
    expect_failed(&b.run, "a.png.tmp-");
    program_run_free(&b.run);
    expect_finishes(again);
}

static void full_at_a_checkpoint(void **state)
{
    static const char *const moment[] = {"\"event\":\"step\"", "\"step\":3,", NULL};
    (void)state;
    full_on_the_way(2, moment, NULL, ".dype-dist/a.checkpoint.tmp-", "a: goes on after step ");
}

static void full_at_the_latent(void **state)
{
    static const char *const moment[] = {"\"event\":\"step\"", "\"step\":3,", NULL};
    (void)state;
    full_on_the_way(0, moment, NULL, "the latent is not saved: ", "a: failed before");
}

static void full_at_the_png(void **state)
{
    (void)state;
    full_on_the_way(0, NULL, "disk/.dype-dist/a.latent", "a failed: ", "a: goes on with its saved latent: only the decode is left");
}

static int open_disk(void **state)
{
    char       options[64];
    tiny_model m = tiny_model_get('a');
    (void)state;
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0 ||
        mkdir(tempdir_in(dir, "disk"), 0777) != 0)
        return 1;
    snprintf(options, sizeof(options), "size=%d", DISK_BYTES);
    mounted = mount("tmpfs", tempdir_in(dir, "disk"), "tmpfs", 0, options) == 0;
    if (!mounted) {
        printf("not run: disk full (a tmpfs cannot be mounted: %s)\n", strerror(errno));
        exit(0);
    }
    return tiny_model_write(&m, TINY_ALL, tempdir_in(dir, "model")) != ST_OK;
}

static int remove_all(void **state)
{
    (void)state;
    if (mounted) umount(tempdir_in(dir, "disk"));
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_undisturbed_run), cmocka_unit_test(full_before_it_begins), cmocka_unit_test(full_at_a_checkpoint),
        cmocka_unit_test(full_at_the_latent), cmocka_unit_test(full_at_the_png),
    };
    return cmocka_run_group_tests(tests, open_disk, remove_all);
}
