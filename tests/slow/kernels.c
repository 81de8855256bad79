/* More random graphs than tests/num/kernels.c, for every instruction set: the templates for any processor
 * too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/isa.h"
#include "tests/lib/oncpu.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { EACH = 32 };

/* Numbers from .. from + n - 1. */
static void run(const char *march, u64 from, u32 n)
{
        Trial t[EACH];
        Arena *a = arena_new();
        for (u32 i = 0; i < n; i++)
                t[i] = trial_random(a, from + i);
        trials_run(t, n, &(TrialOpt){march, 20});
        arena_free(a);
}

static void test_native(void **state)
{
        (void)state;
        run("native", 1000, EACH);
}
static void test_v3(void **state)
{
        (void)state;
        if (isa_have("x86-64-v3", NULL)) {
                print_message("this processor has no x86-64-v3\n");
                skip();
        }
        run("x86-64-v3", 2000, EACH);
}
static void test_any(void **state)
{
        (void)state;
        run("x86-64", 3000, EACH);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_native),
                cmocka_unit_test(test_v3),
                cmocka_unit_test(test_any),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
