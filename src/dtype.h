/* Element types that this program computes with or reads, and exact conversions of one element.
 * bf16 conversion rounds to nearest even and keeps NaN a NaN. */
#ifndef DYPE_DTYPE_H
#define DYPE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dtype { DT_F32 = 0, DT_BF16 = 1, DT_F16 = 2, DT_F64, DT_I64, DT_I32, DT_U8, DT_OTHER } dtype;

/* Bytes of one element; 0 for DT_OTHER. */
static inline size_t dtype_bytes(dtype t)
{
    switch (t) {
    case DT_F32:
    case DT_I32: return 4;
    case DT_BF16:
    case DT_F16: return 2;
    case DT_F64:
    case DT_I64: return 8;
    case DT_U8: return 1;
    case DT_OTHER: break;
    }
    return 0;
}

static inline const char *dtype_name(dtype t)
{
    static const char *const names[] = {"F32", "BF16", "F16", "F64", "I64", "I32", "U8", "other"};
    return names[t];
}

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* f rounded to bf16 and widened again: one rounding of the bf16 reference. */
static inline float bf16_round(float f)
{
    return bf16_to_f32(f32_to_bf16(f));
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;
    uint32_t u;
    float f;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in f32 */
        f = (float)mantissa * 0x1p-24f;
        memcpy(&u, &f, sizeof(u));
        u |= sign;
    } else if (exponent == 31) {
        u = sign | 0x7f800000u | (mantissa << 13);
    } else {
        u = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    }
    memcpy(&f, &u, sizeof(f));
    return f;
}

#endif
