/* Noise levels of a picture's steps: the flow-match Euler scheduler of diffusers, and the numbers that each step hands
 * to the network, to the position method and to the Euler update.
 *
 * sigma runs from 1 (noise) to 0 (picture). n values evenly from 1 down to 1/n are shifted, in fp32:
 *   dynamic   s' = E / (E + (1/s - 1)), E = e^mu (or mu itself: TIME_SHIFT_LINEAR)     FLUX.1-dev
 *   static    s' = shift s / (1 + (shift - 1) s)                                       FLUX.1-schnell
 * and 0 follows the last. */
#ifndef DYPE_SCHEDULE_H
#define DYPE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "schedule_kind.h"
#include "status.h"

typedef enum time_shift { TIME_SHIFT_EXPONENTIAL = 0, TIME_SHIFT_LINEAR } time_shift;

/* scheduler/scheduler_config.json, names as there. */
typedef struct schedule_config {
    int num_train_timesteps;
    double shift; /* static shift: used only without use_dynamic_shifting */
    bool use_dynamic_shifting;
    double base_shift, max_shift; /* mu at base_image_seq_len and max_image_seq_len image rows */
    int base_image_seq_len, max_image_seq_len;
    time_shift time_shift_type;
} schedule_config;
/* What diffusers takes for keys that the file lacks. */
#define SCHEDULE_CONFIG_INIT                                                                                           \
    ((schedule_config){.num_train_timesteps = 1000,                                                                    \
                       .shift = 1.0,                                                                                   \
                       .base_shift = 0.5,                                                                              \
                       .max_shift = 1.15,                                                                              \
                       .base_image_seq_len = 256,                                                                      \
                       .max_image_seq_len = 4096})

/* Which roundings of the reference a picture keeps. */
typedef enum schedule_rounding {
    SCHEDULE_F32,  /* those of an fp32 run */
    SCHEDULE_BF16, /* t and guidance as a bf16 run of the reference rounds them (models were tuned under it); dt fp32 */
    SCHEDULE_PARITY /* dt rounded to bf16 too: `parity: diffusers` in bf16 */
} schedule_rounding;

typedef struct schedule_opts {
    schedule_config config;
    shift_opts shift;
    int n_steps;
    int32_t n_image; /* image rows of the whole picture */
    double guidance; /* ignored by models without a guidance embedder */
    schedule_rounding rounding;
} schedule_opts;

typedef struct schedule_step {
    float sigma;       /* noise level at the start of the step */
    float dt;          /* next sigma - sigma, negative */
    float t_model;     /* what enters the network's sinusoid: about 1000 sigma */
    double t_position; /* the t of the position method: about sigma */
} schedule_step;

typedef struct schedule {
    schedule_step *steps;
    int n_steps;
    float guidance_model; /* what enters the guidance sinusoid: about 1000 guidance */
    double mu;            /* of the dynamic shift */
    bool mu_used;         /* false: the model's schedule is static (schnell) and mu changes nothing */
} schedule;

/* mu of a picture of n_image rows. */
double schedule_mu(const schedule_config *config, shift_opts shift, int32_t n_image);

/* A config or count of steps that gives no falling sigmas is ST_BAD_MODEL or ST_BAD_JOB. */
status schedule_open(schedule **out, const schedule_opts *opts);
void schedule_close(schedule *s); /* accepts NULL */

#endif
