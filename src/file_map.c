#include "file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_map {
    char *path;
    char *message; /* what the SIGBUS handler writes */
    void *data;
    size_t bytes;
    int slot; /* in the registry; -1: none */
};

/* The registry that the handler reads: a slot is in use while its message is not NULL. Writers hold the lock; the
 * handler, which may not lock, sees a slot complete because the message is stored last and cleared first. */
enum { MAP_SLOTS = 1024 };
typedef struct {
    _Atomic(const char *) message;
    _Atomic(uintptr_t) begin;
    _Atomic(size_t) bytes;
} map_slot;

static map_slot slots[MAP_SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous_action;
static volatile sig_atomic_t passed_on; /* a fault that is not ours has gone to the previous handler once */

/* Only async-signal-safe calls here. */
static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < MAP_SLOTS && info->si_code > 0; i++) {
        const char *message = atomic_load(&slots[i].message);
        if (message == NULL || at - atomic_load(&slots[i].begin) >= atomic_load(&slots[i].bytes)) continue;
        if (write(STDERR_FILENO, message, strlen(message)) < 0) _exit(ST_BAD_MODEL);
        _exit(ST_BAD_MODEL);
    }
    /* Not ours: the faulting instruction runs again, under the handler that was there before; should that one hand it
     * back to us, under the default action. */
    struct sigaction next = previous_action;
    if (passed_on) next.sa_handler = SIG_DFL;
    passed_on = 1;
    sigaction(SIGBUS, &next, NULL);
    if (info->si_code <= 0) raise(signal_number);
}

/* With every map, because other libraries install theirs too: the last one wins. Called under the lock. */
static void install_handler(void)
{
    struct sigaction action;
    sigaction(SIGBUS, NULL, &action);
    if ((action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_sigbus) return;
    previous_action = action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

static status register_map(file_map *map)
{
    pthread_mutex_lock(&slots_lock);
    install_handler();
    for (int i = 0; i < MAP_SLOTS && map->slot < 0; i++) {
        if (atomic_load(&slots[i].message) != NULL) continue;
        atomic_store(&slots[i].begin, (uintptr_t)map->data);
        atomic_store(&slots[i].bytes, map->bytes);
        atomic_store(&slots[i].message, map->message);
        map->slot = i;
    }
    pthread_mutex_unlock(&slots_lock);
    if (map->slot < 0) return err_set(ST_BAD_MODEL, "%s: more than %d files mapped at once", map->path, MAP_SLOTS);
    return ST_OK;
}

static status map_file(file_map *map, int fd, status bad)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return err_set(bad, "%s: %s", map->path, strerror(errno));
    if (!S_ISREG(info.st_mode)) {
        return err_set(bad, "%s: %s, want a file", map->path, S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
    }
    if (info.st_size == 0) return ST_OK;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return err_set(errno == ENOMEM ? ST_NO_MEMORY : bad, "%s: cannot map %lld bytes: %s", map->path,
                       (long long)info.st_size, strerror(errno));
    }
    map->data = data;
    map->bytes = (size_t)info.st_size;
    return register_map(map);
}

status file_map_open(file_map **out, const char *path, status bad)
{
    status st = ST_OK;
    int fd = -1;
    file_map *map = calloc(1, sizeof(*map));
    if (map == NULL) return err_set(ST_NO_MEMORY, "file_map: %zu bytes", sizeof(*map));
    map->slot = -1;
    map->path = strdup(path);
    if (map->path == NULL ||
        asprintf(&map->message, "dype-dist: %s: the file was truncated or became unreadable while in use\n", path) <
            0) {
        map->message = NULL;
        st = err_set(ST_NO_MEMORY, "file_map: the name %s", path);
        goto fail;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a named pipe must not hang us */
    if (fd < 0) {
        st = err_set(bad, "%s: %s", path, strerror(errno));
        goto fail;
    }
    TRY(map_file(map, fd, bad));
    close(fd);
    *out = map;
    return ST_OK;
fail:
    if (fd >= 0) close(fd);
    file_map_close(map);
    return st;
}

void file_map_close(file_map *map)
{
    if (map == NULL) return;
    if (map->slot >= 0) {
        pthread_mutex_lock(&slots_lock);
        atomic_store(&slots[map->slot].message, NULL);
        pthread_mutex_unlock(&slots_lock);
    }
    if (map->data != NULL) munmap(map->data, map->bytes);
    free(map->message);
    free(map->path);
    free(map);
}

const void *file_map_data(const file_map *map)
{
    return map->data;
}

size_t file_map_bytes(const file_map *map)
{
    return map->bytes;
}

const char *file_map_path(const file_map *map)
{
    return map->path;
}

void file_map_drop(const file_map *map, const void *data, size_t bytes)
{
    if (map->data == NULL || bytes == 0) return;
    /* Rounded outwards: a neighbour that loses a page reads it again. */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)data / page * page;
    uintptr_t last = ((uintptr_t)data + bytes + page - 1) / page * page;
    madvise((void *)first, last - first, MADV_DONTNEED);
}
