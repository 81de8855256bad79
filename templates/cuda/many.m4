// Products of rows of weights with many tokens, on tensor cores: 128 rows a block, 64 for each group of four warps, are the rows of the
// product, up to NT tokens its columns, K goes by in steps of 64 values. Weights go from their quantised form straight to the
// fragments of the product: a lane has whole units of its two rows, as quant/ has them, and the order of summation is the one that
// those units give: in product i of a step, the four lanes of a row put in the four codes of word i each; in a word, codes 0 2 come
// before 1 3. The tokens' values lie in shared memory in that order, the next step's beside those that are being multiplied.
//
// Each token's values are scaled by a power of two, so that its largest are about 2^15: undone in the sums, which are f32.
//
// Weights and the tokens' codes come through shared memory, several steps ahead (ring.m4).
enum { NT = MOE_NT, CK = 256, STEP = 64, STEPS = CK / STEP, GROUP = THREADS / 2, ROWS = 128 };
m4_define(«MOE_act», «q8»)m4_dnl
m4_include(«product.m4»)
m4_include(«f16.m4»)
// ORDERS: in how many orders the block's weights want the tokens' values; each group of warps its own where that is 2.
enum { ORDERS = moe_orders };

m4_include(«ring.m4»)
// The tokens' values of two steps.
struct Values { alignas(128) U4 x[2][ORDERS][NT * STEP / 8]; };
struct Tokens {
        float by[NT], back[NT];
        u32 top[2]; // for codes from 0 and signed ones
        INLINE_IN void begin()
        {
                if (TID < 2)
                        top[TID] = 0x64006400 + (u32)TID * 0x800080;
        }
};

// All threads of the block, from wherever they come.
INLINE void meet() { part_barrier(1, THREADS); }

// x: q8, `rows` rows of K: all codes, then all scales (then their sums).
template <int K> struct Acts {
        const u8 *q;
        const float *d;
        INLINE_IN Acts(const void *x, u32 rows) : q((const u8 *)x), d((const float *)((const u8 *)x + (u64)rows * K)) {}
};

// What each of a tile's tokens is scaled by: some lanes look at a token's scales, of which the first AT are on their way early.
template <int K> struct Weigh {
        enum { LANES = THREADS / NT < 32 ? THREADS / NT : 32, AT = 8 };
        const F4 *from;
        F4 v[AT];
        static INLINE_IN int token() { return TID / LANES; }
        static INLINE_IN bool first() { return TID % LANES == 0; }
        INLINE_IN void load(int k)
        {
#pragma unroll
                for (int j = 0; j < AT; j++)
                        v[j] = from[k + j * LANES < K / 64 ? k + j * LANES : k];
        }
        // row: the token's, or any other
        INLINE_IN void ask(const Acts<K> &x, u32 row)
        {
                from = (const F4 *)(x.d + (u64)row * (K / 16));
                load(TID % LANES < K / 64 ? TID % LANES : 0);
        }
        INLINE_IN void put(Tokens &t)
        {
                float top = 0;
#pragma unroll 1
                for (int k = TID % LANES;; load(k)) {
#pragma unroll
                        for (int j = 0; j < AT; j++)
                                top = max_f32(top, max_f32(max_f32(v[j].x, v[j].y), max_f32(v[j].z, v[j].w)));
                        k += AT * LANES;
                        if (K / 64 <= AT * LANES || k >= K / 64)
                                break;
                }
                for (int m = LANES / 2; m; m /= 2)
                        top = max_f32(top, shfl_xor(top, m));
                float by, back;
                power_of_two(top, by, back);
                if (first())
                        t.by[token()] = by, t.back[token()] = back;
        }
};

// A thread's part of a step's tokens' values, on their way to the product: 16 values of every EACH-th token. Whole warps leave out
// the tokens that are not there; what lies in their place spoils only their own columns.
template <class W, int K, class R> struct Part {
        enum { EACH = R::EACH, MANY = R::MANY };
        R &ring;
        const U4 *code[MANY]; // the lane's first of a piece
        const float *scale[MANY];
        int left; // tokens from the warp's first on
        static INLINE_IN int order() { return ORDERS == 1 ? 0 : TID / GROUP; }
        static INLINE_IN int token(int i) { return i * EACH + TID / 4 % EACH; }
        INLINE_IN bool has(int i) const { return i * EACH < left; }
        INLINE_IN bool any() const { return has(0); }
        INLINE_IN Part(R &r) : ring(r) {}
        // The first steps, from piece `first` on, of tokens whose rows of x row(token) says.
        template <class Row> INLINE_IN void begin(const Acts<K> &x, int first, int tokens, Row row)
        {
                left = tokens - token(0) / 8 * 8;
#pragma unroll
                for (int i = 0; i < MANY; i++) {
                        u64 from = (u64)row(token(i)) * (K / 16) + (u32)(first * (CK / 16) + Rows<W, K, R>::lane_group());
                        code[i] = (const U4 *)here((const u8 *)((const U4 *)x.q + from)), scale[i] = (const float *)here((const u8 *)(x.d + from));
                }
#pragma unroll
                for (int s = 0; s < R::DEPTH; s++) {
                        if (any())
                                ask(first, 0, s, s);
                        copies_end();
                }
        }
        INLINE_IN void weigh(const Tokens &t)
        {
#pragma unroll
                for (int i = 0; i < MANY; i++)
                        ring.by[i][TID] = t.by[token(i)];
        }
        // Step s of the piece `ahead` of this one, p, into a slot that this thread has read.
        INLINE_IN void ask(int p, int ahead, int s, int slot)
        {
                int at = Rows<W, K, R>::step_group(s) + ahead * (CK / 16);
                bool in = K % CK == 0 || p * (CK / 16) + Rows<W, K, R>::lane_group() + at < K / 16;
#pragma unroll
                for (int i = 0; i < MANY; i++) {
                        if (i && !has(i))
                                continue;
                        if (in) {
                                copy16(&ring.code[slot][i][TID], code[i] + at);
                                copy4(&ring.scale[slot][i][TID], scale[i] + at);
                        } else {
                                ring.code[slot][i][TID] = U4{0, 0, 0, 0};
                                ring.scale[slot][i][TID] = 0;
                        }
                }
        }
        INLINE_IN void next()
        {
#pragma unroll
                for (int i = 0; i < MANY; i++)
                        code[i] += CK / 16, scale[i] += CK / 16;
        }
        INLINE_IN void put(Values &v, int buffer, int slot, u32 top) const
        {
#pragma unroll
                for (int i = 0; i < MANY; i++) {
                        if (i && !has(i))
                                continue;
                        Factor f;
                        U4 q = ring.code[slot][i][TID];
                        f.set(ring.scale[slot][i][TID] * ring.by[i][TID], 0);
                        u32 *to = (u32 *)&v.x[buffer][order()][i * EACH] + TID % (4 * EACH); // token(i), word TID % 4
#pragma unroll
                        for (int w = 0; w < 4; w++) {
                                u32 even, odd;
                                f.rounded(word(q, w), top, even, odd);
                                to[2 * w * NT * 4] = even;
                                to[(2 * w + 1) * NT * 4] = odd;
                        }
                }
        }
};

