#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "suggest.h"

static const char hint[] = "try `dype-dist --help`";

enum { RANKS_MAX = 1024, THREADS_MAX = 4096, BLOCKS_MAX = 10000, WATCHDOG_S = 600, WATCHDOG_MAX_S = 1000000 };

enum {
    OPT_HELP,
    OPT_VERSION,
    OPT_CHECK,
    OPT_BACKEND,
    OPT_MODEL,
    OPT_ONLY,
    OPT_OUT,
    OPT_THREADS,
    OPT_OVERWRITE,
    OPT_LOG_JSON,
    OPT_CACHE,
    OPT_QUIET,
    OPT_DUMP,
    OPT_BLOCKS,
    OPT_ISA,
    OPT_BENCH,
    OPT_PLAN,
    OPT_FOR,
    OPT_RANKS,
    OPT_WATCHDOG,
    OPT_MEMORY_LIMIT,
    OPT_DECODE,
    OPT_RECIPE,
    OPT_PLOT_POSITIONS,
    OPT_SPECTRA,
    OPT_LOSS
};

static const struct {
    const char *name, *value;
    int id;
    const char *help;
} known[] = {
    {"help", NULL, OPT_HELP, "print this and exit"},
    {"version", NULL, OPT_VERSION, "print the version and exit"},
    {"check", NULL, OPT_CHECK, "check the job file and the model folder; render nothing"},
    {"backend", "NAME", OPT_BACKEND, "auto, cpu, strict (cpu that finds stale pointers) or cuda"},
    {"model", "DIR", OPT_MODEL, "model folder, instead of the job's"},
    {"only", "NAME", OPT_ONLY, "only the pictures of this name or id (may repeat)"},
    {"out", "DIR", OPT_OUT, "where relative outputs start, instead of the current directory"},
    {"threads", "N", OPT_THREADS, "threads per rank, instead of cores / ranks on the node"},
    {"overwrite", NULL, OPT_OVERWRITE, "replace outputs, instead of keeping the old one as NAME.N.png"},
    {"log-json", "FILE", OPT_LOG_JSON, "append events as one JSON object per line"},
    {"cache", "DIR", OPT_CACHE, "where prompts and digests are kept, instead of ~/.cache/dype-dist; none: nowhere"},
    {"quiet", NULL, OPT_QUIET, "no progress; only warnings and errors"},
    {"dump", "NAME", OPT_DUMP, "save the tensor of that name, such as dit.12.attn_out@3 (may repeat)"},
    {"blocks", "N", OPT_BLOCKS, "run only the first N transformer blocks"},
    {"plan", NULL, OPT_PLAN, "rows, grid, memory, bytes and seconds of each picture; render nothing"},
    {"for", "NAME", OPT_FOR, "with --plan: h100, a100, l40s, l40, l20 or rtx4090, instead of measuring this machine"},
    {"ranks", "N", OPT_RANKS, "with --plan: for so many ranks, instead of those that run"},
    {"bench", NULL, OPT_BENCH, "scaling benchmark: the job's step loops on 1, 2, 4, ... ranks, all schedules; no pictures"},
    {"isa", "NAME", OPT_ISA, "auto, avx512bf16, avx512, avx2 or plain"},
    {"watchdog", "SECONDS", OPT_WATCHDOG, "end the job when a rank is silent for so long (600; 0: never)"},
    {"memory-limit", "SIZE", OPT_MEMORY_LIMIT, "at most so much device memory per rank, such as 24G or 500M"},
    {"decode", "FILE", OPT_DECODE, "only decode this saved latent, with the job's picture that it belongs to"},
    {"recipe", "FILE", OPT_RECIPE, "print a job that renders the same bytes as this PNG (or latent) and exit"},
    {"plot-positions", "FILE", OPT_PLOT_POSITIONS, "the waves of the position methods at each step, as SVG and CSV; render nothing"},
    {"spectra", "FILE", OPT_SPECTRA, "power spectra of the latents at each step, as CSV and SVG; no pictures"},
    {"loss", "FILE", OPT_LOSS, "flow-matching loss on true pictures (latents_in) at each noise level, as CSV; no pictures"},
};
enum { N_KNOWN = sizeof(known) / sizeof(known[0]) };

void options_print_help(FILE *out)
{
    fprintf(out, "usage: dype-dist [options] JOB.yaml\n"
                 "       mpirun -n RANKS dype-dist [options] JOB.yaml\n\n"
                 "Renders the pictures of a job file with a FLUX.1 model and DyPE.\n\n");
    for (size_t i = 0; i < N_KNOWN; i++) {
        int used = fprintf(out, "  --%s%s%s", known[i].name, known[i].value != NULL ? " " : "",
                           known[i].value != NULL ? known[i].value : "");
        fprintf(out, "%*s%s\n", used < 22 ? 22 - used : 1, "", known[i].help);
    }
    fprintf(out, "\nexit codes: 0 all pictures done, 1 some failed, 2 bad usage, 3 bad job file, 4 bad model folder,\n"
                 "  5 out of memory, 6 communication failed, 7 device unusable, 8 output unwritable,\n"
                 "  75 stopped by a signal, run again\n");
}

