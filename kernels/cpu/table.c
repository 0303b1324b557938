#include <oneapi/dnnl/dnnl.h>

#include "cpu.h"
#include "plain/plain.h"
#include "primitive.h"
#include "vector.h"

static const struct {
    const vector_ops *vec;
    dnnl_cpu_isa_t    library;
} isas[ISA_COUNT] = {
    [ISA_PLAIN] = {&vector_plain, dnnl_cpu_isa_sse41},
    [ISA_AVX2] = {&vector_avx2, dnnl_cpu_isa_avx2},
    [ISA_AVX512] = {&vector_avx512, dnnl_cpu_isa_avx512_core},
    [ISA_AVX512_BF16] = {&vector_avx512, dnnl_cpu_isa_avx512_core_bf16},
};

static status open_with(kernel_context **out, cpu_isa isa, int n_threads)
{
    status st = ST_OK;
    kernel_context *ctx = NULL;
    if (isa > cpu_isa_best())
        return err_set(ST_DEVICE, "cpu kernels: this processor runs %s, not %s", cpu_isa_name(cpu_isa_best()),
                       cpu_isa_name(isa));
    if (dnnl_get_effective_cpu_isa() != isas[isa].library)
        return err_set(ST_DEVICE, "cpu kernels: oneDNN is already in use with another instruction set than %s",
                       cpu_isa_name(isa));
    TRY(kernel_context_open(&ctx, isa, n_threads));
    ctx->vec = isas[isa].vec;
    TRY(primitive_cache_open(&ctx->cache, ctx->n_threads));
    *out = ctx;
    return ST_OK;
fail:
    kernel_context_close(ctx);
    return st;
}

static void cpu_close(kernel_context *ctx)
{
    if (ctx == NULL) return;
    primitive_cache_close(ctx->cache);
    kernel_context_close(ctx);
}

/* Moving few elements, and GroupNorm's last step, gain nothing from a second version: these are the plain ones. */
#define CPU_TABLE(isa, isa_name)                                                                                       \
    {                                                                                                                  \
        .name = isa_name, .open = open_##isa, .close = cpu_close, .linear = linear_cpu, .attention = attention_cpu,    \
        .layernorm = layernorm_cpu, .rmsnorm = rmsnorm_cpu, .qk_norm_rope = qk_norm_rope_cpu, .silu = silu_cpu,        \
        .add = add_cpu, .gated_gelu = gated_gelu_cpu, .gather_rows = gather_rows_plain, .convert = convert_cpu,        \
        .copy_rows = copy_rows_plain, .euler = euler_cpu, .latent_unpack = latent_unpack_plain, .group_sums = group_sums_cpu,                        \
        .group_add = group_add_plain, .group_finish = group_finish_plain, .conv = conv_cpu, .to_u8 = to_u8_cpu                                       \
    }

#define CPU_OPEN(isa)                                                                                                  \
    static status open_##isa(kernel_context **out, int n_threads)                                                      \
    {                                                                                                                  \
        return open_with(out, isa, n_threads);                                                                         \
    }
CPU_OPEN(ISA_PLAIN)
CPU_OPEN(ISA_AVX2)
CPU_OPEN(ISA_AVX512)
CPU_OPEN(ISA_AVX512_BF16)

const kernel_table *kernels_cpu(cpu_isa isa)
{
    static const kernel_table tables[ISA_COUNT] = {
        [ISA_PLAIN] = CPU_TABLE(ISA_PLAIN, "portable"),
        [ISA_AVX2] = CPU_TABLE(ISA_AVX2, "avx2"),
        [ISA_AVX512] = CPU_TABLE(ISA_AVX512, "avx512"),
        [ISA_AVX512_BF16] = CPU_TABLE(ISA_AVX512_BF16, "avx512-bf16"),
    };
    dnnl_set_max_cpu_isa(isas[isa].library); /* refused when oneDNN is in use already; open looks */
    return &tables[isa];
}
