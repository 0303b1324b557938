#include "geometry.h"

#include <assert.h>

static int32_t tiles_of(int32_t n_rows)
{
    return n_rows / ROW_TILE + (n_rows % ROW_TILE != 0);
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

status geometry_make(geometry *out, int32_t width, int32_t height, int32_t vae_scale)
{
    int64_t px = (int64_t)vae_scale * PATCH; /* per token and side */
    assert(vae_scale > 0);
    if (width < px || height < px)
        return err_set(ST_BAD_JOB, "geometry: picture of %d x %d px: each side wants at least %lld", width, height,
                       (long long)px);
    int64_t cols = width / px;
    int64_t rows = height / px;
    if (rows * cols > INT32_MAX)
        return err_set(ST_BAD_JOB, "geometry: picture of %d x %d px has %lld tokens, want at most %d", width, height,
                       (long long)(rows * cols), INT32_MAX);
    *out = (geometry){
        .width = (int32_t)(cols * px),
        .height = (int32_t)(rows * px),
        .latent_w = (int32_t)cols * PATCH,
        .latent_h = (int32_t)rows * PATCH,
        .cols = (int32_t)cols,
        .rows = (int32_t)rows,
        .n_image = (int32_t)(rows * cols),
    };
    return ST_OK;
}

int64_t geometry_latent_offset(const geometry *g, int32_t token, int32_t feature)
{
    int64_t c = feature / (PATCH * PATCH);
    int64_t y = (int64_t)(token / g->cols) * PATCH + feature / PATCH % PATCH;
    int64_t x = (int64_t)(token % g->cols) * PATCH + feature % PATCH;
    return (c * g->latent_h + y) * g->latent_w + x;
}

void geometry_token_of(const geometry *g, int64_t latent_offset, int32_t *token, int32_t *feature)
{
    int64_t x = latent_offset % g->latent_w;
    int64_t y = latent_offset / g->latent_w % g->latent_h;
    int64_t c = latent_offset / g->latent_w / g->latent_h;
    *token = (int32_t)(y / PATCH * g->cols + x / PATCH);
    *feature = (int32_t)((c * PATCH + y % PATCH) * PATCH + x % PATCH);
}

void geometry_pack(const geometry *g, int32_t channels, const float *latent, int32_t first_token, int32_t n_tokens,
                   float *packed)
{
    int32_t n_features = channels * PATCH * PATCH;
    for (int32_t i = 0; i < n_tokens; i++)
        for (int32_t f = 0; f < n_features; f++)
            packed[(int64_t)i * n_features + f] = latent[geometry_latent_offset(g, first_token + i, f)];
}

void geometry_unpack(const geometry *g, int32_t channels, const float *packed, int32_t first_token, int32_t n_tokens,
                     float *latent)
{
    int32_t n_features = channels * PATCH * PATCH;
    for (int32_t i = 0; i < n_tokens; i++)
        for (int32_t f = 0; f < n_features; f++)
            latent[geometry_latent_offset(g, first_token + i, f)] = packed[(int64_t)i * n_features + f];
}

int32_t geometry_n_tiles(int32_t n_text, int32_t n_image)
{
    return tiles_of(n_text) + tiles_of(n_image);
}

/* First row of a tile; the end of the sequence for the tile after the last. */
static int32_t tile_begin(int32_t n_text, int32_t n_image, int32_t tile)
{
    int32_t n_text_tiles = tiles_of(n_text);
    if (tile < n_text_tiles) return tile * ROW_TILE;
    int64_t row = (int64_t)n_text + (int64_t)(tile - n_text_tiles) * ROW_TILE;
    int64_t end = (int64_t)n_text + n_image;
    return (int32_t)(row < end ? row : end);
}

static row_range rows_of_tiles(int32_t n_text, int32_t n_image, int32_t begin, int32_t end)
{
    row_range range;
    int32_t last = tile_begin(n_text, n_image, end);
    range.first = tile_begin(n_text, n_image, begin);
    range.count = last - range.first;
    range.n_text = range.first < n_text ? min_i32(last, n_text) - range.first : 0;
    range.n_image = range.count - range.n_text;
    return range;
}

row_range geometry_tile(int32_t n_text, int32_t n_image, int32_t tile)
{
    assert(tile >= 0 && tile < geometry_n_tiles(n_text, n_image));
    return rows_of_tiles(n_text, n_image, tile, tile + 1);
}

row_range geometry_split(int32_t n_text, int32_t n_image, int32_t n_ranks, int32_t rank)
{
    assert(n_text >= 0 && n_image >= 0 && n_text <= INT32_MAX - n_image);
    assert(n_ranks > 0 && rank >= 0 && rank < n_ranks);
    int32_t n_tiles = geometry_n_tiles(n_text, n_image);
    int32_t each = n_tiles / n_ranks;
    int32_t extra = n_tiles % n_ranks;
    int32_t begin = rank * each + min_i32(rank, extra);
    return rows_of_tiles(n_text, n_image, begin, begin + each + (rank < extra));
}

int32_t geometry_first_token(row_range range, int32_t n_text)
{
    return range.first + range.n_text - n_text;
}

void geometry_positions(const geometry *g, row_range range, int32_t n_text, int32_t *pos)
{
    for (int32_t i = 0; i < range.count; i++) {
        int32_t token = range.first + i - n_text;
        int32_t *p = pos + (int64_t)i * 3;
        p[0] = 0;
        p[1] = token < 0 ? 0 : token / g->cols;
        p[2] = token < 0 ? 0 : token % g->cols;
    }
}

int geometry_n_strips(const geometry *g, int n_ranks)
{
    return n_ranks < g->rows ? n_ranks : g->rows;
}

strip geometry_strip(const geometry *g, int n_strips, int index)
{
    const int32_t least = g->rows / n_strips, more = g->rows % n_strips;
    return (strip){.first = index * least + (index < more ? index : more), .count = least + (index < more)};
}
