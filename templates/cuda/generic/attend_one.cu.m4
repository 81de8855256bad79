// attend_one: attend in a step of one token, on tensor cores: softmax attention of the token over its sequence's cache, with the
// queries' norm and rotation, and, given k, its own keys and values appended.
//
// q f32 [1, HEADS * DK]; out f32 [1, HEADS * DV]; planes as kv_append's, f16. A cluster has one key head with its G <= 8 query
// heads, and one of SPLIT / CLUSTER groups of the positions, of which a warp takes 16 at a time, straight to registers: scores
// as queries (16 rows: 8 heads rounded to f16, and what the rounding left) times keys, then weights (split the same way) times
// values, under a running maximum (online softmax: Milakov and Gimelshein 2018). In the products over a head's width the lanes
// take 8 neighbouring values as their part of two steps: an order of summation like any other, and a load of 16 bytes.
// The warps' sums meet in shared memory, the blocks' through the cluster's, the groups' by the block of each place that ends last.
// The first tiles are read before the wait: only position `pos` is of this step. 128 threads. Grid: 1, KVH, SPLIT.
//
//      H100, 32 heads of 128 on 4, microseconds at depth 128: ?    4096: ?    16384: ?
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
moe_early(«pos»)
moe_early(«seq»)
moe_early(«kv»)
moe_early(«kvv»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, SPLIT = MOE_SPLIT, GROUPS = SPLIT / CLUSTER };
enum { NJ = DK / 32, NV = DV / 64, NT = DV / 8, TILE = 16, EACH = MOE_EACH };
enum { PAIRS = (DK / 2 + 31) / 32, MINE = (G + WARPS) / WARPS }; // a lane's pairs of a head, a warp's heads with the own key
#define SCALE ((float)MOE_scale)
#define CAP ((float)MOE_softcap)
struct alignas(16) Part {
        float o[8][DV], top[8], total[8];
};
__shared__ Part part[WARPS];
moe_has(«norm», «__shared__ float norm_w[DK];», «»)
moe_has(«knorm», «__shared__ float knorm_w[DK];», «»)
__device__ float far_o[GROUPS][HEADS][DV], far_top[GROUPS][HEADS], far_total[GROUPS][HEADS];
__device__ u32 count[KVH][CLUSTER];
__shared__ u32 ended;

// The queries rounded to f16, and what that left; the token's own keys and values as the cache has them.
alignas(16) __shared__ u16 query[2][8][DK], own_key[DK], own_value[DV];

// The pair p of a head: those that are rotated together, then the rest as it comes.
INLINE int first_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p : », «»)2 * p; }
INLINE int second_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p + HALF : », «»)2 * p + 1; }
struct Head {
        float v[PAIRS][2];
        INLINE_IN void load(const float *x)
        {
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                        int p = 32 * i + TID % 32;
                        bool in = DK % 64 == 0 || p < DK / 2;
                        v[i][0] = in ? x[first_of(p)] : 0, v[i][1] = in ? x[second_of(p)] : 0;
                }
        }
        // rope(norm(v)) by a warp; w: the norm's weights, if it has one.
        INLINE_IN void place(const float *w)
        {
                float s = 0, r = 1;
                for (int i = 0; w && i < PAIRS; i++)
                        s = fma1(v[i][0], v[i][0], fma1(v[i][1], v[i][1], s));
                if (w)
                        r = 1.0f / sqrt_f32(warp_sum(s) / (float)DK + (float)MOE_eps);
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                        int p = 32 * i + TID % 32;
                        if (DK % 64 && p >= DK / 2)
                                break;
                        float x = w ? v[i][0] * r * w[first_of(p)] : v[i][0], y = w ? v[i][1] * r * w[second_of(p)] : v[i][1];
                        moe_if(MOE_HALF, 0, «», «if (p < HALF) {
                                float c = turn_cos[p], t = turn_sin[p], x1 = mul1(x, c) - mul1(y, t);
                                y = mul1(y, c) + mul1(x, t);
                                x = x1;
                        }»)
                        v[i][0] = x, v[i][1] = y;
                }
        }
        // To places 0 .. DK - 1; with low what the rounding left.
        INLINE_IN void store(u16 *high, u16 *low, float by) const
        {
#pragma unroll
                for (int i = 0; i < PAIRS; i++) {
                        int p = 32 * i + TID % 32;
                        for (int k = 0; k < 2; k++) {
                                int at = k ? second_of(p) : first_of(p);
                                float x = v[i][k] * by;
                                u32 h = f32_f16(x);
                                if (DK % 64 && p >= DK / 2)
                                        break;
                                high[at] = (u16)h;
                                if (low)
                                        low[at] = (u16)f32_f16(x - f16_f32(h));
                        }
                }
        }
};
// The pair rounded to f16, and what that left.
INLINE void halves(float a, float b, u32 &high, u32 &low)
{
        high = pack_f16(a, b);
        low = pack_f16(a - f16_f32(high & 0xffff), b - f16_f32(high >> 16));
}

