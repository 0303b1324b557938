#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct atomic_file {
    char *path;
    char *temporary; /* path.tmp-PID-N; NULL unless it exists */
    int fd;
};

/* A name that nobody holds: other processes, also on other machines of a shared folder, may write the same path. */
static int create_beside(atomic_file *file)
{
    int fd = -1;
    for (int i = 0; i < 100 && fd < 0; i++) {
        char *name = NULL;
        if (asprintf(&name, "%s.tmp-%ld-%d", file->path, (long)getpid(), i) < 0) {
            errno = ENOMEM;
            return -1;
        }
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            file->temporary = name;
        else
            free(name);
        if (fd < 0 && errno != EEXIST) return -1;
    }
    return fd;
}

/* mkdir -p of the folder that path lies in. */
status atomic_file_make_folder(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL) return err_set(ST_NO_MEMORY, "%s: no memory for its name", path);
    status st = ST_OK;
    for (char *at = strchr(copy + 1, '/'); at != NULL && st == ST_OK; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = err_set(ST_OUTPUT, "%s: cannot make folder %s: %s", path, copy, strerror(errno));
        *at = '/';
    }
    free(copy);
    return st;
}

status atomic_file_probe(const char *path)
{
    atomic_file *file = NULL;
    struct stat  there;
    status       st = atomic_file_make_folder(path);
    if (st == ST_OK && stat(path, &there) == 0 && !S_ISREG(there.st_mode))
        st = err_set(ST_OUTPUT, "%s: %s has this name already", path, S_ISDIR(there.st_mode) ? "a folder" : "no file");
    if (st == ST_OK) st = atomic_file_open(&file, path);
    atomic_file_close(file);
    return st;
}

status atomic_file_open(atomic_file **out, const char *path)
{
    status st = ST_OK;
    atomic_file *file = calloc(1, sizeof(*file));
    if (file == NULL) return err_set(ST_NO_MEMORY, "atomic_file: %zu bytes", sizeof(*file));
    file->fd = -1;
    file->path = strdup(path);
    if (file->path == NULL) {
        st = err_set(ST_NO_MEMORY, "atomic_file: the name %s", path);
        goto fail;
    }
    file->fd = create_beside(file);
    if (file->fd < 0) {
        st = err_set(ST_OUTPUT, "%s: cannot create a file in its folder: %s", path, strerror(errno));
        goto fail;
    }
    *out = file;
    return ST_OK;
fail:
    atomic_file_close(file);
    return st;
}

status atomic_file_write(atomic_file *file, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(file->fd, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_set(ST_OUTPUT, "%s: %s", file->temporary, strerror(errno));
        at += n;
        bytes -= (size_t)n;
    }
    return ST_OK;
}

status atomic_file_commit(atomic_file *file)
{
    if (fsync(file->fd) != 0) return err_set(ST_OUTPUT, "%s: fsync: %s", file->temporary, strerror(errno));
    if (rename(file->temporary, file->path) != 0) {
        return err_set(ST_OUTPUT, "%s: cannot rename to its final name: %s", file->path, strerror(errno));
    }
    free(file->temporary);
    file->temporary = NULL;
    /* The rename itself reaches the disk with its folder. Some file systems cannot sync a folder: no error then. */
    char *copy = strdup(file->path);
    int folder = copy == NULL ? -1 : open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        fsync(folder);
        close(folder);
    }
    free(copy);
    return ST_OK;
}

void atomic_file_close(atomic_file *file)
{
    if (file == NULL) return;
    if (file->fd >= 0) close(file->fd);
    if (file->temporary != NULL) unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    free(file);
}
