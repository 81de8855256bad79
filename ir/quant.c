#include "ir/quant.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum {
#define W(name, id, per, bytes, kind, fields) PER_##name = per, BYTES_##name = bytes,
        WTYPES(W)
#undef W
};

/* A dequantiser reads n blocks at b and writes their values to y. The blocks are little-endian and not
 * aligned. The order of the operations is part of a type's definition: each rounds to f32. */
#define BLOCKS(type) for (; n; n--, b += BYTES_##type, y += PER_##type)

static u16 u16_at(const u8 *p)
{
        return (u16)(p[0] | p[1] << 8);
}
static u32 u32_at(const u8 *p)
{
        return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}
static float f16_at(const u8 *p)
{
        return f16_to_f32(u16_at(p));
}

/* Where nibbles pair values half a group apart: the low nibbles are the first half. */
static int nibble(const u8 *q, int i, int half)
{
        return i < half ? q[i] & 15 : q[i - half] >> 4;
}

static void dequant_F32(const u8 *b, float *y, size_t n)
{
        memcpy(y, b, n * sizeof *y);
}

static void dequant_F16(const u8 *b, float *y, size_t n)
{
        BLOCKS(F16)
        *y = f16_at(b);
}

static void dequant_BF16(const u8 *b, float *y, size_t n)
{
        BLOCKS(BF16)
        *y = bf16_to_f32(u16_at(b));
}

/* ---- blocks of 32: a scale d, perhaps a minimum m, codes ---- */

static void dequant_Q4_0(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q4_0)
        {
                float d = f16_at(b);
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)(nibble(b + 2, i, 16) - 8);
        }
}

static void dequant_Q4_1(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q4_1)
        {
                float d = f16_at(b), m = f16_at(b + 2);
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)nibble(b + 4, i, 16) + m;
        }
}

static void dequant_Q5_0(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q5_0)
        {
                float d = f16_at(b);
                u32 high = u32_at(b + 2);
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)((nibble(b + 6, i, 16) | (int)(high >> i & 1) << 4) - 16);
        }
}

static void dequant_Q5_1(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q5_1)
        {
                float d = f16_at(b), m = f16_at(b + 2);
                u32 high = u32_at(b + 4);
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)(nibble(b + 8, i, 16) | (int)(high >> i & 1) << 4) + m;
        }
}

static void dequant_Q8_0(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q8_0)
        {
                float d = f16_at(b);
                for (int i = 0; i < 32; i++)
                        y[i] = (float)(i8)b[2 + i] * d;
        }
}

/* ---- blocks of 256: scales and minima of 16 or 32 values are themselves quantised ---- */

/* 2-bit codes: 32 bytes hold 128 values, a 32-value group in each pair of bits. */
static int code2(const u8 *q, int i)
{
        return q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}
/* One more bit for each value: bit g of byte j belongs to value j of the 32-value group g. */
static int high1(const u8 *h, int i)
{
        return h[i % 32] >> (i / 32) & 1;
}

static void dequant_Q2_K(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q2_K)
        {
                float d = f16_at(b + 80), dmin = f16_at(b + 82);
                for (int g = 0; g < 16; g++) {
                        float dl = d * (float)(b[g] & 15), ml = dmin * (float)(b[g] >> 4);
                        for (int i = g * 16; i < g * 16 + 16; i++)
                                y[i] = dl * (float)code2(b + 16, i) - ml;
                }
        }
}

static void dequant_Q3_K(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q3_K)
        {
                const u8 *high = b, *q = b + 32, *s = b + 96;
                float d = f16_at(b + 108);
                for (int g = 0; g < 16; g++) {
                        int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
                        int scale = (low | (s[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
                        float dl = d * (float)scale;
                        for (int i = g * 16; i < g * 16 + 16;
                                i++) /* a high bit that is not set subtracts 4 */
                                y[i] = dl * (float)(code2(q, i) - (high1(high, i) ? 0 : 4));
                }
        }
}

/* The 6-bit scale and minimum of group g of 8, from the 12 bytes at s: the first four are whole in the low 6
 * bits; the others have 4 bits in the last four bytes and 2 in the tops of the first eight. */
static void scale_min(const u8 *s, int g, float *scale, float *min)
{
        if (g < 4) {
                *scale = (float)(s[g] & 63);
                *min = (float)(s[g + 4] & 63);
        } else {
                *scale = (float)((s[g + 4] & 15) | s[g - 4] >> 6 << 4);
                *min = (float)(s[g + 4] >> 4 | s[g] >> 6 << 4);
        }
}

static void dequant_Q4_K(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q4_K)
        {
                float d = f16_at(b), dmin = f16_at(b + 2), scale, min;
                for (int g = 0; g < 8; g++) {
                        scale_min(b + 4, g, &scale, &min);
                        float dl = d * scale, ml = dmin * min;
                        const u8 *q = b + 16 + g / 2 * 32;
                        for (int i = 0; i < 32; i++)
                                y[g * 32 + i] = dl * (float)(q[i] >> (g % 2 * 4) & 15) - ml;
                }
        }
}

static void dequant_Q5_K(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q5_K)
        {
                float d = f16_at(b), dmin = f16_at(b + 2), scale, min;
                for (int g = 0; g < 8; g++) {
                        scale_min(b + 4, g, &scale, &min);
                        float dl = d * scale, ml = dmin * min;
                        const u8 *high = b + 16, *q = b + 48 + g / 2 * 32;
                        for (int i = 0; i < 32; i++) {
                                int code = (q[i] >> (g % 2 * 4) & 15) | (high[i] >> g & 1) << 4;
                                y[g * 32 + i] = dl * (float)code - ml;
                        }
                }
        }
}