// 16 positions of a head's cache, as the lane's part of the products: of keys, rows p0 + lane / 4 and 8 behind; of values, rows
// p0 + 2 (lane % 4), + 1, + 8, + 9, of each the lane / 4-th eighth.
struct Tile {
        U4 k[2][NJ], v[4][NV];
        static INLINE_IN int value_row(int i) { return 2 * (TID % 4) + i % 2 + i / 2 * 8; }
        INLINE_IN void load(const u16 *keys, const u16 *values, i32 p0, i32 last)
        {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        i32 p = p0 + 8 * h + TID % 32 / 4;
                        const u16 *row = keys + (u64)(u32)(p < last ? p : last) * DK + 8 * (TID % 4);
                        for (int j = 0; j < NJ; j++)
                                k[h][j] = *(const U4 *)(row + 32 * j);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        i32 p = p0 + value_row(i);
                        const u16 *row = values + (u64)(u32)(p < last ? p : last) * DV + DV / 8 * (TID % 32 / 4);
                        for (int n = 0; n < NV; n++)
                                v[i][n] = *(const U4 *)(row + 8 * n);
                }
        }
};
// What a warp has so far.
struct State {
        float o[NT][4], top, total;
};
// The queries as they are multiplied: for each 32 values two steps.
struct Queries { u32 a[NJ][2][4]; };

INLINE void attend_tile(const Queries &q, const Tile &t, State &s, i32 p0, i32 low, i32 pos)
{
        float c[2][4] = {};
        u32 a[4];
#pragma unroll
        for (int j = 0; j < NJ; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        u32 b0[2] = {t.k[h][j].x, t.k[h][j].y}, b1[2] = {t.k[h][j].z, t.k[h][j].w};
                        mma_f16(c[h], q.a[j][0], b0);
                        mma_f16(c[h], q.a[j][1], b1);
                }
        float e[4], top = s.top;
        for (int i = 0; i < 4; i++) {
                i32 p = p0 + 8 * (i / 2) + 2 * (TID % 4) + i % 2;
                e[i] = c[i / 2][i % 2] + c[i / 2][i % 2 + 2];
                moe_if(MOE_softcap, 0x0p+0, «», «float y = exp1(2.0f / CAP * e[i]);
                e[i] = CAP * ((y - 1.0f) / (y + 1.0f));»)
                e[i] = p < low || p > pos ? -INF : e[i];
                top = max1(top, e[i]);
        }
        top = max1(top, shfl_xor(top, 1));
        top = max1(top, shfl_xor(top, 2));
        float by = s.top == -INF ? 0 : exp1(s.top - top);
        s.total *= by;
        for (int n = 0; n < NT; n++)
                for (int i = 0; i < 4; i++)
                        s.o[n][i] *= by;
        s.top = top;
        for (int i = 0; i < 4; i++) {
                e[i] = e[i] == -INF ? 0 : exp1(e[i] - top);
                s.total += e[i];
        }
        halves(e[0], e[1], a[0], a[1]);
        halves(e[2], e[3], a[2], a[3]);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
                u32 v[4];
                for (int i = 0; i < 4; i++)
                        v[i] = word(t.v[i][n / 8], n / 2 % 4);
                u32 even[2] = {prmt(v[0], v[1], 0x5410), prmt(v[2], v[3], 0x5410)}, odd[2] = {prmt(v[0], v[1], 0x7632), prmt(v[2], v[3], 0x7632)};
                mma_f16(s.o[n], a, even);
                mma_f16(s.o[n + 1], a, odd);
        }
}

