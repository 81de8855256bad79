/* Every invariant of a graph, one function each. What is broken is told with the node's place and its text.
 */
#include "ir/graph.h"
#include <stdlib.h>
#include <string.h>

#define NODE_STR 400
static char *node_str(const Graph *g, u32 n, char out[NODE_STR])
{
        Buf b = {0};
        print_node(g, n, &b);
        snprintf(out, NODE_STR, "%s", b.p);
        buf_free(&b);
        return out;
}

static const char *place(const Graph *g)
{
        return g->file ? g->file : g->name;
}

static noreturn void broken(const Graph *g, u32 n, const char *fmt, ...) PRINTF(3, 4);
static noreturn void broken(const Graph *g, u32 n, const char *fmt, ...)
{
        char where[WHERE_STR], msg[256], text[NODE_STR];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof msg, fmt, ap);
        va_end(ap);
        err(MOEC_DAMAGED, "%s: %s, in: %s", node_where(g, n, where), msg, node_str(g, n, text));
}

/* ---- what must hold before anything can be read or printed ---- */

static void refs_exist(const Graph *g, Ref r, const char *what, u32 n)
{
        u32 i = ref_idx(r), kind = ref_kind(r);
        u32 end = kind == R_VAL      ? g->n_val
                  : kind == R_WEIGHT ? g->n_weight
                  : kind == R_INPUT  ? N_INPUT
                  : kind == R_STATE  ? g->n_state
                                     : 0;
        if (i >= end)
                err(MOEC_DAMAGED, "%s: %s %u refers to %08x, which does not exist", place(g), what, n, r);
}

static void node_shape(const Graph *g, u32 n)
{
        const Node *d = &g->node[n];
        if ((unsigned)d->op > OP_dead)
                err(MOEC_DAMAGED, "%s: node %u has operation %d", place(g), n, (int)d->op);
        if (d->op == OP_dead)
                return;
        if (d->nin > MAX_IN || d->nout < 1 || d->nout > MAX_RESULT || d->out > g->n_val ||
                d->nout > g->n_val - d->out)
                err(MOEC_DAMAGED, "%s: node %u has %u operands and %u results from %u", place(g), n, d->nin,
                        d->nout, d->out);
        for (u32 i = 0; i < d->nin; i++) {
                if ((unsigned)d->in[i].slot >= N_SLOT || (i && d->in[i].slot < d->in[i - 1].slot))
                        err(MOEC_DAMAGED, "%s: node %u has its operands out of order", place(g), n);
                refs_exist(g, d->in[i].ref, "node", n);
        }
        for (u32 i = 0; i < d->nout; i++) {
                const Val *v = &g->val[d->out + i];
                if (v->node != n)
                        err(MOEC_DAMAGED, "%s: value %u says that node %u defines it, not %u", place(g),
                                d->out + i, v->node, n);
                if ((unsigned)v->type.dt >= N_DTYPE || v->type.rank > MAX_RANK)
                        err(MOEC_DAMAGED, "%s: value %u has a damaged type", place(g), d->out + i);
                for (u32 k = 0; k < v->type.rank; k++)
                        if ((unsigned)v->type.dim[k].sym >= N_DIM)
                                err(MOEC_DAMAGED, "%s: value %u has a damaged type", place(g), d->out + i);
        }
        for (int a = 0; a < N_ATTR; a++)
                for (i64 k = 0; attr_info[a].word && k <= d->attr[a].i; k++)
                        if (d->attr[a].i < 0 || !attr_info[a].word[k])
                                err(MOEC_DAMAGED, "%s: node %u has a damaged attribute %s", place(g), n,
                                        attr_info[a].name);
}

/* ---- nodes ---- */

