// attend_one: attend in a step of one token, on tensor cores: softmax attention of the token over its sequence's cache, with the
// queries' norm and rotation, and, given k, its own keys and values appended.
//
// q f32 [1, HEADS * DK]; out f32 or q8 [1, HEADS * DV]; planes as kv_append's, f16. A warp takes 16 positions of one key head and
// its G <= 8 query heads at a time, straight to registers: scores as queries (16 rows: 8 heads rounded to f16, and what the
// rounding left) times keys, then weights (split the same way) times values, under a running maximum (online softmax: Milakov and
// Gimelshein 2018). In the products over a head's width the lanes take 8 neighbouring values as their part of two steps: an order
// of summation like any other, and a load of 16 bytes. The next tile's keys are on their way while the values are multiplied.
// One block a key head as long as its warps have EACH tiles or fewer; then up to SPLIT, whose sums meet in memory, by the block
// that ends last. The first tiles are read before the wait: only position `pos` is of this step. 256 threads. Grid: 1, KVH, SPLIT.
//
//      H100, 32 heads of 128 on 4, microseconds at depth 128: ?    4096: ?    16384: ?
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
m4_include(«round.m4»)
moe_early(«pos»)
moe_early(«seq»)
moe_early(«kv»)
moe_early(«kvv»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, SPLIT = MOE_SPLIT };
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
__device__ F4 far_o[HEADS][SPLIT][DV / 4];
__device__ float far_top[HEADS][SPLIT], far_total[HEADS][SPLIT];
__device__ u32 count[KVH];
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
        INLINE_IN void load_keys(const u16 *keys, i32 p0, i32 last)
        {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        i32 p = p0 + 8 * h + TID % 32 / 4;
                        const u16 *row = keys + (u64)(u32)(p < last ? p : last) * DK + 8 * (TID % 4);
                        for (int j = 0; j < NJ; j++)
                                k[h][j] = *(const U4 *)(row + 32 * j);
                }
        }
        INLINE_IN void load_values(const u16 *values, i32 p0, i32 last)
        {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        i32 p = p0 + value_row(i);
                        const u16 *row = values + (u64)(u32)(p < last ? p : last) * DV + DV / 8 * (TID % 32 / 4);
                        for (int n = 0; n < NV; n++)
                                v[i][n] = *(const U4 *)(row + 8 * n);
                }
        }
};
// A later tile's rows to the L2, 128 bytes a lane at a time.
INLINE void tile_ahead(const u16 *keys, const u16 *values, i32 p0, i32 last)
{
        last = last > 0 ? last - 1 : 0; // a row of an earlier step
        for (int i = TID % 32; i < TILE * DK / 64; i += 32) {
                i32 p = p0 + i / (DK / 64);
                ahead(keys + (u64)(u32)(p < last ? p : last) * DK + i % (DK / 64) * 64);
        }
        for (int i = TID % 32; i < TILE * DV / 64; i += 32) {
                i32 p = p0 + i / (DV / 64);
                ahead(values + (u64)(u32)(p < last ? p : last) * DV + i % (DV / 64) * 64);
        }
}
// What a warp has so far: of head lane / 4 its top, and this lane's part of its total; of heads 2 (lane % 4) and the next, 2 and 2
// of the lane / 4-th eighth of their values.
struct State {
        float o[NT / 2][4], top, total;
};

