/* out = softmax(scale q k^T + bias) v, one query row of one head at a time, key tile by key tile:
 *
 *   m' = max(m, s of the tile)   a = exp(m - m')   p = exp(s - m')   l = l a + sum p   out = out a + sum p v
 *
 * Sums inside a tile are fp64; m, l and out are rounded to fp32 after every tile, as the state that travels between
 * blocks. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "attention_check.h"
#include "plain/plain.h"

typedef struct row_state {
    float max, sum;
    float out[ATTENTION_MAX_HEAD_DIM];
} row_state;

static double element(const void *x, int64_t at, dtype type)
{
    return type == DT_F32 ? (double)((const float *)x)[at] : (double)bf16_to_f32(((const uint16_t *)x)[at]);
}

static double score(const attention_args *a, int32_t head, int32_t query, int32_t key)
{
    const int64_t q = query * a->ldq + (int64_t)head * a->head_dim;
    const int64_t k = key * a->ldk + (int64_t)head * a->head_dim;
    double s = 0;
    if (a->causal && key > query) return -INFINITY;
    for (int32_t c = 0; c < a->head_dim; c++)
        if (a->q_keep == NULL || a->q_keep[c] != 0.0f)
            s += element(a->q, q + c, a->type) * element(a->k, k + c, a->type);
    s *= (double)a->scale;
    if (a->bias != NULL) s += (double)a->bias[head * a->bias_ld + (key - query + a->n_q - 1)];
    return s;
}

/* Keys [key, key + n): one tile. */
static void tile(const attention_args *a, int32_t head, int32_t query, int32_t key, int32_t n, row_state *row)
{
    double s[KEY_TILE], max = (double)row->max, sum = 0, out[ATTENTION_MAX_HEAD_DIM] = {0};
    for (int32_t i = 0; i < n; i++) {
        s[i] = score(a, head, query, key + i);
        if (!(s[i] <= max)) max = s[i]; /* NaN wins */
    }
    const float new_max = (float)max;
    if (new_max == -INFINITY) return; /* every key so far is masked */
    for (int32_t i = 0; i < n; i++) {
        const double p = exp(s[i] - (double)new_max);
        const int64_t v = (key + (int64_t)i) * a->ldv + (int64_t)head * a->head_dim;
        sum += p;
        for (int32_t c = 0; c < a->head_dim; c++) out[c] += p * element(a->v, v + c, a->type);
    }
    const double factor = exp((double)row->max - (double)new_max);
    row->max = new_max;
    row->sum = (float)((double)row->sum * factor + sum);
    for (int32_t c = 0; c < a->head_dim; c++) row->out[c] = (float)((double)row->out[c] * factor + out[c]);
}

static void row_read(const attention_args *a, int32_t head, int32_t query, row_state *row)
{
    const int64_t at = (int64_t)query * a->n_heads + head;
    const size_t bytes = (size_t)a->head_dim * sizeof(float);
    row->max = a->first ? -INFINITY : a->state_max[at];
    row->sum = a->first ? 0.0f : a->state_sum[at];
    if (a->first)
        memset(row->out, 0, bytes);
    else
        memcpy(row->out, a->state_out + at * a->head_dim, bytes);
}

static void row_write(const attention_args *a, int32_t head, int32_t query, const row_state *row)
{
    const int64_t at = (int64_t)query * a->n_heads + head;
    const int64_t out = query * a->ldo + (int64_t)head * a->head_dim;
    if (!a->last) {
        a->state_max[at] = row->max;
        a->state_sum[at] = row->sum;
        memcpy(a->state_out + at * a->head_dim, row->out, (size_t)a->head_dim * sizeof(float));
        return;
    }
    for (int32_t c = 0; c < a->head_dim; c++) {
        const float y = row->sum == 0.0f ? 0.0f : row->out[c] / row->sum; /* a row that met no key is 0 */
        if (a->type == DT_F32)
            ((float *)a->out)[out + c] = y;
        else
            ((uint16_t *)a->out)[out + c] = f32_to_bf16(y);
    }
}

status attention_plain(kernel_context *ctx, const attention_args *a)
{
    (void)ctx;
    status st = attention_check(a);
    if (st != ST_OK) return st;
    for (int32_t head = 0; head < a->n_heads; head++)
        for (int32_t query = 0; query < a->n_q; query++) {
            row_state row;
            row_read(a, head, query, &row);
            for (int32_t key = 0, n; key < a->n_kv; key += n) {
                const int32_t end = key < a->kv_first && a->kv_first < a->n_kv ? a->kv_first : a->n_kv;
                n = end - key < KEY_TILE ? end - key : KEY_TILE;
                tile(a, head, query, key, n, &row);
            }
            row_write(a, head, query, &row);
        }
    return ST_OK;
}
