/* The driver: values, their memory, the dispatch. */
#include <string.h>
#include "ir/eval_part.h"
#include "ir/quant.h"

u64 tensor_len(const Tensor *t)
{
        u64 n = 1;
        for (u32 i = 0; i < t->rank; i++)
                n *= t->dim[i];
        return n;
}

u64 tensor_rows(const Tensor *t)
{
        u64 n = 1;
        for (u32 i = 0; i + 1 < t->rank; i++)
                n *= t->dim[i];
        return n;
}

/* ---- memory ---- */

static Block *take(Eval *e, u64 n, u64 size)
{
        u64 bytes, cls = 6;
        if (!mul_u64(n, size, &bytes) || bytes >> (N_CLASS - 1))
                err(MOEC_NO_MEMORY, "a value of %llu elements does not fit memory", (unsigned long long)n);
        while ((u64)1 << cls < bytes)
                cls++;
        Block *b = e->free[cls];
        if (b)
                e->free[cls] = b->next;
        else
                b = arena_alloc(e->arena, sizeof *b + ((size_t)1 << cls));
        b->cls = cls;
        return b;
}

static void give(Eval *e, Block *b)
{
        b->next = e->free[b->cls];
        e->free[b->cls] = b;
}

void *ev_scratch(Eval *e, u64 n, u64 size)
{
        Block *b = take(e, n, size);
        b->next = e->scratch;
        e->scratch = b;
        return b + 1;
}

static void scratch_end(Eval *e)
{
        for (Block *b = e->scratch, *next; b; b = next) {
                next = b->next;
                give(e, b);
        }
        e->scratch = NULL;
}

/* ---- operands ---- */

static const float *weight_values(Eval *e, const Weight *w, u64 n)
{
        if (!w->data)
                err(MOEC_USAGE,
                        "weight %s has no values: the graph was not made from a file that holds weights",
                        w->name);
        if (w->type == W_F32)
                return w->data;
        const float *hit = e->opt->cache ? ev_cache_find(e->opt->cache, w) : NULL;
        if (hit)
                return hit;
        float *f = SCRATCH(e, float, n);
        dequant(w->type, w->data, f, n);
        return f;
}

/* What dequant made of a weight is not kept beside it: whole layers of experts would fill the memory. */
Ref ev_source(const Eval *e, Ref r)
{
        const Node *n = ref_kind(r) == R_VAL ? ref_node(e->g, r) : NULL;
        return n && n->op == OP_dequant ? in_get(n, S_w) : r;
}

Tensor ev_operand(Eval *e, Ref r)
{
        Tensor t = {0};
        r = ev_source(e, r);
        u32 i = ref_idx(r);
        switch (ref_kind(r)) {
        case R_VAL:
                return e->val[i];
        case R_WEIGHT: {
                const Weight *w = &e->g->weight[i];
                t.rank = w->rank;
                memcpy(t.dim, w->dim, sizeof t.dim);
                /* Read only; a Tensor has one kind of pointer. */
                t.data = (void *)(uintptr_t)weight_values(e, w, tensor_len(&t));
                return t;
        }
        case R_INPUT: {
                const i32 *const in[N_INPUT] = {[IN_ids] = e->in->ids,
                        [IN_pos] = e->in->pos,
                        [IN_seq] = e->in->seq,
                        [IN_out] = e->in->out};
                t.dt = D_i32;
                t.rank = 1;
                t.dim[0] = e->at[input_dim[i]];
                t.data = (void *)(uintptr_t)in[i];
                return t;
        }
        case R_STATE:
                t.dt = D_kv;
                t.data = e->state[i];
                return t;
        default:
                die("no operand");
        }
}

const float *ev_vec(Eval *e, const Node *n, Slot s)
{
        Ref r = in_get(n, s);
        return r == REF_NONE ? NULL : ev_operand(e, r).data;
}

/* ---- one step ---- */

static void check_input(const char *what, const i32 *p, u64 n, u64 end)
{
        for (u64 i = 0; i < n; i++)
                if (p[i] < 0 || (u64)p[i] >= end)
                        err(MOEC_USAGE, "%s[%llu] is %d, not in 0..%lld", what, (unsigned long long)i, p[i],
                                (long long)end - 1);
}

static void open_states(Eval *e)
{
        const Graph *g = e->g;
        if (g->n_state && !e->kv)
                die("graph %s has states, but there is no store for them", g->name);
        e->state = NEWN(e->arena, Store *, g->n_state);
        for (u32 i = 0; i < g->n_state; i++)
                e->state[i] = ev_store_get(e->kv, &g->state[i]);
}

