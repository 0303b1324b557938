/* The clerk hands out each ticket once, over all ranks, also while rank 0 is busy elsewhere; what ranks post arrives at
 * rank 0 whole and in order. The test starts itself under mpirun; `--worker N` is one of N. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "clerk.h"
#include "program.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "rank %d of %d, line %d: %s; last message: %s\n", comm_rank(c), comm_size(c), __LINE__,    \
                    #condition, err_text());                                                                           \
            comm_abort(c, 99);                                                                                         \
        }                                                                                                              \
    } while (0)

enum { N_TICKETS = 40, MAX_RANKS = 8, N_TEXTS = 50, LONG_TEXT = 300000 };

/* Each rank takes tickets until it gets one beyond the last. All of them together: 0 .. N_TICKETS - 1 + ranks, each once. */
static void each_ticket_once(comm *c, comm *part)
{
    const int n = comm_size(c);
    int       mine[N_TICKETS + MAX_RANKS], n_mine = 0, all[MAX_RANKS * (N_TICKETS + MAX_RANKS)];
    int       seen[N_TICKETS + MAX_RANKS] = {0};
    size_t    bytes[MAX_RANKS];
    for (int i = 0; i < N_TICKETS + MAX_RANKS; i++) mine[i] = -1;
    do {
        CHECK(clerk_next(part, &mine[n_mine]) == ST_OK);
        CHECK(n_mine == 0 || mine[n_mine] > mine[n_mine - 1]);
    } while (mine[n_mine++] < N_TICKETS);
    for (int r = 0; r < n; r++) bytes[r] = sizeof(mine);
    CHECK(comm_gather(c, 0, mine, bytes, all) == ST_OK);
    if (comm_rank(c) != 0) return;
    for (int i = 0; i < n * (N_TICKETS + MAX_RANKS); i++)
        if (all[i] >= 0) {
            CHECK(all[i] < N_TICKETS + n);
            seen[all[i]]++;
        }
    for (int i = 0; i < N_TICKETS + n; i++) CHECK(seen[i] == 1);
}

/* Rank 0's other threads wait for rank 1, which takes tickets first: it would never come otherwise. */
static void rank_0_may_be_busy(comm *c)
{
    const int rank = comm_rank(c);
    int       ticket = -1, before = -1;
    if (comm_size(c) == 1) return;
    if (rank == 1)
        for (int i = 0; i < 3; i++, before = ticket) CHECK(clerk_next(c, &ticket) == ST_OK && ticket > before);
    CHECK(comm_bcast(c, 1, &ticket, sizeof(ticket)) == ST_OK);
    CHECK(ticket >= 0);
}

typedef struct heard {
    int n[MAX_RANKS]; /* texts of each rank so far */
    int inside;       /* calls at this moment */
    int wrong;
} heard;

/* Text i of rank r: kind 10 r + i % 7, "r i", and every tenth with a long tail. */
static void text_of(int rank, int i, char *text)
{
    int n = snprintf(text, 64, "%d %d", rank, i);
    if (i % 10 == 9) {
        memset(text + n, 'a' + rank, LONG_TEXT);
        text[n + LONG_TEXT] = '\0';
    }
}

static void hear(void *context, int from, int kind, const char *text)
{
    static char want[LONG_TEXT + 64];
    heard      *h = context;
    if (h->inside++ != 0) h->wrong++;
    text_of(from, h->n[from], want);
    if (kind != 10 * from + h->n[from] % 7 || strcmp(text, want) != 0) h->wrong++;
    h->n[from]++;
    h->inside--;
}

static void texts_arrive_in_order(comm *c, comm *part)
{
    const int   n = comm_size(c), rank = comm_rank(c);
    static char text[LONG_TEXT + 64];
    heard       h = {0};
    if (rank == 0) clerk_listen(c, hear, &h);
    CHECK(comm_agree(c, ST_OK) == ST_OK); /* the listener is there */
    for (int half = 1; half <= 2; half++) {
        for (int i = (half - 1) * N_TEXTS / 2; i < half * N_TEXTS / 2; i++) {
            text_of(rank, i, text);
            CHECK(clerk_post(part, 10 * rank + i % 7, text) == ST_OK);
        }
        CHECK(clerk_settle(c) == ST_OK);
        CHECK(h.wrong == 0);
        for (int r = 0; rank == 0 && r < n; r++) CHECK(h.n[r] >= half * N_TEXTS / 2);
    }
    for (int r = 0; rank == 0 && r < n; r++) CHECK(h.n[r] == N_TEXTS);
    if (rank == 0) clerk_listen(c, NULL, NULL);
    CHECK(comm_agree(c, ST_OK) == ST_OK);
    CHECK(clerk_post(c, 0, "to nobody") == ST_OK);
}

static int worker(int argc, char **argv, int n_ranks)
{
    comm *c = NULL, *part = NULL;
    if (comm_open(&c, &argc, &argv) != ST_OK) return 1;
    CHECK(comm_size(c) == n_ranks);
    CHECK(comm_split(&part, c, comm_rank(c) % 2, 0) == ST_OK); /* any group will do */
    each_ticket_once(c, part);
    rank_0_may_be_busy(c);
    texts_arrive_in_order(c, part);
    comm_close(part);
    comm_close(c);
    return 0;
}

static const char *self;

static void the_clerk_serves_all(void **state)
{
    const int   n_ranks = *(const int *)*state;
    char        arguments[32];
    program_run run;
    snprintf(arguments, sizeof(arguments), "--worker %d", n_ranks);
#ifdef WITH_MPI
    const int launched = n_ranks;
#else
    const int launched = 0; /* without mpirun */
#endif
    program_start_other(&run, self, "/", NULL, launched, 120, arguments);
    if (run.exit_code != 0) fail_msg("%d ranks: exit code %d\n%s", n_ranks, run.exit_code, run.output);
    program_run_free(&run);
}

int main(int argc, char **argv)
{
    static int counts[] = {1, 2, 3, 8};
    const struct CMUnitTest tests[] = {
        {"the_clerk_serves_one_rank", the_clerk_serves_all, NULL, NULL, &counts[0]},
#ifdef WITH_MPI
        {"the_clerk_serves_2_ranks", the_clerk_serves_all, NULL, NULL, &counts[1]},
        {"the_clerk_serves_3_ranks", the_clerk_serves_all, NULL, NULL, &counts[2]},
        {"the_clerk_serves_8_ranks", the_clerk_serves_all, NULL, NULL, &counts[3]},
#endif
    };
    if (argc > 2 && strcmp(argv[1], "--worker") == 0) return worker(argc, argv, atoi(argv[2]));
    self = realpath("/proc/self/exe", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
