#include "frontend/build.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_VOCAB (1u << 24)

static u64 vocab(const Gguf *g)
{
        const GgufKey *k = gguf_arr(g, "tokenizer.ggml.tokens", GGUF_STRINGS, 1, MAX_VOCAB);
        if (k)
                return k->n;
        const GgufTensor *t = gguf_tensor(g, "token_embd.weight");
        return t && t->n_dim == 2 ? t->dim[0] : 0;
}

Build *build_new(Arena *a, const Gguf *g, const char *arch, Dtype ktype, Dtype vtype)
{
        Build *b = NEW(a, Build);
        *b = (Build){.gguf = g,
                .g = graph_new(a, "model"),
                .arch = arch,
                .n_vocab = vocab(g),
                .ktype = ktype,
                .vtype = vtype,
                .layer = -1,
                .ignored = NEWN(a, bool, gguf_n_tensors(g))};
        return b;
}

/* ---- hyperparameters ---- */

static const char *full(Build *b, const char *key)
{
        return arena_fmt(b->g->arena, "%s.%s", b->arch, key);
}

bool build_u64(Build *b, const char *key, u64 min, u64 max, u64 *out)
{
        return gguf_u64(b->gguf, full(b, key), min, max, out);
}

bool build_f32(Build *b, const char *key, double min, double max, double *out)
{
        float f;
        if (!gguf_f32(b->gguf, full(b, key), min, max, &f))
                return false;
        *out = (double)f;
        return true;
}

bool build_bool(Build *b, const char *key, bool *out)
{
        return gguf_bool(b->gguf, full(b, key), out);
}

const char *build_str(Build *b, const char *key)
{
        GgufStr s;
        return gguf_str(b->gguf, full(b, key), &s) ? arena_strn(b->g->arena, s.p, s.n) : NULL;
}

noreturn void build_missing(Build *b, const char *key)
{
        err(MOEC_DAMAGED, "%s: key %s.%s is missing", gguf_path(b->gguf), b->arch, key);
}

/* Meaning and defaults as llama.cpp has them: a factor without a type is linear; YaRN's magnitude is 1 + 0.1
 * ln(factor). */
void build_rope(Build *b, Aval attr[N_ATTR])
{
        double base = 10000, factor = 0, mul = 1, ext = 1, fast = 32, slow = 1;
        u64 octx = 0;
        build_f32(b, "rope.freq_base", 1, 1e12, &base);
        attr[A_rbase].f = base;
        const char *type = build_str(b, "rope.scaling.type");
        build_f32(b, "rope.scaling.factor", 0, 1e6, &factor);
        if (factor == 0 || (type && strcmp(type, "none") == 0))
                factor = 1;
        attr[A_rfactor].f = factor;
        if (!type || strcmp(type, "none") == 0 || strcmp(type, "linear") == 0)
                return;
        if (strcmp(type, "yarn") != 0)
                err(MOEC_UNSUPPORTED,
                        "%s: key %s.rope.scaling.type is \"%.32s\"; none, linear and yarn are supported",
                        gguf_path(b->gguf), b->arch, type);
        if (!build_u64(b, "rope.scaling.original_context_length", 1, 1u << 24, &octx))
                build_missing(b, "rope.scaling.original_context_length");
        build_f32(b, "rope.scaling.attn_factor", FLT_MIN, 1e6, &mul);
        build_f32(b, "rope.scaling.yarn_ext_factor", 0, 1, &ext);
        build_f32(b, "rope.scaling.yarn_beta_fast", FLT_MIN, 1e6, &fast);
        build_f32(b, "rope.scaling.yarn_beta_slow", FLT_MIN, 1e6, &slow);
        attr[A_octx].i = (i64)octx;
        attr[A_ext].f = ext;
        attr[A_rattn].f = ext != 0 ? mul * (1 + 0.1 * log(factor)) : mul;
        attr[A_fast].f = fast;
        attr[A_slow].f = slow;
}

/* ---- weights and states ---- */

/* The name with the layer in place of %d. */
static const char *layered(Build *b, const char *name)
{
        const char *at = strstr(name, "%d");
        if (!at)
                return name;
        if (b->layer < 0)
                err(MOEC_ERROR, "%s: no layer was begun", name);
        return arena_fmt(b->g->arena, "%.*s%lld%s", (int)(at - name), name, (long long)b->layer, at + 2);
}

#define SHAPE 96
static const char *shape_str(u32 rank, const u64 *dim, char out[SHAPE])
{
        int n = snprintf(out, SHAPE, "[");
        for (u32 i = 0; i < rank; i++)
                n += snprintf(
                        out + n, SHAPE - (size_t)n, "%s%llu", i ? ", " : "", (unsigned long long)dim[i]);
        snprintf(out + n, SHAPE - (size_t)n, "]");
        return out;
}

/* Writers of GGUF drop outer dimensions of 1. */
static bool same_shape(u32 ra, const u64 *a, u32 rb, const u64 *b)
{
        for (; ra > 1 && *a == 1; a++)
                ra--;
        for (; rb > 1 && *b == 1; b++)
                rb--;
        return ra == rb && memcmp(a, b, ra * sizeof *a) == 0;
}

