/* The CUDA templates, run on the CPU (tests/lib/oncuda.h): every launch of random graphs and of graphs with
 * every weight type, given the interpreter's values, gives the interpreter's results; the same bits in
 * whatever order threads and blocks run, and where a result takes an operand's place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "codegen/select_graph.h"
#include "ir/eval.h"
#include "ir/quant.h"
#include "passes/passes.h"
#include "runtime/pack.h"
#include "tests/lib/kernelgraph.h"
#include "tests/lib/oncuda.h"
#include "tests/lib/randgraph.h"
#include <cmocka.h>

enum { N_SEQ = 2, N_CTX = 800, FEW = 16, WIDE = 11, MANY = 150, MAX_KEYS = 1024 };
#define DECODE(q)                                                                                            \
        "fold, dce, experts, qmatmul" q                                                                      \
        ", fuse dup_norm fuse_kv round_attend round_route route_max=1000000, layout split, order, buffers"
#define PREFILL(q) "fold, dce, experts grouped, qmatmul" q ", fuse quantize, layout split, order, buffers"
#define BATCH                                                                                                \
        "fold, dce, experts, qmatmul act=q8, fuse quantize round_attend route_norm round_route "             \
        "route_max=1000000, layout split, order, buffers"

typedef struct Trial {
        const char *name;
        Graph *g; /* passes done */
        u32 max_tok, steps;
        u32 near;          /* 0; a sequence's tokens of a step are within so many */
        u32 quick;         /* steps of which only what fills the cache is run, and once */
        const u32 *tokens; /* NULL; how many go to each of counts_graph's experts */
        bool runs;         /* most of a step's tokens in runs of one sequence's */
        bool alone;        /* all steps as wide as may be, every other one of one sequence alone */
        bool full;
        Sel *sel; /* [n_node] */
        u32 *key;
        EvalKv *kv;
        i32 len[N_SEQ];
        RandStep step;
        Mem *weight;     /* [n_weight] as the kernels read it; made when first used */
        Mem (*plane)[2]; /* [n_state] keys, values */
} Trial;

static Arena *arena;
static Key *keys[MAX_KEYS];
static u32 n_keys, n_run;
static Fibred *fn[MAX_KEYS];
static double worst[N_OP];

/* ---- selecting ---- */

static u32 key_index(Key *k)
{
        for (u32 i = 0; i < n_keys; i++)
                if (!strcmp(keys[i]->text, k->text))
                        return i;
        assert_true(n_keys < MAX_KEYS);
        keys[n_keys] = k;
        return n_keys++;
}

static Trial trial(const char *name, const Graph *g, const char *words, u32 max_tok, u32 near, u32 steps)
{
        PassOpt opt = {0};
        Trial t = {.name = name,
                .g = graph_clone(g, arena, name),
                .max_tok = max_tok,
                .near = near,
                .steps = steps};
        t.g->max[DIM_n_tok] = t.g->max[DIM_n_out] = max_tok;
        t.g->max_seq_tok = near;
        t.g->max[DIM_n_seq] = N_SEQ;
        t.g->max[DIM_n_ctx] = N_CTX;
        run_passes(t.g, words, &opt, NULL, NULL);
        t.sel = NEWN(arena, Sel, t.g->n_node);
        t.key = NEWN(arena, u32, t.g->n_node);
        t.weight = NEWN(arena, Mem, t.g->n_weight);
        t.plane = (Mem(*)[2])arena_array(arena, t.g->n_state + 1, sizeof *t.plane);
        select_graph(arena, t.g, TARGET_cuda, NULL, t.sel);
        for (u32 i = 0; i < t.g->n_node; i++)
                if (t.sel[i].key)
                        t.key[i] = key_index(t.sel[i].key);
        return t;
}

/* ---- the interpreter's values as the kernels have them ---- */

