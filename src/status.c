#include "status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

static _Thread_local char message[4096];

/* Names in a message come from files: they must not drive the terminal, nor spoil the log as bytes that are no UTF-8. */
void err_printable(char *text)
{
    utf8proc_uint8_t *at = (utf8proc_uint8_t *)text;
    while (*at != 0) {
        utf8proc_int32_t c = 0;
        utf8proc_ssize_t n = utf8proc_iterate(at, -1, &c);
        bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
        if (n < 1) n = 1, control = true;
        if (control) memset(at, '?', (size_t)n);
        at += n;
    }
}

status err_set(status st, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    err_printable(message);
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
