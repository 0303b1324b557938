/* Whatever bytes a file has, its reader refuses it, and says which file, or recovers; it does not crash, hang or read
 * beyond. Mutants of good files, for some seconds each; 100 000 each with --full in the build with
 * sanitizers, where a read beyond the end shows, 10 000 in others. The same DYPE_SEED makes the same mutants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "checkpoint.h"
#include "clip_tokenizer.h"
#include "job.h"
#include "journal.h"
#include "outputs.h"
#include "png_writer.h"
#include "processes.h"
#include "program.h"
#include "recipe_job.h"
#include "safetensors.h"
#include "t5_tokenizer.h"

#ifdef __SANITIZE_ADDRESS__
enum { N_FULL = 100000 };
#else
enum { N_FULL = 10000 }; /* the build with sanitizers does them all */
#endif
enum { N_LEAST = 200, SEEDS_MAX = 8, ROOM_BYTES = 1 << 21, HANG_S = 60 };
static const double SAMPLE_S = 2.5; /* per reader: about 20 s in all */

static char dir[TEMPDIR_PATH], file[2 * TEMPDIR_PATH];

/* A length from a mutant may be anything: memory is refused then, as without a sanitizer. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- mutants */

typedef struct bytes {
    unsigned char *data; /* [ROOM_BYTES] */
    size_t         n;
} bytes;

static uint64_t dice;

static uint32_t draw(uint32_t n)
{
    uint64_t x = dice += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) % n);
}

static size_t draw_place(const bytes *b)
{
    /* Heads are at the front: half of the hits go there. */
    const uint32_t n = b->n == 0 ? 1 : (uint32_t)b->n;
    return draw(2) == 0 && n > 512 ? draw(512) : draw(n);
}

static void insert(bytes *b, size_t at, const void *data, size_t n)
{
    if (b->n + n > ROOM_BYTES) return;
    memmove(b->data + at + n, b->data + at, b->n - at);
    memcpy(b->data + at, data, n);
    b->n += n;
}

static void mutate(bytes *b)
{
    static const char *const words[] = {"\"", "{", "}", "[", "]", ":", ",", "\n", "null", "-1", "1e999", "9223372036854775807",
                                        "18446744073709551616", "\\u0000", "\xff\xfe", "&a ", "*a", "<<: ", "!!int ", "- ", "  "};
    static const unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};
    unsigned char              piece[64];
    const size_t               at = draw_place(b);
    size_t                     n = 1 + draw(sizeof(piece));
    if (b->n == 0) return insert(b, 0, words[draw(4)], 1);
    if (n > b->n - at) n = b->n - at;
    switch (draw(9)) {
    case 0: b->data[at] ^= (unsigned char)(1u << draw(8)); break;
    case 1: b->data[at] = (unsigned char)draw(256); break;
    case 2: b->n = at; break;
    case 3: /* a run is lost */
        memmove(b->data + at, b->data + at + n, b->n - at - n);
        b->n -= n;
        break;
    case 4: /* stands twice */
        memcpy(piece, b->data + at, n);
        insert(b, at, piece, n);
        break;
    case 5: { /* a number at an edge */
        const size_t k = n < 8 ? n : 8;
        memset(b->data + at, values[draw(sizeof(values))], k);
        break;
    }
    case 6: {
        const char *word = words[draw(sizeof(words) / sizeof(words[0]))];
        insert(b, at, word, strlen(word));
        break;
    }
    case 7: /* from elsewhere */
        memcpy(piece, b->data + at, n);
        memmove(b->data + draw((uint32_t)(b->n - n + 1)), piece, n);
        break;
    default: /* digits */
        for (size_t i = at; i < b->n && i < at + 32; i++)
            if (b->data[i] >= '0' && b->data[i] <= '9') b->data[i] = (unsigned char)('0' + draw(10));
    }
}

/* ---- readers: what they must do with a mutant in `file` */

typedef struct reader {
    const char *name;
    status    (*read)(const bytes *mutant); /* ST_OK: accepted or recovered */
    bytes       seeds[SEEDS_MAX];
    int         n_seeds;
} reader;