INLINE u64 first_row(const Args &a) { return ((u64)(u32)*(const i32 *)moe_arg(«seq») * KVH + BY) * a.dim->n_ctx; }
// A warp's heads, between the wait and a barrier; own: this block has the token's own place, and appends.
INLINE void prepare(const Args &a, bool own, i32 pos)
{
        int warp = TID / 32;
        Head h[MINE];
#pragma unroll
        for (int i = 0; i < MINE; i++) {
                int n = warp + WARPS * i;
                if (n < G)
                        h[i].load((const float *)moe_arg(«q») + (BY * G + (u32)n) * DK);
                moe_has(«k», «else if (n == G && own)
                        h[i].load((const float *)moe_arg(«k») + BY * DK);», «»)
        }
moe_has(«k», «        u16 *key = (u16 *)moe_arg(«kv») + (first_row(a) + (u32)pos) * DK, *value = (u16 *)moe_arg(«kvv») + (first_row(a) + (u32)pos) * DV;
        for (int i = TID; own && i < DV; i += THREADS)
                value[i] = own_value[i] = (u16)f32_f16(((const float *)moe_arg(«v»))[BY * DV + (u32)i]);
», «»)#pragma unroll
        for (int i = 0; i < MINE; i++) {
                int n = warp + WARPS * i;
                if (n < G) {
                        h[i].place(moe_has(«norm», «norm_w», 0));
                        h[i].store(query[0][n], query[1][n], SCALE);
                }
                moe_has(«k», «else if (n == G && own) {
                        h[i].place(moe_has(«knorm», «knorm_w», 0));
                        h[i].store(own_key, 0, 1);
                        h[i].store(key, 0, 1);
                }», «»)
        }
}
moe_has(«k», «
// The token's own keys and values into the tile that has their place; nothing behind them.
INLINE void put_own(Tile &t, int row)
{
        int r = TID % 32 / 4;
#pragma unroll
        for (int j = 0; j < NJ; j++)
                for (int h = 0; h < 2; h++)
                        if (row == 8 * h + r)
                                t.k[h][j] = *(const U4 *)&own_key[32 * j + 8 * (TID % 4)];
#pragma unroll
        for (int n = 0; n < NV; n++)
                for (int i = 0; i < 4; i++) {
                        U4 none = {0, 0, 0, 0};
                        if (Tile::value_row(i) >= row)
                                t.v[i][n] = Tile::value_row(i) == row ? *(const U4 *)&own_value[DV / 8 * r + 8 * n] : none;
                }
}
», «»)
// A warp's state to its part. A lane has 32 neighbouring values of a head, in places turned so that lanes meet no bank twice.
INLINE int turned(int head, int i) { return i / 32 * 32 + ((i / 4 % 8) ^ ((4 * head + i / 32) & 7)) * 4 + i % 4; }
INLINE void put_part(const State &s)
{
        Part &p = part[TID / 32];
        int r = TID % 32 / 4, c = TID % 4;
        float total = s.total;
        total += shfl_xor(total, 1);
        total += shfl_xor(total, 2);
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
                for (int n = 0; n < NT; n += 4) {
                        F4 f = {s.o[n][h] + s.o[n][h + 2], s.o[n + 1][h] + s.o[n + 1][h + 2], s.o[n + 2][h] + s.o[n + 2][h + 2],
                                s.o[n + 3][h] + s.o[n + 3][h + 2]};
                        *(F4 *)&p.o[r][turned(r, DV / 8 * (2 * c + h) + n)] = f;
                }
        if (c == 0)
                p.top[r] = s.top, p.total[r] = total;
}
// A sum of parts, each times e^(its top - the highest); all tops are met first.
struct Sum {
        float top, total, o;
        INLINE_IN void meet(float t) { top = max1(top, t); }
        INLINE_IN void add(float t, float l, float v)
        {
                float r = l == 0 ? 0 : exp1(t - top);
                total = fma1(l, r, total);
                o = fma1(v, r, o);
        }
};
INLINE void put(const Args &a, u32 head, int i, const Sum &s)
{
        float by = 1.0f / s.total;
        moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[head], high = max1(s.top, sink), r = exp1(s.top - high);
        by = r / (s.total * r + exp1(sink - high));», «»)
        ((float *)moe_arg(«out0»))[head * DV + (u32)i] = s.o * by;
}

// The groups' sums of this block's values, by the block that ends last.
INLINE void join(const Args &a, u32 rank, u32 groups)
{
        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count[BY][rank]) + 1;
        barrier();
        if (ended != groups)
                return;
        publish();
        if (TID == 0)
                count[BY][rank] = 0;
        for (u32 i = rank * THREADS + (u32)TID; i < G * DV; i += CLUSTER * THREADS) {
                Sum s = {-INF, 0, 0};
                u32 head = BY * G + i / DV;
#pragma unroll 1
                for (u32 g = 0; g < groups; g++)
                        s.meet(load_far(&far_top[g][head]));
#pragma unroll 1
                for (u32 g = 0; g < groups; g++)
                        s.add(load_far(&far_top[g][head]), load_far(&far_total[g][head]), load_far(&far_o[g][head][i % DV]));
                put(a, head, (int)(i % DV), s);
        }
}

