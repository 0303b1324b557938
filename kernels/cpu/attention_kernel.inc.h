/* The body of an attention kernel, included once per instruction set by attention_<isa>.c.
 *
 *   S^T = K Q^T * scale        [keys of a tile, queries of a panel]
 *   m' = max(m, max_key S)     a = exp(m - m')    P = exp(S - m')
 *   l  = l * a + sum_key P     O^T = O^T * a + V^T P^T
 *
 * Everything is transposed: a vector holds LANES queries, and keys and channels are broadcast. So maximum and sum over
 * keys need no step across lanes, a query row meets the same instructions in every lane, and its bits cannot depend on
 * its place in the panel, on the number of rows, or on where the caller cut the keys (at multiples of KEY_TILE). Both
 * products keep GROUP x 3 accumulators in registers: GROUP keys (or channels) by a panel of 3 * LANES queries.
 *
 * A tile of K and V is copied (widened, paired) once per item and used by all its panels. Within a product the
 * channels (in blocks of CHANNEL_BLOCK units), or keys, are added one after another in fp32. What is kept between tiles
 * (m, l, O) lives in memory as fp32, so a state that the caller saves and hands back changes nothing. A key that is
 * masked for a query has S = -inf and P = 0, and a tile whose keys are all masked leaves m, l and O as they were:
 * exp(m - m) is exactly 1. No tile is ever skipped.
 *
 * A unit is what one lane of a product's operand holds: one fp32 channel or key (PACK 1), or a pair in bf16 (PACK 2).
 *
 * The including file defines
 *   LANES, GROUP (divides 8, a multiple of PACK), PACK, CHANNEL_BLOCK, the types vec (LANES floats), unit (4 bytes),
 *   units (LANES units);
 *   vec_load, vec_store, vec_set1, vec_add, vec_sub, vec_mul, vec_div, vec_max (NaN in the second operand stays),
 *   vec_fma(a, b, c) = a * b + c, vec_power2(t): 2^n from the low bits of t = n + 1.5 * 2^23,
 *   vec_keep(p, x, limit): 0 where x < limit, else p;
 *   units_load, units_store, units_set1, units_dot(a, b, acc), weights_pack(p[PACK], &sum): units, and adds them to
 *   sum. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/attention.h"

enum {
    PANEL = 3 * LANES,
    MAX_HEAD_DIM = 512,
    ROWS_AHEAD = 4,
    SIDE = 4, /* of the square that is turned at once; divides PANEL and the units of a head */
    VALUES_STRIDE = KEY_TILE / PACK * GROUP + 16, /* one cache line more than a power of two */
    ALIGN = 64
};

#define UNROLL _Pragma("GCC unroll 8")
#if PACK == 1
typedef float value; /* one channel of a row that was read */
#else
typedef uint16_t value;
#endif

#define INLINE static inline __attribute__((always_inline))

/* One item's memory, all fp32 or units. */
typedef struct item {
    unit  *k;    /* [KEY_TILE, head_dim / PACK] */
    unit  *v;    /* [head_dim / GROUP] of [KEY_TILE / PACK, GROUP], VALUES_STRIDE apart */
    float *s;    /* [KEY_TILE, PANEL]; the weights P replace it as units [KEY_TILE / PACK, PANEL] */
    void  *row;  /* [SIDE, MAX_HEAD_DIM] units on their way into another layout */
    unit  *q;    /* per panel [head_dim / PACK, PANEL] */
    float *out;  /* per panel [head_dim, PANEL] */
    float *stat; /* per panel [2, PANEL]: maximum, sum */
} item;

