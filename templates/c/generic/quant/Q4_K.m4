// Q4_K: a block of 256 is 8 sub-blocks of 32. d, dmin: f16; scales and minimums of 6 bits in 12 bytes; codes of 4 bits, two
// sub-blocks in the nibbles of 32 bytes.
enum { BLOCK_Q4_K = 256, BYTES_Q4_K = 144, GROUP_Q4_K = 32, MIN_Q4_K = 1, ZERO_Q4_K = 0, SIGNED_Q4_K = 0, FLUSH_Q4_K = 8 };
INLINE u32x8 codes_Q4_K(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 128 + 256 * (j / 2) + 32 * g);
        return (j & 1 ? v >> 4 : v) & 0x0f0f0f0f;
}
INLINE void scales_Q4_K(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        const u8 *q = p + 32;
        u32x8 sc, mn;
        (void)h;
        if (j < 4) {
                sc = load_u8(q + 8 * j) & 63;
                mn = load_u8(q + 8 * (j + 4)) & 63;
        } else {
                sc = (load_u8(q + 8 * (j + 4)) & 15) | load_u8(q + 8 * (j - 4)) >> 6 << 4;
                mn = load_u8(q + 8 * (j + 4)) >> 4 | load_u8(q + 8 * j) >> 6 << 4;
        }
        *s = load_f16(p) * f32((i32x8)sc);
        *m = load_f16(p + 16) * f32((i32x8)mn);
}
