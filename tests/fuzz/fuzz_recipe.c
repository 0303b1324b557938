/* The recipe in a sound PNG, turned back into a job. Accepted: the job is refused with its own mistakes, or has the
 * recipe's prompt, size and seed. */
#include "fuzz.h"

#include <jansson.h>
#include <string.h>

#include "job.h"
#include "png_writer.h"
#include "recipe_job.h"

static const char PATH[] = "a.png", JOB[] = "job.yaml", TEXT[] = "recipe.json";

static void write_png(const char *text)
{
    png_writer    *w = NULL;
    const uint8_t  row[3] = {1, 2, 3};
    const png_note note = {"dype-dist", text};
    FUZZ_EXPECT(png_writer_open(&w, &(png_writer_opts){.path = fuzz_path(PATH), .width = 1, .height = 1, .notes = &note, .n_notes = 1,
                                                       .overwrite = true}) == ST_OK);
    FUZZ_EXPECT(png_writer_rows(w, 1, row) == ST_OK && png_writer_commit(w) == ST_OK);
}

static void expect_same(const job *j, const char *text)
{
    json_t            *recipe = json_loads(text, 0, NULL);
    const job_picture *p = j->pictures;
    FUZZ_EXPECT(recipe != NULL && j->n_pictures == 1);
    FUZZ_EXPECT(strcmp(p->prompt, json_string_value(json_object_get(recipe, "prompt"))) == 0);
    FUZZ_EXPECT(strcmp(p->prompt_2, json_string_value(json_object_get(recipe, "prompt_2"))) == 0);
    FUZZ_EXPECT(p->width == json_integer_value(json_object_get(recipe, "width")));
    FUZZ_EXPECT(p->steps == json_integer_value(json_object_get(recipe, "steps")));
    FUZZ_EXPECT(p->guidance == json_number_value(json_object_get(recipe, "guidance")));
    json_decref(recipe);
}

static status read_recipe(const uint8_t *data, size_t n)
{
    char  *text = strndup((const char *)data, n), *job_text = NULL;
    size_t n_job = 0;
    job   *j = NULL;
    err_printable(text); /* the chunk's text is UTF-8 */
    write_png(text);
    FILE  *out = open_memstream(&job_text, &n_job);
    status st = recipe_job_print(out, fuzz_path(PATH), NULL);
    fclose(out);
    if (st != ST_OK) FUZZ_EXPECT(n_job == 0 && strstr(err_text(), fuzz_path(PATH)) != NULL);
    if (st == ST_OK) st = job_parse(&j, fuzz_path(JOB), job_text, n_job, &(job_opts){.model = "model"});
    if (st == ST_OK) expect_same(j, text);
    job_close(j);
    free(job_text);
    free(text);
    return st;
}

static void make_seeds(void)
{
    static const char full[] =
        "{\"device\":\"cpu (avx2)\",\"guidance\":4.5,\"height\":256,\"latents_in_sha256\":\"00ff\",\"max_sequence_length\":512,"
        "\"model_sha256\":\"0123456789abcdef\",\"noise\":{\"kind\":\"torch-cuda\",\"sms\":132,\"threads_per_sm\":2048},"
        "\"numerics\":1,\"parity\":false,\"position\":{\"base_resolution\":1024,\"dype\":true,\"lambda_s\":\"auto\",\"lambda_t\":2.0,"
        "\"method\":\"yarn\",\"variant\":\"official\"},\"precision\":\"bf16\",\"prompt\":\"a \\\"hill\\\"\",\"prompt_2\":\"a hill\","
        "\"seed\":\"7\",\"shift\":\"dype\",\"steps\":28,\"width\":512,\"wrap\":\"horizontal\"}";
    static const char plain[] =
        "{\"device\":\"cpu (plain)\",\"guidance\":1.0,\"height\":64,\"max_sequence_length\":45,\"model_sha256\":\"00\",\"noise\":\"counter\","
        "\"numerics\":1,\"parity\":true,\"position\":{\"base_resolution\":256,\"dype\":false,\"lambda_s\":1.5,\"lambda_t\":1,"
        "\"method\":\"base\",\"variant\":\"official\"},\"precision\":\"fp32\",\"prompt\":\"caf\xc3\xa9\",\"prompt_2\":\"\","
        "\"seed\":\"18446744073709551615\",\"shift\":1.15,\"steps\":4,\"width\":64,\"schedule\":\"neighbour\",\"blocks\":3}";
    fuzz_seed(full, sizeof(full) - 1);
    fuzz_seed(plain, sizeof(plain) - 1);
}

/* Messages name the PNG or the job, both beside the text. */
const fuzz_target target = {.files = {TEXT, "unused"}, .bad = ST_BAD_JOB, .read = read_recipe, .seeds = make_seeds};
