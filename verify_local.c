/* Launch by launch: each launch gets the inputs that the interpreter had, so an error is that launch's own.
 */
#include <math.h>
#include <string.h>
#include "moec_verify.h"

#define DECODE_STEPS 24

typedef struct Local {
        Check *c;
        const Graph *g; /* of the phase that runs */
        Arena *a;       /* of the step */
        Tensor *seen;   /* [n_val] what eval had */
        u32 first, n;   /* the step's first position; all of its tokens */
        LocalWorst *worst;
        bool stop;
} Local;

/* What an operation may differ by, relative (L2, by row): sums in another order; one code up or down where
 * activations or keys are rounded inside, since their norm differs in the last bit; an ulp of f16 where keys
 * and values are, or half an ulp of each factor where f16 is what is multiplied. */
static double bound_of(const Graph *g, const Node *n, const PlanKernel *k)
{
        bool q8 = n->op == OP_quantize || (op_info(n->op)->attr[A_out] && attr_i(n, A_out) == ACT_q8) ||
                  (op_info(n->op)->attr[A_act] && attr_i(n, A_act) == ACT_q8 &&
                          ref_type(g, in_get(n, S_x)).dt == D_f32) ||
                  (n->op == OP_attend && g->state[ref_idx(ref_state(g, in_get(n, S_kv)))].ktype == D_q8_0);
        return q8 ? 2e-2 : n->op == OP_attend || k->flags & PLAN_F16 ? 2e-3 : 1e-4;
}

static void keep(void *user, const EvalSeen *s)
{
        Local *l = user;
        for (u32 i = 0; i < s->n_out; i++) {
                Tensor *t = &l->seen[s->g->node[s->node].out + i];
                *t = s->out[i];
                u64 each = t->dt == D_route ? sizeof(Pick) : sizeof(float);
                if (t->data && t->dt != D_kv && t->dt != D_order)
                        t->data = arena_copy(l->a, t->data, tensor_len(t) * each);
        }
}

static void statistics(Local *l, const Node *n)
{
        for (u32 i = 0; i < n->nin; i++) {
                const Tensor *t = ref_kind(n->in[i].ref) == R_VAL ? &l->seen[ref_idx(n->in[i].ref)] : NULL;
                if (!t || !t->data || (t->dt != D_f32 && t->dt != D_q8))
                        continue;
                double low = INFINITY, high = -INFINITY, sq = 0;
                u64 len = tensor_len(t), bad = 0;
                for (u64 j = 0; j < len; j++) {
                        double v = (double)((const float *)t->data)[j];
                        bad += !isfinite(v);
                        low = fmin(low, v);
                        high = fmax(high, v);
                        sq += v * v;
                }
                buf_fmt(l->c->log,
                        "    input %s: %llu values, min %.4g, max %.4g, rms %.4g, not finite %llu\n",
                        slot_name[n->in[i].slot], (unsigned long long)len, low, high,
                        sqrt(sq / (double)MAX(len, 1)), (unsigned long long)bad);
        }
}

/* The worst row's ||got - want|| / ||want||. */
static double worst_row(const float *got, const float *want, u64 rows, u64 cols, u64 *at)
{
        double worst = 0;
        for (u64 r = 0; r < rows; r++) {
                double d = 0, w = 0;
                for (u64 i = 0; i < cols; i++) {
                        double x = (double)want[r * cols + i], y = (double)got[r * cols + i] - x;
                        d += y * y;
                        w += x * x;
                }
                double rel = w > 0 ? sqrt(d / w) : d > 0 ? INFINITY : 0;
                if (!(rel <= worst)) {
                        worst = isnan(rel) ? INFINITY : rel;
                        *at = r;
                }
        }
        return worst;
}

/* Chosen experts may change places where their scores nearly tie: then only the weights of the same expert
 * are compared. */
