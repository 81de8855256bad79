// experts_up_few: experts_up in a step of several tokens, up to NT: glu(gate_e(x'), up_e(x')) of their chosen experts e, x' = norm(x).
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up split [E, F, K] of one type; out f32 or q8 [T, KTOP, F].
// All blocks share the rows of all experts that the step has chosen: a tile is 16 rows of gate and the same of up, times up to 8 tokens
// that chose the expert. STAGES tiles, or halves of them, are on their way through shared memory. Each warp has its pieces of K of every tile; a tile's
// results are summed, and rounded, by some of the warps while the others go on. The launch behind this one, which reads the route before its own
// wait, is let go when the first tiles have been asked for. Grid: GRID. 256 threads, BLOCKS a processor; one of 512 where K is wide.
//
//      H100, Q4_K K 2048, F 768, 8 of 128 experts, microseconds: 2 tokens: 19    8: 41    16: 63    32: 81    64: 108
m4_include(«prelude.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, GRID = MOE_GRID };
m4_include(«columns.m4»)
m4_include(«glu_fn.m4»)
m4_include(«items.m4»)
moe_quant(MOE_TYPE_gate)
typedef MOE_TYPE_gate W;
enum { BYTES = Packed<W, K>::BYTES, STRIDE = Packed<W, K>::STRIDE, TALL = F / ROWS };
static_assert(F % ROWS == 0, "results are rounded by 16");
struct Half {
        alignas(16) u8 row[ROWS][STRIDE]; // of gate or of up
};
union Work { // the tokens' values until the warps have theirs; then the warps' sums
        Acts8<K> acts[COLUMNS];
        Sums16 sum[2][2][WARPS]; // of a tile and of the next, of gate and of up
};
struct Rest {
        Work work;
        float square[COLUMNS][WARPS];
        Items items;
};
// HALVES: of a tile, a stage, asked for at once: both where there is room for two stages of that.
enum { LEFT = moe_if(MOE_BLOCKS, 1, WHOLE_ROOM, SHARED_ROOM) - (int)sizeof(Rest) - 1024, FIT = LEFT / (int)sizeof(Half), HALVES = FIT < 4 ? 1 : 2 };
enum { STAGES = FIT < 1 ? 1 : FIT / HALVES > 4 ? 4 : FIT / HALVES };
struct Shared {
        Half ring[STAGES][HALVES];
        Rest rest;
        Landing landed[STAGES];
};
SHARED(Shared)
#define items sh.rest.items

// The block's tiles: `from` .. from + n - 1 of all.
struct Job {
        int from, n;
        INLINE_IN int item(int tile) const { return (from + tile) / TALL; }
        INLINE_IN int row(int tile) const { return (from + tile) % TALL * ROWS; }
};
// Each warp asks for its rows of a stage: gate's, then up's.
INLINE void ask(const Args &a, const Job &j, int step)
{
        enum { EACH = HALVES * ROWS / WARPS };
        int i = TID / 32 * EACH + TID % EACH, half = step * HALVES + i / ROWS, tile = half / 2, r = i % ROWS;
        if (step * HALVES / 2 >= j.n)
                return;
        const u8 *w = (const u8 *)(half % 2 ? moe_arg(«up») : moe_arg(«gate»));
        Landing *l = &sh.landed[step % STAGES];
        fetch_begin(l, EACH * BYTES);
        fetch_mine(TID % 32 < EACH, sh.ring[step % STAGES][i / ROWS].row[r], w + ((u64)items.item[j.item(tile)].e * F + (u32)(j.row(tile) + r)) * BYTES, BYTES, l);
        fetch_end(l);
}

// A tile's results, by 128 threads: thread i has row i % 16 of column i / 16.
INLINE void put(const Args &a, const Job &j, int tile, int i, u32 T)
{
        int column = i / ROWS, row = i % ROWS;
        const Item &item = items.item[j.item(tile)];
        u32 pair = item.pair[column], f = (u32)(j.row(tile) + row);
        if (!ballot(pair != NONE))
                return;
        float r = moe_has(«norm», «rms_of(sh.rest.square[column], K, (float)MOE_eps)», 1);
        float g = sum_of(sh.rest.work.sum[tile % 2][0], column, row) * r, u = sum_of(sh.rest.work.sum[tile % 2][1], column, row) * r;
        moe_has(«gate_b», «g += ((const float *)moe_arg(«gate_b»))[(u64)item.e * F + f];», «»)
        moe_has(«up_b», «u += ((const float *)moe_arg(«up_b»))[(u64)item.e * F + f];», «»)
        float y = glu(g, u);
        bool in = pair != NONE;
        u64 at = (u64)(in ? pair : 0) * F + f;
moe_if(MOE_out, q8, «        quantize1(y, moe_arg(«out0»), (u64)T * KTOP * F, at, in);
», «        if (in)
                ((float *)moe_arg(«out0»))[at] = y;
        (void)T;
»)}

