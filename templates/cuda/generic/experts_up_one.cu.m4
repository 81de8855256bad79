// experts_up_one: experts_up in a step of one token: glu(gate_e(x'), up_e(x')) of its chosen experts e, x' = norm(x).
//
// x f32 or q8 [1, K]; route [1, KTOP]; gate, up split [E, F, K]; out f32 or q8 [1, KTOP, F].
// A block: PART rows of F of one slot. A warp owns every WARPS-th row of both matrices; it asks for its rows as soon as it knows
// the expert. The launch behind it, which reads the route before its own wait, is let go then, so that its rows follow these.
// Grid: ceil(F / PART), KTOP. 512 threads.
//
//      H100, Q4_K q8 K 2048, F 768, 8 of 128 experts, GB/s: 1932
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, N_ACT = WHOLE(K), F = MOE_F, KTOP = MOE_KTOP, PART = MOE_PART, TILES = (PART + WARPS - 1) / WARPS };
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
typedef MOE_TYPE_gate WG;
typedef MOE_TYPE_up WU;
struct Pair {
        alignas(16) u8 gate[Row<WG, K>::BYTES], up[Row<WU, K>::BYTES];
};
enum { FIT = (int)(SHARED_ROOM / (WARPS * sizeof(Pair))), STAGES = FIT < 1 ? 1 : FIT < TILES ? FIT : TILES };
struct Shared {
        Pair ring[WARPS][STAGES];
        moe_acts«»<1, N_ACT> acts;
        float part[WARPS], h[PART];
        Landing landed[WARPS][STAGES];
        u8 alone[WHOLE_ROOM == 227 << 10 ? 4096 : 16]; // more than half of what there is: never two of these blocks on a processor
};
SHARED(Shared)

// Row by row: what is asked for first lands first.
INLINE void ask(const u8 *wg, const u8 *wu, int tile, int first)
{
        int warp = TID / 32, i = tile * WARPS + warp, stage = tile % STAGES;
        if (i >= PART || first + i >= F)
                return;
        Landing *l = &sh.landed[warp][stage];
        Pair *to = &sh.ring[warp][stage];
        fetch_begin(l, sizeof to->gate + sizeof to->up);
        fetch(to->gate, wg + (u64)(u32)(first + i) * sizeof to->gate, sizeof to->gate, l, 0);
        fetch(to->up, wu + (u64)(u32)(first + i) * sizeof to->up, sizeof to->up, l, 1);
        fetch_end(l);
}
// The first STAGES tiles: how much is to come is known before the experts are.
INLINE void expect(int first)
{
        int warp = TID / 32;
#pragma unroll
        for (int s = 0; s < STAGES; s++)
                if (s * WARPS + warp < PART && first + s * WARPS + warp < F)
                        fetch_begin(&sh.landed[warp][s], sizeof(Pair::gate) + sizeof(Pair::up));
}
INLINE void ask_first(const u8 *wg, const u8 *wu, int first)
{
        int warp = TID / 32, s = TID % 32 / 2 % STAGES, i = s * WARPS + warp;
        bool up = TID % 2, wants = TID % 32 < 2 * STAGES && i < PART && first + i < F;
        Pair *to = &sh.ring[warp][s];
        u32 bytes = up ? sizeof to->up : sizeof to->gate;
        fetch_mine(wants, up ? to->up : to->gate, (up ? wu : wg) + (u64)(u32)(first + i) * bytes, bytes, &sh.landed[warp][s]);
#pragma unroll
        for (int k = 0; k < STAGES; k++)
                fetch_end(&sh.landed[warp][k]);
}

moe_kernel
{
        int warp = TID / 32, first = (int)BX * PART;
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
        expect(first);
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «»)        pdl_wait();
        u32 e = (u32)((const Route *)moe_arg(«route»))[BY].id;
        moe_if(moe_made, 1, «x.values((const float *)moe_arg(«x»));», «»)
        const u8 *wg = (const u8 *)moe_arg(«gate») + (u64)e * F * sizeof(Pair::gate), *wu = (const u8 *)moe_arg(«up») + (u64)e * F * sizeof(Pair::up);
        ask_first(wg, wu, first);
        moe_trigger(waited);
moe_if(moe_made, 1, «        x.fill<moe_has(«norm», 1, 0)>(sh.acts);
        moe_has(«norm», «x.squares(sh.part);», «»)
», «        copy<K>(sh.acts, 0, moe_arg(«x»), 1, 0, 0);
»)        barrier();
        float r = moe_has(«norm», «rms_of(sh.part, K, (float)MOE_eps)», 1);
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int i = tile * WARPS + warp, stage = tile % STAGES, row = first + i;
                if (i >= PART)
                        break;
                if (row >= F) {
                        sh.h[i] = 0;
                        continue;
                }
                float acc[2][1] = {};
                const Pair &at = sh.ring[warp][stage];
                landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
moe_if(MOE_TYPE_gate, MOE_TYPE_up, «                product_here<WG, K>(at.gate, sizeof at.gate, sh.acts, acc);
», «                float accg[1][1] = {}, accu[1][1] = {};
                product_here<WG, K>(at.gate, 0, sh.acts, accg);
                product_here<WU, K>(at.up, 0, sh.acts, accu);
                acc[0][0] = accg[0][0], acc[1][0] = accu[0][0];
»)                if (STAGES < TILES) {
                        warp_barrier();
                        ask(wg, wu, tile + STAGES, first);
                }
                float y = Sums<2, 1>::of(acc) * r, g = shfl(y, 0), u = shfl(y, 16);
                moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)e * F + row];», «»)
                moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)e * F + row];», «»)
                if (TID % 32 == 0)
                        sh.h[i] = glu(g, u);
        }
        barrier();
moe_if(MOE_out, q8, «        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + KTOP * F), *s = d + KTOP * F / 16;
        if (TID < (PART / 4 + 31) / 32 * 32) {
                int at = 4 * TID, f = first + at;
                bool in = at < PART && f < F;
                float v[4], scale, sum;
                for (int c = 0; c < 4; c++)
                        v[c] = in ? sh.h[in ? at + c : 0] : 0;
                u32 code = quantize4(v, scale, sum);
                u32 p = BY * F + (u32)f;
                if (in) {
                        *(u32 *)(q + p) = code;
                        if (TID % 4 == 0)
                                d[p / 16] = scale, s[p / 16] = sum;
                }
        }
», «        for (int i = TID; i < PART && first + i < F; i += THREADS)
                ((float *)moe_arg(«out0»))[BY * F + (u32)(first + i)] = sh.h[i];
»)}
