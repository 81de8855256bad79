/* Types of results from those of operands: one function an operation. What does not fit is an error that
 * names the node's line, the operand, what it is and what it would have to be. The signature (which operands,
 * which attributes) is checked first. */
#include "ir/graph.h"
#include <math.h>

typedef struct Ctx {
        const Graph *g;
        const Node *n;
        u32 id;
        Vtype *out;
        u32 nout;
} Ctx;

static noreturn void bad(const Ctx *c, const char *fmt, ...) PRINTF(2, 3);
static noreturn void bad(const Ctx *c, const char *fmt, ...)
{
        char where[WHERE_STR], msg[512];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof msg, fmt, ap);
        va_end(ap);
        err(MOEC_DAMAGED, "%s: %s", node_where(c->g, c->id, where), msg);
}

static noreturn void unfit(const Ctx *c, Slot s, const Vtype *is, const char *must, ...) PRINTF(4, 5);
static noreturn void unfit(const Ctx *c, Slot s, const Vtype *is, const char *must, ...)
{
        char type[VTYPE_STR], msg[2 * VTYPE_STR];
        va_list ap;
        va_start(ap, must);
        vsnprintf(msg, sizeof msg, must, ap);
        va_end(ap);
        bad(c, "operand %s is %s, but must be %s", slot_name[s], vtype_str(is, type), msg);
}

/* ---- operands ---- */

enum { IS_VAL = 1 << R_VAL, IS_WEIGHT = 1 << R_WEIGHT, IS_INPUT = 1 << R_INPUT, IS_STATE = 1 << R_STATE };

static const char *kind_name(u32 kind)
{
        static const char *const name[] = {"nothing", "a value", "a weight", "an input", "a state"};
        return kind < COUNT(name) ? name[kind] : "damaged";
}

static Vtype operand(const Ctx *c, Slot s, u32 i, u32 kinds)
{
        Ref r = in_nth(c->n, s, i);
        if (!(kinds >> ref_kind(r) & 1))
                bad(c, "operand %s cannot be %s", slot_name[s], kind_name(ref_kind(r)));
        return ref_type(c->g, r);
}

static bool has(const Ctx *c, Slot s)
{
        return in_get(c->n, s) != REF_NONE;
}

static Dim size(i64 n)
{
        return (Dim){.n = n};
}

static Vtype type1(Dtype dt, Dim a)
{
        return (Vtype){.dt = dt, .rank = 1, .dim = {a}};
}

static Vtype type2(Dtype dt, Dim a, Dim b)
{
        return (Vtype){.dt = dt, .rank = 2, .dim = {a, b}};
}

static Vtype type3(Dtype dt, Dim a, Dim b, Dim d)
{
        return (Vtype){.dt = dt, .rank = 3, .dim = {a, b, d}};
}

/* The operand that most likely says why s must be something else: the last one before it of as many
 * dimensions. */
static const struct In *reason(const Ctx *c, Slot s, u32 rank)
{
        const struct In *why = &c->n->in[c->n->in[0].slot == s && c->n->nin > 1];
        for (u32 i = 0; i < c->n->nin && rank > 1 && c->n->in[i].slot < s; i++)
                if (ref_type(c->g, c->n->in[i].ref).rank == rank)
                        why = &c->n->in[i];
        return why;
}

static void same(const Ctx *c, Slot s, Vtype is, Vtype want)
{
        char a[VTYPE_STR], b[VTYPE_STR];
        if (vtype_same(&is, &want))
                return;
        const struct In *why = reason(c, s, want.rank);
        Vtype other = ref_type(c->g, why->ref);
        unfit(c, s, &is, "%s, since %s is %s", vtype_str(&want, a), slot_name[why->slot],
                vtype_str(&other, b));
}

/* An activation: a value of rows, the last dimension a constant. */
static Vtype act(const Ctx *c, Slot s, u32 rank)
{
        Vtype t = operand(c, s, 0, IS_VAL);
        if (t.dt != D_f32 || t.rank != rank || t.dim[rank - 1].sym)
                unfit(c, s, &t, "f32 of %u dimensions, the last a constant", rank);
        return t;
}

