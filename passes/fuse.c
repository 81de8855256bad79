/* Fusion: a table of rules, at the end of this file. A rule looks at a node (its root) and at the node that
 * makes one of the root's operands; where both are of the rule's operations and its guard agrees, its builder
 * rewrites them. Rules are tried in the table's order, again until none fires. What a rule makes means what
 * stood there before, bit for bit.
 *
 * A rule marked `sole` fires only if the value between the two nodes is used by the root alone, once. */
#include "passes/passes.h"
#include "passes/rewrite.h"

typedef struct Fuse {
        Rewrite *r;
        Graph *g;
        const PassOpt *opt;
} Fuse;

static const Node *node_of(const Fuse *f, u32 n)
{
        return &f->g->node[n];
}

static Ref result(const Fuse *f, u32 n)
{
        return REF(R_VAL, node_of(f, n)->out);
}

static Ref operand(const Fuse *f, u32 n, Slot s)
{
        return in_get(node_of(f, n), s);
}

static bool has(const Fuse *f, u32 n, Slot s)
{
        return operand(f, n, s) != REF_NONE;
}

static i64 width(const Fuse *f, Ref x)
{
        Vtype t = ref_type(f->g, x);
        return dim_last(&t);
}

/* The only result of a product that nothing was added to yet. */
static bool bare(const Fuse *f, u32 n)
{
        return node_of(f, n)->nout == 1 && !has(f, n, S_bias) && !has(f, n, S_res);
}

/* ---- bias, res: an addition after a product ---- */

static bool bias_guard(const Fuse *f, u32 add, u32 product)
{
        return bare(f, product) && ref_type(f->g, operand(f, add, S_b)).rank == 1;
}

/* The product takes what is added as operand s, and moves to where that is known. */
static void take_added(Fuse *f, u32 add, u32 product, Slot s)
{
        Ref y = result(f, product), a = operand(f, add, S_a), b = operand(f, add, S_b), sum = result(f, add);
        rw_kill(f->r, add);
        rw_set(f->r, product, s, a == y ? b : a);
        rw_move(f->r, product, add);
        rw_replace(f->r, sum, rw_done(f->r, product));
}

static void bias_build(Fuse *f, u32 add, u32 product)
{
        take_added(f, add, product, S_bias);
}

static bool res_guard(const Fuse *f, u32 add, u32 product)
{
        Ref a = operand(f, add, S_a), b = operand(f, add, S_b);
        Vtype ta = ref_type(f->g, a), tb = ref_type(f->g, b);
        return node_of(f, product)->nout == 1 && !has(f, product, S_res) && ref_kind(b) == R_VAL &&
               vtype_same(&ta, &tb);
}

static void res_build(Fuse *f, u32 add, u32 product)
{
        take_added(f, add, product, S_res);
}

/* ---- merge: products of the same value ---- */

static bool is_router(const Fuse *f, u32 n)
{
        const Node *d = node_of(f, n);
        for (u32 k = 0; k < d->nout; k++) {
                const Users *u = rw_users(f->r, REF(R_VAL, d->out + k));
                for (u32 i = 0; i < u->n; i++)
                        if (node_of(f, u->node[i])->op == OP_route)
                                return true;
        }
        return false;
}

/* Operands but x and norm are weights: they are there wherever the node goes. */
static bool movable(const Fuse *f, u32 n)
{
        const Node *d = node_of(f, n);
        for (u32 k = 0; k < d->nin; k++)
                if (d->in[k].slot != S_x && d->in[k].slot != S_norm && ref_kind(d->in[k].ref) != R_WEIGHT)
                        return false;
        return true;
}

/* Whether product b can join a. The router stays alone: it is a kernel of its own, or becomes one with route.
 */
