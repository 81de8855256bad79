// Q3_K: a block of 256 is 16 groups of 16. Third bits: bit j of 32 bytes for sub-block j; low 2 bits as in Q2_K; 16 scales of 6
// bits in 12 bytes (low nibbles of 0-7, high nibbles of 0-7, then 2 bits each); d: f16: d * (scale - 32) * (code - 4).
enum { BLOCK_Q3_K = 256, BYTES_Q3_K = 110, GROUP_Q3_K = 16, MIN_Q3_K = 0, ZERO_Q3_K = 4, SIGNED_Q3_K = 0, FLUSH_Q3_K = 8 };
INLINE u32x8 codes_Q3_K(const u8 *p, int j, int g)
{
        u32x8 low = load_u32(p + 256 + 32 * (8 * (j / 4) + g)) >> (2 * (j % 4)) & 0x03030303;
        return low | (load_u32(p + 32 * g) >> j & 0x01010101) << 2;
}
INLINE void scales_Q3_K(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        int i = 2 * j + h;
        u32x8 low = load_u8(p + 768 + 8 * (i & 7)), high = load_u8(p + 768 + 8 * (8 + (i & 3))) >> (2 * (i / 4)) & 3;
        *s = load_f16(p + 864) * f32((i32x8)((i < 8 ? low & 15 : low >> 4) | high << 4) - 32);
        *m = splat(0);
}
