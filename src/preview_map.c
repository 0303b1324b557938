#include "preview_map.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic_file.h"
#include "geometry.h"
#include "noise.h"
#include "safetensors.h"
#include "sha256.h"
#include "vae_decoder.h"

/* Latents of FIT_SIDE x FIT_SIDE, one for each radius of smoothing: colours of large areas and of small ones. */
enum { FIT_SIDE = 32, N_FITS = 4, RGB = 3, FIT_SEED = 1 };
static const int radii[N_FITS] = {8, 4, 2, 1};

static const char TENSOR[] = "latent_rgb";

void preview_map_colour(const preview_map *map, const float *token, unsigned char rgb[12])
{
    for (int at = 0; at < PATCH * PATCH; at++)
        for (int k = 0; k < RGB; k++) {
            float value = map->weight[k][map->channels];
            for (int c = 0; c < map->channels; c++) value += map->weight[k][c] * token[c * PATCH * PATCH + at];
            rgb[at * RGB + k] = (unsigned char)(value < 0.5f ? 0 : value > 254.5f ? 255 : value + 0.5f); /* NaN: 255 */
        }
}

/* ---- least squares */

/* Solves a x = b for RGB right sides, a: [m, m] symmetric and positive; Cholesky in place. False: it is not. */
static bool solve(int m, double *a, double *b)
{
    for (int j = 0; j < m; j++) {
        double d = a[j * m + j];
        for (int k = 0; k < j; k++) d -= a[j * m + k] * a[j * m + k];
        if (!(d > 0)) return false;
        d = sqrt(d);
        a[j * m + j] = d;
        for (int i = j + 1; i < m; i++) {
            double s = a[i * m + j];
            for (int k = 0; k < j; k++) s -= a[i * m + k] * a[j * m + k];
            a[i * m + j] = s / d;
        }
    }
    for (int r = 0; r < RGB; r++) {
        for (int i = 0; i < m; i++) {
            for (int k = 0; k < i; k++) b[i * RGB + r] -= a[i * m + k] * b[k * RGB + r];
            b[i * RGB + r] /= a[i * m + i];
        }
        for (int i = m - 1; i >= 0; i--) {
            for (int k = i + 1; k < m; k++) b[i * RGB + r] -= a[k * m + i] * b[k * RGB + r];
            b[i * RGB + r] /= a[i * m + i];
        }
    }
    return true;
}

status preview_map_fit(preview_map *out, int channels, int64_t n, const float *x, const float *y)
{
    enum { M_MAX = PREVIEW_CHANNELS_MAX + 1 };
    status      st = ST_OK;
    const int   m = channels + 1;
    preview_map map = {.channels = channels};
    double     *a = calloc((size_t)m * (size_t)m, sizeof(*a)), *b = calloc((size_t)m * RGB, sizeof(*b));
    double      row[M_MAX];
    if (a == NULL || b == NULL || channels > PREVIEW_CHANNELS_MAX) {
        st = err_set(ST_NO_MEMORY, "preview: %d channels", channels);
        goto fail;
    }
    for (int64_t s = 0; s < n; s++) {
        for (int i = 0; i < channels; i++) row[i] = x[s * channels + i];
        row[channels] = 1;
        for (int i = 0; i < m; i++) {
            for (int j = 0; j <= i; j++) a[i * m + j] += row[i] * row[j];
            for (int r = 0; r < RGB; r++) b[i * RGB + r] += row[i] * y[s * RGB + r];
        }
    }
    if (!solve(m, a, b)) {
        st = err_set(ST_FAILED, "preview: %lld samples do not tell the colours of %d channels", (long long)n, channels);
        goto fail;
    }
    for (int r = 0; r < RGB; r++)
        for (int i = 0; i < m; i++) map.weight[r][i] = (float)b[i * RGB + r];
    *out = map;
fail:
    free(a);
    free(b);
    return st;
}

/* ---- samples from the decoder */

