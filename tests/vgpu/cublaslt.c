#include "cublaslt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char HANDLE[] = "cublasLtHandle_t", LAYOUT[] = "cublasLtMatrixLayout_t", OPERATION[] = "cublasLtMatmulDesc_t",
                  PREFERENCE[] = "cublasLtMatmulPreference_t";

cublasStatus_t lt_refuse(cublasStatus_t status, const char *format, ...)
{
    char    text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED)
        fprintf(stderr, "vgpu: cuBLASLt: not supported: %s\n", text);
    else
        vgpu_fault(cudaSuccess, "cuBLASLt: %s", text);
    return status;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "unknown status";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

size_t cublasLtGetCudartVersion(void)
{
    return CUDART_VERSION;
}

/* ---- handles */

bool lt_is_handle(cublasLtHandle_t handle)
{
    return handle != NULL && vgpu_object_is_open(HANDLE, handle);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    int n = 0;
    if (out == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtCreate: handle is NULL");
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    void *handle = malloc(1);
    if (handle == NULL) return CUBLAS_STATUS_ALLOC_FAILED;
    vgpu_object_open(HANDLE, handle);
    *out = handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    if (vgpu_object_close(HANDLE, handle) != 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors: initialised where they lie, or allocated */

static cublasStatus_t init(void *at, size_t size, const void *from, size_t n)
{
    if (at == NULL || size < n) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(at, 0, size);
    memcpy(at, from, n);
    return CUBLAS_STATUS_SUCCESS;
}

static void *create(const char *kind, size_t size)
{
    void *p = calloc(1, size);
    if (p != NULL) vgpu_object_open(kind, p);
    return p;
}

static cublasStatus_t destroy(const char *kind, void *p)
{
    if (vgpu_object_close(kind, p) != 0) return CUBLAS_STATUS_INVALID_VALUE;
    memset(p, 0, sizeof(uint32_t)); /* no magic any more */
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

/* One attribute of a descriptor: where it lies and how wide it is. */
typedef struct attribute {
    int    id;
    size_t at, bytes;
} attribute;

#define ATTRIBUTE(id, type, field) {id, offsetof(type, field), sizeof(((type *)0)->field)}

static const attribute *find(const attribute *list, size_t n, int id)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].id == id) return &list[i];
    return NULL;
}

static cublasStatus_t set(void *base, const attribute *list, size_t n, int id, const void *buf, size_t bytes, const char *what)
{
    const attribute *a = find(list, n, id);
    if (a == NULL) return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: attribute %d: not in this replacement", what, id);
    if (buf == NULL || bytes != a->bytes)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: attribute %d: got %zu bytes, want %zu", what, id, bytes, a->bytes);
    memcpy((char *)base + a->at, buf, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t get(const void *base, const attribute *list, size_t n, int id, void *buf, size_t bytes, size_t *written,
                          const char *what)
{
    const attribute *a = find(list, n, id);
    if (a == NULL) return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: attribute %d: not in this replacement", what, id);
    if ((bytes == 0 && written == NULL) || (bytes > 0 && (buf == NULL || bytes != a->bytes)))
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: attribute %d: got %zu bytes, want %zu", what, id, bytes, a->bytes);
    if (bytes > 0) memcpy(buf, (const char *)base + a->at, bytes);
    if (written != NULL) *written = a->bytes;
    return CUBLAS_STATUS_SUCCESS;
}

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* ---- layouts */

static const attribute LAYOUT_ATTRIBUTES[] = {
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_TYPE, layout, type), ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_ORDER, layout, order),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_ROWS, layout, rows), ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_COLS, layout, cols),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_LD, layout, ld), ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, layout, n_batch),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, layout, batch_stride)};

