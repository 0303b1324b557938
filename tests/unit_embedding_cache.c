/* Rows of a prompt come back as they went in, or not at all: another prompt, model or precision is another entry, damage
 * is told and repaired, the folder stays under its limit, and many processes may share it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "embedding_cache.h"
#include "tempdir.h"

enum { N_CLIP = 5, N_T5 = 7, JOINT = 24, POOLED = 12, ENTRY_BYTES_MAX = 2000, TEXT_VALUES = N_T5 * JOINT };

typedef struct fixture {
    char             dir[TEMPDIR_PATH], folder[TEMPDIR_PATH + 16];
    model            model;
    report          *report;
    embedding_cache *cache;
    int              n_warnings;
    char             warning[4096];
    int32_t          clip[N_CLIP], t5[N_T5];
    float            text[TEXT_VALUES], pooled[POOLED];
} fixture;

static void hear(void *context, report_kind kind, const char *text)
{
    fixture *f = context;
    if (kind != REPORT_WARNING) return;
    f->n_warnings++;
    snprintf(f->warning, sizeof(f->warning), "%s", text);
}

static embedding_cache *open_cache(fixture *f, const char *dir, const char *encoders, const char *device, int64_t limit)
{
    embedding_cache *c = NULL;
    assert_int_equal(embedding_cache_open(&c, &(embedding_cache_opts){
        .dir = dir, .model = &f->model, .encoders_sha256 = encoders, .device = device, .report = f->report,
        .limit_bytes = limit}), ST_OK);
    return c;
}

static int open_fixture(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    f->model.flux = (flux_config){.joint_attention_dim = JOINT, .pooled_projection_dim = POOLED};
    if (tempdir_open(f->dir) != ST_OK) return -1;
    snprintf(f->folder, sizeof(f->folder), "%s/embeddings", f->dir);
    if (report_open(&f->report, &(report_opts){.forward = hear, .forward_context = f}) != ST_OK) return -1;
    f->cache = open_cache(f, f->dir, "e1", "cpu (avx2)", 0);
    for (int i = 0; i < N_CLIP; i++) f->clip[i] = 100 + i;
    for (int i = 0; i < N_T5; i++) f->t5[i] = 200 + i;
    for (int i = 0; i < TEXT_VALUES; i++) f->text[i] = (float)i / 3.0f - 20.0f;
    for (int i = 0; i < POOLED; i++) f->pooled[i] = -(float)i / 7.0f;
    f->text[3] = -0.0f;
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    embedding_cache_close(f->cache);
    report_close(f->report);
    tempdir_close(f->dir);
    free(f);
    return 0;
}

static embedding_key key_of(const fixture *f)
{
    return (embedding_key){.clip_ids = f->clip, .t5_ids = f->t5, .n_clip = N_CLIP, .n_t5 = N_T5, .type = DT_BF16};
}

static void keep(fixture *f, embedding_cache *c, const embedding_key *key)
{
    assert_int_equal(embedding_cache_write(c, key, &(embedding_rows){f->text, f->pooled}), ST_OK);
}

/* Whether there is an entry; if so it must be the fixture's rows, to the bit. */
static bool has(fixture *f, embedding_cache *c, const embedding_key *key)
{
    float text[2 * TEXT_VALUES] = {0}, pooled[POOLED] = {0};
    bool  found = false;
    assert_int_equal(embedding_cache_read(c, key, &(embedding_rows){text, pooled}, &found), ST_OK);
    if (found) {
        assert_memory_equal(text, f->text, sizeof(f->text));
        assert_memory_equal(pooled, f->pooled, sizeof(f->pooled));
    }
    return found;
}

/* Files of the folder; the path of one of them. */
static int count_files(const fixture *f, char one[TEMPDIR_PATH + 300])
{
    int  n = 0;
    DIR *folder = opendir(f->folder);
    if (folder == NULL) return 0;
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        if (item->d_name[0] == '.') continue;
        if (one != NULL) snprintf(one, TEMPDIR_PATH + 300, "%s/%s", f->folder, item->d_name);
        n++;
    }
    closedir(folder);
    return n;
}

