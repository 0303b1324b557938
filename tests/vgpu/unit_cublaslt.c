/* The replacement cuBLASLt: products of small integers are exact in every layout; epilogues; a pinned algorithm gives a row the
 * same bits beside any others, another algorithm does not; and what the real library would refuse is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#define CUDA(call) assert_int_equal(call, cudaSuccess)
#define LT(call) assert_int_equal(call, CUBLAS_STATUS_SUCCESS)

static cublasLtHandle_t lt;
static cudaStream_t     stream;
static unsigned char   *device; /* DEVICE_BYTES */
static unsigned char   *workspace;
enum { DEVICE_BYTES = 16 << 20, WORKSPACE_BYTES = 4 << 20, MAX_RESULTS = 16 };

/* ---- elements */

static size_t type_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static void put(unsigned char *at, cudaDataType_t type, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    const uint16_t bf16 = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    const _Float16 half = (_Float16)f;
    if (type == CUDA_R_32F) memcpy(at, &f, sizeof(f));
    else if (type == CUDA_R_16F) memcpy(at, &half, sizeof(half));
    else memcpy(at, &bf16, sizeof(bf16));
}

static float get(const unsigned char *at, cudaDataType_t type)
{
    float    f;
    uint16_t bf16;
    _Float16 half;
    if (type == CUDA_R_32F) {
        memcpy(&f, at, sizeof(f));
        return f;
    }
    if (type == CUDA_R_16F) {
        memcpy(&half, at, sizeof(half));
        return (float)half;
    }
    memcpy(&bf16, at, sizeof(bf16));
    const uint32_t bits = (uint32_t)bf16 << 16;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* ---- one product */

typedef struct matrix {
    cudaDataType_t type;
    int            rows, cols, ld, batch_stride;
    bool           by_row;
    size_t         at; /* of the device block */
} matrix;

typedef struct product {
    matrix   a, b, c, d;
    bool     ta, tb, in_place; /* c is d */
    int      m, n, k, n_batch;
    float    alpha, beta;
    uint32_t epilogue;
    size_t   bias_at;
    const cublasLtMatmulAlgo_t *algo;
    size_t   workspace_bytes;
} product;

static uint64_t counter = 1;

/* -3 .. 3 */
static float small_integer(void)
{
    counter = counter * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)(counter >> 33) % 7 - 3);
}

static size_t offset(const matrix *x, int batch, int r, int c)
{
    return ((size_t)batch * (size_t)x->batch_stride + (x->by_row ? (size_t)r * (size_t)x->ld + (size_t)c : (size_t)c * (size_t)x->ld + (size_t)r)) *
           type_bytes(x->type);
}

/* Values where they are, NaN between the columns. */
static void fill(const matrix *x, int n_batch, unsigned char *host, float (*draw)(void))
{
    const int    runs = x->by_row ? x->rows : x->cols;
    const size_t n = (size_t)(n_batch - 1) * (size_t)x->batch_stride + (size_t)(runs - 1) * (size_t)x->ld + (size_t)(x->by_row ? x->cols : x->rows);
    memset(host + x->at, 0xff, n * type_bytes(x->type));
    for (int batch = 0; batch < n_batch; batch++)
        for (int r = 0; r < x->rows; r++)
            for (int c = 0; c < x->cols; c++) put(host + x->at + offset(x, batch, r, c), x->type, draw());
}

static cublasLtMatrixLayout_t layout(const matrix *x, int n_batch)
{
    cublasLtMatrixLayout_t l;
    const int32_t          order = x->by_row ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL, batch = n_batch;
    const int64_t          stride = x->batch_stride;
    LT(cublasLtMatrixLayoutCreate(&l, x->type, (uint64_t)x->rows, (uint64_t)x->cols, x->ld));
    LT(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof(order)));
    LT(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)));
    LT(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)));
    return l;
}

typedef struct descriptors {
    cublasLtMatmulDesc_t   op;
    cublasLtMatrixLayout_t a, b, c, d;
} descriptors;

