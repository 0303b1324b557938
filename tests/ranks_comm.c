/* What ranks say to each other arrives, whole and in order, on 1 to 8 ranks: agreement on errors, rows to and from
 * their owners, and the exchange of keys and values. The test starts itself under mpirun; `--worker N` is one of N. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "exchange.h"
#include "grid.h"
#include "internal.h" /* of comm: messages are made small */
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

/* Every rank fails: the lowest is heard, and a second agreement on the same failure adds nothing. */
static void agreement_of_failures(comm *c)
{
    const int n = comm_size(c), rank = comm_rank(c);
    char      first[256];
    status    st = comm_agree(c, err_set(rank == 0 ? ST_BAD_JOB : ST_COMM, "failure of %d", rank));
    CHECK(st == ST_BAD_JOB);
    CHECK(strstr(err_text(), "failure of 0") != NULL);
    snprintf(first, sizeof(first), "%s", err_text());
    CHECK(comm_agree(c, st) == ST_BAD_JOB);
    CHECK(strcmp(err_text(), first) == 0);
    if (n > 1) CHECK(comm_agree(c, rank == n - 1 ? err_set(ST_OUTPUT, "disk") : ST_OK) == ST_OUTPUT);
}

/* Blocks of rank r: r * 70001 bytes, so rank 0 has none, and no memory for it; byte i of rank r is (r + i) mod 251. */
static void rows_to_and_from_their_owners(comm *c)
{
    const int n = comm_size(c), rank = comm_rank(c);
    size_t    bytes[8], total = 0;
    for (int r = 0; r < n; r++) total += bytes[r] = (size_t)r * 70001;
    uint8_t *all = malloc(total + 1), *mine = bytes[rank] > 0 ? malloc(bytes[rank]) : NULL;
    CHECK(all != NULL && (mine != NULL || bytes[rank] == 0));
    for (int root = 0; root < n; root++) {
        memset(all, 255, total + 1);
        for (size_t i = 0; i < bytes[rank]; i++) mine[i] = (uint8_t)(((size_t)rank + i) % 251);
        CHECK(comm_gather(c, root, mine, bytes, rank == root ? all : NULL) == ST_OK);
        if (rank == root) {
            size_t at = 0;
            for (int r = 0; r < n; r++)
                for (size_t i = 0; i < bytes[r]; i++, at++) CHECK(all[at] == ((size_t)r + i) % 251);
            CHECK(all[total] == 255);
        }
        if (mine != NULL) memset(mine, 0, bytes[rank]);
        CHECK(comm_scatter(c, root, rank == root ? all : NULL, bytes, mine) == ST_OK);
        for (size_t i = 0; i < bytes[rank]; i++) CHECK(mine[i] == ((size_t)rank + i) % 251);
    }
    free(all);
    free(mine);
}

/* Sizes around the limit of one message, and none at all. */
static void broadcasts(comm *c)
{
    const size_t piece = c->transport->size > 1 ? c->transport->piece_bytes : 1000;
    const size_t sizes[] = {0, 1, piece - 1, piece, piece + 1, 3 * piece, 9 * piece + 17};
    const int    n = comm_size(c), rank = comm_rank(c);
    uint8_t     *buf = malloc(9 * piece + 18);
    CHECK(buf != NULL);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const int root = (int)k % n;
        for (size_t i = 0; i < sizes[k]; i++) buf[i] = rank == root ? (uint8_t)((i + k) % 251) : 255;
        buf[sizes[k]] = 254;
        CHECK(comm_bcast(c, root, sizes[k] > 0 ? buf : NULL, sizes[k]) == ST_OK);
        for (size_t i = 0; i < sizes[k]; i++) CHECK(buf[i] == (i + k) % 251);
        CHECK(buf[sizes[k]] == 254);
    }
    free(buf);
}

enum { ROW_FLOATS = 1500, ROW_BYTES = ROW_FLOATS * 4, MAX_RANKS = 8 };

typedef struct plan {
    const char *name;
    int32_t     n_rows[MAX_RANKS]; /* of rank r */
    int         n_rounds;
    bool        reverse;
    exchange_schedule schedule;
} plan;

