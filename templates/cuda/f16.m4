// Quantised values as f16, for tensor cores. Codes are f16 exactly, and so are they less the type's CENTRE. A scale is the sum of two
// f16, so that code * scale - minimum is rounded once.
#define UP   64.0f // what weights are multiplied by: f16 has all its bits for scales down to 2^-20
#define DOWN (1 / UP)
// Codes 0 2 and 1 3 of a word, less ZERO: 1024 + code is the f16 whose low bits the code is; signed codes with 128 more. top: 1024
// twice, with the codes' signs turned over, of which the compiler must not know that it is constant: masked codes take it up in one
// instruction only from a register.
template <int ZERO, bool SIGNED> INLINE void halves(u32 w, u32 top, u32 &even, u32 &odd)
{
        even = sub_f16x2((w & 0x00ff00ff) ^ top, 0x64006400 + ZERO * 0x10001);
        odd = sub_f16x2(SIGNED ? (w >> 8 & 0x00ff00ff) ^ top : prmt(w, top, 0x5351), 0x64006400 + ZERO * 0x10001);
}
// What values are scaled by so that the largest, 127 times `top`, is about 2^15, and what undoes that and UP in sums.
INLINE void power_of_two(float top, float &by, float &back)
{
        u32 e = f32_bits(top) >> 23;
        e = e < 8 ? 8 : e > 253 ? 253 : e;
        by = bits_f32((261 - e) << 23), back = bits_f32((e - 7) << 23) * DOWN;
}
// A scale as two f16, and what is taken off behind it, each twice.
struct Factor {
        u32 high, low, less;
        INLINE_IN void set(float s, float m)
        {
                high = pack_f16(s, s);
                float rest = s - f16_f32(high & 0xffff);
                low = pack_f16(rest, rest);
                less = pack_f16(-m, -m);
        }
        template <bool MIN> INLINE_IN u32 of(u32 code) const { return fma_f16x2(code, high, MIN ? fma_f16x2(code, low, less) : mul_f16x2(code, low)); }
        // Of a q8 value's word.
        INLINE_IN void rounded(u32 w, u32 top, u32 &even, u32 &odd) const
        {
                halves<128, true>(w, top, even, odd);
                even = of<false>(even), odd = of<false>(odd);
        }
        // Of a group of weights, UP times.
        template <class W> INLINE_IN void set_weights(float s, float m) { set(UP * s, W::MIN ? UP * fma1(-(float)W::CENTRE, s, m) : 0); }
};
// Word i of two rows' groups of weights, as a lane's part of a product of 16 values.
template <class W> INLINE void fragment(const u32 (&c)[2][4], const Factor (&by)[2], u32 top, int i, u32 (&a)[4])
{
#pragma unroll
        for (int r = 0; r < 2; r++) {
                u32 even, odd;
                halves<W::CENTRE, !W::MIN>(c[r][i], top, even, odd);
                a[r] = by[r].template of<(bool)W::MIN>(even);
                a[r + 2] = by[r].template of<(bool)W::MIN>(odd);
        }
}