static descriptors describe(const product *p)
{
    descriptors   x;
    const int32_t ta = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    const void   *bias = device + p->bias_at;
    const int32_t bias_type = (int32_t)p->d.type;
    LT(cublasLtMatmulDescCreate(&x.op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(x.op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof(ta)));
    LT(cublasLtMatmulDescSetAttribute(x.op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof(tb)));
    LT(cublasLtMatmulDescSetAttribute(x.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue, sizeof(p->epilogue)));
    if ((p->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
        LT(cublasLtMatmulDescSetAttribute(x.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
        LT(cublasLtMatmulDescSetAttribute(x.op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof(bias_type)));
    }
    x.a = layout(&p->a, p->n_batch);
    x.b = layout(&p->b, p->n_batch);
    x.c = layout(p->in_place ? &p->d : &p->c, p->n_batch);
    x.d = layout(&p->d, p->n_batch);
    return x;
}

static void forget(descriptors *x)
{
    LT(cublasLtMatmulDescDestroy(x->op));
    LT(cublasLtMatrixLayoutDestroy(x->a));
    LT(cublasLtMatrixLayoutDestroy(x->b));
    LT(cublasLtMatrixLayoutDestroy(x->c));
    LT(cublasLtMatrixLayoutDestroy(x->d));
}

static cublasStatus_t run(const product *p)
{
    descriptors          x = describe(p);
    const cublasStatus_t status = cublasLtMatmul(lt, x.op, &p->alpha, device + p->a.at, x.a, device + p->b.at, x.b, &p->beta,
                                                 device + (p->in_place ? p->d.at : p->c.at), x.c, device + p->d.at, x.d, p->algo,
                                                 workspace, p->workspace_bytes, stream);
    forget(&x);
    return status;
}

static int propose(const product *p, uint32_t alignment, uint32_t reductions, cublasLtMatmulHeuristicResult_t *found)
{
    descriptors                x = describe(p);
    cublasLtMatmulPreference_t preference;
    const uint64_t             bytes = WORKSPACE_BYTES;
    int                        n = 0;
    LT(cublasLtMatmulPreferenceCreate(&preference));
    LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)));
    LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)));
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        LT(cublasLtMatmulPreferenceSetAttribute(preference, (cublasLtMatmulPreferenceAttributes_t)i, &alignment, sizeof(alignment)));
    LT(cublasLtMatmulAlgoGetHeuristic(lt, x.op, x.a, x.b, x.c, x.d, preference, MAX_RESULTS, found, &n));
    LT(cublasLtMatmulPreferenceDestroy(preference));
    forget(&x);
    return n;
}

static product make(cudaDataType_t in, cudaDataType_t out, int m, int n, int k, int n_batch)
{
    product p = {.m = m, .n = n, .k = k, .n_batch = n_batch, .alpha = 1, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    p.a = (matrix){.type = in, .rows = m, .cols = k};
    p.b = (matrix){.type = in, .rows = k, .cols = n};
    p.c = p.d = (matrix){.type = out, .rows = m, .cols = n};
    return p;
}

/* Leading dimensions of `slack` more than needed; operands one after the other, 256 bytes apart at least. */
static void place(product *p, int slack)
{
    matrix *all[] = {&p->a, &p->b, &p->c, &p->d};
    size_t  at = 0;
    if (p->ta) p->a.rows = p->k, p->a.cols = p->m;
    if (p->tb) p->b.rows = p->n, p->b.cols = p->k;
    for (int i = 0; i < 4; i++) {
        matrix   *x = all[i];
        const int runs = x->by_row ? x->rows : x->cols;
        x->ld = (x->by_row ? x->cols : x->rows) + slack;
        x->batch_stride = x->ld * runs + slack;
        x->at = at;
        at += ((size_t)p->n_batch * (size_t)x->batch_stride * type_bytes(x->type) + 511) / 256 * 256;
    }
    p->bias_at = at;
    assert_true(at + (size_t)p->m * 4 <= DEVICE_BYTES);
}

static unsigned char host[DEVICE_BYTES], result[DEVICE_BYTES];

static void load(const product *p, float (*draw)(void))
{
    memset(host, 0xff, p->bias_at);
    fill(&p->a, p->n_batch, host, draw);
    fill(&p->b, p->n_batch, host, draw);
    fill(&p->c, p->n_batch, host, draw);
    fill(&p->d, p->n_batch, host, draw);
    for (int i = 0; i < p->m; i++) put(host + p->bias_at + (size_t)i * type_bytes(p->d.type), p->d.type, draw());
    CUDA(cudaMemcpy(device, host, p->bias_at + (size_t)p->m * type_bytes(p->d.type), cudaMemcpyHostToDevice));
}

static void fetch(const product *p)
{
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(result, device, p->bias_at, cudaMemcpyDeviceToHost));
}

