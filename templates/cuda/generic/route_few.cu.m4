// route_few: route with its product in a step of T <= NT tokens: each one's k experts and their weights, from norm(x) [T, K] times
// w [E, K].
//
// out Route [T, KTOP]; with q8 norm(x) [T, K] too. A token's blocks share the rows of w, which are fetched before the wait; their logits
// meet in a block of the cluster, which chooses: each token's in another one, where a cluster has several, TOKENS (without clusters: in memory of
// this module, with the block that ends last). Where K is a thread's four
// values times all threads, a warp has its part of all rows' K: activations stay in the registers where they are made, and what has
// no room in shared memory of the weights is in registers, too. Else a warp has whole rows, by pieces.
// 512 threads. Grid: 1, ceil(T / TOKENS), SPLIT.
//
//      H100, E 128, K 2048, microseconds: 5.2 by rows; by parts of K: 3.3       8 tokens: 6.6    32: 13    64: 19
m4_include(«prelude.m4»)
m4_define(«MOE_act», «f32»)m4_dnl
m4_include(«product.m4»)
m4_include(«stream.m4»)
enum { E = MOE_E, KTOP = MOE_k, GROUPS = MOE_groups, GROUPS_K = MOE_groups_k, SPLIT = MOE_SPLIT, TOKENS = MOE_TOKENS, K = MOE_K, N_ACT = WHOLE(K) };
enum { ROWS = (E + SPLIT - 1) / SPLIT };
m4_include(«choose.m4»)
moe_quant(MOE_TYPE_w)
typedef MOE_TYPE_w W;
enum { BYTES = Row<W, K>::BYTES, ROOM = WHOLE_ROOM == 227 << 10 ? 96 << 10 : 32 << 10 };
moe_if(MOE_SLICED, 1, «// A row's part of a warp: 16 bytes a lane.
enum { PIECE = 512, FIT = ROOM / (WARPS * PIECE), STAGES = FIT < ROWS ? FIT : ROWS, HELD = ROWS - STAGES };
», «// A tile: PIECE bytes of a row, or what is left of it, of values that stand alone.
enum { PIECE = BYTES < 2048 ? BYTES : 2048, PIECES = (BYTES + PIECE - 1) / PIECE };
enum { TILES = (ROWS + WARPS - 1) / WARPS * PIECES, FIT = ROOM / (WARPS * PIECE), STAGES = FIT < TILES ? FIT : TILES };
»)struct Shared {
        alignas(16) u8 ring[WARPS][STAGES][PIECE];
        moe_if(MOE_SLICED, 1, «float sum[TOKENS][16][WARPS];», «ActsF32<1, N_ACT> acts;»)
        float z[E], part[TOKENS][WARPS];
        Landing landed[WARPS][moe_if(MOE_SLICED, 1, 1, STAGES)];
};
SHARED(Shared)
m4_ifelse(MOE_SPLIT, 1, «», «__device__ float logits[NT][E];
__device__ u32 count[NT];
__shared__ u32 ended;
»)
// A logit of the p-th of the cluster's tokens to where they meet: each block chooses for one of them.
INLINE void give(u32 token, int p, int row, float y)
{
        if (CLUSTER == SPLIT)
                *cluster_at(&sh.z[row], CLUSTER > 1 ? (u32)p : 0) = y;
m4_ifelse(MOE_SPLIT, 1, «», «        else
                logits[token][row] = y;
»)}
moe_if(MOE_SLICED, 1, «
// This block's rows, ahead of the wait: first .. first + n - 1.
struct Rows {
        int first, n;
        U4 held[HELD ? HELD : 1];
        INLINE_IN void load(const Args &a)
        {
                int warp = TID / 32, lane = TID % 32, here = n < STAGES ? n : STAGES;
                const u8 *w = (const u8 *)moe_arg(«w») + (u64)(u32)first * BYTES + PIECE * warp;
                Landing *l = &sh.landed[warp][0];
                if (lane == 0)
                        landing_init(l);
                warp_barrier();
                fetch_begin(l, (u32)here * PIECE);
#pragma unroll 1
                for (int i = 0; i < here; i++)
                        fetch(sh.ring[warp][i], w + (u64)(u32)i * BYTES, PIECE, l, i);
                fetch_end(l);
#pragma unroll
                for (int i = 0; i < HELD; i++)
                        held[i] = load16(w + (u64)(u32)(STAGES + i < n ? STAGES + i : 0) * BYTES + 16 * lane);
        }
        // Their logits of n_tok tokens from `token` on, whose values x has.
        INLINE_IN void times(const Maker<K, N_ACT> (&x)[TOKENS], u32 token, int n_tok) const
        {
                int warp = TID / 32, lane = TID % 32, here = n < STAGES ? n : STAGES;
                float v[TOKENS][4], acc[TOKENS][16] = {};
#pragma unroll
                for (int p = 0; p < TOKENS; p++) {
                        moe_has(«norm», «x[p].squares(sh.part[p]);», «»)
                        x[p].template product_of<moe_has(«norm», 1, 0)>(0, v[p]);
                }
                auto add = [&](int i, const U4 &q) {
#pragma unroll
                        for (int p = 0; p < TOKENS; p++)
                                acc[p][i] = fma1(bits_f32(q.w), v[p][3], fma1(bits_f32(q.z), v[p][2], fma1(bits_f32(q.y), v[p][1], bits_f32(q.x) * v[p][0])));
                };
                if (n > 0)
                        landing_wait(&sh.landed[warp][0], 0);
#pragma unroll
                for (int i = 0; i < STAGES; i++)
                        add(i, *(const U4 *)&sh.ring[warp][i < here ? i : 0][16 * lane]);
#pragma unroll
                for (int i = 0; i < HELD; i++)
                        add(STAGES + i, held[i]);
#pragma unroll
                for (int p = 0; p < TOKENS; p++) {
                        float s = warp_sums(acc[p]);
                        if (lane % 2 == 0)
                                sh.sum[p][lane / 2][warp] = s;
                }
                barrier();
                cluster_wait();
#pragma unroll
                for (int i = TID; i < TOKENS * 16 * WARPS; i += THREADS) {
                        int p = i / (16 * WARPS), row = i / WARPS % 16;
                        float y = sh.sum[p][row][i % WARPS];
                        for (int m = WARPS / 2; m; m /= 2)
                                y += shfl_xor(y, m);
                        if (p < n_tok && row < n && i % WARPS == 0)
                                give(token + (u32)p, p, first + row, y moe_has(«norm», «* rms_of(sh.part[p], K, (float)MOE_eps)», «»));
                }
        }
};
», «INLINE int row_of(int tile) { return (int)BZ * ROWS + tile / PIECES * WARPS + TID / 32; }
INLINE bool exists(int tile) { return tile < TILES && tile / PIECES * WARPS + TID / 32 < ROWS && row_of(tile) < E; }
INLINE int piece_of(int tile) { return (tile % PIECES + 1) * PIECE <= BYTES ? PIECE : BYTES % PIECE; }
INLINE void ask(const u8 *w, int tile)
{
        if (!exists(tile))
                return;
        int warp = TID / 32, stage = tile % STAGES, bytes = piece_of(tile);
        Landing *l = &sh.landed[warp][stage];
        fetch_begin(l, (u32)bytes);
        fetch(sh.ring[warp][stage], w + (u64)(u32)row_of(tile) * BYTES + tile % PIECES * PIECE, (u32)bytes, l, 0);
        fetch_end(l);
}
// This block's rows, a warp's one after the other.
INLINE void rows_of(const Args &a, Maker<K, N_ACT> &x)
{
        int warp = TID / 32;
        const u8 *w = (const u8 *)moe_arg(«w»);
        if (TID % 32 < STAGES)
                landing_init(&sh.landed[warp][TID % 32]);
        warp_barrier();
#pragma unroll 1
        for (int i = 0; i < STAGES; i++)
                ask(w, i);
        cluster_arrive();
        moe_has(«norm», «x.weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        moe_trigger_at(waited);
        x.values((const float *)moe_arg(«x») + BY * K);
        x.fill<moe_has(«norm», 1, 0)>(sh.acts);
        moe_has(«norm», «x.squares(sh.part[0]);», «»)
        barrier();
        float r = moe_has(«norm», «rms_of(sh.part[0], K, (float)MOE_eps)», 1);
        cluster_wait();
        float acc[1][1] = {};
#pragma unroll 1
        for (int tile = 0; exists(tile); tile++) {
                int stage = tile % STAGES, first = tile % PIECES * (PIECE / 16);
                landing_wait(&sh.landed[warp][stage], (u32)(tile / STAGES) & 1);
#pragma unroll 4
                for (int u = TID % 32; u < piece_of(tile) / 16; u += 32) {
                        W f[1];
                        f[0].load<K>(sh.ring[warp][stage], u);
                        Unit<true>::dot(f, first + u, sh.acts, acc);
                }
                if (STAGES < TILES) {
                        warp_barrier();
                        ask(w, tile + STAGES);
                }
                if (tile % PIECES != PIECES - 1)
                        continue;
                float y = warp_sum(acc[0][0]) * r;
                acc[0][0] = 0;
                if (TID % 32 == 0)
                        give(BY, 0, row_of(tile), y);
        }
}
»)
moe_if(MOE_out, q8, «// norm(x) of a token in q8, by one of its blocks: another than those that choose, where there are some.
INLINE void round(const Args &a, const Maker<K, N_ACT> &x, u32 T, u32 token, int p)
{
        if (BZ == (CLUSTER == SPLIT ? (u32)(p + CLUSTER / 2) % CLUSTER : 0))
                x.put<moe_has(«norm», 1, 0)>(moe_arg(«out1»), T, token, moe_has(«norm», «rms_of(sh.part[p], K, (float)MOE_eps)», 1));
}
», «»)// Where blocks do not see each other's shared memory: the one that ends last has a token's logits from memory of this module, and chooses.
INLINE void end(const Args &a, u32 token)
{
m4_ifelse(MOE_SPLIT, 1, «», «        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count[token]) + 1;
        barrier();
        if (ended != SPLIT)
                return;
        publish();
        if (TID == 0)
                count[token] = 0;
        for (int i = TID; i < E; i += THREADS)
                sh.z[i] = load_far(&logits[token][i]);
»)        barrier();
        choose(a, sh.z, (Route *)moe_arg(«out0») + token * KTOP);
}

