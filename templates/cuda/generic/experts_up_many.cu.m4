// experts_up_many: experts_up in a step of several tokens, on tensor cores: glu(gate_e(x), up_e(x)) of every chosen expert e.
//
// x q8 [T, K]; order as sort has it; gate, up split [E, F, K]; out f32 or q8 [T, KTOP, F].
// A piece of work: PART = 16 MW rows of both matrices times up to NT of one expert's tokens: a touched expert's rows leave the
// memory once for up to NT tokens, and L2 for more. SPLIT blocks take them in turns. Grid: SPLIT. 32 MW KW threads.
//
//      H100, Q4_K K 2048, F 768, 8 of 128 experts, microseconds:  2 tokens: 30     64: 191    512: 239    2048: ?
m4_include(«prelude.m4»)
m4_include(«many.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, PART = MOE_PART, PARTS = (F + PART - 1) / PART };
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
typedef MOE_TYPE_gate WG;
typedef MOE_TYPE_up WU;
struct Shared {
        Tokens t;
        u32 start[E + 1];
        u32 pair[NT]; // where each result goes; over KTOP: its token
        alignas(16) float h[NT][PART + 4];
};
SHARED(Shared)

// Results of the first n tokens, out of sh.h.
INLINE void put(const Args &a, u32 T, int from, int n)
{
moe_if(MOE_out, q8, «        u8 *q = (u8 *)moe_arg(«out0»);
        u64 rows = (u64)T * KTOP;
        float *d = (float *)(q + rows * F), *s = d + rows * (F / 16);
        for (int j = 0; j < (n * PART / 4 + THREADS - 1) / THREADS; j++) {
                int i = j * THREADS + TID, t = i / (PART / 4), at = 4 * (i % (PART / 4));
                bool in = t < n && from + at < F;
                float v[4], scale, sum;
                for (int c = 0; c < 4; c++)
                        v[c] = in ? sh.h[in ? t : 0][at + c] : 0;
                u32 code = quantize4(v, scale, sum);
                if (in) {
                        u64 p = (u64)sh.pair[t] * F + (u32)(from + at);
                        *(u32 *)(q + p) = code;
                        if (i % 4 == 0)
                                d[p / 16] = scale, s[p / 16] = sum;
                }
        }
», «        for (int i = TID; i < n * PART; i += THREADS)
                if (from + i % PART < F)
                        ((float *)moe_arg(«out0»))[(u64)sh.pair[i / PART] * F + (u32)(from + i % PART)] = sh.h[i / PART][i % PART];
        (void)T;
»)}

template <int NB> INLINE void tile(const Args &a, u32 T, u32 e, u32 at, int n)
{
        Pair<WG, WU, K> w;
        int part = (int)at * PART, from = part + rows_warp() * 16;
        w.template rows<WG>(0, (const u8 *)moe_arg(«gate») + (u64)e * F * Row<WG, K>::BYTES, from, F);
        w.template rows<WU>(1, (const u8 *)moe_arg(«up») + (u64)e * F * Row<WU, K>::BYTES, from, F);
        w.begin();
        Acts<K> x(moe_arg(«x»), T);
        x.weigh(sh.t, 8 * NB);
        float acc[2][NB][4] = {};
        w.times(sh.t, x, acc);
        int lane = here(TID % 32);
#pragma unroll
        for (int i = 0; i < 4 * NB; i++) {
                int t = i / 4 * 8 + lane % 4 * 2 + i % 2, r = lane / 4 + i % 4 / 2 * 8;
                float g = acc[0][i / 4][i % 4] * sh.t.back[t], u = acc[1][i / 4][i % 4] * sh.t.back[t];
                if (k_warp() == 0 && from + r < F) {
                        moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)e * F + (u32)(from + r)];», «»)
                        moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)e * F + (u32)(from + r)];», «»)
                        sh.h[t][from + r - part] = glu(g, u);
                }
        }
        barrier();
        put(a, T, part, n);
}

moe_kernel
{
        moe_trigger(first);
        pdl_wait();
        u32 T = a.dim->n_tok;
        const u32 *off = (const u32 *)moe_arg(«order»), *pairs = off + E + 1;
        count_tiles<E>(sh.start, off);
#pragma unroll 1
        for (u32 item = BX; item < sh.start[E] * PARTS; item += MOE_SPLIT) {
                u32 e = expert_of<E>(sh.start, item / PARTS), end = off[e + 1], i = off[e] + (item / PARTS - sh.start[e]) * NT;
                int n = (int)(end - i < NT ? end - i : NT);
                barrier();
                for (u32 t = (u32)TID; t < NT; t += THREADS) {
                        sh.pair[t] = pairs[i + t < end ? i + t : end - 1];
                        sh.t.row[t] = sh.pair[t] / KTOP;
                }
                barrier();
                moe_tiles(«tile», «(a, T, e, item % PARTS, n)», «n», m4_ifelse(m4_eval(MOE_NT > 16), 1, 16, 8), 2)
        }
}
