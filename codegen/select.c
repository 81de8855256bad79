#include "codegen/select_part.h"
#include <string.h>
#include "ir/rope.h"

/* ---- shapes of operands ---- */

i64 sel_tokens(const Ctx *c)
{
        return (i64)c->g->max[DIM_n_tok];
}
i64 sel_seq_tokens(const Ctx *c)
{
        return c->g->max_seq_tok ? (i64)c->g->max_seq_tok : sel_tokens(c);
}
Vtype sel_type(const Ctx *c, Slot s)
{
        return ref_type(c->g, in_get(c->n, s));
}
i64 sel_last(const Ctx *c, Slot s)
{
        Vtype t = sel_type(c, s);
        return dim_last(&t);
}
i64 sel_dim(const Ctx *c, Slot s, u32 i)
{
        return sel_type(c, s).dim[i].n;
}
const Val *sel_result(const Ctx *c, u32 i)
{
        return &c->g->val[c->n->out + i];
}
/* The symbol that counts a value's rows; 0 for a constant. */
static DimSym rows_sym(const Vtype *t)
{
        return t->dim[0].sym;
}
const State *sel_state(const Ctx *c)
{
        return &c->g->state[ref_idx(ref_state(c->g, in_get(c->n, S_kv)))];
}

/* ---- grids ---- */

void sel_grid(Ctx *c, u32 axis, DimSym sym, i64 mul, i64 div)
{
        c->s->dim[axis] = (u32)sym;
        c->s->mul[axis] = (u32)mul;
        c->s->div[axis] = (u32)div;
}
void sel_grid_rows(Ctx *c)
{
        const Vtype *t = &sel_result(c, 0)->type;
        sel_grid(c, 0, rows_sym(t), rows_sym(t) == DIM_const ? t->dim[0].n : 1, 1);
}
void sel_grid_table(Ctx *c)
{
        Vtype t = sel_type(c, S_w);
        i64 rows = 1;
        for (u32 i = 0; i + 1 < t.rank; i++)
                rows *= t.dim[i].n;
        sel_grid(c, 0, DIM_const, rows, 1);
}
i64 sel_tiles(i64 n, i64 each)
{
        return (n + each - 1) / each;
}
i64 sel_matmul_tiles(const Ctx *c)
{
        i64 n = 0;
        for (u32 i = 0; i < c->n->nout; i++)
                n += sel_tiles(dim_last(&sel_result(c, i)->type), c->rows);
        return n;
}

/* ---- facts ---- */

static void fact_fields(Ctx *c, Wtype t)
{
        Buf b = {0};
        for (const Field *f = wtype_info[t].field; f < wtype_info[t].field + MAX_FIELD && f->bytes; f++)
                buf_fmt(&b, "{%u, %u},", f->bytes, f->unit);
        key_word(c->k, "FIELDS", arena_strn(c->k->arena, b.p, b.len));
        buf_free(&b);
}

/* Turns a position, in turns: the kernels multiply by the position and drop whole turns. */
static void facts_rope(Ctx *c)
{
        u64 half = rope_pairs(c->n);
        Buf b = {0};
        for (u64 i = 0; i < (half + 7) / 8 * 8; i++)
                buf_fmt(&b, "%a,", i < half ? rope_rate(c->n, i) / 6.283185307179586476925 : 0.0);
        key_int(c->k, "HALF", (i64)half);
        if (half)
                key_word(c->k, "FREQS", arena_strn(c->k->arena, b.p, b.len));
        buf_free(&b);
}

static void facts_cache(Ctx *c)
{
        const State *st = sel_state(c);
        key_int(c->k, "KVH", st->heads);
        key_int(c->k, "DK", st->dk);
        i64 vrow = st->dv ? st->dv : st->dk;
        Dtype vtype = st->dv ? st->vtype : st->ktype;
        key_word(c->k, "KTYPE", dtype_info[st->ktype].name);
        key_word(c->k, "VTYPE", dtype_info[vtype].name);
        key_int(c->k, "VROW", vrow);
        key_int(c->k, "KBYTES", (i64)kv_row_bytes(st->ktype, (u64)st->dk));
        key_int(c->k, "VBYTES", (i64)kv_row_bytes(vtype, (u64)vrow));
}

static void fact_rows(Ctx *c, Slot s)
{
        Vtype t = sel_type(c, s);
        if (rows_sym(&t) == DIM_const)
                key_int(c->k, "ROWS", t.dim[0].n);
        else
                key_word(c->k, "ROWS", dim_name[rows_sym(&t)]);
}

