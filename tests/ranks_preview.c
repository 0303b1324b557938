/* Previews: every rank's rows land where they belong, on 1 to 5 ranks; a run with previews makes the same bytes as one
 * without; a stopped picture keeps its preview, which looks like what becomes of it; a finished one has none.
 * The test starts itself under mpirun; `--worker N` is one of N. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "preview.h"
#include "processes.h"
#include "program.h"

enum { LIMIT_S = 240, CHANNELS = 3, FEATURES = CHANNELS * 4, N_TEXT = 40, WIDTH = 96, HEIGHT = 80, SCALE = 4 };

static char *self;
static char  dir[TEMPDIR_PATH];

/* An 8-bit RGB PNG in memory; yours to free. */
static uint8_t *read_png(const char *path, int *width, int *height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&image, path)) return NULL;
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    if (pixels == NULL || !png_image_finish_read(&image, NULL, pixels, 0, NULL)) {
        free(pixels);
        return NULL;
    }
    *width = (int)image.width;
    *height = (int)image.height;
    return pixels;
}

/* ---- one of N ranks */

/* Exact in fp32: x0 = latent - v / 2 is row + f for token `row` (mod 64). */
static float latent_of(int32_t token, int f)
{
    return (float)(token % 64 + f + 8);
}
static const float VELOCITY = 16, SIGMA = 0.5f;

static int worker(int argc, char **argv, const char *output)
{
    status   st = ST_OK;
    comm    *c = NULL;
    preview *p = NULL;
    geometry g;
    float   *latents = NULL, *velocity = NULL;
    /* red counts tokens (channel 0), green the place in the token (channel 1 is 4 to 7 more), blue is constant. */
    const preview_map map = {.channels = CHANNELS, .weight = {{1, 0, 0, 0}, {-1, 1, 0, 0}, {0, 0, 0, 200}}};
    TRY(comm_open(&c, &argc, &argv));
    TRY(geometry_make(&g, WIDTH, HEIGHT, SCALE));
    const row_range rows = geometry_split(N_TEXT, g.n_image, comm_size(c), comm_rank(c));
    const int32_t   first = rows.n_image > 0 ? geometry_first_token(rows, N_TEXT) : 0;
    latents = malloc(((size_t)rows.n_image * FEATURES + 1) * sizeof(float));
    velocity = malloc(((size_t)rows.n_image * FEATURES + 1) * sizeof(float));
    if (latents == NULL || velocity == NULL) return 1;
    for (int32_t row = 0; row < rows.n_image; row++)
        for (int f = 0; f < FEATURES; f++) {
            latents[row * FEATURES + f] = latent_of(first + row, f);
            velocity[row * FEATURES + f] = VELOCITY;
        }
    TRY(comm_agree(c, preview_open(&p, &(preview_opts){.map = &map, .comm = c, .geometry = &g, .n_text = N_TEXT, .picture = "p",
                                                       .output = output})));
    TRY(preview_write(p, latents, velocity, DT_F32, SIGMA, 3, 8));
fail:
    if (st != ST_OK) fprintf(stderr, "%s\n", err_text());
    preview_close(p);
    free(latents);
    free(velocity);
    comm_close(c);
    return (int)st;
}

static void rows_land_where_they_belong(void **state)
{
    const int   n_ranks = *(const int *)*state;
    program_run run;
    char        arguments[TEMPDIR_PATH + 32];
    int         width = 0, height = 0;
    snprintf(arguments, sizeof(arguments), "--worker '%s/p.png'", dir);
    program_start_other(&run, self, dir, NULL, n_ranks, LIMIT_S, arguments);
    if (run.exit_code != 0) fail_msg("%d ranks: exit code %d\n%s", n_ranks, run.exit_code, run.output);
    program_run_free(&run);
    uint8_t *pixels = read_png(tempdir_in(dir, "p.preview.png"), &width, &height);
    assert_non_null(pixels);
    assert_int_equal(width, WIDTH / SCALE);
    assert_int_equal(height, HEIGHT / SCALE);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const int     token = y / 2 * (width / 2) + x / 2, at = y % 2 * 2 + x % 2;
            const uint8_t want[3] = {(uint8_t)(token % 64 + at), 4, 200}; /* x0 of channel 0; of 1, 4 features on */
            if (memcmp(pixels + 3 * (y * width + x), want, 3) != 0)
                fail_msg("%d ranks, pixel %d, %d: got %d %d %d, want %d %d %d", n_ranks, x, y, pixels[3 * (y * width + x)],
                         pixels[3 * (y * width + x) + 1], pixels[3 * (y * width + x) + 2], want[0], want[1], want[2]);
        }
    free(pixels);
    unlink(tempdir_in(dir, "p.preview.png"));
}

/* ---- the program */

enum { STEPS = 150, SHOWN_AT = 100 };

static void write_job(const char *name, int preview_every)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "model: " PROJECT_DIR "/models/demo\noutput: %s.png\ncheckpoint: {every: 0}\n"
             "pictures: [{name: %s, prompt: a dramatic mountain landscape at noon with a lake, steps: %d, width: 320, "
             "height: 256, seed: 4, preview_every: %d}]\n",
             name, name, STEPS, preview_every);
    char file[64];
    snprintf(file, sizeof(file), "%s.yaml", name);
    assert_int_equal(tempdir_write(tempdir_in(dir, "%s", file), text), ST_OK);
}

static void render(const char *name, int n_ranks)
{
    program_run run;
    char        arguments[128];
    snprintf(arguments, sizeof(arguments), "--quiet --threads 1 --cache c %s.yaml", name);
    program_start(&run, dir, NULL, n_ranks, LIMIT_S, arguments);
    if (run.exit_code != 0 || strstr(run.output, "warning") != NULL)
        fail_msg("%s: exit code %d\n%s", name, run.exit_code, run.output);
    program_run_free(&run);
}