static const plan UNEVEN = {"uneven", {64, 0, 301, 1, 128, 64, 0, 77}, 12, false, EXCHANGE_ORDERED};
static const plan REVERSED = {"reversed", {64, 0, 301, 1, 128, 64, 0, 77}, 3, true, EXCHANGE_ORDERED};
static const plan LAST_ONLY = {"first rank empty", {0, 5, 0, 0, 9, 0, 0, 3}, 4, false, EXCHANGE_ORDERED};
static const plan NOTHING = {"no rows at all", {0}, 2, false, EXCHANGE_ORDERED};
static const plan CLASSIC = {"classic ring", {64, 0, 301, 1, 128, 64, 0, 77}, 12, false, EXCHANGE_NEIGHBOUR};
static const plan CLASSIC_LAST = {"classic ring, first rank empty", {0, 5, 0, 0, 9, 0, 0, 3}, 4, false, EXCHANGE_NEIGHBOUR};
static const plan LARGE = {"more chunks than one block has places for", {3, 2900, 1, 2}, 2, false, EXCHANGE_ORDERED}; /* 17 MB */

/* Value of element i of a rank's block in a round: exact in fp32, different between ranks and between rounds. */
static float value_of(int rank, int round, size_t i)
{
    return (float)(rank * 2000000 + round * 100000 + (int)(i % 99991));
}

/* Every rank passes each block on to the next rank, unless that one is its owner: in both schedules. */
static int64_t sent_by(int rank, int n, const plan *p)
{
    int64_t sent = 0;
    for (int owner = 0; owner < n; owner++)
        if ((rank + 1) % n != owner) sent += (int64_t)p->n_rows[owner] * ROW_BYTES;
    return sent * p->n_rounds;
}

/* Every rank sees every block in the order of the sequence, whole, in every round, though `mine` is overwritten as soon
 * as a round has ended, by work that waits for nothing else. */
static void exchange(comm *c, device_kind kind, const plan *p)
{
    const int    n = comm_size(c), rank = comm_rank(c);
    device      *dev = NULL;
    stream      *s = NULL;
    kv_exchange *x = NULL;
    device_opts  opts = DEVICE_OPTS_INIT;
    int64_t      before = comm_exchange_bytes(c);
    size_t       n_all = 0, at = 0;
    opts.kind = kind;
    opts.ordinal = comm_world_rank(c); /* of a GPU */
    for (int r = 0; r < n; r++) n_all += (size_t)p->n_rows[r] * ROW_FLOATS;
    const size_t n_mine = (size_t)p->n_rows[rank] * ROW_FLOATS;
    float *mine = NULL, *seen = malloc((n_all + 1) * sizeof(float));
    float *host = malloc((size_t)p->n_rounds * n_mine * sizeof(float) + 1);
    float *scribble = calloc(n_mine + 1, sizeof(float));
    CHECK(host != NULL && seen != NULL && scribble != NULL);
    for (int round = 0; round < p->n_rounds; round++)
        for (size_t i = 0; i < n_mine; i++, at++) host[at] = value_of(rank, round, i);
    CHECK(device_open(&dev, &opts) == ST_OK && stream_open(&s, dev) == ST_OK);
    CHECK(device_alloc(dev, n_mine * sizeof(float), "mine", (void **)&mine) == ST_OK);
    CHECK(kv_exchange_open(&x, &(kv_exchange_opts){.comm = c, .dev = dev, .n_rows = p->n_rows, .row_bytes = ROW_BYTES,
                                                   .schedule = p->schedule, .reverse_order = p->reverse}) == ST_OK);
    for (int round = 0; round < p->n_rounds; round++) {
        kv_block block;
        int      owners[MAX_RANKS], n_blocks = 0, want = 0;
        size_t   n_seen = 0;
        CHECK(stream_copy_in(s, mine, host + (size_t)round * n_mine, n_mine * sizeof(float)) == ST_OK);
        CHECK(kv_exchange_begin(x, s, mine) == ST_OK);
        for (;;) {
            CHECK(kv_exchange_next(x, s, &block) == ST_OK);
            if (block.data == NULL) break;
            CHECK(n_blocks < n && block.n_rows == p->n_rows[block.owner] && block.n_rows > 0);
            CHECK(stream_copy_out(s, seen + n_seen, block.data, (size_t)block.n_rows * ROW_BYTES) == ST_OK);
            n_seen += (size_t)block.n_rows * ROW_FLOATS;
            owners[n_blocks++] = block.owner;
        }
        CHECK(kv_exchange_end(x, s) == ST_OK);
        CHECK(stream_copy_in(s, mine, scribble, n_mine * sizeof(float)) == ST_OK); /* allowed from here on */
        if (round % 3 == 2) continue; /* rounds follow each other without a wait on the host, too */
        /* On the strict device whoever is waited for first runs as far ahead of the other as events allow. */
        if (round % 3 == 0) CHECK(kv_exchange_sync(x) == ST_OK);
        CHECK(stream_sync(s) == ST_OK && kv_exchange_sync(x) == ST_OK);
        n_seen = 0;
        for (int k = 0; k < n; k++) {
            const int    owner = p->schedule == EXCHANGE_NEIGHBOUR ? (rank - k + n) % n : p->reverse ? n - 1 - k : k;
            const size_t n_values = (size_t)p->n_rows[owner] * ROW_FLOATS;
            if (n_values == 0) continue;
            CHECK(want < n_blocks && owners[want++] == owner);
            for (size_t i = 0; i < n_values; i++) CHECK(seen[n_seen + i] == value_of(owner, round, i));
            n_seen += n_values;
        }
        CHECK(want == n_blocks);
    }
    CHECK(stream_sync(s) == ST_OK && kv_exchange_sync(x) == ST_OK);
    if (n == 1)
        CHECK(comm_exchange_bytes(c) == before);
    else
        CHECK(comm_exchange_bytes(c) - before == sent_by(rank, n, p));
    kv_exchange_close(x);
    device_free(dev, mine);
    stream_close(s);
    comm_close_channel(c);
    device_close(dev);
    free(host);
    free(seen);
    free(scribble);
}

