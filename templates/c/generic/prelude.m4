m4_define(«moe_kernel», «void MOE_NAME«»(void *const *arg, const KernelDim *dim, u32 first, u32 last)»)m4_dnl
// What every CPU kernel begins with. Vectors of 8 lanes are GCC's vector extension: any instruction set will do; simd.m4, found
// first in the instruction set's own folder, has the few operations that need more than that.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef u8 u8x8 __attribute__((vector_size(8)));
typedef i8 i8x8 __attribute__((vector_size(8)));
typedef u16 u16x8 __attribute__((vector_size(16)));
typedef u32 u32x8 __attribute__((vector_size(32)));
typedef i32 i32x8 __attribute__((vector_size(32)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef struct { u32 n_tok, n_out, n_seq, n_ctx; } KernelDim;
typedef struct { i32 id; float w; } Route;

#define INLINE static inline __attribute__((always_inline, unused))
#define memcpy __builtin_memcpy

INLINE u32x8 load_u32(const void *p) { u32x8 v; memcpy(&v, p, 32); return v; }
INLINE f32x8 load_f32(const void *p) { f32x8 v; memcpy(&v, p, 32); return v; }
INLINE void store_f32(void *p, f32x8 v) { memcpy(p, &v, 32); }
INLINE u16x8 load_u16(const void *p) { u16x8 v; memcpy(&v, p, 16); return v; }
INLINE u32 load4(const void *p) { u32 v; memcpy(&v, p, 4); return v; }
INLINE f32x8 f32(i32x8 v) { return __builtin_convertvector(v, f32x8); }
INLINE f32x8 splat(float f) { return (f32x8){f, f, f, f, f, f, f, f}; }
INLINE i32x8 isplat(i32 i) { return (i32x8){i, i, i, i, i, i, i, i}; }
INLINE f32x8 select(i32x8 mask, f32x8 a, f32x8 b) { return (f32x8)((mask & (i32x8)a) | (~mask & (i32x8)b)); }
INLINE f32x8 max8(f32x8 a, f32x8 b) { return select(a > b, a, b); }
INLINE f32x8 min8(f32x8 a, f32x8 b) { return select(a < b, a, b); }
INLINE f32x8 abs8(f32x8 a) { return (f32x8)((u32x8)a & 0x7fffffff); }

m4_include(«simd.m4»)
m4_include(«dot.m4»)
INLINE f32x8 load_f16(const void *p) { return f16_to_f32(load_u16(p)); }
INLINE f32x8 load_bf16(const void *p) { return (f32x8)(__builtin_convertvector(load_u16(p), u32x8) << 16); }

INLINE float sum8(f32x8 v)
{
        return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
INLINE float hmax8(f32x8 v)
{
        float m = v[0];
        for (int i = 1; i < 8; i++)
                m = v[i] > m ? v[i] : m;
        return m;
}
// Lane i of the result: the sum of v[i]'s lanes.
INLINE f32x8 sums8(const f32x8 v[8])
{
        f32x8 a[4], b[2];
        for (int i = 0; i < 4; i++)
                a[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                       __builtin_shufflevector(v[2 * i], v[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
        for (int i = 0; i < 2; i++)
                b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                       __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
        return __builtin_shufflevector(b[0], b[1], 0, 1, 2, 3, 8, 9, 10, 11) +
               __builtin_shufflevector(b[0], b[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

// e^x to 2 ulp: x = n ln2 + r, a polynomial of degree 6 on |r| <= ln2 / 2 (Cephes' coefficients), scaled by 2^n.
INLINE f32x8 exp8(f32x8 x)
{
        x = min8(max8(x, splat(-87.3f)), splat(88.3f));
        f32x8 n = x * 1.44269504f + 12582912.0f;
        i32x8 i = (i32x8)n - 0x4b400000;
        n -= 12582912.0f;
        f32x8 r = x - n * 0.693359375f + n * 2.12194440e-4f;
        f32x8 p = splat(1.9875691500e-4f);
        p = fma8(p, r, splat(1.3981999507e-3f));
        p = fma8(p, r, splat(8.3334519073e-3f));
        p = fma8(p, r, splat(4.1665795894e-2f));
        p = fma8(p, r, splat(1.6666665459e-1f));
        p = fma8(p, r, splat(5.0000001201e-1f));
        p = fma8(p, r * r, r) + 1.0f;
        return p * (f32x8)((i + 127) << 23);
}
INLINE float exp1(float x) { return exp8(splat(x))[0]; }
