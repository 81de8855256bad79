#include "codegen/emit.h"
#include "codegen/select_graph.h"
#include <string.h>
#include "passes/passes.h"

struct Emit {
        Arena *arena;
        const EmitIn *in;
        Sel **sel;  /* [phase][node] */
        u32 **kern; /* [phase][node]: index into key */
        Key **key;
        Sel *kernel; /* by key: one that has it */
        u32 n_key, cap_key, cap_kernel;
        EmitWeight *weight; /* in the plan's order */
        u64 wdata;
        u32 n_weight, cap_weight;
        PlanUtil util[N_PLAN_ROLE];
        u32 n_util;
        PlanWriter w;
};

/* ---- selecting ---- */

static u32 key_index(Emit *m, const Sel *s)
{
        Key *k = s->key;
        for (u32 i = 0; i < m->n_key; i++)
                if (!strcmp(m->key[i]->text, k->text))
                        return i;
        for (u32 i = 0; i < m->n_key; i++)
                if (!strcmp(m->key[i]->name, k->name))
                        die("two kernels are called %s", k->name);
        GROW(m->arena, m->key, m->n_key, m->cap_key);
        GROW(m->arena, m->kernel, m->n_key, m->cap_kernel);
        m->key[m->n_key] = k;
        m->kernel[m->n_key] = *s;
        return m->n_key++;
}

Emit *emit_new(Arena *a, const EmitIn *in)
{
        Emit *m = NEW(a, Emit);
        m->arena = a;
        m->in = in;
        m->sel = NEWN(a, Sel *, in->n_phase);
        m->kern = NEWN(a, u32 *, in->n_phase);
        for (u32 r = 0; r < N_PLAN_ROLE; r++) {
                Sel s;
                if (select_util(a, (PlanRole)r, in->kind, &s))
                        m->util[m->n_util++] = (PlanUtil){r, key_index(m, &s)};
        }
        for (u32 p = 0; p < in->n_phase; p++) {
                const Graph *g = in->phase[p].g;
                m->sel[p] = NEWN(a, Sel, g->n_node);
                m->kern[p] = NEWN(a, u32, g->n_node);
                select_graph(a, g, in->kind, in->tune, m->sel[p]);
                for (u32 i = 0; i < g->n_node; i++)
                        if (m->sel[p][i].key)
                                m->kern[p][i] = key_index(m, &m->sel[p][i]);
        }
        return m;
}

u32 emit_keys(const Emit *m, Key *const **key)
{
        *key = m->key;
        return m->n_key;
}

const Sel *emit_sel(const Emit *m, u32 phase, u32 node)
{
        return m->sel[phase][node].key ? &m->sel[phase][node] : NULL;
}

/* ---- weights and states ---- */

static const EmitTensor *tensor_find(const EmitIn *in, const char *name)
{
        for (u32 i = 0; i < in->n_tensor; i++)
                if (!strcmp(in->tensor[i].name, name))
                        return &in->tensor[i];
        die("a graph's weight %s is no tensor of the file", name);
}

static u64 weight_bytes(const Weight *w)
{
        u64 bytes = plan_weight_bytes((u32)w->type, (u32)w->layout, w->rank, w->dim);
        if (!bytes)
                err(MOEC_UNSUPPORTED, "weight %s: no such layout of these dimensions", w->tensor);
        return bytes;
}

