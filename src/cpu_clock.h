#ifndef DYPE_CPU_CLOCK_H
#define DYPE_CPU_CLOCK_H

#include <time.h>

/* Processor seconds of this process so far, all its threads. */
static inline double process_cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
