// Heads: their norm, their rotation, and rows of the KV cache.
// Facts: MOE_HALF pairs rotated (0: none), MOE_FREQS their frequencies in turns a position, MOE_rattn, MOE_rstyle.
enum { HALF = MOE_HALF };

// sin and cos of t turns: the whole turns go in double, the rest by Cephes' polynomials on an eighth of a turn.
INLINE void sincos_turns(double t, float &sin, float &cos)
{
        double q = nearest(4.0 * t);
        float x = (float)((t - 0.25 * q) * 6.283185307179586), z = x * x;
        i32 n = (i32)(q - 4.0 * nearest(0.25 * q));
        float s = fma1(fma1(fma1(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f), z * x, x);
        float c = fma1(fma1(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
        c = fma1(c, z * z, 1.0f - 0.5f * z);
        sin = (n & 1 ? c : s) * (n & 2 ? -1.0f : 1.0f);
        cos = (n & 1 ? s : c) * ((n + 1) & 2 ? -1.0f : 1.0f);
}
moe_if(MOE_HALF, 0, «», «__device__ const double freqs[] = {MOE_FREQS};
__shared__ float turn_cos[HALF], turn_sin[HALF];
// By the whole block; a barrier follows.
INLINE void rope_table(i32 pos, const float *factor)
{
#pragma unroll 1
        for (int i = TID; i < HALF; i += THREADS) {
                float s, c;
                sincos_turns((double)pos * (factor ? freqs[i] / (double)factor[i] : freqs[i]), s, c);
                turn_sin[i] = s * (float)MOE_rattn;
                turn_cos[i] = c * (float)MOE_rattn;
        }
}
INLINE void rope_pair(float *x, int i)
{
        int p = moe_if(MOE_rstyle, neox, «i, r = i + HALF», «2 * i, r = 2 * i + 1»);
        float u = x[p], v = x[r];
        x[p] = mul1(u, turn_cos[i]) - mul1(v, turn_sin[i]);
        x[r] = mul1(v, turn_cos[i]) + mul1(u, turn_sin[i]);
}»)
// By one warp: y = rope(norm(x)) of n values, y in shared memory; no norm where w is 0.
INLINE void place_head(const float *x, float *y, int n, const float *w, double eps)
{
        int lane = TID % 32;
        double r = 0;
        if (w) {
                for (int i = lane; i < n; i += 32)
                        r += (double)x[i] * (double)x[i];
                r = 1.0 / sqrt_f64(warp_sum(r) / n + eps);
        }
        for (int i = lane; i < n; i += 32)
                y[i] = w ? (float)((double)x[i] * r * (double)w[i]) : x[i];
        warp_barrier();
        moe_if(MOE_HALF, 0, «», «for (int i = lane; i < HALF; i += 32)
                rope_pair(y, i);
        warp_barrier();»)
}

// Usage: moe_cache_row(NAME, TYPE, WIDTH): the struct of NAME's rows in the cache, of WIDTH values of f16, f32 or q8_0
// (ir/types.h: kv_row_bytes). put: by whole warps, of 32 neighbouring values from a multiple of 32 on where that is q8_0.
// get4: 4 values from i on, i a multiple of 4 in a row of a multiple of 4.
m4_define(«moe_cache_row», «moe_arity(«moe_cache_row», 3, $#)struct $1 {moe_cache_$2(«$3»)};
»)m4_dnl
m4_define(«moe_cache_f32», «
        static INLINE_IN void put(void *row, int i, float v) { ((float *)row)[i] = v; }
        static INLINE_IN float get(const void *row, int i) { return ((const float *)row)[i]; }
        static INLINE_IN F4 get4(const void *row, int i) { return *(const F4 *)((const float *)row + i); }
»)m4_dnl
m4_define(«moe_cache_f16», «
        static INLINE_IN void put(void *row, int i, float v) { ((u16 *)row)[i] = (u16)f32_f16(v); }
        static INLINE_IN float get(const void *row, int i) { return f16_f32(((const u16 *)row)[i]); }
        static INLINE_IN F4 get4(const void *row, int i)
        {
                struct alignas(8) U2 { u32 x, y; };
                U2 v = *(const U2 *)((const u16 *)row + i);
                F4 f = {f16_f32(v.x & 0xffff), f16_f32(v.x >> 16), f16_f32(v.y & 0xffff), f16_f32(v.y >> 16)};
                return f;
        }
»)m4_dnl
m4_define(«moe_cache_q8_0», «
        static INLINE_IN u16 *scale(const void *row, int i) { return (u16 *)((u8 *)row + $1) + i / 32; }
        static INLINE_IN void put(void *row, int i, float v)
        {
                float d = warp_max(abs1(v)) / 127.0f, by = d < 1.17549435e-38f ? 0.0f : 1.0f / d;
                ((i8 *)row)[i] = (i8)nearest(mul1(v, by));
                if (i % 32 == 0)
                        *scale(row, i) = (u16)f32_f16(d);
        }
        static INLINE_IN float get(const void *row, int i) { return mul1((float)((const i8 *)row)[i], f16_f32(*scale(row, i))); }
        static INLINE_IN F4 get4(const void *row, int i)
        {
                u32 v = *(const u32 *)((const u8 *)row + i);
                float d = f16_f32(*scale(row, i));
                F4 f = {mul1((float)(i8)v, d), mul1((float)(i8)(v >> 8), d), mul1((float)(i8)(v >> 16), d), mul1((float)(i8)(v >> 24), d)};
                return f;
        }
»)m4_dnl
