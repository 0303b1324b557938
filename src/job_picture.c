#include "job_picture.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "job_path.h"

enum { NAME_BYTES_MAX = 200 };

_Static_assert(sizeof(position_method) == sizeof(unsigned) && sizeof(position_variant) == sizeof(unsigned) &&
                   sizeof(noise_kind) == sizeof(unsigned) && sizeof(job_wrap) == sizeof(unsigned),
               "job_read_word writes an unsigned");

/* position */

enum {
    POSITION_KEY_METHOD,
    POSITION_KEY_DYPE,
    POSITION_KEY_VARIANT,
    POSITION_KEY_LAMBDA_S,
    POSITION_KEY_LAMBDA_T,
    POSITION_KEY_BASE,
    N_POSITION_KEYS
};

static const job_key position_keys[N_POSITION_KEYS] = {
    [POSITION_KEY_METHOD] = {"method", job_read_word, offsetof(position_opts, method), .words = position_method_names},
    [POSITION_KEY_DYPE] = {"dype", job_read_bool, offsetof(position_opts, dype)},
    [POSITION_KEY_VARIANT] = {"variant", job_read_word, offsetof(position_opts, variant),
                              .words = position_variant_names},
    [POSITION_KEY_LAMBDA_S] = {"lambda_s", job_read_auto_number, offsetof(position_opts, lambda_s), 0, 100},
    [POSITION_KEY_LAMBDA_T] = {"lambda_t", job_read_number, offsetof(position_opts, lambda_t), 0, 1000},
    [POSITION_KEY_BASE] = {"base_resolution", job_read_auto_size, offsetof(position_opts, base_resolution),
                           JOB_SIDE_MIN, JOB_SIDE_MAX},
};
static const job_table position_table = {"position", "position.", position_keys, N_POSITION_KEYS, NULL};

static bool is_dynamic(const position_opts *o)
{
    return o->dype && position_method_can_dype(o->method);
}

static void variant_mistake(job_reader *r, const position_opts *o, const tree_node *at, bool inherited)
{
    char list[256] = "";
    for (int v = 0; position_variant_names[v] != NULL; v++) {
        if (!position_variant_exists(o->method, is_dynamic(o), (position_variant)v)) continue;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", position_variant_names[v]);
    }
    mistakes_add(&r->m, at->line, at->column, "position.variant: found %s%s; allowed for method %s with dype: %s: %s",
                 position_variant_names[o->variant], inherited ? " (from defaults)" : "",
                 position_method_names[o->method], is_dynamic(o) ? "true" : "false", list);
}

static void read_position(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    picture_draft *d = into;
    const tree_node *found[JOB_KEYS_MAX];
    position_opts o = d->p.position;
    size_t n_before = r->m.n_found;
    (void)key;
    if (!job_read_mapping(r, &position_table, value, &o, found) || r->m.n_found != n_before) return;
    /* A variant belongs to its method: naming a method starts from that method's own. */
    const tree_node *variant = found[POSITION_KEY_VARIANT], *dype = found[POSITION_KEY_DYPE];
    if (found[POSITION_KEY_METHOD] != NULL && variant == NULL)
        o.variant = o.method == POSITION_TIME_AWARE ? VARIANT_SWITCH : VARIANT_OFFICIAL;
    if (dype != NULL && o.dype && !is_dynamic(&o))
        job_mistake(r, "position.dype", dype, "false (method %s has no dynamic form; pi, ntk and yarn have)",
                    position_method_names[o.method]);
    else if (!position_variant_exists(o.method, is_dynamic(&o), o.variant))
        variant_mistake(r, &o, variant != NULL ? variant : value, variant == NULL);
    d->p.position = o;
}

/* shift and noise */

