/* What a user sees of a run: progress, warnings, a JSON log, a closing table of phases. Rank 0 speaks; the report of
 * another replica's lead forwards what it has to say; on all other ranks every call is silent. On a terminal the current
 * step is one live line; elsewhere each step is a plain line. One thread, but for report_deliver: any thread. */
#ifndef DYPE_REPORT_H
#define DYPE_REPORT_H

#include <jansson.h>
#include <stdbool.h>

#include "status.h"

typedef struct report report;

typedef enum report_kind { REPORT_LINE, REPORT_WARNING, REPORT_STEP, REPORT_EVENT, REPORT_PICTURE } report_kind;

typedef struct report_opts {
    bool        speaks; /* this is rank 0 */
    bool        quiet;  /* only warnings and errors */
    const char *log_json; /* NULL: none */
    /* Without `speaks`: gets every line, warning, step line and event (JSON), for report_deliver where one speaks. NULL:
     * a silent report. */
    void (*forward)(void *context, report_kind kind, const char *text);
    void *forward_context;
    /* Hears on every rank where the run is: at each phase (NULL: none) with step -1, at each step begun. NULL: nobody. */
    void (*place)(void *context, const char *picture, const char *phase, int step);
    void *place_context;
} report_opts;

status report_open(report **out, const report_opts *opts);
void   report_close(report *r); /* accepts NULL */

void report_line(report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void report_warn(report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Begins a phase of a picture and ends the one before; NULL only ends. Seconds of equal names add up. */
void report_phase(report *r, const char *picture, const char *phase);
/* Step `done` of n_steps is finished; the first call of a phase starts the clock at the steps done before. sigma: noise
 * level of the step. */
void report_step(report *r, const char *picture, int done, int n_steps, double sigma);
/* What another report has forwarded: shown and logged as if it had been said here. Seconds of an event are since the
 * start of the report that said it. */
void report_deliver(report *r, report_kind kind, const char *text);
/* How a picture ended: "done", "done already", "failed", "stopped"; reason may be "". For the table. */
void report_picture(report *r, const char *picture, const char *result, const char *reason);
/* Table of the phases so far, slowest first; then the pictures counted by result, and those that failed with their reasons
 * (also when quiet). n_pictures: of the job. Only where one speaks. */
void report_table(report *r, size_t n_pictures);

/* One line of the JSON log: {"event": event, "seconds": since start, ...fields}. Steals fields (may be NULL). */
void report_event(report *r, const char *event, json_t *fields);

/* A text from outside (a path, say) for an event: bytes that are no UTF-8 become '?', or there would be no event. */
json_t *report_text(const char *text);

double report_now(void); /* seconds of a clock that only goes forward */

#endif
