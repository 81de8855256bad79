// matmul_many: matmul in a step of several tokens, on tensor cores: out[i] = res + x * w[i] + bias[i], one result a weight.
//
// x q8 [T, K]; w[i] split [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: RPB = 32 MW rows of one weight, up to NT tokens; the first pieces of its rows are on their way before the wait.
// Grid: sum over i of ceil(N_i / RPB), then ceil(ROWS / NT). 32 MW KW threads.
//
//      H100, Q4_K K 2048, microseconds:     N 5120, 2 tokens: 19   512: 90      Q6_K N 151936, 2 tokens: 318
m4_include(«prelude.m4»)
m4_include(«many.m4»)
m4_include(«types.m4»)
enum { K = MOE_K, RPB = MOE_RPB };
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)
struct Shared {
        Tokens t;
};
SHARED(Shared)

// Where a weight's results go.
struct To {
        float *out;
        const float *bias, *res; // or 0
        int n;
};

template <int NB, class W> INLINE void tile(Pair<W, W, K> &w, const Acts<K> &x, const To &to, int from, u32 t0, u32 T)
{
        x.weigh(sh.t, 8 * NB);
        float acc[2][NB][4] = {};
        w.times(sh.t, x, acc);
        int lane = here(TID % 32);
#pragma unroll
        for (int i = 0; i < 8 * NB; i++) {
                int t = i / 4 % NB * 8 + lane % 4 * 2 + i % 2, r = from + i / 4 / NB * 16 + lane / 4 + i % 4 / 2 * 8;
                float y = acc[i / 4 / NB][i / 4 % NB][i % 4] * sh.t.back[t];
                u64 at = (u64)(t0 + (u32)t) * (u32)to.n + (u32)r;
                if (k_warp() == 0 && t0 + (u32)t < T && r < to.n) {
                        if (to.bias)
                                y += to.bias[r];
                        moe_has(«res», «y += to.res[at];», «»)
                        to.out[at] = y;
                }
        }
}

template <class W> INLINE void rows(const Args &a, const u8 *base, const To &to, u32 block)
{
        Pair<W, W, K> w;
        int from = (int)block * RPB + rows_warp() * 32;
        w.template rows<W>(0, base, from, to.n);
        w.template rows<W>(1, base, from + 16, to.n);
        w.begin();
        pdl_wait();
        u32 T = moe_rows, t0 = BY * NT;
        if (t0 >= T)
                return;
        for (u32 t = (u32)TID; t < NT; t += THREADS)
                sh.t.row[t] = t0 + t < T ? t0 + t : T - 1;
        barrier();
        Acts<K> x(moe_arg(«x»), T);
        moe_tiles(«tile», «(w, x, to, from, t0, T)», «T - t0», m4_ifelse(m4_eval(MOE_NT > 32), 1, MOE_NT, 8), 4)
}

moe_kernel
{
        moe_trigger(first);
        const u8 *w = 0;
        u32 block = 0;
        int type = 0;
        To to;
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BX >= moe_fact(«START», I) && BX < moe_fact(«END», I)) {
                w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
                to = {(float *)a.arg[moe_fact(«ARG_out», I)], m4_ifdef(«MOE_ARG_bias»I, «(const float *)a.arg[moe_fact(«ARG_bias», I)]», 0), moe_has(«res», «(const float *)moe_arg(«res»)», 0), moe_fact(«N», I)};
                block = BX - moe_fact(«START», I);
                type = moe_type_first(I);
        }
»)moe_for(«I», 0, m4_eval(MOE_NW - 1), «m4_ifelse(moe_type_first(I), I, «        if (moe_types == 1 || type == I) {
                rows<moe_fact(«TYPE_w», I)>(a, w, to, block);
                return;
        }
»)»)}