static void facts_table(Ctx *c)
{
        const Weight *w = &c->g->weight[ref_idx(in_get(c->n, S_w))];
        const WtypeInfo *t = &wtype_info[w->type];
        i64 cols = (i64)w->dim[w->rank - 1];
        key_int(c->k, "K", cols);
        key_int(c->k, "ROW_BYTES", cols / t->per * t->bytes);
        fact_fields(c, w->type);
}

/* ---- one function an operation: its own facts ---- */

static void sel_dequant(Ctx *c)
{
        facts_table(c);
}
static void sel_embed(Ctx *c)
{
        facts_table(c);
}
static void sel_rows(Ctx *c)
{
        key_int(c->k, "K", sel_last(c, S_x));
}
static void elementwise(Ctx *c, const char *a, const char *b, Slot sb)
{
        const Vtype *t = &sel_result(c, 0)->type;
        key_int(c->k, "N", dim_last(t));
        key_word(c->k, "ARG_A", a);
        if (b) {
                Vtype tb = sel_type(c, sb);
                bool one = tb.rank == 1 || (rows_sym(&tb) == DIM_const && tb.dim[0].n == 1);
                key_word(c->k, "ARG_B", b);
                key_word(c->k, "STRIDE_B", one ? "0" : "N");
        }
}
static void sel_add(Ctx *c)
{
        elementwise(c, "1", "2", S_b);
}
static void sel_mul(Ctx *c)
{
        elementwise(c, "1", "2", S_b);
}
static void sel_glu(Ctx *c)
{
        elementwise(c, "1", "2", S_up);
}
static void sel_scale(Ctx *c)
{
        elementwise(c, "1", NULL, S_x);
}
static void sel_slice(Ctx *c)
{
        key_int(c->k, "K", sel_last(c, S_x));
}
static void sel_concat(Ctx *c)
{
        key_int(c->k, "NA", sel_last(c, S_a));
        key_int(c->k, "NB", sel_last(c, S_b));
}
static void sel_rmsnorm(Ctx *c)
{
        key_int(c->k, "K", sel_last(c, S_x));
}
static void sel_quantize(Ctx *c)
{
        key_int(c->k, "K", sel_last(c, S_x));
        fact_rows(c, S_x);
}
static void sel_matmul(Ctx *c)
{
        i64 at = 0;
        key_int(c->k, "K", sel_last(c, S_x));
        key_int(c->k, "NW", c->n->nout);
        fact_rows(c, S_x);
        for (u32 i = 0; i < c->n->nout; i++) {
                i64 n = dim_last(&sel_result(c, i)->type);
                key_fmt(c->k, arena_fmt(c->k->arena, "%lld", (long long)n), "N%u", i);
                key_fmt(c->k, arena_fmt(c->k->arena, "%lld", (long long)at), "START%u", i);
                at += sel_tiles(n, c->rows);
                key_fmt(c->k, arena_fmt(c->k->arena, "%lld", (long long)at), "END%u", i);
        }
}
static void sel_headmul(Ctx *c)
{
        key_int(c->k, "HEADS", sel_dim(c, S_w, 0));
        key_int(c->k, "N", sel_dim(c, S_w, 1));
        key_int(c->k, "K", sel_dim(c, S_w, 2));
}
static void sel_rope(Ctx *c)
{
        key_int(c->k, "K", sel_last(c, S_x));
        facts_rope(c);
}
static void sel_kv_append(Ctx *c)
{
        facts_cache(c);
        facts_rope(c);
        key_int(c->k, "DV", sel_state(c)->dv);
}
static void sel_attend(Ctx *c)
{
        const State *st = sel_state(c);
        i64 dv = attr_i(c->n, A_dv) ? attr_i(c->n, A_dv) : st->dv;
        facts_cache(c);
        facts_rope(c);
        key_int(c->k, "HEADS", attr_i(c->n, A_heads));
        key_int(c->k, "DV", dv);
}
static void sel_route(Ctx *c)
{
        bool product = in_get(c->n, S_w) != REF_NONE;
        key_int(c->k, "E", product ? sel_dim(c, S_w, 0) : sel_last(c, S_x));
        if (product)
                key_int(c->k, "K", sel_last(c, S_x));
}
static void sel_sort(Ctx *c)
{
        key_int(c->k, "KTOP", sel_last(c, S_route));
}
static void facts_experts(Ctx *c, Slot w)
{
        key_int(c->k, "E", sel_dim(c, w, 0));
        key_int(c->k, "KTOP", sel_last(c, S_route));
}
static void sel_experts_up(Ctx *c)
{
        facts_experts(c, S_gate);
        key_int(c->k, "K", sel_dim(c, S_gate, 2));
        key_int(c->k, "F", sel_dim(c, S_gate, 1));
}
static void sel_experts_down(Ctx *c)
{
        facts_experts(c, S_down);
        key_int(c->k, "H", sel_dim(c, S_down, 1));
        key_int(c->k, "F", sel_dim(c, S_down, 2));
}
static void sel_experts(Ctx *c)
{
        err(MOEC_UNSUPPORTED, "graph %s: experts has no kernel of its own: run the pass `experts`",
                c->g->name);
}

