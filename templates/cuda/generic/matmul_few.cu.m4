// matmul_few: matmul in a step of several tokens, up to NT: out[i] = res + norm(x) * w[i] + bias[i].
//
// x f32 or q8 [T, K]; w[i] split [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: RPB rows of one weight times 8 tokens, in tiles of 16 rows, the first STAGES of which are asked for before the wait. Each warp has its
// pieces of K of every tile; a tile's results are summed by some of the warps while the others go on.
// Grid: ceil(T / 8), so that all of the step's tokens meet the same rows at about the same time; then the sum over i of
// ceil(N_i / RPB). 256 threads, BLOCKS a processor; one of 512 where K is wide.
//
//      H100, Q4_K K 2048, N 5120, microseconds: 2 tokens: 6.6   8: 9.9   32: 28       K 4096, N 2048: 6.1   6.9   19       Q6_K N 151936: 91   97   364
m4_include(«prelude.m4»)
m4_include(«columns.m4»)
m4_include(«types.m4»)
enum { K = MOE_K, RPB = MOE_RPB };
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)
union Widest {
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        u8 of_«»I«»[Packed<moe_fact(«TYPE_w», I), K>::STRIDE];
»)};
enum { TILES = (RPB + ROWS - 1) / ROWS };
struct Stage {
        alignas(16) Widest row[ROWS];
};
union Work { // the tokens' values until the warps have theirs; then the warps' sums
        Acts8<K> acts[COLUMNS];
        Sums16 sum[2][WARPS]; // of a tile and of the next
};
struct Rest {
        Work work;
        float square[COLUMNS][WARPS];
};
enum { LEFT = moe_if(MOE_BLOCKS, 1, WHOLE_ROOM, SHARED_ROOM) - (int)sizeof(Rest) - 1024, FIT = LEFT / (int)sizeof(Stage), MOST = FIT < 1 ? 1 : FIT > 4 ? 4 : FIT, STAGES = MOST < TILES ? MOST : TILES };
struct Shared {
        Stage ring[STAGES];
        Rest rest;
        Landing landed[STAGES];
};
SHARED(Shared)

// What a block has to do: rows first .. end - 1 of a weight.
struct Job {
        const u8 *w;
        float *out;
        const float *bias;
        int first, end, n, bytes, type; // n: of the weight; bytes of a row; which weight's type it has
        INLINE_IN int row(int tile) const { return first + tile * ROWS; }
};
INLINE Job job_of(const Args &a)
{
        Job j;
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BY >= moe_fact(«START», I) && BY < moe_fact(«END», I)) {
                j.w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
                j.out = (float *)a.arg[moe_fact(«ARG_out», I)];
                j.bias = m4_ifdef(«MOE_ARG_bias»I, «(const float *)a.arg[moe_fact(«ARG_bias», I)]», 0);
                j.first = (int)(BY - moe_fact(«START», I)) * RPB;
                j.end = j.first + RPB < moe_fact(«N», I) ? j.first + RPB : moe_fact(«N», I);
                j.n = moe_fact(«N», I);
                j.bytes = Row<moe_fact(«TYPE_w», I), K>::BYTES;
                j.type = moe_type_first(I);
        }
»)        return j;
}
// By one warp. What lies behind the last row is not asked for: it has results that nobody puts.
INLINE void ask(const Job &j, int tile)
{
        int stage = tile % STAGES, from = j.row(tile), rows = j.end - from < ROWS ? j.end - from : ROWS, r = TID % 32;
        if (rows <= 0)
                return;
        Landing *l = &sh.landed[stage];
        fetch_begin(l, (u32)(rows * j.bytes));
        fetch_mine(r < rows, (u8 *)&sh.ring[stage] + (r < rows ? r : 0) * STRIDE_OF(j.bytes), j.w + (u64)(u32)(from + (r < rows ? r : 0)) * (u32)j.bytes, (u32)j.bytes, l);
        fetch_end(l);
}
// A tile's results, by 128 threads: thread i has row i % 16 of column i / 16.
INLINE void put(const Args &a, const Job &j, int tile, int i, int T)
{
        int column = i / ROWS, row = j.row(tile) + i % ROWS, t = (int)BX * COLUMNS + column;
        if (t >= T || row >= j.end)
                return;
        float y = sum_of(sh.rest.work.sum[tile % 2], column, i % ROWS) moe_has(«norm», «* rms_of(sh.rest.square[column], K, (float)MOE_eps)», «»);
        u64 at = (u64)(u32)t * (u32)j.n + (u32)row;
        if (j.bias)
                y += j.bias[row];
        moe_has(«res», «y += ((const float *)moe_arg(«res»))[at];», «»)
        j.out[at] = y;
}

template <class W> INLINE void rows(const Args &a, const Job &j, int T)
{
        Mine<W, K> mine;
        mine.take(sh.rest.work.acts, (int)BX * COLUMNS + TID % 32 / 4 < T);
        barrier();
#pragma unroll 1
        for (int tile = 0; j.row(tile) < j.end; tile++) {
                landing_wait(&sh.landed[tile % STAGES], (u32)(tile / STAGES) & 1);
                float acc[4] = {};
                mine.times((const u8 *)&sh.ring[tile % STAGES], Packed<W, K>::STRIDE, acc);
                sh.rest.work.sum[tile % 2][TID / 32].put(acc);
                barrier();
                int from = tile % 2 * 4; // the first of the warps that sum
                if (TID / 32 == 4 - from && STAGES < TILES)
                        ask(j, tile + STAGES);
                if (TID / 128 * 4 == from)
                        put(a, j, tile, TID - 32 * from, T);
        }
}

moe_kernel
{
        moe_trigger(first);
        Job j = job_of(a);
        int T = moe_tokens, t0 = (int)BX * COLUMNS, n = T - t0 < COLUMNS ? T - t0 : COLUMNS;
        if (TID < STAGES)
                landing_init(&sh.landed[TID]);
moe_if(moe_made, 1, «        Maker<K, WHOLE(K)> x;
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
», «»)        barrier();
        if (TID < 32 && n > 0)
#pragma unroll 1
                for (int i = 0; i < STAGES; i++)
                        ask(j, i);
        pdl_wait();
        if (n <= 0)
                return;
moe_if(moe_made, 1, «        auto row = [&](int t) { return (const float *)moe_arg(«x») + (u64)(u32)(t0 + t) * K; };
        x.rows(row, 0, n);
        x.all<moe_has(«norm», true, false)>(row, n, sh.rest.work.acts, sh.rest.square);
», «        copy_rows<K, WHOLE(K)>(sh.rest.work.acts, moe_arg(«x»), T, n, [&](int t) { return t0 + t; });
»)        barrier();
moe_for(«I», 0, m4_eval(MOE_NW - 1), «m4_ifelse(moe_type_first(I), I, «        if (moe_types == 1 || j.type == I) {
                rows<moe_fact(«TYPE_w», I)>(a, j, T);
                return;
        }
»)»)}
