// attend_many: attend in steps of many tokens, on tensor cores: softmax attention of each token over its own sequence's cache,
// which has the step's keys and values already; with the queries' norm and rotation.
//
// q f32 [T, HEADS * DK]; out f32 or q8 [T, HEADS * DV]; planes as kv_append's, f16. A tile: up to TM tokens that are neighbours in
// the step and in their sequence, with the G query heads of one key head: ROWS rows, which share every key and value that is
// read. Its past is cut into units of UNIT positions; all tiles' units, in a row, are shared out evenly among the blocks (a tile itself
// counts as FIXED units more), each of which finds its own from pos and seq alone. Near a tile's ends a cut moves to the end. What several blocks have of a tile is joined by
// the one that ends last, in the tile's order, from memory of this module: the bits depend on the step's pos and seq, not on contents.
//
// In a block two groups of four warps take the units' halves, by 64 keys or fewer, through shared memory of their own; a warp has MT * 16
// rows. Queries and weights are rounded to f16, as the cache is. A tile of one token has 8 heads a warp, what the rounding left
// in 8 rows more, as attend_one has, and up to 8 groups. Online softmax (Milakov and Gimelshein 2018) in base 2; the scores'
// registers are the weights' of the second product (Dao 2023). 256 threads, a block a processor. Grid: GRID.
//
//      H100, 32 heads of 128 on 4, microseconds for 512 tokens at depth 0: 41    2048: 214    64 sequences at 128: 29
m4_include(«prelude.m4»)
m4_include(«heads.m4»)
m4_include(«round.m4»)
moe_early(«pos»)
moe_early(«seq»)
enum { HEADS = MOE_HEADS, KVH = MOE_KVH, G = HEADS / KVH, DK = MOE_DK, DV = MOE_DV, GRID = MOE_GRID };
enum { MT = DK <= 128 && DV <= 128 ? 2 : 1, ROWS = 64 * MT, TM = ROWS / G, NT = DV / 8, UNIT = 128, FIXED = 3 };
// A row in shared memory: 16-byte parts, placed so that 8 rows' same part meet no bank twice.
enum { CK = DK / 8, CV = DV / 8, SK = CK % 8 ? CK | 1 : CK, SV = CV % 8 ? CV | 1 : CV };
INLINE constexpr int room(int keys) { return 16 * (4 * keys * (SK + SV) + ROWS * SK) + 1024; }
enum { NK = room(64) <= WHOLE_ROOM ? 64 : room(32) <= WHOLE_ROOM ? 32 : 16, RING = 4 * NK * (SK + SV) * 8 };
// Tiles of one token: eights of heads, and groups of warps that share a unit's keys.
enum { HG = G <= 8 ? 1 : G <= 16 ? 2 : G <= 32 ? 4 : 8, KFEW = WARPS / HG < NK / 8 ? WARPS / HG : NK / 8 };
#define LOG2E 1.44269504f
#define CAP ((float)MOE_softcap)
#define SCALE ((float)MOE_scale * moe_if(MOE_softcap, 0x0p+0, «LOG2E», «1.0f»))

m4_include(«shares.m4»)
struct Tile {
        u32 token, n, head;
        i32 pos, last, base; // of the first and last token; the first unit's first position
        const u16 *keys, *values;
};
// One group's part of a tile's result.
struct Part { float top[ROWS], total[ROWS]; };
struct Room {
        alignas(128) u16 ring[RING]; // keys and values; then the groups' sums
        union {
                u16 query[ROWS * SK * 8];
                Part part[WARPS / HG];
        };
        u32 ended;
};
SHARED(Room)
__device__ F4 far_o[2 * GRID][ROWS][DV / 4];
__device__ Part far_part[2 * GRID];
__device__ u32 count[GRID];

template <int STRIDE> INLINE int place(int row, int c) { return 8 * (row * STRIDE + (STRIDE % 8 ? c : c ^ (row & 7))); }

m4_include(«queries.m4»)
// ---- keys and values ----

