/* On logits: the target against exact eval, with its own routes and with eval's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "moec_verify.h"

typedef struct Run {
        Check *c;
        Route *route;     /* [n_layer] of this run */
        const Route *pin; /* to write over them; NULL: keep */
        const Graph *g;
        CheckStep step;
} Run;

/* ---- the exact run ---- */

/* Between the scores of the last one in and the first one out, as logits differ. */
static float gap_of(const float *select, const float *z, u64 experts, const Pick *pick, u32 k)
{
        float in = INFINITY, out = -INFINITY;
        u64 at_in = 0, at_out = 0;
        for (u64 e = 0; e < experts; e++) {
                bool chosen = false;
                for (u32 i = 0; i < k; i++)
                        chosen = chosen || pick[i].id == (i32)e;
                if (chosen && select[e] < in) {
                        in = select[e];
                        at_in = e;
                }
                if (!chosen && select[e] > out) {
                        out = select[e];
                        at_out = e;
                }
        }
        return fabsf(z[at_in] - z[at_out]);
}

static void note_route(void *user, const EvalSeen *s)
{
        Run *run = user;
        const Node *n = &s->g->node[s->node];
        i64 layer = attr_i(n, A_layer);
        if (n->op != OP_route || layer < 0 || layer >= run->c->n_layer)
                return;
        const Tensor *t = &s->out[0];
        Route *r = &run->route[layer];
        Arena *a = run->c->arena;
        u64 rows = tensor_rows(t), experts = s->logits->dim[s->logits->rank - 1];
        r->k = (u32)t->dim[t->rank - 1];
        r->pick = arena_copy(a, t->data, tensor_len(t) * sizeof(Pick));
        r->gap = NEWN(a, float, rows);
        for (u64 i = 0; i < rows; i++)
                r->gap[i] = gap_of((const float *)s->select->data + i * experts,
                        (const float *)s->logits->data + i * experts, experts, r->pick + i * r->k, r->k);
}

static float *run_exact(Check *c, Route *route)
{
        Arena *a = c->arena;
        const Model *m = &c->s->front->model;
        Graph *g = model_graph(m, a, D_f32, D_f32);
        i32 *pos = NEWN(a, i32, c->n), *seq = NEWN(a, i32, c->n), *out = NEWN(a, i32, c->n);
        for (u32 i = 0; i < c->n; i++)
                pos[i] = out[i] = (i32)i;
        Run run = {.c = c, .route = route};
        EvalIn in = {c->n, c->n, c->id, pos, seq, out};
        EvalOpt opt = {.exact = true, .cache = c->cache, .hook = note_route, .user = &run};
        EvalKv *kv = eval_kv_new(1, c->n);
        Tensor *ret = NEWN(a, Tensor, g->n_ret);
        eval(g, kv, &in, &opt, a, ret);
        eval_kv_free(kv);
        return ret[0].data;
}

/* ---- the target's runs ---- */

static void pin_route(void *user, u32 phase, u32 launch)
{
        Run *run = user;
        run->g = check_graph(run->c, phase);
        const Node *n = &run->g->node[run->c->plan->LAUNCH[launch].node];
        i64 layer = attr_i(n, A_layer);
        if (n->op != OP_route || layer < 0 || layer >= run->c->n_layer)
                return;
        u64 count;
        Route *r = &run->route[layer];
        u32 k = (u32)dim_last(&run->g->val[n->out].type);
        if (!r->pick) {
                r->pick = NEWN(run->c->arena, Pick, (u64)run->c->n * k);
                r->k = k;
        }
        Arena *a = arena_new();
        const CheckStep *s = &run->step;
        u32 n_tok = s->n * s->copies;
        u64 each = (u64)s->n * k;
        memcpy(r->pick + (u64)s->first * k, check_read(run->c, run->g, n->out, n_tok, n_tok, a, &count),
                each * sizeof(Pick));
        if (run->pin) {
                Pick *pick = NEWN(a, Pick, each * s->copies);
                for (u32 i = 0; i < s->copies; i++)
                        memcpy(pick + each * i, run->pin[layer].pick + (u64)s->first * k,
                                each * sizeof *pick);
                Tensor t = {.dt = D_route, .rank = 2, .dim = {n_tok, k}, .data = pick};
                check_write(run->c, run->g, n->out, n_tok, n_tok, &t, a);
        }
        arena_free(a);
}