static void put_file(const char *path, const bytes *b)
{
    FILE *out = fopen(path, "wbe");
    assert_non_null(out);
    assert_int_equal(fwrite(b->data, 1, b->n, out), b->n);
    fclose(out);
}

/* Recovered: what is appended then is read again, behind all that was read. */
static status read_journal(const bytes *mutant)
{
    journal *j = NULL;
    put_file(file, mutant);
    status st = journal_open(&j, file);
    if (st != ST_OK) return st;
    const size_t n = journal_count(j);
    assert_int_equal(journal_append(j, &(journal_record){.state = JOURNAL_LATENT, .output = "after.png"}), ST_OK);
    journal_close(j);
    assert_int_equal(journal_read(&j, file), ST_OK);
    assert_int_equal(journal_count(j), n + 1);
    assert_non_null(journal_last(j, "after.png", JOURNAL_LATENT));
    assert_int_equal(journal_torn_bytes(j), 0);
    journal_close(j);
    return ST_OK;
}

static status read_checkpoint(const bytes *mutant)
{
    checkpoint c = {0};
    put_file(file, mutant);
    const status st = checkpoint_read(&c, file);
    if (st == ST_OK) {
        assert_true(c.rows >= 1 && c.channels >= 1 && c.step >= 0 && c.step <= c.n_steps);
        volatile float last = c.latents[c.rows * c.channels - 1];
        (void)last;
    }
    checkpoint_free(&c);
    return st;
}

static status read_safetensors(const bytes *mutant)
{
    safetensors *s = NULL;
    unsigned     sum = 0;
    put_file(file, mutant);
    const status st = safetensors_open(&s, file, ST_BAD_MODEL);
    for (size_t i = 0; st == ST_OK && i < safetensors_count(s); i++) {
        const safetensors_entry *e = safetensors_get(s, i);
        const unsigned char     *data = e->data;
        if (e->bytes > 0) sum += data[0] + data[e->bytes - 1];
        assert_ptr_equal(safetensors_find(s, e->name), e);
    }
    safetensors_close(s);
    return sum == 1 ? st : st; /* the bytes were touched */
}

static status read_job(const bytes *mutant)
{
    job         *j = NULL;
    const status st = job_parse(&j, file, (const char *)mutant->data, mutant->n, &(job_opts){.model = "model"});
    for (size_t i = 0; st == ST_OK && i < j->n_pictures; i++) {
        const job_picture *p = &j->pictures[i];
        assert_true(p->width % 16 == 0 && p->width > 0 && p->height % 16 == 0 && p->height > 0 && p->steps > 0);
        assert_true(p->id[0] != '\0' && p->output[0] != '\0' && p->prompt != NULL);
    }
    if (st == ST_OK) job_close(j);
    return st;
}

static const char PROMPT[] = "A lighthouse, caf\xc3\xa9 and \xf0\x9f\x98\x80 42 times";

static status read_clip(const bytes *mutant, const char *name)
{
    char            path[2 * TEMPDIR_PATH];
    clip_tokenizer *t = NULL;
    int32_t         ids[77];
    int             n = 0;
    char           *lost = NULL;
    snprintf(path, sizeof(path), "%s/clip/%s", dir, name);
    put_file(path, mutant);
    status st = clip_tokenizer_open(&t, file);
    if (st != ST_OK) return st;
    st = clip_tokenizer_encode(t, PROMPT, 77, ids, &n, &lost);
    for (int i = 0; st == ST_OK && i < 77; i++) assert_true(ids[i] >= 0 && ids[i] < clip_tokenizer_n_ids(t));
    free(lost);
    clip_tokenizer_close(t);
    return st;
}

static status read_merges(const bytes *mutant)
{
    return read_clip(mutant, "merges.txt");
}

static status read_vocab(const bytes *mutant)
{
    return read_clip(mutant, "vocab.json");
}

