// attend: softmax attention of each token over its own sequence's cache, with the queries' norm and rotation, and, given k,
// the token's keys and values appended first.
//
// q f32 [T, HEADS * DK]; out f32 or q8 [T, HEADS * DV]; planes as kv_append's. A block: NT tokens and one key head with its G query
// heads. The queries of a block share every key and value read, if its tokens are neighbours of one sequence; else it goes
// token by token. Positions go by CHUNK, with a running maximum (online softmax: Milakov and Gimelshein 2018). With k the phase
// has one token a step.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«heads.m4»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, CHUNK = 32, NQ = NT * G };
enum { PK = (DK + 7) / 8 * 8, PV = (DV + 7) / 8 * 8, KBYTES = MOE_KBYTES, VBYTES = MOE_VBYTES };
#define SCALE ((float)MOE_scale)
#define CAP ((float)MOE_softcap)
moe_cache_row(«key», MOE_KTYPE, MOE_DK)
moe_cache_row(«value», MOE_VTYPE, MOE_VROW)

// The queries of a block: NT tokens by G heads.
typedef struct {
        float q[NQ][PK], s[NQ][CHUNK], o[NQ][PV], m[NQ], l[NQ];
        float k[CHUNK][PK], v[CHUNK][PV];
        i32 pos[NT];
} Tile;

// s = q * k for n <= CHUNK positions, 4 positions by 2 queries at a time; rows of k past n are old or zero.
INLINE void scores(Tile *x, int n, int nq)
{
        for (int j = 0; j < n; j += 4)
                for (int q = 0; q < nq; q += 2) {
                        int r = q + 1 < nq ? q + 1 : q;
                        f32x8 a[8] = {0};
                        for (int i = 0; i < PK; i += 8) {
                                f32x8 u = load_f32(x->q[q] + i), v = load_f32(x->q[r] + i);
#pragma GCC unroll 4
                                for (int c = 0; c < 4; c++) {
                                        f32x8 k = load_f32(x->k[j + c] + i);
                                        a[c] = fma8(u, k, a[c]);
                                        a[4 + c] = fma8(v, k, a[4 + c]);
                                }
                        }
                        f32x8 s = sums8(a);
                        memcpy(x->s[q] + j, &s, 16);
                        memcpy(x->s[r] + j, (float *)&s + 4 * (r != q), 16);
                }
}

// Scores become weights relative to the running maximum; what was summed before is scaled to a new one. Positions from .. to
// count; the chunk begins at j0.
INLINE void soften(Tile *x, int q, i32 j0, i32 from, i32 to)
{
        float *s = x->s[q], top = x->m[q];
        f32x8 t8 = splat(top), sum = splat(0);
        moe_if(MOE_softcap, 0x0p+0, «», «for (int j = 0; j < CHUNK; j++) {
                float e = exp1(2.0f / CAP * s[j]);
                s[j] = CAP * ((e - 1.0f) / (e + 1.0f));
        }»)
        for (int j = 0; j < CHUNK; j += 8) {
                i32x8 p = j0 + j + (i32x8){0, 1, 2, 3, 4, 5, 6, 7};
                f32x8 v = select((p >= from) & (p <= to), load_f32(s + j), splat(-__builtin_inff()));
                store_f32(s + j, v);
                t8 = max8(t8, v);
        }
        top = hmax8(t8);
        if (top == -__builtin_inff()) {
                __builtin_memset(s, 0, 4 * CHUNK);
                return;
        }
        for (int j = 0; j < CHUNK; j += 8) {
                f32x8 v = load_f32(s + j), e = select(v == -__builtin_inff(), splat(0), exp8(v - top));
                store_f32(s + j, e);
                sum += e;
        }
        if (top > x->m[q]) {
                float r = exp1(x->m[q] - top);
                x->l[q] *= r;
                for (int i = 0; i < PV; i += 8)
                        store_f32(x->o[q] + i, load_f32(x->o[q] + i) * r);
                x->m[q] = top;
        }
        x->l[q] += sum8(sum);
}

// o += s * v, 4 queries at a time.
INLINE void gather(Tile *x, int n, int nq)
{
        for (int q = 0; q < nq; q += 4)
                for (int i = 0; i < PV; i += 8) {
                        f32x8 a[4];
#pragma GCC unroll 4
                        for (int c = 0; c < 4; c++)
                                a[c] = q + c < nq ? load_f32(x->o[q + c] + i) : splat(0);
                        for (int j = 0; j < n; j++) {
                                f32x8 v = load_f32(x->v[j] + i);
#pragma GCC unroll 4
                                for (int c = 0; c < 4; c++)
                                        if (q + c < nq)
                                                a[c] = fma8(splat(x->s[q + c][j]), v, a[c]);
                        }
#pragma GCC unroll 4
                        for (int c = 0; c < 4; c++)
                                if (q + c < nq)
                                        store_f32(x->o[q + c] + i, a[c]);
                }
}

