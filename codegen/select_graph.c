/* Selection for a whole graph, and what its launches read and write, for codegen/schedule.h. */
#include "codegen/select_graph.h"

static void touch_value(Launch *l, Touch *room, const Graph *g, Ref r, Touch t)
{
        u32 v = ref_idx(r);
        t.bytes = value_bytes(g, v);
        if (!t.bytes)
                return;
        if (g->val[v].offset == NO_OFFSET)
                die("graph %s: its buffers are not placed", g->name);
        t.value = v, t.at = g->val[v].offset;
        room[l->n_touch++] = t;
}

/* A state: read as it was, and written as it is then, by a node with k. */
static void touch_state(Launch *l, Touch *room, const Graph *g, const Node *n, bool early)
{
        Ref kv = in_get(n, S_kv);
        Touch t = {.space = TOUCH_STATE + ref_idx(ref_state(g, kv)),
                .value = ref_kind(kv) == R_VAL ? ref_idx(kv) : NO_VALUE,
                .bytes = 1,
                .early = early,
                .in_place = true};
        room[l->n_touch++] = t;
        for (u32 k = 0; k < n->nout; k++)
                if (g->val[n->out + k].type.dt == D_kv) {
                        t.value = n->out + k, t.early = false, t.write = true;
                        room[l->n_touch++] = t;
                }
}

static Touch touch_input(u32 i, bool write)
{
        return (Touch){.space = TOUCH_INPUT, .value = i, .at = i, .bytes = 1, .write = write};
}

const char *launch_label(Arena *a, const Node *n)
{
        const char *op = op_info(n->op)->name;
        i64 layer = attr_i(n, A_layer);
        return layer < 0 ? op : arena_fmt(a, "blk.%lld.%s", (long long)layer, op);
}

static Launch launch_of(Arena *a, const Graph *g, u32 node, const Sel *s)
{
        const Node *n = &g->node[node];
        Touch *room = NEWN(a, Touch, n->nin + n->nout + 1);
        Launch l = {.label = launch_label(a, n), .trigger = s->trigger, .touch = room};
        bool early[N_SLOT + 1] = {false};
        for (u32 i = 0; i < s->n_arg; i++)
                early[s->arg[i].slot] |= s->arg[i].early;
        for (u32 i = 0; i < n->nin; i++) {
                Touch t = {.early = early[n->in[i].slot], .in_place = in_place(g, node, i)};
                if (n->in[i].slot == S_kv)
                        touch_state(&l, room, g, n, t.early);
                else if (ref_kind(n->in[i].ref) == R_VAL)
                        touch_value(&l, room, g, n->in[i].ref, t);
                else if (ref_kind(n->in[i].ref) == R_INPUT) {
                        room[l.n_touch] = touch_input(ref_idx(n->in[i].ref), false);
                        room[l.n_touch++].early = t.early;
                }
        }
        for (u32 i = 0; i < n->nout; i++)
                touch_value(&l, room, g, REF(R_VAL, n->out + i), (Touch){.write = true});
        return l;
}

/* Whoever says what the step is of. */
static Launch inputs(Arena *a)
{
        Touch *room = NEWN(a, Touch, N_INPUT);
        Launch l = {.label = "the inputs", .touch = room};
        for (u32 i = 0; i < N_INPUT; i++)
                room[l.n_touch++] = touch_input(i, true);
        return l;
}

/* What the caller of the step reads when all has ended. */
static Launch results(Arena *a, const Graph *g)
{
        Touch *room = NEWN(a, Touch, g->n_ret);
        Launch l = {.label = "the results", .touch = room};
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        touch_value(&l, room, g, g->ret[i], (Touch){0});
        return l;
}

Launch *graph_launches(Arena *a, const Graph *g, const Sel *sel, u32 *n)
{
        Launch *l = NEWN(a, Launch, g->n_node + 2);
        *n = 0;
        l[(*n)++] = inputs(a);
        for (u32 i = 0; i < g->n_node; i++)
                if (sel[i].key)
                        l[(*n)++] = launch_of(a, g, i, &sel[i]);
        l[(*n)++] = results(a, g);
        return l;
}

void select_graph(Arena *a, const Graph *g, Target target, const Tab *tune, Sel *sel)
{
        Launch *l = NEWN(a, Launch, g->n_node + 1);
        u32 n = 1, by;
        l[0] = inputs(a);
        for (u32 i = 0; i < g->n_node; i++) {
                if (!select_node(a, g, i, target, tune, true, &sel[i]) || target != TARGET_cuda)
                        continue;
                l[n] = launch_of(a, g, i, &sel[i]);
                if (schedule_early(l, n, &by)) {
                        select_node(a, g, i, target, tune, false, &sel[i]);
                        l[n] = launch_of(a, g, i, &sel[i]);
                }
                n++;
        }
        if (target != TARGET_cuda)
                return;
        l = graph_launches(a, g, sel, &n);
        const char *fault = schedule_fault(a, g->name, l, n);
        if (fault)
                die("%s", fault);
}