static Mem put_q8(const Tensor *x)
{
        u64 n = tensor_len(x);
        Mem m = mem_new(n + n / 16 * 8, MEM_IN);
        float *d = (float *)(void *)(m.p + n), *s = d + n / 16;
        q8_quantize(x->data, (i8 *)m.p, d, n);
        for (u64 i = 0; i < n / 16; i++) {
                i32 sum = 0;
                for (u64 k = 0; k < 16; k++)
                        sum += ((i8 *)m.p)[16 * i + k];
                s[i] = d[i] * (float)sum;
        }
        return m;
}

static Mem put_plain(const void *data, u64 bytes, Access access)
{
        Mem m = mem_new(bytes, access);
        memcpy(m.p, data, bytes);
        return m;
}

/* The pairs of a route grouped by expert: offsets, then pairs. */
static Mem put_order(const Tensor *route, u64 experts)
{
        u64 n = tensor_len(route), at = 0;
        const Pick *pick = route->data;
        Mem m = mem_new((experts + 1 + n) * 4, MEM_IN);
        u32 *off = (u32 *)(void *)m.p;
        for (u64 e = 0; e <= experts; e++) {
                off[e] = (u32)at;
                for (u64 i = 0; i < n; i++)
                        if (pick[i].id == (i32)e)
                                off[experts + 1 + at++] = (u32)i;
        }
        return m;
}

static Mem *weight_mem(Trial *t, u32 i)
{
        const Weight *w = &t->g->weight[i];
        u64 cols = w->dim[w->rank - 1], rows = 1, bytes;
        if (t->weight[i].p)
                return &t->weight[i];
        for (u32 k = 0; k + 1 < w->rank; k++)
                rows *= w->dim[k];
        if (w->layout == LAYOUT_split) {
                t->weight[i] = mem_new(rows * pack_split_bytes(w->type, cols), MEM_WEIGHT);
                pack_split(w->type, w->data, t->weight[i].p, rows, cols);
        } else {
                assert_true(wtype_bytes(w->type, rows * cols, &bytes));
                t->weight[i] = put_plain(w->data, bytes, MEM_WEIGHT);
        }
        return &t->weight[i];
}

static Mem *plane_mem(Trial *t, u32 i, bool values)
{
        const State *s = &t->g->state[i];
        u64 row = values ? kv_row_bytes(s->vtype, (u64)s->dv) : kv_row_bytes(s->ktype, (u64)s->dk);
        if (!t->plane[i][values].p)
                t->plane[i][values] = mem_new(N_SEQ * (u64)s->heads * N_CTX * row, MEM_OUT);
        return &t->plane[i][values];
}

static Mem put_input(const Trial *t, u32 i)
{
        const i32 *from[] = {t->step.ids, t->step.pos, t->step.seq, t->step.out};
        return put_plain(from[i], 4 * (i == IN_out ? t->step.n_out : t->step.n_tok), MEM_IN);
}

static const Tensor *operand(const EvalSeen *s, Slot slot)
{
        const Node *n = &s->g->node[s->node];
        for (u32 i = 0; i < n->nin; i++)
                if (n->in[i].slot == slot)
                        return &s->in[i];
        return NULL;
}

static Mem put_value(const EvalSeen *s, Ref r)
{
        const Node *n = &s->g->node[s->node];
        for (u32 i = 0; i < s->n_in; i++) {
                const Tensor *x = &s->in[i];
                if (n->in[i].ref != r)
                        continue;
                if (x->dt == D_q8)
                        return put_q8(x);
                if (x->dt == D_order) {
                        Slot w = n->op == OP_experts_up ? S_gate : S_down;
                        return put_order(operand(s, S_route), (u64)ref_type(s->g, in_get(n, w)).dim[0].n);
                }
                return put_plain(x->data, tensor_len(x) * (x->dt == D_route ? 8 : 4), MEM_IN);
        }
        die("no such operand");
}

static u64 result_bytes(const EvalSeen *s, u32 i)
{
        const Tensor *x = &s->out[i];
        u64 n = tensor_len(x);
        if (x->dt == D_order)
                return 4 * (n + (u64)attr_i(&s->g->node[s->node], A_experts) + 1);
        return x->dt == D_q8 ? n + n / 16 * 8 : n * (x->dt == D_route ? 8 : 4);
}

