/* The cache as a user meets it: a second run renders the same bytes and never loads T5; without the cache, with a damaged
 * one, or with many jobs at once the picture is the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "program.h"
#include "tiny_model.h"

enum { LIMIT_S = 240, PATH_BYTES = TEMPDIR_PATH + 512 };

#ifdef WITH_MPI
enum { TWO = 2 };
#else
enum { TWO = 0 };
#endif

static char dir[TEMPDIR_PATH];

static const char JOB[] = "model: model\noutput: '{name}.png'\nprecision: bf16\n"
                          "defaults: {steps: 1, max_sequence_length: 16, width: 64, height: 48}\n"
                          "pictures:\n  - {name: hill, prompt: 'a hill'}\n  - {name: lake, prompt: 'a lake'}\n"
                          "  - {name: again, prompt: 'a hill', seed: 5}\n";

/* Where the text rows of the pictures came from ("encoders cache ...", one word each), and their pixels. */
typedef struct outcome {
    char rows[128];
    char pixels[3 * 65];
    char *output;
} outcome;

static outcome render(int n_ranks, const char *arguments)
{
    outcome     o = {0};
    program_run run;
    char        all[512];
    snprintf(all, sizeof(all), "--log-json log.json --threads 1 --overwrite %s job.yaml", arguments);
    unlink(tempdir_in(dir, "log.json"));
    program_start(&run, dir, NULL, n_ranks, LIMIT_S, all);
    if (run.exit_code != 0) fail_msg("%s: exit code %d\n%s", arguments, run.exit_code, run.output);
    json_t *prompts = program_events(tempdir_in(dir, "log.json"), "prompt"),
           *pictures = program_events(tempdir_in(dir, "log.json"), "picture");
    size_t  i;
    json_t *item;
    json_array_foreach(prompts, i, item)
        snprintf(o.rows + strlen(o.rows), sizeof(o.rows) - strlen(o.rows), "%s%s", i > 0 ? " " : "",
                 json_string_value(json_object_get(item, "rows")));
    assert_int_equal(json_array_size(pictures), 3);
    json_array_foreach(pictures, i, item) strcat(o.pixels, json_string_value(json_object_get(item, "pixels_sha256")));
    json_decref(prompts);
    json_decref(pictures);
    o.output = run.output;
    return o;
}

static void expect(int n_ranks, const char *arguments, const char *rows, const char *pixels)
{
    outcome o = render(n_ranks, arguments);
    if (strcmp(o.rows, rows) != 0) fail_msg("%s: rows from \"%s\", want \"%s\"\n%s", arguments, o.rows, rows, o.output);
    assert_string_equal(o.pixels, pixels);
    free(o.output);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

static void remove_folder(const char *name)
{
    nftw(tempdir_in(dir, "%s", name), remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Entries; *one: the path of one of them. */
static int count_entries(const char *folder, char one[PATH_BYTES])
{
    int  n = 0;
    DIR *d = opendir(tempdir_in(dir, "%s", folder));
    if (d == NULL) return 0;
    for (struct dirent *item = readdir(d); item != NULL; item = readdir(d)) {
        if (item->d_name[0] == '.') continue;
        if (one != NULL) snprintf(one, PATH_BYTES, "%s/%s/%s", dir, folder, item->d_name);
        n++;
    }
    closedir(d);
    return n;
}

/* One picture's rows serve the others with its prompt; ranks, threads and where the folder was named do not matter. */
static void a_second_run_takes_rows_from_the_cache(void **state)
{
    (void)state;
    outcome plain = render(0, "--cache none");
    assert_string_equal(plain.rows, "encoders encoders encoders");
    expect(0, "--cache c", "encoders encoders cache", plain.pixels);
    assert_int_equal(count_entries("c/embeddings", NULL), 2);
    expect(0, "--cache c", "cache cache cache", plain.pixels);
    expect(TWO, "--cache c", "cache cache cache", plain.pixels);
    expect(0, "--cache c --backend strict", "encoders encoders cache", plain.pixels); /* same bits, but not promised here */
    expect(0, "--cache c --dump 'text.*'", "encoders encoders encoders", plain.pixels);
    assert_int_equal(access(tempdir_in(dir, "dumps/lake.text.t5@0.rank0.safetensors"), F_OK), 0);
    free(plain.output);
}

/* T5's weights become zeros that nobody sees: same size, same time of change. A run that reads them makes another picture;
 * one with the cache does not. */
static void t5_is_not_read(void **state)
{
    (void)state;
    struct stat info;
    uint64_t    header = 0;
    const char *weights = "model/text_encoder_2/model.safetensors";
    remove_folder("c");
    outcome     sound = render(0, "--cache c");
    FILE *file = fopen(tempdir_in(dir, "%s", weights), "r+e");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &info), 0);
    assert_int_equal(fread(&header, sizeof(header), 1, file), 1);
    assert_int_equal(fseek(file, (long)header + 8, SEEK_SET), 0);
    for (long i = (long)header + 8; i < info.st_size; i++) fputc(0, file);
    fclose(file);
    const struct timespec times[2] = {info.st_atim, info.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, tempdir_in(dir, "%s", weights), times, 0), 0);
    expect(0, "--cache c", "cache cache cache", sound.pixels);
    remove_folder("c/embeddings");
    outcome zeros = render(0, "--cache c");
    assert_string_not_equal(zeros.pixels, sound.pixels);
    free(zeros.output);
    free(sound.output);
}