static bool joins(const Fuse *f, u32 a, u32 b)
{
        const Node *x = node_of(f, a), *y = node_of(f, b);
        return a != b && y->op == OP_matmul && movable(f, b) && !is_router(f, b) &&
               in_get(x, S_x) == in_get(y, S_x) && in_get(x, S_norm) == in_get(y, S_norm) &&
               has(f, a, S_bias) == has(f, b, S_bias) && attr_i(x, A_act) == attr_i(y, A_act) &&
               attr_f(x, A_eps) == attr_f(y, A_eps) && x->nout + y->nout <= MAX_RESULT &&
               x->nin + y->nin <= MAX_IN;
}

/* The next product that joins n and stands behind it; n itself if there is none. */
static u32 next_to_join(const Fuse *f, u32 n)
{
        const Users *u = rw_users(f->r, operand(f, n, S_x));
        u32 best = n;
        for (u32 i = 0; i < u->n; i++) {
                u32 m = u->node[i];
                if (f->r->place[m] <= f->r->place[n] || !joins(f, n, m))
                        continue;
                if (best == n || f->r->place[m] < f->r->place[best])
                        best = m;
        }
        return best;
}

static bool merge_guard(const Fuse *f, u32 n, u32 from)
{
        (void)from;
        return movable(f, n) && !is_router(f, n) && next_to_join(f, n) != n;
}

static void add_operands(Fuse *f, u32 to, u32 from, Slot s)
{
        for (u32 i = 0; i < in_count(node_of(f, from), s); i++)
                rw_in(f->r, to, s, in_nth(node_of(f, from), s, i));
}

static void merge_build(Fuse *f, u32 n, u32 from)
{
        u32 other = next_to_join(f, n), both = rw_new(f->r, OP_matmul, n), n_first = node_of(f, n)->nout;
        (void)from;
        rw_copy(f->r, both, n);
        add_operands(f, both, other, S_w);
        add_operands(f, both, other, S_bias);
        u32 out = ref_idx(rw_done(f->r, both));
        for (u32 k = 0; k < node_of(f, both)->nout; k++) {
                u32 old = k < n_first ? node_of(f, n)->out + k : node_of(f, other)->out + k - n_first;
                rw_replace(f->r, REF(R_VAL, old), REF(R_VAL, out + k));
        }
        rw_kill(f->r, n);
        rw_kill(f->r, other);
}

/* ---- router: its product in route ---- */

static bool router_guard(const Fuse *f, u32 route, u32 product)
{
        Vtype w = ref_type(f->g, operand(f, product, S_w));
        return !has(f, route, S_w) && bare(f, product) && attr_i(node_of(f, product), A_act) == ACT_f32 &&
               (u64)w.dim[0].n * (u64)w.dim[1].n <= f->opt->route_max;
}

static void router_build(Fuse *f, u32 route, u32 product)
{
        node_flt(f->g, route, A_eps, attr_f(node_of(f, product), A_eps));
        rw_set(f->r, route, S_x, operand(f, product, S_x));
        rw_set(f->r, route, S_w, operand(f, product, S_w));
        rw_set(f->r, route, S_norm, operand(f, product, S_norm));
        rw_done(f->r, route);
        rw_kill(f->r, product);
}

/* ---- norm: redone by each consumer ---- */

static bool whole_rows(const Fuse *f, u32 norm)
{
        i64 group = attr_i(node_of(f, norm), A_group);
        return !group || group == width(f, result(f, norm));
}

static bool can_norm(const Fuse *f, u32 n, Ref x)
{
        const OpInfo *o = op_info(node_of(f, n)->op);
        bool takes = node_of(f, n)->op != OP_route || has(f, n, S_w);
        for (u32 k = 0; k < node_of(f, n)->nin; k++)
                takes &= node_of(f, n)->in[k].ref != x || node_of(f, n)->in[k].slot == S_x;
        for (u32 i = 0; takes && i < o->n_slot; i++)
                if (o->slot[i].slot == S_norm)
                        return operand(f, n, S_x) == x && !has(f, n, S_norm);
        return false;
}

