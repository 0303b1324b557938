/* Which position method a picture uses, as its job file says (docs/job-file.md, `position`).
 * Arithmetic: position.h. */
#ifndef DYPE_POSITION_KIND_H
#define DYPE_POSITION_KIND_H

#include <math.h>
#include <stdbool.h>

typedef enum position_method {
    POSITION_BASE,      /* native frequencies */
    POSITION_PI,        /* position interpolation */
    POSITION_NTK,       /* larger rotary base */
    POSITION_YARN,      /* by parts */
    POSITION_TIME_AWARE /* Lumina-Next's; has a clock of its own, never `dype` */
} position_method;

typedef enum position_variant {
    VARIANT_OFFICIAL, /* the authors' newest code: "default" in the reference vectors */
    VARIANT_V1,       /* yarn with dype: the authors' code of October 2025 */
    VARIANT_PAPER,
    VARIANT_PAPER_L1024,
    VARIANT_FIT2,            /* yarn without dype */
    VARIANT_SWITCH,          /* time-aware */
    VARIANT_CONTINUOUS,      /* time-aware */
    VARIANT_ABLATE_EXP,      /* ntk with dype */
    VARIANT_ABLATE_MULT,     /* ntk with dype */
    VARIANT_ABLATE_NTK_ONLY, /* yarn with dype */
    VARIANT_ABLATE_BOTH      /* yarn with dype */
} position_variant;

typedef struct position_opts {
    position_method method;
    bool dype;                /* pi, ntk and yarn follow the noise level */
    position_variant variant; /* one that the method has, with this dype */
    double lambda_s;          /* kappa = lambda_s t^lambda_t; NaN = the variant's own */
    double lambda_t;
    int base_resolution; /* px per side that the model was trained at; 0 = sample_size of the VAE config */
} position_opts;
#define POSITION_OPTS_INIT                                                                                             \
    ((position_opts){                                                                                                  \
        .method = POSITION_YARN, .dype = true, .variant = VARIANT_OFFICIAL, .lambda_s = NAN, .lambda_t = 2.0})

/* The words of a job file; index: the enum; NULL after the last. */
extern const char *const position_method_names[];
extern const char *const position_variant_names[];

bool position_method_can_dype(position_method method);
/* Whether the method, with this `dype`, has the variant; the first one that it has is its default. */
bool position_variant_exists(position_method method, bool dype, position_variant variant);

enum { POSITION_LABEL_BYTES = 48 };
/* A name for files and logs: "base", "dy-yarn", "dy-yarn-v1", "time-aware-switch". Returns label. */
const char *position_label(const position_opts *opts, char label[POSITION_LABEL_BYTES]);

#endif
