// IQ4_XS: a block of 256 is 8 sub-blocks of 32, coded as IQ4_NL. d: f16; scales of 6 bits: 2 high bits each in a u16, 4 low bits
// each in 4 bytes: d * (scale - 32) * table[code].
enum { BLOCK_IQ4_XS = 256, BYTES_IQ4_XS = 136, GROUP_IQ4_XS = 32, MIN_IQ4_XS = 0, ZERO_IQ4_XS = 0, SIGNED_IQ4_XS = 1, FLUSH_IQ4_XS = 1 };
moe_quant(«IQ4_NL»)
INLINE u32x8 codes_IQ4_XS(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 64 + 32 * (4 * j + (g & 3)));
        return lookup((g < 4 ? v : v >> 4) & 0x0f0f0f0f, table_IQ4_NL);
}
INLINE void scales_IQ4_XS(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        u32x8 high = __builtin_convertvector(load_u16(p + 16), u32x8) >> (2 * j) & 3;
        u32x8 low = load_u8(p + 32 + 8 * (j / 2)) >> (4 * (j & 1)) & 15;
        (void)h;
        *s = load_f16(p) * f32((i32x8)(low | high << 4) - 32);
        *m = splat(0);
}
