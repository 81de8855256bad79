// MXFP4: blocks of 32 (OCP Microscaling Formats 1.0). e: a power of two, bias 127; codes of 4 bits, placed as in Q4_0, are E2M1.
// The table holds twice their values, so the scale is 2^(e - 128); below 2^-126 it is a subnormal.
enum { BLOCK_MXFP4 = 32, BYTES_MXFP4 = 17, GROUP_MXFP4 = 32, MIN_MXFP4 = 0, ZERO_MXFP4 = 0, SIGNED_MXFP4 = 1, FLUSH_MXFP4 = 8 };
static const i8 table_MXFP4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
INLINE u32x8 codes_MXFP4(const u8 *p, int j, int g)
{
        u32x8 v = load_u32(p + 8 + 32 * (g & 3));
        (void)j;
        return lookup((g < 4 ? v : v >> 4) & 0x0f0f0f0f, table_MXFP4);
}
INLINE void scales_MXFP4(const u8 *p, int j, int h, f32x8 *s, f32x8 *m)
{
        u32x8 e = load_u8(p);
        (void)j, (void)h;
        *s = select(e < 2, (f32x8)((isplat(0x00200000) << (i32x8)(e & 1))), (f32x8)((e - 1) << 23));
        *m = splat(0);
}
