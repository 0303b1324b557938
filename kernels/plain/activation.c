#include "plain.h"

#include <math.h>

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

float activation_plain(activation act, float x, bool parity)
{
    switch (act) {
    case ACT_NONE: break;
    case ACT_SILU: return (float)(x * sigmoid(x));
    case ACT_GELU_TANH: {
        double u = 0.79788456080286536 * (x + 0.044715 * (double)x * x * x); /* sqrt(2 / pi) */
        return (float)(0.5 * x * (1.0 + tanh(u)));
    }
    case ACT_GELU: return (float)(0.5 * x * erfc(-0.70710678118654752 * x));
    case ACT_QUICK_GELU: /* three operations in the reference */
        if (parity) return x * bf16_round((float)sigmoid(bf16_round(1.702f * x)));
        return (float)(x * sigmoid(1.702 * x));
    }
    return x;
}
