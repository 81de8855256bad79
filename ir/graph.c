#include "ir/graph.h"
#include <string.h>

/* ---- build ---- */

bool graph_find_weight(const Graph *g, const char *name, size_t len, Ref *out)
{
        u32 i;
        bool found = index_find(&g->weights, name, len, &i);
        if (found)
                *out = REF(R_WEIGHT, i);
        return found;
}

bool graph_find_state(const Graph *g, const char *name, size_t len, Ref *out)
{
        u32 i;
        bool found = index_find(&g->states, name, len, &i);
        if (found)
                *out = REF(R_STATE, i);
        return found;
}

Graph *graph_new(Arena *a, const char *name)
{
        Graph *g = NEW(a, Graph);
        g->arena = a;
        g->name = arena_str(a, name);
        return g;
}

/* Enough for n operands; node_in and graph_clone agree on it. */
static u32 in_room(u32 n)
{
        u32 cap = 4;
        while (cap < n)
                cap *= 2;
        return cap;
}

#define COPY(field)                                                                                          \
        (c->field = arena_copy(a, g->field, g->n_##field * sizeof *g->field), c->cap_##field = g->n_##field)

Graph *graph_clone(const Graph *g, Arena *a, const char *name)
{
        Graph *c = graph_new(a, name);
        const char *own = c->name;
        *c = *g;
        c->arena = a;
        c->name = own;
        COPY(node);
        COPY(val);
        COPY(weight);
        COPY(state);
        COPY(ret);
        for (u32 i = 0; i < c->n_node; i++) {
                Node *n = &c->node[i];
                struct In *in = NEWN(a, struct In, in_room(n->nin));
                if (n->nin)
                        memcpy(in, n->in, n->nin * sizeof *in);
                n->in = in;
                n->attr = arena_copy(a, n->attr, N_ATTR * sizeof *n->attr);
        }
        c->weights.at = arena_copy(a, g->weights.at, g->weights.cap * sizeof *g->weights.at);
        c->states.at = arena_copy(a, g->states.at, g->states.cap * sizeof *g->states.at);
        return c;
}

static void check_weight(const char *name, Wtype t, u32 rank, const u64 *dim)
{
        u64 total = 8; /* bytes of a value at most */
        if (rank < 1 || rank > MAX_RANK)
                err(MOEC_DAMAGED, "weight %s: %u dimensions; 1 to %d are possible", name, rank, MAX_RANK);
        for (u32 i = 0; i < rank; i++)
                if (dim[i] < 1 || dim[i] >= (u64)MAX_SIZE || !mul_u64(total, dim[i], &total))
                        err(MOEC_DAMAGED, "weight %s: dimension %llu is not possible", name,
                                (unsigned long long)dim[i]);
        u32 per = wtype_info[t].per;
        if (dim[rank - 1] % per)
                err(MOEC_DAMAGED, "weight %s: rows of %llu values are not whole blocks of %s, which hold %u",
                        name, (unsigned long long)dim[rank - 1], wtype_info[t].name, per);
}

Ref graph_weight(Graph *g, const char *name, Wtype t, u32 rank, const u64 *dim, const void *data)
{
        Ref r;
        if (graph_find_weight(g, name, strlen(name), &r)) {
                const Weight *w = &g->weight[ref_idx(r)];
                bool same = w->type == t && w->rank == rank;
                for (u32 i = 0; same && i < rank; i++)
                        same = w->dim[i] == dim[i];
                if (!same)
                        err(MOEC_DAMAGED, "weight %s: used with two types or shapes", name);
                return r;
        }
        check_weight(name, t, rank, dim);
        GROW(g->arena, g->weight, g->n_weight, g->cap_weight);
        const char *own = arena_str(g->arena, name);
        Weight *w = &g->weight[g->n_weight];
        *w = (Weight){.name = own, .tensor = own, .type = t, .rank = rank, .data = data};
        memcpy(w->dim, dim, rank * sizeof *dim);
        index_add(g->arena, &g->weights, own, strlen(own), g->n_weight);
        return REF(R_WEIGHT, g->n_weight++);
}

static void check_kept(const char *name, const char *what, i64 width, Dtype t)
{
        if (t >= N_KV_TYPE)
                err(MOEC_DAMAGED, "state %s: keys and values are kept as f16, f32 or q8_0", name);
        if (t == D_q8_0 && width % KV_BLOCK)
                err(MOEC_UNSUPPORTED,
                        "state %s: %s of heads of %lld cannot be kept as q8_0, whose blocks have %d values; "
                        "keep them as f16",
                        name, what, (long long)width, KV_BLOCK);
}

Ref graph_state(Graph *g, const char *name, i64 heads, i64 dk, i64 dv, Dtype ktype, Dtype vtype)
{
        Ref r;
        if (graph_find_state(g, name, strlen(name), &r))
                err(MOEC_DAMAGED, "state %s: defined twice", name);
        if (heads < 1 || dk < 1 || dv < 0 || heads >= MAX_SIZE || dk >= MAX_SIZE || dv >= MAX_SIZE)
                err(MOEC_DAMAGED, "state %s: kv[%lld,%lld,%lld] is not possible", name, (long long)heads,
                        (long long)dk, (long long)dv);
        check_kept(name, "keys", dk, ktype);
        check_kept(name, "values", dv, vtype);
        GROW(g->arena, g->state, g->n_state, g->cap_state);
        const char *own = arena_str(g->arena, name);
        g->state[g->n_state] = (State){own, heads, dk, dv, ktype, vtype};
        index_add(g->arena, &g->states, own, strlen(own), g->n_state);
        return REF(R_STATE, g->n_state++);
}

void graph_return(Graph *g, Ref r)
{
        GROW(g->arena, g->ret, g->n_ret, g->cap_ret);
        g->ret[g->n_ret++] = r;
}

u32 node_new(Graph *g, Op op)
{
        return node_insert(g, g->n_node, op);
}

u32 node_insert(Graph *g, u32 at, Op op)
{
        op_info(op);
        if (at > g->n_node)
                die("node_insert at %u of %u", at, g->n_node);
        GROW(g->arena, g->node, g->n_node, g->cap_node);
        Node *n = &g->node[at];
        if (at < g->n_node) {
                memmove(n + 1, n, (g->n_node - at) * sizeof *n);
                for (u32 i = 0; i < g->n_val; i++)
                        g->val[i].node += g->val[i].node >= at;
        }
        g->n_node++;
        *n = (Node){
                .op = op, .in = NEWN(g->arena, struct In, in_room(0)), .attr = NEWN(g->arena, Aval, N_ATTR)};
        for (int i = 0; i < N_ATTR; i++)
                n->attr[i] = attr_info[i].def;
        return at;
}

static Node *node_at(Graph *g, u32 n)
{
        if (n >= g->n_node)
                die("no node %u", n);
        return &g->node[n];
}

void node_in(Graph *g, u32 n, Slot s, Ref r)
{
        Node *d = node_at(g, n);
        if (r == REF_NONE)
                die("%s: operand %s is no reference", op_info(d->op)->name, slot_name[s]);
        if (d->nin == MAX_IN)
                err(MOEC_UNSUPPORTED, "%s: more than %d operands", op_info(d->op)->name, MAX_IN);
        if (d->nin == in_room(d->nin)) {
                struct In *more = NEWN(g->arena, struct In, in_room(d->nin + 1));
                memcpy(more, d->in, d->nin * sizeof *more);
                d->in = more;
        }
        u32 i = d->nin++;
        for (; i > 0 && d->in[i - 1].slot > s; i--)
                d->in[i] = d->in[i - 1];
        d->in[i] = (struct In){s, r};
}

void node_int(Graph *g, u32 n, Attr a, i64 v)
{
        node_at(g, n)->attr[a].i = v;
}

void node_flt(Graph *g, u32 n, Attr a, double v)
{
        node_at(g, n)->attr[a].f = v;
}

void node_copy_attrs(Graph *g, u32 n, u32 from)
{
        Node *to = node_at(g, n);
        const OpInfo *has = op_info(to->op), *had = op_info(node_at(g, from)->op);
        for (int i = 0; i < N_ATTR; i++)
                if (has->attr[i] && had->attr[i])
                        to->attr[i] = g->node[from].attr[i];
}

Ref node_done(Graph *g, u32 n)
{
        Vtype type[MAX_RESULT];
        u32 nout;
        infer(g, n, type, &nout);
        Node *d = node_at(g, n);
        if (!d->nout) {
                d->nout = nout;
                d->out = g->n_val;
                for (u32 i = 0; i < nout; i++) {
                        GROW(g->arena, g->val, g->n_val, g->cap_val);
                        g->val[g->n_val++] = (Val){.node = n, .offset = NO_OFFSET};
                }
        } else if (d->nout != nout)
                die("%s: %u results became %u", op_info(d->op)->name, d->nout, nout);
        for (u32 i = 0; i < nout; i++)
                g->val[d->out + i].type = type[i];
        return REF(R_VAL, d->out);
}

/* ---- read ---- */

Ref in_get(const Node *n, Slot s)
{
        return in_nth(n, s, 0);
}

Ref in_nth(const Node *n, Slot s, u32 i)
{
        for (u32 k = 0; k < n->nin; k++)
                if (n->in[k].slot == s && i-- == 0)
                        return n->in[k].ref;
        return REF_NONE;
}

u32 in_count(const Node *n, Slot s)
{
        u32 count = 0;
        for (u32 k = 0; k < n->nin; k++)
                count += n->in[k].slot == s;
        return count;
}

static Vtype type_of_weight(const Weight *w)
{
        Vtype t = {.dt = D_f32, .rank = w->rank};
        for (u32 i = 0; i < w->rank; i++)
                t.dim[i].n = (i64)w->dim[i];
        return t;
}

Vtype ref_type(const Graph *g, Ref r)
{
        u32 i = ref_idx(r), kind = ref_kind(r);
        if (kind == R_VAL && i < g->n_val)
                return g->val[i].type;
        if (kind == R_WEIGHT && i < g->n_weight)
                return type_of_weight(&g->weight[i]);
        if (kind == R_INPUT && i < N_INPUT)
                return (Vtype){.dt = D_i32, .rank = 1, .dim = {{input_dim[i], 0}}};
        if (kind == R_STATE && i < g->n_state) {
                const State *s = &g->state[i];
                return (Vtype){.dt = D_kv, .rank = 3, .dim = {{0, s->heads}, {0, s->dk}, {0, s->dv}}};
        }
        die("graph %s has no reference %08x", g->name, r);
}

const Node *ref_node(const Graph *g, Ref r)
{
        if (ref_kind(r) != R_VAL)
                return NULL;
        if (ref_idx(r) >= g->n_val)
                die("graph %s has no value %u", g->name, ref_idx(r));
        return &g->node[g->val[ref_idx(r)].node];
}

Ref ref_state(const Graph *g, Ref r)
{
        while (ref_kind(r) == R_VAL) {
                Ref before = in_get(ref_node(g, r), S_kv);
                if (before == REF_NONE)
                        die("graph %s: value %u is no state", g->name, ref_idx(r));
                r = before;
        }
        return r;
}

i64 ref_experts(const Graph *g, Ref route)
{
        const Node *n = ref_node(g, route);
        if (!n || n->op != OP_route)
                die("graph %s: %08x is no route", g->name, route);
        Ref w = in_get(n, S_w);
        Vtype t = ref_type(g, w ? w : in_get(n, S_x));
        return w ? t.dim[0].n : dim_last(&t);
}

u32 ref_uses(const Graph *g, Ref r)
{
        u32 uses = 0;
        for (u32 i = 0; i < g->n_node; i++)
                if (g->node[i].op != OP_dead)
                        for (u32 k = 0; k < g->node[i].nin; k++)
                                uses += g->node[i].in[k].ref == r;
        for (u32 i = 0; i < g->n_ret; i++)
                uses += g->ret[i] == r;
        return uses;
}

bool attr_is_default(const Node *n, Attr a)
{
        if (attr_info[a].kind == ATTR_FLT)
                return n->attr[a].f == attr_info[a].def.f;
        return n->attr[a].i == attr_info[a].def.i;
}

char *vtype_str(const Vtype *t, char out[VTYPE_STR])
{
        int n = snprintf(out, VTYPE_STR, "%s[", dtype_info[t->dt].name);
        for (u32 i = 0; i < t->rank; i++)
                if (t->dim[i].sym)
                        n += snprintf(out + n, VTYPE_STR - (size_t)n, "%s%s", i ? "," : "",
                                dim_name[t->dim[i].sym]);
                else
                        n += snprintf(out + n, VTYPE_STR - (size_t)n, "%s%lld", i ? "," : "",
                                (long long)t->dim[i].n);
        snprintf(out + n, VTYPE_STR - (size_t)n, "]");
        return out;
}

char *node_where(const Graph *g, u32 n, char out[WHERE_STR])
{
        const Node *d = &g->node[n];
        const char *op = d->op < N_OP ? op_info(d->op)->name : "dead node";
        if (d->line)
                snprintf(out, WHERE_STR, "%s:%u: %s", g->file ? g->file : g->name, d->line, op);
        else if (attr_i(d, A_layer) >= 0)
                snprintf(out, WHERE_STR, "%s, layer %lld: %s", g->name, (long long)attr_i(d, A_layer), op);
        else
                snprintf(out, WHERE_STR, "%s, node %u: %s", g->name, n, op);
        return out;
}

i64 dim_last(const Vtype *t)
{
        if (!t->rank || t->dim[t->rank - 1].sym)
                die("a type whose last dimension is not constant");
        return t->dim[t->rank - 1].n;
}

bool vtype_same(const Vtype *a, const Vtype *b)
{
        if (a->dt != b->dt || a->rank != b->rank)
                return false;
        for (u32 i = 0; i < a->rank; i++)
                if (a->dim[i].sym != b->dim[i].sym || (!a->dim[i].sym && a->dim[i].n != b->dim[i].n))
                        return false;
        return true;
}

u64 dim_at(Dim d, const u64 at[N_DIM])
{
        return d.sym ? at[d.sym] : (u64)d.n;
}

/* ---- buffers ---- */

u64 val_bytes(const Graph *g, u32 v)
{
        const Vtype *t = &g->val[v].type;
        u64 n = 1, pairs;
        if (t->dt == D_kv)
                return 0;
        for (u32 i = 0; i < t->rank; i++) {
                u64 d = dim_at(t->dim[i], g->max);
                if (!d || !mul_u64(n, d, &n))
                        return UINT64_MAX;
        }
        switch (t->dt) {
        case D_q8: /* a code each, an f32 scale for each block */
                return add_u64(n, n / Q8_BLOCK * 4, &n) ? n : UINT64_MAX;
        case D_order: /* an i32 a pair, where each expert's pairs begin, and the end */
                pairs = (u64)attr_i(&g->node[g->val[v].node], A_experts) + 1;
                return add_u64(n, pairs, &n) && mul_u64(n, 4, &n) ? n : UINT64_MAX;
        default:
                return mul_u64(n, dtype_info[t->dt].bytes, &n) ? n : UINT64_MAX;
        }
}

bool in_place(const Graph *g, u32 n, u32 i)
{
        const Node *d = &g->node[n];
        Slot s = d->in[i].slot;
        bool elementwise = d->op == OP_add || d->op == OP_mul || d->op == OP_scale || d->op == OP_glu;
        if (ref_kind(d->in[i].ref) != R_VAL || !(elementwise || s == S_res))
                return false;
        for (u32 k = 0; k < d->nin; k++) /* a product still reads its x when it writes */
                if (!elementwise && k != i && d->in[k].ref == d->in[i].ref)
                        return false;
        Vtype from = ref_type(g, d->in[i].ref), to = ref_type(g, REF(R_VAL, d->out));
        return vtype_same(&from, &to);
}

/* ---- rewrite ---- */

void ref_replace(Graph *g, Ref from, Ref to)
{
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++)
                        if (g->node[i].in[k].ref == from)
                                g->node[i].in[k].ref = to;
        for (u32 i = 0; i < g->n_ret; i++)
                if (g->ret[i] == from)
                        g->ret[i] = to;
}

void node_kill(Graph *g, u32 n)
{
        Node *d = node_at(g, n);
        d->op = OP_dead;
        d->nin = 0;
}

/* map[old] = new + 1, 0 where it is dropped. */
static Ref renumber(const Graph *g, Ref r, const u32 *val, const u32 *weight)
{
        u32 kind = ref_kind(r), i = ref_idx(r);
        if (kind != R_VAL && kind != R_WEIGHT)
                return r;
        if (kind == R_VAL && i >= g->n_val)
                die("graph %s has no value %u", g->name, i);
        u32 new = kind == R_VAL ? val[i] : weight[i];
        if (!new)
                die("graph %s uses value %u, whose node is dead", g->name, i);
        return REF(kind, new - 1);
}

/* Weights keep their order; what no live node names goes. */
static void compact_weights(Graph *g, u32 *map)
{
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++)
                        if (ref_kind(g->node[i].in[k].ref) == R_WEIGHT) {
                                ref_type(g, g->node[i].in[k].ref); /* it exists */
                                map[ref_idx(g->node[i].in[k].ref)] = 1;
                        }
        u32 kept = 0;
        for (u32 i = 0; i < g->n_weight; i++)
                if (map[i]) {
                        g->weight[kept] = g->weight[i];
                        map[i] = ++kept;
                }
        if (kept == g->n_weight)
                return;
        g->n_weight = kept;
        g->weights = (Index){0};
        for (u32 i = 0; i < kept; i++)
                index_add(g->arena, &g->weights, g->weight[i].name, strlen(g->weight[i].name), i);
}

void graph_compact(Graph *g)
{
        u32 *val = NEWN(g->arena, u32, g->n_val), *weight = NEWN(g->arena, u32, g->n_weight), nodes = 0,
            vals = 0;
        Val *new = NEWN(g->arena, Val, g->n_val);
        compact_weights(g, weight);
        for (u32 i = 0; i < g->n_node; i++) {
                Node *n = &g->node[i];
                if (n->op == OP_dead)
                        continue;
                for (u32 k = 0; k < n->nin; k++)
                        n->in[k].ref = renumber(g, n->in[k].ref, val, weight);
                for (u32 k = 0; k < n->nout; k++) {
                        new[vals] = g->val[n->out + k];
                        new[vals].node = nodes;
                        val[n->out + k] = ++vals;
                }
                n->out = vals - n->nout;
                g->node[nodes++] = *n;
        }
        for (u32 i = 0; i < g->n_ret; i++)
                g->ret[i] = renumber(g, g->ret[i], val, weight);
        g->val = new;
        g->cap_val = g->n_val;
        g->n_val = vals;
        g->n_node = nodes;
}