/* ---- comparing ---- */

static void wrong(const Trial *t, const EvalSeen *s, const char *what)
{
        Buf b = {0};
        print_node(s->g, s->node, &b);
        buf_char(&b, 0);
        fail_msg("%s: %s\n%s\n%s", t->name, what, b.p, t->sel[s->node].key->text);
}

/* Of the largest result, by templates for tensor cores: weights and activations are rounded to f16 once each:
 * 2e-4 (0.4 * 2^-11) in the mean, 3e-4 together. A sum of many terms of either sign is off by as much of its
 * own usual size, the worst of thousands by four times that; the largest is twice the usual at least: 2^-10.
 * 0 by others. */
static double f16_limit(const Trial *t, const EvalSeen *s)
{
        bool f16 = t->sel[s->node].flags & PLAN_F16;
        return f16 && s->g->node[s->node].op != OP_attend ? 0x1p-10 : 0;
}
/* attend_many rounds queries and weights to f16: half an ulp of them. */
static bool rounds_inside(const Trial *t, const EvalSeen *s)
{
        return t->sel[s->node].flags & PLAN_F16 && s->g->node[s->node].op == OP_attend;
}

/* By the largest: what is near 0 by cancelling has the others' rounding. */
static void same_values(const Trial *t, const EvalSeen *s, const float *got, const float *want, u64 n)
{
        Op op = s->g->node[s->node].op;
        double most = 0, off = 0,
               limit = rounds_inside(t, s)                                                    ? 5e-4
                       : op == OP_attend                                                      ? 1e-4
                       : op == OP_embed || op == OP_rows || op == OP_slice || op == OP_concat ? 1e-7
                                                                                              : 5e-6;
        u64 at = 0;
        limit = fmax(limit, f16_limit(t, s));
        for (u64 i = 0; i < n; i++) {
                double d = fabs((double)got[i] - (double)want[i]);
                most = fmax(most, fabs((double)want[i]));
                if (!(d <= off))
                        off = isnan(d) ? INFINITY : d, at = i;
        }
        worst[op] = fmax(worst[op], off / fmax(most, 1e-30));
        if (!(off <= limit * most))
                wrong(t, s,
                        arena_fmt(arena, "value %llu of %llu is %g, not %g; the largest is %g",
                                (unsigned long long)at, (unsigned long long)n, (double)got[at],
                                (double)want[at], most));
}

/* Codes may be one off where what was rounded differed in its last bit (by tensor cores: in its f16's). */
static void same_q8(const Trial *t, const EvalSeen *s, const u8 *p, const float *want, u64 n)
{
        const float *d = (const float *)(const void *)(p + n), *sum = d + n / 16;
        u64 off = 0, limit_off = n / (rounds_inside(t, s) ? 20 : f16_limit(t, s) > 0 ? 10 : 100);
        float most = 0, more, limit = rounds_inside(t, s) ? 5e-4f : 2e-5f;
        for (u64 i = 0; i < n; i++)
                most = fmaxf(most, fabsf(want[i]));
        more = (float)f16_limit(t, s) * most;
        for (u64 i = 0; i < n; i++) {
                float got = (float)((const i8 *)p)[i] * d[i / 16];
                off += !(fabsf(got - want[i]) <= limit * 127 * d[i / 16] + more);
                if (!(fabsf(got - want[i]) <= (1 + MAX(0.01f, 127 * limit)) * d[i / 16] + more))
                        wrong(t, s,
                                arena_fmt(arena, "value %llu is %g, not %g", (unsigned long long)i,
                                        (double)got, (double)want[i]));
        }
        if (off > limit_off || (off && s->g->node[s->node].op == OP_quantize))
                wrong(t, s,
                        arena_fmt(arena, "%llu of %llu codes differ", (unsigned long long)off,
                                (unsigned long long)n));
        for (u64 i = 0; i < n / 16; i++) {
                i32 codes = 0;
                for (u64 k = 0; k < 16; k++)
                        codes += ((const i8 *)p)[16 * i + k];
                if (sum[i] != d[i] * (float)codes)
                        wrong(t, s, "a sum is not that of its codes");
        }
}

