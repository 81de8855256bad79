/* The interpreter, exact, against golden logits of an independent forward pass in float64: every committed
 * model, and with MODELS=DIR whatever is there. 1e-4 relative (L2) at every position. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "frontend/model.h"
#include "ir/eval.h"
#include "tests/lib/models.h"
#include <cmocka.h> /* last: its fail is a macro */

static const double bound = 1e-4;

typedef struct Session {
        Arena *arena;
        Model model;
        Graph *g;
        EvalCache *cache;
        EvalKv *kv;
} Session;

static Session open_model(const TestModel *m)
{
        Session s = {.arena = arena_new()};
        Trap t;
        if (TRAP(&t))
                fail_msg("%s: %s", m->path, t.error.msg);
        model_open(&s.model, s.arena, m->path, NULL);
        s.g = model_graph(&s.model, s.arena, D_f16, D_f16);
        trap_pop(&t);
        s.cache = eval_cache_new(1 << 28);
        return s;
}

static void close_model(Session *s)
{
        eval_cache_free(s->cache);
        eval_kv_free(s->kv);
        model_close(&s->model);
        arena_free(s->arena);
}

/* Logits [n, n_vocab] of a prompt in steps of at most `size` tokens; in the session's arena. */
static const float *logits(Session *s, const i32 *ids, u32 n, u32 size, EvalOpt opt)
{
        i32 count[MAX_PROMPT], zero[MAX_PROMPT] = {0};
        u64 vocab = s->model.info.n_vocab;
        float *y = NEWN(s->arena, float, n *vocab);
        opt.exact = true;
        opt.cache = s->cache;
        eval_kv_free(s->kv);
        s->kv = eval_kv_new(1, MAX_PROMPT);
        for (i32 i = 0; i < MAX_PROMPT; i++)
                count[i] = i;
        for (u32 at = 0; at < n; at += size) {
                u32 k = MIN(size, n - at);
                Arena *a = arena_new();
                Tensor *ret = NEWN(a, Tensor, s->g->n_ret);
                EvalIn in = {k, k, ids + at, count + at, zero, count};
                eval(s->g, s->kv, &in, &opt, a, ret);
                assert_int_equal(tensor_len(&ret[0]), k * vocab);
                memcpy(y + at * vocab, ret[0].data, k * vocab * sizeof *y);
                arena_free(a);
        }
        return y;
}

static i32 argmax(const float *p, u64 n)
{
        u64 best = 0;
        for (u64 i = 1; i < n; i++)
                if (p[i] > p[best])
                        best = i;
        return (i32)best;
}

/* A golden model: logits of prompts 0 to 2, the likeliest tokens of prompt 3, and steps of one token. */
static void test_model(void **state)
{
        const TestModel *m = *state;
        Session s = open_model(m);
        u64 vocab = s.model.info.n_vocab;
        double worst = 0;
        char suffix[32];
        i32 ids[MAX_PROMPT];
        for (u32 p = 0; p < N_PROMPT; p++) {
                u32 n = test_prompt(p, ids);
                assert_true(n > 1);
                snprintf(suffix, sizeof suffix, p < 3 ? "prompt%u.f32" : "prompt%u.argmax.i32", p);
                void *want = test_golden(m, suffix, p < 3 ? n * vocab : n);
                if (!want)
                        fail_msg("%s.%s is missing or short", m->golden, suffix);
                const float *y = logits(&s, ids, n, n, (EvalOpt){0});
                for (u32 i = 0; i < n && p < 3; i++) {
                        double d = test_distance(y + i * vocab, (float *)want + i * vocab, vocab);
                        if (!(d <= bound))
                                fail_msg("prompt %u, position %u: relative distance %.3g", p, i, d);
                        worst = d > worst ? d : worst;
                }
                for (u32 i = 0; i < n && p == 3; i++)
                        assert_int_equal(argmax(y + i * vocab, vocab), ((i32 *)want)[i]);
                if (p == 0)
                        assert_memory_equal(logits(&s, ids, n, 1, (EvalOpt){0}), y, n * vocab * sizeof *y);
                free(want);
        }
        print_message("%s: relative distance at most %.2g\n", m->name, worst);
        close_model(&s);
}

/* ---- inside ---- */

typedef struct Trace {
        const float *all;
        struct {
                char name[48];
                u64 rows, cols, at;
        } row[64];
        u32 n_row, n_seen, adds[64]; /* adds: residuals seen, by layer */
        double worst;
} Trace;