static void rows_come_back_to_the_bit(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f);
    assert_false(has(f, f->cache, &key));
    keep(f, f->cache, &key);
    assert_true(has(f, f->cache, &key));
    embedding_cache *other = open_cache(f, f->dir, "e1", "cpu (avx2)", 0);
    assert_true(has(f, other, &key));
    embedding_cache_close(other);
    assert_int_equal(count_files(f, NULL), 1);
    assert_int_equal(f->n_warnings, 0);
}

/* Each of these moves bits of the rows. */
static void what_changes_the_rows_is_another_entry(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f), changed = key;
    int32_t       clip[N_CLIP], t5[N_T5];
    keep(f, f->cache, &key);
    memcpy(clip, f->clip, sizeof(clip));
    memcpy(t5, f->t5, sizeof(t5));
    clip[N_CLIP - 1]++;
    t5[0]++;
    changed.clip_ids = clip;
    assert_false(has(f, f->cache, &changed));
    changed = key;
    changed.t5_ids = t5;
    assert_false(has(f, f->cache, &changed));
    changed = key;
    changed.n_t5--;
    assert_false(has(f, f->cache, &changed));
    changed = key;
    changed.type = DT_F32;
    assert_false(has(f, f->cache, &changed));
    changed = key;
    changed.parity = true;
    assert_false(has(f, f->cache, &changed));
    static const char *const others[][2] = {{"e2", "cpu (avx2)"}, {"e1", "cpu (avx512)"}};
    for (int i = 0; i < 2; i++) {
        embedding_cache *other = open_cache(f, f->dir, others[i][0], others[i][1], 0);
        assert_false(has(f, other, &key));
        embedding_cache_close(other);
    }
    /* The same ids, cut in another place between the two texts. */
    int32_t joined[N_CLIP + N_T5];
    memcpy(joined, f->clip, sizeof(f->clip));
    memcpy(joined + N_CLIP, f->t5, sizeof(f->t5));
    changed = key;
    changed.clip_ids = joined, changed.n_clip = N_CLIP - 1;
    changed.t5_ids = joined + N_CLIP - 1, changed.n_t5 = N_T5 + 1;
    assert_false(has(f, f->cache, &changed));
    assert_true(has(f, f->cache, &key));
    assert_int_equal(f->n_warnings, 0);
}

/* Every byte of an entry, one after the other, and every length. */
static void damage_is_told_and_repaired(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f);
    char          path[TEMPDIR_PATH + 300];
    unsigned char sound[ENTRY_BYTES_MAX];
    keep(f, f->cache, &key);
    assert_int_equal(count_files(f, path), 1);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t n = fread(sound, 1, sizeof(sound), file);
    fclose(file);
    assert_in_range(n, sizeof(f->text) + sizeof(f->pooled) + 8, sizeof(sound) - 1);
    for (size_t i = 0; i < 2 * n; i++) {
        unsigned char bad[ENTRY_BYTES_MAX];
        const bool    cut = i >= n;
        memcpy(bad, sound, n);
        if (!cut) bad[i] ^= 0x10;
        file = fopen(path, "we");
        assert_non_null(file);
        const size_t length = cut ? i - n : n;
        assert_int_equal(fwrite(bad, 1, length, file), length);
        fclose(file);
        f->n_warnings = 0;
        if (has(f, f->cache, &key)) /* harmless: a blank of the header's padding, a key of JSON nobody reads */
            assert_true(!cut && f->n_warnings == 0);
        else
            assert_true(f->n_warnings == 1 && strstr(f->warning, path) != NULL);
    }
    f->n_warnings = 0;
    keep(f, f->cache, &key);
    assert_true(has(f, f->cache, &key));
    assert_int_equal(count_files(f, NULL), 1);
    assert_int_equal(f->n_warnings, 0);
}

