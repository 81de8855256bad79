// matmul_tf32: matmul in a step of several tokens with a weight in f32, on tensor cores: out = res + x * w + bias.
//
// x f32 [T, K]; w split [N, K]; out f32 [T, N]; res f32 [T, N], may be out itself.
// Each value is the sum of two that tf32 has room for, and a product three products of these, which leaves 2^-20 of it: as exact as
// f32's sums. A block: 16 tokens by RPB rows, whose K its warps share; the sums meet in shared memory in the order of the warps. In each
// 16 values of K a lane takes 4 neighbours, as its part of two products: an order of summation like any other.
// Grid: ceil(N / RPB), ceil(T / 16). 256 threads.
//
//      H100, N 128, K 2048, microseconds: 512 tokens: 25      2048: 34
m4_include(«prelude.m4»)
enum { K = MOE_K, N = MOE_N0, RPB = MOE_RPB, TOKENS = MOE_NT, TILES = RPB / 8, EACH = K / WARPS };
struct Shared {
        alignas(16) float sum[WARPS][TOKENS][RPB + 4];
};
SHARED(Shared)

// Four neighbours of a row as the operands of two products: what tf32 has room for, and the rest.
struct Split {
        u32 high[4], low[4];
        INLINE_IN void of(const F4 &v)
        {
                float f[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        high[i] = f32_bits(f[i]) & 0xffffe000;
                        low[i] = f32_bits(f[i] - bits_f32(high[i]));
                }
        }
};
INLINE void multiply(float (&d)[4], const u32 (&a0)[4], const u32 (&a1)[4], const u32 (&b)[4])
{
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
                u32 x[4] = {a0[i], a1[i], a0[i + 1], a1[i + 1]}, y[2] = {b[i], b[i + 1]};
                mma_tf32(d, x, y);
        }
}

moe_kernel
{
        moe_trigger(first);
        pdl_wait();
        u32 T = moe_rows, t0 = BY * TOKENS;
        if (t0 >= T)
                return;
        int warp = TID / 32, row = TID % 32 / 4, first = (int)BX * RPB;
        const float *x[2], *w = (const float *)moe_arg(«w0») + warp * EACH + TID % 4 * 4;
        for (u32 h = 0; h < 2; h++) {
                u32 t = t0 + 8 * h + (u32)row;
                x[h] = (const float *)moe_arg(«x») + (u64)(t < T ? t : T - 1) * K + warp * EACH + TID % 4 * 4;
        }
        float acc[TILES][4] = {};
        F4 v[TILES], u[2]; // on their way while those before them are multiplied
        auto load = [&](int k) {
#pragma unroll
                for (int n = 0; n < TILES; n++) {
                        int r = first + 8 * n + row;
                        v[n] = *(const F4 *)(w + (u64)(u32)(r < N ? r : N - 1) * K + k);
                }
                u[0] = *(const F4 *)(x[0] + k), u[1] = *(const F4 *)(x[1] + k);
        };
        load(0);
#pragma unroll 1
        for (int k = 0; k < EACH; k += 16) {
                Split a[2], b;
                F4 now[TILES];
                a[0].of(u[0]), a[1].of(u[1]);
#pragma unroll
                for (int n = 0; n < TILES; n++)
                        now[n] = v[n];
                load(k + 16 < EACH ? k + 16 : k);
#pragma unroll
                for (int n = 0; n < TILES; n++) {
                        b.of(now[n]);
                        multiply(acc[n], a[0].low, a[1].low, b.high);
                        multiply(acc[n], a[0].high, a[1].high, b.low);
                        multiply(acc[n], a[0].high, a[1].high, b.high);
                }
        }
#pragma unroll
        for (int n = 0; n < TILES; n++)
                for (int i = 0; i < 4; i++)
                        sh.sum[warp][row + i / 2 * 8][8 * n + TID % 4 * 2 + i % 2] = acc[n][i];
        barrier();
#pragma unroll 1
        for (int i = TID; i < TOKENS * RPB; i += THREADS) {
                int r = first + i % RPB;
                u32 t = t0 + (u32)(i / RPB);
                float y = 0;
                for (int g = 0; g < WARPS; g++)
                        y += sh.sum[g][i / RPB][i % RPB];
                if (r >= N || t >= T)
                        continue;
                u64 at = (u64)t * N + (u32)r;
                m4_ifdef(«MOE_ARG_bias0», «y += ((const float *)moe_arg(«bias0»))[r];», «»)
                moe_has(«res», «y += ((const float *)moe_arg(«res»))[at];», «»)
                ((float *)moe_arg(«out0»))[at] = y;
        }
}
