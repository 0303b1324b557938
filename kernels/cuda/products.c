/* Matrix products by cuBLASLt: d = act(x w^T + bias), fp32 sums.
 *
 * cuBLASLt thinks in columns: it computes d^T [n_out, n_rows] = w [n_out, n_in] x^T, w transposed ("T"), x not ("N").
 * For each (n_in, n_out, types, epilogue, alignment) one algorithm is chosen at first use, for PIN_ROWS rows, and then
 * serves every number of rows: so the order of a row's sums never depends on the call. Split-K and stream-K, whose
 * order does, are left out. */
#include <cublasLt.h>
#include <pthread.h>
#include <stdlib.h>

#include "cuda.h"

enum {
    PIN_ROWS = 4096,  /* rows of a typical call */
    CANDIDATES = 32,  /* algorithms looked at, the best first */
    TIGHT_ALIGNMENT = 16 /* bytes, where all operands have it; else that of one element */
};
static const size_t WORKSPACE_BYTES = (size_t)32 << 20; /* NVIDIA's advice for Hopper */

typedef struct product_key {
    int32_t    n_in, n_out;
    dtype      type, d_type;
    activation act;
    bool       bias, tight;
} product_key;

typedef struct pinned {
    product_key           key;
    cublasLtMatmulDesc_t  desc;
    cublasLtMatmulAlgo_t  algo;
    size_t                workspace_bytes;
} pinned;

struct cuda_products {
    cublasLtHandle_t lt;
    pthread_mutex_t  lock;
    pinned          *pins; /* [n_pins] */
    size_t           n_pins;
    void            *workspace; /* shared: products are put on one stream at a time, or wait (see product_put) */
    cudaEvent_t      workspace_free;
};

static status lt_status(cublasStatus_t error, const char *what)
{
    if (error == CUBLAS_STATUS_SUCCESS) return ST_OK;
    return err_set(error == CUBLAS_STATUS_ALLOC_FAILED ? ST_NO_MEMORY : ST_DEVICE, "%s: cuBLASLt error %d (%s)", what,
                   (int)error, cublasLtGetStatusName(error));
}

