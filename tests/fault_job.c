/* A broken job file ends with its exit code and a message that names the place, what was found and what is allowed.
 * Nothing crashes: neither on the files below nor on thousands of damaged ones (run under the sanitizers too). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "job.h"

#define TOP "model: m\n"
#define SIZE "width: 64, height: 32"
#define GOOD "pictures: [{name: a, prompt: p, " SIZE "}]\n"
/* What a test adds stands in line 2, column ADDED. */
#define WITH(more) TOP "pictures: [{name: a, prompt: p, " SIZE ", " more "}]\n"
enum { ADDED = sizeof("pictures: [{name: a, prompt: p, " SIZE ", ") };

typedef struct broken {
    const char *text;
    int line, column;
    const char *found; /* in the message, right behind the place or later */
} broken;

static const broken files[] = {
    /* The file as a whole */
    {"", 1, 1, "found an empty file"},
    {"# only a comment\n", 1, 1, "found an empty file"},
    {"---\n...\n", 1, 1, "found an empty file"},
    {"just words\n", 1, 1, "found just words where a job belongs; allowed: a mapping"},
    {"- a\n- b\n", 1, 1, "found a list where a job belongs"},
    {TOP GOOD "---\n" TOP GOOD, 3, 1, "found a second document"},
    {TOP "pictures:\n\t- {name: a}\n", 3, 1, "found a tab; allowed: spaces"},
    {TOP "defaults:\n  \tsteps: 4\n" GOOD, 3, 3, "found a tab"},
    {TOP "# caf\xe9\n" GOOD, 2, 6, "found byte 0xE9, which is not UTF-8"},
    {TOP "# \xc0\xaf\n" GOOD, 2, 3, "found byte 0xC0, which is not UTF-8"},
    {TOP "# \xc3\xa9 \xed\xa0\x80\n" GOOD, 2, 5, "found byte 0xED, which is not UTF-8"},
    {TOP "# end \xe2\x82", 2, 7, "found byte 0xE2, which is not UTF-8"},
    {TOP "# bell \a\n" GOOD, 2, 8, "found character U+0007, which YAML forbids"},
    {TOP "# \xef\xbb\xbf\n" GOOD, 2, 3, "found character U+FEFF, which YAML forbids"},
    {"\xff\xfem\0o\0", 1, 1, "found UTF-16 text; allowed: UTF-8"},
    {"\xfe\xff\0m", 1, 1, "found UTF-16 text"},

    /* YAML */
    {TOP "pictures: [{name: a\n", 3, 1, "not YAML: did not find expected ',' or '}'"},
    {TOP "output: out/{name}.png: x\n", 2, 23, "a text with a colon and a space in it needs quotes"},
    {WITH("prompt_2: a {red} sun"), 2, ADDED + 12, "needs quotes here"},
    {TOP "pictures: \"unclosed\n", 3, 1, "not YAML: found unexpected end of stream"},
    {TOP "defaults: {prompt: \"\\q\"}\n", 2, 21, "not YAML: found unknown escape character"},
    {TOP "precision: @bf16\n", 2, 12, "not YAML: found character that cannot start any token"},
    {TOP "defaults: *nobody\n" GOOD, 2, 11, "found alias *nobody; allowed: an alias of an anchor"},
    {TOP "defaults: &d {position: *d}\n" GOOD, 2, 25, "found an alias inside the very thing that it names"},
    {TOP "defaults: {<<: {steps: 3}}\n" GOOD, 2, 12, "found a merge key (<<)"},
    {TOP "defaults: {[a]: 3}\n" GOOD, 2, 12, "found a list or a mapping where a key belongs"},
    {WITH("steps: !!int 4"), 2, ADDED + 7, "found a YAML tag"},
    {WITH("prompt_2: \"a\\0b\""), 2, ADDED + 10, "found a zero byte (\\0) in a text"},

    /* Keys */
    {TOP "precison: bf16\n" GOOD, 2, 1,
     "found unknown key precison in a job; nearest known key: precision; allowed: model,"},
    {WITH("widht: 3"), 2, ADDED, "found unknown key widht in a picture; nearest known key: width; allowed: name,"},
    {TOP "defaults: {Steps: 3}\n" GOOD, 2, 12, "found unknown key Steps in defaults; nearest known key: steps"},
    {TOP "parallel: {rings: 3}\n" GOOD, 2, 12, "found unknown key rings in parallel; nearest known key: ring"},
    {TOP "checkpoint: {evry: 3}\n" GOOD, 2, 14, "found unknown key evry in checkpoint; nearest known key: every"},
    {WITH("position: {metod: pi}"), 2, ADDED + 11, "found unknown key metod in position; nearest known key: method"},
    {WITH("noise: {kind: counter, sm: 3}"), 2, ADDED + 23, "found unknown key sm in noise; nearest known key: sms"},
    {WITH("zebra: 3"), 2, ADDED, "found unknown key zebra in a picture; allowed: name,"},
    {TOP TOP GOOD, 2, 1, "found key model a second time; allowed: once (its first value is in line 1)"},
    {WITH("steps: 3, steps: 3"), 2, ADDED + 10, "found key steps a second time"},
    {WITH("position: {dype: true, dype: true}"), 2, ADDED + 23, "found key position.dype a second time"},
    {WITH("negative_prompt: ugly"), 2, ADDED, "negative_prompt: not supported"},
    {TOP "defaults: {true_cfg_scale: 4}\n" GOOD, 2, 12, "true_cfg_scale: not supported"},
    {WITH("num_inference_steps: 4"), 2, ADDED, "nearest known key: steps"},
    {WITH("guidance_scale: 4"), 2, ADDED, "nearest known key: guidance"},
    {TOP "defaults: {name: a}\n" GOOD, 2, 12, "found name in defaults; allowed: in a picture"},
    {TOP "width: 64\n" GOOD, 2, 1, "found a key of a picture at the top"},

    /* What is missing */
    {GOOD, 1, 1, "found no model; allowed: model:"},
    {TOP, 1, 1, "found no pictures"},
    {TOP "pictures: []\n", 2, 11, "pictures: found an empty list; allowed: a list of at least one picture"},
    {TOP "pictures:\n", 2, 10, "pictures: found nothing"},
    {TOP "pictures: {name: a}\n", 2, 11, "pictures: found a mapping"},
    {TOP "pictures: [a]\n", 2, 12, "found a where a picture belongs"},
    {TOP "pictures: [{prompt: p, " SIZE "}]\n", 2, 12, "found a picture without name"},
    {TOP "pictures: [{name: a, " SIZE "}]\n", 2, 12,
     "found a picture without prompt; allowed: prompt: ..., here or in"},
    {TOP "pictures: [{name: a, prompt: p, height: 64}]\n", 2, 12, "found a picture without width"},
    {TOP "pictures: [{name: a, prompt: p, width: 64}]\n", 2, 12, "found a picture without height"},
    {TOP "defaults:\n" GOOD, 2, 10, "found nothing where defaults belongs"},
    {TOP "parallel: auto\n" GOOD, 2, 11, "found auto where parallel belongs; allowed: a mapping"},
    {"model:\n" GOOD, 1, 7, "model: found nothing; allowed: a path"},
    {"model: [a]\n" GOOD, 1, 8, "model: found a list; allowed: a path"},
    {"model: ~/flux\n" GOOD, 1, 8, "(~ is not replaced)"},
    {TOP "pictures: [{name: a, prompt: , " SIZE "}]\n", 2, 30,
     "prompt: found nothing; allowed: a text (\"\" is the empty one)"},
    {TOP "pictures: [{name: a, prompt: null, " SIZE "}]\n", 2, 30, "prompt: found nothing"},
    {TOP "pictures: [{name: a, prompt: [p], " SIZE "}]\n", 2, 30, "prompt: found a list"},

    /* Sizes */
    {TOP "pictures: [{name: a, prompt: p, width: 1000, height: 64}]\n", 2, 40,
     "width: found 1000; allowed: multiples of 16; the nearest are 992 and 1008"},
    {TOP "pictures: [{name: a, prompt: p, width: 64, height: 4095}]\n", 2, 52, "the nearest are 4080 and 4096"},
    {TOP "pictures: [{name: a, prompt: p, width: 0, height: 64}]\n", 2, 40,
     "width: found 0; allowed: a multiple of 16 from 16 to"},
    {TOP "pictures: [{name: a, prompt: p, width: 8, height: 64}]\n", 2, 40,
     "width: found 8; allowed: a multiple of 16 from 16 to"},
    {TOP "pictures: [{name: a, prompt: p, width: -64, height: 64}]\n", 2, 40, "width: found -64"},
    {TOP "pictures: [{name: a, prompt: p, width: 65552, height: 64}]\n", 2, 40, "from 16 to 65536"},
    {TOP "pictures: [{name: a, prompt: p, width: 99999999999999999999, height: 64}]\n", 2, 40, "from 16 to 65536"},
    {TOP "pictures: [{name: a, prompt: p, width: 64.0, height: 64}]\n", 2, 40, "width: found 64.0"},
    {TOP "pictures: [{name: a, prompt: p, width: \"64\", height: 64}]\n", 2, 40,
     "(text: numbers stand without quotes)"},
    {TOP "pictures: [{name: a, prompt: p, width: 0x40, height: 64}]\n", 2, 40, "width: found 0x40 (hexadecimal)"},
    {TOP "pictures: [{name: a, prompt: p, width: 0o100, height: 64}]\n", 2, 40, "width: found 0o100 (octal or binary)"},
    {TOP "pictures: [{name: a, prompt: p, width: 0100, height: 64}]\n", 2, 40,
     "(a leading zero means octal to some readers)"},
    {TOP "pictures: [{name: a, prompt: p, width: 1_024, height: 64}]\n", 2, 40, "(underscores)"},
    {TOP "pictures: [{name: a, prompt: p, width: true, height: 64}]\n", 2, 40, "width: found true"},

    /* Names, seeds, numbers, words */
    {TOP "pictures: [{name: a/b, prompt: p, " SIZE "}]\n", 2, 19, "name: found a/b; allowed: 1 to 200 of the letters"},
    {TOP "pictures: [{name: '', prompt: p, " SIZE "}]\n", 2, 19, "name: found \"\""},
    {TOP "pictures: [{name: .., prompt: p, " SIZE "}]\n", 2, 19, "name: found ..; allowed: any other name"},
    {TOP "pictures: [{name: \xc3\xa9t\xc3\xa9, prompt: p, " SIZE "}]\n", 2, 19,
     "name: found \xc3\xa9t\xc3\xa9; allowed:"},
    {TOP "pictures: [{name: ~, prompt: p, " SIZE "}]\n", 2, 19, "name: found nothing"},
    {WITH("seed: 1, seeds: [2]"), 2, ADDED + 16, "found seeds together with seed"},
    {WITH("seed: 18446744073709551616"), 2, ADDED + 6, "seed: found 18446744073709551616; allowed: an integer from"},
    {WITH("seed: -9223372036854775809"), 2, ADDED + 6, "seed: found -9223372036854775809"},
    {WITH("seed: 1.5"), 2, ADDED + 6, "seed: found 1.5"},
    {WITH("seeds: []"), 2, ADDED + 7, "seeds: found an empty list"},
    {WITH("seeds: 3"), 2, ADDED + 7,
     "seeds: found 3; allowed: a list of at least one integer, as [1, 2, 3] (one alone is"},
    {WITH("seeds: [1, x, 3]"), 2, ADDED + 11, "seeds: found x; allowed: an integer"},
    {WITH("seeds: [7, 8, 7]"), 2, 12, "found id a-7 a second time"},
    {WITH("steps: 0"), 2, ADDED + 7, "steps: found 0; allowed: an integer from 1 to 1000"},
    {WITH("steps: 28.5"), 2, ADDED + 7, "steps: found 28.5"},
    {WITH("guidance: .nan"), 2, ADDED + 10,
     "guidance: found .nan (not a finite number); allowed: a number from 0 to 100"},
    {WITH("guidance: -.inf"), 2, ADDED + 10, "guidance: found -.inf (not a finite number)"},
    {WITH("guidance: 1e999"), 2, ADDED + 10, "guidance: found 1e999"},
    {WITH("guidance: -1"), 2, ADDED + 10, "guidance: found -1"},
    {WITH("max_sequence_length: 513"), 2, ADDED + 21, "allowed: an integer from 1 to 512"},
    {WITH("preview_every: -1"), 2, ADDED + 15, "preview_every: found -1"},
    {WITH("wrap: horizontl"), 2, ADDED + 6, "wrap: found horizontl; allowed: none, horizontal; nearest: horizontal"},
    {WITH("parity: torch"), 2, ADDED + 8, "parity: found torch; allowed: none, diffusers"},
    {TOP "precision: fp16\n" GOOD, 2, 12, "precision: found fp16; allowed: bf16, fp32; nearest: bf16"},
    {TOP "parallel: {ulysses: 0}\n" GOOD, 2, 21, "parallel.ulysses: found 0; allowed: auto, or an integer from 1"},
    {TOP "parallel: {schedule: order}\n" GOOD, 2, 22, "parallel.schedule: found order; allowed: ordered, neighbour"},
    {TOP "checkpoint: {every: often}\n" GOOD, 2, 21, "checkpoint.every: found often"},

    /* position, shift, noise */
    {WITH("position: yarn"), 2, ADDED + 10, "found yarn where position belongs; allowed: a mapping"},
    {WITH("position: {method: yarm}"), 2, ADDED + 19, "allowed: base, pi, ntk, yarn, time-aware; nearest: yarn"},
    {WITH("position: {dype: yes}"), 2, ADDED + 17, "position.dype: found yes; allowed: true or false"},
    {WITH("position: {method: base, dype: true}"), 2, ADDED + 31, "false (method base has no dynamic form"},
    {WITH("position: {method: ntk, variant: v1}"), 2, ADDED + 33,
     "position.variant: found v1; allowed for method ntk with dype: true: official, ablate-exp, ablate-mult"},
    {WITH("position: {dype: false, variant: v1}"), 2, ADDED + 33,
     "allowed for method yarn with dype: false: official, paper, paper-L1024, fit2"},
    {WITH("position: {method: time-aware, variant: official}"), 2, ADDED + 40, "switch, continuous"},
    {TOP "defaults: {position: {variant: v1}}\n"
         "pictures: [{name: a, prompt: p, " SIZE ", position: {dype: false}}]\n",
     3, 66, "position.variant: found v1 (from defaults)"},
    {WITH("position: {lambda_s: -1}"), 2, ADDED + 21, "position.lambda_s: found -1; allowed: auto, or a number from 0"},
    {WITH("position: {lambda_t: auto}"), 2, ADDED + 21,
     "position.lambda_t: found auto; allowed: a number from 0 to 1000"},
    {WITH("position: {base_resolution: 1000}"), 2, ADDED + 28, "the nearest are 992 and 1008"},
    {WITH("shift: dyp"), 2, ADDED + 7, "shift: found dyp; allowed: dype, stock, or a number"},
    {WITH("shift: 1e3"), 2, ADDED + 7, "shift: found 1e3"},
    {WITH("noise: torch-gpu"), 2, ADDED + 7,
     "noise: found torch-gpu; allowed: torch-cpu, torch-cpu-legacy, counter, torch-cuda;"},
    {WITH("noise: {sms: 132}"), 2, ADDED + 7, "noise: found no `kind`"},
    {WITH("noise: {kind: counter, sms: 132}"), 2, ADDED + 28, "sms and threads_per_sm with torch-cuda only"},
    {WITH("noise: {kind: torch-cuda, threads_per_sm: 128}"), 2, ADDED + 42, "an integer from 256 to 4096"},

    /* Paths */
    {TOP "output: o/{nam}.png\n" GOOD, 2, 9,
     "output: found unknown placeholder {nam}; nearest: {name}; allowed: {name} {seed}"},
    {TOP "output: o/{}.png\n" GOOD, 2, 9, "output: found unknown placeholder {}"},
    {TOP "output: 'o/{name.png'\n" GOOD, 2, 9, "every { closed by a }"},
    {TOP "output: 'o/name}.png'\n" GOOD, 2, 9, "every } opened by a {"},
    {TOP "output: o/{name}.jpg\n" GOOD, 2, 9, "output: found o/{name}.jpg; allowed: a path that ends in .png"},
    {TOP "output: .png\n" GOOD, 2, 9, "a path that ends in .png"},
    {TOP "output: o/one.png\ndefaults: {prompt: p, " SIZE "}\npictures: [{name: a}, {name: b}]\n", 4, 23,
     "found output file o/one.png a second time; allowed: once (the first is of the picture in line 4)"},
    {TOP "output: o/{name}/../x.png\ndefaults: {prompt: p, " SIZE "}\npictures: [{name: a}, {name: b}]\n", 4, 23,
     "found output file o/x.png a second time"},
    {TOP "defaults: {prompt: p, " SIZE "}\npictures: [{name: a}, {name: a}]\n", 3, 23, "found id a a second time"},
    {TOP "defaults: {prompt: p, " SIZE "}\npictures: [{name: a-1}, {name: a, seeds: [1]}]\n", 3, 25,
     "found id a-1 a second time"},
    {TOP "defaults: {prompt: p, " SIZE ", latents_out: l.safetensors}\npictures: [{name: a}, {name: b}]\n", 3, 23,
     "found latents_out file l.safetensors a second time"},
    {WITH("latents_out: l.npy"), 2, ADDED + 13, "latents_out: found l.npy; allowed: a path that ends in .safetensors"},
    {WITH("latents_in: ''"), 2, ADDED + 12, "latents_in: found \"\"; allowed: a path"},
};
enum { N_FILES = sizeof(files) / sizeof(files[0]) };

