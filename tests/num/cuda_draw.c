/* The kernel that draws tokens, run on the CPU (tests/lib/oncuda.h): the very token of runtime/sample.c, or
 * the same error, from random, tied, flat, huge and damaged logits, at random settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/sample.h"
#include "tests/lib/oncuda.h"
#include "tests/lib/randgraph.h"
#include <cmocka.h>

enum { N_CTX = 300, MAX_VOCAB = 300001, EDGES = 5003, FABLES = 4096 };
static const struct {
        u32 n_vocab, runs;
} vocab[] = {{1, 60}, {20, 1000}, {1000, 1000}, {EDGES, 500}, {151936, 30}, {MAX_VOCAB, 10}};

static u32 n_tokens, n_errors;

static double unit(Rand *r)
{
        return rand_below(r, 1 << 30) / (double)(1 << 30);
}

/* Roughly normal, of that width. */
static float normal(Rand *r, double width)
{
        return (float)(width * (unit(r) + unit(r) + unit(r) + unit(r) - 2));
}

static void fill(Rand *r, float *l, u32 n)
{
        u32 kind = rand_below(r, 10);
        double width = (double[]){0.001, 1, 6, 12}[rand_below(r, 4)];
        for (u32 i = 0; i < n; i++) {
                float x = normal(r, width);
                l[i] = kind == 0   ? 0.25f * (float)rand_below(r, 4) - 0.5f /* ties, zeros of both signs */
                       : kind == 1 ? -3.5f
                       : kind == 2 ? (float)i * 0.001f /* the largest all in one group */
                       : kind == 3 ? (rand_below(r, 8) ? -INFINITY : x)
                       : kind == 4 ? x * 1e37f
                       : kind == 5 ? x * 1e-40f
                                   : x;
                if (kind == 0 && rand_below(r, 2))
                        l[i] = -l[i];
        }
        for (u32 i = rand_below(r, 6); kind > 6 && i; i--) /* a few stand out */
                l[rand_below(r, n)] += (float)(10 * unit(r));
        if (kind == 3 && rand_below(r, 4) == 0) {
                for (u32 i = 0; i < n; i++)
                        l[i] = -INFINITY;
                if (rand_below(r, 2))
                        l[rand_below(r, n)] = normal(r, 5);
        }
        for (u32 i = rand_below(r, 3); kind == 6 && i; i--)
                l[rand_below(r, n)] = rand_below(r, 2) ? INFINITY : rand_below(r, 2) ? NAN : -NAN;
}

static moec_sampling settings(Rand *r, u32 n)
{
        static const float temps[] = {0, -1, 0.1f, 0.8f, 1, 3, 1e-30f},
                           ps[] = {1, 0.95f, 0.5f, 1e-6f, 0.9999f}, mins[] = {0, 0.05f, 1e-4f, 1, 0.5f},
                           penalties[] = {1, 1.1f, 0.7f, 30};
        static const i32 ks[] = {0, 0, 1, 2, 40, 100, 511, 512, 600, 1500, 100000},
                         lasts[] = {-1, 0, 1, 64, 1000};
        moec_sampling s = {.temp = temps[rand_below(r, COUNT(temps))],
                .top_p = ps[rand_below(r, COUNT(ps))],
                .min_p = mins[rand_below(r, COUNT(mins))],
                .repeat_penalty = penalties[rand_below(r, COUNT(penalties))],
                .top_k = ks[rand_below(r, COUNT(ks))],
                .repeat_last = lasts[rand_below(r, COUNT(lasts))],
                .seed = (u64)rand_below(r, UINT32_MAX) << 32 | rand_below(r, UINT32_MAX)};
        if (rand_below(r, 20) == 0)
                s.top_k = (i32)n;
        return s;
}

typedef struct Candidate {
        float logit;
        u32 id;
        u64 upto; /* the sum of the weights up to it */
} Candidate;

static int in_order(const void *p, const void *q)
{
        const Candidate *a = p, *b = q;
        return a->logit != b->logit ? (a->logit < b->logit ? 1 : -1) : a->id < b->id ? -1 : 1;
}

