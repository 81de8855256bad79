// Q5_1: blocks of 32. d, m: f16; fifth bits and codes as in Q5_0: d * code + m.
enum { BLOCK_Q5_1 = 32, BYTES_Q5_1 = 24, GROUP_Q5_1 = 32, MIN_Q5_1 = 1, ZERO_Q5_1 = 0, SIGNED_Q5_1 = 0, FLUSH_Q5_1 = 4 };
INLINE u32x8 codes_Q5_1(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 64 + 32 * (g & 3)), b = load_u32(p + 32) >> (4 * g) & 15;
        (void)j;
        return ((g < 4 ? v : v >> 4) & 0x0f0f0f0f) | ((b | b << 7 | b << 14 | b << 21) & 0x01010101) << 4;
}
INLINE void scales_Q5_1(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = -load_f16(p + 16);
}
