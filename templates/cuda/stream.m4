// One token's products with weights on their way through shared memory: each warp fetches whole rows of its own, as early as it
// knows which, and reads them there, so that neither registers nor other warps wait for memory. After product.m4, before any
// fragment.
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

// Whole turns of a warp over n units, without a question where none is needed.
#define EACH_UNIT(u, n) for (u32 u = (u32)TID % 32; u < (n) / 32 * 32 || ((n) % 32 && u < (n)); u += 32)

// RB rows that lie `apart` bytes apart: acc[r][0] += row r times x, lane by lane. One row's code for all of them: a step of one
// token runs each instruction once or twice, so that the time to fetch it counts.
template <class W, int K, int RB, class X> INLINE void product_here(const u8 *rows, int apart, const X &x, float (&acc)[RB][1])
{
        enum { UNITS = Row<W, K>::UNITS };
#pragma unroll 1
        for (int r = 0; r < RB; r++) {
                float sum[1][1] = {};
#pragma unroll 1
                EACH_UNIT(u, UNITS) {
                        W w[1];
                        w[0].template load<K>(rows + r * apart, u);
                        Unit<(bool)W::FLOAT>::dot(w, u, x, sum);
                }
#pragma unroll
                for (int i = 0; i < RB; i++)
                        acc[i][0] = i == r ? acc[i][0] + sum[0][0] : acc[i][0];
        }
}

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
                                        a.d[0][a.place(i / 4)] = d, a.s[0][a.place(i / 4)] = s;
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
INLINE float rms_of(const float (&part)[WARPS], int n, float eps)
{
        float s[WARPS];
#pragma unroll
        for (int i = 0; i < WARPS; i++)
                s[i] = part[i];
#pragma unroll
        for (int m = 1; m < WARPS; m *= 2)
#pragma unroll
                for (int i = 0; i + m < WARPS; i += 2 * m)
                        s[i] += s[i + m];
        return rsqrt_f32(s[0] / (float)n + eps);
}