static bool rounds(const Fuse *f, u32 n, Ref x)
{
        const Node *d = node_of(f, n);
        return op_info(d->op)->attr[A_act] && attr_i(d, A_act) == ACT_q8 && in_get(d, S_x) == x &&
               !has(f, n, S_norm);
}

/* Whether the norm's value is unnecessary once n redoes it: all others redo it, too, or round it, which takes
 * the norm with it. */
static bool norm_guard(const Fuse *f, u32 n, u32 norm)
{
        Ref x = result(f, norm);
        const Users *u = rw_users(f->r, x);
        bool route = f->opt->route_norm && node_of(f, n)->op == OP_route;
        if ((!f->opt->dup_norm && !route) || !whole_rows(f, norm) || u->rets)
                return false;
        for (u32 i = 0; i < u->n; i++) {
                bool rounded = node_of(f, u->node[i])->op == OP_quantize || rounds(f, u->node[i], x);
                if (!can_norm(f, u->node[i], x) || (!f->opt->dup_norm && u->node[i] != n && !rounded))
                        return false;
        }
        return true;
}

static void norm_build(Fuse *f, u32 n, u32 norm)
{
        node_flt(f->g, n, A_eps, attr_f(node_of(f, norm), A_eps));
        rw_set(f->r, n, S_norm, operand(f, norm, S_w));
        rw_set(f->r, n, S_x, operand(f, norm, S_x));
        rw_done(f->r, n);
        rw_kill_unused(f->r, norm);
}

/* Even if the norm is needed otherwise: the row is read once either way. */
static bool norm_quantize_guard(const Fuse *f, u32 n, u32 norm)
{
        return whole_rows(f, norm) && !has(f, n, S_norm);
}

/* ---- quantize: one rounding for all who round ---- */

/* How many products round x, and the first of them. */
static u32 rounding(const Fuse *f, Ref x, u32 *first)
{
        const Users *u = rw_users(f->r, x);
        u32 count = 0;
        for (u32 i = 0; i < u->n; i++) {
                bool again = false; /* x is its residual too */
                for (u32 k = 0; k < i; k++)
                        again |= u->node[k] == u->node[i];
                if (again || !rounds(f, u->node[i], x))
                        continue;
                if (!count++ || f->r->place[u->node[i]] < f->r->place[*first])
                        *first = u->node[i];
        }
        return count;
}

static bool quantize_guard(const Fuse *f, u32 n, u32 from)
{
        Ref x = operand(f, n, S_x);
        Vtype t = ref_type(f->g, x);
        u32 first;
        (void)from;
        return t.dt == D_f32 && t.rank == 2 && rounds(f, n, x) &&
               rounding(f, x, &first) > (f->opt->quantize ? 0 : 1);
}

static void quantize_build(Fuse *f, u32 n, u32 from)
{
        Ref x = operand(f, n, S_x);
        u32 first = n;
        (void)from;
        rounding(f, x, &first);
        u32 q = rw_before(f->r, OP_quantize, first);
        rw_in(f->r, q, S_x, x);
        Ref y = rw_done(f->r, q);
        const Users *u = rw_users(f->r, x);
        for (u32 i = u->n; i-- > 0;) {
                u32 m = u->node[i];
                if (rounds(f, m, x)) {
                        rw_set(f->r, m, S_x, y);
                        rw_done(f->r, m);
                }
        }
}

/* ---- attend rounds for the product behind it ---- */

static bool round_attend_guard(const Fuse *f, u32 n, u32 attend)
{
        i64 w = width(f, operand(f, n, S_x));
        return f->opt->round_attend && rounds(f, n, operand(f, n, S_x)) &&
               operand(f, n, S_x) == result(f, attend) && attr_i(node_of(f, attend), A_out) == ACT_f32 &&
               w / attr_i(node_of(f, attend), A_heads) % Q8_BLOCK == 0;
}

