/* Whom the watchdog finds silent, by a clock made by hand: 10 seconds are the limit, it is second 100. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "service.h"

enum { N = 3 };

typedef struct verdict_row {
    double          heard[N], still_s[N]; /* of each rank */
    int             waits[N];
    watchdog_reason reason;
    int             silent[N];
} verdict_row;

static const verdict_row rows[] = {
    /* All is well: work; long waits for one that works; long stillness that is still within the limit. */
    {{99.5, 99.5, 99.5}, {0, 0, 0}, {0, 0, 0}, WATCHDOG_FINE, {0, 0, 0}},
    {{99.5, 99.5, 99.5}, {0, 500, 500}, {0, 1, 1}, WATCHDOG_FINE, {0, 0, 0}},
    {{99.5, 99.5, 99.5}, {0, 500, 500}, {1, 1, 1}, WATCHDOG_FINE, {0, 0, 0}},
    {{90.1, 99.5, 99.5}, {9.9, 0, 0}, {0, 0, 0}, WATCHDOG_FINE, {0, 0, 0}},
    {{99.5, 99.5, 99.5}, {9.9, 500, 500}, {1, 1, 1}, WATCHDOG_FINE, {0, 0, 0}},
    /* Not heard. It explains why others stand still, so it alone is named. */
    {{99.5, 89.9, 99.5}, {0, 0, 0}, {0, 0, 0}, WATCHDOG_NO_RECORD, {0, 1, 0}},
    {{99.5, 89.9, 99.5}, {50, 0, 50}, {1, 0, 1}, WATCHDOG_NO_RECORD, {0, 1, 0}},
    {{99.5, 89.9, 99.5}, {50, 0, 50}, {0, 0, 1}, WATCHDOG_NO_RECORD, {0, 1, 0}},
    {{99.5, 89.9, 80.0}, {0, 0, 0}, {1, 1, 1}, WATCHDOG_NO_RECORD, {0, 1, 1}},
    /* Nothing moves: who waits is not to blame. */
    {{99.5, 99.5, 99.5}, {500, 10.1, 500}, {1, 0, 2}, WATCHDOG_STILL, {0, 1, 0}},
    {{99.5, 99.5, 99.5}, {0, 10.1, 0}, {0, 0, 0}, WATCHDOG_STILL, {0, 1, 0}},
    {{99.5, 99.5, 99.5}, {11, 10.1, 500}, {0, 0, 1}, WATCHDOG_STILL, {1, 1, 0}},
    /* All wait. */
    {{99.5, 99.5, 99.5}, {11, 12, 10.1}, {1, 2, 1}, WATCHDOG_DEADLOCK, {1, 1, 1}},
};

static void the_silent_are_named_and_no_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        watchdog_seat seats[N] = {0};
        bool          silent[N];
        for (int r = 0; r < N; r++) {
            seats[r].heard = rows[i].heard[r];
            seats[r].record = (watchdog_record){.rank = r, .still_s = rows[i].still_s[r], .waits = rows[i].waits[r]};
        }
        watchdog_reason got = watchdog_judge(seats, N, 100, 10, silent);
        if (got != rows[i].reason) fail_msg("row %zu: got %d, want %d", i, (int)got, (int)rows[i].reason);
        for (int r = 0; r < N; r++)
            if (silent[r] != (rows[i].silent[r] == 1))
                fail_msg("row %zu, rank %d: got %d, want %d", i, r, silent[r], rows[i].silent[r]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_silent_are_named_and_no_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
