/* Streams do their work in order, events order two streams, failures are told once, and the strict device shows what a
 * missing wait or a stale pointer would do elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "device.h"
#include "device_kernels.h"
#include "residency.h"
#include "self_check.h"

/* With DYPE_TEST_DEVICE=cuda the GPU alone. */
static device_kind kinds[] = {DEVICE_CPU, DEVICE_STRICT, DEVICE_PLAIN};
static int         n_kinds = 3;

static device *open_device(device_kind kind)
{
    device     *dev = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    opts.kind = kind;
    if (device_open(&dev, &opts) != ST_OK) fail_msg("%s", err_text());
    return dev;
}

static stream *open_stream(device *dev)
{
    stream *s = NULL;
    assert_int_equal(stream_open(&s, dev), ST_OK);
    return s;
}

typedef struct append_work {
    int *list, *n;
    int  value, wait_us;
} append_work;

static status append(void *args)
{
    append_work *work = args;
    if (work->wait_us > 0) usleep((useconds_t)work->wait_us);
    work->list[(*work->n)++] = work->value;
    return ST_OK;
}

static status fail_call(void *args)
{
    (void)args;
    return err_set(ST_DEVICE, "the %s failed", "call");
}

static void work_is_done_in_order_also_past_the_ring(void **state)
{
    (void)state;
    enum { MANY = 2000 };
    static int list[MANY];
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *s = open_stream(dev);
        int     n = 0;
        for (int i = 0; i < MANY; i++) {
            append_work work = {list, &n, i, i == 3 ? 2000 : 0};
            assert_int_equal(stream_call(s, append, &work, sizeof(work)), ST_OK);
        }
        assert_int_equal(stream_sync(s), ST_OK);
        assert_int_equal(n, MANY);
        for (int i = 0; i < MANY; i++) assert_int_equal(list[i], i);
        stream_close(s);
        device_close(dev);
    }
}

/* b waits for the record that was the last when the wait was put; a later record of the same event does not move it. */
static void events_order_two_streams(void **state)
{
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *a = open_stream(dev), *b = open_stream(dev);
        event  *e = NULL;
        int     list[4], n = 0;
        assert_int_equal(event_open(&e, dev), ST_OK);
        assert_int_equal(stream_wait(b, e), ST_OK); /* never recorded: no wait */
        append_work first = {list, &n, 1, 20000}, second = {list, &n, 2, 0};
        assert_int_equal(stream_call(a, append, &first, sizeof(first)), ST_OK);
        assert_int_equal(event_record(e, a), ST_OK);
        assert_int_equal(stream_wait(b, e), ST_OK);
        assert_int_equal(stream_call(b, append, &second, sizeof(second)), ST_OK);
        assert_int_equal(event_record(e, a), ST_OK);
        assert_int_equal(stream_sync(b), ST_OK);
        assert_int_equal(n, 2);
        assert_int_equal(list[0], 1);
        assert_int_equal(list[1], 2);
        assert_int_equal(stream_sync(a), ST_OK);
        stream_close(a);
        stream_close(b);
        event_close(e);
        device_close(dev);
    }
}

/* An event that is recorded again on another stream, which gets there first: the wait put before keeps to the first. */
static void a_wait_keeps_to_the_stream_it_was_put_for(void **state)
{
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *a = open_stream(dev), *b = open_stream(dev), *other = open_stream(dev);
        event  *e = NULL;
        int     list[2], n = 0;
        assert_int_equal(event_open(&e, dev), ST_OK);
        append_work first = {list, &n, 1, 50000}, second = {list, &n, 2, 0};
        assert_int_equal(stream_call(a, append, &first, sizeof(first)), ST_OK);
        assert_int_equal(event_record(e, a), ST_OK);
        assert_int_equal(stream_wait(b, e), ST_OK);
        assert_int_equal(stream_call(b, append, &second, sizeof(second)), ST_OK);
        assert_int_equal(event_record(e, other), ST_OK);
        assert_int_equal(stream_sync(b), ST_OK);
        assert_int_equal(n, 2);
        assert_int_equal(list[0], 1);
        assert_int_equal(list[1], 2);
        assert_int_equal(stream_sync(a), ST_OK);
        stream_close(a);
        stream_close(b);
        stream_close(other);
        event_close(e);
        device_close(dev);
    }
}