static size_t length_of(const broken *b)
{
    return strncmp(b->text, "\xff\xfe", 2) == 0 ? 5 : strncmp(b->text, "\xfe\xff", 2) == 0 ? 4 : strlen(b->text);
}

static void every_broken_file_is_told_with_its_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        const broken *b = &files[i];
        char place[64];
        job *j = NULL;
        snprintf(place, sizeof(place), "jobs/t.yaml:%d:%d: ", b->line, b->column);
        err_clear();
        status st = job_parse(&j, "jobs/t.yaml", b->text, length_of(b), NULL);
        if (st != ST_BAD_JOB) fail_msg("%s: status %d", b->text, st);
        assert_null(j);
        const char *told = strstr(err_text(), place);
        if (told == NULL || strstr(told, b->found) == NULL)
            fail_msg("file %zu:\n%s\ngot:  %s\nwant: %s%s", i, b->text, err_text(), place, b->found);
        if (strchr(err_text(), '\n') != NULL) fail_msg("file %zu: one mistake told as several:\n%s", i, err_text());
    }
    assert_true(N_FILES >= 50);
}

static void all_mistakes_of_a_file_are_told_in_order(void **state)
{
    (void)state;
    static const char text[] = "modell: m\n"
                               "defaults: {steps: 0}\n"
                               "pictures:\n"
                               "  - {name: a, prompt: p, width: 10, height: 64, seeds: [x, y]}\n"
                               "  - {name: b, prompt: p, " SIZE "}\n"
                               "  - {name: b, prompt: p, " SIZE ", shift: no}\n";
    static const char *const places[] = {
        ":1:1: found unknown key modell", ":1:1: found no model",  ":2:19: steps", ":4:33: width",
        ":4:57: seeds: found x",          ":4:60: seeds: found y", ":6:56: shift"};
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, strlen(text), NULL), ST_BAD_JOB);
    const char *rest = err_text();
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *at = strstr(rest, places[i]);
        if (at == NULL) fail_msg("%s missing or out of order in\n%s", places[i], err_text());
        rest = at + 1;
    }
}