status cuda_products_open(cuda_products **out)
{
    status         st = ST_OK;
    cuda_products *p = calloc(1, sizeof(*p));
    if (p == NULL) return err_set(ST_NO_MEMORY, "products: %zu bytes", sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
    TRY(lt_status(cublasLtCreate(&p->lt), "products"));
    TRY(cuda_status(cudaMalloc(&p->workspace, WORKSPACE_BYTES), "workspace of products"));
    TRY(cuda_status(cudaEventCreateWithFlags(&p->workspace_free, cudaEventDisableTiming), "event"));
    *out = p;
    return ST_OK;
fail:
    cuda_products_close(p);
    return st;
}

void cuda_products_close(cuda_products *p)
{
    if (p == NULL) return;
    for (size_t i = 0; i < p->n_pins; i++) (void)cublasLtMatmulDescDestroy(p->pins[i].desc);
    free(p->pins);
    if (p->workspace_free != NULL) (void)cudaEventDestroy(p->workspace_free);
    (void)cudaFree(p->workspace);
    if (p->lt != NULL) (void)cublasLtDestroy(p->lt);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static cudaDataType_t data_type(dtype type)
{
    return type == DT_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

typedef struct layouts {
    cublasLtMatrixLayout_t w, x, d;
} layouts;

static void layouts_close(layouts *l)
{
    if (l->w != NULL) (void)cublasLtMatrixLayoutDestroy(l->w);
    if (l->x != NULL) (void)cublasLtMatrixLayoutDestroy(l->x);
    if (l->d != NULL) (void)cublasLtMatrixLayoutDestroy(l->d);
}

static status layouts_open(layouts *out, const product_key *k, int32_t n_rows, int64_t ldx, int64_t ldd)
{
    status  st = ST_OK;
    layouts l = {0};
    TRY(lt_status(cublasLtMatrixLayoutCreate(&l.w, data_type(k->type), (uint64_t)k->n_in, (uint64_t)k->n_out, k->n_in),
                  "product"));
    TRY(lt_status(cublasLtMatrixLayoutCreate(&l.x, data_type(k->type), (uint64_t)k->n_in, (uint64_t)n_rows, ldx),
                  "product"));
    TRY(lt_status(cublasLtMatrixLayoutCreate(&l.d, data_type(k->d_type), (uint64_t)k->n_out, (uint64_t)n_rows, ldd),
                  "product"));
    *out = l;
    return ST_OK;
fail:
    layouts_close(&l);
    return st;
}

static status desc_open(cublasLtMatmulDesc_t *out, const product_key *k)
{
    status                   st = ST_OK;
    cublasLtMatmulDesc_t     desc = NULL;
    const cublasOperation_t  transposed = CUBLAS_OP_T, straight = CUBLAS_OP_N;
    const cudaDataType_t     bias_type = data_type(k->d_type);
    cublasLtEpilogue_t epilogue = k->act == ACT_GELU_TANH ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    if (!k->bias) epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    TRY(lt_status(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product"));
    TRY(lt_status(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
                  "product"));
    TRY(lt_status(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &straight, sizeof(straight)),
                  "product"));
    TRY(lt_status(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)),
                  "product"));
    if (k->bias)
        TRY(lt_status(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                                     sizeof(bias_type)), "product"));
    *out = desc;
    return ST_OK;
fail:
    if (desc != NULL) (void)cublasLtMatmulDescDestroy(desc);
    return st;
}

/* Whether each element of d is one sum, in one order. */
static bool sums_in_one_order(const cublasLtMatmulAlgo_t *algo)
{
    int32_t  split_k = 1;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t   written = 0;
    if (cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split_k, sizeof(split_k),
                                             &written) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction, sizeof(reduction),
                                             &written) != CUBLAS_STATUS_SUCCESS)
        return false;
    return (split_k == 0 || split_k == 1) && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* Whether the algorithm also takes a call of one row. */
static bool serves_few_rows(cuda_products *p, const pinned *pin, const cublasLtMatmulAlgo_t *algo)
{
    layouts                         l = {0};
    cublasLtMatmulHeuristicResult_t result;
    if (layouts_open(&l, &pin->key, 1, pin->key.n_in, pin->key.n_out) != ST_OK) return false;
    const bool serves = cublasLtMatmulAlgoCheck(p->lt, pin->desc, l.w, l.x, l.d, l.d, algo, &result) ==
                            CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE_BYTES;
    layouts_close(&l);
    return serves;
}

static status choose(cuda_products *p, pinned *pin)
{
    status                          st = ST_OK;
    const product_key              *k = &pin->key;
    layouts                         l = {0};
    cublasLtMatmulPreference_t      preference = NULL;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int                             n = 0;
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    TRY(layouts_open(&l, k, PIN_ROWS, k->n_in, k->n_out));
    TRY(lt_status(cublasLtMatmulPreferenceCreate(&preference), "product"));
    TRY(lt_status(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                       &WORKSPACE_BYTES, sizeof(WORKSPACE_BYTES)), "product"));
    TRY(lt_status(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                       &no_reduction, sizeof(no_reduction)), "product"));
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        const uint32_t element = (uint32_t)dtype_bytes(i < 2 ? k->type : k->d_type);
        const uint32_t alignment = k->tight ? TIGHT_ALIGNMENT : element;
        TRY(lt_status(cublasLtMatmulPreferenceSetAttribute(preference, sides[i], &alignment, sizeof(alignment)),
                      "product"));
    }
    TRY(lt_status(cublasLtMatmulAlgoGetHeuristic(p->lt, pin->desc, l.w, l.x, l.d, l.d, preference, CANDIDATES, found, &n),
                  "product"));
    for (int i = 0; i < n; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS || !sums_in_one_order(&found[i].algo)) continue;
        if (!serves_few_rows(p, pin, &found[i].algo)) continue;
        pin->algo = found[i].algo;
        pin->workspace_bytes = found[i].workspaceSize;
        goto fail; /* found: st is ST_OK */
    }
    st = err_set(ST_DEVICE, "product: cuBLASLt has no algorithm without split sums for [%d, %d] %s", k->n_out, k->n_in,
                 dtype_name(k->type));
