/* Programs that run on the virtual GPU through nvcc's own host code: each with a fault, or corrected. unit_vgpu_host.c
 * starts them (cases NAME bad|good) and looks at what they say and how they end. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vgpu.h"

#define N 1000

__constant__ float scale[4] = {1, 2, 3, 4};
__device__ int counter;

__global__ void add_kernel(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

__global__ void fill_kernel(float *a, float v, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) a[i] = v;
}

__global__ void __launch_bounds__(128) sum_kernel(const float *a, float *sum, int n)
{
    __shared__ float part[4];
    float s = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        s += a[i];
    for (int o = 16; o; o >>= 1)
        s += __shfl_xor_sync(~0u, s, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x == 0) *sum = part[0] + part[1] + part[2] + part[3];
}

__global__ void dynamic_kernel(float *a)
{
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = a[threadIdx.x];
    __syncthreads();
    a[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}

__noinline__ __device__ float helper(float a, int b)
{
    return b == 3 ? -1.0f : a * (float)b + scale[b & 3];
}

__global__ void arithmetic_kernel(float *x, int n)
{
    int i = threadIdx.x;
    if (i >= n) return;
    atomicAdd(&counter, 1);
    if (i == 2) printf("thread %d of %s: %.3f\n", i, "printf", x[i]);
    x[i] = helper(x[i], i) + sinf(x[i] * 1e5f);
}

__global__ void assert_kernel(int v)
{
    assert(v == 7);
}

static int bad;

static void check(cudaError_t got, cudaError_t want, const char *what)
{
    if (got == want) return;
    printf("%s: got %s, want %s\n", what, cudaGetErrorName(got), cudaGetErrorName(want));
    exit(1);
}

#define CHECK(call) check(call, cudaSuccess, #call)
#define WANT(error, call) check(call, error, #call)

static void expect(float got, float want, const char *what)
{
    if (got == want) return;
    printf("wrong value: %s: got %g, want %g\n", what, (double)got, (double)want);
    exit(1);
}

static float *ones(int n, float v)
{
    float *d, *h = (float *)malloc(sizeof(float) * (size_t)n);
    for (int i = 0; i < n; i++)
        h[i] = v;
    CHECK(cudaMalloc(&d, sizeof(float) * (size_t)n));
    CHECK(cudaMemcpy(d, h, sizeof(float) * (size_t)n, cudaMemcpyHostToDevice));
    free(h);
    return d;
}

static void fill(float *a, float v, cudaStream_t s)
{
    fill_kernel<<<(N + 127) / 128, 128, 0, s>>>(a, v, N);
}

/* ---- things that simply work ---- */

static void vectors(void)
{
    float *a = ones(N, 1), *b = ones(N, 2), *c, *sum, h[N];
    CHECK(cudaMalloc(&c, sizeof h));
    CHECK(cudaMalloc(&sum, sizeof(float)));
    add_kernel<<<(N + 255) / 256, 256>>>(a, b, c, bad ? N + 1 : N);
    sum_kernel<<<1, 128>>>(c, sum, N);
    CHECK(cudaMemcpy(h, c, sizeof h, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++)
        expect(h[i], 3, "sum of vectors");
    CHECK(cudaMemcpy(h, sum, sizeof(float), cudaMemcpyDeviceToHost));
    expect(h[0], 3 * N, "sum");
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaFree(sum));
}

