// experts_down_few: experts_down in a step of T <= NT tokens: res + sum over a token's chosen experts e of weight_e * down_e(x[slot]).
//
// x f32 or q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// A block: RPB rows of H. A warp owns whole rows and fetches their parts of the experts as soon as it knows these (the route is
// read before the wait). One token: it goes over the units of all slots and sums them with the routing weights in registers.
// Several: LANES lanes have an expert, which goes over the tokens that chose it; each pair's product is put by, and a token's are
// summed in the order of its slots, so that they do not depend on others' choices. Grid: ceil(H / RPB). 640 threads; several
// tokens: 512.
//
//      H100, Q4_K q8 H 2048, F 768, 8 of 128 experts, GB/s: 2474; Q6_K: 2022; 8 tokens: 1860; 1957
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
moe_early(«route»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, RPB = MOE_RPB, TILES = (RPB + WARPS - 1) / WARPS };
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
typedef Row<W, K> R;
enum { BUSY = WARPS < RPB ? WARPS : RPB }; // warps that have rows
moe_if(MOE_NT, 1, «enum { N_ACT = WHOLE(KTOP * R::PAD), ALL = KTOP * R::UNITS };
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
», «m4_include(«touched.m4»)
struct Acts : moe_acts«»<1, WHOLE(K)> {
        U4 apart[4]; // from bank to bank
};
// What a block takes beside its ring, and leaves for that: HALF where it lies beside a block of the launch in front, if two stages
// of 4 or 2 experts have room there.
enum { PART = BUSY * R::BYTES, TAKEN = (int)(PAIRS * sizeof(Acts) + sizeof(Found)) + (BUSY + 1) * PAIRS * 4 + 4096 };
enum { HALF = (WHOLE_ROOM == 227 << 10 ? 104 << 10 : 0) - TAKEN, LEFT = HALF >= 4 * PART ? HALF : WHOLE_ROOM - TAKEN };
enum { LANES = LEFT >= 8 * PART ? 8 : LEFT >= 2 * PART ? 16 : 32, AT_ONCE = 32 / LANES, STEPS = (MOST + AT_ONCE - 1) / AT_ONCE * TILES };
enum { FIT = LEFT / (AT_ONCE * PART), WANT = STEPS < 16 ? STEPS : 16, STAGES = FIT < 1 ? 1 : FIT < WANT ? FIT : WANT };
typedef u8 Parts[AT_ONCE][R::BYTES];
struct Shared {
        alignas(16) Parts ring[BUSY][STAGES];
        Acts acts[PAIRS];
        float by[PAIRS], y[BUSY][PAIRS];
        Landing landed[BUSY][STAGES];
        Found found;
};
SHARED(Shared)

// What a warp has to do, row by row: groups of AT_ONCE experts, of n.
struct Job {
        int n, groups;
        INLINE_IN int tile(int step) const { return TILES == 1 ? 0 : step / groups; }
        INLINE_IN int group(int step) const { return TILES == 1 ? step : step % groups; }
        static INLINE_IN int row(int tile) { return (int)BX * RPB + tile * WARPS + TID / 32; }
        static INLINE_IN bool exists(int tile) { return tile < TILES && tile * WARPS + TID / 32 < RPB && row(tile) < H; }
};
INLINE void ask(const Args &a, const Job &j, int step)
{
        int warp = TID / 32, lane = TID % 32, stage = step % STAGES, tile = j.tile(step), d = j.group(step) * AT_ONCE;
        if (step >= j.groups * TILES || !j.exists(tile))
                return;
        bool wants = lane < AT_ONCE && d + lane < j.n;
        u32 e = (u32)sh.found.touched[wants ? d + lane : 0].id;
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, (u32)(j.n - d < AT_ONCE ? j.n - d : AT_ONCE) * R::BYTES);
        fetch_mine(wants, sh.ring[warp][stage][lane % AT_ONCE], (const u8 *)moe_arg(«down») + ((u64)e * H + (u32)j.row(tile)) * R::BYTES, R::BYTES, l);
        fetch_end(l);
}
// A group's products with a row, of each pair of expert and token, to where the row's are put by.
INLINE void products(const Args &a, const Job &j, int group, int row, const Parts &parts)
{
        int lane = TID % 32, mine = lane / LANES, d = group * AT_ONCE + mine;
        const Touched &e = sh.found.touched[d < j.n ? d : 0];
        int n = d < j.n ? (int)e.n : 0;
#pragma unroll 1
        for (int k = 0; ballot(k < n); k++) {
                int pair = k < n ? e.token[k] * KTOP + e.slot[k] : 0;
                float y[1][1] = {};
#pragma unroll 1
                for (u32 u = (u32)(lane % LANES); u < R::UNITS && k < n; u += LANES) {
                        W f[1];
                        f[0].load<K>(parts[mine], u);
                        Unit<(bool)W::FLOAT>::dot(f, u, sh.acts[pair], y);
                }
                float all = y[0][0];
                for (int m = LANES / 2; m; m /= 2)
                        all += shfl_xor(all, m);
                moe_has(«down_b», «all += ((const float *)moe_arg(«down_b»))[(u64)(u32)e.id * H + (u32)row];», «»)
                if (k < n && lane % LANES == 0)
                        sh.y[TID / 32][pair] = all;
        }
        (void)row;
}

moe_kernel
{
        moe_trigger(first);
        moe_read_early();
        int warp = TID / 32, lane = TID % 32, T = moe_tokens;
        const Route *route = (const Route *)moe_arg(«route»);
        if (TID < T * KTOP)
                sh.by[TID] = route[TID].w;
        if (warp < BUSY && lane < STAGES)
                landing_init(&sh.landed[warp][lane]);
        find_begin(sh.found);
        barrier();
        Job j = {find(sh.found, route, T)};
        j.groups = (j.n + AT_ONCE - 1) / AT_ONCE;
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(a, j, i);
        pdl_wait();
moe_if(moe_made, 1, «#pragma unroll 1
        for (int p = 0; p < T * KTOP; p++)
                fill<K, WHOLE(K), 1>(sh.acts[p], 0, (const float *)moe_arg(«x») + (u64)(u32)p * K, 0, 0, 0);
», «        copy_rows<K, WHOLE(K)>(sh.acts, moe_arg(«x»), T * KTOP, T * KTOP, [](int p) { return p; });
»)        barrier();
#pragma unroll 1
        for (int tile = 0, step = 0; j.exists(tile); tile++) {
                int row = j.row(tile);
                float res = moe_has(«res», «lane < T ? ((const float *)moe_arg(«res»))[lane * H + row] : 0», 0), y = 0;
#pragma unroll 1
                for (int group = 0; group < j.groups; group++, step++) {
                        landing_wait(&sh.landed[warp][step % STAGES], (u32)(step / STAGES) & 1);
                        products(a, j, group, row, sh.ring[warp][step % STAGES]);
                        warp_barrier();
                        if (STAGES < STEPS)
                                ask(a, j, step + STAGES);
                }
#pragma unroll 1
                for (int s = 0; s < KTOP; s++)
                        y = fma1(lane < T ? sh.by[lane * KTOP + s] : 0, lane < T ? sh.y[warp][lane * KTOP + s] : 0, y);
                if (lane < T)
                        ((float *)moe_arg(«out0»))[lane * H + row] = y + res;
                warp_barrier();
        }
}
»)