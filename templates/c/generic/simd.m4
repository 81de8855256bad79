// The operations that differ by instruction set, here for any: plain vector C.
INLINE u32x8 load_u8(const void *p) { u8x8 v; memcpy(&v, p, 8); return __builtin_convertvector(v, u32x8); }
INLINE i32x8 load_i8(const void *p) { i8x8 v; memcpy(&v, p, 8); return __builtin_convertvector(v, i32x8); }
// 16 codes, each within -127 .. 127.
INLINE void store_codes(i8 *p, i32x8 a, i32x8 b)
{
        i8x8 low = __builtin_convertvector(a, i8x8), high = __builtin_convertvector(b, i8x8);
        memcpy(p, &low, 8);
        memcpy(p + 8, &high, 8);
}
INLINE f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) { return a * b + c; }

INLINE f32x8 f16_to_f32(u16x8 h)
{
        u32x8 v = __builtin_convertvector(h, u32x8);
        u32x8 m = (v & 0x7fff) << 13;
        f32x8 f = (f32x8)m * 0x1p112f;
        i32x8 special = (v & 0x7c00) == 0x7c00;
        u32x8 bits = ((u32x8)f & (u32x8)~special) | ((m | 0x7f800000) & (u32x8)special);
        return (f32x8)(bits | (v & 0x8000) << 16);
}
// Rounds to nearest even; by magnitude: overflow, normal, subnormal.
INLINE u16x8 f32_to_f16(f32x8 f)
{
        u32x8 b = (u32x8)f, sign = b >> 16 & 0x8000, m = b & 0x7fffffff;
        u32x8 normal = (m - 0x38000000 + 0xfff + (m >> 13 & 1)) >> 13;
        u32x8 sub = (u32x8)((f32x8)m + 0.5f) - 0x3f000000;
        i32x8 small = (i32x8)m < 0x38800000, big = (i32x8)m >= 0x477ff000, nan = (i32x8)m > 0x7f800000;
        u32x8 r = ((u32x8)small & sub) | (~(u32x8)small & normal);
        r = ((u32x8)big & 0x7c00) | (~(u32x8)big & r);
        r = ((u32x8)nan & 0x7e00) | (~(u32x8)nan & r);
        return __builtin_convertvector(r | sign, u16x8);
}

// Each byte of v (0 .. 15) replaced by table's.
INLINE u32x8 lookup(u32x8 v, const i8 table[16])
{
        u32x8 r = {0};
        for (int b = 0; b < 32; b += 8)
                for (int i = 0; i < 8; i++)
                        r[i] |= (u32)(u8)table[v[i] >> b & 15] << b;
        return r;
}
