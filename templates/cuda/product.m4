// Products of rows of weights with activations that lie in shared memory. A warp owns whole rows: each lane sums its units, and
// one reduction a row follows. The order of summation depends on the type and the width alone.
#define W16(p) load16(p)
#define K16(p) kept16(p)
#define W4(p) kept4(p)
#define W2(p) kept2(p)
#define W1(p) kept1(p)
m4_include(«unpack.m4»)
m4_include(«round.m4»)

// Usage: moe_acts: the struct of activations that this kernel's products take, by MOE_act.
m4_define(«moe_acts», «m4_ifelse(MOE_act, q8, «ActsQ8», «ActsF32»)»)m4_dnl
// NT tokens by N values from position `from` on. q8: codes; for each 16 a scale, and scale times the sum of its codes.
// Groups' codes lie by fours apart: what neighbouring lanes read of a unit of 64 values lies side by side. So do their scales and sums
// where each is read when its turn comes: fastest for one token and for more than 32. Else a unit's lie together and are read at once:
// 12 % more tokens a second for 2 and 4 tokens, 1 % for 32.
enum { TOGETHER = MOE_NT > 1 && MOE_NT <= 32 };
template <int NT, int N> struct ActsQ8 {
        static INLINE_IN u32 place(u32 g) { return g % 4 * (N / 64) + g / 4; }
        static INLINE_IN u32 spot(u32 g) { return TOGETHER ? g : place(g); }
        U4 q[NT][N / 16];
        alignas(16) float d[NT][N / 16], s[NT][N / 16];
};
template <int NT, int N> struct ActsF32 {
        F4 f[NT][N / 4];
};
enum { ACT_BYTES_X10 = m4_ifelse(MOE_act, q8, 15, 40) }; // a value's, times 10
// How many values of `all` a block holds at a time for nt tokens: whole blocks of weights within `room` bytes.
#define CHUNK_OF(all, nt, room) (((all) + 255) / 256 * 256 * (nt) * ACT_BYTES_X10 / 10 <= (room) ? ((all) + 255) / 256 * 256 : (room) * 10 / ACT_BYTES_X10 / (nt) / 256 * 256)

// What each group of a unit has, whose first has its at p, in as few loads as where they lie allows.
template <class W, class X> INLINE void each_group(const float *p, float (&v)[W::UNIT / 16])
{
        enum { G = W::UNIT / 16 };
        u32 last = TOGETHER ? W::step(G - 1) : 0;
        if (last == 3) {
                F4 f = *(const F4 *)p;
                v[0] = f.x, v[1 % G] = f.y, v[2 % G] = f.z, v[3 % G] = f.w;
        } else if (last == 5) {
                F2 even = *(const F2 *)p, odd = *(const F2 *)(p + 4);
                v[0] = even.x, v[1 % G] = odd.x, v[2 % G] = even.y, v[3 % G] = odd.y;
        } else if (last == 1) {
                F2 f = *(const F2 *)p;
                v[0] = f.x, v[1 % G] = f.y;
        } else {
                for (int g = 0; g < G; g++)
                        v[g] = p[X::spot(W::step((u32)g))];
        }
}

