#include "position_kind.h"

#include <stddef.h>
#include <stdio.h>

const char *const position_method_names[] = {"base", "pi", "ntk", "yarn", "time-aware", NULL};

const char *const position_variant_names[] = {
    "official",   "v1",         "paper",       "paper-L1024",     "fit2",        "switch",
    "continuous", "ablate-exp", "ablate-mult", "ablate-ntk-only", "ablate-both", NULL};

#define HAS(variant) (1u << (variant))

/* Which variants a method has: still, and following the noise level (spec: one row per method and form). */
static const struct {
    bool can_dype;
    unsigned still, dynamic; /* bits: position_variant */
} methods[] = {
    [POSITION_BASE] = {false, HAS(VARIANT_OFFICIAL), 0},
    [POSITION_PI] = {true, HAS(VARIANT_OFFICIAL), HAS(VARIANT_OFFICIAL)},
    [POSITION_NTK] = {true, HAS(VARIANT_OFFICIAL),
                      HAS(VARIANT_OFFICIAL) | HAS(VARIANT_ABLATE_EXP) | HAS(VARIANT_ABLATE_MULT)},
    [POSITION_YARN] = {true, HAS(VARIANT_OFFICIAL) | HAS(VARIANT_PAPER) | HAS(VARIANT_PAPER_L1024) | HAS(VARIANT_FIT2),
                       HAS(VARIANT_OFFICIAL) | HAS(VARIANT_V1) | HAS(VARIANT_PAPER) | HAS(VARIANT_PAPER_L1024) |
                           HAS(VARIANT_ABLATE_NTK_ONLY) | HAS(VARIANT_ABLATE_BOTH)},
    [POSITION_TIME_AWARE] = {false, HAS(VARIANT_SWITCH) | HAS(VARIANT_CONTINUOUS), 0},
};

bool position_method_can_dype(position_method method)
{
    return methods[method].can_dype;
}

bool position_variant_exists(position_method method, bool dype, position_variant variant)
{
    return ((dype ? methods[method].dynamic : methods[method].still) & HAS(variant)) != 0;
}

const char *position_label(const position_opts *opts, char label[POSITION_LABEL_BYTES])
{
    bool plain = opts->variant == VARIANT_OFFICIAL;
    snprintf(label, POSITION_LABEL_BYTES, "%s%s%s%s", opts->dype ? "dy-" : "", position_method_names[opts->method],
             plain ? "" : "-", plain ? "" : position_variant_names[opts->variant]);
    return label;
}
