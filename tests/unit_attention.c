/* Attention: the judge and the kernel of every instruction set that this machine has, or with DYPE_TEST_DEVICE=cuda those
 * of the GPU. */
#include <stdio.h>

#include "attention_checks.h"
#include "device_kernels.h"

int main(void)
{
    int failed = 0;
    if (test_device_is_cuda()) {
        if (!cuda_is_there()) return 0;
        return attention_checks_run_table(kernels_cuda(), DT_F32) + attention_checks_run_table(kernels_cuda(), DT_BF16);
    }
    for (int type = DT_F32; type <= DT_BF16; type++) {
        failed += attention_checks_run(NULL, (dtype)type);
        const attention_kernel *before = NULL;
        for (cpu_isa isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
            const attention_kernel *kernel = attention_kernel_get(isa, (dtype)type, 64);
            if (kernel == before) continue;
            if (isa <= cpu_isa_best())
                failed += attention_checks_run(kernel, (dtype)type);
            else
                printf("not run: attention %s %s (this processor has no such instructions)\n", kernel->name,
                       dtype_name((dtype)type));
            before = kernel;
        }
    }
    return failed;
}
