/* Quantised products: what multiplies a dequantised weight takes the packed one, and what multiplies codes
 * takes activations rounded as the option says. A router's product stays in f32: a token's experts should not
 * depend on rounding. */
#include "passes/passes.h"
#include "passes/rewrite.h"

static bool adds_bias(const Rewrite *r, const Node *n)
{
        return n->op == OP_add && ref_type(r->g, in_get(n, S_b)).rank == 1;
}

/* Directly or through the addition of a bias. */
static bool feeds_route(const Rewrite *r, const Node *n)
{
        for (u32 k = 0; k < n->nout; k++) {
                const Users *u = rw_users(r, REF(R_VAL, n->out + k));
                for (u32 i = 0; i < u->n; i++) {
                        const Node *user = &r->g->node[u->node[i]];
                        if (user->op == OP_route || (adds_bias(r, user) && feeds_route(r, user)))
                                return true;
                }
        }
        return false;
}

/* Packed operands instead of dequantised ones. True if all matrices are codes. */
static bool pack(Rewrite *r, u32 n)
{
        Graph *g = r->g;
        bool quant = true;
        for (u32 k = 0; k < g->node[n].nin; k++) {
                struct In *in = &g->node[n].in[k];
                bool table = g->node[n].op == OP_embed && in->slot == S_w;
                if (!table && !is_matrix(g->node[n].op, in->slot))
                        continue;
                if (ref_kind(in->ref) == R_VAL) {
                        u32 from = rw_def(r, in->ref);
                        if (g->node[from].op != OP_dequant) {
                                quant = false;
                                continue;
                        }
                        rw_swap(r, n, k, in_get(&g->node[from], S_w));
                        rw_kill_unused(r, from);
                }
                quant &= wtype_info[g->weight[ref_idx(g->node[n].in[k].ref)].type].quant;
        }
        return quant;
}

/* What experts_down would round anyway, experts_up rounds for it. */
static void round_between(Rewrite *r, u32 down)
{
        Graph *g = r->g;
        Ref x = in_get(&g->node[down], S_x);
        u32 up = rw_def(r, x);
        if (g->node[up].op != OP_experts_up || rw_uses(r, x) != 1)
                return;
        node_int(g, up, A_out, ACT_q8);
        rw_done(r, up);
}

void qmatmul(Graph *g, const PassOpt *opt)
{
        Rewrite *r = rewrite_begin(g);
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                if (n->op == OP_dead)
                        continue;
                bool product = op_info(n->op)->attr[A_act];
                if (!pack(r, i) || !product || opt->act != ACT_q8 || feeds_route(r, n))
                        continue;
                node_int(g, i, A_act, ACT_q8);
                rw_done(r, i);
                if (n->op == OP_experts_down)
                        round_between(r, i);
        }
        rewrite_end(r);
}
