#include "tests/lib/randgraph.h"

typedef struct Model {
        Rand r;
        Graph *g;
        i64 width, vocab, layer;
        bool fused;
        Dtype ktype, vtype;
        Aval rope[N_ATTR]; /* the attributes of every rotation */
} Model;

static u32 begin(Model *m, Op op)
{
        u32 n = node_new(m->g, op);
        node_int(m->g, n, A_layer, m->layer);
        return n;
}

static Ref weight(Model *m, const char *what, u32 rank, const u64 *dim, Wtype t, const void *data)
{
        char name[64];
        if (m->layer < 0)
                snprintf(name, sizeof name, "%s.weight", what);
        else
                snprintf(name, sizeof name, "blk.%lld.%s.weight", (long long)m->layer, what);
        return graph_weight(m->g, name, t, rank, dim, data);
}

/* F32, of values between lo and hi. */
static Ref vector(Model *m, const char *what, i64 n, float lo, float hi)
{
        float *p = NEWN(m->g->arena, float, (size_t)n);
        for (i64 i = 0; i < n; i++)
                p[i] = rand_flt(&m->r, lo, hi);
        return weight(m, what, 1, &(u64){(u64)n}, W_F32, p);
}

static Ref norm_weight(Model *m, const char *what, i64 n)
{
        return vector(m, what, n, 0.5f, 1.5f);
}

/* Of any type whose blocks fit the rows; sometimes through dequant, as a frontend gives it. */
static Ref matrix_of(Model *m, const char *what, u32 rank, const u64 *dim)
{
        Wtype t;
        u64 n = 1;
        do
                t = (Wtype)rand_below(&m->r, N_WTYPE);
        while (dim[rank - 1] % wtype_info[t].per);
        for (u32 i = 0; i < rank; i++)
                n *= dim[i];
        Ref w = weight(m, what, rank, dim, t, rand_weight(m->g->arena, &m->r, t, n));
        if (m->fused ? !rand_one_in(&m->r, 4) : t == W_F32)
                return w;
        u32 d = begin(m, OP_dequant);
        node_in(m->g, d, S_w, w);
        return node_done(m->g, d);
}

static Ref matrix(Model *m, const char *what, i64 out, i64 in)
{
        return matrix_of(m, what, 2, (u64[]){(u64)out, (u64)in});
}

static i64 width_of(const Model *m, Ref x)
{
        Vtype t = ref_type(m->g, x);
        return dim_last(&t);
}

static void random_act(Model *m, u32 n, i64 in)
{
        if (in % Q8_BLOCK == 0 && rand_one_in(&m->r, 2))
                node_int(m->g, n, A_act, ACT_q8);
}

static const float eps = 1e-5f;

static Ref rmsnorm(Model *m, Ref x, const char *what, i64 group)
{
        Ref w = norm_weight(m, what, group ? group : width_of(m, x));
        u32 n = begin(m, OP_rmsnorm);
        node_in(m->g, n, S_x, x);
        node_in(m->g, n, S_w, w);
        node_flt(m->g, n, A_eps, (double)eps);
        node_int(m->g, n, A_group, group);
        return node_done(m->g, n);
}

static Ref add(Model *m, Ref a, Ref b)
{
        u32 n = begin(m, OP_add);
        node_in(m->g, n, S_a, a);
        node_in(m->g, n, S_b, b);
        return node_done(m->g, n);
}

/* The norm that makes x, to be fused: x becomes what is normed. REF_NONE: there is none, or it is left alone.
 */
static Ref take_norm(Model *m, Ref *x)
{
        const Node *n = ref_node(m->g, *x);
        if (!m->fused || n->op != OP_rmsnorm || attr_i(n, A_group) || rand_one_in(&m->r, 2))
                return REF_NONE;
        *x = in_get(n, S_x);
        return in_get(n, S_w);
}

static void in_norm(Model *m, u32 n, Ref norm)
{
        if (!norm)
                return;
        node_in(m->g, n, S_norm, norm);
        node_flt(m->g, n, A_eps, (double)eps);
}