// Rows p0 .. p0 + N - 1 of a plane, none behind `last` where that may be, by threads 0 .. OF - 1.
template <int N, int C, int STRIDE, int OF, bool ENDS> INLINE void copy_rows(u16 *to, const u16 *from, i32 p0, i32 last, int thread)
{
        // A thread's rows: APART apart, at the same place in eight.
        enum { APART = OF / C < 1 ? 1 : OF / C, EVEN = OF % (8 * C) == 0 && N % APART == 0 };
        if (EVEN) {
                i32 p = p0 + thread / C;
                from += thread % C * 8;
                to += place<STRIDE>(thread / C, thread % C);
                const u16 *first = from + (u64)(u32)p * (C * 8);
#pragma unroll
                for (int i = 0; i < N / APART; i++, p += APART)
                        copy16(to + i * APART * STRIDE * 8,
                               ENDS ? from + (u64)(u32)(p < last ? p : last) * (C * 8) : first + i * APART * C * 8);
                return;
        }
#pragma unroll
        for (int i = 0; i < (N * C + OF - 1) / OF; i++) {
                int at = OF * i + thread, row = at / C, c = at % C;
                if (N * C % OF && at >= N * C)
                        break;
                i32 p = ENDS && p0 + row > last ? last : p0 + row;
                copy16(to + place<STRIDE>(row, c), from + (u64)(u32)p * (C * 8) + 8 * c);
        }
}
template <int N, int OF> INLINE void copy_keys(u16 *to, const Tile &t, i32 p0, int thread)
{
        if (p0 + N - 1 <= t.last) {
                copy_rows<N, CK, SK, OF, false>(to, t.keys, p0, t.last, thread);
                copy_rows<N, CV, SV, OF, false>(to + N * SK * 8, t.values, p0, t.last, thread);
        } else {
                copy_rows<N, CK, SK, OF, true>(to, t.keys, p0, t.last, thread);
                copy_rows<N, CV, SV, OF, true>(to + N * SK * 8, t.values, p0, t.last, thread);
        }
}

// ---- a warp's rows ----

