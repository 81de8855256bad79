/* Layout: how each weight lies in memory for its kernels. A matrix in a product becomes panels, or its
 * rows are split into fields, where an option says so; what is looked up row by row (embeddings) and vectors
 * stay as they are in the file. A tensor needed both ways (an embedding table that is the output matrix too)
 * becomes two weights. */
#include "passes/passes.h"
#include "passes/rewrite.h"

typedef struct Uses {
        bool rows, product;
        Ref to; /* for products */
} Uses;

static Uses *find_uses(const Graph *g)
{
        Uses *u = NEWN(g->arena, Uses, g->n_weight);
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++) {
                        struct In in = g->node[i].in[k];
                        if (ref_kind(in.ref) != R_WEIGHT)
                                continue;
                        if (is_matrix(g->node[i].op, in.slot))
                                u[ref_idx(in.ref)].product = true;
                        else
                                u[ref_idx(in.ref)].rows = true;
                }
        return u;
}

static Ref laid_out(Graph *g, u32 i, const Uses *u, enum Layout l)
{
        Ref r = REF(R_WEIGHT, i);
        Weight w = g->weight[i];
        if (u->rows) {
                r = graph_weight(g, arena_fmt(g->arena, "%s:%s", w.name, layout_name[l]), w.type, w.rank,
                        w.dim, w.data);
                g->weight[ref_idx(r)].tensor = w.tensor;
        }
        g->weight[ref_idx(r)].layout = l;
        return r;
}

void layout(Graph *g, const PassOpt *opt)
{
        enum Layout l = opt->panel ? LAYOUT_panel : LAYOUT_split;
        if (opt->panel && opt->split)
                err(MOEC_USAGE, "layout: panel and split exclude each other");
        if (!opt->panel && !opt->split)
                return;
        Uses *u = find_uses(g);
        for (u32 i = 0, n = g->n_weight; i < n; i++)
                if (u[i].product)
                        u[i].to = laid_out(g, i, &u[i], l);
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++) {
                        struct In *in = &g->node[i].in[k];
                        if (ref_kind(in->ref) == R_WEIGHT && is_matrix(g->node[i].op, in->slot))
                                in->ref = u[ref_idx(in->ref)].to;
                }
}