/* What must be at (i, j), in double. */
static double wanted(const product *p, int batch, int i, int j)
{
    double        sum = 0;
    const matrix *c = p->in_place ? &p->d : &p->c;
    for (int l = 0; l < p->k; l++)
        sum += (double)get(host + p->a.at + offset(&p->a, batch, p->ta ? l : i, p->ta ? i : l), p->a.type) *
               (double)get(host + p->b.at + offset(&p->b, batch, p->tb ? j : l, p->tb ? l : j), p->b.type);
    sum *= (double)p->alpha;
    if (p->beta != 0) sum += (double)p->beta * (double)get(host + c->at + offset(c, batch, i, j), c->type);
    if ((p->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) sum += (double)get(host + p->bias_at + (size_t)i * type_bytes(p->d.type), p->d.type);
    if ((p->epilogue & CUBLASLT_EPILOGUE_RELU) != 0 && sum < 0) sum = 0;
    if ((p->epilogue & CUBLASLT_EPILOGUE_GELU) != 0)
        sum = 0.5 * sum * (1 + tanh(sqrt(2 / acos(-1.0)) * (sum + 0.044715 * sum * sum * sum)));
    return sum;
}

/* tolerance: of the largest value; 0: exact. What lies between the columns of D stays NaN. */
static void check(const product *p, double tolerance, const char *what)
{
    fetch(p);
    for (int batch = 0; batch < p->n_batch; batch++)
        for (int i = 0; i < p->m; i++)
            for (int j = 0; j < p->n; j++) {
                const double got = (double)get(result + p->d.at + offset(&p->d, batch, i, j), p->d.type), want = wanted(p, batch, i, j);
                if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
                    fail_msg("%s: batch %d (%d, %d): got %g, want %g", what, batch, i, j, got, want);
            }
    const matrix *d = &p->d;
    const int     run_length = d->by_row ? d->cols : d->rows, runs = d->by_row ? d->rows : d->cols;
    for (int r = 0; r < runs; r++)
        for (int e = run_length; e < d->ld; e++)
            for (size_t b = 0; b < type_bytes(d->type); b++)
                assert_int_equal(result[d->at + ((size_t)r * (size_t)d->ld + (size_t)e) * type_bytes(d->type) + b], 0xff);
}

/* ---- tests */

static const struct {
    cudaDataType_t in, out;
} TYPES[] = {{CUDA_R_32F, CUDA_R_32F}, {CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_16BF, CUDA_R_32F}, {CUDA_R_16F, CUDA_R_16F}};

/* Sums of at most 20 products of at most 9, and some more: exact in each type (bf16 up to 256). */
static void products_of_integers_are_exact(void **state)
{
    static const int shapes[][3] = {{1, 1, 1}, {5, 3, 7}, {130, 66, 20}, {64, 129, 8}};
    (void)state;
    for (int t = 0; t < 4; t++)
        for (int s = 0; s < 4; s++)
            for (int bits = 0; bits < 32; bits++) {
                char    what[64];
                product p = make(TYPES[t].in, TYPES[t].out, shapes[s][0], shapes[s][1], shapes[s][2], 1 + bits % 3);
                p.ta = bits & 1;
                p.tb = (bits & 2) != 0;
                p.a.by_row = (bits & 4) != 0;
                p.b.by_row = (bits & 8) != 0;
                p.c.by_row = p.d.by_row = (bits & 16) != 0;
                p.in_place = bits % 3 == 0;
                p.alpha = bits % 4 == 1 ? -1 : 1;
                p.beta = bits % 5 == 2 ? 2 : 0;
                p.epilogue = bits % 7 == 3 ? CUBLASLT_EPILOGUE_BIAS : bits % 7 == 4 ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
                place(&p, bits % 3);
                load(&p, small_integer);
                snprintf(what, sizeof(what), "types %d, shape %d, case %d", t, s, bits);
                LT(run(&p));
                check(&p, 0, what);
            }
}

static float fraction(void)
{
    counter = counter * 6364136223846793005u + 1442695040888963407u;
    return (float)(counter >> 40) * 0x1p-23f - 1;
}

/* fp32: sums and tanhf are off by some 1e-6; bf16: half a unit of the last of 8 bits, and the same. */
static void gelu_is_the_tanh_form(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            product p = make(TYPES[t].in, TYPES[t].out, 96, 40, 24, 1);
            p.ta = true;
            p.epilogue = with_bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
            place(&p, 0);
            load(&p, fraction);
            LT(run(&p));
            check(&p, t == 0 ? 4e-6 : 0x1p-8, "gelu");
        }
}

