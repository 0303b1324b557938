/* The journal of a picture: what became of it, run after run, as records that are only ever appended.
 *
 *   queued -> encoding -> denoising k -> latent -> decoding -> done
 *      |          |            |           |           |
 *      +----------+------------+-----------+-----------+----> failed: reason
 *
 * A run that is killed leaves the state where it was; the next run begins with `queued` and goes on from what lies beside
 * the journal: from `latent` it only decodes, from `denoising k` it takes the checkpoint of step k.
 *
 *  1. Only the holder of the picture's lock (file_lock.h) appends.
 *  2. A record is whole or it is not there: its head has its length and a CRC-32 of length and text. The first bytes
 *     after the last whole record are a torn tail; opening to append cuts it.
 *  3. Spoiled bytes between whole records are stepped over and told, never cut: what follows them is still true.
 *  4. `done` is written after the PNG has its name, `latent` after the saved latent has its own; so what a record tells of
 *     is on the disk. A kill between the two leaves a whole file without its record: the file itself names its recipe.
 *  5. A file that has no whole record and does not begin as a journal does is not ours: it is refused, never written.
 *
 * On the disk: `queued`, `latent`, `done` and `failed` are flushed (fdatasync) before the call returns; the others are
 * written at once, and flushed with the next of those. A record lost to a power cut costs work, never truth.
 *
 *   record   "DyJ1"  length of text (u32)  CRC-32 of length and text (u32)  text     numbers little-endian
 *   text     one JSON object and a line end, so that `strings` shows a journal to a person */
#ifndef DYPE_JOURNAL_H
#define DYPE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef enum journal_state {
    JOURNAL_NONE, /* no record */
    JOURNAL_QUEUED,
    JOURNAL_ENCODING,
    JOURNAL_DENOISING,
    JOURNAL_LATENT,
    JOURNAL_DECODING,
    JOURNAL_DONE,
    JOURNAL_FAILED,
    JOURNAL_N_STATES
} journal_state;

const char *journal_state_name(journal_state state); /* "denoising"; static */

/* Strings are "" where a state has none. */
typedef struct journal_record {
    journal_state state;
    const char   *output;        /* the PNG's name without its folder: pictures of several jobs may share an id */
    const char   *recipe_sha256;
    int           step, n_steps; /* denoising: steps done */
    const char   *reason;        /* failed */
    int64_t       png_bytes;     /* done: of the file, as the next */
    const char   *png_sha256;
    const char   *latents_sha256, *pixels_sha256; /* done */
    double        when;          /* seconds since 1970; set by journal_append, as the two below */
    const char   *host;
    long          pid;
} journal_record;

typedef struct journal journal;

/* Reads what is there; the file and its folder are made when they are not. All failures are ST_OUTPUT. */
status journal_open(journal **out, const char *path);
/* The same without writing anything, not even a cut; ST_OUTPUT when there is no file. */
status journal_read(journal **out, const char *path);
void   journal_close(journal *j); /* accepts NULL */

/* A failure leaves the records that were there. */
status journal_append(journal *j, const journal_record *record);

/* Lent until the next append or close. */
size_t                journal_count(const journal *j);
const journal_record *journal_get(const journal *j, size_t index);
/* The newest record of a PNG in this state (JOURNAL_NONE: in any); NULL: there is none. */
const journal_record *journal_last(const journal *j, const char *output, journal_state state);

/* What opening found: bytes of the torn tail, and spoiled bytes before it. */
size_t journal_torn_bytes(const journal *j);
size_t journal_spoiled_bytes(const journal *j);

#endif
