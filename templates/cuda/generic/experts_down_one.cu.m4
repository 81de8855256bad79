// experts_down_one: experts_down in a step of one token: res + sum over its chosen experts e of weight_e * down_e(x[slot]).
//
// x f32 or q8 [1, KTOP, F]; route [1, KTOP]; down split [E, H, F]; out f32 [1, H]; res f32 [1, H], may be out itself.
// A block: RPB rows of H. A warp owns whole rows and fetches their parts of all the experts as soon as it knows these (the route is
// read before the wait); it goes over the units of all slots and sums them with the routing weights in registers. Grid: ceil(H / RPB).
// 640 threads.
//
//      H100, Q4_K q8 H 2048, F 768, 8 of 128 experts, GB/s: 2474; Q6_K: 2022
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
moe_early(«route»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, RPB = MOE_RPB, TILES = (RPB + WARPS - 1) / WARPS };
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
typedef Row<W, K> R;
enum { BUSY = WARPS < RPB ? WARPS : RPB }; // warps that have rows
enum { N_ACT = WHOLE(KTOP * R::PAD), ALL = KTOP * R::UNITS };
enum { FIT = (int)(SHARED_ROOM / (BUSY * KTOP * R::BYTES)), STAGES = FIT < 1 ? 1 : FIT < TILES ? FIT : TILES };
typedef u8 Ring[BUSY][STAGES][KTOP][R::BYTES];
struct Shared {
        alignas(16) Ring ring;
        moe_acts«»<1, N_ACT> acts;
        float by[KTOP];
        Landing landed[BUSY][STAGES];
};
SHARED(Shared)

INLINE void ask(const u8 *w, const i32 (&id)[KTOP], int tile)
{
        int warp = TID / 32, i = tile * WARPS + warp, row = (int)BX * RPB + i, stage = tile % STAGES;
        if (i >= RPB || row >= H)
                return;
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, KTOP * R::BYTES);
#pragma unroll
        for (int s = 0; s < KTOP; s++)
                fetch(sh.ring[warp][stage][s], w + ((u64)(u32)id[s] * H + (u32)row) * R::BYTES, R::BYTES, l, s % 32);
        fetch_end(l);
}

moe_kernel
{
        moe_trigger(first);
        moe_read_early();
        int warp = TID / 32;
        const u8 *w = (const u8 *)moe_arg(«down»);
        const Route *route = (const Route *)moe_arg(«route»);
        i32 id[KTOP];
        for (int s = 0; s < KTOP; s++)
                id[s] = route[s].id;
        if (TID < KTOP)
                sh.by[TID] = route[TID].w;
        if (warp < BUSY && TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(w, id, i);
        pdl_wait();
moe_if(moe_made, 1, «        fill<K, R::PAD, KTOP>(sh.acts, 0, (const float *)moe_arg(«x»), 0, 0, 0);
», «        copy<KTOP * K>(sh.acts, 0, moe_arg(«x»), 1, 0, 0);
»)        barrier();
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int i = tile * WARPS + warp, row = (int)BX * RPB + i, stage = tile % STAGES;
                if (i >= RPB || row >= H)
                        break;
                float acc = 0;
                float res = moe_has(«res», «((const float *)moe_arg(«res»))[row]», 0);
                landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
#pragma unroll
                EACH_UNIT(v, ALL) {
                        u32 s = v / R::UNITS;
                        W f[1];
                        float y[1][1] = {};
                        f[0].load<K>(sh.ring[warp][stage][s], v % R::UNITS);
                        Unit<(bool)W::FLOAT>::dot(f, v, sh.acts, y);
                        acc = fma1(sh.by[s], y[0][0], acc);
                }
                if (STAGES < TILES) {
                        warp_barrier();
                        ask(w, id, tile + STAGES);
                }
                float y = warp_sum(acc);
                moe_has(«down_b», «for (int s = 0; s < KTOP; s++)
                        y = fma1(sh.by[s], ((const float *)moe_arg(«down_b»))[(u64)(u32)id[s] * H + (u32)row], y);», «»)
                if (TID % 32 == 0)
                        ((float *)moe_arg(«out0»))[row] = y + res;
        }
}
