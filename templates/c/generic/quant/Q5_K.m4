// Q5_K: Q4_K with a fifth bit: bit j of 32 bytes for sub-block j.
enum { BLOCK_Q5_K = 256, BYTES_Q5_K = 176, GROUP_Q5_K = 32, MIN_Q5_K = 1, ZERO_Q5_K = 0, SIGNED_Q5_K = 0, FLUSH_Q5_K = 4 };
moe_quant(«Q4_K»)
INLINE u32x8 codes_Q5_K(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 384 + 256 * (j / 2) + 32 * g);
        return ((j & 1 ? v >> 4 : v) & 0x0f0f0f0f) | (load_u32(p + 128 + 32 * g) >> j & 0x01010101) << 4;
}
INLINE void scales_Q5_K(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        scales_Q4_K(p, j, h, s, m);
}
