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
};