static void same_route(const Trial *t, const EvalSeen *s, const Pick *got, const Pick *want, u64 n)
{
        for (u64 i = 0; i < n; i++)
                if (got[i].id != want[i].id ||
                        !(fabsf(got[i].w - want[i].w) <= 2e-5f * fabsf(want[i].w) + 1e-7f))
                        wrong(t, s,
                                arena_fmt(arena, "choice %llu is %d by %g, not %d by %g",
                                        (unsigned long long)i, got[i].id, (double)got[i].w, want[i].id,
                                        (double)want[i].w));
}

static void compare(const Trial *t, const EvalSeen *s, u32 i, const Mem *m)
{
        const Tensor *x = &s->out[i];
        u64 n = tensor_len(x);
        if (x->dt == D_f32)
                same_values(t, s, (const float *)(const void *)m->p, x->data, n);
        else if (x->dt == D_q8)
                same_q8(t, s, m->p, x->data, n);
        else if (x->dt == D_route)
                same_route(t, s, (const Pick *)(const void *)m->p, x->data, n);
        else if (x->dt == D_order) {
                Mem o = put_order(operand(s, S_route), (u64)attr_i(&s->g->node[s->node], A_experts));
                if (memcmp(o.p, m->p, o.bytes) != 0)
                        wrong(t, s, "another order");
                mem_free(&o);
        }
}

/* ---- a launch ---- */

/* The operand whose place the first result may have, as an argument; -1: none. */
static int shared_place(const EvalSeen *s, const Sel *sel)
{
        const Node *n = &s->g->node[s->node];
        for (u32 i = 0; i < n->nin; i++)
                for (u32 k = n->nout; in_place(s->g, s->node, i) && k < sel->n_arg; k++)
                        if (sel->arg[k].kind == PLAN_BUF && sel->arg[k].ref == n->in[i].ref)
                                return (int)k;
        return -1;
}

static bool is_result(const EvalSeen *s, const struct SelArg *a, u32 *i)
{
        const Node *n = &s->g->node[s->node];
        *i = ref_idx(a->ref) - n->out;
        return a->kind == PLAN_BUF && ref_idx(a->ref) >= n->out && *i < n->nout;
}

static void launch(Trial *t, const EvalSeen *s, bool again)
{
        const Sel *sel = &t->sel[s->node];
        KernelDim dim = {t->step.n_tok, t->step.n_out, N_SEQ, N_CTX};
        Mem own[MAX_ARG] = {0}, *arg[MAX_ARG] = {0};
        u32 r;
        for (u32 i = 0; i < sel->n_arg; i++) {
                const struct SelArg *a = &sel->arg[i];
                arg[i] = &own[i];
                if (a->kind == PLAN_W)
                        arg[i] = weight_mem(t, ref_idx(a->ref));
                else if (a->kind == PLAN_K || a->kind == PLAN_V)
                        arg[i] = plane_mem(t, ref_idx(a->ref), a->kind == PLAN_V);
                else if (a->kind == PLAN_INPUT)
                        own[i] = put_input(t, ref_idx(a->ref));
                else if (is_result(s, a, &r))
                        own[i] = mem_new(result_bytes(s, r), MEM_OUT);
                else
                        own[i] = put_value(s, a->ref);
        }
        int place = again ? shared_place(s, sel) : -1;
        if (place >= 0) {
                arg[0] = arg[place];
                arg[0]->access = MEM_OUT;
        }
        /* Backward first: a token's block must not find in the cache what those in front of it append. */
        const char *what = oncuda_run(fn[t->key[s->node]], sel, arg, &dim, !again);
        if (what)
                wrong(t, s, what);
        for (u32 i = 0; i < sel->n_arg; i++)
                if (is_result(s, &sel->arg[i], &r))
                        compare(t, s, r, arg[i]);
        static Mem before[MAX_ARG]; /* the first run's results */
        for (u32 i = 0; i < sel->n_arg; i++) {
                bool result = is_result(s, &sel->arg[i], &r);
                if (result && again && memcmp(before[i].p, arg[i]->p, before[i].bytes) != 0)
                        wrong(t, s, "other bits in another order");
                if (again)
                        mem_free(&before[i]);
                if (result && !again && t->full)
                        before[i] = own[i];
                else
                        mem_free(&own[i]);
        }
        n_run++;
}

