#include "ir/dot.h"
#include <string.h>

static bool shown(const Graph *g, u32 n, i64 layer)
{
        const Node *node = &g->node[n];
        return node->op != OP_dead && (layer < 0 || attr_i(node, A_layer) == layer);
}

/* Text within a double-quoted label. */
static void label(Buf *out, const char *s)
{
        for (; *s; s++) {
                if (*s == '"' || *s == '\\')
                        buf_char(out, '\\');
                buf_char(out, *s);
        }
}

static const char *colour(Op op)
{
        switch (op) {
        case OP_attend:
        case OP_kv_append:
                return "#d5e8f7";
        case OP_experts:
        case OP_experts_up:
        case OP_experts_down:
                return "#fde2c8";
        case OP_route:
        case OP_sort:
                return "#fbf3c0";
        case OP_matmul:
        case OP_headmul:
                return "#dcefd8";
        default:
                return "#f2f2f2";
        }
}

static void box(const Graph *g, u32 n, Buf *out)
{
        const Node *node = &g->node[n];
        char type[VTYPE_STR];
        buf_fmt(out, "  n%u [fillcolor=\"%s\" label=\"%s", n, colour(node->op), op_info(node->op)->name);
        for (u32 i = 0; i < node->nout; i++)
                buf_fmt(out, "\\n%s", vtype_str(&g->val[node->out + i].type, type));
        for (u32 i = 0; i < node->nin; i++)
                if (ref_kind(node->in[i].ref) == R_WEIGHT) {
                        const Weight *w = &g->weight[ref_idx(node->in[i].ref)];
                        buf_fmt(out, "\\n%s ", wtype_info[w->type].name);
                        label(out, w->name);
                }
        buf_str(out, "\"];\n");
}

static void edges(const Graph *g, u32 n, i64 layer, Buf *out)
{
        const Node *node = &g->node[n];
        for (u32 i = 0; i < node->nin; i++) {
                Ref r = node->in[i].ref;
                const char *slot = slot_name[node->in[i].slot];
                if (ref_kind(r) == R_VAL && shown(g, g->val[ref_idx(r)].node, layer))
                        buf_fmt(out, "  n%u -> n%u [label=\"%s\"];\n", g->val[ref_idx(r)].node, n, slot);
                else if (ref_kind(r) == R_VAL)
                        buf_fmt(out,
                                "  o%u [shape=plaintext style=\"\" label=\"%%%u\"]; o%u -> n%u "
                                "[label=\"%s\"];\n",
                                ref_idx(r), ref_idx(r), ref_idx(r), n, slot);
                else if (ref_kind(r) == R_INPUT)
                        buf_fmt(out, "  i%u_%u [shape=plaintext style=\"\" label=\"@%s\"]; i%u_%u -> n%u;\n",
                                n, i, input_name[ref_idx(r)], n, i, n);
        }
}

void dot(const Graph *g, i64 layer, Buf *out)
{
        buf_fmt(out,
                "digraph %s {\n  rankdir=TB;\n  node [shape=box style=\"filled,rounded\" "
                "fontname=\"Helvetica\" fontsize=10];\n"
                "  edge [fontname=\"Helvetica\" fontsize=8 color=\"#707070\"];\n",
                g->name);
        for (u32 n = 0; n < g->n_node; n++)
                if (shown(g, n, layer)) {
                        box(g, n, out);
                        edges(g, n, layer, out);
                }
        buf_str(out, "}\n");
}