/* x rounded by an operation of its own where the product would round it. */
static Ref quantize(Model *m, Ref x, u32 *product)
{
        Ref norm = take_norm(m, &x);
        u32 n = node_insert(m->g, *product, OP_quantize);
        node_in(m->g, n, S_x, x);
        in_norm(m, n, norm);
        ++*product;
        return node_done(m->g, n);
}

/* Ends a node that multiplies x. */
static Ref product(Model *m, u32 n, Ref x)
{
        bool q8 = attr_i(&m->g->node[n], A_act) == ACT_q8;
        if (m->fused && q8 && rand_one_in(&m->r, 3))
                x = quantize(m, x, &n);
        else if (m->g->node[n].op != OP_headmul)
                in_norm(m, n, take_norm(m, &x));
        node_in(m->g, n, S_x, x);
        return node_done(m->g, n);
}

static Ref matmul(Model *m, Ref x, const char *what, i64 out, bool bias)
{
        char name[48];
        i64 in = width_of(m, x);
        Ref w = matrix(m, what, out, in), b = REF_NONE;
        snprintf(name, sizeof name, "%s_b", what);
        if (bias)
                b = vector(m, name, out, -0.3f, 0.3f);
        u32 n = begin(m, OP_matmul);
        node_in(m->g, n, S_w, w);
        if (bias)
                node_in(m->g, n, S_bias, b);
        random_act(m, n, in);
        return product(m, n, x);
}

/* res + x * W */
static Ref matmul_add(Model *m, Ref res, Ref x, const char *what, i64 out, bool bias)
{
        Ref y = matmul(m, x, what, out, bias);
        u32 n = m->g->val[ref_idx(y)].node;
        if (!m->fused || rand_one_in(&m->r, 2))
                return add(m, res, y);
        node_in(m->g, n, S_res, res);
        return node_done(m->g, n);
}

static Ref slice(Model *m, Ref x, i64 heads, i64 from, i64 to)
{
        u32 n = begin(m, OP_slice);
        node_in(m->g, n, S_x, x);
        node_int(m->g, n, A_heads, heads);
        node_int(m->g, n, A_from, from);
        node_int(m->g, n, A_to, to);
        return node_done(m->g, n);
}

static Ref concat(Model *m, Ref a, Ref b, i64 heads)
{
        u32 n = begin(m, OP_concat);
        node_in(m->g, n, S_a, a);
        node_in(m->g, n, S_b, b);
        node_int(m->g, n, A_heads, heads);
        return node_done(m->g, n);
}

static Ref headmul(Model *m, Ref x, const char *what, i64 heads, i64 out, i64 in)
{
        Ref w = matrix_of(m, what, 3, (u64[]){(u64)heads, (u64)out, (u64)in});
        u32 n = begin(m, OP_headmul);
        node_in(m->g, n, S_w, w);
        random_act(m, n, in);
        return product(m, n, x);
}

/* ---- attention ---- */

static void choose_rope(Model *m)
{
        for (int a = 0; a < N_ATTR; a++)
                m->rope[a] = attr_info[a].def;
        m->rope[A_rstyle].i = rand_one_in(&m->r, 2) ? ROPE_neox : ROPE_norm;
        m->rope[A_rbase].f = rand_one_in(&m->r, 2) ? 10000 : 1e6;
        if (!rand_one_in(&m->r, 4))
                return;
        m->rope[A_rfactor].f = 4;
        m->rope[A_ext].f = 1;
        m->rope[A_octx].i = 64;
        m->rope[A_rattn].f = 1.125;
}

static void rope_attrs(Model *m, u32 n, i64 rdim)
{
        for (int a = 0; a < N_ATTR; a++)
                if (!attr_is_default(&(Node){.attr = m->rope}, (Attr)a))
                        m->g->node[n].attr[a] = m->rope[a];
        node_int(m->g, n, A_rdim, rdim);
}

static Ref rope(Model *m, Ref x, i64 heads, i64 rdim, Ref freqs)
{
        u32 n = begin(m, OP_rope);
        node_in(m->g, n, S_x, x);
        node_in(m->g, n, S_pos, REF(R_INPUT, IN_pos));
        if (freqs)
                node_in(m->g, n, S_freqs, freqs);
        node_int(m->g, n, A_heads, heads);
        rope_attrs(m, n, rdim);
        return node_done(m->g, n);
}