static void seen(void *user, const EvalSeen *s)
{
        Trial *t = user;
        Op op = s->g->node[s->node].op;
        bool appends = op == OP_kv_append || (op == OP_attend && s->g->node[s->node].nout > 1);
        if (!t->sel[s->node].key || !(t->full || appends || (op == OP_attend && !t->runs)))
                return;
        launch(t, s, false);
        if (t->full)
                launch(t, s, true);
}

/* Token i's id is that of its expert or, by turns, 4 or more higher. */
static void make_ids(RandStep *s, const u32 *tokens)
{
        for (u32 i = 0, e = 0, n = 0; i < s->n_tok; i++, n++) {
                while (n == tokens[e])
                        n = 0, e++;
                s->ids[i] = (i32)(e + i % 8 * 4);
        }
}

static void run(Trial *t, u64 seed)
{
        Rand r = {seed};
        t->kv = eval_kv_new(N_SEQ, N_CTX);
        for (u32 i = 0; i < t->steps; i++) {
                Arena *a = arena_new();
                bool most = i == 0 || t->alone || (t->runs && i < t->quick);
                u32 wide = t->near ? t->near : t->max_tok;
                u32 n = wide == 1 ? 1 : most ? wide : 1 + rand_below(&r, wide);
                t->step = rand_step(a, &r, t->g, n, t->alone && i % 2 ? 1 : N_SEQ, t->len);
                if (t->runs)
                        step_by_sequence(a, &t->step, N_SEQ);
                if (t->tokens)
                        make_ids(&t->step, t->tokens);
                t->full = i >= t->quick;
                EvalIn in = {
                        t->step.n_tok, t->step.n_out, t->step.ids, t->step.pos, t->step.seq, t->step.out};
                EvalOpt opt = {.hook = seen, .user = t};
                eval(t->g, t->kv, &in, &opt, a, NEWN(a, Tensor, t->g->n_ret));
                arena_free(a);
        }
        eval_kv_free(t->kv);
        for (u32 i = 0; i < t->g->n_weight; i++)
                mem_free(&t->weight[i]);
        for (u32 i = 0; i < t->g->n_state; i++)
                mem_free(&t->plane[i][0]), mem_free(&t->plane[i][1]);
}

/* ---- what is tried ---- */

enum { MAX_TRIAL = 64 };
static Trial trials[MAX_TRIAL];
static u32 n_trials;

static void add(const char *name, const Graph *g, const char *words, u32 max_tok, u32 steps)
{
        assert_true(n_trials < MAX_TRIAL);
        trials[n_trials++] = trial(name, g, words, max_tok, 0, steps);
}

/* Whether an attend of the trial waits before it reads, and another one does not. */
static bool both_ways(const Trial *t)
{
        u32 early = 0, late = 0;
        for (u32 i = 0; i < t->g->n_node; i++) {
                early += t->sel[i].key && strstr(t->sel[i].key->text, "EARLY_kv=1");
                late += t->sel[i].key && strstr(t->sel[i].key->text, "EARLY_kv=0");
        }
        return early && late;
}

