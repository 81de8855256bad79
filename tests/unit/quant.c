/* Weight types, halves and q8 activations. Run from the root of the repository: reads tests/quant. */
#include "ir/quant.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static u32 bits(float f)
{
        u32 b;
        memcpy(&b, &f, 4);
        return b;
}

static float from_bits(u32 b)
{
        float f;
        memcpy(&f, &b, 4);
        return f;
}

static void fixture(void **state)
{
        Wtype t = (Wtype)(size_t)*state;
        const WtypeInfo *w = &wtype_info[t];
        char path[64];
        moec_error e;
        Buf in = {0};
        snprintf(path, sizeof path, "tests/quant/%s.bin", w->name);
        if (file_read(path, &in, 1 << 20, &e) != MOEC_OK)
                fail_msg("%s", e.msg);
        size_t blocks = in.len / (w->bytes + 4 * w->per), n = blocks * w->per;
        assert_true(blocks >= 16);
        assert_int_equal(in.len, blocks * (w->bytes + 4 * w->per));

        /* At an odd address, as in a file, and the whole fixture at once. */
        u8 *src = malloc(1 + blocks * w->bytes);
        float *got = malloc(n * sizeof *got);
        memcpy(src + 1, in.p, blocks * w->bytes);
        dequant(t, src + 1, got, n);
        for (size_t i = 0; i < n; i++) {
                u32 want;
                memcpy(&want, in.p + blocks * w->bytes + 4 * i, 4);
                if (bits(got[i]) != want)
                        fail_msg("%s block %zu value %zu: %a, not %a", w->name, i / w->per, i % w->per,
                                (double)got[i], (double)from_bits(want));
        }
        free(got);
        free(src);
        buf_free(&in);
}

static void part_block(void **state)
{
        (void)state;
        Trap t;
        volatile bool returned = false;
        if (TRAP(&t) == 0) {
                u8 src[256] = {0};
                float dst[256];
                dequant(W_Q4_K, src, dst, 128);
                returned = true;
                trap_pop(&t);
        }
        assert_false(returned);
        assert_non_null(strstr(t.error.msg, "Q4_K"));
}

static void sizes(void **state)
{
        (void)state;
        u64 n = 7;
        assert_true(wtype_bytes(W_Q4_K, 512, &n));
        assert_int_equal(n, 288);
        assert_true(wtype_bytes(W_F32, 3, &n));
        assert_int_equal(n, 12);
        assert_true(wtype_bytes(W_MXFP4, 0, &n));
        assert_int_equal(n, 0);
        n = 7;
        assert_false(wtype_bytes(W_Q4_K, 255, &n));
        assert_false(wtype_bytes(W_Q4_K, 257, &n));
        assert_false(wtype_bytes(W_F32, UINT64_MAX / 4 + 1, &n));
        assert_false(wtype_bytes(W_Q8_0, UINT64_MAX - 31, &n));
        assert_int_equal(n, 7);
        assert_true(wtype_bytes(W_F32, UINT64_MAX / 4, &n));
        assert_int_equal(n, UINT64_MAX - 3);
}

static void names(void **state)
{
        (void)state;
        Wtype t;
        assert_true(wtype_by_id(39, &t) && t == W_MXFP4);
        assert_true(wtype_by_id(0, &t) && t == W_F32);
        assert_false(wtype_by_id(4, &t)); /* withdrawn from GGUF */
        assert_false(wtype_by_id(UINT32_MAX, &t));
        assert_true(wtype_by_name("Q4_K", 4, &t) && t == W_Q4_K);
        assert_true(wtype_by_name("Q4_0..", 4, &t) && t == W_Q4_0);
        assert_false(wtype_by_name("Q4_", 3, &t));
        assert_false(wtype_by_name("", 0, &t));
        assert_false(wtype_by_name("q4_k", 4, &t));
        for (u32 i = 0; i < N_WTYPE; i++) {
                assert_true(wtype_by_name(wtype_info[i].name, strlen(wtype_info[i].name), &t) && t == i);
                assert_true(wtype_by_id(wtype_info[i].id, &t) && t == i);
        }
}

/* ---- halves ---- */