static double worst_route(const Pick *got, const Pick *want, u64 rows, u64 k, u64 *at)
{
        double worst = 0;
        for (u64 r = 0; r < rows; r++)
                for (u64 i = 0; i < k; i++)
                        for (u64 j = 0; j < k; j++)
                                if (got[r * k + i].id == want[r * k + j].id) {
                                        double d = fabs((double)got[r * k + i].w - (double)want[r * k + j].w);
                                        if (!(d <= worst)) {
                                                worst = isnan(d) ? INFINITY : d;
                                                *at = r;
                                        }
                                }
        return worst;
}

static void compare(Local *l, const Node *n, u32 val, const PlanLaunch *pl)
{
        const char *label = plan_str(l->c->plan, pl->label);
        double bound = bound_of(l->g, n, &l->c->plan->KERNEL[pl->kernel]);
        const Tensor *want = &l->seen[val];
        u64 count, at = 0;
        void *got = check_read(l->c, l->g, val, l->n, l->n, l->a, &count);
        if (!got || !want->data)
                return;
        u64 cols = want->dim[want->rank - 1], rows = count / MAX(cols, 1);
        double rel = want->dt == D_route ? worst_route(got, want->data, rows, cols, &at)
                                         : worst_row(got, want->data, rows, cols, &at);
        if (!(rel <= l->worst->rel))
                *l->worst = (LocalWorst){rel, label};
        if (!(rel <= bound)) {
                buf_fmt(l->c->log,
                        "  %s of %s diverges first: relative error %.3g (bound %.0e) at row %llu, token %u "
                        "of the step at %u\n",
                        label, l->g->name, rel, bound, (unsigned long long)at,
                        (u32)(at * l->n / MAX(rows, 1)), l->first);
                statistics(l, n);
                l->c->failed = l->stop = true;
        }
}

static void after_launch(void *user, u32 phase, u32 launch)
{
        Local *l = user;
        const PlanLaunch *pl = &l->c->plan->LAUNCH[launch];
        const Node *n = &l->g->node[pl->node];
        (void)phase;
        for (u32 i = 0; i < n->nout && !l->stop; i++)
                if (l->g->val[n->out + i].type.dt != D_kv && l->g->val[n->out + i].type.dt != D_order)
                        compare(l, n, n->out + i, pl);
        for (u32 i = 0; i < n->nout; i++)
                if (l->g->val[n->out + i].type.dt != D_kv && l->g->val[n->out + i].type.dt != D_order)
                        check_write(l->c, l->g, n->out + i, l->n, l->n, &l->seen[n->out + i], l->a);
}

static void step(Local *l, EvalKv *kv, u32 phase, CheckStep s)
{
        Arena *a = l->a = arena_new();
        EvalIn in = check_in(l->c, &s, a);
        l->g = check_graph(l->c, phase);
        l->first = s.first;
        l->n = (u32)in.n_tok;
        l->seen = NEWN(a, Tensor, l->g->n_val);
        EvalOpt opt = {.cache = l->c->cache, .hook = keep, .user = l};
        Tensor *ret = NEWN(a, Tensor, l->g->n_ret);
        eval(l->g, kv, &in, &opt, a, ret);
        float *logits = NEWN(a, float, (u64)s.n * l->c->n_vocab);
        rt_set_hook(l->c->rt, after_launch, l);
        check_step(l->c, &s, logits);
        rt_set_hook(l->c->rt, NULL, NULL);
        arena_free(a);
}

void check_local(Check *c, LocalWorst *worst)
{
        Local l = {.c = c, .worst = worst};
        *worst = (LocalWorst){0, "none"};
        for (u32 p = c->s->n; p-- > 1 && !l.stop;) {
                CheckStep s = check_largest(c, p);
                EvalKv *kv = eval_kv_new(s.copies, c->n + 1);
                if (s.n)
                        step(&l, kv, p, s);
                eval_kv_free(kv);
        }
        EvalKv *kv = eval_kv_new(1, c->n + 1);
        for (u32 i = 0; i < MIN(c->n, DECODE_STEPS) && !l.stop; i++)
                step(&l, kv, 0, (CheckStep){i, 1, 1});
        eval_kv_free(kv);
}
