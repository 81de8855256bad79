/* Experts: the two halves of the chosen experts' work become operations of their own, since everybody's gate
 * and up must be known before down begins. In a step of many tokens the pairs of token and expert are sorted
 * by expert, so that the weights of each expert that anybody chose are read once; with few tokens every pair
 * fetches its own. */
#include "passes/passes.h"
#include "passes/rewrite.h"

static void copy_slots(Rewrite *r, u32 to, u32 from, const Slot *slot, u32 n)
{
        for (u32 i = 0; i < n; i++)
                rw_set(r, to, slot[i], in_get(&r->g->node[from], slot[i]));
}

/* One sort for each route. */
static Ref sorted(Rewrite *r, Ref route, u32 at)
{
        const Users *u = rw_users(r, route);
        for (u32 i = 0; i < u->n; i++)
                if (r->g->node[u->node[i]].op == OP_sort)
                        return REF(R_VAL, r->g->node[u->node[i]].out);
        u32 n = rw_before(r, OP_sort, at);
        rw_in(r, n, S_route, route);
        node_int(r->g, n, A_experts, ref_experts(r->g, route));
        return rw_done(r, n);
}

static void split(Rewrite *r, u32 n, bool grouped)
{
        static const Slot up_slot[] = {S_x, S_route, S_gate, S_up, S_gate_b, S_up_b, S_norm},
                          down_slot[] = {S_route, S_down, S_down_b, S_res};
        Graph *g = r->g;
        Ref y = REF(R_VAL, g->node[n].out), by = REF_NONE;
        if (grouped)
                by = sorted(r, in_get(&g->node[n], S_route), n);
        u32 up = rw_new(r, OP_experts_up, n);
        copy_slots(r, up, n, up_slot, COUNT(up_slot));
        rw_set(r, up, S_order, by);
        node_int(g, up, A_out, attr_i(&g->node[n], A_act));
        Ref h = rw_done(r, up);
        u32 down = rw_new(r, OP_experts_down, n);
        rw_in(r, down, S_x, h);
        copy_slots(r, down, n, down_slot, COUNT(down_slot));
        rw_set(r, down, S_order, by);
        rw_replace(r, y, rw_done(r, down));
        rw_kill(r, n);
}

/* The longer of an expert's rows: gate is [E, F, K], down [E, H, F]. */
static i64 width(const Graph *g, const Node *n)
{
        Vtype gate = ref_type(g, in_get(n, S_gate));
        return MAX(gate.dim[1].n, gate.dim[2].n);
}

void experts(Graph *g, const PassOpt *opt)
{
        Rewrite *r = rewrite_begin(g);
        for (u32 i = 0, n = g->n_node; i < n; i++)
                if (g->node[i].op == OP_experts)
                        split(r, i, opt->grouped && width(g, &g->node[i]) >= (i64)opt->grouped);
        rewrite_end(r);
}
