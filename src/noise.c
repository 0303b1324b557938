#include "noise.h"

#include <assert.h>
#include <math.h>

#include "dtype.h"
#include "rng.h"

enum {
    NORMALS_PER_BLOCK = 16, /* torch's normal_fill: 8 pairs of uniforms */
    CUDA_BLOCK = 256,       /* threads of a block in torch's launch */
    CUDA_LANES = 4          /* normals per thread and turn */
};

static const double TWO_PI = 6.283185307179586476925286766559;

/* Where elements of the latent go: the rows that the caller owns. */
typedef struct row_sink {
    const geometry *g;
    int32_t first_token, n_tokens;
    int32_t n_features;
    bool bf16;
    float *packed;
} row_sink;

/* Index in packed of an element of the latent, -1 when another rank owns it. */
static int64_t sink_index(const row_sink *sink, int64_t element)
{
    int32_t token;
    int32_t feature;
    geometry_token_of(sink->g, element, &token, &feature);
    if (token < sink->first_token || token - sink->first_token >= sink->n_tokens) return -1;
    return (int64_t)(token - sink->first_token) * sink->n_features + feature;
}

/* Hands over elements [first, first + n) of the latent. */
static void sink_write(const row_sink *sink, int64_t first, int n, const float *values)
{
    for (int j = 0; j < n; j++) {
        int64_t at = sink_index(sink, first + j);
        if (at >= 0) sink->packed[at] = sink->bf16 ? bf16_round(values[j]) : values[j];
    }
}

static bool sink_wants(const row_sink *sink, int64_t first, int n)
{
    for (int j = 0; j < n; j++)
        if (sink_index(sink, first + j) >= 0) return true;
    return false;
}

/* torch-cpu, fp32: uniforms of 24 bits. words: the block's 16 words of the stream. */
static void block_f32(const uint32_t *words, float *out)
{
    for (int j = 0; j < NORMALS_PER_BLOCK / 2; j++) {
        float u1 = 1.0f - (float)(words[j] & 0xffffffu) * 0x1p-24f;
        float u2 = (float)(words[j + 8] & 0xffffffu) * 0x1p-24f;
        float r = sqrtf(-2.0f * logf(u1));
        float th = (float)TWO_PI * u2;
        out[j] = r * cosf(th);
        out[j + 8] = r * sinf(th);
    }
}

/* torch-cpu-legacy, bf16: uniforms of 8 bits, every step rounded. */
static void block_legacy_bf16(const uint32_t *words, float *out)
{
    for (int j = 0; j < NORMALS_PER_BLOCK / 2; j++) {
        float u1 = bf16_round(1.0f - (float)(words[j] & 0xffu) * 0x1p-8f);
        float u2 = (float)(words[j + 8] & 0xffu) * 0x1p-8f;
        float r = bf16_round(sqrtf(bf16_round(-2.0f * bf16_round(logf(u1)))));
        float th = bf16_round((float)(TWO_PI * (double)u2));
        out[j] = bf16_round(r * bf16_round(cosf(th)));
        out[j + 8] = bf16_round(r * bf16_round(sinf(th)));
    }
}

static void draw(mt19937 *mt, int n, uint32_t *words)
{
    for (int j = 0; j < n; j++)
        words[j] = mt19937_next(mt);
}

/* torch's normal_fill: one word per element, Box-Muller over blocks of 16. When n is no multiple of 16, the last 16
 * elements are drawn once more and overwritten; words_first: the words of all n elements come before those (all but
 * PyTorch's newer bf16 form). */
static void fill_blocks(const row_sink *sink, uint64_t seed, int64_t n, bool words_first,
                        void (*block)(const uint32_t *, float *))
{
    mt19937 mt;
    uint32_t words[NORMALS_PER_BLOCK];
    float values[NORMALS_PER_BLOCK];
    int n_tail = (int)(n % NORMALS_PER_BLOCK);
    int64_t redrawn = n_tail ? n - NORMALS_PER_BLOCK : n; /* first element that is drawn again */
    mt19937_seed(&mt, seed);
    for (int64_t i = 0; i + NORMALS_PER_BLOCK <= n; i += NORMALS_PER_BLOCK) {
        int n_kept = redrawn - i < NORMALS_PER_BLOCK ? (int)(redrawn - i) : NORMALS_PER_BLOCK;
        draw(&mt, NORMALS_PER_BLOCK, words);
        if (!sink_wants(sink, i, n_kept)) continue;
        block(words, values);
        sink_write(sink, i, n_kept, values);
    }
    if (n_tail == 0) return;
    if (words_first) draw(&mt, n_tail, words);
    draw(&mt, NORMALS_PER_BLOCK, words);
    block(words, values);
    sink_write(sink, redrawn, NORMALS_PER_BLOCK, values);
}

static double uniform_f64(mt19937 *mt)
{
    uint64_t high = mt19937_next(mt);
    uint64_t low = mt19937_next(mt);
    return (double)(((high << 32) | low) & 0x1fffffffffffffu) * 0x1p-53;
}

