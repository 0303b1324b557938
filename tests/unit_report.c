/* What a silent lead forwards is what the speaking report would have shown and logged itself. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "program.h"
#include "report.h"

static char dir[TEMPDIR_PATH];

enum { SHOWN_BYTES = 1 << 20 };

/* stderr goes to a file meanwhile. */
typedef struct capture {
    char path[TEMPDIR_PATH + 16];
    int  kept;
} capture;

static void capture_begin(capture *c)
{
    snprintf(c->path, sizeof(c->path), "%s/stderr", dir);
    fflush(stderr);
    c->kept = dup(STDERR_FILENO);
    FILE *file = fopen(c->path, "we");
    assert_non_null(file);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    fclose(file);
}

static void capture_end(capture *c, char shown[SHOWN_BYTES])
{
    fflush(stderr);
    dup2(c->kept, STDERR_FILENO);
    close(c->kept);
    FILE  *file = fopen(c->path, "re");
    assert_non_null(file);
    size_t n = fread(shown, 1, SHOWN_BYTES - 1, file);
    shown[n] = '\0';
    fclose(file);
}

static void forward(void *context, report_kind kind, const char *text)
{
    report_deliver(context, kind, text);
}

/* What a run says. */
static void say(report *r)
{
    report_line(r, "%s: %d rows", "alps", 12);
    report_warn(r, "bell %c", '\a');
    report_phase(r, "alps", "denoise");
    report_step(r, "alps", 0, 2, 1.0);
    report_step(r, "alps", 2, 2, 0.5);
    report_phase(r, "alps", "decode");
    report_event(r, "picture", json_pack("{s:s}", "state", "done"));
}

static char *log_path(const char *name)
{
    static char path[TEMPDIR_PATH + 16];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void run(bool forwarded, bool quiet, const char *log, char shown[SHOWN_BYTES])
{
    capture c;
    report *speaker = NULL, *lead = NULL;
    assert_int_equal(report_open(&speaker, &(report_opts){.speaks = true, .quiet = quiet, .log_json = log}), ST_OK);
    assert_int_equal(report_open(&lead, &(report_opts){.forward = forward, .forward_context = speaker}), ST_OK);
    capture_begin(&c);
    say(forwarded ? lead : speaker);
    if (forwarded) report_table(lead, 1); /* shows nothing */
    capture_end(&c, shown);
    report_close(lead);
    report_close(speaker);
}

static void blank_seconds(char *text)
{
    for (; *text != '\0'; text++)
        if (*text >= '0' && *text <= '9') *text = '0';
}

static void a_forwarded_report_is_like_a_direct_one(void **state)
{
    static char direct[SHOWN_BYTES], forwarded[SHOWN_BYTES];
    static const char *const events[] = {"phase", "step", "picture"};
    (void)state;
    run(false, false, log_path("direct.json"), direct);
    run(true, false, log_path("forwarded.json"), forwarded);
    assert_non_null(strstr(direct, "alps: 12 rows\nwarning: bell ?\nalps: step 2/2  "));
    blank_seconds(direct);
    blank_seconds(forwarded);
    assert_string_equal(forwarded, direct);
    for (size_t i = 0; i < 3; i++) {
        json_t *want = program_events(log_path("direct.json"), events[i]);
        json_t *got = program_events(log_path("forwarded.json"), events[i]);
        assert_int_equal(json_array_size(got), json_array_size(want));
        assert_true(json_array_size(want) > 0);
        json_decref(got);
        json_decref(want);
    }
    run(true, true, NULL, forwarded); /* the quiet of who speaks counts */
    assert_string_equal(forwarded, "warning: bell ?\n");
}

enum { N_THREADS = 4, N_EVENTS = 500 };

static void *many_events(void *context)
{
    report *lead = NULL;
    if (report_open(&lead, &(report_opts){.forward = forward, .forward_context = context}) != ST_OK) return NULL;
    for (int i = 0; i < N_EVENTS; i++) {
        report_event(lead, "tick", json_pack("{s:i}", "i", i));
        report_line(lead, "line of twenty bytes");
    }
    report_close(lead);
    return context;
}

/* Lines of several threads come whole, none is lost. */
static void many_leads_at_once(void **state)
{
    static char shown[SHOWN_BYTES];
    capture     c;
    report     *speaker = NULL;
    pthread_t   threads[N_THREADS];
    (void)state;
    assert_int_equal(report_open(&speaker, &(report_opts){.speaks = true, .log_json = log_path("many.json")}), ST_OK);
    capture_begin(&c);
    for (int i = 0; i < N_THREADS; i++) pthread_create(&threads[i], NULL, many_events, speaker);
    for (int i = 0; i < N_THREADS; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, speaker);
    }
    capture_end(&c, shown);
    report_close(speaker);
    json_t *ticks = program_events(log_path("many.json"), "tick"); /* fails on a line that is no JSON */
    assert_int_equal(json_array_size(ticks), N_THREADS * N_EVENTS);
    json_decref(ticks);
    int n = 0;
    for (char *at = shown, *line; (line = strsep(&at, "\n")) != NULL && *line != '\0'; n++)
        assert_string_equal(line, "line of twenty bytes");
    assert_int_equal(n, N_THREADS * N_EVENTS);
}

static void reports_without_a_voice_are_silent(void **state)
{
    static char shown[SHOWN_BYTES];
    capture     c;
    report     *r = NULL;
    (void)state;
    assert_int_equal(report_open(&r, &(report_opts){.log_json = log_path("silent.json")}), ST_OK);
    capture_begin(&c);
    say(r);
    report_deliver(r, REPORT_WARNING, "nobody hears this");
    report_table(r, 1);
    capture_end(&c, shown);
    report_close(r);
    assert_string_equal(shown, "");
    assert_int_not_equal(access(log_path("silent.json"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forwarded_report_is_like_a_direct_one),
        cmocka_unit_test(many_leads_at_once),
        cmocka_unit_test(reports_without_a_voice_are_silent),
    };
    if (tempdir_open(dir) != ST_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tempdir_close(dir);
    return failed;
}
