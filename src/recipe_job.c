#include "recipe_job.h"

#include <ctype.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "job.h"
#include "png_reader.h"
#include "recipe.h"
#include "yaml_text.h"

enum { NAME_BYTES_MAX = 200 };

/* ---- YAML */

/* In double quotes; everything that YAML does not print as it is, as an escape. */
static void print_text(FILE *out, const char *text)
{
    size_t left = strlen(text);
    fputc('"', out);
    while (left > 0) {
        unsigned     c = 0;
        const size_t n = yaml_text_decode(text, left, &c);
        if (n == 0) break; /* jansson has checked that it is UTF-8 */
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", (int)c);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            fprintf(out, "\\x%02x", c);
        else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || (c >= 0xfff0 && c <= 0xffff))
            fprintf(out, "\\u%04x", c);
        else
            fwrite(text, 1, n, out);
        text += n;
        left -= n;
    }
    fputc('"', out);
}

/* ---- what a recipe has, checked: it comes from a file */

typedef struct reader {
    const char *path;
    json_t     *recipe;
    status      st; /* of the first value that is missing or of another kind */
} reader;

static void complain(reader *r, const char *key)
{
    if (r->st == ST_OK) r->st = err_set(ST_BAD_JOB, "%s: its recipe has no %s that this version can read", r->path, key);
}

static const char *text_of(reader *r, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL) complain(r, key);
    return text != NULL ? text : "";
}

/* Words and numbers stand without quotes: so they must look like ones. */
static const char *word_of(reader *r, const json_t *object, const char *key)
{
    const char *text = text_of(r, object, key);
    for (const char *c = text; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') complain(r, key);
    return text;
}

static int count_of(reader *r, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > INT32_MAX) complain(r, key);
    return (int)json_integer_value(value);
}

static double number_of(reader *r, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) complain(r, key);
    return json_number_value(value);
}

/* ---- the job */

/* The file's name as a picture's: other characters than those of names become '_'. */
static void name_of(const char *path, char name[NAME_BYTES_MAX + 1])
{
    const char  *slash = strrchr(path, '/'), *base = slash == NULL ? path : slash + 1, *dot = strrchr(base, '.');
    const size_t all = dot == NULL || dot == base ? strlen(base) : (size_t)(dot - base);
    const size_t n = all < NAME_BYTES_MAX ? all : NAME_BYTES_MAX;
    for (size_t i = 0; i < n; i++)
        name[i] = (isalnum((unsigned char)base[i]) && (unsigned char)base[i] < 0x80) || strchr("._-", base[i]) != NULL ? base[i] : '_';
    name[n] = '\0';
    if (name[strspn(name, ".")] == '\0') snprintf(name, NAME_BYTES_MAX + 1, "picture");
}

static void print_position(FILE *out, reader *r)
{
    const json_t *p = json_object_get(r->recipe, "position");
    const json_t *lambda_s = json_object_get(p, "lambda_s");
    fprintf(out, "    position: {method: %s, dype: %s, variant: %s, ", word_of(r, p, "method"),
            json_is_true(json_object_get(p, "dype")) ? "true" : "false", word_of(r, p, "variant"));
    if (json_is_number(lambda_s))
        fprintf(out, "lambda_s: %.17g, ", json_number_value(lambda_s));
    else
        fprintf(out, "lambda_s: %s, ", word_of(r, p, "lambda_s"));
    fprintf(out, "lambda_t: %.17g, base_resolution: %d}\n", number_of(r, p, "lambda_t"), count_of(r, p, "base_resolution"));
}

static void print_shift_and_noise(FILE *out, reader *r)
{
    const json_t *shift = json_object_get(r->recipe, "shift"), *noise = json_object_get(r->recipe, "noise");
    if (json_is_number(shift))
        fprintf(out, "    shift: %.17g\n", json_number_value(shift));
    else
        fprintf(out, "    shift: %s\n", word_of(r, r->recipe, "shift"));
    if (json_is_object(noise))
        fprintf(out, "    noise: {kind: %s, sms: %d, threads_per_sm: %d}\n", word_of(r, noise, "kind"),
                count_of(r, noise, "sms"), count_of(r, noise, "threads_per_sm"));
    else
        fprintf(out, "    noise: %s\n", word_of(r, r->recipe, "noise"));
}

/* Files that went in: known by their contents only. */
static void print_input(FILE *out, reader *r, const char *key, const char *sha_key)
{
    if (json_object_get(r->recipe, sha_key) != NULL)
        fprintf(out, "    %s: PATH.safetensors # the file whose SHA-256 is %s\n", key, word_of(r, r->recipe, sha_key));
}

