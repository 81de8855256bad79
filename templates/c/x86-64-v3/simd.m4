// AVX2, FMA, F16C. Builtins that gcc and clang both know: no header to parse.
typedef i16 i16x16 __attribute__((vector_size(32)));
typedef char c8x32 __attribute__((vector_size(32)));
typedef i8 i8x16 __attribute__((vector_size(16)));
typedef i16 i16x8 __attribute__((vector_size(16)));
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
