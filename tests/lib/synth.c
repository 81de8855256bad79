#include "tests/lib/synth.h"
#include <stdio.h>
#include <string.h>
#include "ir/quant.h"
#include "tests/hostile/gen.h"
#include "tests/lib/randgraph.h"

typedef struct File {
        const Synth *s;
        Arena *arena;
        Rand r;
        Buf keys, table, data;
        u32 n_key, n_tensor;
} File;

static void key_u32(File *f, const char *key, u32 v)
{
        char name[96];
        snprintf(name, sizeof name, "qwen3moe.%s", key);
        g_key_u32(&f->keys, name, v);
        f->n_key++;
}

static void key_f32(File *f, const char *key, float v)
{
        char name[96];
        snprintf(name, sizeof name, "qwen3moe.%s", key);
        g_key(&f->keys, name, GGUF_f32);
        g_f32(&f->keys, v);
        f->n_key++;
}

static void key_str(File *f, const char *key, const char *v)
{
        g_key_str(&f->keys, key, v);
        f->n_key++;
}

/* dim: outermost first. */
static void tensor(File *f, const char *name, Wtype t, u32 rank, const u64 *dim, const void *p, u64 bytes)
{
        g_str(&f->table, name);
        g_u32(&f->table, rank);
        for (u32 i = rank; i-- > 0;)
                g_u64(&f->table, dim[i]);
        g_u32(&f->table, wtype_info[t].id);
        g_u64(&f->table, f->data.len);
        buf_add(&f->data, p, bytes);
        g_pad(&f->data, 32);
        f->n_tensor++;
}

static void name_of(char out[64], i64 layer, const char *what)
{
        if (layer < 0)
                snprintf(out, 64, "%s.weight", what);
        else
                snprintf(out, 64, "blk.%lld.%s.weight", (long long)layer, what);
}

static void matrix(File *f, i64 layer, const char *what, Wtype t, u32 rank, const u64 *dim)
{
        char name[64];
        u64 n = 1, bytes;
        for (u32 i = 0; i < rank; i++)
                n *= dim[i];
        if (dim[rank - 1] % wtype_info[t].per)
                t = W_F16;
        if (!wtype_bytes(t, n, &bytes))
                die("%s: %llu values", what, (unsigned long long)n);
        name_of(name, layer, what);
        tensor(f, name, t, rank, dim, rand_weight(f->arena, &f->r, t, n), bytes);
}

static void norm(File *f, i64 layer, const char *what, u64 n)
{
        char name[64];
        float *p = NEWN(f->arena, float, n);
        for (u64 i = 0; i < n; i++)
                p[i] = rand_flt(&f->r, 0.5f, 1.5f);
        name_of(name, layer, what);
        tensor(f, name, W_F32, 1, &n, p, 4 * n);
}

static void put_keys(File *f)
{
        const Synth *s = f->s;
        static const char *const said[] = {
                "general.name", "general.description", "general.size_label", "tokenizer.chat_template"};
        key_str(f, "general.architecture", "qwen3moe");
        for (int i = 0; s->name && i < (int)COUNT(said); i++)
                key_str(f, said[i], s->name);
        key_u32(f, "block_count", s->layers);
        key_u32(f, "context_length", 512);
        key_u32(f, "embedding_length", s->width);
        key_u32(f, "expert_feed_forward_length", s->ff);
        key_u32(f, "expert_count", s->experts);
        key_u32(f, "expert_used_count", s->used);
        key_u32(f, "attention.head_count", s->heads);
        key_u32(f, "attention.head_count_kv", s->kv_heads);
        key_u32(f, "attention.key_length", s->dk);
        key_u32(f, "attention.value_length", s->dv);
        key_u32(f, "rope.dimension_count", s->rdim);
        key_f32(f, "attention.layer_norm_rms_epsilon", 1e-6f);
        key_f32(f, "rope.freq_base", 1e6f);
}

static void put_layer(File *f, i64 il)
{
        const Synth *s = f->s;
        u64 h = s->width, e = s->experts, ff = s->ff, q = (u64)s->heads * s->dk;
        u64 kv[2] = {(u64)s->kv_heads * s->dk, (u64)s->kv_heads * s->dv};
        norm(f, il, "attn_norm", h);
        matrix(f, il, "attn_q", s->type[SYNTH_attn_q], 2, (u64[]){q, h});
        matrix(f, il, "attn_k", s->type[SYNTH_attn_k], 2, (u64[]){kv[0], h});
        matrix(f, il, "attn_v", s->type[SYNTH_attn_v], 2, (u64[]){kv[1], h});
        norm(f, il, "attn_q_norm", s->dk);
        norm(f, il, "attn_k_norm", s->dk);
        matrix(f, il, "attn_output", s->type[SYNTH_attn_output], 2, (u64[]){h, (u64)s->heads * s->dv});
        norm(f, il, "ffn_norm", h);
        matrix(f, il, "ffn_gate_inp", W_F32, 2, (u64[]){e, h});
        matrix(f, il, "ffn_gate_exps", s->type[SYNTH_ffn_gate_exps], 3, (u64[]){e, ff, h});
        matrix(f, il, "ffn_up_exps", s->type[SYNTH_ffn_up_exps], 3, (u64[]){e, ff, h});
        matrix(f, il, "ffn_down_exps", s->type[SYNTH_ffn_down_exps], 3, (u64[]){e, h, ff});
}

