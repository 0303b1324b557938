/* --plot-positions as a user runs it: every wave of every step of both axes in the CSV, with values computed here by hand
 * from the method's definition; drawn; nothing rendered; pictures with the same positions told once. */
#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "program.h"

enum { LIMIT_S = 120, N_STEPS = 4, N_WAVES = 14 /* of 28 channels */, N_PICTURES = 6 };

#ifdef WITH_MPI
enum { TWO = 2 };
#else
enum { TWO = 0 };
#endif

static char dir[TEMPDIR_PATH];

typedef struct row {
    char   picture[32], method[32], axis[16], slowed[32];
    int    step, patches, base, wave;
    double sigma, t, kappa, native, pi, ntk, used, mscale;
} row;

static int read_rows(row *rows, int most)
{
    char  line[512];
    int   n = 0;
    FILE *f = fopen(tempdir_in(dir, "waves.csv"), "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    assert_string_equal(line, "picture,method,step,sigma,t,kappa,axis,patches,base_patches,wave,native,pi,ntk,used,slowed,mscale\n");
    while (fgets(line, sizeof(line), f) != NULL) {
        assert_true(n < most);
        row *r = &rows[n++];
        *r = (row){0};
        int at = 0;
        assert_int_equal(sscanf(line, "%31[^,],%31[^,],%d,%lf,%lf,%lf,%15[^,],%d,%d,%d,%lf,%lf,%lf,%lf,%n", r->picture, r->method, &r->step,
                                &r->sigma, &r->t, &r->kappa, r->axis, &r->patches, &r->base, &r->wave, &r->native, &r->pi, &r->ntk,
                                &r->used, &at), 14);
        const char *comma = strchr(line + at, ',');
        assert_non_null(comma);
        snprintf(r->slowed, sizeof(r->slowed), "%.*s", (int)(comma - line - at), line + at);
        r->mscale = strtod(comma + 1, NULL);
    }
    fclose(f);
    return n;
}

/* 32 rows and 16 columns of tokens with a model for 16: s = 2 down, native across. */
static void write_job(void)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "model: %s/models/demo\noutput: '{name}.png'\nprecision: fp32\n"
             "defaults: {prompt: a lake, width: 256, height: 512, steps: %d, shift: 0}\npictures:\n"
             "  - {name: base, position: {method: base}}\n  - {name: pi, position: {method: pi, dype: false}}\n"
             "  - {name: ntk, position: {method: ntk, dype: false}}\n  - {name: dy-pi, position: {method: pi}}\n"
             "  - {name: dy-ntk, position: {method: ntk}}\n  - {name: dy-yarn}\n  - {name: again, seed: 9}\n",
             PROJECT_DIR, N_STEPS);
    if (tempdir_write(tempdir_in(dir, "job.yaml"), text) != ST_OK) fail_msg("%s", err_text());
}

/* The definitions in spec terms: s = 2, D = 28, kappa = 2 t^2 of pi and ntk, t^2 of yarn. */
static void check(const row *r)
{
    const double native = pow(10000.0, -2.0 * r->wave / 28), kappa = 2 * r->t * r->t;
    const bool   down = strcmp(r->axis, "rows") == 0;
    double       want = native;
    assert_true(fabs(r->t - (1 - 0.25 * r->step)) < 1e-6); /* shift 0: even steps */
    assert_true(fabs(r->native / native - 1) < 1e-8);
    assert_int_equal(r->base, 16);
    assert_int_equal(r->patches, down ? 32 : 16);
    if (!down) {
        assert_string_equal(r->slowed, "");
        assert_true(fabs(r->used / native - 1) < 1e-8 && r->mscale == 1);
        return;
    }
    assert_true(fabs(r->pi / (native / 2) - 1) < 1e-8);
    assert_true(fabs(r->ntk / (native * pow(2, -2.0 * r->wave / 26)) - 1) < 1e-8);
    assert_true(fabs(strtod(r->slowed, NULL) - log(r->native / r->used) / log(2)) < 2e-6);
    if (strcmp(r->picture, "dy-yarn") == 0) {
        assert_true(fabs(r->kappa - r->t * r->t) < 1e-8);
        assert_true(fabs(r->mscale - (1 + 0.1 * log(2))) < 1e-8);
        if (r->step == 0 && r->wave == N_WAVES - 1) assert_true(fabs(r->used / (native / 2) - 1) < 1e-8); /* slowest: interpolated */
        return;
    }
    if (strcmp(r->picture, "pi") == 0) want = native / 2;
    if (strcmp(r->picture, "ntk") == 0) want = native * pow(2, -2.0 * r->wave / 26);
    if (strcmp(r->picture, "dy-pi") == 0) want = native * pow(2, -kappa);
    if (strcmp(r->picture, "dy-ntk") == 0) want = native * pow(2, -kappa * 2.0 * r->wave / 26);
    const bool dynamic = strncmp(r->picture, "dy-", 3) == 0;
    assert_true(fabs(r->kappa - (dynamic ? kappa : 1)) < 1e-8);
    assert_true(fabs(r->used / want - 1) < 1e-8);
    assert_true(r->mscale == 1);
}

static int count_of(const char *text, const char *piece)
{
    int n = 0;
    for (const char *at = strstr(text, piece); at != NULL; at = strstr(at + 1, piece)) n++;
    return n;
}

static void waves_of_every_step_are_told_and_drawn(void **state)
{
    static row  rows[2000];
    static char svg[1 << 20];
    program_run run;
    (void)state;
    write_job();
    program_start(&run, dir, NULL, TWO, LIMIT_S, "--plot-positions waves.svg job.yaml");
    if (run.exit_code != 0) fail_msg("got exit code %d\n%s", run.exit_code, run.output);
    assert_int_equal(count_of(run.output, "positions of 6 pictures: waves.svg, waves.csv"), 1);
    program_run_free(&run);
    const int n = read_rows(rows, 2000);
    assert_int_equal(n, N_PICTURES * N_STEPS * 2 * N_WAVES);
    for (int i = 0; i < n; i++) check(&rows[i]);
    assert_int_not_equal(access(tempdir_in(dir, "base.png"), F_OK), 0);

    FILE *f = fopen(tempdir_in(dir, "waves.svg"), "r");
    assert_non_null(f);
    const size_t bytes = fread(svg, 1, sizeof(svg) - 1, f);
    fclose(f);
    assert_true(bytes > 0 && strncmp(svg, "<svg ", 5) == 0 && strcmp(svg + bytes - 7, "</svg>\n") == 0);
    /* a curve per step and three references on the long axis, kappa and t */
    assert_int_equal(count_of(svg, "<polyline"), N_PICTURES * (N_STEPS + 3 + 2));
    assert_int_equal(count_of(svg, "<text"), count_of(svg, "</text>"));
}

static void a_name_that_ends_in_csv_is_refused(void **state)
{
    program_run run;
    (void)state;
    write_job();
    program_start(&run, dir, NULL, 0, LIMIT_S, "--plot-positions p.csv job.yaml");
    assert_int_equal(run.exit_code, 2);
    assert_non_null(strstr(run.output, "--plot-positions p.csv: names the drawing"));
    program_run_free(&run);
}

static int open_dir(void **state)
{
    (void)state;
    return tempdir_open(dir) == ST_OK ? 0 : -1;
}

static int close_dir(void **state)
{
    (void)state;
    tempdir_close(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waves_of_every_step_are_told_and_drawn),
        cmocka_unit_test(a_name_that_ends_in_csv_is_refused),
    };
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