static void a_flood_of_mistakes_is_counted(void **state)
{
    (void)state;
    static char text[200000] = TOP "pictures:\n";
    size_t used = strlen(text);
    for (int i = 0; i < 5000; i++)
        used += (size_t)sprintf(text + used, "- {nam%d: x}\n", i);
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, used, NULL), ST_BAD_JOB);
    /* Each of the 5000 entries: an unknown key, and name, prompt, width and height missing. */
    const char *more = strstr(err_text(), "... and ");
    assert_non_null(more);
    int n_told = 0;
    for (const char *c = err_text(); *c != '\0'; c++)
        n_told += *c == '\n';
    assert_int_equal(n_told + atoi(more + strlen("... and ")), 25000);
}

/* Nine levels of nine aliases each: 9^9 values if written out. */
static void aliases_cannot_multiply_without_end(void **state)
{
    (void)state;
    char text[2048] = TOP "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
    size_t used = strlen(text);
    for (int i = 1; i < 9; i++) {
        used += (size_t)sprintf(text + used, "x%d: &x%d [", i, i);
        for (int k = 0; k < 9; k++)
            used += (size_t)sprintf(text + used, "%s*x%d", k > 0 ? ", " : "", i - 1);
        used += (size_t)sprintf(text + used, "]\n");
    }
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, used, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "t:8:"));
    assert_non_null(strstr(err_text(), "found more values than the 1000000 that are allowed"));
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    char text[20000] = TOP "pictures: ";
    size_t used = strlen(text);
    memset(text + used, '[', sizeof(text) - used - 1);
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, strlen(text), NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "t:2:42: found lists and mappings nested more than 32 deep"));
}

