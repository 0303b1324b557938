/* The AVX-512 kernels of attention are executed on any machine, their instructions emulated. */
#include <stdio.h>

#include "attention_checks.h"

int main(void)
{
    if (attention_simde_f32 == NULL) {
        printf("not run: attention with AVX-512 emulated (SIMDe is not installed)\n");
        return 0;
    }
    int failed = attention_checks_run(attention_simde_f32, DT_F32);
    failed += attention_checks_run(attention_simde_f32, DT_BF16);
    failed += attention_checks_run(attention_simde_bf16, DT_BF16);
    return failed;
}