static void types_agree(const Graph *g, u32 n)
{
        char is[VTYPE_STR], said[VTYPE_STR];
        const Node *d = &g->node[n];
        Vtype type[MAX_RESULT];
        u32 nout;
        Trap t;
        if (TRAP(&t) != 0) {
                char text[NODE_STR];
                err(t.error.status, "%.560s, in: %s", t.error.msg, node_str(g, n, text));
        }
        infer(g, n, type, &nout);
        trap_pop(&t);
        if (nout != d->nout)
                broken(g, n, "%u results instead of %u", d->nout, nout);
        for (u32 i = 0; i < nout; i++) {
                const Vtype *v = &g->val[d->out + i].type;
                if (!vtype_same(v, &type[i]))
                        broken(g, n, "result %u is %s instead of %s", i, vtype_str(v, is),
                                vtype_str(&type[i], said));
        }
}

/* defined: of every value, whether a node before this one defines it. */
static void uses_defined(const Graph *g, u32 n, const bool *defined)
{
        const Node *d = &g->node[n];
        for (u32 i = 0; i < d->nin; i++)
                if (ref_kind(d->in[i].ref) == R_VAL && !defined[ref_idx(d->in[i].ref)])
                        broken(g, n, "operand %s is not defined before its use", slot_name[d->in[i].slot]);
}

/* A state is changed in place: a version may be read until the one node that writes the next, and the last is
 * returned. written: of every value and then every state, the node + 1 that made the next version of it. */
static void state_threaded(const Graph *g, u32 n, u32 *written)
{
        const Node *d = &g->node[n];
        Ref kv = in_get(d, S_kv);
        if (kv == REF_NONE)
                return;
        u32 at = ref_kind(kv) == R_STATE ? g->n_val + ref_idx(kv) : ref_idx(kv);
        if (written[at]) {
                char by[WHERE_STR];
                broken(g, n, "uses a state that has been changed at %s", node_where(g, written[at] - 1, by));
        }
        if (in_get(d, S_k) != REF_NONE)
                written[at] = n + 1;
}

static bool is_state(const Graph *g, Ref r)
{
        return ref_kind(r) == R_STATE || (ref_kind(r) == R_VAL && g->val[ref_idx(r)].type.dt == D_kv);
}

static void returns_valid(const Graph *g, const bool *defined, const u32 *written)
{
        bool *back = NEWN(g->arena, bool, g->n_state);
        for (u32 i = 0; i < g->n_ret; i++) {
                Ref r = g->ret[i];
                if (ref_kind(r) != R_VAL && ref_kind(r) != R_STATE)
                        err(MOEC_DAMAGED, "%s: result %u is neither a value nor a state", place(g), i);
                if (ref_kind(r) == R_VAL && !defined[ref_idx(r)])
                        err(MOEC_DAMAGED, "%s: result %u is not defined", place(g), i);
                if (!is_state(g, r))
                        continue;
                u32 s = ref_idx(ref_state(g, r));
                if (written[ref_kind(r) == R_STATE ? g->n_val + s : ref_idx(r)])
                        err(MOEC_DAMAGED, "%s: result %u is not the last value of state %s", place(g), i,
                                g->state[s].name);
                if (back[s])
                        err(MOEC_DAMAGED, "%s: state %s is returned twice", place(g), g->state[s].name);
                back[s] = true;
        }
        for (u32 s = 0; s < g->n_state; s++)
                if (written[g->n_val + s] && !back[s])
                        err(MOEC_DAMAGED, "%s: state %s is changed, but its last value is not returned",
                                place(g), g->state[s].name);
}

/* ---- weights, states ---- */

static void weight_valid(const Graph *g, u32 i)
{
        const Weight *w = &g->weight[i];
        Ref r;
        if (!graph_find_weight(g, w->name, strlen(w->name), &r) || ref_idx(r) != i)
                err(MOEC_DAMAGED, "%s: weight %s is not found by its name", place(g), w->name);
        if ((unsigned)w->type >= N_WTYPE || (unsigned)w->layout >= N_LAYOUT || w->rank < 1 ||
                w->rank > MAX_RANK)
                err(MOEC_DAMAGED, "%s: weight %s has a damaged type", place(g), w->name);
        for (u32 k = 0; k < w->rank; k++)
                if (w->dim[k] < 1 || w->dim[k] >= (u64)MAX_SIZE)
                        err(MOEC_DAMAGED, "%s: weight %s has a dimension of %llu", place(g), w->name,
                                (unsigned long long)w->dim[k]);
        if (w->dim[w->rank - 1] % wtype_info[w->type].per)
                err(MOEC_DAMAGED, "%s: weight %s: rows of %llu values are not whole blocks of %s", place(g),
                        w->name, (unsigned long long)w->dim[w->rank - 1], wtype_info[w->type].name);
}

