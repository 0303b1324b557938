#include "plain.h"

static status plain_open(kernel_context **out, int n_threads)
{
    (void)n_threads; /* serial */
    return kernel_context_open(out, ISA_PLAIN, 1);
}

const kernel_table *kernels_plain(void)
{
    static const kernel_table table = {
        .name = "plain",
        .open = plain_open,
        .close = kernel_context_close,
#define PLAIN_ENTRY(op) .op = op##_plain,
        KERNEL_OPS(PLAIN_ENTRY)
#undef PLAIN_ENTRY
    };
    return &table;
}
