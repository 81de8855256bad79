// The primitives: all that a kernel needs of the hardware beyond C++, and the only place with PTX or builtins.
#define INLINE static __device__ __forceinline__
#define INLINE_IN __device__ __forceinline__
// Blocks of that many threads, with at most n registers each, where the compiler can be told.
#if __CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 4)
#define REGISTERS(n, threads) __maxnreg__(n)
#else
#define REGISTERS(n, threads) __launch_bounds__(threads)
#endif
#define TID ((int)threadIdx.x)
#define BX blockIdx.x
#define BY blockIdx.y
#define BZ blockIdx.z
#ifdef __CUDA_ARCH__
enum { ARCH = __CUDA_ARCH__ };
#else
enum { ARCH = 0 };
#endif

// Weights: read once, not kept in L1; `kept`: what neighbouring lanes read too, and the small ones a row's later values, so that 128
// bytes come to L2 at once.
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
        asm("ld.global.nc.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(p));
        return v;
}
INLINE u32 kept2(const void *p)
{
        u16 v;
        asm("ld.global.nc.L2::128B.u16 %0, [%1];" : "=h"(v) : "l"(p));
        return v;
}
INLINE u32 kept1(const void *p)
{
        u32 v;
        asm("ld.global.nc.L2::128B.u8 %0, [%1];" : "=r"(v) : "l"(p));
        return v;
}
// To the L2, for a load to come.
INLINE void ahead(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
// What another block of this launch wrote, past the L1.
INLINE float load_far(const float *p)
{
        float v;
        asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
        return v;
}
INLINE F4 load_far4(const F4 *p)
{
        F4 v;
        asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
        return v;
}

INLINE u32 shfl_xor(u32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE i32 shfl_xor(i32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE float shfl_xor(float v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE u64 shfl_xor(u64 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE double shfl_xor(double v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
INLINE u32 shfl(u32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE i32 shfl(i32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE float shfl(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
INLINE u64 shfl(u64 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
// The lanes that have the same value.
INLINE u32 match_any(i32 v) { return __match_any_sync(0xffffffffu, v); }
// Which of the warp's lanes say so; how many bits are set.
INLINE u32 ballot(bool b) { return __ballot_sync(0xffffffffu, b); }
INLINE int bits_of(u32 b) { return __popc(b); }
INLINE int lowest_of(u32 b) { return __ffs((int)b) - 1; }
INLINE void barrier() { __syncthreads(); }
INLINE void warp_barrier() { __syncwarp(); }
// For a part of the block: barrier 1 to 15, whole warps, as many threads as come.
INLINE void part_barrier(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

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
INLINE u32 pack_f16(float low, float high)
{
        u32 v;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
        return v;
}
INLINE float bits_f32(u32 b) { return __uint_as_float(b); }
INLINE u32 f32_bits(float f) { return __float_as_uint(f); }

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
// The other operand where one is NaN.
INLINE float max_f32(float a, float b)
{
        float c;
        asm("max.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
        return c;
}
// 2^f to 2 ulp.
INLINE float exp2_f32(float f)
{
        float e;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(f));
        return e;
}
// 1 / f to an ulp; f not so small that the result is infinite.
INLINE float inverse_f32(float f)
{
        float r;
        asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(f));
        return r;
}
// 1 / sqrt(f) to 2 ulp.
INLINE float rsqrt_f32(float f)
{
        float r;
        asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(f));
        return r;
}
INLINE float sqrt_f32(float f)
{
        float s;
        asm("sqrt.rn.f32 %0, %1;" : "=f"(s) : "f"(f));
        return s;
}
INLINE double sqrt_f64(double f)
{
        double s;
        asm("sqrt.rn.f64 %0, %1;" : "=d"(s) : "d"(f));
        return s;
}

// Waits for all that the launches before this one wrote. Before it nothing is written, and only weights are read and what
// moe_early names (codegen/schedule.h).
INLINE void pdl_wait()
{
#if __CUDA_ARCH__ >= 900
        asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// What this thread wrote is seen by whoever sees what it writes next.
INLINE void publish() { __threadfence(); }
INLINE u32 atomic_inc(u32 *p) { return atomicAdd(p, 1u); }
INLINE void atomic_add(u64 *p, u64 v) { atomicAdd(p, v); }

// The block's shared memory as one T, `sh`; the runtime reads its size from the image.
#define SHARED(T)                                                                 \
        extern "C" {                                                              \
        __device__ u32 MOE_NAME«»_shared = sizeof(T);                             \
        extern __shared__ U4 MOE_NAME«»_room[];                                   \
        }                                                                         \
        INLINE T &shared_memory() { return *(T *)MOE_NAME«»_room; }
#define sh shared_memory()
// What a block may have of it alone on a processor, as codegen/cubin.c checks, and where two share one. PTX (PORTABLE) goes to
// later devices as well, some of which have less.
#ifdef PORTABLE
enum { WHOLE_ROOM = 99 << 10 };
#else
enum { WHOLE_ROOM = ARCH == 800 || ARCH == 870 ? 163 << 10 : ARCH >= 900 && ARCH < 1200 ? 227 << 10 : 99 << 10 };
#endif
enum { SHARED_ROOM = WHOLE_ROOM == 227 << 10 ? 112 << 10 : WHOLE_ROOM == 163 << 10 ? 80 << 10 : 48 << 10 };

INLINE u32 shared_at(const void *p) { return (u32)__cvta_generic_to_shared(p); }
// 16 bytes to shared memory, where this thread may read them after a wait for all, or one that leaves fewer batches.
INLINE void copy16(void *to, const void *from)
{
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_at(to)), "l"(from) : "memory");
}
// The same of 4 bytes.
INLINE void copy4(void *to, const void *from)
{
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_at(to)), "l"(from) : "memory");
}
INLINE void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
INLINE void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
template <int LEFT> INLINE void copies_wait_but() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// Copies that land later. A whole warp begins a batch of `bytes`, asks for its copies (16-byte parts; lane `by` is the one to do it
// where one is enough), ends the batch; whoever waits for turn 0, 1, 0, ... of its barrier sees all of it. Several warps may
// share a batch: each begins and ends its part.
struct Landing { u64 at; };
INLINE void landing_init(Landing *l, int warps = 1)
{
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_at(l)), "r"(ARCH >= 900 ? warps : 32 * warps) : "memory");
#if __CUDA_ARCH__ >= 900
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
INLINE void fetch_begin(Landing *l, u32 bytes)
{
#if __CUDA_ARCH__ >= 900
        if (TID % 32 == 0)
                asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_at(l)), "r"(bytes) : "memory");
        __syncwarp();
#endif
}
// For what is read once: L2 gives it up first.
INLINE u64 read_once()
{
        u64 policy;
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        return policy;
}
INLINE void fetch(void *to, const void *from, u32 bytes, Landing *l, int by)
{
#if __CUDA_ARCH__ >= 900
        if (TID % 32 == by)
                asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(shared_at(to)),
                             "l"(from), "r"(bytes), "r"(shared_at(l)), "l"(read_once())
                             : "memory");
#else
        for (u32 i = 16 * (TID % 32); i < bytes; i += 512)
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_at(to) + i), "l"((const u8 *)from + i) : "memory");
#endif
}
// A copy of its own for each lane that wants one.
INLINE void fetch_mine(bool wants, void *to, const void *from, u32 bytes, Landing *l)
{
#if __CUDA_ARCH__ >= 900
        if (wants)
                asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(shared_at(to)),
                             "l"(from), "r"(bytes), "r"(shared_at(l)), "l"(read_once())
                             : "memory");