/* n columns of D: the rows of x in a linear layer. */
static product linear(cudaDataType_t in, cudaDataType_t out, int n_rows)
{
    product p = make(in, out, 72, n_rows, 512, 1);
    p.ta = true;
    place(&p, 0);
    return p;
}

static void a_pinned_algorithm_gives_a_row_the_same_bits(void **state)
{
    enum { ALL = 200 };
    static const int counts[] = {1, 2, 7, 63, 64, 65, 128, 199};
    (void)state;
    for (int t = 0; t < 3; t++) {
        cublasLtMatmulHeuristicResult_t found[MAX_RESULTS];
        product   p = linear(TYPES[t].in, TYPES[t].out, ALL);
        const int n = propose(&p, 16, CUBLASLT_REDUCTION_SCHEME_NONE, found);
        const size_t row_bytes = (size_t)p.m * type_bytes(p.d.type);
        unsigned char *want = malloc(ALL * row_bytes);
        assert_true(n >= 2 && want != NULL);
        for (int i = 0; i < n; i++) {
            load(&p, fraction);
            p.algo = &found[i].algo;
            LT(run(&p));
            fetch(&p);
            memcpy(want, result + p.d.at, ALL * row_bytes);
            for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
                product few = p;
                few.n = few.b.cols = few.c.cols = few.d.cols = counts[c];
                LT(run(&few));
                fetch(&p);
                assert_memory_equal(result + p.d.at, want, (size_t)counts[c] * row_bytes);
            }
        }
        free(want);
    }
}

/* A caller that pins nothing must see that bits depend on the number of rows. */
static void other_algorithms_give_other_bits(void **state)
{
    cublasLtMatmulHeuristicResult_t many[MAX_RESULTS], few[MAX_RESULTS];
    (void)state;
    product   p = linear(CUDA_R_32F, CUDA_R_32F, 200), q = linear(CUDA_R_32F, CUDA_R_32F, 32), real = linear(CUDA_R_32F, CUDA_R_32F, 2000);
    const int n_many = propose(&real, 16, CUBLASLT_REDUCTION_SCHEME_NONE, many), n_few = propose(&q, 16, CUBLASLT_REDUCTION_SCHEME_MASK, few);
    unsigned char *first = malloc((size_t)p.m * 32 * 4);
    assert_true(n_many > 0 && n_few > 0 && first != NULL);
    assert_true(few[0].workspaceSize > 0); /* parts of K */
    load(&p, fraction);
    p.algo = &many[0].algo;
    LT(run(&p));
    fetch(&p);
    memcpy(first, result + p.d.at, (size_t)p.m * 32 * 4);
    product r = p;
    r.n = r.b.cols = r.c.cols = r.d.cols = 32;
    r.algo = &few[0].algo;
    r.workspace_bytes = few[0].workspaceSize;
    LT(run(&r));
    check(&r, 1e-5, "parts of K"); /* 512 terms of at most 1 */
    assert_memory_not_equal(result + p.d.at, first, (size_t)p.m * 32 * 4);
    free(first);
}

