#include "frontend/model.h"
#include "frontend/build.h"
#include "frontend/lua.h"
#include "runtime/token.h"
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

/* Keys that describe a model whose architecture may be unknown: nothing about them is an error yet. */
typedef struct Soft {
        const Gguf *gguf;
        const char *key;
        u64 max, u;
        GgufStr s;
} Soft;

static void soft_ask_u64(Soft *q)
{
        if (!gguf_u64(q->gguf, q->key, 0, q->max, &q->u))
                q->u = 0;
}

static void soft_ask_str(Soft *q)
{
        if (!gguf_str(q->gguf, q->key, &q->s))
                q->s = (GgufStr){NULL, 0};
}

/* False: the key is not as it should be. */
static bool soft(void (*ask)(Soft *), Soft *q)
{
        Trap t;
        if (TRAP(&t) != 0)
                return false;
        ask(q);
        trap_pop(&t);
        return true;
}

static u64 soft_u64(const Model *m, const char *key, u64 max)
{
        Soft q = {.gguf = m->gguf, .max = max};
        if (!m->arch)
                return 0;
        q.key = arena_fmt(m->arena, "%s.%s", m->arch, key);
        return soft(soft_ask_u64, &q) ? q.u : 0;
}

static const char *soft_str(const Model *m, const char *key)
{
        Soft q = {.gguf = m->gguf, .key = key};
        return soft(soft_ask_str, &q) && q.s.p ? arena_strn(m->arena, q.s.p, q.s.n) : NULL;
}

static bool is_name(const char *s)
{
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
        return n > 0 && n <= 64 && !s[n];
}

static bool has_tokenizer(const Model *m)
{
        const char *kind = soft_str(m, "tokenizer.ggml.model");
        return kind && strcmp(kind, "none") != 0 && strcmp(kind, "no_vocab") != 0;
}

static u64 soft_vocab(const Model *m)
{
        const GgufKey *k = gguf_key(m->gguf, "tokenizer.ggml.tokens");
        const GgufTensor *t = gguf_tensor(m->gguf, "token_embd.weight");
        if (k && k->type == GGUF_array)
                return k->n;
        return t && t->n_dim == 2 ? t->dim[0] : 0;
}

static void fill_info(Model *m)
{
        ModelInfo *i = &m->info;
        i->n_vocab = soft_vocab(m);
        i->n_ctx_train = soft_u64(m, "context_length", 1u << 30);
        i->n_layer = soft_u64(m, "block_count", 1u << 16);
        i->n_embd = soft_u64(m, "embedding_length", 1u << 30);
        i->n_expert = soft_u64(m, "expert_count", 1u << 16);
        i->n_expert_used = soft_u64(m, "expert_used_count", 1u << 16);
        i->is_shape = gguf_is_shape(m->gguf);
        i->has_tokenizer = has_tokenizer(m);
        for (u32 k = 0; k < gguf_n_tensors(m->gguf); k++) {
                const GgufTensor *t = gguf_tensor_at(m->gguf, k);
                if (!add_u64(i->n_params, t->n, &i->n_params) ||
                        !add_u64(i->weight_bytes, t->bytes, &i->weight_bytes))
                        err(MOEC_DAMAGED, "%s: its tensors have more values than can be counted", m->path);
        }
}

/* ---- what a token reads ---- */

/* The weight behind an operand, REF_NONE: none. */
static Ref weight_of(const Graph *g, Ref r)
{
        const Node *n = ref_node(g, r);
        if (n && n->op == OP_dequant)
                r = in_get(n, S_w);
        return ref_kind(r) == R_WEIGHT ? r : REF_NONE;
}

/* Of a weight's `of` rows (dim[0]) one token uses `rows`. */
static void rows_read(const Graph *g, const Node *n, Slot slot, const Weight *w, u64 *rows, u64 *of)
{
        bool per_expert = slot == S_gate || slot == S_up || slot == S_down || slot == S_gate_b ||
                          slot == S_up_b || slot == S_down_b;
        Ref route = in_get(n, S_route);
        *of = w->dim[0];
        *rows = w->dim[0];
        if (n->op == OP_embed && slot == S_w)
                *rows = 1;
        else if (route != REF_NONE && per_expert) {
                Vtype t = ref_type(g, route);
                *rows = MIN((u64)dim_last(&t), *of);
        }
}

