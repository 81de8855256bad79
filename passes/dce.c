/* Dead code: a node stays if a result of the graph needs one of its values. */
#include "passes/passes.h"

void dce(Graph *g, const PassOpt *opt)
{
        bool *live = NEWN(g->arena, bool, g->n_val);
        (void)opt;
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        live[ref_idx(g->ret[i])] = true;
        for (u32 i = g->n_node; i-- > 0;) {
                const Node *n = &g->node[i];
                bool needed = false;
                for (u32 k = 0; k < n->nout; k++)
                        needed |= live[n->out + k];
                if (!needed)
                        node_kill(g, i);
                for (u32 k = 0; k < n->nin; k++)
                        if (ref_kind(n->in[k].ref) == R_VAL)
                                live[ref_idx(n->in[k].ref)] = true;
        }
}
