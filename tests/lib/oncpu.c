#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "frontend/embed.h"
#include "frontend/lua.h"
#include "ir/eval.h"
#include "ir/quant.h"
#include "runtime/exec.h"
#include "runtime/isa.h"
#include "runtime/pack.h"
#include "tests/lib/oncpu.h"
#include <cmocka.h> /* last: its fail is a macro */

enum { N_SEQ = 2, N_CTX = 256, WIDE = 12, CHECKED = 0, REUSED = 1, N_SIDE = 2 };

/* Both pipelines of the CPU target, up to layout. */
#define DECODE(act)                                                                                          \
        "fold, dce, experts, qmatmul " act ", fuse dup_norm fuse_kv round_attend route_max=1000000"
#define PREFILL(act) "fold, dce, experts grouped, qmatmul " act ", fuse quantize"

/* A trial's graph with every value apart (CHECKED), or sharing memory (REUSED). */
typedef struct Side {
        Graph *g;
        EmitPhase phase;
        EmitIn in;
        Emit *emit;
        Buf plan;
        void *mem;
        Plan *view;
        Rt *rt;
} Side;

typedef struct Run {
        Arena *arena;
        const Trial *t;
        const TrialOpt *opt;
        Side side[N_SIDE];
} Run;

/* ---- compiling ---- */

Graph *trial_graph(const Trial *t, Arena *a, bool reuse)
{
        Graph *g = graph_clone(t->g, a, t->g->name);
        PassOpt opt = {.no_reuse = !reuse};
        g->max[DIM_n_tok] = g->max[DIM_n_out] = t->max_tok;
        g->max[DIM_n_seq] = N_SEQ;
        g->max[DIM_n_ctx] = N_CTX;
        run_passes(g, t->words, &opt, NULL, NULL);
        run_passes(g, "layout panel, order, buffers", &opt, NULL, NULL);
        return g;
}

static bool appends_itself(const Graph *g)
{
        for (u32 i = 0; i < g->n_node; i++)
                if (g->node[i].op == OP_attend && in_get(&g->node[i], S_k))
                        return true;
        return false;
}

/* A step that appends inside of attend has one token, as in the decode pipeline. */
Trial trial_random(Arena *a, u64 i)
{
        static const char *const words[] = {DECODE("act=q8"), PREFILL("act=q8"), DECODE(""), PREFILL(""),
                "dce, experts, qmatmul act=q8", "dce, experts grouped, qmatmul"};
        Trial t = {.words = words[i % COUNT(words)],
                .seed = i,
                .name = arena_fmt(a, "seed %llu", (unsigned long long)i)};
        t.g = rand_graph(a, i, i % 2);
        t.max_tok = strstr(t.words, "fuse_kv") || appends_itself(t.g) ? 1 : WIDE;
        return t;
}

static const Tab *tune(Arena *a)
{
        Embed f;
        assert_true(embed_text(a, NULL, "tune.lua", &f));
        return tab_tab(lua_config(a, f.name, f.text, f.len), "cpu");
}

/* Values of all dimensions but the last ones. */
static u64 weight_len(const Weight *w, u32 but)
{
        u64 n = 1;
        for (u32 i = 0; i + but < w->rank; i++)
                n *= w->dim[i];
        return n;
}

static void side_select(Run *r, Side *s, bool reuse)
{
        static const char *const no_path[] = {"none"};
        Arena *a = r->arena;
        const Graph *g = s->g = trial_graph(r->t, a, reuse);
        EmitTensor *tensor = NEWN(a, EmitTensor, g->n_weight);
        char *isa = NEWN(a, char, ISA_MAX);
        for (u32 i = 0; i < g->n_weight; i++) {
                tensor[i].name = g->weight[i].tensor;
                assert_true(wtype_bytes(g->weight[i].type, weight_len(&g->weight[i], 0), &tensor[i].bytes));
        }
        if (!strcmp(r->opt->march, "native"))
                isa_native(isa);
        s->phase = (EmitPhase){g, r->t->max_tok, r->t->max_tok};
        s->in = (EmitIn){.phase = &s->phase,
                .n_phase = 1,
                .tune = tune(a),
                .arch = "random",
                .name = r->t->name,
                .target = "cpu",
                .isa = *isa ? isa : r->opt->march,
                .compiler = "a test",
                .part = NEW(a, PlanPart),
                .part_path = (const char **)(uintptr_t)no_path,
                .n_part = 1,
                .tensor = tensor,
                .n_tensor = g->n_weight,
                .embed = true};
        s->emit = emit_new(a, &s->in);
}

