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

// Usage: moe_cache_row(NAME, TYPE): the struct of NAME's rows in the cache, f16 or f32.
m4_define(«moe_cache_row», «moe_arity(«moe_cache_row», 2, $#)struct $1 {
        enum { SIZE = moe_if($2, f32, 4, 2) };
        static INLINE_IN void put(void *row, int i, float v) { moe_if($2, f32, «((float *)row)[i] = v», «((u16 *)row)[i] = (u16)f32_f16(v)»); }
        static INLINE_IN float get(const void *row, int i) { return moe_if($2, f32, «((const float *)row)[i]», «f16_f32(((const u16 *)row)[i])»); }
        // 4 values from i on, i a multiple of 4 in a row of a multiple of 4
        static INLINE_IN F4 get4(const void *row, int i)
        {
moe_if($2, f32, «                return *(const F4 *)((const float *)row + i);
», «                struct alignas(8) U2 { u32 x, y; };
                U2 v = *(const U2 *)((const u16 *)row + i);
                F4 f = {f16_f32(v.x & 0xffff), f16_f32(v.x >> 16), f16_f32(v.y & 0xffff), f16_f32(v.y >> 16)};
                return f;
»)        }
};
»)
