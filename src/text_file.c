#include "text_file.h"

#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"

status text_file_begin(text_file *f)
{
    *f = (text_file){0};
    f->out = open_memstream(&f->text, &f->bytes);
    return f->out != NULL ? ST_OK : err_set(ST_NO_MEMORY, "a text file in memory");
}

status text_file_commit(text_file *f, const char *path)
{
    status       st = ST_OK;
    atomic_file *file = NULL;
    const int    failed = fclose(f->out);
    f->out = NULL;
    if (failed != 0) {
        st = err_set(ST_NO_MEMORY, "%s: its text", path);
        goto fail;
    }
    TRY(atomic_file_make_folder(path));
    TRY(atomic_file_open(&file, path));
    TRY(atomic_file_write(file, f->text, f->bytes));
    TRY(atomic_file_commit(file));
fail:
    atomic_file_close(file);
    text_file_free(f);
    return st;
}

void text_file_free(text_file *f)
{
    if (f->out != NULL) fclose(f->out);
    free(f->text);
    *f = (text_file){0};
}

status text_file_beside(char **out, const char *path, const char *ending)
{
    const char  *slash = strrchr(path, '/');
    const char  *name = slash != NULL ? slash + 1 : path;
    const char  *dot = strrchr(name, '.');
    const size_t stem = dot != NULL && dot > name ? (size_t)(dot - path) : strlen(path);
    char        *made = malloc(stem + strlen(ending) + 1);
    if (made == NULL) return err_set(ST_NO_MEMORY, "%s: no memory for a name", path);
    memcpy(made, path, stem);
    strcpy(made + stem, ending);
    *out = made;
    return ST_OK;
}
