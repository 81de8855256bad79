/* Small mixture-of-experts models, right or wrong, as GGUF files in a temporary folder. */
#ifndef MOEC_MODEL_HELP_H
#define MOEC_MODEL_HELP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "frontend/model.h"
#include "tests/hostile/gen.h"
#include <cmocka.h> /* last: its fail is a macro */

enum {
        TINY_LAYERS = 2,
        TINY_EMBD = 64,
        TINY_HEADS = 4,
        TINY_KV = 2,
        TINY_DK = 16,
        TINY_EXPERTS = 8,
        TINY_USED = 2,
        TINY_FF = 32,
        TINY_VOCAB = 96
};

typedef struct Tiny {
        const char *arch;
        const char *called;    /* general.architecture; NULL: arch */
        bool wide_norms;       /* q and k are normed over their whole width */
        bool shape;            /* end where the data would start */
        bool tied;             /* no output.weight */
        const char *drop;      /* leave this key (without the architecture's name) or tensor out */
        const char *bad;       /* give this tensor one row too many */
        const char *quant;     /* make this tensor Q8_0; NULL: none; "*": all matrices */
        const char *more_key;  /* one more key, an integer, or */
        const char *more_text; /* ... with this string */
        u32 more_value;
        u32 more_bits; /* ... or, not 0, a float */
        const char *more_tensor;
        const char *type_of; /* in a shape file: give this tensor ... */
        u32 type_id;         /* ... this type, of no more bytes than F32 */
} Tiny;

typedef struct TinyFile {
        Buf keys, table, data;
        u32 n_key, n_tensor;
        const Tiny *o;
        u64 rng;
} TinyFile;

static inline void tiny_key(TinyFile *f, const char *key, u32 v)
{
        char name[96];
        snprintf(name, sizeof name, "%s.%s", f->o->arch, key);
        if (f->o->drop && strcmp(f->o->drop, key) == 0)
                return;
        g_key_u32(&f->keys, name, v);
        f->n_key++;
}

static inline float tiny_rnd(TinyFile *f)
{
        f->rng = f->rng * 6364136223846793005u + 1442695040888963407u;
        return (float)(i32)(f->rng >> 32) / 2147483648.0f;
}

static inline void tiny_q8_block(TinyFile *f)
{
        u16 d = f32_to_f16(0.002f);
        buf_add(&f->data, &d, 2);
        for (int i = 0; i < 32; i++)
                g_u8(&f->data, (u8)(i8)(127 * tiny_rnd(f)));
}

/* dim: outermost first. */
static inline void tiny_tensor(TinyFile *f, const char *name, u32 rank, u64 a, u64 b, u64 c)
{
        u64 dim[3] = {a, b, c}, n = 1;
        const Tiny *o = f->o;
        if (o->drop && strcmp(o->drop, name) == 0)
                return;
        if (o->bad && strcmp(o->bad, name) == 0)
                dim[0]++;
        bool quant = o->quant && (strcmp(o->quant, name) == 0 || (rank > 1 && strcmp(o->quant, "*") == 0));
        g_str(&f->table, name);
        g_u32(&f->table, rank);
        for (u32 i = rank; i-- > 0; n *= dim[i])
                g_u64(&f->table, dim[i]);
        bool other = o->type_of && strcmp(o->type_of, name) == 0;
        g_u32(&f->table, other ? o->type_id : quant ? 8 : 0);
        g_u64(&f->table, f->data.len);
        for (u64 i = 0; quant && i < n / 32; i++)
                tiny_q8_block(f);
        for (u64 i = 0; !quant && i < n; i++)
                g_f32(&f->data, rank == 1 ? 1 + 0.1f * tiny_rnd(f) : 0.25f * tiny_rnd(f));
        g_pad(&f->data, 32);
        f->n_tensor++;
}