fail:
    if (preference != NULL) (void)cublasLtMatmulPreferenceDestroy(preference);
    layouts_close(&l);
    return st;
}

static bool same_key(const product_key *a, const product_key *b)
{
    return a->n_in == b->n_in && a->n_out == b->n_out && a->type == b->type && a->d_type == b->d_type &&
           a->act == b->act && a->bias == b->bias && a->tight == b->tight;
}

/* The pin of a key, chosen now if it is new. Lent until the next call. */
static status get(cuda_products *p, const product_key *key, pinned **out)
{
    status st = ST_OK;
    for (size_t i = 0; i < p->n_pins; i++)
        if (same_key(&p->pins[i].key, key)) {
            *out = &p->pins[i];
            return ST_OK;
        }
    pinned  fresh = {.key = *key};
    pinned *grown = realloc(p->pins, (p->n_pins + 1) * sizeof(*grown));
    if (grown == NULL) return err_set(ST_NO_MEMORY, "product: %zu algorithms", p->n_pins + 1);
    p->pins = grown;
    TRY(desc_open(&fresh.desc, key));
    TRY(choose(p, &fresh));
    p->pins[p->n_pins] = fresh;
    *out = &p->pins[p->n_pins++];
    return ST_OK;
fail:
    if (fresh.desc != NULL) (void)cublasLtMatmulDescDestroy(fresh.desc);
    return st;
}

static bool aligned(const void *x, int64_t ld, dtype type)
{
    return ((uintptr_t)x | (uint64_t)ld * dtype_bytes(type)) % TIGHT_ALIGNMENT == 0;
}

static status put(cuda_queue *q, const cuda_product *a)
{
    status         st = ST_OK;
    cuda_products *p = q->products;
    pinned        *pin = NULL;
    layouts        l = {0};
    const float    one = 1.0f, zero = 0.0f;
    const product_key key = {.n_in = a->n_in, .n_out = a->n_out, .type = a->type, .d_type = a->d_type, .act = a->act,
                             .bias = a->bias != NULL,
                             .tight = aligned(a->x, a->ldx, a->type) && aligned(a->w, a->n_in, a->type) &&
                                      aligned(a->d, a->ldd, a->d_type)};
    TRY(get(p, &key, &pin));
    TRY(layouts_open(&l, &key, a->n_rows, a->ldx, a->ldd));
    if (a->bias != NULL)
        TRY(lt_status(cublasLtMatmulDescSetAttribute(pin->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a->bias,
                                                     sizeof(a->bias)), "product"));
    if (pin->workspace_bytes > 0)
        TRY(cuda_status(cudaStreamWaitEvent(q->stream, p->workspace_free, 0), "product"));
    TRY(lt_status(cublasLtMatmul(p->lt, pin->desc, &one, a->w, l.w, a->x, l.x, &zero, a->d, l.d, a->d, l.d, &pin->algo,
                                 p->workspace, WORKSPACE_BYTES, q->stream), "product"));
    if (pin->workspace_bytes > 0) TRY(cuda_status(cudaEventRecord(p->workspace_free, q->stream), "product"));
fail:
    layouts_close(&l);
    return st;
}

status cuda_product_put(cuda_queue *q, const cuda_product *a)
{
    if (a->n_rows == 0 || a->n_out == 0) return ST_OK;
    pthread_mutex_lock(&q->products->lock);
    status st = put(q, a);
    pthread_mutex_unlock(&q->products->lock);
    return st;
}
