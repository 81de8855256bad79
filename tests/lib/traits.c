#include <string.h>
#include "tests/lib/oncpu.h"

static void add(Traits *t, u8 *has, const char *word)
{
        u32 i = traits_find(t, word);
        if (i == t->n) {
                if (t->n == MAX_TRAIT)
                        die("more than %d traits", MAX_TRAIT);
                t->word[t->n++] = word;
        }
        has[i] = 1;
}

u32 traits_find(const Traits *t, const char *word)
{
        u32 i = 0;
        while (i < t->n && strcmp(t->word[i], word) != 0)
                i++;
        return i;
}

static void add_slots(Traits *t, u8 *has, const Graph *g, const Node *n)
{
        const OpInfo *op = op_info(n->op);
        for (u32 i = 0; i < n->nin; i++) {
                Ref r = n->in[i].ref;
                Vtype vt = ref_type(g, r);
                const char *slot = slot_name[n->in[i].slot];
                add(t, has, arena_fmt(t->arena, "%s.%s", op->name, slot));
                if (ref_kind(r) == R_VAL)
                        add(t, has, arena_fmt(t->arena, "%s.%s %s", op->name, slot, dtype_info[vt.dt].name));
                else if (ref_kind(r) == R_WEIGHT && vt.rank > 1 && op->attr[A_act])
                        add(t, has,
                                arena_fmt(t->arena, "%s act=%s", wtype_info[g->weight[ref_idx(r)].type].name,
                                        attr_info[A_act].word[attr_i(n, A_act)]));
        }
        for (u32 i = 0; i < op->n_slot; i++)
                if (op->slot[i].arity == ARITY_opt && in_get(n, op->slot[i].slot) == REF_NONE)
                        add(t, has, arena_fmt(t->arena, "%s, no %s", op->name, slot_name[op->slot[i].slot]));
}

static void add_attrs(Traits *t, u8 *has, const Node *n)
{
        const OpInfo *op = op_info(n->op);
        for (int i = 0; i < N_ATTR; i++) {
                if (!op->attr[i] || i == A_layer)
                        continue;
                if (attr_info[i].kind == ATTR_ENUM)
                        add(t, has,
                                arena_fmt(t->arena, "%s %s=%s", op->name, attr_info[i].name,
                                        attr_info[i].word[attr_i(n, (Attr)i)]));
                else if (!attr_is_default(n, (Attr)i))
                        add(t, has, arena_fmt(t->arena, "%s %s", op->name, attr_info[i].name));
        }
}

/* Shapes that a kernel could get wrong without its other cases noticing. */
static void add_shapes(Traits *t, u8 *has, const Graph *g, const Node *n)
{
        Vtype y = g->val[n->out].type;
        const char *op = op_info(n->op)->name;
        if (op_info(n->op)->attr[A_heads] && attr_i(n, A_heads) > 1)
                add(t, has, arena_fmt(t->arena, "%s, several heads", op));
        if (n->op == OP_rmsnorm && attr_i(n, A_group) && attr_i(n, A_group) < dim_last(&y))
                add(t, has, "rmsnorm, several groups");
        if (n->op == OP_route && attr_i(n, A_groups_k) < attr_i(n, A_groups))
                add(t, has, "route, some groups left out");
        if (n->op == OP_route && attr_i(n, A_k) > 2)
                add(t, has, "route, more than two");
        if (n->op == OP_matmul && n->nout > 1)
                add(t, has, "matmul, several weights");
        if (n->op == OP_experts_up && dim_last(&y) % 32)
                add(t, has, arena_fmt(t->arena, "experts_up, part of 32, %s", dtype_info[y.dt].name));
        if (n->op == OP_rope && attr_i(n, A_rdim) * attr_i(n, A_heads) < dim_last(&y))
                add(t, has, "rope, some of each head");
        if (n->op != OP_kv_append && n->op != OP_attend)
                return;
        const State *s = &g->state[ref_idx(ref_state(g, in_get(n, S_kv)))];
        add(t, has, arena_fmt(t->arena, "%s keys %s", op, dtype_info[s->ktype].name));
        add(t, has, arena_fmt(t->arena, "%s values %s", op, s->dv ? dtype_info[s->vtype].name : "in keys"));
        if (!s->dv)
                add(t, has, arena_fmt(t->arena, "%s, values in keys %s", op, dtype_info[s->ktype].name));
        if (n->op == OP_attend && in_get(n, S_k) != REF_NONE)
                add(t, has, arena_fmt(t->arena, "attend.k, keys %s", dtype_info[s->ktype].name));
        if (n->op == OP_attend && s->heads > 1 && attr_i(n, A_heads) > s->heads)
                add(t, has, "attend, shared keys");
}

void traits_add(Traits *t, u8 has[MAX_TRAIT], const Graph *g, u32 max_tok)
{
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                add(t, has,
                        arena_fmt(t->arena, "%s of %s", op_info(n->op)->name, max_tok > 1 ? "many" : "one"));
                add_slots(t, has, g, n);
                add_attrs(t, has, n);
                add_shapes(t, has, g, n);
        }
}