static void round_attend_build(Fuse *f, u32 n, u32 attend)
{
        node_int(f->g, attend, A_out, ACT_q8);
        rw_done(f->r, attend);
        rw_done(f->r, n);
}

/* ---- route rounds for the experts ---- */

/* The node that rounds what experts_up n takes: n itself, or quantize. */
static u32 rounder(const Fuse *f, u32 n)
{
        Ref x = operand(f, n, S_x);
        u32 from = ref_kind(x) == R_VAL ? rw_def(f->r, x) : n;
        return node_of(f, from)->op == OP_quantize ? from : n;
}

static bool round_route_guard(const Fuse *f, u32 n, u32 route)
{
        u32 by = rounder(f, n);
        return f->opt->round_route && attr_i(node_of(f, n), A_act) == ACT_q8 && has(f, route, S_w) &&
               attr_i(node_of(f, route), A_out) == ACT_f32 && operand(f, by, S_x) == operand(f, route, S_x) &&
               operand(f, by, S_norm) == operand(f, route, S_norm) &&
               attr_f(node_of(f, by), A_eps) == attr_f(node_of(f, route), A_eps) &&
               width(f, operand(f, route, S_x)) % Q8_BLOCK == 0;
}

/* experts_up again, of the rounded x. */
static void take_rounded(Fuse *f, u32 n, Ref x)
{
        u32 to = rw_new(f->r, OP_experts_up, n);
        for (u32 i = 0; i < node_of(f, n)->nin; i++) {
                Slot s = node_of(f, n)->in[i].slot;
                if (s != S_norm)
                        rw_in(f->r, to, s, s == S_x ? x : node_of(f, n)->in[i].ref);
        }
        node_flt(f->g, to, A_eps, 0);
        rw_replace(f->r, result(f, n), rw_done(f->r, to));
        rw_kill(f->r, n);
}

static void round_route_build(Fuse *f, u32 n, u32 route)
{
        u32 by = rounder(f, n), to = rw_new(f->r, OP_route, route);
        rw_copy(f->r, to, route);
        node_int(f->g, to, A_out, ACT_q8);
        u32 out = ref_idx(rw_done(f->r, to));
        rw_replace(f->r, result(f, route), REF(R_VAL, out));
        rw_kill(f->r, route);
        if (by == n) {
                take_rounded(f, n, REF(R_VAL, out + 1));
                return;
        }
        rw_replace(f->r, result(f, by), REF(R_VAL, out + 1));
        rw_kill(f->r, by);
}

/* ---- norms and rotation by head, into attend and kv_append ---- */

static const Attr rope_attr[] = {
        A_rstyle, A_rdim, A_rbase, A_rfactor, A_ext, A_rattn, A_fast, A_slow, A_octx};

static bool rotates(const Fuse *f, u32 n)
{
        return attr_i(node_of(f, n), A_rstyle) != ROPE_none;
}

static void copy_rope(Fuse *f, u32 to, u32 from)
{
        for (u32 i = 0; i < COUNT(rope_attr); i++)
                f->g->node[to].attr[rope_attr[i]] = f->g->node[from].attr[rope_attr[i]];
        rw_set(f->r, to, S_freqs, operand(f, from, S_freqs));
}

static bool same_rope(const Fuse *f, u32 a, u32 b)
{
        if (!rotates(f, a) && !rotates(f, b))
                return true;
        for (u32 i = 0; i < COUNT(rope_attr); i++) {
                Aval x = node_of(f, a)->attr[rope_attr[i]], y = node_of(f, b)->attr[rope_attr[i]];
                if (attr_info[rope_attr[i]].kind == ATTR_FLT ? x.f != y.f : x.i != y.i)
                        return false;
        }
        return operand(f, a, S_freqs) == operand(f, b, S_freqs);
}

/* Heads of what attend asks with, or of what kv_append keeps. */
static i64 heads_of(const Fuse *f, u32 n)
{
        if (node_of(f, n)->op == OP_attend)
                return attr_i(node_of(f, n), A_heads);
        return ref_type(f->g, operand(f, n, S_kv)).dim[0].n;
}

