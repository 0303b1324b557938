/* Attention of the cpu device: picks a kernel, cuts the call into items of one head and some panels of query rows, and
 * runs them on the threads. An item copies every tile of K and V once, so it should have many rows; its queries and
 * outputs pass through the caches in order, once per tile, so they need not fit the second one (on a busy Zen 3
 * with 512 KiB of it, 768 KiB beat 64 to 256 at head widths 128 and 512; at 32 and 64 all were alike within the noise).
 * And there should be items for all threads. */
#include "cpu/attention.h"

#include <omp.h>
#include <stdbool.h>

#include "attention_check.h"
#include "cpu/cpu.h"

enum {
    ITEM_BYTES = 768 * 1024, /* queries and outputs of an item */
    ITEMS_PER_THREAD = 3     /* at least, for balance, when there are rows enough */
};

/* First match wins. */
static const struct {
    cpu_isa                 isa; /* at least */
    dtype                   type;
    int32_t                 head_dim; /* 0: any (the products run at 9/10 of peak at 64, 128 and 512 alike) */
    const attention_kernel *kernel;
} table[] = {
    {ISA_AVX512_BF16, DT_BF16, 0, &attention_avx512bf16},
    {ISA_AVX512, DT_BF16, 0, &attention_avx512},
    {ISA_AVX512, DT_F32, 0, &attention_avx512},
    {ISA_AVX2, DT_BF16, 0, &attention_avx2},
    {ISA_AVX2, DT_F32, 0, &attention_avx2},
    {ISA_PLAIN, DT_BF16, 0, &attention_generic},
    {ISA_PLAIN, DT_F32, 0, &attention_generic},
};

const attention_kernel *attention_kernel_get(cpu_isa isa, dtype type, int32_t head_dim)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (isa >= table[i].isa && type == table[i].type && (table[i].head_dim == 0 || table[i].head_dim == head_dim))
            return table[i].kernel;
    return NULL;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Panels per item. */
static int32_t item_panels(const attention_kernel *kernel, const attention_args *a, int n_threads)
{
    const int32_t n_panels = (a->n_q + kernel->panel - 1) / kernel->panel;
    const int32_t panel_bytes = kernel->panel * a->head_dim * 2 * (int32_t)sizeof(float);
    const int32_t most = ITEM_BYTES / panel_bytes > 0 ? ITEM_BYTES / panel_bytes : 1;
    const int32_t wanted = (n_threads * ITEMS_PER_THREAD + a->n_heads - 1) / a->n_heads; /* items per head */
    int32_t n_items = (n_panels + most - 1) / most;
    if (n_threads > 1 && n_items < wanted) n_items = min_i32(wanted, n_panels);
    return (n_panels + n_items - 1) / n_items;
}

status attention_run(const attention_kernel *kernel, kernel_context *ctx, const attention_args *a)
{
    status st = attention_check(a);
    if (st != ST_OK || a->n_q == 0 || a->n_heads == 0) return st;
    const int32_t n_panels = item_panels(kernel, a, ctx->n_threads);
    const int32_t n_rows = n_panels * kernel->panel;
    const int64_t per_head = (a->n_q + n_rows - 1) / n_rows;
    st = kernel_scratch_team(ctx, kernel->scratch_bytes(a->head_dim, n_panels));
    if (st != ST_OK) return st;
#pragma omp parallel for schedule(dynamic) num_threads(ctx->n_threads)
    for (int64_t i = 0; i < per_head * a->n_heads; i++) {
        const int32_t head = (int32_t)(i / per_head), row = (int32_t)(i % per_head) * n_rows;
        kernel->run(a, head, row, min_i32(n_rows, a->n_q - row), ctx->scratch[omp_get_thread_num()].data);
    }
    return ST_OK;
}

status attention_cpu(kernel_context *ctx, const attention_args *a)
{
    return attention_run(attention_kernel_get(ctx->isa, a->type == DT_F32 ? DT_F32 : DT_BF16, a->head_dim), ctx, a);
}