static void (*const sel_op[N_OP])(Ctx *) = {
#define O(name, slots, attrs, results) [OP_##name] = sel_##name,
        OPS(O)
#undef O
};

/* ---- what all have in common ---- */

static void arg(Ctx *c, u32 kind, Ref ref, u32 slot)
{
        if (c->s->n_arg == MAX_ARG)
                die("%s: more than %d arguments", c->k->op, MAX_ARG);
        c->s->arg[c->s->n_arg++] = (struct SelArg){kind, ref, slot, false};
}

static void fact_arg(Ctx *c, const char *slot)
{
        key_fmt(c->k, arena_fmt(c->k->arena, "%u", c->s->n_arg), "ARG_%s", slot);
}

static void operand(Ctx *c, Slot slot, const char *name, Ref r)
{
        Vtype t = ref_type(c->g, r);
        bool kv = ref_kind(r) == R_STATE || (ref_kind(r) == R_VAL && t.dt == D_kv);
        fact_arg(c, name);
        if (kv) {
                Ref st = ref_state(c->g, r);
                arg(c, PLAN_K, st, slot);
                fact_arg(c, "kvv");
                arg(c, c->g->state[ref_idx(st)].dv ? PLAN_V : PLAN_K, st, slot);
        } else if (ref_kind(r) == R_WEIGHT) {
                key_fmt(c->k, wtype_info[c->g->weight[ref_idx(r)].type].name, "TYPE_%s", name);
                arg(c, PLAN_W, r, slot);
        } else if (ref_kind(r) == R_INPUT) {
                arg(c, PLAN_INPUT, r, slot);
        } else {
                key_fmt(c->k, dtype_info[t.dt].name, "TYPE_%s", name);
                arg(c, PLAN_BUF, r, slot);
        }
}

static void operands(Ctx *c)
{
        const OpInfo *op = op_info(c->n->op);
        for (u32 i = 0; i < c->n->nout; i++)
                if (sel_result(c, i)->type.dt != D_kv) {
                        key_fmt(c->k, arena_fmt(c->k->arena, "%u", c->s->n_arg), "ARG_out%u", i);
                        arg(c, PLAN_BUF, REF(R_VAL, c->n->out + i), N_SLOT);
                }
        for (u32 i = 0; i < op->n_slot; i++) {
                Slot s = op->slot[i].slot;
                bool many = op->slot[i].arity == ARITY_plus || op->slot[i].arity == ARITY_star;
                for (u32 j = 0; j < in_count(c->n, s); j++) {
                        char name[32];
                        snprintf(name, sizeof name, many ? "%s%u" : "%s", slot_name[s], j);
                        operand(c, s, name, in_nth(c->n, s, j));
                }
        }
}

static void attrs(Ctx *c)
{
        for (u32 i = 0; i < N_ATTR; i++) {
                if (i == A_layer || !op_info(c->n->op)->attr[i])
                        continue;
                const AttrInfo *a = &attr_info[i];
                if (a->kind == ATTR_INT)
                        key_int(c->k, a->name, attr_i(c->n, (Attr)i));
                else if (a->kind == ATTR_FLT)
                        key_flt(c->k, a->name, attr_f(c->n, (Attr)i));
                else
                        key_word(c->k, a->name, a->word[attr_i(c->n, (Attr)i)]);
        }
}

bool select_node(Arena *a, const Graph *g, u32 node, Target target, const Tab *tune, bool early, Sel *s)
{
        static const SelTarget *const of[N_TARGET] = {[TARGET_cpu] = &sel_cpu, [TARGET_cuda] = &sel_cuda};
        const SelTarget *t = of[target];
        Ctx c = {.g = g, .n = &g->node[node], .s = s, .early = early};
        if (c.n->op == OP_dead)
                return false;
        memset(s, 0, sizeof *s);
        s->key = c.k = key_new(a, op_info(c.n->op)->name);
        c.tune = tune ? tab_tab(tune, c.k->op) : NULL;
        for (u32 i = 0; i < 3; i++)
                sel_grid(&c, i, DIM_const, 1, 1);
        operands(&c);
        attrs(&c);
        t->begin(&c);
        sel_op[c.n->op](&c);
        t->grid[c.n->op](&c);
        key_done(c.k);
        return true;
}
