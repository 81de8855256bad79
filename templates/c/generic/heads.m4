// Heads: their norm, their rotation, and rows of the KV cache.
// Facts: MOE_HALF pairs rotated (0: none), MOE_FREQS their frequencies in radians a position / 2 pi, MOE_rattn, MOE_rstyle.
enum { HALF = MOE_HALF, PADHALF = (HALF + 7) / 8 * 8 };

// sin and cos of 2 pi t, t in turns: the whole turns go in double, the rest by Cephes' polynomials on an eighth of a turn.
INLINE void sincos8(f64x8 t, f32x8 *sin, f32x8 *cos)
{
        f64x8 q = (4.0 * t + 0x1.8p52) - 0x1.8p52;
        f32x8 x = __builtin_convertvector((t - 0.25 * q) * 6.283185307179586, f32x8), z = x * x;
        i32x8 n = __builtin_convertvector(q - 4.0 * ((0.25 * q + 0x1.8p52) - 0x1.8p52), i32x8);
        f32x8 s = fma8(fma8(fma8(splat(-1.9515295891e-4f), z, splat(8.3321608736e-3f)), z, splat(-1.6666654611e-1f)), z * x, x);
        f32x8 c = fma8(fma8(splat(2.443315711809948e-5f), z, splat(-1.388731625493765e-3f)), z, splat(4.166664568298827e-2f));
        c = fma8(c, z * z, 1.0f - 0.5f * z);
        i32x8 odd = (n & 1) != 0;
        *sin = select(odd, c, s);
        *cos = select(odd, s, c);
        *sin = (f32x8)((i32x8)*sin ^ (n << 30 & (i32)0x80000000));
        *cos = (f32x8)((i32x8)*cos ^ ((n + 1) << 30 & (i32)0x80000000));
}
moe_if(MOE_HALF, 0, «», «static const double freqs[PADHALF] = {MOE_FREQS};
INLINE void rope_table(i32 pos, const float *factor, float *cos, float *sin)
{
        for (int i = 0; i < HALF; i += 8) {
                f64x8 t;
                f32x8 s, c;
                for (int l = 0; l < 8; l++)
                        t[l] = (double)pos * (factor && i + l < HALF ? freqs[i + l] / (double)factor[i + l] : freqs[i + l]);
                sincos8(t, &s, &c);
                store_f32(sin + i, s * (float)MOE_rattn);
                store_f32(cos + i, c * (float)MOE_rattn);
        }
}
INLINE void rope_row(float *x, const float *cos, const float *sin)
{
        for (int i = 0; i < HALF; i++) {
                int p = moe_if(MOE_rstyle, neox, «i, r = i + HALF», «2 * i, r = 2 * i + 1»);
                float a = x[p], b = x[r];
                x[p] = a * cos[i] - b * sin[i];
                x[r] = b * cos[i] + a * sin[i];
        }
}»)

// Usage: moe_cache_row(NAME, TYPE, WIDTH): load_NAME and store_NAME of n values of a cache row of WIDTH values of f16, f32 or q8_0
// (ir/types.h: kv_row_bytes). From q8_0 they come by eights.
m4_define(«moe_cache_row», «moe_arity(«moe_cache_row», 3, $#)moe_cache_$2(«$1», «$3»)»)m4_dnl
m4_define(«moe_cache_f32», «
INLINE void load_$1(float *to, const void *from, int n) { memcpy(to, from, 4 * (u64)n); }
INLINE void store_$1(void *to, const float *from, int n) { memcpy(to, from, 4 * (u64)n); }
»)m4_dnl
m4_define(«moe_cache_f16», «
INLINE void load_$1(float *to, const void *from, int n)
{
        int i = 0;
        for (; i + 8 <= n; i += 8)
                store_f32(to + i, load_f16((const u16 *)from + i));
        for (; i < n; i++) {
                u16x8 h = {((const u16 *)from)[i]};
                to[i] = f16_to_f32(h)[0];
        }
}
INLINE void store_$1(void *to, const float *from, int n)
{
        int i = 0;
        for (; i + 8 <= n; i += 8) {
                u16x8 h = f32_to_f16(load_f32(from + i));
                memcpy((u16 *)to + i, &h, 16);
        }
        for (; i < n; i++)
                ((u16 *)to)[i] = f32_to_f16(splat(from[i]))[0];
}
»)m4_dnl
m4_define(«moe_cache_q8_0», «
INLINE void load_$1(float *to, const void *from, int n)
{
        const i8 *code = from;
        for (int b = 0; b < n; b += 32) {
                u16x8 h = {((const u16 *)(code + $2))[b / 32]};
                f32x8 d = splat(f16_to_f32(h)[0]);
                for (int i = b; i < n && i < b + 32; i += 8)
                        store_f32(to + i, f32(load_i8(code + i)) * d);
        }
}
INLINE void store_$1(void *to, const float *from, int n)
{
        i8 *code = to;
        for (int b = 0; b < n; b += 32) {
                f32x8 top = splat(0);
                for (int i = b; i < b + 32; i += 8)
                        top = max8(top, abs8(load_f32(from + i)));
                float d = hmax8(top) / 127.0f, by = d < 0x1p-126f ? 0 : 1.0f / d;
                for (int i = b; i < b + 32; i += 16)
                        store_codes(code + i, (i32x8)(load_f32(from + i) * by + 12582912.0f) - 0x4b400000,
                                (i32x8)(load_f32(from + i + 8) * by + 12582912.0f) - 0x4b400000);
                ((u16 *)(code + $2))[b / 32] = f32_to_f16(splat(d))[0];
        }
}
»)m4_dnl
