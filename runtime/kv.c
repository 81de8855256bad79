#include "runtime/kv.h"
#include "runtime/memory.h"
#include <stdlib.h>

struct Kv {
        u32 n_seq, n_ctx;
        u32 *len;  /* [n_seq] */
        u32 *more; /* [n_seq], kv_place's: what the step adds; zero between calls */
        i32 *ids;  /* [n_seq, n_ctx], touched as far as used */
        u64 bytes; /* of ids */
};

moec_status kv_new(u32 n_seq, u32 n_ctx, Kv **out, moec_error *e)
{
        *out = NULL;
        u64 bytes = 0; /* first: a number of sequences that is too large must not size anything */
        bool fits = mul_u64((u64)n_seq * n_ctx, sizeof *(Kv){0}.ids, &bytes);
        Kv *kv = fits ? calloc(1, sizeof *kv) : NULL;
        if (kv) {
                *kv = (Kv){.n_seq = n_seq, .n_ctx = n_ctx, .bytes = bytes, .ids = memory_map(bytes, false)};
                kv->len = kv->ids ? calloc(n_seq, sizeof *kv->len) : NULL;
                kv->more = kv->ids ? calloc(n_seq, sizeof *kv->more) : NULL;
        }
        if (!kv || !kv->len || !kv->more || !kv->ids) {
                kv_free(kv);
                return fail(
                        e, MOEC_NO_MEMORY, "out of memory for %u sequences of %u positions", n_seq, n_ctx);
        }
        *out = kv;
        return MOEC_OK;
}

void kv_free(Kv *kv)
{
        if (!kv)
                return;
        memory_unmap(kv->ids, kv->bytes);
        free(kv->len);
        free(kv->more);
        free(kv);
}

u32 kv_n_ctx(const Kv *kv)
{
        return kv->n_ctx;
}

u32 kv_n_seq(const Kv *kv)
{
        return kv->n_seq;
}

bool kv_has(const Kv *kv, int seq)
{
        return seq >= 0 && (u32)seq < kv->n_seq;
}

moec_status kv_place(Kv *kv, const moec_token *tok, u32 n, i32 *pos, moec_error *e)
{
        moec_status st = MOEC_OK;
        u32 i = 0;
        for (; i < n && st == MOEC_OK; i++) {
                i32 s = tok[i].seq;
                if (!kv_has(kv, s))
                        st = fail(e, MOEC_REFUSED, "no sequence %d: there are %u, from 0", s, kv->n_seq);
                else if (kv->len[s] + kv->more[s] >= kv->n_ctx)
                        st = fail(e, MOEC_REFUSED, "sequence %d is full: the context has %u positions", s,
                                kv->n_ctx);
                else
                        pos[i] = (i32)(kv->len[s] + kv->more[s]++);
        }
        for (u32 j = 0; j < i; j++)
                if (kv_has(kv, tok[j].seq))
                        kv->more[tok[j].seq] = 0;
        return st;
}

void kv_append(Kv *kv, const moec_token *tok, u32 n)
{
        for (u32 i = 0; i < n; i++) {
                u64 s = (u32)tok[i].seq;
                kv->ids[s * kv->n_ctx + kv->len[s]++] = tok[i].id;
        }
}

moec_status kv_trim(Kv *kv, int seq, int len, moec_error *e)
{
        if (!kv_has(kv, seq))
                return fail(e, MOEC_USAGE, "no sequence %d: there are %u, from 0", seq, kv->n_seq);
        if (len < 0 || (u32)len > kv->len[seq])
                return fail(e, MOEC_USAGE, "sequence %d has %u tokens and cannot be cut to %d", seq,
                        kv->len[seq], len);
        kv->len[seq] = (u32)len;
        return MOEC_OK;
}

u32 kv_len(const Kv *kv, u32 seq)
{
        return kv->len[seq];
}

const i32 *kv_ids(const Kv *kv, u32 seq)
{
        return kv->ids + (u64)seq * kv->n_ctx;
}
