/* D = act(alpha op(A) op(B) + beta C + bias). Computed as D^T = op(B)^T op(A)^T in tiles of TILE_N x TILE_M, each one oneDNN
 * call of that shape, short tiles padded with zeros: so an element does not depend on the number of rows and columns beside
 * it, nor on threads. */
#include "cublaslt.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

enum { TILE_N = 64, TILE_M = 128 };

static const char *const SIDES[] = {"cublasLtMatmul: A", "cublasLtMatmul: B", "cublasLtMatmul: C", "cublasLtMatmul: D"};

/* ---- elements */

static float load(const unsigned char *at, uint32_t type)
{
    float    f;
    uint32_t bits;
    uint16_t half;
    _Float16 h;
    switch (type) {
    case CUDA_R_32F: memcpy(&f, at, sizeof(f)); return f;
    case CUDA_R_16F: memcpy(&h, at, sizeof(h)); return (float)h;
    default:
        memcpy(&half, at, sizeof(half));
        bits = (uint32_t)half << 16;
        memcpy(&f, &bits, sizeof(f));
        return f;
    }
}

/* To the nearest, ties to even. */
static void store(unsigned char *at, uint32_t type, float f)
{
    uint32_t bits;
    uint16_t half;
    _Float16 h = (_Float16)f;
    memcpy(&bits, &f, sizeof(bits));
    switch (type) {
    case CUDA_R_32F: memcpy(at, &f, sizeof(f)); return;
    case CUDA_R_16F: memcpy(at, &h, sizeof(h)); return;
    default:
        half = (uint16_t)(isnan(f) ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        memcpy(at, &half, sizeof(half));
    }
}

/* What tensor cores make of fp32 when TF32 is allowed: 10 bits of mantissa. */
static float to_tf32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    if (!isfinite(f)) return f;
    bits = (bits + 0xfff + ((bits >> 13) & 1)) & ~(uint32_t)0x1fff;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* ---- operands */

/* A matrix as its memory is now, seen with rows along `outer`. */
typedef struct view {
    unsigned char *base;
    uint32_t       type;
    size_t         outer, inner; /* strides in bytes: to the next row, to the next element of K (of D: to the next row) */
    bool           tf32;
} view;

static unsigned char *lend(const product *p, int side, int batch, vgpu_access access)
{
    const layout *l = &p->problem.side[side];
    const size_t  e = type_bytes(l->type);
    const bool    by_row = l->order == CUBLASLT_ORDER_ROW;
    const size_t  run = (size_t)(by_row ? l->cols : l->rows), n_runs = (size_t)(by_row ? l->rows : l->cols);
    const unsigned char *at = (const unsigned char *)p->at[side] + (int64_t)batch * l->batch_stride * (int64_t)e;
    return vgpu_memory_2d(at, run * e, (size_t)l->ld * e, n_runs, access, SIDES[side]);
}

/* turned: the outer index is that of columns. */
static bool look(const product *p, int side, int batch, bool turned, vgpu_access access, view *out)
{
    const layout *l = &p->problem.side[side];
    const size_t  e = type_bytes(l->type), ld = (size_t)l->ld * e;
    const bool    by_row = l->order == CUBLASLT_ORDER_ROW;
    const size_t  row = by_row ? ld : e, column = by_row ? e : ld;
    *out = (view){.base = lend(p, side, batch, access), .type = l->type, .outer = turned ? column : row,
                  .inner = turned ? row : column, .tf32 = p->problem.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32};
    return out->base != NULL;
}

/* Rows [first, first + n_tile) of a view to [n_tile, k], zeros behind its last one. */
static void pack(float *to, const view *from, uint64_t first, uint64_t n_rows, size_t n_tile, size_t k)
{
    for (size_t i = 0; i < n_tile; i++, to += k) {
        if (first + i >= n_rows) {
            memset(to, 0, k * sizeof(*to));
            continue;
        }
        const unsigned char *row = from->base + (first + i) * from->outer;
        for (size_t l = 0; l < k; l++) to[l] = load(row + l * from->inner, from->type);
        for (size_t l = 0; from->tf32 && l < k; l++) to[l] = to_tf32(to[l]);
    }
}

/* ---- sums */

/* sum[TILE_N, TILE_M] += x[TILE_N, k] w[TILE_M, k]^T over parts [first, end) of all `n_parts` of K, one after the other. */
static void add_parts(float *sum, float *part, const float *x, const float *w, size_t k, int first, int end, int n_parts)
{
    for (int i = first; i < end; i++) {
        const size_t from = k * (size_t)i / (size_t)n_parts, to = k * (size_t)(i + 1) / (size_t)n_parts;
        if (to == from) continue;
        dnnl_sgemm('N', 'T', TILE_N, TILE_M, (dnnl_dim_t)(to - from), 1.0f, x + from, (dnnl_dim_t)k, w + from, (dnnl_dim_t)k, 0.0f,
                   part, TILE_M);
        for (size_t e = 0; e < (size_t)TILE_N * TILE_M; e++) sum[e] += part[e];
    }
}

typedef struct target {
    const product *p;
    view           d, c;
    const unsigned char *bias; /* of this batch */
    float         *partial; /* [split, n, m] of this batch: where parts go instead; NULL: to D */
} target;

static float activate(float x, uint32_t epilogue)
{
    if ((epilogue & CUBLASLT_EPILOGUE_RELU) != 0) return x > 0 ? x : 0;
    if ((epilogue & CUBLASLT_EPILOGUE_GELU) == 0) return x;
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); /* sqrt(2 / pi) */
}

