#include "nccl_comm.h"

#include <string.h>

static float from_bf16(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float          f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* To the nearest, ties to even; NaN stays NaN. */
static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#define COMBINE(x, y, op)                                                                                              \
    ((op) == ncclProd ? (x) * (y) : (op) == ncclMax ? ((y) > (x) ? (y) : (x))                                          \
                                  : (op) == ncclMin ? ((y) < (x) ? (y) : (x)) : (x) + (y))

/* wide: what is added up in. */
#define REDUCE(type, wide, load, store)                                                                                \
    for (size_t i = 0; i < count; i++) {                                                                               \
        const type *x = in;                                                                                            \
        wide        sum = load(x[i]);                                                                                  \
        for (int r = 1; r < n; r++) {                                                                                  \
            const wide y = load(x[(size_t)r * count + i]);                                                             \
            sum = (wide)COMBINE(sum, y, op);                                                                           \
        }                                                                                                              \
        if (op == ncclAvg) sum = (wide)(sum / (wide)n);                                                                \
        ((type *)out)[i] = (type)store(sum);                                                                           \
    }                                                                                                                  \
    return ncclSuccess

#define SAME(x) (x)

ncclResult_t reduce_ranks(void *out, const void *in, size_t count, int n, ncclDataType_t type, ncclRedOp_t op)
{
    switch (type) {
    case ncclInt8: REDUCE(int8_t, int8_t, SAME, SAME);
    case ncclUint8: REDUCE(uint8_t, uint8_t, SAME, SAME);
    case ncclInt32: REDUCE(int32_t, int32_t, SAME, SAME);
    case ncclUint32: REDUCE(uint32_t, uint32_t, SAME, SAME);
    case ncclInt64: REDUCE(int64_t, int64_t, SAME, SAME);
    case ncclUint64: REDUCE(uint64_t, uint64_t, SAME, SAME);
    case ncclFloat32: REDUCE(float, float, SAME, SAME);
    case ncclFloat64: REDUCE(double, double, SAME, SAME);
    case ncclBfloat16: REDUCE(uint16_t, float, from_bf16, to_bf16);
    default: return ncclInvalidArgument; /* told by the caller */
    }
}
