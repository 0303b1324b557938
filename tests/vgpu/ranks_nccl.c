/* The replacement NCCL: what travels arrives, exactly, on 1 to 4 ranks and in any grouping; and every way in which the calls
 * of two ranks can differ is told by both and becomes an error. The test starts itself under mpirun: `--worker NAME`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>

#include "../support/program.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "rank %d of %d, line %d: %s; last message: %s\n", rank, n, __LINE__, #condition,           \
                    ncclGetLastError(NULL));                                                                           \
            MPI_Abort(MPI_COMM_WORLD, 98);                                                                             \
        }                                                                                                              \
    } while (0)

static int          rank, n;
static ncclComm_t   comm;
static cudaStream_t stream, other;

enum { MOST = 70001 };
static float *from, *to; /* device: [4 * MOST] */
static float  host[4 * MOST];

/* ---- what works */

/* Exact in fp32, different for each rank and place. */
static float value(int r, size_t i)
{
    return (float)(r * 1000000 + (int)(i % 99991));
}

static void fill(size_t count)
{
    for (size_t i = 0; i < count; i++) host[i] = value(rank, i);
    CHECK(cudaMemcpy(from, host, count * sizeof(float), cudaMemcpyHostToDevice) == cudaSuccess);
    for (size_t i = 0; i < 4 * MOST; i++) host[i] = -1;
    CHECK(cudaMemcpy(to, host, sizeof(host), cudaMemcpyHostToDevice) == cudaSuccess);
}