static void state_valid(const Graph *g, u32 i)
{
        const State *s = &g->state[i];
        Ref r;
        if (!graph_find_state(g, s->name, strlen(s->name), &r) || ref_idx(r) != i)
                err(MOEC_DAMAGED, "%s: state %s is not found by its name", place(g), s->name);
        if (s->heads < 1 || s->dk < 1 || s->dv < 0 || s->heads >= MAX_SIZE || s->dk >= MAX_SIZE ||
                s->dv >= MAX_SIZE)
                err(MOEC_DAMAGED, "%s: state %s has a damaged shape", place(g), s->name);
}

/* ---- buffers ---- */

/* Of every value, the last node that reads it; n_node where it is a result; its own where nothing reads it.
 */
static u32 *last_uses(const Graph *g)
{
        u32 *last = NEWN(g->arena, u32, g->n_val);
        for (u32 n = 0; n < g->n_node; n++) {
                const Node *d = &g->node[n];
                if (d->op == OP_dead)
                        continue;
                for (u32 i = 0; i < d->nout; i++)
                        last[d->out + i] = n;
                for (u32 i = 0; i < d->nin; i++)
                        if (ref_kind(d->in[i].ref) == R_VAL)
                                last[ref_idx(d->in[i].ref)] = n;
        }
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        last[ref_idx(g->ret[i])] = g->n_node;
        return last;
}

static void buffer_fits(const Graph *g, u32 n, u32 v)
{
        u64 bytes = val_bytes(g, v), end, offset = g->val[v].offset;
        if (g->val[v].type.dt == D_kv) {
                if (offset != NO_OFFSET)
                        broken(g, n, "a state has an offset");
                return;
        }
        if (offset == NO_OFFSET)
                broken(g, n, "result %u has no offset, though others have", v - g->node[n].out);
        if (bytes == UINT64_MAX)
                broken(g, n, "result %u has an offset, but no bound", v - g->node[n].out);
        if (!add_u64(offset, bytes, &end) || end > g->arena_bytes)
                broken(g, n, "result %u ends behind the arena's %llu bytes", v - g->node[n].out,
                        (unsigned long long)g->arena_bytes);
}

/* The live values in order of their offsets, as a tree of where they end: no graph, however odd, makes the
 * check slow. */
typedef struct Live {
        u32 *rank;      /* of every value */
        u32 leaves;     /* a power of two */
        u64 *end;       /* [2 * leaves] 0: not live; inner nodes: the larger of the two below */
        const u64 *key; /* [n] the offsets, sorted */
        u32 n;
} Live;

typedef struct Placed {
        u64 offset;
        u32 val;
} Placed;

static int by_offset(const void *a, const void *b)
{
        const Placed *x = a, *y = b;
        return x->offset != y->offset ? (x->offset > y->offset) - (x->offset < y->offset)
                                      : (x->val > y->val) - (x->val < y->val);
}

static Live live_new(const Graph *g)
{
        Placed *p = NEWN(g->arena, Placed, g->n_val);
        u64 *key = NEWN(g->arena, u64, g->n_val);
        Live l = {.rank = NEWN(g->arena, u32, g->n_val), .leaves = 1, .key = key, .n = g->n_val};
        while (l.leaves < l.n)
                l.leaves *= 2;
        l.end = NEWN(g->arena, u64, 2 * (size_t)l.leaves);
        for (u32 v = 0; v < l.n; v++)
                p[v] = (Placed){g->val[v].offset, v};
        qsort(p, l.n, sizeof *p, by_offset);
        for (u32 i = 0; i < l.n; i++) {
                l.rank[p[i].val] = i;
                key[i] = p[i].offset;
        }
        return l;
}