/* The formula above against the plain one: each block travels over n - 1 links. */
static void bytes_sent_add_up(comm *c)
{
    const int n = comm_size(c);
    int64_t   total = 0, rows = 0;
    for (int r = 0; n > 1 && r < n; r++) total += sent_by(r, n, &UNEVEN), rows += UNEVEN.n_rows[r];
    CHECK(total == rows * ROW_BYTES * (n - 1) * UNEVEN.n_rounds);
}

/* One rank has no memory for the buffers: nobody is left waiting, all hear of it. */
static void an_exchange_that_one_rank_cannot_open(comm *c)
{
    const int    n = comm_size(c), rank = comm_rank(c);
    const int32_t n_rows[MAX_RANKS] = {7, 7, 7, 7, 7, 7, 7, 7};
    char         want[256];
    device      *dev = NULL;
    kv_exchange *x = NULL;
    device_opts  opts = DEVICE_OPTS_INIT;
    if (rank == n - 1) opts.limit_bytes = 1;
    CHECK(device_open(&dev, &opts) == ST_OK);
    status st = kv_exchange_open(&x, &(kv_exchange_opts){.comm = c, .dev = dev, .n_rows = n_rows, .row_bytes = 100});
    if (n == 1) {
        CHECK(st == ST_OK); /* alone there is nothing to buffer */
    } else {
        snprintf(want, sizeof(want), "rank %d (%s): buffers of keys and values: 1408 bytes refused", n - 1, comm_host(c));
        CHECK(st == ST_NO_MEMORY && x == NULL);
        CHECK(strncmp(err_text(), want, strlen(want)) == 0);
    }
    kv_exchange_close(x);
    comm_close_channel(c);
    device_close(dev);
}