static void print_head(FILE *out, reader *r, const char *model)
{
    char device[128];
    snprintf(device, sizeof(device), "%s", text_of(r, r->recipe, "device"));
    for (char *c = device; *c != '\0'; c++) /* a comment ends with its line */
        if (!isprint((unsigned char)*c)) *c = '?';
    fprintf(out, "# Renders the bytes of ");
    print_text(out, r->path);
    fprintf(out, " again: with the model of this SHA-256\n#   %s\n# on %s and numerics %d (this program has %d).\n",
            word_of(r, r->recipe, "model_sha256"), device, count_of(r, r->recipe, "numerics"), NUMERICS_VERSION);
    if (json_object_get(r->recipe, "blocks") != NULL)
        fprintf(out, "# Only the first %d blocks were computed: --blocks.\n", count_of(r, r->recipe, "blocks"));
    fprintf(out, "model: ");
    print_text(out, model != NULL ? model : "MODEL");
    fprintf(out, "%s\noutput: \"{name}.png\"\nprecision: %s\n", model != NULL ? "" : " # its folder, or --model DIR",
            word_of(r, r->recipe, "precision"));
    if (json_object_get(r->recipe, "schedule") != NULL)
        fprintf(out, "parallel: {schedule: %s} # whose bits depend on the number of ranks\n",
                word_of(r, r->recipe, "schedule"));
}

static void print_picture(FILE *out, reader *r)
{
    char name[NAME_BYTES_MAX + 1];
    name_of(r->path, name);
    fprintf(out, "pictures:\n  - name: ");
    print_text(out, name);
    fprintf(out, "\n    prompt: ");
    print_text(out, text_of(r, r->recipe, "prompt"));
    fprintf(out, "\n    prompt_2: ");
    print_text(out, text_of(r, r->recipe, "prompt_2"));
    fprintf(out, "\n    width: %d\n    height: %d\n    seed: %s\n    steps: %d\n    guidance: %.17g\n",
            count_of(r, r->recipe, "width"), count_of(r, r->recipe, "height"), word_of(r, r->recipe, "seed"),
            count_of(r, r->recipe, "steps"), number_of(r, r->recipe, "guidance"));
    if (json_object_get(r->recipe, "embeddings_in_sha256") == NULL) /* else their rows count */
        fprintf(out, "    max_sequence_length: %d\n", count_of(r, r->recipe, "max_sequence_length"));
    print_position(out, r);
    print_shift_and_noise(out, r);
    if (json_object_get(r->recipe, "wrap") != NULL) fprintf(out, "    wrap: %s\n", word_of(r, r->recipe, "wrap"));
    if (json_is_true(json_object_get(r->recipe, "parity"))) fprintf(out, "    parity: diffusers\n");
    print_input(out, r, "latents_in", "latents_in_sha256");
    print_input(out, r, "embeddings_in", "embeddings_in_sha256");
}

/* ---- where the recipe is */

static bool is_png(const char *path)
{
    static const unsigned char sign[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    unsigned char              head[8];
    FILE                      *file = fopen(path, "rbe");
    const bool                 is = file != NULL && fread(head, 1, 8, file) == 8 && memcmp(head, sign, 8) == 0;
    if (file != NULL) fclose(file);
    return is;
}

static status read_recipe(char **text, const char *path)
{
    status     st = ST_OK;
    png_facts  png = {0};
    checkpoint saved = {0};
    if (is_png(path)) {
        st = png_reader_read(&png, path, "dype-dist", true, ST_BAD_JOB);
        if (st == ST_OK && png.note == NULL) st = err_set(ST_BAD_JOB, "%s: no recipe: this program did not write it", path);
        if (st == ST_OK) *text = png.note;
        return st;
    }
    st = checkpoint_read(&saved, path);
    if (st != ST_OK) return st;
    *text = saved.recipe;
    saved.recipe = NULL;
    checkpoint_free(&saved);
    return ST_OK;
}

status recipe_job_print(FILE *out, const char *path, const char *model)
{
    status st = ST_OK;
    char  *text = NULL, *printed = NULL;
    size_t n = 0;
    FILE  *lines = NULL;
    reader r = {.path = path};
    TRY(read_recipe(&text, path));
    r.recipe = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(r.recipe)) complain(&r, "object");
    lines = open_memstream(&printed, &n);
    if (lines == NULL) {
        st = err_set(ST_NO_MEMORY, "%s: no memory for its job", path);
        goto fail;
    }
    if (r.st == ST_OK) print_head(lines, &r, model);
    if (r.st == ST_OK) print_picture(lines, &r);
    fclose(lines);
    TRY(r.st); /* nothing is printed of a recipe that is not whole */
    fwrite(printed, 1, n, out);
    if (fflush(out) != 0) st = err_set(ST_OUTPUT, "the job cannot be printed");
fail:
    json_decref(r.recipe);
    free(text);
    free(printed);
    return st;
}
