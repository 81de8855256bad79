// Q5_0: blocks of 32. d: f16; the codes' fifth bits, bit i for value i; low bits as in Q4_0: d * (code - 16).
enum { BLOCK_Q5_0 = 32, BYTES_Q5_0 = 22, GROUP_Q5_0 = 32, MIN_Q5_0 = 0, ZERO_Q5_0 = 16, SIGNED_Q5_0 = 0, FLUSH_Q5_0 = 4 };
INLINE u32x8 codes_Q5_0(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 48 + 32 * (g & 3)), b = load_u32(p + 16) >> (4 * g) & 15;
        (void)j;
        return ((g < 4 ? v : v >> 4) & 0x0f0f0f0f) | ((b | b << 7 | b << 14 | b << 21) & 0x01010101) << 4;
}
INLINE void scales_Q5_0(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = splat(0);
}