/* A seed with which the draw falls so close to where two of many candidates meet that the last bits of the
 * weights before them decide. */
static void at_the_edge(moec_sampling *s, const float *l, u32 n, u64 seq, u64 pos)
{
        Candidate *c = malloc(n * sizeof *c);
        *s = (moec_sampling){.temp = 0.9f, .top_p = 1, .repeat_penalty = 1, .seed = s->seed};
        for (u32 i = 0; i < n; i++)
                c[i] = (Candidate){l[i], i, 0};
        qsort(c, n, sizeof *c, in_order);
        for (u32 i = 0; i < n; i++)
                c[i].upto = (i ? c[i - 1].upto : 0) +
                            (u64)(sample_exp((c[i].logit - c[0].logit) / s->temp) * 0x1p40f);
        const u64 all = c[n - 1].upto;
        const u32 counter[4] = {(u32)pos, (u32)(pos >> 32), (u32)seq, (u32)(seq >> 32)};
        for (u32 tries = 0; tries < 1u << 24; tries++, s->seed++) {
                u32 key[2] = {(u32)s->seed, (u32)(s->seed >> 32)}, r[4], low = 0, high = n - 1;
                philox(counter, key, r);
                u64 at = (all >> 32) * r[0] + ((all & UINT32_MAX) * r[0] >> 32);
                while (low < high) {
                        u32 mid = (low + high) / 2;
                        if (c[mid].upto > at)
                                high = mid;
                        else
                                low = mid + 1;
                }
                u64 before = low ? c[low - 1].upto : 0, far = MIN(at - before, c[low].upto - 1 - at);
                if (low > n / 8 && far < (c[low].upto - before) >> 21)
                        break;
        }
        free(c);
}

static u32 group_of(u32 n)
{
        return n > 64 * PLAN_GROUPS ? 128 : 64;
}

static PlanDraw start(Rand *r, const moec_sampling *s, const float *l, u32 n)
{
        PlanDraw d = {.seed = s->seed,
                .seq = rand_below(r, 3) ? rand_below(r, 9) : UINT32_MAX,
                .logits = (u64)(uintptr_t)l,
                .next = 12345,
                .n_vocab = n,
                .group = group_of(n),
                .temp = s->temp,
                .top_p = s->top_p,
                .min_p = s->min_p,
                .repeat_penalty = s->repeat_penalty,
                .top_k = s->top_k,
                .repeat_last = s->repeat_last,
                .len = rand_below(r, N_CTX),
                .n = rand_below(r, PLAN_DRAWS),
                .n_end = rand_below(r, 3)};
        for (u32 i = 0; i < d.n_end; i++)
                d.end[i] = (i32)rand_below(r, MIN(n, 30));
        return d;
}

static void expect(const PlanDraw *was, const Mem *mem, const Mem *ids, const Mem *pos, const float *l, u32 n,
        const moec_sampling *s, void *scratch)
{
        const PlanDraw *d = (const PlanDraw *)(const void *)mem->p;
        const i32 *said = (const i32 *)(const void *)(d + 1);
        moec_error e = {0};
        i32 id = -1;
        moec_status st = sample(l, n, s, said, was->len, was->seq, was->len, scratch, &id, &e);
        if (st != MOEC_OK) {
                char text[64] = "all ";
                if (d->state == DRAW_BAD_LOGIT)
                        snprintf(text, sizeof text, "the logit of token %u is %g:", d->bad, (double)d->value);
                assert_int_equal(d->state, d->state == DRAW_BAD_LOGIT ? DRAW_BAD_LOGIT : DRAW_NO_LOGIT);
                if (strncmp(e.msg, text, strlen(text)) != 0)
                        fail_msg("%s is not what sample says: %s", text, e.msg);
                assert_int_equal(d->n, was->n);
                assert_int_equal(d->len, was->len);
                n_errors++;
                return;
        }
        if (d->n != was->n + 1 || d->id[was->n] != id)
                fail_msg("token %d, state %u, not %d: %u logits, temp %g top_k %d top_p %g min_p %g penalty "
                         "%g last %d len %u",
                        d->n == was->n + 1 ? d->id[was->n] : -1, d->state, id, n, (double)s->temp, s->top_k,
                        (double)s->top_p, (double)s->min_p, (double)s->repeat_penalty, s->repeat_last,
                        was->len);
        bool end = false;
        for (u32 i = 0; i < was->n_end; i++)
                end |= was->end[i] == id;
        assert_int_equal(d->state, end ? DRAW_ENDED : DRAW_GOING_ON);
        assert_int_equal(d->len, was->len + 1);
        assert_int_equal(said[was->len], id);
        assert_int_equal(*(const i32 *)(const void *)ids->p, id);
        assert_int_equal(*(const i32 *)(const void *)pos->p, was->len);
        assert_true(d->logits == was->next);
        n_tokens++;
}