static status read_t5(const bytes *mutant)
{
    char          path[2 * TEMPDIR_PATH];
    t5_tokenizer *t = NULL;
    int32_t       ids[64];
    int           n = 0;
    char         *lost = NULL;
    snprintf(path, sizeof(path), "%s/t5/spiece.model", dir);
    put_file(path, mutant);
    status st = t5_tokenizer_open(&t, file);
    if (st != ST_OK) return st;
    st = t5_tokenizer_encode(t, PROMPT, 64, ids, &n, &lost);
    for (int i = 0; st == ST_OK && i < 64; i++) assert_true(ids[i] >= 0 && ids[i] < t5_tokenizer_n_ids(t));
    free(lost);
    t5_tokenizer_close(t);
    return st;
}

static FILE *nowhere;

/* The whole PNG is the mutant: chunks have CRCs, so most are refused early. */
static status read_png(const bytes *mutant)
{
    put_file(file, mutant);
    return recipe_job_print(nowhere, file, NULL);
}

/* The recipe inside a sound PNG is the mutant: the job that comes out can be read as a job, or is refused. */
static status read_recipe(const bytes *mutant)
{
    char       *text = strndup((const char *)mutant->data, mutant->n), *job_text = NULL;
    size_t      n = 0;
    png_writer *w = NULL;
    job        *j = NULL;
    uint8_t     row[3] = {1, 2, 3};
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    const png_note note = {"dype-dist", text};
    assert_int_equal(png_writer_open(&w, &(png_writer_opts){.path = file, .width = 1, .height = 1, .notes = &note, .n_notes = 1,
                                                            .overwrite = true}), ST_OK);
    assert_int_equal(png_writer_rows(w, 1, row), ST_OK);
    assert_int_equal(png_writer_commit(w), ST_OK);
    free(text);
    FILE  *out = open_memstream(&job_text, &n);
    status st = recipe_job_print(out, file, NULL);
    fclose(out);
    if (st == ST_OK && job_parse(&j, file, job_text, n, NULL) == ST_OK) job_close(j);
    free(job_text);
    return st;
}

/* ---- good files */

static void add_bytes(reader *r, const void *data, size_t n)
{
    bytes *b = &r->seeds[r->n_seeds++];
    assert_true(r->n_seeds <= SEEDS_MAX && n <= ROOM_BYTES);
    b->data = malloc(n + 1);
    assert_non_null(b->data);
    memcpy(b->data, data, n);
    b->n = n;
}

static void add_file(reader *r, const char *path)
{
    size_t n = 0;
    char  *data = outputs_read(path, &n);
    if (data == NULL) fail_msg("no %s", path);
    add_bytes(r, data, n);
    free(data);
}

static void make_journal(reader *r)
{
    journal *j = NULL;
    assert_int_equal(journal_open(&j, file), ST_OK);
    for (int s = JOURNAL_QUEUED; s < JOURNAL_N_STATES; s++)
        assert_int_equal(journal_append(j, &(journal_record){.state = (journal_state)s, .output = "a.png", .recipe_sha256 = "00ff",
                                                             .step = 3, .n_steps = 9, .reason = "a reason"}), ST_OK);
    journal_close(j);
    add_file(r, file);
}

static const char RECIPE[] =
    "{\"device\":\"cpu (avx2)\",\"guidance\":4.5,\"height\":256,\"latents_in_sha256\":\"00ff\",\"max_sequence_length\":512,"
    "\"model_sha256\":\"0123456789abcdef\",\"noise\":{\"kind\":\"torch-cuda\",\"sms\":132,\"threads_per_sm\":2048},"
    "\"numerics\":1,\"parity\":false,\"position\":{\"base_resolution\":1024,\"dype\":true,\"lambda_s\":\"auto\",\"lambda_t\":2.0,"
    "\"method\":\"yarn\",\"variant\":\"official\"},\"precision\":\"bf16\",\"prompt\":\"a \\\"hill\\\"\",\"prompt_2\":\"a hill\","
    "\"seed\":\"7\",\"shift\":\"dype\",\"steps\":28,\"width\":512,\"wrap\":\"horizontal\"}";

static void make_checkpoint(reader *r)
{
    float            latents[32];
    char             id[] = "alps-7", recipe[sizeof(RECIPE)];
    const checkpoint c = {.picture = id, .recipe = recipe, .step = 3, .n_steps = 28, .rows = 8, .channels = 4, .latents = latents};
    memcpy(recipe, RECIPE, sizeof(RECIPE));
    for (int i = 0; i < 32; i++) latents[i] = (float)i;
    assert_int_equal(checkpoint_write(file, &c), ST_OK);
    add_file(r, file);
}