// M times 16 rows; with FEW 8 heads, and their rests.
template <int M, bool FEW> struct Walk {
        enum { HALVES = FEW ? 1 : 2 };
        float o[M][NT][4], top[M][2], total[M][2];
        i32 pos[M][2]; // of the lane's rows; -1: no such row
        INLINE_IN void begin(const Tile &t, int row0)
        {
#pragma unroll
                for (int m = 0; m < M; m++) {
                        for (int h = 0; h < 2; h++) {
                                int i = FEW ? 0 : (row0 + 16 * m + 8 * h + TID % 32 / 4) / G;
                                top[m][h] = -INF, total[m][h] = 0;
                                pos[m][h] = i < (int)t.n ? t.pos + i : -1;
                        }
                        for (int n = 0; n < NT; n++)
                                for (int i = 0; i < 4; i++)
                                        o[m][n][i] = 0;
                }
        }
        // The scores of N keys.
        template <int N> INLINE_IN void scores(float (&c)[M][N / 8][4], const u16 *query, const u16 *keys) const
        {
                int l = TID % 32;
#pragma unroll
                for (int j = 0; j < DK / 16; j++) {
                        u32 q[M][4];
#pragma unroll
                        for (int m = 0; m < M; m++)
                                ldmatrix(q[m], query + 8 * 16 * m * SK + place<SK>(l % 16, 2 * j + l / 16));
#pragma unroll
                        for (int n = 0; n < N / 8; n += 2) {
                                u32 k[4];
                                ldmatrix(k, keys + 8 * 8 * n * SK + place<SK>(l % 8 + l / 16 * 8, 2 * j + l / 8 % 2));
                                u32 k0[2] = {k[0], k[1]}, k1[2] = {k[2], k[3]};
#pragma unroll
                                for (int m = 0; m < M; m++)
                                        mma_f16(c[m][n], q[m], k0), mma_f16(c[m][n + 1], q[m], k1);
                        }
                }
        }
        // Positions that a row does not see; p: of the first key.
        template <int N> INLINE_IN void mask(float (&c)[M][N / 8][4], i32 p0) const
        {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                        for (int n = 0; n < N / 8; n++)
#pragma unroll
                                for (int i = 0; i < 4; i++) {
                                        i32 p = p0 + 8 * n + 2 * (TID % 4) + i % 2, at = pos[m][i / 2];
                                        bool out = p > at;
                                        moe_if(MOE_window, 0, «», «out = out || p + MOE_window <= at;»)
                                        c[m][n][i] = out ? -INF : c[m][n][i];
                                }
        }
        // Scores to weights, under the highest so far.
        template <int N> INLINE_IN void weigh(float (&c)[M][N / 8][4])
        {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                        for (int h = 0; h < HALVES; h++) {
                                float high = top[m][h];
#pragma unroll
                                for (int n = 0; n < N / 8; n++)
                                        high = max_f32(high, max_f32(c[m][n][2 * h], c[m][n][2 * h + 1]));
                                high = max_f32(high, shfl_xor(high, 1));
                                high = max_f32(high, shfl_xor(high, 2));
                                float from = high == -INF ? 0 : high, by = exp2_f32(top[m][h] - from), sum = 0;
                                top[m][h] = high;
#pragma unroll
                                for (int n = 0; n < N / 8; n++)
                                        for (int i = 0; i < 2; i++)
                                                sum += c[m][n][2 * h + i] = exp2_f32(c[m][n][2 * h + i] - from);
                                total[m][h] = fma1(total[m][h], by, sum);
                                if (by != 1.0f) {
#pragma unroll
                                        for (int n = 0; n < NT; n++)
                                                for (int i = FEW ? 0 : 2 * h; i < (FEW ? 4 : 2 * h + 2); i++)
                                                        o[m][n][i] *= by;
                                }
                        }
        }
        // 16 keys' weights as a product takes them.
        INLINE_IN void rounded(u32 (&p)[4], const float (&a)[4], const float (&b)[4]) const
        {
                p[0] = pack_f16(a[0], a[1]), p[2] = pack_f16(b[0], b[1]);
                p[1] = FEW ? pack_f16(a[0] - f16_f32(p[0] & 0xffff), a[1] - f16_f32(p[0] >> 16)) : pack_f16(a[2], a[3]);
                p[3] = FEW ? pack_f16(b[0] - f16_f32(p[2] & 0xffff), b[1] - f16_f32(p[2] >> 16)) : pack_f16(b[2], b[3]);
        }
        template <int N> INLINE_IN void add(const float (&c)[M][N / 8][4], const u16 *values)
        {
                int l = TID % 32;
#pragma unroll
                for (int k = 0; k < N / 16; k++) {
                        u32 p[M][4];
#pragma unroll
                        for (int m = 0; m < M; m++)
                                rounded(p[m], c[m][2 * k], c[m][2 * k + 1]);
#pragma unroll
                        for (int n = 0; n < NT; n += 2) {
                                u32 v[4];
                                ldmatrix_turned(v, values + 8 * 16 * k * SV + place<SV>(l % 16, n + l / 16));
                                u32 v0[2] = {v[0], v[1]}, v1[2] = {v[2], v[3]};
#pragma unroll
                                for (int m = 0; m < M; m++)
                                        mma_f16(o[m][n], p[m], v0), mma_f16(o[m][n + 1], p[m], v1);
                        }
                }
        }
        template <int N> INLINE_IN void step(const u16 *query, const u16 *keys, const u16 *values, i32 p0, i32 first, i32 last)
        {
                float c[M][N / 8][4] = {};
                scores<N>(c, query, keys);
#pragma unroll
                for (int n = 0; n < N / 8; n++) {
                        if (FEW)
                                c[0][n][0] += c[0][n][2], c[0][n][1] += c[0][n][3];
                        moe_if(MOE_softcap, 0x0p+0, «», «for (int m = 0; m < M; m++)
                                for (int i = 0; i < 2 * HALVES; i++) {
                                        float e = exp2_f32(min1(2.0f * LOG2E / CAP * c[m][n][i], 100.0f));
                                        c[m][n][i] = CAP * LOG2E * ((e - 1.0f) / (e + 1.0f));
                                }»)
                }
                if (p0 + N - 1 > first moe_if(MOE_window, 0, «», «|| p0 + MOE_window <= last»))
                        mask<N>(c, p0);
                weigh<N>(c);
                add<N>(c, values);
        }
};

// ---- a tile ----

