// The experts that a step of few tokens has chosen, each with its tokens, found by every block for itself, and by all alike: items of
// one expert and up to 8 of its pairs of token and slot, in the order of the experts and of the pairs. In a step of up to 8 tokens column i
// of every item is token i. After columns.m4; E, KTOP.
enum { PAIRS = NT * KTOP, ITEMS = PAIRS < E + PAIRS / COLUMNS ? PAIRS : E + PAIRS / COLUMNS, NONE = 0xffff };
struct Item {
        u16 e, pair[COLUMNS]; // t * KTOP + slot, or NONE
};
struct Items {
        u8 count[(PAIRS + 31) / 32][E]; // of 32 pairs those of an expert; then of those in front
        u32 all[E], first[E], n;
        Item item[ITEMS];
};
// By the whole block; a barrier follows.
INLINE void items_begin(Items &f)
{
        for (int i = TID; i < (int)sizeof f.count; i += THREADS)
                f.count[i / E][i % E] = 0;
        for (int i = TID; i < ITEMS * COLUMNS; i += THREADS)
                f.item[i / COLUMNS].pair[i % COLUMNS] = NONE;
}
// A thread's pairs.
struct Pairs {
        enum { EACH = (PAIRS + THREADS - 1) / THREADS };
        i32 id[EACH];
        INLINE_IN void load(const Route *route, int n)
        {
#pragma unroll
                for (int k = 0; k < EACH; k++)
                        id[k] = k * THREADS + TID < n ? route[k * THREADS + TID].id : -1;
        }
        // How many items there are, of T tokens; the block meets at barriers on the way and behind.
        INLINE_IN int find(Items &f, int T) const
        {
                u32 before[EACH], base = 0;
#pragma unroll
                for (int k = 0; k < EACH; k++) {
                        u32 same = match_any(id[k]);
                        before[k] = (u32)bits_of(same & ((1u << TID % 32) - 1));
                        if (id[k] >= 0 && before[k] == 0)
                                f.count[k * WARPS + TID / 32][id[k]] = (u8)bits_of(same);
                }
                barrier();
                for (int e = TID; e < E; e += THREADS) {
                        u32 sum = 0;
                        for (int c = 0; c < (PAIRS + 31) / 32; c++) {
                                u32 here = f.count[c][e];
                                f.count[c][e] = (u8)sum;
                                sum += here;
                        }
                        f.all[e] = sum;
                }
                barrier();
#pragma unroll 1
                for (int e = TID; e < (E + 31) / 32 * 32 && TID < 32; e += 32) {
                        u32 mine = e < E ? (f.all[e] + COLUMNS - 1) / COLUMNS : 0, upto = warp_upto(mine);
                        if (e < E)
                                f.first[e] = base + upto - mine;
                        base += shfl(upto, 31);
                }
                if (TID == 0)
                        f.n = base;
                barrier();
#pragma unroll
                for (int k = 0; k < EACH; k++) {
                        if (id[k] < 0)
                                continue;
                        int i = k * THREADS + TID;
                        u32 at = f.count[i / 32][id[k]] + before[k];
                        Item &item = f.item[f.first[id[k]] + at / COLUMNS];
                        item.e = (u16)id[k];
                        item.pair[T <= COLUMNS ? (u32)(i / KTOP) : at % COLUMNS] = (u16)i;
                }
                barrier();
                return (int)f.n;
        }
};
static_assert(NT <= 255, "an expert's pairs are counted in bytes");