/* Runs of bytes between all pairs of ranks: rank a sends b (a + 1) * 1000 + b bytes, all at once; also none at all. */
static void swaps(comm *c, device_kind kind)
{
    enum { MOST = 9 * 1000 };
    const int   n = comm_size(c), rank = comm_rank(c);
    uint8_t    *host = malloc(MAX_RANKS * MOST), *out = NULL, *in = NULL;
    device     *dev = NULL;
    stream     *s = NULL;
    message     sends[MAX_RANKS], receives[MAX_RANKS];
    int64_t     before = comm_exchange_bytes(c), want = 0;
    double      seconds = 0;
    device_opts opts = DEVICE_OPTS_INIT;
    opts.kind = kind;
    opts.ordinal = comm_world_rank(c); /* of a GPU */
    CHECK(host != NULL && device_open(&dev, &opts) == ST_OK && stream_open(&s, dev) == ST_OK);
    CHECK(device_alloc(dev, MAX_RANKS * MOST, "sends", (void **)&out) == ST_OK);
    CHECK(device_alloc(dev, MAX_RANKS * MOST, "receives", (void **)&in) == ST_OK);
    CHECK(comm_open_channel(c, dev, NULL) == ST_OK);
    memset(host, 255, MAX_RANKS * MOST);
    CHECK(stream_copy_in(s, in, host, MAX_RANKS * MOST) == ST_OK && stream_sync(s) == ST_OK);
    for (int r = 0; r < n; r++) {
        const size_t to = r == rank || r == 5 ? 0 : (size_t)(rank + 1) * 1000 + (size_t)r;
        const size_t from = r == rank || rank == 5 ? 0 : (size_t)(r + 1) * 1000 + (size_t)rank;
        for (size_t i = 0; i < to; i++) host[r * MOST + (int)i] = (uint8_t)(((size_t)(rank * 31 + r * 7) + i) % 251);
        sends[r] = (message){r, out + r * MOST, to};
        receives[r] = (message){r, in + r * MOST, from};
        want += (int64_t)to;
    }
    CHECK(stream_copy_in(s, out, host, MAX_RANKS * MOST) == ST_OK);
    CHECK(comm_put_swap(c, s, sends, n, receives, n, &(travel_log){.hop = -1, .seconds = &seconds}) == ST_OK);
    CHECK(stream_sync(s) == ST_OK); /* host is read until here */
    CHECK(stream_copy_out(s, host, in, MAX_RANKS * MOST) == ST_OK && stream_sync(s) == ST_OK);
    CHECK(comm_exchange_bytes(c) - before == want);
    CHECK(n == 1 || seconds > 0);
    for (int r = 0; r < n; r++) {
        for (size_t i = 0; i < receives[r].bytes; i++)
            CHECK(host[r * MOST + (int)i] == ((size_t)(r * 31 + rank * 7) + i) % 251);
        CHECK(host[r * MOST + (int)receives[r].bytes] == 255);
    }
    if (n == 1) { /* nobody to send to */
        CHECK(comm_put_swap(c, s, &(message){0, out, 1}, 1, NULL, 0, TRAVEL_LOG_NONE) == ST_COMM);
        CHECK(comm_put_chain(c, s, 0, out, 1, TRAVEL_LOG_NONE) == ST_OK);
    }
    device_free(dev, out);
    device_free(dev, in);
    stream_close(s);
    comm_close_channel(c);
    device_close(dev);
    free(host);
}

static status sleep_a_little(void *unused)
{
    (void)unused;
    usleep(50000);
    return ST_OK;
}

/* Two blocks of rank 0 on two streams; on one rank the first stream comes late. Each block still arrives in its own place. */
static void two_streams(comm *c, device_kind kind)
{
    enum { N = 50000 };
    const int   n = comm_size(c), rank = comm_rank(c);
    float      *host = malloc(2 * N * sizeof(float)), *blocks = NULL;
    device     *dev = NULL;
    stream     *late = NULL, *s = NULL;
    device_opts opts = DEVICE_OPTS_INIT;
    opts.kind = kind;
    opts.ordinal = comm_world_rank(c);
    CHECK(host != NULL && device_open(&dev, &opts) == ST_OK && stream_open(&late, dev) == ST_OK && stream_open(&s, dev) == ST_OK);
    CHECK(device_alloc(dev, 2 * N * sizeof(float), "blocks", (void **)&blocks) == ST_OK);
    CHECK(comm_open_channel(c, dev, NULL) == ST_OK);
    for (int i = 0; i < 2 * N; i++) host[i] = rank == 0 ? (float)i : -1;
    CHECK(stream_copy_in(s, blocks, host, 2 * N * sizeof(float)) == ST_OK && stream_sync(s) == ST_OK);
    if (rank == n - 1) CHECK(stream_call(late, sleep_a_little, NULL, 0) == ST_OK);
    CHECK(comm_put_chain(c, late, 0, blocks, N * sizeof(float), TRAVEL_LOG_NONE) == ST_OK);
    CHECK(comm_put_chain(c, s, 0, blocks + N, N * sizeof(float), TRAVEL_LOG_NONE) == ST_OK);
    CHECK(stream_sync(s) == ST_OK && stream_sync(late) == ST_OK);
    CHECK(stream_copy_out(s, host, blocks, 2 * N * sizeof(float)) == ST_OK && stream_sync(s) == ST_OK);
    for (int i = 0; i < 2 * N; i++) CHECK(host[i] == (float)i);
    device_free(dev, blocks);
    stream_close(late);
    stream_close(s);
    comm_close_channel(c);
    device_close(dev);
    free(host);
}