/* Of rows that are whole blocks, half as q8_0. */
static Dtype kept(Model *m, Dtype t, i64 width)
{
        return width && width % KV_BLOCK == 0 && rand_one_in(&m->r, 2) ? D_q8_0 : t;
}

static Ref new_state(Model *m, i64 heads, i64 dk, i64 dv)
{
        char name[32];
        Dtype ktype = kept(m, m->ktype, dk), vtype = kept(m, m->vtype, dv);
        snprintf(name, sizeof name, "kv.%lld", (long long)m->layer);
        return graph_state(m->g, name, heads, dk, dv, ktype, vtype);
}

static Ref kv_append(Model *m, Ref kv, Ref k, Ref v)
{
        u32 n = begin(m, OP_kv_append);
        node_in(m->g, n, S_kv, kv);
        node_in(m->g, n, S_k, k);
        if (v)
                node_in(m->g, n, S_v, v);
        node_in(m->g, n, S_pos, REF(R_INPUT, IN_pos));
        node_in(m->g, n, S_seq, REF(R_INPUT, IN_seq));
        return node_done(m->g, n);
}

/* An attend without its fused parts; the caller adds some and ends it. */
static u32 attend(Model *m, Ref q, Ref kv, i64 heads, i64 dv, double scale)
{
        Ref sinks = rand_one_in(&m->r, 4) ? vector(m, "attn_sinks", heads, -1, 1) : REF_NONE;
        u32 n = begin(m, OP_attend);
        node_in(m->g, n, S_q, q);
        node_in(m->g, n, S_kv, kv);
        node_in(m->g, n, S_pos, REF(R_INPUT, IN_pos));
        node_in(m->g, n, S_seq, REF(R_INPUT, IN_seq));
        if (sinks)
                node_in(m->g, n, S_sinks, sinks);
        node_int(m->g, n, A_heads, heads);
        node_int(m->g, n, A_dv, dv);
        node_flt(m->g, n, A_scale, scale);
        if (rand_one_in(&m->r, 3))
                node_int(m->g, n, A_window, 1 + rand_below(&m->r, 6));
        if (rand_one_in(&m->r, 5))
                node_flt(m->g, n, A_softcap, 20);
        return n;
}

/* Norm, rotation and append inside of attend. */
static Ref attend_all(Model *m, u32 n, Ref k, Ref v, Ref norm, Ref knorm, Ref freqs, i64 rdim)
{
        node_in(m->g, n, S_k, k);
        node_in(m->g, n, S_v, v);
        if (norm) {
                node_in(m->g, n, S_norm, norm);
                node_in(m->g, n, S_knorm, knorm);
                node_flt(m->g, n, A_eps, (double)eps);
        }
        if (freqs)
                node_in(m->g, n, S_freqs, freqs);
        rope_attrs(m, n, rdim);
        Ref y = node_done(m->g, n);
        graph_return(m->g, y + 1);
        return y;
}

/* Three products of one h: three operations or one. */
static void qkv(Model *m, Ref h, const i64 out[3], bool bias, Ref y[3])
{
        static const char *const what[] = {"attn_q", "attn_k", "attn_v"}, *const b[] = {"attn_q_b",
                                                                                  "attn_k_b", "attn_v_b"};
        if (!m->fused || rand_one_in(&m->r, 2)) {
                for (int i = 0; i < 3; i++)
                        y[i] = matmul(m, h, what[i], out[i], bias);
                return;
        }
        for (int i = 0; i < 3; i++)
                y[i] = matrix(m, what[i], out[i], m->width);
        u32 n = begin(m, OP_matmul);
        for (int i = 0; i < 3; i++) {
                node_in(m->g, n, S_w, y[i]);
                if (bias)
                        node_in(m->g, n, S_bias, vector(m, b[i], out[i], -0.3f, 0.3f));
        }
        random_act(m, n, m->width);
        y[0] = product(m, n, h);
        y[1] = y[0] + 1;
        y[2] = y[0] + 2;
}