#else
        for (u32 all = __ballot_sync(0xffffffffu, wants); all; all &= all - 1) {
                int lane = __ffs((int)all) - 1;
                fetch((void *)shfl((u64)to, lane), (const void *)shfl((u64)from, lane), shfl(bytes, lane), l, lane);
        }
#endif
}
INLINE void fetch_end(Landing *l)
{
#if __CUDA_ARCH__ < 900
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_at(l)) : "memory");
#endif
}
INLINE void landing_wait(Landing *l, u32 turn)
{
        u32 done;
        do
#if __CUDA_ARCH__ >= 900
                asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
#else
                asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
#endif
                             : "=r"(done)
                             : "r"(shared_at(l)), "r"(turn)
                             : "memory");
        while (!done);
}

// Counts in shared memory, from 0: a whole warp passes one, behind all that it did; others wait until so many have. (A landing's turns are
// odd and even: whoever may be more than one turn ahead counts.)
struct Count { u32 n; };
INLINE void count_pass(Count *c)
{
        __syncwarp();
        if (TID % 32 == 0)
                asm volatile("red.release.cta.shared.add.u32 [%0], 1;" ::"r"(shared_at(c)) : "memory");
}
INLINE void count_wait(Count *c, u32 passes)
{
        u32 n;
        do
                asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(n) : "r"(shared_at(c)) : "memory");
        while (n < passes);
}

