/* Keeps a picture through kills, signals and full disks: its lock, its journal, its checkpoints and its saved latent, all in
 * `<folder of the PNG>/.dype-dist/<id>.*`. Rank 0 of a replica has one from claim to end of a picture.
 *
 *   id.journal      what became of it (journal.h); stays
 *   id.lock         who is at it (file_lock.h); gone when nobody is
 *   id.checkpoint   latent of the last saved step, goes when the latent is finished
 *   id.latent       the finished latent, goes when the PNG is there
 *
 *  1. Nothing is read or written here without the lock.
 *  2. A checkpoint or latent is used only if its own recipe is the picture's and its checksum is right.
 *  3. The two host buffers change roles in keeper_offer alone: the latest latent is never written to, so the keeper's
 *     thread, or that of a signal, can save it at any moment, whatever the step loop does.
 *  4. A checkpoint or latent that cannot be saved is a warning: the picture goes on, only a kill would cost more. */
#ifndef DYPE_KEEPER_H
#define DYPE_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "recipe.h"
#include "report.h"
#include "sha256.h"

typedef struct keeper keeper;

typedef struct keeper_opts {
    const job_picture *picture; /* borrowed, as all below */
    const recipe      *recipe;
    int64_t            rows, channels; /* of the latent */
    int                every;     /* steps between checkpoints; 0: only on a signal */
    bool               overwrite; /* what earlier runs left is not looked at */
    bool               redo;      /* a picture that is done is not left as it is */
    report            *report;
    void             (*waiting)(void *context); /* file_lock.h */
    void              *context;
} keeper_opts;

typedef enum keeper_stage { KEPT_NOTHING, KEPT_CHECKPOINT, KEPT_LATENT, KEPT_PICTURE } keeper_stage;

/* What earlier runs have left. */
typedef struct keeper_found {
    keeper_stage stage;
    int          step;    /* steps done */
    float       *latents; /* of a checkpoint or latent: [rows, channels]; yours to free */
    char         latents_sha256[SHA256_HEX], pixels_sha256[SHA256_HEX]; /* of a picture; "" where unknown */
} keeper_found;

/* Takes the lock, cleans up behind killed runs, finds out what is left to do, and checks that what is to come can be
 * written and has room. ST_OUTPUT otherwise, also when another job is at the picture. */
status keeper_open(keeper **out, const keeper_opts *opts, keeper_found *found);
/* st: how it ended; the reason of a failure goes into the journal. Accepts NULL. */
void keeper_close(keeper *k, status st, const char *reason);

void keeper_encoding(keeper *k);
/* From now on a signal saves the latest latent. step: steps done. */
status keeper_denoising(keeper *k, int step);
/* [rows, channels]: to be filled, then offered as the latent after `step` steps. */
float *keeper_spare(keeper *k);
void   keeper_offer(keeper *k, int step);
/* The latent offered last; lent until the next offer. */
const float *keeper_latest(const keeper *k);
/* Saves the latest latent, unless it is saved: the job stops here. */
void keeper_stop(keeper *k);
/* The finished latent, before it is decoded. */
void keeper_latent(keeper *k, const float *latents);
void keeper_decoding(keeper *k);
/* Right before the PNG gets its name: ST_OUTPUT when the lock is no longer ours. */
status keeper_check(keeper *k);
/* The PNG has its name. */
void keeper_done(keeper *k, const char *latents_sha256, const char *pixels_sha256);

#endif