static Ref attention(Model *m, Ref x)
{
        i64 kv_heads = 1 + rand_below(&m->r, 4), heads = kv_heads * (1 + rand_below(&m->r, 3));
        i64 dk = 8 * (1 + rand_below(&m->r, 4)),
            dv = rand_one_in(&m->r, 3) ? 8 * (1 + rand_below(&m->r, 4)) : dk;
        i64 rdim = rand_one_in(&m->r, 3) ? dk / 2 : dk;
        bool bias = rand_one_in(&m->r, 3), normed = rand_one_in(&m->r, 2),
             all = m->fused && rand_one_in(&m->r, 2);
        Ref kv = new_state(m, kv_heads, dk, dv), h = rmsnorm(m, x, "attn_norm", 0);
        Ref y[3], q, k, v;
        qkv(m, h, (i64[]){heads * dk, kv_heads * dk, kv_heads * dv}, bias, y);
        q = y[0], k = y[1], v = y[2];
        Ref freqs = rand_one_in(&m->r, 4) ? vector(m, "rope_freqs", rdim / 2, 1, 8) : REF_NONE, att;
        double scale = 1 / (double)dk;
        if (all) {
                Ref norm = normed ? norm_weight(m, "attn_q_norm", dk) : REF_NONE;
                Ref knorm = normed ? norm_weight(m, "attn_k_norm", dk) : REF_NONE;
                att = attend_all(m, attend(m, q, kv, heads, 0, scale), k, v, norm, knorm, freqs, rdim);
        } else {
                if (normed) {
                        q = rmsnorm(m, q, "attn_q_norm", dk);
                        k = rmsnorm(m, k, "attn_k_norm", dk);
                }
                q = rope(m, q, heads, rdim, freqs);
                k = rope(m, k, kv_heads, rdim, freqs);
                kv = kv_append(m, kv, k, v);
                graph_return(m->g, kv);
                att = node_done(m->g, attend(m, q, kv, heads, 0, scale));
        }
        return matmul_add(m, x, att, "attn_output", m->width, bias);
}

/* Keys are one compressed row and a rotated part, values a prefix of them: DeepSeek-V2, arXiv 2405.04434. */
static Ref latent_attention(Model *m, Ref x)
{
        i64 heads = 1 + rand_below(&m->r, 5), nope = 8 * (1 + rand_below(&m->r, 3)),
            pe = rand_one_in(&m->r, 3) ? 32 : 4 * (1 + rand_below(&m->r, 2));
        i64 rank = 32 * (1 + rand_below(&m->r, 2)), dv = 8 * (1 + rand_below(&m->r, 3));
        Ref kv = new_state(m, 1, rank + pe, 0), h = rmsnorm(m, x, "attn_norm", 0);
        Ref q = matmul(m, h, "attn_q", heads * (nope + pe), false),
            c = matmul(m, h, "attn_kv_a_mqa", rank + pe, false);
        Ref q_nope = slice(m, q, heads, 0, nope),
            q_pe = rope(m, slice(m, q, heads, nope, nope + pe), heads, pe, REF_NONE);
        Ref k_c = rmsnorm(m, slice(m, c, 0, 0, rank), "attn_kv_a_norm", 0);
        Ref k_pe = rope(m, slice(m, c, 0, rank, rank + pe), 1, pe, REF_NONE);
        q = concat(m, headmul(m, q_nope, "attn_k_b", heads, rank, nope), q_pe, heads);
        kv = kv_append(m, kv, concat(m, k_c, k_pe, 0), REF_NONE);
        graph_return(m->g, kv);
        Ref att = node_done(m->g, attend(m, q, kv, heads, rank, 1 / (double)(nope + pe)));
        att = headmul(m, att, "attn_v_b", heads, dv, rank);
        return matmul_add(m, x, att, "attn_output", m->width, false);
}

/* ---- feed-forward ---- */

