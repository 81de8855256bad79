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

// What a lane has of a head: for each 32 values 8 neighbours, 32 j + 8 (lane % 4) on.
typedef float Eight[NJ][8];
INLINE void load_head(const float *x, Eight &v)
{
#pragma unroll
        for (int j = 0; j < NJ; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        F4 f = *(const F4 *)(x + 32 * j + 8 * (TID % 4) + 4 * h);
                        v[j][4 * h] = f.x, v[j][4 * h + 1] = f.y, v[j][4 * h + 2] = f.z, v[j][4 * h + 3] = f.w;
                }
}
// v = rope(norm(v)), of four lanes together; w: the norm's weights, if it has one.
INLINE void place(Eight &v, const float *w)
{
        if (w) {
                float s = 0;
#pragma unroll
                for (int j = 0; j < NJ; j++)
                        for (int e = 0; e < 8; e++)
                                s = fma1(v[j][e], v[j][e], s);
                s += shfl_xor(s, 1);
                s += shfl_xor(s, 2);
                float r = 1.0f / sqrt_f32(s / (float)DK + (float)MOE_eps);
#pragma unroll
                for (int j = 0; j < NJ; j++)
                        for (int e = 0; e < 8; e++)
                                v[j][e] = v[j][e] * r * w[32 * j + 8 * (TID % 4) + e];
        }
moe_if(MOE_HALF, 0, «», «moe_if(MOE_rstyle, neox, «#pragma unroll
        for (int j = 0; j < HALF / 32; j++)
                for (int e = 0; e < 8; e++) {
                        int i = 32 * j + 8 * (TID % 4) + e;
                        float p = v[j][e], q = v[j + HALF / 32][e], c = turn_cos[i], s = turn_sin[i];
                        v[j][e] = mul1(p, c) - mul1(q, s);
                        v[j + HALF / 32][e] = mul1(q, c) + mul1(p, s);
                }
», «#pragma unroll
        for (int j = 0; j < NJ; j++)
                for (int e = 0; e < 8; e += 2) {
                        int i = 16 * j + 4 * (TID % 4) + e / 2;
                        if (i < HALF) {
                                float p = v[j][e], q = v[j][e + 1], c = turn_cos[i], s = turn_sin[i];
                                v[j][e] = mul1(p, c) - mul1(q, s);
                                v[j][e + 1] = mul1(q, c) + mul1(p, s);
                        }
                }
»)»)}
INLINE u32 pack(float a, float b) { return f32_f16(a) | f32_f16(b) << 16; }
// The pair rounded to f16, and what that left.
INLINE void halves(float a, float b, u32 &high, u32 &low)
{
        high = pack(a, b);
        low = pack(a - f16_f32(high & 0xffff), b - f16_f32(high >> 16));
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
moe_has(«k», «
// The token's own keys and values: to the cache, and into the tile that has their place.
INLINE void append(const Args &a, Tile &t, i32 p0, i32 pos)
{
        u16 *key = (u16 *)moe_arg(«kv») + (first_row(a) + (u32)pos) * DK, *value = (u16 *)moe_arg(«kvv») + (first_row(a) + (u32)pos) * DV;
        int row = pos - p0, r = TID % 32 / 4;
        Eight k;
        load_head((const float *)moe_arg(«k») + BY * DK, k);
        place(k, moe_has(«knorm», «knorm_w», 0));
#pragma unroll
        for (int j = 0; j < NJ; j++) {
                U4 f = {pack(k[j][0], k[j][1]), pack(k[j][2], k[j][3]), pack(k[j][4], k[j][5]), pack(k[j][6], k[j][7])};
                for (int h = 0; h < 2; h++)
                        if (row == 8 * h + r)
                                t.k[h][j] = f;
                if (r == 0)
                        *(U4 *)(key + 32 * j + 8 * (TID % 4)) = f;
        }
#pragma unroll
        for (int n = 0; n < NV; n++) {
                const F4 *v = (const F4 *)((const float *)moe_arg(«v») + BY * DV + DV / 8 * r + 8 * n);
                U4 f = {pack(v[0].x, v[0].y), pack(v[0].z, v[0].w), pack(v[1].x, v[1].y), pack(v[1].z, v[1].w)}, none = {0, 0, 0, 0};
                for (int i = 0; i < 4; i++)
                        if (Tile::value_row(i) >= row)
                                t.v[i][n] = Tile::value_row(i) == row ? f : none;
                if (TID % 4 == 0)
                        *(U4 *)(value + DV / 8 * r + 8 * n) = f;
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
                for (u32 g = 0; g < groups; g++)
                        s.meet(load_far(&far_top[g][head]));
                for (u32 g = 0; g < groups; g++)
                        s.add(load_far(&far_top[g][head]), load_far(&far_total[g][head]), load_far(&far_o[g][head][i % DV]));
                put(a, head, (int)(i % DV), s);
        }
}

moe_kernel
{
        pdl_trigger();
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
        if (mine < tiles)
                t.load(keys, values, TILE * (from + mine), pos);
        for (int i = TID; i < DK; i += THREADS) {
                moe_has(«norm», «norm_w[i] = ((const float *)moe_arg(«norm»))[i];», «»)
                moe_has(«knorm», «knorm_w[i] = ((const float *)moe_arg(«knorm»))[i];», «»)
        }
        moe_if(MOE_HALF, 0, «», «rope_table(pos, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));»)
        barrier();
        pdl_wait();
        State s = {{}, -INF, 0};
        Queries q;
        {
                Eight v;
                int head = TID % 32 / 4;
                load_head((const float *)moe_arg(«q») + (BY * G + (u32)(head < G ? head : 0)) * DK, v);
                place(v, moe_has(«norm», «norm_w», 0));
#pragma unroll
                for (int j = 0; j < NJ; j++)
                        for (int i = 0; i < 4; i++) {
                                float by = head < G ? SCALE : 0;
                                halves(v[j][2 * i] * by, v[j][2 * i + 1] * by, q.a[j][i / 2][i % 2 * 2], q.a[j][i / 2][i % 2 * 2 + 1]);
                        }
        }
        // Every warp comes through here as often: shuffles want whole warps, and these are.
#pragma unroll 1
        for (i32 i = mine; i < tiles; i += each) {
                i32 p0 = TILE * (from + i);
                if (i != mine)
                        t.load(keys, values, p0, pos);
moe_has(«k», «                if (i == tiles - 1)
                        append(a, t, p0, pos);
», «»)                attend_tile(q, t, s, p0, low, pos);
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
                for (int k = 0; k < CLUSTER * WARPS && k / CLUSTER * blocks + k % CLUSTER < in_cluster; k++)
                        all.meet(cluster_at(&part[k / CLUSTER], k % CLUSTER)->top[head]);
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
