// Products of up to NT tokens with weights on their way through shared memory: each warp fetches whole rows of its own, as early as
// it knows which, and reads them there, so that neither registers nor other warps wait for memory. After product.m4, before any
// fragment.
enum { NT = MOE_NT };
// Usage: moe_tokens: how many tokens the step has.
m4_define(«moe_tokens», «m4_ifelse(MOE_NT, 1, 1, «(int)m4_ifdef(«MOE_ROWS», «moe_rows», «a.dim->n_tok»)»)»)m4_dnl
#undef W16
#undef K16
#undef W4
#undef W2
#undef W1
#define W16(p) (*(const U4 *)(p))
#define K16(p) W16(p)
#define W4(p) (*(const u32 *)(p))
#define W2(p) ((u32)*(const u16 *)(p))
#define W1(p) ((u32)*(const u8 *)(p))

// K filled up to whole blocks of any type.
#define WHOLE(k) (((k) + 255) / 256 * 256)

// Stages of a ring: no more than it has steps or than a warp has lanes, each of which begins one.
#define STAGES_OF(fit, steps) ((fit) < 1 ? 1 : (fit) > 32 && (steps) > 32 ? 32 : (fit) < (steps) ? (fit) : (steps))

// Whole turns of a warp over n units, without a question where none is needed.
#define EACH_UNIT(u, n) for (u32 u = (u32)TID % 32; u < (n) / 32 * 32 || ((n) % 32 && u < (n)); u += 32)

// What a warp has of RB rows times M tokens: after of(), a lane that is mine() has row row(), token token().
template <int RB, int M> struct Totals {
        typedef Sums<RB, M> S;
        float acc[RB][M] = {};
        INLINE_IN void add(int r, const float (&sum)[M])
        {
#pragma unroll
                for (int i = 0; i < RB; i++)
#pragma unroll
                        for (int t = 0; t < M; t++)
                                acc[i][t] = i == r ? acc[i][t] + sum[t] : acc[i][t];
        }
        INLINE_IN float of() const { return S::of(acc); }
        static INLINE_IN int row() { return S::row(); }
        static INLINE_IN int token() { return S::token(); }
        static INLINE_IN bool mine() { return S::mine(); }
};

// N rows that lie `apart` bytes apart times the activations of n tokens, up to M. One row's code for all rows: a
// step of one token runs each instruction once or twice, so that the time to fetch it counts. Several tokens' code is one row's as
// often as there may be tokens, of which the compiler keeps one unpacking.
template <class W, int K, int N, class X, int M, class To> INLINE void product_here(const u8 *rows, int apart, const X (&x)[M], int n, To &to)
{
        enum { UNITS = Row<W, K>::UNITS };
#pragma unroll 1
        for (int r = 0; r < N; r++) {
                float sum[M][1][1] = {}, each[M];
#pragma unroll 1
                EACH_UNIT(u, UNITS) {
                        W w[1];
                        w[0].template load<K>(rows + r * apart, u);
#pragma unroll
                        for (int t = 0; t < M; t++)
                                if (t == 0 || t < n)
                                        Unit<(bool)W::FLOAT>::dot(w, u, x[t], sum[t]);
                }
#pragma unroll
                for (int t = 0; t < M; t++)
                        each[t] = sum[t][0][0];
                to.add(r, each);
        }
}

// Two rows times one token's activations; of one type: units of both at a time.
template <class A, class B, int K, class X> struct Rows2 {
        static INLINE_IN void times(const u8 *first, const u8 *second, const X &x, float (&sum)[2])
        {
                float acc[2][1][1] = {};
#pragma unroll 1
                EACH_UNIT(u, (Row<A, K>::UNITS)) {
                        A w[1];
                        w[0].template load<K>(first, u);
                        Unit<(bool)A::FLOAT>::dot(w, u, x, acc[0]);
                }
#pragma unroll 1
                EACH_UNIT(u, (Row<B, K>::UNITS)) {
                        B w[1];
                        w[0].template load<K>(second, u);
                        Unit<(bool)B::FLOAT>::dot(w, u, x, acc[1]);
                }
                sum[0] = acc[0][0][0], sum[1] = acc[1][0][0];
        }
};
template <class W, int K, class X> struct Rows2<W, W, K, X> {
        static INLINE_IN void times(const u8 *first, const u8 *second, const X &x, float (&sum)[2])
        {
                float acc[2][1] = {};
#pragma unroll 1
                EACH_UNIT(u, (Row<W, K>::UNITS)) {
                        W w[2];
                        w[0].template load<K>(first, u);
                        w[1].template load<K>(second, u);
                        Unit<(bool)W::FLOAT>::dot(w, u, x, acc);
                }
                sum[0] = acc[0][0], sum[1] = acc[1][0];
        }
};