// acc[r][t] += unit v of row r times token t; v counts from the chunk's first.
template <bool FLOAT> struct Unit;
template <> struct Unit<false> {
        template <class W, int RB, int NT, int N> static INLINE_IN void dot(const W (&w)[RB], u32 v, const ActsQ8<NT, N> &x, float (&acc)[RB][NT])
        {
                enum { G = W::UNIT / 16 };
                u32 first = W::first(v), place = x.place(first);
                float d[NT][G], sum[NT][G];
#pragma unroll
                for (int t = 0; t < NT; t++)
                        each_group<W, ActsQ8<NT, N>>(x.d[t] + x.spot(first), d[t]), each_group<W, ActsQ8<NT, N>>(x.s[t] + x.spot(first), sum[t]);
#pragma unroll
                for (int g = 0; g < G; g++) {
                        u32 c[RB][4];
                        float s[RB], m[RB];
#pragma unroll
                        for (int r = 0; r < RB; r++)
                                w[r].group(v, g, c[r], s[r], m[r]);
#pragma unroll
                        for (int t = 0; t < NT; t++) {
                                U4 q = (x.q[t] + place)[x.place(W::step(g))];
#pragma unroll
                                for (int r = 0; r < RB; r++) {
                                        i32 p = dp4a(c[r][3], q.w, dp4a(c[r][2], q.z, dp4a(c[r][1], q.y, dp4a(c[r][0], q.x, 0))));
                                        acc[r][t] = fma1((float)p, s[r] * d[t][g], acc[r][t]);
                                        if (W::MIN)
                                                acc[r][t] = fma1(-m[r], sum[t][g], acc[r][t]);
                                }
                        }
                }
        }
        template <class W, int RB, int NT, int N> static INLINE_IN void dot(const W (&w)[RB], u32 v, const ActsF32<NT, N> &x, float (&acc)[RB][NT])
        {
#pragma unroll
                for (int g = 0; g < W::UNIT / 16; g++) {
                        u32 at = W::at(v, g);
#pragma unroll
                        for (int r = 0; r < RB; r++) {
                                u32 c[4];
                                float s, m;
                                w[r].group(v, g, c, s, m);
#pragma unroll
                                for (int i = 0; i < 4; i++)
#pragma unroll
                                        for (int t = 0; t < NT; t++) {
                                                F4 f = x.f[t][4 * at + i];
                                                acc[r][t] = fma1(s * (float)(i8)(c[i]) - m, f.x, acc[r][t]);
                                                acc[r][t] = fma1(s * (float)(i8)(c[i] >> 8) - m, f.y, acc[r][t]);
                                                acc[r][t] = fma1(s * (float)(i8)(c[i] >> 16) - m, f.z, acc[r][t]);
                                                acc[r][t] = fma1(s * (float)(i8)(c[i] >> 24) - m, f.w, acc[r][t]);
                                        }
                        }
                }
        }
};
template <> struct Unit<true> {
        // Values that stand alone times rounded ones.
        template <class W, int RB, int NT, int N> static INLINE_IN void dot(const W (&w)[RB], u32 v, const ActsQ8<NT, N> &x, float (&acc)[RB][NT])
        {
#pragma unroll
                for (int i = 0; i < W::UNIT / 4; i++)
#pragma unroll
                        for (int t = 0; t < NT; t++) {
                                u32 at = v * (W::UNIT / 4) + i;
                                u32 q = ((const u32 *)x.q[t])[4 * x.place(at / 4) + at % 4];
                                float d = x.d[t][x.spot(at / 4)];
#pragma unroll
                                for (int r = 0; r < RB; r++)
#pragma unroll
                                        for (int c = 0; c < 4; c++)
                                                acc[r][t] = fma1(w[r].value(4 * i + c), d * (float)(i8)(q >> (8 * c)), acc[r][t]);
                        }
        }
        template <class W, int RB, int NT, int N> static INLINE_IN void dot(const W (&w)[RB], u32 v, const ActsF32<NT, N> &x, float (&acc)[RB][NT])
        {
#pragma unroll
                for (int i = 0; i < W::UNIT / 4; i++)
#pragma unroll
                        for (int t = 0; t < NT; t++) {
                                F4 f = x.f[t][v * (W::UNIT / 4) + i];
#pragma unroll
                                for (int r = 0; r < RB; r++) {
                                        acc[r][t] = fma1(w[r].value(4 * i), f.x, acc[r][t]);
                                        acc[r][t] = fma1(w[r].value(4 * i + 1), f.y, acc[r][t]);
                                        acc[r][t] = fma1(w[r].value(4 * i + 2), f.z, acc[r][t]);
                                        acc[r][t] = fma1(w[r].value(4 * i + 3), f.w, acc[r][t]);
                                }
                        }
        }
};

// Units of a row, and a row's values filled up to whole units.
template <class W, int K> struct Row {
        enum { UNITS = (K + W::UNIT - 1) / W::UNIT, PAD = UNITS * W::UNIT, BYTES = W::template At<K>::ROW };
};

// RB rows from `row` on, of which `rows` exist (more are read as the last), times NT tokens: acc[r][t] += the units of the chunk
// [from, from + N) of S rows' worth of values (slot s of S at base[s]); D units of each row in flight. by[s] scales slot s.
// first: the units are already loaded.
template <class W, int K, int RB, int D> struct Flight {
        typedef Row<W, K> R;
        W w[D][RB];
        INLINE_IN void load(const u8 *base, int row, int rows, int unit, int end)
        {
#pragma unroll
                for (int d = 0; d < D; d++) {
                        int u = unit + 32 * d + TID % 32;
#pragma unroll
                        for (int r = 0; r < RB; r++)
                                if (u < end)
                                        w[d][r].template load<K>(base + (u64)(row + r < rows ? row + r : rows - 1) * R::BYTES, u);
                }
        }
        // from: the chunk's first unit
        template <int NT, int N, template <int, int> class X> INLINE_IN void dot(int unit, int end, int from, const X<NT, N> &x, float (&acc)[RB][NT]) const
        {
#pragma unroll
                for (int d = 0; d < D; d++) {
                        int u = unit + 32 * d + TID % 32;
                        if (u < end)
                                Unit<(bool)W::FLOAT>::dot(w[d], u - from, x, acc);
                }
        }
};
// Whole chunks of one row's values; `ready`: f holds the first units.
template <class W, int K, int RB, int D, int NT, int N, template <int, int> class X>
INLINE void product(Flight<W, K, RB, D> &f, bool ready, const u8 *base, int row, int rows, int from, const X<NT, N> &x, float (&acc)[RB][NT])
{
        enum { UNITS = Row<W, K>::UNITS, STEP = 32 * D };
        int first = from / W::UNIT, end = first + N / W::UNIT < UNITS ? first + N / W::UNIT : UNITS;
#pragma unroll 1
        for (int u = first; u < end; u += STEP) {
                if (!ready || u != first)
                        f.load(base, row, rows, u, end);
                f.dot(u, end, first, x, acc);
        }
}
// Sums over the warp: lane l has that of row l / LANES / NT, token l / LANES % NT, for NP = RB * NT filled up to a power of two.
template <int RB, int NT> struct Sums {
        enum { N = RB * NT, P = N <= 1 ? 1 : N <= 2 ? 2 : N <= 4 ? 4 : N <= 8 ? 8 : N <= 16 ? 16 : 32, LANES = 32 / P };
        static INLINE_IN float of(const float (&acc)[RB][NT])
        {
                float v[P];
                for (int i = 0; i < P; i++)
                        v[i] = i < N ? acc[i < N ? i / NT : 0][i % NT] : 0;
                return warp_sums(v);
        }
        static INLINE_IN int row() { return TID % 32 / LANES / NT; }
        static INLINE_IN int token() { return TID % 32 / LANES % NT; }
        static INLINE_IN bool mine() { return TID % 32 % LANES == 0 && TID % 32 / LANES < N; }
};

