#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[4096];

status err_set(status st, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    /* Names in a message come from files: they must not drive the terminal. */
    for (char *c = message; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 && *c != '\n') *c = '?';
        if (*c == 0x7f) *c = '?';
    }
    return st;
}

const char *err_text(void)
{
    return message;
}

void err_clear(void)
{
    message[0] = '\0';
}

const char *status_name(status st)
{
    switch (st) {
    case ST_OK: return "ok";
    case ST_FAILED: return "some pictures failed";
    case ST_USAGE: return "bad usage";
    case ST_BAD_JOB: return "bad job file";
    case ST_BAD_MODEL: return "bad model folder";
    case ST_NO_MEMORY: return "out of memory";
    case ST_COMM: return "communication failure";
    case ST_DEVICE: return "device unusable";
    case ST_OUTPUT: return "output unwritable";
    case ST_AGAIN: return "stopped by a signal, run again";
    }
    return "unknown status";
}