static void too_many_anchors_are_refused(void **state)
{
    (void)state;
    static char text[40000] = TOP "pictures:\n";
    size_t used = strlen(text);
    for (int i = 0; i <= 1000; i++)
        used += (size_t)sprintf(text + used, "- &a%d {}\n", i);
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, used, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "t:1003:3: found more than 1000 anchors"));
}

/* n seeds over n_pictures entries; the caller frees. */
static char *many_seeds(int n_pictures, int n_seeds, size_t *used)
{
    char *text = malloc((size_t)n_pictures * (64 + 8 * (size_t)n_seeds) + 256);
    assert_non_null(text);
    *used = (size_t)sprintf(text, TOP "defaults: {prompt: p, " SIZE "}\npictures:\n");
    for (int i = 0; i < n_pictures; i++) {
        *used += (size_t)sprintf(text + *used, "- {name: p%d, seeds: [0", i);
        for (int s = 1; s < n_seeds; s++)
            *used += (size_t)sprintf(text + *used, ", %d", s);
        *used += (size_t)sprintf(text + *used, "]}\n");
    }
    return text;
}

static void seed_lists_are_bounded(void **state)
{
    (void)state;
    static const struct {
        int n_pictures, n_seeds;
        const char *message; /* NULL: good */
    } rows[] = {
        {1, 100000, NULL},
        {1, 100001, "t:4:21: seeds: found 100001; allowed: at most 100000"},
        {2, 50001, "t:5:3: found picture number 100001; allowed: at most 100000 in a job"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t used = 0;
        char *text = many_seeds(rows[i].n_pictures, rows[i].n_seeds, &used);
        job *j = NULL;
        status st = job_parse(&j, "t", text, used, NULL);
        free(text);
        assert_int_equal(st, rows[i].message == NULL ? ST_OK : ST_BAD_JOB);
        if (st == ST_OK)
            assert_int_equal(j->n_pictures, 100000);
        else if (strstr(err_text(), rows[i].message) == NULL)
            fail_msg("got %s, want %s", err_text(), rows[i].message);
        job_close(j);
    }
}

static void long_paths_are_refused(void **state)
{
    (void)state;
    static const char text[] = TOP "output: o/{name}{name}.png\n"
                                   "pictures: [{name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, "
                                   "prompt: p, " SIZE "}]\n";
    job *j = NULL;
    assert_int_equal(job_parse(&j, "t", text, strlen(text), NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "t:3:12: output: found a path that is too long once filled in"));

    char long_text[8192] = TOP "output: ";
    size_t used = strlen(long_text);
    while (used < 4200)
        used += (size_t)sprintf(long_text + used, "folder/");
    sprintf(long_text + used, "x.png\n" GOOD);
    assert_int_equal(job_parse(&j, "t", long_text, strlen(long_text), NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "too long"));
}

static void what_is_no_file_is_told(void **state)
{
    (void)state;
    char folder[] = "/tmp/fault_job_XXXXXX", path[64];
    job *j = NULL;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(job_open(&j, folder, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "found a folder; allowed: a job file"));
    snprintf(path, sizeof(path), "%s/none.yaml", folder);
    assert_int_equal(job_open(&j, path, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "none.yaml: cannot open the job file: No such file or directory"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(job_open(&j, path, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "found a device or pipe"));
    unlink(path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), JOB_FILE_BYTES_MAX + 1), 0);
    fclose(f);
    assert_int_equal(job_open(&j, path, NULL), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "found 16777217 bytes; allowed: at most 16777216 in a job file"));
    unlink(path);
    rmdir(folder);
    assert_null(j);
}