/* Bytes of an item; lays it out at base when `it` is given. */
static size_t item_place(item *it, char *base, int32_t head_dim, int32_t n_panels)
{
    size_t dim = (size_t)head_dim, panels = (size_t)n_panels, at = 0;
    size_t k = at;
    at += KEY_TILE * dim / PACK;
    size_t v = at;
    at += VALUES_STRIDE * dim / GROUP;
    size_t s = at;
    at += KEY_TILE * PANEL;
    size_t row = at;
    at += SIDE * MAX_HEAD_DIM;
    size_t q = at;
    at += panels * PANEL * dim / PACK;
    size_t out = at;
    at += panels * PANEL * dim;
    size_t stat = at;
    at += panels * PANEL * 2;
    if (it != NULL) {
        float *f = (float *)(void *)base;
        unit *u = (unit *)(void *)base;
        *it = (item){.k = u + k, .v = u + v, .s = f + s, .row = u + row, .q = u + q, .out = f + out, .stat = f + stat};
    }
    return (at * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t scratch_bytes(int32_t head_dim, int32_t n_panels)
{
    return item_place(NULL, NULL, head_dim, n_panels);
}

/* e^x for x <= 0, within 2 ulp; 0 below -87.33 (where e^x leaves the normal numbers) and for -inf; NaN stays.
 * x = n ln 2 + r; e^r = 1 + r + r^2 p(r), p fitted for the least relative error on |r| <= ln 2 / 2 (3e-9). ln 2 is
 * split so that n times its high part is exact. */
INLINE vec vec_exp(vec x)
{
    const vec limit = vec_set1(-0x1.5d589ep6f), magic = vec_set1(0x1.8p23f);
    vec t = vec_fma(x, vec_set1(0x1.715476p+0f), magic);
    vec n = vec_sub(t, magic);
    vec r = vec_fma(n, vec_set1(-0x1.63p-1f), x);
    r = vec_fma(n, vec_set1(0x1.bd0106p-13f), r);
    vec r2 = vec_mul(r, r);
    vec high = vec_fma(r, vec_set1(0x1.123a6cp-7f), vec_set1(0x1.5558f4p-5f));
    vec low = vec_fma(r, vec_set1(0x1.55549p-3f), vec_set1(0x1.fffffcp-2f));
    high = vec_fma(r2, vec_set1(0x1.6a2352p-10f), high);
    vec p = vec_fma(vec_fma(high, r2, low), r2, vec_add(r, vec_set1(1.0f)));
    return vec_keep(vec_mul(p, vec_power2(t)), x, limit);
}

typedef uint32_t quad __attribute__((vector_size(4 * SIDE)));
typedef uint16_t narrow8 __attribute__((vector_size(16)));
typedef uint32_t wide8 __attribute__((vector_size(32)));

INLINE quad quad_load(const void *from)
{
    quad x;
    memcpy(&x, from, sizeof(x));
    return x;
}

/* A square of 4-byte values, turned: to[j][i] = from[i][j]. */
INLINE void turn(const void *from, size_t ldf, void *to, size_t ldt)
{
    const quad low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    const uint32_t *f = from;
    uint32_t       *t = to;
    const quad a = quad_load(f), b = quad_load(f + ldf), c = quad_load(f + 2 * ldf), d = quad_load(f + 3 * ldf);
    const quad ab = __builtin_shuffle(a, b, low), cd = __builtin_shuffle(c, d, low);
    const quad ab2 = __builtin_shuffle(a, b, high), cd2 = __builtin_shuffle(c, d, high);
    const quad out[SIDE] = {__builtin_shuffle(ab, cd, first), __builtin_shuffle(ab, cd, second),
                            __builtin_shuffle(ab2, cd2, first), __builtin_shuffle(ab2, cd2, second)};
    UNROLL for (int i = 0; i < SIDE; i++) memcpy(t + (size_t)i * ldt, &out[i], sizeof(out[i]));
}

/* Channels of one row of q, k or v as units, in order. */
INLINE void row_read(void *row, const void *x, int64_t at, int32_t n, dtype type)
{
#if PACK == 1
    float *to = row;
    if (type == DT_F32) {
        memcpy(to, (const float *)x + at, (size_t)n * sizeof(float));
    } else {
        const uint16_t *from = (const uint16_t *)x + at;
        for (int32_t c = 0; c < n; c += 8) { /* bf16_to_f32, eight at once */
            narrow8 half;
            memcpy(&half, from + c, sizeof(half));
            wide8 full = __builtin_convertvector(half, wide8) << 16;
            memcpy(to + c, &full, sizeof(full));
        }
    }
#else
    (void)type;
    memcpy(row, (const uint16_t *)x + at, (size_t)n * sizeof(uint16_t));
#endif
}

/* Rows of different tokens are far apart, so the processor does not foresee them: asks for one a few rows ahead. */
INLINE void row_fetch(const void *x, int64_t at, int32_t n, dtype type)
{
    const int64_t size = type == DT_F32 ? 4 : 2;
    for (int64_t i = 0; i < n * size; i += 64) __builtin_prefetch((const char *)x + at * size + i);
}

/* One tile of keys and values; rows up to the next multiple of GROUP are zero. */
INLINE void tile_read(const item *it, const attention_args *a, int32_t head, int32_t key, int32_t n_keys, int32_t dim)
{
    const int32_t n_units = dim / PACK, n_padded = (n_keys + GROUP - 1) / GROUP * GROUP;
    const int64_t k = key * a->ldk + (int64_t)head * dim, v = key * a->ldv + (int64_t)head * dim;
    for (int32_t i = 0; i < n_keys; i++) {
        if (i + ROWS_AHEAD < n_keys) row_fetch(a->k, k + (i + ROWS_AHEAD) * a->ldk, dim, a->type);
        row_read(it->k + i * n_units, a->k, k + i * a->ldk, dim, a->type);
    }
    memset(it->k + n_keys * n_units, 0, (size_t)((n_padded - n_keys) * n_units) * sizeof(unit));
    for (int32_t i = 0; i < n_padded; i += PACK) {
        value *row = it->row;
        for (int32_t h = 0; h < PACK; h++) {
            if (i + h + ROWS_AHEAD < n_keys) row_fetch(a->v, v + (i + h + ROWS_AHEAD) * a->ldv, dim, a->type);
            if (i + h < n_keys)
                row_read(row + h * dim, a->v, v + (i + h) * a->ldv, dim, a->type);
            else
                memset(row + h * dim, 0, (size_t)dim * sizeof(value));
        }
        unit *to = it->v + i / PACK * GROUP;
        for (int32_t c = 0; c < dim; c += GROUP, to += VALUES_STRIDE)
#if PACK == 1
            memcpy(to, row + c, GROUP * sizeof(unit));
#else
            UNROLL for (int g = 0; g < GROUP; g++) to[g] = (uint32_t)row[c + g] | (uint32_t)row[dim + c + g] << 16;
#endif
    }
}

/* A panel that is not full computes only the n_vec vectors that hold rows; every function below is compiled for 1, 2, 3. */

/* s[GROUP, PANEL] = (s +) scale * k q^T over n channel units. */
INLINE void scores_group(float *s, const unit *k, int32_t ldk, const unit *q, int32_t n, bool start, vec scale,
                         int n_vec)
{
    vec acc[GROUP][3];
    UNROLL for (int r = 0; r < GROUP; r++)
        UNROLL for (int j = 0; j < n_vec; j++) acc[r][j] = vec_set1(0.0f);
    for (int32_t c = 0; c < n; c++) {
        units qs[3];
        UNROLL for (int j = 0; j < n_vec; j++) qs[j] = units_load(q + j * LANES);
        UNROLL for (int r = 0; r < GROUP; r++) {
            units b = units_set1(k[r * ldk + c]);
            UNROLL for (int j = 0; j < n_vec; j++) acc[r][j] = units_dot(b, qs[j], acc[r][j]);
        }
        q += PANEL;
    }
    UNROLL for (int r = 0; r < GROUP; r++)
        UNROLL for (int j = 0; j < n_vec; j++) {
            float *to = s + r * PANEL + j * LANES;
            vec_store(to, start ? vec_mul(acc[r][j], scale) : vec_fma(acc[r][j], scale, vec_load(to)));
        }
}

/* Scores of n_padded keys and one panel. Channels go in blocks whose queries stay in the first cache. */
INLINE void scores_tile(const item *it, const unit *q, int32_t n_padded, int32_t dim, float scale, int n_vec)
{
    const int32_t n_units = dim / PACK;
    for (int32_t c = 0; c < n_units; c += CHANNEL_BLOCK) {
        const int32_t n = n_units - c < CHANNEL_BLOCK ? n_units - c : CHANNEL_BLOCK;
        for (int32_t i = 0; i < n_padded; i += GROUP)
            scores_group(it->s + i * PANEL, it->k + i * n_units + c, n_units, q + c * PANEL, n, c == 0,
                         vec_set1(scale), n_vec);
    }
}

/* Bias and masks of a tile, for a panel that starts at query row `row`. */
static void scores_mask(float *s, const attention_args *a, int32_t head, int32_t row, int32_t n_rows, int32_t key,
                        int32_t n_keys, int32_t n_padded)
{
    if (a->bias != NULL) {
        const float *bias = a->bias + head * a->bias_ld + (a->n_q - 1);
        for (int32_t i = 0; i < n_keys; i++)
            for (int32_t r = 0; r < n_rows; r++) s[i * PANEL + r] += bias[(int64_t)key + i - row - r];
    }
    if (a->causal) {
        for (int32_t i = 0; i < n_keys; i++)
            for (int32_t r = 0; r < PANEL; r++)
                if (key + i > row + r) s[i * PANEL + r] = -INFINITY;
    }
    for (int32_t i = n_keys * PANEL; i < n_padded * PANEL; i++) s[i] = -INFINITY;
}

/* Turns scores into weights, updates maximum and sum; factor: what the output so far is multiplied by. */
INLINE void weights_tile(float *s, float *stat, vec factor[3], int32_t n_padded, int n_vec)
{
    vec max[3], sum[3];
    UNROLL for (int j = 0; j < n_vec; j++) max[j] = vec_load(s + j * LANES);
    for (int32_t i = 1; i < n_padded; i++)
        UNROLL for (int j = 0; j < n_vec; j++) max[j] = vec_max(max[j], vec_load(s + i * PANEL + j * LANES));
    UNROLL for (int j = 0; j < n_vec; j++) {
        vec old = vec_load(stat + j * LANES);
        vec now = vec_max(old, max[j]);
        vec_store(stat + j * LANES, now);
        max[j] = vec_max(vec_set1(-FLT_MAX), now); /* all keys masked so far: -inf - -inf must not be */
        factor[j] = vec_exp(vec_sub(old, max[j]));
        sum[j] = vec_set1(0.0f);
    }
    for (int32_t i = 0; i < n_padded; i += PACK)
        UNROLL for (int j = 0; j < n_vec; j++) {
            vec p[PACK];
            UNROLL for (int h = 0; h < PACK; h++)
                p[h] = vec_exp(vec_sub(vec_load(s + (i + h) * PANEL + j * LANES), max[j]));
            units_store(s + i / PACK * PANEL + j * LANES, weights_pack(p, &sum[j]));
        }
    UNROLL for (int j = 0; j < n_vec; j++) {
        float *l = stat + PANEL + j * LANES;
        vec_store(l, vec_fma(vec_load(l), factor[j], sum[j]));
    }
}

/* out[dim, PANEL] = out * factor + v^T p^T. */
INLINE void output_tile(const item *it, float *out, const vec factor[3], int32_t n_padded, int32_t dim, int n_vec)
{
    for (int32_t c = 0; c < dim; c += GROUP) {
        const unit *v = it->v + c / GROUP * VALUES_STRIDE;
        const float *p = it->s;
        float *o = out + c * PANEL;
        vec acc[GROUP][3];
        UNROLL for (int r = 0; r < GROUP; r++)
            UNROLL for (int j = 0; j < n_vec; j++) acc[r][j] = vec_mul(vec_load(o + r * PANEL + j * LANES), factor[j]);
        for (int32_t i = 0; i < n_padded; i += PACK) {
            units ps[3];
            UNROLL for (int j = 0; j < n_vec; j++) ps[j] = units_load(p + j * LANES);
            UNROLL for (int r = 0; r < GROUP; r++) {
                units b = units_set1(v[r]);
                UNROLL for (int j = 0; j < n_vec; j++) acc[r][j] = units_dot(b, ps[j], acc[r][j]);
            }
            v += GROUP;
            p += PANEL;
        }
        UNROLL for (int r = 0; r < GROUP; r++)
            UNROLL for (int j = 0; j < n_vec; j++) vec_store(o + r * PANEL + j * LANES, acc[r][j]);
    }
}

/* The state of a panel of n_rows rows lies as the panel does: [dim, n_rows], maxima and sums [n_rows]; heads first. So a
 * full panel's output is added to where it lies, and that of the last one comes and goes in runs. */
INLINE size_t state_row(const attention_args *a, int32_t head, int32_t row)
{
    return (size_t)head * (size_t)a->n_q + (size_t)row;
}

/* One panel's rows of the call, and where its values are. */
typedef struct panel {
    int32_t row, n_rows;
    unit   *q;
    float  *out;  /* [dim, PANEL]; the state itself when the panel is full and there are several blocks */
    float  *stat; /* [2, PANEL] */
} panel;

INLINE panel panel_at(const item *it, const attention_args *a, int32_t head, int32_t row, int32_t n_rows, int32_t i,
                      int32_t dim)
{
    const size_t  at = (size_t)i, size = (size_t)dim * PANEL;
    const int32_t left = n_rows - i * PANEL;
    panel p = {.row = row + i * PANEL, .n_rows = left < PANEL ? left : PANEL, .q = it->q + at * size / PACK,
               .out = it->out + at * size, .stat = it->stat + at * 2 * PANEL};
    if (p.n_rows == PANEL && !(a->first && a->last)) p.out = a->state_out + state_row(a, head, p.row) * (size_t)dim;
    return p;
}

/* [dim, n_rows], rows from_ld and to_ld apart. */
INLINE void runs_copy(float *to, size_t to_ld, const float *from, size_t from_ld, int32_t n_rows, int32_t dim)
{
    for (size_t c = 0; c < (size_t)dim; c++) memcpy(to + c * to_ld, from + c * from_ld, (size_t)n_rows * sizeof(float));
}

static void row_keep(value *row, const float *keep, int32_t dim)
{
    for (int32_t c = 0; c < dim; c++)
        if (keep[c] == 0.0f) row[c] = 0;
}

/* Queries and, in the first block or a later one, the empty or the given state. Rows past n_rows are zero. */
INLINE void panel_read(const item *it, const attention_args *a, int32_t head, const panel *p, int32_t dim)
{
    const int32_t n_units = dim / PACK;
    for (int32_t r = 0; r < PANEL; r += SIDE) {
        for (int32_t i = 0; i < SIDE; i++) {
            unit *to = (unit *)it->row + (size_t)i * MAX_HEAD_DIM;
            if (r + i < p->n_rows) {
                row_read(to, a->q, ((int64_t)p->row + r + i) * a->ldq + (int64_t)head * dim, dim, a->type);
                if (a->q_keep != NULL) row_keep((value *)(void *)to, a->q_keep, dim);
            } else {
                memset(to, 0, (size_t)n_units * sizeof(unit));
            }
        }
        for (int32_t c = 0; c < n_units; c += SIDE)
            turn((unit *)it->row + c, MAX_HEAD_DIM, p->q + (size_t)c * PANEL + r, PANEL);
    }
    if (p->n_rows < PANEL || a->first) {
        memset(p->out, 0, (size_t)dim * PANEL * sizeof(float));
        for (int32_t r = 0; r < PANEL; r++) {
            p->stat[r] = -INFINITY;
            p->stat[PANEL + r] = 0.0f;
        }
    }
    if (a->first) return;
    const size_t at = state_row(a, head, p->row), n = (size_t)p->n_rows, run = n * sizeof(float);
    if (p->n_rows < PANEL) runs_copy(p->out, PANEL, a->state_out + at * (size_t)dim, n, p->n_rows, dim);
    memcpy(p->stat, a->state_max + at, run);
    memcpy(p->stat + PANEL, a->state_sum + at, run);
}

/* The state, or in the last block the result. A row that met no key at all becomes 0. */
INLINE void panel_write(const item *it, const attention_args *a, int32_t head, const panel *p, int32_t dim)
{
    const float *sum = p->stat + PANEL;
    if (!a->last) {
        const size_t at = state_row(a, head, p->row), n = (size_t)p->n_rows, run = n * sizeof(float);
        if (p->n_rows < PANEL) runs_copy(a->state_out + at * (size_t)dim, n, p->out, PANEL, p->n_rows, dim);
        memcpy(a->state_max + at, p->stat, run);
        memcpy(a->state_sum + at, sum, run);
        return;
    }
    for (int32_t c = 0; c < dim; c++)
        for (int32_t r = 0; r < p->n_rows; r += LANES) {
            float *o = p->out + c * PANEL + r;
            vec_store(o, vec_div(vec_load(o), vec_load(sum + r)));
        }
    for (int32_t r = 0; r < p->n_rows; r += SIDE) {
        for (int32_t c = 0; c < dim; c += SIDE) turn(p->out + c * PANEL + r, PANEL, (float *)it->row + c, MAX_HEAD_DIM);
        for (int32_t i = 0; i < SIDE && r + i < p->n_rows; i++) {
            const int64_t at = ((int64_t)p->row + r + i) * a->ldo + (int64_t)head * dim;
            float        *from = (float *)it->row + (size_t)i * MAX_HEAD_DIM;
            if (sum[r + i] == 0.0f) memset(from, 0, (size_t)dim * sizeof(float));
            if (a->type == DT_F32)
                memcpy((float *)a->out + at, from, (size_t)dim * sizeof(float));
            else
                for (int32_t c = 0; c < dim; c++) ((uint16_t *)a->out)[at + c] = f32_to_bf16(from[c]);
        }
    }
}

/* A panel meets the tile of keys that was read. */
INLINE void panel_meet(const item *it, const attention_args *a, int32_t head, const panel *p, int32_t key, int32_t n_keys,
                       int32_t n_padded, int32_t dim, int n_vec)
{
    vec factor[3];
    scores_tile(it, p->q, n_padded, dim, a->scale, n_vec);
    if (a->bias != NULL || a->causal || n_padded != n_keys)
        scores_mask(it->s, a, head, p->row, p->n_rows, key, n_keys, n_padded);
    weights_tile(it->s, p->stat, factor, n_padded, n_vec);
    output_tile(it, p->out, factor, n_padded, dim, n_vec);
}

INLINE void item_run(const attention_args *a, int32_t head, int32_t row, int32_t n_rows, void *scratch, int32_t dim)
{
    const int32_t n_panels = (n_rows + PANEL - 1) / PANEL;
    item it;
    item_place(&it, scratch, dim, n_panels);
    for (int32_t i = 0; i < n_panels; i++) {
        const panel p = panel_at(&it, a, head, row, n_rows, i, dim);
        panel_read(&it, a, head, &p, dim);
    }
    for (int32_t key = 0, n_keys; key < a->n_kv; key += n_keys) {
        const int32_t end = key < a->kv_first && a->kv_first < a->n_kv ? a->kv_first : a->n_kv;
        n_keys = end - key < KEY_TILE ? end - key : KEY_TILE;
        const int32_t n_padded = (n_keys + GROUP - 1) / GROUP * GROUP;
        tile_read(&it, a, head, key, n_keys, dim);
        for (int32_t i = 0; i < n_panels; i++) {
            const panel p = panel_at(&it, a, head, row, n_rows, i, dim);
            if (p.n_rows > 2 * LANES)
                panel_meet(&it, a, head, &p, key, n_keys, n_padded, dim, 3);
            else if (p.n_rows > LANES)
                panel_meet(&it, a, head, &p, key, n_keys, n_padded, dim, 2);
            else
                panel_meet(&it, a, head, &p, key, n_keys, n_padded, dim, 1);
        }
    }
    for (int32_t i = 0; i < n_panels; i++) {
        const panel p = panel_at(&it, a, head, row, n_rows, i, dim);
        panel_write(&it, a, head, &p, dim);
    }
}

static void run(const attention_args *a, int32_t head, int32_t row, int32_t n_rows, void *scratch)
{
    item_run(a, head, row, n_rows, scratch, a->head_dim);
}
