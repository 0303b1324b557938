/* Checkpoints, saved latents, latents_out. Accepted: written again and read again it is the same. */
#include "fuzz.h"

#include <string.h>

#include "checkpoint.h"
#include "repair.h"

static const char PATH[] = "a.checkpoint", RECIPE[] = "{\"height\":256,\"prompt\":\"a \\\"hill\\\"\",\"seed\":\"7\",\"width\":512}";

static size_t latents_bytes(const checkpoint *c)
{
    return (size_t)c->rows * (size_t)c->channels * sizeof(float);
}

static status read_checkpoint(const uint8_t *data, size_t n)
{
    checkpoint   c = {0}, again = {0};
    char         sha[SHA256_HEX];
    const status st = checkpoint_read(&c, fuzz_path(PATH));
    (void)data;
    if (st != ST_OK) {
        FUZZ_EXPECT(c.latents == NULL && c.recipe == NULL);
        return st;
    }
    FUZZ_EXPECT(c.rows >= 1 && c.channels >= 1 && latents_bytes(&c) < n && c.step >= 0 && c.step <= c.n_steps);
    FUZZ_EXPECT(sha256_of(c.latents, latents_bytes(&c), sha) == ST_OK && strcmp(sha, c.latents_sha256) == 0);
    FUZZ_EXPECT(sha256_of(c.recipe, strlen(c.recipe), sha) == ST_OK && strcmp(sha, c.recipe_sha256) == 0);
    FUZZ_EXPECT(checkpoint_write(fuzz_path("again"), &c) == ST_OK && checkpoint_read(&again, fuzz_path("again")) == ST_OK);
    FUZZ_EXPECT(again.rows == c.rows && again.channels == c.channels && again.step == c.step && again.n_steps == c.n_steps);
    FUZZ_EXPECT(strcmp(again.recipe, c.recipe) == 0 && strcmp(again.picture, c.picture) == 0);
    FUZZ_EXPECT(memcmp(again.latents, c.latents, latents_bytes(&c)) == 0);
    checkpoint_free(&again);
    checkpoint_free(&c);
    return ST_OK;
}

static void make_seeds(void)
{
    float            latents[32];
    char             id[] = "alps-7", recipe[sizeof(RECIPE)];
    const checkpoint c = {.picture = id, .recipe = recipe, .step = 3, .n_steps = 28, .rows = 8, .channels = 4, .latents = latents};
    memcpy(recipe, RECIPE, sizeof(RECIPE));
    for (int i = 0; i < 32; i++) latents[i] = (float)i;
    FUZZ_EXPECT(checkpoint_write(fuzz_path(PATH), &c) == ST_OK);
    fuzz_seed_files();
}

static void set_sum(json_t *header, const uint8_t *body, size_t n_body)
{
    char           sha[SHA256_HEX];
    size_t         n = 0;
    const uint8_t *latents = repair_tensor(header, "latents", body, n_body, &n);
    if (latents != NULL && sha256_of(latents, n, sha) == ST_OK) repair_note(header, "latents_sha256", sha);
}

static size_t set_checksum(uint8_t *data, size_t n, size_t room)
{
    return repair_header(data, n, room, set_sum);
}

const fuzz_target target = {.files = {PATH}, .bad = ST_BAD_JOB, .read = read_checkpoint, .seeds = make_seeds, .repair = set_checksum};