/* The same, or already rounded; then the product must say so. */
static Vtype act_or_q8(const Ctx *c, Slot s, u32 rank)
{
        Vtype t = operand(c, s, 0, IS_VAL), f = t;
        if (t.dt != D_q8)
                return act(c, s, rank);
        f.dt = D_f32;
        if (t.rank != rank)
                return act(c, s, rank);
        if (attr_i(c->n, A_act) != ACT_q8)
                bad(c, "operand %s is q8, but act is f32", slot_name[s]);
        if (op_info(c->n->op)->slot[0].slot == s && has(c, S_norm))
                bad(c, "operand norm: %s is q8 already and cannot be normed", slot_name[s]);
        return f;
}

/* A parameter: a weight, or what dequant made of one: constants only. */
static Vtype par(const Ctx *c, Slot s, u32 i, u32 rank)
{
        Vtype t = operand(c, s, i, IS_WEIGHT | IS_VAL);
        bool fits = t.dt == D_f32 && t.rank == rank;
        for (u32 k = 0; fits && k < rank; k++)
                fits = !t.dim[k].sym;
        if (!fits)
                unfit(c, s, &t, "a weight of %u dimensions", rank);
        return t;
}

/* An optional parameter of n values. */
static void vector(const Ctx *c, Slot s, i64 n)
{
        if (has(c, s))
                same(c, s, par(c, s, 0, 1), type1(D_f32, size(n)));
}

/* An i32 for each token. */
static Vtype index_of(const Ctx *c, Slot s)
{
        Vtype t = operand(c, s, 0, IS_INPUT | IS_VAL);
        if (t.dt != D_i32 || t.rank != 1)
                unfit(c, s, &t, "i32 of one dimension");
        return t;
}

static void index_for(const Ctx *c, Slot s, Dim tokens)
{
        same(c, s, index_of(c, s), type1(D_i32, tokens));
}

/* ---- attributes ---- */

static i64 at_least(const Ctx *c, Attr a, i64 least)
{
        i64 v = attr_i(c->n, a);
        if (v < least)
                bad(c, "%s is %lld, but must be at least %lld", attr_info[a].name, (long long)v,
                        (long long)least);
        return v;
}

/* How many values each of `heads` parts of n has. */
static i64 part(const Ctx *c, Slot s, i64 n, i64 heads)
{
        if (n % heads)
                bad(c, "operand %s: %lld values do not divide into %lld heads", slot_name[s], (long long)n,
                        (long long)heads);
        return n / heads;
}

/* Rotation of heads of n values. */
static void rope_fits(const Ctx *c, i64 n)
{
        if (attr_i(c->n, A_rstyle) == ROPE_none) {
                if (has(c, S_freqs))
                        bad(c, "operand freqs: nothing is rotated, rstyle is none");
                return;
        }
        i64 r = attr_i(c->n, A_rdim);
        if (r < 2 || r % 2 || r > n)
                bad(c, "rdim is %lld, but must be even, 2 to the %lld values of a head", (long long)r,
                        (long long)n);
        if (!(attr_f(c->n, A_rbase) > 0) || !(attr_f(c->n, A_rfactor) > 0))
                bad(c, "rbase and rfactor must be positive");
        if (attr_f(c->n, A_ext) != 0 && at_least(c, A_octx, 1) &&
                !(attr_f(c->n, A_fast) > 0 && attr_f(c->n, A_slow) > 0))
                bad(c, "fast and slow must be positive");
        vector(c, S_freqs, r / 2);
}

static void give(Ctx *c, Vtype t)
{
        if (c->nout == MAX_RESULT)
                bad(c, "more than %d results", MAX_RESULT);
        for (u32 i = 0; i < t.rank; i++)
                if (!t.dim[i].sym && t.dim[i].n >= MAX_SIZE)
                        bad(c, "a result of %lld values in a row", (long long)t.dim[i].n);
        c->out[c->nout++] = t;
}

/* ---- the operations ---- */

static void infer_dequant(Ctx *c)
{
        give(c, operand(c, S_w, 0, IS_WEIGHT));
}

