#include "outputs.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "journal.h"

char *outputs_read(const char *path, size_t *n)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, file), *n);
    data[*n] = '\0';
    fclose(file);
    return data;
}

bool outputs_equal(const char *a, const char *b)
{
    size_t     n = 0, m = 0;
    char      *x = outputs_read(a, &n), *y = outputs_read(b, &m);
    const bool equal = x != NULL && y != NULL && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return equal;
}

const char *outputs_list(const char *folder)
{
    static char text[4096];
    DIR        *dir = opendir(folder);
    text[0] = '\0';
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ", e->d_name);
    }
    if (dir != NULL) closedir(dir);
    return text;
}

void outputs_expect(const char *folder, const char *const *names)
{
    int  n_want = 0, n_got = 0, n_found = 0;
    DIR *dir = opendir(folder);
    while (names[n_want] != NULL) n_want++;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        n_got++;
        for (int i = 0; i < n_want; i++) n_found += strcmp(e->d_name, names[i]) == 0;
    }
    if (dir != NULL) closedir(dir);
    if (n_got != n_want || n_found != n_want) fail_msg("%s holds: %s", folder, outputs_list(folder));
}

int outputs_states(const char *path, const char *state)
{
    int      n = 0;
    journal *j = NULL;
    if (journal_read(&j, path) != ST_OK) return 0;
    for (size_t i = 0; i < journal_count(j); i++) n += strcmp(journal_state_name(journal_get(j, i)->state), state) == 0;
    journal_close(j);
    return n;
}

static void run(const char *what, const char *a, const char *b)
{
    char *command = NULL;
    assert_true(asprintf(&command, "%s '%s'%s%s%s", what, a, b != NULL ? " '" : "", b != NULL ? b : "", b != NULL ? "'" : "") > 0);
    assert_int_equal(system(command), 0);
    free(command);
}

void outputs_copy(const char *from, const char *to)
{
    run("cp -a", from, to);
}

void outputs_remove(const char *folder)
{
    run("rm -rf", folder, NULL);
}
