/* A journal tells the truth about what was appended, whatever a kill or a disk did to its bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "journal.h"
#include "program.h"
#include "tempdir.h"

enum { N_RECORDS = 7 };

static char dir[TEMPDIR_PATH], path[2 * TEMPDIR_PATH];

static const journal_record life[N_RECORDS] = {
    {.state = JOURNAL_QUEUED, .output = "a.png", .recipe_sha256 = "0123"},
    {.state = JOURNAL_ENCODING, .output = "a.png", .recipe_sha256 = "0123"},
    {.state = JOURNAL_DENOISING, .output = "a.png", .recipe_sha256 = "0123", .step = 12, .n_steps = 28},
    {.state = JOURNAL_FAILED, .output = "a.png", .recipe_sha256 = "0123", .reason = "out/a.png: No space left on device"},
    {.state = JOURNAL_LATENT, .output = "a.png", .recipe_sha256 = "0123"},
    {.state = JOURNAL_DECODING, .output = "b.png", .recipe_sha256 = "4567"},
    {.state = JOURNAL_DONE, .output = "a.png", .recipe_sha256 = "0123", .png_bytes = 12345678901, .png_sha256 = "89ab",
     .latents_sha256 = "cdef", .pixels_sha256 = "fedc"},
};

static void expect_record(const journal_record *got, int i)
{
    assert_non_null(got);
    assert_int_equal(got->state, life[i].state);
    assert_string_equal(got->output, life[i].output);
    assert_string_equal(got->recipe_sha256, life[i].recipe_sha256);
    assert_int_equal(got->step, life[i].step);
    assert_int_equal(got->n_steps, life[i].n_steps);
    assert_string_equal(got->reason, life[i].reason != NULL ? life[i].reason : "");
    assert_true(got->png_bytes == life[i].png_bytes);
    assert_string_equal(got->png_sha256, life[i].png_sha256 != NULL ? life[i].png_sha256 : "");
    assert_string_equal(got->pixels_sha256, life[i].pixels_sha256 != NULL ? life[i].pixels_sha256 : "");
    assert_int_equal(got->pid, getpid());
    assert_true(got->when > 1.7e9);
}

/* Writes the whole life; ends[i]: bytes of the file after record i. */
static void write_life(size_t ends[N_RECORDS])
{
    journal    *j = NULL;
    struct stat about;
    remove(path);
    assert_int_equal(journal_open(&j, path), ST_OK);
    for (int i = 0; i < N_RECORDS; i++) {
        assert_int_equal(journal_append(j, &life[i]), ST_OK);
        assert_int_equal(stat(path, &about), 0);
        ends[i] = (size_t)about.st_size;
    }
    journal_close(j);
}

static unsigned char *read_bytes(size_t *n)
{
    FILE *file = fopen(path, "rbe");
    assert_non_null(file);
    unsigned char *bytes = malloc(1 << 16);
    assert_non_null(bytes);
    *n = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    return bytes;
}

