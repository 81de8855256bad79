// Products of rows of weights with many tokens, on tensor cores: 128 rows a block, 64 for each group of four warps, are the rows of the
// product, up to NT tokens its columns, K goes by in steps of 64 values. Weights go from their quantised form straight to the
// fragments of the product: a lane has whole units of its two rows, as quant/ has them, and the order of summation is the one that
// those units give: in product i of a step, the four lanes of a row put in the four codes of word i each; in a word, codes 0 2 come
// before 1 3. The tokens' values lie in shared memory in that order, the next step's beside those that are being multiplied.
//
// Each token's values are scaled by a power of two, so that its largest are about 2^15: undone in the sums, which are f32.
//
// Weights are fetched into L2 FAR pieces of 256 values ahead, and into registers as soon as the piece before them is used up.
enum { NT = MOE_NT, CK = 256, STEP = 64, STEPS = CK / STEP, GROUP = THREADS / 2, FAR = 2 };
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
m4_include(«f16.m4»)
// ORDERS: in how many orders the block's weights want the tokens' values; each group of warps its own where that is 2.
enum { ORDERS = moe_orders };

// Usage: moe_weights(TYPE): the fragment of TYPE, and the same which fetches into L2 what the other one loads.
template <class W> struct Ahead;
m4_define(«moe_weights», «moe_arity(«moe_weights», 1, $#)moe_quant($1)m4_ifdef(«moe_ahead_$1», «», «m4_define(«moe_ahead_$1»)moe_ahead_loads
namespace fetched {
m4_include(«quant/$1.m4»)}
template <> struct Ahead<$1> { typedef fetched::$1 Type; };
moe_loads»)»)m4_dnl
m4_define(«moe_loads», «#undef W16
#undef K16
#undef W4
#undef W2
#undef W1
#define W16(p) load16(p)
#define K16(p) kept16(p)
#define W4(p) kept4(p)
#define W2(p) kept2(p)
#define W1(p) kept1(p)
»)m4_dnl
m4_define(«moe_ahead_loads», «#undef W16
#undef K16
#undef W4
#undef W2
#undef W1
#define W16(p) fetched16(p)
#define K16(p) fetched16(p)
#define W4(p) 0
#define W2(p) 0
#define W1(p) 0
»)m4_dnl
INLINE U4 fetched16(const void *p)
{
        ahead(p);
        return U4{0, 0, 0, 0};
}

struct Tokens {
        alignas(128) U4 x[2][ORDERS][NT * STEP / 8];
        float by[NT], back[NT];
        u32 row[NT]; // of x
        u32 top[2];  // for codes from 0 and signed ones
        INLINE_IN void begin()
        {
                if (TID < 2)
                        top[TID] = 0x64006400 + (u32)TID * 0x800080;
        }
};

// All threads of the block, from wherever they come.
INLINE void meet() { part_barrier(1, THREADS); }

// A thread's two rows of weights, CK values of them in registers.
template <class W, int K> struct Rows {
        enum { PIECES = (K + CK - 1) / CK, V = CK / 4 / W::UNIT, UNITS = K / W::UNIT, G = W::UNIT / 16 };
        const u8 *row[2];
        W w[V][2];
        // Of n rows from base on, those that the product gives this thread from `first` on; or the last one again.
        INLINE_IN void at(const u8 *base, int first, int n)
        {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        int i = first + TID % GROUP / 32 * 16 + 8 * r + TID % 32 / 4;
                        row[r] = here(base + (u64)(u32)(i < n ? i : n - 1) * Row<W, K>::BYTES); // or it is made again for each load
                }
        }
        template <class F> INLINE_IN void get(F (&f)[V][2], int piece) const
        {
                int from = here(piece * (CK / W::UNIT) + TID % 4);
#pragma unroll
                for (int j = 0; j < V; j++) {
                        int u = from + 4 * j;
                        u = u < UNITS ? u : UNITS - 1; // behind the row's end the tokens' values are 0
#pragma unroll
                        for (int r = 0; r < 2; r++)
                                f[j][r].template load<K>(row[r], u);
                }
        }
        INLINE_IN void load(int piece) { get(w, piece); }
        INLINE_IN void fetch(int piece) const
        {
                typename Ahead<W>::Type f[V][2];
                get(f, piece);
        }
        INLINE_IN void begin(int first, int last)
        {
                load(first);
#pragma unroll
                for (int p = 1; p <= FAR; p++)
                        if (first + p < last)
                                fetch(first + p);
        }
        // Words of codes, and what they are multiplied by, of step s of the piece; by: of step s - 1.
        INLINE_IN void codes(int s, u32 (&c)[2][4], Factor (&by)[2]) const
        {
                int j = s / G, g = s % G, u = 4 * j + TID % 4;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                        float scale, m;
                        w[j][r].group(u, g, c[r], scale, m);
                        if (g % W::SAME == 0)
                                by[r].set(UP * scale, W::MIN ? UP * fma1(-(float)W::CENTRE, scale, m) : 0);
                }
        }
        // Which group of 16 values of a row the lane's codes of step s are.
        static INLINE_IN int place(int piece, int s) { return W::at(piece * (CK / W::UNIT) + s / G * 4 + TID % 4, s % G); }
};

