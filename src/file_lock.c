#include "file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WORDS_BYTES = 1024, TRIES_MAX = 1000 };

struct file_lock {
    char *path, *next;
    char  words[WORDS_BYTES]; /* what our lock says; no two are equal */
};

/* ---- who we are */

static void read_line(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    text[0] = '\0';
    if (file == NULL) return;
    if (fgets(text, (int)size, file) != NULL) text[strcspn(text, "\n")] = '\0';
    fclose(file);
}

/* Clock ticks since boot at which a process began, and whether it has ended without being waited for. False: no such
 * process. */
static bool process_start(long pid, long long *start, bool *zombie)
{
    char path[64], stat[1024], state = 0;
    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    read_line(path, stat, sizeof(stat));
    const char *at = strrchr(stat, ')'); /* "PID (name) S ppid ...": the name may hold anything; start is field 22 */
    if (at == NULL) return false;
    if (sscanf(at, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lld", &state, start) != 2)
        return false;
    *zombie = state == 'Z' || state == 'X';
    return true;
}

static void boot_and_space(char boot[64], char space[64])
{
    read_line("/proc/sys/kernel/random/boot_id", boot, 64);
    const ssize_t n = readlink("/proc/self/ns/pid", space, 63);
    space[n < 0 ? 0 : n] = '\0';
}

static status write_words(char words[WORDS_BYTES])
{
    char      host[256] = "", boot[64], space[64];
    long long start = 0;
    bool      zombie = false;
    uint64_t  token[2] = {0};
    gethostname(host, sizeof(host) - 1);
    err_printable(host);
    boot_and_space(boot, space);
    process_start(getpid(), &start, &zombie);
    if (getrandom(token, sizeof(token), 0) < 0) token[0] = (uint64_t)start; /* host, process and start differ all the same */
    json_t *json = json_pack("{s:s, s:I, s:I, s:s, s:s, s:I, s:s}", "host", host, "pid", (json_int_t)getpid(), "start",
                             (json_int_t)start, "boot", boot, "space", space, "since", (json_int_t)time(NULL), "program",
                             "dype-dist");
    char hex[33];
    snprintf(hex, sizeof(hex), "%016llx%016llx", (unsigned long long)token[0], (unsigned long long)token[1]);
    if (json != NULL) json_object_set_new(json, "token", json_string(hex));
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(json);
    const bool fits = text != NULL && strlen(text) + 2 <= WORDS_BYTES;
    if (fits) snprintf(words, WORDS_BYTES, "%s\n", text);
    free(text);
    return fits ? ST_OK : err_set(ST_NO_MEMORY, "file_lock: no memory for its words");
}

/* ---- who holds it */

/* What is in a lock file, and when it was touched; false: there is none. */
static bool look(const char *path, char words[WORDS_BYTES], struct timespec *touched)
{
    struct stat about;
    const int   fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening asks an NFS server anew */
    if (fd < 0) return false;
    const ssize_t n = read(fd, words, WORDS_BYTES - 1);
    words[n > 0 ? n : 0] = '\0';
    *touched = fstat(fd, &about) == 0 ? about.st_mtim : (struct timespec){0};
    close(fd);
    return true;
}

typedef enum verdict { HOLDER_LIVES, HOLDER_GONE, HOLDER_UNSURE, HOLDER_UNREADABLE } verdict;

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static verdict judge_holder(const json_t *holder)
{
    char      host[256] = "", boot[64], space[64];
    long long start = 0;
    bool      zombie = false;
    if (!json_is_integer(json_object_get(holder, "pid")) || text_of(holder, "host")[0] == '\0') return HOLDER_UNREADABLE;
    gethostname(host, sizeof(host) - 1);
    err_printable(host);
    boot_and_space(boot, space);
    if (strcmp(text_of(holder, "host"), host) != 0) return HOLDER_UNSURE;
    if (strcmp(text_of(holder, "boot"), boot) != 0) return HOLDER_GONE;
    if (strcmp(text_of(holder, "space"), space) != 0) return HOLDER_UNSURE;
    const bool there = process_start((long)json_integer_value(json_object_get(holder, "pid")), &start, &zombie);
    return there && !zombie && start == json_integer_value(json_object_get(holder, "start")) ? HOLDER_LIVES : HOLDER_GONE;
}

static verdict judge(const char *words)
{
    json_t       *holder = json_loads(words, 0, NULL);
    const verdict v = judge_holder(holder);
    json_decref(holder);
    return v;
}

/* "process 1234 on node07 since 2026-11-24 22:10:05 UTC" */
static void describe(const char *words, char *text, size_t size)
{
    json_t      *holder = json_loads(words, 0, NULL);
    const time_t since = (time_t)json_integer_value(json_object_get(holder, "since"));
    struct tm    parts;
    char         when[64] = "?";
    if (gmtime_r(&since, &parts) != NULL) strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &parts);
    if (holder == NULL)
        snprintf(text, size, "an unknown process");
    else
        snprintf(text, size, "process %lld on %s since %s", (long long)json_integer_value(json_object_get(holder, "pid")),
                 text_of(holder, "host"), when);
    json_decref(holder);
}

/* ---- taking it */

/* Made exclusively, with our words: 0, or an errno. *made: when, on the file system's clock; may be NULL. */
static int make_exclusively(const char *path, const char *words, struct timespec *made)
{
    struct stat  about;
    const size_t n = strlen(words);
    const int    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return errno;
    const ssize_t got = write(fd, words, n);
    int           error = got == (ssize_t)n ? 0 : got < 0 ? errno : ENOSPC;
    if (made != NULL && fstat(fd, &about) == 0) *made = about.st_mtim;
    if (close(fd) != 0 && error == 0) error = errno; /* NFS tells here */
    if (error != 0) unlink(path);
    return error;
}

static bool is_ours(const file_lock *lock)
{
    char            words[WORDS_BYTES];
    struct timespec touched;
    return look(lock->path, words, &touched) && strcmp(words, lock->words) == 0;
}

/* A `next` of somebody who is taking over, or was killed while at it. */
static void clear_next(const file_lock *lock)
{
    char            words[WORDS_BYTES];
    struct timespec touched, now;
    if (!look(lock->next, words, &touched)) return;
    clock_gettime(CLOCK_REALTIME, &now);
    const verdict v = judge(words);
    if (v == HOLDER_GONE || (v != HOLDER_LIVES && now.tv_sec - touched.tv_sec > LOCK_STALE_S)) unlink(lock->next);
}

typedef struct watching {
    struct timespec touched; /* as we saw it first */
    bool            looked;
} watching;

/* One try to replace a lock that says `words`. *alive: its holder is. */
static status take_over(const file_lock *lock, const char *words, verdict v, watching *w, bool *alive, bool *taken)
{
    struct timespec now = {0}, touched = {0};
    char            again[WORDS_BYTES];
    const int       error = make_exclusively(lock->next, lock->words, &now);
    if (error == EEXIST) {
        clear_next(lock);
        return ST_OK;
    }
    if (error != 0) return err_set(ST_OUTPUT, "%s: %s", lock->next, strerror(error));
    const bool same = look(lock->path, again, &touched) && strcmp(again, words) == 0;
    const bool moved = w->looked && (touched.tv_sec != w->touched.tv_sec || touched.tv_nsec != w->touched.tv_nsec);
    const long limit_s = v == HOLDER_UNREADABLE ? LOCK_TORN_S : LOCK_STALE_S;
    const bool stale = v == HOLDER_GONE || now.tv_sec - touched.tv_sec > limit_s;
    if (!w->looked) *w = (watching){touched, true};
    *alive = same && moved && v == HOLDER_UNSURE;
    if (same && stale && !moved && rename(lock->next, lock->path) == 0) {
        *taken = is_ours(lock);
        return ST_OK;
    }
    unlink(lock->next);
    return ST_OK;
}

status file_lock_take(file_lock **out, const file_lock_opts *opts)
{
    status     st = ST_OK;
    bool       taken = false, alive = false;
    watching   w = {0};
    char       words[WORDS_BYTES], who[512];
    file_lock *lock = calloc(1, sizeof(*lock));
    if (lock == NULL) return err_set(ST_NO_MEMORY, "file_lock: %zu bytes", sizeof(*lock));
    lock->path = strdup(opts->path);
    if (lock->path == NULL || asprintf(&lock->next, "%s.next", opts->path) < 0) {
        lock->next = NULL;
        st = err_set(ST_NO_MEMORY, "%s: no memory for its name", opts->path);
        goto fail;
    }
    TRY(write_words(lock->words));
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        struct timespec touched;
        const int       error = make_exclusively(lock->path, lock->words, NULL);
        if (error == 0) break;
        if (error != EEXIST) {
            st = err_set(ST_OUTPUT, "%s: %s", lock->path, strerror(error));
            goto fail;
        }
        if (!look(lock->path, words, &touched)) continue; /* released in this moment */
        const verdict v = judge(words);
        if (v != HOLDER_LIVES) TRY(take_over(lock, words, v, &w, &alive, &taken));
        if (taken) break;
        if (v == HOLDER_LIVES || alive) {
            describe(words, who, sizeof(who));
            st = err_set(ST_OUTPUT, "%s is in the hands of another job: %s holds %s", opts->what, who, lock->path);
            goto fail;
        }
        if (v == HOLDER_GONE) continue;
        if (opts->waiting != NULL) opts->waiting(opts->context);
        sleep(1);
    }
    if (!is_ours(lock)) {
        st = err_set(ST_OUTPUT, "%s: the lock cannot be taken", lock->path);
        goto fail;
    }
    *out = lock;
    return ST_OK;
fail:
    if (lock != NULL) {
        free(lock->path);
        free(lock->next);
    }
    free(lock);
    return st;
}

void file_lock_beat(const file_lock *lock)
{
    if (is_ours(lock)) utimensat(AT_FDCWD, lock->path, NULL, 0);
}

status file_lock_check(const file_lock *lock)
{
    char            words[WORDS_BYTES], who[512] = "nobody";
    struct timespec touched;
    if (is_ours(lock)) return ST_OK;
    if (look(lock->path, words, &touched)) describe(words, who, sizeof(who));
    return err_set(ST_OUTPUT, "%s: the lock was taken from this process, which was stopped for long: %s holds it now", lock->path,
                   who);
}

void file_lock_release(file_lock *lock)
{
    if (lock == NULL) return;
    if (is_ours(lock)) unlink(lock->path);
    free(lock->path);
    free(lock->next);
    free(lock);
}
