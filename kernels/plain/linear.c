/* y = act(x W^T + b) or y + gate * (x W^T + b): one dot product after the other. */
#include "plain.h"

status linear_plain(kernel_context *ctx, const linear_args *args)
{
    (void)ctx;
    bool parity = args->parity && args->type == DT_BF16;
    for (int64_t row = 0; row < args->n_rows; row++) {
        for (int64_t col = 0; col < args->n_out; col++) {
            double sum = 0.0;
            for (int64_t i = 0; i < args->n_in; i++)
                sum += (double)element_get(args->x, args->type, row * args->ldx + i) *
                       weight_get(args->w.data, args->w.type, args->type, col * args->n_in + i);
            if (args->w.bias != NULL) sum += weight_get(args->w.bias, args->w.bias_type, args->type, col);

            int64_t at = row * args->ldy + col;
            float product = parity_round(parity, (float)sum);
            float result = activation_plain(args->act, product, parity);
            if (args->gate != NULL)
                result = element_get(args->y, args->y_type, at) + parity_round(parity, args->gate[col] * product);
            element_set(args->y, args->y_type, at, parity_round(parity, result));
        }
    }
    return ST_OK;
}