static status unknown_option(const char *arg)
{
    char word[48];
    size_t n = strcspn(arg, "=");
    if (n >= sizeof(word)) n = sizeof(word) - 1;
    memcpy(word, arg, n);
    word[n] = '\0';
    suggestion nearest = suggest_begin(word + strspn(word, "-"));
    for (size_t i = 0; i < N_KNOWN; i++)
        suggest_offer(&nearest, known[i].name);
    if (nearest.best != NULL)
        return err_set(ST_USAGE, "unknown option %s; nearest: --%s; %s", word, nearest.best, hint);
    return err_set(ST_USAGE, "unknown option %s; %s", word, hint);
}

static status read_count(const char *name, const char *text, int min, int max, int *out)
{
    char *end = NULL;
    errno = 0;
    long value = strtol(text, &end, 10);
    bool digits = text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
    if (!digits || errno != 0 || value < min || value > max)
        return err_set(ST_USAGE, "--%s: found \"%s\"; allowed: an integer from %d to %d; %s", name, text, min, max,
                       hint);
    *out = (int)value;
    return ST_OK;
}

/* Bytes, or a number with K, M or G: 1024, its square and its cube. */
static status read_size(const char *name, const char *text, size_t *out)
{
    static const char units[] = "KMG";
    const size_t      n_digits = strspn(text, "0123456789");
    const char       *unit = text[n_digits] != '\0' ? strchr(units, text[n_digits]) : NULL;
    const int         shift = unit != NULL ? 10 * (int)(unit - units + 1) : 0;
    errno = 0;
    const unsigned long long value = strtoull(text, NULL, 10);
    const bool good = n_digits > 0 && (unit != NULL ? text[n_digits + 1] == '\0' : text[n_digits] == '\0');
    if (!good || errno != 0 || value == 0 || value > (unsigned long long)(SIZE_MAX >> shift))
        return err_set(ST_USAGE, "--%s: found \"%s\"; allowed: bytes, or a number with K, M or G (powers of 1024); %s", name,
                       text, hint);
    *out = (size_t)value << shift;
    return ST_OK;
}

static status read_word(const char *name, const char *text, const char *const *words, int *out)
{
    char list[128] = "";
    suggestion nearest = suggest_begin(text);
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return ST_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", words[i]);
        suggest_offer(&nearest, words[i]);
    }
    bool near = nearest.best != NULL;
    return err_set(ST_USAGE, "--%s: found \"%s\"; allowed: %s%s%s; %s", name, text, list, near ? "; nearest: " : "",
                   near ? nearest.best : "", hint);
}

static status read_isa(options *o, const char *text)
{
    static const char *const words[] = {"auto", "avx512bf16", "avx512", "avx2", "plain", NULL};
    static const cpu_isa isas[] = {ISA_PLAIN, ISA_AVX512_BF16, ISA_AVX512, ISA_AVX2, ISA_PLAIN};
    int index = 0;
    status st = read_word("isa", text, words, &index);
    if (st != ST_OK) return st;
    o->isa_given = index > 0;
    o->isa = isas[index];
    return ST_OK;
}

static status read_option(options *o, int id, const char *name, const char *value)
{
    static const char *const backends[] = {"auto", "cpu", "strict", "cuda", NULL};
    status st = ST_OK;
    int backend = 0;
    if (value != NULL && value[0] == '\0') return err_set(ST_USAGE, "--%s: found an empty value; %s", name, hint);
    switch (id) {
    case OPT_HELP:
        o->help = true;
        break;
    case OPT_VERSION:
        o->version = true;
        break;
    case OPT_CHECK:
        o->check = true;
        break;
    case OPT_PLAN:
        o->plan = true;
        break;
    case OPT_FOR:
        TRY(read_word(name, value, machine_names, &backend));
        o->plan_for = machine_names[backend];
        break;
    case OPT_RANKS:
        return read_count(name, value, 1, RANKS_MAX, &o->plan_ranks);
    case OPT_BENCH:
        o->bench = true;
        break;
    case OPT_OVERWRITE:
        o->overwrite = true;
        break;
    case OPT_QUIET:
        o->quiet = true;
        break;
    case OPT_MODEL:
        o->model = value;
        break;
    case OPT_OUT:
        o->out_dir = value;
        break;
    case OPT_LOG_JSON:
        o->log_json = value;
        break;
    case OPT_CACHE:
        o->cache_dir = value;
        break;
    case OPT_ONLY:
        o->only[o->n_only++] = value;
        break;
    case OPT_DUMP:
        o->dump[o->n_dump++] = value;
        break;
    case OPT_DECODE:
        o->decode = value;
        break;
    case OPT_RECIPE:
        o->recipe = value;
        break;
    case OPT_PLOT_POSITIONS:
        o->plot_positions = value;
        break;
    case OPT_SPECTRA:
        o->spectra = value;
        break;
    case OPT_LOSS:
        o->loss = value;
        break;
    case OPT_THREADS:
        return read_count(name, value, 1, THREADS_MAX, &o->n_threads);
    case OPT_BLOCKS:
        return read_count(name, value, 0, BLOCKS_MAX, &o->n_blocks);
    case OPT_ISA:
        return read_isa(o, value);
    case OPT_WATCHDOG:
        return read_count(name, value, 0, WATCHDOG_MAX_S, &o->watchdog_s);
    case OPT_MEMORY_LIMIT:
        return read_size(name, value, &o->memory_limit);
    case OPT_BACKEND:
        TRY(read_word(name, value, backends, &backend));
        o->backend = (option_backend)backend;
        break;
    }
fail:
    return st;
}

