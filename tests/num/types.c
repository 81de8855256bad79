/* Every type of weights, from the file to the logits: small models in which each type takes several matrices'
 * places. tests/slow/shapes.c has every type in every place, and odd shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/lib/synth.h"
#include "tests/lib/tempdir.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { MODELS = 4, TOKENS = 12 };

static void verify(const Synth *s, moec_act act)
{
        char dir[64], path[80];
        moec_error e = {0};
        moec_model *m;
        moec_verify_report r;
        i32 ids[TOKENS];
        char *text = NULL;
        temp_new(dir);
        snprintf(path, sizeof path, "%s/model.gguf", dir);
        synth_write(s, path);
        for (u32 i = 0; i < TOKENS; i++)
                ids[i] = (i32)((7 + 5 * i) % s->vocab);
        moec_options opt = {.cache_dir = "off", .act = act};
        if (moec_open(path, &opt, &m, &e))
                fail_msg("%s", e.msg);
        moec_status st = moec_verify(m, &opt, ids, TOKENS, "text", &r, &text, &e);
        print_message("seed %llu: %s", (unsigned long long)s->seed, text ? text : e.msg);
        moec_free(text);
        moec_close(m);
        temp_remove(dir);
        assert_int_equal(st, MOEC_OK);
        assert_true(r.passed);
}

static void test_types(moec_act act)
{
        bool seen[N_WTYPE] = {false};
        for (u32 i = 0; i < MODELS; i++) {
                Synth s = synth_small(W_F32);
                s.seed = i;
                s.tied = i % 2;
                for (u32 k = 0; k < N_SYNTH; k++) {
                        s.type[k] = (Wtype)((i * N_WTYPE / MODELS + k) % N_WTYPE);
                        seen[s.type[k]] = true;
                }
                verify(&s, act);
        }
        for (int t = 0; t < N_WTYPE; t++)
                assert_true(seen[t]);
}

static void test_q8(void **state)
{
        (void)state;
        test_types(MOEC_ACT_Q8);
}
static void test_f32(void **state)
{
        (void)state;
        test_types(MOEC_ACT_F32);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_q8),
                cmocka_unit_test(test_f32),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
