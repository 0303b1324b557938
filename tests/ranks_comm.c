/* What ranks say to each other arrives, whole and in order, on 1 to 8 ranks: agreement on errors, rows to and from their
 * owners, and the exchange of keys and values. The test starts itself under mpirun; `--worker` is one rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "comm.h"
#include "program.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "rank %d of %d, line %d: %s; last message: %s\n", comm_rank(c), comm_size(c), __LINE__,    \
                    #condition, err_text());                                                                           \
            comm_abort(c, 99);                                                                                         \
        }                                                                                                              \
    } while (0)

static void agreement(comm *c)
{
    const int n = comm_size(c), rank = comm_rank(c);
    char      want[256];
    CHECK(comm_agree(c, ST_OK) == ST_OK);
    /* The two highest ranks fail in different ways: all hear of the lower one. */
    const int lower = n >= 2 ? n - 2 : 0;
    status    mine = ST_OK;
    if (rank == lower) mine = err_set(ST_BAD_MODEL, "shard %d is short", rank);
    if (rank > lower) mine = err_set(ST_NO_MEMORY, "%d bytes", rank);
    CHECK(comm_agree(c, mine) == ST_BAD_MODEL);
    snprintf(want, sizeof(want), "rank %d (%s): shard %d is short", lower, comm_host(c), lower);
    CHECK(strcmp(err_text(), n == 1 ? "shard 0 is short" : want) == 0);
    CHECK(comm_same(c, ST_USAGE, "version", "1.0") == ST_OK);
    if (n > 1) {
        CHECK(comm_same(c, ST_USAGE, "version", rank == n - 1 ? "1.1" : "1.0") == ST_USAGE);
        CHECK(strstr(err_text(), "version differs: got \"1.1\", rank 0 has \"1.0\"") != NULL);
    }
    int least = 10 - rank;
    CHECK(comm_min_int(c, &least) == ST_OK && least == 10 - (n - 1));
}

/* Blocks of rank r: r * 70001 bytes, so rank 0's is empty; byte i of rank r is (r + i) mod 251. */
static void rows_to_and_from_their_owners(comm *c)
{
    const int n = comm_size(c), rank = comm_rank(c);
    size_t    bytes[8], total = 0, at = 0;
    for (int r = 0; r < n; r++) total += bytes[r] = (size_t)r * 70001;
    uint8_t *all = malloc(total + 1), *mine = malloc(bytes[rank] + 1);
    CHECK(all != NULL && mine != NULL);
    for (int root = 0; root < n; root += n - 1 > 0 ? n - 1 : 1) {
        memset(all, 255, total + 1);
        for (size_t i = 0; i < bytes[rank]; i++) mine[i] = (uint8_t)(((size_t)rank + i) % 251);
        CHECK(comm_gather(c, root, mine, bytes, rank == root ? all : NULL) == ST_OK);
        if (rank == root) {
            at = 0;
            for (int r = 0; r < n; r++)
                for (size_t i = 0; i < bytes[r]; i++, at++) CHECK(all[at] == ((size_t)r + i) % 251);
            CHECK(all[total] == 255);
        }
        memset(mine, 0, bytes[rank]);
        CHECK(comm_scatter(c, root, rank == root ? all : NULL, bytes, mine) == ST_OK);
        for (size_t i = 0; i < bytes[rank]; i++) CHECK(mine[i] == ((size_t)rank + i) % 251);
        memset(all, rank == root ? 7 : 0, total + 1);
        CHECK(comm_bcast(c, root, all, total + 1) == ST_OK);
        for (size_t i = 0; i <= total; i++) CHECK(all[i] == 7);
    }
    free(all);
    free(mine);
}

enum { ROW_BYTES = 1500 * 4, ROUNDS = 6 };

static int32_t rows_of(int rank)
{
    static const int32_t rows[8] = {64, 0, 301, 1, 128, 64, 0, 77};
    return rows[rank];
}

/* Value of element i of a rank's block in a round: exact in fp32. */
static float value_of(int rank, int round, size_t i)
{
    return (float)(rank * 100000 + round * 10000 + (int)(i % 9973));
}

/* Every rank sees every block in the order of the sequence, whole, in every round, though `mine` is overwritten as soon
 * as a round has ended; and what was sent is what a chain sends: each block over n - 1 links. */
