// attend: softmax attention of each token over its own sequence's cache, with the queries' norm and rotation, and, given k,
// the tokens' keys and values appended first.
//
// q f32 [T, HEADS * DK]; out f32 [T, HEADS * DV]; planes as kv_append's. A block: one token, one key head with its G query heads,
// and one of SPLIT parts of the positions. A warp takes 32 positions at a time: scores with a position a lane, then values with
// a part of the head a lane; a running maximum (online softmax: Milakov and Gimelshein 2018). The warps' sums are added in
// order; so are the parts', by the block that ends last, from memory of this module. GB query heads at a time share the keys.
// With k a block appends all of its sequence's tokens in the step up to its own. 256 threads. Grid: T, KVH, SPLIT.
//
//      H100, 32 heads of 128 on 4, f16, microseconds at depth 128: ?    4096: ?    16384: ?
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
m4_include(«round.m4»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, VROW = MOE_VROW, KBYTES = MOE_KBYTES, VBYTES = MOE_VBYTES, SPLIT = MOE_SPLIT };
enum { FIT = DK <= 512 && DV <= 256 ? 8 : DK <= 1024 && DV <= 512 ? 4 : 1, GB = G < FIT ? G : FIT };
enum { VL = DV % 128 == 0 && VROW % 4 == 0 ? 4 : 1, VN = (DV + 32 * VL - 1) / (32 * VL), STEP = 32 * WARPS };
#define SCALE ((float)MOE_scale)
#define CAP ((float)MOE_softcap)
moe_cache_row(«Key», MOE_KTYPE, MOE_DK)
moe_cache_row(«Value», MOE_VTYPE, MOE_VROW)

__shared__ F4 query[GB][(DK + 3) / 4];
__shared__ float weight[WARPS][32][GB], top[WARPS][GB], total[WARPS][GB], sum[GB][DV];
__shared__ u32 ended;
moe_if(MOE_SPLIT, 1, «», «// Each part's sums, and of these the maximum and the weights' total, a head.
__device__ float part_sum[SPLIT][HEADS][DV], part_top[SPLIT][HEADS], part_total[SPLIT][HEADS];
__device__ u32 count[KVH];
»)
// Scores of position p (nothing beyond `to`) with GB queries.
INLINE void scores(const u8 *keys, i32 p, i32 to, float (&s)[GB])
{
        for (int g = 0; g < GB; g++)
                s[g] = 0;
        if (p < to) {
                const u8 *k = keys + (u64)(u32)p * KBYTES;
                if (DK % 4 == 0) {
#pragma unroll 8
                        for (int i = 0; i < DK / 4; i++) {
                                F4 f = Key::get4(k, 4 * i);
#pragma unroll
                                for (int g = 0; g < GB; g++) {
                                        F4 q = query[g][i];
                                        s[g] = fma1(q.x, f.x, fma1(q.y, f.y, fma1(q.z, f.z, fma1(q.w, f.w, s[g]))));
                                }
                        }
                } else {
                        for (int i = 0; i < DK; i++) {
                                float f = Key::get(k, i);
                                for (int g = 0; g < GB; g++)
                                        s[g] = fma1(((const float *)query[g])[i], f, s[g]);
                        }
                }
        }
        moe_if(MOE_softcap, 0x0p+0, «», «for (int g = 0; g < GB; g++) {
                float e = exp1(2.0f / CAP * s[g]);
                s[g] = CAP * ((e - 1.0f) / (e + 1.0f));
        }»)
        for (int g = 0; g < GB; g++)
                s[g] = p < to ? s[g] : -INF;
}
INLINE int value_index(int n, int c) { return VL * (32 * n + TID % 32) + c; }

enum { WHOLE_DV = (DV + 31) / 32 * 32 }; // for whole warps
// The result's head g of this block, from its maximum, its weights' total and dv i's sum.
INLINE void put(const Args &a, u32 t, int g, int i, float m, float l, float o, bool in)
{
        u32 head = BY * G + (u32)g;
        float by = 1.0f / l;
        moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[head], r = exp1(m - max1(m, sink));
        by = r / (l * r + exp1(sink - max1(m, sink)));», «»)
        u64 at = ((u64)t * HEADS + head) * DV + (u32)i;
