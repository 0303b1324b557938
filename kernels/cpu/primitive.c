#include "primitive.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

enum { MEM_X, MEM_WEIGHTS, MEM_PRODUCT, MEM_SCRATCH, MEM_COUNT };

typedef struct shape {
    int32_t n_in, n_out, kernel; /* kernel 0: a matrix product */
    dtype   type;
} shape;

struct primitive {
    primitive       *next;
    primitive_cache *cache;
    shape            shape;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t      run;
    dnnl_primitive_t      pack;         /* NULL for products */
    dnnl_memory_t         pack_from, pack_to;
    dnnl_memory_t (*memory)[MEM_COUNT]; /* [n_threads] */
};

struct primitive_cache {
    int            n_threads;
    dnnl_engine_t  engine;
    dnnl_stream_t *streams; /* [n_threads] */
    primitive     *first;
};

/* A failing call of oneDNN ends the function that makes something. */
#define TRY_DNNL(call)                                                                                                 \
    do {                                                                                                               \
        dnnl_status_t dnnl_st = (call);                                                                                \
        if (dnnl_st != dnnl_success) {                                                                                 \
            st = err_set(dnnl_st == dnnl_out_of_memory ? ST_NO_MEMORY : ST_DEVICE, "oneDNN: %s: status %d", #call,      \
                         (int)dnnl_st);                                                                                \
            goto fail;                                                                                                 \
        }                                                                                                              \
    } while (0)

status primitive_cache_open(primitive_cache **out, int n_threads)
{
    status st = ST_OK;
    primitive_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) return err_set(ST_NO_MEMORY, "kernels: primitives");
    cache->streams = calloc((size_t)n_threads, sizeof(cache->streams[0]));
    if (cache->streams == NULL) {
        free(cache);
        return err_set(ST_NO_MEMORY, "kernels: primitives of %d threads", n_threads);
    }
    cache->n_threads = n_threads;
    TRY_DNNL(dnnl_engine_create(&cache->engine, dnnl_cpu, 0));
    for (int i = 0; i < n_threads; i++)
        TRY_DNNL(dnnl_stream_create(&cache->streams[i], cache->engine, dnnl_stream_default_flags));
    *out = cache;
    return ST_OK;
fail:
    primitive_cache_close(cache);
    return st;
}

static void primitive_close(primitive *p)
{
    for (int i = 0; p->memory != NULL && i < p->cache->n_threads; i++)
        for (int m = 0; m < MEM_COUNT; m++) dnnl_memory_destroy(p->memory[i][m]);
    free(p->memory);
    dnnl_memory_destroy(p->pack_from);
    dnnl_memory_destroy(p->pack_to);
    dnnl_primitive_destroy(p->pack);
    dnnl_primitive_destroy(p->run);
    dnnl_primitive_desc_destroy(p->desc);
    free(p);
}

void primitive_cache_close(primitive_cache *cache)
{
    if (cache == NULL) return;
    while (cache->first != NULL) {
        primitive *p = cache->first;
        cache->first = p->next;
        primitive_close(p);
    }
    for (int i = 0; i < cache->n_threads; i++) dnnl_stream_destroy(cache->streams[i]);
    dnnl_engine_destroy(cache->engine);
    free(cache->streams);
    free(cache);
}

static dnnl_data_type_t data_type(dtype type)
{
    return type == DT_BF16 ? dnnl_bf16 : dnnl_f32;
}

static status describe_matmul(primitive *p, const_dnnl_primitive_attr_t attr)
{
    status st = ST_OK;
    const shape *s = &p->shape;
    dnnl_memory_desc_t x, weights, product;
    dnnl_matmul_desc_t desc;
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){ROW_TILE, s->n_in}, data_type(s->type), dnnl_ab));
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&weights, 2, (dnnl_dims_t){s->n_in, s->n_out}, data_type(s->type),
                                          s->type == DT_BF16 ? dnnl_ba : dnnl_ab));
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&product, 2, (dnnl_dims_t){ROW_TILE, s->n_out}, dnnl_f32, dnnl_ab));
    TRY_DNNL(dnnl_matmul_desc_init(&desc, &x, &weights, NULL, &product));
    TRY_DNNL(dnnl_primitive_desc_create(&p->desc, &desc, attr, p->cache->engine, NULL));