static void symbols(void)
{
    float h[4] = {0.5f, 1.5f, 2.5f, 3.5f}, x[4], *d, table[4] = {10, 20, 30, 40};
    int n = 0;
    CHECK(cudaMalloc(&d, sizeof h));
    CHECK(cudaMemcpy(d, h, sizeof h, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpyToSymbol(scale, table, sizeof table));
    arithmetic_kernel<<<1, 32>>>(d, 4);
    CHECK(cudaMemcpy(x, d, sizeof x, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 4; i++) {
        double want = (i == 3 ? -1.0 : (double)(h[i] * (float)i + table[i])) + sin((double)(h[i] * 1e5f));
        if (fabs((double)x[i] - want) > 1e-5) expect(x[i], (float)want, "arithmetic");
    }
    CHECK(cudaMemcpyFromSymbol(&n, counter, sizeof n));
    if (n != 4) expect((float)n, 4, "counter");
    size_t bytes;
    CHECK(cudaGetSymbolSize(&bytes, scale));
    expect((float)bytes, 16, "size of a symbol");
    CHECK(cudaFree(d));
    if (bad)
        assert_kernel<<<1, 1>>>(8);
    else
        assert_kernel<<<1, 1>>>(7);
    WANT(bad ? cudaErrorAssert : cudaSuccess, cudaDeviceSynchronize());
}

static void copies_2d(void)
{
    float h[3][8], back[3][4], *d;
    size_t pitch;
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 8; c++)
            h[r][c] = (float)(10 * r + c);
    CHECK(cudaMallocPitch(&d, &pitch, 4 * sizeof(float), 3));
    CHECK(cudaMemcpy2D(d, pitch, &h[0][2], sizeof h[0], 4 * sizeof(float), 3, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2D(back, sizeof back[0], d, pitch, bad ? 5 * sizeof(float) : 4 * sizeof(float), bad ? 1 : 3,
                       cudaMemcpyDeviceToHost));
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++)
            expect(back[r][c], (float)(10 * r + c + 2), "2D copy");
    CHECK(cudaFree(d));
}

static void properties(void)
{
    int n, value;
    cudaDeviceProp p;
    CHECK(cudaGetDeviceCount(&n));
    expect((float)n, 3, "devices");
    CHECK(cudaGetDeviceProperties(&p, 2));
    if (strcmp(p.name, "Virtual GPU")) expect(0, 1, "name");
    expect((float)(p.major * 10 + p.minor), 80, "compute capability");
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    expect((float)value, 163 * 1024, "shared memory");
    WANT(cudaErrorInvalidDevice, cudaSetDevice(3));
    CHECK(cudaSetDevice(1));
    size_t before, after, total;
    CHECK(cudaMemGetInfo(&before, &total));
    void *d;
    CHECK(cudaMalloc(&d, 1 << 20));
    CHECK(cudaMemGetInfo(&after, &total));
    expect((float)(before - after), 1 << 20, "memory in use");
    WANT(cudaErrorMemoryAllocation, cudaMalloc(&d, (size_t)1 << 40));
    WANT(cudaErrorMemoryAllocation, cudaGetLastError());
    CHECK(cudaGetLastError());
    cudaFuncAttributes a;
    CHECK(cudaFuncGetAttributes(&a, (const void *)sum_kernel));
    expect((float)a.sharedSizeBytes, 16, "static shared memory");
    expect((float)a.maxThreadsPerBlock, 128, "launch bounds");
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, sum_kernel, 128, 0));
    expect((float)value, 16, "blocks per multiprocessor");
    CHECK(cudaDeviceReset());
}

/* ---- memory ---- */

