/* A safetensors file is believed only when every rule of the format holds. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "file_map.h"
#include "safetensors.h"
#include "tempdir.h"

static char folder[TEMPDIR_PATH];
static char path[TEMPDIR_PATH + 32];

static int make_folder(void **state)
{
    (void)state;
    if (tempdir_open(folder) != ST_OK) return -1;
    snprintf(path, sizeof(path), "%s/file.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    tempdir_close(folder);
    return 0;
}

static void put(const void *bytes, size_t n)
{
    unlink(path); /* a new file: some file systems flush one that is cut and written again */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* length, header, n zero bytes of data */
static void put_header(const char *header, uint64_t length, size_t n)
{
    char *file = calloc(1, 8 + strlen(header) + n);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (char)(length >> (8 * i));
    memcpy(file + 8, header, strlen(header));
    put(file, 8 + strlen(header) + n);
    free(file);
}

static void check_refused(const char *wanted)
{
    safetensors *file = NULL;
    err_clear();
    assert_int_equal(safetensors_open(&file, path, ST_BAD_MODEL), ST_BAD_MODEL);
    assert_null(file);
    if (strstr(err_text(), wanted) == NULL) fail_msg("got '%s', want '%s'", err_text(), wanted);
    assert_non_null(strstr(err_text(), path));
}

typedef struct {
    const char *header;
    size_t data_bytes;
    const char *wanted; /* part of the message; NULL: the file is good */
} header_case;

#define ONE(dtype, shape, offsets) "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(first, second)                                                                                             \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" first "},"                                              \
    "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" second "}}"

