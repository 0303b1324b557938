/* When weights are read in parts: the rule against seconds worked out the long way. That they then arrive, in the same bits,
 * is seen by ranks_cuda. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "weight_parts.h"

/* 17 GB over each rank's own link to the host, or an n-th of them over it and the rest over the link between GPUs. */
static void parts_pay_when_they_take_less_time(void **state)
{
    static const struct {
        double link, host_link;
    } cases[] = {{360e9, 40e9}, {20e9, 20e9}, {21e9, 20e9}, {7e9, 20e9}, {240e9, 20e9}};
    const double bytes = 17e9;
    const char  *why = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int n = 2; n <= 8; n++) {
            const machine on = {.link = cases[i].link, .host_link = cases[i].host_link};
            const double  alone = bytes / on.host_link, parts = bytes / n / on.host_link + bytes * (n - 1) / n / on.link;
            assert_true(weight_parts_pay(n, n, &on, &why) == (parts < alone * (1 - 1e-12)));
        }
}

static void one_rank_reads_alone_and_nodes_share_out(void **state)
{
    const machine fast = {.link = 360e9, .host_link = 40e9}, slow = {.link = 1e9, .host_link = 40e9}, none = {.link = 0};
    const machine alone = {.link = INFINITY, .host_link = 40e9}; /* as one rank measures it */
    const char   *why = NULL;
    (void)state;
    assert_false(weight_parts_pay(1, 1, &alone, &why));
    assert_true(weight_parts_pay(4, 2, &slow, &why));
    assert_string_equal(why, "several nodes");
    assert_true(weight_parts_pay(4, 2, NULL, &why));
    assert_false(weight_parts_pay(4, 4, NULL, &why));
    assert_false(weight_parts_pay(4, 4, &none, &why));
    assert_non_null(strstr(why, "one node"));
    assert_true(weight_parts_pay(4, 4, &fast, &why));
    assert_non_null(strstr(why, "faster"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_pay_when_they_take_less_time),
        cmocka_unit_test(one_rank_reads_alone_and_nodes_share_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