/* At most one thing is done instead of rendering. */
static status check_modes(const options *o)
{
    const struct {
        bool        given;
        const char *name;
    } modes[] = {{o->plan, "plan"}, {o->bench, "bench"}, {o->decode != NULL, "decode"}, {o->spectra != NULL, "spectra"},
                 {o->plot_positions != NULL, "plot-positions"}, {o->loss != NULL, "loss"}};
    const char *first = NULL;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (!modes[i].given) continue;
        if (first != NULL) return err_set(ST_USAGE, "--%s and --%s exclude each other; %s", first, modes[i].name, hint);
        first = modes[i].name;
    }
    return ST_OK;
}

enum { FIRST_INDEX = 256 }; /* getopt_long returns FIRST_INDEX + index into known: no character */

/* The table of getopt_long; ends with zeros. */
static void fill_table(struct option table[N_KNOWN + 1])
{
    memset(table, 0, (N_KNOWN + 1) * sizeof(table[0]));
    for (int i = 0; i < N_KNOWN; i++)
        table[i] = (struct option){known[i].name, known[i].value != NULL ? required_argument : no_argument, NULL,
                                   FIRST_INDEX + i};
}

/* What getopt_long found wrong: sign ':' is a missing value; optopt is a letter, a known option, or 0. */
static status wrong_option(int sign, char **argv)
{
    if (sign == ':') return err_set(ST_USAGE, "option %s needs a value; %s", argv[optind - 1], hint);
    if (optopt >= FIRST_INDEX)
        return err_set(ST_USAGE, "option --%s takes no value; %s", known[optopt - FIRST_INDEX].name, hint);
    if (optopt != 0) return err_set(ST_USAGE, "unknown option -%c (options are long: --quiet); %s", optopt, hint);
    return unknown_option(argv[optind - 1]);
}

status options_read(options *o, int argc, char **argv)
{
    status st = ST_OK;
    struct option table[N_KNOWN + 1];
    *o = (options){.n_blocks = -1, .watchdog_s = WATCHDOG_S};
    o->only = calloc((size_t)argc + 1, sizeof(*o->only));
    o->dump = calloc((size_t)argc + 1, sizeof(*o->dump));
    if (o->only == NULL || o->dump == NULL) {
        st = err_set(ST_NO_MEMORY, "options: %d arguments", argc);
        goto fail;
    }
    fill_table(table);
    optind = 0; /* starts over: a process may read several command lines */
    for (;;) {
        int sign = getopt_long(argc, argv, ":", table, NULL);
        if (sign == -1) break;
        if (sign < FIRST_INDEX) TRY(wrong_option(sign, argv));
        TRY(read_option(o, known[sign - FIRST_INDEX].id, known[sign - FIRST_INDEX].name, optarg));
    }
    int n_left = argc - optind;
    if (n_left == 0 && (o->help || o->version || o->recipe != NULL)) return ST_OK;
    if (n_left == 0) {
        st = err_set(ST_USAGE, "found no job file; usage: dype-dist [options] JOB.yaml; %s", hint);
        goto fail;
    }
    if (n_left > 1) {
        st = err_set(ST_USAGE, "found %d job files (%s, %s%s); allowed: one; %s", n_left, argv[optind],
                     argv[optind + 1], n_left > 2 ? ", ..." : "", hint);
        goto fail;
    }
    if (o->recipe != NULL) {
        st = err_set(ST_USAGE, "--recipe prints a job and takes none (%s); %s", argv[optind], hint);
        goto fail;
    }
    o->job_path = argv[optind];
    TRY(check_modes(o));
    if (!o->plan && (o->plan_for != NULL || o->plan_ranks > 0)) {
        st = err_set(ST_USAGE, "--%s goes with --plan; %s", o->plan_for != NULL ? "for" : "ranks", hint);
        goto fail;
    }
    return ST_OK;
fail:
    options_close(o);
    return st;
}

void options_close(options *o)
{
    free(o->only);
    free(o->dump);
    *o = (options){.n_blocks = -1, .watchdog_s = WATCHDOG_S};
}
