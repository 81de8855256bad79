#include "tests/lib/randgraph.h"
#include "ir/quant.h"
#include <string.h>

u64 rand_u64(Rand *r)
{
        u64 z = r->state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
}

u32 rand_below(Rand *r, u32 n)
{
        return (u32)(rand_u64(r) % n);
}

bool rand_one_in(Rand *r, u32 n)
{
        return rand_below(r, n) == 0;
}

float rand_flt(Rand *r, float lo, float hi)
{
        return lo + (hi - lo) * (float)(rand_u64(r) >> 40) * 0x1p-24f;
}

/* ---- weights ---- */

/* Scales that give values of about 0.1. */
static const float usual_scale[N_WTYPE] = {[W_Q4_0] = 0.02f,
        [W_Q4_1] = 0.02f,
        [W_Q5_0] = 0.01f,
        [W_Q5_1] = 0.01f,
        [W_Q8_0] = 0.0015f,
        [W_Q2_K] = 0.008f,
        [W_Q3_K] = 0.0024f,
        [W_Q4_K] = 0.0005f,
        [W_Q5_K] = 0.0003f,
        [W_Q6_K] = 0.00009f,
        [W_IQ4_NL] = 0.0016f,
        [W_IQ4_XS] = 0.0001f};

static void random_block(Rand *r, Wtype t, u8 *p)
{
        for (const Field *f = wtype_info[t].field; f->bytes; p += f->bytes, f++) {
                for (u32 i = 0; i < f->bytes; i++)
                        p[i] = (u8)rand_u64(r);
                float d = rand_flt(r, -1, 1) * usual_scale[t];
                u16 half = f32_to_f16(d);
                if (f->bytes == 2) /* a scale; one type has codes so, which may be anything */
                        memcpy(p, &half, sizeof half);
                else if (f->bytes == 1) /* an exponent */
                        *p = (u8)(121 + rand_below(r, 4));
        }
}

static void random_float(Rand *r, Wtype t, u8 *p, float lo, float hi)
{
        float f = rand_flt(r, lo, hi);
        u16 half = f32_to_f16(f), top;
        if (t == W_F32)
                memcpy(p, &f, sizeof f);
        else if (t == W_F16)
                memcpy(p, &half, sizeof half);
        else {
                memcpy(&top, (u8 *)&f + 2, sizeof top);
                memcpy(p, &top, sizeof top);
        }
}

void *rand_weight(Arena *a, Rand *r, Wtype t, u64 n)
{
        u64 bytes;
        const WtypeInfo *w = &wtype_info[t];
        if (!wtype_bytes(t, n, &bytes))
                die("%llu values of %s", (unsigned long long)n, w->name);
        u8 *p = arena_alloc(a, bytes);
        for (u64 at = 0; at < bytes; at += w->bytes)
                if (w->quant)
                        random_block(r, t, p + at);
                else
                        random_float(r, t, p + at, -0.2f, 0.2f);
        return p;
}

/* ---- steps ---- */

RandStep rand_step(Arena *a, Rand *r, const Graph *g, u32 n_tok, u32 n_seq, i32 *len)
{
        RandStep s = {.n_tok = n_tok,
                .ids = NEWN(a, i32, n_tok),
                .pos = NEWN(a, i32, n_tok),
                .seq = NEWN(a, i32, n_tok),
                .out = NEWN(a, i32, n_tok)};
        Vtype t = ref_type(g, g->ret[0]);
        for (u32 i = 0; i < n_tok; i++) {
                s.seq[i] = (i32)rand_below(r, n_seq);
                s.pos[i] = len[s.seq[i]]++;
                s.ids[i] = (i32)rand_below(r, (u32)dim_last(&t));
                if (i + 1 == n_tok || rand_one_in(r, 2))
                        s.out[s.n_out++] = (i32)i;
        }
        return s;
}

void step_by_sequence(Arena *a, RandStep *s, i32 n_seq)
{
        u32 n = s->n_tok * 3 / 4, k = 0;
        i32 *seq = NEWN(a, i32, n), *pos = NEWN(a, i32, n);
        for (i32 q = 0; q < n_seq; q++)
                for (u32 i = 0; i < n; i++)
                        if (s->seq[i] == q)
                                seq[k] = q, pos[k++] = s->pos[i];
        memcpy(s->seq, seq, n * sizeof *seq);
        memcpy(s->pos, pos, n * sizeof *pos);
}
