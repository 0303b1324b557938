#include "device_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory that an operation reads, writes or both, by a place in its arguments. */
typedef struct operand {
    void  *at; /* the pointer inside the arguments */
    size_t n_rows, ld_bytes, row_bytes;
    bool   out; /* copied back; all are copied in, so that what an operation leaves alone stays */
    bool   own; /* the kernels' own memory, from an arena: aligned there wherever it lies here */
} operand;

enum { MAX_OPERANDS = 10, FAR_BYTES = 1 << 20 /* between rows: what lies there is not copied */ };

typedef struct operands {
    operand list[MAX_OPERANDS];
    int     n;
} operands;

typedef struct device_context {
    device *dev;
    stream *s;
} device_context;

static void add(operands *o, void *at, size_t bytes, bool out)
{
    o->list[o->n++] = (operand){at, bytes > 0, bytes, bytes, out, false};
}

/* n_rows rows of width elements, ld apart. */
static void add_rows(operands *o, void *at, int64_t n_rows, int64_t ld, int64_t width, dtype type, bool out)
{
    const size_t element = dtype_bytes(type), n = n_rows > 0 ? (size_t)n_rows : 0;
    if ((size_t)ld * element < FAR_BYTES) add(o, at, n == 0 ? 0 : ((n - 1) * (size_t)ld + (size_t)width) * element, out);
    else o->list[o->n++] = (operand){at, n, (size_t)ld * element, (size_t)width * element, out, false};
}

static size_t extent(const operand *o)
{
    return o->n_rows == 0 ? 0 : (o->n_rows - 1) * o->ld_bytes + o->row_bytes;
}

static size_t elements(int64_t n, dtype type)
{
    return (size_t)n * dtype_bytes(type);
}

static void linear_operands(operands *o, linear_args *a)
{
    add_rows(o, &a->x, a->n_rows, a->ldx, a->n_in, a->type, false);
    add_rows(o, &a->y, a->n_rows, a->ldy, a->n_out, a->y_type, true);
    add(o, &a->w.data, elements((int64_t)a->n_in * a->n_out, a->w.type), false);
    add(o, &a->w.bias, elements(a->n_out, a->w.bias_type), false);
    add(o, &a->gate, elements(a->n_out, DT_F32), false);
}

static void attention_operands(operands *o, attention_args *a)
{
    const int64_t width = (int64_t)a->n_heads * a->head_dim, n = (int64_t)a->n_q * a->n_heads;
    add_rows(o, &a->q, a->n_q, a->ldq, width, a->type, false);
    add_rows(o, &a->k, a->n_kv, a->ldk, width, a->type, false);
    add_rows(o, &a->v, a->n_kv, a->ldv, width, a->type, false);
    add_rows(o, &a->out, a->n_q, a->ldo, width, a->type, true);
    add(o, &a->state_max, elements(n, DT_F32), true);
    add(o, &a->state_sum, elements(n, DT_F32), true);
    add(o, &a->state_out, elements(n * a->head_dim, DT_F32), true);
    o->list[o->n - 1].own = true;
    add(o, &a->q_keep, elements(a->head_dim, DT_F32), false);
    add_rows(o, &a->bias, a->n_heads, a->bias_ld, a->n_q + a->n_kv - 1, DT_F32, false);
}

static void layernorm_operands(operands *o, layernorm_args *a)
{
    add_rows(o, &a->x, a->n_rows, a->ldx, a->width, a->type, false);
    add_rows(o, &a->y, a->n_rows, a->ldy, a->width, a->type, true);
    add(o, &a->scale, elements(a->width, DT_F32), false);
    add(o, &a->shift, elements(a->width, DT_F32), false);
}

static void rmsnorm_operands(operands *o, rmsnorm_args *a)
{
    add_rows(o, &a->x, a->n_rows, a->ldx, a->width, a->type, false);
    add_rows(o, &a->y, a->n_rows, a->ldy, a->width, a->type, true);
    add(o, &a->scale, elements(a->width, DT_F32), false);
}

static void qk_norm_rope_operands(operands *o, qk_norm_rope_args *a)
{
    int64_t n_table = 0;
    for (int axis = 0; axis < 3; axis++)
        for (int64_t row = 0; row < a->n_rows; row++) {
            const int64_t end = a->table_at[axis] + ((int64_t)a->pos[row * 3 + axis] + 1) * a->n_pairs[axis] * 2;
            if (end > n_table) n_table = end;
        }
    add_rows(o, &a->x, a->n_rows, a->ld, (int64_t)a->n_heads * a->head_dim, a->type, true);
    add(o, &a->scale, elements(a->head_dim, DT_F32), false);
    add(o, &a->table, elements(n_table, DT_F32), false);
    add(o, &a->pos, elements(3 * (int64_t)a->n_rows, DT_I32), false);
}