/* Neither the event nor the stream that was waited for need outlive the wait's being put. */
static void a_wait_outlives_its_event_and_stream(void **state)
{
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *a = open_stream(dev), *b = open_stream(dev);
        event  *e = NULL, *idle = NULL;
        int     list[3], n = 0;
        assert_int_equal(event_open(&e, dev), ST_OK);
        assert_int_equal(event_open(&idle, dev), ST_OK);
        append_work before = {list, &n, 0, 20000}, first = {list, &n, 1, 0}, second = {list, &n, 2, 0};
        assert_int_equal(stream_call(a, append, &before, sizeof(before)), ST_OK);
        assert_int_equal(event_record(e, a), ST_OK);
        assert_int_equal(event_record(idle, a), ST_OK);
        assert_int_equal(stream_wait(b, e), ST_OK);
        assert_int_equal(stream_call(b, append, &first, sizeof(first)), ST_OK);
        event_close(e);
        stream_close(a);
        assert_int_equal(stream_wait(b, idle), ST_OK); /* reached long ago: its stream is closed */
        assert_int_equal(stream_call(b, append, &second, sizeof(second)), ST_OK);
        assert_int_equal(stream_sync(b), ST_OK);
        assert_int_equal(n, 3);
        for (int i = 0; i < 3; i++) assert_int_equal(list[i], i);
        stream_close(b);
        event_close(idle);
        device_close(dev);
    }
}

static void a_failure_is_told_once_and_host_calls_go_on(void **state)
{
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *s = open_stream(dev);
        float   value = 1.0f, *mine = NULL;
        int     list[1], n = 0;
        append_work work = {list, &n, 7, 0};
        assert_int_equal(device_alloc(dev, sizeof(float), "a number", (void **)&mine), ST_OK);
        assert_int_equal(stream_copy_in(s, mine, &value, sizeof(value)), ST_OK);
        assert_int_equal(stream_sync(s), ST_OK);
        assert_int_equal(stream_call(s, fail_call, NULL, 0), ST_OK);
        assert_int_equal(stream_add(s, &(add_args){.a = mine, .b = mine, .y = mine, .n = 1, .type = DT_F32}), ST_OK);
        assert_int_equal(stream_call(s, append, &work, sizeof(work)), ST_OK);
        assert_int_equal(stream_sync(s), ST_DEVICE);
        assert_string_equal(err_text(), "the call failed");
        assert_int_equal(n, 1); /* another rank may wait for what a host call sends */
        assert_int_equal(stream_copy_out(s, &value, mine, sizeof(value)), ST_OK);
        assert_int_equal(stream_sync(s), ST_OK);
        /* The operation after the failure was left out; a GPU may have had it before the call failed. */
        assert_true(value == 1.0f || (kinds[k] == DEVICE_CUDA && value == 2.0f));
        device_free(dev, mine);
        stream_close(s);
        device_close(dev);
    }
}

/* A function that ends with a failure of its own waits for its work all the same, and its message stays the first one. */
static void settling_waits_and_keeps_the_first_cause(void **state)
{
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        stream *s = open_stream(dev);
        int     list[1], n = 0;
        append_work work = {list, &n, 1, 5000};
        assert_int_equal(stream_call(s, fail_call, NULL, 0), ST_OK);
        assert_int_equal(stream_call(s, append, &work, sizeof(work)), ST_OK);
        assert_int_equal(stream_settle(s, err_set(ST_BAD_MODEL, "the first cause")), ST_BAD_MODEL);
        assert_string_equal(err_text(), "the first cause");
        assert_int_equal(n, 1);
        assert_int_equal(stream_settle(s, ST_OK), ST_OK); /* the failure has been taken */
        stream_close(s);
        device_close(dev);
    }
}