// What of a group's sums is in shared memory at a time: columns of all rows.
template <int GROUPS, int R> struct Sums {
        enum { WANT = RING / 2 / (GROUPS * R * 8), EACH = WANT < NT ? WANT / 2 * 2 : NT, TIMES = (NT + EACH - 1) / EACH, COLS = 8 * EACH };
        static INLINE_IN float *at(int group, int row, int n) // n: eight of the columns
        {
                u32 turned = (u32)(n + (row & 7)) % EACH;
                return (float *)sh.ring + (group * R + row) * COLS + 8 * turned;
        }
};
// A row's result as the sum of N parts, each times what stands here, with the sink and the division in it.
template <int N> struct Weights {
        float of[N], top, total; // top and total: of the parts together, without the sink
        INLINE_IN void set(const float (&tops)[N], const float (&totals)[N])
        {
                top = -INF, total = 0;
#pragma unroll
                for (int i = 0; i < N; i++)
                        top = max1(top, tops[i]);
#pragma unroll
                for (int i = 0; i < N; i++) {
                        of[i] = totals[i] == 0 ? 0 : exp2_f32(tops[i] - top);
                        total = fma1(totals[i], of[i], total);
                }
        }
        INLINE_IN F4 sum(const F4 (&v)[N], float by) const
        {
                F4 o = {0, 0, 0, 0};
#pragma unroll
                for (int i = 0; i < N; i++) {
                        float r = of[i] * by;
                        o.x = fma1(v[i].x, r, o.x), o.y = fma1(v[i].y, r, o.y), o.z = fma1(v[i].z, r, o.z), o.w = fma1(v[i].w, r, o.w);
                }
                return o;
        }
};
// What a row's sum is multiplied by in the end.
INLINE float last_factor(const Args &a, float top, float total, u32 head)
{
        moe_has(«sinks», «float sink = LOG2E * ((const float *)moe_arg(«sinks»))[head], high = max1(top, sink), r = exp2_f32(top - high);
        return r / (total * r + exp2_f32(sink - high));», «(void)a, (void)top, (void)head;
        return inverse_f32(total);»)
}
// 16 values of a token's head from column d on; v[j] is their four number turn(j): lanes that read shared memory together begin
// with different ones.
INLINE int turn(int j) { return (j + TID / 2) % 4; }
INLINE void put(const Args &a, u32 token, u32 head, int d, const F4 (&v)[4])
{
        u64 at = ((u64)token * HEADS + head) * DV + (u32)d;
moe_if(MOE_out, q8, «        float scale, sum;
        u32 code[4];
        u8 *q = (u8 *)moe_arg(«out0»);
        float *scales = (float *)(q + (u64)a.dim->n_tok * HEADS * DV), *sums = scales + (u64)a.dim->n_tok * HEADS * DV / 16;
        quantize16(v, code, scale, sum);
#pragma unroll
        for (int j = 0; j < 4; j++)
                *(u32 *)(q + at + 4 * turn(j)) = code[j];
        scales[at / 16] = scale, sums[at / 16] = sum;
», «#pragma unroll
        for (int j = 0; j < 4; j++)
                *(F4 *)((float *)moe_arg(«out0») + at + 4 * turn(j)) = v[j];
»)}