moe_if(MOE_out, q8, «        quantize1(o * by, moe_arg(«out0»), (u64)a.dim->n_tok * HEADS * DV, at, in);
», «        if (in)
                ((float *)moe_arg(«out0»))[at] = o * by;
»)        (void)m;
}

// Queries g0 .. g0 + GB - 1 over positions from .. to - 1.
INLINE void queries(const Args &a, u32 t, int g0, const u8 *keys, const u8 *values, i32 from, i32 to, bool whole)
{
        int warp = TID / 32, lane = TID % 32;
        barrier();
        for (int g = warp; g < GB; g += WARPS) {
                const float *q = (const float *)moe_arg(«q») + ((u64)t * HEADS + BY * G + (u32)(g0 + g < G ? g0 + g : G - 1)) * DK;
                float *y = (float *)query[g];
                place_head(q, y, DK, moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»), MOE_eps);
                for (int i = lane; i < DK; i += 32)
                        y[i] *= SCALE;
        }
        for (int i = TID; i < GB * DV; i += THREADS)
                sum[i / DV][i % DV] = 0;
        barrier();
        float o[GB][VN][VL] = {}, m[GB], l[GB];
        for (int g = 0; g < GB; g++)
                m[g] = -INF, l[g] = 0;
#pragma unroll 1
        for (i32 p0 = from + 32 * warp; p0 < to; p0 += STEP) {
                float s[GB];
                scores(keys, p0 + lane, to, s);
#pragma unroll
                for (int g = 0; g < GB; g++) {
                        float high = max1(m[g], warp_max(s[g])), r = exp1(m[g] - high), e = p0 + lane < to ? exp1(s[g] - high) : 0;
                        weight[warp][lane][g] = e;
                        l[g] = l[g] * r + warp_sum(e);
                        m[g] = high;
                        for (int n = 0; n < VN; n++)
                                for (int c = 0; c < VL; c++)
                                        o[g][n][c] *= r;
                }
                warp_barrier();
                int n_pos = to - p0 < 32 ? to - p0 : 32;
#pragma unroll 4
                for (int j = 0; j < n_pos; j++) {
                        const u8 *v = values + (u64)(u32)(p0 + j) * VBYTES;
#pragma unroll
                        for (int n = 0; n < VN; n++) {
                                float x[4] = {0, 0, 0, 0};
                                if (value_index(n, 0) < DV) {
                                        if (VL == 4) {
                                                F4 f = Value::get4(v, value_index(n, 0));
                                                x[0] = f.x, x[1] = f.y, x[2] = f.z, x[3] = f.w;
                                        } else {
                                                x[0] = Value::get(v, value_index(n, 0));
                                        }
                                }
#pragma unroll
                                for (int g = 0; g < GB; g++)
                                        for (int c = 0; c < VL; c++)
                                                o[g][n][c] = fma1(weight[warp][j][g], x[c], o[g][n][c]);
                        }
                }
                warp_barrier();
        }
        if (lane == 0)
                for (int g = 0; g < GB; g++)
                        top[warp][g] = m[g], total[warp][g] = l[g];
        barrier();
        float high[GB];
        for (int g = 0; g < GB; g++) {
                high[g] = -INF;
                for (int w = 0; w < WARPS; w++)
                        high[g] = max1(high[g], top[w][g]);
        }