static void memory_has_a_limit_and_a_peak(void **state)
{
    (void)state;
    device     *dev = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    void       *a = NULL, *b = NULL;
    opts.kind = kinds[0];
    opts.limit_bytes = 1000;
    assert_int_equal(device_open(&dev, &opts), ST_OK);
    assert_int_equal(device_alloc(dev, 600, "first", &a), ST_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal(device_alloc(dev, 401, "second", &b), ST_NO_MEMORY);
    assert_non_null(strstr(err_text(), "second: 401 bytes refused, 600 of at most 1000"));
    device_free(dev, a);
    assert_int_equal(device_alloc(dev, 1000, "third", &b), ST_OK);
    device_free(dev, b);
    assert_int_equal(device_peak_bytes(dev), 1000);
    assert_int_equal(device_alloc(dev, SIZE_MAX - 8, "all", &a), ST_NO_MEMORY);
    device_close(dev);
}

static void strict_memory_starts_as_nan(void **state)
{
    (void)state;
    device *dev = open_device(DEVICE_STRICT);
    float  *x = NULL;
    assert_int_equal(device_alloc(dev, 3 * sizeof(float), "numbers", (void **)&x), ST_OK);
    for (int i = 0; i < 3; i++) assert_true(isnan(x[i]));
    device_free(dev, x);
    device_close(dev);
}

/* Host memory that changes before the sync: strict always reads the late value, so the missing wait is seen. */
static void strict_shows_a_missing_wait(void **state)
{
    (void)state;
    device *dev = open_device(DEVICE_STRICT);
    stream *s = open_stream(dev);
    float   host = 1.0f, back = 0.0f, *x = NULL;
    assert_int_equal(device_alloc(dev, sizeof(float), "a number", (void **)&x), ST_OK);
    assert_int_equal(stream_copy_in(s, x, &host, sizeof(host)), ST_OK);
    host = 2.0f; /* a sync is missing here */
    assert_int_equal(stream_copy_out(s, &back, x, sizeof(back)), ST_OK);
    assert_true(back == 0.0f); /* nothing is done before somebody waits */
    assert_int_equal(stream_sync(s), ST_OK);
    assert_true(back == 2.0f);
    device_free(dev, x);
    stream_close(s);
    device_close(dev);
}

/* Lent weights are a copy on the strict device, good for work put before their return; elsewhere the same memory. */
static void lent_memory_serves_the_work_before_its_return(void **state)
{
    (void)state;
    const float weights[2] = {3.0f, 4.0f};
    for (int k = 0; k < n_kinds; k++) {
        device     *dev = open_device(kinds[k]);
        stream     *s = open_stream(dev);
        const void *lent = NULL;
        float      *x = NULL, back[2] = {0};
        assert_int_equal(device_alloc(dev, sizeof(weights), "numbers", (void **)&x), ST_OK);
        size_t before = device_peak_bytes(dev);
        assert_int_equal(stream_lend(s, weights, sizeof(weights), &lent), ST_OK);
        if (kinds[k] == DEVICE_STRICT) {
            assert_ptr_not_equal(lent, weights);
            assert_true(isnan(((const float *)lent)[0])); /* not yet copied: nobody waited */
            assert_int_equal(device_peak_bytes(dev), before + sizeof(weights));
        } else if (kinds[k] != DEVICE_CUDA) {
            assert_ptr_equal(lent, weights);
        }
        assert_int_equal(stream_add(s, &(add_args){.a = lent, .b = lent, .y = x, .n = 2, .type = DT_F32}), ST_OK);
        assert_int_equal(stream_return(s, lent), ST_OK);
        assert_int_equal(stream_copy_out(s, back, x, sizeof(back)), ST_OK);
        assert_int_equal(stream_sync(s), ST_OK);
        assert_true(back[0] == 6.0f && back[1] == 8.0f);
        device_free(dev, x);
        stream_close(s);
        device_close(dev);
    }
}

/* An operation put after the return computes with NaN, not with what was lent before or is lent next. */
static void strict_shows_a_stale_pointer(void **state)
{
    (void)state;
    device     *dev = open_device(DEVICE_STRICT);
    stream     *s = open_stream(dev);
    const float weights[2] = {3.0f, 4.0f}, others[2] = {5.0f, 6.0f};
    const void *lent = NULL, *next = NULL;
    float      *x = NULL, back[2] = {0};
    assert_int_equal(device_alloc(dev, sizeof(weights), "numbers", (void **)&x), ST_OK);
    assert_int_equal(stream_lend(s, weights, sizeof(weights), &lent), ST_OK);
    assert_int_equal(stream_return(s, lent), ST_OK);
    assert_int_equal(stream_sync(s), ST_OK);
    assert_int_equal(stream_lend(s, others, sizeof(others), &next), ST_OK);
    assert_int_equal(stream_add(s, &(add_args){.a = lent, .b = lent, .y = x, .n = 2, .type = DT_F32}), ST_OK);
    assert_int_equal(stream_return(s, next), ST_OK);
    assert_int_equal(stream_copy_out(s, back, x, sizeof(back)), ST_OK);
    assert_int_equal(stream_sync(s), ST_OK);
    assert_true(isnan(back[0]) && isnan(back[1]));
    device_free(dev, x);
    stream_close(s);
    device_close(dev);
}

/* A thousand blocks of 1 MiB, one after another, keep neither the count of bytes nor the process growing. */
static void lent_memory_is_let_go(void **state)
{
    (void)state;
    enum { BLOCK_BYTES = 1 << 20 };
    device     *dev = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    void       *weights = calloc(1, BLOCK_BYTES);
    opts.kind = DEVICE_STRICT;
    opts.limit_bytes = 2 * BLOCK_BYTES;
    assert_non_null(weights);
    assert_int_equal(device_open(&dev, &opts), ST_OK);
    stream *s = open_stream(dev);
    for (int i = 0; i < 1000; i++) {
        const void *lent = NULL;
        assert_int_equal(stream_lend(s, weights, BLOCK_BYTES, &lent), ST_OK);
        assert_int_equal(stream_return(s, lent), ST_OK);
        assert_int_equal(stream_sync(s), ST_OK);
    }
    assert_int_equal(device_peak_bytes(dev), BLOCK_BYTES);
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss < 600 * 1024); /* KiB; all of them would be a GiB, and sanitizers keep freed memory too */
    stream_close(s);
    device_close(dev);
    free(weights);
}