static void dequant_Q6_K(const u8 *b, float *y, size_t n)
{
        BLOCKS(Q6_K)
        {
                const u8 *low = b, *high = b + 128, *s = b + 192;
                float d = f16_at(b + 208);
                for (int g = 0; g < 16; g++) {
                        float dl = d * (float)(i8)s[g];
                        for (int i = g * 16; i < g * 16 + 16; i++) {
                                int code = nibble(low + i / 128 * 64, i % 128, 64) | code2(high, i) << 4;
                                y[i] = dl * (float)(code - 32);
                        }
                }
        }
}

/* ---- codes that index a table ---- */

static const i8 iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* Twice the values of a 4-bit float, 2 exponent bits and 1 of mantissa; the scale is halved. */
static const i8 e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void dequant_IQ4_NL(const u8 *b, float *y, size_t n)
{
        BLOCKS(IQ4_NL)
        {
                float d = f16_at(b);
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)iq4[nibble(b + 2, i, 16)];
        }
}

static void dequant_IQ4_XS(const u8 *b, float *y, size_t n)
{
        BLOCKS(IQ4_XS)
        {
                float d = f16_at(b);
                u16 high = u16_at(b + 2);
                for (int g = 0; g < 8; g++) {
                        int scale = ((b[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (g * 2) & 3) << 4) - 32;
                        float dl = d * (float)scale;
                        for (int i = 0; i < 32; i++)
                                y[g * 32 + i] = dl * (float)iq4[nibble(b + 8 + g * 16, i, 16)];
                }
        }
}

static void dequant_MXFP4(const u8 *b, float *y, size_t n)
{
        BLOCKS(MXFP4)
        {
                float d = ldexpf(1, b[0] - 128); /* half of 2^(e - 127) */
                for (int i = 0; i < 32; i++)
                        y[i] = d * (float)e2m1[nibble(b + 1, i, 16)];
        }
}

void dequant(Wtype t, const void *src, float *dst, size_t n)
{
        static void (*const of[N_WTYPE])(const u8 *, float *, size_t) = {
#define W(name, id, per, bytes, kind, fields) dequant_##name,
                WTYPES(W)
#undef W
        };
        const WtypeInfo *w = &wtype_info[t];
        if (n % w->per)
                die("dequant: %zu values are not whole blocks of %s", n, w->name);
        of[t](src, dst, n / w->per);
}

bool wtype_bytes(Wtype t, u64 n, u64 *bytes)
{
        const WtypeInfo *w = &wtype_info[t];
        return n % w->per == 0 && mul_u64(n / w->per, w->bytes, bytes);
}

/* ---- activations ---- */

/* One block of n to codes; returns the scale. */
static float q8_block(const float *x, i8 *code, int n)
{
        float max = 0;
        for (int i = 0; i < n; i++)
                max = MAX(max, fabsf(x[i]));
        float d = max / 127;
        if (d < FLT_MIN)
                d = 0;
        float inverse = d > 0 ? 1 / d : 0;
        for (int i = 0; i < n; i++)
                code[i] = (i8)lrintf(x[i] * inverse);
        return d;
}

void q8_quantize(const float *x, i8 *code, float *d, size_t n)
{
        if (n % Q8_BLOCK)
                die("q8: %zu values are not whole blocks", n);
        for (size_t i = 0; i < n; i += Q8_BLOCK)
                d[i / Q8_BLOCK] = q8_block(x + i, code + i, Q8_BLOCK);
}

void q8_round(float *x, size_t n)
{
        if (n % Q8_BLOCK)
                die("q8: %zu values are not whole blocks", n);
        for (size_t i = 0; i < n; i += Q8_BLOCK) {
                i8 code[Q8_BLOCK];
                float d = q8_block(x + i, code, Q8_BLOCK);
                for (int j = 0; j < Q8_BLOCK; j++)
                        x[i + j] = (float)code[j] * d;
        }
}

void q8_0_round(float *x, size_t n)
{
        if (n % KV_BLOCK)
                die("q8_0: %zu values are not whole blocks", n);
        for (size_t i = 0; i < n; i += KV_BLOCK) {
                i8 code[KV_BLOCK];
                float d = f16_to_f32(f32_to_f16(q8_block(x + i, code, KV_BLOCK)));
                for (int j = 0; j < KV_BLOCK; j++)
                        x[i + j] = (float)code[j] * d;
        }
}
