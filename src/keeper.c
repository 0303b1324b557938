#include "keeper.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "atomic_file.h"
#include "checkpoint.h"
#include "file_lock.h"
#include "journal.h"
#include "png_reader.h"
#include "signals.h"

struct keeper {
    keeper_opts opts;
    char       *folder;      /* of the PNG, with its slash; "" is the current one */
    const char *output;      /* the PNG's name in it */
    char       *journal_path, *lock_path, *checkpoint_path, *latent_path;
    file_lock  *lock;
    journal    *journal;
    bool        is_over;     /* done, or left as it was: nothing to say at the end */
    /* the step loop and who saves its latents */
    pthread_mutex_t mutex;   /* all below, and the journal while the thread lives */
    pthread_cond_t  nudge;
    pthread_t       thread;
    bool            has_thread, ends, wanted; /* wanted: a checkpoint of the latest */
    float          *buffers[2];
    int             latest;  /* index of the latest; -1: none */
    int             latest_step, saved_step;
};

/* ---- names */

static char *path_of(const keeper *k, const char *suffix)
{
    char *path = NULL;
    return asprintf(&path, "%s.dype-dist/%s.%s", k->folder, k->opts.picture->id, suffix) < 0 ? NULL : path;
}

static status make_names(keeper *k)
{
    const char  *path = k->opts.picture->output, *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    k->output = path + n;
    k->folder = strndup(path, n);
    if (k->folder != NULL) {
        k->journal_path = path_of(k, "journal");
        k->lock_path = path_of(k, "lock");
        k->checkpoint_path = path_of(k, "checkpoint");
        k->latent_path = path_of(k, "latent");
    }
    if (k->folder == NULL || k->journal_path == NULL || k->lock_path == NULL || k->checkpoint_path == NULL ||
        k->latent_path == NULL)
        return err_set(ST_NO_MEMORY, "%s: no memory for its names", k->opts.picture->id);
    return ST_OK;
}

/* ---- the journal */

static status note(keeper *k, journal_record r)
{
    r.output = k->output;
    r.recipe_sha256 = k->opts.recipe->sha256;
    return journal_append(k->journal, &r);
}

static void note_or_warn(keeper *k, journal_record r)
{
    if (note(k, r) != ST_OK) report_warn(k->opts.report, "%s: %s", k->opts.picture->id, err_text());
}

static status open_journal(keeper *k)
{
    const status st = journal_open(&k->journal, k->journal_path);
    if (st != ST_OK) return st;
    if (journal_torn_bytes(k->journal) > 0)
        report_line(k->opts.report, "%s: %s: a record torn by a kill (%zu bytes) was cut", k->opts.picture->id, k->journal_path,
                    journal_torn_bytes(k->journal));
    if (journal_spoiled_bytes(k->journal) > 0)
        report_warn(k->opts.report, "%s: %s: %zu spoiled bytes between records were stepped over", k->opts.picture->id,
                    k->journal_path, journal_spoiled_bytes(k->journal));
    return ST_OK;
}

/* ---- behind killed runs */

static bool has_written_here(const keeper *k, long pid)
{
    if (pid == getpid()) return true; /* a number used again: our own files are not made yet */
    for (size_t i = 0; i < journal_count(k->journal); i++)
        if (journal_get(k->journal, i)->pid == pid) return true;
    return false;
}

/* Temporary files of atomic_file (path.tmp-PID-N). Only holders of the lock write files of these names, and they have a
 * record in the journal first; we hold the lock now. */
static void remove_strays(const keeper *k, const char *path)
{
    const char  *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    char        *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    const size_t n = strlen(name);
    DIR         *dir = folder == NULL ? NULL : opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        long pid = 0;
        int  i = 0, end = 0;
        if (strncmp(entry->d_name, name, n) != 0) continue;
        if (sscanf(entry->d_name + n, ".tmp-%ld-%d%n", &pid, &i, &end) != 2 || entry->d_name[n + (size_t)end] != '\0') continue;
        if (!has_written_here(k, pid)) continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) == 0)
            report_line(k->opts.report, "%s: %s of a killed run (process %ld) was removed", k->opts.picture->id, entry->d_name,
                        pid);
    }
    if (dir != NULL) closedir(dir);
    free(folder);
}