#pragma unroll 1
        for (int w = 0; w < WARPS; w++) {
                if (w == warp)
                        for (int g = 0; g < GB; g++) {
                                float r = m[g] == -INF ? 0 : exp1(m[g] - high[g]);
                                for (int n = 0; n < VN; n++)
                                        for (int c = 0; c < VL; c++)
                                                if (value_index(n, c) < DV)
                                                        sum[g][value_index(n, c)] += o[g][n][c] * r;
                        }
                barrier();
        }
        for (int g = 0; g < GB; g++) {
                float all = 0;
                for (int w = 0; w < WARPS; w++)
                        all += top[w][g] == -INF ? 0 : total[w][g] * exp1(top[w][g] - high[g]);
                if (g0 + g >= G)
                        continue;
                if (whole)
                        for (int i = TID; i < WHOLE_DV; i += THREADS)
                                put(a, t, g0 + g, i, high[g], all, i < DV ? sum[g][i < DV ? i : 0] : 0, i < DV);
moe_if(MOE_SPLIT, 1, «», «                else {
                        u32 head = BY * G + (u32)(g0 + g);
                        for (int i = TID; i < DV; i += THREADS)
                                part_sum[BZ][head][i] = sum[g][i];
                        if (TID == 0)
                                part_top[BZ][head] = high[g], part_total[BZ][head] = all;
                }
»)        }
}
moe_if(MOE_SPLIT, 1, «», «
// The parts' sums, by the block that ends last.
INLINE void join(const Args &a, u32 t, u32 parts)
{
        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count[BY]) + 1;
        barrier();
        if (ended != parts)
                return;
        publish();
        if (TID == 0)
                count[BY] = 0;
        for (int j = TID; j < G * WHOLE_DV; j += THREADS) {
                int g = j / WHOLE_DV, place = j % WHOLE_DV, i = place < DV ? place : 0;
                u32 head = BY * G + (u32)g;
                float m = -INF, l = 0, o = 0;
                for (u32 s = 0; s < parts; s++)
                        m = max1(m, load_far(&part_top[s][head]));
                for (u32 s = 0; s < parts; s++) {
                        float r = exp1(load_far(&part_top[s][head]) - m);
                        l += load_far(&part_total[s][head]) * r;
                        o += load_far(&part_sum[s][head][i]) * r;
                }
                put(a, t, g, place, m, l, o, place < DV);
        }
}
»)
moe_kernel
{
        pdl_wait();
        u32 t = BX;
        if (t >= a.dim->n_tok)
                return;
        i32 pos = ((const i32 *)moe_arg(«pos»))[t], low = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0, n = pos + 1 - low;
        i32 span = (n + SPLIT * STEP - 1) / (SPLIT * STEP) * STEP, parts = (n + span - 1) / span;
        i32 from = low + (i32)BZ * span, to = from + span < pos + 1 ? from + span : pos + 1;
        if ((i32)BZ >= parts)
                return;
        u64 base = ((u64)(u32)((const i32 *)moe_arg(«seq»))[t] * KVH + BY) * a.dim->n_ctx;
        u8 *keys = (u8 *)moe_arg(«kv») + base * KBYTES, *values = (u8 *)moe_arg(«kvv») + base * VBYTES;
moe_has(«k», «        // Every block appends whatever it reads of the step: the same bits, whoever else does.
#pragma unroll 1
        for (u32 i = 0; i < a.dim->n_tok && (i32)BZ == parts - 1; i++) {
                i32 p = ((const i32 *)moe_arg(«pos»))[i];
                if (((const i32 *)moe_arg(«seq»))[i] != ((const i32 *)moe_arg(«seq»))[t] || p > pos)
                        continue;
                barrier();
                moe_if(MOE_HALF, 0, «», «rope_table(p, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));
                barrier();»)
                const float *k = (const float *)moe_arg(«k») + ((u64)i * KVH + BY) * DK;
                float *y = (float *)query[0];
                if (TID < 32) {
                        place_head(k, y, DK, moe_has(«knorm», «(const float *)moe_arg(«knorm»)», «0»), MOE_eps);
                        for (int i = TID; i < DK; i += 32)
                                Key::put(keys + (u64)(u32)p * KBYTES, i, y[i]);
                }
                moe_has(«v», «for (int j = TID; j < DV; j += THREADS)
                        Value::put(values + (u64)(u32)p * VBYTES, j, ((const float *)moe_arg(«v»))[((u64)i * KVH + BY) * DV + j]);», «»)
        }
        barrier();
», «»)        moe_if(MOE_HALF, 0, «», «rope_table(pos, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));
        barrier();»)
#pragma unroll 1
        for (int g = 0; g < G; g += GB)
                queries(a, t, g, keys, values, from, to, parts == 1);
        moe_if(MOE_SPLIT, 1, «», «if (parts > 1)
                join(a, t, (u32)parts);»)
}
