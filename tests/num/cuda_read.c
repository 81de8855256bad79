/* The CUDA kernel that reads memory, on the CPU: every part once, whatever their number, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "tests/lib/oncuda.h"
#include <cmocka.h>

enum { THREADS = 512, WARPS = THREADS / 32, BLOCKS = 3, ALL = BLOCKS * THREADS };

static void reads_all(Fibred *fn, Sel *s, u32 parts, bool backward)
{
        const KernelDim dim = {1, 1, 1, 1};
        Mem from = mem_new(16 * parts, MEM_IN), sink = mem_new(4 * BLOCKS * WARPS, MEM_OUT),
            n = {.p = (u8 *)(uintptr_t)parts}, blocks = {.p = (u8 *)(uintptr_t)BLOCKS};
        Mem *const arg[] = {&from, &n, &sink, &blocks};
        const u32 *left = (const u32 *)(const void *)sink.p;
        u32 *p = (u32 *)(void *)from.p, sum = 0;
        for (u32 i = 0; i < 4 * parts; i++)
                sum ^= p[i] = (i + 1) * 2654435761u;
        const char *wrong = oncuda_run(fn, s, arg, &dim, backward);
        if (wrong)
                fail_msg("%u parts: %s", parts, wrong);
        for (u32 i = 0; i < BLOCKS * WARPS; i++)
                sum ^= left[i];
        if (sum)
                fail_msg("%u parts: others were read", parts);
        mem_free(&from);
        mem_free(&sink);
}

static void test_read(void **state)
{
        static const u32 parts[] = {1, ALL - 1, ALL, 7 * ALL + 1, 8 * ALL, 8 * ALL + 1, 17 * ALL - 5};
        Arena *a = arena_new();
        Sel s;
        Fibred *fn;
        (void)state;
        assert_true(select_util(a, PLAN_read, TARGET_cuda, &s));
        assert_int_equal(s.threads, THREADS);
        s.mul[0] = BLOCKS;
        OnCuda *o = oncuda_new(a, &s.key, 1, &fn);
        if (!o) {
                arena_free(a);
                print_message("no C++ compiler\n");
                skip();
        }
        for (u32 i = 0; i < COUNT(parts); i++)
                reads_all(fn, &s, parts[i], i % 2);
        oncuda_free(o);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_read)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