static void read_shift(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    static const char *const words[] = {"dype", "stock", NULL};
    shift_opts *shift = &((picture_draft *)into)->p.shift;
    int word = job_word_index(value, words);
    double mu = 0;
    if (word >= 0)
        *shift = (shift_opts){.kind = word == 0 ? SHIFT_DYPE : SHIFT_STOCK};
    else if (job_number(value, key->min, key->max, &mu))
        *shift = (shift_opts){.kind = SHIFT_EXPLICIT, .mu = mu};
    else
        job_mistake(r, key->name, value, "dype, stock, or a number from %g to %g", key->min, key->max);
}

enum { NOISE_KEY_KIND, NOISE_KEY_SMS, NOISE_KEY_THREADS, N_NOISE_KEYS };

static const job_key noise_keys[N_NOISE_KEYS] = {
    [NOISE_KEY_KIND] = {"kind", job_read_word, offsetof(noise_opts, kind), .words = noise_kind_names},
    [NOISE_KEY_SMS] = {"sms", job_read_int, offsetof(noise_opts, sms), 1, 1024},
    /* One block of 256 threads at least: the grid of the launch is sms * (threads_per_sm / 256). */
    [NOISE_KEY_THREADS] = {"threads_per_sm", job_read_int, offsetof(noise_opts, threads_per_sm), 256, 4096},
};
static const job_table noise_table = {"noise", "noise.", noise_keys, N_NOISE_KEYS, NULL};

static void read_noise(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    picture_draft *d = into;
    const tree_node *found[JOB_KEYS_MAX];
    noise_opts o = NOISE_OPTS_INIT;
    size_t n_before = r->m.n_found;
    if (value->kind != TREE_MAPPING) {
        job_key word = {key->name, job_read_word, offsetof(noise_opts, kind), .words = noise_kind_names};
        job_read_word(r, &word, value, &o);
    } else if (job_read_mapping(r, &noise_table, value, &o, found) && r->m.n_found == n_before) {
        const tree_node *layout = found[NOISE_KEY_SMS] != NULL ? found[NOISE_KEY_SMS] : found[NOISE_KEY_THREADS];
        if (found[NOISE_KEY_KIND] == NULL)
            mistakes_add(&r->m, value->line, value->column, "noise: found no `kind`; allowed: kind: %s, ...",
                         noise_kind_names[0]);
        else if (layout != NULL && o.kind != NOISE_TORCH_CUDA)
            mistakes_add(
                &r->m, layout->line, layout->column,
                "noise: found a GPU's layout with kind %s; allowed: sms and threads_per_sm with torch-cuda only",
                noise_kind_names[o.kind]);
    }
    if (r->m.n_found == n_before) d->p.noise = o;
}

/* name and seeds */

static void read_name(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *text = value->kind == TREE_SCALAR && !tree_is_null(value) ? value->text : "";
    size_t n_bytes = strlen(text);
    if (n_bytes == 0 || n_bytes > NAME_BYTES_MAX || text[strspn(text, letters)] != '\0')
        job_mistake(r, key->name, value, "1 to %d of the letters A-Z a-z 0-9 . _ -", NAME_BYTES_MAX);
    else if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
        job_mistake(r, key->name, value, "any other name (. and .. are folders)");
    else
        job_read_text(r, key, value, into);
}

static const char seed_range[] = "an integer from -9223372036854775808 to 18446744073709551615";

static void read_seed(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    picture_draft *d = into;
    if (!job_seed(value, &d->p.seed)) job_mistake(r, key->name, value, "%s", seed_range);
    d->seeds = NULL; /* of defaults */
}

static void read_seeds(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    picture_draft *d = into;
    size_t n_before = r->m.n_found;
    if (value->kind != TREE_SEQUENCE || value->n_items == 0) {
        job_mistake(r, key->name, value, "a list of at least one integer, as [1, 2, 3]%s",
                    value->kind == TREE_SCALAR ? " (one alone is `seed`)" : "");
        return;
    }
    if (value->n_items > JOB_PICTURES_MAX) {
        mistakes_add(&r->m, value->line, value->column, "seeds: found %zu; allowed: at most %d pictures in a job",
                     value->n_items, JOB_PICTURES_MAX);
        return;
    }
    for (size_t i = 0; i < value->n_items; i++) {
        uint64_t seed;
        if (!job_seed(value->items[i], &seed)) job_mistake(r, key->name, value->items[i], "%s", seed_range);
    }
    if (r->m.n_found == n_before) d->seeds = value;
}