fail:
    return st;
}

static status describe_conv(primitive *p, const_dnnl_primitive_attr_t attr)
{
    status st = ST_OK;
    const shape *s = &p->shape;
    const int32_t halo = s->kernel - 1;
    dnnl_memory_desc_t x, weights, product;
    dnnl_convolution_desc_t desc;
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&x, 4, (dnnl_dims_t){1, s->n_in, CONV_TILE_H + halo, CONV_TILE_W + halo},
                                          data_type(s->type), dnnl_nhwc));
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&weights, 4, (dnnl_dims_t){s->n_out, s->n_in, s->kernel, s->kernel},
                                          data_type(s->type), dnnl_format_tag_any));
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&product, 4, (dnnl_dims_t){1, s->n_out, CONV_TILE_H, CONV_TILE_W}, dnnl_f32,
                                          dnnl_nhwc));
    TRY_DNNL(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct, &x, &weights,
                                                NULL, &product, (dnnl_dims_t){1, 1}, (dnnl_dims_t){0, 0},
                                                (dnnl_dims_t){0, 0}));
    TRY_DNNL(dnnl_primitive_desc_create(&p->desc, &desc, attr, p->cache->engine, NULL));
fail:
    return st;
}

/* The reorder of weights from the model's layout into the convolution's own. */
static status make_pack(primitive *p)
{
    status st = ST_OK;
    const shape *s = &p->shape;
    dnnl_engine_t engine = p->cache->engine;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_t from;
    const dnnl_memory_desc_t *to = dnnl_primitive_desc_query_md(p->desc, dnnl_query_weights_md, 0);
    TRY_DNNL(dnnl_memory_desc_init_by_tag(&from, 4, (dnnl_dims_t){s->n_out, s->n_in, s->kernel, s->kernel},
                                          data_type(s->type), dnnl_oihw));
    TRY_DNNL(dnnl_reorder_primitive_desc_create(&desc, &from, engine, to, engine, NULL));
    TRY_DNNL(dnnl_primitive_create(&p->pack, desc));
    TRY_DNNL(dnnl_memory_create(&p->pack_from, &from, engine, DNNL_MEMORY_NONE));
    TRY_DNNL(dnnl_memory_create(&p->pack_to, to, engine, DNNL_MEMORY_NONE));
fail:
    dnnl_primitive_desc_destroy(desc);
    return st;
}

static status make_memories(primitive *p)
{
    static const struct {
        dnnl_query_t what;
        int          index;
    } query[MEM_COUNT] = {
        [MEM_X] = {dnnl_query_src_md, 0},
        [MEM_WEIGHTS] = {dnnl_query_weights_md, 0},
        [MEM_PRODUCT] = {dnnl_query_dst_md, 0},
        [MEM_SCRATCH] = {dnnl_query_scratchpad_md, 0},
    };
    status st = ST_OK;
    p->memory = calloc((size_t)p->cache->n_threads, sizeof(*p->memory));
    if (p->memory == NULL) return err_set(ST_NO_MEMORY, "kernels: memory of a primitive");
    for (int i = 0; i < p->cache->n_threads; i++)
        for (int m = 0; m < MEM_COUNT; m++)
            TRY_DNNL(dnnl_memory_create(&p->memory[i][m],
                                        dnnl_primitive_desc_query_md(p->desc, query[m].what, query[m].index),
                                        p->cache->engine, DNNL_MEMORY_NONE));
fail:
    return st;
}