static void infer_embed(Ctx *c)
{
        Vtype ids = index_of(c, S_ids), w = par(c, S_w, 0, 2);
        give(c, type2(D_f32, ids.dim[0], w.dim[1]));
}

static void infer_rows(Ctx *c)
{
        Vtype x = act(c, S_x, 2), rows = index_of(c, S_out);
        give(c, type2(D_f32, rows.dim[0], x.dim[1]));
}

static void infer_elementwise(Ctx *c)
{
        Vtype a = operand(c, S_a, 0, IS_VAL), b = operand(c, S_b, 0, IS_VAL | IS_WEIGHT);
        if (a.dt != D_f32 || !a.rank || a.dim[a.rank - 1].sym)
                unfit(c, S_a, &a, "f32, the last dimension a constant");
        Dim last = a.dim[a.rank - 1];
        Vtype weight = type1(D_f32, last), row = type2(D_f32, size(1), last);
        if (!vtype_same(&b, &weight) && !vtype_same(&b, &row))
                same(c, S_b, b, a);
        give(c, a);
}

static void infer_add(Ctx *c)
{
        infer_elementwise(c);
}

static void infer_mul(Ctx *c)
{
        infer_elementwise(c);
}

static void infer_scale(Ctx *c)
{
        Vtype x = operand(c, S_x, 0, IS_VAL);
        give(c, act(c, S_x, x.rank));
}

static void infer_slice(Ctx *c)
{
        Vtype x = act(c, S_x, 2);
        i64 heads = MAX(attr_i(c->n, A_heads), 1), n = part(c, S_x, x.dim[1].n, heads);
        i64 from = attr_i(c->n, A_from), to = attr_i(c->n, A_to);
        if (from >= to || to > n)
                bad(c, "from %lld to %lld is no part of %lld values", (long long)from, (long long)to,
                        (long long)n);
        give(c, type2(D_f32, x.dim[0], size(heads * (to - from))));
}

static void infer_concat(Ctx *c)
{
        Vtype a = act(c, S_a, 2), b = act(c, S_b, 2);
        i64 heads = MAX(attr_i(c->n, A_heads), 1);
        part(c, S_a, a.dim[1].n, heads);
        part(c, S_b, b.dim[1].n, heads);
        same(c, S_b, b, type2(D_f32, a.dim[0], b.dim[1]));
        give(c, type2(D_f32, a.dim[0], size(a.dim[1].n + b.dim[1].n)));
}

static void infer_rmsnorm(Ctx *c)
{
        Vtype x = act(c, S_x, 2);
        i64 group = attr_i(c->n, A_group), n = group ? group : x.dim[1].n;
        if (x.dim[1].n % n)
                bad(c, "operand x: %lld values are not whole groups of %lld", (long long)x.dim[1].n,
                        (long long)n);
        vector(c, S_w, n);
        give(c, x);
}

static void infer_quantize(Ctx *c)
{
        Vtype x = act(c, S_x, 2);
        vector(c, S_norm, x.dim[1].n);
        x.dt = D_q8;
        give(c, x);
}

/* Codes share a scale in blocks, so that a row that is rounded must be whole blocks. */
static void blocks(const Ctx *c, Slot s, i64 n, Attr a)
{
        if (attr_i(c->n, a) == ACT_q8 && n % Q8_BLOCK)
                bad(c, "operand %s: %s q8 needs rows of whole blocks of %d, not of %lld values", slot_name[s],
                        attr_info[a].name, Q8_BLOCK, (long long)n);
}

static void infer_matmul(Ctx *c)
{
        Vtype x = act_or_q8(c, S_x, 2);
        u32 nw = in_count(c->n, S_w), nb = in_count(c->n, S_bias);
        blocks(c, S_x, x.dim[1].n, A_act);
        vector(c, S_norm, x.dim[1].n);
        if (nb && nb != nw)
                bad(c, "operand bias: %u of them for %u products; none or one each", nb, nw);
        if (nw > 1 && has(c, S_res))
                bad(c, "operand res: can be added to one product only, not to %u", nw);
        for (u32 i = 0; i < nw; i++) {
                Vtype w = par(c, S_w, i, 2), y = type2(D_f32, x.dim[0], w.dim[0]);
                same(c, S_w, w, type2(D_f32, w.dim[0], x.dim[1]));
                if (nb)
                        same(c, S_bias, par(c, S_bias, i, 1), type1(D_f32, w.dim[0]));
                if (has(c, S_res))
                        same(c, S_res, act(c, S_res, 2), y);
                give(c, y);
        }
}