/* Every grid of n ranks: places, groups, and messages that name ranks as mpirun counts them. */
static void grids(comm *c)
{
    const int n = comm_size(c), rank = comm_rank(c);
    char      want[64];
    for (int replicas = 1; replicas <= n; replicas++)
        for (int ulysses = 1; replicas * ulysses <= n; ulysses++) {
            if (n % (replicas * ulysses) != 0) continue;
            const grid_shape shape = {replicas, ulysses, n / (replicas * ulysses)};
            comm_grid        g;
            CHECK(grid_shape_check(shape, n, 8) == ST_OK && grid_open(&g, c, shape) == ST_OK);
            /* One node: places are ranks. */
            CHECK(g.index == rank / (ulysses * shape.ring) && !g.nodes_crossed);
            CHECK(comm_size(g.replica) == ulysses * shape.ring && comm_rank(g.replica) == rank % (ulysses * shape.ring));
            CHECK(comm_size(g.ulysses) == ulysses && comm_rank(g.ulysses) == comm_rank(g.replica) % ulysses);
            CHECK(comm_size(g.ring) == shape.ring && comm_rank(g.ring) == comm_rank(g.replica) / ulysses);
            CHECK(comm_world_rank(g.ring) == rank);
            /* The last rank of each replica fails: only its replica hears of it, and under its world number. */
            const bool last = comm_rank(g.replica) == comm_size(g.replica) - 1;
            status     st = comm_agree(g.replica, last ? err_set(ST_OUTPUT, "full") : ST_OK);
            snprintf(want, sizeof(want), "rank %d (", (g.index + 1) * ulysses * shape.ring - 1);
            CHECK(st == ST_OUTPUT && (comm_size(g.replica) == 1 || strncmp(err_text(), want, strlen(want)) == 0));
            grid_close(&g);
        }
    CHECK(grid_shape_check((grid_shape){1, 1, n + 1}, n, 8) == ST_BAD_JOB);
    CHECK(grid_shape_check((grid_shape){1, n, 1}, n, n - 1) == ST_BAD_JOB);
}

/* ---- heads shared by ulysses: rows, heads and rings of all sizes */

enum { HEADS = 11, HEAD_FLOATS = 5 };

/* Element of a tensor (0 keys, 1 values, 2 queries, 3 outputs) at a row of the sequence: exact, different everywhere. */
static float element(int tensor, int round, int64_t row, int head, int i)
{
    return (float)((((tensor * 5 + round) * 1024 + row) * HEADS + head) * HEAD_FLOATS + i);
}

/* Attention is replaced by something that tells where its numbers came from: what a rank hands to its outputs is its
 * queries + 1. So every output must come home as the rank's own queries + 1, and all keys and values of its heads must have
 * been seen, in order. */
