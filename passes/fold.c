/* Algebra that keeps every bit of every result, so none that reorders a rounding. */
#include "passes/passes.h"
#include "passes/rewrite.h"
#include <float.h>
#include <math.h>

typedef struct Fold {
        Rewrite *r;
        Graph *g;
} Fold;

/* The node that makes operand s of n, if it is an `op`. */
static const Node *made_by(const Fold *f, const Node *n, Slot s, Op op)
{
        const Node *from = ref_node(f->g, in_get(n, s));
        return from && from->op == op ? from : NULL;
}

static i64 parts(const Node *n)
{
        return MAX(attr_i(n, A_heads), 1);
}

/* Values in each part of a row. */
static i64 part_width(const Fold *f, const Node *n, Ref x)
{
        Vtype t = ref_type(f->g, x);
        return dim_last(&t) / parts(n);
}

static bool same_operand(const Fold *f, u32 n, Ref x)
{
        rw_replace(f->r, REF(R_VAL, f->g->node[n].out), x);
        rw_kill(f->r, n);
        return true;
}

/* x * a * b in one: where the inner product is exact and the outer one rounds as the joint one does. That is
 * so if one of them only changes the sign, or if the inner one is a power of two that makes x no smaller, and
 * the outer does not either. */
static bool scales_join(double a, double b)
{
        int exponent;
        if (fabs(a) == 1 || fabs(b) == 1)
                return true;
        return fabs(frexp(a, &exponent)) == 0.5 && fabs(a) >= 1 && fabs(b) >= 1 &&
               fabs(a * b) <= (double)FLT_MAX;
}

static bool fold_scale(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i], *in = made_by(f, n, S_x, OP_scale);
        if (attr_f(n, A_by) == 1)
                return same_operand(f, i, in_get(n, S_x));
        if (!in || !scales_join(attr_f(in, A_by), attr_f(n, A_by)))
                return false;
        node_flt(f->g, i, A_by, attr_f(in, A_by) * attr_f(n, A_by));
        rw_set(f->r, i, S_x, in_get(in, S_x));
        rw_done(f->r, i);
        return true;
}

/* The range from:to of x instead. */
static bool slice_of(Fold *f, u32 i, Ref x, i64 from, i64 to)
{
        node_int(f->g, i, A_from, from);
        node_int(f->g, i, A_to, to);
        rw_set(f->r, i, S_x, x);
        rw_done(f->r, i);
        return true;
}

static bool fold_slice(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i], *in = made_by(f, n, S_x, OP_slice);
        i64 from = attr_i(n, A_from), to = attr_i(n, A_to);
        if (from == 0 && to == part_width(f, n, in_get(n, S_x)))
                return same_operand(f, i, in_get(n, S_x));
        if (in && parts(in) == parts(n))
                return slice_of(f, i, in_get(in, S_x), attr_i(in, A_from) + from, attr_i(in, A_from) + to);
        in = made_by(f, n, S_x, OP_concat);
        if (!in || parts(in) != parts(n))
                return false;
        i64 first = part_width(f, in, in_get(in, S_a));
        if (to <= first)
                return slice_of(f, i, in_get(in, S_a), from, to);
        if (from >= first)
                return slice_of(f, i, in_get(in, S_b), from - first, to - first);
        return false;
}

/* Neighbouring ranges of the same value are one range. */
static bool fold_concat(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i], *a = made_by(f, n, S_a, OP_slice), *b = made_by(f, n, S_b, OP_slice);
        if (!a || !b || in_get(a, S_x) != in_get(b, S_x) || attr_i(a, A_to) != attr_i(b, A_from))
                return false;
        if (parts(a) != parts(n) || parts(b) != parts(n))
                return false;
        Ref x = in_get(a, S_x);
        i64 from = attr_i(a, A_from), to = attr_i(b, A_to);
        u32 s = rw_new(f->r, OP_slice, i);
        rw_in(f->r, s, S_x, x);
        node_int(f->g, s, A_from, from);
        node_int(f->g, s, A_to, to);
        rw_replace(f->r, REF(R_VAL, f->g->node[i].out), rw_done(f->r, s));
        rw_kill(f->r, i);
        return true;
}

static bool fold_rope(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i];
        return attr_i(n, A_rstyle) == ROPE_none && same_operand(f, i, in_get(n, S_x));
}

/* One group is no group: other rules look for whole rows. */
static bool fold_rmsnorm(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i];
        if (!attr_i(n, A_group) || attr_i(n, A_group) != part_width(f, n, in_get(n, S_x)))
                return false;
        node_int(f->g, i, A_group, 0);
        return true;
}

/* A limit that chooses every group. */
static bool fold_route(Fold *f, u32 i)
{
        const Node *n = &f->g->node[i];
        if (!attr_i(n, A_groups) || attr_i(n, A_groups) != attr_i(n, A_groups_k))
                return false;
        node_int(f->g, i, A_groups, 0);
        node_int(f->g, i, A_groups_k, 0);
        return true;
}

void fold(Graph *g, const PassOpt *opt)
{
        static bool (*const by_op[N_OP])(Fold *, u32) = {
                [OP_scale] = fold_scale,
                [OP_slice] = fold_slice,
                [OP_concat] = fold_concat,
                [OP_rope] = fold_rope,
                [OP_rmsnorm] = fold_rmsnorm,
                [OP_route] = fold_route,
        };
        Fold f = {rewrite_begin(g), g};
        (void)opt;
        for (bool more = true; more;) {
                more = false;
                for (u32 i = 0; i < g->n_node; i++)
                        if (g->node[i].op < N_OP && by_op[g->node[i].op])
                                more |= by_op[g->node[i].op](&f, i);
        }
        rewrite_end(f.r);
}