static void fill_read(Model *m)
{
        const Graph *g = m->graph;
        u64 *bytes = NEWN(m->arena, u64, g->n_weight);
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                for (u32 k = 0; n->op != OP_dequant && k < n->nin; k++) {
                        Ref r = weight_of(g, n->in[k].ref);
                        if (!r)
                                continue;
                        const Weight *w = &g->weight[ref_idx(r)];
                        const GgufTensor *t = gguf_tensor(m->gguf, w->tensor);
                        u64 rows, of;
                        rows_read(g, n, n->in[k].slot, w, &rows, &of);
                        bytes[ref_idx(r)] += t->bytes / of * rows;
                        m->info.token_params += t->n / of * rows;
                }
        }
        for (u32 i = 0; i < gguf_n_tensors(m->gguf); i++) {
                Ref r;
                const char *name = gguf_tensor_at(m->gguf, i)->name;
                if (graph_find_weight(g, name, strlen(name), &r)) {
                        m->read[i] = bytes[ref_idx(r)];
                        m->info.token_bytes += m->read[i];
                }
        }
}

static void try_graph(Model *m)
{
        Trap t;
        if (TRAP(&t) == 0) {
                m->graph = model_graph(m, m->arena, D_f16, D_f16);
                trap_pop(&t);
        } else if (t.error.status == MOEC_NO_MEMORY)
                err_rethrow(&t.error);
        else
                m->why = t.error;
        if (m->graph)
                fill_read(m);
}

void model_open(Model *m, Arena *a, const char *path, const char *templates)
{
        *m = (Model){.arena = a, .path = arena_str(a, path), .gguf = gguf_new(a)};
        m->templates = templates ? arena_str(a, templates) : NULL;
        gguf_read(m->gguf, path);
        m->arch = soft_str(m, "general.architecture");
        if (m->arch && !is_name(m->arch))
                m->arch = NULL;
        m->name = soft_str(m, "general.name");
        if (!m->name)
                m->name = "";
        if (m->arch)
                m->type = arch_find(a, m->templates, m->arch);
        m->read = NEWN(a, u64, gguf_n_tensors(m->gguf));
        fill_info(m);
        try_graph(m);
}

void model_close(Model *m)
{
        if (m->gguf)
                gguf_close(m->gguf);
        m->gguf = NULL;
}

/* ---- the graph ---- */

static void ignore(const Model *m, Build *b)
{
        const Tab *list = tab_tab(m->type->tab, "ignore");
        for (u32 i = 0; list && i < list->n; i++)
                build_ignore(b, tab_str_at(list, i));
}

Graph *model_graph(const Model *m, Arena *a, Dtype ktype, Dtype vtype)
{
        if (!m->arch)
                err(MOEC_UNSUPPORTED, "%s does not name its architecture (key general.architecture)",
                        m->path);
        if (!m->type)
                err(MOEC_UNSUPPORTED, "%s: architecture %s is not supported; these are: %s", m->path, m->arch,
                        arch_list(a, m->templates));
        Build *b = build_new(a, m->gguf, m->arch, ktype, vtype);
        if (!b->n_vocab)
                err(MOEC_DAMAGED,
                        "%s: neither tokenizer.ggml.tokens nor a matrix token_embd.weight tells the size of "
                        "the vocabulary",
                        m->path);
        lua_build(b, m->type->file.name, m->type->file.text, m->type->file.len);
        ignore(m, b);
        build_finish(b);
        check(b->g);
        return b->g;
}

/* ---- memory ---- */

static u64 value_bytes(const Vtype *t, const u64 at[N_DIM])
{
        u64 n = 1;
        for (u32 i = 0; i < t->rank; i++)
                n *= dim_at(t->dim[i], at);
        switch (t->dt) {
        case D_kv:
                return 0;
        case D_q8:
                return n + n / Q8_BLOCK * sizeof(float);
        case D_order:
                return n * 2 * sizeof(u32);
        default:
                return n * dtype_info[t->dt].bytes;
        }
}