static void operations_are_counted(void **state)
{
    (void)state;
    device *dev = open_device(DEVICE_PLAIN);
    stream *s = open_stream(dev);
    float   x[6] = {1, 2, 3, 4, 5, 6}, w[3] = {1, 1, 1}, y[2];
    /* 2 rows x 3 inputs x 1 output, a multiply-add counted as two */
    assert_int_equal(stream_linear(s, &(linear_args){.x = x, .y = y, .w = {.data = w, .type = DT_F32}, .ldx = 3, .ldy = 1,
                                                     .n_rows = 2, .n_in = 3, .n_out = 1}), ST_OK);
    assert_int_equal(stream_sync(s), ST_OK);
    assert_true(y[0] == 6.0f && y[1] == 15.0f);
    assert_int_equal(device_count(dev).n_calls, 1);
    assert_true(device_count(dev).flops == 12.0);
    stream_close(s);
    device_close(dev);
}

static void the_self_check_finds_rows_equal(void **state)
{
    (void)state;
    static const dtype types[] = {DT_F32, DT_BF16};
    for (int k = 0; k < n_kinds; k++) {
        device *dev = open_device(kinds[k]);
        for (int t = 0; t < 2; t++) {
            bool same = false;
            assert_int_equal(self_check_rows(dev, types[t], &same), ST_OK);
            assert_true(same);
        }
        device_close(dev);
    }
}

/* Sum of a lent block of floats, which must be what the host has there. */
static const void *lend_and_check(stream *s, float *scratch, const float *host, int n)
{
    const void *lent = NULL;
    float       back[2];
    assert_int_equal(stream_lend(s, host, (size_t)n * sizeof(float), &lent), ST_OK);
    assert_int_equal(stream_add(s, &(add_args){.a = lent, .b = lent, .y = scratch, .n = n, .type = DT_F32}), ST_OK);
    assert_int_equal(stream_return(s, lent), ST_OK);
    assert_int_equal(stream_copy_out(s, &back[0], scratch, sizeof(float)), ST_OK);
    assert_int_equal(stream_copy_out(s, &back[1], scratch + n - 1, sizeof(float)), ST_OK);
    if (stream_sync(s) != ST_OK) fail_msg("%s", err_text());
    assert_true(back[0] == 2.0f * host[0] && back[1] == 2.0f * host[n - 1]);
    return lent;
}

/* Six weights walked again and again on a card with room for a buffer and four: two of them stay where they are, the rest passes
 * through a ring of two, and only they are copied again (residency.h: a sixteenth of the card is kept free); what is
 * forgotten is read anew; what is lent stays, whether it passes through or not. */