static void live_set(Live *l, u32 v, u64 end)
{
        u32 i = l->leaves + l->rank[v];
        l->end[i] = end;
        for (i /= 2; i; i /= 2)
                l->end[i] = MAX(l->end[2 * i], l->end[2 * i + 1]);
}

/* Whether any live value lies in from .. end - 1: starts before end and ends behind from. */
static bool live_in(const Live *l, u64 from, u64 end)
{
        u32 lo = 0, hi = l->n;
        while (lo < hi) { /* lo: how many start before end */
                u32 mid = lo + (hi - lo) / 2;
                if (l->key[mid] < end)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        u64 most = 0;
        for (u32 i = l->leaves, j = l->leaves + lo; i < j; i /= 2, j /= 2) {
                if (i & 1) {
                        most = MAX(most, l->end[i]);
                        i++;
                }
                if (j & 1) {
                        j--;
                        most = MAX(most, l->end[j]);
                }
        }
        return most > from;
}

/* Operands that n uses last are gone behind it; before its first result is written only those in whose place
 * it works. */
static void live_drop(const Graph *g, Live *l, u32 n, const u32 *last, bool before)
{
        const Node *d = &g->node[n];
        for (u32 i = 0; i < d->nin; i++) {
                u32 u = ref_idx(d->in[i].ref);
                if (ref_kind(d->in[i].ref) != R_VAL || last[u] != n)
                        continue;
                if (!before || (in_place(g, n, i) && g->val[u].offset == g->val[d->out].offset))
                        live_set(l, u, 0);
        }
}

static void buffers_valid(const Graph *g)
{
        const u32 *last = last_uses(g);
        Live l = live_new(g);
        for (u32 n = 0; n < g->n_node; n++) {
                const Node *d = &g->node[n];
                if (d->op == OP_dead)
                        continue;
                live_drop(g, &l, n, last, true);
                for (u32 v = d->out; v < d->out + d->nout; v++) {
                        u64 from = g->val[v].offset, bytes = val_bytes(g, v);
                        buffer_fits(g, n, v);
                        if (g->val[v].type.dt == D_kv)
                                continue;
                        if (live_in(&l, from, from + bytes))
                                broken(g, n, "result %u overlaps a live value", v - d->out);
                        live_set(&l, v, from + bytes);
                }
                live_drop(g, &l, n, last, false);
                for (u32 v = d->out; v < d->out + d->nout; v++)
                        if (last[v] == n)
                                live_set(&l, v, 0);
        }
}

static bool has_buffers(const Graph *g)
{
        for (u32 v = 0; v < g->n_val; v++)
                if (g->val[v].offset != NO_OFFSET)
                        return true;
        return false;
}

/* ---- all of it ---- */

void valid(const Graph *g)
{
        bool *defined = NEWN(g->arena, bool, g->n_val);
        u32 *written = NEWN(g->arena, u32, (size_t)g->n_val + g->n_state);
        for (u32 i = 0; i < g->n_weight; i++)
                weight_valid(g, i);
        for (u32 i = 0; i < g->n_state; i++)
                state_valid(g, i);
        for (u32 n = 0; n < g->n_node; n++)
                node_shape(g, n);
        for (u32 i = 0; i < g->n_ret; i++)
                refs_exist(g, g->ret[i], "result", i);
        for (u32 n = 0; n < g->n_node; n++) {
                const Node *d = &g->node[n];
                if (d->op == OP_dead)
                        continue;
                uses_defined(g, n, defined);
                types_agree(g, n);
                state_threaded(g, n, written);
                memset(defined + d->out, true, d->nout);
        }
        returns_valid(g, defined, written);
        if (has_buffers(g))
                buffers_valid(g);
}

void check(const Graph *g)
{
        Trap t;
        if (TRAP(&t) != 0)
                die("%s", t.error.msg);
        valid(g);
        trap_pop(&t);
}