/* The most that is alive at once, were every buffer given back after its last use. */
static u64 scratch(const Graph *g, Arena *a, u64 n_tok)
{
        u64 at[N_DIM] = {[DIM_n_tok] = n_tok, [DIM_n_out] = 1, [DIM_n_seq] = 1}, now = 0, most = 0;
        u32 *last = NEWN(a, u32, g->n_val);
        for (u32 i = 0; i < g->n_node; i++)
                for (u32 k = 0; k < g->node[i].nin; k++)
                        if (ref_kind(g->node[i].in[k].ref) == R_VAL)
                                last[ref_idx(g->node[i].in[k].ref)] = i;
        for (u32 i = 0; i < g->n_node; i++) {
                const Node *n = &g->node[i];
                if (n->op == OP_dequant) /* never stored: a pass fuses it into the product */
                        continue;
                for (u32 k = 0; k < n->nout; k++)
                        now += value_bytes(&g->val[n->out + k].type, at);
                most = MAX(most, now);
                for (u32 k = 0; k < n->nin; k++) {
                        Ref r = n->in[k].ref;
                        const Node *from = ref_node(g, r);
                        if (!from || from->op == OP_dequant || last[ref_idx(r)] != i)
                                continue;
                        now -= value_bytes(&g->val[ref_idx(r)].type, at);
                        last[ref_idx(r)] = UINT32_MAX; /* an operand may be named twice */
                }
        }
        return most;
}

static u64 scratch_of(const Graph *g, u64 n_tok)
{
        Arena *a = arena_new();
        Trap t;
        if (TRAP(&t) == 0) {
                u64 bytes = scratch(g, a, n_tok);
                trap_pop(&t);
                arena_free(a);
                return bytes;
        }
        arena_free(a);
        err_rethrow(&t.error);
}

static u64 sat_mul(u64 a, u64 b)
{
        u64 out = UINT64_MAX;
        return mul_u64(a, b, &out) ? out : UINT64_MAX;
}

static u64 sat_add(u64 a, u64 b)
{
        u64 out = UINT64_MAX;
        return add_u64(a, b, &out) ? out : UINT64_MAX;
}

/* Bytes of a position in all states: as the states say, or as q8_0; 0 where heads are not whole blocks. */
static u64 kv_position(const Graph *g, bool q8_0)
{
        u64 sum = 0;
        for (u32 i = 0; i < g->n_state; i++) {
                const State *s = &g->state[i];
                if (q8_0 && (s->dk % KV_BLOCK || s->dv % KV_BLOCK))
                        return 0;
                u64 k = kv_row_bytes(q8_0 ? D_q8_0 : s->ktype, (u64)s->dk),
                    v = kv_row_bytes(q8_0 ? D_q8_0 : s->vtype, (u64)s->dv);
                sum = sat_add(sum, sat_mul((u64)s->heads, k + v));
        }
        return sum;
}

ModelMemory model_memory(const Model *m, u64 n_ctx, u64 n_tok)
{
        ModelMemory mem = {.weights = m->info.weight_bytes};
        if (m->graph) {
                mem.kv = sat_mul(kv_position(m->graph, false), n_ctx);
                mem.kv_q8_0 = sat_mul(kv_position(m->graph, true), n_ctx);
                mem.scratch = scratch_of(m->graph, n_tok);
        }
        mem.total = sat_add(mem.weights, sat_add(mem.kv, mem.scratch));
        return mem;
}

/* ---- the tokenizer ---- */

static TokenText text_of(const Model *m, const char *key)
{
        GgufStr s;
        if (!gguf_str(m->gguf, key, &s))
                return (TokenText){NULL, 0};
        return (TokenText){s.p, s.n};
}

static TokenText *texts_of(const Model *m, Arena *a, const char *key, u64 *n)
{
        const GgufKey *k = gguf_arr(m->gguf, key, GGUF_STRINGS, 0, UINT32_MAX);
        TokenText *t = k ? NEWN(a, TokenText, k->n) : NULL;
        *n = k ? k->n : 0;
        for (u64 i = 0; i < *n; i++) {
                GgufStr s = gguf_elem_str(k, i);
                t[i] = (TokenText){s.p, s.n};
        }
        return t;
}

static i64 id_of(const Model *m, const char *key)
{
        u64 id;
        return gguf_u64(m->gguf, key, 0, UINT32_MAX, &id) ? (i64)id : -1;
}

