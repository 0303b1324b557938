/* Replacement cuBLAS: products of the old interface, handed to cuBLASLt. */
#include <cublas_v2.h>
#include <stdlib.h>

#include "cublaslt.h"

static const char HANDLE[] = "cublasHandle_t";

struct cublasContext {
    cublasLtHandle_t lt;
    cudaStream_t     stream;
};

cublasStatus_t cublasCreate_v2(cublasHandle_t *out)
{
    cublasHandle_t h = out != NULL ? calloc(1, sizeof(*h)) : NULL;
    if (h == NULL) return out == NULL ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_ALLOC_FAILED;
    const cublasStatus_t status = cublasLtCreate(&h->lt);
    if (status != CUBLAS_STATUS_SUCCESS) {
        free(h);
        return status;
    }
    vgpu_object_open(HANDLE, h);
    *out = h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t h)
{
    if (vgpu_object_close(HANDLE, h) != 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    const cublasStatus_t status = cublasLtDestroy(h->lt);
    free(h);
    return status;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t stream)
{
    if (h == NULL || !vgpu_object_is_open(HANDLE, h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    h->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusName(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusString(status);
}

/* Columns by columns, without a workspace: no parts of K. */
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha,
                            const void *a, cudaDataType_t a_type, int lda, const void *b, cudaDataType_t b_type, int ldb,
                            const void *beta, void *c, cudaDataType_t c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algo)
{
    cublasLtMatmulDescOpaque_t   op;
    cublasLtMatrixLayoutOpaque_t la, lb, lc;
    const int32_t                turn_a = (int32_t)ta, turn_b = (int32_t)tb;
    (void)algo; /* a hint that newer versions ignore */
    if (h == NULL || !vgpu_object_is_open(HANDLE, h)) return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = cublasLtMatmulDescInit(&op, compute, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&op, CUBLASLT_MATMUL_DESC_TRANSA, &turn_a, sizeof(turn_a));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&op, CUBLASLT_MATMUL_DESC_TRANSB, &turn_b, sizeof(turn_b));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&la, a_type, (uint64_t)(ta == CUBLAS_OP_N ? m : k), (uint64_t)(ta == CUBLAS_OP_N ? k : m), lda);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&lb, b_type, (uint64_t)(tb == CUBLAS_OP_N ? k : n), (uint64_t)(tb == CUBLAS_OP_N ? n : k), ldb);
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasLtMatrixLayoutInit(&lc, c_type, (uint64_t)m, (uint64_t)n, ldc);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    return cublasLtMatmul(h->lt, &op, alpha, a, &la, b, &lb, beta, c, &lc, c, &lc, NULL, NULL, 0, h->stream);
}
