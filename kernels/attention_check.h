/* What every implementation of attention refuses, in one place. */
#ifndef DYPE_ATTENTION_CHECK_H
#define DYPE_ATTENTION_CHECK_H

#include "ops.h"

enum { ATTENTION_MAX_HEAD_DIM = 512 };

static inline status attention_check(const attention_args *a)
{
    if (a->head_dim < 8 || a->head_dim > ATTENTION_MAX_HEAD_DIM || a->head_dim % 8 != 0)
        return err_set(ST_FAILED, "attention: head width %d, want a multiple of 8, at most %d", a->head_dim,
                       ATTENTION_MAX_HEAD_DIM);
    if (a->type != DT_F32 && a->type != DT_BF16)
        return err_set(ST_FAILED, "attention: type %s, want F32 or BF16", dtype_name(a->type));
    if (a->n_q < 0 || a->n_kv < 0 || a->n_heads < 0 || a->kv_first < 0)
        return err_set(ST_FAILED, "attention: %d queries, %d keys, first %d, %d heads", a->n_q, a->n_kv, a->kv_first,
                       a->n_heads);
    if ((a->bias != NULL || a->causal) && !(a->first && a->last))
        return err_set(ST_FAILED, "attention: bias and causal want all keys in one block");
    if (!(a->first && a->last) && (a->state_max == NULL || a->state_sum == NULL || a->state_out == NULL))
        return err_set(ST_FAILED, "attention: several blocks of keys, but no state to keep between them");
    return ST_OK;
}

#endif
