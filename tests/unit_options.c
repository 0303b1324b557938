/* A command line is read whole or refused in one line that says what is allowed and where help is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "options.h"

enum { ARGS_MAX = 40 };

/* Reads words separated by spaces; "''" is an empty argument. */
static status read_line(options *o, const char *line)
{
    static char text[512];
    static char *argv[ARGS_MAX + 1];
    static char empty[] = "";
    int argc = 0;
    snprintf(text, sizeof(text), "dype-dist %s", line);
    for (char *word = strtok(text, " "); word != NULL && argc < ARGS_MAX; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "''") == 0 ? empty : word;
    argv[argc] = NULL;
    err_clear();
    return options_read(o, argc, argv);
}

static void a_job_alone_gets_the_defaults(void **state)
{
    (void)state;
    options o;
    assert_int_equal(read_line(&o, "jobs/a.yaml"), ST_OK);
    assert_string_equal(o.job_path, "jobs/a.yaml");
    assert_false(o.help || o.version || o.check || o.overwrite || o.quiet || o.isa_given);
    assert_int_equal(o.backend, BACKEND_AUTO);
    assert_null(o.model);
    assert_null(o.out_dir);
    assert_null(o.log_json);
    assert_int_equal(o.n_only, 0);
    assert_int_equal(o.n_dump, 0);
    assert_int_equal(o.n_threads, 0);
    assert_int_equal(o.n_blocks, -1);
    assert_int_equal(o.watchdog_s, 600);
    assert_int_equal(o.memory_limit, 0);
    options_close(&o);
}

static void every_option_arrives(void **state)
{
    (void)state;
    options o;
    assert_int_equal(read_line(&o, "--check --backend strict a.yaml --model m --only x --only=y-3 --out o --threads 2 "
                                   "--overwrite --log-json l --quiet --dump d@1 --dump e --blocks 0 --isa avx2 "
                                   "--watchdog 60 --memory-limit 24G --plot-positions p.svg"),
                     ST_OK);
    assert_string_equal(o.job_path, "a.yaml");
    assert_true(o.check && o.overwrite && o.quiet && o.isa_given);
    assert_int_equal(o.backend, BACKEND_STRICT);
    assert_string_equal(o.model, "m");
    assert_int_equal(o.n_only, 2);
    assert_string_equal(o.only[0], "x");
    assert_string_equal(o.only[1], "y-3");
    assert_string_equal(o.out_dir, "o");
    assert_int_equal(o.n_threads, 2);
    assert_string_equal(o.log_json, "l");
    assert_int_equal(o.n_dump, 2);
    assert_string_equal(o.dump[1], "e");
    assert_int_equal(o.n_blocks, 0);
    assert_int_equal(o.isa, ISA_AVX2);
    assert_int_equal(o.watchdog_s, 60);
    assert_true(o.memory_limit == 25769803776u);
    assert_string_equal(o.plot_positions, "p.svg");
    options_close(&o);
    assert_int_equal(read_line(&o, "--spectra s.csv a.yaml"), ST_OK);
    assert_string_equal(o.spectra, "s.csv");
    options_close(&o);
    assert_int_equal(read_line(&o, "--loss l.csv a.yaml"), ST_OK);
    assert_string_equal(o.loss, "l.csv");
    options_close(&o);
}

static void sizes_are_bytes_or_have_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        size_t      bytes;
    } rows[] = {{"--memory-limit 1 j", 1},          {"--memory-limit 1000000 j", 1000000}, {"--memory-limit 3K j", 3072},
                {"--memory-limit 500M j", 524288000}, {"--memory-limit 2G j", 2147483648u}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        options o;
        assert_int_equal(read_line(&o, rows[i].line), ST_OK);
        assert_true(o.memory_limit == rows[i].bytes);
        options_close(&o);
    }
}

static void every_instruction_set_has_its_word(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        bool given;
        cpu_isa isa;
    } rows[] = {{"--isa avx512bf16 j", true, ISA_AVX512_BF16},
                {"--isa avx512 j", true, ISA_AVX512},
                {"--isa plain j", true, ISA_PLAIN},
                {"--isa avx2 --isa auto j", false, ISA_PLAIN}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        options o;
        assert_int_equal(read_line(&o, rows[i].line), ST_OK);
        assert_int_equal(o.isa_given, rows[i].given);
        if (rows[i].given) assert_int_equal(o.isa, rows[i].isa);
        options_close(&o);
    }
}

static void help_and_version_need_no_job(void **state)
{
    (void)state;
    options o;
    assert_int_equal(read_line(&o, "--help"), ST_OK);
    assert_true(o.help);
    options_close(&o);
    assert_int_equal(read_line(&o, "--version"), ST_OK);
    assert_true(o.version);
    options_close(&o);
}

