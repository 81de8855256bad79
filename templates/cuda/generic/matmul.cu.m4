// matmul: out[i] = res + norm(x) * w[i] + bias[i], one result a weight.
//
// x f32 or q8 [T, K]; w[i] split [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: RPB rows of one weight, NT tokens; a warp: RPB / 8 of the rows, RB at a time. The activations are made (normed,
// rounded) once a block; the first units of weights are on their way before that.
// Grid: sum over i of ceil(N_i / RPB), then ceil(ROWS / NT). 256 threads.
//
//      H100, Q4_K q8 K 2048, GB/s:     N 5120: ?       N 2048, K 4096: ?       N 151936: ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
enum { K = MOE_K, NT = MOE_NT, RPW = MOE_RPB / WARPS, MOST = NT > 1 && ACT_BYTES_X10 == 40 ? 2 : 4 };
enum { RB = RPW % 4 == 0 && MOST == 4 ? 4 : RPW % 3 == 0 && MOST == 4 ? 3 : RPW % 2 == 0 ? 2 : 1 };
enum { PAD = (K + 15) / 16 * 16, CHUNK = CHUNK_OF(PAD, NT, 40960), DEPTH = NT > 1 ? 1 : RB > 2 ? 2 : 4 };
#define EPS MOE_eps
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)

__shared__ moe_acts«»<NT, CHUNK> acts;
__shared__ double sums[WARPS];

// Positions from .. of tokens t0 .. t0 + NT - 1.
INLINE void make(const Args &a, u32 T, u32 t0, int from)
{
        for (int t = 0; t < NT; t++) {
                if (t0 + t >= T) {
                        clear(acts, t);
                        continue;
                }
moe_if(moe_made, 1, «                const float *x = (const float *)moe_arg(«x») + (u64)(t0 + t) * K;
                double r = moe_has(«norm», «norm_of(x, K, EPS, sums)», 0);
                fill<K, PAD, 1>(acts, t, x, from, moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»), r);
», «                copy<K>(acts, t, moe_arg(«x»), T, t0 + t, from);
»)        }
}

moe_for(«I», 0, m4_eval(MOE_NW - 1), «
INLINE void rows_«»I«»(const Args &a, u32 block)
{
        typedef moe_fact(«TYPE_w», I) W;
        enum { N = moe_fact(«N», I) };
        typedef Sums<RB, NT> S;
        const u8 *w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
        Flight<W, K, RB, DEPTH> f;
        int row = (int)block * MOE_RPB + TID / 32 * RPW;
        f.load(w, row, N, 0, Row<W, K>::UNITS < CHUNK / W::UNIT ? Row<W, K>::UNITS : CHUNK / W::UNIT);
        pdl_wait();
        u32 T = moe_rows, t0 = BY * NT;
        if (t0 >= T)
                return;
#pragma unroll 1
        for (int b = 0; b < RPW; b += RB) {
                float acc[RB][NT] = {};
#pragma unroll 1
                for (int from = 0; from < K; from += CHUNK) {
                        if (K > CHUNK || b == 0) {
                                barrier();
                                make(a, T, t0, from);
                                barrier();
                        }
                        product(f, b == 0 && from == 0, w, row + b, N, from, acts, acc);
                }
                float y = S::of(acc);
                int n = row + b + S::row();
                u32 t = t0 + S::token();
                if (S::mine() && n < N && t < T) {
                        u64 at = (u64)t * N + n;
                        m4_ifdef(«MOE_ARG_bias»I, «y += ((const float *)a.arg[moe_fact(«ARG_bias», I)])[n];»)
                        moe_has(«res», «y += ((const float *)moe_arg(«res»))[at];», «»)
                        ((float *)a.arg[moe_fact(«ARG_out», I)])[at] = y;
                }
        }
}
»)
moe_kernel
{
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BX < moe_fact(«END», I)) {
                rows_«»I«»(a, BX - moe_fact(«START», I));
                return;
        }
»)}
