/* Order: nodes keep their order, except that those which only prepare an operand move to their first
 * consumer: what they make is then held for the shortest time, and what they read is mostly held for others
 * anyway. */
#include "passes/passes.h"
#include "passes/rewrite.h"

static bool prepares(Op op)
{
        switch (op) {
        case OP_dequant:
        case OP_rows:
        case OP_scale:
        case OP_slice:
        case OP_concat:
        case OP_rmsnorm:
        case OP_quantize:
        case OP_sort:
                return true;
        default:
                return false;
        }
}

/* The others in their order; reorder puts in front of each what it needs. What nothing needs comes last. */
void order(Graph *g, const PassOpt *opt)
{
        u32 *seq = NEWN(g->arena, u32, g->n_node), n = 0;
        (void)opt;
        for (u32 i = 0; i < g->n_node; i++)
                if (!prepares(g->node[i].op))
                        seq[n++] = i;
        for (u32 i = 0; i < g->n_node; i++)
                if (prepares(g->node[i].op))
                        seq[n++] = i;
        reorder(g, seq);
}
