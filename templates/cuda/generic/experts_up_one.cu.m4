// experts_up_one: experts_up in a step of one token: glu(gate_e(x'), up_e(x')) of its chosen experts e, x' = norm(x).
//
// x f32 or q8 [1, K]; route [1, KTOP]; gate, up split [E, F, K]; out f32 or q8 [1, KTOP, F].
// A block has PART rows of F of one slot. A warp owns every WARPS-th row of both matrices; it asks for its rows as soon as it knows
// the expert. The launch behind it, which reads the route before its own wait, is let go then, so that its rows follow these. Grid:
// ceil(F / PART), KTOP. 512 threads.
//
//      H100, Q4_K q8 K 2048, F 768, 8 of 128 experts, GB/s: 1866
m4_include(«prelude.m4»)
m4_include(«product.m4»)
m4_include(«stream.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, N_ACT = WHOLE(K), F = MOE_F, E = MOE_E, KTOP = MOE_KTOP };
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
typedef MOE_TYPE_gate WG;
typedef MOE_TYPE_up WU;
struct Pair {
        alignas(16) u8 gate[Row<WG, K>::BYTES], up[Row<WU, K>::BYTES];
};
typedef moe_acts«»<1, N_ACT> Acts;
enum { PART = MOE_PART, TILES = (PART + WARPS - 1) / WARPS };
// What a block takes beside its ring, and leaves for that: the launch in front has 100 KB. More than half of what there is in all,
// so that two of these blocks are never on a processor.
enum { TAKEN = (int)(sizeof(Acts) + (TILES + 1) * WARPS * 4) + 4096, LEFT = (WHOLE_ROOM == 227 << 10 ? 124 << 10 : WHOLE_ROOM) - TAKEN };
enum { FIT = (int)((LEFT < SHARED_ROOM ? LEFT : SHARED_ROOM) / (WARPS * sizeof(Pair))), STAGES = FIT < 1 ? 1 : FIT < TILES ? FIT : TILES };
enum { LONE = WHOLE_ROOM == 227 << 10 ? 114 << 10 : 0, USED = (int)(WARPS * STAGES * sizeof(Pair)) + TAKEN - 4096 };
struct Shared {
        Pair ring[WARPS][STAGES];
        Acts acts;
        float part[WARPS], h[TILES][WARPS];
        Landing landed[WARPS][STAGES];
        u8 alone[USED < LONE ? LONE - USED : 16];
};
SHARED(Shared)

// A tile of the block's as this warp's: its row.
struct Place {
        int row;
        bool in;
        INLINE_IN Place(int tile)
        {
                int i = tile * WARPS + TID / 32;
                row = (int)BX * PART + i, in = i < PART && row < F;
        }
};
// Row by row: what is asked for first lands first.
INLINE void ask(const Args &a, u32 e, int tile)
{
        int stage = tile % STAGES;
        Place p(tile);
        if (tile >= TILES || !p.in)
                return;
        Landing *l = &sh.landed[TID / 32][stage];
        Pair *to = &sh.ring[TID / 32][stage];
        u64 at = (u64)e * F + (u32)p.row;
        fetch_begin(l, sizeof to->gate + sizeof to->up);
        fetch(to->gate, (const u8 *)moe_arg(«gate») + at * sizeof to->gate, sizeof to->gate, l, 0);
        fetch(to->up, (const u8 *)moe_arg(«up») + at * sizeof to->up, sizeof to->up, l, 1);
        fetch_end(l);
}
// The first STAGES tiles: how much is to come is known before the experts are.
INLINE void expect()
{
#pragma unroll
        for (int s = 0; s < STAGES; s++)
                if (Place(s).in)
                        fetch_begin(&sh.landed[TID / 32][s], sizeof(Pair::gate) + sizeof(Pair::up));
}
INLINE void ask_first(const Args &a, u32 e)
{
        int warp = TID / 32, s = TID % 32 / 2 % STAGES;
        Place p(s);
        bool up = TID % 2, wants = TID % 32 < 2 * STAGES && p.in;
        Pair *to = &sh.ring[warp][s];
        u32 bytes = up ? sizeof to->up : sizeof to->gate;
        const u8 *w = (const u8 *)(up ? moe_arg(«up») : moe_arg(«gate»)) + (u64)e * F * bytes;
        fetch_mine(wants, up ? to->up : to->gate, w + (u64)(u32)p.row * bytes, bytes, &sh.landed[warp][s]);
#pragma unroll
        for (int k = 0; k < STAGES; k++)
                fetch_end(&sh.landed[warp][k]);
}
// The results of a tile, 4 values from `c` on.
INLINE void put(const Args &a, int tile, int c)
{
        bool in = tile < TILES;
        int f = (int)BX * PART + (in ? tile : 0) * WARPS + c;
        in = in && f < F && tile * WARPS + c < PART;
        float v[4];
        for (int i = 0; i < 4; i++)
                v[i] = in ? sh.h[tile][c + i] : 0;
        u32 at = in ? BY * F + (u32)f : 0;
moe_if(MOE_out, q8, «        float scale, sum;
        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + KTOP * F), *s = d + KTOP * F / 16;
        u32 code = quantize4(v, scale, sum);
        if (in) {
                *(u32 *)(q + at) = code;
                if (TID % 4 == 0)
                        d[at / 16] = scale, s[at / 16] = sum;
        }
», «        for (int i = 0; i < 4; i++)
                if (in && f + i < F)
                        ((float *)moe_arg(«out0»))[at + (u32)i] = v[i];
»)}

moe_kernel
{
        typedef Totals<2> To;
        int warp = TID / 32;
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
        expect();
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «»)        pdl_wait();
        u32 e = (u32)((const Route *)moe_arg(«route»))[BY].id;
        moe_if(moe_made, 1, «x.values((const float *)moe_arg(«x»));», «»)
        ask_first(a, e);
        moe_trigger(waited);
moe_if(moe_made, 1, «        x.fill<moe_has(«norm», true, false)>(sh.acts);
        moe_has(«norm», «x.squares(sh.part);», «»)
», «        copy<K>(sh.acts, 0, moe_arg(«x»), 1, 0, 0);
»)        barrier();
        float r = moe_has(«norm», «rms_of(sh.part, K, (float)MOE_eps)», 1);
#pragma unroll 1
        for (int tile = 0; tile < TILES; tile++) {
                int stage = tile % STAGES;
                Place p(tile);
                if (!p.in) {
                        if (TID % 32 == 0)
                                sh.h[tile][warp] = 0;
                        continue;
                }
                To sums;
                const Pair &at = sh.ring[warp][stage];
                landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
moe_if(MOE_TYPE_gate, MOE_TYPE_up, «                product_here<WG, K, 0, 2>(at.gate, sizeof at.gate, sh.acts, sums);
», «                product_here<WG, K, 0, 1>(at.gate, 0, sh.acts, sums);
                product_here<WU, K, 1, 1>(at.up, 0, sh.acts, sums);
»)                if (STAGES < TILES) {
                        warp_barrier();
                        ask(a, e, tile + STAGES);
                }
                float y = sums.of() * r, g = shfl(y, To::lane(0)), u = shfl(y, To::lane(1));
                moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)e * F + (u32)p.row];», «»)
                moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)e * F + (u32)p.row];», «»)
                if (TID % 32 == 0)
                        sh.h[tile][warp] = glu(g, u);
        }
        barrier();
        if (TID < (PART / 4 + 31) / 32 * 32)
                put(a, 4 * TID / WARPS, 4 * TID % WARPS);
}
