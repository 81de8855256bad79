/* The CPU target on whole models: against the interpreter, and against itself where the same bits are
 * promised. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/models.h"
#include "tests/lib/tempdir.h"
#include <cmocka.h> /* last: its fail is a macro */

static char cache[64]; /* for all tests */

static moec_options options(moec_act act)
{
        return (moec_options){
                .cache_dir = cache, .act = act, .n_ctx = 512, .n_batch = 512, .max_seqs = 3, .threads = 2};
}

/* ---- against the interpreter ---- */

/* How far llama.cpp itself is from exact: the mean KL of prompt 3. Ours may be 1.25 times that. */
static double llama_kl(const char *name)
{
        static const struct {
                const char *type;
                double kl;
        } known[] = {{"Q8_0", 3.5e-4}, {"Q5_K_M", 1.4e-3}, {"Q4_K_M", 1.5e-3}, {"Q4_0", 1.4e-3},
                {"IQ4_XS", 1.7e-3}, {"Q2_K", 3.2e-3}};
        for (size_t i = 0; i < COUNT(known); i++)
                if (strstr(name, known[i].type))
                        return known[i].kl;
        return INFINITY;
}

static moec_model *open_model(const TestModel *m)
{
        moec_model *model;
        moec_error e;
        if (moec_open(m->path, NULL, &model, &e))
                fail_msg("%s", e.msg);
        return model;
}

static moec_verify_report verify(const TestModel *m, const moec_options *opt)
{
        i32 ids[MAX_PROMPT];
        u32 n = test_prompt(3, ids);
        moec_model *model = open_model(m);
        moec_verify_report r;
        moec_error e;
        char *text = NULL;
        assert_true(n > 200);
        if (moec_verify(model, opt, ids, (int)n, "text", &r, &text, &e))
                fail_msg("%s: %s\n%s", m->name, e.msg, text ? text : "");
        moec_free(text);
        moec_close(model);
        assert_true(r.passed);
        assert_int_equal(r.n_tokens, n);
        return r;
}

static void test_q8(void **state)
{
        const TestModel *m = *state;
        moec_options opt = options(MOEC_ACT_Q8);
        moec_verify_report r = verify(m, &opt);
        double bound = 1.25 * llama_kl(m->name);
        print_message(
                "%s q8: mean KL %.3g pinned, %.3g with own routes (bound %.3g), argmax agrees %.2f %%\n",
                m->name, r.mean_kl, r.mean_kl_free, bound, 100 * r.argmax_agree_free);
        assert_true(r.mean_kl_free <= bound);
        assert_true(r.argmax_agree_free >= 0.97);
}

static void test_f32(void **state)
{
        const TestModel *m = *state;
        moec_options opt = options(MOEC_ACT_F32);
        moec_verify_report r = verify(m, &opt);
        print_message("%s f32: min cosine %.7f, mean KL %.3g\n", m->name, r.min_cosine, r.mean_kl);
        opt.ctk = opt.ctv = "f32";
        r = verify(m, &opt);
        assert_true(r.max_rel <= 1e-4); /* with nothing rounded but by sums */
}

/* ---- against itself ---- */

enum { MAX_STEP = 64, MAX_KEPT = 1024 };

/* A context whose logits of one sequence are kept, all of them, in order. */
typedef struct Run {
        moec_model *model;
        moec_context *ctx;
        u32 n_vocab, n;
        float *kept; /* [n, n_vocab] */
} Run;

static Run run_open(const TestModel *m, const moec_options *opt)
{
        Run r = {.model = open_model(m)};
        moec_info info;
        moec_error e;
        moec_get_info(r.model, &info);
        if (moec_load(r.model, opt, &r.ctx, &e))
                fail_msg("%s", e.msg);
        r.n_vocab = (u32)info.n_vocab;
        r.kept = xmalloc(sizeof(float) * MAX_KEPT * r.n_vocab);
        return r;
}

static void run_close(Run *r)
{
        free(r->kept);
        moec_unload(r->ctx);
        moec_close(r->model);
}

static void keep(Run *r, const float *logits, u32 n)
{
        assert_true(r->n + n <= MAX_KEPT);
        memcpy(r->kept + (u64)r->n * r->n_vocab, logits, sizeof(float) * n * r->n_vocab);
        r->n += n;
}

/* n tokens of seq in one step. */
static void feed(Run *r, int seq, const i32 *ids, u32 n)
{
        moec_token t[512];
        const float *logits;
        moec_error e;
        for (u32 i = 0; i < n; i++)
                t[i] = (moec_token){ids[i], seq, true};
        if (moec_step(r->ctx, t, (int)n, &logits, &e))
                fail_msg("%s", e.msg);
        keep(r, logits, n);
}

/* One step of several sequences, taking turns; seq s has count[s] tokens from ids[s]. Keeps sequence 0's
 * logits. */