static void one(
        Rand *r, Fibred *fn, const Sel *sel, Mem *const arg[], u32 n, float *l, float *copy, void *scratch)
{
        static const KernelDim dim = {1, 1, 1, N_CTX};
        moec_sampling s = settings(r, n);
        fill(r, l, n);
        PlanDraw was = start(r, &s, copy, n), *d = (PlanDraw *)(void *)arg[0]->p;
        if (n == EDGES && rand_below(r, 16) == 0) {
                for (u32 i = 0; i < n; i++)
                        l[i] = normal(r, 2);
                at_the_edge(&s, l, n, was.seq, was.len);
                PlanDraw now = start(r, &s, copy, n);
                now.seq = was.seq, now.len = was.len;
                was = now;
        }
        memcpy(copy, l, n * sizeof *l);
        i32 *said = (i32 *)(void *)(d + 1);
        for (u32 i = 0; i < was.len; i++)
                said[i] = (i32)(rand_below(r, 4) ? rand_below(r, MIN(n, 50)) : rand_below(r, n));
        *d = was;
        const char *what = oncuda_run(fn, sel, arg, &dim, rand_below(r, 2));
        if (what)
                fail_msg("%s", what);
        expect(&was, arg[0], arg[1], arg[2], l, n, &s, scratch);
        if (d->state == DRAW_GOING_ON)
                return;
        was = *d; /* what has ended stays as it is */
        assert_null(oncuda_run(fn, sel, arg, &dim, false));
        assert_memory_equal(&was, d, sizeof was);
}

static void same_tokens(void **state)
{
        (void)state;
        Arena *a = arena_new();
        Sel sel;
        Fibred *fn;
        assert_true(select_util(a, PLAN_draw, TARGET_cuda, &sel));
        OnCuda *o = oncuda_new(a, &sel.key, 1, &fn);
        if (!o) {
                print_message("no C++ compiler\n");
                skip();
        }
        Mem draw = mem_new(sizeof(PlanDraw) + 4 * N_CTX, MEM_OUT), ids = mem_new(4, MEM_OUT),
            pos = mem_new(4, MEM_OUT);
        Mem *const arg[] = {&draw, &ids, &pos};
        for (u32 i = 0; i < COUNT(vocab); i++) {
                Rand r = {i};
                u32 n = vocab[i].n_vocab, group = group_of(n);
                sel.mul[0] = (n + 16 * group - 1) / (16 * group);
                float *l = malloc(n * sizeof *l), *copy = malloc(n * sizeof *l);
                void *scratch = malloc(sample_scratch(n));
                for (u32 k = 0; k < vocab[i].runs; k++)
                        one(&r, fn, &sel, arg, n, l, copy, scratch);
                free(l);
                free(copy);
                free(scratch);
        }
        print_message("%u tokens, %u errors\n", n_tokens, n_errors);
        mem_free(&draw);
        mem_free(&ids);
        mem_free(&pos);
        oncuda_free(o);
        arena_free(a);
}

/* ---- on a device ---- */

