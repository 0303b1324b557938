/* A reader of files under libFuzzer. A target says which files its reader opens, makes good ones with the project's own
 * writers, and checks what the reader makes of an input. fuzz.c does the rest: puts the input into the files, and holds every
 * refusal to its form: one status, and a message that names the file. One target per executable. */
#ifndef DYPE_FUZZ_H
#define DYPE_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "status.h"

enum { FUZZ_FILES_MAX = 8, FUZZ_SEPARATOR = 0x1e /* between the files of an input; no text has it */ };

typedef struct fuzz_target {
    /* Names below fuzz_dir(). Of several, the input is cut at separators, the last takes the rest; a file whose part is
     * missing is not there. */
    const char *files[FUZZ_FILES_MAX + 1];
    status      bad; /* of a refusal; any other is an error of the reader */
    /* The files are there; data is all of the input. ST_OK: accepted or recovered, and what came out is in order (FUZZ_EXPECT). */
    status (*read)(const uint8_t *data, size_t n);
    void (*seeds)(void); /* writes good inputs: fuzz_seed */
    /* Sets checksums right in place, so that what lies behind them is reached; the new length, at most room. NULL: none. */
    size_t (*repair)(uint8_t *data, size_t n, size_t room);
} fuzz_target;

extern const fuzz_target target;

/* Says what does not hold and ends the process, so that libFuzzer keeps the input. */
#define FUZZ_EXPECT(holds)                                                                                             \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s; message: \"%s\"\n", __FILE__, __LINE__, #holds, err_text());     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

const char *fuzz_dir(void);
/* fuzz_dir()/name; lent until the next but three. */
const char *fuzz_path(const char *name);
/* A good input: what these bytes say, or what the files of the target hold now. */
void fuzz_seed(const void *data, size_t n);
void fuzz_seed_files(void);
/* A whole file; yours to free. Ends the process when there is none. */
uint8_t *fuzz_file(const char *path, size_t *n);

#endif
