// experts_down_one: experts_down in a step of one token, or of T <= NT: res + sum over its chosen experts e of weight_e * down_e(x[slot]).
//
// x f32 or q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself. T KTOP <= 32.
// Each token has as many of the blocks, which share the rows of H, in tiles of a row for each warp. It fetches its row's parts of all the
// token's experts as soon as it knows these (the route is read before the wait), goes over the units of all slots and sums them with the
// routing weights in registers. An expert of two tokens comes from L2 the second time. Grid: GRID. 640 threads.
//
//      H100, Q4_K q8 H 2048, F 768, 8 of 128 experts, GB/s: 2190; Q6_K: 2020       2 tokens: 2150; 1950       4: 2260; 2110
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
moe_early(«route»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, RPB = MOE_RPB, GRID = MOE_GRID };
m4_include(«chosen.m4»)
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
typedef Row<W, K> R;
enum { BUSY = WARPS < RPB ? WARPS : RPB }; // warps that have rows
enum { TALL = (H + BUSY - 1) / BUSY, TILES = (TALL + GRID / NT - 1) / (GRID / NT) };
enum { N_ACT = WHOLE(KTOP * R::PAD), ALL = KTOP * R::UNITS };
typedef moe_acts«»<1, N_ACT> Acts;
// A tile's experts by so many at a time: of several tokens, whose tiles are no longer all asked for at once, what is used is asked for again.
enum { EACH = NT == 1 || KTOP % 2 ? KTOP : 2, PARTS = KTOP / EACH, STEPS = TILES * PARTS };
// A block of several tokens leaves room for one of the next launch, which is more than half of what there is.
enum { REST = NT == 1 ? 0 : (int)sizeof(Acts) + 2048, FIT = ((int)SHARED_ROOM - REST) / (int)(BUSY * EACH * R::BYTES), STAGES = STAGES_OF(FIT < PARTS ? PARTS : FIT, STEPS) };
// A warp's turns over a tile's units, written out where nothing is asked for in between.
enum { TURNS = (ALL + 31) / 32, WRITTEN = STAGES < STEPS ? 1 : TURNS };
struct Shared {
        alignas(16) u8 ring[BUSY][STAGES][EACH][R::BYTES];
        Acts acts;
        float by[KTOP];
        Landing landed[BUSY][STAGES];
};
SHARED(Shared)

// The block's token, and its tiles: from .. from + n - 1 of that one's; of a tile, this warp's row.
struct Job {
        int token, from, n;
        INLINE_IN Job(int T)
        {
                int each = GRID / T, i = (int)BX;
                token = NT == 1 ? 0 : i / each;
                i -= token * each;
                from = token < T ? i * TALL / each : 0, n = token < T ? (i + 1) * TALL / each - from : 0;
        }
        INLINE_IN int row(int tile) const { return (from + tile) * BUSY + TID / 32; }
        INLINE_IN bool in(int tile) const { return tile < n && TID / 32 < BUSY && row(tile) < H; }
};
// Part step % PARTS of tile step / PARTS.
INLINE void ask(const u8 *w, const Chosen &c, const Job &j, int step)
{
        int warp = TID / 32, tile = step / PARTS, i = TID % 32 < EACH ? TID % 32 : 0, s = step % PARTS * EACH + i, stage = step % STAGES;
        if (!j.in(tile))
                return;
        Landing *l = &sh.landed[warp][stage];
        const u8 *from = w + ((u64)c.expert(s) * H + (u32)j.row(tile)) * R::BYTES;
        fetch_begin(l, EACH * R::BYTES);
        fetch_mine(TID % 32 < EACH, sh.ring[warp][stage][i], from, R::BYTES, l);
        fetch_end(l);
}

moe_kernel
{
        moe_trigger_at(first);
        moe_read_early();
        int warp = TID / 32, T = moe_tokens;
        Job j(T);
        const u8 *w = (const u8 *)moe_arg(«down»);
        const Route *route = (const Route *)moe_arg(«route») + j.token * KTOP;
        Chosen c;
        c.load(route, j.n ? KTOP : 0);
        if (TID < KTOP && j.n)
                sh.by[TID] = route[TID].w;
        if (warp < BUSY && TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(w, c, j, i);
        pdl_wait();
        moe_trigger_at(waited);
        if (!j.n)
                return;
moe_if(moe_made, 1, «        fill<K, R::PAD, KTOP>(sh.acts, 0, (const float *)moe_arg(«x») + (u64)(u32)j.token * (KTOP * K), 0, 0, 0);
», «        copy<KTOP * K>(sh.acts, 0, moe_arg(«x»), (u32)T, (u32)j.token, 0);
»)        barrier();
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int row = j.row(tile), at = j.token * H + row, first = tile * PARTS;
                if (!j.in(tile))
                        continue;
                float acc = 0;
                float res = moe_has(«res», «((const float *)moe_arg(«res»))[at]», 0);
#pragma unroll (WRITTEN)
                for (u32 turn = 0; turn < TURNS; turn++) {
                        // The parts that this turn begins with, or is the last to read.
                        enum { A_PART = EACH * R::UNITS };
                        u32 begun = turn * 32 + A_PART - 1, end = turn * 32 + 32 < ALL ? turn * 32 + 32 : ALL, v = turn * 32 + (u32)TID % 32;
#pragma unroll (WRITTEN)
                        for (u32 p = begun / A_PART; p < (end + A_PART - 1) / A_PART; p++)
                                landing_wait(&sh.landed[warp][(first + (int)p) % STAGES], (u32)((first + (int)p) / STAGES) & 1);
                        if (v < ALL) {
                                u32 s = v / R::UNITS;
                                W f[1];
                                float y[1][1] = {};
                                f[0].load<K>(sh.ring[warp][(first + (int)(s / EACH)) % STAGES][s % EACH], v % R::UNITS);
                                Unit<(bool)W::FLOAT>::dot(f, v, sh.acts, y);
                                acc = fma1(sh.by[s], y[0][0], acc);
                        }
                        if (STAGES < STEPS) {
                                warp_barrier();
#pragma unroll 1
                                for (u32 p = turn * 32 / A_PART; p < end / A_PART; p++)
                                        ask(w, c, j, first + (int)p + STAGES);
                        }
                }
                float y = warp_sum(acc);
                moe_has(«down_b», «for (int s = 0; s < KTOP; s++)
                        y = fma1(sh.by[s], ((const float *)moe_arg(«down_b»))[(u64)c.expert(s) * H + (u32)row], y);», «»)
                if (TID % 32 == 0)
                        ((float *)moe_arg(«out0»))[at] = y + res;
        }
}
