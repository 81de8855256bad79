/* Routing and experts. */
#include <math.h>
#include <string.h>
#include "ir/eval_part.h"

/* ---- route ---- */

typedef struct Router {
        u64 n, k, groups, groups_k; /* n: experts */
        double *s;                  /* [n] scores */
        double *sel;                /* [n] score + bias, -inf outside of the chosen groups */
        double *group;              /* [groups] a group's rank */
        bool *taken, *group_taken;  /* [n], [groups] */
} Router;

static bool above(double a, double b)
{
        return isnan(b) ? !isnan(a) : a > b;
}

/* The largest of those not taken, the first among equals; takes it. */
static u64 largest(const double *x, u64 n, bool *taken)
{
        u64 best = n;
        for (u64 i = 0; i < n; i++)
                if (!taken[i] && (best == n || above(x[i], x[best])))
                        best = i;
        taken[best] = true;
        return best;
}

static void softmax(double *x, u64 n)
{
        double max = -INFINITY, sum = 0;
        for (u64 i = 0; i < n; i++)
                max = x[i] > max ? x[i] : max;
        for (u64 i = 0; i < n; i++)
                sum += x[i] = exp(x[i] - max);
        for (u64 i = 0; i < n; i++)
                x[i] /= sum;
}

static void score(const Node *n, const float *z, double *s, u64 len)
{
        enum Gate gate = (enum Gate)attr_i(n, A_gate);
        for (u64 i = 0; i < len; i++)
                s[i] = gate == GATE_sigmoid ? 1 / (1 + exp(-(double)z[i])) : (double)z[i];
        if (gate == GATE_softmax)
                softmax(s, len);
}

/* Experts outside of the groups_k best groups can no longer be taken. */
static void limit_groups(Router *r)
{
        u64 size = r->n / r->groups;
        for (u64 g = 0; g < r->groups; g++) {
                memset(r->taken, 0, size);
                const double *in = r->sel + g * size;
                r->group[g] = in[largest(in, size, r->taken)];
                r->group[g] += in[largest(in, size, r->taken)];
        }
        memset(r->group_taken, 0, r->groups);
        for (u64 i = 0; i < r->groups_k; i++)
                largest(r->group, r->groups, r->group_taken);
        for (u64 i = 0; i < r->n; i++) {
                r->taken[i] = !r->group_taken[i / size];
                if (r->taken[i])
                        r->sel[i] = -INFINITY;
        }
}

static void pick(const Node *n, Router *r, const float *z, const float *bias, Pick *out)
{
        double sum = 0;
        score(n, z, r->s, r->n);
        for (u64 i = 0; i < r->n; i++)
                r->sel[i] = r->s[i] + (bias ? (double)bias[i] : 0);
        memset(r->taken, 0, r->n);
        if (r->groups > 1 && r->groups_k < r->groups)
                limit_groups(r);
        for (u64 i = 0; i < r->k; i++)
                out[i].id = (i32)largest(r->sel, r->n, r->taken);
        double *w = r->group; /* done with */
        for (u64 i = 0; i < r->k; i++)
                w[i] = r->s[out[i].id];
        if (attr_i(n, A_gate) == GATE_softmax_k)
                softmax(w, r->k);
        for (u64 i = 0; i < r->k; i++)
                sum += w[i];
        double by = attr_f(n, A_wscale);
        for (u64 i = 0; i < r->k; i++)
                out[i].w = (float)(by * (attr_i(n, A_renorm) ? w[i] / sum : w[i]));
}

/* [rows, experts]; what matmul would give. */
static float *router_logits(Eval *e, const Node *n, u64 rows, u64 *experts)
{
        Ref w = in_get(n, S_w);
        const double *x = ev_product_in(e, n, S_x, ACT_f32);
        Tensor xt = arg(e, n, S_x);
        if (w == REF_NONE) {
                *experts = width(&xt);
                return xt.data;
        }
        Mat m = ev_mat_open(e, w);
        float *z = SCRATCH(e, float, rows *m.rows);
        for (u64 r = 0; r < m.rows; r++) {
                const double *wr = ev_mat_row(&m, r);
                for (u64 t = 0; t < rows; t++)
                        z[t * m.rows + r] = (float)ev_dot(wr, x + t * m.cols, m.cols);
        }
        *experts = m.rows;
        return z;
}

void eval_route(Eval *e, const Node *n)
{
        Tensor *y = result(e, n, 0);
        const float *bias = ev_vec(e, n, S_bias);
        u64 rows = tensor_rows(y);
        Router r = {.k = (u64)attr_i(n, A_k),
                .groups = (u64)attr_i(n, A_groups),
                .groups_k = (u64)attr_i(n, A_groups_k)};
        float *z = router_logits(e, n, rows, &r.n), *sel = SCRATCH(e, float, rows *r.n);
        r.s = SCRATCH(e, double, r.n);
        r.sel = SCRATCH(e, double, r.n);
        r.group = SCRATCH(e, double, MAX(r.groups, r.k));
        r.taken = SCRATCH(e, bool, r.n);
        r.group_taken = SCRATCH(e, bool, r.groups);
        for (u64 t = 0; t < rows; t++) {
                pick(n, &r, z + t * r.n, bias, (Pick *)y->data + t * r.k);
                for (u64 i = 0; i < r.n; i++)
                        sel[t * r.n + i] = (float)r.sel[i];
        }
        if (n->nout > 1)
                ev_quantize(e, n, result(e, n, 1)->data);
        e->logits = (Tensor){.dt = D_f32, .rank = 2, .dim = {rows, r.n}, .data = z};
        e->select = (Tensor){.dt = D_f32, .rank = 2, .dim = {rows, r.n}, .data = sel};
}