static Slot turned(const Fuse *f, u32 n)
{
        return node_of(f, n)->op == OP_attend ? S_q : S_k;
}

/* attend with k turns the keys too, so it must be left as it is. */
static bool takes_keys(const Fuse *f, u32 n)
{
        return node_of(f, n)->op == OP_attend && has(f, n, S_k);
}

static bool rope_guard(const Fuse *f, u32 n, u32 rope)
{
        return !takes_keys(f, n) && !rotates(f, n) && !has(f, n, S_norm) &&
               attr_i(node_of(f, rope), A_heads) == heads_of(f, n) &&
               operand(f, rope, S_pos) == operand(f, n, S_pos);
}

static void rope_build(Fuse *f, u32 n, u32 rope)
{
        copy_rope(f, n, rope);
        rw_set(f->r, n, turned(f, n), operand(f, rope, S_x));
        rw_done(f->r, n);
        rw_kill(f->r, rope);
}

static bool head_norm_guard(const Fuse *f, u32 n, u32 norm)
{
        i64 group = attr_i(node_of(f, norm), A_group), w = width(f, result(f, norm));
        return !takes_keys(f, n) && !has(f, n, S_norm) && (group ? group : w) == w / heads_of(f, n);
}

static void head_norm_build(Fuse *f, u32 n, u32 norm)
{
        node_flt(f->g, n, A_eps, attr_f(node_of(f, norm), A_eps));
        rw_set(f->r, n, S_norm, operand(f, norm, S_w));
        rw_set(f->r, n, turned(f, n), operand(f, norm, S_x));
        rw_done(f->r, n);
        rw_kill(f->r, norm);
}

/* ---- kv_append into attend ---- */

/* The state after the append may be used by others if they come behind attend, which makes it from now on. */
static bool kv_guard(const Fuse *f, u32 attend, u32 append)
{
        const Users *u = rw_users(f->r, result(f, append));
        for (u32 i = 0; i < u->n; i++)
                if (u->node[i] != attend && f->r->place[u->node[i]] <= f->r->place[attend])
                        return false;
        bool both = has(f, attend, S_norm) && has(f, append, S_norm);
        return f->opt->fuse_kv && !has(f, attend, S_k) && same_rope(f, attend, append) &&
               operand(f, attend, S_pos) == operand(f, append, S_pos) &&
               operand(f, attend, S_seq) == operand(f, append, S_seq) &&
               (!both || attr_f(node_of(f, attend), A_eps) == attr_f(node_of(f, append), A_eps));
}

static void kv_build(Fuse *f, u32 attend, u32 append)
{
        u32 n = rw_new(f->r, OP_attend, attend);
        rw_copy(f->r, n, attend);
        rw_set(f->r, n, S_kv, operand(f, append, S_kv));
        rw_set(f->r, n, S_k, operand(f, append, S_k));
        rw_set(f->r, n, S_v, operand(f, append, S_v));
        rw_set(f->r, n, S_knorm, operand(f, append, S_norm));
        if (has(f, append, S_norm))
                node_flt(f->g, n, A_eps, attr_f(node_of(f, append), A_eps));
        u32 out = ref_idx(rw_done(f->r, n));
        rw_replace(f->r, result(f, attend), REF(R_VAL, out));
        rw_kill(f->r, attend);
        rw_replace(f->r, result(f, append), REF(R_VAL, out + 1));
        rw_kill(f->r, append);
}

/* ---- the rules ---- */

#define ANY N_OP
enum { SHARED, SOLE };