// How a tile's warps share it: IN_GROUP warps have its rows, M times 16 each, and each group N keys at a time, SHARE of a unit.
template <bool FEW_> struct Shape {
        enum { FEW = FEW_, M = FEW ? 1 : MT, N = FEW ? 16 : NK, IN_GROUP = FEW ? HG : 4, GROUPS = FEW ? KFEW : 2, OF = 32 * IN_GROUP };
        enum { TOGETHER = N < 32 ? N : 32 }; // keys whose scores are in registers together
        enum { SHARE = UNIT / GROUPS, STEPS = SHARE / N, R = FEW ? 8 * HG : ROWS, SLOT = N * (SK + SV) * 8 };
};
// The row of the lane's half h of 16 rows m.
template <class S> INLINE int row_of(int m, int h)
{
        int rows = TID / 32 % S::IN_GROUP;
        return (S::FEW ? 8 * rows : 16 * (S::M * rows + m) + 8 * h) + TID % 32 / 4;
}
// The groups' sums of a row's 16 columns from d0 + d on joined: to the result, or, where the tile is not whole, to part `far`.
template <class S> INLINE void finish_part(const Args &a, const Tile &t, int row, int d0, int d, int far)
{
        typedef Sums<S::GROUPS, S::R> Here;
        Weights<S::GROUPS> w;
        float tops[S::GROUPS], totals[S::GROUPS];
#pragma unroll
        for (int g = 0; g < S::GROUPS; g++)
                tops[g] = sh.part[g].top[row], totals[g] = sh.part[g].total[row];
        w.set(tops, totals);
        u32 head = t.head * G + (u32)row % G;
        float by = far < 0 ? last_factor(a, w.top, w.total, head) : 1;
        F4 o[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
                F4 v[S::GROUPS];
#pragma unroll
                for (int g = 0; g < S::GROUPS; g++)
                        v[g] = *(const F4 *)(Here::at(g, row, d / 8 + turn(j) / 2) + turn(j) % 2 * 4);
                o[j] = w.sum(v, by);
        }
        if (far < 0) {
                put(a, t.token + (u32)row / G, head, d0 + d, o);
                return;
        }
        if (d0 + d == 0)
                far_part[far].top[row] = w.top, far_part[far].total[row] = w.total;
#pragma unroll
        for (int j = 0; j < 4; j++)
                far_o[far][row][(d0 + d) / 4 + turn(j)] = o[j];
}
// The groups' sums joined, through shared memory.
template <class S> INLINE void finish(const Args &a, const Tile &t, const Walk<S::M, S::FEW> &w, int far)
{
        typedef Sums<S::GROUPS, S::R> Here;
        int group = TID / 32 / S::IN_GROUP;
#pragma unroll
        for (int m = 0; m < S::M; m++)
                for (int h = 0; h < (S::FEW ? 1 : 2); h++) {
                        float l = w.total[m][h];
                        l += shfl_xor(l, 1);
                        l += shfl_xor(l, 2);
                        if (TID % 4 == 0 && group < S::GROUPS)
                                sh.part[group].top[row_of<S>(m, h)] = w.top[m][h], sh.part[group].total[row_of<S>(m, h)] = l;
                }
#pragma unroll
        for (int k = 0; k < Here::TIMES; k++) {
                if (k)
                        barrier();
#pragma unroll
                for (int m = 0; m < S::M; m++)
#pragma unroll
                        for (int h = 0; h < (S::FEW ? 1 : 2); h++)
#pragma unroll
                                for (int n = k * Here::EACH; n < (k + 1) * Here::EACH && n < NT; n++) {
                                        F2 *to = (F2 *)(Here::at(group, row_of<S>(m, h), n - k * Here::EACH) + 2 * (TID % 4));
                                        if (group < S::GROUPS)
                                                *to = S::FEW ? F2{w.o[m][n][0] + w.o[m][n][2], w.o[m][n][1] + w.o[m][n][3]} : F2{w.o[m][n][2 * h], w.o[m][n][2 * h + 1]};
                                }
                barrier();
#pragma unroll 1
                for (int i = TID; i < (int)t.n * G * (Here::COLS / 16); i += THREADS) {
                        int d = i % (Here::COLS / 16) * 16;
                        if (k * Here::COLS + d < DV)
                                finish_part<S>(a, t, i / (Here::COLS / 16), k * Here::COLS, d, far);
                }
        }
        barrier();
}

// By number, which a register would hide from who looks for races.
template <class S> INLINE void group_barrier(int group)
{
#pragma unroll
        for (int g = 0; g < S::GROUPS; g++)
                if (g == group)
                        part_barrier(1 + g, S::OF);
}
// Units from .. to - 1 of the tile; far: where its part goes; negative: it is whole.
template <bool FEW> INLINE void attend_tile(const Args &a, const Tile &t, i32 from, i32 to, int far)
{
        typedef Shape<FEW> S;
        int group = TID / 32 / S::IN_GROUP, row0 = 16 * S::M * (TID / 32 % S::IN_GROUP), thread = TID % S::OF;
        i32 base = t.base + from * UNIT + group * S::SHARE;
        auto behind = [&](i32 s) { return s / S::STEPS * UNIT + s % S::STEPS * S::N; };
        auto place_of = [&](i32 s) { return base + behind(s); };
        // All groups meet as many barriers as the first has steps: the others' keys come later.
        i32 all = (to - from) * S::STEPS;
        while (all > 0 && t.base + from * UNIT + behind(all - 1) > t.last)
                all--;
        i32 steps = group < S::GROUPS ? all : 0;
        while (steps > 0 && place_of(steps - 1) > t.last)
                steps--;
        u16 *ring = sh.ring + group * 2 * S::SLOT;
        if (steps > 0)
                copy_keys<S::N, S::OF>(ring, t, base, thread);
        prepare<FEW>(a, t);
        barrier();
        Walk<S::M, FEW> w;
        w.begin(t, row0);
        i32 first = FEW ? t.pos : t.pos + row0 / G, last = FEW ? t.pos : t.pos + (row0 + 16 * S::M - 1) / G;
        bool mine = FEW || row0 < (int)t.n * G;
#pragma unroll 1
        for (i32 s = 0; s < all; s++) {
                copies_wait();
                if (S::IN_GROUP == 1)
                        warp_barrier();
                else
                        group_barrier<S>(group);
                if (s + 1 < steps)
                        copy_keys<S::N, S::OF>(ring + (s + 1) % 2 * S::SLOT, t, place_of(s + 1), thread);
                const u16 *slot = ring + s % 2 * S::SLOT;
#pragma unroll 1
                for (int k = 0; k < S::N && mine && s < steps; k += S::TOGETHER)
                        w.template step<S::TOGETHER>(sh.query + 8 * row0 * SK, slot + 8 * k * SK, slot + 8 * (S::N * SK + k * SV), place_of(s) + k, first, last);
        }
        barrier();
        finish<S>(a, t, w, far);
}

