// experts_down_many: experts_down in a step of several tokens, on tensor cores: res + sum over the chosen experts e of
// weight_e * down_e(x[:, slot]).
//
// x q8 [T, KTOP, F]; route [T, KTOP]; order as sort has it; down split [E, H, F]; out f32 [T, H]; res f32 [T, H], may be out itself.
// A piece of work: RPB = 128 rows of H times up to NT of one expert's pairs; SPLIT blocks take them in turns, a part of H after the
// other, so that what its pairs have is still in L2 when it is summed: it is put by, and who puts by the last one of a token's sums
// them, in order of slots. A block's next weights and pairs are on their way before its results go out. Grid: SPLIT. 256 threads,
// BLOCKS a processor.
//
//      H100, Q4_K H 2048, F 768, 8 of 128 experts, microseconds:  512 tokens: 146    2048: 468
m4_include(«prelude.m4»)
m4_define(«moe_orders», 1)m4_dnl
m4_include(«many.m4»)
enum { H = MOE_H, K = MOE_F, E = MOE_E, KTOP = MOE_KTOP, RPB = MOE_RPB, PARTS = (H + RPB - 1) / RPB, WIDE = H % 4 ? 1 : 4 };
moe_quant(MOE_TYPE_down)
typedef MOE_TYPE_down W;
struct Rest {
        Values v;
        Tokens t;
        Tiles<E> tiles;
        u32 row[NT]; // of x: the pairs
        bool last[NT];
};
typedef Ring<sizeof(Rest), K, W> R;
struct Shared : Rest { R ring; };
SHARED(Shared)
alignas(16) __device__ float by_pair[MOE_MAXTOK * KTOP][H];
__device__ u32 count[MOE_MAXTOK][PARTS];

INLINE void far(const float *p, float (&v)[1]) { v[0] = load_far(p); }
INLINE void far(const float *p, float (&v)[4])
{
        F4 f = load_far4((const F4 *)p);
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}

// Sums for the tokens of the first n pairs that lack no other one.
INLINE void sum(const Args &a, u32 part, int n)
{
        publish();
        meet();
        for (int t = TID; t < n; t += THREADS) {
                u32 *c = &count[sh.row[t] / KTOP][part];
                sh.last[t] = atomic_inc(c) == KTOP - 1;
                if (sh.last[t])
                        *c = 0;
        }
        meet();
        publish();
#pragma unroll 1
        for (int i = TID; i < n * (RPB / WIDE); i += THREADS) {
                u32 t = (u32)i / (RPB / WIDE), r = part * RPB + (u32)i % (RPB / WIDE) * WIDE, token = sh.row[t] / KTOP;
                if (!sh.last[t] || r >= H)
                        continue;
                const Route *route = (const Route *)moe_arg(«route») + (u64)token * KTOP;
                float y[WIDE];
                for (int k = 0; k < WIDE; k++)
                        y[k] = moe_has(«res», «((const float *)moe_arg(«res»))[(u64)token * H + r + (u32)k]», 0);
#pragma unroll 8
                for (u32 s = 0; s < KTOP; s++) {
                        float v[WIDE];
                        far(&by_pair[token * KTOP + s][r], v);
                        for (int k = 0; k < WIDE; k++)
                                y[k] = fma1(route[s].w, v[k], y[k]);
                }
                for (int k = 0; k < WIDE; k++)
                        ((float *)moe_arg(«out0»))[(u64)token * H + r + (u32)k] = y[k];
        }
}

// Piece of work `item`: which rows, its tile, and which of its pairs this thread weighs.
struct Work {
        enum { PIECES = Rows<W, K, R>::PIECES };
        const Args &a;
        const u32 *pairs;
        Rows<W, K, R> w;
        Part<W, K, R> part;
        Weigh<K> weigh;
        u32 item, rows, pair;
        Tile at;
        INLINE_IN bool exists() const { return item < sh.tiles.start[E] * PARTS; }
        INLINE_IN u32 pair_of(int t) const { return pairs[at.first + (u32)(t < at.n ? t : at.n - 1)]; }
        // Its weights on their way.
        INLINE_IN void ask(u32 i)
        {
                item = i;
                if (!exists())
                        return;
                rows = item / sh.tiles.start[E];
                at = sh.tiles.find(item % sh.tiles.start[E]);
                pair = pair_of(weigh.token());
                w.at((const u8 *)moe_arg(«down») + (u64)at.e * H * Row<W, K>::BYTES, (int)rows * RPB + TID / GROUP * 64, H);
                w.begin(0, PIECES);
        }
        // Its pairs' values as well.
        INLINE_IN void ask_pairs(u32 T)
        {
                Acts<K> x(moe_arg(«x»), T * KTOP);
                if (exists())
                        part.begin(x, 0, at.n, [&](int t) { return pair_of(t); });
                weigh.ask(x, exists() ? pair : 0); // always, or the last one's would be kept until then
        }
        // The work that was asked for; then asks for the next.
        INLINE_IN void work(u32 T)
        {
                float acc[NT / 8][4] = {};
                int from = (int)rows * RPB + TID / GROUP * 64, n = at.n;
                u32 e = at.e, here = rows;
                if (weigh.first())
                        sh.row[weigh.token()] = pair;
                times(w, part, weigh, sh.t, sh.v, 0, PIECES, n, acc);
                ask(item + MOE_SPLIT);
#pragma unroll
                for (int i = 0; i < NT / 2; i++) {
                        int t = token_of(i), r = from + row_of(i);
                        if (i / 4 * 8 >= n)
                                break;
                        float y = acc[i / 4][i % 4] * sh.t.back[t];
                        if (t < n && r < H) {
                                moe_has(«down_b», «y += ((const float *)moe_arg(«down_b»))[(u64)e * H + (u32)r];», «»)
                                by_pair[sh.row[t]][r] = y;
                        }
                }
                (void)e;
                ask_pairs(T);
                sum(a, here, n);
                meet();
        }
};

moe_kernel
{
        moe_trigger(first);
        pdl_wait();
        u32 T = a.dim->n_tok;
        const u32 *off = (const u32 *)moe_arg(«order»);
        sh.t.begin();
        sh.tiles.count(off);
        Work work = {a, off + E + 1, {sh.ring}, {sh.ring}};
        work.ask(BX);
        work.ask_pairs(T);
#pragma unroll 1
        while (work.exists())
                work.work(T);
}