static void make_safetensors(reader *r)
{
    static const float       values[24];
    const safetensors_tensor tensors[] = {{.name = "a.weight", .type = DT_F32, .n_dims = 2, .shape = {4, 3}, .data = values},
                                          {.name = "b.bias", .type = DT_BF16, .n_dims = 1, .shape = {5}, .data = values},
                                          {.name = "none", .type = DT_F16, .n_dims = 3, .shape = {2, 0, 7}, .data = values}};
    const safetensors_note   note = {"format", "pt"};
    assert_int_equal(safetensors_write(file, tensors, 3, &note, 1), ST_OK);
    add_file(r, file);
    make_checkpoint(r);
}

static void make_png(reader *r)
{
    png_writer    *w = NULL;
    const uint8_t  rows[3 * 4 * 2] = {7, 8, 9};
    const png_note note = {"dype-dist", RECIPE};
    assert_int_equal(png_writer_open(&w, &(png_writer_opts){.path = file, .width = 4, .height = 2, .notes = &note, .n_notes = 1,
                                                            .overwrite = true}), ST_OK);
    assert_int_equal(png_writer_rows(w, 2, rows), ST_OK);
    assert_int_equal(png_writer_commit(w), ST_OK);
    add_file(r, file);
}

static void make_jobs(reader *r)
{
    static const char text[] =
        "model: &m models/a\noutput: 'out/{name}-{seed}-{width}x{height}-{method}-{index}.png'\nprecision: fp32\n"
        "parallel: {ulysses: 2, ring: auto, replicas: auto, schedule: neighbour}\ncheckpoint: {every: 3}\n"
        "defaults:\n  steps: 28\n  guidance: 4.5\n  position: {method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 1}\n"
        "  noise: {kind: torch-cuda, sms: 108, threads_per_sm: 2048}\n  shift: 1.15\n"
        "pictures:\n  - &p {name: alps, prompt: \"a \\\"hill\\\" \\u00fc\", prompt_2: b, width: 8192, height: 2048, seeds: [1, -2, 3]}\n"
        "  - {name: city, prompt: 'x', width: 64, height: 64, seed: 18446744073709551615, wrap: horizontal, parity: none,\n"
        "     latents_in: a.safetensors, latents_out: 'o/{name}.safetensors', embeddings_in: e.safetensors, preview_every: 2}\n";
    add_bytes(r, text, sizeof(text) - 1);
    add_file(r, PROJECT_DIR "/jobs/demo.yaml");
    add_file(r, PROJECT_DIR "/jobs/methods.yaml");
}

/* ---- the run */

static volatile long now_at;
static const char   *now_name = "";

static void on_hang(int number)
{
    char text[128];
    (void)number;
    const int n = snprintf(text, sizeof(text), "%s: mutant %ld hangs\n", now_name, now_at);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    _exit(1);
}

static void run(reader *r)
{
    const char  *seed = getenv("DYPE_SEED");
    bytes        mutant = {.data = malloc(ROOM_BYTES)};
    const double began = processes_now();
    long         n_refused = 0, n = 0;
    assert_non_null(mutant.data);
    now_name = r->name;
    signal(SIGALRM, on_hang);
    for (int i = 0; i < r->n_seeds; i++) /* the good ones are good */
        if (r->read(&r->seeds[i]) != ST_OK) fail_msg("%s: good file %d: %s", r->name, i, err_text());
    for (; program_full() ? n < N_FULL : n < N_LEAST || processes_now() - began < SAMPLE_S; n++) {
        now_at = n;
        dice = (seed != NULL ? strtoull(seed, NULL, 10) : 0) * 1000003 + (uint64_t)n * 0x2545f4914f6cdd1dull + (uint64_t)strlen(r->name);
        const bytes *from = &r->seeds[draw((uint32_t)r->n_seeds)];
        memcpy(mutant.data, from->data, from->n);
        mutant.n = from->n;
        for (uint32_t k = draw(4) + 1; k > 0; k--) mutate(&mutant);
        err_clear();
        alarm(HANG_S);
        const status st = r->read(&mutant);
        alarm(0);
        n_refused += st != ST_OK;
        /* A refusal says where: the file, or one in the folder that was opened. */
        if (st != ST_OK && (strstr(err_text(), dir) == NULL || st == ST_FAILED))
            fail_msg("%s: mutant %ld: status %d, \"%s\"", r->name, n, st, err_text());
    }
    print_message("  %s: %ld mutants, %ld refused, %ld accepted or recovered, %.1f s\n", r->name, n, n_refused, n - n_refused,
                  processes_now() - began);
    free(mutant.data);
    for (int i = 0; i < r->n_seeds; i++) free(r->seeds[i].data);
}

