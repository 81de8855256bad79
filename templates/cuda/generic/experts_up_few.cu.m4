// experts_up_few: experts_up in a step of T <= NT tokens: glu(gate_e(x'), up_e(x')) of their chosen experts e, x' = norm(x).
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up split [E, F, K]; out f32 or q8 [T, KTOP, F].
// One token: a block has PART rows of F of one slot. Several: all blocks share the rows of all experts that the step has chosen,
// WARPS rows of one expert at a time, each times the tokens that chose it. A warp owns every WARPS-th row of both matrices; it asks
// for its rows as soon as it knows the expert. The launch behind it, which reads the route before its own wait, is let go then, so
// that its rows follow these. Grid: ceil(F / PART), KTOP; several tokens: GRID. 512 threads.
//
//      H100, Q4_K q8 K 2048, F 768, 8 of 128 experts, GB/s: 1866       8 tokens: 1619
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
moe_if(MOE_NT, 1, «enum { PART = MOE_PART, TILES = (PART + WARPS - 1) / WARPS };
struct Found {};
», «m4_include(«touched.m4»)
// TILES: most of a block.
enum { GRID = MOE_GRID, TALL = (F + WARPS - 1) / WARPS, TILES = (MOST * TALL + GRID - 1) / GRID };
static_assert(WARPS % 16 == 0, "tiles are whole blocks of rounded values");
»)// What a block takes beside its ring, and leaves for that: the launch in front has 100 KB. More than half of what there is in all,
// so that two of these blocks are never on a processor.
enum { TAKEN = (int)(NT * sizeof(Acts) + sizeof(Found) + (TILES + 1) * NT * WARPS * 4) + 4096, LEFT = (WHOLE_ROOM == 227 << 10 ? 124 << 10 : WHOLE_ROOM) - TAKEN };
enum { FIT = (int)((LEFT < SHARED_ROOM ? LEFT : SHARED_ROOM) / (WARPS * sizeof(Pair))), STAGES = FIT < 1 ? 1 : FIT < TILES ? FIT : TILES };
enum { LONE = WHOLE_ROOM == 227 << 10 ? 114 << 10 : 0, USED = (int)(WARPS * STAGES * sizeof(Pair)) + TAKEN - 4096 };
struct Shared {
        Pair ring[WARPS][STAGES];
        Acts acts[NT];
        float part[NT][WARPS], h[TILES][NT][WARPS];
        Landing landed[WARPS][STAGES];
        Found found;
        u8 alone[USED < LONE ? LONE - USED : 16];
};
SHARED(Shared)

// The block's tiles, and one of them as this warp's: its row of an expert, and how many tokens' results that gives.
moe_if(MOE_NT, 1, «struct Job {
        u32 e;
        static constexpr int n = TILES;
};
struct Place {
        u32 e, n;
        int row;
        bool in;
        INLINE_IN Place(const Job &j, int tile)
        {
                int i = tile * WARPS + TID / 32;
                e = j.e, n = 1, row = (int)BX * PART + i, in = i < PART && row < F;
        }
        static INLINE_IN int token(int) { return 0; }
        static INLINE_IN u32 pair(int) { return BY; }
};
», «struct Job {
        int from, n;
};
struct Place {
        u32 e, n;
        int row, d;
        bool in;
        INLINE_IN Place(const Job &j, int tile)
        {
                int at = j.from + tile;
                d = at / TALL, row = at % TALL * WARPS + TID / 32, in = row < F;
                e = (u32)sh.found.touched[d].id, n = sh.found.touched[d].n;
        }
        INLINE_IN int token(int k) const { return sh.found.touched[d].token[k]; }
        INLINE_IN u32 pair(int k) const { return (u32)(sh.found.touched[d].token[k] * KTOP + sh.found.touched[d].slot[k]); }
};
»)// Row by row: what is asked for first lands first.
INLINE void ask(const Args &a, const Job &j, int tile)
{
        if (tile >= j.n)
                return;
        int stage = tile % STAGES;
        Place p(j, tile);
        if (!p.in)
                return;
        Landing *l = &sh.landed[TID / 32][stage];
        Pair *to = &sh.ring[TID / 32][stage];
        u64 at = (u64)p.e * F + (u32)p.row;
        fetch_begin(l, sizeof to->gate + sizeof to->up);
        fetch(to->gate, (const u8 *)moe_arg(«gate») + at * sizeof to->gate, sizeof to->gate, l, 0);
        fetch(to->up, (const u8 *)moe_arg(«up») + at * sizeof to->up, sizeof to->up, l, 1);
        fetch_end(l);
}
moe_if(MOE_NT, 1, «// The first STAGES tiles: how much is to come is known before the experts are.
INLINE void expect()
{
#pragma unroll
        for (int s = 0; s < STAGES; s++)
                if (Place({0}, s).in)
                        fetch_begin(&sh.landed[TID / 32][s], sizeof(Pair::gate) + sizeof(Pair::up));
}
INLINE void ask_first(const Args &a, const Job &j)
{
        int warp = TID / 32, s = TID % 32 / 2 % STAGES;
        Place p(j, s);
        bool up = TID % 2, wants = TID % 32 < 2 * STAGES && p.in;
        Pair *to = &sh.ring[warp][s];
        u32 bytes = up ? sizeof to->up : sizeof to->gate;
        const u8 *w = (const u8 *)(up ? moe_arg(«up») : moe_arg(«gate»)) + (u64)j.e * F * bytes;
        fetch_mine(wants, up ? to->up : to->gate, w + (u64)(u32)p.row * bytes, bytes, &sh.landed[warp][s]);
#pragma unroll
        for (int k = 0; k < STAGES; k++)
                fetch_end(&sh.landed[warp][k]);
}
», «»)
// Tile `tile` of token `k` of those that chose its expert, 4 values from `c` on, to the result.
INLINE void put(const Args &a, const Job &j, int tile, int k, int c, u32 rows)
{
        bool in = tile < j.n;
        Place p(j, in ? tile : 0);
        int f = p.row - TID / 32 + c;
        in = in && k < (int)p.n && f < F moe_if(MOE_NT, 1, «&& tile * WARPS + c < PART», «»);
        float v[4];
        for (int i = 0; i < 4; i++)
                v[i] = in ? sh.h[tile][k][c + i] : 0;
        u32 at = in ? p.pair(k) * F + (u32)f : 0;
moe_if(MOE_out, q8, «        float scale, sum;
        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + rows * F), *s = d + rows * F / 16;
        u32 code = quantize4(v, scale, sum);
        if (in) {
                *(u32 *)(q + at) = code;
                if (TID % 4 == 0)
                        d[at / 16] = scale, s[at / 16] = sum;
        }
», «        for (int i = 0; i < 4; i++)
                if (in && f + i < F)
                        ((float *)moe_arg(«out0»))[at + (u32)i] = v[i];
        (void)rows;
»)}

