// AVX2, FMA, F16C. Builtins that gcc and clang both know: no header to parse.
typedef i16 i16x16 __attribute__((vector_size(32)));
typedef char c8x32 __attribute__((vector_size(32)));
typedef i8 i8x16 __attribute__((vector_size(16)));
typedef i16 i16x8 __attribute__((vector_size(16)));
INLINE f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) { return __builtin_ia32_vfmaddps256(a, b, c); }
INLINE f32x8 f16_to_f32(u16x8 h) { return __builtin_ia32_vcvtph2ps256((i16x8)h); }
INLINE u16x8 f32_to_f16(f32x8 f) { return (u16x8)__builtin_ia32_vcvtps2ph256(f, 0); }

// 16-bit partial sums: codes up to q allow 32767 / (2 * 127 * q) dots.
typedef i16x16 Acc;
#define FLUSH(n) (n)
INLINE i32x8 acc_sum(Acc a) { return (i32x8)__builtin_ia32_pmaddwd256(a, (i16x16)isplat(0x10001)); }
INLINE Acc acc_dot(Acc acc, u32x8 w, u32 a) { return acc + __builtin_ia32_pmaddubsw256((c8x32)w, (c8x32)isplat((i32)a)); }
INLINE Acc acc_dot_signed(Acc acc, u32x8 w, u32 a)
{
        c8x32 x = __builtin_ia32_psignb256((c8x32)isplat((i32)a), (c8x32)w);
        return acc + __builtin_ia32_pmaddubsw256((c8x32)__builtin_ia32_psignb256((c8x32)w, (c8x32)w), x);
}
INLINE u32x8 lookup(u32x8 v, const i8 table[16])
{
        c8x32 t;
        memcpy(&t, table, 16);
        memcpy((char *)&t + 16, table, 16);
        return (u32x8)__builtin_ia32_pshufb256(t, (c8x32)v);
}