static void read_index(Trace *t)
{
        char line[128];
        FILE *f = fopen("tests/models/golden/fables-Q4_K_M.prompt0.trace.txt", "r");
        assert_non_null(f);
        while (fgets(line, sizeof line, f) && t->n_row < COUNT(t->row)) {
                unsigned long rows, cols, at;
                if (sscanf(line, "%47s %lu %lu %lu", t->row[t->n_row].name, &rows, &cols, &at) != 4)
                        continue;
                t->row[t->n_row].rows = rows;
                t->row[t->n_row].cols = cols;
                t->row[t->n_row++].at = at;
        }
        fclose(f);
}

static const float *golden_row(Trace *t, const char *name, const Tensor *x)
{
        for (u32 i = 0; i < t->n_row; i++)
                if (!strcmp(t->row[i].name, name)) {
                        assert_int_equal(x->dim[0], t->row[i].rows);
                        assert_int_equal(x->dim[1], t->row[i].cols);
                        t->n_seen++;
                        return t->all + t->row[i].at;
                }
        fail_msg("no golden %s", name);
        return NULL;
}

static void compare(Trace *t, const char *name, const Tensor *x)
{
        const float *want = golden_row(t, name, x);
        for (u64 r = 0; r < x->dim[0]; r++) {
                u64 at = r * x->dim[1];
                double d = test_distance((float *)x->data + at, want + at, x->dim[1]);
                if (!(d <= bound))
                        fail_msg("%s, position %llu: relative distance %.3g", name, (unsigned long long)r, d);
                t->worst = d > t->worst ? d : t->worst;
        }
}

static void compare_route(Trace *t, i64 layer, const Tensor *x)
{
        char ids[48], weights[48];
        snprintf(ids, sizeof ids, "blk.%lld.experts", (long long)layer);
        snprintf(weights, sizeof weights, "blk.%lld.expert_weights", (long long)layer);
        const float *id = golden_row(t, ids, x), *w = golden_row(t, weights, x);
        const Pick *p = x->data;
        for (u64 i = 0; i < tensor_len(x); i++) {
                assert_int_equal(p[i].id, (i32)id[i]);
                if (!(p[i].w - w[i] <= 1e-6f && w[i] - p[i].w <= 1e-6f))
                        fail_msg("%s [%llu] is %.9g, not %.9g", weights, (unsigned long long)i,
                                (double)p[i].w, (double)w[i]);
        }
}

static void watch(void *user, const EvalSeen *s)
{
        Trace *t = user;
        const Node *n = &s->g->node[s->node];
        i64 layer = attr_i(n, A_layer);
        if (n->op == OP_embed)
                compare(t, "embd", s->out);
        if (n->op == OP_route)
                compare_route(t, layer, s->out);
        if (n->op == OP_add) { /* a layer has two residuals */
                char name[48];
                snprintf(name, sizeof name, "blk.%lld.%s", (long long)layer,
                        t->adds[layer]++ ? "out" : "attn_out");
                compare(t, name, s->out);
        }
}

static void test_trace(void **state)
{
        TestModel *m = *state;
        Session s = open_model(m);
        i32 ids[MAX_PROMPT];
        u32 n = test_prompt(0, ids);
        Trace t = {0};
        read_index(&t);
        u64 len = 0;
        for (u32 i = 0; i < t.n_row; i++)
                len += t.row[i].rows * t.row[i].cols;
        float *all = test_golden(m, "prompt0.trace.f32", len);
        assert_non_null(all);
        t.all = all;
        logits(&s, ids, n, n, (EvalOpt){.hook = watch, .user = &t});
        assert_int_equal(t.n_seen, t.n_row);
        assert_true(t.n_row > 4);
        print_message("%s: inside, relative distance at most %.2g\n", m->name, t.worst);
        free(all);
        close_model(&s);
}

int main(void)
{
        static TestModel model[MAX_MODELS];
        static struct CMUnitTest tests[MAX_MODELS + 1]; /* those without a name are left out */
        u32 n = test_models(model);
        for (u32 i = 0; i < n; i++)
                tests[i] = (struct CMUnitTest){
                        .name = model[i].name, .test_func = test_model, .initial_state = &model[i]};
        tests[n] = (struct CMUnitTest){.name = "trace", .test_func = test_trace, .initial_state = &model[0]};
        return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
