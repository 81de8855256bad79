// experts_up_many: experts_up in a step of several tokens, on tensor cores: glu(gate_e(x), up_e(x)) of every chosen expert e.
//
// x q8 [T, K]; order as sort has it; gate, up split [E, F, K]; out f32 or q8 [T, KTOP, F].
// A piece of work: PART = 64 rows of gate by one group of warps and the same of up by the other, times up to NT of one expert's
// tokens: a touched expert's rows leave the memory once for up to NT tokens, and L2 for more. SPLIT blocks take them in turns, each
// with the next one's first weights and tokens on their way before its results go out. Grid: SPLIT. 256 threads, BLOCKS a processor.
//
//      H100, Q4_K K 2048, F 768, 8 of 128 experts, microseconds:  512 tokens: 157    2048: 475
m4_include(«prelude.m4»)
m4_define(«moe_orders», «moe_if(MOE_TYPE_gate, MOE_TYPE_up, 1, 2)»)m4_dnl
m4_include(«many.m4»)
m4_include(«glu_fn.m4»)
enum { K = MOE_K, F = MOE_F, E = MOE_E, KTOP = MOE_KTOP, PART = MOE_PART, PARTS = (F + PART - 1) / PART };
moe_quant(MOE_TYPE_gate)
moe_quant(MOE_TYPE_up)
struct Rest {
        union {
                Values v;
                float h[2][NT][PART + 4]; // of gate and of up, when all values are used up
        };
        Tokens t;
        Tiles<E> tiles;
        u32 pair[NT]; // where each result goes; over KTOP: its token
};
typedef Ring<sizeof(Rest), K, MOE_TYPE_gate, MOE_TYPE_up> R;
struct Shared : Rest { R ring; };
SHARED(Shared)

INLINE float result(int t, int at) { return glu(sh.h[0][t][at], sh.h[1][t][at]); }
// Results of the first n tokens, out of sh.h.
INLINE void put(const Args &a, u32 T, int from, int n)
{
moe_if(MOE_out, q8, «        u8 *q = (u8 *)moe_arg(«out0»);
        u64 rows = (u64)T * KTOP;
        float *d = (float *)(q + rows * F), *s = d + rows * (F / 16);
#pragma unroll 1
        for (int j = 0; j < (n * PART / 4 + THREADS - 1) / THREADS; j++) {
                int i = j * THREADS + TID, t = i / (PART / 4), at = 4 * (i % (PART / 4));
                bool in = t < n && from + at < F;
                float v[4], scale, sum;
                for (int c = 0; c < 4; c++)
                        v[c] = in ? result(t, at + c) : 0;
                u32 code = quantize4(v, scale, sum);
                if (in) {
                        u64 p = (u64)sh.pair[t] * F + (u32)(from + at);
                        *(u32 *)(q + p) = code;
                        if (i % 4 == 0)
                                d[p / 16] = scale, s[p / 16] = sum;
                }
        }
», «        for (int i = TID; i < n * PART; i += THREADS)
                if (from + i % PART < F)
                        ((float *)moe_arg(«out0»))[(u64)sh.pair[i / PART] * F + (u32)(from + i % PART)] = result(i / PART, i % PART);
        (void)T;
»)}

// One matrix: gate (group 0) or up.
template <class W> struct Matrix {
        enum { PIECES = Rows<W, K, R>::PIECES };
        const Args &a;
        const u8 *base;
        const float *bias; // or 0
        const u32 *pairs;
        Rows<W, K, R> w;
        Part<W, K, R> part;
        Weigh<K> weigh;
        // Piece of work `item`: its tile, and which of its pairs this thread weighs.
        u32 item, pair;
        Tile at;
        INLINE_IN bool exists() const { return item < sh.tiles.start[E] * PARTS; }
        INLINE_IN u32 pair_of(int t) const { return pairs[at.first + (u32)(t < at.n ? t : at.n - 1)]; }
        // Its weights on their way.
        INLINE_IN void ask(u32 i)
        {
                item = i;
                if (!exists())
                        return;
                at = sh.tiles.find(item / PARTS);
                pair = pair_of(weigh.token());
                w.at(base + (u64)at.e * F * Row<W, K>::BYTES, (int)(item % PARTS) * PART, F);
                w.begin(0, PIECES);
        }
        // Its tokens as well.
        INLINE_IN void ask_tokens(u32 T)
        {
                Acts<K> x(moe_arg(«x»), T);
                if (exists())
                        part.begin(x, 0, at.n, [&](int t) { return pair_of(t) / KTOP; });
                weigh.ask(x, exists() ? pair / KTOP : 0); // always, or the last one's would be kept until then
        }
        // The work that was asked for; then asks for the next.
        INLINE_IN void work(u32 T)
        {
                float acc[NT / 8][4] = {};
                int from = (int)(item % PARTS) * PART, n = at.n;
                u32 e = at.e;
                if (weigh.first())
                        sh.pair[weigh.token()] = pair;
                times(w, part, weigh, sh.t, sh.v, 0, PIECES, n, acc);
                ask(item + MOE_SPLIT);
#pragma unroll
                for (int i = 0; i < NT / 2; i++) {
                        int t = token_of(i), r = row_of(i);
                        if (i / 4 * 8 >= n)
                                break;
                        float y = acc[i / 4][i % 4] * sh.t.back[t];
                        if (bias && from + r < F)
                                y += bias[(u64)e * F + (u32)(from + r)];
                        sh.h[TID / GROUP][t][r] = y;
                }
                ask_tokens(T);
                meet();
                put(a, T, from, n);
                meet();
        }
        INLINE_IN void run(u32 T)
        {
                ask(BX);
                ask_tokens(T);
#pragma unroll 1
                while (exists())
                        work(T);
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
        const u8 *gate = (const u8 *)moe_arg(«gate»), *up = (const u8 *)moe_arg(«up»);
        const float *gate_b = moe_has(«gate_b», «(const float *)moe_arg(«gate_b»)», 0), *up_b = moe_has(«up_b», «(const float *)moe_arg(«up_b»)», 0);
        bool first = TID < GROUP;
m4_ifelse(moe_orders, 1, «        Matrix<MOE_TYPE_gate> m = {a, first ? gate : up, first ? gate_b : up_b, off + E + 1, {sh.ring}, {sh.ring}};
        m.run(T);
», «        if (first) {
                Matrix<MOE_TYPE_gate> m = {a, gate, gate_b, off + E + 1, {sh.ring}, {sh.ring}};
                m.run(T);
        } else {
                Matrix<MOE_TYPE_up> m = {a, up, up_b, off + E + 1, {sh.ring}, {sh.ring}};
                m.run(T);
        }
»)}