static void clean_up(const keeper *k)
{
    remove_strays(k, k->opts.picture->output);
    remove_strays(k, k->checkpoint_path);
    remove_strays(k, k->latent_path);
    if (k->opts.picture->latents_out != NULL) remove_strays(k, k->opts.picture->latents_out);
}

/* ---- what earlier runs have left */

static bool exists(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0;
}

/* A file whose own text is our recipe, and that is whole: a run was killed between its name and its record, or the journal
 * is lost, or somebody has packed the same pixels anew. */
static bool adopt(keeper *k, const journal_record *done, keeper_found *found)
{
    png_facts   png = {0};
    int64_t     bytes = 0;
    char        sha[SHA256_HEX];
    const char *path = k->opts.picture->output;
    if (png_reader_read(&png, path, "dype-dist", true, ST_OUTPUT) != ST_OK) return false;
    bool same = png.note != NULL && strcmp(png.note, k->opts.recipe->json) == 0;
    free(png.note);
    if (same) {
        same = png_reader_read(&png, path, "dype-dist", false, ST_OUTPUT) == ST_OK;
        free(same ? png.note : NULL);
    }
    if (same && done != NULL && done->pixels_sha256[0] != '\0') same = strcmp(png.pixels_sha256, done->pixels_sha256) == 0;
    if (!same || sha256_of_file(path, ST_OUTPUT, &bytes, sha) != ST_OK) return false;
    snprintf(found->pixels_sha256, sizeof(found->pixels_sha256), "%s", png.pixels_sha256);
    if (done != NULL) snprintf(found->latents_sha256, sizeof(found->latents_sha256), "%s", done->latents_sha256);
    note_or_warn(k, (journal_record){.state = JOURNAL_DONE, .png_bytes = bytes, .png_sha256 = sha,
                                     .latents_sha256 = found->latents_sha256, .pixels_sha256 = found->pixels_sha256});
    return true;
}

static bool is_done(keeper *k, keeper_found *found)
{
    const char           *id = k->opts.picture->id, *path = k->opts.picture->output;
    const journal_record *done = journal_last(k->journal, k->output, JOURNAL_DONE);
    int64_t               bytes = 0;
    char                  sha[SHA256_HEX];
    if (done != NULL && strcmp(done->recipe_sha256, k->opts.recipe->sha256) != 0) done = NULL;
    if (!exists(path)) {
        if (done != NULL) report_line(k->opts.report, "%s: %s was done and is gone since: rendered anew", id, path);
        return false;
    }
    if (k->opts.picture->latents_out != NULL && !exists(k->opts.picture->latents_out)) {
        if (done != NULL)
            report_line(k->opts.report, "%s: done, but %s is not there: rendered anew", id, k->opts.picture->latents_out);
        return false;
    }
    if (done != NULL && sha256_of_file(path, ST_OUTPUT, &bytes, sha) == ST_OK && bytes == done->png_bytes &&
        strcmp(sha, done->png_sha256) == 0) {
        snprintf(found->latents_sha256, sizeof(found->latents_sha256), "%s", done->latents_sha256);
        snprintf(found->pixels_sha256, sizeof(found->pixels_sha256), "%s", done->pixels_sha256);
        return true;
    }
    if (adopt(k, done, found)) return true;
    if (done != NULL) report_line(k->opts.report, "%s: %s was done and has been changed since: rendered anew", id, path);
    return false;
}

