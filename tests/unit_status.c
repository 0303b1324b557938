/* A message is kept with its numbers, per thread, until cleared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "dtype.h"
#include "status.h"

static void message_is_kept(void **state)
{
    (void)state;
    assert_int_equal(err_set(ST_BAD_MODEL, "layer %d: got %d, want %d", 4, 2048, 4096), ST_BAD_MODEL);
    assert_string_equal(err_text(), "layer 4: got 2048, want 4096");
    err_clear();
    assert_string_equal(err_text(), "");
}

/* A tensor's name is bytes from a file: it must not clear the screen or break the log's UTF-8. */
static void a_message_is_printable(void **state)
{
    (void)state;
    err_set(ST_BAD_MODEL, "%s", "a\x1b[2J\tb\nc\x7f \xc3\xa9 \xc2\x9b \xff \xc3");
    assert_string_equal(err_text(), "a?[2J\tb\nc? \xc3\xa9 ?? ? ?");
    err_clear();
}

static void exit_codes_are_the_documented_ones(void **state)
{
    (void)state;
    assert_int_equal(ST_BAD_JOB, 3);
    assert_int_equal(ST_BAD_MODEL, 4);
    assert_int_equal(ST_COMM, 6);
    assert_int_equal(ST_AGAIN, 75);
}

static void halves_convert_exactly(void **state)
{
    (void)state;
    /* 1 + 2^-8 is halfway between two bf16 values: to even, so down; 1 + 3*2^-8 goes up. */
    assert_int_equal(f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
    assert_true(f16_to_f32(0x3c00) == 1.0f);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(f16_to_f32(0xfbff) == -65504.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_is_kept),
        cmocka_unit_test(a_message_is_printable),
        cmocka_unit_test(exit_codes_are_the_documented_ones),
        cmocka_unit_test(halves_convert_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