// The columns of an item: in a step of few tokens those of all items.
struct Tokens {
        bool all;
        int T;
        const Item *item;
        INLINE_IN int n() const { return all ? T : COLUMNS; }
        INLINE_IN bool has(int column) const { return all ? column < T : item->pair[column] != NONE; }
        INLINE_IN int token(int column) const { return all ? column : has(column) ? item->pair[column] / KTOP : 0; }
};

moe_kernel
{
        int warp = TID / 32, T = moe_tokens, now = -1;
        if (TID < STAGES)
                landing_init(&sh.landed[TID], WARPS);
        items_begin(items);
moe_if(moe_made, 1, «        Maker<K, WHOLE(K)> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «»)        barrier();
        pdl_wait();
        Pairs pairs;
        Tokens tokens = {T <= COLUMNS, T, &items.item[0]};
        pairs.load((const Route *)moe_arg(«route»), T * KTOP);
        // Ahead of the weights, behind which they would have to wait.
moe_if(moe_made, 1, «        auto row = [&](int t) { return (const float *)moe_arg(«x») + (u64)(u32)tokens.token(t) * K; };
        if (tokens.all)
                x.rows(row, 0, T);
», «        auto row = [&](int t) { return tokens.token(t); };
        Taker<K, WHOLE(K)> x;
        if (tokens.all)
                x.load(moe_arg(«x»), T, T, row);
»)        int n = pairs.find(items, T) * TALL;
        Job j = {n * (int)BX / GRID, 0};
        j.n = n * ((int)BX + 1) / GRID - j.from;
        enum { FIRST = STAGES < 2 / HALVES ? 1 : 2 / HALVES }; // stages of the first tile
#pragma unroll
        for (int i = 0; i < FIRST; i++)
                ask(a, j, i);
        moe_trigger(waited);
        Mine<W, K> mine;
#pragma unroll 1
        for (int tile = 0; tile < j.n; tile++) {
                if (now < 0 || (!tokens.all && j.item(tile) != now)) {
                        now = j.item(tile);
                        tokens.item = &items.item[now];
                        barrier();
moe_if(moe_made, 1, «                        if (!tokens.all)
                                x.rows(row, 0, COLUMNS);
                        x.all<moe_has(«norm», true, false)>(row, tokens.n(), sh.rest.work.acts, sh.rest.square);
», «                        if (!tokens.all)
                                x.load(moe_arg(«x»), T, COLUMNS, row);
                        x.all(sh.rest.work.acts, moe_arg(«x»), T, tokens.n(), row);
»)                        barrier();
                        mine.take(sh.rest.work.acts, tokens.has(TID % 32 / 4));
                        barrier();
                        // Whoever asks is held up by what is on its way: the first tile lands while the tokens' values are made.
                        if (tile == 0)
#pragma unroll 1
                                for (int i = FIRST; i < STAGES; i++)
                                        ask(a, j, i);
                }
#pragma unroll 1
                for (int half = 2 * tile; half < 2 * tile + 2; half++) {
                        float acc[4] = {};
                        int step = half / HALVES;
                        if (half % HALVES == 0)
                                landing_wait(&sh.landed[step % STAGES], (u32)(step / STAGES) & 1);
                        mine.times(sh.ring[step % STAGES][half % HALVES].row[0], STRIDE, acc);
                        sh.rest.work.sum[tile % 2][half % 2][warp].put(acc);
                        if (half % HALVES < HALVES - 1)
                                continue;
                        barrier();
                        ask(a, j, step + STAGES);
                }
                if (warp / 4 == tile % 2)
                        put(a, j, tile, TID % 128, (u32)T);
        }
}