static void damage_is_a_miss(void **state)
{
    (void)state;
    char    path[PATH_BYTES];
    remove_folder("c");
    outcome sound = render(0, "--cache c");
    assert_int_equal(count_entries("c/embeddings", path), 2);
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    fseek(file, -5, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -5, SEEK_END);
    fputc(byte ^ 1, file);
    fclose(file);
    outcome repaired = render(0, "--cache c");
    assert_string_equal(repaired.pixels, sound.pixels);
    assert_non_null(strstr(repaired.output, path + strlen(dir) + 1));
    assert_non_null(strstr(repaired.output, "its checksum is wrong"));
    expect(0, "--cache c", "cache cache cache", sound.pixels);
    free(sound.output);
    free(repaired.output);
}

static void a_cache_that_cannot_be_written_costs_time_only(void **state)
{
    (void)state;
    outcome plain = render(0, "--cache none"), blocked = render(0, "--cache job.yaml/cache");
    assert_string_equal(blocked.rows, "encoders encoders encoders");
    assert_string_equal(blocked.pixels, plain.pixels);
    char *first = strstr(blocked.output, "warning: cache: job.yaml/cache");
    assert_non_null(first);
    assert_null(strstr(first + 1, "warning: cache:"));
    free(plain.output);
    free(blocked.output);
}

/* Four jobs at once on an empty cache, twice. */
static void jobs_may_share_it(void **state)
{
    (void)state;
    remove_folder("c");
    outcome plain = render(0, "--cache none");
    for (int round = 0; round < 2; round++) {
        program_run run;
        program_start_other(&run, "/bin/sh", dir, NULL, 0, LIMIT_S,
                            "-c 'for i in 1 2 3 4; do \"$0\" --quiet --cache c --threads 1 --out job$i --log-json job$i.json "
                            "job.yaml & pids=\"$pids $!\"; done; for p in $pids; do wait $p || exit 1; done' " DYPE_BINARY);
        if (run.exit_code != 0 || strstr(run.output, "warning") != NULL)
            fail_msg("exit code %d\n%s", run.exit_code, run.output);
        program_run_free(&run);
        assert_int_equal(count_entries("c/embeddings", NULL), 2);
        for (int job = 1; job <= 4; job++) {
            char    log[32], pixels[3 * 65] = "";
            size_t  i;
            json_t *item;
            snprintf(log, sizeof(log), "job%d.json", job);
            json_t *pictures = program_events(tempdir_in(dir, "%s", log), "picture");
            json_array_foreach(pictures, i, item) strcat(pixels, json_string_value(json_object_get(item, "pixels_sha256")));
            json_decref(pictures);
            unlink(tempdir_in(dir, "%s", log));
            assert_string_equal(pixels, plain.pixels);
        }
    }
    free(plain.output);
}

/* Without --cache: $DYPE_DIST_CACHE, then $XDG_CACHE_HOME/dype-dist, then ~/.cache/dype-dist; nothing anywhere else. */
static void the_folder_is_found(void **state)
{
    static const struct {
        const char *environment, *folder;
    } cases[] = {
        {"DYPE_DIST_CACHE=own XDG_CACHE_HOME=$PWD/xdg HOME=$PWD/home", "own/embeddings"},
        {"DYPE_DIST_CACHE= XDG_CACHE_HOME=$PWD/xdg HOME=$PWD/home", "xdg/dype-dist/embeddings"},
        {"DYPE_DIST_CACHE= XDG_CACHE_HOME=relative HOME=$PWD/home", "home/.cache/dype-dist/embeddings"},
        {"DYPE_DIST_CACHE=none XDG_CACHE_HOME=$PWD/xdg HOME=$PWD/home", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        program_run run;
        program_start(&run, dir, cases[i].environment, 0, LIMIT_S, "--quiet --overwrite --only hill job.yaml");
        if (run.exit_code != 0) fail_msg("%s\n%s", cases[i].environment, run.output);
        program_run_free(&run);
        for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++)
            if (cases[k].folder != NULL && count_entries(cases[k].folder, NULL) != (k == i))
                fail_msg("%s: %s", cases[i].environment, cases[k].folder);
        remove_folder("own");
        remove_folder("xdg");
        remove_folder("home");
    }
    assert_int_not_equal(access(tempdir_in(dir, "relative"), F_OK), 0);
}

/* A time of change in the past, so that digests of the model's files are kept (model_hash.h). */
static int make_old(const char *path, const struct stat *info, int type, struct FTW *where)
{
    const struct timespec times[2] = {{.tv_sec = info->st_mtim.tv_sec - 86400}, {.tv_sec = info->st_mtim.tv_sec - 86400}};
    (void)where;
    return type == FTW_F ? utimensat(AT_FDCWD, path, times, 0) : 0;
}

static int open_dir(void **state)
{
    (void)state;
    tiny_model tiny = tiny_model_get('a');
    if (tempdir_open(dir) != ST_OK || mkdir(tempdir_in(dir, "model"), 0777) != 0) return -1;
    if (tiny_model_write(&tiny, TINY_ALL, tempdir_in(dir, "model")) != ST_OK) return -1;
    if (tempdir_write(tempdir_in(dir, "job.yaml"), JOB) != ST_OK) return -1;
    return nftw(tempdir_in(dir, "model"), make_old, 16, FTW_PHYS);
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
        cmocka_unit_test_setup_teardown(a_second_run_takes_rows_from_the_cache, open_dir, close_dir),
        cmocka_unit_test_setup_teardown(t5_is_not_read, open_dir, close_dir),
        cmocka_unit_test_setup_teardown(damage_is_a_miss, open_dir, close_dir),
        cmocka_unit_test_setup_teardown(a_cache_that_cannot_be_written_costs_time_only, open_dir, close_dir),
        cmocka_unit_test_setup_teardown(jobs_may_share_it, open_dir, close_dir),
        cmocka_unit_test_setup_teardown(the_folder_is_found, open_dir, close_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