// c: the scores' high and low parts, of 8 positions each.
INLINE void scores(const Tile &t, float (&c)[2][4])
{
#pragma unroll
        for (int j = 0; j < NJ; j++) {
                U4 high = *(const U4 *)&query[0][TID % 32 / 4][32 * j + 8 * (TID % 4)], low = *(const U4 *)&query[1][TID % 32 / 4][32 * j + 8 * (TID % 4)];
                u32 q0[4] = {high.x, low.x, high.y, low.y}, q1[4] = {high.z, low.z, high.w, low.w};
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        u32 b0[2] = {t.k[h][j].x, t.k[h][j].y}, b1[2] = {t.k[h][j].z, t.k[h][j].w};
                        mma_f16(c[h], q0, b0);
                        mma_f16(c[h], q1, b1);
                }
        }
}
// Scores to weights under the new maximum, in two halves as the products take them.
INLINE void weigh(const float (&c)[2][4], State &s, i32 p0, i32 low, i32 pos, u32 (&high)[2], u32 (&low_part)[2])
{
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
        float by = s.top == -INF ? 0 : exp1(s.top - top), by0 = shfl(by, 8 * (TID % 4)), by1 = shfl(by, 8 * (TID % 4) + 4);
        s.total *= by;
        for (int n = 0; n < NT / 2; n++)
                for (int i = 0; i < 4; i++)
                        s.o[n][i] *= i % 2 ? by1 : by0;
        s.top = top;
        for (int i = 0; i < 4; i++) {
                e[i] = e[i] == -INF ? 0 : exp1(e[i] - top);
                s.total += e[i];
        }
        halves(e[0], e[1], high[0], low_part[0]);
        halves(e[2], e[3], high[1], low_part[1]);
}
INLINE void sum_values(const u32 (&high)[2], const u32 (&low)[2], const Tile &t, State &s)
{
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
                u32 v[4];
                for (int i = 0; i < 4; i++)
                        v[i] = word(t.v[i][n / 8], n / 2 % 4);
                u32 a[4] = {prmt(v[0], v[1], 0x5410), prmt(v[0], v[1], 0x7632), prmt(v[2], v[3], 0x5410), prmt(v[2], v[3], 0x7632)};
                mma_f16(s.o[n / 2], a, high);
                mma_f16(s.o[n / 2], a, low);
        }
}

INLINE u64 first_row(const Args &a) { return ((u64)(u32)*(const i32 *)moe_arg(«seq») * KVH + BY) * a.dim->n_ctx; }
// A warp's heads, between the wait and a barrier; own: this block has the token's own place, row `at` of the cache, and appends.
INLINE void prepare(const Args &a, bool own, u64 at)
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
moe_has(«k», «        u16 *key = (u16 *)moe_arg(«kv») + at * DK, *value = (u16 *)moe_arg(«kvv») + at * DV;
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
// A warp's state to its part, in places turned so that lanes meet no bank twice.
INLINE int turned(int head, int i) { return i / 32 * 32 + ((i / 4 % 8) ^ (head / 2 & 3)) * 4 + i % 4; }
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
                for (int n = 0; n < NT; n += 4)
                        *(F4 *)&p.o[2 * c + h][turned(2 * c + h, DV / 8 * r + n)] = F4{s.o[n / 2][h], s.o[n / 2][h + 2], s.o[n / 2 + 1][h], s.o[n / 2 + 1][h + 2]};
        if (c == 0)
                p.top[r] = s.top, p.total[r] = total;
}
// Parts of one head's sum joined by a warp, each times e^(its top - the highest): part p's top and total are lane p's, values
// 4 lane .. are what o(p) gives.
struct Joined {
        float top, total, o[4];
        template <class O> INLINE_IN Joined(int n, float part_top, float part_total, O of)
        {
                top = warp_max(TID % 32 < n ? part_top : -INF);
                float r = TID % 32 < n && part_total > 0 ? exp1(part_top - top) : 0;
                total = warp_sum(TID % 32 < n ? part_total * r : 0);
                o[0] = o[1] = o[2] = o[3] = 0;
#pragma unroll 8
                for (int p = 0; p < n; p++) {
                        float by = shfl(r, p);
                        F4 f = by != 0 ? of(p) : F4{0, 0, 0, 0};
                        o[0] = fma1(f.x, by, o[0]), o[1] = fma1(f.y, by, o[1]), o[2] = fma1(f.z, by, o[2]), o[3] = fma1(f.w, by, o[3]);
                }
        }
        INLINE_IN F4 four() const { return F4{o[0], o[1], o[2], o[3]}; }
};
INLINE int place() { return 4 * (TID % 32) % DV; }
// A head's values, by a warp.
INLINE void put(const Args &a, u32 head, const Joined &s)
{
        float by = 1.0f / s.total, x[4];
        moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[head], high = max1(s.top, sink), r = exp1(s.top - high);
        by = r / (s.total * r + exp1(sink - high));», «»)
        for (int i = 0; i < 4; i++)
                x[i] = s.o[i] * by;
        bool mine = 4 * (TID % 32) < DV;
        u32 at = head * DV + (u32)place();
moe_if(MOE_out, q8, «        float scale, sum;
        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + HEADS * DV), *sums = d + HEADS * DV / 16;
        u32 code = quantize4(x, scale, sum);
        if (mine) {
                *(u32 *)(q + at) = code;
                if (at % 16 == 0)
                        d[at / 16] = scale, sums[at / 16] = sum;
        }
