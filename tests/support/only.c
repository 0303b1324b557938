/* DYPE_TEST_ONLY=pattern: of a test program, only the tests whose names match (* and ?). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

/* The linker is told to want this name: nothing else here is referred to. */
void test_only(void);

__attribute__((constructor)) void test_only(void)
{
    const char *pattern = getenv("DYPE_TEST_ONLY");
    if (pattern != NULL) cmocka_set_test_filter(pattern);
}
