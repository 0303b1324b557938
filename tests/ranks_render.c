/* The picture does not depend on the number of ranks, nor on threads, nor on the strict device; every rank does its share;
 * and these tests would notice if blocks of keys came in another order. */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "latents_file.h"
#include "ops.h"
#include "program.h"
#include "tiny_model.h"

enum { N_TEXT = 45, STEPS = 2, LIMIT_S = 240 };

/* Three sizes: a prime number of tokens in a row, closed to a ring, fewer tiles than 8 ranks, and a wide one that is scaled on one axis. */
static const char JOB[] =
    "model: %c\n"
    "output: '{name}.png'\n"
    "precision: %s\n"
    "parallel: %s\n"
    "defaults: {steps: 2, seed: 3, max_sequence_length: 45, latents_out: '{name}.safetensors', position: {method: yarn, dype: true}}\n"
    "pictures:\n"
    "  - {name: prime, prompt: 'a lake', width: 2096, height: 16, wrap: horizontal}\n"
    "  - {name: few, prompt: 'a hill', width: 96, height: 64}\n"
    "  - {name: wide, prompt: 'a range of mountains', width: 768, height: 128}\n";
static const int N_IMAGE[] = {131, 24, 384};

static char dir[TEMPDIR_PATH];
static char which = 'a'; /* of the tiny models */

static tiny_model model(void)
{
    return tiny_model_get(which);
}

/* Jobs take their model from a folder of that letter. */
static void use_model(char letter)
{
    which = letter;
}

typedef struct variant {
    int         n_ranks, n_threads;
    const char *backend, *isa, *precision, *environment;
    const char *parallel; /* NULL: one ring */
} variant;

static int64_t flops_of(const json_t *events, size_t picture)
{
    int64_t       flops = 0;
    size_t        i;
    const json_t *rank;
    json_array_foreach(json_object_get(json_array_get(events, picture), "ranks"), i, rank)
        flops += json_integer_value(json_object_get(rank, "flops"));
    return flops;
}

/* Renders the three pictures; the "picture" events of the log. */
static json_t *render(const variant *v)
{
    program_run run;
    char        job[TEMPDIR_PATH + 16], log[TEMPDIR_PATH + 16], arguments[256], text[sizeof(JOB) + 96];
    snprintf(job, sizeof(job), "%s/job.yaml", dir);
    snprintf(log, sizeof(log), "%s/log.json", dir);
    snprintf(text, sizeof(text), JOB, which, v->precision, v->parallel != NULL ? v->parallel : "{}");
    assert_int_equal(tempdir_write(job, text), ST_OK);
    remove(log);
    snprintf(arguments, sizeof(arguments), "job.yaml --overwrite --log-json log.json --backend %s --threads %d%s%s",
             v->backend, v->n_threads, v->isa != NULL ? " --isa " : "", v->isa != NULL ? v->isa : "");
    program_start(&run, dir, v->environment, v->n_ranks, LIMIT_S, arguments);
    if (run.exit_code != 0) fail_msg("%d ranks, %s, %s: exit code %d\n%s", v->n_ranks, v->backend, v->parallel != NULL ? v->parallel : "one ring",
                 run.exit_code, run.output);
    program_run_free(&run);
    json_t *events = program_events(log, "picture");
    assert_int_equal(json_array_size(events), 3);
    return events;
}

static const char *text_of(const json_t *events, size_t picture, const char *key)
{
    return json_string_value(json_object_get(json_array_get(events, picture), key));
}

static void assert_same_pictures(const json_t *got, const json_t *want, const char *what)
{
    static const char *const keys[] = {"latents_sha256", "pixels_sha256"};
    for (size_t i = 0; i < 3; i++) {
        if (flops_of(got, i) != flops_of(want, i) || flops_of(got, i) <= 0) /* nothing is done twice, nothing left out */
            fail_msg("%s: operations for picture %zu: got %" PRId64 ", want %" PRId64, what, i, flops_of(got, i), flops_of(want, i));
        for (size_t k = 0; k < 2; k++)
            if (strcmp(text_of(got, i, keys[k]), text_of(want, i, keys[k])) != 0)
                fail_msg("%s: %s of picture %zu: got %s, want %s", what, keys[k], i, text_of(got, i, keys[k]),
                         text_of(want, i, keys[k]));
    }
}