static void write_bytes(const unsigned char *bytes, size_t n)
{
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void what_is_appended_is_read(void **state)
{
    size_t   ends[N_RECORDS];
    journal *j = NULL;
    (void)state;
    write_life(ends);
    assert_int_equal(journal_read(&j, path), ST_OK);
    assert_int_equal(journal_count(j), N_RECORDS);
    for (int i = 0; i < N_RECORDS; i++) expect_record(journal_get(j, (size_t)i), i);
    assert_null(journal_get(j, N_RECORDS));
    expect_record(journal_last(j, "a.png", JOURNAL_NONE), 6);
    expect_record(journal_last(j, "b.png", JOURNAL_NONE), 5);
    expect_record(journal_last(j, "a.png", JOURNAL_FAILED), 3);
    assert_null(journal_last(j, "b.png", JOURNAL_DONE));
    assert_null(journal_last(j, "c.png", JOURNAL_NONE));
    assert_int_equal(journal_torn_bytes(j) + journal_spoiled_bytes(j), 0);
    journal_close(j);
}

/* A kill in the middle of a write leaves a prefix: every record before it stands, its rest is cut, and the next is whole. */
static void a_kill_at_any_byte(void **state)
{
    size_t ends[N_RECORDS], n = 0, now = 0;
    (void)state;
    write_life(ends);
    unsigned char *bytes = read_bytes(&n);
    assert_int_equal(n, ends[N_RECORDS - 1]);
    for (size_t cut = 0; cut <= n; cut++) {
        journal *j = NULL;
        int      n_whole = 0;
        while (n_whole < N_RECORDS && ends[n_whole] <= cut) n_whole++;
        const size_t kept = n_whole == 0 ? 0 : ends[n_whole - 1];
        write_bytes(bytes, cut);
        assert_int_equal(journal_open(&j, path), ST_OK);
        assert_int_equal(journal_count(j), n_whole);
        assert_int_equal(journal_torn_bytes(j), cut - kept);
        assert_int_equal(journal_append(j, &life[2]), ST_OK);
        journal_close(j);
        assert_int_equal(journal_read(&j, path), ST_OK);
        assert_int_equal(journal_count(j), n_whole + 1);
        for (int i = 0; i < n_whole; i++) expect_record(journal_get(j, (size_t)i), i);
        expect_record(journal_get(j, (size_t)n_whole), 2);
        assert_int_equal(journal_torn_bytes(j) + journal_spoiled_bytes(j), 0);
        journal_close(j);
    }
    write_bytes(bytes, ends[2] + 5); /* only reading cuts nothing */
    journal *j = NULL;
    assert_int_equal(journal_read(&j, path), ST_OK);
    assert_int_equal(journal_torn_bytes(j), 5);
    journal_close(j);
    free(read_bytes(&now));
    assert_int_equal(now, ends[2] + 5);
    free(bytes);
}

/* A flipped bit costs the record it is in, no other, and is told. */
static void a_flipped_bit_anywhere(void **state)
{
    size_t ends[N_RECORDS], n = 0;
    (void)state;
    write_life(ends);
    unsigned char *bytes = read_bytes(&n);
    for (size_t at = 0; at < n; at++) {
        journal *j = NULL;
        int      hit = 0;
        while (ends[hit] <= at) hit++;
        const size_t begin = hit == 0 ? 0 : ends[hit - 1];
        bytes[at] ^= (unsigned char)(1u << (at % 8));
        write_bytes(bytes, n);
        bytes[at] ^= (unsigned char)(1u << (at % 8));
        assert_int_equal(journal_read(&j, path), ST_OK);
        assert_int_equal(journal_count(j), N_RECORDS - 1);
        for (int i = 0, k = 0; i < N_RECORDS; i++)
            if (i != hit) expect_record(journal_get(j, (size_t)k++), i);
        assert_int_equal(hit == N_RECORDS - 1 ? journal_torn_bytes(j) : journal_spoiled_bytes(j), ends[hit] - begin);
        journal_close(j);
    }
    free(bytes);
}

static void spoiled_bytes_stay_and_appending_goes_on(void **state)
{
    size_t   ends[N_RECORDS], n = 0, after = 0;
    journal *j = NULL;
    (void)state;
    write_life(ends);
    unsigned char *bytes = read_bytes(&n);
    bytes[ends[1] + 20] ^= 4;
    write_bytes(bytes, n);
    assert_int_equal(journal_open(&j, path), ST_OK);
    assert_int_equal(journal_append(j, &life[0]), ST_OK);
    journal_close(j);
    free(read_bytes(&after));
    assert_true(after > n);
    assert_int_equal(journal_read(&j, path), ST_OK);
    assert_int_equal(journal_count(j), N_RECORDS);
    assert_int_equal(journal_spoiled_bytes(j), ends[2] - ends[1]);
    journal_close(j);
    free(bytes);
}

static void what_is_no_journal_is_left_alone(void **state)
{
    static const char letter[] = "Dear journal, this is a letter.\n";
    size_t            n = 0;
    journal          *j = NULL;
    (void)state;
    write_bytes((const unsigned char *)letter, sizeof(letter) - 1);
    assert_int_equal(journal_open(&j, path), ST_OUTPUT);
    assert_non_null(strstr(err_text(), "this is no journal"));
    assert_non_null(strstr(err_text(), path));
    unsigned char *bytes = read_bytes(&n);
    assert_int_equal(n, sizeof(letter) - 1);
    assert_memory_equal(bytes, letter, n);
    free(bytes);
    remove(path);
    assert_int_equal(journal_read(&j, path), ST_OUTPUT);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(journal_open(&j, path), ST_OUTPUT);
    assert_int_equal(rmdir(path), 0);
}

/* A reason may hold anything: bytes that are no UTF-8, and more than a record has room for. */
static void strange_reasons(void **state)
{
    journal *j = NULL;
    char    *longest = malloc(1 << 17);
    (void)state;
    assert_non_null(longest);
    memset(longest, 'x', 1 << 17);
    longest[(1 << 17) - 1] = '\0';
    assert_int_equal(journal_open(&j, path), ST_OK);
    assert_int_equal(journal_append(j, &(journal_record){.state = JOURNAL_FAILED, .output = "a.png", .reason = "caf\xe9: \x1b[31m"}), ST_OK);
    assert_int_not_equal(journal_append(j, &(journal_record){.state = JOURNAL_FAILED, .output = "a.png", .reason = longest}), ST_OK);
    assert_int_equal(journal_append(j, &(journal_record){.state = JOURNAL_QUEUED, .output = "a.png"}), ST_OK);
    journal_close(j);
    assert_int_equal(journal_read(&j, path), ST_OK);
    assert_int_equal(journal_count(j), 2);
    assert_string_equal(journal_get(j, 0)->reason, "caf?: ?[31m");
    journal_close(j);
    free(longest);
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    snprintf(path, sizeof(path), "%s/.dype-dist/a.journal", dir);
    char folder[2 * TEMPDIR_PATH];
    snprintf(folder, sizeof(folder), "%s/.dype-dist", dir);
    return mkdir(folder, 0777);
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
        cmocka_unit_test(what_is_appended_is_read),
        cmocka_unit_test(a_kill_at_any_byte),
        cmocka_unit_test(a_flipped_bit_anywhere),
        cmocka_unit_test(spoiled_bytes_stay_and_appending_goes_on),
        cmocka_unit_test(what_is_no_journal_is_left_alone),
        cmocka_unit_test(strange_reasons),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