moe_kernel
{
        moe_trigger_at(first);
        u32 T = m4_ifelse(MOE_NT, 1, 1, «(u32)moe_tokens»), first = BY * TOKENS;
        if (first >= T) {
                pdl_wait();
                return;
        }
        enum { SEEN = CLUSTER == SPLIT && CLUSTER > 1 };
        int n = (int)(T - first < TOKENS ? T - first : TOKENS);
        Maker<K, N_ACT> x[TOKENS];
moe_if(MOE_SLICED, 1, «        int from = (int)BZ * ROWS, rows = E - from < ROWS ? E - from : ROWS;
        Rows w = {from, rows < 0 ? 0 : rows};
        w.load(a);
        cluster_arrive();
        moe_has(«norm», «x[0].weights((const float *)moe_arg(«norm»));», «»)
        pdl_wait();
        moe_trigger_at(waited);
#pragma unroll
        for (int p = 0; p < TOKENS; p++) {
                x[p].values((const float *)moe_arg(«x») + (u64)(first + (u32)(p < n ? p : 0)) * K);
                moe_has(«norm», «x[p].w[0] = x[0].w[0];», «»)
        }
        w.times(x, first, n);
», «        rows_of(a, x[0]);
»)        if (SEEN)
                cluster_arrive();
moe_if(MOE_out, q8, «#pragma unroll
        for (int p = 0; p < TOKENS; p++)
                if (p < n)
                        round(a, x[p], T, first + (u32)p, p);
», «»)        if (SEEN) {
                cluster_wait();
                if ((int)BZ < n)
                        choose(a, sh.z, (Route *)moe_arg(«out0») + (first + BZ) * KTOP);
                return;
        }
#pragma unroll 1
        for (int p = 0; p < n; p++) {
                end(a, first + (u32)p);
                barrier();
        }
}