/* All tokens, in steps like this one. */
static float *run_target(Check *c, CheckStep each, const Route *pin, Route *route)
{
        Run run = {.c = c, .route = route, .pin = pin, .step = each};
        float *logits = NEWN(c->arena, float, (u64)c->n * c->n_vocab);
        rt_set_hook(c->rt, pin_route, &run);
        for (u32 i = 0; i < c->n; i += run.step.n) {
                run.step.first = i;
                run.step.n = MIN(each.n, c->n - i);
                check_step(c, &run.step, logits + (u64)i * c->n_vocab);
        }
        rt_set_hook(c->rt, NULL, NULL);
        return logits;
}

/* ---- comparing ---- */

typedef struct Score {
        double min_cosine, max_rel, mean_kl, argmax;
        u32 n, worst;
} Score;

static double log_sum(const float *z, u32 n)
{
        double top = -INFINITY, sum = 0;
        for (u32 i = 0; i < n; i++)
                top = fmax(top, (double)z[i]);
        for (u32 i = 0; i < n; i++)
                sum += exp((double)z[i] - top);
        return n ? top + log(sum) : top;
}

static u32 argmax(const float *z, u32 n)
{
        u32 at = 0;
        for (u32 i = 1; i < n; i++)
                if (z[i] > z[at])
                        at = i;
        return at;
}

static void score_row(Score *s, const float *want, const float *got, u32 n, u32 row)
{
        double ww = 0, gg = 0, wg = 0, dd = 0, kl = 0, lw = log_sum(want, n), lg = log_sum(got, n);
        for (u32 i = 0; i < n; i++) {
                double w = (double)want[i], g = (double)got[i];
                ww += w * w;
                gg += g * g;
                wg += w * g;
                dd += (w - g) * (w - g);
                kl += exp(w - lw) * ((w - lw) - (g - lg));
        }
        double cosine = wg / sqrt(ww * gg);
        if (!(cosine >= s->min_cosine)) {
                s->min_cosine = isnan(cosine) ? -1 : cosine;
                s->worst = row;
        }
        s->max_rel = fmax(s->max_rel, sqrt(dd / ww));
        s->mean_kl += isnan(kl) ? INFINITY : kl;
        s->argmax += argmax(want, n) == argmax(got, n);
        s->n++;
}

static Score score(const Check *c, const float *want, const float *got, u32 until)
{
        Score s = {.min_cosine = 1};
        for (u32 i = 0; i < until; i++)
                score_row(&s, want + (u64)i * c->n_vocab, got + (u64)i * c->n_vocab, c->n_vocab, i);
        s.mean_kl /= MAX(s.n, 1);
        s.argmax /= MAX(s.n, 1);
        return s;
}

static bool same_set(const Pick *a, const Pick *b, u32 k)
{
        for (u32 i = 0; i < k; i++) {
                bool found = false;
                for (u32 j = 0; j < k; j++)
                        found = found || a[i].id == b[j].id;
                if (!found)
                        return false;
        }
        return true;
}

/* Counts tokens routed otherwise than exactly. *until: the first one whose choice nearly tied; what comes
 * after it differs for that reason. */