// The activations of one token, K values filled up to N with zeros. With a norm (its weights: ahead of the wait) they are made of
// x * weight, before 1 / rms is known; products are multiplied by that after. Whoever calls meets a barrier behind fill.
template <int K, int N> struct Maker {
        enum { J = (N / 4 + THREADS - 1) / THREADS };
        F4 w[J], x[J];
        static INLINE_IN F4 four(const float *p, int i)
        {
                F4 f = {0, 0, 0, 0};
                if (K % 4 == 0 && i < K)
                        f = *(const F4 *)(p + i);
                else if (K % 4) {
                        f.x = i < K ? p[i] : 0, f.y = i + 1 < K ? p[i + 1] : 0;
                        f.z = i + 2 < K ? p[i + 2] : 0, f.w = i + 3 < K ? p[i + 3] : 0;
                }
                return f;
        }
        INLINE_IN void weights(const float *p)
        {
                for (int j = 0; j < J; j++)
                        w[j] = four(p, 4 * (j * THREADS + TID));
        }
        INLINE_IN void values(const float *p)
        {
                for (int j = 0; j < J; j++)
                        x[j] = four(p, 4 * (j * THREADS + TID));
        }
        template <bool NORM> INLINE_IN void product_of(int j, float (&v)[4]) const
        {
                v[0] = NORM ? mul1(x[j].x, w[j].x) : x[j].x, v[1] = NORM ? mul1(x[j].y, w[j].y) : x[j].y;
                v[2] = NORM ? mul1(x[j].z, w[j].z) : x[j].z, v[3] = NORM ? mul1(x[j].w, w[j].w) : x[j].w;
        }
        template <bool NORM> INLINE_IN void fill(ActsQ8<1, N> &a) const
        {
#pragma unroll
                for (int j = 0; j < J; j++) {
                        int i = j * THREADS + TID;
                        float v[4], d, s;
                        product_of<NORM>(j, v);
                        u32 q = quantize4(v, d, s);
                        if (N / 4 % THREADS == 0 || i < N / 4) {
                                ((u32 *)a.q[0])[4 * a.place(i / 4) + i % 4] = q;
                                if (i % 4 == 0)
                                        a.d[0][a.spot(i / 4)] = d, a.s[0][a.spot(i / 4)] = s;
                        }
                }
        }
        template <bool NORM> INLINE_IN void fill(ActsF32<1, N> &a) const
        {
#pragma unroll
                for (int j = 0; j < J; j++) {
                        int i = j * THREADS + TID;
                        float v[4];
                        product_of<NORM>(j, v);
                        F4 f = {v[0], v[1], v[2], v[3]};
                        if (N / 4 % THREADS == 0 || i < N / 4)
                                a.f[0][i] = f;
                }
        }
        // x (times the weights) times r, to row `row` of a q8 value of `rows` rows of K.
        template <bool NORM> INLINE_IN void put(void *to, u32 rows, u32 row, float r) const
        {
                u8 *q = (u8 *)to + (u64)row * K;
                float *d = (float *)((u8 *)to + (u64)rows * K) + (u64)row * (K / 16), *s = d + (u64)rows * (K / 16);
#pragma unroll
                for (int j = 0; j < J; j++) {
                        int i = j * THREADS + TID;
                        float v[4], scale, sum;
                        product_of<NORM>(j, v);
                        for (int c = 0; c < 4; c++)
                                v[c] *= r;
                        u32 code = quantize4(v, scale, sum);
                        if (i < K / 4) {
                                ((u32 *)q)[i] = code;
                                if (i % 4 == 0)
                                        d[i / 4] = scale, s[i / 4] = sum;
                        }
                }
        }
        // Those of n tokens, whose rows row(t) gives: AT of them on their way at a time, one's code for all.
        enum { ROOM = J > 4 ? 1 : J > 2 ? 2 : J > 1 ? 4 : 8, AT = NT < ROOM ? NT : ROOM };
        F4 next[AT][J];
        template <class Of> INLINE_IN void rows(Of row, int t, int n)
        {
#pragma unroll
                for (int i = 0; i < AT; i++) {
                        const float *p = row(i && t + i >= n ? t : t + i);
#pragma unroll
                        for (int j = 0; j < J; j++)
                                next[i][j] = four(p, 4 * (j * THREADS + TID));
                }
        }
        // rows(row, 0, n) comes before.
        template <bool NORM, class Of, class Acts, int MOST> INLINE_IN void all(Of row, int n, Acts (&acts)[MOST], float (&part)[MOST][WARPS])
        {
#pragma unroll 1
                for (int t = 0; t < n; t++) {
                        if (AT < MOST && t && t % AT == 0)
                                rows(row, t, n);
#pragma unroll
                        for (int j = 0; j < J; j++) {
                                x[j] = next[0][j];
#pragma unroll
                                for (int i = 0; i + 1 < AT; i++)
                                        next[i][j] = next[i + 1][j];
                        }
                        fill<NORM>(acts[t]);
                        if (NORM)
                                squares(part[t]);
                }
        }
        // Each warp's part of the sum of x^2.
        INLINE_IN void squares(float (&part)[WARPS]) const
        {
                float s = 0;
                for (int j = 0; j < J; j++)
                        s = fma1(x[j].w, x[j].w, fma1(x[j].z, x[j].z, fma1(x[j].y, x[j].y, fma1(x[j].x, x[j].x, s))));
                s = warp_sum(s);
                if (TID % 32 == 0)
                        part[TID / 32] = s;
        }
};
// 1 / sqrt(mean(x^2) + eps), of the warps' parts.
template <int PARTS> INLINE float rms_of(const float (&part)[PARTS], int n, float eps)
{
        float s[PARTS];
#pragma unroll
        for (int i = 0; i < PARTS; i++)
                s[i] = part[i];
        return rsqrt_f32(tree_sum(s) / (float)n + eps);
}

