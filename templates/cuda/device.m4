// The primitives: all that a kernel needs of the hardware beyond C++, and the only place with PTX or builtins.
#define INLINE static __device__ __forceinline__
#define INLINE_IN __device__ __forceinline__
#define TID ((int)threadIdx.x)
#define BX blockIdx.x
#define BY blockIdx.y
#define BZ blockIdx.z

// Weights: read once, not kept in L1; `kept`: what neighbouring lanes read too.
INLINE U4 load16(const void *p)
{
        U4 v;
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
        return v;
}
INLINE U4 kept16(const void *p)
{
        U4 v;
        asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
        return v;
}
INLINE u32 kept4(const void *p)
{
        u32 v;
        asm("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
        return v;
}
INLINE u32 kept2(const void *p)
{
        u16 v;
        asm("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
        return v;
}
INLINE u32 kept1(const void *p)
{
        u32 v;
        asm("ld.global.nc.u8 %0, [%1];" : "=r"(v) : "l"(p));
        return v;
}
// What another block of this launch wrote, past the L1.
INLINE float load_far(const float *p)
{
        float v;
        asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
        return v;
}

INLINE u32 shfl_xor(u32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE i32 shfl_xor(i32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE float shfl_xor(float v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE double shfl_xor(double v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE u32 shfl(u32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE i32 shfl(i32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE float shfl(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE void barrier() { __syncthreads(); }
INLINE void warp_barrier() { __syncwarp(); }

// c + the four products of signed bytes.
INLINE i32 dp4a(u32 a, u32 b, i32 c)
{
        i32 d;
        asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
        return d;
}
// Byte i of the result: byte (selector's nibble i) of the eight bytes a, b.
INLINE u32 prmt(u32 a, u32 b, u32 selector)
{
        u32 d;
        asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
        return d;
}
INLINE float f16_f32(u32 h)
{
        float f;
        asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"((u16)h));
        return f;
}
INLINE u32 f32_f16(float f)
{
        u16 h;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
        return h;
}
INLINE float bits_f32(u32 b) { return __uint_as_float(b); }

// Rounded as they stand: never joined into a multiply-add.
INLINE float mul1(float a, float b)
{
        float c;
        asm("mul.rn.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
        return c;
}
INLINE float fma1(float a, float b, float c)
{
        float d;
        asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(d) : "f"(a), "f"(b), "f"(c));
        return d;
}
// To the nearest integer, even on ties.
INLINE i32 nearest(float f)
{
        i32 i;
        asm("cvt.rni.s32.f32 %0, %1;" : "=r"(i) : "f"(f));
        return i;
}
INLINE double nearest(double f)
{
        double i;
        asm("cvt.rni.f64.f64 %0, %1;" : "=d"(i) : "d"(f));
        return i;
}
INLINE double sqrt_f64(double f)
{
        double s;
        asm("sqrt.rn.f64 %0, %1;" : "=d"(s) : "d"(f));
        return s;
}

// Waits for all that the launches before this one wrote. Before it only weights may be read, and nothing written.
INLINE void pdl_wait()
{
#if __CUDA_ARCH__ >= 900
        asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// What this thread wrote is seen by whoever sees what it writes next.
INLINE void publish() { __threadfence(); }
INLINE u32 atomic_inc(u32 *p) { return atomicAdd(p, 1u); }
