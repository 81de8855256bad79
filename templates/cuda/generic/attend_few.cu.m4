// attend_few: attend in a step of T <= NT tokens, on tensor cores: softmax attention of each token over its sequence's cache, with
// the queries' norm and rotation, and, given k, the tokens' own keys and values appended. A sequence's tokens come by rising position, all
// within RUN: a token makes the keys of those in front of it, which other blocks append, once more for itself.
//
// q f32 [T, HEADS * DK]; out f32 or q8 [T, HEADS * DV]; planes as kv_append's, f16. A warp takes 16 positions of one key head and
// its G <= 8 query heads at a time, keys straight to registers, values through shared memory: scores as queries (16 rows: 8 heads rounded to f16, and what the
// rounding left) times keys, then weights (split the same way) times values, under a running maximum (online softmax: Milakov and
// Gimelshein 2018). In the products over a head's width the lanes take 8 neighbouring values as their part of two steps: an order
// of summation like any other, and a load of 16 bytes. The next tile's keys are on their way while the values are multiplied.
// One block a token and key head as long as its warps have EACH tiles or fewer; then up to SPLIT / T, whose sums meet in memory, by
// the block that ends last. The first tiles are read before the wait: only the last positions are of this step.
// 256 threads. Grid: 1, KVH, SPLIT.
//
//      H100, 32 heads of 128 on 4, microseconds at depth 128: 4.0    8 tokens: 5.1    32: 11    64: 21       one token at 4096: 10    16384: 22
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
m4_include(«round.m4»)
moe_early(«pos»)
moe_early(«seq»)
moe_early(«kv»)
moe_early(«kvv»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, SPLIT = MOE_SPLIT };
enum { NT = MOE_NT, RUN = MOE_RUN, NJ = DK / 32, NV = DV / 64, NO = DV / 8, TILE = 16, EACH = MOE_EACH };
enum { PAIRS = (DK / 2 + 15) / 16, PARTS = SPLIT < 32 ? SPLIT : 32 }; // PAIRS: of a head, a lane's; PARTS: of a token, a lane of which has one
enum { LAST = (RUN + 2 * TILE - 2) / TILE }; // tiles, from the last one back, that may have positions of the step
#define LOG2E 1.44269504f
// Scores are exponents of 2, but where a cap comes between.
#define SCALE ((float)MOE_scale moe_if(MOE_softcap, 0x0p+0, «* LOG2E», «»))
#define CAP ((float)MOE_softcap)
struct alignas(16) Part {
        float o[8][DV], top[8], total[8];
};
enum { STAGES = NT > 16 && WHOLE_ROOM < 163 << 10 ? 1 : 2 }; // tiles of values on their way
union Own { // a lane's own values; in the end its warp's part
        alignas(16) U4 values[STAGES][4 * NV][32];
        Part part;
};
struct Shared {
        Own warp[WARPS];
};
SHARED(Shared)
INLINE Part &part_of(int warp) { return sh.warp[warp].part; }
__shared__ float norm_w[2][DK]; // of queries, of keys
__device__ F4 far_o[HEADS][SPLIT][DV / 4]; // by token and part
__device__ float far_top[HEADS][SPLIT], far_total[HEADS][SPLIT];
__device__ u32 count[NT][KVH];
__shared__ u32 ended;
moe_if(MOE_HALF, 0, «», «__shared__ float step_cos[RUN][HALF], step_sin[RUN][HALF]; // by how far in front a token stands, of those that are seen
»)
// The queries rounded to f16, and what that left; the step's own keys and values as the cache has them.
alignas(16) __shared__ u16 query[2][8 + RUN][DK], own_value[RUN][DV]; // the keys as a ninth and more, the block's own token's first
#define own_key (query[0] + 8)
moe_if(MOE_NT, 1, «INLINE int run_of(int) { return 1; }
INLINE i32 seen(const Args &a, int, int) { return *(const i32 *)moe_arg(«pos»); }
», «// How many tokens, from `token` back, may be seen.
INLINE int run_of(int token) { return token < RUN ? token + 1 : RUN; }
// The position of the token m in front of `token` in the step, if it is of the same sequence; else -1.
INLINE i32 seen(const Args &a, int token, int m)
{
        const i32 *pos = (const i32 *)moe_arg(«pos»), *seq = (const i32 *)moe_arg(«seq»);
        return m <= token && seq[token - m] == seq[token] ? pos[token - m] : -1;
}
__shared__ i32 seen_pos[RUN];
»)
// Usage: moe_norms: 1 where heads have a norm.
m4_define(«moe_norms», «m4_eval(moe_has(«norm», 1, 0) + moe_has(«knorm», 1, 0) > 0)»)m4_dnl
// The pair p of a head: those that are rotated together, then the rest as it comes.
INLINE int first_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p : », «»)2 * p; }
INLINE int second_of(int p) { return moe_if(MOE_rstyle, neox, «p < HALF ? p + HALF : », «»)2 * p + 1; }
// Heads y = rope(norm(x)) of the token m in front by a warp, two at a time: lanes 16 n .. have head 2 * warp + n, rounded, times `by`, and
// what that left.
INLINE void prepare(const float *x, const float *w, bool norm, float by, int m, u16 *high, u16 *low, bool in)
{
        float v[PAIRS][2], s = 0, r = 1;
        int lane = TID % 16;
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
                int p = 16 * i + lane;
                bool has = in && (DK % 32 == 0 || p < DK / 2);
                v[i][0] = has ? x[first_of(p)] : 0, v[i][1] = has ? x[second_of(p)] : 0;
                s = fma1(v[i][0], v[i][0], fma1(v[i][1], v[i][1], s));
        }
