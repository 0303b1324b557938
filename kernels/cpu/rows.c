/* Operations whose rows or elements are independent: a team shares them in equal parts. */
#include "cpu.h"
#include "vector.h"

/* Members that pay for n items: a part has at least `grain` elements of work. */
static int team_size(const kernel_context *ctx, int64_t n, int64_t item_elements)
{
    enum { GRAIN = 65536 };
    int64_t most = n * item_elements / GRAIN + 1;
    if (most > n) most = n > 0 ? n : 1;
    return most < ctx->n_threads ? (int)most : ctx->n_threads;
}

/* Runs the vector code of `op` on `count` items of `item` elements each. */
#define SHARED_OP(op, count, item)                                                                                     \
    status op##_cpu(kernel_context *ctx, const op##_args *args)                                                        \
    {                                                                                                                  \
        int64_t n = (count);                                                                                           \
        int team = team_size(ctx, n, (item));                                                                          \
        _Pragma("omp parallel for num_threads(team) schedule(static)") for (int i = 0; i < team; i++)                  \
            ctx->vec->op(args, n * i / team, n * (i + 1) / team);                                                      \
        return ST_OK;                                                                                                  \
    }

SHARED_OP(layernorm, args->n_rows, args->width)
SHARED_OP(rmsnorm, args->n_rows, args->width)
SHARED_OP(qk_norm_rope, args->n_rows, (int64_t)args->n_heads * args->head_dim)
SHARED_OP(group_sums, args->height, (int64_t)args->width * args->channels)
SHARED_OP(silu, args->n, 1)
SHARED_OP(add, args->n, 1)
SHARED_OP(gated_gelu, args->n, 1)
SHARED_OP(convert, args->n, 1)
SHARED_OP(euler, args->n, 1)
SHARED_OP(to_u8, args->n, 1)
