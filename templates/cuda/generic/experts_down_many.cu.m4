// experts_down_many: experts_down in a step of several tokens, on tensor cores: res + sum over the chosen experts e of
// weight_e * down_e(x[:, slot]).
//
// x q8 [T, KTOP, F]; route [T, KTOP]; order as sort has it; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// A piece of work: RPB = 32 MW rows of H times up to NT of one expert's pairs; SPLIT blocks take them in turns. What a pair has is
// put by; who puts by the last one of a token's sums them, in order of slots. Grid: SPLIT. 32 MW KW threads.
//
//      H100, Q4_K H 2048, F 768, 8 of 128 experts, microseconds:  2 tokens: 30     64: 173    512: 206    2048: ?
m4_include(«prelude.m4»)
m4_include(«many.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, RPB = MOE_RPB, PARTS = (H + RPB - 1) / RPB };
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
struct Shared {
        Tokens t;
        u32 start[E + 1];
        bool last[NT];
};
SHARED(Shared)
__device__ float by_pair[MOE_MAXTOK * KTOP][H];
__device__ u32 count[MOE_MAXTOK][PARTS];

template <int NB> INLINE void tile(const Args &a, u32 T, u32 e, u32 at, int n)
{
        Pair<W, W, K> w;
        const u8 *base = (const u8 *)moe_arg(«down») + (u64)e * H * Row<W, K>::BYTES;
        int part = (int)at * RPB, from = part + rows_warp() * 32;
        w.template rows<W>(0, base, from, H);
        w.template rows<W>(1, base, from + 16, H);
        w.begin();
        Acts<K> x(moe_arg(«x»), T * KTOP);
        x.weigh(sh.t, 8 * NB);
        float acc[2][NB][4] = {};
        w.times(sh.t, x, acc);
        int lane = here(TID % 32);
#pragma unroll
        for (int i = 0; i < 8 * NB; i++) {
                int t = i / 4 % NB * 8 + lane % 4 * 2 + i % 2, r = from + i / 4 / NB * 16 + lane / 4 + i % 4 / 2 * 8;
                float y = acc[i / 4 / NB][i / 4 % NB][i % 4] * sh.t.back[t];
                if (k_warp() == 0 && t < n && r < H) {
                        moe_has(«down_b», «y += ((const float *)moe_arg(«down_b»))[(u64)e * H + (u32)r];», «»)
                        by_pair[sh.t.row[t]][r] = y;
                }
        }
}

// Sums for the tokens of the first n pairs that lack no other one.
INLINE void sum(const Args &a, u32 part, int n)
{
        publish();
        barrier();
        for (int t = TID; t < n; t += THREADS) {
                u32 *c = &count[sh.t.row[t] / KTOP][part];
                sh.last[t] = atomic_inc(c) == KTOP - 1;
                if (sh.last[t])
                        *c = 0;
        }
        barrier();
        publish();
        for (int i = TID; i < n * RPB; i += THREADS) {
                u32 t = (u32)i / RPB, r = part * RPB + (u32)i % RPB, token = sh.t.row[t] / KTOP;
                if (!sh.last[t] || r >= H)
                        continue;
                const Route *route = (const Route *)moe_arg(«route») + (u64)token * KTOP;
                float y = moe_has(«res», «((const float *)moe_arg(«res»))[(u64)token * H + r]», 0);
#pragma unroll 8
                for (u32 s = 0; s < KTOP; s++)
                        y = fma1(route[s].w, load_far(&by_pair[token * KTOP + s][r]), y);
                ((float *)moe_arg(«out0»))[(u64)token * H + r] = y;
        }
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
                for (u32 t = (u32)TID; t < NT; t += THREADS)
                        sh.t.row[t] = pairs[i + t < end ? i + t : end - 1];
                barrier();
                moe_tiles(«tile», «(a, T, e, item % PARTS, n)», «n», m4_ifelse(m4_eval(MOE_NT > 16), 1, 16, 8), 2)
                sum(a, item % PARTS, n);
        }
}