/* The tensor t as a weight of this shape. */
static Ref bind(Build *b, const GgufTensor *t, u32 rank, const u64 *dim)
{
        const char *path = gguf_path(b->gguf);
        const char *types = rank == 1 ? "F32, F16 or BF16" : "any supported type";
        char found[SHAPE], want[SHAPE];
        shape_str(rank, dim, want);
        if (!same_shape(t->n_dim, t->dim, rank, dim))
                err(MOEC_DAMAGED, "%s: tensor %s is %s %s; architecture %s expects %s of %s", path, t->name,
                        gguf_tensor_type(t->id), shape_str(t->n_dim, t->dim, found), b->arch, want, types);
        Wtype type = gguf_wtype(b->gguf, t);
        if (rank == 1 && wtype_info[type].quant)
                err(MOEC_UNSUPPORTED, "%s: tensor %s is %s %s; architecture %s expects %s of %s", path,
                        t->name, wtype_info[type].name, want, b->arch, want, types);
        return graph_weight(b->g, t->name, type, rank, dim, gguf_data(b->gguf, t));
}

Ref build_weight(Build *b, const char *name, u32 rank, const u64 *dim, bool optional)
{
        char want[SHAPE];
        name = layered(b, name);
        const GgufTensor *t = gguf_tensor(b->gguf, name);
        if (t)
                return bind(b, t, rank, dim);
        if (optional)
                return REF_NONE;
        err(MOEC_DAMAGED, "%s: tensor %s is missing; architecture %s needs it with the shape %s",
                gguf_path(b->gguf), name, b->arch, shape_str(rank, dim, want));
}

Ref build_state(Build *b, const char *name, i64 heads, i64 dk, i64 dv)
{
        return graph_state(b->g, layered(b, name), heads, dk, dv, b->ktype, b->vtype);
}

/* ---- operations ---- */

static void set_attrs(Build *b, u32 n, const Aval attr[N_ATTR], const bool has[N_ATTR])
{
        if (b->layer >= 0)
                node_int(b->g, n, A_layer, b->layer);
        for (int i = 0; i < N_ATTR; i++)
                if (has[i] && attr_info[i].kind == ATTR_FLT)
                        node_flt(b->g, n, (Attr)i, attr[i].f);
                else if (has[i])
                        node_int(b->g, n, (Attr)i, attr[i].i);
}

static Ref plain(Build *b, Ref r)
{
        if (ref_kind(r) != R_WEIGHT)
                return r;
        u32 w = ref_idx(r);
        if (b->g->weight[w].type == W_F32 || b->g->weight[w].rank < 2)
                return r;
        while (b->n_plain <= w) {
                GROW(b->g->arena, b->plain, b->n_plain, b->cap_plain);
                b->plain[b->n_plain++] = REF_NONE;
        }
        if (!b->plain[w]) {
                u32 n = node_new(b->g, OP_dequant);
                node_in(b->g, n, S_w, r);
                if (b->layer >= 0)
                        node_int(b->g, n, A_layer, b->layer);
                b->plain[w] = node_done(b->g, n);
        }
        return b->plain[w];
}

u32 build_node(
        Build *b, Op op, const struct In *in, u32 n_in, const Aval attr[N_ATTR], const bool has[N_ATTR])
{
        Ref *ref = NEWN(b->g->arena, Ref, n_in);
        for (u32 i = 0; i < n_in; i++)
                ref[i] = op == OP_dequant ? in[i].ref : plain(b, in[i].ref);
        u32 n = node_new(b->g, op);
        for (u32 i = 0; i < n_in; i++)
                node_in(b->g, n, in[i].slot, ref[i]);
        set_attrs(b, n, attr, has);
        node_done(b->g, n);
        return n;
}

/* ---- what is left over ---- */

bool build_match(const char *pattern, const char *name)
{
        for (; *pattern; pattern++) {
                if (*pattern != '*') {
                        if (*pattern != *name++)
                                return false;
                        continue;
                }
                size_t digits = strspn(name, "0123456789");
                if (!digits)
                        return false;
                name += digits;
        }
        return !*name;
}

void build_ignore(Build *b, const char *pattern)
{
        for (u32 i = 0; i < gguf_n_tensors(b->gguf); i++)
                b->ignored[i] |= build_match(pattern, gguf_tensor_at(b->gguf, i)->name);
}

void build_finish(Build *b)
{
        u32 n = 0;
        const char *first = NULL, *second = NULL;
        for (u32 i = 0; i < gguf_n_tensors(b->gguf); i++) {
                const char *name = gguf_tensor_at(b->gguf, i)->name;
                Ref r;
                if (b->ignored[i] || graph_find_weight(b->g, name, strlen(name), &r))
                        continue;
                if (n == 1)
                        second = name;
                if (n++ == 0)
                        first = name;
        }
        if (n)
                err(MOEC_UNSUPPORTED, "%s: %u tensor%s no place in architecture %s: %s%s%s%s",
                        gguf_path(b->gguf), n, n == 1 ? " has" : "s have", b->arch, first, second ? ", " : "",
                        second ? second : "", n > 2 ? ", ..." : "");
}
