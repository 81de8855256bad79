// matmul_many: matmul in a step of several tokens, on tensor cores: out[i] = res + x * w[i] + bias[i], one result a weight.
//
// x q8 [T, K]; w[i] split [N_i, K]; out[i] f32 [T, N_i]; res f32 [T, N_0] (one weight only), may be out[0] itself.
// A block: RPB = 128 rows of one weight, up to NT tokens; the first pieces of its rows are on their way before the wait. Where rows
// are too few for all processors, the CLUSTER blocks of a cluster share their rows' K, and sum in the order of their ranks.
// Grid: sum over i of ceil(N_i / RPB), then ceil(ROWS / NT), then CLUSTER. 256 threads, BLOCKS a processor.
//
//      H100, Q4_K K 2048, microseconds:     N 5120, 64 tokens: 22   512: 69   2048: 184
m4_include(«prelude.m4»)
m4_define(«moe_orders», 1)m4_dnl
m4_include(«many.m4»)
m4_include(«types.m4»)
enum { K = MOE_K, RPB = MOE_RPB };
moe_for(«I», 0, m4_eval(MOE_NW - 1), «moe_quant(moe_fact(«TYPE_w», I))»)
enum { SUMS = CLUSTER > 1 ? NT / 2 : 1 };
// Where a weight's results go.
struct To {
        float *out;
        const float *bias, *res; // or 0
        int n;
};

struct Rest {
        Values v;
        Tokens t;
        float sum[SUMS][THREADS];
        float *out; // during the product, for want of registers
};
typedef Ring<sizeof(Rest), K«»moe_for(«I», 0, m4_eval(MOE_NW - 1), «, moe_fact(«TYPE_w», I)»)> Pieces;
struct Shared : Rest { Pieces ring; };
SHARED(Shared)

// The result of row r and the tile's token t, if there is one.
struct Result {
        u64 at;
        bool in;
        float y;
        INLINE_IN void set(const To &to, int r, int t, u32 t0, u32 T, float sum)
        {
                at = (u64)(t0 + (u32)t) * (u32)to.n + (u32)r;
                in = t0 + (u32)t < T && r < to.n;
                y = sum * sh.t.back[t];
                if (in && to.bias)
                        y += to.bias[r];
                moe_has(«res», «if (in)
                        y += to.res[at];», «»)
        }
        INLINE_IN void put(const To &to) const
        {
                if (in)
                        to.out[at] = y;
        }
};

// The first of a group's rows; made anew when it is asked for, for want of registers.
INLINE int first_row(u32 block) { return here((int)block) * RPB + TID / GROUP * 64; }
template <class W> INLINE void rows(const Args &a, const u8 *base, To to, u32 block)
{
        typedef Rows<W, K, Pieces> R;
        R w(sh.ring);
        int rank = CLUSTER > 1 ? (int)BZ : 0;
        int first = R::PIECES * rank / CLUSTER, last = R::PIECES * (rank + 1) / CLUSTER;
        w.at(base, first_row(block), to.n);
        w.begin(first, last);
        pdl_wait();
        u32 T = moe_rows, t0 = BY * NT;
        if (t0 >= T || (int)BZ >= CLUSTER) {
                copies_wait();
                return;
        }
        sh.t.begin();
        if (TID == 0)
                sh.out = to.out;
        Acts<K> x(moe_arg(«x»), T);
        Part<W, K, Pieces> part(sh.ring);
        Weigh<K> weigh;
        int n = (int)(T - t0);
        auto row = [&](int t) { return t < n ? t0 + (u32)t : T - 1; };
        part.begin(x, first, n, row);
        weigh.ask(x, row(weigh.token()));
        float acc[NT / 8][4] = {};
        times(w, part, weigh, sh.t, sh.v, first, last, n, acc);
        to.out = sh.out;
        int from = first_row(block);
        Result result;
#pragma unroll
        for (int i = 0; i < NT / 2; i++)
                if (i / 4 * 8 >= n) {
                        break;
                } else if (CLUSTER == 1) {
                        result.set(to, from + row_of(i), token_of(i), t0, T, acc[i / 4][i % 4]);
                        result.put(to);
                } else {
                        sh.sum[i % SUMS][TID] = acc[i / 4][i % 4];
                }
        if (CLUSTER == 1)
                return;
        cluster_arrive();
        cluster_wait();
        enum { MINE = SUMS / CLUSTER }; // all on their way at once
        Result mine[MINE];
#pragma unroll
        for (int j = 0; j < MINE; j++) {
                int i = j * CLUSTER + rank;
                float y = 0;
#pragma unroll
                for (u32 c = 0; c < CLUSTER; c++)
                        y += *cluster_at(&sh.sum[i][TID], c);
                mine[j].set(to, from + row_of(i), token_of(i), t0, T, y);
        }
#pragma unroll
        for (int j = 0; j < MINE; j++)
                mine[j].put(to);
        cluster_arrive();
        cluster_wait();
}

moe_kernel
{
        moe_trigger(first);
        const u8 *w = 0;
        u32 block = 0;
        int type = 0;
        To to;
moe_for(«I», 0, m4_eval(MOE_NW - 1), «        if (BX >= moe_fact(«START», I) && BX < moe_fact(«END», I)) {
                w = (const u8 *)a.arg[moe_fact(«ARG_w», I)];
                to = {(float *)a.arg[moe_fact(«ARG_out», I)], m4_ifdef(«MOE_ARG_bias»I, «(const float *)a.arg[moe_fact(«ARG_bias», I)]», 0), moe_has(«res», «(const float *)moe_arg(«res»)», 0), moe_fact(«N», I)};
                block = BX - moe_fact(«START», I);
                type = moe_type_first(I);
        }
»)moe_for(«I», 0, m4_eval(MOE_NW - 1), «m4_ifelse(moe_type_first(I), I, «        if (moe_types == 1 || type == I) {
                rows<moe_fact(«TYPE_w», I)>(a, w, to, block);
                return;
        }
»)»)}