static void infer_headmul(Ctx *c)
{
        Vtype x = act_or_q8(c, S_x, 2), w = par(c, S_w, 0, 3);
        i64 in = part(c, S_x, x.dim[1].n, w.dim[0].n);
        blocks(c, S_x, in, A_act);
        same(c, S_w, w, type3(D_f32, w.dim[0], w.dim[1], size(in)));
        give(c, type2(D_f32, x.dim[0], size(w.dim[0].n * w.dim[1].n)));
}

static void infer_rope(Ctx *c)
{
        Vtype x = act(c, S_x, 2);
        i64 heads = at_least(c, A_heads, 1);
        index_for(c, S_pos, x.dim[0]);
        rope_fits(c, part(c, S_x, x.dim[1].n, heads));
        give(c, x);
}

/* Keys and values to be kept, tokens of them; norm: the slot of the keys' norm. */
static void append_fits(const Ctx *c, const Vtype *kv, Dim tokens, Slot norm)
{
        i64 heads = kv->dim[0].n, dk = kv->dim[1].n, dv = kv->dim[2].n;
        same(c, S_k, act(c, S_k, 2), type2(D_f32, tokens, size(heads * dk)));
        if (has(c, S_v) != (dv > 0))
                bad(c, dv ? "operand v is missing: the state keeps values"
                          : "operand v: the state keeps no values of their own");
        if (dv)
                same(c, S_v, act(c, S_v, 2), type2(D_f32, tokens, size(heads * dv)));
        vector(c, norm, dk);
        index_for(c, S_pos, tokens);
        index_for(c, S_seq, tokens);
}

static Vtype state(const Ctx *c)
{
        Vtype t = operand(c, S_kv, 0, IS_STATE | IS_VAL);
        if (t.dt != D_kv)
                unfit(c, S_kv, &t, "a state");
        return t;
}

static void infer_kv_append(Ctx *c)
{
        Vtype kv = state(c), k = act(c, S_k, 2);
        append_fits(c, &kv, k.dim[0], S_norm);
        rope_fits(c, kv.dim[1].n);
        give(c, kv);
}

static void infer_attend(Ctx *c)
{
        Vtype q = act(c, S_q, 2), kv = state(c);
        i64 heads = at_least(c, A_heads, 1), dk = kv.dim[1].n, own = kv.dim[2].n, dv = attr_i(c->n, A_dv);
        same(c, S_q, q, type2(D_f32, q.dim[0], size(heads * dk)));
        if (heads % kv.dim[0].n)
                bad(c, "heads is %lld, no multiple of the state's %lld", (long long)heads,
                        (long long)kv.dim[0].n);
        if (own ? dv && dv != own : dv < 1 || dv > dk)
                bad(c, "dv is %lld, but the state's values are %s of %lld", (long long)dv,
                        own ? "rows" : "prefixes of keys", (long long)(own ? own : dk));
        vector(c, S_norm, dk);
        vector(c, S_sinks, heads);
        rope_fits(c, dk);
        index_for(c, S_pos, q.dim[0]);
        index_for(c, S_seq, q.dim[0]);
        blocks(c, S_q, own ? own : dv, A_out);
        give(c, type2(attr_i(c->n, A_out) == ACT_q8 ? D_q8 : D_f32, q.dim[0],
                        size(heads * (own ? own : dv))));
        if (has(c, S_k)) {
                append_fits(c, &kv, q.dim[0], S_knorm);
                give(c, kv);
        } else if (has(c, S_v) || has(c, S_knorm))
                bad(c, "operands v and knorm need k");
}