static void past_trials(const char *const words[4])
{
        for (u32 i = 0; i < 4; i += 2) {
                add("long past", past_graph(arena, 48, "f16 f16"), words[i], 1, 600);
                trials[n_trials - 1].quick = 594;
                add("long past, on tensor cores", past_one_graph(arena), words[i], 1, 600);
                trials[n_trials - 1].quick = 596;
                assert_true(both_ways(&trials[n_trials - 1]));
                add("long past, few tokens", past_graph(arena, 48, "f16 f16"), words[i], FEW, 120);
                trials[n_trials - 1].quick = 116;
                add("long past, few tokens on tensor cores", past_one_graph(arena), words[i], FEW, 120);
                trials[n_trials - 1].quick = 116;
        }
        add("long past, kept as q8_0", past_graph(arena, 64, "q8_0 q8_0"), words[0], 1, 150);
        trials[n_trials - 1].quick = 147;
}

typedef struct Counts {
        const char *type, *down;
        int k, f;
        u32 tokens[4];
} Counts;

/* Experts that have each number of tokens of which a tile may have some. */
static void token_trials(const char *words, const Counts *c, u32 n_counts)
{
        for (u32 i = 0; i < n_counts; i++) {
                u32 n = c[i].tokens[0] + c[i].tokens[1] + c[i].tokens[2] + c[i].tokens[3];
                add(arena_fmt(arena, "tensor cores, experts' tokens: %u %u %u %u", c[i].tokens[0],
                            c[i].tokens[1], c[i].tokens[2], c[i].tokens[3]),
                        counts_graph(arena, c[i].type, c[i].down, c[i].k, c[i].f), words, n, 1);
                trials[n_trials - 1].tokens = c[i].tokens;
        }
}

static void four_trials(const char *words)
{
        add("types, four tokens, q8", types_graph(arena, true, 5), words, 4, 3);
        add("products, four tokens", products_graph(arena), words, 4, 3);
        add("5 experts, four tokens", router_graph(arena, 5), words, 4, 3);
        add("8 of 16 experts, four tokens", slots_graph(arena, "Q6_K", 768), words, 4, 3);
        add("8 of 16 experts, which norm for themselves", slots_graph(arena, "Q6_K", 768),
                "fold, dce, experts, qmatmul act=q8, fuse dup_norm route_max=1000000, layout split, order, "
                "buffers",
                4, 3);
        add("8 of 16 experts, no whole number of tiles", slots_graph(arena, "F32", 600),
                "fold, dce, experts, qmatmul act=f32, fuse dup_norm route_max=1000000, layout split, order, "
                "buffers",
                4, 2);
}

/* In steps that may be wide, as long as a sequence's tokens are near each other. */
static void near_trials(const char *words)
{
        assert_true(n_trials < MAX_TRIAL);
        trials[n_trials++] =
                trial("long past, 8 of 40 tokens on tensor cores", past_one_graph(arena), words, 40, 8, 130);
        trials[n_trials - 1].quick = 126;
        add("128 experts, a batch in part", router_graph(arena, 128), BATCH, 64, 3);
}