const layout *layout_of(const cublasLtMatrixLayoutOpaque_t *l, const char *what)
{
    const layout *out = (const layout *)(const void *)l;
    if (out != NULL && out->magic == MAGIC_LAYOUT) return out;
    lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "layout of %s: not a layout", what);
    return NULL;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t size, cudaDataType_t type, uint64_t rows,
                                                 uint64_t cols, int64_t ld)
{
    const layout fresh = {.magic = MAGIC_LAYOUT, .type = (uint32_t)type, .rows = rows, .cols = cols, .ld = ld,
                          .order = CUBLASLT_ORDER_COL, .n_batch = 1};
    return init(l, size, &fresh, sizeof(fresh));
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    if (out == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatrixLayoutCreate: NULL");
    *out = create(LAYOUT, sizeof(**out));
    return cublasLtMatrixLayoutInit_internal(*out, sizeof(**out), type, rows, cols, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    return destroy(LAYOUT, l);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t id, const void *buf,
                                                size_t bytes)
{
    if (layout_of(l, "attribute") == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return set(l, LAYOUT_ATTRIBUTES, COUNT(LAYOUT_ATTRIBUTES), (int)id, buf, bytes, "layout");
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t id, void *buf,
                                                size_t bytes, size_t *written)
{
    if (layout_of(l, "attribute") == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return get(l, LAYOUT_ATTRIBUTES, COUNT(LAYOUT_ATTRIBUTES), (int)id, buf, bytes, written, "layout");
}

/* ---- operations */

static const attribute OPERATION_ATTRIBUTES[] = {
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, operation, compute),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_SCALE_TYPE, operation, scale_type),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_POINTER_MODE, operation, pointer_mode),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_TRANSA, operation, trans_a), ATTRIBUTE(CUBLASLT_MATMUL_DESC_TRANSB, operation, trans_b),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_EPILOGUE, operation, epilogue),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operation, bias),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, operation, bias_stride),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, operation, bias_type)};

const operation *operation_of(const cublasLtMatmulDescOpaque_t *o)
{
    const operation *out = (const operation *)(const void *)o;
    if (out != NULL && out->magic == MAGIC_OPERATION) return out;
    lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "operation: not a cublasLtMatmulDesc_t");
    return NULL;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t o, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale_type)
{
    const operation fresh = {.magic = MAGIC_OPERATION, .compute = (int32_t)compute, .scale_type = (int32_t)scale_type,
                             .pointer_mode = CUBLASLT_POINTER_MODE_HOST, .trans_a = CUBLAS_OP_N, .trans_b = CUBLAS_OP_N,
                             .epilogue = CUBLASLT_EPILOGUE_DEFAULT, .bias_type = -1};
    return init(o, size, &fresh, sizeof(fresh));
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale_type)
{
    if (out == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulDescCreate: NULL");
    *out = create(OPERATION, sizeof(**out));
    return cublasLtMatmulDescInit_internal(*out, sizeof(**out), compute, scale_type);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t o)
{
    return destroy(OPERATION, o);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t o, cublasLtMatmulDescAttributes_t id, const void *buf,
                                              size_t bytes)
{
    if (operation_of(o) == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return set(o, OPERATION_ATTRIBUTES, COUNT(OPERATION_ATTRIBUTES), (int)id, buf, bytes, "operation");
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t o, cublasLtMatmulDescAttributes_t id, void *buf,
                                              size_t bytes, size_t *written)
{
    if (operation_of(o) == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return get(o, OPERATION_ATTRIBUTES, COUNT(OPERATION_ATTRIBUTES), (int)id, buf, bytes, written, "operation");
}

/* ---- preferences */

static const attribute PREFERENCE_ATTRIBUTES[] = {
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_SEARCH_MODE, preference, search),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference, max_workspace),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference, reduction_mask),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference, alignment[0]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference, alignment[1]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference, alignment[2]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference, alignment[3]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, preference, max_waves),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_IMPL_MASK, preference, impl_mask)};