», «        if (mine)
                *(F4 *)((float *)moe_arg(«out0») + at) = F4{x[0], x[1], x[2], x[3]};
»)}

// The blocks' sums, by the one that ends last.
INLINE void join(const Args &a, u32 parts)
{
        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count[BY]) + 1;
        barrier();
        if (ended != parts)
                return;
        publish();
        if (TID == 0)
                count[BY] = 0;
        for (u32 n = (u32)TID / 32; n < G; n += WARPS) {
                u32 head = BY * G + n, p = (u32)TID % 32 < parts ? (u32)TID % 32 : 0;
                put(a, head, Joined((int)parts, load_far(&far_top[head][p]), load_far(&far_total[head][p]), [&](int p) { return load_far4(&far_o[head][p][place() / 4]); }));
        }
}

moe_kernel
{
        moe_trigger(first);
        moe_read_early();
        i32 pos = *(const i32 *)moe_arg(«pos»), low = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0;
        i32 from = low / TILE, tiles = pos / TILE + 1 - from, parts = tiles <= WARPS * EACH ? 1 : (tiles + WARPS - 1) / WARPS;
        parts = parts > SPLIT ? SPLIT : parts;
        if ((i32)BZ >= parts) {
                pdl_wait();
                return;
        }
        i32 each = parts * WARPS, mine = (i32)BZ * WARPS + TID / 32;
        u64 row0 = first_row(a);
        const u16 *keys = (const u16 *)moe_arg(«kv») + row0 * DK, *values = (const u16 *)moe_arg(«kvv») + row0 * DV;
        Tile t;
        // Its tiles from the last to the first: the last may need the token's own.
        i32 first = mine < tiles ? mine + (tiles - 1 - mine) / each * each : -1;
        if (first >= 0) {
                t.load_keys(keys, TILE * (from + first), pos);
                t.load_values(values, TILE * (from + first), pos);
        }
        for (i32 i = first - each; i >= 0 && i >= first - 2 * each; i -= each)
                tile_ahead(keys, values, TILE * (from + i), pos);
        for (int i = TID; G < 8 && i < 2 * 8 * DK; i += THREADS)
                query[i / (8 * DK)][i / DK % 8][i % DK] = 0;
        for (int i = TID; i < DK; i += THREADS) {
                moe_has(«norm», «norm_w[i] = ((const float *)moe_arg(«norm»))[i];», «»)
                moe_has(«knorm», «knorm_w[i] = ((const float *)moe_arg(«knorm»))[i];», «»)
        }
        moe_if(MOE_HALF, 0, «», «rope_table(pos, moe_has(«freqs», «(const float *)moe_arg(«freqs»)», «0»));»)
        barrier();
        pdl_wait();
        prepare(a, (i32)BZ == (tiles - 1) % each / WARPS, row0 + (u32)pos);
        barrier();
        State s = {{}, -INF, 0};
        moe_has(«k», «if (first == tiles - 1)
                put_own(t, pos - TILE * (from + first));», «»)
#pragma unroll 1
        for (i32 i = first; i >= 0; i -= each) {
                i32 p0 = TILE * (from + i), next = TILE * (from + i - each);
                float c[2][4] = {};
                u32 high[2], low_part[2];
                scores(t, c);
                if (i >= each)
                        t.load_keys(keys, next, pos);
                if (i >= 3 * each)
                        tile_ahead(keys, values, TILE * (from + i - 3 * each), pos);
                weigh(c, s, p0, low, pos, high, low_part);
                sum_values(high, low_part, t, s);
                if (i >= each)
                        t.load_values(values, next, pos);
        }
        put_part(s);
        barrier();
        int in_block = tiles - (i32)BZ * WARPS; // warps that have a tile
        in_block = in_block < WARPS ? in_block : WARPS;
#pragma unroll 1
        for (int n = TID / 32; n < G; n += WARPS) {
                u32 head = BY * G + (u32)n;
                int p = TID % 32 < in_block ? TID % 32 : 0;
                Joined all(in_block, part[p].top[n], part[p].total[n], [&](int p) { return *(const F4 *)&part[p].o[n][turned(n, place())]; });
                if (parts == 1) {
                        put(a, head, all);
                } else {
                        if (4 * (TID % 32) < DV)
                                far_o[head][BZ][place() / 4] = all.four();
                        if (TID % 32 == 0)
                                far_top[head][BZ] = all.top, far_total[head][BZ] = all.total;
                }
        }
        if (parts > 1)
                join(a, (u32)parts);
}