/* A copy under the name of another entry. */
static void a_renamed_entry_is_no_entry(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f), other = key;
    char          first[TEMPDIR_PATH + 300], second[TEMPDIR_PATH + 300];
    other.parity = true;
    keep(f, f->cache, &key);
    assert_int_equal(count_files(f, first), 1);
    keep(f, f->cache, &other);
    for (DIR *folder = opendir(f->folder); folder != NULL;) {
        struct dirent *item = readdir(folder);
        if (item == NULL) {
            closedir(folder);
            break;
        }
        snprintf(second, sizeof(second), "%s/%s", f->folder, item->d_name);
        if (item->d_name[0] != '.' && strcmp(first, second) != 0) assert_int_equal(rename(first, second), 0);
    }
    assert_false(has(f, f->cache, &key));
    assert_false(has(f, f->cache, &other));
    assert_non_null(strstr(f->warning, "another prompt"));
}

static void set_age(const char *path, long seconds)
{
    struct timespec now, times[2];
    clock_gettime(CLOCK_REALTIME, &now);
    times[0] = times[1] = (struct timespec){now.tv_sec - seconds, now.tv_nsec};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void put(const fixture *f, const char *name, long age_s)
{
    char path[TEMPDIR_PATH + 300];
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    assert_int_equal(tempdir_write(path, "x"), ST_OK);
    set_age(path, age_s);
}

static bool is_there(const fixture *f, const char *name)
{
    char path[TEMPDIR_PATH + 300];
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    return access(path, F_OK) == 0;
}

/* Room for three: the fourth pushes out the one that was not used for longest, which is not the one written first. */
static void the_folder_stays_under_its_limit(void **state)
{
    fixture         *f = *state;
    embedding_key    key = key_of(f);
    char             path[TEMPDIR_PATH + 300];
    struct stat      info;
    keep(f, f->cache, &key);
    assert_int_equal(count_files(f, path), 1);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(unlink(path), 0);
    embedding_cache *small = open_cache(f, f->dir, "e1", "cpu (avx2)", 3 * info.st_size + info.st_size / 2);
    for (int i = 0; i < 3; i++) {
        f->clip[0] = i;
        keep(f, small, &key);
    }
    for (int i = 0; i < 3; i++) {
        f->clip[0] = i;
        assert_true(has(f, small, &key));
    }
    for (DIR *folder = opendir(f->folder); folder != NULL;) {
        struct dirent *item = readdir(folder);
        if (item == NULL) {
            closedir(folder);
            break;
        }
        snprintf(path, sizeof(path), "%s/%s", f->folder, item->d_name);
        if (item->d_name[0] != '.') set_age(path, 1000);
    }
    f->clip[0] = 0;
    assert_true(has(f, small, &key)); /* now the youngest */
    f->clip[0] = 2;
    assert_true(has(f, small, &key));
    f->clip[0] = 3;
    keep(f, small, &key);
    assert_int_equal(count_files(f, NULL), 3);
    assert_true(has(f, small, &key));
    f->clip[0] = 1;
    assert_false(has(f, small, &key));
    /* One that is larger than the limit stays until the next. */
    embedding_cache_close(small);
    small = open_cache(f, f->dir, "e1", "cpu (avx2)", 1);
    keep(f, small, &key);
    assert_int_equal(count_files(f, NULL), 1);
    assert_true(has(f, small, &key));
    embedding_cache_close(small);
}

static void only_leftovers_of_the_killed_are_removed(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f);
    keep(f, f->cache, &key);
    put(f, "abc.safetensors.tmp-12-0", 2 * 3600);
    put(f, "abc.safetensors.tmp-13-0", 60);
    put(f, "notes.txt", 2 * 3600);
    keep(f, f->cache, &key);
    assert_false(is_there(f, "abc.safetensors.tmp-12-0"));
    assert_true(is_there(f, "abc.safetensors.tmp-13-0"));
    assert_true(is_there(f, "notes.txt"));
}