static void read_latents_out(job_reader *r, const job_key *key, const tree_node *value, void *into)
{
    if (job_template_check(r, key->name, value, ".safetensors")) job_read_text(r, key, value, into);
}

enum {
    KEY_NAME,
    KEY_PROMPT,
    KEY_PROMPT_2,
    KEY_WIDTH,
    KEY_HEIGHT,
    KEY_SEED,
    KEY_SEEDS,
    KEY_STEPS,
    KEY_GUIDANCE,
    KEY_MAX_SEQUENCE_LENGTH,
    KEY_POSITION,
    KEY_SHIFT,
    KEY_NOISE,
    KEY_WRAP,
    KEY_PREVIEW_EVERY,
    KEY_PARITY,
    KEY_LATENTS_IN,
    KEY_LATENTS_OUT,
    KEY_EMBEDDINGS_IN,
    N_PICTURE_KEYS
};

static const char *const wrap_words[] = {"none", "horizontal", NULL};
static const char *const parity_words[] = {"none", "diffusers", NULL};

static const job_key picture_keys[N_PICTURE_KEYS] = {
    [KEY_NAME] = {"name", read_name, offsetof(picture_draft, p.name)},
    [KEY_PROMPT] = {"prompt", job_read_text, offsetof(picture_draft, p.prompt)},
    [KEY_PROMPT_2] = {"prompt_2", job_read_text, offsetof(picture_draft, p.prompt_2)},
    [KEY_WIDTH] = {"width", job_read_size, offsetof(picture_draft, p.width), JOB_SIDE_MIN, JOB_SIDE_MAX},
    [KEY_HEIGHT] = {"height", job_read_size, offsetof(picture_draft, p.height), JOB_SIDE_MIN, JOB_SIDE_MAX},
    [KEY_SEED] = {"seed", read_seed},
    [KEY_SEEDS] = {"seeds", read_seeds},
    [KEY_STEPS] = {"steps", job_read_int, offsetof(picture_draft, p.steps), 1, 1000},
    [KEY_GUIDANCE] = {"guidance", job_read_number, offsetof(picture_draft, p.guidance), 0, 100},
    [KEY_MAX_SEQUENCE_LENGTH] = {"max_sequence_length", job_read_int, offsetof(picture_draft, p.max_sequence_length), 1,
                                 512},
    [KEY_POSITION] = {"position", read_position},
    [KEY_SHIFT] = {"shift", read_shift, .min = -50, .max = 50},
    [KEY_NOISE] = {"noise", read_noise},
    [KEY_WRAP] = {"wrap", job_read_word, offsetof(picture_draft, p.wrap), .words = wrap_words},
    [KEY_PREVIEW_EVERY] = {"preview_every", job_read_int, offsetof(picture_draft, p.preview_every), 0, 1000},
    [KEY_PARITY] = {"parity", job_read_word, offsetof(picture_draft, parity), .words = parity_words},
    [KEY_LATENTS_IN] = {"latents_in", job_read_path, offsetof(picture_draft, p.latents_in)},
    [KEY_LATENTS_OUT] = {"latents_out", read_latents_out, offsetof(picture_draft, p.latents_out)},
    [KEY_EMBEDDINGS_IN] = {"embeddings_in", job_read_path, offsetof(picture_draft, p.embeddings_in)},
};

static const char no_cfg[] =
    "not supported: there is no true classifier-free guidance here, so no negative prompt and no "
    "scale for it; allowed: `guidance`, and everything wanted said in `prompt`";