// x: q8, `rows` rows of K: all codes, then all scales (then their sums).
template <int K> struct Acts {
        const u8 *q;
        const float *d;
        INLINE_IN Acts(const void *x, u32 rows) : q((const u8 *)x), d((const float *)((const u8 *)x + (u64)rows * K)) {}
        // What each of the first n tokens is scaled by.
        INLINE_IN void weigh(Tokens &t, int n) const
        {
                enum { LANES = THREADS / NT < 32 ? THREADS / NT : 32 };
                int i = TID / LANES;
                float top = 0;
                const F4 *p = (const F4 *)(d + (u64)t.row[i] * (K / 16));
#pragma unroll 8
                for (int k = TID % LANES; k < K / 64 && i < n; k += LANES) {
                        F4 v = p[k];
                        top = max_f32(top, max_f32(max_f32(v.x, v.y), max_f32(v.z, v.w)));
                }
                for (int m = LANES / 2; m; m /= 2)
                        top = max_f32(top, shfl_xor(top, m));
                u32 e = f32_bits(top) >> 23;
                e = e < 8 ? 8 : e > 253 ? 253 : e;
                if (TID % LANES == 0)
                        t.by[i] = bits_f32((261 - e) << 23), t.back[i] = bits_f32((e - 7) << 23) * DOWN;
        }
};

// A thread's part of a step's tokens' values, on their way to shared memory: 16 values of every EACH-th token. Whole warps leave out
// the tokens that are not there; what lies in their place spoils only their own columns.
template <class W, int K> struct Part {
        enum { EACH = THREADS / ORDERS / 4, MANY = (NT + EACH - 1) / EACH };
        U4 q[MANY];
        float d[MANY];
        u32 row[MANY]; // where it begins, in groups of 16 values
        int n;
        static INLINE_IN int order() { return ORDERS == 1 ? 0 : TID / GROUP; }
        static INLINE_IN int token(int i) { return i * EACH + TID / 4 % EACH; }
        INLINE_IN bool has(int i) const { return token(i) / 8 * 8 < n; }
        INLINE_IN void begin(const Tokens &t, int tokens)
        {
                n = tokens < NT ? tokens : NT;
#pragma unroll
                for (int i = 0; i < MANY; i++)
                        row[i] = has(i) ? t.row[token(i)] * (K / 16) : 0;
        }
        INLINE_IN void ask(const Acts<K> &x, int piece, int s)
        {
                int at = Rows<W, K>::place(piece, s);
#pragma unroll
                for (int i = 0; i < MANY; i++) {
                        u32 from = row[i] + (u32)at;
                        if (has(i) && at < K / 16) {
                                q[i] = ((const U4 *)x.q)[from];
                                d[i] = x.d[from];
                        } else if (K % CK) {
                                q[i] = U4{0, 0, 0, 0};
                                d[i] = 0;
                        }
                }
        }
        INLINE_IN void put(Tokens &t, int buffer, u32 top) const
        {
#pragma unroll
                for (int i = 0; i < MANY; i++) {
                        if (!has(i))
                                continue;
                        Factor f;
                        f.set(d[i] * t.by[token(i)], 0);
                        u32 *to = (u32 *)&t.x[buffer][order()][token(i)] + TID % 4;
#pragma unroll
                        for (int w = 0; w < 4; w++) {
                                u32 even, odd;
                                halves<128, true>(word(q[i], w), top, even, odd);
                                to[2 * w * NT * 4] = f.template of<false>(even);
                                to[(2 * w + 1) * NT * 4] = f.template of<false>(odd);
                        }
                }
        }
};

