#include "recipe.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "position.h"

static json_t *position_json(const position_opts *p, int base_resolution)
{
    json_t *object = json_pack("{s:s, s:b, s:s, s:f, s:i}", "method", position_method_names[p->method], "dype", p->dype,
                               "variant", position_variant_names[p->variant], "lambda_t", p->lambda_t,
                               "base_resolution", base_resolution);
    json_object_set_new(object, "lambda_s", isnan(p->lambda_s) ? json_string("auto") : json_real(p->lambda_s));
    return object;
}

static json_t *shift_json(const shift_opts *s)
{
    if (s->kind == SHIFT_EXPLICIT) return json_real(s->mu);
    return json_string(s->kind == SHIFT_DYPE ? "dype" : "stock");
}

static json_t *noise_json(const noise_opts *n)
{
    if (n->kind != NOISE_TORCH_CUDA) return json_string(noise_kind_names[n->kind]);
    return json_pack("{s:s, s:i, s:i}", "kind", noise_kind_names[n->kind], "sms", n->sms, "threads_per_sm",
                     n->threads_per_sm);
}

status recipe_make(recipe *out, const job *j, const job_picture *p, const recipe_facts *facts)
{
    char seed[32];
    snprintf(seed, sizeof(seed), "%" PRIu64, p->seed); /* JSON integers of other readers end at 2^53 */
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:i, s:f, s:i, s:s, s:b, s:i, s:o, s:o, s:o}", "prompt", p->prompt, "prompt_2",
        p->prompt_2, "model_sha256", facts->model_sha256, "device", facts->device, "width", p->width, "height", p->height,
        "seed", seed, "steps", p->steps, "guidance", p->guidance, "max_sequence_length", facts->n_text, "precision",
        j->precision == DT_BF16 ? "bf16" : "fp32", "parity", p->parity_diffusers, "numerics", NUMERICS_VERSION,
        "position", position_json(&p->position, facts->base_resolution), "shift", shift_json(&p->shift), "noise",
        noise_json(&p->noise));
    if (object != NULL && p->wrap == WRAP_HORIZONTAL) /* only then: recipes without it keep their hash */
        json_object_set_new(object, "wrap", json_string("horizontal"));
    if (object != NULL && facts->n_blocks > 0) json_object_set_new(object, "blocks", json_integer(facts->n_blocks));
    if (object != NULL && j->parallel.schedule == SCHEDULE_NEIGHBOUR) /* its bits do depend on the ranks */
        json_object_set_new(object, "schedule", json_string("neighbour"));
    if (object != NULL && facts->latents_in_sha256 != NULL)
        json_object_set_new(object, "latents_in_sha256", json_string(facts->latents_in_sha256));
    if (object != NULL && facts->embeddings_in_sha256 != NULL)
        json_object_set_new(object, "embeddings_in_sha256", json_string(facts->embeddings_in_sha256));
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(object);
    if (text == NULL) return err_set(ST_NO_MEMORY, "%s: no memory for its recipe", p->id);
    status st = sha256_of(text, strlen(text), out->sha256);
    if (st == ST_OK)
        out->json = text;
    else
        free(text);
    return st;
}

void recipe_free(recipe *r)
{
    free(r->json);
    r->json = NULL;
}

static void add_difference(const char *key, const json_t *a, const json_t *b, char *text, size_t size)
{
    const size_t used = strlen(text);
    char        *x = a == NULL ? NULL : json_dumps(a, JSON_COMPACT | JSON_ENCODE_ANY);
    char        *y = b == NULL ? NULL : json_dumps(b, JSON_COMPACT | JSON_ENCODE_ANY);
    snprintf(text + used, size - used, "%s%s (%.80s, here %.80s)", used > 0 ? ", " : "", key, x != NULL ? x : "nothing",
             y != NULL ? y : "nothing");
    free(x);
    free(y);
}

const char *recipe_difference(const char *a, const char *here, char *text, size_t size)
{
    json_t       *x = json_loads(a, 0, NULL), *y = json_loads(here, 0, NULL);
    const char   *key;
    const json_t *value;
    text[0] = '\0';
    json_object_foreach(x, key, value)
        if (!json_equal(value, json_object_get(y, key))) add_difference(key, value, json_object_get(y, key), text, size);
    json_object_foreach(y, key, value)
        if (json_object_get(x, key) == NULL) add_difference(key, NULL, value, text, size);
    json_decref(x);
    json_decref(y);
    return text;
}
