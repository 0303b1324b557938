#include "preview.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "png_writer.h"

enum { TOKEN_BYTES = PATCH * PATCH * 3 };

struct preview {
    preview_opts opts;
    int32_t      n_rows;         /* of this rank */
    float       *token;          /* [channels * 4] */
    uint8_t     *own, *all;      /* [tokens of this rank, 12]; of all, on rank 0 */
    uint8_t     *pixels;         /* rank 0: two rows */
    size_t      *bytes_of_ranks;
    char        *path;           /* NAME.preview.png */
    bool         told;           /* that it cannot be written */
};

static bool speaks(const preview *p)
{
    return comm_rank(p->opts.comm) == 0;
}

/* NAME.preview.png of NAME.png; yours to free, NULL without memory. */
static char *path_beside(const char *output)
{
    char *path = NULL;
    return asprintf(&path, "%.*s.preview.png", (int)(strlen(output) - strlen(".png")), output) < 0 ? NULL : path;
}

status preview_open(preview **out, const preview_opts *opts)
{
    const geometry *g = opts->geometry;
    const int       n_ranks = comm_size(opts->comm);
    preview        *p = calloc(1, sizeof(*p));
    if (p == NULL) goto no_memory;
    p->opts = *opts;
    p->bytes_of_ranks = calloc((size_t)n_ranks, sizeof(*p->bytes_of_ranks));
    if (p->bytes_of_ranks == NULL) goto no_memory;
    for (int rank = 0; rank < n_ranks; rank++)
        p->bytes_of_ranks[rank] = (size_t)geometry_split(opts->n_text, g->n_image, n_ranks, rank).n_image * TOKEN_BYTES;
    p->n_rows = (int32_t)(p->bytes_of_ranks[comm_rank(opts->comm)] / TOKEN_BYTES);
    p->token = malloc((size_t)opts->map->channels * PATCH * PATCH * sizeof(float));
    p->own = malloc((size_t)p->n_rows * TOKEN_BYTES + 1);
    if (speaks(p)) p->all = malloc((size_t)g->n_image * TOKEN_BYTES);
    if (speaks(p)) p->pixels = malloc((size_t)g->latent_w * PATCH * 3);
    p->path = path_beside(opts->output);
    if (p->token == NULL || p->own == NULL || p->path == NULL || (speaks(p) && (p->all == NULL || p->pixels == NULL)))
        goto no_memory;
    *out = p;
    return ST_OK;
no_memory:
    preview_close(p);
    return err_set(ST_NO_MEMORY, "%s: a preview of %d x %d", opts->picture, g->latent_w, g->latent_h);
}

void preview_close(preview *p)
{
    if (p == NULL) return;
    free(p->bytes_of_ranks);
    free(p->token);
    free(p->own);
    free(p->all);
    free(p->pixels);
    free(p->path);
    free(p);
}

/* x0 = latents - sigma v, row by row, as colours. */
static void colour(preview *p, const float *latents, const void *velocity, dtype type, float sigma)
{
    const int n = p->opts.map->channels * PATCH * PATCH;
    for (int32_t row = 0; row < p->n_rows; row++) {
        const size_t at = (size_t)row * (size_t)n;
        for (int f = 0; f < n; f++) {
            const float v = type == DT_BF16 ? bf16_to_f32(((const uint16_t *)velocity)[at + (size_t)f])
                                            : ((const float *)velocity)[at + (size_t)f];
            p->token[f] = latents[at + (size_t)f] - sigma * v;
        }
        preview_map_colour(p->opts.map, p->token, p->own + (size_t)row * TOKEN_BYTES);
    }
}

/* Tokens [rows, cols][dy][dx][3] to rows of pixels. */
static status write_png(preview *p, int done, int n_steps)
{
    status          st = ST_OK;
    const geometry *g = p->opts.geometry;
    const size_t    half = PATCH * 3, row_bytes = (size_t)g->latent_w * 3;
    png_writer     *png = NULL;
    char            text[64];
    snprintf(text, sizeof(text), "step %d of %d", done, n_steps);
    const png_note notes[] = {{"Software", "dype-dist"}, {"Comment", text}};
    TRY(png_writer_open(&png, &(png_writer_opts){.path = p->path, .width = g->latent_w, .height = g->latent_h,
                                                 .notes = notes, .n_notes = 2, .overwrite = true}));
    for (int32_t i = 0; i < g->rows; i++) {
        for (int32_t j = 0; j < g->cols; j++) {
            const uint8_t *token = p->all + ((size_t)i * (size_t)g->cols + (size_t)j) * TOKEN_BYTES;
            for (size_t dy = 0; dy < PATCH; dy++)
                memcpy(p->pixels + dy * row_bytes + (size_t)j * half, token + dy * half, half);
        }
        TRY(png_writer_rows(png, PATCH, p->pixels));
    }
    st = png_writer_commit(png);
    png = NULL;
fail:
    png_writer_abandon(png);
    return st;
}

status preview_write(preview *p, const float *latents, const void *velocity, dtype type, float sigma, int done, int n_steps)
{
    colour(p, latents, velocity, type, sigma);
    status st = comm_gather(p->opts.comm, 0, p->own, p->bytes_of_ranks, p->all);
    if (st != ST_OK || !speaks(p)) return st;
    if (write_png(p, done, n_steps) != ST_OK) {
        if (!p->told) report_warn(p->opts.report, "%s: no preview: %s", p->opts.picture, err_text());
        p->told = true;
        err_clear();
    }
    return ST_OK;
}

void preview_remove(const char *output)
{
    char *path = path_beside(output);
    if (path != NULL) unlink(path);
    free(path);
}