/* The kernels of all trials, each once. */
typedef struct Code {
        Key **key;
        u32 n, cap;
        const char **source;
        Image so;
} Code;

static u32 code_find(const Code *c, const Key *k)
{
        u32 i = 0;
        while (i < c->n && strcmp(c->key[i]->text, k->text) != 0)
                i++;
        return i;
}

static void code_add(Arena *a, Code *c, const Emit *m)
{
        Key *const *key;
        u32 n = emit_keys(m, &key);
        for (u32 i = 0; i < n; i++) {
                if (code_find(c, key[i]) < c->n)
                        continue;
                GROW(a, c->key, c->n, c->cap);
                c->key[c->n++] = key[i];
        }
}

/* Behind the plan, as moec_compile embeds weights. */
static void add_weights(Side *s)
{
        const EmitWeight *w;
        u32 n = emit_weights(s->emit, &w);
        u64 end = 0;
        Hash h = {0, 0};
        for (u32 i = 0; i < n; i++)
                end = w[i].at + (w[i].bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
        u8 *data = calloc(1, end + 1);
        for (u32 i = 0; i < n; i++) {
                const Weight *x = w[i].weight;
                u64 outer = x->layout == LAYOUT_panel ? weight_len(x, 2) : 1, from;
                assert_true(wtype_bytes(x->type, weight_len(x, 0), &from));
                for (u64 e = 0; e < outer; e++) {
                        const u8 *src = (const u8 *)x->data + e * (from / outer);
                        u8 *dst = data + w[i].at + e * (w[i].bytes / outer);
                        if (x->layout == LAYOUT_panel)
                                pack_panel(x->type, src, dst, x->dim[x->rank - 2], x->dim[x->rank - 1]);
                        else
                                memcpy(dst, src, from);
                }
        }
        h = hash_mix(h, data, end);
        plan_embed(&s->plan, end, h);
        buf_add(&s->plan, data, end);
        free(data);
}

static void side_open(Run *r, Side *s, const Code *c, int threads)
{
        Key *const *key;
        u32 n = emit_keys(s->emit, &key);
        const char **source = NEWN(r->arena, const char *, n);
        moec_error e;
        for (u32 i = 0; i < n; i++)
                source[i] = c->source[code_find(c, key[i])];
        emit_plan(s->emit, &c->so, 1, 0, source, &s->plan);
        add_weights(s);
        s->mem = aligned_alloc(PLAN_PAGE, (s->plan.len + PLAN_PAGE - 1) / PLAN_PAGE * PLAN_PAGE);
        memcpy(s->mem, s->plan.p, s->plan.len);
        moec_options opt = {.threads = threads};
        if (plan_view(s->mem, s->plan.len, &s->view, &e) || rt_open(s->view, &opt, N_CTX, N_SEQ, &s->rt, &e))
                fail_msg("%s: %s", r->t->name, e.msg);
}

static void side_close(Side *s)
{
        rt_close(s->rt);
        plan_close(s->view);
        free(s->mem);
        buf_free(&s->plan);
        *s = (Side){0};
}

/* ---- comparing one launch ---- */

typedef struct Step {
        Run *r;
        Arena *arena;
        RandStep in;
        Tensor *want; /* [n_val] */
} Step;

static void keep(void *user, const EvalSeen *s)
{
        Step *st = user;
        for (u32 i = 0; i < s->n_out; i++) {
                Tensor *t = &st->want[s->g->node[s->node].out + i];
                *t = s->out[i];
                if (t->data && (t->dt == D_f32 || t->dt == D_q8 || t->dt == D_route))
                        t->data = arena_copy(st->arena, t->data,
                                tensor_len(t) * (t->dt == D_route ? sizeof(Pick) : sizeof(float)));
        }
}

/* What may differ, relative (L2, a row): sums in another order; where values are rounded that were computed
 * here (a norm, a gate), a code more or less; keys and values of f16, an ulp more or less. */
static double bound_of(const Graph *g, const Node *n)
{
        const OpInfo *op = op_info(n->op);
        if (n->op == OP_attend) {
                const State *s = &g->state[ref_idx(ref_state(g, in_get(n, S_kv)))];
                return s->ktype == D_q8_0 ? 5e-3 : s->ktype == D_f16 || s->vtype == D_f16 ? 1e-4 : 1e-5;
        }
        if (op->attr[A_out] && attr_i(n, A_out) == ACT_q8)
                return 1e-2;
        bool computed = op->attr[A_eps] && in_get(n, S_norm) != REF_NONE;
        bool rounds = n->op == OP_quantize || (op->attr[A_act] && attr_i(n, A_act) == ACT_q8);
        return rounds && computed ? 5e-3 : 1e-5;
}

static noreturn void differ(Step *st, u32 node, const char *what, u64 row, double by)
{
        Buf b = {0};
        print_node(st->r->side[CHECKED].g, node, &b);
        fail_msg("%s, march %s, %s\n%s%s differs at row %llu by %.3g", st->r->t->name, st->r->opt->march,
                st->r->t->words, b.p, what, (unsigned long long)row, by);
        abort();
}

static double row_error(const float *got, const float *want, u64 n)
{
        double d = 0, w = 0;
        for (u64 i = 0; i < n; i++) {
                double x = (double)want[i], y = (double)got[i] - x;
                d += y * y;
                w += x * x;
        }
        return w > 0 ? sqrt(d / w) : d > 0 ? INFINITY : 0;
}

static double worst[N_OP];

static void compare_rows(Step *st, u32 node, const Tensor *t, const float *got)
{
        u64 cols = t->dim[t->rank - 1], rows = tensor_rows(t);
        const Graph *g = st->r->side[CHECKED].g;
        double bound = bound_of(g, &g->node[node]);
        for (u64 i = 0; i < rows; i++) {
                double e = row_error(got + i * cols, (const float *)t->data + i * cols, cols);
                if (!(e <= bound))
                        differ(st, node, "the result", i, e);
                worst[g->node[node].op] = fmax(worst[g->node[node].op], e / bound);
        }
}

static void compare_q8(Step *st, u32 node, const Tensor *t, u64 at)
{
        u64 n = tensor_len(t), blocks = n / Q8_BLOCK;
        Rt *rt = st->r->side[CHECKED].rt;
        i8 *q = NEWN(st->arena, i8, n);
        float *d = NEWN(st->arena, float, blocks), *s = NEWN(st->arena, float, blocks),
              *x = NEWN(st->arena, float, n);
        rt_read(rt, at, q, n);
        rt_read(rt, at + n, d, 4 * blocks);
        rt_read(rt, at + n + 4 * blocks, s, 4 * blocks);
        for (u64 i = 0; i < n; i++)
                x[i] = (float)q[i] * d[i / Q8_BLOCK];
        compare_rows(st, node, t, x);
        for (u64 i = 0; i < blocks; i++) {
                float sum = 0;
                for (u64 j = 0; j < Q8_BLOCK; j++)
                        sum += (float)q[i * Q8_BLOCK + j];
                if (s[i] != sum * d[i])
                        differ(st, node, "a block's sum", i, (double)(s[i] - sum * d[i]));
        }
}

static void compare_route(Step *st, u32 node, const Tensor *t, const Pick *got)
{
        const Pick *want = t->data;
        for (u64 i = 0; i < tensor_len(t); i++) {
                double e = fabs((double)got[i].w - (double)want[i].w);
                if (got[i].id != want[i].id || !(e <= 1e-5 * fmax(1, fabs((double)want[i].w))))
                        differ(st, node, "the route", i / t->dim[1], e);
        }
}

static void compare_order(Step *st, u32 node, u64 at)
{
        const Node *n = &st->r->side[CHECKED].g->node[node];
        const Tensor *route = &st->want[ref_idx(in_get(n, S_route))];
        u64 pairs = tensor_len(route), experts = (u64)attr_i(n, A_experts), place = 0;
        u32 *got = NEWN(st->arena, u32, experts + 1 + pairs);
        rt_read(st->r->side[CHECKED].rt, at, got, 4 * (experts + 1 + pairs));
        for (u64 e = 0; e < experts; e++) {
                if (got[e] != place)
                        differ(st, node, "an expert's start", e, (double)got[e] - (double)place);
                for (u64 i = 0; i < pairs; i++)
                        if (((const Pick *)route->data)[i].id == (i32)e && got[experts + 1 + place++] != i)
                                differ(st, node, "a pair", place - 1, got[experts + place]);
        }
        if (got[experts] != pairs)
                differ(st, node, "the end", experts, (double)got[experts]);
}

/* The interpreter's value takes the place of ours, so that the next launch is judged alone. */
static void write_back(Step *st, const Tensor *t, u64 at)
{
        Rt *rt = st->r->side[CHECKED].rt;
        u64 n = tensor_len(t), blocks = n / Q8_BLOCK;
        if (t->dt != D_q8) {
                rt_write(rt, at, t->data, n * (t->dt == D_route ? sizeof(Pick) : sizeof(float)));
                return;
        }
        i8 *q = NEWN(st->arena, i8, n);
        float *d = NEWN(st->arena, float, blocks), *s = NEWN(st->arena, float, blocks);
        q8_quantize(t->data, q, d, n);
        for (u64 i = 0; i < n; i++)
                s[i / Q8_BLOCK] += (float)q[i];
        for (u64 i = 0; i < blocks; i++)
                s[i] *= d[i];
        rt_write(rt, at, q, n);
        rt_write(rt, at + n, d, 4 * blocks);
        rt_write(rt, at + n + 4 * blocks, s, 4 * blocks);
}

static void after_launch(void *user, u32 phase, u32 launch)
{
        Step *st = user;
        Side *s = &st->r->side[CHECKED];
        u32 node = s->view->LAUNCH[launch].node;
        const Node *n = &s->g->node[node];
        (void)phase;
        for (u32 i = 0; i < n->nout; i++) {
                const Tensor *t = &st->want[n->out + i];
                u64 at = s->g->val[n->out + i].offset,
                    bytes = tensor_len(t) * (t->dt == D_route ? sizeof(Pick) : sizeof(float));
                if (t->dt == D_order)
                        compare_order(st, node, at);
                if (t->dt == D_q8)
                        compare_q8(st, node, t, at);
                if (t->dt == D_f32 || t->dt == D_route) {
                        void *got = arena_alloc(st->arena, bytes);
                        rt_read(s->rt, at, got, bytes);
                        if (t->dt == D_route)
                                compare_route(st, node, t, got);
                        else if (t->data)
                                compare_rows(st, node, t, got);
                }
                if (t->data && (t->dt == D_f32 || t->dt == D_route || t->dt == D_q8))
                        write_back(st, t, at);
        }
}

/* ---- whole runs ---- */

static void step_of(Rt *rt, const RandStep *s, float *logits)
{
        moec_error e;
        Batch b = {s->n_tok, s->n_out, s->ids, s->pos, s->seq, (const u32 *)s->out};
        if (rt_step(rt, &b, logits, &e))
                fail_msg("%s", e.msg);
}

static RandStep next_step(Arena *a, Rand *rand, const Trial *t, i32 *len)
{
        return rand_step(a, rand, t->g, 1 + rand_below(rand, t->max_tok), N_SEQ, len);
}

static void run_checked(Run *r)
{
        Side *s = &r->side[CHECKED];
        Rand rand = {r->t->seed};
        i32 len[N_SEQ] = {0};
        EvalKv *kv = eval_kv_new(N_SEQ, N_CTX);
        EvalCache *cache = eval_cache_new(1 << 28);
        u64 vocab = s->view->META->n_vocab;
        for (int i = 0; i < r->opt->steps; i++) {
                Arena *a = arena_new();
                Step st = {.r = r, .arena = a, .want = NEWN(a, Tensor, s->g->n_val)};
                st.in = next_step(a, &rand, r->t, len);
                EvalIn in = {st.in.n_tok, st.in.n_out, st.in.ids, st.in.pos, st.in.seq, st.in.out};
                EvalOpt opt = {.cache = cache, .hook = keep, .user = &st};
                eval(s->g, kv, &in, &opt, a, NEWN(a, Tensor, s->g->n_ret));
                rt_set_hook(s->rt, after_launch, &st);
                step_of(s->rt, &st.in, NEWN(a, float, st.in.n_out *vocab));
                arena_free(a);
        }
        rt_set_hook(s->rt, NULL, NULL);
        eval_cache_free(cache);
        eval_kv_free(kv);
}

static void run_free(Run *r)
{
        Rand rand = {r->t->seed};
        i32 len[N_SEQ] = {0};
        u64 vocab = r->side[0].view->META->n_vocab;
        for (int i = 0; i < r->opt->steps; i++) {
                Arena *a = arena_new();
                RandStep s = next_step(a, &rand, r->t, len);
                float *y[N_SIDE];
                for (int k = 0; k < N_SIDE; k++) {
                        y[k] = NEWN(a, float, s.n_out *vocab);
                        step_of(r->side[k].rt, &s, y[k]);
                }
                if (memcmp(y[0], y[1], s.n_out * vocab * sizeof(float)) != 0)
                        fail_msg("%s, march %s, %s: step %d has other bits with values that share memory, or "
                                 "other threads",
                                r->t->name, r->opt->march, r->t->words, i);
                arena_free(a);
        }
}

static void trial_run(Run *r, const Code *c)
{
        for (int k = 0; k < N_SIDE; k++)
                side_open(r, &r->side[k], c, 3 - 2 * k);
        run_checked(r);
        rt_close(r->side[CHECKED].rt);
        moec_error e;
        if (rt_open(r->side[CHECKED].view, &(moec_options){.threads = 3}, N_CTX, N_SEQ, &r->side[CHECKED].rt,
                    &e))
                fail_msg("%s", e.msg);
        run_free(r);
        for (int k = 0; k < N_SIDE; k++)
                side_close(&r->side[k]);
}

static void run_some(Arena *a, const Trial *t, u32 n, const TrialOpt *opt)
{
        Run *r = NEWN(a, Run, n);
        Code c = {0};
        for (u32 i = 0; i < n; i++) {
                r[i] = (Run){.arena = a, .t = &t[i], .opt = opt};
                for (int k = 0; k < N_SIDE; k++) {
                        side_select(&r[i], &r[i].side[k], k == REUSED);
                        code_add(a, &c, r[i].side[k].emit);
                }
        }
        BuildOpt build = {.march = opt->march, .threads = 2};
        c.source = NEWN(a, const char *, c.n);
        cc_build(a, c.key, c.n, &build, &c.so, c.source);
        for (u32 i = 0; i < n; i++)
                trial_run(&r[i], &c);
        print_message("march %s: %u graphs, %u kernels\n", opt->march, n, c.n);
}

static void run_trapped(const Trial *t, u32 n, const TrialOpt *opt)
{
        Arena *a = arena_new();
        Trap trap;
        if (TRAP(&trap))
                fail_msg("%s", trap.error.msg);
        run_some(a, t, n, opt);
        trap_pop(&trap);
        arena_free(a);
}

void trials_run(const Trial *t, u32 n, const TrialOpt *opt)
{
        enum { TOGETHER = 8 };
        memset(worst, 0, sizeof worst);
        for (u32 i = 0; i < n; i += TOGETHER)
                run_trapped(t + i, MIN(n - i, TOGETHER), opt);
        for (int op = 0; op < N_OP; op++)
                if (worst[op] > 0)
                        print_message("  %s: at most %.2g of what it may differ by\n", op_info((Op)op)->name,
                                worst[op]);
}