static void exchange(comm *c, device_kind kind, bool reverse)
{
    const int   n = comm_size(c), rank = comm_rank(c);
    device     *dev = NULL;
    stream     *s = NULL;
    kv_exchange *x = NULL;
    int32_t     n_rows[8];
    device_opts opts = DEVICE_OPTS_INIT;
    int64_t     before = comm_exchange_bytes(c), row_total = 0;
    opts.kind = kind;
    for (int r = 0; r < n; r++) row_total += n_rows[r] = rows_of(r);
    const size_t n_mine = (size_t)n_rows[rank] * (ROW_BYTES / 4), largest = 301 * (ROW_BYTES / 4);
    float *mine = NULL, *host = malloc(largest * sizeof(float)), *seen = malloc(8 * largest * sizeof(float));
    float *scribble = calloc(largest, sizeof(float));
    CHECK(host != NULL && seen != NULL && scribble != NULL);
    CHECK(device_open(&dev, &opts) == ST_OK && stream_open(&s, dev) == ST_OK);
    CHECK(device_alloc(dev, n_mine * sizeof(float), "mine", (void **)&mine) == ST_OK);
    CHECK(kv_exchange_open(&x, &(kv_exchange_opts){.comm = c, .dev = dev, .n_rows = n_rows, .row_bytes = ROW_BYTES,
                                                   .reverse_order = reverse}) == ST_OK);
    for (int round = 0; round < ROUNDS; round++) {
        kv_block block;
        int      owners[8], n_blocks = 0;
        for (size_t i = 0; i < n_mine; i++) host[i] = value_of(rank, round, i);
        CHECK(stream_copy_in(s, mine, host, n_mine * sizeof(float)) == ST_OK);
        CHECK(kv_exchange_begin(x, s, mine) == ST_OK);
        for (;;) {
            CHECK(kv_exchange_next(x, s, &block) == ST_OK);
            if (block.data == NULL) break;
            CHECK(block.n_rows == n_rows[block.owner] && block.n_rows > 0);
            CHECK(stream_copy_out(s, seen + (size_t)n_blocks * largest, block.data, (size_t)block.n_rows * ROW_BYTES) ==
                  ST_OK);
            owners[n_blocks++] = block.owner;
        }
        CHECK(kv_exchange_end(x, s) == ST_OK);
        CHECK(stream_copy_in(s, mine, scribble, n_mine * sizeof(float)) == ST_OK); /* allowed from here on */
        CHECK(stream_sync(s) == ST_OK && kv_exchange_sync(x) == ST_OK);
        int want = 0;
        for (int k = 0; k < n; k++) {
            int owner = reverse ? n - 1 - k : k;
            if (n_rows[owner] == 0) continue;
            CHECK(owners[want] == owner);
            for (size_t i = 0; i < (size_t)n_rows[owner] * (ROW_BYTES / 4); i++)
                CHECK(seen[(size_t)want * largest + i] == value_of(owner, round, i));
            want++;
        }
        CHECK(want == n_blocks);
    }
    int64_t sent = comm_exchange_bytes(c) - before, *all = malloc((size_t)n * sizeof(*all)), total = 0;
    size_t  bytes[8];
    CHECK(all != NULL);
    for (int r = 0; r < n; r++) bytes[r] = sizeof(sent);
    CHECK(comm_gather(c, 0, &sent, bytes, all) == ST_OK);
    for (int r = 0; rank == 0 && r < n; r++) total += all[r];
    if (rank == 0) CHECK(total == row_total * ROW_BYTES * (n - 1) * ROUNDS);
    kv_exchange_close(x);
    device_free(dev, mine);
    stream_close(s);
    device_close(dev);
    free(all);
    free(host);
    free(seen);
    free(scribble);
}

static int worker(int argc, char **argv)
{
    comm *c = NULL;
    if (comm_open(&c, &argc, &argv) != ST_OK) return 1;
    agreement(c);
    rows_to_and_from_their_owners(c);
    exchange(c, DEVICE_CPU, false);
    exchange(c, DEVICE_STRICT, false);
    exchange(c, DEVICE_CPU, true);
    comm_close(c);
    return 0;
}

static const char *self;

static void ranks_understand_each_other(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 3, 5, 8};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        program_run run;
        program_start_other(&run, self, "/", NULL, counts[i], 120, "--worker");
        if (run.exit_code != 0) fail_msg("%d ranks: exit code %d\n%s", counts[i], run.exit_code, run.output);
        program_run_free(&run);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_understand_each_other)};
    if (argc > 1 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv);
    self = realpath("/proc/self/exe", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