static void make_trials(void)
{
        enum { SEEDS = 4 };
        static const char *const words[] = {DECODE(" act=q8"), PREFILL(" act=q8"), DECODE(""), PREFILL("")};
        add("types, one token, q8", types_graph(arena, true, 1), words[0], 1, 2);
        add("types, few tokens, q8", types_graph(arena, true, 3), words[0], FEW, 2);
        add("types, three tokens, f32", types_graph(arena, false, 6), words[2], 3, 2);
        add("types, many tokens, q8", types_graph(arena, true, 5), words[1], WIDE, 1);
        add("types, one token, f32", types_graph(arena, false, 6), words[2], 1, 2);
        add("types, many tokens, f32", types_graph(arena, false, 7), words[3], WIDE, 1);
        past_trials(words);
        static const int experts[] = {5, 20, 128, 129};
        for (u32 i = 0; i < COUNT(experts); i++) {
                Graph *g = router_graph(arena, experts[i]);
                add(arena_fmt(arena, "%d experts", experts[i]), g, words[0], 1, 1);
                add(arena_fmt(arena, "%d experts, few tokens", experts[i]), g, words[0], i ? FEW : 2, 1);
        }
        add("products, few tokens", products_graph(arena), words[0], FEW, 2);
        add("tensor cores, few tokens", products_graph(arena), words[1], 40, 1);
        add("tensor cores, many tokens", products_graph(arena), words[1], 70, 1);
        static const Counts many[] = {{"Q4_K", "Q6_K", 512, 256, {0, 1, 64, 65}},
                {"Q5_0", "Q8_0", 320, 192, {16, 17, 33, 48}}, {"Q2_K", "Q3_K", 256, 256, {15, 32, 49, 8}}};
        token_trials(words[1], many, COUNT(many));
        static const struct {
                const char *name;
                u32 quick;
                AttendShape shape;
        } m[] = {{"many, 8 heads a key", 8,
                         {8, 1, 128, 128, "f32", "f16 f16",
                                 "norm $n, scale 0x1p-3, eps 0x1p-20, rdim 128, rstyle neox"}},
                {"many, each thing", 8,
                        {8, 1, 64, 64, "f32", "f16 f16",
                                "norm $n, sinks $s, freqs $f, window 200, scale 0x1p-3, softcap 0x1.4p+3, "
                                "eps 0x1p-20, rdim 32, rstyle norm"}},
                {"many, odd", 8, {6, 2, 48, 80, "q8", "f16 f16", "scale 0x1p-2"}},
                {"many, wide", 0, {12, 1, 256, 192, "q8", "f16 f16", "scale 0x1p-4"}},
                {"many, kept as q8_0", 1,
                        {4, 2, 64, 128, "f32", "q8_0 q8_0",
                                "norm $n, scale 0x1p-3, eps 0x1p-20, rdim 64, rstyle neox"}},
                {"many, keys kept as q8_0", 1, {4, 1, 96, 40, "f32", "q8_0 f32", "scale 0x1p-2"}}};
        for (u32 i = 0; i < COUNT(m); i++) {
                add(m[i].name, attend_graph(arena, &m[i].shape), words[3], MANY, m[i].quick + 2);
                trials[n_trials - 1].quick = m[i].quick;
                trials[n_trials - 1].runs = true;
        }
        for (u64 i = 0; i < SEEDS; i++)
                add(arena_fmt(arena, "seed %llu", (unsigned long long)i), rand_graph(arena, i, false),
                        words[i % 4], i % 2 ? WIDE : 1, i % 2 ? 2 : 5);
        for (u64 i = 0; i < SEEDS; i++)
                add(arena_fmt(arena, "seed %llu, few tokens", (unsigned long long)i),
                        rand_graph(arena, i, false), words[i % 2 * 2], 2 + (u32)i * 2, 3);
        static const Counts batch[] = {{"Q4_K", "Q6_K", 512, 256, {0, 1, 8, 9}},
                {"Q5_0", "Q8_0", 320, 192, {16, 17, 7, 24}}, {"Q2_K", "Q3_K", 2304, 1024, {2, 2, 3, 5}}};
        token_trials(BATCH, batch, COUNT(batch));
        add("products, a batch", products_graph(arena), BATCH, 16, 2);
        add("128 experts, a batch", router_graph(arena, 128), BATCH, 64, 1);
        add("long past, 32 tokens on tensor cores", past_one_graph(arena), words[0], 32, 26);
        trials[n_trials - 1].quick = 24;
        trials[n_trials - 1].runs = trials[n_trials - 1].alone = true;
        four_trials(words[0]);
        near_trials(words[0]);
}

static void test_all(void **state)
{
        (void)state;
        arena = arena_new();
        make_trials();
        OnCuda *o = oncuda_new(arena, keys, n_keys, fn);
        if (!o) {
                print_message("no C++ compiler\n");
                skip();
        }
        for (u32 i = 0; i < n_trials; i++)
                run(&trials[i], i);
        print_message("%u kernels, %u launches\n", n_keys, n_run);
        for (u32 i = 0; i < N_OP; i++)
                if (worst[i] > 0)
                        print_message("  %-14s off by %.1e of the largest at most\n", op_info((Op)i)->name,
                                worst[i]);
        oncuda_free(o);
        arena_free(arena);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