static void heads_and_rows(comm *c, device_kind kind, int ulysses, exchange_schedule schedule)
{
    enum { N_ROUNDS = 3, ALL = HEADS * HEAD_FLOATS };
    static const int32_t rows_of[MAX_RANKS] = {3, 0, 7, 1, 12, 0, 0, 5};
    const int     n = comm_size(c), rank = comm_rank(c);
    const size_t  n_mine = (size_t)rows_of[rank];
    const size_t  row_bytes = 2 * ALL * sizeof(float);
    device       *dev = NULL;
    stream       *s = NULL;
    kv_exchange  *x = NULL;
    device_opts   opts = DEVICE_OPTS_INIT;
    comm_grid     g;
    float        *kv = NULL, *q = NULL, *out = NULL, *host = malloc(64 * 3 * ALL * sizeof(float));
    float        *seen = malloc(64 * 2 * ALL * sizeof(float)), *home = malloc((n_mine + 1) * 2 * ALL * sizeof(float));
    int64_t       first = 0, total = 0;
    for (int r = 0; r < n; r++) total += rows_of[r];
    for (int r = 0; r < rank; r++) first += rows_of[r];
    opts.kind = kind;
    opts.ordinal = comm_world_rank(c); /* of a GPU */
    CHECK(grid_open(&g, c, (grid_shape){1, ulysses, n / ulysses}) == ST_OK);
    CHECK(device_open(&dev, &opts) == ST_OK && stream_open(&s, dev) == ST_OK && host != NULL && seen != NULL && home != NULL);
    CHECK(device_alloc(dev, n_mine * row_bytes, "kv", (void **)&kv) == ST_OK);
    CHECK(device_alloc(dev, n_mine * ALL * sizeof(float), "q", (void **)&q) == ST_OK);
    CHECK(device_alloc(dev, n_mine * 2 * ALL * sizeof(float), "out", (void **)&out) == ST_OK);
    memset(home, 0, (n_mine + 1) * 2 * ALL * sizeof(float)); /* rows of outputs lie apart: what is between is read too */
    CHECK(stream_copy_in(s, out, home, n_mine * 2 * ALL * sizeof(float)) == ST_OK && stream_sync(s) == ST_OK);
    const int64_t before = comm_exchange_bytes(c);
    CHECK(kv_exchange_open(&x, &(kv_exchange_opts){.comm = g.ring, .ulysses = g.ulysses, .dev = dev, .n_rows = rows_of,
                                                   .row_bytes = row_bytes, .n_heads = HEADS, .schedule = schedule}) == ST_OK);
    const exchange_share share = kv_exchange_share(x);
    const size_t ours = (size_t)share.n_heads * HEAD_FLOATS;
    for (int round = 0; round < N_ROUNDS; round++) {
        float *at = host;
        for (size_t row = 0; row < n_mine; row++)
            for (int t = 0; t < 2; t++)
                for (int i = 0; i < ALL; i++) *at++ = element(t, round, first + (int64_t)row, i / HEAD_FLOATS, i % HEAD_FLOATS);
        float *queries = at;
        for (size_t row = 0; row < n_mine; row++)
            for (int i = 0; i < ALL; i++) *at++ = element(2, round, first + (int64_t)row, i / HEAD_FLOATS, i % HEAD_FLOATS);
        CHECK(stream_copy_in(s, kv, host, n_mine * row_bytes) == ST_OK);
        CHECK(kv_exchange_begin(x, s, kv) == ST_OK);
        CHECK(stream_copy_in(s, q, queries, n_mine * ALL * sizeof(float)) == ST_OK);
        const void *shared = NULL;
        CHECK(kv_exchange_queries(x, s, q, &shared) == ST_OK);
        int32_t starts[MAX_RANKS], counts[MAX_RANKS];
        int     n_blocks = 0;
        size_t  n_seen = 0;
        for (;;) {
            kv_block block;
            CHECK(kv_exchange_next(x, s, &block) == ST_OK);
            if (block.data == NULL) break;
            starts[n_blocks] = block.first_row;
            counts[n_blocks++] = block.n_rows;
            CHECK(stream_copy_out(s, seen + n_seen, block.data, (size_t)block.n_rows * 2 * ours * sizeof(float)) == ST_OK);
            n_seen += (size_t)block.n_rows * 2 * ours;
        }
        const size_t n_shared = (size_t)share.n_rows * ours;
        float       *results = host + 48 * ALL; /* queries of at most 28 rows lie before */
        void        *to = kv_exchange_out(x) != NULL ? kv_exchange_out(x) : out;
        CHECK(stream_copy_out(s, results, shared, n_shared * sizeof(float)) == ST_OK && stream_sync(s) == ST_OK);
        for (size_t i = 0; i < n_shared; i++) {
            const int64_t row = share.first_row + (int64_t)(i / ours);
            const int     head = share.first_head + (int)(i % ours) / HEAD_FLOATS;
            CHECK(results[i] == element(2, round, row, head, (int)(i % HEAD_FLOATS)));
            results[i] += 1;
        }
        const size_t ld = kv_exchange_out(x) != NULL ? ALL : 2 * ALL;
        if (kv_exchange_out(x) != NULL)
            CHECK(stream_copy_in(s, to, results, n_shared * sizeof(float)) == ST_OK);
        else
            for (size_t row = 0; row < n_mine; row++)
                CHECK(stream_copy_in(s, out + row * ld, results + row * ALL, ALL * sizeof(float)) == ST_OK);
        CHECK(kv_exchange_output(x, s, out, 2 * ALL * sizeof(float)) == ST_OK);
        CHECK(kv_exchange_end(x, s) == ST_OK);
        CHECK(stream_copy_out(s, home, out, n_mine * 2 * ALL * sizeof(float)) == ST_OK);
        CHECK(stream_sync(s) == ST_OK && kv_exchange_sync(x) == ST_OK);
        for (size_t row = 0; row < n_mine; row++)
            for (int i = 0; i < ALL; i++)
                CHECK(home[row * 2 * ALL + (size_t)i] ==
                      element(2, round, first + (int64_t)row, i / HEAD_FLOATS, i % HEAD_FLOATS) + 1);
        const float *value = seen;
        int64_t      n_rows = 0;
        for (int b = 0; b < n_blocks; b++) {
            CHECK(schedule == EXCHANGE_NEIGHBOUR || starts[b] == n_rows);
            for (int32_t row = 0; row < counts[b]; row++)
                for (int t = 0; t < 2; t++)
                    for (size_t i = 0; i < ours; i++)
                        CHECK(*value++ == element(t, round, starts[b] + row, share.first_head + (int)i / HEAD_FLOATS,
                                                  (int)(i % HEAD_FLOATS)));
            n_rows += counts[b];
        }
        CHECK(n_rows == total);
    }
    const exchange_layout layout = {.n_members = n / ulysses, .member = comm_rank(g.ring), .n_ulysses = ulysses,
                                    .ulysses = comm_rank(g.ulysses), .n_rows = rows_of, .row_bytes = row_bytes,
                                    .n_heads = HEADS};
    CHECK(comm_exchange_bytes(c) - before == N_ROUNDS * exchange_bytes_sent(&layout, schedule));
    kv_exchange_close(x);
    device_free(dev, kv);
    device_free(dev, q);
    device_free(dev, out);
    stream_close(s);
    grid_close(&g);
    device_close(dev);
    free(host);
    free(seen);
    free(home);
}