static void wrong_lines_are_refused_with_a_hint(void **state)
{
    (void)state;
    static const struct {
        const char *line, *message;
    } rows[] = {
        {"", "found no job file"},
        {"--quiet", "found no job file"},
        {"a.yaml b.yaml", "found 2 job files (a.yaml, b.yaml)"},
        {"a b c", "found 3 job files (a, b, ...)"},
        {"--overwirte a.yaml", "unknown option --overwirte; nearest: --overwrite"},
        {"--log_json=x a.yaml", "unknown option --log_json; nearest: --log-json"},
        {"--frobnicate a.yaml", "unknown option --frobnicate; try"},
        {"-q a.yaml", "unknown option -q "},
        {"-xyz a.yaml", "unknown option -x "},
        {"a.yaml --model", "option --model needs a value"},
        {"--model '' a.yaml", "--model: found an empty value"},
        {"--quiet=yes a.yaml", "option --quiet takes no value"},
        {"--help=yes a.yaml", "option --help takes no value"},
        {"--threads 0 a.yaml", "--threads: found \"0\"; allowed: an integer from 1 to 4096"},
        {"--threads two a.yaml", "--threads: found \"two\""},
        {"--threads 0x10 a.yaml", "--threads: found \"0x10\""},
        {"--threads 99999999999999999999 a.yaml", "allowed: an integer from 1 to 4096"},
        {"--blocks -1 a.yaml", "--blocks: found \"-1\""},
        {"--backend gpu a.yaml", "--backend: found \"gpu\"; allowed: auto, cpu, strict, cuda; nearest: cpu"},
        {"--isa avx-2 a.yaml", "allowed: auto, avx512bf16, avx512, avx2, plain; nearest: avx2"},
        {"--plan --for h200 a.yaml", "--for: found \"h200\"; allowed: h100, a100, l40s, l40, l20, rtx4090; nearest: h100"},
        {"--plan --ranks 0 a.yaml", "--ranks: found \"0\"; allowed: an integer from 1 to 1024"},
        {"--for h100 a.yaml", "--for goes with --plan"},
        {"--ranks 8 a.yaml", "--ranks goes with --plan"},
        {"--watchdog -1 a.yaml", "--watchdog: found \"-1\"; allowed: an integer from 0 to 1000000"},
        {"--watchdog 1.5 a.yaml", "--watchdog: found \"1.5\""},
        {"--memory-limit 0 a.yaml", "--memory-limit: found \"0\"; allowed: bytes, or a number with K, M or G"},
        {"--memory-limit 5T a.yaml", "--memory-limit: found \"5T\""},
        {"--memory-limit G a.yaml", "--memory-limit: found \"G\""},
        {"--memory-limit 5GB a.yaml", "--memory-limit: found \"5GB\""},
        {"--memory-limit -5G a.yaml", "--memory-limit: found \"-5G\""},
        {"--memory-limit 17179869184G a.yaml", "--memory-limit: found \"17179869184G\""},
        {"--decode f", "found no job file"},
        {"--recipe f.png a.yaml", "--recipe prints a job and takes none (a.yaml)"},
        {"--spectra f --loss g a.yaml", "--spectra and --loss exclude each other"},
        {"--plot-positions f --plan a.yaml", "--plan and --plot-positions exclude each other"},
        {"--bench --spectra f a.yaml", "--bench and --spectra exclude each other"},
        {"--loss f", "found no job file"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        options o;
        assert_int_equal(read_line(&o, rows[i].line), ST_USAGE);
        if (strstr(err_text(), rows[i].message) == NULL)
            fail_msg("%s: got \"%s\", want \"%s\"", rows[i].line, err_text(), rows[i].message);
        assert_null(strchr(err_text(), '\n'));
        assert_non_null(strstr(err_text(), "try `dype-dist --help`"));
    }
}

static void help_offers_what_this_version_does(void **state)
{
    (void)state;
    static const char *const offered[] = {"--check", "--backend", "--isa", "--log-json", "--watchdog", "--plan", "--bench", "--decode", "--recipe",
                                          "--spectra", "--plot-positions", "--loss",
                                          "75 stopped"};
    char text[4096] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");
    assert_non_null(out);
    options_print_help(out);
    fclose(out);
    for (size_t i = 0; i < sizeof(offered) / sizeof(offered[0]); i++) assert_non_null(strstr(text, offered[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_alone_gets_the_defaults),
        cmocka_unit_test(every_option_arrives),
        cmocka_unit_test(sizes_are_bytes_or_have_a_unit),
        cmocka_unit_test(every_instruction_set_has_its_word),
        cmocka_unit_test(help_and_version_need_no_job),
        cmocka_unit_test(wrong_lines_are_refused_with_a_hint),
        cmocka_unit_test(help_offers_what_this_version_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