moe_if(moe_norms, 0, «        (void)w, (void)norm;
», «        for (int i = 8; i; i /= 2)
                s += shfl_xor(s, i);
        if (norm)
                r = rsqrt_f32(s / (float)DK + (float)MOE_eps);
»)        if (!in)
                return;
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
                int p = 16 * i + lane, a = first_of(p), b = second_of(p);
                if (DK % 32 && p >= DK / 2)
                        break;
                float y = moe_if(moe_norms, 0, «v[i][0], z = v[i][1]», «v[i][0] * r * w[a], z = v[i][1] * r * w[b]»);
                moe_if(MOE_HALF, 0, «», «if (p < HALF) {
                        float c = step_cos[m][p], u = step_sin[m][p], y1 = mul1(y, c) - mul1(z, u);
                        z = mul1(z, c) + mul1(y, u);
                        y = y1;
                }»)
                y *= by, z *= by;
                u32 h = pack_f16(y, z), l = pack_f16(y - f16_f32(h & 0xffff), z - f16_f32(h >> 16));
                high[a] = (u16)h, high[b] = (u16)(h >> 16);
                low[a] = (u16)l, low[b] = (u16)(l >> 16);
        }
}
// The pair rounded to f16, and what that left.
INLINE void halves(float a, float b, u32 &high, u32 &low)
{
        high = pack_f16(a, b);
        low = pack_f16(a - f16_f32(high & 0xffff), b - f16_f32(high >> 16));
}