/* A schedule for the targets; here every expert is visited in order anyway. */
void eval_sort(Eval *e, const Node *n)
{
        (void)e;
        (void)n;
}

/* ---- experts ---- */

typedef struct Batch { /* the (token, slot) pairs of one expert, as token * k + slot */
        const Pick *pick;
        u64 n_pair, k; /* n_pair: of all experts; k: slots a token */
        u64 *pair, n;
} Batch;

static Batch batch_open(Eval *e, const Node *n, u64 experts)
{
        Tensor t = arg(e, n, S_route);
        Batch b = {.pick = t.data, .n_pair = tensor_len(&t), .k = width(&t)};
        for (u64 i = 0; i < b.n_pair; i++)
                if (b.pick[i].id < 0 || (u64)b.pick[i].id >= experts)
                        die("a route names expert %d of %llu", b.pick[i].id, (unsigned long long)experts);
        b.pair = SCRATCH(e, u64, b.n_pair);
        return b;
}

static bool batch_of(Batch *b, u64 expert)
{
        b->n = 0;
        for (u64 i = 0; i < b->n_pair; i++)
                if ((u64)b->pick[i].id == expert)
                        b->pair[b->n++] = i;
        return b->n;
}

static u64 n_experts(Eval *e, Ref w)
{
        return (u64)ref_type(e->g, w).dim[0].n;
}

/* One row of an expert's matrix times the inputs of its pairs; share: slots that have one input (k: a
 * token's, 1: their own). */
static void expert_row(
        Mat *m, u64 row, const Batch *b, const double *x, u64 share, const float *bias, float *y)
{
        const double *w = ev_mat_row(m, row);
        for (u64 i = 0; i < b->n; i++) {
                y[i] = (float)ev_dot(w, x + b->pair[i] / share * m->cols, m->cols);
                if (bias)
                        y[i] += bias[row];
        }
}

/* x: [tokens, H] as the product takes it -> h [pairs, F]. */
static void up(Eval *e, const Node *n, const double *x, float *h)
{
        u64 experts = n_experts(e, in_get(n, S_gate));
        Batch b = batch_open(e, n, experts);
        Mat gate = ev_mat_open(e, in_get(n, S_gate)), upm = ev_mat_open(e, in_get(n, S_up));
        const float *gate_b = ev_vec(e, n, S_gate_b), *up_b = ev_vec(e, n, S_up_b);
        u64 f = gate.rows / experts;
        float *yg = SCRATCH(e, float, b.n_pair), *yu = SCRATCH(e, float, b.n_pair);
        for (u64 ex = 0; ex < experts; ex++) {
                if (!batch_of(&b, ex))
                        continue;
                for (u64 r = 0; r < f; r++) {
                        expert_row(&gate, ex * f + r, &b, x, b.k, gate_b, yg);
                        expert_row(&upm, ex * f + r, &b, x, b.k, up_b, yu);
                        for (u64 i = 0; i < b.n; i++)
                                h[b.pair[i] * f + r] = ev_glu_one(n, yg[i], yu[i]);
                }
        }
}

/* h: [pairs, F] as the product takes it -> y [tokens, H], res added. */
static void down(Eval *e, const Node *n, const double *h, float *y)
{
        u64 experts = n_experts(e, in_get(n, S_down));
        Batch b = batch_open(e, n, experts);
        Mat m = ev_mat_open(e, in_get(n, S_down));
        const float *bias = ev_vec(e, n, S_down_b);
        u64 out = m.rows / experts, tokens = b.n_pair / b.k;
        float *slot = SCRATCH(e, float, b.n_pair *out), *one = SCRATCH(e, float, b.n_pair);
        for (u64 ex = 0; ex < experts; ex++) {
                if (!batch_of(&b, ex))
                        continue;
                for (u64 r = 0; r < out; r++) {
                        expert_row(&m, ex * out + r, &b, h, 1, bias, one);
                        for (u64 i = 0; i < b.n; i++)
                                slot[b.pair[i] * out + r] = one[i];
                }
        }
        for (u64 t = 0; t < tokens; t++)
                for (u64 r = 0; r < out; r++) {
                        double sum = 0;
                        for (u64 p = t * b.k; p < (t + 1) * b.k; p++)
                                sum += (double)b.pick[p].w * (double)slot[p * out + r];
                        y[t * out + r] = (float)sum;
                }
        ev_add_res(e, n, y, tokens * out);
}

void eval_experts(Eval *e, const Node *n)
{
        Tensor route = arg(e, n, S_route);
        Vtype gate = ref_type(e->g, in_get(n, S_gate));
        u64 f = (u64)gate.dim[1].n, len = tensor_len(&route) * f;
        float *h = SCRATCH(e, float, len);
        up(e, n, ev_product_in(e, n, S_x, attr_i(n, A_act)), h);
        down(e, n, ev_round_in(e, h, len, f, attr_i(n, A_act) == ACT_q8), result(e, n, 0)->data);
}

void eval_experts_up(Eval *e, const Node *n)
{
        Tensor *y = result(e, n, 0);
        up(e, n, ev_product_in(e, n, S_x, attr_i(n, A_act)), y->data);
        if (attr_i(n, A_out) == ACT_q8)
                ev_round_in(e, y->data, tensor_len(y), width(y), true);
}

void eval_experts_down(Eval *e, const Node *n)
{
        down(e, n, ev_product_in(e, n, S_x, attr_i(n, A_act)), result(e, n, 0)->data);
}
