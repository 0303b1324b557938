#include "report.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PHASES = 16, LIVE_WIDTH = 78 };

typedef struct phase {
    char   name[32];
    double seconds;
    int    n;
} phase;

enum { RESULT_DONE, RESULT_ALREADY, RESULT_FAILED, RESULT_STOPPED, N_RESULTS };
static const char *const results[N_RESULTS] = {"done", "done already", "failed", "stopped"};

/* A picture that was not finished. */
typedef struct unfinished {
    struct unfinished *next;
    char               text[]; /* "id: failed: reason" */
} unfinished;

struct report {
    bool   speaks, quiet, terminal;
    void (*forward)(void *context, report_kind kind, const char *text);
    void  *forward_context;
    void (*place)(void *context, const char *picture, const char *phase, int step);
    void  *place_context;
    pthread_mutex_t lock; /* the terminal and the log: also the reports of others come here */
    bool   live; /* a live line stands on the terminal */
    FILE  *log;
    double started, phase_started, steps_started;
    bool   counts_steps;
    int    steps_before; /* done when the clock started */
    char   picture[256];
    int    current; /* phase, -1: none */
    phase  phases[MAX_PHASES];
    int    n_phases;
    size_t n_results[N_RESULTS]; /* under the lock, as the list */
    unfinished *first, **last;
};

double report_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

status report_open(report **out, const report_opts *opts)
{
    report *r = calloc(1, sizeof(*r));
    if (r == NULL) return err_set(ST_NO_MEMORY, "report: %zu bytes", sizeof(*r));
    r->speaks = opts->speaks;
    r->quiet = opts->quiet;
    r->terminal = isatty(STDERR_FILENO) == 1;
    r->started = report_now();
    r->current = -1;
    r->last = &r->first;
    r->forward = opts->speaks ? NULL : opts->forward;
    r->forward_context = opts->forward_context;
    r->place = opts->place;
    r->place_context = opts->place_context;
    pthread_mutex_init(&r->lock, NULL);
    if (opts->speaks && opts->log_json != NULL) {
        r->log = fopen(opts->log_json, "ae");
        if (r->log == NULL) {
            pthread_mutex_destroy(&r->lock);
            free(r);
            return err_set(ST_OUTPUT, "%s: %s", opts->log_json, strerror(errno));
        }
    }
    *out = r;
    return ST_OK;
}

