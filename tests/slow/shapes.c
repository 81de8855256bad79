/* Models of odd shapes, with every type in every matrix's place, for every instruction set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/isa.h"
#include "tests/lib/synth.h"
#include "tests/lib/tempdir.h"
#include <cmocka.h> /* last: its fail is a macro */

static void verify(const char *path, const Synth *s, const char *march, moec_act act)
{
        char why[4096];
        moec_options opt = {.cache_dir = "off", .act = act, .march = march};
        if (!synth_verify(s, path, &opt, why, sizeof why))
                fail_msg("shape %llu, march %s, %s: %s", (unsigned long long)s->seed, march,
                        act ? "f32" : "q8", why);
}

static void every_shape(const char *march, moec_act act)
{
        char dir[64], path[80];
        if (strcmp(march, "native") != 0 && isa_have(march, NULL)) {
                print_message("this processor has no %s\n", march);
                skip();
        }
        snprintf(path, sizeof path, "%s/model.gguf", temp_new(dir));
        for (u32 i = 0; i < N_SYNTH_ODD; i++) {
                Synth s = synth_odd(i);
                verify(path, &s, march, act);
        }
        temp_remove(dir);
}

static void test_any_q8(void **state)
{
        (void)state;
        every_shape("x86-64", MOEC_ACT_Q8);
}
static void test_any_f32(void **state)
{
        (void)state;
        every_shape("x86-64", MOEC_ACT_F32);
}
static void test_v3_q8(void **state)
{
        (void)state;
        every_shape("x86-64-v3", MOEC_ACT_Q8);
}
static void test_v3_f32(void **state)
{
        (void)state;
        every_shape("x86-64-v3", MOEC_ACT_F32);
}

/* 16 models, each type in each place once. */
static void test_places(void **state)
{
        char dir[64], path[80];
        (void)state;
        snprintf(path, sizeof path, "%s/model.gguf", temp_new(dir));
        for (u32 i = 0; i < N_WTYPE; i++) {
                Synth s = synth_small(W_F32);
                s.seed = 100 + i;
                for (u32 k = 0; k < N_SYNTH; k++)
                        s.type[k] = (Wtype)((i + k) % N_WTYPE);
                verify(path, &s, "native", MOEC_ACT_Q8);
        }
        temp_remove(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_any_q8),
                cmocka_unit_test(test_any_f32),
                cmocka_unit_test(test_v3_q8),
                cmocka_unit_test(test_v3_f32),
                cmocka_unit_test(test_places),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