static void use_after_free(void)
{
    float *a = ones(N, 1);
    if (bad) CHECK(cudaFree(a));
    fill(a, 2, 0);
    WANT(bad ? cudaErrorIllegalAddress : cudaSuccess, cudaDeviceSynchronize());
    if (bad) { /* the error stays */
        void *p;
        WANT(cudaErrorIllegalAddress, cudaMalloc(&p, 4));
        WANT(cudaErrorIllegalAddress, cudaGetLastError());
        WANT(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    } else {
        CHECK(cudaFree(a));
    }
}

static void double_free(void)
{
    float *a = ones(N, 1);
    CHECK(cudaFree(a));
    if (bad) WANT(cudaErrorInvalidValue, cudaFree(a));
}

static void free_inside(void)
{
    float *a = ones(N, 1);
    if (bad) WANT(cudaErrorInvalidValue, cudaFree(a + 1));
    CHECK(cudaFree(a));
}

static void leak_memory(void)
{
    float *a = ones(N, 1);
    if (!bad) CHECK(cudaFree(a));
}

static void leak_pinned(void)
{
    void *p;
    CHECK(cudaMallocHost(&p, 100));
    if (!bad) CHECK(cudaFreeHost(p));
}

static void leak_stream(void)
{
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    if (!bad) CHECK(cudaStreamDestroy(s));
}

static void leak_event(void)
{
    cudaEvent_t e;
    CHECK(cudaEventCreate(&e));
    if (!bad) CHECK(cudaEventDestroy(e));
}

static void leak_object(void)
{
    int object;
    vgpu_object_open("handle of a library", &object);
    if (!bad) vgpu_object_close("handle of a library", &object);
}

static void copy_past_end(void)
{
    float *a = ones(N, 1), h[N + 1];
    WANT(bad ? cudaErrorInvalidValue : cudaSuccess,
         cudaMemcpy(h, a, sizeof(float) * (size_t)(bad ? N + 1 : N), cudaMemcpyDeviceToHost));
    CHECK(cudaFree(a));
}

static void copy_direction(void)
{
    float *a = ones(N, 1), h[N];
    WANT(bad ? cudaErrorInvalidValue : cudaSuccess,
         cudaMemcpy(h, a, sizeof h, bad ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost));
    CHECK(cudaFree(a));
}

static void copy_unwritten(void)
{
    float *a, h[N];
    CHECK(cudaMalloc(&a, sizeof h));
    if (!bad) CHECK(cudaMemset(a, 0, sizeof h));
    WANT(bad ? cudaErrorIllegalAddress : cudaSuccess, cudaMemcpy(h, a, sizeof h, cudaMemcpyDeviceToHost));
    if (!bad) CHECK(cudaFree(a));
}

static void host_pointer(void)
{
    float *a = ones(N, 1), *h = (float *)calloc(N, sizeof(float));
    if (!bad) CHECK(cudaHostRegister(h, N * sizeof(float), 0));
    fill(h, 2, 0);
    WANT(bad ? cudaErrorIllegalAddress : cudaSuccess, cudaDeviceSynchronize());
    if (bad) return;
    expect(h[N - 1], 2, "pinned memory written by a kernel");
    CHECK(cudaHostUnregister(h));
    free(h);
    CHECK(cudaFree(a));
}

static void host_touches_device(void)
{
    float *a = ones(N, 1);
    if (bad) *(volatile float *)a = 1;
    CHECK(cudaFree(a));
}

static void other_device(void)
{
    float *a = ones(N, 1);
    CHECK(cudaSetDevice(1));
    if (!bad) CHECK(cudaDeviceEnablePeerAccess(0, 0));
    fill(a, 2, 0);
    WANT(bad ? cudaErrorIllegalAddress : cudaSuccess, cudaDeviceSynchronize());
    CHECK(cudaSetDevice(0));
    CHECK(cudaFree(a));
}

/* ---- launches ---- */

static void shared_limit(void)
{
    float *a = ones(256, 1);
    if (!bad) CHECK(cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000));
    dynamic_kernel<<<1, 256, 100000>>>(a);
    WANT(bad ? cudaErrorInvalidValue : cudaSuccess, cudaGetLastError());
    WANT(cudaErrorInvalidValue,
         cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 200000));
    cudaGetLastError();
    if (!bad) { /* allowed on device 0 only */
        CHECK(cudaSetDevice(1));
        dynamic_kernel<<<1, 256, 100000>>>(a);
        WANT(cudaErrorInvalidValue, cudaGetLastError());
        CHECK(cudaSetDevice(0));
    }
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
}

