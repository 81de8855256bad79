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