/* Tiles of rows differ by at most one between ranks; keys and values of each row travelled to all other ranks. */
static void assert_shared_work(const json_t *events, int n_ranks, const char *precision)
{
    const tiny_model m = model();
    const int64_t    d = (int64_t)m.transformer.heads * m.transformer.head_dim;
    const int64_t    n_blocks = m.transformer.num_layers + m.transformer.num_single_layers;
    const int64_t    row_bytes = 2 * d * (strcmp(precision, "bf16") == 0 ? 2 : 4);
    for (size_t i = 0; i < 3; i++) {
        const json_t *ranks = json_object_get(json_array_get(events, i), "ranks");
        int64_t       n_rows = 0, sent = 0;
        const int     n_tiles = (N_TEXT + ROW_TILE - 1) / ROW_TILE + (N_IMAGE[i] + ROW_TILE - 1) / ROW_TILE;
        assert_int_equal(json_array_size(ranks), n_ranks);
        for (int rank = 0; rank < n_ranks; rank++) {
            const json_t *figures = json_array_get(ranks, (size_t)rank);
            int64_t       rows = json_integer_value(json_object_get(figures, "rows"));
            int64_t       bytes = json_integer_value(json_object_get(figures, "exchange_bytes"));
            assert_in_range(rows, 0, (n_tiles + n_ranks - 1) / n_ranks * ROW_TILE);
            if (n_ranks <= n_tiles) assert_true(rows > 0);
            if (n_ranks > 1 && rows > 0) assert_true(bytes > 0);
            n_rows += rows;
            sent += bytes;
        }
        assert_int_equal(n_rows, N_TEXT + N_IMAGE[i]);
        assert_int_equal(sent, n_rows * row_bytes * (n_ranks - 1) * n_blocks * STEPS);
    }
}

static const char *const precisions[] = {"bf16", "fp32"};

/* All combinations with --full, a seeded few without. */
static void same_bits_on_any_number_of_ranks(void **state)
{
    static const int         counts[] = {1, 2, 3, 4, 5, 7, 8};
    static const char *const backends[] = {"cpu", "strict"};
    static const char *const isas[] = {NULL, "avx2"};
    enum { N_RANKS = 7, N_COMBINATIONS = N_RANKS * 2 * 2, SAMPLE = 4 };
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        for (unsigned isa = 0; isa < 2; isa++) {
            if (isa == 1 && cpu_isa_best() < ISA_AVX2) continue;
            if (isa == 1 && cpu_isa_best() == ISA_AVX2 && !program_full()) continue; /* the one that was found */
            json_t *want = render(&(variant){1, 1, "cpu", isas[isa], precisions[p], NULL, NULL});
            for (unsigned c = 1; c < N_COMBINATIONS; c++) {
                variant v = {counts[c % N_RANKS], 1 + (int)(c / N_RANKS % 2), backends[c / (2 * N_RANKS)], isas[isa], precisions[p], NULL, NULL};
                char    what[96];
                if (!program_full() && program_draw(100 * p + 10 * isa + c, N_COMBINATIONS) >= SAMPLE) continue;
                snprintf(what, sizeof(what), "%s, %d ranks, %d threads, %s, %s", v.precision, v.n_ranks, v.n_threads,
                         v.backend, v.isa != NULL ? v.isa : "isa as found");
                print_message("  %s\n", what);
                json_t *got = render(&v);
                assert_same_pictures(got, want, what);
                assert_shared_work(got, v.n_ranks, v.precision);
                json_decref(got);
            }
            json_decref(want);
        }
    }
}

static void every_count_of_ranks_shares_the_work(void **state)
{
    (void)state;
    json_t *want = render(&(variant){1, 1, "cpu", NULL, "fp32", NULL, NULL});
    for (int n = 2; n <= 8; n += 3) {
        char what[32];
        snprintf(what, sizeof(what), "%d ranks", n);
        json_t *got = render(&(variant){n, 1, "cpu", NULL, "fp32", NULL, NULL});
        assert_same_pictures(got, want, what);
        assert_shared_work(got, n, "fp32");
        json_decref(got);
    }
    json_decref(want);
}

/* Every grid of up to 8 ranks that five heads allow: ulysses of 2, 3 and 4 ranks share them unevenly. */
static const struct {
    int         n_ranks;
    const char *parallel;
} GRIDS[] = {
    {2, "{ulysses: 2}"}, {3, "{ulysses: 3}"}, {4, "{ulysses: 2, ring: 2}"}, {5, "{ulysses: 5, ring: 1}"},
    {4, "{ulysses: 4}"}, {6, "{ulysses: 2, ring: 3}"}, {6, "{ulysses: 3, ring: 2}"}, {8, "{ulysses: 4, ring: 2}"},
    {8, "{ulysses: 2, ring: 4}"},
};