/* Mean of the values within radius across and down, the edges repeated; then scaled to a root mean square of 1. */
static void smooth(float *plane, float *other, int radius)
{
    double square = 0;
    for (int pass = 0; pass < 2; pass++) {
        const int along = pass == 0 ? 1 : FIT_SIDE, across = pass == 0 ? FIT_SIDE : 1;
        for (int line = 0; line < FIT_SIDE; line++)
            for (int i = 0; i < FIT_SIDE; i++) {
                float sum = 0;
                for (int d = -radius; d <= radius; d++) {
                    const int k = i + d < 0 ? 0 : i + d >= FIT_SIDE ? FIT_SIDE - 1 : i + d;
                    sum += plane[line * across + k * along];
                }
                other[line * across + i * along] = sum;
            }
        memcpy(plane, other, (size_t)(FIT_SIDE * FIT_SIDE) * sizeof(float));
    }
    for (int i = 0; i < FIT_SIDE * FIT_SIDE; i++) square += (double)plane[i] * (double)plane[i];
    const float scale = square > 0 ? (float)sqrt(FIT_SIDE * FIT_SIDE / square) : 0;
    for (int i = 0; i < FIT_SIDE * FIT_SIDE; i++) plane[i] *= scale;
}

/* A smooth random latent [channels, FIT_SIDE, FIT_SIDE], and packed as the decoder takes it. */
static status make_latent(const geometry *g, int channels, int index, float *latent, float *packed)
{
    status           st = ST_OK;
    const noise_opts noise = {.kind = NOISE_COUNTER};
    float            spare[FIT_SIDE * FIT_SIDE];
    TRY(noise_fill(&noise, (uint64_t)(FIT_SEED + index), g, channels, 0, g->n_image, false, packed));
    geometry_unpack(g, channels, packed, 0, g->n_image, latent);
    for (int c = 0; c < channels; c++) smooth(latent + (size_t)c * FIT_SIDE * FIT_SIDE, spare, radii[index]);
    geometry_pack(g, channels, latent, 0, g->n_image, packed);
fail:
    return st;
}

/* Rows of a decode, added up to means of scale x scale pixels. */
typedef struct mean_sink {
    float *mean; /* [FIT_SIDE * FIT_SIDE, 3] */
    int    scale, width;
} mean_sink;

static status take_rows(void *context, int32_t first_row, int32_t n_rows, const uint8_t *rgb)
{
    const mean_sink *s = context;
    const float      share = 1.0f / (float)(s->scale * s->scale);
    for (int32_t y = 0; y < n_rows; y++) {
        float *row = s->mean + (size_t)((first_row + y) / s->scale) * FIT_SIDE * RGB;
        for (int x = 0; x < s->width; x++)
            for (int k = 0; k < RGB; k++)
                row[x / s->scale * RGB + k] += share * (float)rgb[((size_t)y * (size_t)s->width + (size_t)x) * RGB + (size_t)k];
    }
    return ST_OK;
}

/* Samples of all fits, on rank 0: x [N_FITS * FIT_SIDE^2, channels], y [.., 3]. */
static status take_samples(const preview_map_opts *o, int channels, float *x, float *y)
{
    enum { N = FIT_SIDE * FIT_SIDE };
    status       st = ST_OK;
    const bool   speaks = comm_rank(o->comm) == 0;
    const int    scale = o->model->vae.scale;
    vae_decoder *vae = NULL;
    geometry     g;
    float       *latent = speaks ? malloc((size_t)N * (size_t)channels * sizeof(float)) : NULL;
    float       *packed = speaks ? malloc((size_t)N * (size_t)channels * sizeof(float)) : NULL;
    if (speaks && (latent == NULL || packed == NULL)) st = err_set(ST_NO_MEMORY, "preview: latents of %d channels", channels);
    if (st == ST_OK) st = geometry_make(&g, FIT_SIDE * scale, FIT_SIDE * scale, scale);
    if (st == ST_OK) /* one of its own: nobody wants to see its tensors */
        st = vae_decoder_open(&vae, &(vae_decoder_opts){.model = o->model, .comm = o->comm, .dev = o->dev,
                                                        .compute = o->compute, .type = o->type});
    TRY(comm_agree(o->comm, st));
    for (int f = 0; f < N_FITS; f++) {
        mean_sink sums = {.mean = speaks ? y + (size_t)f * N * RGB : NULL, .scale = scale, .width = FIT_SIDE * scale};
        row_sink  sink = {.ctx = &sums, .rows = take_rows};
        TRY(comm_agree(o->comm, speaks ? make_latent(&g, channels, f, latent, packed) : ST_OK));
        TRY(vae_decoder_decode(vae, &g, packed, speaks ? &sink : NULL));
        for (int i = 0; speaks && i < N; i++)
            for (int c = 0; c < channels; c++)
                x[((size_t)f * N + (size_t)i) * (size_t)channels + (size_t)c] = latent[(size_t)c * N + (size_t)i];
    }
fail:
    vae_decoder_close(vae);
    free(latent);
    free(packed);
    return st;
}

