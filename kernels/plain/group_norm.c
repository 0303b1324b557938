/* GroupNorm in two parts: fp64 sums of each image row (any rank can make its own), then a factor and a summand for each
 * channel, which the convolution applies when it reads. */
#include "plain.h"

#include <math.h>

status group_sums_plain(kernel_context *ctx, const group_sums_args *args)
{
    (void)ctx;
    int64_t group_width = args->channels / args->groups;
    for (int64_t y = 0; y < args->height; y++) {
        for (int64_t group = 0; group < args->groups; group++) {
            double sum = 0.0, squares = 0.0;
            for (int64_t x = 0; x < args->width; x++) {
                for (int64_t c = 0; c < group_width; c++) {
                    int64_t at = (y * args->width + x) * args->channels + group * group_width + c;
                    double v = element_get(args->x, args->type, at);
                    sum += v;
                    squares += v * v;
                }
            }
            args->sums[(y * args->groups + group) * 2] = sum;
            args->sums[(y * args->groups + group) * 2 + 1] = squares;
        }
    }
    return ST_OK;
}

status group_add_plain(kernel_context *ctx, const group_add_args *args)
{
    (void)ctx;
    const int64_t n = 2 * (int64_t)args->groups;
    for (int64_t i = 0; i < n; i++) {
        double total = args->first ? 0.0 : args->totals[i];
        for (int64_t y = 0; y < args->height; y++) total += args->sums[y * n + i];
        args->totals[i] = total;
    }
    return ST_OK;
}

status group_finish_plain(kernel_context *ctx, const group_finish_args *args)
{
    (void)ctx;
    int64_t group_width = args->channels / args->groups;
    double count = (double)args->n_pixels * (double)group_width;
    for (int64_t group = 0; group < args->groups; group++) {
        double mean = args->totals[group * 2] / count;
        double variance = fmax(args->totals[group * 2 + 1] / count - mean * mean, 0.0); /* fp64 loses nothing that fp32 data has */
        double inverse = 1.0 / sqrt(variance + args->eps);
        if (args->parity) {
            mean = bf16_round((float)mean);
            inverse = bf16_round((float)inverse);
        }
        for (int64_t c = group * group_width; c < (group + 1) * group_width; c++) {
            double mul = inverse * args->scale[c];
            args->mul[c] = (float)mul;
            args->add[c] = (float)(args->shift[c] - mean * mul);
        }
    }
    return ST_OK;
}
