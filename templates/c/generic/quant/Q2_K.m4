// Q2_K: a block of 256 is 16 groups of 16. Scale and minimum of 4 bits in a byte a group; codes of 2 bits, four sub-blocks of 32
// in the same 32 bytes; d, dmin: f16.
enum { BLOCK_Q2_K = 256, BYTES_Q2_K = 84, GROUP_Q2_K = 16, MIN_Q2_K = 1, ZERO_Q2_K = 0, SIGNED_Q2_K = 0, FLUSH_Q2_K = 8 };
INLINE u32x8 codes_Q2_K(const u8 *p, int j, int g)
{
        return load_u32(p + 128 + 32 * (8 * (j / 4) + g)) >> (2 * (j % 4)) & 0x03030303;
}
INLINE void scales_Q2_K(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        u32x8 q = load_u8(p + 8 * (2 * j + h));
        *s = load_f16(p + 640) * f32((i32x8)(q & 15));
        *m = load_f16(p + 656) * f32((i32x8)(q >> 4));
}