static void fetch(cudaStream_t s, const float *device, size_t count)
{
    CHECK(cudaStreamSynchronize(s) == cudaSuccess);
    CHECK(cudaMemcpy(host, device, count * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess);
}

static void collectives(size_t count)
{
    for (int root = 0; root < n; root++) {
        fill(count);
        CHECK(ncclBroadcast(rank == root ? from : NULL, to, count, ncclFloat32, root, comm, stream) == ncclSuccess);
        fetch(stream, to, count + 1);
        for (size_t i = 0; i < count; i++) CHECK(host[i] == value(root, i));
        CHECK(host[count] == -1);
    }
    fill(count);
    CHECK(ncclAllGather(from, to, count, ncclFloat32, comm, stream) == ncclSuccess);
    fetch(stream, to, (size_t)n * count);
    for (int r = 0; r < n; r++)
        for (size_t i = 0; i < count; i++) CHECK(host[(size_t)r * count + i] == value(r, i));
    fill(count);
    CHECK(ncclAllReduce(from, from, count, ncclFloat32, ncclSum, comm, stream) == ncclSuccess); /* in place */
    fetch(stream, from, count);
    for (size_t i = 0; i < count; i++) {
        float want = 0;
        for (int r = 0; r < n; r++) want += value(r, i);
        CHECK(host[i] == want);
    }
    fill(count);
    CHECK(ncclAllReduce(from, to, count, ncclFloat32, ncclMax, comm, stream) == ncclSuccess);
    fetch(stream, to, count);
    for (size_t i = 0; i < count; i++) CHECK(host[i] == value(n - 1, i));
    const size_t share = count / (size_t)n;
    fill(count);
    CHECK(ncclReduceScatter(from, to, share, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    fetch(stream, to, share + 1);
    for (size_t i = 0; i < share; i++) {
        float want = 0;
        for (int r = 0; r < n; r++) want += value(r, (size_t)rank * share + i);
        CHECK(host[i] == want);
    }
    CHECK(host[share] == -1);
}

/* All ranks to all at once, then around in a ring in two groups, one of them with a collective in it. */
static void messages(size_t count)
{
    fill((size_t)n * count);
    CHECK(ncclGroupStart() == ncclSuccess);
    for (int r = 0; r < n; r++) { /* rank a sends b the run b of its values, itself too; of a + 1 elements less */
        CHECK(ncclSend(from + (size_t)r * count, count - (size_t)rank, ncclFloat32, r, comm, stream) == ncclSuccess);
        CHECK(ncclRecv(to + (size_t)r * count, count - (size_t)r, ncclFloat32, r, comm, stream) == ncclSuccess);
    }
    CHECK(ncclGroupEnd() == ncclSuccess);
    fetch(stream, to, (size_t)n * count);
    for (int r = 0; r < n; r++)
        for (size_t i = 0; i + (size_t)r < count; i++)
            CHECK(host[(size_t)r * count + i] == value(r, (size_t)rank * count + i));
    if (n == 1) return;
    fill(30);
    /* Rank 0 sends in two launches what rank 1 receives in one group, on two streams: NCCL keeps launches in order. */
    if (rank == 0) {
        CHECK(ncclSend(from, 10, ncclFloat32, 1, comm, stream) == ncclSuccess);
        CHECK(ncclSend(from + 10, 20, ncclFloat32, 1, comm, other) == ncclSuccess);
        CHECK(cudaStreamSynchronize(stream) == cudaSuccess && cudaStreamSynchronize(other) == cudaSuccess);
    } else if (rank == 1) {
        CHECK(ncclGroupStart() == ncclSuccess && ncclRecv(to, 10, ncclFloat32, 0, comm, stream) == ncclSuccess);
        CHECK(ncclRecv(to + 10, 20, ncclFloat32, 0, comm, stream) == ncclSuccess && ncclGroupEnd() == ncclSuccess);
        fetch(stream, to, 30);
        for (size_t i = 0; i < 30; i++) CHECK(host[i] == value(0, i));
    }
    fill(count);
    CHECK(ncclGroupStart() == ncclSuccess);
    CHECK(ncclSend(from, count, ncclFloat32, (rank + 1) % n, comm, stream) == ncclSuccess);
    CHECK(ncclBroadcast(from, to + count, 5, ncclFloat32, 0, comm, stream) == ncclSuccess);
    CHECK(ncclRecv(to, count, ncclFloat32, (rank + n - 1) % n, comm, stream) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclSuccess);
    fetch(stream, to, count + 5);
    for (size_t i = 0; i < count; i++) CHECK(host[i] == value((rank + n - 1) % n, i));
    for (size_t i = 0; i < 5; i++) CHECK(host[count + i] == value(0, i));
}

/* Even and odd ranks apart, in reverse order. */
static void splits(void)
{
    ncclComm_t part = NULL;
    int        size = 0, place = 0, device = -1;
    CHECK(ncclCommSplit(comm, rank % 2, -rank, &part, NULL) == ncclSuccess);
    CHECK(ncclCommCount(part, &size) == ncclSuccess && size == (n + 1 - rank % 2) / 2);
    CHECK(ncclCommUserRank(part, &place) == ncclSuccess && place == size - 1 - rank / 2);
    CHECK(ncclCommCuDevice(part, &device) == ncclSuccess && device == rank);
    fill(3);
    CHECK(ncclAllGather(from, to, 3, ncclFloat32, part, stream) == ncclSuccess);
    fetch(stream, to, 3 * (size_t)size);
    for (int r = 0; r < size; r++) CHECK(host[3 * r] == value(2 * (size - 1 - r) + rank % 2, 0));
    CHECK(ncclCommDestroy(part) == ncclSuccess);
    CHECK(ncclCommSplit(comm, rank == 0 ? NCCL_SPLIT_NOCOLOR : 5, 0, &part, NULL) == ncclSuccess);
    CHECK((part == NULL) == (rank == 0) && ncclCommDestroy(part) == ncclSuccess);
}

static void works(void)
{
    int version = 0;
    CHECK(ncclGetVersion(&version) == ncclSuccess && version == NCCL_VERSION_CODE);
    for (int k = 0; k < 3; k++) {
        static const size_t counts[] = {8, 1000, MOST};
        collectives(counts[k]);
        messages(counts[k] / 4 * 4 < MOST ? counts[k] : MOST);
    }
    collectives(0);
    splits();
    ncclResult_t error = ncclInternalError;
    CHECK(ncclCommGetAsyncError(comm, &error) == ncclSuccess && error == ncclSuccess);
}

/* One rank waits on its host for what the other has put on a stream that nobody waits for. */
static void progresses(void)
{
    fill(100);
    if (rank == 0) CHECK(ncclSend(from, 100, ncclFloat32, 1, comm, stream) == ncclSuccess);
    if (rank == 1) {
        CHECK(ncclRecv(to, 100, ncclFloat32, 0, comm, stream) == ncclSuccess);
        fetch(stream, to, 100);
        CHECK(host[99] == value(0, 99));
    }
    MPI_Barrier(MPI_COMM_WORLD); /* rank 0 comes here without a wait for its stream */
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
}

/* ---- what does not match: the calls of the first two ranks; the others, if any, do nothing */

static void other_size(void)
{
    if (rank == 0) ncclSend(from, 100, ncclFloat32, 1, comm, stream);
    else ncclRecv(to, 50, ncclFloat32, 0, comm, stream);
}

static void other_type(void)
{
    if (rank == 0) ncclSend(from, 100, ncclFloat32, 1, comm, stream);
    else ncclRecv(to, 100, ncclInt32, 0, comm, stream);
}

static void both_send(void)
{
    ncclSend(from, 7, ncclFloat32, 1 - rank, comm, stream);
    ncclRecv(to, 7, ncclFloat32, 1 - rank, comm, stream);
}

static void other_root(void)
{
    ncclBcast(from, 9, ncclFloat32, rank, comm, stream);
}

static void other_kind(void)
{
    if (rank == 0) ncclAllGather(from, to, 9, ncclFloat32, comm, stream);
    else ncclAllReduce(from, to, 9, ncclFloat32, ncclSum, comm, stream);
}

static void other_operation(void)
{
    ncclAllReduce(from, to, 9, ncclFloat32, rank == 0 ? ncclSum : ncclMin, comm, stream);
}

static void other_count(void)
{
    ncclReduceScatter(from, to, 9 + (size_t)rank, ncclFloat32, ncclSum, comm, stream);
}

/* The same calls in another order inside a group. */
static void other_order(void)
{
    ncclGroupStart();
    if (rank == 0) ncclAllReduce(from, to, 9, ncclFloat32, ncclSum, comm, stream);
    ncclBroadcast(from, to, 9, ncclFloat32, 0, comm, stream);
    if (rank == 1) ncclAllReduce(from, to, 9, ncclFloat32, ncclSum, comm, stream);
    ncclGroupEnd();
}

/* Sizes of two messages the wrong way round: the sends, not the receives. */
static void swapped_messages(void)
{
    ncclGroupStart();
    for (int i = 0; i < 2; i++) {
        if (rank == 0) ncclSend(from, i == 0 ? 3 : 4, ncclFloat32, 1, comm, stream);
        else ncclRecv(to + 8 * i, i == 0 ? 4 : 3, ncclFloat32, 0, comm, stream);
    }
    ncclGroupEnd();
}

/* Rank 1 goes on to a collective; rank 0 still waits for its message. */
static void other_call(void)
{
    if (rank == 0) ncclRecv(to, 6, ncclFloat32, 1, comm, stream);
    ncclAllReduce(from, to, 6, ncclFloat32, ncclSum, comm, stream);
}

/* Rank 1 takes one of two messages and closes. */
static void one_too_many(void)
{
    if (rank == 0) {
        ncclSend(from, 5, ncclFloat32, 1, comm, stream);
        ncclSend(from, 6, ncclFloat32, 1, comm, stream);
        return;
    }
    ncclRecv(to, 5, ncclFloat32, 0, comm, stream);
    cudaStreamSynchronize(stream);
    usleep(200000); /* the second one is announced by now */
}

/* Three ranks wait in a circle: only time tells. */
static void circle(void)
{
    ncclRecv(to, 5, ncclFloat32, (rank + 1) % 3, comm, stream);
}

static void out_of_bounds(void)
{
    if (rank == 0) ncclSend(from, 100, ncclFloat32, 1, comm, stream);
    else ncclRecv(to + 4 * MOST - 99, 100, ncclFloat32, 0, comm, stream);
}

typedef struct scenario {
    const char *name;
    int         n_ranks;
    void (*run)(void);
    const char *environment;
    const char *says[3]; /* all of them, in what the ranks print */
} scenario;

static const scenario SCENARIOS[] = {
    {"other_size", 2, other_size, "", {"rank 0 makes ncclSend of 100 float32 to rank 1, rank 1 makes ncclRecv of 50 float32 from rank 0",
                                       "rank 1 makes ncclRecv of 50 float32 from rank 0, rank 0 makes ncclSend of 100 float32 to rank 1"}},
    {"other_type", 2, other_type, "", {"rank 0 makes ncclSend of 100 float32", "rank 1 makes ncclRecv of 100 int32 from rank 0, rank 0"}},
    {"both_send", 2, both_send, "", {"rank 0 waits in ncclSend of 7 float32 to rank 1, rank 1 in ncclSend of 7 float32 to rank 0",
                                     "rank 1 waits in ncclSend of 7 float32 to rank 0, rank 0 in ncclSend"}},
    {"other_root", 2, other_root, "", {"rank 0 makes ncclBroadcast of 9 float32 from rank 0, rank 1 makes ncclBroadcast of 9 float32 from rank 1",
                                       "rank 1 makes ncclBroadcast of 9 float32 from rank 1, rank 0 makes"}},
    {"other_kind", 2, other_kind, "", {"rank 0 makes ncclAllGather of 9 float32, rank 1 makes ncclAllReduce of 9 float32, sum",
                                       "rank 1 makes ncclAllReduce of 9 float32, sum, rank 0 makes ncclAllGather"}},
    {"other_operation", 2, other_operation, "", {"rank 0 makes ncclAllReduce of 9 float32, sum, rank 1 makes ncclAllReduce of 9 float32, min",
                                                 "rank 1 makes ncclAllReduce of 9 float32, min, rank 0"}},
    {"other_count", 2, other_count, "", {"rank 0 makes ncclReduceScatter of 9 float32", "rank 1 makes ncclReduceScatter of 10 float32"}},
    {"other_order", 2, other_order, "", {"rank 0 makes ncclAllReduce of 9 float32, sum, rank 1 makes ncclBroadcast",
                                         "rank 1 makes ncclBroadcast of 9 float32 from rank 0, rank 0 makes ncclAllReduce"}},
    {"swapped_messages", 2, swapped_messages, "", {"rank 0 makes ncclSend of 3 float32 to rank 1, rank 1 makes ncclRecv of 4",
                                                   "rank 1 makes ncclRecv of 4 float32 from rank 0, rank 0 makes ncclSend of 3"}},
    {"other_call", 2, other_call, "", {"rank 0 waits in ncclRecv of 6 float32 from rank 1, rank 1 in ncclAllReduce of 6 float32, sum",
                                       "rank 1 waits in ncclAllReduce of 6 float32, sum, rank 0 in ncclRecv"}},
    {"one_too_many", 2, one_too_many, "", {"rank 0 waits in ncclSend of 6 float32 to rank 1, rank 1 has closed the communicator",
                                           "rank 1 closes the communicator, rank 0 waits in ncclSend of 6 float32 to rank 1"}},
    {"circle", 3, circle, "VGPU_NCCL_TIMEOUT_S=2", {" waits in ncclRecv of 5 float32 from rank ", " for 2 s: rank "}},
    {"out_of_bounds", 2, out_of_bounds, "", {"ncclRecv: recvbuff", "rank 0 of 2: rank 1 is gone"}},
};
enum { N_SCENARIOS = sizeof(SCENARIOS) / sizeof(SCENARIOS[0]) };

/* Every rank must hear of it: by the communicator while its stream works, by the stream, or when it closes. */
static void differs(const scenario *s)
{
    ncclResult_t error = ncclSuccess;
    fill(4 * MOST);
    s->run();
    for (int i = 0; i < 3000 && error == ncclSuccess; i++) {
        usleep(1000);
        CHECK(ncclCommGetAsyncError(comm, &error) == ncclSuccess);
    }
    if (error == ncclRemoteError) { /* the other one has failed and left before we knew why */
        printf("%s\n", ncclGetLastError(comm));
        CHECK(ncclCommAbort(comm) == ncclSuccess);
        return;
    }
    const cudaError_t  synced = cudaStreamSynchronize(stream);
    const ncclResult_t closed = ncclCommDestroy(comm);
    CHECK(synced != cudaSuccess || error != ncclSuccess || closed != ncclSuccess);
}

/* Rank 1 dies; rank 0 learns it from the communicator while its stream waits, and ends the wait. */
static void gone(void)
{
    ncclResult_t error = ncclSuccess;
    if (rank == 1) _exit(0);
    fill(100);
    CHECK(ncclSend(from, 100, ncclFloat32, 1, comm, stream) == ncclSuccess);
    for (int i = 0; i < 5000 && error == ncclSuccess; i++) {
        usleep(1000);
        CHECK(ncclCommGetAsyncError(comm, &error) == ncclSuccess);
    }
    CHECK(error == ncclRemoteError && strstr(ncclGetLastError(comm), "rank 0 of 2: rank 1 is gone") != NULL);
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    cudaStreamSynchronize(stream); /* comes back */
    printf("rank 0 saw it\n");
    fflush(stdout);
    _exit(0);
}

static int worker(int argc, char **argv)
{
    const char  *name = argv[2];
    ncclUniqueId id;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    if (rank == 0) CHECK(ncclGetUniqueId(&id) == ncclSuccess);
    MPI_Bcast(&id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD);
    CHECK(cudaSetDevice(strcmp(name, "one_device") == 0 ? 0 : rank) == cudaSuccess);
    if (strcmp(name, "one_device") == 0) {
        CHECK(ncclCommInitRank(&comm, n, id, rank) == ncclInvalidUsage);
        MPI_Finalize();
        return 0;
    }
    CHECK(ncclCommInitRank(&comm, n, id, rank) == ncclSuccess);
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cudaMalloc((void **)&from, sizeof(host)) == cudaSuccess && cudaMalloc((void **)&to, sizeof(host)) == cudaSuccess);
    if (strcmp(name, "gone") == 0) gone();
    if (strcmp(name, "works") == 0) works();
    if (strcmp(name, "progresses") == 0) progresses();
    for (int i = 0; i < N_SCENARIOS; i++)
        if (strcmp(name, SCENARIOS[i].name) == 0) {
            differs(&SCENARIOS[i]);
            MPI_Finalize();
            return 0;
        }
    CHECK(ncclCommDestroy(comm) == ncclSuccess);
    CHECK(cudaFree(from) == cudaSuccess && cudaFree(to) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess && cudaStreamDestroy(other) == cudaSuccess);
    MPI_Finalize();
    return 0;
}

/* ---- the test */

static const char *self;

static void start(program_run *run, const char *name, int n_ranks, const char *environment)
{
    char arguments[64], all[128];
    snprintf(arguments, sizeof(arguments), "--worker %s", name);
    snprintf(all, sizeof(all), "VGPU_DEVICES=%d %s", n_ranks, environment);
    program_start_other(run, self, "/", all, n_ranks, 60, arguments);
}

static void ranks_understand_each_other(void **state)
{
    static const struct {
        const char *name;
        int         n_ranks;
    } runs[] = {{"works", 1}, {"works", 2}, {"works", 3}, {"works", 4}, {"progresses", 2}};
    (void)state;
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
        for (int seed = 0; seed < 2; seed++) {
            program_run run;
            char        environment[64];
            snprintf(environment, sizeof(environment), "VGPU_SEED=%u", seed == 0 ? 0 : 1 + program_draw(300, 1000));
            start(&run, runs[i].name, runs[i].n_ranks, environment);
            if (run.exit_code != 0) fail_msg("%s, %d ranks: exit code %d\n%s", runs[i].name, runs[i].n_ranks, run.exit_code, run.output);
            program_run_free(&run);
        }
}

static void calls_that_do_not_match_are_told_by_both(void **state)
{
    (void)state;
    for (int i = 0; i < N_SCENARIOS; i++) {
        const scenario *s = &SCENARIOS[i];
        program_run     run;
        char            environment[96];
        snprintf(environment, sizeof(environment), "VGPU_EXIT_CODE=0 %s", s->environment);
        start(&run, s->name, s->n_ranks, environment);
        if (run.exit_code != 0) fail_msg("%s: exit code %d\n%s", s->name, run.exit_code, run.output);
        for (size_t k = 0; k < 3 && s->says[k] != NULL; k++)
            if (strstr(run.output, s->says[k]) == NULL) fail_msg("%s: does not say \"%s\":\n%s", s->name, s->says[k], run.output);
        program_run_free(&run);
    }
}

static void two_ranks_on_one_device_are_refused(void **state)
{
    program_run run;
    (void)state;
    start(&run, "one_device", 2, "VGPU_EXIT_CODE=0");
    if (run.exit_code != 0 || strstr(run.output, "Duplicate GPU detected: rank 0 and rank 1 both on CUDA device ") == NULL ||
        strstr(run.output, "Duplicate GPU detected: rank 1 and rank 0 both on CUDA device ") == NULL)
        fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
}

static void a_dead_rank_is_an_asynchronous_error(void **state)
{
    program_run run;
    (void)state;
    start(&run, "gone", 2, "VGPU_EXIT_CODE=0");
    if (strstr(run.output, "rank 0 saw it") == NULL) fail_msg("exit code %d\n%s", run.exit_code, run.output);
    program_run_free(&run);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_understand_each_other),
        cmocka_unit_test(calls_that_do_not_match_are_told_by_both),
        cmocka_unit_test(two_ranks_on_one_device_are_refused),
        cmocka_unit_test(a_dead_rank_is_an_asynchronous_error),
    };
    if (argc > 2 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv);
    self = realpath("/proc/self/exe", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