static void headers_are_judged_by_every_rule(void **state)
{
    static const header_case cases[] = {
        /* legal */
        {"{}", 0, NULL},
        {"{}     ", 0, NULL},
        {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, NULL},
        {ONE("F32", "[2]", "[0,8]"), 8, NULL},
        {ONE("F32", "[]", "[0,4]"), 4, NULL},
        {ONE("F32", "[0,3]", "[0,0]"), 0, NULL},
        {ONE("F4", "[2]", "[0,1]"), 1, NULL},
        {ONE("F6_E2M3", "[4]", "[0,3]"), 3, NULL},
        {ONE("F8_E8M0", "[3]", "[0,3]"), 3, NULL},
        {ONE("C64", "[1]", "[0,8]"), 8, NULL},
        {ONE("BOOL", "[1,1,1,1,1,1,1,1]", "[0,1]"), 1, NULL},
        {TWO("[0,4]", "[4,8]"), 8, NULL},
        {TWO("[4,8]", "[0,4]"), 8, NULL},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
         4, NULL},
        {"{\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
         4, NULL},
        /* the text */
        {"[]", 0, "begin with '{'"},
        {" {}", 0, "begin with '{'"},
        {"{}\n", 0, "after its '}'"},
        {"{} x", 0, "after its '}'"},
        {"{}}", 0, "end of file expected"},
        {"{\"t\":1,}", 0, ":1:"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},\"t\":1}", 1, "duplicate"},
        {"{\"t\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "duplicate"},
        {"{\"t\\u0000\":1}", 0, "\\u0000"},
        {"{\"\xff\":1}", 0, "unable to decode byte 0xff"},
        {"{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}", 0, "deeper than"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is no object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "is no text"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "is no text"},
        /* one tensor */
        {"{\"t\":3}", 0, "not described by an object"},
        {"{\"t\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, "dtype"},
        {"{\"t\":{\"dtype\":5,\"shape\":[],\"data_offsets\":[0,1]}}", 1, "dtype"},
        {ONE("f32", "[2]", "[0,8]"), 8, "dtype f32 is unknown"},
        {ONE("F32", "2", "[0,8]"), 8, "shape is no list"},
        {ONE("F32", "[2.0]", "[0,8]"), 8, "shape[0]"},
        {ONE("F32", "[1,2e0]", "[0,8]"), 8, "shape[1]"},
        {ONE("F32", "[-2]", "[0,8]"), 8, "shape[0]"},
        {ONE("F32", "[\"2\"]", "[0,8]"), 8, "shape[0]"},
        {ONE("F32", "[true]", "[0,8]"), 8, "shape[0]"},
        {ONE("F32", "[9223372036854775808]", "[0,8]"), 8, "too big"},
        {ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "at most 8"},
        {ONE("U8", "[4294967296,4294967296]", "[0,8]"), 8, "overflows"},
        {ONE("F32", "[4611686018427387904]", "[0,0]"), 0, "overflows"},
        {ONE("U8", "[9223372036854775807,2]", "[0,0]"), 0, "overflows"},
        {ONE("F4", "[3]", "[0,1]"), 1, "whole number of bytes"},
        {ONE("F6_E3M2", "[2]", "[0,1]"), 1, "whole number of bytes"},
        {ONE("F32", "[2]", "8"), 8, "data_offsets"},
        {ONE("F32", "[2]", "[0]"), 8, "data_offsets"},
        {ONE("F32", "[2]", "[0,8,8]"), 8, "data_offsets"},
        {ONE("F32", "[2]", "[8,0]"), 8, "data_offsets"},
        {ONE("F32", "[2]", "[-8,0]"), 8, "data_offsets"},
        {ONE("F32", "[2]", "[0,7]"), 7, "span 7 bytes, [2] of F32 takes 8"},
        {ONE("F32", "[2]", "[0,9]"), 9, "span 9 bytes"},
        /* places */
        {ONE("F32", "[2]", "[4,12]"), 12, "a hole"},
        {TWO("[0,4]", "[5,9]"), 9, "a hole"},
        {TWO("[0,4]", "[3,7]"), 7, "overlap"},
        {TWO("[0,4]", "[0,4]"), 4, "overlap"},
        {ONE("F32", "[2]", "[0,8]"), 9, "1 bytes follow the last tensor"},
        {"{}", 5, "5 bytes follow"},
        {ONE("F32", "[2]", "[0,8]"), 4, "truncated: its tensors take 8 bytes, the file holds 4 (50.0 %)"},
        {ONE("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 4, "overflows"},
        {ONE("U8", "[1152921504606846975]", "[0,1152921504606846975]"), 4, "truncated"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put_header(cases[i].header, strlen(cases[i].header), cases[i].data_bytes);
        if (cases[i].wanted != NULL) {
            check_refused(cases[i].wanted);
            continue;
        }
        safetensors *file = NULL;
        if (safetensors_open(&file, path, ST_BAD_MODEL) != ST_OK) fail_msg("%s: %s", cases[i].header, err_text());
        safetensors_close(file);
    }
}

static void header_length_is_checked_before_use(void **state)
{
    (void)state;
    put_header("{}", 3, 0);
    check_refused("truncated: the header says 3 bytes, the file has 2");
    put_header("{}", 100000001, 0);
    check_refused("at most 100000000");
    put_header("{}", UINT64_MAX, 0);
    check_refused("at most 100000000");
    put_header("{}", 0, 0);
    check_refused("begin with '{'");
    put_header("{}", 100000000, 0);
    check_refused("truncated");
}

static void other_files_are_named_for_what_they_are(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *wanted;
    } cases[] = {
        {"", 0, "the file is empty"},
        {"abc", 3, "has 3 bytes"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", 62, "Git LFS pointer"},
        {"<!DOCTYPE html><html></html>", 28, "HTML page"},
        {"\n\n<html>", 8, "HTML page"},
        {"PK\003\004archive/data.pkl", 20, "PyTorch pickle"},
        {"\200\002\212\012l\374\234F", 8, "PyTorch pickle"},
        {"GGUF\003\0\0\0", 8, "GGUF"},
        {"{\"error\": \"not found\"}", 22, "a JSON text"},
        {"Repository not found", 20, "no safetensors file"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put(cases[i].bytes, cases[i].n);
        check_refused(cases[i].wanted);
    }
    safetensors *file = NULL;
    assert_int_equal(safetensors_open(&file, folder, ST_BAD_JOB), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "a folder"));
    assert_int_equal(safetensors_open(&file, "/nonexistent/x", ST_BAD_JOB), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "No such file"));
}

/* A header of 640 bytes begins with the bytes of a pickle, one of 2848 with those of a gzip file. */
static void a_header_length_is_not_taken_for_another_format(void **state)
{
    static const size_t lengths[] = {640, 0x8b1f, ' ', '\n' + 256};
    char *header = malloc(0x10000);
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        memset(header, ' ', lengths[i]);
        memcpy(header, "{}", 2);
        header[lengths[i]] = '\0';
        put_header(header, lengths[i], 0);
        safetensors *file = NULL;
        assert_int_equal(safetensors_open(&file, path, ST_BAD_MODEL), ST_OK);
        safetensors_close(file);
    }
    free(header);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    const float wide[6] = {1, 2, 3, 4, 5, 6};
    const uint16_t half[3] = {0x3f80, 0x4000, 0x4040};
    const int64_t id = -7;
    const safetensors_tensor tensors[] = {
        {.name = "half", .type = DT_BF16, .n_dims = 1, .shape = {3}, .data = half},
        {.name = "wide", .type = DT_F32, .n_dims = 2, .shape = {2, 3}, .data = wide},
        {.name = "id \"\xc3\xa9\"", .type = DT_I64, .n_dims = 0, .data = &id},
        {.name = "none", .type = DT_F32, .n_dims = 2, .shape = {0, 3}, .data = NULL},
    };
    const safetensors_note notes[] = {{"format", "pt"}, {"prompt", "a \"hill\"\n"}};
    assert_int_equal(safetensors_write(path, tensors, 4, notes, 2), ST_OK);

    /* The bytes themselves: header padded to 8, then tensors by width, then by name. */
    unsigned char bytes[1024];
    FILE *f = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    size_t length = bytes[0] | (size_t)bytes[1] << 8;
    assert_int_equal(length % 8, 0);
    assert_int_equal(n, 8 + length + 8 + 24 + 6);
    assert_memory_equal(bytes + 8 + length, &id, 8);
    assert_memory_equal(bytes + 8 + length + 8, wide, 24);
    assert_memory_equal(bytes + 8 + length + 32, half, 6);

    safetensors *file = NULL;
    assert_int_equal(safetensors_open(&file, path, ST_BAD_JOB), ST_OK);
    assert_int_equal(safetensors_count(file), 4);
    const safetensors_entry *entry = safetensors_find(file, "wide");
    assert_non_null(entry);
    assert_int_equal(entry->type, DT_F32);
    assert_int_equal(entry->n_dims, 2);
    assert_int_equal(entry->shape[0], 2);
    assert_int_equal(entry->shape[1], 3);
    assert_true(entry->aligned);
    assert_memory_equal(entry->data, wide, sizeof(wide));
    safetensors_drop(file, entry->data, entry->bytes);
    assert_memory_equal(entry->data, wide, sizeof(wide));
    assert_int_equal(safetensors_find(file, "none")->bytes, 0);
    assert_int_equal(*(const int64_t *)safetensors_find(file, "id \"\xc3\xa9\"")->data, -7);
    assert_null(safetensors_find(file, "absent"));
    assert_null(safetensors_get(file, 4));
    assert_string_equal(safetensors_metadata(file, "prompt"), "a \"hill\"\n");
    assert_null(safetensors_metadata(file, "absent"));
    safetensors_close(file);

    /* Nothing but the file is left, and nothing at all when its folder is missing. */
    assert_int_equal(safetensors_write("/nonexistent/x", tensors, 4, NULL, 0), ST_OUTPUT);
}

static void misaligned_data_is_told(void **state)
{
    (void)state;
    char header[] = ONE("F32", "[2]", "[0,8]") "   ";
    while ((8 + strlen(header)) % 4 != 1)
        header[strlen(header) - 1] = '\0';
    put_header(header, strlen(header), 8);
    safetensors *file = NULL;
    assert_int_equal(safetensors_open(&file, path, ST_BAD_MODEL), ST_OK);
    assert_false(safetensors_get(file, 0)->aligned);
    safetensors_close(file);
}

/* Never a crash (the sanitizers watch), and what is accepted lies inside the file. */
static void mutated_headers_never_crash(void **state)
{
    static const char base[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                               "\"data_offsets\":[0,24]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"
                               "\"c\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[32,33]}}";
    static const char bytes[] = "{}[]\":,0123456789-+.eE\\ \n\t\0\x80\xff\xc3utrnfl";
    (void)state;
    uint64_t seed = 1;
    int n_accepted = 0;
    for (int round = 0; round < 4000; round++) {
        char header[sizeof(base) + 16];
        size_t n = sizeof(base) - 1;
        memcpy(header, base, sizeof(base));
        int n_changes = 1 + round % 3;
        for (int i = 0; i < n_changes; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t at = (size_t)(seed >> 33) % n;
            char byte = bytes[(seed >> 20) % (sizeof(bytes) - 1)];
            switch (seed >> 62) {
            case 0:
                header[at] = byte;
                break;
            case 1: /* insert */
                memmove(header + at + 1, header + at, n - at);
                header[at] = byte;
                n++;
                break;
            case 2: /* delete */
                memmove(header + at, header + at + 1, n - at - 1);
                n--;
                break;
            default:
                header[at] = (char)(header[at] ^ (1 << (seed >> 40) % 8));
                break;
            }
        }
        char file_bytes[8 + sizeof(header) + 33] = {0};
        for (int i = 0; i < 8; i++)
            file_bytes[i] = (char)((uint64_t)n >> (8 * i));
        if (round % 16 == 0) file_bytes[(seed >> 50) % 8] ^= (char)(1 << (seed >> 44) % 8);
        memcpy(file_bytes + 8, header, n);
        put(file_bytes, 8 + n + 33);
        safetensors *file = NULL;
        status st = safetensors_open(&file, path, ST_BAD_MODEL);
        assert_true(st == ST_OK || st == ST_BAD_MODEL);
        unsigned sum = 0;
        for (size_t t = 0; st == ST_OK && t < safetensors_count(file); t++) {
            const safetensors_entry *entry = safetensors_get(file, t);
            for (size_t b = 0; b < entry->bytes; b++)
                sum += ((const unsigned char *)entry->data)[b];
        }
        assert_int_equal(sum, 0);
        n_accepted += st == ST_OK;
        safetensors_close(file);
    }
    /* A change inside a name is no error; nearly all others are. */
    assert_in_range(n_accepted, 1, 2000);
}

/* A process that reads a file cut under its feet leaves with the code of a bad model, and says which file. */
static void a_file_cut_while_mapped_is_named(void **state)
{
    (void)state;
    size_t n = 1 << 16;
    char *zeros = calloc(1, n);
    put(zeros, n);
    free(zeros);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        file_map *map = NULL;
        dup2(ends[1], STDERR_FILENO);
        if (file_map_open(&map, path, ST_BAD_MODEL) != ST_OK) _exit(99);
        if (truncate(path, 100) != 0) _exit(98);
        volatile const char *data = file_map_data(map);
        _exit(data[n - 1] == 0 ? 97 : 96);
    }
    close(ends[1]);
    char said[512] = "";
    ssize_t got = read(ends[0], said, sizeof(said) - 1);
    close(ends[0]);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), ST_BAD_MODEL);
    assert_true(got > 0);
    assert_non_null(strstr(said, path));
    assert_non_null(strstr(said, "truncated"));
}

/* A fault elsewhere is not swallowed. */
static void a_fault_elsewhere_kills_as_before(void **state)
{
    (void)state;
    put("12345678", 8);
    pid_t child = fork();
    if (child == 0) {
        file_map *map = NULL;
        signal(SIGBUS, SIG_DFL); /* the test library has its own */
        if (file_map_open(&map, path, ST_BAD_MODEL) != ST_OK) _exit(99);
        raise(SIGBUS);
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_false(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_judged_by_every_rule),
        cmocka_unit_test(header_length_is_checked_before_use),
        cmocka_unit_test(other_files_are_named_for_what_they_are),
        cmocka_unit_test(a_header_length_is_not_taken_for_another_format),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(misaligned_data_is_told),
        cmocka_unit_test(mutated_headers_never_crash),
        cmocka_unit_test(a_file_cut_while_mapped_is_named),
        cmocka_unit_test(a_fault_elsewhere_kills_as_before),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