/* Takes the latents of a file, if it belongs to this picture; removes nothing. */
static bool take_latents(keeper *k, const char *path, keeper_found *found)
{
    const char *id = k->opts.picture->id;
    checkpoint  c = {0};
    if (!exists(path)) return false;
    if (checkpoint_read(&c, path) != ST_OK) {
        report_warn(k->opts.report, "%s: not used: %s", id, err_text());
        return false;
    }
    const bool same = strcmp(c.recipe_sha256, k->opts.recipe->sha256) == 0 && c.rows == k->opts.rows &&
                      c.channels == k->opts.channels && c.n_steps == k->opts.picture->steps;
    if (same) {
        found->stage = c.step == c.n_steps ? KEPT_LATENT : KEPT_CHECKPOINT;
        found->step = c.step;
        found->latents = c.latents;
        c.latents = NULL;
    } else {
        report_line(k->opts.report, "%s: %s is of another recipe: not used", id, path);
    }
    checkpoint_free(&c);
    return same;
}

/* Of a run killed right after its picture was done. */
static void remove_left(keeper *k, const char *path)
{
    keeper_found left = {0};
    if (take_latents(k, path, &left)) unlink(path);
    free(left.latents);
}

static void look_around(keeper *k, keeper_found *found)
{
    const char           *id = k->opts.picture->id;
    const journal_record *last = journal_last(k->journal, k->output, JOURNAL_NONE);
    if (k->opts.overwrite) return;
    if (!k->opts.redo && is_done(k, found)) {
        found->stage = KEPT_PICTURE;
        return;
    }
    if (take_latents(k, k->latent_path, found) || take_latents(k, k->checkpoint_path, found)) {
        if (found->stage == KEPT_LATENT)
            report_line(k->opts.report, "%s: goes on with its saved latent: only the decode is left", id);
        else
            report_line(k->opts.report, "%s: goes on after step %d of %d", id, found->step, k->opts.picture->steps);
    } else if (last != NULL && last->state == JOURNAL_FAILED) {
        report_line(k->opts.report, "%s: failed before (%s): tried again", id, last->reason);
    } else if (last != NULL && last->state == JOURNAL_DONE && strcmp(last->recipe_sha256, k->opts.recipe->sha256) != 0) {
        report_line(k->opts.report, "%s: its recipe has changed: rendered anew", id);
    }
}

/* ---- room */

/* PNG files of photographs take about half of their pixels' bytes (docs/speed.md); noise takes all. */
static status check_room(const keeper *k)
{
    const job_picture *p = k->opts.picture;
    struct statvfs     disk;
    const double       latent = (double)k->opts.rows * (double)k->opts.channels * sizeof(float);
    const double       want = 1.5 * p->width * p->height + 2 * latent; /* a checkpoint lies beside the latent for a moment */
    if (statvfs(k->folder[0] == '\0' ? "." : k->folder, &disk) != 0) return ST_OK;
    const double there = (double)disk.f_bavail * (double)disk.f_frsize;
    if (there >= want) return ST_OK;
    return err_set(ST_OUTPUT, "%s: no room: %.1f MB are free there, the picture needs about %.1f MB with its latents", p->output,
                   there * 1e-6, want * 1e-6);
}

/* ---- open and close */

static status claim(keeper *k, keeper_found *found)
{
    status             st = ST_OK;
    const job_picture *p = k->opts.picture;
    char               what[256];
    snprintf(what, sizeof(what), "picture %s", p->id);
    TRY(atomic_file_make_folder(k->journal_path));
    TRY(file_lock_take(&k->lock, &(file_lock_opts){.path = k->lock_path, .what = what, .waiting = k->opts.waiting,
                                                   .context = k->opts.context}));
    TRY(open_journal(k));
    clean_up(k);
    look_around(k, found);
    if (found->stage == KEPT_PICTURE) {
        k->is_over = true;
        remove_left(k, k->latent_path);
        remove_left(k, k->checkpoint_path);
        return ST_OK;
    }
    TRY(note(k, (journal_record){.state = JOURNAL_QUEUED}));
    TRY(atomic_file_probe(p->output));
    if (p->latents_out != NULL) TRY(atomic_file_probe(p->latents_out));
    TRY(check_room(k));
fail:
    return st;
}