// acc: += the products of a step, of the first NB blocks of 8 tokens.
template <int NB> INLINE void multiply(float (&all)[NT / 8][4], const u32 (&f)[4][4], const Tokens &t, int at)
{
        float (&acc)[NB][4] = (float (&)[NB][4])all;
        tile_begin();
#pragma unroll
        for (int i = 0; i < 4; i++)
                tile_product(acc, f[i], t.x[0][0], at + 2 * i * NT, NT);
        tile_end();
}
// Usage: moe_sizes(F, ARGS, N, STEP): F<NB> ARGS with as few blocks of 8 tokens as hold N, in STEPs down from NT.
m4_define(«moe_sizes», «moe_arity(«moe_sizes», 4, $#)moe_sizes_of(«$1», «$2», «$3», $4, MOE_NT)»)m4_dnl
m4_define(«moe_sizes_of», «m4_ifelse(m4_eval($5 > $4), 1, «if ($3 > m4_eval($5 - $4))
                                $1<m4_eval($5 / 8)>$2;
                        else moe_sizes_of(«$1», «$2», «$3», $4, m4_eval($5 - $4))», «$1<m4_eval($5 / 8)>$2;»)»)m4_dnl

// acc: += the products of the thread's rows, whose first piece is on its way, with n tokens over pieces first .. last - 1 of K.
template <class W, int K> INLINE void times(Rows<W, K> &w, Tokens &t, const Acts<K> &x, int first, int last, int n, float (&acc)[NT / 8][4])
{
        Part<W, K> part;
        u32 top = t.top[!W::MIN], top_x = t.top[1];
        last = here(last); // one turn of no loop would have the sums copied around
        part.begin(t, n);
        part.ask(x, first, 0);
        x.weigh(t, n);
        meet();
        part.put(t, 0, top_x);
        tile_fence();
        part.ask(x, first, 1);
        meet();
#pragma unroll 1
        for (int p = first; p < last; p++) {
                Factor by[2];
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        u32 c[2][4], f[4][4];
                        w.codes(s, c, by);
#pragma unroll
                        for (int i = 0; i < 4; i++) {
#pragma unroll
                                for (int r = 0; r < 2; r++) {
                                        u32 even, odd;
                                        halves<W::CENTRE, !W::MIN>(c[r][i], top, even, odd);
                                        f[i][r] = by[r].template of<(bool)W::MIN>(even);
                                        f[i][r + 2] = by[r].template of<(bool)W::MIN>(odd);
                                }
                        }
                        int at = (s % 2 * ORDERS + part.order()) * (NT * STEP / 8);
                        moe_sizes(«multiply», «(acc, f, t, at)», «n», 16)
                        part.put(t, (s + 1) % 2, top_x);
                        // the fence waits for loads too
                        tile_fence();
                        if (s == 0 && p + 1 + FAR < last)
                                w.fetch(p + 1 + FAR);
                        if (s == STEPS - 1 && p + 1 < last)
                                w.load(p + 1);
                        part.ask(x, p + (s + 2) / STEPS, (s + 2) % STEPS);
                        tile_wait();
                        meet();
                }
        }
}
// The row and the token of acc[i / 4][i % 4].
INLINE int row_of(int i) { return TID % GROUP / 32 * 16 + TID % 32 / 4 + i % 4 / 2 * 8; }
INLINE int token_of(int i) { return i / 4 * 8 + TID % 4 * 2 + i % 2; }

// Which of an expert's pairs a tile has: as few tiles as hold them, of like sizes.
struct Tile {
        u32 e, first;
        int n;
};
// Tiles of up to NT pairs over the experts: start[e] is how many those before e have.
template <int E> struct Tiles {
        u32 start[E + 1], off[E + 1];
        INLINE_IN void count(const u32 *from)
        {
                u32 base = 0;
                for (int e = TID; e <= E; e += THREADS)
                        off[e] = from[e];
                meet();
#pragma unroll 1
                for (int e0 = 0; e0 < E && TID < 32; e0 += 32) {
                        int e = e0 + TID;
                        u32 mine = e < E ? (off[e + 1] - off[e] + NT - 1) / NT : 0, upto = mine;
                        for (int m = 1; m < 32; m *= 2) {
                                u32 other = shfl(upto, TID - m < 0 ? 0 : TID - m);
                                upto += TID >= m ? other : 0;
                        }
                        if (e < E)
                                start[e] = base + upto - mine;
                        base += shfl(upto, 31);
                }
                if (TID == 0)
                        start[E] = base;
                meet();
        }
        INLINE_IN Tile find(u32 tile) const
        {
                u32 e = 0;
#pragma unroll
                for (u32 step = 1 << 15; step; step /= 2)
                        if (step < E && e + step < E && start[e + step] <= tile)
                                e += step;
                u32 pairs = off[e + 1] - off[e], tiles = start[e + 1] - start[e], each = ((pairs + tiles - 1) / tiles + 7) / 8 * 8;
                u32 from = (tile - start[e]) * each, left = pairs - from;
                return {e, off[e] + from, (int)(left < each ? left : each)};
        }
};
