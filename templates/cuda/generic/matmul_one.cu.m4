// matmul_one: matmul in a step of one token: out[i] = res + norm(x) * w[i] + bias[i].
//
// x f32 or q8 [1, K]; w[i] split [N_i, K]; out[i] f32 [1, N_i]; res f32 [1, N_0] (one weight only), may be out[0] itself.
// A block: RPB rows of one weight, tiles of RB rows to the warps in turn. A warp's first STAGES tiles are asked for before the
// wait; each further one when the tile whose room it takes has been read.
// Grid: sum over i of ceil(N_i / RPB). 512 threads.
//
//      H100, Q4_K q8 K 2048, GB/s:     N 5120: ?       N 2048, K 4096: ?       N 151936: ?
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
enum { K = MOE_K, N_ACT = WHOLE(K), RPB = MOE_RPB, RB = RPB >= 8 * WARPS ? 2 : 1, TILES = (RPB + RB * WARPS - 1) / (RB * WARPS) };
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)
union Rows {
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        u8 of_«»I«»[RB * Row<moe_fact(«TYPE_w», I), K>::BYTES];
»)};
enum { FIT = (int)(SHARED_ROOM / (WARPS * sizeof(Rows))), STAGES = FIT < 1 ? 1 : FIT < TILES ? FIT : TILES };
struct Shared {
        Rows ring[WARPS][STAGES];
        moe_acts«»<1, N_ACT> acts;
        float part[WARPS];
        Landing landed[WARPS][STAGES];
};
SHARED(Shared)

template <class W> INLINE void ask(const u8 *w, int tile, int first, int end)
{
        int warp = TID / 32, row = first + (tile * WARPS + warp) * RB, stage = tile % STAGES;
        if (row >= end)
                return;
        u32 bytes = (u32)(row + RB <= end ? RB : end - row) * Row<W, K>::BYTES;
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, bytes);
        fetch(&sh.ring[warp][stage], w + (u64)(u32)row * Row<W, K>::BYTES, bytes, l, 0);
        fetch_end(l);
}
moe_for(«I», 0, m4_eval(MOE_NW - 1), «
INLINE void rows_«»I«»(const Args &a, int block)
{
        typedef moe_fact(«TYPE_w», I) W;
        typedef Sums<RB, 1> S;
        enum { N = moe_fact(«N», I) };
        const u8 *w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
        int first = block * RPB, end = first + RPB < N ? first + RPB : N, warp = TID / 32;
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
        for (int i = 0; i < STAGES; i++)
                ask<W>(w, i, first, end);
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        x.values((const float *)moe_arg(«x»));
        x.fill<moe_has(«norm», 1, 0)>(sh.acts);
        moe_has(«norm», «x.squares(sh.part);», «»)
», «        pdl_wait();
        copy<K>(sh.acts, 0, moe_arg(«x»), 1, 0, 0);
»)        barrier();
        float r = moe_has(«norm», «rms_of(sh.part, K, (float)MOE_eps)», 1);
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int row = first + (tile * WARPS + warp) * RB;
                if (row >= end)
                        break;
                float acc[RB][1] = {};
                landing_wait(&sh.landed[warp][tile % STAGES], (u32)(tile / STAGES) & 1);
                product_here<W, K>((const u8 *)&sh.ring[warp][tile % STAGES], sh.acts, acc);
                if (STAGES < TILES) {
                        warp_barrier();
                        ask<W>(w, tile + STAGES, first, end);
                }
                float y = S::of(acc) * r;
                int n = row + S::row();
                if (S::mine() && n < end) {
                        m4_ifdef(«MOE_ARG_bias»I, «y += ((const float *)a.arg[moe_fact(«ARG_bias», I)])[n];»)
                        moe_has(«res», «y += ((const float *)moe_arg(«res»))[n];», «»)
                        ((float *)a.arg[moe_fact(«ARG_out», I)])[n] = y;
                }
        }
}
»)
moe_kernel
{
        pdl_trigger();
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BX < moe_fact(«END», I)) {
                rows_«»I«»(a, (int)(BX - moe_fact(«START», I)));
                return;
        }
»)}
