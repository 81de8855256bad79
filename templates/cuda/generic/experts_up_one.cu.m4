// experts_up_one: experts_up in a step of one token, or of T <= NT: glu(gate_e(x'), up_e(x')) of their chosen experts e, x' = norm(x).
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up split [E, F, K]; out f32 or q8 [T, KTOP, F]. T KTOP <= 32.
// All blocks share the rows of all experts that the step has chosen, in tiles of a row of both matrices for each warp, which asks for its
// own as soon as it knows the expert. The launch behind it, which reads the route before its own wait, is let go so late that its
// rows follow these. Grid: GRID. 512 threads.
//
//      H100, Q4_K q8 K 2048, F 768, 8 of 128 experts, GB/s: 1940       2 tokens: 1970      4: 2000
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, N_ACT = WHOLE(K), F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, GRID = MOE_GRID };
m4_include(«chosen.m4»)
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
typedef MOE_TYPE_gate WG;
typedef MOE_TYPE_up WU;
struct Pair {
        alignas(16) u8 gate[Row<WG, K>::BYTES], up[Row<WU, K>::BYTES];
};
typedef moe_acts«»<1, N_ACT> Acts;
enum { TALL = (F + WARPS - 1) / WARPS, MANY = PAIRS < E ? PAIRS : E, TILES = (MANY * TALL + GRID - 1) / GRID };
// A tile: its expert, the first of its rows, which tokens chose the expert, and by which pair each.
struct Tile {
        u32 e, row, tokens;
        u8 pair[NT];
};
enum { MOST = 4 }; // stages
struct Rest {
        Acts acts[NT];
        float part[NT][WARPS], h[TILES][NT][WARPS];
        Tile tile[NT == 1 ? 1 : TILES];
        Landing landed[WARPS][MOST];
};
// What a block takes beside its ring, and leaves for that: the launch in front has 100 KB. More than half of what there is in all,
// so that two of these blocks are never on a processor.
enum { TAKEN = (int)sizeof(Rest) + 1024, LEFT = (WHOLE_ROOM == 227 << 10 ? 124 << 10 : WHOLE_ROOM) - TAKEN };
enum { FIT = (int)((LEFT < SHARED_ROOM ? LEFT : SHARED_ROOM) / (WARPS * sizeof(Pair))), STAGES = STAGES_OF(FIT < MOST ? FIT : MOST, TILES) };
enum { LONE = WHOLE_ROOM == 227 << 10 ? 114 << 10 : 0, USED = (int)(WARPS * STAGES * sizeof(Pair) + sizeof(Rest)) };
struct Shared {
        Pair ring[WARPS][STAGES];
        Rest rest;
        u8 alone[USED < LONE ? LONE - USED : 16];
};
SHARED(Shared)

// This warp's row of a tile that begins at `row`; where there is none, the last one, for which nobody asks.
INLINE bool exists(u32 row) { return F % WARPS == 0 || row + (u32)TID / 32 < F; }
INLINE u32 mine(u32 row) { return exists(row) ? row + (u32)TID / 32 : F - 1; }
// The launch behind this one is let go so many tiles before the last are asked for: until its blocks ask, these have been.
enum { SOON = 2 };
// The block's tiles: from .. from + n - 1 of all; of one, its expert's first pair, and its first row.
struct Job {
        Chosen c;
        int from, n;
        INLINE_IN void share(int experts)
        {
                from = experts * TALL * (int)BX / GRID, n = experts * TALL * ((int)BX + 1) / GRID - from;
        }
        INLINE_IN int pair(int tile) const { return c.pair((from + tile) / TALL); }
        INLINE_IN int row(int tile) const { return (from + tile) % TALL * WARPS; }
        // All of them for all to read; of one token's there is too little to know for that.
        INLINE_IN void list() const
        {
#pragma unroll 1
                for (int tile = TID / 32; NT > 1 && tile < n; tile += WARPS) {
                        int first = pair(tile), t = TID % 32;
                        u32 e = c.expert(first), pairs = c.all(first) >> t * KTOP % 32 & (u32)((1ull << KTOP) - 1);
                        u32 tokens = ballot(t < NT && pairs);
                        Tile &to = sh.rest.tile[tile];
                        if (t < NT)
                                to.pair[t] = (u8)(t * KTOP + lowest_of(pairs));
                        if (t == 0)
                                to.e = e, to.row = (u32)row(tile), to.tokens = tokens;
                }
        }
        INLINE_IN u32 row_of(int tile) const { return NT == 1 ? (u32)row(tile) : sh.rest.tile[tile].row; }
        INLINE_IN u32 tokens(int tile) const { return NT == 1 ? 1 : sh.rest.tile[tile].tokens; }
        INLINE_IN int pair_of(int tile, int t) const { return NT == 1 ? pair(tile) : sh.rest.tile[tile].pair[t]; }
        INLINE_IN u32 expert(int tile) const { return NT == 1 ? c.expert(pair(tile)) : sh.rest.tile[tile].e; }
};
// A later tile, row by row: what is asked for first lands first.
INLINE void ask(const Args &a, const Job &j, int tile)
{
        int warp = TID / 32, stage = tile % STAGES;
        if (tile >= j.n)
                return;
        Landing *l = &sh.rest.landed[warp][stage];
        Pair *to = &sh.ring[warp][stage];
        bool up = TID % 2;
        u32 bytes = up ? sizeof to->up : sizeof to->gate;
        u64 at = (u64)j.expert(tile) * F + mine(j.row_of(tile));
        fetch_begin(l, sizeof to->gate + sizeof to->up);
        fetch_mine(TID % 32 < 2, up ? to->up : to->gate, (const u8 *)(up ? moe_arg(«up») : moe_arg(«gate»)) + at * bytes, bytes, l);
        fetch_end(l);
}
// The first STAGES tiles: how much is to come is known before the experts are, of one token.
INLINE void expect(const Job &j)
{
#pragma unroll
        for (int s = 0; s < STAGES; s++)
                if (s < j.n)
                        fetch_begin(&sh.rest.landed[TID / 32][s], sizeof(Pair::gate) + sizeof(Pair::up));
}
INLINE void ask_first(const Args &a, const Job &j)
{
        int warp = TID / 32, s = TID % 32 / 2 % STAGES, pair = j.pair(0);
#pragma unroll
        for (int k = 1; k < STAGES; k++) {
                int p = j.pair(k);
                pair = k == s ? p : pair;
        }
        bool up = TID % 2, wants = TID % 32 < 2 * STAGES && s < j.n;
        Pair *to = &sh.ring[warp][s];
        u32 bytes = up ? sizeof to->up : sizeof to->gate;
        const u8 *w = (const u8 *)(up ? moe_arg(«up») : moe_arg(«gate»)) + ((u64)j.c.expert(pair) * F + mine((u32)j.row(s))) * bytes;
        fetch_mine(wants, up ? to->up : to->gate, w, bytes, &sh.rest.landed[warp][s]);
#pragma unroll
        for (int k = 0; k < STAGES; k++)
                fetch_end(&sh.rest.landed[warp][k]);
}
// Four of the block's results, the i-th.
INLINE void put(const Args &a, const Job &j, int i, u32 T)
{
        enum { FOURS = WARPS / 4 };
        int t = i / FOURS % NT, c = i % FOURS * 4;
        bool in = i < j.n * NT * FOURS;
        int tile = in ? i / (NT * FOURS) : 0;
        u32 f = j.row_of(tile) + (u32)c, at = (u32)j.pair_of(tile, t) * F + f;
        in = in && f < F && j.tokens(tile) >> t & 1;
        float v[4];
        for (int k = 0; k < 4; k++)
                v[k] = in ? sh.rest.h[tile][t][c + k] : 0;
moe_if(MOE_out, q8, «        float scale, sum;
        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + T * KTOP * F), *s = d + T * KTOP * F / 16;
        u32 code = quantize4(v, scale, sum);
        if (in) {
                *(u32 *)(q + at) = code;
                if (TID % 4 == 0)
                        d[at / 16] = scale, s[at / 16] = sum;
        }
», «        for (int k = 0; k < 4; k++)
                if (in && f + (u32)k < F)
                        ((float *)moe_arg(«out0»))[at + (u32)k] = v[k];
        (void)T;
»)}

