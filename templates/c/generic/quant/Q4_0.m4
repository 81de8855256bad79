// Q4_0: blocks of 32. d: f16; codes 0 .. 15 of d * (code - 8), value i in the low nibble of byte i, i + 16 in the high one.
enum { BLOCK_Q4_0 = 32, BYTES_Q4_0 = 18, GROUP_Q4_0 = 32, MIN_Q4_0 = 0, ZERO_Q4_0 = 8, SIGNED_Q4_0 = 0, FLUSH_Q4_0 = 8 };
INLINE u32x8 codes_Q4_0(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 16 + 32 * (g & 3));
        (void)j;
        return (g < 4 ? v : v >> 4) & 0x0f0f0f0f;
}
INLINE void scales_Q4_0(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = splat(0);
}
