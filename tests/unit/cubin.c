/* What is read of a CUBIN; and nothing beyond its end, however it is damaged. */
#include "codegen/cubin.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/fake/elf.h"

static void adds_up(void **state)
{
        (void)state;
        _Alignas(8) u8 p[FAKE_ELF];
        u64 n;
        fake_elf(p, "k_route", 1000, 70000);
        assert_true(cubin_shared(p, sizeof p, "k_route", &n));
        assert_int_equal(n, 71000);
        assert_true(cubin_shared(p, sizeof p, "k_rout", &n));
        assert_int_equal(n, 0);
        assert_false(cubin_shared("code", 4, "k_route", &n));
        assert_false(cubin_shared(NULL, 0, "k_route", &n));
}

/* In memory that ends where the file does. */
static void ends_anywhere(void **state)
{
        (void)state;
        _Alignas(8) u8 p[FAKE_ELF];
        fake_elf(p, "k_route", 1000, 70000);
        for (u64 len = 0; len < sizeof p; len++) {
                u8 *q = malloc(len + 1);
                u64 n;
                memcpy(q, p, len);
                bool elf = cubin_shared(q, len, "k_route", &n);
                assert_true(len >= 384 || !elf);
                free(q);
        }
}

static void any_byte_is_wrong(void **state)
{
        static const u8 wrong[] = {0, 1, 0x7f, 0x80, 0xff};
        (void)state;
        u8 *p = malloc(FAKE_ELF);
        for (u32 i = 0; i < FAKE_ELF; i++)
                for (u32 k = 0; k < COUNT(wrong); k++) {
                        u64 n;
                        fake_elf(p, "k_route", 1000, 70000);
                        p[i] = wrong[k];
                        cubin_shared(p, FAKE_ELF, "k_route", &n);
                }
        free(p);
}

static void limits(void **state)
{
        static const u32 of[][2] = {{80, 163}, {86, 99}, {87, 163}, {89, 99}, {90, 227}, {100, 227},
                {103, 227}, {110, 227}, {120, 99}, {121, 99}};
        (void)state;
        for (u32 i = 0; i < COUNT(of); i++)
                assert_int_equal(cubin_shared_most(of[i][0]), of[i][1] << 10);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(adds_up), cmocka_unit_test(ends_anywhere),
                cmocka_unit_test(any_byte_is_wrong), cmocka_unit_test(limits)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