static void silu_operands(operands *o, silu_args *a)
{
    add(o, &a->x, elements(a->n, a->type), false);
    add(o, &a->y, elements(a->n, a->type), true);
}

static void add_operands(operands *o, add_args *a)
{
    add(o, &a->a, elements(a->n, a->type), false);
    add(o, &a->b, elements(a->n, a->type), false);
    add(o, &a->y, elements(a->n, a->type), true);
}

static void gated_gelu_operands(operands *o, gated_gelu_args *a)
{
    add(o, &a->a, elements(a->n, a->type), false);
    add(o, &a->b, elements(a->n, a->type), false);
    add(o, &a->y, elements(a->n, a->type), true);
}

static void gather_rows_operands(operands *o, gather_rows_args *a)
{
    int32_t n_table = 0;
    for (int32_t i = 0; i < a->n_rows; i++)
        if (a->ids[i] >= n_table) n_table = a->ids[i] + 1;
    add(o, &a->table, elements((int64_t)n_table * a->width, a->table_type), false);
    add(o, &a->add, elements((int64_t)a->n_rows * a->width, a->add_type), false);
    add(o, &a->ids, elements(a->n_rows, DT_I32), false);
    add(o, &a->y, elements((int64_t)a->n_rows * a->width, a->type), true);
}

static void convert_operands(operands *o, convert_args *a)
{
    add(o, &a->x, elements(a->n, a->x_type), false);
    add(o, &a->y, elements(a->n, a->y_type), true);
}

static void copy_rows_operands(operands *o, copy_rows_args *a)
{
    add_rows(o, &a->x, a->n_rows, a->ldx_bytes, a->row_bytes, DT_U8, false);
    add_rows(o, &a->y, a->n_rows, a->ldy_bytes, a->row_bytes, DT_U8, true);
}

static void euler_operands(operands *o, euler_args *a)
{
    add(o, &a->latents, elements(a->n, DT_F32), true);
    add(o, &a->v, elements(a->n, a->type), false);
}

static void latent_unpack_operands(operands *o, latent_unpack_args *a)
{
    const int64_t n = (int64_t)a->height * a->width * a->channels;
    add(o, &a->packed, elements(n, DT_F32), false);
    add(o, &a->z, elements(n, a->type), true);
}

static void group_sums_operands(operands *o, group_sums_args *a)
{
    add(o, &a->x, elements((int64_t)a->height * a->width * a->channels, a->type), false);
    add(o, &a->sums, elements((int64_t)a->height * a->groups * 2, DT_F64), true);
}

static void group_add_operands(operands *o, group_add_args *a)
{
    add(o, &a->sums, elements((int64_t)a->height * a->groups * 2, DT_F64), false);
    add(o, &a->totals, elements((int64_t)a->groups * 2, DT_F64), true);
}

static void group_finish_operands(operands *o, group_finish_args *a)
{
    add(o, &a->totals, elements((int64_t)a->groups * 2, DT_F64), false);
    add(o, &a->scale, elements(a->channels, DT_F32), false);
    add(o, &a->shift, elements(a->channels, DT_F32), false);
    add(o, &a->mul, elements(a->channels, DT_F32), true);
    add(o, &a->add, elements(a->channels, DT_F32), true);
}

static void conv_operands(operands *o, conv_args *a)
{
    const int64_t shrink = a->upsample ? 2 : 1, row = a->width / shrink * a->c_in;
    add(o, &a->x, elements(a->height / shrink * row, a->type), false);
    add(o, &a->x_above, elements(row, a->type), false);
    add(o, &a->x_below, elements(row, a->type), false);
    add(o, &a->y, elements((int64_t)a->height * a->width * a->c_out, a->y_type), true);
    add(o, &a->residual, elements((int64_t)a->height * a->width * a->c_out, a->y_type), false);
    add(o, &a->norm_mul, elements(a->c_in, DT_F32), false);
    add(o, &a->norm_add, elements(a->c_in, DT_F32), false);
    add(o, &a->w.data, elements((int64_t)a->c_out * a->c_in * a->kernel * a->kernel, a->w.type), false);
    add(o, &a->w.bias, elements(a->c_out, a->w.bias_type), false);
}

static void to_u8_operands(operands *o, to_u8_args *a)
{
    add(o, &a->x, elements(a->n, a->type), false);
    add(o, &a->y, elements(a->n, DT_U8), true);
}

static void *pointer_at(const void *at)
{
    void *p;
    memcpy(&p, at, sizeof(p));
    return p;
}