// 1 / sqrt(mean(x^2) + eps), in double, as eval has it; by the whole block.
INLINE double norm_of(const float *x, int n, double eps, double *at)
{
        double s = 0;
        for (int i = TID; i < n; i += THREADS)
                s += (double)x[i] * (double)x[i];
        return 1.0 / sqrt_f64(block_sum(s, at) / n + eps);
}
INLINE float normed(float x, double r, float w) { return (float)((double)x * r * (double)w); }

// Positions from .. from + N of a token's activations, by the whole block, between barriers of the caller. S parts of K values,
// each filled up to PAD with zeros. f32 x, perhaps normed (w; r = norm_of it).
template <int K, int PAD, int S> INLINE float value_at(const float *x, int p, const float *w, double r)
{
        int k = p % PAD, i = p / PAD * K + k;
        if (p >= S * PAD || k >= K)
                return 0;
        return w ? normed(x[i], r, w[k]) : x[i];
}
template <int K, int PAD, int S, int NT, int N> INLINE void fill(ActsQ8<NT, N> &a, int t, const float *x, int from, const float *w, double r)
{
#pragma unroll 4
        for (int j = 0; j < (N / 4 + THREADS - 1) / THREADS; j++) {
                int i = j * THREADS + TID;
                float v[4], d, s;
                for (int c = 0; c < 4; c++)
                        v[c] = i < N / 4 ? value_at<K, PAD, S>(x, from + 4 * i + c, w, r) : 0;
                u32 q = quantize4(v, d, s);
                if (i < N / 4) {
                        ((u32 *)a.q[t])[4 * a.place(i / 4) + i % 4] = q;
                        if (i % 4 == 0)
                                a.d[t][a.spot(i / 4)] = d, a.s[t][a.spot(i / 4)] = s;
                }
        }
}
template <int K, int PAD, int S, int NT, int N> INLINE void fill(ActsF32<NT, N> &a, int t, const float *x, int from, const float *w, double r)
{
        for (int i = TID; i < N; i += THREADS)
                ((float *)a.f[t])[i] = value_at<K, PAD, S>(x, from + i, w, r);
}
// From a q8 value of `rows` rows of K: all codes, then all scales, then all sums. x: its row.
template <int K, int NT, int N> INLINE void copy(ActsQ8<NT, N> &a, int t, const void *x, u32 rows, u32 row, int from)
{
        const u8 *q = (const u8 *)x + (u64)row * K;
        const float *d = (const float *)((const u8 *)x + (u64)rows * K) + (u64)row * (K / 16), *s = d + (u64)rows * (K / 16);
        for (int i = TID; i < N / 16; i += THREADS) {
                bool in = from + 16 * i < K;
                U4 none = {0, 0, 0, 0};
                a.q[t][a.place(i)] = in ? *(const U4 *)(q + from + 16 * i) : none;
                a.d[t][a.spot(i)] = in ? d[from / 16 + i] : 0;
                a.s[t][a.spot(i)] = in ? s[from / 16 + i] : 0;
        }
}
template <int NT, int N> INLINE void clear(ActsQ8<NT, N> &a, int t)
{
        for (int i = TID; i < N / 16; i += THREADS) {
                U4 none = {0, 0, 0, 0};
                a.q[t][i] = none, a.d[t][i] = 0, a.s[t][i] = 0;
        }
}
template <int NT, int N> INLINE void clear(ActsF32<NT, N> &a, int t)
{
        for (int i = TID; i < N; i += THREADS)
                ((float *)a.f[t])[i] = 0;
}
// Usage: moe_made: 1 if this kernel makes its activations of an f32 x; else x is q8.
m4_define(«moe_made», «moe_if(MOE_TYPE_x, q8, 0, 1)»)m4_dnl