static void half_round_trip(void **state)
{
        (void)state;
        for (u32 h = 0; h < 65536; h++) {
                float f = f16_to_f32((u16)h);
                int e = h >> 10 & 31, m = h & 1023;
                float want = e == 31 ? m ? NAN : INFINITY
                             : e     ? ldexpf((float)(1024 + m), e - 25)
                                     : ldexpf((float)m, -24);
                if (h & 0x8000)
                        want = -want;
                if (isnan(want)) {
                        assert_true(isnan(f));
                        assert_int_equal(f32_to_f16(f), h | 0x200); /* a NaN stays one, made quiet */
                } else {
                        assert_int_equal(bits(f), bits(want));
                        assert_int_equal(f32_to_f16(f), h);
                }
        }
}

/* Between each two neighbouring halves: the middle goes to the even one, a hair to either side to the nearer.
 */
static void half_rounding(void **state)
{
        (void)state;
        for (u32 h = 0; h < 0x7c00; h++) {
                float a = f16_to_f32((u16)h);
                float b = h == 0x7bff ? 65536 : f16_to_f32((u16)(h + 1)); /* what would follow the largest */
                float middle = (float)(((double)a + (double)b) / 2);
                u32 even = h & 1 ? h + 1 : h;
                assert_int_equal(f32_to_f16(middle), even);
                assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
                assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
                assert_int_equal(f32_to_f16(-middle), even | 0x8000);
        }
        assert_int_equal(f32_to_f16(0x1p-149f), 0);
        assert_int_equal(f32_to_f16(-0x1p-149f), 0x8000);
        assert_int_equal(f32_to_f16(3e38f), 0x7c00);
        assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
        assert_int_equal(f32_to_f16(from_bits(0x7f800001)), 0x7e00); /* payload in the lost bits: still NaN */
        assert_int_equal(f32_to_f16(from_bits(0xffffffff)), 0xffff);
}

static void bfloat(void **state)
{
        (void)state;
        for (u32 h = 0; h < 65536; h++)
                assert_int_equal(bits(bf16_to_f32((u16)h)), h << 16);
}

/* ---- q8 ---- */

static void q8_half_to_even(void **state)
{
        (void)state;
        static const struct {
                float x;
                int code;
        } row[] = {{127, 127}, {0.5f, 0}, {1.5f, 2}, {2.5f, 2}, {3.5f, 4}, {-0.5f, 0}, {-1.5f, -2},
                {-2.5f, -2}, {-126.5f, -126}, {126.5f, 126}, {0.49999997f, 0}, {0.50000006f, 1}, {-127, -127},
                {64, 64}, {-0.0f, 0}, {1e-30f, 0}};
        float x[Q8_BLOCK] = {0}, d;
        i8 code[Q8_BLOCK];
        for (size_t i = 0; i < COUNT(row); i++)
                x[i] = row[i].x;
        q8_quantize(x, code, &d, Q8_BLOCK); /* the largest is 127: the scale is 1, codes are x rounded */
        assert_int_equal(bits(d), bits(1));
        for (size_t i = 0; i < Q8_BLOCK; i++)
                assert_int_equal(code[i], i < COUNT(row) ? row[i].code : 0);
}

/* Scaling by a power of two changes the scale alone, over the whole range of normal scales. */
static void q8_scales(void **state)
{
        (void)state;
        float x[Q8_BLOCK], y[Q8_BLOCK], d, dy;
        i8 code[Q8_BLOCK], cy[Q8_BLOCK];
        for (int i = 0; i < Q8_BLOCK; i++)
                x[i] = sinf((float)i * 1.7f) * 1.9f;
        q8_quantize(x, code, &d, Q8_BLOCK);
        for (int p = -118; p <= 126; p++) {
                for (int i = 0; i < Q8_BLOCK; i++)
                        y[i] = ldexpf(x[i], p);
                q8_quantize(y, cy, &dy, Q8_BLOCK);
                assert_memory_equal(code, cy, sizeof code);
                assert_int_equal(bits(dy), bits(ldexpf(d, p)));
        }
}

