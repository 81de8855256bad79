/* What outlives a step: keys and values, dequantised weights. */
#include <stdlib.h>
#include <string.h>
#include "ir/eval_part.h"
#include "ir/quant.h"

struct EvalKv {
        Arena *arena;
        u32 n_seq, n_ctx;
        Store *store;
};

EvalKv *eval_kv_new(u32 n_seq, u32 n_ctx)
{
        Arena *a = arena_new();
        EvalKv *kv = NEW(a, EvalKv);
        kv->arena = a;
        kv->n_seq = n_seq;
        kv->n_ctx = n_ctx;
        return kv;
}

void eval_kv_free(EvalKv *kv)
{
        if (kv)
                arena_free(kv->arena);
}

void ev_kv_dims(const EvalKv *kv, u64 *n_seq, u64 *n_ctx)
{
        *n_seq = kv ? kv->n_seq : 0;
        *n_ctx = kv ? kv->n_ctx : 0;
}

Store *ev_store_get(EvalKv *kv, const State *s)
{
        u64 kw = (u64)(s->heads * s->dk), vw = (u64)(s->heads * s->dv);
        for (Store *p = kv->store; p; p = p->next)
                if (!strcmp(p->name, s->name)) {
                        if (p->kw != kw || p->vw != vw)
                                die("state %s has another shape than before", s->name);
                        return p;
                }
        Store *p = NEW(kv->arena, Store);
        p->name = arena_str(kv->arena, s->name);
        p->kw = kw;
        p->vw = vw;
        p->k = NEWN(kv->arena, float *, kv->n_seq);
        p->v = NEWN(kv->arena, float *, kv->n_seq);
        p->cap = NEWN(kv->arena, u64, kv->n_seq);
        p->next = kv->store;
        return kv->store = p;
}

static float *grown(Arena *a, const float *old, u64 had, u64 cap, u64 w)
{
        float *p = arena_array(a, cap * w, sizeof *p);
        if (had && w)
                memcpy(p, old, had * w * sizeof *p);
        return p;
}

void ev_store_room(EvalKv *kv, Store *s, u64 seq, u64 pos)
{
        if (pos < s->cap[seq])
                return;
        u64 had = s->cap[seq], cap = MAX(had, 16);
        while (cap <= pos)
                cap *= 2;
        cap = MIN(cap, kv->n_ctx);
        s->k[seq] = grown(kv->arena, s->k[seq], had, cap, s->kw);
        s->v[seq] = grown(kv->arena, s->v[seq], had, cap, s->vw);
        s->cap[seq] = cap;
}

/* ---- weights ---- */

enum { N_CHAIN = 1024 };
typedef struct Cached {
        const void *data;
        Wtype type;
        u64 len;
        float *f;
        struct Cached *next;
} Cached;

struct EvalCache {
        Arena *arena;
        u64 left; /* bytes */
        Cached *chain[N_CHAIN];
};

EvalCache *eval_cache_new(u64 max_bytes)
{
        Arena *a = arena_new();
        EvalCache *c = NEW(a, EvalCache);
        c->arena = a;
        c->left = max_bytes;
        return c;
}

void eval_cache_free(EvalCache *c)
{
        if (c)
                arena_free(c->arena);
}

const float *ev_cache_find(EvalCache *c, const Weight *w)
{
        u64 len = 1, bytes;
        for (u32 i = 0; i < w->rank; i++)
                len *= w->dim[i];
        Cached **head = &c->chain[hash_str((const char *)&w->data, sizeof w->data) % N_CHAIN];
        for (Cached *p = *head; p; p = p->next)
                if (p->data == w->data && p->type == w->type && p->len == len)
                        return p->f;
        if (!mul_u64(len, sizeof(float), &bytes) || bytes > c->left)
                return NULL;
        c->left -= bytes;
        Cached *p = NEW(c->arena, Cached);
        *p = (Cached){.data = w->data, .type = w->type, .len = len, .next = *head};
        p->f = NEWN(c->arena, float, len);
        dequant(w->type, w->data, p->f, len);
        *head = p;
        return p->f;
}
