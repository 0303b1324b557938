/* Attention in portable C: the compiler's vectors of four floats, products and sums rounded separately. */
#include <stdint.h>
#include <string.h>

#include "ops.h"

enum { LANES = 4, GROUP = 4, CHANNEL_BLOCK = 128 };
#define PACK 1

typedef float vec __attribute__((vector_size(16)));
typedef int32_t mask __attribute__((vector_size(16)));
typedef float unit;
typedef vec units;

static inline vec vec_load(const float *x)
{
    vec a;
    memcpy(&a, x, sizeof(a));
    return a;
}

static inline void vec_store(float *x, vec a) { memcpy(x, &a, sizeof(a)); }
static inline vec vec_set1(float x) { return (vec){x, x, x, x}; }
static inline vec vec_add(vec a, vec b) { return a + b; }
static inline vec vec_sub(vec a, vec b) { return a - b; }
static inline vec vec_mul(vec a, vec b) { return a * b; }
static inline vec vec_div(vec a, vec b) { return a / b; }
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }

static inline vec vec_max(vec a, vec b)
{
    mask greater = a > b; /* false for NaN */
    return (vec)((greater & (mask)a) | (~greater & (mask)b));
}

static inline vec vec_power2(vec t)
{
    /* Bits are moved as unsigned: the magic number's are shifted out. */
    typedef uint32_t bits __attribute__((vector_size(16)));
    return (vec)(((bits)t << 23) + (127u << 23));
}

static inline vec vec_keep(vec p, vec x, vec limit) { return (vec)(~(x < limit) & (mask)p); }

static inline units units_load(const float *x) { return vec_load(x); }
static inline void units_store(float *x, units a) { vec_store(x, a); }
static inline units units_set1(unit x) { return vec_set1(x); }
static inline vec units_dot(units a, units b, vec acc) { return a * b + acc; }

static inline units weights_pack(const vec p[PACK], vec *sum)
{
    *sum = *sum + p[0];
    return p[0];
}

#include "cpu/attention_kernel.inc.h"

const attention_kernel attention_generic = {"generic", PANEL, scratch_bytes, run};