static status primitive_make(primitive_cache *cache, shape s, const primitive **out)
{
    status st = ST_OK;
    dnnl_primitive_attr_t attr = NULL;
    int n_threads = omp_get_max_threads();
    primitive *p = calloc(1, sizeof(*p));
    if (p == NULL) return err_set(ST_NO_MEMORY, "kernels: primitive");
    *p = (primitive){.cache = cache, .shape = s};
    omp_set_num_threads(1); /* a primitive is planned for the threads that it finds */
    TRY_DNNL(dnnl_primitive_attr_create(&attr));
    TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    TRY(s.kernel == 0 ? describe_matmul(p, attr) : describe_conv(p, attr));
    TRY_DNNL(dnnl_primitive_create(&p->run, p->desc));
    if (s.kernel != 0) TRY(make_pack(p));
    TRY(make_memories(p));
    p->next = cache->first;
    cache->first = p;
    *out = p;
fail:
    omp_set_num_threads(n_threads);
    dnnl_primitive_attr_destroy(attr);
    if (st != ST_OK) primitive_close(p);
    return st;
}

static status primitive_get(primitive_cache *cache, shape s, const primitive **out)
{
    for (const primitive *p = cache->first; p != NULL; p = p->next) {
        if (p->shape.n_in == s.n_in && p->shape.n_out == s.n_out && p->shape.kernel == s.kernel &&
            p->shape.type == s.type) {
            *out = p;
            return ST_OK;
        }
    }
    return primitive_make(cache, s, out);
}

status primitive_get_matmul(primitive_cache *cache, dtype type, int32_t n_in, int32_t n_cols, const primitive **out)
{
    return primitive_get(cache, (shape){.n_in = n_in, .n_out = n_cols, .type = type}, out);
}

status primitive_get_conv(primitive_cache *cache, dtype type, int32_t c_in, int32_t c_out, int32_t kernel,
                          const primitive **out)
{
    return primitive_get(cache, (shape){.n_in = c_in, .n_out = c_out, .kernel = kernel, .type = type}, out);
}

size_t primitive_packed_bytes(const primitive *p)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(p->desc, dnnl_query_weights_md, 0));
}

size_t primitive_scratch_bytes(const primitive *p)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(p->desc, dnnl_query_scratchpad_md, 0));
}

/* oneDNN's handles are not const; sources and weights are only read. */
static bool set_handle(dnnl_memory_t memory, const void *data)
{
    union {
        const void *in;
        void       *out;
    } handle = {.in = data};
    return dnnl_memory_set_data_handle(memory, handle.out) == dnnl_success;
}

status primitive_pack(const primitive *p, const void *weights, void *packed)
{
    int n_threads = omp_get_max_threads();
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, p->pack_from}, {DNNL_ARG_TO, p->pack_to}};
    omp_set_num_threads(1);
    bool done = set_handle(p->pack_from, weights) && set_handle(p->pack_to, packed) &&
                dnnl_primitive_execute(p->pack, p->cache->streams[0], 2, args) == dnnl_success;
    omp_set_num_threads(n_threads);
    if (!done)
        return err_set(ST_DEVICE, "oneDNN: packing of weights [%d, %d, %d, %d] failed", p->shape.n_out, p->shape.n_in,
                       p->shape.kernel, p->shape.kernel);
    return ST_OK;
}

bool primitive_run(const primitive *p, int thread, const void *x, const void *weights, float *product, void *scratch)
{
    dnnl_memory_t *memory = p->memory[thread];
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, memory[MEM_X]},
        {DNNL_ARG_WEIGHTS, memory[MEM_WEIGHTS]},
        {DNNL_ARG_DST, memory[MEM_PRODUCT]},
        {DNNL_ARG_SCRATCHPAD, memory[MEM_SCRATCH]},
    };
    return set_handle(memory[MEM_X], x) && set_handle(memory[MEM_WEIGHTS], weights) &&
           set_handle(memory[MEM_PRODUCT], product) && set_handle(memory[MEM_SCRATCH], scratch) &&
           dnnl_primitive_execute(p->run, p->cache->streams[thread], MEM_COUNT, args) == dnnl_success;
}
