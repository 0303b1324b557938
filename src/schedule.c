#include "schedule.h"

#include <math.h>
#include <stdlib.h>

#include "dtype.h"

double schedule_mu(const schedule_config *config, shift_opts shift, int32_t n_image)
{
    switch (shift.kind) {
    case SHIFT_EXPLICIT:
        return shift.mu;
    case SHIFT_STOCK: {
        double slope =
            (config->max_shift - config->base_shift) / (config->max_image_seq_len - config->base_image_seq_len);
        return n_image * slope + (config->base_shift - slope * config->base_image_seq_len);
    }
    case SHIFT_DYPE:
        break;
    }
    /* The authors draw that line to n_image instead of max_image_seq_len, and so end at max_shift at every size. */
    return config->max_shift;
}

/* Value i of n evenly from 1 down to 1/n, as numpy's linspace. */
static float even_sigma(int i, int n)
{
    double end = 1.0 / n;
    if (i == n - 1) return (float)(n > 1 ? end : 1.0);
    return (float)(i * ((end - 1.0) / (n - 1)) + 1.0);
}

static float shifted_sigma(const schedule_config *config, double mu, float s)
{
    if (config->use_dynamic_shifting) {
        float e = (float)(config->time_shift_type == TIME_SHIFT_LINEAR ? mu : exp(mu));
        return e / (e + (1.0f / s - 1.0f));
    }
    float shift = (float)config->shift;
    return shift * s / (1.0f + (float)(config->shift - 1.0) * s);
}

/* The reference's timestep goes to the pipeline times 1000, to the model divided by 1000 (t), and to the sinusoid times
 * 1000 again; in a bf16 run each of the three is rounded. */
static void fill_times(schedule_step *step, int num_train_timesteps, bool bf16)
{
    float timestep = step->sigma * (float)num_train_timesteps;
    if (bf16) timestep = bf16_round(timestep);
    float t = timestep / 1000.0f;
    if (bf16) t = bf16_round(t);
    step->t_position = (double)t;
    step->t_model = t * 1000.0f;
    if (bf16) step->t_model = bf16_round(step->t_model);
}

static status check(const schedule_opts *opts, double mu)
{
    const schedule_config *config = &opts->config;
    if (opts->n_steps < 1) return err_set(ST_BAD_JOB, "schedule: got %d steps, want at least 1", opts->n_steps);
    if (config->num_train_timesteps < 1)
        return err_set(ST_BAD_MODEL, "schedule: num_train_timesteps: got %d, want at least 1",
                       config->num_train_timesteps);
    if (!config->use_dynamic_shifting) {
        if (!(config->shift > 0.0) || !isfinite(config->shift))
            return err_set(ST_BAD_MODEL, "schedule: shift: got %g, want more than 0", config->shift);
        return ST_OK;
    }
    if (opts->shift.kind == SHIFT_STOCK && config->max_image_seq_len == config->base_image_seq_len)
        return err_set(ST_BAD_MODEL, "schedule: base_image_seq_len and max_image_seq_len are both %d: no line for mu",
                       config->base_image_seq_len);
    if (!isfinite(mu) || fabs(mu) > 80.0)
        return err_set(ST_BAD_JOB, "schedule: mu is %g for %d image rows, want -80 to 80", mu, opts->n_image);
    if (config->time_shift_type == TIME_SHIFT_LINEAR && mu <= 0.0)
        return err_set(ST_BAD_JOB, "schedule: mu is %g, a linear time shift wants more than 0", mu);
    return ST_OK;
}

status schedule_open(schedule **out, const schedule_opts *opts)
{
    status st = ST_OK;
    double mu = schedule_mu(&opts->config, opts->shift, opts->n_image);
    bool bf16 = opts->rounding != SCHEDULE_F32;
    schedule *s = NULL;
    TRY(check(opts, mu));
    s = calloc(1, sizeof(*s));
    if (s != NULL) s->steps = calloc((size_t)opts->n_steps, sizeof(*s->steps));
    if (s == NULL || s->steps == NULL) {
        st = err_set(ST_NO_MEMORY, "schedule: %d steps of %zu bytes", opts->n_steps, sizeof(*s->steps));
        goto fail;
    }
    s->n_steps = opts->n_steps;
    s->mu = mu;
    s->mu_used = opts->config.use_dynamic_shifting;
    s->guidance_model = (float)opts->guidance;
    if (bf16) s->guidance_model = bf16_round(s->guidance_model);
    s->guidance_model *= 1000.0f;
    if (bf16) s->guidance_model = bf16_round(s->guidance_model);
    for (int i = 0; i < s->n_steps; i++) {
        s->steps[i].sigma = shifted_sigma(&opts->config, mu, even_sigma(i, s->n_steps));
        fill_times(&s->steps[i], opts->config.num_train_timesteps, bf16);
    }
    for (int i = 0; i < s->n_steps; i++) {
        float next = i + 1 < s->n_steps ? s->steps[i + 1].sigma : 0.0f;
        s->steps[i].dt = next - s->steps[i].sigma;
        if (opts->rounding == SCHEDULE_PARITY) s->steps[i].dt = bf16_round(s->steps[i].dt);
    }
    *out = s;
    return ST_OK;
fail:
    schedule_close(s);
    return st;
}

void schedule_close(schedule *s)
{
    if (s == NULL) return;
    free(s->steps);
    free(s);
}
