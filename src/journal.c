#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "atomic_file.h"

enum { HEAD_BYTES = 12, TEXT_BYTES_MAX = 1 << 16, JOURNAL_BYTES_MAX = 64 << 20 };
static const char MAGIC[4] = {'D', 'y', 'J', '1'};

typedef struct entry {
    journal_record record; /* its strings lie in json */
    json_t        *json;
} entry;

struct journal {
    char   *path;
    int     fd;    /* -1: only read */
    off_t   bytes; /* whole records, and what is stepped over between them */
    entry  *entries;
    size_t  n, room;
    size_t  torn, spoiled;
};

static const char *const names[JOURNAL_N_STATES] = {
    [JOURNAL_NONE] = "none",     [JOURNAL_QUEUED] = "queued",     [JOURNAL_ENCODING] = "encoding", [JOURNAL_DENOISING] = "denoising",
    [JOURNAL_LATENT] = "latent", [JOURNAL_DECODING] = "decoding", [JOURNAL_DONE] = "done",         [JOURNAL_FAILED] = "failed"};

const char *journal_state_name(journal_state state)
{
    return names[state];
}

/* ---- records as bytes */

static void put_u32(unsigned char *at, uint32_t x)
{
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(x >> (8 * i));
}

static uint32_t get_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Of the length, as it stands in the head, and the text. */
static uint32_t checksum(const unsigned char *head, const void *text, size_t n)
{
    const uLong of_length = crc32(0, head + sizeof(MAGIC), 4);
    return (uint32_t)crc32(of_length, text, (uInt)n);
}