static Ref dense(Model *m, Ref h, const char *suffix)
{
        char name[3][32];
        i64 ff = 16 * (1 + rand_below(&m->r, 8)), act = rand_below(&m->r, 3);
        static const char *const part[] = {"gate", "up", "down"};
        for (int i = 0; i < 3; i++)
                snprintf(name[i], sizeof name[i], "ffn_%s%s", part[i], suffix);
        Ref gate = matmul(m, h, name[0], ff, false), up = matmul(m, h, name[1], ff, false);
        u32 n = begin(m, OP_glu);
        node_in(m->g, n, S_gate, gate);
        node_in(m->g, n, S_up, up);
        node_int(m->g, n, A_glu, act);
        return matmul(m, node_done(m->g, n), name[2], m->width, false);
}

static void in_if(Model *m, u32 n, Slot s, Ref r)
{
        if (r)
                node_in(m->g, n, s, r);
}

static Ref route(Model *m, Ref h, i64 experts)
{
        i64 gate = rand_below(&m->r, 3), groups = experts % 4 == 0 && rand_one_in(&m->r, 3) ? experts / 4 : 0;
        bool own = m->fused && rand_one_in(&m->r, 2);
        Ref x = own ? h : matmul(m, h, "ffn_gate_inp", experts, gate == GATE_softmax_k);
        Ref w = own ? matrix(m, "ffn_gate_inp", experts, m->width) : REF_NONE;
        Ref bias = rand_one_in(&m->r, 3) ? vector(m, "exp_probs_b", experts, -0.2f, 0.2f) : REF_NONE;
        u32 n = begin(m, OP_route);
        in_if(m, n, S_w, w);
        in_if(m, n, S_bias, bias);
        node_int(m->g, n, A_k, 1 + rand_below(&m->r, (u32)MIN(experts, 4)));
        node_int(m->g, n, A_gate, gate);
        node_int(m->g, n, A_renorm, rand_below(&m->r, 2));
        node_flt(m->g, n, A_wscale, rand_one_in(&m->r, 3) ? 2.5 : 1);
        if (groups) {
                node_int(m->g, n, A_groups, groups);
                node_int(m->g, n, A_groups_k, 1 + rand_below(&m->r, (u32)groups));
        }
        if (own && experts % 2 && m->width % 16 == 0)
                node_int(m->g, n, A_out, ACT_q8);
        if (own)
                return product(m, n, x);
        node_in(m->g, n, S_x, x);
        return node_done(m->g, n);
}

/* A bias an expert: [experts, n]. */
static Ref expert_bias(Model *m, const char *what, i64 experts, i64 n)
{
        return weight(m, what, 2, (u64[]){(u64)experts, (u64)n}, W_F32,
                rand_weight(m->g->arena, &m->r, W_F32, (u64)(experts * n)));
}

/* res + what the experts make of h; res may be REF_NONE. */
static Ref experts(Model *m, Ref res, Ref h)
{
        i64 e = 2 + rand_below(&m->r, 9), f = 16 * (1 + rand_below(&m->r, 8));
        u64 up_dim[] = {(u64)e, (u64)f, (u64)m->width}, down_dim[] = {(u64)e, (u64)m->width, (u64)f};
        bool bias = rand_one_in(&m->r, 3), apart = m->fused && rand_one_in(&m->r, 2),
             sorted = rand_one_in(&m->r, 2);
        bool q8 = m->width % Q8_BLOCK == 0 && f % Q8_BLOCK == 0 && rand_one_in(&m->r, 2);
        i64 glu = rand_below(&m->r, 3);
        Ref r = route(m, h, e), gate = matrix_of(m, "ffn_gate_exps", 3, up_dim),
            up = matrix_of(m, "ffn_up_exps", 3, up_dim);
        Ref down = matrix_of(m, "ffn_down_exps", 3, down_dim), order = REF_NONE;
        Ref gate_b = bias ? expert_bias(m, "ffn_gate_exps_b", e, f) : REF_NONE;
        Ref up_b = bias ? expert_bias(m, "ffn_up_exps_b", e, f) : REF_NONE;
        Ref down_b = bias ? expert_bias(m, "ffn_down_exps_b", e, m->width) : REF_NONE;
        if (apart && sorted) {
                u32 s = begin(m, OP_sort);
                node_in(m->g, s, S_route, r);
                node_int(m->g, s, A_experts, e);
                order = node_done(m->g, s);
        }
        u32 n = begin(m, apart ? OP_experts_up : OP_experts);
        node_in(m->g, n, S_route, r);
        node_in(m->g, n, S_gate, gate);
        node_in(m->g, n, S_up, up);
        in_if(m, n, S_gate_b, gate_b);
        in_if(m, n, S_up_b, up_b);
        in_if(m, n, S_order, order);
        node_int(m->g, n, A_glu, glu);
        node_int(m->g, n, A_act, q8 ? ACT_q8 : ACT_f32);
        if (apart) {
                node_int(m->g, n, A_out, q8 ? ACT_q8 : ACT_f32);
                Ref y = product(m, n, h);
                n = begin(m, OP_experts_down);
                node_in(m->g, n, S_x, y);
                node_in(m->g, n, S_route, r);
                in_if(m, n, S_order, order);
                node_int(m->g, n, A_act, q8 ? ACT_q8 : ACT_f32);
        }
        node_in(m->g, n, S_down, down);
        in_if(m, n, S_down_b, down_b);
        in_if(m, n, S_res, res);
        return apart ? node_done(m->g, n) : product(m, n, h);
}