static void feed_mixed(Run *r, const i32 *const ids[3], const u32 count[3])
{
        moec_token t[3 * MAX_STEP];
        u32 n = 0, at[3] = {0};
        const float *logits;
        moec_error e;
        while (at[0] < count[0] || at[1] < count[1] || at[2] < count[2])
                for (int s = 0; s < 3; s++)
                        if (at[s] < count[s])
                                t[n++] = (moec_token){ids[s][at[s]++], s, s == 0};
        if (moec_step(r->ctx, t, (int)n, &logits, &e))
                fail_msg("%s", e.msg);
        keep(r, logits, count[0]);
}

static double kl(const float *p, const float *q, u32 n)
{
        double tp = -INFINITY, tq = -INFINITY, sp = 0, sq = 0, sum = 0;
        for (u32 i = 0; i < n; i++) {
                tp = fmax(tp, (double)p[i]);
                tq = fmax(tq, (double)q[i]);
        }
        for (u32 i = 0; i < n; i++) {
                sp += exp((double)p[i] - tp);
                sq += exp((double)q[i] - tq);
        }
        for (u32 i = 0; i < n; i++) {
                double lp = (double)p[i] - tp - log(sp), lq = (double)q[i] - tq - log(sq);
                sum += exp(lp) * (lp - lq);
        }
        return sum;
}

static void assert_same(const Run *a, const Run *b, const char *what)
{
        assert_int_equal(a->n, b->n);
        for (u32 i = 0; i < a->n; i++)
                if (memcmp(a->kept + (u64)i * a->n_vocab, b->kept + (u64)i * a->n_vocab,
                            sizeof(float) * a->n_vocab) != 0)
                        fail_msg("%s: other bits at position %u of %u", what, i, a->n);
}

/* The same but for roundings, which may flip a route: mean KL, as the design bounds it. */
static void assert_close(const Run *a, const Run *b, moec_act act, const char *what)
{
        double sum = 0, bound = act == MOEC_ACT_F32 ? 1e-6 : 1e-3;
        assert_int_equal(a->n, b->n);
        for (u32 i = 0; i < a->n; i++)
                sum += kl(a->kept + (u64)i * a->n_vocab, b->kept + (u64)i * a->n_vocab, a->n_vocab);
        if (!(sum / a->n <= bound))
                fail_msg("%s: mean KL %.3g, bound %.0e", what, sum / a->n, bound);
        print_message("%s: mean KL %.3g\n", what, sum / a->n);
}

/* A prompt, then one token after the other. */
static void prompt_and_decode(Run *r)
{
        i32 ids[MAX_PROMPT];
        u32 n = test_prompt(3, ids);
        assert_true(n > 130);
        feed(r, 0, ids, 67);
        feed(r, 0, ids + 67, 2);
        feed(r, 0, ids + 69, 31);
        for (u32 i = 100; i < 124; i++)
                feed(r, 0, ids + i, 1);
}

static void test_threads(void **state)
{
        static const int threads[] = {2, 3, 5, 16};
        moec_options opt = options(MOEC_ACT_Q8);
        opt.threads = 1;
        Run one = run_open(*state, &opt);
        prompt_and_decode(&one);
        for (size_t i = 0; i < COUNT(threads); i++) {
                opt.threads = threads[i];
                Run r = run_open(*state, &opt);
                prompt_and_decode(&r);
                assert_same(&one, &r, "threads");
                run_close(&r);
        }
        opt.debug = true;
        Run r = run_open(*state, &opt);
        prompt_and_decode(&r);
        assert_same(&one, &r, "values that share no memory");
        run_close(&r);
        run_close(&one);
}

/* Rounds of sequence 0 beside two others that have `others` of their tokens changed. */
static void mixed_rounds(Run *r, const i32 *ids, i32 others)
{
        i32 mine[3][MAX_STEP];
        static const u32 rounds[][3] = {
                {20, 7, 11}, {1, 1, 1}, {1, 0, 30}, {13, 5, 0}, {1, 1, 1}, {2, 16, 1}, {5, 5, 5}};
        u32 at = 0;
        for (size_t i = 0; i < COUNT(rounds); i++) {
                const i32 *const from[3] = {mine[0], mine[1], mine[2]};
                for (u32 k = 0; k < MAX_STEP; k++) {
                        mine[0][k] = ids[at + k];
                        mine[1][k] = (ids[k] + others * (i32)(k + 1)) % (i32)r->n_vocab;
                        mine[2][k] = (ids[2 * k] + others * 17) % (i32)r->n_vocab;
                }
                feed_mixed(r, from, rounds[i]);
                at += rounds[i][0];
        }
}

static void test_others_contents(void **state)
{
        i32 ids[MAX_PROMPT];
        moec_options opt = options(MOEC_ACT_Q8);
        test_prompt(3, ids);
        Run a = run_open(*state, &opt), b = run_open(*state, &opt);
        mixed_rounds(&a, ids, 0);
        mixed_rounds(&b, ids, 5);
        assert_same(&a, &b, "other sequences' contents");
        run_close(&a);
        run_close(&b);
}