static void find_last_uses(Eval *e)
{
        const Graph *g = e->g;
        e->last = NEWN(e->arena, u32, g->n_val);
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                for (u32 j = 0; j < n->nout; j++)
                        e->last[n->out + j] = i;
                for (u32 j = 0; j < n->nin; j++)
                        if (ref_kind(n->in[j].ref) == R_VAL)
                                e->last[ref_idx(n->in[j].ref)] = i;
        }
        for (u32 i = 0; i < g->n_ret; i++)
                if (ref_kind(g->ret[i]) == R_VAL)
                        e->last[ref_idx(g->ret[i])] = g->n_node;
}

static u64 elem_bytes(Dtype dt)
{
        switch (dt) {
        case D_f32:
        case D_q8:
                return sizeof(float);
        case D_route:
                return sizeof(Pick);
        default:
                return 0;
        }
}

static void make_result(Eval *e, u32 v)
{
        const Vtype *vt = &e->g->val[v].type;
        Tensor *t = &e->val[v];
        t->dt = vt->dt;
        t->rank = vt->rank;
        for (u32 i = 0; i < vt->rank; i++)
                t->dim[i] = dim_at(vt->dim[i], e->at);
        u64 size = e->g->node[e->g->val[v].node].op == OP_dequant ? 0 : elem_bytes(t->dt);
        t->data = size ? take(e, tensor_len(t), size) + 1 : NULL;
}

static void drop(Eval *e, u32 v, u32 node)
{
        Tensor *t = &e->val[v];
        if (e->last[v] != node || !t->data || !elem_bytes(t->dt))
                return;
        give(e, (Block *)t->data - 1);
        t->data = NULL;
}

static void show(Eval *e, u32 i)
{
        const Node *n = &e->g->node[i];
        if (!e->opt->hook)
                return;
        Tensor *in = SCRATCH(e, Tensor, n->nin);
        memset(in, 0, n->nin * sizeof *in);
        for (u32 j = 0; j < n->nin; j++)
                if (ref_kind(ev_source(e, n->in[j].ref)) != R_WEIGHT)
                        in[j] = ev_operand(e, n->in[j].ref);
        bool route = n->op == OP_route;
        EvalSeen s = {.g = e->g,
                .node = i,
                .n_in = n->nin,
                .n_out = n->nout,
                .in = in,
                .out = &e->val[n->out],
                .logits = route ? &e->logits : NULL,
                .select = route ? &e->select : NULL};
        e->opt->hook(e->opt->user, &s);
}

static void eval_node(Eval *e, u32 i)
{
        static void (*const fn[N_OP])(Eval *, const Node *) = {
#define O(name, slots, attrs, results) eval_##name,
                OPS(O)
#undef O
        };
        const Node *n = &e->g->node[i];
        if (n->op >= N_OP)
                return;
        for (u32 j = 0; j < n->nout; j++)
                make_result(e, n->out + j);
        fn[n->op](e, n);
        show(e, i);
        scratch_end(e);
        for (u32 j = 0; j < n->nin; j++)
                if (ref_kind(n->in[j].ref) == R_VAL)
                        drop(e, ref_idx(n->in[j].ref), i);
        for (u32 j = 0; j < n->nout; j++)
                drop(e, n->out + j, i);
}

void eval(const Graph *g, EvalKv *kv, const EvalIn *in, const EvalOpt *opt, Arena *a, Tensor *ret)
{
        Eval *e = NEW(a, Eval);
        e->g = g;
        e->kv = kv;
        e->in = in;
        e->opt = opt;
        e->arena = a;
        e->at[DIM_n_tok] = in->n_tok;
        e->at[DIM_n_out] = in->n_out;
        ev_kv_dims(kv, &e->at[DIM_n_seq], &e->at[DIM_n_ctx]);
        if (in->out)
                check_input("out", in->out, in->n_out, in->n_tok);
        if (in->pos && kv)
                check_input("pos", in->pos, in->n_tok, e->at[DIM_n_ctx]);
        if (in->seq && kv)
                check_input("seq", in->seq, in->n_tok, e->at[DIM_n_seq]);
        open_states(e);
        e->val = NEWN(a, Tensor, g->n_val);
        find_last_uses(e);
        for (u32 i = 0; i < g->n_node; i++)
                eval_node(e, i);
        for (u32 i = 0; i < g->n_ret; i++)
                ret[i] = ev_operand(e, g->ret[i]);
}
