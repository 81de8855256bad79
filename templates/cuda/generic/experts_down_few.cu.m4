// experts_down_few: experts_down in a step of several tokens, up to NT: res + sum over a token's chosen experts e of weight_e * down_e(x[slot]).
//
// x q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// The blocks of a cluster have the same 16 rows of H and share the items: up to 8 tokens of one expert. Their rows are on their way through
// SLOTS places of shared memory, asked for in turn as places get free, the first ones before the wait (the route is read ahead of it); a
// warp takes whole items. Each pair's results are put by, and a token's are summed in the order of its slots. Grid: 1, H / 16,
// CLUSTER. 256 threads, BLOCKS a processor; for more than 32 tokens, whose results take more room, one of 512 threads in place of two.
//
//      H100, H 2048, F 768, 8 of 128 experts, microseconds, Q6_K: 2 tokens: 14    8: 30    16: 43    32: 56    64: 87; Q4_K: 10    25    36    46    75
m4_include(«prelude.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP };
m4_include(«columns.m4»)
m4_include(«items.m4»)
moe_early(«route»)
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
enum { BYTES = Packed<W, K>::BYTES, STRIDE = Packed<W, K>::STRIDE, PIECES = PIECES_OF(K) };
static_assert(H % ROWS == 0, "a block has whole tiles");
struct Rest {
        float y[PAIRS][ROWS + 4]; // by pair; those of the other blocks' items stay empty
        float by[PAIRS];
        u8 rank[PAIRS]; // which block of the cluster has it
        Items items;
};
struct Slot {
        alignas(16) u8 row[ROWS][STRIDE];
};
enum { LEFT = moe_if(MOE_BLOCKS, 1, WHOLE_ROOM, SHARED_ROOM) - (int)sizeof(Rest) - 2048, FIT = LEFT / (int)sizeof(Slot), SLOTS = FIT < 1 ? 1 : FIT > 2 * WARPS ? 2 * WARPS : FIT };
struct Shared {
        Slot slot[SLOTS];
        Rest rest;
        Landing landed[SLOTS];
        Count asked[SLOTS];
};
SHARED(Shared)
#define items sh.rest.items

// The block's i-th item of those that it shares with its cluster. By one warp.
INLINE void ask(const Args &a, int i)
{
        int d = i * CLUSTER + (CLUSTER > 1 ? (int)BZ : 0), r = TID % ROWS;
        Landing *l = &sh.landed[i % SLOTS];
        fetch_begin(l, ROWS * BYTES);
        fetch_mine(TID % 32 < ROWS, sh.slot[i % SLOTS].row[r], (const u8 *)moe_arg(«down») + ((u64)items.item[d].e * H + BY * ROWS + (u32)r) * BYTES, BYTES, l);
        fetch_end(l);
        count_pass(&sh.asked[i % SLOTS]);
}
// Where a warp is: a piece of an item, of which every WARPS-th is its own.
struct Place {
        int i, piece;
        INLINE_IN void next()
        {
                if (++piece < PIECES)
                        return;
                i += WARPS;
                piece = 0;
        }
};
INLINE const Item &item_of(const Place &p) { return items.item[p.i * CLUSTER + (CLUSTER > 1 ? (int)BZ : 0)]; }
INLINE void load(Rounded &r, const Args &a, const Place &p, int T)
{
        u32 pair = item_of(p).pair[TID % 32 / 4];
        r.none();
        if (pair != NONE)
                r.load<W, K>(moe_arg(«x»), (u64)(u32)(T * KTOP), pair, p.piece);
}
// An item's products, to where its pairs' are put by.
INLINE void put(const Args &a, const Place &p, const float (&acc)[4])
{
        const Item &item = item_of(p);
#pragma unroll
        for (int i = 0; i < 4; i++) {
                u32 to = item.pair[TID % 4 * 2 + i % 2], row = (u32)(TID % 32 / 4 + i / 2 * 8);
                float y = acc[i];
                if (to == NONE)
                        continue;
                moe_has(«down_b», «y += ((const float *)moe_arg(«down_b»))[(u64)item.e * H + BY * ROWS + row];», «»)
                sh.rest.y[to][row] = y;
        }
        (void)a;
}
// All items of this warp, of the block's n; the next piece's values are on their way.
INLINE void products(const Args &a, int n, int T)
{
        Place p = {TID / 32, 0};
        Rounded next;
        float acc[4];
        if (p.i < n)
                load(next, a, p, T);
#pragma unroll 1
        while (p.i < n) {
                int slot = p.i % SLOTS;
                u32 turn = (u32)(p.i / SLOTS);
                Place ahead = p;
                Columns x;
                Power power;
                float part[4] = {};
                power.set(next.top());
                x.set(next, power.by);
                ahead.next();
                if (ahead.i < n)
                        load(next, a, ahead, T);
                if (p.piece == 0) {
                        acc[0] = acc[1] = acc[2] = acc[3] = 0;
                        count_wait(&sh.asked[slot], turn + 1);
                        landing_wait(&sh.landed[slot], turn & 1);
                }
                Times<(int)W::LEVELS>::add<W, K>(sh.slot[slot].row[0], STRIDE, p.piece, x, part);
                power.undo(part);
#pragma unroll
                for (int i = 0; i < 4; i++)
                        acc[i] += part[i];
                if (ahead.i != p.i) {
                        put(a, p, acc);
                        warp_barrier();
                        if (p.i + SLOTS < n)
                                ask(a, p.i + SLOTS);
                }
                p = ahead;
        }
}

moe_kernel
{
        moe_trigger(first);
        moe_read_early();
        if ((int)BZ >= CLUSTER)
                return;
        int warp = TID / 32, T = moe_tokens, rank = CLUSTER > 1 ? (int)BZ : 0;
        const Route *route = (const Route *)moe_arg(«route»);
        if (TID < SLOTS)
                landing_init(&sh.landed[TID]), sh.asked[TID] = {0};
        items_begin(items);
        Pairs pairs;
        pairs.load(route, T * KTOP);
        barrier();
        int n = pairs.find(items, T), mine = (n - rank + CLUSTER - 1) / CLUSTER;
#pragma unroll 1
        for (int i = warp; i < SLOTS && i < mine; i += WARPS)
                ask(a, i);
        for (int i = TID; i < T * KTOP; i += THREADS)
                sh.rest.by[i] = route[i].w;
        for (int i = TID; i < n * COLUMNS; i += THREADS)
                if (items.item[i / COLUMNS].pair[i % COLUMNS] != NONE)
                        sh.rest.rank[items.item[i / COLUMNS].pair[i % COLUMNS]] = (u8)(i / COLUMNS % CLUSTER);
        pdl_wait();
        products(a, mine, T);
        barrier();
        cluster_arrive();
        cluster_wait();
#pragma unroll 1
        for (int i = TID + rank * THREADS; i < T * ROWS; i += THREADS * CLUSTER) {
                int t = i / ROWS, row = i % ROWS;
                u64 at = (u64)(u32)t * H + BY * ROWS + (u32)row;
                float y = 0, v[KTOP];
#pragma unroll
                for (int s = 0; s < KTOP; s++)
                        v[s] = *cluster_at(&sh.rest.y[t * KTOP + s][row], sh.rest.rank[t * KTOP + s]);
#pragma unroll
                for (int s = 0; s < KTOP; s++)
                        y = fma1(sh.rest.by[t * KTOP + s], v[s], y);
                ((float *)moe_arg(«out0»))[at] = y moe_has(«res», «+ ((const float *)moe_arg(«res»))[at]», «»);
        }
        cluster_arrive();
        cluster_wait();
}
