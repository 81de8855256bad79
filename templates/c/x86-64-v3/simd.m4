// AVX2, FMA, F16C. Builtins that gcc and clang both know: no header to parse; assembler where they have none in common, or where
// gcc 12 makes scalar code of a widening load.
typedef i16 i16x16 __attribute__((vector_size(32)));
typedef char c8x32 __attribute__((vector_size(32)));
typedef i8 i8x16 __attribute__((vector_size(16)));
typedef i16 i16x8 __attribute__((vector_size(16)));
INLINE u32x8 load_u8(const void *p)
{
        u32x8 r;
        __asm__("vpmovzxbd %1, %0" : "=x"(r) : "m"(*(const u8(*)[8])p));
        return r;
}
INLINE i32x8 load_i8(const void *p)
{
        i32x8 r;
        __asm__("vpmovsxbd %1, %0" : "=x"(r) : "m"(*(const i8(*)[8])p));
        return r;
}
// 16 codes, each within -127 .. 127. The packs work within halves: bytes 0..3 of each 128 bits hold a's, 4..7 b's.
INLINE void store_codes(i8 *p, i32x8 a, i32x8 b)
{
        i16x16 w = __builtin_ia32_packssdw256(a, b);
        i32x8 c = (i32x8)__builtin_ia32_packsswb256(w, w);
        i32 out[4] = {c[0], c[4], c[1], c[5]};
        memcpy(p, out, 16);
}
INLINE f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) { return __builtin_ia32_vfmaddps256(a, b, c); }
INLINE f32x8 f16_to_f32(u16x8 h) { return __builtin_ia32_vcvtph2ps256((i16x8)h); }
INLINE u16x8 f32_to_f16(f32x8 f) { return (u16x8)__builtin_ia32_vcvtps2ph256(f, 0); }

INLINE u32x8 lookup(u32x8 v, const i8 table[16])
{
        c8x32 t;
        memcpy(&t, table, 16);
        memcpy((char *)&t + 16, table, 16);
        return (u32x8)__builtin_ia32_pshufb256(t, (c8x32)v);
}