/* After a failure: what its caller has to say survives what happens here. */
static void release(keeper *k)
{
    free(k->buffers[0]);
    free(k->buffers[1]);
    journal_close(k->journal);
    file_lock_release(k->lock);
    free(k->folder);
    free(k->journal_path);
    free(k->lock_path);
    free(k->checkpoint_path);
    free(k->latent_path);
    pthread_mutex_destroy(&k->mutex);
    pthread_cond_destroy(&k->nudge);
    free(k);
}

static void *keep(void *arg);

status keeper_open(keeper **out, const keeper_opts *opts, keeper_found *found)
{
    status  st = ST_OK;
    keeper *k = calloc(1, sizeof(*k));
    *found = (keeper_found){0};
    if (k == NULL) return err_set(ST_NO_MEMORY, "keeper: %zu bytes", sizeof(*k));
    k->opts = *opts;
    k->latest = -1;
    pthread_condattr_t steady;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&k->nudge, &steady);
    pthread_condattr_destroy(&steady);
    pthread_mutex_init(&k->mutex, NULL);
    TRY(make_names(k));
    TRY(claim(k, found));
    const int error = pthread_create(&k->thread, NULL, keep, k);
    if (error != 0) {
        st = err_set(ST_NO_MEMORY, "keeper: no thread: %s", strerror(error));
        goto fail;
    }
    k->has_thread = true;
    *out = k;
    return ST_OK;
fail:
    free(found->latents);
    found->latents = NULL;
    keeper_close(k, st, err_text());
    return st;
}

void keeper_close(keeper *k, status st, const char *reason)
{
    if (k == NULL) return;
    char *why = strdup(reason);
    signals_urgent(NULL, NULL);
    if (k->has_thread) {
        pthread_mutex_lock(&k->mutex);
        k->ends = true;
        pthread_cond_signal(&k->nudge);
        pthread_mutex_unlock(&k->mutex);
        pthread_join(k->thread, NULL);
    }
    if (st != ST_OK && st != ST_AGAIN && !k->is_over && k->journal != NULL)
        note_or_warn(k, (journal_record){.state = JOURNAL_FAILED, .reason = why});
    release(k);
    if (st != ST_OK && why != NULL) err_set(st, "%s", why);
    free(why);
}

/* ---- the latents of the step loop */

/* With the mutex. */
static void save_latest(keeper *k)
{
    const job_picture *p = k->opts.picture;
    if (k->latest < 0 || k->latest_step <= k->saved_step) return;
    const checkpoint c = {.picture = (char *)p->id, .recipe = k->opts.recipe->json, .step = k->latest_step, .n_steps = p->steps,
                          .rows = k->opts.rows, .channels = k->opts.channels, .latents = k->buffers[k->latest]};
    status st = file_lock_check(k->lock);
    if (st == ST_OK) st = checkpoint_write(k->checkpoint_path, &c);
    if (st != ST_OK) {
        report_warn(k->opts.report, "%s: step %d is not saved: %s", p->id, k->latest_step, err_text());
        return;
    }
    k->saved_step = k->latest_step;
    note_or_warn(k, (journal_record){.state = JOURNAL_DENOISING, .step = k->saved_step, .n_steps = p->steps});
}

static void save_now(void *context)
{
    keeper *k = context;
    pthread_mutex_lock(&k->mutex);
    save_latest(k);
    pthread_mutex_unlock(&k->mutex);
}

/* The thread: checkpoints that were asked for, and the lock's sign of life. */
static void *keep(void *arg)
{
    keeper         *k = arg;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += LOCK_BEAT_S;
    pthread_mutex_lock(&k->mutex);
    while (!k->ends) {
        if (k->wanted) save_latest(k);
        k->wanted = false;
        if (pthread_cond_timedwait(&k->nudge, &k->mutex, &at) != ETIMEDOUT) continue;
        file_lock_beat(k->lock);
        at.tv_sec += LOCK_BEAT_S;
    }
    pthread_mutex_unlock(&k->mutex);
    return NULL;
}