static void every_grid_gives_the_same_bits(void **state)
{
    enum { N_GRIDS = sizeof(GRIDS) / sizeof(GRIDS[0]), SAMPLE = 3 };
    (void)state;
    use_model('c');
    for (unsigned p = 0; p < 2; p++) {
        json_t *want = render(&(variant){1, 1, "cpu", NULL, precisions[p], NULL, NULL});
        for (unsigned g = 0; g < N_GRIDS; g++)
            for (int b = 0; b < 2; b++) { /* cpu with 2 threads, strict with 1 */
                const variant v = {GRIDS[g].n_ranks, 2 - b, b == 0 ? "cpu" : "strict", NULL, precisions[p], NULL,
                                   GRIDS[g].parallel};
                char what[96];
                if (!program_full() && program_draw(1000 + 100 * p + 10 * (unsigned)b + g, N_GRIDS) >= SAMPLE) continue;
                snprintf(what, sizeof(what), "%s, %d ranks, %s, %s", v.precision, v.n_ranks, v.parallel, v.backend);
                print_message("  %s\n", what);
                json_t *got = render(&v);
                assert_same_pictures(got, want, what);
                json_decref(got);
            }
        json_decref(want);
    }
    use_model('a');
}

/* Largest difference of a picture's latent from the one in `want`, in units of the latent's root mean square; what was
 * written last stays in *want when it is NULL. */
static double compare_latents(const char *name, int32_t n_rows, int32_t width, float **want)
{
    char    path[TEMPDIR_PATH + 32];
    float  *got = NULL;
    double  worst = 0, square = 0;
    snprintf(path, sizeof(path), "%s/%s.safetensors", dir, name);
    assert_int_equal(latents_file_read(&got, path, "latents", n_rows, width, NULL), ST_OK);
    if (*want == NULL) {
        *want = got;
        return 0;
    }
    for (int64_t i = 0; i < (int64_t)n_rows * width; i++) {
        const double difference = fabs((double)got[i] - (double)(*want)[i]);
        if (!(difference <= worst)) worst = difference;
        square += (double)(*want)[i] * (double)(*want)[i];
    }
    free(got);
    return worst / sqrt(square / ((double)n_rows * width));
}

/* The classic ring adds up the same terms in another order on each rank. In fp32 a sum of a few hundred keys moves by some
 * 1e-6 of itself at most, and 8 blocks and steps do not amplify that a hundredfold: 1e-4. That it does move shows that the
 * schedule is another one; bytes are those of the ordered ring. */
static void the_classic_ring_stays_close(void **state)
{
    static const char *const names[] = {"prime", "few", "wide"};
    static const char *const grids[] = {"{schedule: neighbour}", "{ulysses: 2, schedule: neighbour}"};
    float *want[3] = {NULL};
    (void)state;
    json_t *ordered = render(&(variant){4, 1, "cpu", NULL, "fp32", NULL, NULL});
    for (int i = 0; i < 3; i++) compare_latents(names[i], N_IMAGE[i], model().transformer.in_channels, &want[i]);
    for (int g = 0; g < 2; g++) {
        json_t *got = render(&(variant){4, 1, "cpu", NULL, "fp32", NULL, grids[g]});
        for (int i = 0; i < 3; i++) {
            const double worst = compare_latents(names[i], N_IMAGE[i], model().transformer.in_channels, &want[i]);
            print_message("  %s %s: %.1e\n", names[i], grids[g], worst);
            assert_true(worst <= 1e-4);
        }
        assert_string_not_equal(text_of(got, 2, "latents_sha256"), text_of(ordered, 2, "latents_sha256"));
        if (g == 0) assert_shared_work(got, 4, "fp32");
        json_decref(got);
    }
    for (int i = 0; i < 3; i++) free(want[i]);
    json_decref(ordered);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(json_string_value(json_object_get(*(json_t *const *)a, "picture")),
                  json_string_value(json_object_get(*(json_t *const *)b, "picture")));
}

/* Pictures end in any order: sorted by name. */
static json_t *sorted(json_t *events)
{
    json_t *list[3], *out = json_array();
    for (size_t i = 0; i < 3; i++) list[i] = json_incref(json_array_get(events, i));
    qsort(list, 3, sizeof(list[0]), by_name);
    for (size_t i = 0; i < 3; i++) json_array_append_new(out, list[i]);
    json_decref(events);
    return out;
}

/* Each picture is rendered once, by whichever replica is free, and is the same as alone; a picture's ranks are those of
 * its replica. */
static void replicas_share_the_pictures(void **state)
{
    static const struct {
        int         n_ranks, replica_ranks;
        const char *parallel;
    } cases[] = {{2, 1, "{replicas: 2}"}, {4, 2, "{replicas: 2, ulysses: 2}"}, {5, 1, "{replicas: 5}"}, {6, 2, "{replicas: 3}"}};
    (void)state;
    json_t *want = sorted(render(&(variant){1, 1, "cpu", NULL, "bf16", NULL, NULL}));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *got = sorted(render(&(variant){cases[i].n_ranks, 1, "cpu", NULL, "bf16", NULL, cases[i].parallel}));
        assert_same_pictures(got, want, cases[i].parallel);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(json_array_size(json_object_get(json_array_get(got, k), "ranks")), cases[i].replica_ranks);
        json_decref(got);
    }
    json_decref(want);
}

