// Products of panels of 8 rows with activations: acc[t] lane r += row r of the panel times token t, for nt <= NT tokens.
// Calls with a constant nt compile to straight code. The order of summation depends on nothing but the type.
#ifndef NT
#define NT MOE_NT
#endif

// Activations of nt tokens. q8: codes, for each 16 a scale and scale times the sum of its codes. f32: values.
typedef struct {
        const i8 *q[NT];
        const float *d[NT], *s[NT];
        const float *f[NT];
} Acts;

// n values to q8 as ir/quant.h defines it: scale = max |x| / 127, code = round to nearest even of x * (1 / scale).
INLINE void quantize(const float *x, int n, i8 *q, float *d, float *s)
{
        for (int b = 0; b < n / 16; b++) {
                f32x8 v = load_f32(x + 16 * b), w = load_f32(x + 16 * b + 8);
                float top = hmax8(max8(abs8(v), abs8(w))) / 127.0f, scale = top < 0x1p-126f ? 0 : top, inv = scale != 0 ? 1.0f / scale : 0;
                i32x8 c = (i32x8)(v * inv + 12582912.0f) - 0x4b400000, e = (i32x8)(w * inv + 12582912.0f) - 0x4b400000;
                store_codes(q + 16 * b, c, e);
                c += e;
                d[b] = scale;
                s[b] = scale * (float)(c[0] + c[1] + c[2] + c[3] + c[4] + c[5] + c[6] + c[7]);
        }
}

// x / sqrt(mean(x^2) + eps) * w, in double and rounded once, as eval has it: the codes made of it are then eval's too.
typedef double f64x8 __attribute__((vector_size(64)));
INLINE void norm_row(const float *x, const float *w, int n, float eps, float *out)
{
        f64x8 a = {0};
        double sum = 0;
        int i = 0;
        for (; i + 8 <= n; i += 8) {
                f64x8 v = __builtin_convertvector(load_f32(x + i), f64x8);
                a += v * v;
        }
        for (int l = 0; l < 8; l++)
                sum += a[l];
        for (; i < n; i++)
                sum += (double)x[i] * (double)x[i];
        double r = 1.0 / __builtin_sqrt(sum / n + (double)eps);
        for (i = 0; i + 8 <= n; i += 8) {
                f64x8 v = __builtin_convertvector(load_f32(x + i), f64x8), u = __builtin_convertvector(load_f32(w + i), f64x8);
                store_f32(out + i, __builtin_convertvector(v * r * u, f32x8));
        }
        for (; i < n; i++)
                out[i] = (float)((double)x[i] * r * (double)w[i]);
}

// A single token's weights come from memory, and prefetchers stop at pages: the lines 4 KiB on, while these are at work.
INLINE void fetch_ahead(const u8 *p, int n, int nt)
{
        if (nt == 1)
                for (int i = 0; i < n; i += 64)
                        __builtin_prefetch(p + 4096 + i);
}