// acc: += the products of a step, of the first NB blocks of 8 tokens.
template <int NB> INLINE void multiply(float (&all)[NT / 8][4], const u32 (&f)[4][4], const Values &v, int at)
{
        float (&acc)[NB][4] = (float (&)[NB][4])all;
        tile_begin();
#pragma unroll
        for (int i = 0; i < 4; i++)
                tile_product(acc, f[i], v.x[0][0], at + 2 * i * NT, NT);
        tile_end();
}
// Usage: moe_sizes(F, ARGS, N, STEP): F<NB> ARGS with as few blocks of 8 tokens as hold N, in STEPs down from NT.
m4_define(«moe_sizes», «moe_arity(«moe_sizes», 4, $#)moe_sizes_of(«$1», «$2», «$3», $4, MOE_NT)»)m4_dnl
m4_define(«moe_sizes_of», «m4_ifelse(m4_eval($5 > $4), 1, «if ($3 > m4_eval($5 - $4))
                                $1<m4_eval($5 / 8)>$2;
                        else moe_sizes_of(«$1», «$2», «$3», $4, m4_eval($5 - $4))», «$1<m4_eval($5 / 8)>$2;»)»)m4_dnl

// The fragments of step s of the piece in w.
template <class W, int K, class R> INLINE void unpack(const Rows<W, K, R> &w, int s, u32 top, Factor (&by)[2], u32 (&f)[4][4])
{
        u32 c[2][4];
        w.codes(s, c, by);
#pragma unroll
        for (int i = 0; i < 4; i++)
                fragment<W>(c, by, top, i, f[i]);
}

// acc: += the products of the thread's rows with n tokens over pieces first .. last - 1 of K; both have been begun, rows first. A step
// ends its batch of copies, empty or not, so that it is known how many are younger than those that are wanted.
template <class W, int K, class R>
INLINE void times(Rows<W, K, R> &w, Part<W, K, R> &part, Weigh<K> &weigh, Tokens &t, Values &v, int first, int last, int n, float (&acc)[NT / 8][4])
{
        enum { DEPTH = R::DEPTH, AHEAD = R::AHEAD };
        last = here(last); // one turn of no loop would have the sums copied around
        weigh.put(t);
        copies_wait_but<DEPTH - 1>();
        meet();
        u32 top = t.top[!W::MIN], top_x = t.top[1];
        part.weigh(t);
        w.load(first, 0);
        if (part.any()) {
                part.put(v, 0, 0, top_x);
                tile_fence();
                if (DEPTH < STEPS || first + 1 < last)
                        part.ask(first, DEPTH / STEPS, DEPTH % STEPS, 0);
        }
        copies_end();
        meet();
#pragma unroll 1
        for (int p = first; p < last; p++) {
                Factor by[2];
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                        u32 f[4][4];
                        int put = s + 1, slot = put % DEPTH, ask = put + DEPTH;
                        unpack(w, s, top, by, f);
                        int at = (s % 2 * ORDERS + part.order()) * (NT * STEP / 8);
                        moe_sizes(«multiply», «(acc, f, v, at)», «n», 16)
                        copies_wait_but<DEPTH - 1>();
                        if (part.any()) {
                                part.put(v, put % 2, slot, top_x);
                                // the fence waits for loads too, so new copies stand behind it
                                tile_fence();
                                if (p + ask / STEPS < last)
                                        part.ask(p, ask / STEPS, ask % STEPS, slot);
                        }
                        if (!w.NEAR && s == 0 && p + 1 < last)
                                w.ask(p + 1);
                        if (s == 0 && AHEAD < w.MOST && p + AHEAD < last)
                                w.more(p);
                        copies_end();
                        if (s == STEPS - 1 && p + 1 < last) {
                                if (4 * AHEAD - 1 < DEPTH)
                                        copies_wait_but<4 * AHEAD - 1>();
                                warp_barrier();
                                w.load(p + 1, w.after());
                        }
                        tile_wait();
                        meet();
                }
                part.next();
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
                        u32 mine = e < E ? (off[e + 1] - off[e] + NT - 1) / NT : 0, upto = warp_upto(mine);
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
