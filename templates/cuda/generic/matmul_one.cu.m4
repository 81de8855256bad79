// matmul_one: matmul in a step of one token, or of T <= NT: out[i] = res + norm(x) * w[i] + bias[i].
//
// x f32 or q8 [T, K]; w[i] split [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: RPB rows of one weight, tiles of RB rows to the warps in turn. A warp's first STAGES tiles are asked
// for before the wait; each further one when the tile whose room it takes has been read.
// Grid: sum over i of ceil(N_i / RPB). 512 threads.
//
//      H100, Q4_K q8 K 2048, GB/s:     N 5120: 1387       N 2048, K 4096: 1578       Q6_K N 151936: 2837
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
m4_include(«types.m4»)
enum { K = MOE_K, N_ACT = WHOLE(K), RPB = MOE_RPB };
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)
union Widest {
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        u8 of_«»I«»[Row<moe_fact(«TYPE_w», I), K>::BYTES];
»)};
typedef moe_acts«»<1, N_ACT> Acts;
// Rows of a tile: as many as are wanted, of those for which a block has room beside the activations.
enum { WANT = RPB > 4 * WARPS ? 2 : (RPB + WARPS - 1) / WARPS, LEFT = WHOLE_ROOM - 4096 - NT * (int)sizeof(Acts) };
enum { MOST = LEFT / (int)(WARPS * sizeof(Widest)), RB = MOST < 1 ? 1 : MOST < WANT ? MOST : WANT, TILES = (RPB + RB * WARPS - 1) / (RB * WARPS) };
union Rows {
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        u8 of_«»I«»[RB * Row<moe_fact(«TYPE_w», I), K>::BYTES];
»)};
enum { FIT = (int)((LEFT < SHARED_ROOM ? LEFT : SHARED_ROOM) / (WARPS * sizeof(Rows))), STAGES = STAGES_OF(FIT, TILES) };
enum { LONE = WHOLE_ROOM == 227 << 10 ? 114 << 10 : 0, TAKEN = (int)(WARPS * STAGES * sizeof(Rows) + NT * sizeof(Acts)) };
struct Shared {
        Rows ring[WARPS][STAGES];
        Acts acts[NT];
        float part[NT][WARPS];
        Landing landed[WARPS][STAGES];
        // More than half of what there is: blocks of one wave never share a processor, where its other ones would idle.
        u8 alone[TAKEN < LONE ? LONE - TAKEN : 16];
};
SHARED(Shared)

// What a block has to do: rows first .. end - 1 of a weight.
struct Job {
        const u8 *w;
        float *out;
        const float *bias;
        int first, end, n, bytes, type; // n: of the weight; bytes of a row; which weight's type it has
};
INLINE Job job_of(const Args &a)
{
        Job j;
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BX >= moe_fact(«START», I) && BX < moe_fact(«END», I)) {
                j.w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
                j.out = (float *)a.arg[moe_fact(«ARG_out», I)];
                j.bias = m4_ifdef(«MOE_ARG_bias»I, «(const float *)a.arg[moe_fact(«ARG_bias», I)]», 0);
                j.first = (int)(BX - moe_fact(«START», I)) * RPB;
                j.end = j.first + RPB < moe_fact(«N», I) ? j.first + RPB : moe_fact(«N», I);
                j.n = moe_fact(«N», I);
                j.bytes = Row<moe_fact(«TYPE_w», I), K>::BYTES;
                j.type = moe_type_first(I);
        }
»)        return j;
}
INLINE void ask(const Job &j, int tile)
{
        int warp = TID / 32, row = j.first + (tile * WARPS + warp) * RB, stage = tile % STAGES;
        if (row >= j.end)
                return;
        u32 bytes = (u32)((row + RB <= j.end ? RB : j.end - row) * j.bytes);
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, bytes);
        fetch(&sh.ring[warp][stage], j.w + (u64)(u32)row * (u32)j.bytes, bytes, l, 0);
        fetch_end(l);
}

moe_kernel
{
        typedef Totals<RB, NT> To;
        moe_trigger(first);
        Job j = job_of(a);
        int warp = TID / 32, T = moe_tokens;
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(j, i);
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        auto row = [&](int t) { return (const float *)moe_arg(«x») + (u64)(u32)t * K; };
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        x.rows(row, 0, T);
        x.all<moe_has(«norm», true, false)>(row, T, sh.acts, sh.part);
», «        pdl_wait();
        moe_if(MOE_NT, 1, «copy<K>(sh.acts[0], 0, moe_arg(«x»), 1, 0, 0);», «copy_rows<K, N_ACT>(sh.acts, moe_arg(«x»), T, T, [](int t) { return t; });»)
»)        barrier();
        float r = moe_has(«norm», «rms_of(sh.part[To::token()], K, (float)MOE_eps)», 1);
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int first = j.first + (tile * WARPS + warp) * RB, n = first + To::row();
                if (first >= j.end)
                        break;
                To y;
                bool mine = To::mine() && n < j.end && To::token() < T;
                u32 at = (u32)(To::token() * j.n + n);
                moe_has(«res», «float res = mine ? ((const float *)moe_arg(«res»))[at] : 0;», «»)
                const u8 *rows = (const u8 *)&sh.ring[warp][tile % STAGES];
                landing_wait(&sh.landed[warp][tile % STAGES], (u32)(tile / STAGES) & 1);
moe_for(«I», 0, m4_eval(MOE_NW - 1), «m4_ifelse(moe_type_first(I), I, «                if (moe_types == 1 || j.type == I)
                        product_here<moe_fact(«TYPE_w», I), K, RB>(rows, Row<moe_fact(«TYPE_w», I), K>::BYTES, sh.acts, T, y);
»)»)                if (STAGES < TILES) {
                        warp_barrier();
                        ask(j, tile + STAGES);
                }
                float v = y.of() * r;
                if (mine) {
                        if (j.bias)
                                v += j.bias[n];
                        j.out[at] = v moe_has(«res», «+ res», «»);
                }
        }
}