static void what_the_real_library_refuses_is_refused(void **state)
{
    cublasLtMatmulHeuristicResult_t tight[MAX_RESULTS], split[MAX_RESULTS], loose[MAX_RESULTS];
    (void)state;
    product p = linear(CUDA_R_16BF, CUDA_R_16BF, 32);
    load(&p, small_integer);
    assert_true(propose(&p, 16, CUBLASLT_REDUCTION_SCHEME_NONE, tight) > 0);
    assert_true(propose(&p, 16, CUBLASLT_REDUCTION_SCHEME_MASK, split) > 0);
    assert_true(propose(&p, 2, CUBLASLT_REDUCTION_SCHEME_NONE, loose) > 0);
    /* A pointer that this algorithm's wide loads cannot use; the loose one can. */
    product q = p;
    q.algo = &tight[0].algo;
    q.b.at += 2;
    assert_int_equal(run(&q), CUBLAS_STATUS_INVALID_VALUE);
    q.algo = &loose[0].algo;
    LT(run(&q));
    CUDA(cudaStreamSynchronize(stream));
    /* Elements of fp32 are aligned to 4 bytes, also for who asks for 2. */
    product wide = linear(CUDA_R_16BF, CUDA_R_32F, 32);
    assert_true(propose(&wide, 2, CUBLASLT_REDUCTION_SCHEME_NONE, loose) > 0);
    /* Likewise a leading dimension. */
    q = p;
    q.algo = &tight[0].algo;
    q.b.ld += 1;
    q.n = q.b.cols = q.c.cols = q.d.cols = 8;
    assert_int_equal(run(&q), CUBLAS_STATUS_NOT_SUPPORTED);
    /* A workspace that is too small. */
    q = p;
    q.algo = &split[0].algo;
    q.workspace_bytes = split[0].workspaceSize - 1;
    assert_true(split[0].workspaceSize > 0);
    assert_int_equal(run(&q), CUBLAS_STATUS_INVALID_VALUE);
    q.workspace_bytes++;
    LT(run(&q));
    check(&q, 0x1p-8, "parts of K in bf16");
    /* An algorithm of other types, shapes that do not fit, a leading dimension that is too short. */
    product f = linear(CUDA_R_32F, CUDA_R_32F, 32);
    f.algo = &tight[0].algo;
    assert_int_equal(run(&f), CUBLAS_STATUS_INVALID_VALUE);
    q = p;
    q.b.rows -= 8;
    assert_int_equal(run(&q), CUBLAS_STATUS_INVALID_VALUE);
    q = p;
    q.a.ld = q.a.rows - 8;
    assert_int_equal(run(&q), CUBLAS_STATUS_INVALID_VALUE);
    /* Types that have no product, an epilogue that is not there. */
    q = p;
    q.b.type = CUDA_R_32F;
    assert_int_not_equal(run(&q), CUBLAS_STATUS_SUCCESS);
    q = p;
    q.epilogue = CUBLASLT_EPILOGUE_DGELU;
    assert_int_equal(run(&q), CUBLAS_STATUS_NOT_SUPPORTED);
}