/* SplitMix64: the same damage on every run. */
static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* One to four bytes changed, removed, doubled or cut off. Most damage lands in letters that mean something to YAML. */
static size_t damage(char *text, size_t n, size_t room, uint64_t *seed)
{
    static const char sharp[] = "{}[],:&*!|>'\"%@`#-?\n\r\t \\~<.0x\xff\xef\xbb\xbf";
    size_t n_edits = 1 + next_random(seed) % 4;
    for (size_t e = 0; e < n_edits && n > 1; e++) {
        size_t at = next_random(seed) % n;
        switch (next_random(seed) % 6) {
        case 0:
            text[at] = (char)next_random(seed);
            break;
        case 1:
        case 2:
            text[at] = sharp[next_random(seed) % (sizeof(sharp) - 1)];
            break;
        case 3:
            memmove(text + at, text + at + 1, n - at - 1);
            n--;
            break;
        case 4: /* a piece twice */
        {
            size_t piece = 1 + next_random(seed) % 40;
            if (piece > n - at) piece = n - at;
            if (n + piece > room) break;
            memmove(text + at + piece, text + at, n - at);
            n += piece;
            break;
        }
        default:
            if (next_random(seed) % 8 == 0) n = at;
            break;
        }
    }
    return n;
}

static void damaged_files_never_crash(void **state)
{
    (void)state;
    enum { N_ROUNDS = 4000, ROOM = 4096 };
    static const char good[] =
        "model: ../models/FLUX.1-Krea-dev    # folder\n"
        "output: outputs/{name}-{seed}.png\n"
        "precision: bf16\n"
        "parallel: {ulysses: auto, ring: auto, replicas: auto, schedule: ordered}\n"
        "checkpoint: {every: 4}\n"
        "defaults:\n"
        "  steps: 28\n"
        "  guidance: 4.5\n"
        "  seed: 0\n"
        "  position: &p {method: yarn, dype: true, variant: official, lambda_s: auto, lambda_t: 2}\n"
        "  shift: dype\n"
        "  noise: {kind: torch-cuda, sms: 132, threads_per_sm: 2048}\n"
        "pictures:\n"
        "  - {name: alps, prompt: \"a \\u00e9 b\", width: 8192, height: 2048, seed: 7}\n"
        "  - {name: city, prompt: 'it''s', width: 4096, height: 4096, seeds: [1, -2, 3]}\n"
        "  - name: sea\n"
        "    prompt: |\n"
        "      two\n"
        "      lines\n"
        "    width: 1024\n"
        "    height: 1024\n"
        "    position: *p\n"
        "    latents_out: l/{name}.safetensors\n";
    uint64_t seed = 1;
    size_t n_good = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        char *text = malloc(ROOM); /* exactly as long as the damaged file below: reading past its end is caught */
        job *j = NULL;
        assert_non_null(text);
        memcpy(text, good, sizeof(good) - 1);
        size_t n = damage(text, sizeof(good) - 1, ROOM, &seed);
        char *exact = malloc(n > 0 ? n : 1);
        assert_non_null(exact);
        memcpy(exact, text, n);
        err_clear();
        status st = job_parse(&j, "t.yaml", exact, n, NULL);
        assert_true(st == ST_OK || st == ST_BAD_JOB);
        if (st == ST_OK) {
            n_good++;
            assert_true(j->n_pictures > 0);
        } else {
            assert_int_equal(strncmp(err_text(), "t.yaml:", 7), 0);
        }
        job_close(j);
        free(exact);
        free(text);
    }
    assert_true(n_good > 0 && n_good < N_ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_file_is_told_with_its_place),
        cmocka_unit_test(all_mistakes_of_a_file_are_told_in_order),
        cmocka_unit_test(a_flood_of_mistakes_is_counted),
        cmocka_unit_test(aliases_cannot_multiply_without_end),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(too_many_anchors_are_refused),
        cmocka_unit_test(seed_lists_are_bounded),
        cmocka_unit_test(long_paths_are_refused),
        cmocka_unit_test(what_is_no_file_is_told),
        cmocka_unit_test(damaged_files_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
