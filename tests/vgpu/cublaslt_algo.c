#include "cublaslt.h"

#include <string.h>

/* What an algorithm can do. The numbers are ours: the real ones mean something only to the real library. */
typedef struct capability {
    int32_t  id;
    bool     narrow, wide; /* bf16 and f16; fp32 inputs */
    uint32_t alignment;    /* bytes of every operand; 0: one element */
    bool     split_k;
    uint32_t tiles[4], stages[3]; /* 0 ends the list */
} capability;

static const capability CAPABILITIES[] = {
    {.id = 1, .wide = true, .split_k = true, .tiles = {CUBLASLT_MATMUL_TILE_128x128, CUBLASLT_MATMUL_TILE_64x64, CUBLASLT_MATMUL_TILE_32x32},
     .stages = {CUBLASLT_MATMUL_STAGES_8x4, CUBLASLT_MATMUL_STAGES_64x3}},
    {.id = 6, .narrow = true, .alignment = 16, .split_k = true,
     .tiles = {CUBLASLT_MATMUL_TILE_256x128, CUBLASLT_MATMUL_TILE_128x128, CUBLASLT_MATMUL_TILE_64x64},
     .stages = {CUBLASLT_MATMUL_STAGES_32x3, CUBLASLT_MATMUL_STAGES_64x3}},
    {.id = 21, .narrow = true, .split_k = true, .tiles = {CUBLASLT_MATMUL_TILE_128x64, CUBLASLT_MATMUL_TILE_64x64},
     .stages = {CUBLASLT_MATMUL_STAGES_32x1, CUBLASLT_MATMUL_STAGES_64x1}}};
enum { N_CAPABILITIES = sizeof(CAPABILITIES) / sizeof(CAPABILITIES[0]), MAX_SPLIT_K = 16 };

/* Epilogues are bit masks: bias may be combined with one of the others. */
static const uint32_t EPILOGUES = CUBLASLT_EPILOGUE_DEFAULT | CUBLASLT_EPILOGUE_RELU | CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_GELU;

size_t type_bytes(uint32_t type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 0;
}

static const capability *capability_of(int32_t id)
{
    for (int i = 0; i < N_CAPABILITIES; i++)
        if (CAPABILITIES[i].id == id) return &CAPABILITIES[i];
    return NULL;
}

/* The combinations of types of NVIDIA's table that we know: narrow to the same or fp32, fp32 to fp32. */
static bool types_fit(const capability *c, const uint32_t type[4])
{
    if (type[0] != type[1] || type[2] != type[3]) return false;
    if (type[0] == CUDA_R_32F) return c->wide && type[3] == CUDA_R_32F;
    return c->narrow && type_bytes(type[0]) == 2 && (type[3] == type[0] || type[3] == CUDA_R_32F);
}

static bool computes(int32_t compute, int32_t scale_type)
{
    return (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32) && scale_type == CUDA_R_32F;
}

/* ---- problems */