/* torch-cpu below 16 elements, any type: fp64 Box-Muller, two normals per pair of uniforms. */
static void fill_few(const row_sink *sink, uint64_t seed, int64_t n)
{
    mt19937 mt;
    mt19937_seed(&mt, seed);
    for (int64_t i = 0; i < n; i += 2) {
        double u1 = uniform_f64(&mt);
        double u2 = uniform_f64(&mt);
        double r = sqrt(-2.0 * log1p(-u2));
        float values[2] = {(float)(r * cos(TWO_PI * u1)), (float)(r * sin(TWO_PI * u1))};
        sink_write(sink, i, n - i < 2 ? 1 : 2, values);
    }
}

/* cuRAND's curand_normal4 of one Philox block: pairs of words, sine first, affine maps fused as nvcc does. */
static void curand_normal4(const uint32_t *words, float *out)
{
    const float to_unit = 2.3283064e-10f;
    const float to_angle = 2.3283064e-10f * 6.2831855f;
    for (int j = 0; j < CUDA_LANES; j += 2) {
        float u = fmaf((float)words[j], to_unit, to_unit / 2.0f);
        float v = fmaf((float)words[j + 1], to_angle, to_angle / 2.0f);
        float s = sqrtf(-2.0f * logf(u));
        out[j] = s * sinf(v);
        out[j + 1] = s * cosf(v);
    }
}

/* torch-cuda: thread idx of T owns elements idx, idx + T, ...; four in a row share the Philox block of a turn. */
static void fill_cuda(const row_sink *sink, uint64_t seed, int64_t n, int64_t max_blocks)
{
    int64_t n_blocks = (n + CUDA_BLOCK - 1) / CUDA_BLOCK;
    int64_t n_threads = CUDA_BLOCK * (n_blocks < max_blocks ? n_blocks : max_blocks);
    for (int32_t i = 0; i < sink->n_tokens; i++)
        for (int32_t f = 0; f < sink->n_features; f++) {
            int64_t element = geometry_latent_offset(sink->g, sink->first_token + i, f);
            uint64_t thread = (uint64_t)(element % n_threads);
            uint64_t turn = (uint64_t)(element / n_threads / CUDA_LANES);
            uint32_t counter[4] = {(uint32_t)turn, (uint32_t)(turn >> 32), (uint32_t)thread, (uint32_t)(thread >> 32)};
            uint32_t words[4];
            float values[CUDA_LANES];
            philox4x32(seed, counter, words);
            curand_normal4(words, values);
            sink_write(sink, element, 1, &values[element / n_threads % CUDA_LANES]);
        }
}

static void fill_counter(const row_sink *sink, uint64_t seed)
{
    for (int32_t i = 0; i < sink->n_tokens; i++) {
        int32_t token = sink->first_token + i;
        for (int32_t f = 0; f < sink->n_features; f += PATCH * PATCH) {
            uint32_t counter[4] = {(uint32_t)(token % sink->g->cols), (uint32_t)(token / sink->g->cols),
                                   (uint32_t)(f / (PATCH * PATCH)), 0};
            uint32_t words[4];
            philox4x32(seed, counter, words);
            for (int dy = 0; dy < PATCH; dy++) {
                double r = sqrt(-2.0 * log(((double)words[2 * dy] + 0.5) * 0x1p-32));
                double th = TWO_PI * (((double)words[2 * dy + 1] + 0.5) * 0x1p-32);
                float values[PATCH] = {(float)(r * cos(th)), (float)(r * sin(th))};
                sink_write(sink, geometry_latent_offset(sink->g, token, f + dy * PATCH), PATCH, values);
            }
        }
    }
}

status noise_fill(const noise_opts *opts, uint64_t seed, const geometry *g, int32_t channels, int32_t first_token,
                  int32_t n_tokens, bool bf16, float *packed)
{
    const row_sink sink = {
        .g = g,
        .first_token = first_token,
        .n_tokens = n_tokens,
        .n_features = channels * PATCH * PATCH,
        .bf16 = bf16,
        .packed = packed,
    };
    int64_t n = (int64_t)channels * g->latent_h * g->latent_w;
    assert(channels > 0 && first_token >= 0 && n_tokens >= 0 && n_tokens <= g->n_image - first_token);
    if (n_tokens == 0) return ST_OK;
    switch (opts->kind) {
    case NOISE_TORCH_CPU:
    case NOISE_TORCH_CPU_LEGACY:
        if (n < NORMALS_PER_BLOCK)
            fill_few(&sink, seed, n);
        else if (bf16 && opts->kind == NOISE_TORCH_CPU_LEGACY)
            fill_blocks(&sink, seed, n, true, block_legacy_bf16);
        else
            fill_blocks(&sink, seed, n, !bf16, block_f32);
        return ST_OK;
    case NOISE_TORCH_CUDA: {
        int64_t max_blocks = (int64_t)opts->sms * (opts->threads_per_sm / CUDA_BLOCK);
        if (opts->sms < 1 || opts->threads_per_sm < CUDA_BLOCK)
            return err_set(ST_BAD_JOB, "noise: torch-cuda: got %d sms of %d threads, want at least 1 of %d", opts->sms,
                           opts->threads_per_sm, CUDA_BLOCK);
        fill_cuda(&sink, seed, n, max_blocks);
        return ST_OK;
    }
    case NOISE_COUNTER:
        fill_counter(&sink, seed);
        return ST_OK;
    }
    return err_set(ST_BAD_JOB, "noise: unknown kind %d", (int)opts->kind);
}
