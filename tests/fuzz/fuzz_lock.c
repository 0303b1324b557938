/* The lock of a picture, as a run finds it that nobody touched for long. Taken: it says our words until it is released.
 * Refused: its holder lives, and the file is as it was. */
#include "fuzz.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_lock.h"

static const char PATH[] = "a.lock";

static status read_lock(const uint8_t *data, size_t n)
{
    file_lock            *lock = NULL, *second = NULL;
    const struct timespec long_ago[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    const file_lock_opts  opts = {.path = fuzz_path(PATH), .what = "picture a"};
    size_t                n_now = 0;
    uint8_t              *now = NULL;
    FUZZ_EXPECT(utimensat(AT_FDCWD, fuzz_path(PATH), long_ago, 0) == 0);
    const status st = file_lock_take(&lock, &opts);
    FUZZ_EXPECT(access(fuzz_path("a.lock.next"), F_OK) != 0);
    if (st != ST_OK) {
        now = fuzz_file(fuzz_path(PATH), &n_now);
        FUZZ_EXPECT(n_now == n && memcmp(now, data, n) == 0);
        free(now);
        return st;
    }
    FUZZ_EXPECT(file_lock_check(lock) == ST_OK);
    FUZZ_EXPECT(file_lock_take(&second, &opts) == ST_OUTPUT && strstr(err_text(), "picture a") != NULL);
    file_lock_release(lock);
    FUZZ_EXPECT(access(fuzz_path(PATH), F_OK) != 0);
    return ST_OK;
}

/* As this process would have written it, whatever it says of the rest. */
static size_t set_ourselves(uint8_t *data, size_t n, size_t room)
{
    static const char *const who[] = {"host", "pid", "start", "boot", "space", NULL};
    static json_t           *ours;
    if (ours == NULL) {
        file_lock *lock = NULL;
        FUZZ_EXPECT(file_lock_take(&lock, &(file_lock_opts){.path = fuzz_path("ours"), .what = "nothing"}) == ST_OK);
        ours = json_load_file(fuzz_path("ours"), 0, NULL);
        FUZZ_EXPECT(json_is_object(ours));
        file_lock_release(lock);
    }
    json_t *words = json_loadb((const char *)data, n, JSON_DISABLE_EOF_CHECK, NULL);
    if (json_is_object(words)) {
        for (int i = 0; who[i] != NULL; i++) json_object_set(words, who[i], json_object_get(ours, who[i]));
        char        *text = json_dumps(words, JSON_COMPACT);
        const size_t n_text = text == NULL ? 0 : strlen(text);
        if (n_text <= room) memcpy(data, text, n_text);
        if (n_text <= room) n = n_text;
        free(text);
    }
    json_decref(words);
    return n;
}

/* Words of one that is gone: another host, process, start, boot or space of process numbers. */
static void make_seeds(void)
{
    file_lock  *lock = NULL;
    const char *others[] = {"\"host\":\"", "\"pid\":", "\"start\":", "\"boot\":\"", "\"space\":\"", NULL};
    size_t      n = 0;
    FUZZ_EXPECT(file_lock_take(&lock, &(file_lock_opts){.path = fuzz_path(PATH), .what = "picture a"}) == ST_OK);
    uint8_t *words = fuzz_file(fuzz_path(PATH), &n);
    file_lock_release(lock);
    words[n] = '\0';
    for (int i = 0; others[i] != NULL; i++) {
        char *at = strstr((char *)words, others[i]);
        FUZZ_EXPECT(at != NULL);
        at += strlen(others[i]);
        const char was = *at;
        *at = was == '1' ? '2' : '1';
        fuzz_seed(words, n);
        *at = was;
    }
    free(words);
}

const fuzz_target target = {.files = {PATH}, .bad = ST_OUTPUT, .read = read_lock, .seeds = make_seeds, .repair = set_ourselves};