static moec_context *load(const moec_model *m)
{
        const moec_options opt = {.target = "cuda", .n_ctx = 512, .max_seqs = 2};
        moec_context *c;
        moec_error e = {0};
        moec_status st = moec_load(m, &opt, &c, &e);
        if (st == MOEC_NO_DEVICE || st == MOEC_TOOLCHAIN) {
                print_message("no CUDA device that could be used: %s\n", e.msg);
                return NULL;
        }
        if (st)
                fail_msg("%s", e.msg);
        moec_token t[3] = {{40, 1, false}, {50, 1, false}, {60, 1, true}};
        assert_int_equal(moec_step(c, t, 3, NULL, NULL), MOEC_OK);
        return c;
}

/* The last bits of weights, of logits that a step of one token leaves. */
static void edge(moec_context *a, moec_context *b, Rand *r)
{
        moec_sampling s = {.seed = rand_u64(r)};
        moec_token t = {.id = (i32)rand_below(r, 200), .seq = 1, .logits = true};
        const float *l;
        i32 drawn, sampled;
        int n;
        for (int i = 0; i < 2; i++) {
                assert_int_equal(moec_seq_trim(i ? a : b, 1, 3, NULL), MOEC_OK);
                assert_int_equal(moec_step(i ? a : b, &t, 1, i ? NULL : &l, NULL), MOEC_OK);
        }
        at_the_edge(&s, l, FABLES, 1, 4);
        assert_int_equal(moec_generate(a, 1, &s, 1, true, &drawn, &n, NULL), MOEC_OK);
        assert_int_equal(moec_sample(b, 1, &s, &sampled, NULL), MOEC_OK);
        assert_int_equal(drawn, sampled);
}

/* Drawn by the device in pieces, and sampled on the host step by step. */
static void as_the_host_samples(void **state)
{
        (void)state;
        moec_model *m;
        assert_int_equal(moec_open("examples/fables.gguf", NULL, &m, NULL), MOEC_OK);
        moec_context *a = load(m), *b = a ? load(m) : NULL;
        enum { MOST = 200 };
        static i32 ids[MOST];
        Rand r = {1};
        for (u32 run = 0; b && run < 60; run++) {
                moec_sampling s = run ? settings(&r, FABLES) : (moec_sampling)MOEC_SAMPLING_DEFAULT;
                moec_token t = {.seq = 1, .logits = true};
                moec_error e;
                int n = 0, sum = 0;
                while (sum < MOST && !(sum && moec_is_end(m, ids[sum - 1]))) {
                        int ask = MIN(1 + (int)rand_below(&r, 70), MOST - sum);
                        if (moec_generate(a, 1, &s, ask, false, ids + sum, &n, &e) != MOEC_OK)
                                fail_msg("%s", e.msg);
                        sum += n;
                }
                for (int k = 0; k < sum; k++) {
                        assert_int_equal(moec_sample(b, 1, &s, &t.id, NULL), MOEC_OK);
                        if (t.id != ids[k])
                                fail_msg("run %u, token %d: %d, not %d", run, k, ids[k], t.id);
                        assert_int_equal(moec_step(b, &t, 1, NULL, NULL), MOEC_OK);
                }
                i32 next[2] = {0};
                assert_int_equal(moec_sample(a, 1, &s, &next[0], NULL), MOEC_OK);
                assert_int_equal(moec_sample(b, 1, &s, &next[1], NULL), MOEC_OK);
                assert_int_equal(next[0], next[1]);
                t.id = 70; /* on with the same prompt, and logits that a step of one token left */
                assert_int_equal(moec_seq_trim(a, 1, 3, NULL), MOEC_OK);
                assert_int_equal(moec_seq_trim(b, 1, 3, NULL), MOEC_OK);
                assert_int_equal(moec_step(a, &t, 1, NULL, NULL), MOEC_OK);
                assert_int_equal(moec_step(b, &t, 1, NULL, NULL), MOEC_OK);
        }
        for (u32 i = 0; b && i < 6; i++) /* some 2 s each, to find a seed */
                edge(a, b, &r);
        bool had = b;
        moec_unload(a);
        moec_unload(b);
        moec_close(m);
        if (!had)
                skip();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(same_tokens), cmocka_unit_test(as_the_host_samples)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