/* All that moves device memory, on each kind of device. */
static void device_memory(comm *c, int n_ranks, const device_kind kinds[2])
{
    static const plan *const plans[] = {&UNEVEN, &REVERSED, &LAST_ONLY, &NOTHING, &CLASSIC, &CLASSIC_LAST};
    for (size_t k = 0; k < 2 && (k == 0 || kinds[k] != kinds[0]); k++)
        for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) exchange(c, kinds[k], plans[i]);
    if (n_ranks <= 3) exchange(c, kinds[0], &LARGE);
    for (size_t k = 0; k < 2 && (k == 0 || kinds[k] != kinds[0]); k++) {
        swaps(c, kinds[k]);
        two_streams(c, kinds[k]);
        for (int ulysses = 1; ulysses <= n_ranks; ulysses++)
            for (int schedule = 0; n_ranks % ulysses == 0 && schedule < 2; schedule++)
                heads_and_rows(c, kinds[k], ulysses, (exchange_schedule)schedule);
    }
}

/* The same for a device whose memory the host does not see: channels opened from now on stage what they send. */
static void staged_device_memory(comm *c, int n_ranks, const device_kind kinds[2])
{
    comm *part = NULL;
    c->stages = true;
    CHECK(comm_split(&part, c, 0, comm_rank(c)) == ST_OK);
    device_memory(part, n_ranks, kinds);
    comm_close(part);
    c->stages = false;
}

