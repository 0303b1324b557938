#include "counter.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static uint64_t fnv1a64(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

counter counter_weight(uint64_t seed, const char *name, const int64_t *shape, int n_dims)
{
    counter c = {.key = fnv1a64(name) ^ seed};
    if (ends_with(name, ".bias")) {
        c.scale = 0.125f;
    } else if (strstr(name, "attn.norm_") != NULL) { /* q and k of the transformer: peaked attention */
        c.offset = 1.5f;
        c.scale = 0.25f;
    } else if (n_dims == 1) { /* LayerNorm, RMSNorm and GroupNorm weights */
        c.offset = 1.0f;
        c.scale = 0.25f;
    } else if (ends_with(name, "shared.weight") || ends_with(name, "_embedding.weight") ||
               ends_with(name, "relative_attention_bias.weight")) {
        c.scale = 1.0f;
    } else {
        /* T5 does not divide its scores by sqrt(d_kv). */
        double gain = ends_with(name, "SelfAttention.q.weight") ? 0.5 : 1.0;
        int64_t fan_in = 1;
        for (int i = 1; i < n_dims; i++)
            fan_in *= shape[i];
        c.scale = (float)(gain * sqrt(3.0 / (double)fan_in));
    }
    return c;
}

counter counter_input(uint64_t seed, const char *name)
{
    return (counter){.key = fnv1a64(name) ^ seed, .scale = (float)sqrt(3.0)};
}

float counter_value(const counter *c, int64_t index)
{
    uint64_t z = c->key + ((uint64_t)index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z = z ^ (z >> 31);
    float unit = (float)((int64_t)(z >> 40) - (1 << 23)) * 0x1p-23f;
    return c->offset + unit * c->scale;
}
