// attend: softmax attention of each token over its own sequence's cache, with the queries' norm and rotation, and, given k,
// the token's keys and values appended first.
//
// q f32 [T, HEADS * DK]; out f32 [T, HEADS * DV]; planes as kv_append's. A block: one token and one key head with its G query
// heads, which share every key and value read. Positions go by CHUNK, with a running maximum (online softmax: Milakov and
// Gimelshein 2018). With k the phase has one token a step.
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«heads.m4»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, CHUNK = 32 };
enum { PK = (DK + 7) / 8 * 8, PV = (DV + 7) / 8 * 8, VROW = MOE_VROW };
moe_cache_row(«key», MOE_KTYPE)
moe_cache_row(«value», MOE_VTYPE)

// Scores of n <= CHUNK keys, the last of a group of 8 filled up with zeros.
INLINE void scores(const float q[G][PK], const u8 *keys, int n, float s[G][CHUNK])
{
        float rows[8][PK] __attribute__((aligned(32)));
        for (int j0 = 0; j0 < n; j0 += 8) {
                for (int j = 0; j < 8; j++) {
                        __builtin_memset(rows[j] + PK - 8, 0, 32);
                        load_key(rows[j], keys + (u64)(j0 + j < n ? j0 + j : n - 1) * DK * SIZE_key, DK);
                }
                for (int g = 0; g < G; g++) {
                        f32x8 a[8] = {0};
                        for (int i = 0; i < PK; i += 8) {
                                f32x8 v = load_f32(q[g] + i);
#pragma GCC unroll 8
                                for (int j = 0; j < 8; j++)
                                        a[j] = fma8(v, load_f32(rows[j] + i), a[j]);
                        }
                        store_f32(s[g] + j0, sums8(a));
                }
        }
}

moe_kernel
{
        for (u32 b = first; b < last; b++) {
                u32 t = b / KVH, h = b % KVH;
                i32 pos = ((const i32 *)moe_arg(«pos»))[t], seq = ((const i32 *)moe_arg(«seq»))[t];
                u64 base = ((u64)(u32)seq * KVH + h) * dim->n_ctx;
                u8 *keys = (u8 *)moe_arg(«kv») + base * DK * SIZE_key;
                u8 *values = (u8 *)moe_arg(«kvv») + base * VROW * SIZE_value;
                moe_if(MOE_HALF, 0, «», «float cos[PADHALF], sin[PADHALF];
                rope_table(pos, moe_has(«freqs», «moe_arg(«freqs»)», «0»), cos, sin);»)
moe_has(«k», «                const float *k = (const float *)moe_arg(«k») + (u64)t * KVH * DK + h * DK;
                float x[DK];
                moe_has(«knorm», «norm_row(k, moe_arg(«knorm»), DK, (float)MOE_eps, x);», «memcpy(x, k, sizeof x);»)
                moe_if(MOE_HALF, 0, «», «rope_row(x, cos, sin);»)
                store_key(keys + (u64)(u32)pos * DK * SIZE_key, x, DK);
                moe_has(«v», «store_value(values + (u64)(u32)pos * VROW * SIZE_value,
                        (const float *)moe_arg(«v») + (u64)t * KVH * DV + h * DV, DV);», «»)
», «»)
                float q[G][PK] = {{0}}, s[G][CHUNK], o[G][PV] = {{0}}, m[G], l[G];
                for (int g = 0; g < G; g++) {
                        const float *from = (const float *)moe_arg(«q») + ((u64)t * HEADS + h * G + (u32)g) * DK;
                        moe_has(«norm», «norm_row(from, moe_arg(«norm»), DK, (float)MOE_eps, q[g]);», «memcpy(q[g], from, 4 * DK);»)
                        moe_if(MOE_HALF, 0, «», «rope_row(q[g], cos, sin);»)
                        for (int i = 0; i < DK; i++)
                                q[g][i] *= (float)MOE_scale;
                        m[g] = -__builtin_inff();
                        l[g] = 0;
                }
                i32 from = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0;
                for (i32 j0 = from; j0 <= pos; j0 += CHUNK) {
                        int n = pos + 1 - j0 < CHUNK ? pos + 1 - j0 : CHUNK;
                        scores(q, keys + (u64)(u32)j0 * DK * SIZE_key, n, s);
                        for (int g = 0; g < G; g++) {
                                moe_if(MOE_softcap, 0x0p+0, «», «for (int j = 0; j < n; j++) {
                                        float e = exp1(2.0f / (float)MOE_softcap * s[g][j]);
                                        s[g][j] = (float)MOE_softcap * ((e - 1.0f) / (e + 1.0f));
                                }»)
                                float top = m[g];
                                for (int j = n; j % 8; j++)
                                        s[g][j] = -__builtin_inff();
                                f32x8 t8 = splat(top), sum = splat(0);
                                for (int j = 0; j < n; j += 8)
                                        t8 = max8(t8, load_f32(s[g] + j));
                                top = hmax8(t8);
                                for (int j = 0; j < n; j += 8) {
                                        f32x8 v = load_f32(s[g] + j), e = exp8(v - top);
                                        e = select(v == -__builtin_inff(), splat(0), e);
                                        store_f32(s[g] + j, e);
                                        sum += e;
                                }
                                if (top > m[g]) {
                                        float r = exp1(m[g] - top);
                                        l[g] *= r;
                                        for (int i = 0; i < PV; i += 8)
                                                store_f32(o[g] + i, load_f32(o[g] + i) * r);
                                        m[g] = top;
                                }
                                l[g] += sum8(sum);
                        }
                        for (int j = 0; j < n; j++) {
                                float row[PV] __attribute__((aligned(32)));
                                __builtin_memset(row + PV - 8, 0, 32);
                                load_value(row, values + (u64)(u32)(j0 + j) * VROW * SIZE_value, DV);
                                for (int g = 0; g < G; g++)
                                        for (int i = 0; i < PV; i += 8)
                                                store_f32(o[g] + i, fma8(splat(s[g][j]), load_f32(row + i), load_f32(o[g] + i)));
                        }
                }
                for (int g = 0; g < G; g++) {
                        moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[h * G + (u32)g];
                        float top = sink > m[g] ? sink : m[g], r = exp1(m[g] - top);
                        l[g] = l[g] * r + exp1(sink - top);
                        float inv = r / l[g];», «float inv = 1.0f / l[g];»)
                        float *to = (float *)moe_arg(«out0») + ((u64)t * HEADS + h * G + (u32)g) * DV;
                        for (int i = 0; i < DV; i++)
                                to[i] = o[g][i] * inv;
                }
        }
}
