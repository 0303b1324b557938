/* Which generator draws a picture's initial noise, as its job file says (docs/job-file.md, `noise`).
 * Arithmetic: noise.h. */
#ifndef DYPE_NOISE_KIND_H
#define DYPE_NOISE_KIND_H

typedef enum noise_kind {
    NOISE_TORCH_CPU,        /* MT19937, fp32 normals */
    NOISE_TORCH_CPU_LEGACY, /* MT19937, bf16 normals of older PyTorch releases */
    NOISE_COUNTER,          /* a function of (seed, element) alone */
    NOISE_TORCH_CUDA        /* Philox laid out as one GPU's launch grid lays it */
} noise_kind;

typedef struct noise_opts {
    noise_kind kind;
    int sms;            /* NOISE_TORCH_CUDA: multiprocessors of the GPU imitated */
    int threads_per_sm; /* NOISE_TORCH_CUDA: resident threads of one multiprocessor */
} noise_opts;
#define NOISE_OPTS_INIT ((noise_opts){.kind = NOISE_TORCH_CPU, .sms = 132, .threads_per_sm = 2048})

/* The words of a job file; index: the enum; NULL after the last. */
extern const char *const noise_kind_names[];

#endif
