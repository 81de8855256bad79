m4_divert(-1)
// Usage: moe_early(SLOT): the kernel reads the operand ahead of its wait, as the selection (codegen/select_cuda.c) says too.
m4_define(«moe_early», «moe_arity(«moe_early», 1, $#)m4_ifelse(moe_fact(«EARLY_$1», «»), 1, «», «m4_define(«moe_late»)»)m4_dnl»)
// Usage: moe_read_early(): where those reads begin; the wait itself where the launches in front do not allow them.
m4_define(«moe_read_early», «moe_arity(«moe_read_early», 1, $#)m4_ifdef(«moe_late», «pdl_wait()»)»)
// Usage: moe_trigger(WHEN): lets the launch behind this one start; ahead of the wait (first) or behind it (waited), as the
// selection says too.
m4_define(«moe_trigger», «moe_arity(«moe_trigger», 1, $#)m4_ifelse(MOE_TRIGGER, «$1», «pdl_trigger()»,
        «m4_errprint(m4___file__:m4___line__«: the selection says MOE_TRIGGER=»MOE_TRIGGER«, not $1
»)m4_m4exit(2)»)»)
// Usage: moe_trigger_at(WHEN): the same in a kernel that can do either, and has both places: the selection says which counts.
m4_define(«moe_trigger_at», «moe_arity(«moe_trigger_at», 1, $#)m4_ifelse(MOE_TRIGGER, «$1», «pdl_trigger()», «»)»)
m4_define(«moe_kernel», «extern "C" __global__ void m4_ifdef(«MOE_CLUSTER», «CLUSTERED », «»)m4_ifdef(«MOE_REGISTERS», «REGISTERS(MOE_REGISTERS, MOE_THREADS)», «__launch_bounds__(m4_ifdef(«MOE_BLOCKS», «MOE_THREADS, MOE_BLOCKS», «MOE_THREADS»))») MOE_NAME«»(const __grid_constant__ Args a)»)
m4_define(«moe_arg», «moe_arity(«moe_arg», 1, $#)a.arg[moe_fact(«ARG_$1», «»)]»)
m4_define(«moe_rows», «m4_ifelse(m4_regexp(MOE_ROWS, «^[0-9]»), 0, «(u32)MOE_ROWS», «a.dim->MOE_ROWS»)»)
m4_divert(0)m4_dnl
// What every CUDA kernel begins with. No header is included: device.m4 has what is the hardware's, all else is plain C++.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
struct alignas(16) U4 { u32 x, y, z, w; };
struct alignas(8) F2 { float x, y; };
struct alignas(16) F4 { float x, y, z, w; };
struct KernelDim { u32 n_tok, n_out, n_seq, n_ctx; };
struct Route { i32 id; float w; };
struct Args {
        void *arg[MOE_NARG]; // in the launch's order
        const KernelDim *dim;
};
enum { THREADS = MOE_THREADS, WARPS = THREADS / 32 };
#define INF bits_f32(0x7f800000)
m4_include(«device.m4»)

INLINE u32 word(const U4 &q, int i) { return i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w; }
INLINE float abs1(float a) { return bits_f32(f32_bits(a) & 0x7fffffff); }
INLINE float max1(float a, float b) { return a > b ? a : b; }
INLINE float min1(float a, float b) { return a < b ? a : b; }

// The sum over a warp, or over each LANES neighbours of it, in each lane, by one fixed tree.
template <int LANES = 32, class T> INLINE T warp_sum(T v)
{
        for (int m = LANES / 2; m; m /= 2)
                v += shfl_xor(v, m);
        return v;
}
INLINE float warp_max(float v)
{
        for (int m = 16; m; m /= 2)
                v = max1(v, shfl_xor(v, m));
        return v;
}
// The sum of the lanes up to this one.
INLINE u32 warp_upto(u32 v)
{
        for (int m = 1; m < 32; m *= 2) {
                u32 other = shfl(v, TID % 32 < m ? 0 : TID % 32 - m);
                v += TID % 32 >= m ? other : 0;
        }
        return v;
}
// The sum of N values by one fixed tree.
template <int N> INLINE float tree_sum(float (&v)[N])
{
#pragma unroll
        for (int m = 1; m < N; m *= 2)
#pragma unroll
                for (int i = 0; i + m < N; i += 2 * m)
                        v[i] += v[i + m];
        return v[0];
}
// N sums over a warp at once, N a power of two: lane l gets that of v[l / (32 / N)].
template <int N> INLINE float warp_sums(float (&v)[N])
{
        int lane = TID % 32;
#pragma unroll
        for (int m = 16, n = N; m; m /= 2) {
                if (n > 1) {
                        n /= 2;
#pragma unroll
                        for (int i = 0; i < N / 2; i++)
                                if (i < n) {
                                        float send = lane & m ? v[i] : v[i + n], keep = lane & m ? v[i + n] : v[i];
                                        v[i] = keep + shfl_xor(send, m);
                                }
                } else {
                        v[0] += shfl_xor(v[0], m);
                }
        }
        return v[0];
}
// The sum over a block, in each thread; `at` is the block's own, one a warp.
INLINE double block_sum(double v, double *at)
{
        double s = 0;
        v = warp_sum(v);
        barrier();
        if (TID % 32 == 0)
                at[TID / 32] = v;
        barrier();
        for (int i = 0; i < WARPS; i++)
                s += at[i];
        return s;
}

// e^x to 2 ulp: x = n ln2 + r, a polynomial of degree 6 on |r| <= ln2 / 2 (Cephes' coefficients), scaled by 2^n.
INLINE float exp1(float x)
{
        x = min1(max1(x, -87.3f), 88.3f);
        i32 i = nearest(x * 1.44269504f);
        float n = (float)i, r = fma1(n, 2.12194440e-4f, fma1(n, -0.693359375f, x));
        float p = 1.9875691500e-4f;
        p = fma1(p, r, 1.3981999507e-3f);
        p = fma1(p, r, 8.3334519073e-3f);
        p = fma1(p, r, 4.1665795894e-2f);
        p = fma1(p, r, 1.6666665459e-1f);
        p = fma1(p, r, 5.0000001201e-1f);
        p = fma1(p, r * r, r) + 1.0f;
        return p * bits_f32((u32)(i + 127) << 23);
}