moe_kernel
{
        int warp = TID / 32, T = moe_tokens;
        if (TID % 32 < STAGES)
                landing_init(&sh.rest.landed[warp][TID % 32]);
        warp_barrier();
        Job j;
        if (NT == 1) {
                j.share(KTOP);
                expect(j);
        }
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        auto row = [&](int t) { return (const float *)moe_arg(«x») + (u64)(u32)t * K; };
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «        Taker<K, N_ACT> x;
        auto row = [](int t) { return t; };
»)        pdl_wait();
        j.c.load((const Route *)moe_arg(«route»), T * KTOP);
        moe_if(moe_made, 1, «x.rows(row, 0, T);», «x.load(moe_arg(«x»), T, T, row);»)
        j.c.find();
        if (NT > 1) {
                j.share(j.c.n());
                expect(j);
        }
        ask_first(a, j);
        if (STAGES == TILES)
                moe_trigger(waited);
        j.list();
moe_if(moe_made, 1, «        x.all<moe_has(«norm», true, false)>(row, T, sh.rest.acts, sh.rest.part);
», «        x.all(sh.rest.acts, moe_arg(«x»), T, T, row);
»)        barrier();
        moe_has(«norm», «float r = rms_of(sh.rest.part[0], K, (float)MOE_eps);», «»)
#pragma unroll 1
        for (int tile = 0; tile < j.n; tile++) {
                if (STAGES < TILES && tile + STAGES + SOON >= j.n)
                        moe_trigger(waited);
                u32 left = j.tokens(tile), row = j.row_of(tile);
                const Pair &at = sh.ring[warp][tile % STAGES];
                landing_wait(&sh.rest.landed[warp][tile % STAGES], (u32)(tile / STAGES) & 1);
#pragma unroll 1
                for (; left; left &= left - 1) {
                        int t = NT == 1 ? 0 : lowest_of(left);
                        float sum[2];
                        Rows2<WG, WU, K, Acts>::times(at.gate, at.up, sh.rest.acts[t], sum);
                        float y = warp_sums(sum);
                        moe_has(«norm», «if (NT > 1)
                                r = rms_of(sh.rest.part[t], K, (float)MOE_eps);
                        y *= r;», «»)
                        float g = shfl(y, 0), u = shfl(y, 16);
                        moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)j.expert(tile) * F + mine(row)];», «»)
                        moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)j.expert(tile) * F + mine(row)];», «»)
                        if (TID % 32 == 0)
                                sh.rest.h[tile][t][warp] = exists(row) ? glu(g, u) : 0;
                }
                if (STAGES < TILES) {
                        warp_barrier();
                        ask(a, j, tile + STAGES);
                }
        }
        barrier();
#pragma unroll 1
        for (int i = TID; i < (j.n * NT * WARPS / 4 + 31) / 32 * 32; i += THREADS)
                put(a, j, i, (u32)T);
}