static status fit(preview_map *out, const preview_map_opts *o)
{
    enum { N = N_FITS * FIT_SIDE * FIT_SIDE };
    status     st = ST_OK;
    const int  channels = o->model->vae.latent_channels;
    const bool speaks = comm_rank(o->comm) == 0;
    float     *x = speaks ? malloc((size_t)N * (size_t)channels * sizeof(float)) : NULL;
    float     *y = speaks ? calloc((size_t)N * RGB, sizeof(float)) : NULL;
    TRY(comm_agree(o->comm, speaks && (x == NULL || y == NULL) ? err_set(ST_NO_MEMORY, "preview: %d samples", N) : ST_OK));
    TRY(take_samples(o, channels, x, y));
    st = comm_agree(o->comm, speaks ? preview_map_fit(out, channels, N, x, y) : ST_OK);
fail:
    free(x);
    free(y);
    return st;
}

/* ---- the cache; what fails here costs time, nothing else */

static char *cache_path(const preview_map_opts *o)
{
    char *path = NULL;
    if (o->cache_dir == NULL || asprintf(&path, "%s/latent-rgb-%s.safetensors", o->cache_dir, o->model_sha256) < 0) return NULL;
    return path;
}

/* Rows of the tensor: [3, channels + 1]. */
static size_t row_bytes(int channels)
{
    return (size_t)(channels + 1) * sizeof(float);
}

static bool read_cache(preview_map *out, const preview_map_opts *o)
{
    const int    channels = o->model->vae.latent_channels;
    char        *path = cache_path(o), hex[SHA256_HEX];
    safetensors *file = NULL;
    preview_map  map = {.channels = channels};
    bool         good = path != NULL && access(path, F_OK) == 0 && safetensors_open(&file, path, ST_OUTPUT) == ST_OK;
    if (good) {
        const safetensors_entry *e = safetensors_find(file, TENSOR);
        const char              *sum = safetensors_metadata(file, "sha256");
        good = e != NULL && sum != NULL && e->type == DT_F32 && e->bytes == RGB * row_bytes(channels) &&
               sha256_of(e->data, e->bytes, hex) == ST_OK && strcmp(hex, sum) == 0;
        for (int k = 0; good && k < RGB; k++)
            memcpy(map.weight[k], (const char *)e->data + (size_t)k * row_bytes(channels), row_bytes(channels));
    }
    if (good) *out = map;
    safetensors_close(file);
    free(path);
    err_clear();
    return good;
}

static void write_cache(const preview_map *map, const preview_map_opts *o)
{
    char *path = cache_path(o), hex[SHA256_HEX];
    float packed[RGB * (PREVIEW_CHANNELS_MAX + 1)];
    for (int k = 0; k < RGB; k++) memcpy(packed + k * (map->channels + 1), map->weight[k], row_bytes(map->channels));
    const safetensors_tensor tensor = {.name = TENSOR, .type = DT_F32, .n_dims = 2, .shape = {RGB, map->channels + 1},
                                       .data = packed};
    if (path != NULL && sha256_of(packed, RGB * row_bytes(map->channels), hex) == ST_OK &&
        atomic_file_make_folder(path) == ST_OK)
        (void)safetensors_write(path, &tensor, 1, &(safetensors_note){"sha256", hex}, 1);
    free(path);
    err_clear();
}

status preview_map_get(preview_map *out, const preview_map_opts *opts)
{
    status     st = ST_OK;
    const bool speaks = comm_rank(opts->comm) == 0;
    int        found = 0;
    if (opts->model->vae.latent_channels > PREVIEW_CHANNELS_MAX)
        return err_set(ST_FAILED, "preview: a latent of %d channels; at most %d", opts->model->vae.latent_channels,
                       PREVIEW_CHANNELS_MAX);
    if (speaks) found = read_cache(out, opts);
    TRY(comm_bcast(opts->comm, 0, &found, sizeof(found)));
    if (!found) {
        TRY(fit(out, opts));
        if (speaks) write_cache(out, opts);
    }
    TRY(comm_bcast(opts->comm, 0, out, sizeof(*out)));
fail:
    return st;
}
