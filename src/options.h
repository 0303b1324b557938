/* Command line -> options (docs/job-file.md). Strings are lent from argv. */
#ifndef DYPE_OPTIONS_H
#define DYPE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "ops.h"
#include "status.h"

typedef enum option_backend { BACKEND_AUTO, BACKEND_CPU, BACKEND_STRICT, BACKEND_CUDA } option_backend;

typedef struct options {
    const char *job_path; /* NULL only with help, version or recipe */
    bool help, version;
    bool check; /* validate only */
    bool plan; /* print plans; render nothing */
    const char *plan_for; /* a named machine; NULL: this one */
    int plan_ranks; /* 0: those that run */
    bool bench; /* measure instead of rendering */
    const char *plot_positions; /* files written instead of pictures; NULL: no, as the two below */
    const char *spectra;
    const char *loss;
    const char *decode; /* a saved latent; NULL: render */
    const char *recipe; /* print the job of this file; NULL: no */
    bool overwrite, quiet;
    option_backend backend;
    bool isa_given; /* else the best of the processor */
    cpu_isa isa;
    const char *model; /* NULL unless given, as the two below */
    const char *out_dir;
    const char *log_json;
    const char *cache_dir; /* "none": no cache */
    const char **only; /* names or ids of pictures */
    size_t n_only;     /* 0 = all */
    const char **dump; /* names of tensors */
    size_t n_dump;
    int n_threads; /* 0 = from cores and ranks on the node */
    int n_blocks;  /* transformer blocks to run; -1 = all */
    int watchdog_s; /* 0 = no watchdog */
    size_t memory_limit; /* bytes of device memory per rank; 0 = none */
} options;

/* ST_USAGE with one line and a hint when the command line is wrong. Reorders argv: options first. */
status options_read(options *o, int argc, char **argv);
void options_close(options *o);
void options_print_help(FILE *out);

#endif