static u32 weight_index(Emit *m, const Weight *w)
{
        for (u32 i = 0; i < m->n_weight; i++)
                if (m->weight[i].weight->layout == w->layout && !strcmp(m->weight[i].tensor->name, w->tensor))
                        return i;
        const EmitTensor *t = tensor_find(m->in, w->tensor);
        PlanWeight p = {.name = plan_add_str(&m->w, w->tensor),
                .type = (u32)w->type,
                .layout = (u32)w->layout,
                .rank = w->rank,
                .dim = {1, 1, 1, 1},
                .part = t->part,
                .src = t->offset,
                .src_bytes = t->bytes,
                .dst_bytes = weight_bytes(w),
                .embedded = UINT64_MAX};
        for (u32 i = 0; i < w->rank; i++)
                p.dim[i] = w->dim[i];
        GROW(m->arena, m->weight, m->n_weight, m->cap_weight);
        m->weight[m->n_weight++] = (EmitWeight){t, w, m->wdata, p.dst_bytes};
        if (m->in->embed) {
                p.embedded = m->wdata;
                m->wdata += (p.dst_bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
        }
        return plan_add(&m->w, PLAN_WEIGHT, &p, sizeof p);
}

static void put_states(Emit *m)
{
        const Graph *g = m->in->phase[0].g;
        for (u32 i = 0; i < g->n_state; i++) {
                const State *s = &g->state[i];
                PlanState p = {plan_add_str(&m->w, s->name), (u32)s->heads, (u32)s->dk, (u32)s->dv,
                        (u32)s->ktype, (u32)s->vtype};
                plan_add(&m->w, PLAN_STATE, &p, sizeof p);
        }
}

/* The same state in another phase's graph. */
static u32 state_index(const Emit *m, const Graph *g, Ref r)
{
        const Graph *first = m->in->phase[0].g;
        const char *name = g->state[ref_idx(r)].name;
        for (u32 i = 0; i < first->n_state; i++)
                if (!strcmp(first->state[i].name, name))
                        return i;
        die("phase %s has a state %s that phase %s lacks", g->name, name, first->name);
}

/* ---- what a launch reads and writes, for profiles ---- */

static void add_weight(PlanLaunch *l, const Graph *g, const Node *n, const Weight *w)
{
        u64 bytes = weight_bytes(w);
        if (n->op == OP_embed)
                l->bytes_tok += bytes / w->dim[0];
        else if ((n->op == OP_experts_up || n->op == OP_experts_down) && w->rank == 3) {
                l->bytes_expert += bytes / w->dim[0];
                l->n_expert = (u32)w->dim[0];
                l->n_used = (u32)ref_type(g, in_get(n, S_route)).dim[1].n;
        } else
                l->bytes_fixed += bytes;
}

static void add_value(PlanLaunch *l, const Graph *g, const Node *n, u32 value)
{
        DimSym rows = g->val[value].type.dim[0].sym == DIM_n_out ? DIM_n_out : DIM_n_tok;
        u64 each = value_bytes(g, value) / MAX(g->max[rows], 1);
        if (rows == DIM_n_out || n->op == OP_rows)
                l->bytes_out += each;
        else
                l->bytes_tok += each;
}

static void count_bytes(PlanLaunch *l, const Graph *g, const Node *n, const Sel *s)
{
        for (u32 i = 0; i < s->n_arg; i++) {
                Ref r = s->arg[i].ref;
                if (s->arg[i].kind == PLAN_W)
                        add_weight(l, g, n, &g->weight[ref_idx(r)]);
                else if (s->arg[i].kind == PLAN_BUF)
                        add_value(l, g, n, ref_idx(r));
        }
        if (n->op == OP_attend) {
                const State *st = &g->state[ref_idx(ref_state(g, in_get(n, S_kv)))];
                l->bytes_ctx = (u64)st->heads *
                               (kv_row_bytes(st->ktype, (u64)st->dk) + kv_row_bytes(st->vtype, (u64)st->dv));
        }
}

/* ---- launches ---- */

static PlanArg plan_arg(Emit *m, const Graph *g, const struct SelArg *s)
{
        PlanArg a = {.kind = s->kind};
        if (s->kind == PLAN_W)
                a.index = weight_index(m, &g->weight[ref_idx(s->ref)]);
        else if (s->kind == PLAN_INPUT)
                a.index = ref_idx(s->ref);
        else if (s->kind == PLAN_K || s->kind == PLAN_V)
                a.index = state_index(m, g, s->ref);
        else
                a.value = g->val[ref_idx(s->ref)].offset;
        return a;
}

static void put_launch(Emit *m, u32 phase, u32 node)
{
        const Graph *g = m->in->phase[phase].g;
        const Node *n = &g->node[node];
        const Sel *s = emit_sel(m, phase, node);
        PlanLaunch l = {
                .kernel = m->kern[phase][node], .node = node, .n_arg = s->n_arg, .trigger = s->trigger};
        const char *label = launch_label(m->arena, n);
        l.label = plan_add_str(&m->w, label);
        l.arg = (u32)(m->w.section[PLAN_ARG].len / sizeof(PlanArg));
        for (u32 i = 0; i < s->n_arg; i++) {
                PlanArg a = plan_arg(m, g, &s->arg[i]);
                plan_add(&m->w, PLAN_ARG, &a, sizeof a);
                if (s->arg[i].early && i >= 32)
                        die("%s: argument %u is read early: the plan has 32 bits for that", label, i);
                if (s->arg[i].early)
                        l.early |= 1u << i;
        }
        memcpy(l.dim, s->dim, sizeof l.dim);
        memcpy(l.mul, s->mul, sizeof l.mul);
        memcpy(l.div, s->div, sizeof l.div);
        count_bytes(&l, g, n, s);
        plan_add(&m->w, PLAN_LAUNCH, &l, sizeof l);
}

static u64 put_phases(Emit *m)
{
        u64 arena = 0;
        for (u32 p = 0; p < m->in->n_phase; p++) {
                const EmitPhase *e = &m->in->phase[p];
                const Graph *g = e->g;
                PlanPhase ph = {.name = plan_add_str(&m->w, g->name),
                        .max_tok = e->max_tok,
                        .max_out = e->max_out,
                        .max_seq_tok = g->max_seq_tok ? (u32)g->max_seq_tok : e->max_tok,
                        .launch = (u32)(m->w.section[PLAN_LAUNCH].len / sizeof(PlanLaunch)),
                        .arena_bytes = g->arena_bytes,
                        .logits = g->val[ref_idx(g->ret[0])].offset};
                for (u32 i = 0; i < g->n_node; i++)
                        if (emit_sel(m, p, i)) {
                                put_launch(m, p, i);
                                ph.n_launch++;
                        }
                plan_add(&m->w, PLAN_PHASE, &ph, sizeof ph);
                arena = MAX(arena, g->arena_bytes);
        }
        return arena;
}

/* ---- the rest ---- */

static void put_kernels(Emit *m, u32 each, const char *const source[])
{
        for (u32 i = 0; i < m->n_key; i++) {
                PlanKernel k = {.name = plan_add_str(&m->w, m->key[i]->name),
                        .key = plan_add_str(&m->w, m->key[i]->text),
                        .image = i * each,
                        .threads = m->kernel[i].threads,
                        .flags = m->kernel[i].flags};
                k.source = m->w.section[PLAN_SOURCE].len;
                k.source_bytes = strlen(source[i]);
                buf_add(&m->w.section[PLAN_SOURCE], source[i], k.source_bytes);
                plan_add(&m->w, PLAN_KERNEL, &k, sizeof k);
        }
        for (u32 i = 0; i < m->n_util; i++)
                plan_add(&m->w, PLAN_UTIL, &m->util[i], sizeof m->util[i]);
}

static void put_code(Emit *m, const Image *image, u32 n)
{
        u64 count = n, at = sizeof count + n * sizeof(PlanImage);
        Buf *b = &m->w.section[PLAN_CODE];
        buf_add(b, &count, sizeof count);
        for (u32 i = 0; i < n; i++) {
                at = (at + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
                PlanImage p = {plan_add_str(&m->w, image[i].arch), image[i].kind, at, image[i].bytes};
                buf_add(b, &p, sizeof p);
                at += image[i].bytes;
        }
        for (u32 i = 0; i < n; i++) {
                while (b->len % PLAN_ALIGN)
                        buf_char(b, 0);
                buf_add(b, image[i].p, image[i].bytes);
        }
}

static void put_meta(Emit *m, u64 arena)
{
        const EmitIn *in = m->in;
        PlanMeta meta = in->meta;
        const Graph *g = in->phase[0].g;
        meta.arch = plan_add_str(&m->w, in->arch);
        meta.name = plan_add_str(&m->w, in->name);
        meta.target = plan_add_str(&m->w, in->target);
        meta.isa = plan_add_str(&m->w, in->isa);
        meta.compiler = plan_add_str(&m->w, in->compiler);
        meta.n_kernel = m->n_key;
        meta.n_launch_decode = ((const PlanPhase *)(const void *)m->w.section[PLAN_PHASE].p)->n_launch;
        meta.n_vocab = (u32)dim_last(&g->val[ref_idx(g->ret[0])].type);
        meta.arena_bytes = arena;
        plan_add(&m->w, PLAN_META, &meta, sizeof meta);
        for (u32 i = 0; i < in->n_part; i++) {
                PlanPart p = in->part[i];
                p.path = plan_add_str(&m->w, in->part_path[i]);
                plan_add(&m->w, PLAN_PART, &p, sizeof p);
        }
        if (in->token)
                buf_add(&m->w.section[PLAN_TOKEN], in->token, in->n_token);
}

u32 emit_weights(const Emit *m, const EmitWeight **w)
{
        *w = m->weight;
        return m->n_weight;
}

void emit_plan(Emit *m, const Image *image, u32 n_image, u32 each, const char *const source[], Buf *out)
{
        put_states(m);
        u64 arena = put_phases(m);
        put_kernels(m, each, source);
        put_code(m, image, n_image);
        put_meta(m, arena);
        plan_finish(&m->w, out);
        plan_writer_free(&m->w);
}