static void weights_stay_on_the_card_while_there_is_room(void **state)
{
    (void)state;
    enum { N = 3 << 20, N_WEIGHTS = 6, ROUNDS = 3 }; /* 12 MiB each: three pieces of a stage */
    device     *dev = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    float      *weights = malloc((size_t)N * N_WEIGHTS * sizeof(float)), *scratch = NULL;
    const void *at[ROUNDS][N_WEIGHTS];
    assert_non_null(weights);
    for (int i = 0; i < N * N_WEIGHTS; i++) weights[i] = (float)(i % 100003);
    opts.kind = DEVICE_CUDA;
    opts.limit_bytes = (size_t)N * sizeof(float) * 11 / 2;
    assert_int_equal(device_open(&dev, &opts), ST_OK);
    stream *s = open_stream(dev);
    assert_int_equal(device_alloc(dev, N * sizeof(float), "scratch", (void **)&scratch), ST_OK);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < N_WEIGHTS; i++) at[round][i] = lend_and_check(s, scratch, weights + (size_t)i * N, N);
    int n_resident = 0;
    for (int i = 0; i < N_WEIGHTS; i++) {
        bool alone = at[1][i] == at[2][i];
        for (int j = 0; j < N_WEIGHTS; j++) alone = alone && (j == i || at[2][j] != at[2][i]);
        n_resident += alone;
    }
    assert_int_equal(n_resident, 2);
    const residency r = residency_of((int64_t)N * sizeof(float) * N_WEIGHTS,
                                     (int64_t)(opts.limit_bytes - opts.limit_bytes / 16 - N * sizeof(float)),
                                     (int64_t)N * sizeof(float) * 2);
    assert_int_equal((r.streamed + N * (int64_t)sizeof(float) - 1) / (N * (int64_t)sizeof(float)), 4); /* whole weights */
    const int64_t loaded = device_count(dev).weight_bytes;
    assert_int_equal(loaded, (6 + 2 * 4) * (int64_t)N * (int64_t)sizeof(float));
    assert_true(device_peak_bytes(dev) <= opts.limit_bytes);

    for (int i = 0; i < N_WEIGHTS; i++) weights[(size_t)i * N] = 7.0f + (float)i; /* other files at the same addresses */
    device_forget(dev);
    for (int i = 0; i < N_WEIGHTS; i++) (void)lend_and_check(s, scratch, weights + (size_t)i * N, N);

    void       *arena = NULL; /* pushes out what is not lent, and nothing else */
    const void *lent[2] = {NULL};
    float       back[2] = {0};
    for (size_t i = 0; i < 2; i++) /* one that passes through, one that stayed */
        assert_int_equal(stream_lend(s, weights + (2 * i + 1) * N, N * sizeof(float), &lent[i]), ST_OK);
    assert_int_equal(device_alloc(dev, 4 * (size_t)N * sizeof(float), "arena", &arena), ST_NO_MEMORY);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(stream_add(s, &(add_args){.a = lent[i], .b = lent[i], .y = scratch, .n = N, .type = DT_F32}), ST_OK);
        assert_int_equal(stream_copy_out(s, &back[i], scratch, sizeof(float)), ST_OK);
        assert_int_equal(stream_return(s, lent[i]), ST_OK);
    }
    if (stream_sync(s) != ST_OK) fail_msg("%s", err_text());
    assert_true(back[0] == 2.0f * weights[N] && back[1] == 2.0f * weights[3 * N]);
    assert_int_equal(device_alloc(dev, 4 * (size_t)N * sizeof(float), "arena", &arena), ST_OK);
    assert_int_equal(stream_return(s, scratch), ST_DEVICE);
    assert_non_null(strstr(err_text(), "not lent"));
    device_free(dev, arena);
    (void)lend_and_check(s, scratch, weights, N);
    device_free(dev, scratch);
    stream_close(s);
    device_close(dev);
    free(weights);
}

typedef struct gate {
    _Atomic bool reached, open;
} gate;

static status hold(void *args)
{
    gate *g = *(gate **)args;
    g->reached = true;
    for (int i = 0; i < 20000 && !g->open; i++) usleep(1000);
    return g->open ? ST_OK : err_set(ST_FAILED, "nobody has opened in 20 s");
}

static void *open_gate(void *args)
{
    gate *g = args;
    usleep(300000);
    g->open = true;
    return NULL;
}

/* The sum of a lent weight with itself, on its way to the host. */
static void put_sum(stream *s, float *scratch, const float *host, int n, float *back)
{
    const void *lent = NULL;
    assert_int_equal(stream_lend(s, host, (size_t)n * sizeof(float), &lent), ST_OK);
    assert_int_equal(stream_add(s, &(add_args){.a = lent, .b = lent, .y = scratch, .n = n, .type = DT_F32}), ST_OK);
    assert_int_equal(stream_return(s, lent), ST_OK);
    assert_int_equal(stream_copy_out(s, back, scratch + n - 1, sizeof(float)), ST_OK);
}

/* A card that holds none of eight weights beside its arena, only a ring of four. While the compute stream stands at a gate,
 * this thread puts the work of all weights without waiting for it, twice what the ring holds; and the uploads of the first four
 * are done before the gate opens: another stream, whose weight is uploaded after those of the first three, gets it. The others
 * wait for the work on those whose place they take, also when somebody asks for one that comes behind them. */