/* What the job file cannot have: said before anything is loaded, with what was found and what there is. */
static void a_grid_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        int         n_ranks;
        const char *parallel, *says;
    } cases[] = {
        {3, "{ulysses: 2}", "replicas 1 x ulysses 2 x ring 1: got 2 ranks, mpirun started 3"},
        {4, "{ulysses: 2, ring: 3}", "replicas 1 x ulysses 2 x ring 3: got 6 ranks, mpirun started 4"},
        {3, "{ulysses: 3}", "ulysses: got 3, at most 2, the heads of this model"},
    };
    char job[TEMPDIR_PATH + 16], text[sizeof(JOB) + 96];
    (void)state;
    snprintf(job, sizeof(job), "%s/job.yaml", dir);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        program_run run;
        snprintf(text, sizeof(text), JOB, which, "fp32", cases[i].parallel);
        assert_int_equal(tempdir_write(job, text), ST_OK);
        program_start(&run, dir, NULL, cases[i].n_ranks, LIMIT_S, "job.yaml");
        if (run.exit_code != ST_BAD_JOB || strstr(run.output, cases[i].says) == NULL)
            fail_msg("%s: exit code %d\n%s", cases[i].parallel, run.exit_code, run.output);
        program_run_free(&run);
    }
}

static void blocks_in_another_order_are_noticed(void **state)
{
    (void)state;
    json_t *want = render(&(variant){3, 1, "cpu", NULL, "fp32", NULL, NULL});
    json_t *got = render(&(variant){3, 1, "cpu", NULL, "fp32", "DYPE_TEST_REVERSE_BLOCKS=1", NULL});
    assert_string_not_equal(text_of(got, 2, "latents_sha256"), text_of(want, 2, "latents_sha256"));
    json_decref(got);
    json_decref(want);
}

/* Rows of the image are dumped by ranks that have some, and here they cannot be: the others are in the middle of the
 * same step and must not wait for them for ever. */
static void a_rank_that_fails_inside_a_step_leaves_with_all(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "strict"};
    char path[TEMPDIR_PATH + 16], text[sizeof(JOB) + 96], arguments[128];
    snprintf(path, sizeof(path), "%s/dumps", dir);
    assert_int_equal(tempdir_write(path, "a file where a folder is wanted\n"), ST_OK);
    snprintf(path, sizeof(path), "%s/job.yaml", dir);
    snprintf(text, sizeof(text), JOB, which, "fp32", "{}");
    assert_int_equal(tempdir_write(path, text), ST_OK);
    for (size_t i = 0; i < 2; i++) {
        program_run run;
        snprintf(arguments, sizeof(arguments), "job.yaml --overwrite --threads 1 --backend %s --dump dit.1.image@0",
                 backends[i]);
        program_start(&run, dir, NULL, 3, 60, arguments);
        if (run.exit_code != ST_OUTPUT || strstr(run.output, "3 of 3 pictures failed") == NULL)
            fail_msg("%s: exit code %d\n%s", backends[i], run.exit_code, run.output);
        program_run_free(&run);
    }
    snprintf(path, sizeof(path), "%s/dumps", dir);
    remove(path);
}

static int open_folder(void **state)
{
    (void)state;
    if (tempdir_open(dir) != ST_OK) return -1;
    for (const char *letter = "ac"; *letter != '\0'; letter++) {
        char       path[TEMPDIR_PATH + 16];
        tiny_model m = tiny_model_get(*letter);
        snprintf(path, sizeof(path), "%s/%c", dir, *letter);
        if (mkdir(path, 0777) == 0 && tiny_model_write(&m, TINY_ALL, path) == ST_OK) continue;
        print_error("%s\n", err_text());
        return -1;
    }
    return 0;
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
        cmocka_unit_test(every_count_of_ranks_shares_the_work),
        cmocka_unit_test(blocks_in_another_order_are_noticed),
        cmocka_unit_test(a_rank_that_fails_inside_a_step_leaves_with_all),
        cmocka_unit_test(a_grid_that_does_not_fit_is_refused),
        cmocka_unit_test(the_classic_ring_stays_close),
        cmocka_unit_test(replicas_share_the_pictures),
        cmocka_unit_test(every_grid_gives_the_same_bits),
        cmocka_unit_test(same_bits_on_any_number_of_ranks),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