/* Eight processes write and read three prompts, with room for two: what is found is always right, nothing is left over. */
static void many_processes_may_share_it(void **state)
{
    enum { PROCESSES = 8, ROUNDS = 60 };
    fixture *f = *state;
    pid_t    pids[PROCESSES];
    embedding_cache *small = open_cache(f, f->dir, "e1", "cpu (avx2)", 3000);
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        if (pids[p] != 0) continue;
        int wrong = 0;
        for (int i = 0; i < ROUNDS; i++) {
            float         text[TEXT_VALUES], pooled[POOLED];
            bool          found = false;
            embedding_key key = key_of(f);
            f->clip[0] = (i + p) % 3;
            f->text[0] = (float)f->clip[0];
            wrong += embedding_cache_read(small, &key, &(embedding_rows){text, pooled}, &found) != ST_OK;
            wrong += found && (memcmp(text, f->text, sizeof(text)) != 0 || memcmp(pooled, f->pooled, sizeof(pooled)) != 0);
            wrong += embedding_cache_write(small, &key, &(embedding_rows){f->text, f->pooled}) != ST_OK;
        }
        _exit(wrong + f->n_warnings > 100 ? 100 : wrong + f->n_warnings);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int result = -1;
        assert_int_equal(waitpid(pids[p], &result, 0), pids[p]);
        if (!WIFEXITED(result) || WEXITSTATUS(result) != 0) fail_msg("process %d: %d", p, result);
    }
    embedding_cache_close(small);
    assert_in_range(count_files(f, NULL), 1, 3);
}

/* A process that claims the prompt and then does as told: told once it has it. */
enum deed { WRITES_IT, HANGS };

static pid_t begin_another(fixture *f, enum deed deed)
{
    int         ends[2];
    char        ready = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        float         text[TEXT_VALUES], pooled[POOLED];
        bool          found = true;
        embedding_key key = key_of(f);
        bool right = embedding_cache_claim(f->cache, &key, &(embedding_rows){text, pooled}, &found) == ST_OK && !found;
        right = write(ends[1], &ready, 1) == 1 && right;
        if (deed == HANGS) pause();
        usleep(700000);
        right = embedding_cache_write(f->cache, &key, &(embedding_rows){f->text, f->pooled}) == ST_OK && right;
        _exit(!right);
    }
    assert_int_equal(read(ends[0], &ready, 1), 1);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

static bool claim(fixture *f, embedding_cache *c)
{
    float         text[TEXT_VALUES] = {0}, pooled[POOLED] = {0};
    bool          found = false;
    embedding_key key = key_of(f);
    assert_int_equal(embedding_cache_claim(c, &key, &(embedding_rows){text, pooled}, &found), ST_OK);
    if (found) assert_memory_equal(text, f->text, sizeof(text));
    if (found) assert_memory_equal(pooled, f->pooled, sizeof(pooled));
    return found;
}

static void the_second_waits_for_the_rows_of_the_first(void **state)
{
    fixture    *f = *state;
    int         result = -1;
    const pid_t first = begin_another(f, WRITES_IT);
    assert_true(claim(f, f->cache));
    assert_int_equal(waitpid(first, &result, 0), first);
    assert_int_equal(result, 0);
    assert_int_equal(count_files(f, NULL), 1); /* and no lock */
    assert_int_equal(f->n_warnings, 0);
}

static void nobody_waits_for_the_dead(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f);
    const pid_t   first = begin_another(f, HANGS);
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(waitpid(first, NULL, 0), first);
    const double began = report_now();
    assert_false(claim(f, f->cache));
    assert_true(report_now() - began < 60); /* of 120 */
    keep(f, f->cache, &key);
    assert_int_equal(count_files(f, NULL), 1);
}