static void weights_that_pass_are_uploaded_ahead_of_the_work(void **state)
{
    (void)state;
    enum { N = 1 << 18, N_WEIGHTS = 8, MIB = 1 << 20 };
    device     *dev = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    float      *weights = malloc((size_t)N * N_WEIGHTS * sizeof(float)), *scratch = NULL, *other = NULL;
    float       back[N_WEIGHTS] = {0}, seen = 0;
    void       *arena = NULL;
    gate        g = {0}, *at = &g;
    pthread_t   opener;
    assert_non_null(weights);
    for (int i = 0; i < N * N_WEIGHTS; i++) weights[i] = (float)(i % 100003);
    opts.kind = DEVICE_CUDA;
    opts.limit_bytes = 32 * MIB; /* 2 are kept free, an eighth is the ring */
    assert_int_equal(device_open(&dev, &opts), ST_OK);
    stream *s = open_stream(dev), *t = open_stream(dev);
    assert_int_equal(device_alloc(dev, N * sizeof(float), "scratch", (void **)&scratch), ST_OK);
    assert_int_equal(device_alloc(dev, N * sizeof(float), "scratch", (void **)&other), ST_OK);
    assert_int_equal(device_alloc(dev, 23 * MIB + MIB / 2, "arena", &arena), ST_OK);
    for (int round = 0; round < 2; round++) /* the second time they get their pinned copies */
        for (int i = 0; i < N_WEIGHTS; i++) (void)lend_and_check(s, scratch, weights + (size_t)i * N, N);
    assert_int_equal(device_count(dev).weight_bytes, 2 * N_WEIGHTS * (int64_t)MIB);

    assert_int_equal(stream_call(s, hold, &at, sizeof(at)), ST_OK);
    for (int i = 0; i < 5000 && !g.reached; i++) usleep(1000);
    for (int i = 0; i < 3; i++) put_sum(s, scratch, weights + (size_t)i * N, N, &back[i]);
    put_sum(t, other, weights + (size_t)3 * N, N, &seen);
    assert_int_equal(stream_sync(t), ST_OK);
    assert_true(seen == 2.0f * weights[4 * N - 1] && back[0] == 0.0f);
    for (int i = 4; i < N_WEIGHTS; i++) put_sum(s, scratch, weights + (size_t)i * N, N, &back[i]);
    assert_true(back[0] == 0.0f); /* nothing of all that was computed meanwhile */
    put_sum(t, other, weights, N, &seen);
    assert_int_equal(pthread_create(&opener, NULL, open_gate, &g), 0);
    if (stream_sync(t) != ST_OK || stream_sync(s) != ST_OK) fail_msg("%s", err_text());
    pthread_join(opener, NULL);
    assert_true(seen == 2.0f * weights[N - 1]);
    for (int i = 0; i < N_WEIGHTS; i++)
        if (i != 3) assert_true(back[i] == 2.0f * weights[(i + 1) * N - 1]);
    assert_int_equal(device_count(dev).weight_bytes, (3 * N_WEIGHTS + 1) * (int64_t)MIB);
    device_free(dev, arena);
    device_free(dev, other);
    device_free(dev, scratch);
    stream_close(t);
    stream_close(s);
    device_close(dev);
    free(weights);
}

/* Weights of many sizes through a ring of 4 MiB, with nobody waiting: through the stages when they come for the first time, from
 * their pinned copies the second. An upload takes the place of several, and starts again at the ring's end with some behind it,
 * but never overwrites what work put before still reads: of each weight the first elements count, which are uploaded first.
 * What is lent keeps its place, from other weights and from an arena; what is returned does not. */