/* Bytes of the whole record at `at`; 0: there is none. */
static size_t record_bytes(const unsigned char *at, size_t left)
{
    if (left < HEAD_BYTES || memcmp(at, MAGIC, sizeof(MAGIC)) != 0) return 0;
    const size_t n = get_u32(at + 4);
    if (n > TEXT_BYTES_MAX || n > left - HEAD_BYTES || checksum(at, at + HEAD_BYTES, n) != get_u32(at + 8)) return 0;
    return HEAD_BYTES + n;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static journal_state state_of(const char *name)
{
    for (int s = JOURNAL_QUEUED; s < JOURNAL_N_STATES; s++)
        if (strcmp(names[s], name) == 0) return (journal_state)s;
    return JOURNAL_NONE;
}

/* False: no object, or a state that this version does not know. Takes json. */
static bool add_entry(journal *j, json_t *json, bool *no_memory)
{
    const journal_state state = state_of(text_of(json, "state"));
    if (state == JOURNAL_NONE) {
        json_decref(json);
        return false;
    }
    if (j->n == j->room) {
        const size_t room = 2 * j->room + 16;
        entry       *larger = realloc(j->entries, room * sizeof(*larger));
        if (larger == NULL) {
            json_decref(json);
            *no_memory = true;
            return false;
        }
        j->entries = larger;
        j->room = room;
    }
    j->entries[j->n++] = (entry){.json = json, .record = {
        .state = state, .output = text_of(json, "output"), .recipe_sha256 = text_of(json, "recipe_sha256"),
        .step = (int)json_integer_value(json_object_get(json, "step")),
        .n_steps = (int)json_integer_value(json_object_get(json, "steps")), .reason = text_of(json, "reason"),
        .png_bytes = json_integer_value(json_object_get(json, "png_bytes")), .png_sha256 = text_of(json, "png_sha256"),
        .latents_sha256 = text_of(json, "latents_sha256"), .pixels_sha256 = text_of(json, "pixels_sha256"),
        .when = json_number_value(json_object_get(json, "when")), .host = text_of(json, "host"),
        .pid = (long)json_integer_value(json_object_get(json, "pid"))}};
    return true;
}

/* ---- reading */

/* All whole records of the bytes; where they end. */
static status scan(journal *j, const unsigned char *bytes, size_t n)
{
    size_t at = 0, end = 0;
    bool   no_memory = false;
    while (at < n) {
        const size_t whole = record_bytes(bytes + at, n - at);
        if (whole == 0) { /* torn or spoiled: the next record, if there is one, begins with the magic */
            const unsigned char *next = memmem(bytes + at + 1, n - at - 1, MAGIC, sizeof(MAGIC));
            at = next == NULL ? n : (size_t)(next - bytes);
            continue;
        }
        json_t *json = json_loadb((const char *)bytes + at + HEAD_BYTES, whole - HEAD_BYTES, 0, NULL);
        add_entry(j, json, &no_memory);
        if (no_memory) return err_set(ST_NO_MEMORY, "%s: %zu records", j->path, j->n);
        j->spoiled += at - end;
        at += whole;
        end = at;
    }
    j->bytes = (off_t)end;
    j->torn = n - end;
    const size_t n_head = n < sizeof(MAGIC) ? n : sizeof(MAGIC);
    if (end == 0 && memcmp(bytes, MAGIC, n_head) != 0)
        return err_set(ST_OUTPUT, "%s: this is no journal (%zu bytes without one record): move it away", j->path, n);
    return ST_OK;
}

static status read_all(journal *j, int fd)
{
    status         st = ST_OK;
    struct stat    about;
    unsigned char *bytes = NULL;
    size_t         used = 0;
    if (fstat(fd, &about) != 0) return err_set(ST_OUTPUT, "%s: %s", j->path, strerror(errno));
    if (!S_ISREG(about.st_mode)) return err_set(ST_OUTPUT, "%s: this is no file", j->path);
    if (about.st_size > JOURNAL_BYTES_MAX)
        return err_set(ST_OUTPUT, "%s: %lld bytes, a journal has at most %d: move it away", j->path, (long long)about.st_size,
                       JOURNAL_BYTES_MAX);
    bytes = malloc((size_t)about.st_size + 1);
    if (bytes == NULL) return err_set(ST_NO_MEMORY, "%s: %lld bytes", j->path, (long long)about.st_size);
    while (used < (size_t)about.st_size) {
        const ssize_t n = pread(fd, bytes + used, (size_t)about.st_size - used, (off_t)used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = err_set(ST_OUTPUT, "%s: %s", j->path, strerror(errno));
            goto fail;
        }
        if (n == 0) break;
        used += (size_t)n;
    }
    st = scan(j, bytes, used);
fail:
    free(bytes);
    return st;
}

static status open_as(journal **out, const char *path, int flags)
{
    status   st = ST_OK;
    int      fd = -1;
    journal *j = calloc(1, sizeof(*j));
    if (j == NULL || (j->path = strdup(path)) == NULL) {
        free(j);
        return err_set(ST_NO_MEMORY, "%s: no memory for the journal", path);
    }
    j->fd = -1;
    fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0) {
        st = err_set(ST_OUTPUT, "%s: %s", path, strerror(errno));
        goto fail;
    }
    TRY(read_all(j, fd));
    if (flags == O_RDONLY) {
        close(fd);
    } else {
        j->fd = fd;
        if (j->torn > 0 && ftruncate(fd, j->bytes) != 0) {
            st = err_set(ST_OUTPUT, "%s: a torn record cannot be cut: %s", path, strerror(errno));
            fd = -1;
            goto fail;
        }
    }
    *out = j;
    return ST_OK;
fail:
    if (fd >= 0 && j->fd != fd) close(fd);
    journal_close(j);
    return st;
}

status journal_open(journal **out, const char *path)
{
    const status st = atomic_file_make_folder(path);
    return st != ST_OK ? st : open_as(out, path, O_RDWR | O_CREAT);
}

status journal_read(journal **out, const char *path)
{
    return open_as(out, path, O_RDONLY);
}

void journal_close(journal *j)
{
    if (j == NULL) return;
    for (size_t i = 0; i < j->n; i++) json_decref(j->entries[i].json);
    free(j->entries);
    if (j->fd >= 0) close(j->fd);
    free(j->path);
    free(j);
}

/* ---- appending */

static void put_text(json_t *object, const char *key, const char *text)
{
    if (text == NULL || text[0] == '\0') return;
    char *printable = strdup(text);
    if (printable == NULL) return;
    err_printable(printable); /* JSON is UTF-8; a reason may hold a path that is not */
    json_object_set_new(object, key, json_string(printable));
    free(printable);
}

