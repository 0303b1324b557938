/* out = softmax(scale q k^T + bias) v: picks the kernel from a table by type and head width. First match wins. */
#include "attention.cuh"

#include "attention_check.h"

static const struct {
    dtype   type;
    int32_t head_dim; /* 0: any */
    bool    masks;    /* also with bias or causal */
    status (*put)(cuda_queue *q, const attention_args *a);
} table[] = {
    {DT_BF16, 64, true, attention_bf16_put},
    {DT_BF16, 128, true, attention_bf16_put},
    {DT_BF16, 512, false, attention_bf16_wide_put},
    {DT_BF16, 0, true, attention_f32_put},
    {DT_F32, 0, true, attention_f32_put},
};

/* The tensor core kernels load 16 bytes at once. */
static bool aligned(const attention_args *a)
{
    return aligned_16(a->q, a->ldq * 2) && aligned_16(a->k, a->ldk * 2) && aligned_16(a->v, a->ldv * 2) &&
           aligned_16(a->out, a->ldo * 2);
}

extern "C" status attention_cuda(cuda_queue *q, const attention_args *a)
{
    status st = attention_check(a);
    if (st != ST_OK || a->n_q == 0 || a->n_heads == 0) return st;
    if (!aligned_16(a->state_out, 0)) return err_set(ST_FAILED, "attention: state at %p, want whole 16 bytes", (void *)a->state_out);
    const bool masked = a->bias != NULL || a->causal;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (table[i].type != a->type || (table[i].head_dim != 0 && table[i].head_dim != a->head_dim)) continue;
        if ((masked && !table[i].masks) || (table[i].head_dim != 0 && !aligned(a))) continue;
        return table[i].put(q, a);
    }
    return err_set(ST_FAILED, "attention: no kernel for %s, head width %d", dtype_name(a->type), a->head_dim);
}