static void weights_of_all_sizes_pass_through_under_the_work_before(void **state)
{
    (void)state;
    enum { KIB = 1 << 10, MIB = 1 << 20, N_WEIGHTS = 27, N_SIZES = 9, ROUNDS = 2, PART = 1024, LARGEST = 6 };
    static const int kib[N_SIZES] = {700, 300, 1300, 200, 1000, 450, 1500, 250, 900};
    static float     back[ROUNDS * N_WEIGHTS][PART];
    device          *dev = NULL;
    device_opts      opts = DEVICE_OPTS_INIT;
    const float     *weights[N_WEIGHTS];
    const void      *lent[3] = {NULL};
    float           *all = malloc(N_WEIGHTS / N_SIZES * 6600 * KIB), *sums = NULL;
    void            *arena = NULL, *more = NULL;
    size_t           n = 0;
    assert_non_null(all);
    for (int i = 0; i < N_WEIGHTS; n += (size_t)kib[i++ % N_SIZES] * KIB / sizeof(float)) weights[i] = all + n;
    assert_int_equal(n * sizeof(float), N_WEIGHTS / N_SIZES * 6600 * KIB);
    for (size_t i = 0; i < n; i++) all[i] = (float)(i % 100003);
    opts.kind = DEVICE_CUDA;
    opts.limit_bytes = 32 * MIB; /* 2 are kept free, an eighth is the ring; too little is left for the smallest weight */
    assert_int_equal(device_open(&dev, &opts), ST_OK);
    stream *s = open_stream(dev);
    assert_int_equal(device_alloc(dev, sizeof(back), "sums", (void **)&sums), ST_OK);
    assert_int_equal(device_alloc(dev, 26 * MIB - sizeof(back) - 50 * KIB, "arena", &arena), ST_OK);
    for (int i = 0; i < ROUNDS * N_WEIGHTS; i++) {
        const size_t bytes = (size_t)kib[i % N_SIZES] * KIB;
        assert_int_equal(stream_lend(s, weights[i % N_WEIGHTS], bytes, &lent[0]), ST_OK);
        assert_int_equal(stream_add(s, &(add_args){.a = lent[0], .b = lent[0], .y = sums + i * PART, .n = PART, .type = DT_F32}), ST_OK);
        assert_int_equal(stream_return(s, lent[0]), ST_OK);
    }
    assert_int_equal(stream_copy_out(s, back, sums, sizeof(back)), ST_OK);
    if (stream_sync(s) != ST_OK) fail_msg("%s", err_text());
    for (int i = 0; i < ROUNDS * N_WEIGHTS; i++)
        for (int j = 0; j < PART; j++) assert_true(back[i][j] == 2.0f * weights[i % N_WEIGHTS][j]);
    assert_int_equal(device_count(dev).weight_bytes, ROUNDS * N_WEIGHTS / N_SIZES * 6600 * KIB);

    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_lend(s, weights[LARGEST + i * N_SIZES], (size_t)kib[LARGEST] * KIB, &lent[i]), ST_OK);
    assert_int_equal(stream_lend(s, weights[LARGEST + 2 * N_SIZES], (size_t)kib[LARGEST] * KIB, &lent[2]), ST_NO_MEMORY);
    assert_non_null(strstr(err_text(), "all of it lent"));
    assert_int_equal(device_alloc(dev, 4 * MIB, "arena", &more), ST_NO_MEMORY);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stream_add(s, &(add_args){.a = lent[i], .b = lent[i], .y = sums + i * PART, .n = PART, .type = DT_F32}), ST_OK);
        assert_int_equal(stream_return(s, lent[i]), ST_OK);
    }
    assert_int_equal(stream_copy_out(s, back, sums, 2 * sizeof(back[0])), ST_OK);
    if (stream_sync(s) != ST_OK) fail_msg("%s", err_text());
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < PART; j++) assert_true(back[i][j] == 2.0f * weights[LARGEST + i * N_SIZES][j]);
    assert_int_equal(device_alloc(dev, 4 * MIB, "arena", &more), ST_OK);
    device_free(dev, more);
    device_free(dev, arena);
    device_free(dev, sums);
    stream_close(s);
    device_close(dev);
    free(all);
}

/* What was dropped is copied again when it is lent, and nothing else. */
static void what_is_dropped_leaves_the_card(void **state)
{
    (void)state;
    enum { N = 1000 };
    device *dev = open_device(DEVICE_CUDA);
    stream *s = open_stream(dev);
    float   weights[2][N], *scratch = NULL;
    for (int i = 0; i < 2 * N; i++) weights[i / N][i % N] = (float)i;
    assert_int_equal(device_alloc(dev, sizeof(weights[0]), "scratch", (void **)&scratch), ST_OK);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2; i++) (void)lend_and_check(s, scratch, weights[i], N);
    assert_int_equal(device_count(dev).weight_bytes, sizeof(weights));
    device_drop(dev, weights[1], sizeof(weights[1]));
    device_drop(dev, weights[1], 7); /* never lent */
    for (int i = 0; i < 2; i++) (void)lend_and_check(s, scratch, weights[i], N);
    assert_int_equal(device_count(dev).weight_bytes, sizeof(weights) + sizeof(weights[1]));
    device_free(dev, scratch);
    stream_close(s);
    device_close(dev);
}

