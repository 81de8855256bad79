// Q6_K: a block of 256 is 16 groups of 16. Low 4 bits: two sub-blocks in the nibbles of 32 bytes, 64 bytes each half of the
// block; high 2 bits: four sub-blocks in 32 bytes; scales: i8 a group; d: f16: d * scale * (code - 32).
enum { BLOCK_Q6_K = 256, BYTES_Q6_K = 210, GROUP_Q6_K = 16, MIN_Q6_K = 0, ZERO_Q6_K = 32, SIGNED_Q6_K = 0, FLUSH_Q6_K = 2 };
INLINE u32x8 codes_Q6_K(const u8 *p, int j, int g)
{
        int n = j / 4, q = j % 4;
        u32x8 low = load_u32(p + 32 * (16 * n + 8 * (q & 1) + g)), high = load_u32(p + 1024 + 32 * (8 * n + g));
        return ((q < 2 ? low : low >> 4) & 0x0f0f0f0f) | ((q < 2 ? high << (4 - 2 * q) : high >> (2 * q - 4)) & 0x30303030);
}
INLINE void scales_Q6_K(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        *s = load_f16(p + 1664) * f32(load_i8(p + 1536 + 8 * (2 * j + h)));
        *m = splat(0);
}