/* Something that nothing uses, or that could be computed once: what dce and fold are for. */
static Ref ornament(Model *m, Ref x)
{
        if (rand_one_in(&m->r, 4))
                rmsnorm(m, x, "unused_norm", 0);
        if (rand_one_in(&m->r, 4)) {
                u32 n = begin(m, OP_scale);
                node_in(m->g, n, S_x, x);
                node_flt(m->g, n, A_by, rand_one_in(&m->r, 2) ? 1 : 0.75);
                x = node_done(m->g, n);
        }
        if (rand_one_in(&m->r, 4)) {
                Ref row = vector(m, "row", m->width, 0.5f, 1.5f);
                u32 n = begin(m, OP_mul);
                node_in(m->g, n, S_a, x);
                node_in(m->g, n, S_b, row);
                x = node_done(m->g, n);
        }
        return x;
}

static Ref layer(Model *m, Ref x)
{
        x = rand_one_in(&m->r, 3) ? latent_attention(m, x) : attention(m, x);
        x = ornament(m, x);
        Ref h = rmsnorm(m, x, "ffn_norm", 0);
        if (rand_one_in(&m->r, 4))
                return add(m, x, dense(m, h, ""));
        bool res = m->fused && rand_one_in(&m->r, 2);
        Ref y = experts(m, res ? x : REF_NONE, h);
        if (rand_one_in(&m->r, 3))
                y = add(m, y, dense(m, h, "_shexp"));
        return res ? y : add(m, x, y);
}

Graph *rand_graph(Arena *a, u64 seed, bool fused)
{
        static const i64 widths[] = {32, 40, 64, 96, 256};
        Model m = {.r = {seed}, .g = graph_new(a, "random"), .layer = -1, .fused = fused};
        m.width = widths[rand_below(&m.r, COUNT(widths))];
        m.vocab = 5 + rand_below(&m.r, 60);
        m.ktype = rand_one_in(&m.r, 2) ? D_f16 : D_f32;
        m.vtype = rand_one_in(&m.r, 2) ? D_f16 : D_f32;
        graph_return(m.g, REF_NONE); /* the logits' place */
        choose_rope(&m);
        Ref table = matrix(&m, "token_embd", m.vocab, m.width);
        u32 n = begin(&m, OP_embed);
        node_in(m.g, n, S_w, table);
        node_in(m.g, n, S_ids, REF(R_INPUT, IN_ids));
        Ref x = node_done(m.g, n);
        u32 layers = 1 + rand_below(&m.r, 3);
        for (u32 i = 0; i < layers; i++) {
                m.layer = i;
                x = layer(&m, x);
        }
        m.layer = -1;
        n = begin(&m, OP_rows);
        node_in(m.g, n, S_x, x);
        node_in(m.g, n, S_out, REF(R_INPUT, IN_out));
        x = rmsnorm(&m, node_done(m.g, n), "output_norm", 0);
        m.g->ret[0] = matmul(&m, x, "output", m.vocab, false);
        return m.g;
}
