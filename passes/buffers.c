/* Buffers: the place of every value in the step's arena. Values alive at the same time lie apart; the largest
 * are placed first, each into the smallest gap that holds it.
 *
 * A result takes the place of an operand that ends there, if in_place (ir/graph.h) says that it may. */
#include "passes/passes.h"
#include <stdlib.h>

/* ---- sizes ---- */

u64 value_bytes(const Graph *g, u32 val)
{
        u64 bytes = val_bytes(g, val), extra = 0;
        for (u32 i = 0; i < g->val[val].type.rank; i++)
                if (!dim_at(g->val[val].type.dim[i], g->max) && bytes)
                        die("graph %s: the bound of %s is not set", g->name,
                                dim_name[g->val[val].type.dim[i].sym]);
        if (g->val[val].type.dt == D_q8) /* val_bytes: a code each and a scale for each block */
                extra = bytes / (Q8_BLOCK + 4) * Q8_BLOCK / 16 * 4;
        if (bytes == UINT64_MAX || !add_u64(bytes, extra, &bytes))
                err(MOEC_NO_MEMORY, "graph %s: a value is larger than the address space", g->name);
        return bytes;
}

/* ---- lifetimes ---- */

typedef struct Place {
        u64 bytes, offset;
        u32 first, last; /* nodes; g->n_node: a result of the graph */
        u32 val;         /* the first value there */
} Place;

typedef struct Buffers {
        Graph *g;
        u32 *last;    /* by value: the last node that uses it */
        Place *place; /* by value */
        u32 *home;    /* by value: whose place it has */
} Buffers;

static void find_last(Buffers *b)
{
        const Graph *g = b->g;
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                for (u32 k = 0; k < n->nout; k++)
                        b->last[n->out + k] = i;
                for (u32 k = 0; k < n->nin; k++)
                        if (ref_kind(n->in[k].ref) == R_VAL)
                                b->last[ref_idx(n->in[k].ref)] = i;
        }
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        b->last[ref_idx(g->ret[i])] = g->n_node;
}

/* The operand whose place node i's result can have: no use but this one is left. */
static bool operand_to_reuse(const Buffers *b, u32 i, u32 *out)
{
        const Node *n = &b->g->node[i];
        for (u32 k = 0; k < n->nin; k++)
                if (in_place(b->g, i, k) && b->last[ref_idx(n->in[k].ref)] == i) {
                        *out = ref_idx(n->in[k].ref);
                        return true;
                }
        return false;
}

static void find_places(Buffers *b, bool reuse)
{
        const Graph *g = b->g;
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nout; k++) {
                        u32 v = g->node[i].out + k, old;
                        u32 last = reuse ? b->last[v] : g->n_node;
                        b->home[v] = v;
                        if (reuse && k == 0 && operand_to_reuse(b, i, &old)) {
                                b->home[v] = b->home[old];
                                b->place[b->home[v]].last = last;
                                continue;
                        }
                        u64 bytes;
                        if (!align_u64(value_bytes(g, v), ARENA_ALIGN, &bytes))
                                err(MOEC_NO_MEMORY, "graph %s: a value is larger than the address space",
                                        g->name);
                        b->place[v] = (Place){.bytes = bytes, .first = i, .last = last, .val = v};
                }
}

/* ---- places ---- */

static int largest_first(const void *x, const void *y)
{
        const Place *a = x, *b = y;
        if (a->bytes != b->bytes)
                return a->bytes > b->bytes ? -1 : 1;
        return a->val < b->val ? -1 : a->val > b->val;
}

static int lowest_first(const void *x, const void *y)
{
        const Place *const *a = x, *const *b = y;
        return (*a)->offset < (*b)->offset ? -1 : (*a)->offset > (*b)->offset;
}

/* p goes to the smallest gap between those of the n placed that are alive together with it, or behind them.
 */
static void put(const Graph *g, Place *p, const Place *placed, u32 n, const Place **near)
{
        u64 end = 0, best = UINT64_MAX, total;
        u32 m = 0;
        for (u32 i = 0; i < n; i++)
                if (placed[i].first <= p->last && p->first <= placed[i].last)
                        near[m++] = &placed[i];
        qsort(near, m, sizeof *near, lowest_first);
        for (u32 i = 0; i < m; i++) {
                u64 gap = near[i]->offset > end ? near[i]->offset - end : 0;
                if (gap >= p->bytes && gap < best) {
                        best = gap;
                        p->offset = end;
                }
                end = MAX(end, near[i]->offset + near[i]->bytes);
        }
        if (best == UINT64_MAX)
                p->offset = end;
        if (!add_u64(p->offset, p->bytes, &total))
                err(MOEC_NO_MEMORY, "graph %s: its values are larger than the address space", g->name);
}

void buffers(Graph *g, const PassOpt *opt)
{
        Buffers b = {g, NEWN(g->arena, u32, g->n_val), NEWN(g->arena, Place, g->n_val),
                NEWN(g->arena, u32, g->n_val)};
        Place *sorted = NEWN(g->arena, Place, g->n_val);
        const Place **near = NEWN(g->arena, const Place *, g->n_val);
        u32 n = 0;
        find_last(&b);
        find_places(&b, !opt->no_reuse);
        for (u32 v = 0; v < g->n_val; v++)
                if (b.home[v] == v && b.place[v].bytes)
                        sorted[n++] = b.place[v];
        qsort(sorted, n, sizeof *sorted, largest_first);
        g->arena_bytes = 0;
        for (u32 i = 0; i < n; i++) {
                put(g, &sorted[i], sorted, i, near);
                b.place[sorted[i].val] = sorted[i];
                g->arena_bytes = MAX(g->arena_bytes, sorted[i].offset + sorted[i].bytes);
        }
        for (u32 v = 0; v < g->n_val; v++)
                g->val[v].offset = b.place[b.home[v]].bytes ? b.place[b.home[v]].offset : NO_OFFSET;
}
