/* The text form of a graph; ir/ir.txt describes it, ir/parse.c reads it. What is printed depends on the graph
 * alone: values are numbered in order of definition whatever their numbers inside. */
#include "ir/graph.h"
#include <locale.h>
#include <string.h>

typedef struct Out {
        const Graph *g;
        Buf *b;
        const u32 *number; /* of every value, NO_NUMBER where nothing defines it; NULL: its index */
} Out;
#define NO_NUMBER UINT32_MAX

static void quoted(Buf *b, const char *s)
{
        buf_char(b, '"');
        for (; *s; s++) {
                u8 c = (u8)*s;
                if (c == '"' || c == '\\')
                        buf_fmt(b, "\\%c", c);
                else if (c < ' ' || c > '~')
                        buf_fmt(b, "\\x%02x", c);
                else
                        buf_char(b, (char)c);
        }
        buf_char(b, '"');
}

static void name(Buf *b, const char *s)
{
        if (*s && strspn(s, NAME_CHARS) == strlen(s))
                buf_str(b, s);
        else
                quoted(b, s);
}

/* %a, with a point whatever the host program's locale says. */
static void flt(Buf *b, double v)
{
        char s[64];
        snprintf(s, sizeof s, "%a", v);
        const char *point = localeconv()->decimal_point, *at = strstr(s, point);
        if (at)
                buf_fmt(b, "%.*s.%s", (int)(at - s), s, at + strlen(point));
        else
                buf_str(b, s);
}

static void ref(const Out *o, Ref r)
{
        const Graph *g = o->g;
        u32 i = ref_idx(r), kind = ref_kind(r), n = i;
        if (kind == R_VAL && o->number)
                n = i < g->n_val ? o->number[i] : NO_NUMBER;
        if (kind == R_VAL && n != NO_NUMBER)
                buf_fmt(o->b, "%%%u", n);
        else if (kind == R_WEIGHT && i < g->n_weight) {
                buf_char(o->b, '$');
                name(o->b, g->weight[i].name);
        } else if (kind == R_INPUT && i < N_INPUT)
                buf_fmt(o->b, "@%s", input_name[i]);
        else if (kind == R_STATE && i < g->n_state) {
                buf_char(o->b, '&');
                name(o->b, g->state[i].name);
        } else /* only in the message that says so */
                buf_fmt(o->b, "?%08x", r);
}

static void attr(Buf *b, const Node *n, int a)
{
        const AttrInfo *info = &attr_info[a];
        buf_fmt(b, "%s ", info->name);
        if (info->kind == ATTR_FLT)
                flt(b, n->attr[a].f);
        else if (info->kind == ATTR_INT)
                buf_fmt(b, "%lld", (long long)n->attr[a].i);
        else
                buf_str(b, info->word[n->attr[a].i]);
}

static void node(const Out *o, const Node *n)
{
        char type[VTYPE_STR];
        for (u32 i = 0; i < n->nout && n->out + i < o->g->n_val; i++) {
                const Val *v = &o->g->val[n->out + i];
                buf_str(o->b, i ? ", " : "");
                ref(o, REF(R_VAL, n->out + i));
                buf_fmt(o->b, " =%s", vtype_str(&v->type, type));
                if (v->offset != NO_OFFSET)
                        buf_fmt(o->b, " @%llu", (unsigned long long)v->offset);
        }
        buf_fmt(o->b, " %s", n->op < N_OP ? op_info(n->op)->name : "dead");
        u32 args = 0;
        for (u32 i = 0; i < n->nin; i++) {
                buf_fmt(o->b, "%s %s ", args++ ? "," : "", slot_name[n->in[i].slot]);
                ref(o, n->in[i].ref);
        }
        for (int a = 0; a < N_ATTR; a++)
                if (!attr_is_default(n, (Attr)a)) {
                        buf_str(o->b, args++ ? ", " : " ");
                        attr(o->b, n, a);
                }
}

void print_node(const Graph *g, u32 n, Buf *out)
{
        node(&(Out){.g = g, .b = out}, &g->node[n]);
}

static void bounds(const Graph *g, Buf *b)
{
        u32 args = 0;
        for (int d = DIM_const + 1; d < N_DIM; d++)
                if (g->max[d])
                        buf_fmt(b, "%s %s %llu", args++ ? "," : "        max", dim_name[d],
                                (unsigned long long)g->max[d]);
        if (args)
                buf_char(b, '\n');
        if (g->arena_bytes)
                buf_fmt(b, "        arena %llu\n", (unsigned long long)g->arena_bytes);
}

static void weight(const Weight *w, Buf *b)
{
        buf_str(b, "        $");
        name(b, w->name);
        buf_fmt(b, " =%s[", wtype_info[w->type].name);
        for (u32 i = 0; i < w->rank; i++)
                buf_fmt(b, "%s%llu", i ? "," : "", (unsigned long long)w->dim[i]);
        buf_char(b, ']');
        if (w->layout != LAYOUT_rows)
                buf_fmt(b, " %s", layout_name[w->layout]);
        if (strcmp(w->tensor, w->name) != 0) {
                buf_str(b, " tensor ");
                quoted(b, w->tensor);
        }
        buf_char(b, '\n');
}

static void state(const State *s, Buf *b)
{
        buf_str(b, "        state &");
        name(b, s->name);
        buf_fmt(b, " =kv[%lld,%lld,%lld] %s %s\n", (long long)s->heads, (long long)s->dk, (long long)s->dv,
                dtype_info[s->ktype].name, dtype_info[s->vtype].name);
}

/* The values' numbers, in the graph's arena. */
static const u32 *number(const Graph *g)
{
        u32 *of = NEWN(g->arena, u32, g->n_val), next = 0;
        for (u32 i = 0; i < g->n_val; i++)
                of[i] = NO_NUMBER;
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; g->node[i].op != OP_dead && k < g->node[i].nout; k++)
                        if (g->node[i].out + k < g->n_val)
                                of[g->node[i].out + k] = next++;
        return of;
}

void print(const Graph *g, Buf *out)
{
        Out o = {.g = g, .b = out, .number = number(g)};
        buf_str(out, "graph ");
        name(out, g->name);
        buf_str(out, " {\n");
        bounds(g, out);
        for (u32 i = 0; i < g->n_weight; i++)
                weight(&g->weight[i], out);
        for (u32 i = 0; i < g->n_state; i++)
                state(&g->state[i], out);
        for (u32 i = 0; i < g->n_node; i++)
                if (g->node[i].op != OP_dead) {
                        buf_str(out, "        ");
                        node(&o, &g->node[i]);
                        buf_char(out, '\n');
                }
        for (u32 i = 0; i < g->n_ret; i++) {
                buf_str(out, i ? ", " : "        return ");
                ref(&o, g->ret[i]);
        }
        buf_str(out, g->n_ret ? "\n}\n" : "}\n");
}