static json_t *record_json(const journal_record *r)
{
    struct timespec now;
    char            host[256] = "";
    clock_gettime(CLOCK_REALTIME, &now);
    gethostname(host, sizeof(host) - 1);
    json_t *o = json_pack("{s:s, s:f, s:I}", "state", names[r->state], "when",
                          (double)now.tv_sec + 1e-9 * (double)now.tv_nsec, "pid", (json_int_t)getpid());
    if (o == NULL) return NULL;
    put_text(o, "host", host);
    put_text(o, "output", r->output);
    put_text(o, "recipe_sha256", r->recipe_sha256);
    if (r->state == JOURNAL_DENOISING) {
        json_object_set_new(o, "step", json_integer(r->step));
        json_object_set_new(o, "steps", json_integer(r->n_steps));
    }
    put_text(o, "reason", r->reason);
    if (r->state == JOURNAL_DONE) json_object_set_new(o, "png_bytes", json_integer(r->png_bytes));
    put_text(o, "png_sha256", r->png_sha256);
    put_text(o, "latents_sha256", r->latents_sha256);
    put_text(o, "pixels_sha256", r->pixels_sha256);
    return o;
}

/* Head and text of a record; yours to free. NULL: no memory. */
static unsigned char *record_packet(const json_t *json, size_t *n)
{
    char          *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
    const size_t   n_text = text == NULL ? 0 : strlen(text) + 1;
    unsigned char *packet = text == NULL ? NULL : malloc(HEAD_BYTES + n_text);
    if (packet != NULL) {
        memcpy(packet, MAGIC, sizeof(MAGIC));
        put_u32(packet + 4, (uint32_t)n_text);
        memcpy(packet + HEAD_BYTES, text, n_text - 1);
        packet[HEAD_BYTES + n_text - 1] = '\n';
        put_u32(packet + 8, checksum(packet, packet + HEAD_BYTES, n_text));
        *n = HEAD_BYTES + n_text;
    }
    free(text);
    return packet;
}

static bool flushes(journal_state s)
{
    return s == JOURNAL_QUEUED || s == JOURNAL_LATENT || s == JOURNAL_DONE || s == JOURNAL_FAILED;
}

/* What cannot be written whole leaves nothing. */
static status write_at_end(journal *j, const unsigned char *packet, size_t n)
{
    size_t used = 0;
    while (used < n) {
        const ssize_t got = pwrite(j->fd, packet + used, n - used, j->bytes + (off_t)used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            const int error = errno;
            (void)!ftruncate(j->fd, j->bytes); /* else the tail is torn, and cut by the next append or run */
            return err_set(ST_OUTPUT, "%s: %s", j->path, strerror(error));
        }
        used += (size_t)got;
    }
    return ST_OK;
}

status journal_append(journal *j, const journal_record *record)
{
    status         st = ST_OK;
    bool           no_memory = false;
    size_t         n = 0;
    json_t        *json = record_json(record);
    unsigned char *packet = json == NULL ? NULL : record_packet(json, &n);
    if (packet == NULL || n > TEXT_BYTES_MAX) {
        st = err_set(ST_NO_MEMORY, "%s: a record of %zu bytes", j->path, n);
        goto fail;
    }
    TRY(write_at_end(j, packet, n));
    j->bytes += (off_t)n;
    if (flushes(record->state) && fdatasync(j->fd) != 0)
        st = err_set(ST_OUTPUT, "%s: fdatasync: %s", j->path, strerror(errno));
    add_entry(j, json, &no_memory);
    json = NULL;
fail:
    json_decref(json);
    free(packet);
    return st;
}

/* ---- asking */

size_t journal_count(const journal *j)
{
    return j->n;
}

const journal_record *journal_get(const journal *j, size_t index)
{
    return index < j->n ? &j->entries[index].record : NULL;
}

const journal_record *journal_last(const journal *j, const char *output, journal_state state)
{
    for (size_t i = j->n; i-- > 0;) {
        const journal_record *r = &j->entries[i].record;
        if (strcmp(r->output, output) == 0 && (state == JOURNAL_NONE || r->state == state)) return r;
    }
    return NULL;
}

size_t journal_torn_bytes(const journal *j)
{
    return j->torn;
}

size_t journal_spoiled_bytes(const journal *j)
{
    return j->spoiled;
}