// Tokens t0 .. t0 + nt - 1, all of one sequence, and key head h.
INLINE void block(void *const *arg, const KernelDim *dim, Tile *x, u32 t0, int nt, u32 h)
{
        u32 seq = (u32)((const i32 *)moe_arg(«seq»))[t0];
        u64 base = ((u64)seq * KVH + h) * dim->n_ctx;
        u8 *keys = (u8 *)moe_arg(«kv») + base * KBYTES, *values = (u8 *)moe_arg(«kvv») + base * VBYTES;
        i32 low = 0x7fffffff, high = 0;
        int nq = nt * G;
        for (int t = 0; t < nt; t++) {
                i32 pos = x->pos[t] = ((const i32 *)moe_arg(«pos»))[t0 + (u32)t];
                moe_if(MOE_HALF, 0, «», «float cos[PADHALF], sin[PADHALF];
                rope_table(pos, moe_has(«freqs», «moe_arg(«freqs»)», «0»), cos, sin);»)
moe_has(«k», «                const float *k = (const float *)moe_arg(«k») + (u64)t0 * KVH * DK + h * DK;
                float y[DK];
                moe_has(«knorm», «norm_row(k, moe_arg(«knorm»), DK, (float)MOE_eps, y);», «memcpy(y, k, sizeof y);»)
                moe_if(MOE_HALF, 0, «», «rope_row(y, cos, sin);»)
                store_key(keys + (u64)(u32)pos * KBYTES, y, DK);
                moe_has(«v», «store_value(values + (u64)(u32)pos * VBYTES,
                        (const float *)moe_arg(«v») + (u64)t0 * KVH * DV + h * DV, DV);», «»)
», «»)                for (int g = 0; g < G; g++) {
                        float *q = x->q[t * G + g];
                        const float *from = (const float *)moe_arg(«q») + ((u64)(t0 + (u32)t) * HEADS + h * G + (u32)g) * DK;
                        __builtin_memset(q + PK - 8, 0, 32);
                        moe_has(«norm», «norm_row(from, moe_arg(«norm»), DK, (float)MOE_eps, q);», «memcpy(q, from, 4 * DK);»)
                        moe_if(MOE_HALF, 0, «», «rope_row(q, cos, sin);»)
                        for (int i = 0; i < DK; i++)
                                q[i] *= SCALE;
                        __builtin_memset(x->o[t * G + g], 0, 4 * PV);
                        x->m[t * G + g] = -__builtin_inff();
                        x->l[t * G + g] = 0;
                }
                i32 from = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0;
                low = from < low ? from : low;
                high = pos > high ? pos : high;
        }
        for (i32 j0 = low; j0 <= high; j0 += CHUNK) {
                int n = high + 1 - j0 < CHUNK ? high + 1 - j0 : CHUNK;
                for (int j = 0; j < n; j++) {
                        load_key(x->k[j], keys + (u64)(u32)(j0 + j) * KBYTES, DK);
                        load_value(x->v[j], values + (u64)(u32)(j0 + j) * VBYTES, DV);
                }
                scores(x, n, nq);
                for (int q = 0; q < nq; q++) {
                        i32 pos = x->pos[q / G];
                        soften(x, q, j0, MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0, pos);
                }
                gather(x, n, nq);
        }
        for (int q = 0; q < nq; q++) {
                moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[h * G + (u32)(q % G)];
                float top = sink > x->m[q] ? sink : x->m[q], r = exp1(x->m[q] - top), inv = r / (x->l[q] * r + exp1(sink - top));», «float inv = 1.0f / x->l[q];»)
                u64 at = ((u64)(t0 + (u32)(q / G)) * HEADS + h * G + (u32)(q % G)) * DV;
                float *to = moe_if(MOE_out, q8, «x->o[q]», «(float *)moe_arg(«out0») + at»);
                for (int i = 0; i < DV; i++)
                        to[i] = x->o[q][i] * inv;
moe_if(MOE_out, q8, «                i8 *code = moe_arg(«out0»);
                u64 n = (u64)dim->n_tok * HEADS * DV;
                float *d = (float *)(code + n), *s = d + n / 16;
                quantize(to, DV, code + at, d + at / 16, s + at / 16);
», «»)        }
}

moe_kernel
{
        Tile x;
        __builtin_memset(x.k, 0, sizeof x.k);
        __builtin_memset(x.v, 0, sizeof x.v);
        u32 tiles = (dim->n_tok + NT - 1) / NT;
        for (u32 b = first; b < last; b++) {
                u32 t = b % tiles * NT, h = b / tiles, end = t + NT < dim->n_tok ? t + NT : dim->n_tok;
                const i32 *seq = moe_arg(«seq»);
                int same = end - t == NT;
                for (u32 i = t + 1; i < end; i++)
                        same = same && seq[i] == seq[t];
                if (same)
                        block(arg, dim, &x, t, NT, h);
                else
                        for (; t < end; t++)
                                block(arg, dim, &x, t, 1, h);
        }
}