/* On GPUs only what moves device memory. */
static int worker(int argc, char **argv, int n_ranks, bool on_gpu)
{
    static const device_kind host_kinds[] = {DEVICE_CPU, DEVICE_STRICT}, gpu_kinds[] = {DEVICE_CUDA, DEVICE_CUDA};
    comm *c = NULL;
    if (comm_open(&c, &argc, &argv) != ST_OK) {
        fprintf(stderr, "%s\n", err_text());
        return 1;
    }
    CHECK(comm_size(c) == n_ranks); /* an mpirun of another MPI starts many ranks that are each alone */
    CHECK(comm_local_size(c) == n_ranks && comm_local_rank(c) == comm_rank(c));
    if (on_gpu) {
        device_memory(c, n_ranks, gpu_kinds);
        staged_device_memory(c, n_ranks, gpu_kinds);
        comm_close(c);
        return 0;
    }
    agreement(c);
    agreement_of_failures(c);
    c->transport->piece_bytes = 300007; /* more than a chunk of the exchange */
    broadcasts(c);
    c->transport->piece_bytes = 10007;
    rows_to_and_from_their_owners(c);
    c->transport->piece_bytes = 1 << 30;
    bytes_sent_add_up(c);
    device_memory(c, n_ranks, host_kinds);
    an_exchange_that_one_rank_cannot_open(c);
    grids(c);
    staged_device_memory(c, n_ranks, host_kinds);
    comm_close(c);
    return 0;
}

static const char *self;

/* With environment: on that many virtual GPUs. */
static void understand_each_other(int n_ranks, const char *environment)
{
    char        arguments[32];
    program_run run;
    snprintf(arguments, sizeof(arguments), "--worker %d%s", n_ranks, environment != NULL ? " gpu" : "");
#ifdef WITH_MPI
    const int launched = n_ranks;
#else
    const int launched = 0; /* without mpirun */
#endif
    program_start_other(&run, self, "/", environment, launched, 240, arguments);
    if (run.exit_code != 0) fail_msg("%d ranks: exit code %d\n%s", n_ranks, run.exit_code, run.output);
    program_run_free(&run);
}

static void ranks_understand_each_other(void **state)
{
    understand_each_other(*(const int *)*state, NULL);
}

static void gpus_understand_each_other(void **state)
{
    (void)state;
#if defined(WITH_NCCL) && defined(VGPU_DIR)
    static const int counts[] = {2, 3, 4, 8};
    for (unsigned i = 0; i < 4; i++) {
        char environment[1024];
        if (!program_full() && i != 1 && i != program_draw(900, 4)) continue;
        snprintf(environment, sizeof(environment), "LD_LIBRARY_PATH='%s' VGPU_DEVICES=%d VGPU_SEED=%u", VGPU_DIR, counts[i],
                 program_draw(910 + i, 1000));
        understand_each_other(counts[i], environment);
    }
#else
    print_message("not run: device memory between GPUs (built without CUDA, NCCL or MPI)\n");
#endif
}

int main(int argc, char **argv)
{
    static int counts[] = {1, 2, 3, 5, 8};
    const struct CMUnitTest tests[] = {
        {"one_rank_understands_itself", ranks_understand_each_other, NULL, NULL, &counts[0]},
#ifdef WITH_MPI
        {"2_ranks_understand_each_other", ranks_understand_each_other, NULL, NULL, &counts[1]},
        {"3_ranks_understand_each_other", ranks_understand_each_other, NULL, NULL, &counts[2]},
        {"5_ranks_understand_each_other", ranks_understand_each_other, NULL, NULL, &counts[3]},
        {"8_ranks_understand_each_other", ranks_understand_each_other, NULL, NULL, &counts[4]},
#endif
        cmocka_unit_test(gpus_understand_each_other),
    };
    if (argc > 2 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv, atoi(argv[2]), argc > 3);
    self = realpath("/proc/self/exe", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
