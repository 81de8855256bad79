// IQ4_NL: blocks of 32. d: f16; codes of 4 bits, placed as in Q4_0, name values of a fixed table (ggml: kvalues_iq4nl).
enum { BLOCK_IQ4_NL = 32, BYTES_IQ4_NL = 18, GROUP_IQ4_NL = 32, MIN_IQ4_NL = 0, ZERO_IQ4_NL = 0, SIGNED_IQ4_NL = 1, FLUSH_IQ4_NL = 1 };
static const i8 table_IQ4_NL[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
INLINE u32x8 codes_IQ4_NL(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 16 + 32 * (g & 3));
        (void)j;
        return lookup((g < 4 ? v : v >> 4) & 0x0f0f0f0f, table_IQ4_NL);
}
INLINE void scales_IQ4_NL(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        (void)j, (void)h;
        *s = load_f16(p);
        *m = splat(0);
}