// 16 positions of a head's cache, as the lane's part of the products: of keys, rows p0 + lane / 4 and 8 behind, in registers; of
// values, rows p0 + 2 (lane % 4), + 1, + 8, + 9, of each the lane / 4-th eighth, in shared memory.
struct Tile {
        U4 k[2][NJ];
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
        // Of values a lane fetches what it will read, to a stage.
        static INLINE_IN void fetch_values(const u16 *values, int stage, i32 p0, i32 last)
        {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        i32 p = p0 + value_row(i);
                        const u16 *row = values + (u64)(u32)(p < last ? p : last) * DV + DV / 8 * (TID % 32 / 4);
                        for (int n = 0; n < NV; n++)
                                copy16(&sh.warp[TID / 32].values[stage][NV * i + n][TID % 32], row + 8 * n);
                }
        }
};
// A later tile's keys to the L2, 128 bytes a lane at a time.
INLINE void keys_ahead(const u16 *keys, i32 p0, i32 last)
{
#pragma unroll 1
        for (int i = TID % 32; i < TILE * DK / 64; i += 32) {
                i32 p = p0 + i / (DK / 64);
                ahead(keys + (u64)(u32)(p < last ? p : 0) * DK + i % (DK / 64) * 64);
        }
}
// What a warp has so far: of head lane / 4 its top, and this lane's part of its total; of heads 2 (lane % 4) and the next, 2 and 2
// of the lane / 4-th eighth of their values.
struct State {
        float o[NO / 2][4], top, total;
};