moe_kernel
{
        typedef Totals<2, NT> To;
        int warp = TID / 32, T = moe_tokens;
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
        moe_if(MOE_NT, 1, «expect();», «find_begin(sh.found);»)
moe_if(moe_made, 1, «        Maker<K, N_ACT> x;
        auto row = [&](int t) { return (const float *)moe_arg(«x») + (u64)(u32)t * K; };
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «»)        moe_if(MOE_NT, 1, «», «barrier();
        »)pdl_wait();
        const Route *route = (const Route *)moe_arg(«route»);
moe_if(MOE_NT, 1, «        Job j = {(u32)route[BY].id};
        moe_if(moe_made, 1, «x.rows(row, 0, T);», «»)
        ask_first(a, j);
», «        moe_if(moe_made, 1, «x.rows(row, 0, T);», «»)
        int all = find(sh.found, route, T) * TALL;
        Job j = {all * (int)BX / GRID, 0};
        j.n = all * ((int)BX + 1) / GRID - j.from;
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(a, j, i);
»)        moe_trigger(waited);
moe_if(moe_made, 1, «        x.all<moe_has(«norm», true, false)>(row, T, sh.acts, sh.part);
», «        copy_all<K>(sh.acts, moe_arg(«x»), T);
»)        barrier();
        float rms = moe_has(«norm», «rms_of(sh.part[TID % 32 % NT], K, (float)MOE_eps)», 1); // lane t % NT: token t's
#pragma unroll 1
        for (int tile = 0; tile < j.n; tile++) {
                int stage = tile % STAGES;
                Place p(j, tile);
                if (!p.in) {
                        for (int k = TID % 32; k < NT; k += 32)
                                sh.h[tile][k][warp] = 0;
                        continue;
                }
                To sums;
                const Pair &at = sh.ring[warp][stage];
                auto acts = [&](int k) -> const Acts & { return sh.acts[p.token(k)]; };
                landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
moe_if(MOE_TYPE_gate, MOE_TYPE_up, «                product_here<WG, K, 0, 2>(at.gate, sizeof at.gate, (int)p.n, acts, sums);
», «                product_here<WG, K, 0, 1>(at.gate, 0, (int)p.n, acts, sums);
                product_here<WU, K, 1, 1>(at.up, 0, (int)p.n, acts, sums);
»)                if (STAGES < TILES) {
                        warp_barrier();
                        ask(a, j, tile + STAGES);
                }
                int k = To::token();
                bool mine = TID % 32 == To::lane(0, k) && k < (int)p.n;
                float r = NT == 1 ? rms : shfl(rms, k < (int)p.n ? p.token(k) : 0), y = sums.of() * r, g = shfl(y, To::lane(0, k)), u = shfl(y, To::lane(1, k));
                moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)p.e * F + (u32)p.row];», «»)
                moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)p.e * F + (u32)p.row];», «»)
                if (mine)
                        sh.h[tile][k][warp] = glu(g, u);
        }
        barrier();
moe_if(MOE_NT, 1, «        if (TID < (PART / 4 + 31) / 32 * 32)
                put(a, j, 4 * TID / WARPS, 0, 4 * TID % WARPS, KTOP);
», «        enum { FOURS = WARPS / 4 };
#pragma unroll 1
        for (int i = TID; i < (j.n * NT * FOURS + 31) / 32 * 32; i += THREADS)
                put(a, j, i / (NT * FOURS), i / FOURS % NT, 4 * (i % FOURS), (u32)(T * KTOP));
»)}