/* Who waits in vain encodes too; both may write. */
static void a_wait_has_an_end(void **state)
{
    fixture         *f = *state;
    embedding_key    key = key_of(f);
    embedding_cache *hasty = NULL;
    assert_int_equal(embedding_cache_open(&hasty, &(embedding_cache_opts){
        .dir = f->dir, .model = &f->model, .encoders_sha256 = "e1", .device = "cpu (avx2)", .report = f->report, .wait_s = 1}), ST_OK);
    const pid_t  first = begin_another(f, HANGS);
    const double began = report_now();
    assert_false(claim(f, hasty));
    assert_true(report_now() - began >= 1);
    keep(f, hasty, &key);
    assert_true(has(f, f->cache, &key));
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(waitpid(first, NULL, 0), first);
    embedding_cache_close(hasty);
}

static void a_claim_that_is_dropped_is_the_next_ones(void **state)
{
    fixture         *f = *state;
    embedding_cache *other = open_cache(f, f->dir, "e1", "cpu (avx2)", 0);
    assert_false(claim(f, f->cache));
    assert_int_equal(count_files(f, NULL), 1); /* the lock */
    embedding_cache_drop(f->cache);
    assert_int_equal(count_files(f, NULL), 0);
    assert_false(claim(f, other));
    embedding_cache_close(other);
    assert_int_equal(count_files(f, NULL), 0);
}

/* Eight that miss the same prompt at once: one of them encodes. */
static void of_many_one_encodes(void **state)
{
    enum { PROCESSES = 8 };
    fixture *f = *state;
    pid_t    pids[PROCESSES];
    int      n_encoded = 0;
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        if (pids[p] != 0) continue;
        const bool    found = claim(f, f->cache);
        embedding_key key = key_of(f);
        if (!found) usleep(300000);
        if (!found) keep(f, f->cache, &key);
        _exit(!found);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int result = -1;
        assert_int_equal(waitpid(pids[p], &result, 0), pids[p]);
        assert_true(WIFEXITED(result) && WEXITSTATUS(result) <= 1);
        n_encoded += WEXITSTATUS(result);
    }
    assert_int_equal(n_encoded, 1);
    assert_int_equal(count_files(f, NULL), 1);
}

/* A disk without a byte left, in its place a limit of this process. */
static void where_no_lock_can_be_nobody_waits(void **state)
{
    fixture    *f = *state;
    int         result = -1;
    assert_int_equal(mkdir(f->folder, 0777), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0}) != 0) _exit(2);
        const double began = report_now();
        const bool   found = claim(f, f->cache);
        _exit(found || report_now() - began > 60); /* of 120 */
    }
    assert_int_equal(waitpid(pid, &result, 0), pid);
    assert_int_equal(result, 0);
    assert_int_equal(count_files(f, NULL), 0);
}

static void a_folder_that_cannot_be_is_told_once(void **state)
{
    fixture      *f = *state;
    embedding_key key = key_of(f);
    char          blocked[TEMPDIR_PATH + 16];
    snprintf(blocked, sizeof(blocked), "%s/file", f->dir);
    assert_int_equal(tempdir_write(blocked, "a file"), ST_OK);
    embedding_cache *c = open_cache(f, blocked, "e1", "cpu (avx2)", 0);
    assert_false(has(f, c, &key));
    assert_false(claim(f, c)); /* at once */
    keep(f, c, &key);
    keep(f, c, &key);
    embedding_cache_close(c);
    assert_int_equal(f->n_warnings, 1);
    assert_non_null(strstr(f->warning, blocked));
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(rows_come_back_to_the_bit),
        FRESH(what_changes_the_rows_is_another_entry),
        FRESH(damage_is_told_and_repaired),
        FRESH(a_renamed_entry_is_no_entry),
        FRESH(the_folder_stays_under_its_limit),
        FRESH(only_leftovers_of_the_killed_are_removed),
        FRESH(many_processes_may_share_it),
        FRESH(the_second_waits_for_the_rows_of_the_first),
        FRESH(nobody_waits_for_the_dead),
        FRESH(a_wait_has_an_end),
        FRESH(a_claim_that_is_dropped_is_the_next_ones),
        FRESH(of_many_one_encodes),
        FRESH(where_no_lock_can_be_nobody_waits),
        FRESH(a_folder_that_cannot_be_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