void report_close(report *r)
{
    if (r == NULL) return;
    report_phase(r, NULL, NULL);
    if (r->log != NULL) fclose(r->log);
    for (unfinished *u = r->first, *next; u != NULL; u = next) {
        next = u->next;
        free(u);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* The live line gives way to a plain one. */
static void end_live(report *r)
{
    if (r->live) fprintf(stderr, "\r%*s\r", LIVE_WIDTH, "");
    r->live = false;
}

/* A step: replaces the live line on a terminal, else is a line like others. */
static void show_step(report *r, const char *line)
{
    if (r->terminal) {
        fprintf(stderr, "\r%-*.*s", LIVE_WIDTH, LIVE_WIDTH, line);
        r->live = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
}

/* Prompts and paths come from outside: they must not drive the terminal. */
static void show_text(report *r, report_kind kind, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) return;
    err_printable(copy);
    if (kind == REPORT_STEP) {
        show_step(r, copy);
    } else {
        end_live(r);
        fprintf(stderr, "%s%s\n", kind == REPORT_WARNING ? "warning: " : "", copy);
    }
    free(copy);
}

/* text: "result: id: reason"; with the lock. */
static void count_result(report *r, const char *text)
{
    for (int i = 0; i < N_RESULTS; i++) {
        const size_t n = strlen(results[i]);
        if (strncmp(text, results[i], n) != 0 || text[n] != ':') continue;
        r->n_results[i]++;
        unfinished *u = i < RESULT_FAILED ? NULL : malloc(sizeof(*u) + strlen(text) + 1);
        if (u == NULL) return;
        strcpy(u->text, text);
        err_printable(u->text);
        u->next = NULL;
        *r->last = u;
        r->last = &u->next;
        return;
    }
}

void report_picture(report *r, const char *picture, const char *result, const char *reason)
{
    char *text = NULL;
    if (!r->speaks && r->forward == NULL) return;
    const bool says_who = strncmp(reason, picture, strlen(picture)) == 0 && reason[strlen(picture)] == ':';
    if (asprintf(&text, "%s: %s%s%s", result, says_who ? "" : picture, says_who ? "" : ": ", reason) < 0) return;
    report_deliver(r, REPORT_PICTURE, text);
    free(text);
}

void report_deliver(report *r, report_kind kind, const char *text)
{
    if (r->forward != NULL) {
        r->forward(r->forward_context, kind, text);
        return;
    }
    if (!r->speaks) return;
    pthread_mutex_lock(&r->lock);
    if (kind == REPORT_EVENT) {
        if (r->log != NULL) fprintf(r->log, "%s\n", text);
        if (r->log != NULL) fflush(r->log); /* a line is there when its event has happened, also after a kill */
    } else if (kind == REPORT_PICTURE) {
        count_result(r, text);
    } else if (kind == REPORT_WARNING || !r->quiet) {
        show_text(r, kind, text);
    }
    pthread_mutex_unlock(&r->lock);
}

static void print(report *r, report_kind kind, const char *fmt, va_list ap)
{
    char *text = NULL;
    if (!r->speaks && r->forward == NULL) return;
    if (vasprintf(&text, fmt, ap) < 0) return;
    report_deliver(r, kind, text);
    free(text);
}

void report_line(report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print(r, REPORT_LINE, fmt, ap);
    va_end(ap);
}

void report_warn(report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print(r, REPORT_WARNING, fmt, ap);
    va_end(ap);
}

json_t *report_text(const char *text)
{
    char *copy = strdup(text);
    if (copy != NULL) err_printable(copy);
    json_t *value = copy == NULL ? NULL : json_string(copy);
    free(copy);
    return value != NULL ? value : json_null();
}

void report_event(report *r, const char *event, json_t *fields)
{
    if (r->log == NULL && r->forward == NULL) {
        json_decref(fields);
        return;
    }
    json_t *line = json_pack("{s:s, s:f}", "event", event, "seconds", report_now() - r->started);
    if (line != NULL && fields != NULL) json_object_update(line, fields);
    char *text = line == NULL ? NULL : json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (text != NULL) report_deliver(r, REPORT_EVENT, text);
    free(text);
    json_decref(line);
    json_decref(fields);
}

static int phase_index(report *r, const char *name)
{
    for (int i = 0; i < r->n_phases; i++)
        if (strcmp(r->phases[i].name, name) == 0) return i;
    if (r->n_phases == MAX_PHASES) return MAX_PHASES - 1;
    snprintf(r->phases[r->n_phases].name, sizeof(r->phases[0].name), "%s", name);
    return r->n_phases++;
}

void report_phase(report *r, const char *picture, const char *name)
{
    double now = report_now();
    if (r->current >= 0) {
        phase *p = &r->phases[r->current];
        double seconds = now - r->phase_started;
        p->seconds += seconds;
        p->n++;
        report_event(r, "phase", json_pack("{s:s, s:s, s:f}", "picture", r->picture, "phase", p->name, "took_s", seconds));
    }
    r->current = name == NULL ? -1 : phase_index(r, name);
    r->counts_steps = false;
    r->phase_started = now;
    if (name != NULL) snprintf(r->picture, sizeof(r->picture), "%s", picture);
    if (r->place != NULL) r->place(r->place_context, picture, name, -1);
}

/* "2:05", "1:02:05". */
static const char *duration(double seconds, char *text, size_t size)
{
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
    return text;
}

void report_step(report *r, const char *picture, int done, int n_steps, double sigma)
{
    double now = report_now();
    if (r->place != NULL && done < n_steps && r->current >= 0)
        r->place(r->place_context, picture, r->phases[r->current].name, done);
    if (!r->counts_steps) {
        r->counts_steps = true;
        r->steps_before = done;
        r->steps_started = now;
        return;
    }
    double per_step = (now - r->steps_started) / (done - r->steps_before);
    report_event(r, "step", json_pack("{s:s, s:i, s:i, s:f, s:f}", "picture", picture, "step", done, "steps", n_steps,
                                      "sigma", sigma, "s_per_step", per_step));
    if (!r->speaks && r->forward == NULL) return;
    char eta[32], line[256];
    snprintf(line, sizeof(line), "%s: step %d/%d  %.2f s/step  ETA %s", picture, done, n_steps, per_step,
             duration(per_step * (n_steps - done), eta, sizeof(eta)));
    report_deliver(r, REPORT_STEP, line);
    if (done < n_steps) return;
    pthread_mutex_lock(&r->lock);
    end_live(r);
    pthread_mutex_unlock(&r->lock);
}

static int slowest_first(const void *a, const void *b)
{
    double x = ((const phase *)a)->seconds, y = ((const phase *)b)->seconds;
    return (x < y) - (x > y);
}

static void show_results(report *r, size_t n_pictures)
{
    char   text[256] = "";
    size_t n_known = 0, used = 0;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < N_RESULTS; i++) {
        n_known += r->n_results[i];
        if (r->n_results[i] > 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%zu %s", used > 0 ? ", " : "", r->n_results[i],
                                     results[i]);
    }
    if (n_known < n_pictures)
        snprintf(text + used, sizeof(text) - used, "%s%zu not begun", used > 0 ? ", " : "", n_pictures - n_known);
    end_live(r);
    if (!r->quiet || r->first != NULL) fprintf(stderr, "pictures: %s\n", text);
    for (const unfinished *u = r->first; u != NULL; u = u->next) fprintf(stderr, "  %s\n", u->text);
    pthread_mutex_unlock(&r->lock);
}

void report_table(report *r, size_t n_pictures)
{
    report_phase(r, NULL, NULL);
    if (!r->speaks) return;
    double total = report_now() - r->started, rest = total;
    qsort(r->phases, (size_t)r->n_phases, sizeof(phase), slowest_first);
    report_line(r, "%-22s %10s %6s", "phase", "seconds", "%");
    for (int i = 0; i < r->n_phases; i++) {
        const phase *p = &r->phases[i];
        report_line(r, "%-22s %10.2f %5.1f%%", p->name, p->seconds, 100.0 * p->seconds / total);
        rest -= p->seconds;
    }
    report_line(r, "%-22s %10.2f %5.1f%%", "other", rest, 100.0 * rest / total);
    report_line(r, "%-22s %10.2f", "total", total);
    show_results(r, n_pictures);
}