static void name_file(const char *name)
{
    snprintf(file, sizeof(file), "%s/%s", dir, name);
}

static void journals(void **state)
{
    reader r = {.name = "journal", .read = read_journal};
    (void)state;
    name_file("a.journal");
    make_journal(&r);
    run(&r);
}

static void checkpoints(void **state)
{
    reader r = {.name = "checkpoint", .read = read_checkpoint};
    (void)state;
    name_file("a.checkpoint");
    make_checkpoint(&r);
    run(&r);
}

static void safetensors_files(void **state)
{
    reader r = {.name = "safetensors", .read = read_safetensors};
    (void)state;
    name_file("a.safetensors");
    make_safetensors(&r);
    run(&r);
}

static void job_files(void **state)
{
    reader r = {.name = "job", .read = read_job};
    (void)state;
    name_file("job.yaml");
    make_jobs(&r);
    run(&r);
}

static void pngs_and_recipes(void **state)
{
    reader png = {.name = "png", .read = read_png}, recipe = {.name = "recipe", .read = read_recipe};
    (void)state;
    nowhere = fopen("/dev/null", "we");
    name_file("a.png");
    make_png(&png);
    run(&png);
    name_file("b.png");
    add_bytes(&recipe, RECIPE, sizeof(RECIPE) - 1);
    run(&recipe);
    fclose(nowhere);
}

static void clip_vocabularies(void **state)
{
    /* small words, each found by merging two before it */
    static const char vocab[] = "{\"!\":0,\"a\":1,\"b\":2,\"c\":3,\"a</w>\":4,\"b</w>\":5,\"c</w>\":6,\"ab\":7,\"ab</w>\":8,\"abc</w>\":9,"
                                "\"<|startoftext|>\":10,\"<|endoftext|>\":11}";
    static const char merges[] = "#version: 0.2\na b\na b</w>\nab c</w>\n";
    reader            v = {.name = "clip vocab.json", .read = read_vocab}, m = {.name = "clip merges.txt", .read = read_merges};
    char              path[2 * TEMPDIR_PATH];
    (void)state;
    name_file("clip");
    assert_int_equal(mkdir(file, 0777), 0);
    snprintf(path, sizeof(path), "%s/clip/merges.txt", dir);
    assert_int_equal(tempdir_write(path, merges), ST_OK);
    add_bytes(&v, vocab, sizeof(vocab) - 1);
    run(&v);
    snprintf(path, sizeof(path), "%s/clip/vocab.json", dir);
    assert_int_equal(tempdir_write(path, vocab), ST_OK);
    add_bytes(&m, merges, sizeof(merges) - 1);
    run(&m);
}

static void sentence_pieces(void **state)
{
    reader r = {.name = "spiece.model", .read = read_t5};
    (void)state;
    name_file("t5");
    assert_int_equal(mkdir(file, 0777), 0);
    add_file(&r, TEST_DIR "/vectors/tiny_spiece.model");
    run(&r);
}

static int open_folder(void **state)
{
    (void)state;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 1); /* files by the hundred thousand, flushed each */
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int close_folder(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journals),         cmocka_unit_test(checkpoints),       cmocka_unit_test(safetensors_files),
        cmocka_unit_test(job_files),        cmocka_unit_test(pngs_and_recipes),  cmocka_unit_test(clip_vocabularies),
        cmocka_unit_test(sentence_pieces),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