// The tile's parts, by the block that ends last: one in front of cut `first`, one behind each of cuts first .. last.
INLINE int part_of(int i, u32 first) { return 2 * ((int)first + (i ? i - 1 : 0)) + (i ? 1 : 0); }
INLINE void join(const Args &a, const Tile &t, u32 first, u32 last)
{
        int parts = (int)(last - first) + 2;
        publish();
        barrier();
        if (TID == 0)
                sh.ended = atomic_inc(&count[first]) + 1;
        barrier();
        if (sh.ended != (u32)parts)
                return;
        publish();
        if (TID == 0)
                count[first] = 0;
#pragma unroll 1
        for (int i = TID; i < (int)t.n * G * (DV / 16); i += THREADS) {
                int row = i / (DV / 16), d = i % (DV / 16) * 16;
                u32 head = t.head * G + (u32)row % G;
                float top = -INF, total = 0;
                F4 o[4] = {};
#pragma unroll 1
                for (int p = 0; p < parts; p++) {
                        int part = part_of(p, first);
                        float tops[2] = {top, load_far(&far_part[part].top[row])}, totals[2] = {total, load_far(&far_part[part].total[row])};
                        F4 v[4];
#pragma unroll
                        for (int j = 0; j < 4; j++)
                                v[j] = load_far4(&far_o[part][row][d / 4 + turn(j)]);
                        Weights<2> w;
                        w.set(tops, totals);
                        top = w.top, total = w.total;
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                                F4 both[2] = {o[j], v[j]};
                                o[j] = w.sum(both, 1);
                        }
                }
                float by = last_factor(a, top, total, head);
#pragma unroll
                for (int j = 0; j < 4; j++)
                        o[j].x *= by, o[j].y *= by, o[j].z *= by, o[j].w *= by;
                put(a, t.token + (u32)row / G, head, d, o);
        }
}

moe_kernel
{
        moe_trigger(first);
        load_common(a);
        moe_read_early();
        const i32 *seq = (const i32 *)moe_arg(«seq»), *pos = (const i32 *)moe_arg(«pos»);
        u32 n_tok = a.dim->n_tok;
        Shares share = find_cuts(seq, pos, n_tok);
        u32 at = cut[0].at, end = cut[1].at;
        pdl_wait();
        if (BX >= share.blocks || at >= end)
                return;
        Tile t;
        u32 start = cut[0].start;
        t.token = cut[0].token, t.head = cut[0].head, t.n = 0;
#pragma unroll 1
        while (at < end) {
                if (t.n == 0)
                        t.n = tokens_of(seq, pos, t.token, n_tok);
                t.pos = pos[t.token], t.last = t.pos + (i32)t.n - 1, t.base = low_of(t.pos) / UNIT * UNIT;
                u32 stop = start + width_of(t.pos), to = end < stop ? end : stop;
                u64 row = ((u64)(u32)seq[t.token] * KVH + t.head) * a.dim->n_ctx;
                t.keys = (const u16 *)moe_arg(«kv») + row * DK, t.values = (const u16 *)moe_arg(«kvv») + row * DV;
                if (at < to) {
                        u32 first = ceil_of((u64)(start + share.near + 1) * share.blocks, share.all),
                            last = ceil_of((u64)(stop - share.near) * share.blocks, share.all) - 1;
                        bool whole = at == start && to == stop;
                        int far = whole ? -1 : at == start ? 2 * (int)first : 2 * (int)BX + 1;
                        if (t.n == 1)
                                attend_tile<true>(a, t, (i32)units_before(at - start), (i32)units_before(to - start), far);
                        else
                                attend_tile<false>(a, t, (i32)units_before(at - start), (i32)units_before(to - start), far);
                        if (!whole)
                                join(a, t, first, last);
                }
                at = start = stop;
                if (++t.head == KVH) {
                        t.head = 0, t.token += t.n, t.n = 0;
                }
        }
}