static const struct job_stranger strangers[] = {
    {"negative_prompt", no_cfg},
    {"negative_prompt_2", no_cfg},
    {"true_cfg_scale", no_cfg},
    {"num_inference_steps", "found a key of diffusers; nearest known key: steps"},
    {"guidance_scale", "found a key of diffusers; nearest known key: guidance"},
    {"num_images_per_prompt", "found a key of diffusers; nearest known key: seeds (a list, one picture each)"},
    {"generator", "found a key of diffusers; nearest known key: seed"},
    {"name", "found name in defaults; allowed: in a picture (no two share one)"},
    {NULL, NULL},
};
_Static_assert((int)N_PICTURE_KEYS <= (int)JOB_KEYS_MAX, "found[] is large enough");
static const job_table picture_table = {"a picture", "", picture_keys, N_PICTURE_KEYS, strangers};
/* Everything but the name, which is the first. */
static const job_table defaults_table = {"defaults", "", picture_keys + 1, N_PICTURE_KEYS - 1, strangers};
_Static_assert(KEY_NAME == 0, "defaults_table leaves out the name");

picture_draft picture_draft_begin(void)
{
    return (picture_draft){.p = {.steps = 28,
                                 .guidance = 4.5,
                                 .position = POSITION_OPTS_INIT,
                                 .shift = SHIFT_OPTS_INIT,
                                 .noise = NOISE_OPTS_INIT}};
}

static void lay_over(job_reader *r, const job_table *table, const tree_node *node, picture_draft *d)
{
    const tree_node *found[1 + JOB_KEYS_MAX] = {NULL}; /* by KEY_* for either table */
    if (!job_read_mapping(r, table, node, d, table == &defaults_table ? found + 1 : found)) return;
    for (size_t k = 0; k < N_PICTURE_KEYS; k++)
        if (found[k] != NULL) d->given[k] = true;
    if (found[KEY_SEED] != NULL && found[KEY_SEEDS] != NULL)
        mistakes_add(&r->m, found[KEY_SEEDS]->line, found[KEY_SEEDS]->column,
                     "found seeds together with seed; allowed: one of the two");
}

void picture_draft_defaults(job_reader *r, const tree_node *defaults, picture_draft *d)
{
    lay_over(r, &defaults_table, defaults, d);
}

void picture_draft_entry(job_reader *r, const tree_node *entry, picture_draft *d)
{
    static const int wanted[] = {KEY_NAME, KEY_PROMPT, KEY_WIDTH, KEY_HEIGHT};
    d->p.line = entry->line;
    d->p.column = entry->column;
    lay_over(r, &picture_table, entry, d);
    if (entry->kind != TREE_MAPPING) return;
    if (d->given[KEY_EMBEDDINGS_IN] && !d->given[KEY_PROMPT]) {
        d->given[KEY_PROMPT] = true;
        d->p.prompt = "";
    }
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        const char *key = picture_keys[wanted[i]].name;
        if (!d->given[wanted[i]])
            mistakes_add(&r->m, entry->line, entry->column, "found a picture without %s; allowed: %s: ...%s", key, key,
                         wanted[i] == KEY_NAME ? "" : ", here or in defaults");
    }
}

size_t picture_draft_count(const picture_draft *d)
{
    return d->seeds != NULL ? d->seeds->n_items : 1;
}

job_picture picture_draft_take(job_reader *r, const picture_draft *d, size_t i)
{
    job_picture p = d->p;
    if (p.prompt_2 == NULL) p.prompt_2 = p.prompt;
    p.parity_diffusers = d->parity == 1;
    p.position.dype = is_dynamic(&p.position);
    p.id = p.name;
    if (d->seeds != NULL && p.name != NULL) {
        char id[NAME_BYTES_MAX + 32];
        job_seed(d->seeds->items[i], &p.seed);
        snprintf(id, sizeof(id), "%s-%" PRIu64, p.name, p.seed);
        p.id = job_text(r, id);
    }
    return p;
}