void keeper_encoding(keeper *k)
{
    pthread_mutex_lock(&k->mutex);
    note_or_warn(k, (journal_record){.state = JOURNAL_ENCODING});
    pthread_mutex_unlock(&k->mutex);
}

status keeper_denoising(keeper *k, int step)
{
    const size_t n = (size_t)k->opts.rows * (size_t)k->opts.channels;
    for (int i = 0; i < 2; i++)
        if (k->buffers[i] == NULL) k->buffers[i] = malloc(n * sizeof(float));
    if (k->buffers[0] == NULL || k->buffers[1] == NULL)
        return err_set(ST_NO_MEMORY, "%s: latents of %zu values", k->opts.picture->id, n);
    pthread_mutex_lock(&k->mutex);
    k->saved_step = step;
    note_or_warn(k, (journal_record){.state = JOURNAL_DENOISING, .step = step, .n_steps = k->opts.picture->steps});
    pthread_mutex_unlock(&k->mutex);
    signals_urgent(save_now, k);
    return ST_OK;
}

float *keeper_spare(keeper *k)
{
    return k->buffers[k->latest == 0 ? 1 : 0];
}

void keeper_offer(keeper *k, int step)
{
    pthread_mutex_lock(&k->mutex);
    k->latest = k->latest == 0 ? 1 : 0;
    k->latest_step = step;
    k->wanted = k->opts.every > 0 && step % k->opts.every == 0 && step < k->opts.picture->steps;
    if (k->wanted) pthread_cond_signal(&k->nudge);
    pthread_mutex_unlock(&k->mutex);
}

const float *keeper_latest(const keeper *k)
{
    return k->buffers[k->latest];
}

void keeper_stop(keeper *k)
{
    save_now(k);
}

/* ---- the end */

void keeper_latent(keeper *k, const float *latents)
{
    const job_picture *p = k->opts.picture;
    signals_urgent(NULL, NULL);
    pthread_mutex_lock(&k->mutex);
    const checkpoint c = {.picture = (char *)p->id, .recipe = k->opts.recipe->json, .step = p->steps, .n_steps = p->steps,
                          .rows = k->opts.rows, .channels = k->opts.channels, .latents = (float *)latents};
    k->wanted = false;
    status st = file_lock_check(k->lock);
    if (st == ST_OK) st = checkpoint_write(k->latent_path, &c);
    if (st == ST_OK) {
        note_or_warn(k, (journal_record){.state = JOURNAL_LATENT});
        unlink(k->checkpoint_path);
    } else {
        report_warn(k->opts.report, "%s: the latent is not saved: %s", p->id, err_text());
    }
    pthread_mutex_unlock(&k->mutex);
}

void keeper_decoding(keeper *k)
{
    pthread_mutex_lock(&k->mutex);
    note_or_warn(k, (journal_record){.state = JOURNAL_DECODING});
    pthread_mutex_unlock(&k->mutex);
}

status keeper_check(keeper *k)
{
    return file_lock_check(k->lock);
}

void keeper_done(keeper *k, const char *latents_sha256, const char *pixels_sha256)
{
    int64_t bytes = 0;
    char    sha[SHA256_HEX] = "";
    if (sha256_of_file(k->opts.picture->output, ST_OUTPUT, &bytes, sha) != ST_OK)
        report_warn(k->opts.report, "%s: %s", k->opts.picture->id, err_text());
    pthread_mutex_lock(&k->mutex);
    note_or_warn(k, (journal_record){.state = JOURNAL_DONE, .png_bytes = bytes, .png_sha256 = sha,
                                     .latents_sha256 = latents_sha256, .pixels_sha256 = pixels_sha256});
    k->is_over = true;
    unlink(k->latent_path);
    unlink(k->checkpoint_path);
    pthread_mutex_unlock(&k->mutex);
}