static inline void tiny_layer(TinyFile *f, int il)
{
        enum { Q = TINY_HEADS * TINY_DK, KV = TINY_KV * TINY_DK };
        const struct {
                const char *name;
                u32 rank;
                u64 a, b, c;
        } row[] = {
                {"attn_norm", 1, TINY_EMBD, 0, 0},
                {"attn_q", 2, Q, TINY_EMBD, 0},
                {"attn_k", 2, KV, TINY_EMBD, 0},
                {"attn_v", 2, KV, TINY_EMBD, 0},
                {"attn_q_norm", 1, f->o->wide_norms ? Q : TINY_DK, 0, 0},
                {"attn_k_norm", 1, f->o->wide_norms ? KV : TINY_DK, 0, 0},
                {"attn_output", 2, TINY_EMBD, Q, 0},
                {"ffn_norm", 1, TINY_EMBD, 0, 0},
                {"ffn_gate_inp", 2, TINY_EXPERTS, TINY_EMBD, 0},
                {"ffn_gate_exps", 3, TINY_EXPERTS, TINY_FF, TINY_EMBD},
                {"ffn_up_exps", 3, TINY_EXPERTS, TINY_FF, TINY_EMBD},
                {"ffn_down_exps", 3, TINY_EXPERTS, TINY_EMBD, TINY_FF},
        };
        for (size_t i = 0; i < COUNT(row); i++) {
                char name[64];
                snprintf(name, sizeof name, "blk.%d.%s.weight", il, row[i].name);
                tiny_tensor(f, name, row[i].rank, row[i].a, row[i].b, row[i].c);
        }
}

static inline void tiny_keys(TinyFile *f)
{
        const Tiny *o = f->o;
        g_key_str(&f->keys, "general.architecture", o->called ? o->called : o->arch);
        f->n_key++;
        tiny_key(f, "block_count", TINY_LAYERS);
        tiny_key(f, "context_length", 128);
        tiny_key(f, "embedding_length", TINY_EMBD);
        tiny_key(f, "feed_forward_length", TINY_FF);
        tiny_key(f, "expert_feed_forward_length", TINY_FF);
        tiny_key(f, "expert_count", TINY_EXPERTS);
        tiny_key(f, "expert_used_count", TINY_USED);
        tiny_key(f, "attention.head_count", TINY_HEADS);
        tiny_key(f, "attention.head_count_kv", TINY_KV);
        char eps[96];
        snprintf(eps, sizeof eps, "%s.attention.layer_norm_rms_epsilon", o->arch);
        g_key(&f->keys, eps, GGUF_f32);
        g_f32(&f->keys, 1e-5f);
        f->n_key++;
        if (o->more_key && o->more_text)
                g_key_str(&f->keys, o->more_key, o->more_text);
        else if (o->more_key && o->more_bits)
                g_key(&f->keys, o->more_key, GGUF_f32), g_u32(&f->keys, o->more_bits);
        else if (o->more_key)
                g_key_u32(&f->keys, o->more_key, o->more_value);
        f->n_key += o->more_key != NULL;
}

/* Writes the model to a new file; path: what it is called, which the caller unlinks. */
static inline void tiny_write(const Tiny *o, char path[64])
{
        TinyFile f = {.o = o, .rng = 1};
        tiny_keys(&f);
        tiny_tensor(&f, "token_embd.weight", 2, TINY_VOCAB, TINY_EMBD, 0);
        for (int il = 0; il < TINY_LAYERS; il++)
                tiny_layer(&f, il);
        tiny_tensor(&f, "output_norm.weight", 1, TINY_EMBD, 0, 0);
        if (!o->tied)
                tiny_tensor(&f, "output.weight", 2, TINY_VOCAB, TINY_EMBD, 0);
        if (o->more_tensor)
                tiny_tensor(&f, o->more_tensor, 1, TINY_EMBD, 0, 0);
        Buf all = {0};
        g_head(&all, f.n_tensor, f.n_key);
        buf_add(&all, f.keys.p, f.keys.len);
        buf_add(&all, f.table.p, f.table.len);
        g_pad(&all, 32);
        if (!o->shape)
                buf_add(&all, f.data.p, f.data.len);
        strcpy(path, "/tmp/moec-test-XXXXXX");
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_true(write(fd, all.p, all.len) == (ssize_t)all.len);
        close(fd);
        buf_free(&all);
        buf_free(&f.keys);
        buf_free(&f.table);
        buf_free(&f.data);
}

/* A model that is open, and what holds it. */
typedef struct Opening {
        Arena *a;
        Model m;
        moec_error error; /* of model_open itself */
} Opening;

static inline void open_model(Opening *o, const char *path, const char *templates)
{
        *o = (Opening){.a = arena_new()};
        Trap t;
        if (TRAP(&t) == 0) {
                model_open(&o->m, o->a, path, templates);
                trap_pop(&t);
        } else
                o->error = t.error;
}

static inline void shut_model(Opening *o)
{
        model_close(&o->m);
        arena_free(o->a);
}

static inline void open_tiny(Opening *o, const Tiny *tiny, const char *templates)
{
        char path[64];
        tiny_write(tiny, path);
        open_model(o, path, templates);
        unlink(path);
}

#endif
