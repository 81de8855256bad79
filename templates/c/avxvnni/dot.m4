// AVX-VNNI, or AVX-512's VNNI on 256 bits: four products a lane, summed in 32 bits. By assembler, since gcc's and clang's
// builtins have different names.
typedef i32x8 Acc;
#define FLUSH(n) 8
#ifdef __AVXVNNI__
#define DPBUSD "%{vex%} vpdpbusd"
#else
#define DPBUSD "vpdpbusd"
#endif
INLINE i32x8 acc_sum(Acc a) { return a; }
INLINE Acc dpbusd(Acc acc, u32x8 w, u32x8 a)
{
        __asm__(DPBUSD " %2, %1, %0" : "+x"(acc) : "x"(w), "x"(a));
        return acc;
}
INLINE Acc acc_dot(Acc acc, u32x8 w, u32 a) { return dpbusd(acc, w, (u32x8)isplat((i32)a)); }
INLINE Acc acc_dot_signed(Acc acc, u32x8 w, u32 a)
{
        c8x32 x = __builtin_ia32_psignb256((c8x32)isplat((i32)a), (c8x32)w);
        return dpbusd(acc, (u32x8)__builtin_ia32_psignb256((c8x32)w, (c8x32)w), (u32x8)x);
}