static void too_many_threads(void)
{
    float *a = ones(N, 1), *sum = ones(1, 0);
    sum_kernel<<<1, bad ? 256 : 128>>>(a, sum, N);
    WANT(bad ? cudaErrorLaunchOutOfResources : cudaSuccess, cudaGetLastError());
    fill_kernel<<<1, bad ? 2048 : 1024>>>(a, 1, N);
    WANT(bad ? cudaErrorInvalidConfiguration : cudaSuccess, cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
    CHECK(cudaFree(sum));
}

static void foreign_stream(void)
{
    float *a;
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    CHECK(cudaSetDevice(bad ? 1 : 0));
    a = ones(N, 1);
    fill(a, 2, s);
    WANT(bad ? cudaErrorInvalidResourceHandle : cudaSuccess, cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
    CHECK(cudaStreamDestroy(s));
}

static void dead_stream(void)
{
    float *a = ones(N, 1);
    cudaStream_t s;
    CHECK(cudaStreamCreate(&s));
    if (bad) CHECK(cudaStreamDestroy(s));
    fill(a, 2, s);
    WANT(bad ? cudaErrorInvalidResourceHandle : cudaSuccess, cudaGetLastError());
    if (!bad) CHECK(cudaStreamDestroy(s)); /* its work is done all the same */
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(a));
}

/* ---- order ---- */

static cudaStream_t produce, consume;
static cudaEvent_t ready;

static void open_streams(void)
{
    CHECK(cudaStreamCreateWithFlags(&produce, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&consume, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
}

static void close_streams(void)
{
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaStreamDestroy(produce));
    CHECK(cudaStreamDestroy(consume));
    CHECK(cudaEventDestroy(ready));
}

/* The producer's result is read by another stream. bad 1: nobody waits; 2: the event is recorded on the wrong stream;
 * 3: before the work; 4: nobody waits, and the host waits for everything at once, so that it depends on the order. */
static void wait_event(void)
{
    float *a = ones(N, 1), *h;
    CHECK(cudaMallocHost(&h, N * sizeof(float)));
    CHECK(cudaDeviceSynchronize());
    open_streams();
    if (bad == 3) CHECK(cudaEventRecord(ready, produce));
    fill(a, 2, produce);
    if (bad != 3) CHECK(cudaEventRecord(ready, bad == 2 ? consume : produce));
    if (bad != 1 && bad != 4) CHECK(cudaStreamWaitEvent(consume, ready, 0));
    CHECK(cudaMemcpyAsync(h, a, N * sizeof(float), cudaMemcpyDeviceToHost, consume));
    CHECK(bad == 4 ? cudaDeviceSynchronize() : cudaStreamSynchronize(consume));
    expect(h[0], 2, "another stream's result");
    close_streams();
    CHECK(cudaFree(a));
    CHECK(cudaFreeHost(h));
}

static void host_reads_early(void)
{
    float *a = ones(N, 5), *h;
    CHECK(cudaMallocHost(&h, N * sizeof(float)));
    h[0] = 0;
    open_streams();
    CHECK(cudaMemcpyAsync(h, a, N * sizeof(float), cudaMemcpyDeviceToHost, consume));
    if (!bad) CHECK(cudaStreamSynchronize(consume));
    expect(h[0], 5, "a copy to pinned memory");
    close_streams();
    CHECK(cudaFree(a));
    CHECK(cudaFreeHost(h));
}

/* A staging buffer is filled again while the copy from it may be under way; pageable memory is copied at once. */
static void staging_reused(void)
{
    float *a = ones(N, 0), *h, pageable[N], back[N];
    CHECK(cudaMallocHost(&h, N * sizeof(float)));
    open_streams();
    for (int i = 0; i < N; i++)
        h[i] = pageable[i] = 1;
    CHECK(cudaMemcpyAsync(a, bad ? h : pageable, sizeof pageable, cudaMemcpyHostToDevice, produce));
    for (int i = 0; i < N; i++)
        h[i] = pageable[i] = 2;
    CHECK(cudaStreamSynchronize(produce));
    CHECK(cudaMemcpy(back, a, sizeof back, cudaMemcpyDeviceToHost));
    expect(back[0], 1, "what was in the buffer when it was copied");
    close_streams();
    CHECK(cudaFree(a));
    CHECK(cudaFreeHost(h));
}

/* The legacy stream waits for blocking streams, and for no others. */
static void legacy_stream(void)
{
    float *a = ones(N, 1), h[N];
    cudaStream_t s;
    CHECK(cudaStreamCreateWithFlags(&s, bad ? cudaStreamNonBlocking : cudaStreamDefault));
    fill(a, 2, s);
    CHECK(cudaMemcpy(h, a, sizeof h, cudaMemcpyDeviceToHost));
    expect(h[0], 2, "work of another stream");
    CHECK(cudaStreamSynchronize(s));
    CHECK(cudaStreamDestroy(s));
    CHECK(cudaFree(a));
}

static void unfinished_work(void)
{
    static float *a;
    a = ones(N, 1);
    CHECK(cudaDeviceSynchronize());
    fill(a, 2, 0);
    if (!bad) CHECK(cudaDeviceSynchronize());
    if (!bad) CHECK(cudaFree(a));
}

static void queries(void)
{
    float *a = ones(N, 1), ms;
    cudaEvent_t begin, end;
    open_streams();
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    CHECK(cudaEventQuery(begin)); /* never recorded: nothing to wait for */
    CHECK(cudaEventRecord(begin, produce));
    for (int k = 0; k < 5; k++)
        fill(a, 2, produce);
    CHECK(cudaEventRecord(end, produce));
    WANT(cudaErrorNotReady, cudaEventQuery(end));
    WANT(cudaErrorNotReady, cudaEventElapsedTime(&ms, begin, end));
    int polls = 0;
    while (cudaStreamQuery(produce) == cudaErrorNotReady)
        polls++;
    if (polls > 10) expect((float)polls, 10, "polls");
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (ms < 0) expect(ms, 0, "elapsed time");
    CHECK(cudaGetLastError()); /* not ready is not an error that stays */
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    if (bad) WANT(cudaErrorInvalidResourceHandle, cudaEventDestroy(end));
    close_streams();
    CHECK(cudaFree(a));
}

static int calls, order[2];

static vgpu_progress patient(void *arg)
{
    if (++calls < 5) return VGPU_AGAIN;
    order[0] = *(int *)arg;
    return VGPU_DONE;
}

static void on_host(void *arg)
{
    order[1] = order[0] + *(int *)arg;
}

static vgpu_progress touch(void *arg)
{
    return vgpu_memory(arg, bad ? N * 4 + 4 : N * 4, VGPU_READ, "touch: operand") ? VGPU_DONE : VGPU_FAILED;
}

static void calls_cuda(void *arg)
{
    if (bad) cudaStreamQuery(0);
    *(int *)arg = 1;
}

struct gate {
    volatile int open, reached;
};

static void waits(void *arg)
{
    gate *g = (gate *)arg;
    for (int k = 0; k < 2000 && !g->open; k++)
        usleep(1000);
    g->reached = g->open;
}

static void host_function(void)
{
    int done = 0;
    open_streams();
    CHECK(cudaLaunchHostFunc(produce, calls_cuda, &done));
    CHECK(cudaStreamSynchronize(produce));
    expect((float)done, 1, "the host function");
    for (int k = 0; k < 10; k++) { /* one that waits for what the thread that put it does after more work */
        gate g = {0, 0};
        CHECK(cudaLaunchHostFunc(produce, waits, &g));
        for (int more = 0; more < 5; more++)
            CHECK(cudaEventRecord(ready, consume));
        CHECK(cudaStreamSynchronize(consume));
        g.open = 1;
        CHECK(cudaStreamSynchronize(produce));
        expect((float)g.reached, 1, "a host function that waits for its thread");
    }
    close_streams();
}

/* Work of replacement libraries: in order with the rest, again until it is done, and its memory checked. */
static void library_work(void)
{
    int one = 1, two = 2;
    float *a = ones(N, 1);
    open_streams();
    CHECK(vgpu_enqueue(produce, "patience", patient, &one, NULL, VGPU_EXTERNAL));
    CHECK(cudaLaunchHostFunc(produce, on_host, &two));
    CHECK(vgpu_enqueue(produce, "touch", touch, a, NULL, 0));
    WANT(bad ? cudaErrorIllegalAddress : cudaSuccess, cudaStreamSynchronize(produce));
    expect((float)order[1], 3, "host function after library work");
    expect((float)calls, 5, "calls of one work");
    if (bad) return;
    /* Nobody waits for it here, and it is done all the same: a peer might. */
    calls = 0;
    order[0] = 0;
    CHECK(vgpu_enqueue(produce, "patience", patient, &two, NULL, VGPU_EXTERNAL));
    for (int k = 0; k < 2000 && *(volatile int *)order != 2; k++)
        usleep(5000);
    expect((float)order[0], 2, "external work that nobody here waits for");
    close_streams();
    CHECK(cudaFree(a));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
#define CASE(f) {#f, f}
        CASE(vectors),
        CASE(symbols),
        CASE(copies_2d),
        CASE(properties),
        CASE(use_after_free),
        CASE(double_free),
        CASE(free_inside),
        CASE(leak_memory),
        CASE(leak_pinned),
        CASE(leak_stream),
        CASE(leak_event),
        CASE(leak_object),
        CASE(copy_past_end),
        CASE(copy_direction),
        CASE(copy_unwritten),
        CASE(host_pointer),
        CASE(host_touches_device),
        CASE(other_device),
        CASE(shared_limit),
        CASE(too_many_threads),
        CASE(foreign_stream),
        CASE(dead_stream),
        CASE(wait_event),
        CASE(host_reads_early),
        CASE(staging_reused),
        CASE(legacy_stream),
        CASE(unfinished_work),
        CASE(queries),
        CASE(host_function),
        CASE(library_work),
    };
    bad = argc > 2 ? atoi(argv[2]) : 0;
    for (size_t k = 0; argc > 1 && k < sizeof all / sizeof all[0]; k++)
        if (!strcmp(all[k].name, argv[1])) {
            all[k].run();
            puts("end");
            return 0;
        }
    fprintf(stderr, "no case '%s'\n", argc > 1 ? argv[1] : "");
    return 2;
}