const preference *preference_of(const cublasLtMatmulPreferenceOpaque_t *p)
{
    const preference *out = (const preference *)(const void *)p;
    if (out != NULL && out->magic == MAGIC_PREFERENCE) return out;
    lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "preference: not a cublasLtMatmulPreference_t");
    return NULL;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t size)
{
    const preference fresh = {.magic = MAGIC_PREFERENCE, .search = CUBLASLT_SEARCH_BEST_FIT,
                              .reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK, .alignment = {256, 256, 256, 256},
                              .impl_mask = UINT64_MAX};
    return init(p, size, &fresh, sizeof(fresh));
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    if (out == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulPreferenceCreate: NULL");
    *out = create(PREFERENCE, sizeof(**out));
    return cublasLtMatmulPreferenceInit_internal(*out, sizeof(**out));
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    return destroy(PREFERENCE, p);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t id,
                                                    const void *buf, size_t bytes)
{
    if (preference_of(p) == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return set(p, PREFERENCE_ATTRIBUTES, COUNT(PREFERENCE_ATTRIBUTES), (int)id, buf, bytes, "preference");
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t id,
                                                    void *buf, size_t bytes, size_t *written)
{
    if (preference_of(p) == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return get(p, PREFERENCE_ATTRIBUTES, COUNT(PREFERENCE_ATTRIBUTES), (int)id, buf, bytes, written, "preference");
}

/* ---- the product */

static cublasStatus_t check_pointers(const product *p)
{
    static const char *const sides[] = {"A", "B", "C", "D"};
    for (int i = 0; i < 4; i++) {
        const layout  *l = &p->problem.side[i];
        const uint32_t want = algo_alignment(&p->algo, i);
        if (i == 2 && p->beta == 0) continue;
        if (p->at[i] == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: %s is NULL", sides[i]);
        if ((uintptr_t)p->at[i] % want != 0 || (uint64_t)l->ld * type_bytes(l->type) % want != 0)
            return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: algorithm %d wants %s at multiples of %u bytes: address "
                             "%p, leading dimension %lld elements", p->algo.id, sides[i], want, p->at[i], (long long)l->ld);
    }
    const operation *o = &p->problem.op;
    if ((o->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 && o->bias == NULL)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: an epilogue with bias, and no bias");
    if (p->workspace_bytes > 0 && (p->workspace == NULL || (uintptr_t)p->workspace % 16 != 0))
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: workspace at %p", p->workspace);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_desc, const void *b, cublasLtMatrixLayout_t b_desc, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_desc, void *d, cublasLtMatrixLayout_t d_desc,
                              const cublasLtMatmulAlgo_t *given, void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    product          p = {.at = {a, b, c, d}, .workspace = workspace};
    const operation *o = operation_of(desc);
    const layout    *la = layout_of(a_desc, "A"), *lb = layout_of(b_desc, "B"), *lc = layout_of(c_desc, "C"),
                 *ld = layout_of(d_desc, "D");
    int              n_found = 0;
    if (!lt_is_handle(handle)) return lt_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtMatmul: not a handle");
    if (o == NULL || la == NULL || lb == NULL || lc == NULL || ld == NULL || alpha == NULL || beta == NULL)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: a descriptor or a factor is missing");
    cublasStatus_t status = problem_make(&p.problem, o, la, lb, lc, ld);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    memcpy(&p.alpha, alpha, sizeof(p.alpha));
    memcpy(&p.beta, beta, sizeof(p.beta));
    if (given != NULL) {
        memcpy(&p.algo, given, sizeof(p.algo));
    } else {
        const preference any = {.magic = MAGIC_PREFERENCE, .reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK,
                                .alignment = {1, 1, 1, 1} /* no more than elements */, .max_workspace = workspace_bytes, .impl_mask = UINT64_MAX};
        status = algo_propose(&p.problem, &any, &p.algo, 1, &n_found);
        if (status == CUBLAS_STATUS_SUCCESS && n_found == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (status == CUBLAS_STATUS_SUCCESS) status = algo_check(&p.algo, &p.problem, &p.workspace_bytes);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (p.workspace_bytes > workspace_bytes)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul: workspace of %zu bytes, algorithm %d needs %zu",
                         workspace_bytes, p.algo.id, p.workspace_bytes);
    status = check_pointers(&p);
    return status != CUBLAS_STATUS_SUCCESS ? status : product_put(&p, stream);
}