/* Element (i, j) of D from its sum; d's outer index is j. */
static void finish(const target *t, uint64_t i, uint64_t j, float sum)
{
    const operation *o = &t->p->problem.op;
    float            x = t->p->alpha * sum;
    if (t->p->beta != 0) x += t->p->beta * load(t->c.base + j * t->c.outer + i * t->c.inner, t->c.type);
    if (t->bias != NULL) x += load(t->bias + i * type_bytes(t->d.type), t->d.type);
    store(t->d.base + j * t->d.outer + i * t->d.inner, t->d.type, activate(x, o->epilogue));
}

/* One tile: all parts of K to D, or each split's to its place. */
static void put_tile(const target *t, float *sum, float *part, const float *x, const float *w, uint64_t first_m, uint64_t first_n)
{
    const problem *q = &t->p->problem;
    const int      n_splits = t->partial != NULL ? t->p->algo.split_k : 1, per_split = algo_k_parts(&t->p->algo);
    for (int split = 0; split < n_splits; split++) {
        memset(sum, 0, (size_t)TILE_N * TILE_M * sizeof(*sum));
        add_parts(sum, part, x, w, (size_t)q->k, split * per_split, (split + 1) * per_split, n_splits * per_split);
        for (uint64_t j = first_n; j < first_n + TILE_N && j < q->n; j++)
            for (uint64_t i = first_m; i < first_m + TILE_M && i < q->m; i++) {
                const float value = sum[(j - first_n) * TILE_M + (i - first_m)];
                if (t->partial != NULL) t->partial[((uint64_t)split * q->n + j) * q->m + i] = value;
                else finish(t, i, j, value);
            }
    }
}

static bool compute(const target *t, const view *a, const view *b)
{
    const problem *q = &t->p->problem;
    const size_t   k = (size_t)q->k, tile = (size_t)TILE_N * TILE_M;
    float         *w = malloc(TILE_M * k * sizeof(float));
    bool           good = w != NULL;
    for (uint64_t first_m = 0; good && first_m < q->m; first_m += TILE_M) {
        pack(w, a, first_m, q->m, TILE_M, k);
#pragma omp parallel reduction(&& : good)
        {
            float *own = malloc((TILE_N * k + 2 * tile) * sizeof(float));
            good = own != NULL;
#pragma omp for schedule(dynamic)
            for (uint64_t first_n = 0; first_n < q->n; first_n += TILE_N) {
                if (own == NULL) continue;
                pack(own + 2 * tile, b, first_n, q->n, TILE_N, k);
                put_tile(t, own, own + tile, own + 2 * tile, w, first_m, first_n);
            }
            free(own);
        }
    }
    free(w);
    return good;
}

static void add_splits(const target *t)
{
    const problem *q = &t->p->problem;
    for (uint64_t j = 0; j < q->n; j++)
        for (uint64_t i = 0; i < q->m; i++) {
            float sum = 0;
            for (int split = 0; split < t->p->algo.split_k; split++)
                sum += t->partial[((uint64_t)split * q->n + j) * q->m + i];
            finish(t, i, j, sum);
        }
}

/* ---- work of a stream */

static bool do_batch(product *p, int batch, bool splits)
{
    const problem *q = &p->problem;
    const size_t   split_values = (size_t)q->m * q->n * (size_t)p->algo.split_k;
    target         t = {.p = p};
    view           a, b;
    if (splits) {
        float *all = vgpu_memory(p->workspace, p->workspace_bytes, p->next_phase == 0 ? VGPU_WRITE : VGPU_READ,
                                 "cublasLtMatmul: workspace");
        if (all == NULL) return false;
        t.partial = all + (size_t)batch * split_values;
    }
    if (p->next_phase == 0) { /* rows of a are those of D, rows of b its columns */
        if (!look(p, 0, batch, q->op.trans_a != CUBLAS_OP_N, VGPU_READ, &a) ||
            !look(p, 1, batch, q->op.trans_b == CUBLAS_OP_N, VGPU_READ, &b))
            return false;
    }
    if (!splits || p->next_phase == 1) {
        if (p->beta != 0 && !look(p, 2, batch, true, VGPU_READ, &t.c)) return false;
        if ((q->op.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
            const size_t e = type_bytes(q->side[3].type);
            t.bias = vgpu_memory((const unsigned char *)q->op.bias + (int64_t)batch * q->op.bias_stride * (int64_t)e, q->m * e,
                                 VGPU_READ, "cublasLtMatmul: bias");
            if (t.bias == NULL) return false;
        }
        if (!look(p, 3, batch, true, VGPU_WRITE, &t.d)) return false;
    }
    if (p->next_phase == 1) {
        add_splits(&t);
        return true;
    }
    if (compute(&t, &a, &b)) return true;
    vgpu_fault(cudaErrorMemoryAllocation, "cublasLtMatmul: no host memory for tiles of %llu", (unsigned long long)q->k);
    return false;
}

/* Partial sums lie in the workspace between two calls, where other streams can spoil them, as on a GPU. */
static vgpu_progress do_product(void *arg)
{
    product   *p = arg;
    const bool splits = p->algo.split_k > 1;
    for (int batch = 0; batch < p->problem.side[3].n_batch; batch++)
        if (!do_batch(p, batch, splits)) return VGPU_FAILED;
    return splits && p->next_phase++ == 0 ? VGPU_AGAIN : VGPU_DONE;
}

cublasStatus_t product_put(const product *p, cudaStream_t stream)
{
    product *own = malloc(sizeof(*own));
    if (own == NULL) return CUBLAS_STATUS_ALLOC_FAILED;
    *own = *p;
    return vgpu_enqueue(stream, "cublasLtMatmul", do_product, own, free, 0) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                                         : CUBLAS_STATUS_EXECUTION_FAILED;
}
