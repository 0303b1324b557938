/* How a picture's noise schedule is shifted, as its job file says (docs/job-file.md, `shift`).
 * Arithmetic: schedule.h. */
#ifndef DYPE_SCHEDULE_KIND_H
#define DYPE_SCHEDULE_KIND_H

typedef enum shift_kind {
    SHIFT_DYPE,    /* mu = max_shift at every size */
    SHIFT_STOCK,   /* mu from the number of image rows, as diffusers does */
    SHIFT_EXPLICIT /* mu as given */
} shift_kind;

typedef struct shift_opts {
    shift_kind kind;
    double mu; /* SHIFT_EXPLICIT only */
} shift_opts;
#define SHIFT_OPTS_INIT ((shift_opts){.kind = SHIFT_DYPE})

#endif