/* Alone, sequence 0's tokens of several go the same way as beside others; one alone goes through decode. */
static void interleaved(const TestModel *m, moec_act act)
{
        static const u32 part[] = {24, 2, 9, 17, 3, 30};
        i32 ids[MAX_PROMPT];
        moec_options opt = options(act);
        test_prompt(3, ids);
        Run alone = run_open(m, &opt), mixed = run_open(m, &opt);
        u32 at = 0;
        for (size_t i = 0; i < COUNT(part); at += part[i++]) {
                const i32 *const from[3] = {ids + at, ids + 100, ids + 30 + i};
                feed(&alone, 0, ids + at, part[i]);
                feed_mixed(&mixed, from, (u32[3]){part[i], 11, (u32)i});
        }
        assert_same(&alone, &mixed, "alone and interleaved");
        for (u32 i = 0; i < 20; i++, at++) {
                const i32 *const from[3] = {ids + at, ids + at, ids};
                feed(&alone, 0, ids + at, 1);
                feed_mixed(&mixed, from, (u32[3]){1, 1, 0});
        }
        assert_close(&alone, &mixed, act, "decoded alone and interleaved");
        run_close(&alone);
        run_close(&mixed);
}

static void test_interleaved(void **state)
{
        interleaved(*state, MOEC_ACT_Q8);
        interleaved(*state, MOEC_ACT_F32);
}

static void chunked(const TestModel *m, moec_act act)
{
        i32 ids[MAX_PROMPT];
        moec_options opt = options(act);
        u32 n = test_prompt(3, ids);
        moec_token t[33];
        moec_error e;
        const float *logits;
        Run whole = run_open(m, &opt);
        feed(&whole, 0, ids, n);
        opt.n_batch = 32;
        Run parts = run_open(m, &opt);
        for (u32 i = 0; i < 33; i++)
                t[i] = (moec_token){ids[i], 0, true};
        assert_int_equal(moec_step(parts.ctx, t, 33, &logits, &e), MOEC_REFUSED);
        assert_int_equal(moec_seq_len(parts.ctx, 0), 0);
        for (u32 i = 0; i < n; i += 32)
                feed(&parts, 0, ids + i, MIN(32, n - i));
        assert_close(&whole, &parts, act, "whole and by 32");
        run_close(&whole);
        run_close(&parts);
}

static void test_chunked(void **state)
{
        chunked(*state, MOEC_ACT_Q8);
        chunked(*state, MOEC_ACT_F32);
}

/* From token 40 on: steps of several, then of one. */
static void tail(Run *r, const i32 *ids)
{
        r->n = 0;
        feed(r, 0, ids + 40, 23);
        for (u32 i = 63; i < 70; i++)
                feed(r, 0, ids + i, 1);
}

static void test_trim(void **state)
{
        i32 ids[MAX_PROMPT];
        moec_options opt = options(MOEC_ACT_Q8);
        moec_error e;
        test_prompt(3, ids);
        Run first = run_open(*state, &opt), again = run_open(*state, &opt);
        feed(&first, 0, ids, 40);
        tail(&first, ids);
        feed(&again, 0, ids, 40);
        feed(&again, 1, ids + 9, 50);
        feed(&again, 0, ids + 100, 60); /* what is to be forgotten */
        assert_int_equal(moec_seq_len(again.ctx, 0), 100);
        assert_int_equal(moec_seq_trim(again.ctx, 0, 40, &e), MOEC_OK);
        assert_int_equal(moec_seq_len(again.ctx, 0), 40);
        assert_int_equal(moec_seq_len(again.ctx, 1), 50);
        tail(&again, ids);
        assert_same(&first, &again, "after a trim");
        run_close(&first);
        run_close(&again);
}

int main(void)
{
        static const struct {
                const char *what;
                CMUnitTestFunction f;
        } test[] = {{"q8", test_q8}, {"f32", test_f32}, {"threads", test_threads},
                {"contents", test_others_contents}, {"interleaved", test_interleaved},
                {"chunked", test_chunked}, {"trim", test_trim}};
        static TestModel model[MAX_MODELS];
        static char name[MAX_MODELS * COUNT(test)][160];
        struct CMUnitTest tests[MAX_MODELS * COUNT(test)];
        u32 n = test_models(model), k = 0;
        for (u32 i = 0; i < n; i++)
                for (size_t j = 0; j < COUNT(test); j++, k++) {
                        snprintf(name[k], sizeof name[k], "%.120s %s", model[i].name, test[j].what);
                        tests[k] = (struct CMUnitTest){name[k], test[j].f, NULL, NULL, &model[i]};
                }
        temp_new(cache);
        int rc = _cmocka_run_group_tests("cpu", tests, k, NULL, NULL);
        temp_remove(cache);
        return rc;
}