/* Settings that one would make by hand. */
static void an_algorithm_can_be_set_by_hand(void **state)
{
    int                  ids[8], n = 0;
    cublasLtMatmulAlgo_t algo;
    uint32_t             tiles[8], stages[8], scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, none = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t               n_bytes = 0;
    int32_t              splits = 3, one = 1, id = -1;
    (void)state;
    product     p = linear(CUDA_R_16BF, CUDA_R_32F, 40);
    descriptors x = describe(&p);
    cublasLtMatmulHeuristicResult_t about = {0};
    LT(cublasLtMatmulAlgoGetIds(lt, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, 8, ids, &n));
    assert_true(n >= 1);
    LT(cublasLtMatmulAlgoInit(lt, CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, ids[0], &algo));
    LT(cublasLtMatmulAlgoConfigGetAttribute(&algo, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof(id), &n_bytes));
    assert_int_equal(id, ids[0]);
    LT(cublasLtMatmulAlgoCapGetAttribute(&algo, CUBLASLT_ALGO_CAP_TILE_IDS, NULL, 0, &n_bytes));
    assert_true(n_bytes > 0 && n_bytes <= sizeof(tiles));
    LT(cublasLtMatmulAlgoCapGetAttribute(&algo, CUBLASLT_ALGO_CAP_TILE_IDS, tiles, n_bytes, &n_bytes));
    LT(cublasLtMatmulAlgoCapGetAttribute(&algo, CUBLASLT_ALGO_CAP_STAGES_IDS, stages, sizeof(stages), &n_bytes));
    /* Without a tile there is nothing to run. */
    assert_int_equal(cublasLtMatmulAlgoCheck(lt, x.op, x.a, x.b, x.c, x.d, &algo, &about), CUBLAS_STATUS_NOT_SUPPORTED);
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_TILE_ID, &tiles[0], sizeof(tiles[0])));
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_STAGES_ID, &stages[0], sizeof(stages[0])));
    LT(cublasLtMatmulAlgoCheck(lt, x.op, x.a, x.b, x.c, x.d, &algo, &about));
    assert_int_equal(about.workspaceSize, 0);
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits)));
    assert_int_equal(cublasLtMatmulAlgoCheck(lt, x.op, x.a, x.b, x.c, x.d, &algo, &about), CUBLAS_STATUS_NOT_SUPPORTED);
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof(scheme)));
    LT(cublasLtMatmulAlgoCheck(lt, x.op, x.a, x.b, x.c, x.d, &algo, &about));
    assert_int_equal(about.workspaceSize, 3 * 72 * 40 * 4);
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &one, sizeof(one)));
    LT(cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &none, sizeof(none)));
    forget(&x);
    load(&p, small_integer);
    p.algo = &algo;
    LT(run(&p));
    check(&p, 0, "set by hand"); /* 512 terms of at most 9 */
}

/* The last row of x lies outside of its allocation: a fault, and the stream fails. The device is of no use afterwards. */
static void an_operand_outside_its_memory_is_a_fault(void **state)
{
    (void)state;
    product p = linear(CUDA_R_32F, CUDA_R_32F, 32);
    load(&p, small_integer);
    p.b.at = DEVICE_BYTES - 31 * (size_t)p.b.ld * sizeof(float);
    LT(run(&p));
    assert_int_not_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

static int open_all(void **state)
{
    (void)state;
    const bool good = cublasLtCreate(&lt) == CUBLAS_STATUS_SUCCESS && cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
                      cudaMalloc((void **)&device, DEVICE_BYTES) == cudaSuccess && cudaMalloc((void **)&workspace, WORKSPACE_BYTES) == cudaSuccess;
    return good ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_integers_are_exact),
        cmocka_unit_test(gelu_is_the_tanh_form),
        cmocka_unit_test(a_pinned_algorithm_gives_a_row_the_same_bits),
        cmocka_unit_test(other_algorithms_give_other_bits),
        cmocka_unit_test(an_algorithm_can_be_set_by_hand),
        cmocka_unit_test(what_the_real_library_refuses_is_refused),
        cmocka_unit_test(an_operand_outside_its_memory_is_a_fault), /* the last one */
    };
    setenv("VGPU_EXIT_CODE", "0", 1); /* faults are wanted here, and the last one keeps handles open */
    return cmocka_run_group_tests(tests, open_all, NULL);
}