static cublasStatus_t check_layout(const layout *l, const char *side)
{
    const uint64_t least = l->order == CUBLASLT_ORDER_ROW ? l->cols : l->rows;
    if (type_bytes(l->type) == 0) return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: type %u", side, l->type);
    if (l->order != CUBLASLT_ORDER_COL && l->order != CUBLASLT_ORDER_ROW)
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "%s: order %d", side, l->order);
    if (l->rows == 0 || l->cols == 0 || l->rows > INT32_MAX || l->cols > INT32_MAX || l->ld < 0 || (uint64_t)l->ld < least)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: %llu x %llu with leading dimension %lld", side,
                         (unsigned long long)l->rows, (unsigned long long)l->cols, (long long)l->ld);
    if (l->n_batch < 1) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: batch of %d", side, l->n_batch);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t problem_make(problem *out, const operation *op, const layout *a, const layout *b, const layout *c,
                            const layout *d)
{
    static const char *const sides[] = {"A", "B", "C", "D"};
    const bool ta = op->trans_a != CUBLAS_OP_N, tb = op->trans_b != CUBLAS_OP_N;
    *out = (problem){.op = *op, .side = {*a, *b, *c, *d}, .m = d->rows, .n = d->cols, .k = ta ? a->rows : a->cols};
    for (int i = 0; i < 4; i++) {
        const cublasStatus_t status = check_layout(&out->side[i], sides[i]);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
        if (out->side[i].n_batch != d->n_batch)
            return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "%s: batch of %d, D has one of %d", sides[i], out->side[i].n_batch, d->n_batch);
    }
    if ((ta ? a->cols : a->rows) != out->m || (tb ? b->rows : b->cols) != out->n || (tb ? b->cols : b->rows) != out->k ||
        c->rows != d->rows || c->cols != d->cols)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "A %llu x %llu%s, B %llu x %llu%s, C %llu x %llu, D %llu x %llu do not fit",
                         (unsigned long long)a->rows, (unsigned long long)a->cols, ta ? " turned" : "", (unsigned long long)b->rows,
                         (unsigned long long)b->cols, tb ? " turned" : "", (unsigned long long)c->rows, (unsigned long long)c->cols,
                         (unsigned long long)d->rows, (unsigned long long)d->cols);
    if ((op->trans_a != CUBLAS_OP_N && op->trans_a != CUBLAS_OP_T) || (op->trans_b != CUBLAS_OP_N && op->trans_b != CUBLAS_OP_T))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "operations %d and %d", op->trans_a, op->trans_b);
    if (op->pointer_mode != CUBLASLT_POINTER_MODE_HOST)
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "pointer mode %d: not in this replacement", op->pointer_mode);
    if (op->epilogue == 0 || (op->epilogue & ~EPILOGUES) != 0 || ((op->epilogue & CUBLASLT_EPILOGUE_GELU) != 0 && (op->epilogue & CUBLASLT_EPILOGUE_RELU) != 0))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "epilogue %u: not in this replacement", op->epilogue);
    if ((op->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 && op->bias_type != -1 && (uint32_t)op->bias_type != d->type)
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "bias of type %d, D of type %u", op->bias_type, d->type);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- algorithms */

static bool has(const uint32_t *list, size_t n, uint32_t value)
{
    for (size_t i = 0; i < n && list[i] != 0; i++)
        if (list[i] == value) return true;
    return false;
}

uint32_t algo_alignment(const lt_algo *a, int side)
{
    const capability *c = capability_of(a->id);
    return c->alignment != 0 ? c->alignment : (uint32_t)type_bytes(a->type[side]);
}

int algo_k_parts(const lt_algo *a)
{
    return a->stages == CUBLASLT_MATMUL_STAGES_64x3 || a->stages == CUBLASLT_MATMUL_STAGES_64x1 ? 2 : 1;
}

cublasStatus_t algo_check(const lt_algo *a, const problem *p, size_t *workspace_bytes)
{
    const capability *c = a->magic == MAGIC_ALGO ? capability_of(a->id) : NULL;
    if (c == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "not an initialised algorithm");
    for (int i = 0; i < 4; i++)
        if (a->type[i] != p->side[i].type)
            return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm %d was initialised for other types", a->id);
    if (a->compute != p->op.compute || a->scale_type != p->op.scale_type)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm %d was initialised for another compute type", a->id);
    if (!computes(a->compute, a->scale_type))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute type %d, scale type %d", a->compute, a->scale_type);
    if (!has(c->tiles, 4, a->tile) || !has(c->stages, 3, a->stages))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm %d: tile %u, stages %u", a->id, a->tile, a->stages);
    if (a->swizzle > 1 || a->custom != 0 || a->inner_shape != 0 || a->cluster != 0)
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm %d: swizzling, custom option, inner shape or cluster", a->id);
    const bool splits = a->split_k > 1;
    if (a->split_k < 0 || a->split_k > MAX_SPLIT_K || splits != (a->reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) ||
        (!splits && a->reduction != CUBLASLT_REDUCTION_SCHEME_NONE))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm %d: %d parts of K with reduction scheme %u", a->id, a->split_k,
                         a->reduction);
    for (int i = 0; i < 4; i++) {
        const layout *l = &p->side[i];
        if ((uint64_t)l->ld * type_bytes(l->type) % algo_alignment(a, i) != 0 ||
            (l->n_batch > 1 && (uint64_t)l->batch_stride * type_bytes(l->type) % algo_alignment(a, i) != 0))
            return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm %d: leading dimension %lld or batch stride %lld, in multiples of %u bytes",
                             a->id, (long long)l->ld, (long long)l->batch_stride, algo_alignment(a, i));
    }
    *workspace_bytes = splits ? (size_t)a->split_k * p->m * p->n * (size_t)p->side[3].n_batch * sizeof(float) : 0;
    return CUBLAS_STATUS_SUCCESS;
}