// c: the scores' high and low parts, of 8 positions each.
INLINE void scores(const Tile &t, float (&c)[2][4])
{
        float odd[2][4] = {}; // half as long a chain of products
#pragma unroll
        for (int j = 0; j < NJ; j++) {
                U4 high = *(const U4 *)&query[0][TID % 32 / 4][32 * j + 8 * (TID % 4)], low = *(const U4 *)&query[1][TID % 32 / 4][32 * j + 8 * (TID % 4)];
                u32 q0[4] = {high.x, low.x, high.y, low.y}, q1[4] = {high.z, low.z, high.w, low.w};
#pragma unroll
                for (int h = 0; h < 2; h++) {
                        u32 b0[2] = {t.k[h][j].x, t.k[h][j].y}, b1[2] = {t.k[h][j].z, t.k[h][j].w};
                        mma_f16(c[h], q0, b0);
                        mma_f16(odd[h], q1, b1);
                }
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
                c[i / 4][i % 4] += odd[i / 4][i % 4];
}
// Scores to weights under the new maximum, in two halves as the products take them.
INLINE void weigh(const float (&c)[2][4], State &s, i32 p0, i32 low, i32 pos, u32 (&high)[2], u32 (&low_part)[2])
{
        float e[4], top = s.top;
        for (int i = 0; i < 4; i++) {
                i32 p = p0 + 8 * (i / 2) + 2 * (TID % 4) + i % 2;
                e[i] = c[i / 2][i % 2] + c[i / 2][i % 2 + 2];
                moe_if(MOE_softcap, 0x0p+0, «», «float y = exp1(2.0f / CAP * e[i]);
                e[i] = CAP * LOG2E * ((y - 1.0f) / (y + 1.0f));»)
                e[i] = p < low || p > pos ? -INF : e[i];
                top = max1(top, e[i]);
        }
        top = max1(top, shfl_xor(top, 1));
        top = max1(top, shfl_xor(top, 2));
        float by = s.top == -INF ? 0 : exp2_f32(s.top - top), by0 = shfl(by, 8 * (TID % 4)), by1 = shfl(by, 8 * (TID % 4) + 4);
        s.total *= by;
        for (int n = 0; n < NO / 2; n++)
                for (int i = 0; i < 4; i++)
                        s.o[n][i] *= i % 2 ? by1 : by0;
        s.top = top;
        for (int i = 0; i < 4; i++) {
                e[i] = e[i] == -INF ? 0 : exp2_f32(e[i] - top);
                s.total += e[i];
        }
        halves(e[0], e[1], high[0], low_part[0]);
        halves(e[2], e[3], high[1], low_part[1]);
}
INLINE void sum_values(const u32 (&high)[2], const u32 (&low)[2], int stage, State &s)
{
        const U4 (*v)[32] = sh.warp[TID / 32].values[stage];
#pragma unroll
        for (int m = 0; m < NV; m++) {
                U4 r[4] = {v[m][TID % 32], v[NV + m][TID % 32], v[2 * NV + m][TID % 32], v[3 * NV + m][TID % 32]};
#pragma unroll
                for (int n = 0; n < 4; n++) {
                        u32 w[4] = {word(r[0], n), word(r[1], n), word(r[2], n), word(r[3], n)};
                        u32 a[4] = {prmt(w[0], w[1], 0x5410), prmt(w[0], w[1], 0x7632), prmt(w[2], w[3], 0x5410), prmt(w[2], w[3], 0x7632)};
                        mma_f16(s.o[4 * m + n], a, high);
                        mma_f16(s.o[4 * m + n], a, low);
                }
        }
}

// What the heads' norms and rotation need, asked for at once, ahead of all that depends on the position.
struct Turns {
        enum { NW = (DK + THREADS - 1) / THREADS, AT_ONCE = HALF && RUN > 1 ? THREADS / HALF : 1 }; // tokens
        float w[2][NW], factor;
        double rate;
        INLINE_IN void load(const Args &a)
        {
moe_if(moe_norms, 0, «», «                for (int j = 0; j < NW; j++) {
                        int i = j * THREADS + TID < DK ? j * THREADS + TID : DK - 1;
                        w[0][j] = moe_has(«norm», «((const float *)moe_arg(«norm»))[i]», 1);
                        w[1][j] = moe_has(«knorm», «((const float *)moe_arg(«knorm»))[i]», 1);
                }
»)moe_if(MOE_HALF, 0, «», «                int i = RUN > 1 ? TID % HALF : TID < HALF ? TID : HALF - 1;
                rate = freqs[i];
                factor = moe_has(«freqs», «((const float *)moe_arg(«freqs»))[i]», 1);
»)                (void)a;
        }
        // To shared memory; a barrier follows.
        INLINE_IN void put(const Args &a, int token) const
        {
moe_if(moe_norms, 0, «», «                for (int j = 0; j < NW; j++)
                        if (j * THREADS + TID < DK)
                                norm_w[0][j * THREADS + TID] = w[0][j], norm_w[1][j * THREADS + TID] = w[1][j];
»)moe_if(MOE_HALF, 0, «», «#pragma unroll 1
                for (int m = RUN > 1 ? TID / HALF : 0; m < run_of(token); m += AT_ONCE) {
                        float s, c;
                        i32 pos = seen(a, token, m);
                        if (RUN > 1 && (pos < 0 || TID >= AT_ONCE * HALF))
                                continue;
                        sincos_turns((double)pos * moe_has(«freqs», «(rate / (double)factor)», «rate»), s, c);
                        if (RUN > 1 || TID < HALF)
                                step_sin[m][TID % HALF] = s * (float)MOE_rattn, step_cos[m][TID % HALF] = c * (float)MOE_rattn;
                }
»)                (void)a, (void)token;
        }
};
moe_has(«k», «
// The keys and values of the step's token m into the tile that has their place; nothing behind them.
INLINE void put_own(Tile &t, int m, int row)
{
        int r = TID % 32 / 4;
#pragma unroll
        for (int j = 0; j < NJ; j++)
                for (int h = 0; h < 2; h++)
                        if (row == 8 * h + r)
                                t.k[h][j] = *(const U4 *)&own_key[m][32 * j + 8 * (TID % 4)];
#pragma unroll
        for (int i = 0; i < 4; i++)
                for (int n = 0; n < NV; n++)
                        if (Tile::value_row(i) >= row)
                                sh.warp[TID / 32].values[0][NV * i + n][TID % 32] = Tile::value_row(i) == row ? *(const U4 *)&own_value[m][DV / 8 * r + 8 * n] : U4{0, 0, 0, 0};
}
», «»)
// A warp's state to its part, in places turned so that lanes meet no bank twice.
INLINE int turned(int head, int i) { return i ^ (head / 2 & 3) * 4; }
INLINE void put_part(const State &s)
{
        Part &p = part_of(TID / 32);
        int r = TID % 32 / 4, c = TID % 4;
        float total = s.total;
        total += shfl_xor(total, 1);
        total += shfl_xor(total, 2);
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
                for (int n = 0; n < NO; n += 4)
                        *(F4 *)&p.o[2 * c + h][turned(2 * c + h, DV / 8 * r + n)] = F4{s.o[n / 2][h], s.o[n / 2][h + 2], s.o[n / 2 + 1][h], s.o[n / 2 + 1][h + 2]};
        if (c == 0)
                p.top[r] = s.top, p.total[r] = total;
}
// Parts of one head's sum joined by a warp, each times 2^(its top - the highest): part p's top and total are lane p's, values
// 4 lane .. are what o(p) gives.
struct Joined {
        float top, total, o[4];
        // SPAN: how many neighbouring lanes have them all.
        template <int SPAN, class O> INLINE_IN void join(int n, float part_top, float part_total, O of)
        {
                enum { AT_ONCE = SPAN < 16 ? SPAN : 16 }; // on their way together
                F4 f[AT_ONCE];
#pragma unroll
                for (int i = 0; i < AT_ONCE; i++)
                        f[i] = of(i < n ? i : n - 1);
                bool in = TID % SPAN < n;
                top = in ? part_top : -INF;
#pragma unroll
                for (int m = SPAN / 2; m; m /= 2)
                        top = max1(top, shfl_xor(top, m));
                float r = in && part_total > 0 ? exp2_f32(part_top - top) : 0;
                total = in ? part_total * r : 0;
#pragma unroll
                for (int m = SPAN / 2; m; m /= 2)
                        total += shfl_xor(total, m);
                o[0] = o[1] = o[2] = o[3] = 0;
#pragma unroll 1
                for (int p0 = 0;;) {
#pragma unroll
                        for (int i = 0; i < AT_ONCE; i++) {
                                float by = shfl(r, p0 + i); // 0 behind the last one
                                o[0] = fma1(f[i].x, by, o[0]), o[1] = fma1(f[i].y, by, o[1]), o[2] = fma1(f[i].z, by, o[2]), o[3] = fma1(f[i].w, by, o[3]);
                        }
                        p0 += AT_ONCE;
                        if (AT_ONCE == SPAN || p0 >= n)
                                break;
#pragma unroll
                        for (int i = 0; i < AT_ONCE; i++)
                                f[i] = of(p0 + i < n ? p0 + i : n - 1);
                }
        }
        INLINE_IN F4 four() const { return F4{o[0], o[1], o[2], o[3]}; }
};
INLINE int place() { return 4 * (TID % 32) % DV; }
// A head's values, by a warp.
INLINE void put(const Args &a, u32 head, const Joined &s, u32 token, u32 n)
{
        float by = 1.0f / s.total, x[4];
        moe_has(«sinks», «float sink = ((const float *)moe_arg(«sinks»))[head], high = max1(s.top, LOG2E * sink), r = exp2_f32(s.top - high);
        by = r / (s.total * r + exp2_f32(LOG2E * sink - high));», «»)
        for (int i = 0; i < 4; i++)
                x[i] = s.o[i] * by;
        bool mine = 4 * (TID % 32) < DV;
        u32 at = (token * HEADS + head) * DV + (u32)place();
moe_if(MOE_out, q8, «        float scale, sum;
        u8 *q = (u8 *)moe_arg(«out0»);
        float *d = (float *)(q + n * HEADS * DV), *sums = d + n * HEADS * DV / 16;
        u32 code = quantize4(x, scale, sum);
        if (mine) {
                *(u32 *)(q + at) = code;
                if (at % 16 == 0)
                        d[at / 16] = scale, sums[at / 16] = sum;
        }
», «        if (mine)
                *(F4 *)((float *)moe_arg(«out0») + at) = F4{x[0], x[1], x[2], x[3]};
»)        (void)n;
}

// Whether this block is the last of its token's and head's to have written its part.
INLINE bool ends_last(i32 parts, u32 token)
{
        publish();
        barrier();
        if (TID == 0)
                ended = atomic_inc(&count[token][BY]) + 1;
        barrier();
        if (ended != (u32)parts)
                return false;
        publish();
        if (TID == 0)
                count[token][BY] = 0;
        return true;
}

moe_kernel
{
        moe_trigger(first);
        Turns turns;
        turns.load(a);
        moe_read_early();
        u32 T = m4_ifelse(MOE_NT, 1, 1, «a.dim->n_tok»), token = NT == 1 ? 0 : BZ % T, n_ctx = a.dim->n_ctx;
        i32 split = NT == 1 ? (i32)BZ : (i32)(BZ / T), most = NT == 1 ? PARTS : (i32)(SPLIT / T < PARTS ? SPLIT / T : PARTS);
        i32 pos = ((const i32 *)moe_arg(«pos»))[token], seq = ((const i32 *)moe_arg(«seq»))[token];
        i32 low = MOE_window && pos >= MOE_window ? pos - MOE_window + 1 : 0;
        i32 from = low / TILE, tiles = pos / TILE + 1 - from, parts = tiles <= WARPS * EACH ? 1 : (tiles + WARPS - 1) / WARPS;
        parts = parts > most ? most : parts;
        if (split >= parts) {
                pdl_wait();
                return;
        }
        i32 warp = TID / 32, each = parts * WARPS, mine = split * WARPS + warp;
        u64 row0 = ((u64)(u32)seq * KVH + BY) * n_ctx;
        const u16 *keys = (const u16 *)moe_arg(«kv») + row0 * DK, *values = (const u16 *)moe_arg(«kvv») + row0 * DV;
        Tile t;
        // Its tiles from the last to the first, of which only that may have positions of the step: LAST < WARPS.
        i32 whole = (tiles - 1) / each, rest = tiles - 1 - whole * each, first = (mine <= rest ? whole : whole - 1) * each + mine;
        bool last = moe_has(«k», «split == rest / WARPS», «false»), own = last;
moe_has(«k», «#pragma unroll
        for (i32 i = 2; i <= LAST; i++)
                own = own || (tiles >= i && split == (tiles - i) % each / WARPS);
», «»)        if (first >= 0)
                t.load_keys(keys, TILE * (from + first), pos);
#pragma unroll
        for (int i = 0; i < STAGES; i++) {
                if (first >= i * each)
                        Tile::fetch_values(values, i, TILE * (from + first - i * each), pos);
                copies_end();
        }
#pragma unroll 1
        for (i32 i = first - each; i >= 0 && i >= first - 2 * each; i -= each)
                keys_ahead(keys, TILE * (from + i), pos);
        for (int i = TID; G < 8 && i < 2 * 8 * DK; i += THREADS)
                query[i / (8 * DK)][i / DK % 8][i % DK] = 0;
        turns.put(a, (int)token);
moe_if(MOE_NT, 1, «», «        if (TID < RUN)
                seen_pos[TID] = seen(a, (int)token, TID);
»)        barrier();
        pdl_wait();
#pragma unroll 1
        for (int pair = warp; pair <= (G + RUN - 1) / 2; pair += WARPS) {
                int n = 2 * pair + TID % 32 / 16, m = n < G ? 0 : (n - G) % RUN;
                bool key = own && n >= G && n < G + RUN moe_if(MOE_NT, 1, «», «&& seen_pos[m] >= 0»);
                prepare(moe_has(«k», «key ? (const float *)moe_arg(«k») + ((token - (u32)m) * KVH + BY) * DK : », «»)(const float *)moe_arg(«q») + (token * HEADS + BY * G + (u32)n) * DK, norm_w[key],
                        key ? moe_has(«knorm», true, false) : moe_has(«norm», true, false), key ? 1 : SCALE, m, query[0][n < G ? n : 8 + m],
                        query[1][n < G ? n : 8 + m], n < G || key);
        }
moe_has(«k», «#pragma unroll 1
        for (int i = TID; own && i < run_of((int)token) * DV; i += THREADS)
                moe_if(MOE_NT, 1, «», «if (seen_pos[i / DV] >= 0)
                        »)own_value[i / DV][i % DV] = (u16)f32_f16(((const float *)moe_arg(«v»))[((token - (u32)(i / DV)) * KVH + BY) * DV + (u32)(i % DV)]);
», «»)        barrier();
moe_has(«k», «        if (last && TID < DK / 8)
                *(U4 *)((u16 *)moe_arg(«kv») + (row0 + (u32)pos) * DK + 8 * TID) = *(const U4 *)&own_key[0][8 * TID];
        if (last && TID < DV / 8)
                *(U4 *)((u16 *)moe_arg(«kvv») + (row0 + (u32)pos) * DV + 8 * TID) = *(const U4 *)&own_value[0][8 * TID];
        if (first >= 0 && first >= tiles - LAST) {
                copies_wait_but<STAGES - 1>();
                moe_if(MOE_NT, 1, «put_own(t, 0, pos - TILE * (from + first));», «// In the order of their positions.
#pragma unroll 1
                for (int i = run_of((int)token) - 1; i >= 0; i--)
                        if (seen_pos[i] >= TILE * (from + first))
                                put_own(t, i, seen_pos[i] - TILE * (from + first));»)
        }
», «»)        State s = {{}, -INF, 0};
        int stage = 0;
#pragma unroll 1
        for (i32 i = first; i >= 0; i -= each) {
                float c[2][4] = {};
                u32 high[2], low_part[2];
                scores(t, c);
                if (i >= each)
                        t.load_keys(keys, TILE * (from + i - each), pos);
                if (i >= 3 * each)
                        keys_ahead(keys, TILE * (from + i - 3 * each), pos);
                weigh(c, s, TILE * (from + i), low, pos, high, low_part);
                copies_wait_but<STAGES - 1>();
                sum_values(high, low_part, stage, s);
                if (i >= STAGES * each)
                        Tile::fetch_values(values, stage, TILE * (from + i - STAGES * each), pos);
                copies_end();
                stage = (stage + 1) % STAGES;
        }
        warp_barrier(); // the part goes where other lanes' values are
        put_part(s);
        barrier();
        // A warp has a head from here on.
        u32 head = BY * G + (u32)warp, at = token * (u32)most;
        int lane = TID % 32, in_block = tiles - split * WARPS; // warps that have a tile
        bool has_head = G == WARPS || warp < G; // a question that need not be asked leaves each shuffle behind it a second form
        Joined all;
        in_block = in_block < WARPS ? in_block : WARPS;
        if (has_head)
                all.join<WARPS>(in_block, part_of(lane % WARPS).top[warp], part_of(lane % WARPS).total[warp], [&](int p) { return *(const F4 *)&part_of(p).o[warp][turned(warp, place())]; });
        if (parts > 1) {
                if (has_head && 4 * lane < DV)
                        far_o[head][at + (u32)split][place() / 4] = all.four();
                if (has_head && lane == 0)
                        far_top[head][at + (u32)split] = all.top, far_total[head][at + (u32)split] = all.total;
                if (!ends_last(parts, token))
                        return;
                u32 p = at + (u32)(lane < parts ? lane : 0);
                if (has_head)
                        all.join<32>(parts, load_far(&far_top[head][p]), load_far(&far_total[head][p]), [&](int i) { return load_far4(&far_o[head][at + (u32)i][place() / 4]); });
        }
        if (has_head)
                put(a, head, all, token, T);
}