static TokenSource token_source(const Model *m, Arena *a)
{
        TokenSource s = {
                .model = text_of(m, "tokenizer.ggml.model"), .pre = text_of(m, "tokenizer.ggml.pre")};
        s.token = texts_of(m, a, "tokenizer.ggml.tokens", &s.n_token);
        s.merge = texts_of(m, a, "tokenizer.ggml.merges", &s.n_merge);
        const GgufKey *types = gguf_arr(m->gguf, "tokenizer.ggml.token_type", GGUF_INTS, 0, UINT32_MAX);
        if (types) {
                i32 *type = NEWN(a, i32, types->n);
                for (u64 i = 0; i < types->n; i++)
                        type[i] = (i32)gguf_elem_u64(m->gguf, types, i, 0, N_TOKEN_TYPE - 1);
                s.type = type;
                s.n_type = types->n;
        }
        s.bos = id_of(m, "tokenizer.ggml.bos_token_id");
        s.eos = id_of(m, "tokenizer.ggml.eos_token_id");
        s.eot = id_of(m, "tokenizer.ggml.eot_token_id");
        s.eom = id_of(m, "tokenizer.ggml.eom_token_id");
        bool add_bos;
        s.add_bos = gguf_bool(m->gguf, "tokenizer.ggml.add_bos_token", &add_bos) ? add_bos : -1;
        return s;
}

static void build_blob(const Model *m, Arena *a, Buf *out)
{
        TokenSource s = token_source(m, a);
        void *blob;
        size_t size;
        moec_error e;
        if (token_build(&s, &blob, &size, &e) != MOEC_OK)
                err(e.status, "%s: %s", m->path, e.msg);
        Trap t;
        if (TRAP(&t) == 0) {
                buf_add(out, blob, size);
                trap_pop(&t);
                free(blob);
        } else {
                free(blob);
                err_rethrow(&t.error);
        }
}

bool model_token(const Model *m, Buf *out)
{
        if (!m->info.has_tokenizer)
                return false;
        Arena *a = arena_new(); /* the arrays of strings, gone once the blob is built */
        Trap t;
        if (TRAP(&t) == 0) {
                build_blob(m, a, out);
                trap_pop(&t);
                arena_free(a);
                return true;
        }
        arena_free(a);
        err_rethrow(&t.error);
}

/* ---- roles ---- */

static const struct {
        const char *pattern, *role;
} usual[] = {
        {"token_embd.weight", "token embedding"},
        {"output.weight", "output"},
        {"output_norm.weight", "norms"},
        {"blk.*.attn_norm.weight", "norms"},
        {"blk.*.attn_q_norm.weight", "norms"},
        {"blk.*.attn_k_norm.weight", "norms"},
        {"blk.*.ffn_norm.weight", "norms"},
        {"blk.*.post_attention_norm.weight", "norms"},
        {"blk.*.attn_q.weight", "attention"},
        {"blk.*.attn_k.weight", "attention"},
        {"blk.*.attn_v.weight", "attention"},
        {"blk.*.attn_qkv.weight", "attention"},
        {"blk.*.attn_output.weight", "attention"},
        {"blk.*.ffn_gate_inp.weight", "router"},
        {"blk.*.ffn_gate_exps.weight", "experts"},
        {"blk.*.ffn_up_exps.weight", "experts"},
        {"blk.*.ffn_down_exps.weight", "experts"},
        {"blk.*.ffn_gate_shexp.weight", "shared experts"},
        {"blk.*.ffn_up_shexp.weight", "shared experts"},
        {"blk.*.ffn_down_shexp.weight", "shared experts"},
        {"blk.*.ffn_gate.weight", "dense feed-forward"},
        {"blk.*.ffn_up.weight", "dense feed-forward"},
        {"blk.*.ffn_down.weight", "dense feed-forward"},
};

const char *model_role(const Model *m, const char *tensor)
{
        const Tab *own = m->type ? tab_tab(m->type->tab, "roles") : NULL;
        for (u32 i = 0; own && i < own->n; i++) {
                const Tab *row = tab_tab_at(own, i);
                if (build_match(tab_str_at(row, 0), tensor))
                        return tab_str_at(row, 1);
        }
        for (size_t i = 0; i < COUNT(usual); i++)
                if (build_match(usual[i].pattern, tensor))
                        return usual[i].role;
        return "other";
}