static void q8_zero_and_tiny(void **state)
{
        (void)state;
        float x[2 * Q8_BLOCK] = {0}, d[2] = {9, 9};
        i8 code[2 * Q8_BLOCK];
        x[3] = 0x1p-126f; /* its scale would be subnormal, and 1 / scale perhaps infinite: taken as zero */
        x[Q8_BLOCK + 1] = -254;
        memset(code, 77, sizeof code);
        q8_quantize(x, code, d, 2 * Q8_BLOCK);
        assert_int_equal(bits(d[0]), 0);
        assert_int_equal(bits(d[1]), bits(2));
        for (int i = 0; i < 2 * Q8_BLOCK; i++)
                assert_int_equal(code[i], i == Q8_BLOCK + 1 ? -127 : 0);
}

static void q8_error_bound(void **state)
{
        (void)state;
        float x[8 * Q8_BLOCK], y[8 * Q8_BLOCK], d[8];
        i8 code[8 * Q8_BLOCK];
        u32 r = 1;
        for (size_t i = 0; i < COUNT(x); i++) {
                r = r * 1664525 + 1013904223;
                y[i] = x[i] = ldexpf((float)(r >> 8) / 0x1p23f - 1, (int)(i / Q8_BLOCK) * 9 - 36);
        }
        q8_quantize(x, code, d, COUNT(x));
        q8_round(y, COUNT(y));
        for (size_t i = 0; i < COUNT(x); i++) {
                float s = d[i / Q8_BLOCK];
                assert_int_equal(bits(y[i]), bits((float)code[i] * s));
                assert_true(fabsf(x[i] - y[i]) <= s * 0.50001f);
        }
}

/* A cache's rows: the values of ggml's blocks of Q8_0 that have the same codes and scale. */
static void q8_0_is_ggmls(void **state)
{
        (void)state;
        enum { BLOCKS = 6, N = BLOCKS * KV_BLOCK };
        float x[N], y[N], want[N];
        u8 file[BLOCKS * 34];
        u32 r = 3;
        for (size_t i = 0; i < N; i++) {
                r = r * 1664525 + 1013904223;
                y[i] = x[i] = i / KV_BLOCK == 4
                                      ? 0
                                      : ldexpf((float)(r >> 8) / 0x1p23f - 1, (int)(i / KV_BLOCK) * 5 - 14);
        }
        for (size_t b = 0; b < BLOCKS; b++) {
                float max = 0;
                for (size_t i = 0; i < KV_BLOCK; i++)
                        max = fmaxf(max, fabsf(x[b * KV_BLOCK + i]));
                float d = max / 127;
                u16 h = f32_to_f16(d);
                memcpy(file + b * 34, &h, 2);
                for (size_t i = 0; i < KV_BLOCK; i++)
                        file[b * 34 + 2 + i] = (u8)(i8)(max > 0 ? rintf(x[b * KV_BLOCK + i] * (1 / d)) : 0);
        }
        dequant(W_Q8_0, file, want, N);
        q8_0_round(y, N);
        assert_memory_equal(y, want, sizeof y);
        assert_memory_not_equal(y, x, sizeof y);
}

static void rows_of_a_cache(void **state)
{
        (void)state;
        assert_int_equal(kv_row_bytes(D_f32, 80), 320);
        assert_int_equal(kv_row_bytes(D_f16, 80), 160);
        assert_int_equal(kv_row_bytes(D_q8_0, 0), 0);
        assert_int_equal(kv_row_bytes(D_q8_0, 32), 48);
        assert_int_equal(kv_row_bytes(D_q8_0, 128), 144);
        assert_int_equal(kv_row_bytes(D_q8_0, 576), 624);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
#define W(name, id, per, bytes, kind, fields)                                                                \
        {"fixture " #name, fixture, NULL, NULL, (void *)(size_t)W_##name},
                WTYPES(W)
#undef W
                        cmocka_unit_test(part_block),
                cmocka_unit_test(sizes), cmocka_unit_test(names), cmocka_unit_test(half_round_trip),
                cmocka_unit_test(half_rounding), cmocka_unit_test(bfloat), cmocka_unit_test(q8_half_to_even),
                cmocka_unit_test(q8_scales), cmocka_unit_test(q8_zero_and_tiny),
                cmocka_unit_test(q8_error_bound), cmocka_unit_test(q8_0_is_ggmls),
                cmocka_unit_test(rows_of_a_cache)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