static void infer_glu(Ctx *c)
{
        Vtype gate = act(c, S_gate, 2);
        same(c, S_up, act(c, S_up, 2), gate);
        give(c, gate);
}

static void infer_route(Ctx *c)
{
        Vtype x = act(c, S_x, 2);
        i64 n = x.dim[1].n, k = at_least(c, A_k, 1), groups = attr_i(c->n, A_groups),
            best = attr_i(c->n, A_groups_k);
        vector(c, S_norm, n);
        if (has(c, S_w)) {
                Vtype w = par(c, S_w, 0, 2);
                same(c, S_w, w, type2(D_f32, w.dim[0], x.dim[1]));
                n = w.dim[0].n;
        } else if (has(c, S_norm))
                bad(c, "operand norm needs w");
        else if (attr_i(c->n, A_out) == ACT_q8)
                bad(c, "out q8 needs w");
        vector(c, S_bias, n);
        if (k > n)
                bad(c, "k is %lld of only %lld experts", (long long)k, (long long)n);
        if (groups && (n % groups || n / groups < 2 || best < 1 || best > groups || k > best * (n / groups)))
                bad(c, "%lld of %lld groups of %lld experts cannot give %lld", (long long)best,
                        (long long)groups, (long long)n, (long long)k);
        if (!groups && best)
                bad(c, "groups_k without groups");
        give(c, type2(D_route, x.dim[0], size(k)));
        blocks(c, S_x, x.dim[1].n, A_out);
        if (attr_i(c->n, A_out) == ACT_q8)
                give(c, type2(D_q8, x.dim[0], x.dim[1]));
}

/* The experts that a route chooses from, k of them. */
static i64 routed(const Ctx *c, Dim tokens, i64 *k)
{
        Vtype t = operand(c, S_route, 0, IS_VAL);
        const Node *from = ref_node(c->g, in_get(c->n, S_route));
        if (t.dt != D_route || from->op != OP_route)
                unfit(c, S_route, &t, "the result of route");
        *k = t.dim[1].n;
        same(c, S_route, t, type2(D_route, tokens, t.dim[1]));
        return ref_experts(c->g, in_get(c->n, S_route));
}

/* A schedule must be of the very route that it schedules. */
static void ordered(const Ctx *c, Dim tokens, i64 k)
{
        if (!has(c, S_order))
                return;
        same(c, S_order, operand(c, S_order, 0, IS_VAL), type2(D_order, tokens, size(k)));
        if (in_get(ref_node(c->g, in_get(c->n, S_order)), S_route) != in_get(c->n, S_route))
                bad(c, "operand order: sorted from another route");
}

static void bias(const Ctx *c, Slot s, i64 experts, i64 n)
{
        if (has(c, s))
                same(c, s, par(c, s, 0, 2), type2(D_f32, size(experts), size(n)));
}

/* gate and up, their biases, norm; gives the width F between. */
static i64 gate_up(const Ctx *c, i64 experts, i64 width)
{
        Vtype gate = par(c, S_gate, 0, 3), want = type3(D_f32, size(experts), gate.dim[1], size(width));
        same(c, S_gate, gate, want);
        same(c, S_up, par(c, S_up, 0, 3), want);
        bias(c, S_gate_b, experts, gate.dim[1].n);
        bias(c, S_up_b, experts, gate.dim[1].n);
        vector(c, S_norm, width);
        return gate.dim[1].n;
}

static Vtype down(const Ctx *c, Dim tokens, i64 experts, i64 width)
{
        Vtype w = par(c, S_down, 0, 3), y = type2(D_f32, tokens, w.dim[1]);
        same(c, S_down, w, type3(D_f32, size(experts), w.dim[1], size(width)));
        bias(c, S_down_b, experts, w.dim[1].n);
        if (has(c, S_res))
                same(c, S_res, act(c, S_res, 2), y);
        return y;
}

static void infer_experts(Ctx *c)
{
        Vtype x = act_or_q8(c, S_x, 2);
        i64 k, experts = routed(c, x.dim[0], &k), f = gate_up(c, experts, x.dim[1].n);
        blocks(c, S_x, x.dim[1].n, A_act);
        blocks(c, S_down, f, A_act);
        give(c, down(c, x.dim[0], experts, f));
}

