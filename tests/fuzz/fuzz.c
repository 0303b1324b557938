#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic_file.h"
#include "tempdir.h"

/* libFuzzer's side. */
int    LLVMFuzzerInitialize(int *argc, char ***argv);
int    LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t room);

/* A length from an input may be anything: memory is refused then, as without a sanitizer. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static char        dir[TEMPDIR_PATH];
static const char *seeds_folder;
static int         n_seeds;
static long        n_accepted, n_refused;

const char *fuzz_dir(void)
{
    return dir;
}

const char *fuzz_path(const char *name)
{
    return tempdir_in(dir, "%s", name);
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wbe");
    if (file == NULL || fwrite(data, 1, n, file) != n || fclose(file) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
}

uint8_t *fuzz_file(const char *path, size_t *n)
{
    struct stat about;
    FILE       *file = fopen(path, "rbe");
    uint8_t    *data = NULL;
    if (file != NULL && fstat(fileno(file), &about) == 0) data = malloc((size_t)about.st_size + 1);
    if (data == NULL || fread(data, 1, (size_t)about.st_size, file) != (size_t)about.st_size) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    fclose(file);
    *n = (size_t)about.st_size;
    return data;
}

/* ---- good inputs */

void fuzz_seed(const void *data, size_t n)
{
    char path[2 * TEMPDIR_PATH];
    snprintf(path, sizeof(path), "%s/%02d", seeds_folder, n_seeds++);
    write_file(path, data, n);
}

void fuzz_seed_files(void)
{
    char  *all = NULL;
    size_t n_all = 0;
    FILE  *out = open_memstream(&all, &n_all);
    for (int i = 0; target.files[i] != NULL; i++) {
        size_t   n = 0;
        uint8_t *data = fuzz_file(fuzz_path(target.files[i]), &n);
        if (i > 0) fputc(FUZZ_SEPARATOR, out);
        fwrite(data, 1, n, out);
        free(data);
    }
    fclose(out);
    fuzz_seed(all, n_all);
    free(all);
}

/* The good ones are good. */
static void check_seeds(void)
{
    for (int i = 0; i < n_seeds; i++) {
        char   path[2 * TEMPDIR_PATH];
        size_t n = 0;
        snprintf(path, sizeof(path), "%s/%02d", seeds_folder, i);
        uint8_t *data = fuzz_file(path, &n);
        LLVMFuzzerTestOneInput(data, n);
        if (n_refused > 0) fprintf(stderr, "%s: a good input is refused: %s\n", path, err_text());
        free(data);
        if (n_refused > 0) exit(1);
    }
}

/* ---- libFuzzer */

static void tell(void)
{
    fprintf(stderr, "inputs accepted: %ld, refused: %ld\n", n_accepted, n_refused);
}

/* `TARGET --seeds FOLDER` writes good inputs and ends; all else is libFuzzer's. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 1); /* files by the hundred thousand, flushed each */
    if (tempdir_open(dir) != ST_OK) {
        fprintf(stderr, "%s\n", err_text());
        exit(1);
    }
    for (int i = 0; target.files[i] != NULL; i++)
        if (atomic_file_make_folder(fuzz_path(target.files[i])) != ST_OK) exit(1);
    if (*argc == 3 && strcmp((*argv)[1], "--seeds") == 0) {
        seeds_folder = (*argv)[2];
        target.seeds();
        check_seeds();
        exit(0);
    }
    atexit(tell);
    return 0;
}

static void put_files(const uint8_t *data, size_t n)
{
    for (int i = 0; target.files[i] != NULL; i++) {
        const uint8_t *end = data == NULL || target.files[i + 1] == NULL ? NULL : memchr(data, FUZZ_SEPARATOR, n);
        const size_t   n_part = end == NULL ? n : (size_t)(end - data);
        if (data == NULL)
            unlink(fuzz_path(target.files[i]));
        else
            write_file(fuzz_path(target.files[i]), data, n_part);
        n -= end == NULL ? n : n_part + 1;
        data = end == NULL ? NULL : end + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    put_files(data, n);
    err_clear();
    const status st = target.read(data, n);
    if (st == ST_OK) {
        n_accepted++;
        return 0;
    }
    n_refused++;
    /* The file itself, or one of the folder that was opened. */
    FUZZ_EXPECT(st == target.bad);
    FUZZ_EXPECT(strstr(err_text(), target.files[1] == NULL ? fuzz_path(target.files[0]) : dir) != NULL);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t room, unsigned seed)
{
    n = LLVMFuzzerMutate(data, n, room);
    return target.repair != NULL && seed % 4 != 0 ? target.repair(data, n, room) : n;
}
