#include "linear.h"

#include <unistd.h>

int64_t weight_count(const weight *w)
{
    int64_t n = 1;
    for (int i = 0; i < w->n_dims; i++) n *= w->shape[i];
    return n;
}

size_t weight_bytes(const weight *w)
{
    return (size_t)weight_count(w) * dtype_bytes(w->type);
}

status linear_lend(stream *s, const linear *l, linear_weight *out)
{
    *out = (linear_weight){.type = l->w.type, .bias_type = l->b.type};
    status st = stream_lend(s, l->w.data, weight_bytes(&l->w), &out->data);
    if (st != ST_OK || l->b.data == NULL) return st;
    st = stream_lend(s, l->b.data, weight_bytes(&l->b), &out->bias);
    if (st != ST_OK) stream_return(s, out->data);
    return st;
}

status linear_return(stream *s, const linear_weight *lent)
{
    status st = stream_return(s, lent->data);
    status bias_st = stream_return(s, lent->bias);
    return st != ST_OK ? st : bias_st;
}

status linear_put(stream *s, const linear *l, const linear_rows *rows)
{
    if (rows->n_rows == 0) return ST_OK;
    status        st = ST_OK;
    linear_weight lent;
    TRY(linear_lend(s, l, &lent));
    TRY(stream_linear(s, &(linear_args){
        .x = rows->x, .y = rows->y, .w = lent, .gate = rows->gate, .ldx = rows->ldx, .ldy = rows->ldy,
        .n_rows = rows->n_rows, .n_first = rows->n_first,
        .n_in = (int32_t)l->w.shape[1], .n_out = (int32_t)l->w.shape[0],
        .type = rows->type, .y_type = rows->y_type, .act = rows->act, .parity = rows->parity}));
    TRY(linear_return(s, &lent));
fail:
    return st;
}

typedef struct drop_work {
    weights      *files;
    const weight *list;
    size_t        n;
} drop_work;

static status do_drop(void *args)
{
    drop_work *work = args;
    weights_drop(work->files, work->list, work->n);
    return ST_OK;
}

status stream_drop(stream *s, weights *files, const void *weights_struct, size_t bytes)
{
    drop_work work = {files, weights_struct, bytes / sizeof(weight)};
    return stream_call(s, do_drop, &work, sizeof(work));
}

bool linear_pages_are_scarce(int64_t bytes)
{
    return bytes > (int64_t)sysconf(_SC_PHYS_PAGES) / 4 * (int64_t)sysconf(_SC_PAGE_SIZE);
}

void weight_widen(const weight *w, bool round, float *out)
{
    int64_t n = weight_count(w);
    for (int64_t i = 0; i < n; i++) {
        float value;
        if (w->type == DT_F32)
            value = ((const float *)w->data)[i];
        else if (w->type == DT_BF16)
            value = bf16_to_f32(((const uint16_t *)w->data)[i]);
        else
            value = f16_to_f32(((const uint16_t *)w->data)[i]);
        out[i] = round ? bf16_round(value) : value;
    }
}
