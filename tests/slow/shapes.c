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

enum { TOKENS = 40 };

/* layers, width, heads, kv_heads, dk, dv, rdim, experts, used, ff, vocab; types: the first, then one further
 * a matrix. */
static const struct {
        u32 n[11];
        Wtype first;
        bool tied;
} shape[] = {
        {{1, 256, 4, 2, 64, 64, 64, 5, 2, 256, 64}, W_F32, true},
        {{2, 256, 3, 1, 72, 72, 72, 7, 3, 96, 257}, W_Q4_0, false},
        {{1, 512, 8, 8, 40, 40, 20, 3, 1, 256, 1003}, W_Q8_0, false},
        {{3, 96, 6, 3, 96, 64, 96, 60, 5, 32, 257}, W_Q4_1, false},
        {{1, 160, 5, 1, 10, 6, 4, 5, 5, 96, 1003}, W_Q5_0, true},
        {{2, 256, 2, 1, 128, 256, 128, 7, 4, 512, 65}, W_Q2_K, false},
        {{1, 320, 12, 4, 80, 96, 80, 4, 1, 64, 33}, W_IQ4_NL, false},
        {{1, 40, 2, 2, 24, 40, 24, 3, 2, 24, 9}, W_F16, false},
        {{1, 512, 16, 2, 32, 48, 16, 129, 8, 96, 257}, W_Q6_K, false},
        {{1, 768, 4, 4, 64, 64, 64, 6, 2, 768, 511}, W_IQ4_XS, false},
        {{2, 64, 1, 1, 64, 64, 64, 1, 1, 32, 64}, W_MXFP4, false},
        {{1, 288, 9, 3, 50, 32, 50, 13, 3, 160, 127}, W_Q5_1, false},
};

/* Random weights amplify what is rounded more than trained ones do: with q8 every launch must be right, but
 * the logits have bounds of their own. */
static void verify(const char *path, const Synth *s, const char *march, moec_act act)
{
        moec_error e = {0};
        moec_model *m;
        moec_verify_report r;
        char *text = NULL;
        i32 ids[TOKENS];
        moec_options opt = {.cache_dir = "off", .act = act, .march = march};
        for (u32 i = 0; i < TOKENS; i++)
                ids[i] = (i32)((7 + 5 * i) % s->vocab);
        if (moec_open(path, &opt, &m, &e))
                fail_msg("%s", e.msg);
        moec_status st = moec_verify(m, &opt, ids, TOKENS, "text", &r, &text, &e);
        bool good = act == MOEC_ACT_F32
                            ? st == MOEC_OK
                            : text && !strstr(text, "diverges") && r.min_cosine >= 0.998 && r.mean_kl <= 2e-3;
        if (!good)
                fail_msg("shape %llu, march %s, %s: %s", (unsigned long long)s->seed, march,
                        act ? "f32" : "q8", text ? text : e.msg);
        moec_free(text);
        moec_close(m);
}

static void every_shape(const char *march, moec_act act)
{
        char dir[64], path[80];
        if (strcmp(march, "native") != 0 && isa_have(march, NULL)) {
                print_message("this processor has no %s\n", march);
                skip();
        }
        snprintf(path, sizeof path, "%s/model.gguf", temp_new(dir));
        for (u32 i = 0; i < COUNT(shape); i++) {
                const u32 *n = shape[i].n;
                Synth s = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10],
                        .tied = shape[i].tied, .seed = i};
                for (u32 k = 0; k < N_SYNTH; k++)
                        s.type[k] = (Wtype)((shape[i].first + k) % N_WTYPE);
                synth_write(&s, path);
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
                synth_write(&s, path);
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
