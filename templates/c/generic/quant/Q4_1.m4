// Q4_1: blocks of 32. d, m: f16; codes 0 .. 15 of d * code + m, placed as in Q4_0.
enum { BLOCK_Q4_1 = 32, BYTES_Q4_1 = 20, GROUP_Q4_1 = 32, MIN_Q4_1 = 1, ZERO_Q4_1 = 0, SIGNED_Q4_1 = 0, FLUSH_Q4_1 = 8 };
INLINE u32x8 codes_Q4_1(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 32 + 32 * (g & 3));
        (void)j;
        return (g < 4 ? v : v >> 4) & 0x0f0f0f0f;
}
INLINE void scales_Q4_1(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = -load_f16(p + 16);
}