static void infer_sort(Ctx *c)
{
        i64 k, n = at_least(c, A_experts, 1);
        Vtype route = operand(c, S_route, 0, IS_VAL);
        i64 experts = routed(c, route.dim[0], &k);
        if (n != experts)
                bad(c, "experts is %lld, but the route has %lld", (long long)n, (long long)experts);
        give(c, type2(D_order, route.dim[0], size(k)));
}

static void infer_experts_up(Ctx *c)
{
        Vtype x = act_or_q8(c, S_x, 2);
        i64 k, experts = routed(c, x.dim[0], &k), f = gate_up(c, experts, x.dim[1].n);
        blocks(c, S_x, x.dim[1].n, A_act);
        blocks(c, S_gate, f, A_out);
        ordered(c, x.dim[0], k);
        give(c, type3(attr_i(c->n, A_out) == ACT_q8 ? D_q8 : D_f32, x.dim[0], size(k), size(f)));
}

static void infer_experts_down(Ctx *c)
{
        Vtype x = act_or_q8(c, S_x, 3);
        i64 k, experts = routed(c, x.dim[0], &k);
        blocks(c, S_x, x.dim[2].n, A_act);
        same(c, S_x, x, type3(D_f32, x.dim[0], size(k), x.dim[2]));
        ordered(c, x.dim[0], k);
        give(c, down(c, x.dim[0], experts, x.dim[2].n));
}

/* ---- the signature ---- */

static void operands_fit(const Ctx *c)
{
        const OpInfo *o = op_info(c->n->op);
        u32 known = 0;
        for (u32 i = 0; i < o->n_slot; i++) {
                u32 n = in_count(c->n, o->slot[i].slot);
                Arity a = o->slot[i].arity;
                if (n < (a == ARITY_one || a == ARITY_plus))
                        bad(c, "operand %s is missing", slot_name[o->slot[i].slot]);
                if (n > 1 && (a == ARITY_one || a == ARITY_opt))
                        bad(c, "operand %s is given %u times", slot_name[o->slot[i].slot], n);
                known += n;
        }
        for (u32 i = 0; i < c->n->nin && known != c->n->nin; i++) {
                bool found = false;
                for (u32 k = 0; k < o->n_slot; k++)
                        found |= o->slot[k].slot == c->n->in[i].slot;
                if (!found)
                        bad(c, "operand %s is not one of this operation's", slot_name[c->n->in[i].slot]);
        }
}

static void attrs_fit(const Ctx *c)
{
        const OpInfo *o = op_info(c->n->op);
        for (int a = 0; a < N_ATTR; a++) {
                const AttrInfo *info = &attr_info[a];
                i64 i = c->n->attr[a].i, most = MAX_SIZE - 1;
                if (!o->attr[a] && !attr_is_default(c->n, (Attr)a))
                        bad(c, "attribute %s is not one of this operation's", info->name);
                if (info->kind == ATTR_FLT) {
                        if (!isfinite(c->n->attr[a].f))
                                bad(c, "%s is not finite", info->name);
                        continue;
                }
                if (info->kind == ATTR_ENUM)
                        for (most = -1; info->word[most + 1];)
                                most++;
                if (i < (a == A_layer ? -1 : 0) || i > most)
                        bad(c, "%s is %lld, but must be %d to %lld", info->name, (long long)i,
                                a == A_layer ? -1 : 0, (long long)most);
        }
        if (attr_f(c->n, A_eps) < 0)
                bad(c, "eps is negative");
}

void infer(const Graph *g, u32 n, Vtype out[MAX_RESULT], u32 *nout)
{
        static void (*const by_op[N_OP])(Ctx *) = {
#define O(op, slots, attrs, results) infer_##op,
                OPS(O)
#undef O
        };
        Ctx c = {.g = g, .n = &g->node[n], .id = n, .out = out};
        operands_fit(&c);
        attrs_fit(&c);
        by_op[c.n->op](&c);
        *nout = c.nout;
}
