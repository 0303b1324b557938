/* One language of errors. Every function that can fail returns a status; its value is also the
 * exit code that it becomes (docs/job-file.md). The first function that knows the cause writes it
 * with err_set; the ones above pass it on in silence with TRY. */
#ifndef DYPE_STATUS_H
#define DYPE_STATUS_H

typedef enum status {
    ST_OK = 0,
    ST_FAILED = 1,    /* some picture failed; the batch went on */
    ST_USAGE = 2,     /* bad command line */
    ST_BAD_JOB = 3,   /* bad or missing job file */
    ST_BAD_MODEL = 4, /* bad or missing model folder */
    ST_NO_MEMORY = 5,
    ST_COMM = 6,      /* communication between ranks failed */
    ST_DEVICE = 7,    /* requested device unusable */
    ST_OUTPUT = 8,    /* journal or output unwritable */
    ST_AGAIN = 75     /* stopped by a signal after a checkpoint: run me again */
} status;

/* Passes a failure on. The function needs a `status st` and a label `fail`. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != ST_OK) goto fail;                                                                \
    } while (0)

/* Records the cause (printf style) and returns st. The message of this thread is replaced; it is
 * kept until err_clear. Cut at 4095 bytes; control characters and bytes that are no UTF-8 become '?'. */
status err_set(status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message of this thread, "" when none. Lent until the next err_set or err_clear of the thread. */
const char *err_text(void);
void err_clear(void);

/* In place: control characters but line ends and tabs, and bytes that are no UTF-8, become '?'. */
void err_printable(char *text);

/* A word for a status: "bad job file". Static. */
const char *status_name(status st);

#endif