// A cluster's blocks, which see each other's shared memory; where there are none, a block is its own.
m4_define(«MOE_cluster», «m4_ifdef(«MOE_CLUSTER», «MOE_CLUSTER», 1)»)m4_dnl
#if __CUDA_ARCH__ >= 900
enum { CLUSTER = MOE_cluster };
#define CLUSTERED __cluster_dims__(1, 1, MOE_cluster)
#else
enum { CLUSTER = 1 };
#define CLUSTERED
#endif
INLINE void cluster_arrive()
{
#if __CUDA_ARCH__ >= 900
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
INLINE void cluster_wait()
{
#if __CUDA_ARCH__ >= 900
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// The same place in the shared memory of block `rank` of the cluster.
template <class T> INLINE T *cluster_at(T *p, u32 rank)
{
#if __CUDA_ARCH__ >= 900
        u64 far;
        asm("mapa.u64 %0, %1, %2;" : "=l"(far) : "l"(p), "r"(rank));
        return (T *)far;
#else
        return p;
#endif
}

// Lets the launch behind this one start when every block has come here; by moe_trigger, which knows when that may be.
INLINE void pdl_trigger()
{
#if __CUDA_ARCH__ >= 900
        asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// d += a b on tensor cores, by a warp: 16 x 8, of 16 x 16 and 16 x 8 values in f16, laid out as PTX's m16n8k16 has it.
INLINE void mma_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2])
{
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of 16 x 8 and 8 x 8 values in f32, of which 10 bits behind the first count, laid out as PTX's m16n8k8 has tf32.
INLINE void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2])
{
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Two f16 at a time.
#define F16X2(name)                                                                       \
        INLINE u32 name##_f16x2(u32 a, u32 b)                                             \
        {                                                                                 \
                u32 c;                                                                    \
                asm(#name ".rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));            \
                return c;                                                                 \
        }
F16X2(sub)
F16X2(mul)
INLINE u32 fma_f16x2(u32 a, u32 b, u32 c)
{
        u32 d;
        asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
        return d;
}

// v, which the compiler cannot see through: what is made of it is made where it stands, not earlier and kept in registers.
INLINE int here(int v)
{
        asm volatile("" : "+r"(v));
        return v;
}
INLINE const u8 *here(const u8 *p)
{
        asm volatile("" : "+l"(p));
        return p;
}
// Four 8 x 8 blocks of 16-bit values in shared memory, by a warp: lane l says where row l % 8 of block l / 8 is, and gets of each
// block row l / 4's values 2 (l % 4) and the next; turned: of each block column l / 4's.
INLINE void ldmatrix(u32 (&d)[4], const void *row)
{
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(shared_at(row))
                     : "memory");
}
INLINE void ldmatrix_turned(u32 (&d)[4], const void *row)
{
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(shared_at(row))
                     : "memory");
}

// Products on tensor cores by a group of four warps, lanes in step: acc += a x, 64 rows of 16 values times 8 NB columns. A warp has 16
// of the rows; a and acc[n], of columns 8 n .., are laid out as mma_f16 has them. x[at ..], in shared memory: the columns' first 8
// values, 16 bytes each, and `apart` of those on the columns' other 8. The products are asked for between tile_begin and tile_end and
// done at tile_wait: until then neither a nor x nor acc is touched. What x holds is handed over by tile_fence and a barrier.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
INLINE void tile_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
INLINE void tile_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void tile_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
INLINE void tile_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
// A block's own shared memory begins at its rank in the cluster << 24.
INLINE u64 tile_at(const U4 *x, int at, int apart) { return (u64)((shared_at(x) >> 4 & 0x3fff) + (u32)(apart << 16) + (u32)at) | (u64)8 << 32; }
m4_define(«moe_tile_product», «INLINE void tile_product(float (&d)[$1][4], const u32 (&a)[4], const U4 *x, int at, int apart)
{
        asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n«»m4_eval(8 * $1)k16.f32.f16.f16 {%0«»moe_for(«I», 1, m4_eval(4 * $1 - 1), «, %I»)}, {%m4_eval(4 * $1), %m4_eval(4 * $1 + 1), %m4_eval(4 * $1 + 2), %m4_eval(4 * $1 + 3)}, %m4_eval(4 * $1 + 4), p, 1, 1, 0; }"
                     : "+f"(d[0][0])«»moe_for(«I», 1, m4_eval(4 * $1 - 1), «, "+f"(d[m4_eval(I / 4)][m4_eval(I % 4)])»)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile_at(x, at, apart))
                     : "memory");
}
»)m4_dnl
moe_for(«N», 1, 16, «moe_tile_product(N)»)m4_dnl
#else
INLINE void tile_fence() {}
INLINE void tile_begin() {}
INLINE void tile_end() {}
INLINE void tile_wait() {}
template <int NB> INLINE void tile_product(float (&acc)[NB][4], const u32 (&a)[4], const U4 *x, int at, int apart)
{
        int lane = TID % 32;
#pragma unroll
        for (int n = 0; n < NB; n += 2) {
                u32 b[4];
                ldmatrix(b, x + at + lane / 8 % 2 * apart + (n + 1 < NB ? n + lane / 16 : n) * 8 + lane % 8);
                u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
                mma_f16(acc[n], a, first);
                if (n + 1 < NB)
                        mma_f16(acc[n + 1 < NB ? n + 1 : 0], a, second);
        }
}
#endif
