// experts_up_some: experts_up in a step of several tokens, up to NT: glu(gate_e(x'), up_e(x')) of their chosen experts e, x' = norm(x).
//
// x f32 or q8 [T, K]; route [T, KTOP]; gate, up split [E, F, K] of one type; out f32 or q8 [T, KTOP, F].
// All blocks share the rows of all experts that the step has chosen: a tile is 16 rows of gate and the same of up, times up to 8 tokens
// that chose the expert. STAGES tiles are on their way through shared memory. Each warp has its pieces of K of every tile; a tile's
// results are summed, and rounded, by some of the warps while the others go on. The launch behind this one, which reads the route before its own
// wait, is let go when the first tiles have been asked for, so that its rows follow these. Grid: GRID. 256 threads, BLOCKS a processor.
m4_include(«prelude.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, GRID = MOE_GRID };
m4_include(«columns.m4»)
m4_include(«glu_fn.m4»)
m4_include(«items.m4»)
moe_quant(MOE_TYPE_gate)
typedef MOE_TYPE_gate W;
enum { BYTES = Packed<W, K>::BYTES, STRIDE = Packed<W, K>::STRIDE, TALL = F / ROWS, PIECES = PIECES_OF(K), MINE = (PIECES + WARPS - 1) / WARPS };
static_assert(F % ROWS == 0 && WARPS >= 8, "results are rounded by 16, by the warps of half a block");
struct Stage {
        alignas(16) u8 row[2][ROWS][STRIDE]; // of gate and of up
};
struct Rest {
        Sums16 sum[2][2][WARPS]; // of a tile and of the next, of gate and of up
        moe_has(«norm», «float norm[K];
        float square[2][COLUMNS][WARPS]; // of an item and of the next», «»)
        Items items;
};
enum { LEFT = SHARED_ROOM - (int)sizeof(Rest) - 1024, FIT = LEFT / (int)sizeof(Stage), STAGES = FIT < 1 ? 1 : FIT > 4 ? 4 : FIT };
struct Shared {
        Stage ring[STAGES];
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
// By one warp.
INLINE void ask(const Args &a, const Job &j, int tile)
{
        if (tile >= j.n)
                return;
        int stage = tile % STAGES, m = TID % 32 / ROWS, r = TID % ROWS;
        const u8 *w = (const u8 *)(m ? moe_arg(«up») : moe_arg(«gate»));
        Landing *l = &sh.landed[stage];
        fetch_begin(l, 2 * ROWS * BYTES);
        fetch_mine(true, sh.ring[stage].row[m][r], w + ((u64)items.item[j.item(tile)].e * F + (u32)(j.row(tile) + r)) * BYTES, BYTES, l);
        fetch_end(l);
}

// The columns of an item, as this warp has them.
struct Mine {
        Columns x[MINE];
        Power power;
        moe_if(moe_made, 1, «Made made;», «»)
        static INLINE_IN int piece(int k) { return TID / 32 + k * WARPS; }
        moe_if(moe_made, 1, «INLINE_IN void ask(const Args &a, int token)
        {
                made.load<W, K>(token < 0 ? 0 : (const float *)moe_arg(«x») + (u64)(u32)token * K, piece(0));
        }», «INLINE_IN void ask(const Args &, int) {}»)
        INLINE_IN void make(const Args &a, int token, int T, int turn)
        {
                Rounded r[MINE];
                float top = 0, squares = 0;
#pragma unroll
                for (int k = 0; k < MINE; k++) {
                        r[k].none();
                        if (piece(k) >= PIECES)
                                continue;
moe_if(moe_made, 1, «                        if (k)
                                made.load<W, K>(token < 0 ? 0 : (const float *)moe_arg(«x») + (u64)(u32)token * K, piece(k));
                        squares += made.round<W, K>(moe_has(«norm», «sh.rest.norm», «0»), piece(k), r[k]);
», «                        if (token >= 0)
                                r[k].load<W, K>(moe_arg(«x»), (u64)(u32)T, (u32)token, piece(k));
»)                        top = max1(top, r[k].top());
                }
                power.set(top);
#pragma unroll
                for (int k = 0; k < MINE; k++)
                        x[k].set(r[k], power.by);
moe_has(«norm», «                squares += shfl_xor(squares, 1);
                squares += shfl_xor(squares, 2);
                if (TID % 4 == 0)
                        sh.rest.square[turn][TID % 32 / 4][TID / 32] = squares;
», «»)                (void)T, (void)turn, (void)squares;
        }
};

// A tile's results, by 128 threads: thread i has row i % 16 of column i / 16.
INLINE void put(const Args &a, const Job &j, int tile, int turn, int i, u32 T)
{
        int column = i / ROWS, row = i % ROWS;
        const Item &item = items.item[j.item(tile)];
        u32 pair = item.pair[column], f = (u32)(j.row(tile) + row);
        if (!ballot(pair != NONE))
                return;
        float r = moe_has(«norm», «rms_of(sh.rest.square[turn][column], K, (float)MOE_eps)», 1);
        float g = sum_of(sh.rest.sum[tile % 2][0], column, row) * r, u = sum_of(sh.rest.sum[tile % 2][1], column, row) * r;
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

moe_kernel
{
        int warp = TID / 32, column = TID % 32 / 4, T = moe_tokens;
        if (TID < STAGES)
                landing_init(&sh.landed[TID]);
        items_begin(items);
moe_has(«norm», «        for (int i = TID; i < K; i += THREADS)
                sh.rest.norm[i] = ((const float *)moe_arg(«norm»))[i];
», «»)        barrier();
        pdl_wait();
        Pairs pairs;
        Mine mine;
        pairs.load((const Route *)moe_arg(«route»), T * KTOP);
        bool all = T <= COLUMNS; // every item's columns are the step's tokens
        if (all)
                mine.ask(a, column < T ? column : -1);
        int n = pairs.find(items, T) * TALL, turn = 0, now = -1;
        Job j = {n * (int)BX / GRID, 0};
        j.n = n * ((int)BX + 1) / GRID - j.from;
        if (warp == 0)
#pragma unroll 1
                for (int i = 0; i < STAGES; i++)
                        ask(a, j, i);
        moe_trigger(waited);
        if (all)
                mine.make(a, column < T ? column : -1, T, 0);
#pragma unroll 1
        for (int tile = 0; tile < j.n; tile++) {
                if (!all && j.item(tile) != now) {
                        int token = token_of(items.item[j.item(tile)], column);
                        turn ^= now >= 0;
                        now = j.item(tile);
                        mine.ask(a, token);
                        mine.make(a, token, T, turn);
                }
                landing_wait(&sh.landed[tile % STAGES], (u32)(tile / STAGES) & 1);
#pragma unroll 1
                for (int m = 0; m < 2; m++) {
                        float acc[4] = {};
#pragma unroll
                        for (int k = 0; k < MINE; k++)
                                if (mine.piece(k) < PIECES)
                                        multiply<W, K>(sh.ring[tile % STAGES].row[m][0], STRIDE, mine.piece(k), mine.x[k], acc);
                        mine.power.undo(acc);
                        sh.rest.sum[tile % 2][m][warp].put(acc);
                }
                barrier();
                int from = tile % 2 * 4; // the first of the warps that sum
                if (warp == 4 - from)
                        ask(a, j, tile + STAGES);
                if (warp / 4 * 4 == from)
                        put(a, j, tile, turn, TID - 32 * from, (u32)T);
        }
}
