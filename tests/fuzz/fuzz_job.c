/* Job files. Accepted: every picture is one that can be rendered, and its own. */
#include "fuzz.h"

#include <string.h>

#include "job.h"

static const char PATH[] = "job.yaml";

static void expect_picture(const job *j, const job_picture *p)
{
    FUZZ_EXPECT(p->width % JOB_SIDE_STEP == 0 && p->width >= JOB_SIDE_MIN && p->width <= JOB_SIDE_MAX);
    FUZZ_EXPECT(p->height % JOB_SIDE_STEP == 0 && p->height >= JOB_SIDE_MIN && p->height <= JOB_SIDE_MAX);
    FUZZ_EXPECT(p->steps > 0 && p->guidance == p->guidance && p->preview_every >= 0 && p->max_sequence_length >= 0);
    FUZZ_EXPECT(p->prompt != NULL && p->prompt_2 != NULL && p->output[0] != '\0' && p->line >= 1 && p->column >= 1);
    FUZZ_EXPECT(p->id[0] != '\0' && p->id[strspn(p->id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == '\0');
    FUZZ_EXPECT(p->index >= 1 && (size_t)p->index <= j->n_all_pictures);
}

static status read_job(const uint8_t *data, size_t n)
{
    job         *j = NULL;
    const status st = job_open(&j, fuzz_path(PATH), &(job_opts){.model = "model"});
    (void)data, (void)n;
    if (st != ST_OK) return st;
    FUZZ_EXPECT(j->n_pictures >= 1 && j->n_pictures <= JOB_PICTURES_MAX && strlen(j->sha256) == 64 && j->checkpoint_every >= 0);
    for (size_t i = 0; i < j->n_pictures; i++) {
        expect_picture(j, &j->pictures[i]);
        for (size_t k = 0; k < i && i < 100; k++) {
            FUZZ_EXPECT(strcmp(j->pictures[i].id, j->pictures[k].id) != 0);
            FUZZ_EXPECT(strcmp(j->pictures[i].output, j->pictures[k].output) != 0);
        }
    }
    job_close(j);
    return ST_OK;
}

static void make_seeds(void)
{
    static const char text[] =
        "model: &m models/a\noutput: 'out/{name}-{seed}-{width}x{height}-{method}-{index}.png'\nprecision: fp32\n"
        "parallel: {ulysses: 2, ring: auto, replicas: auto, schedule: neighbour}\ncheckpoint: {every: 3}\n"
        "defaults:\n  steps: 28\n  guidance: 4.5\n  position: {method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 1}\n"
        "  noise: {kind: torch-cuda, sms: 108, threads_per_sm: 2048}\n  shift: 1.15\n"
        "pictures:\n  - &p {name: alps, prompt: \"a \\\"hill\\\" \\u00fc\", prompt_2: b, width: 8192, height: 2048, seeds: [1, -2, 3]}\n"
        "  - {name: city, prompt: 'x', width: 64, height: 64, seed: 18446744073709551615, wrap: horizontal, parity: none,\n"
        "     latents_in: a.safetensors, latents_out: 'o/{name}.safetensors', embeddings_in: e.safetensors, preview_every: 2}\n";
    static const char *const shipped[] = {"demo", "methods", "panorama", "scaling", NULL};
    fuzz_seed(text, sizeof(text) - 1);
    for (int i = 0; shipped[i] != NULL; i++) {
        char   path[1024];
        size_t n = 0;
        snprintf(path, sizeof(path), PROJECT_DIR "/jobs/%s.yaml", shipped[i]);
        uint8_t *job_text = fuzz_file(path, &n);
        fuzz_seed(job_text, n);
        free(job_text);
    }
}

const fuzz_target target = {.files = {PATH}, .bad = ST_BAD_JOB, .read = read_job, .seeds = make_seeds};