moe_kernel
{
        moe_trigger(first);
        moe_read_early();
        i32 pos = *(const i32 *)moe_arg(«pos»), low = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0;
        i32 from = low / TILE, tiles = pos / TILE + 1 - from;
        u32 rank = BZ % CLUSTER, group = BZ / CLUSTER, groups = (u32)(tiles + CLUSTER * WARPS * EACH - 1) / (CLUSTER * WARPS * EACH);
        groups = groups > GROUPS ? GROUPS : groups;
        if (group >= groups) {
                pdl_wait();
                return;
        }
        i32 blocks = (i32)groups * CLUSTER, block = (i32)BZ, each = blocks * WARPS, mine = TID / 32 * blocks + block;
        const u16 *keys = (const u16 *)moe_arg(«kv») + first_row(a) * DK, *values = (const u16 *)moe_arg(«kvv») + first_row(a) * DV;
        Tile t;
        // Its tiles from the last to the first: the last may need the token's own.
        i32 first = mine < tiles ? mine + (tiles - 1 - mine) / each * each : -1;
        if (first >= 0)
                t.load(keys, values, TILE * (from + first), pos);
        for (int i = TID; G < 8 && i < 2 * 8 * DK; i += THREADS)
                query[i / (8 * DK)][i / DK % 8][i % DK] = 0;
        for (int i = TID; i < DK; i += THREADS) {
                moe_has(«norm», «norm_w[i] = ((const float *)moe_arg(«norm»))[i];», «»)
                moe_has(«knorm», «knorm_w[i] = ((const float *)moe_arg(«knorm»))[i];», «»)
        }
        moe_if(MOE_HALF, 0, «», «rope_table(pos, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));»)
        barrier();
        pdl_wait();
        prepare(a, block == (tiles - 1) % blocks, pos);
        barrier();
        State s = {{}, -INF, 0};
        Queries q;
#pragma unroll
        for (int j = 0; j < NJ; j++)
                for (int n = 0; n < 2; n++) {
                        U4 f = *(const U4 *)&query[n][TID % 32 / 4][32 * j + 8 * (TID % 4)];
                        q.a[j][0][n] = f.x, q.a[j][0][2 + n] = f.y, q.a[j][1][n] = f.z, q.a[j][1][2 + n] = f.w;
                }
        moe_has(«k», «if (first == tiles - 1)
                put_own(t, pos - TILE * (from + first));», «»)
#pragma unroll 1
        for (i32 i = first; i >= 0; i -= each) {
                i32 p0 = TILE * (from + i);
                if (i != first)
                        t.load(keys, values, p0, pos);
                attend_tile(q, t, s, p0, low, pos);
        }
        put_part(s);
        cluster_arrive();
        if (CLUSTER == 1)
                barrier();
        // This block's share of the cluster's sums.
        i32 in_cluster = tiles - (i32)(group * CLUSTER); // tiles in order: a warp of each block, then the next warp of each
        cluster_wait();
#pragma unroll 1
        for (u32 i = rank * THREADS + (u32)TID; i < G * DV; i += CLUSTER * THREADS) {
                int head = (int)(i / DV), d = (int)(i % DV);
                Sum all = {-INF, 0, 0};
#pragma unroll 4
                for (int k = 0; k < CLUSTER * WARPS && k / CLUSTER * blocks + k % CLUSTER < in_cluster; k++)
                        all.meet(cluster_at(&part[k / CLUSTER], k % CLUSTER)->top[head]);
#pragma unroll 4
                for (int k = 0; k < CLUSTER * WARPS && k / CLUSTER * blocks + k % CLUSTER < in_cluster; k++) {
                        const Part *p = cluster_at(&part[k / CLUSTER], k % CLUSTER);
                        all.add(p->top[head], p->total[head], p->o[head][turned(head, d)]);
                }
                if (groups == 1) {
                        put(a, BY * G + (u32)head, d, all);
                } else {
                        far_o[group][BY * G + (u32)head][d] = all.o;
                        if (d == 0)
                                far_top[group][BY * G + (u32)head] = all.top, far_total[group][BY * G + (u32)head] = all.total;
                }
        }
        cluster_arrive();
        if (groups > 1)
                join(a, rank, groups);
        cluster_wait();
}
