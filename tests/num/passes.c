/* Passes keep the meaning: random graphs evaluate to the same bits before and after each pass and each
 * pipeline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "ir/eval.h"
#include "passes/passes.h"
#include "tests/lib/randgraph.h"
#include <cmocka.h>

enum { N_SEQ = 3, N_CTX = 48, STEPS = 3, MAX_TOK = 6 };

/* What two graphs of one model are compared by: the logits of a few steps, and the keys and values that these
 * leave behind, which later steps' logits depend on. */
typedef struct Run {
        EvalKv *kv;
        i32 len[N_SEQ];
        Rand r;
} Run;

static Run run_begin(u64 seed)
{
        return (Run){.kv = eval_kv_new(N_SEQ, N_CTX), .r = {seed}};
}

static Tensor run_step(Run *run, const Graph *g, Arena *a)
{
        RandStep s = rand_step(a, &run->r, g, 1 + rand_below(&run->r, MAX_TOK), N_SEQ, run->len);
        EvalIn in = {s.n_tok, s.n_out, s.ids, s.pos, s.seq, s.out};
        EvalOpt opt = {0};
        Tensor *ret = NEWN(a, Tensor, g->n_ret);
        eval(g, run->kv, &in, &opt, a, ret);
        return ret[0];
}

static char *text_of(const Graph *g, Arena *a)
{
        Buf b = {0};
        print(g, &b);
        char *s = arena_strn(a, b.p, b.len);
        buf_free(&b);
        return s;
}

static void assert_same(const Graph *g, const Graph *h, u64 seed, const char *words)
{
        Run x = run_begin(seed), y = run_begin(seed);
        for (int i = 0; i < STEPS; i++) {
                Arena *a = arena_new();
                Tensor p = run_step(&x, g, a), q = run_step(&y, h, a);
                u64 n = tensor_len(&p);
                assert_int_equal(n, tensor_len(&q));
                if (memcmp(p.data, q.data, n * sizeof(float)) != 0)
                        fail_msg("seed %llu, passes %s, step %d differs:\n%s\n%s", (unsigned long long)seed,
                                words, i, text_of(g, a), text_of(h, a));
                arena_free(a);
        }
        eval_kv_free(x.kv);
        eval_kv_free(y.kv);
}

static void set_bounds(Graph *g)
{
        g->max[DIM_n_tok] = g->max[DIM_n_out] = MAX_TOK;
        g->max[DIM_n_seq] = N_SEQ;
        g->max[DIM_n_ctx] = N_CTX;
}

static Graph *passed(const Graph *g, const char *words, Arena *a)
{
        Graph *h = graph_clone(g, a, g->name);
        PassOpt opt = {0};
        set_bounds(h);
        run_passes(h, words, &opt, NULL, NULL);
        return h;
}

static u32 count_of(const Graph *g, Op op)
{
        u32 n = 0;
        for (u32 i = 0; i < g->n_node; i++)
                n += g->node[i].op == op;
        return n;
}

/* Random graphs through `words`, after `before` (which may change the meaning: roundings). They must change
 * some graph. */
static void keeps_meaning(const char *before, const char *words, u64 seeds)
{
        u32 changed = 0;
        for (u64 seed = 0; seed < 2 * seeds; seed++) {
                Arena *a = arena_new();
                Graph *g = passed(rand_graph(a, seed / 2, seed % 2), before, a), *h = passed(g, words, a);
                assert_same(g, h, seed, words);
                changed += strcmp(text_of(g, a), text_of(h, a)) != 0;
                arena_free(a);
        }
        if (!changed)
                fail_msg("passes %s did nothing", words);
}

enum { SEEDS = 40 };
#define ROUNDED "qmatmul act=q8"

static void test_fold(void **state)
{
        (void)state;
        keeps_meaning("", "fold", SEEDS);
}
static void test_dce(void **state)
{
        (void)state;
        keeps_meaning("", "dce", SEEDS);
}
static void test_experts(void **state)
{
        (void)state;
        keeps_meaning("", "experts", SEEDS);
        keeps_meaning(ROUNDED, "experts grouped", SEEDS);
}
static void test_qmatmul(void **state)
{
        (void)state;
        keeps_meaning("", "qmatmul", SEEDS);
}
static void test_layout(void **state)
{
        (void)state;
        keeps_meaning("", "layout panel", SEEDS);
}
static void test_order(void **state)
{
        (void)state;
        keeps_meaning("experts grouped, fuse quantize", "order", SEEDS);
}
static void test_buffers(void **state)
{
        (void)state;
        keeps_meaning("", "buffers", SEEDS);
}

static void test_fuse(void **state)
{
        static const char *const before[] = {"", ROUNDED, "experts", "experts, dce, qmatmul act=q8"},
                                 *const words[] = {"fuse", "fuse dup_norm", "fuse fuse_kv", "fuse quantize",
                                         "fuse dup_norm fuse_kv round_attend route_max=1000000",
                                         "fuse dup_norm quantize fuse_kv"};
        (void)state;
        for (u32 i = 0; i < COUNT(before); i++)
                for (u32 k = 0; k < COUNT(words); k++)
                        keeps_meaning(before[i], words[k], SEEDS / 4);
}

#define DECODE(q)                                                                                            \
        "fold, dce, experts, qmatmul" q                                                                      \
        ", fuse dup_norm fuse_kv round_attend route_max=1000000, layout panel, order, buffers"
#define PREFILL(q) "fold, dce, experts grouped, qmatmul" q ", fuse quantize, layout panel, order, buffers"

static void test_pipelines(void **state)
{
        (void)state;
        keeps_meaning("", DECODE(""), SEEDS);
        keeps_meaning("", PREFILL(""), SEEDS);
        keeps_meaning("experts, " ROUNDED, DECODE(" act=q8"), SEEDS);
        keeps_meaning("experts, " ROUNDED, PREFILL(" act=q8"), SEEDS);
}

/* Passes once done have nothing left to do, and say the same of the same graph. */
static void test_settled(void **state)
{
        (void)state;
        for (u64 seed = 0; seed < 2 * SEEDS; seed++) {
                Arena *a = arena_new();
                Graph *g = rand_graph(a, seed / 2, seed % 2), *h = passed(g, DECODE(" act=q8"), a);
                char *once = text_of(h, a);
                assert_string_equal(text_of(passed(g, DECODE(" act=q8"), a), a), once);
                assert_string_equal(text_of(passed(h, DECODE(" act=q8"), a), a), once);
                assert_int_equal(count_of(h, OP_experts), 0);
                arena_free(a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_fold),
                cmocka_unit_test(test_dce),
                cmocka_unit_test(test_experts),
                cmocka_unit_test(test_qmatmul),
                cmocka_unit_test(test_layout),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_buffers),
                cmocka_unit_test(test_fuse),
                cmocka_unit_test(test_pipelines),
                cmocka_unit_test(test_settled),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