static void put_tensors(File *f)
{
        const Synth *s = f->s;
        u64 table[] = {s->vocab, s->width};
        matrix(f, -1, "token_embd", s->type[SYNTH_token_embd], 2, table);
        for (u32 il = 0; il < s->layers; il++)
                put_layer(f, il);
        norm(f, -1, "output_norm", s->width);
        if (!s->tied)
                matrix(f, -1, "output", s->type[SYNTH_output], 2, table);
}

Synth synth_small(Wtype t)
{
        Synth s = {1, 256, 4, 2, 64, 64, 64, 5, 2, 256, 64, .seed = 1};
        for (int i = 0; i < N_SYNTH; i++)
                s.type[i] = t;
        return s;
}

void synth_write(const Synth *s, const char *path)
{
        File f = {.s = s, .arena = arena_new(), .r = {s->seed}};
        Buf all = {0};
        moec_error e;
        put_keys(&f);
        put_tensors(&f);
        g_head(&all, f.n_tensor, f.n_key);
        buf_add(&all, f.keys.p, f.keys.len);
        buf_add(&all, f.table.p, f.table.len);
        g_pad(&all, 32);
        buf_add(&all, f.data.p, f.data.len);
        if (file_write(path, all.p, all.len, 0644, &e))
                die("%s", e.msg);
        buf_free(&all);
        buf_free(&f.keys);
        buf_free(&f.table);
        buf_free(&f.data);
        arena_free(f.arena);
}

/* ---- odd shapes ---- */

/* layers, width, heads, kv_heads, dk, dv, rdim, experts, used, ff, vocab; types: the first, then one further
 * a matrix. */
static const struct {
        u32 n[11];
        Wtype first;
        bool tied;
} odd[N_SYNTH_ODD] = {
        {{1, 256, 4, 2, 64, 64, 64, 5, 2, 256, 64}, W_F32, true},
        {{2, 256, 3, 1, 72, 72, 72, 7, 3, 96, 257}, W_Q4_0, false},
        {{1, 512, 8, 8, 40, 40, 20, 3, 1, 256, 1003}, W_Q8_0, false},
        {{3, 96, 6, 3, 96, 64, 96, 60, 5, 32, 257}, W_Q4_1, false},
        {{1, 160, 5, 1, 10, 6, 4, 5, 5, 96, 1003}, W_Q5_0, true},
        {{2, 256, 2, 1, 128, 256, 128, 7, 4, 512, 65}, W_Q2_K, false},
        {{1, 320, 12, 4, 80, 96, 80, 4, 1, 64, 33}, W_IQ4_NL, false},
        {{1, 40, 2, 2, 24, 40, 24, 3, 2, 24, 9}, W_F16, false},
        {{1, 512, 16, 2, 32, 48, 16, 129, 8, 96, 257}, W_Q6_K, false},
        {{1, 768, 4, 4, 64, 64, 64, 6, 2, 768, 511}, W_IQ4_XS, false},
        {{2, 64, 1, 1, 64, 64, 64, 1, 1, 32, 64}, W_MXFP4, false},
        {{1, 288, 9, 3, 50, 32, 50, 13, 3, 160, 127}, W_Q5_1, false},
};

Synth synth_odd(u32 i)
{
        const u32 *n = odd[i].n;
        Synth s = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], .tied = odd[i].tied,
                .seed = i};
        for (u32 k = 0; k < N_SYNTH; k++)
                s.type[k] = (Wtype)((odd[i].first + k) % N_WTYPE);
        return s;
}

/* Random weights amplify what is rounded more than trained ones do: with q8 every launch must be right, but
 * the logits have bounds of their own. */
static bool good(moec_act act, moec_status st, const char *text, const moec_verify_report *r)
{
        if (act == MOEC_ACT_F32)
                return st == MOEC_OK;
        return text && !strstr(text, "diverges") && r->min_cosine >= 0.998 && r->mean_kl <= 2e-3;
}

bool synth_verify(const Synth *s, const char *path, const moec_options *opt, char *why, u64 room)
{
        enum { TOKENS = 40 };
        moec_error e = {0};
        moec_model *m;
        moec_verify_report r;
        char *text = NULL;
        i32 ids[TOKENS];
        for (u32 i = 0; i < TOKENS; i++)
                ids[i] = (i32)((7 + 5 * i) % s->vocab);
        synth_write(s, path);
        moec_status st = moec_open(path, opt, &m, &e);
        bool is_good = false;
        if (st == MOEC_OK) {
                st = moec_verify(m, opt, ids, TOKENS, "text", &r, &text, &e);
                is_good = good(opt->act, st, text, &r);
                moec_close(m);
        }
        snprintf(why, room, "%s", text ? text : e.msg);
        moec_free(text);
        return is_good;
}
