// Q8_0: blocks of 32. d: f16; signed codes.
enum { BLOCK_Q8_0 = 32, BYTES_Q8_0 = 34, GROUP_Q8_0 = 32, MIN_Q8_0 = 0, ZERO_Q8_0 = 0, SIGNED_Q8_0 = 1, FLUSH_Q8_0 = 1 };
INLINE u32x8 codes_Q8_0(const u8 *p, int j, int g)
{
        (void)j;
        return load_u32(p + 16 + 32 * g);
}
INLINE void scales_Q8_0(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = splat(0);
}