/* Copies longer than a stage, in both directions, between two streams that only an event orders. */
static void long_copies_keep_the_order(void **state)
{
    (void)state;
    enum { N = 5 << 20 }; /* bytes: two pieces */
    for (int k = 0; k < n_kinds; k++) {
        device  *dev = open_device(kinds[k]);
        stream  *a = open_stream(dev), *b = open_stream(dev);
        event   *e = NULL;
        uint8_t *from = malloc(N), *to = calloc(1, N);
        void    *x = NULL, *y = NULL;
        assert_true(from != NULL && to != NULL);
        for (int i = 0; i < N; i++) from[i] = (uint8_t)(i * 31 + i / 4099);
        assert_int_equal(event_open(&e, dev), ST_OK);
        assert_int_equal(device_alloc(dev, N, "bytes", &x), ST_OK);
        assert_int_equal(device_alloc(dev, N, "bytes", &y), ST_OK);
        assert_int_equal(stream_copy_in(a, x, from, N), ST_OK);
        assert_int_equal(event_record(e, a), ST_OK);
        assert_int_equal(stream_wait(b, e), ST_OK);
        assert_int_equal(stream_copy(b, y, x, N), ST_OK);
        assert_int_equal(stream_copy_out(b, to, y, N), ST_OK);
        assert_int_equal(stream_sync(b), ST_OK);
        assert_memory_equal(from, to, N);
        assert_true(stream_waited_s(b) >= 0.0);
        assert_int_equal(stream_sync(a), ST_OK);
        device_free(dev, x);
        device_free(dev, y);
        event_close(e);
        stream_close(a);
        stream_close(b);
        device_close(dev);
        free(from);
        free(to);
    }
}

static void a_gpu_has_a_name_and_an_identity(void **state)
{
    (void)state;
    int         n = 0;
    char        id[DEVICE_GPU_ID];
    device     *dev = NULL;
    device_opts opts = {.kind = DEVICE_CUDA, .ordinal = 99};
    assert_int_equal(device_gpu_count(&n), ST_OK);
    assert_true(n >= 1);
    assert_int_equal(device_gpu_id(0, id), ST_OK);
    assert_non_null(strchr(id, ':'));
    assert_int_equal(device_open(&dev, &opts), ST_DEVICE);
    assert_non_null(strstr(err_text(), "GPU 99 wanted"));
    dev = open_device(DEVICE_CUDA);
    assert_non_null(strstr(device_name(dev), "cuda ("));
    device_close(dev);
}

static int run_on_gpu(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_in_order_also_past_the_ring),
        cmocka_unit_test(events_order_two_streams),
        cmocka_unit_test(a_wait_keeps_to_the_stream_it_was_put_for),
        cmocka_unit_test(a_wait_outlives_its_event_and_stream),
        cmocka_unit_test(a_failure_is_told_once_and_host_calls_go_on),
        cmocka_unit_test(settling_waits_and_keeps_the_first_cause),
        cmocka_unit_test(memory_has_a_limit_and_a_peak),
        cmocka_unit_test(lent_memory_serves_the_work_before_its_return),
        cmocka_unit_test(long_copies_keep_the_order),
        cmocka_unit_test(weights_stay_on_the_card_while_there_is_room),
        cmocka_unit_test(weights_that_pass_are_uploaded_ahead_of_the_work),
        cmocka_unit_test(what_is_dropped_leaves_the_card),
        cmocka_unit_test(weights_of_all_sizes_pass_through_under_the_work_before),
        cmocka_unit_test(a_gpu_has_a_name_and_an_identity),
        cmocka_unit_test(the_self_check_finds_rows_equal),
    };
    kinds[0] = DEVICE_CUDA;
    n_kinds = 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_in_order_also_past_the_ring),
        cmocka_unit_test(events_order_two_streams),
        cmocka_unit_test(a_wait_keeps_to_the_stream_it_was_put_for),
        cmocka_unit_test(a_wait_outlives_its_event_and_stream),
        cmocka_unit_test(a_failure_is_told_once_and_host_calls_go_on),
        cmocka_unit_test(settling_waits_and_keeps_the_first_cause),
        cmocka_unit_test(memory_has_a_limit_and_a_peak),
        cmocka_unit_test(strict_memory_starts_as_nan),
        cmocka_unit_test(strict_shows_a_missing_wait),
        cmocka_unit_test(lent_memory_serves_the_work_before_its_return),
        cmocka_unit_test(strict_shows_a_stale_pointer),
        cmocka_unit_test(lent_memory_is_let_go),
        cmocka_unit_test(long_copies_keep_the_order),
        cmocka_unit_test(operations_are_counted),
        cmocka_unit_test(the_self_check_finds_rows_equal),
    };
    if (test_device_is_cuda()) return cuda_is_there() ? run_on_gpu() : 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
