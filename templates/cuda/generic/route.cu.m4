// route: each token's k experts and their weights, from logits x [T, E], or from norm(x) [T, K] times w [E, K].
//
// out Route [T, KTOP]; with q8 norm(x) [T, K] too. Among equal scores the lowest index wins; NaN is below every number. SPLIT blocks share a token's
// product, a warp a row; the block that ends last has the logits from memory of this module and chooses: an expert's place is
// how many are above it. 256 threads. Grid: T, SPLIT.
//
//      H100, E 128, K 2048, microseconds:  2 tokens: 12    64: 18
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
enum { E = MOE_E, KTOP = MOE_k, GROUPS = MOE_groups, GROUPS_K = MOE_groups_k, SPLIT = MOE_SPLIT };
__shared__ float z[E];
m4_include(«choose.m4»)
__shared__ double sums[WARPS];
__shared__ u32 ended;
moe_has(«w», «moe_quant(MOE_TYPE_w)
typedef MOE_TYPE_w W;
enum { K = MOE_K, PAD = (K + 15) / 16 * 16, CHUNK = CHUNK_OF(PAD, 1, 36864), ROWS = (E + SPLIT - 1) / SPLIT, DEPTH = 8 };
__shared__ ActsF32<1, CHUNK> acts;
__device__ float logits[MOE_MAXTOK][E];
__device__ u32 count[MOE_MAXTOK];

moe_if(MOE_out, q8, «// norm(x) of token t in q8.
INLINE void round_x(const Args &a, const float *x, u32 t, double r)
{
        u64 n = (u64)a.dim->n_tok * K;
#pragma unroll 1
        for (int i = TID; i < (K + THREADS - 1) / THREADS * THREADS; i += THREADS)
                quantize1(i < K ? moe_has(«norm», «normed(x[i], r, ((const float *)moe_arg(«norm»))[i])», «x[i]») : 0, moe_arg(«out1»), n, (u64)t * K + (u32)i, i < K);
}
», «»)// This block's logits; whether all of the token's are there now, in z.
INLINE bool product_of(const Args &a, u32 t)
{
        for (int i = TID / 32; i < (ROWS + WARPS - 1) / WARPS * WARPS; i += WARPS) {
                int row = (int)BY * ROWS + i;
                bool in = i < ROWS && row < E;
                float acc[1][1] = {};
                Flight<W, K, 1, DEPTH> f;
                if (i < WARPS)
                        f.load((const u8 *)moe_arg(«w»), row, E, 0, Row<W, K>::UNITS < CHUNK / W::UNIT ? Row<W, K>::UNITS : CHUNK / W::UNIT);
                if (i < WARPS)
                        pdl_wait();
                if (t >= a.dim->n_tok)
                        return false;
#pragma unroll 1
                for (int from = 0; from < K; from += CHUNK) {
                        if (K > CHUNK || i < WARPS) {
                                const float *x = (const float *)moe_arg(«x») + (u64)t * K;
                                double r = moe_has(«norm», «norm_of(x, K, MOE_eps, sums)», 0);
moe_if(MOE_out, q8, «                                if (BY == 0 && i < WARPS && from == 0)
                                        round_x(a, x, t, r);
», «»)                                barrier();
                                fill<K, PAD, 1>(acts, 0, x, from, moe_has(«norm», «(const float *)moe_arg(«norm»)», «0»), r);
                                barrier();
                        }
                        product(f, i < WARPS && from == 0, (const u8 *)moe_arg(«w»), row, E, from, acts, acc);
                }
                float y = warp_sum(acc[0][0]);
                if (TID % 32 == 0 && in)
                        (SPLIT == 1 ? z : logits[t])[row] = y;
        }
        if (SPLIT > 1) {
                publish();
                barrier();
                if (TID == 0)
                        ended = atomic_inc(&count[t]) + 1;
                barrier();
                if (ended != SPLIT)
                        return false;
                publish();
                if (TID == 0)
                        count[t] = 0;
                for (int i = TID; i < E; i += THREADS)
                        z[i] = load_far(&logits[t][i]);
        }
        return true;
}
», «»)
moe_kernel
{
        moe_trigger(first);
        u32 t = BX;
moe_has(«w», «        if (!product_of(a, t))
                return;
», «        pdl_wait();
        if (t >= a.dim->n_tok)
                return;
        for (int i = TID; i < E; i += THREADS)
                z[i] = ((const float *)moe_arg(«x»))[(u64)t * E + i];
»)        barrier();
        choose(a, z, (Route *)moe_arg(«out0») + (u64)t * KTOP);
}