static u32 flips(Check *c, const Route *exact, const Route *own, u32 *until)
{
        u32 n = 0;
        *until = c->n;
        for (u32 t = 0; t < c->n; t++)
                for (u32 l = 0; l < c->n_layer; l++) {
                        const Route *e = &exact[l], *o = &own[l];
                        if (!e->pick || !o->pick ||
                                same_set(e->pick + (u64)t * e->k, o->pick + (u64)t * e->k, e->k))
                                continue;
                        bool tie = (double)e->gap[t] < NEAR_TIE;
                        if (n < 16)
                                buf_fmt(c->log,
                                        "  route of token %u flips in layer %u: logits %.2e apart%s\n", t, l,
                                        (double)e->gap[t], tie ? ", a near tie" : "");
                        if (tie && t < *until)
                                *until = t;
                        n++;
                }
        return n;
}

static bool has_q2_k(const Check *c)
{
        for (u64 i = 0; i < plan_count(c->plan, PLAN_WEIGHT); i++)
                if (c->plan->WEIGHT[i].type == W_Q2_K)
                        return true;
        return false;
}

static void demand(Check *c, bool good, const char *what, double value, double bound)
{
        if (!good) {
                buf_fmt(c->log, "  FAILED: %s %.6g, bound %.6g\n", what, value, bound);
                c->failed = true;
        }
}

/* Nothing is rounded to 8 bits: neither activations nor keys and values. */
static bool all_f32(const Check *c)
{
        const PlanMeta *m = c->plan->META;
        return c->s->opt->act == MOEC_ACT_F32 && m->ctk != D_q8_0 && m->ctv != D_q8_0;
}

static void judge(Check *c, const char *phase, const float *exact, const float *pinned, moec_verify_report *r)
{
        bool f32 = all_f32(c);
        double kl = f32 ? INFINITY : has_q2_k(c) ? Q8_KL_Q2_K : Q8_KL, cosine = f32 ? F32_COSINE : Q8_COSINE;
        Score s = score(c, exact, pinned, c->n);
        buf_fmt(c->log,
                "  %-8s routes pinned: min cosine %.7f at position %u, max relative error %.2e, mean KL "
                "%.2e, argmax agrees %.2f %%\n",
                phase, s.min_cosine, s.worst, s.max_rel, s.mean_kl, 100 * s.argmax);
        demand(c, s.min_cosine >= cosine, "cosine", s.min_cosine, cosine);
        demand(c, s.mean_kl <= kl, "mean KL", s.mean_kl, kl);
        r->min_cosine = fmin(r->min_cosine, s.min_cosine);
        r->max_rel = fmax(r->max_rel, s.max_rel);
        r->mean_kl = fmax(r->mean_kl, s.mean_kl);
}

void check_logits(Check *c, moec_verify_report *r)
{
        Arena *a = c->arena;
        Route *exact = NEWN(a, Route, c->n_layer), *own = NEWN(a, Route, c->n_layer),
              *other = NEWN(a, Route, c->n_layer);
        float *want = run_exact(c, exact);
        r->min_cosine = 1;
        for (u32 p = c->s->n; p-- > 0;)
                if (check_largest(c, p).n)
                        judge(c, check_graph(c, p)->name, want,
                                run_target(c, check_largest(c, p), exact, other), r);
        float *free_run = run_target(c, (CheckStep){0, c->n, 1}, NULL, own);
        u32 until;
        r->n_flips = (int)flips(c, exact, own, &until);
        bool f32 = all_f32(c);
        r->n_left_out = f32 ? (int)(c->n - until) : 0;
        Score s = score(c, want, free_run, f32 ? until : c->n);
        r->mean_kl_free = s.mean_kl;
        r->argmax_agree_free = s.argmax;
        buf_fmt(c->log,
                "  prefill  own routes: %d flips, min cosine %.7f, mean KL %.2e, argmax agrees %.2f %% (%d "
                "positions left out)\n",
                r->n_flips, s.min_cosine, s.mean_kl, 100 * s.argmax, r->n_left_out);
        if (f32)
                demand(c, s.min_cosine >= F32_COSINE, "cosine with own routes", s.min_cosine, F32_COSINE);
        else if (c->n >= 100)
                demand(c, s.argmax >= FREE_ARGMAX, "argmax agreement with own routes", s.argmax, FREE_ARGMAX);
}