// Usage: moe_product(TYPE): defines product_TYPE(panel, K, acts, nt, acc), for the activations of this kernel (MOE_act); nt is 1
// or NT. Each of the two is compiled once a kernel: inlining them at every call took the compiler 15 s.
m4_define(«moe_product», «moe_arity(«moe_product», 1, $#)m4_ifdef(«moe_product_$1», «», «m4_define(«moe_product_$1»)moe_quant($1)
INLINE void body_$1(const u8 *p, int K, const Acts *x, int nt, f32x8 *out)
{
        f32x8 acc[NT];
        for (int t = 0; t < nt; t++)
                acc[t] = out[t];
m4_ifelse(moe_float($1), 1, «        for (int k = 0; k < K; k++)
                for (int t = 0; t < nt; t++)
                        acc[t] = fma8(value_$1(p, k), splat(moe_if(MOE_act, q8, «(float)x->q[t][k] * x->d[t][k / 16]», «x->f[t][k]»)), acc[t]);
», MOE_act, q8, «        for (int b = 0; b < K / BLOCK_$1; b++, p += 8 * BYTES_$1) {
                fetch_ahead(p, 8 * BYTES_$1, nt);
#pragma GCC unroll 8
                for (int j = 0; j < BLOCK_$1 / 32; j++)
#pragma GCC unroll 2
                        for (int h = 0; h < 2; h++) {
                                int i = 2 * (b * (BLOCK_$1 / 32) + j) + h;
                                f32x8 s, m;
                                Acc a[NT] = {0};
                                i32x8 d[NT] = {0};
                                scales_$1(p, j, h, &s, &m);
#pragma GCC unroll 4
                                for (int g = 0; g < 4; g++) {
                                        u32x8 w = codes_$1(p, j, 4 * h + g);
#pragma GCC unroll 16
                                        for (int t = 0; t < nt; t++) {
                                                u32 v = load4(x->q[t] + 16 * i + 4 * g);
                                                a[t] = SIGNED_$1 ? acc_dot_signed(a[t], w, v) : acc_dot(a[t], w, v);
                                                if ((g + 1) % FLUSH(FLUSH_$1) == 0 || g == 3) {
                                                        d[t] += acc_sum(a[t]);
                                                        a[t] = (Acc){0};
                                                }
                                        }
                                }
#pragma GCC unroll 16
                                for (int t = 0; t < nt; t++) {
                                        if (ZERO_$1) {
                                                f32x8 v = fma8(f32(d[t]), splat(x->d[t][i]), splat(-(float)ZERO_$1 * x->s[t][i]));
                                                acc[t] = fma8(s, v, acc[t]);
                                                continue;
                                        }
                                        acc[t] = fma8(f32(d[t]), s * x->d[t][i], acc[t]);
                                        if (MIN_$1 && GROUP_$1 == 16)
                                                acc[t] = fma8(-m, splat(x->s[t][i]), acc[t]);
                                        else if (MIN_$1 && h)
                                                acc[t] = fma8(-m, splat(x->s[t][i - 1] + x->s[t][i]), acc[t]);
                                }
                        }
        }
», «        for (int b = 0; b < K / BLOCK_$1; b++, p += 8 * BYTES_$1)
#pragma GCC unroll 8
                for (int j = 0; j < BLOCK_$1 / 32; j++)
                        for (int g = 0; g < 8; g++) {
                                f32x8 s, m;
                                u32x8 w = codes_$1(p, j, g);
                                scales_$1(p, j, g / (GROUP_$1 / 4), &s, &m);
                                for (int c = 0; c < 4; c++) {
                                        i32x8 q = SIGNED_$1 ? (i32x8)(w << (24 - 8 * c)) >> 24 : (i32x8)(w >> (8 * c) & 255);
                                        f32x8 v = s * (f32(q) - (float)ZERO_$1) - m;
                                        for (int t = 0; t < nt; t++)
                                                acc[t] = fma8(v, splat(x->f[t][b * BLOCK_$1 + 32 * j + 4 * g + c]), acc[t]);
                                }
                        }
»)        for (int t = 0; t < nt; t++)
                out[t] = acc[t];
}
static __attribute__((noinline)) void one_$1(const u8 *p, int K, const Acts *x, f32x8 *acc) { body_$1(p, K, x, 1, acc); }
m4_ifelse(MOE_NT, 1, «», «static __attribute__((noinline)) void many_$1(const u8 *p, int K, const Acts *x, f32x8 *acc) { body_$1(p, K, x, NT, acc); }
»)INLINE void product_$1(const u8 *p, int K, const Acts *x, int nt, f32x8 *acc)
{
        m4_ifelse(MOE_NT, 1, «(void)nt;», «if (nt == NT)
                many_$1(p, K, x, acc);
        else»)
                one_$1(p, K, x, acc);
}
INLINE u64 panel_$1(u64 rows, u64 K)
{
        return (rows + 7) / 8 * 8 * K * BYTES_$1 / m4_ifelse(moe_float($1), 1, «1», «BLOCK_$1»);
}
»)»)

// Usage: moe_float(TYPE): 1 for a type whose values stand alone.
m4_define(«moe_float», «moe_arity(«moe_float», 1, $#)m4_ifelse($1, F32, 1, $1, F16, 1, $1, BF16, 1, 0)»)

// The activations of rows r .. r + nt - 1 of operand x, as this kernel takes them.
m4_define(«moe_acts_f32», «
INLINE void acts(Acts *a, int t, const void *x, u32 rows, u32 r, int K)
{
        (void)rows;
        a->f[t] = (const float *)x + (u64)r * K;
}
»)
m4_define(«moe_acts_q8», «
// A q8 value of `rows` rows: all codes, then all scales, then all sums.
INLINE void acts(Acts *a, int t, const void *x, u32 rows, u32 r, int K)
{
        const i8 *q = x;
        const float *d = (const float *)(q + (u64)rows * K), *s = d + (u64)rows * (K / 16);
        a->q[t] = q + (u64)r * K;
        a->d[t] = d + (u64)r * (K / 16);
        a->s[t] = s + (u64)r * (K / 16);
}
»)
// One token's activations made by this kernel: x, normed if it has a norm, rounded if its products take q8.
#define MADE(K) struct { i8 q[K]; float d[(K) / 16 + 1], s[(K) / 16 + 1], f[K]; }

// A lane for each row: the last panel may have fewer than 8.
INLINE void store_rows(float *out, f32x8 v, int rows)
{
        if (rows >= 8)
                store_f32(out, v);
        else
                for (int i = 0; i < rows; i++)
                        out[i] = v[i];
}
INLINE f32x8 load_rows(const float *p, int rows)
{
        f32x8 v = splat(0);
        if (rows >= 8)
                return load_f32(p);
        for (int i = 0; i < rows; i++)
                v[i] = p[i];
        return v;
}