static bool init_algo(lt_algo *out, const capability *c, int32_t compute, int32_t scale_type, const uint32_t type[4])
{
    if (!types_fit(c, type) || !computes(compute, scale_type)) return false;
    *out = (lt_algo){.magic = MAGIC_ALGO, .id = c->id, .split_k = 1, .compute = compute, .scale_type = scale_type};
    for (int i = 0; i < 4; i++) out->type[i] = (uint8_t)type[i];
    return true;
}

/* All that would run, the seemingly fastest first: tiles for D's size, K in parts when there are few tiles. */
cublasStatus_t algo_propose(const problem *p, const preference *pref, lt_algo *out, int n_wanted, int *n_found)
{
    const uint32_t type[4] = {p->side[0].type, p->side[1].type, p->side[2].type, p->side[3].type};
    const uint64_t n_tiles = ((p->m + 127) / 128) * ((p->n + 127) / 128);
    const bool     few = n_tiles < 64;
    *n_found = 0;
    for (int pass = 0; pass < 2; pass++) /* parts of K first when there are few tiles, else last */
        for (int i = 0; i < N_CAPABILITIES; i++) {
            const capability *c = &CAPABILITIES[i];
            const bool        splits = (pass == 0) == few;
            lt_algo              a;
            bool              aligned = true;
            if (!init_algo(&a, c, p->op.compute, p->op.scale_type, type)) continue;
            for (int side = 0; side < 4; side++) {
                const layout  *l = &p->side[side];
                const uint32_t want = algo_alignment(&a, side);
                /* Elements are aligned anyway, whatever the preference says. */
                aligned &= pref->alignment[side] % want == 0 || want == type_bytes(l->type);
                aligned &= (uint64_t)l->ld * type_bytes(l->type) % want == 0 &&
                           (l->n_batch == 1 || (uint64_t)l->batch_stride * type_bytes(l->type) % want == 0);
            }
            if (!aligned || (splits && (pref->reduction_mask & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) == 0)) continue;
            for (int t = 0; t < 4 && c->tiles[t] != 0 && *n_found < n_wanted; t++) {
                size_t bytes = 0;
                a.tile = c->tiles[t];
                a.stages = c->stages[p->n <= 64 || t > 0]; /* both lists have two */
                a.split_k = splits ? 4 : 1;
                a.reduction = splits ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
                if (algo_check(&a, p, &bytes) == CUBLAS_STATUS_SUCCESS && bytes <= pref->max_workspace) out[(*n_found)++] = a;
            }
        }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the calls */

static cublasStatus_t make(problem *out, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                           cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d)
{
    const operation *o = operation_of(op);
    const layout    *la = layout_of(a, "A"), *lb = layout_of(b, "B"), *lc = layout_of(c, "C"), *ld = layout_of(d, "D");
    if (o == NULL || la == NULL || lb == NULL || lc == NULL || ld == NULL) return CUBLAS_STATUS_INVALID_VALUE;
    return problem_make(out, o, la, lb, lc, ld);
}

static cublasStatus_t fill_result(const lt_algo *a, const problem *p, cublasLtMatmulHeuristicResult_t *out)
{
    size_t               bytes = 0;
    const cublasStatus_t status = algo_check(a, p, &bytes);
    out->workspaceSize = bytes;
    out->state = status;
    out->wavesCount = (float)(((p->m + 127) / 128) * ((p->n + 127) / 128)) / 108.0f; /* processors of an A100 */
    return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t pref, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *n_found)
{
    enum { MOST = 32 };
    problem           p;
    lt_algo              found[MOST];
    const preference *wishes = preference_of(pref);
    if (!lt_is_handle(handle)) return lt_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtMatmulAlgoGetHeuristic: not a handle");
    if (n_wanted <= 0 || results == NULL || n_found == NULL || wishes == NULL)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulAlgoGetHeuristic: %d results wanted", n_wanted);
    cublasStatus_t status = make(&p, op, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (wishes->search != CUBLASLT_SEARCH_BEST_FIT)
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "search mode %u: not in this replacement", wishes->search);
    status = algo_propose(&p, wishes, found, n_wanted < MOST ? n_wanted : MOST, n_found);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < *n_found; i++) {
        results[i] = (cublasLtMatmulHeuristicResult_t){0};
        memcpy(&results[i].algo, &found[i], sizeof(found[i]));
        (void)fill_result(&found[i], &p, &results[i]);
    }
    if (status == CUBLAS_STATUS_SUCCESS && *n_found == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    return status;
}

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t handle, cublasComputeType_t compute, cudaDataType_t scale_type,
                                        cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d, int n_wanted,
                                        int ids[], int *n_found)
{
    const uint32_t type[4] = {(uint32_t)a, (uint32_t)b, (uint32_t)c, (uint32_t)d};
    lt_algo           unused;
    if (!lt_is_handle(handle)) return lt_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtMatmulAlgoGetIds: not a handle");
    if (n_wanted <= 0 || ids == NULL || n_found == NULL)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulAlgoGetIds: %d wanted", n_wanted);
    *n_found = 0;
    for (int i = 0; i < N_CAPABILITIES && *n_found < n_wanted; i++)
        if (init_algo(&unused, &CAPABILITIES[i], (int32_t)compute, (int32_t)scale_type, type)) ids[(*n_found)++] = CAPABILITIES[i].id;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute, cudaDataType_t scale_type,
                                      cudaDataType_t a, cudaDataType_t b, cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t *out)
{
    const uint32_t    type[4] = {(uint32_t)a, (uint32_t)b, (uint32_t)c, (uint32_t)d};
    const capability *found = capability_of(id);
    lt_algo              fresh;
    if (!lt_is_handle(handle)) return lt_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtMatmulAlgoInit: not a handle");
    if (out == NULL || found == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulAlgoInit: algorithm %d", id);
    if (!init_algo(&fresh, found, (int32_t)compute, (int32_t)scale_type, type))
        return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoInit: algorithm %d: types", id);
    memset(out, 0, sizeof(*out));
    memcpy(out, &fresh, sizeof(fresh));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *given, cublasLtMatmulHeuristicResult_t *result)
{
    problem p;
    lt_algo    chosen;
    if (!lt_is_handle(handle)) return lt_refuse(CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtMatmulAlgoCheck: not a handle");
    if (given == NULL || result == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmulAlgoCheck: NULL");
    const cublasStatus_t status = make(&p, op, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    memcpy(&chosen, given, sizeof(chosen));
    return fill_result(&chosen, &p, result);
}

/* One value, or the list's. */
static cublasStatus_t give(const void *value, size_t bytes, void *buf, size_t room, size_t *written, int id)
{
    if ((room == 0 && written == NULL) || (room > 0 && (buf == NULL || room < bytes)))
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: attribute %d: got %zu bytes, want %zu", id, room, bytes);
    if (room > 0) memcpy(buf, value, bytes);
    if (written != NULL) *written = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

static size_t list_bytes(const uint32_t *list, size_t n)
{
    size_t found = 0;
    while (found < n && list[found] != 0) found++;
    return found * sizeof(*list);
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t *given, cublasLtMatmulAlgoCapAttributes_t id,
                                                 void *buf, size_t room, size_t *written)
{
    lt_algo a;
    if (given == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: NULL");
    memcpy(&a, given, sizeof(a));
    const capability *c = a.magic == MAGIC_ALGO ? capability_of(a.id) : NULL;
    if (c == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "not an initialised algorithm");
    const int32_t  split_k = c->split_k, yes = 1, no = 0;
    const uint32_t scheme = c->split_k ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint32_t host = CUBLASLT_POINTER_MODE_MASK_HOST, swizzles = 1;
    const uint64_t flags = (c->wide ? CUBLASLT_NUMERICAL_IMPL_FLAGS_FMA : CUBLASLT_NUMERICAL_IMPL_FLAGS_HMMA) |
                           CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_32F;
    switch (id) {
    case CUBLASLT_ALGO_CAP_SPLITK_SUPPORT: return give(&split_k, sizeof(split_k), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_REDUCTION_SCHEME_MASK: return give(&scheme, sizeof(scheme), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_CTA_SWIZZLING_SUPPORT: return give(&swizzles, sizeof(swizzles), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_STRIDED_BATCH_SUPPORT:
    case CUBLASLT_ALGO_CAP_OUT_OF_PLACE_RESULT_SUPPORT: return give(&yes, sizeof(yes), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_UPLO_SUPPORT:
    case CUBLASLT_ALGO_CAP_CUSTOM_OPTION_MAX:
    case CUBLASLT_ALGO_CAP_CUSTOM_MEMORY_ORDER:
    case CUBLASLT_ALGO_CAP_LD_NEGATIVE:
    case CUBLASLT_ALGO_CAP_POINTER_ARRAY_BATCH_SUPPORT: return give(&no, sizeof(no), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_TILE_IDS: return give(c->tiles, list_bytes(c->tiles, 4), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_STAGES_IDS: return give(c->stages, list_bytes(c->stages, 3), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_POINTER_MODE_MASK: return give(&host, sizeof(host), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_EPILOGUE_MASK: return give(&EPILOGUES, sizeof(EPILOGUES), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS: return give(&flags, sizeof(flags), buf, room, written, (int)id);
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_D_BYTES: {
        const uint32_t alignment = algo_alignment(&a, (int)id - CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES);
        return give(&alignment, sizeof(alignment), buf, room, written, (int)id);
    }
    default: return lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "algorithm: capability %d: not in this replacement", (int)id);
    }
}

/* Where a setting lies, and its bytes. */
static void *setting_of(lt_algo *a, cublasLtMatmulAlgoConfigAttributes_t id, size_t *bytes)
{
    *bytes = sizeof(uint32_t);
    switch (id) {
    case CUBLASLT_ALGO_CONFIG_ID: return &a->id;
    case CUBLASLT_ALGO_CONFIG_TILE_ID: return &a->tile;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: return &a->split_k;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME: return &a->reduction;
    case CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING: return &a->swizzle;
    case CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION: return &a->custom;
    case CUBLASLT_ALGO_CONFIG_STAGES_ID: return &a->stages;
    case CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID: *bytes = sizeof(uint16_t); return &a->inner_shape;
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID: *bytes = sizeof(uint16_t); return &a->cluster;
    default: return NULL;
    }
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t *given, cublasLtMatmulAlgoConfigAttributes_t id,
                                                    const void *buf, size_t bytes)
{
    lt_algo   a;
    size_t want = 0;
    if (given == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: NULL");
    memcpy(&a, given, sizeof(a));
    void *at = setting_of(&a, id, &want);
    if (a.magic != MAGIC_ALGO || at == NULL || id == CUBLASLT_ALGO_CONFIG_ID || buf == NULL || bytes != want)
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: setting %d of %zu bytes", (int)id, bytes);
    memcpy(at, buf, bytes);
    memcpy(given, &a, sizeof(a));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *given, cublasLtMatmulAlgoConfigAttributes_t id,
                                                    void *buf, size_t bytes, size_t *written)
{
    lt_algo   a;
    size_t want = 0;
    if (given == NULL) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: NULL");
    memcpy(&a, given, sizeof(a));
    const void *at = setting_of(&a, id, &want);
    if (a.magic != MAGIC_ALGO || at == NULL || (bytes > 0 && bytes != want))
        return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "algorithm: setting %d of %zu bytes", (int)id, bytes);
    return give(at, want, buf, bytes, written, (int)id);
}