enum { ALIGNED = 16, HALF = 2 };

/* On the device it lies as on the host relative to ALIGNED bytes, down to whole 16-bit elements: what the device lends is
 * never less aligned than that. */
typedef struct moved {
    void *host, *dev, *block;
} moved;

/* Two pointers of one operation to the same memory stay one: y may be x. */
static status move_in(device_context *c, operands *o, moved m[MAX_OPERANDS])
{
    status st = ST_OK;
    for (int i = 0; i < o->n; i++) {
        m[i].host = pointer_at(o->list[i].at);
        if (m[i].host == NULL) continue;
        for (int j = 0; j < i; j++)
            if (m[j].host == m[i].host) m[i].dev = m[j].dev;
        if (m[i].dev == NULL) {
            const operand *p = &o->list[i];
            TRY(device_alloc(c->dev, extent(p) + ALIGNED, "operand", &m[i].block));
            m[i].dev = (char *)m[i].block + (p->own ? 0 : (uintptr_t)m[i].host % ALIGNED / HALF * HALF);
            for (size_t row = 0; row < p->n_rows; row++)
                TRY(stream_copy_in(c->s, (char *)m[i].dev + row * p->ld_bytes, (char *)m[i].host + row * p->ld_bytes,
                                   p->row_bytes));
        }
        memcpy(o->list[i].at, &m[i].dev, sizeof(void *));
    }
fail:
    return st;
}

static status move_out(device_context *c, const operands *o, const moved m[MAX_OPERANDS])
{
    status st = ST_OK;
    for (int i = 0; i < o->n; i++) {
        const operand *p = &o->list[i];
        for (size_t row = 0; p->out && m[i].host != NULL && row < p->n_rows; row++)
            TRY(stream_copy_out(c->s, (char *)m[i].host + row * p->ld_bytes, (char *)m[i].dev + row * p->ld_bytes,
                                p->row_bytes));
    }
fail:
    return st;
}

static void let_go(device_context *c, const operands *o, const moved m[MAX_OPERANDS])
{
    for (int i = 0; i < o->n; i++) device_free(c->dev, m[i].block);
}

/* Runs `put` on the device in place of the host. */
#define DEFINE_OP(op)                                                                                                  \
    static status op##_moved(kernel_context *ctx, const op##_args *args)                                               \
    {                                                                                                                  \
        status          st = ST_OK;                                                                                    \
        device_context *c = (device_context *)(void *)ctx;                                                             \
        op##_args       a = *args;                                                                                     \
        operands        o = {0};                                                                                       \
        moved           m[MAX_OPERANDS] = {{0}};                                                                       \
        op##_operands(&o, &a);                                                                                         \
        TRY(move_in(c, &o, m));                                                                                        \
        TRY(stream_##op(c->s, &a));                                                                                    \
        TRY(move_out(c, &o, m));                                                                                       \
    fail:                                                                                                              \
        st = stream_settle(c->s, st);                                                                                  \
        let_go(c, &o, m);                                                                                              \
        return st;                                                                                                     \
    }

KERNEL_OPS(DEFINE_OP)

static void context_close(kernel_context *ctx)
{
    device_context *c = (device_context *)(void *)ctx;
    if (c == NULL) return;
    stream_close(c->s);
    device_close(c->dev);
    free(c);
}

static status cuda_context_open(kernel_context **out, int n_threads)
{
    (void)n_threads;
    status          st = ST_OK;
    device_context *c = calloc(1, sizeof(*c));
    if (c == NULL) return err_set(ST_NO_MEMORY, "device context: %zu bytes", sizeof(*c));
    TRY(device_open(&c->dev, &(device_opts){.kind = DEVICE_CUDA, .n_threads = 1}));
    TRY(stream_open(&c->s, c->dev));
    *out = (kernel_context *)(void *)c;
    return ST_OK;
fail:
    context_close((kernel_context *)(void *)c);
    return st;
}

const kernel_table *kernels_cuda(void)
{
    static const kernel_table table = {
        .name = "cuda",
        .open = cuda_context_open,
        .close = context_close,
#define MOVED_ENTRY(op) .op = op##_moved,
        KERNEL_OPS(MOVED_ENTRY)
#undef MOVED_ENTRY
    };
    return &table;
}

bool cuda_is_there(void)
{
    int n = 0;
    if (device_gpu_count(&n) == ST_OK) return true;
    printf("not run: cuda kernels (%s)\n", err_text());
    err_clear();
    return false;
}

bool test_device_is_cuda(void)
{
    const char *wanted = getenv("DYPE_TEST_DEVICE");
    return wanted != NULL && strcmp(wanted, "cuda") == 0;
}
