#include "checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "latents_file.h"
#include "safetensors.h"

enum { STEPS_MAX = 1000 };

status checkpoint_write(const char *path, const checkpoint *c)
{
    char         step[16], steps[16], sha[SHA256_HEX];
    const size_t bytes = (size_t)c->rows * (size_t)c->channels * sizeof(float);
    const status st = sha256_of(c->latents, bytes, sha);
    if (st != ST_OK) return st;
    snprintf(step, sizeof(step), "%d", c->step);
    snprintf(steps, sizeof(steps), "%d", c->n_steps);
    const safetensors_note   notes[] = {{"picture", c->picture}, {"step", step}, {"steps", steps},
                                        {"latents_sha256", sha}, {"dype-dist", c->recipe}};
    const safetensors_tensor tensor = {.name = "latents", .type = DT_F32, .n_dims = 2, .shape = {c->rows, c->channels},
                                       .data = c->latents};
    return safetensors_write(path, &tensor, 1, notes, sizeof(notes) / sizeof(notes[0]));
}

/* A whole number from min to max; -1: it is none. */
static int read_count(const char *text, int min, int max)
{
    char *end = NULL;
    if (text == NULL || text[0] < '0' || text[0] > '9') return -1;
    errno = 0;
    const long n = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && n >= min && n <= max ? (int)n : -1;
}

static status read_notes(checkpoint *c, const safetensors *file, const char *path)
{
    const char *picture = safetensors_metadata(file, "picture"), *recipe = safetensors_metadata(file, "dype-dist");
    const char *sha = safetensors_metadata(file, "latents_sha256");
    c->n_steps = read_count(safetensors_metadata(file, "steps"), 1, STEPS_MAX);
    c->step = read_count(safetensors_metadata(file, "step"), 0, c->n_steps);
    if (picture == NULL || recipe == NULL || sha == NULL || c->n_steps < 1 || c->step < 0)
        return err_set(ST_BAD_JOB, "%s: no latent of this program: notes picture, step, steps, latents_sha256 and dype-dist are "
                       "wanted", path);
    snprintf(c->latents_sha256, sizeof(c->latents_sha256), "%s", sha);
    c->picture = strdup(picture);
    c->recipe = strdup(recipe);
    if (c->picture == NULL || c->recipe == NULL) return err_set(ST_NO_MEMORY, "%s: no memory for its notes", path);
    return sha256_of(recipe, strlen(recipe), c->recipe_sha256);
}

status checkpoint_read(checkpoint *out, const char *path)
{
    status       st = ST_OK;
    safetensors *file = NULL;
    checkpoint   c = {0};
    char         sha[SHA256_HEX];
    int64_t      n[2] = {0};
    TRY(safetensors_open(&file, path, ST_BAD_JOB));
    TRY(read_notes(&c, file, path));
    const safetensors_entry *e = safetensors_find(file, "latents");
    if (e == NULL || e->type != DT_F32 || e->n_dims != 2) {
        st = err_set(ST_BAD_JOB, "%s: no tensor latents of two dimensions in F32", path);
        goto fail;
    }
    TRY(latents_file_read(&c.latents, path, "latents", 0, 0, n));
    c.rows = n[0];
    c.channels = n[1];
    TRY(sha256_of(c.latents, (size_t)n[0] * (size_t)n[1] * sizeof(float), sha));
    if (strcmp(sha, c.latents_sha256) != 0) {
        st = err_set(ST_BAD_JOB, "%s: the latents are spoiled: got SHA-256 %s, want %s", path, sha, c.latents_sha256);
        goto fail;
    }
    safetensors_close(file);
    *out = c;
    return ST_OK;
fail:
    safetensors_close(file);
    checkpoint_free(&c);
    return st;
}

void checkpoint_free(checkpoint *c)
{
    free(c->picture);
    free(c->recipe);
    free(c->latents);
    *c = (checkpoint){0};
}