/* Starts a render and stops it by SIGUSR1 when its preview has come; its exit code. */
static int render_until_shown(const char *name)
{
    char      file[64];
    const pid_t pid = fork();
    assert_true(pid >= 0);
    snprintf(file, sizeof(file), "%s.yaml", name);
    if (pid == 0) {
        if (chdir(dir) != 0) _exit(126);
        execl(DYPE_BINARY, DYPE_BINARY, "--quiet", "--threads", "1", "--cache", "c", file, (char *)NULL);
        _exit(127);
    }
    int          result = 0;
    const double end = processes_now() + LIMIT_S;
    snprintf(file, sizeof(file), "%s.preview.png", name);
    pid_t        ended = 0;
    while (access(tempdir_in(dir, "%s", file), F_OK) != 0 && ended == 0 && processes_now() < end) {
        usleep(2000);
        ended = waitpid(pid, &result, WNOHANG);
    }
    if (ended == 0) kill(pid, SIGUSR1);
    if (ended == 0) waitpid(pid, &result, 0);
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}

static void files_equal(const char *a, const char *b)
{
    char command[256];
    snprintf(command, sizeof(command), "cd '%.200s' && cmp %s %s", dir, a, b);
    assert_int_equal(system(command), 0);
}

/* How alike two planes are, from -1 to 1. */
static double correlation(const double *a, const double *b, int n)
{
    double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) ma += a[i] / n, mb += b[i] / n;
    for (int i = 0; i < n; i++) {
        ab += (a[i] - ma) * (b[i] - mb);
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
    }
    return ab / sqrt(aa * bb);
}

/* Green of the picture in means of 8 x 8 pixels, against green of its preview: after two thirds of the steps the composition
 * stands. Measured: 0.993; with the columns of each token swapped 0.94, the rows 0.74, mirrored 0.57. */
static void expect_alike(const char *preview_name, const char *picture_name)
{
    int      w = 0, h = 0, width = 0, height = 0;
    uint8_t *small = read_png(tempdir_in(dir, "%s", preview_name), &w, &h),
            *large = read_png(tempdir_in(dir, "%s", picture_name), &width, &height);
    assert_non_null(small);
    assert_non_null(large);
    assert_int_equal(w * 8, width);
    assert_int_equal(h * 8, height);
    double *a = calloc((size_t)(w * h), sizeof(*a)), *b = calloc((size_t)(w * h), sizeof(*b));
    assert_non_null(a);
    assert_non_null(b);
    for (int i = 0; i < w * h; i++) a[i] = small[3 * i + 1];
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) b[y / 8 * w + x / 8] += large[3 * (y * width + x) + 1] / 64.0;
    const double alike = correlation(a, b, w * h);
    if (!(alike > 0.97)) fail_msg("%s and %s: correlation %g", preview_name, picture_name, alike);
    free(a);
    free(b);
    free(small);
    free(large);
}

static void previews_change_nothing_and_look_like_it(void **state)
{
    (void)state;
    write_job("plain", 0);
    write_job("shown", SHOWN_AT);
    render("plain", 0);
    assert_int_equal(render_until_shown("shown"), 75);
    assert_int_equal(access(tempdir_in(dir, "shown.preview.png"), F_OK), 0); /* kept while there is no picture */
    expect_alike("shown.preview.png", "plain.png");
#ifdef WITH_MPI
    render("shown", 2); /* goes on */
#else
    render("shown", 0);
#endif
    files_equal("plain.png", "shown.png");
    assert_int_not_equal(access(tempdir_in(dir, "shown.preview.png"), F_OK), 0);
    unlink(tempdir_in(dir, "shown.png"));
    write_job("shown", 1); /* every step, all over again */
    render("shown", 0);
    files_equal("plain.png", "shown.png");
    assert_int_not_equal(access(tempdir_in(dir, "shown.preview.png"), F_OK), 0);
}

/* Two writers of one file. */
static void a_preview_has_a_name_of_its_own(void **state)
{
    program_run run;
    (void)state;
    assert_int_equal(tempdir_write(tempdir_in(dir, "names.yaml"),
                                   "model: " PROJECT_DIR "/models/demo\noutput: '{name}.png'\n"
                                   "defaults: {width: 64, height: 64, prompt: a, preview_every: 2}\n"
                                   "pictures: [{name: a}, {name: a.preview, preview_every: 0}]\n"),
                     ST_OK);
    program_start(&run, dir, NULL, 0, LIMIT_S, "--check names.yaml");
    assert_int_equal(run.exit_code, 3);
    assert_non_null(strstr(run.output, "preview"));
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

int main(int argc, char **argv)
{
    static int counts[] = {0, 2, 3, 5};
    const struct CMUnitTest tests[] = {
        {"rows_land_on_one_rank", rows_land_where_they_belong, NULL, NULL, &counts[0]},
#ifdef WITH_MPI
        {"rows_land_on_2_ranks", rows_land_where_they_belong, NULL, NULL, &counts[1]},
        {"rows_land_on_3_ranks", rows_land_where_they_belong, NULL, NULL, &counts[2]},
        {"rows_land_on_5_ranks", rows_land_where_they_belong, NULL, NULL, &counts[3]},
#endif
        cmocka_unit_test(previews_change_nothing_and_look_like_it),
        cmocka_unit_test(a_preview_has_a_name_of_its_own),
    };
    if (argc > 2 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv, argv[2]);
    self = realpath("/proc/self/exe", NULL);
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
