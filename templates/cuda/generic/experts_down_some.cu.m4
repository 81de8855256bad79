// experts_down_some: experts_down in a step of several tokens, up to NT: res + sum over a token's chosen experts e of weight_e * down_e(x[slot]).
//
// x q8 [T, KTOP, F]; route [T, KTOP]; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// The blocks of a cluster have the same 16 rows of H and share the items: up to 8 tokens of one expert. Their rows are on their way through
// SLOTS places of shared memory, asked for in turn as places get free, the first ones before the wait (the route is read ahead of it); a
// warp has a part of an item's K. Each pair's results are put by, and a token's are summed in the order of its slots. Grid: 1, H / 16,
// CLUSTER. 256 threads, BLOCKS a processor.
m4_include(«prelude.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP };
m4_include(«columns.m4»)
m4_include(«items.m4»)
moe_early(«route»)
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
enum { BYTES = Packed<W, K>::BYTES, STRIDE = Packed<W, K>::STRIDE, PIECES = PIECES_OF(K) };
// A warp has a part of K of an item, or all of it where there is no room to put so many by.
enum { PARTS = NT > 16 || PIECES < 2 ? 1 : PIECES < 3 ? 2 : 3, EACH = (PIECES + PARTS - 1) / PARTS };
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
enum { LEFT = SHARED_ROOM - (int)sizeof(Rest) - 2048, FIT = LEFT / (int)sizeof(Slot), SLOTS = FIT < 1 ? 1 : FIT > 2 * WARPS ? 2 * WARPS : FIT };
enum { LONE = moe_if(MOE_BLOCKS, 1, «WHOLE_ROOM == 227 << 10 ? 114 << 10 : 0», 0), USED = SLOTS * (int)sizeof(Slot) + (int)sizeof(Rest) };
struct Shared {
        Slot slot[SLOTS];
        Rest rest;
        Landing landed[SLOTS];
        Count asked[SLOTS], done[SLOTS];
        u8 alone[USED < LONE ? LONE - USED : 16];
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
// What the column's values are scaled by.
INLINE float top_of_row(const Args &a, u32 pair, int T)
{
        const float *d = (const float *)((const u8 *)moe_arg(«x») + (u64)(u32)(T * KTOP) * K) + (u64)pair * (K / 16);
        float top = 0;
#pragma unroll 4
        for (int i = TID % 4; i < K / 64; i += 4) {
                F4 v = *(const F4 *)(d + 4 * i);
                top = max_f32(top, max_f32(max_f32(v.x, v.y), max_f32(v.z, v.w)));
        }
        return top;
}
// The products of an item over a part of K, to where its pairs' are put by.
INLINE void products(const Args &a, const Item &item, int part, const Slot &slot, Landing *l, u32 turn, int T)
{
        u32 pair = item.pair[TID % 32 / 4];
        int p = part * EACH, end = p + EACH < PIECES ? p + EACH : PIECES;
        Rounded r;
        Power power;
        float acc[4] = {};
        r.none();
        if (pair != NONE)
                r.load<W, K>(moe_arg(«x»), (u64)(u32)(T * KTOP), pair, p);
        power.set(EACH == 1 ? r.top() : pair == NONE ? 0 : top_of_row(a, pair, T));
        landing_wait(l, turn);
#pragma unroll 1
        for (;;) {
                Columns x;
                x.set(r, power.by);
                int now = p++;
                if (p < end && pair != NONE)
                        r.load<W, K>(moe_arg(«x»), (u64)(u32)(T * KTOP), pair, p);
                multiply<W, K>(slot.row[0], STRIDE, now, x, acc);
                if (EACH == 1 || p >= end)
                        break;
        }
        power.undo(acc);
#pragma unroll
        for (int i = 0; i < 4; i++) {
                u32 to = item.pair[TID % 4 * 2 + i % 2], row = (u32)(TID % 32 / 4 + i / 2 * 8);
                if (to == NONE)
                        continue;
                moe_has(«down_b», «if (part == 0)
                        acc[i] += ((const float *)moe_arg(«down_b»))[(u64)item.e * H + BY * ROWS + row];», «»)
                sh.rest.y[part][to][row] = acc[i];
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
#pragma unroll 1
        for (int u = warp; u < mine * PARTS; u += WARPS) {
                int i = u / PARTS;
                u32 turn = (u32)(i / SLOTS);
                count_wait(&sh.asked[i % SLOTS], turn + 1);
                products(a, items.item[i * CLUSTER + rank], u % PARTS, sh.slot[i % SLOTS], &sh.landed[i % SLOTS], turn & 1, T);
                count_pass(&sh.done[i % SLOTS]);
                // Who has an item's last part asks for the one that follows in its place.
                if (u % PARTS == PARTS - 1 && i + SLOTS < mine) {
                        count_wait(&sh.done[i % SLOTS], (turn + 1) * PARTS);
                        ask(a, i + SLOTS);
                }
        }
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
