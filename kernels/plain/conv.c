/* Convolution of channels-last rows, one output sample after the other. */
#include "plain.h"

/* Channel c of the input at output coordinates (row, col), normalised; zero outside the image. Rows -1 and height are
 * the lent neighbours. */
static float input_get(const conv_args *args, int64_t row, int64_t col, int64_t c)
{
    if (args->wrap) col = (col + args->width) % args->width;
    if (col < 0 || col >= args->width) return 0.0f;
    const void *x = args->x;
    int64_t source_row = args->upsample ? row / 2 : row;
    if (row < 0) {
        x = args->x_above;
        source_row = 0;
    } else if (row >= args->height) {
        x = args->x_below;
        source_row = 0;
    }
    if (x == NULL) return 0.0f;

    bool bf16 = args->type == DT_BF16;
    int64_t source_width = args->upsample ? args->width / 2 : args->width;
    int64_t source_col = args->upsample ? col / 2 : col;
    float v = element_get(x, args->type, (source_row * source_width + source_col) * args->c_in + c);
    if (args->norm_mul != NULL) v = v * args->norm_mul[c] + args->norm_add[c];
    if (args->silu) v = activation_plain(ACT_SILU, parity_round(args->parity && bf16, v), false);
    return parity_round(bf16, v); /* the product takes bf16 */
}

status conv_plain(kernel_context *ctx, const conv_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    int64_t k = args->kernel, c_in = args->c_in;
    for (int64_t y = 0; y < args->height; y++) {
        for (int64_t x = 0; x < args->width; x++) {
            for (int64_t c_out = 0; c_out < args->c_out; c_out++) {
                double sum = 0.0;
                for (int64_t c = 0; c < c_in; c++)
                    for (int64_t ky = 0; ky < k; ky++)
                        for (int64_t kx = 0; kx < k; kx++)
                            sum += (double)input_get(args, y + ky - k / 2, x + kx - k / 2, c) *
                                   weight_get(args->w.data, args->w.type, args->type,
                                              ((c_out * c_in + c) * k + ky) * k + kx);
                float product = parity_round(parity, (float)sum);
                if (args->w.bias != NULL)
                    product += weight_get(args->w.bias, args->w.bias_type, args->type, c_out);

                int64_t at = (y * args->width + x) * args->c_out + c_out;
                product = parity_round(parity, product);
                if (args->residual != NULL) product += element_get(args->residual, args->y_type, at);
                element_set(args->y, args->y_type, at, product);
            }
        }
    }
    return ST_OK;
}
