// experts_down_some: experts_down in a step of several tokens, up to NT: res + sum over a token's chosen experts e of weight_e * down_e(x[slot]).
//
// x q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// The blocks of a cluster have the same 16 rows of H and share the items: up to 8 tokens of one expert. Their rows are on their way through
// SLOTS places of shared memory, asked for in turn as places get free, the first ones before the wait (the route is read ahead of it); a
// warp has a part of an item's K. Each pair's results are put by, and a token's are summed in the order of its slots. Grid: 1, H / 16,
// CLUSTER. 256 threads, BLOCKS a processor; for more than 16 tokens, whose results take more room, one of 512 threads in place of two.
m4_include(«prelude.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP };
m4_include(«columns.m4»)
m4_include(«items.m4»)
moe_early(«route»)
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
enum { BYTES = Packed<W, K>::BYTES, STRIDE = Packed<W, K>::STRIDE, PIECES = PIECES_OF(K) };
// A warp has a part of K of an item, or all of it where there is no room to put so many by.
enum { EACH = NT > 16 ? PIECES : (PIECES + 2) / 3, PARTS = (PIECES + EACH - 1) / EACH };
static_assert(H % ROWS == 0, "a block has whole tiles");
struct Rest {
        float y[PARTS][PAIRS][ROWS + 4]; // by pair; those of the other blocks' items stay empty
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
        Count asked[SLOTS], done[SLOTS];
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
// Where a warp is: a piece of a part of an item's K; every WARPS-th part is its own.
struct Place {
        int part, piece;
        INLINE_IN int item() const { return part / PARTS; }
        INLINE_IN int first() const { return part % PARTS * EACH; }
        INLINE_IN int end() const { return first() + EACH < PIECES ? first() + EACH : PIECES; }
        INLINE_IN bool exists(int mine) const { return part < mine * PARTS; }
        INLINE_IN void next()
        {
                if (++piece < end())
                        return;
                part += WARPS;
                piece = first();
        }
};
INLINE const Item &item_of(const Place &p) { return items.item[p.item() * CLUSTER + (CLUSTER > 1 ? (int)BZ : 0)]; }
INLINE void load(Rounded &r, const Args &a, const Place &p, int T)
{
        u32 pair = item_of(p).pair[TID % 32 / 4];
        r.none();
        if (pair != NONE)
                r.load<W, K>(moe_arg(«x»), (u64)(u32)(T * KTOP), pair, p.piece);
}
// The products of a part, to where its pairs' are put by.
INLINE void put(const Args &a, const Place &p, const float (&acc)[4])
{
        const Item &item = item_of(p);
#pragma unroll
        for (int i = 0; i < 4; i++) {
                u32 to = item.pair[TID % 4 * 2 + i % 2], row = (u32)(TID % 32 / 4 + i / 2 * 8);
                float y = acc[i];
                if (to == NONE)
                        continue;
                moe_has(«down_b», «if (p.part % PARTS == 0)
                        y += ((const float *)moe_arg(«down_b»))[(u64)item.e * H + BY * ROWS + row];», «»)
                sh.rest.y[p.part % PARTS][to][row] = y;
        }
        (void)a;
}
// All parts of this warp, of `mine` items; the next piece's values are on their way.
INLINE void products(const Args &a, int mine, int T)
{
        Place p = {TID / 32, 0};
        Rounded next;
        float acc[4];
        p.piece = p.first();
        if (p.exists(mine))
                load(next, a, p, T);
#pragma unroll 1
        while (p.exists(mine)) {
                int slot = p.item() % SLOTS;
                u32 turn = (u32)(p.item() / SLOTS);
                Place ahead = p;
                Columns x;
                Power power;
                float part[4] = {};
                power.set(next.top());
                x.set(next, power.by);
                ahead.next();
                if (ahead.exists(mine))
                        load(next, a, ahead, T);
                if (p.piece == p.first()) {
                        acc[0] = acc[1] = acc[2] = acc[3] = 0;
                        count_wait(&sh.asked[slot], turn + 1);
                        landing_wait(&sh.landed[slot], turn & 1);
                }
                Times<(bool)W::WHOLE>::add<W, K>(sh.slot[slot].row[0], STRIDE, p.piece, x, part);
                power.undo(part);
#pragma unroll
                for (int i = 0; i < 4; i++)
                        acc[i] += part[i];
                if (ahead.part != p.part) {
                        put(a, p, acc);
                        count_pass(&sh.done[slot]);
                        // Who has an item's last part asks for the one that follows in its place.
                        if (p.part % PARTS == PARTS - 1 && p.item() + SLOTS < mine) {
                                count_wait(&sh.done[slot], (turn + 1) * PARTS);
                                ask(a, p.item() + SLOTS);
                        }
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
                landing_init(&sh.landed[TID]), sh.asked[TID] = {0}, sh.done[TID] = {0};
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
                float y = 0, v[KTOP][PARTS];
#pragma unroll
                for (int s = 0; s < KTOP; s++)
                        for (int k = 0; k < PARTS; k++)
                                v[s][k] = *cluster_at(&sh.rest.y[k][t * KTOP + s][row], sh.rest.rank[t * KTOP + s]);
#pragma unroll
                for (int s = 0; s < KTOP; s++) {
                        for (int k = 1; k < PARTS; k++)
                                v[s][0] += v[s][k];
                        y = fma1(sh.rest.by[t * KTOP + s], v[s][0], y);
                }
                ((float *)moe_arg(«out0»))[at] = y moe_has(«res», «+ ((const float *)moe_arg(«res»))[at]», «»);
        }
        cluster_arrive();
        cluster_wait();
}