static const struct {
        const char *name; /* of its golden, tests/pass/fuse/NAME.ir */
        Op root;
        Slot slot;
        Op from; /* what makes the root's operand in `slot` */
        bool sole;
        bool (*guard)(const Fuse *f, u32 root, u32 from);
        void (*build)(Fuse *f, u32 root, u32 from);
} rule[] = {
        {"bias", OP_add, S_a, OP_matmul, SOLE, bias_guard, bias_build},
        {"merge", OP_matmul, S_x, ANY, SHARED, merge_guard, merge_build},
        {"router", OP_route, S_x, OP_matmul, SOLE, router_guard, router_build},
        {"norm_matmul", OP_matmul, S_x, OP_rmsnorm, SHARED, norm_guard, norm_build},
        {"norm_route", OP_route, S_x, OP_rmsnorm, SHARED, norm_guard, norm_build},
        {"norm_experts", OP_experts, S_x, OP_rmsnorm, SHARED, norm_guard, norm_build},
        {"norm_experts_up", OP_experts_up, S_x, OP_rmsnorm, SHARED, norm_guard, norm_build},
        {"round_attend", OP_matmul, S_x, OP_attend, SOLE, round_attend_guard, round_attend_build},
        {"quantize_matmul", OP_matmul, S_x, ANY, SHARED, quantize_guard, quantize_build},
        {"quantize_headmul", OP_headmul, S_x, ANY, SHARED, quantize_guard, quantize_build},
        {"quantize_experts", OP_experts, S_x, ANY, SHARED, quantize_guard, quantize_build},
        {"quantize_experts_up", OP_experts_up, S_x, ANY, SHARED, quantize_guard, quantize_build},
        {"round_route", OP_experts_up, S_route, OP_route, SHARED, round_route_guard, round_route_build},
        {"norm_quantize", OP_quantize, S_x, OP_rmsnorm, SHARED, norm_quantize_guard, norm_build},
        {"res_matmul", OP_add, S_a, OP_matmul, SOLE, res_guard, res_build},
        {"res_matmul", OP_add, S_b, OP_matmul, SOLE, res_guard, res_build},
        {"res_experts", OP_add, S_a, OP_experts, SOLE, res_guard, res_build},
        {"res_experts", OP_add, S_b, OP_experts, SOLE, res_guard, res_build},
        {"res_experts_down", OP_add, S_a, OP_experts_down, SOLE, res_guard, res_build},
        {"res_experts_down", OP_add, S_b, OP_experts_down, SOLE, res_guard, res_build},
        {"rope_q", OP_attend, S_q, OP_rope, SOLE, rope_guard, rope_build},
        {"norm_q", OP_attend, S_q, OP_rmsnorm, SOLE, head_norm_guard, head_norm_build},
        {"rope_k", OP_kv_append, S_k, OP_rope, SOLE, rope_guard, rope_build},
        {"norm_k", OP_kv_append, S_k, OP_rmsnorm, SOLE, head_norm_guard, head_norm_build},
        {"kv", OP_attend, S_kv, OP_kv_append, SHARED, kv_guard, kv_build},
};

static bool apply(Fuse *f, u32 i, u32 root)
{
        Ref x = operand(f, root, rule[i].slot);
        if (node_of(f, root)->op != rule[i].root || ref_kind(x) != R_VAL)
                return false;
        u32 from = rw_def(f->r, x);
        if (rule[i].from != ANY && node_of(f, from)->op != rule[i].from)
                return false;
        if ((rule[i].sole && rw_uses(f->r, x) != 1) || !rule[i].guard(f, root, from))
                return false;
        rule[i].build(f, root, from);
        return true;
}

void fuse(Graph *g, const PassOpt *opt)
{
        Fuse f = {rewrite_begin(g), g, opt};
        u32 fired = 0, most = 64 + 8 * g->n_node;
        for (u32 before = UINT32_MAX; before != fired;) {
                before = fired;
                for (u32 i = 0; i < COUNT(rule); i++)
                        for (u32 n = 0; n < g->n_node; n++)
                                while (apply(&f, i, n))
                                        if (++fired == most)
                                                die("fuse: rule %s finds no end", rule[i].name);
        }
        rewrite_end(f.r);
}