// n rows of a q8 value of `all` rows of K, each filled up to N, AT groups of 16 a thread on their way at a time; row(t): which one is the
// t-th.
template <int K, int N> struct Taker {
        enum { EACH = N / 16, MOST = (NT * EACH + THREADS - 1) / THREADS, AT = MOST < 4 ? MOST : 4 };
        U4 code[AT];
        float scale[AT], sum[AT];
        template <class Of> INLINE_IN void load(const void *x, int all, int n, Of row, int from = TID)
        {
                const U4 *q = (const U4 *)x;
                const float *d = (const float *)((const u8 *)x + (u64)(u32)all * K), *s = d + (u64)(u32)all * (K / 16);
#pragma unroll
                for (int i = 0; i < AT; i++) {
                        int j = from + i * THREADS, t = j / EACH, g = j % EACH, at = row(t < n ? t : 0) * (K / 16) + g;
                        bool in = t < n && g < K / 16;
                        code[i] = in ? q[at] : U4{0, 0, 0, 0};
                        scale[i] = in ? d[at] : 0, sum[i] = in ? s[at] : 0;
                }
        }
        template <class Acts> INLINE_IN void put(Acts *acts, int n, int from = TID) const
        {
#pragma unroll
                for (int i = 0; i < AT; i++) {
                        int j = from + i * THREADS, t = j / EACH, g = j % EACH;
                        u32 spot = acts->spot((u32)g);
                        if (t < n)
                                acts[t].q[0][acts->place((u32)g)] = code[i], acts[t].d[0][spot] = scale[i], acts[t].s[0][spot] = sum[i];
                }
        }
        // All of them, of which the first are loaded.
        template <class Acts, class Of> INLINE_IN void all(Acts *acts, const void *x, int rows, int n, Of row)
        {
                put(acts, n);
#pragma unroll 1
                for (int j = TID + AT * THREADS; j < n * EACH; j += AT * THREADS) {
                        load(x, rows, n, row, j);
                        put(acts, n, j);
                }
        }
};
template <int K, int N, class Acts, class Of> INLINE void copy_rows(Acts *acts, const void *x, int all, int n, Of row)
{
        Taker<K, N> t;
        t.load(x, all, n, row);
        t.all(acts, x, all, n, row);
}
