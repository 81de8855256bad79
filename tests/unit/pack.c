/* The repacks: nothing lost, everything where pack.h says. */
#include "runtime/pack.h"
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static u8 *noise(u64 n)
{
        u8 *p = xmalloc(n);
        u64 r = 88172645463325252u;
        for (u64 i = 0; i < n; i++) {
                r ^= r << 13;
                r ^= r >> 7;
                r ^= r << 17;
                p[i] = (u8)(r >> 24 | 1); /* never zero: padding must differ */
        }
        return p;
}

/* Where byte `at` of row r lies in its panel, worked out for each byte alone from the words in pack.h. */
static u64 place(const WtypeInfo *w, u64 r, u64 at)
{
        u64 start = 0, unit;
        if (w->per == 1)
                unit = w->bytes;
        else {
                const Field *f = w->field;
                start = at / w->bytes * w->bytes;
                for (; at >= start + f->bytes; f++)
                        start += f->bytes;
                unit = f->unit;
        }
        u64 in = at - start;
        return PANEL_ROWS * start + (in / unit * PANEL_ROWS + r) * unit + in % unit;
}

/* The inverse; also clears what it has read, so that whatever remains in `panels` came from no row. */
static void unpack(Wtype t, u8 *panels, u8 *dst, u64 rows, u64 cols)
{
        const WtypeInfo *w = &wtype_info[t];
        u64 row = cols / w->per * w->bytes;
        for (u64 r = 0; r < rows; r++)
                for (u64 at = 0; at < row; at++) {
                        u8 *p = panels + r / PANEL_ROWS * PANEL_ROWS * row + place(w, r % PANEL_ROWS, at);
                        dst[r * row + at] = *p;
                        *p = 0;
                }
}

static void round_trip_of(Wtype t, u64 rows, u64 cols)
{
        u64 row = cols / wtype_info[t].per * wtype_info[t].bytes, n = pack_panel_bytes(t, rows, cols);
        assert_int_equal(n, (rows + 7) / 8 * 8 * row);
        u8 *src = noise(rows * row), *back = xmalloc(rows * row), *dst = xmalloc(n + 2);
        memset(dst, 0xa5, n + 2);
        pack_panel(t, src, dst + 1, rows, cols);
        assert_int_equal(dst[0], 0xa5);
        assert_int_equal(dst[n + 1], 0xa5);
        unpack(t, dst + 1, back, rows, cols);
        assert_memory_equal(src, back, rows * row);
        for (u64 i = 0; i < n; i++)
                assert_int_equal(dst[1 + i], 0);
        free(src);
        free(back);
        free(dst);
}

static void round_trip(void **state)
{
        Wtype t = (Wtype)(size_t)*state;
        static const u64 rows[] = {1, 7, 8, 9, 16, 29};
        for (size_t i = 0; i < COUNT(rows); i++)
                for (u64 blocks = 1; blocks <= 5; blocks++)
                        round_trip_of(t, rows[i], blocks * wtype_info[t].per);
}

static void by_hand(void **state)
{
        (void)state;
        u8 src[8 * 17], dst[8 * 17];
        for (int r = 0; r < 8; r++)
                for (int i = 0; i < 17; i++)
                        src[r * 17 + i] = (u8)(r * 16 + (i ? i - 1 : 0));
        pack_panel(W_MXFP4, src, dst, 8, 32);
        for (int r = 0; r < 8; r++) {
                assert_int_equal(dst[r], r * 16); /* the scales, side by side */
                for (int i = 0; i < 16; i++)      /* then 4 bytes of codes of each row */
                        assert_int_equal(dst[8 + i / 4 * 32 + r * 4 + i % 4], r * 16 + i);
        }

        u16 half[16 * 3] = {0}, odd[16 * 3];
        for (int i = 0; i < 16; i++)
                half[i] = (u16)i;
        pack_panel(W_F16, (u8 *)half, (u8 *)odd, 5, 3); /* single values, 3 rows of zeros */
        for (int r = 0; r < 8; r++)
                for (int c = 0; c < 3; c++)
                        assert_int_equal(odd[c * 8 + r], r < 5 ? half[r * 3 + c] : 0);
}

static void parts_make_the_whole(void **state)
{
        (void)state;
        u64 rows = 37, cols = 512, row = 2 * wtype_info[W_Q4_K].bytes,
            n = pack_panel_bytes(W_Q4_K, rows, cols);
        u8 *src = noise(rows * row), *whole = xmalloc(n), *parts = xmalloc(n);
        pack_panel(W_Q4_K, src, whole, rows, cols);
        pack_panel(W_Q4_K, src + 16 * row, parts + 16 * row, rows - 16, cols);
        pack_panel(W_Q4_K, src, parts, 16, cols);
        assert_memory_equal(whole, parts, n);
        free(src);
        free(whole);
        free(parts);
}

/* Each byte of a split row, worked out alone from the words in pack.h; what no byte went to is zero. */
static void split(void **state)
{
        Wtype t = (Wtype)(size_t)*state;
        const WtypeInfo *w = &wtype_info[t];
        u64 rows = 5, cols = 3 * (u64)w->per, row = 3 * w->bytes, out = pack_split_bytes(t, cols), moved = 0;
        u8 *src = noise(rows * row), *dst = noise(rows * out + 1);
        u8 end = dst[rows * out];
        pack_split(t, src, dst, rows, cols);
        assert_int_equal(out % SPLIT_ALIGN, 0);
        for (u64 r = 0; r < rows; r++) {
                u64 plane = 0, in_block = 0;
                for (const Field *f = w->field; f < w->field + MAX_FIELD && f->bytes; f++) {
                        for (u64 b = 0; b < 3; b++)
                                for (u64 i = 0; i < f->bytes; i++, moved++) {
                                        u8 *at = &dst[r * out + plane + b * f->bytes + i];
                                        assert_int_equal(*at, src[r * row + b * w->bytes + in_block + i]);
                                        *at = 0;
                                }
                        plane += (3 * f->bytes + SPLIT_ALIGN - 1) / SPLIT_ALIGN * SPLIT_ALIGN;
                        in_block += f->bytes;
                }
                assert_int_equal(plane, out);
        }
        assert_int_equal(moved, rows * row);
        for (u64 i = 0; i < rows * out; i++)
                assert_int_equal(dst[i], 0);
        assert_int_equal(dst[rows * out], end);
        free(src);
        free(dst);
}

static void sizes(void **state)
{
        (void)state;
        assert_int_equal(pack_panel_bytes(W_Q4_K, 8, 256), 8 * 144);
        assert_int_equal(pack_panel_bytes(W_Q4_K, 1, 512), 8 * 288);
        assert_int_equal(pack_panel_bytes(W_F16, 9, 3), 16 * 6);
        assert_int_equal(pack_panel_bytes(W_Q4_K, 8, 255), 0);
        assert_int_equal(pack_panel_bytes(W_Q8_0, 8, 48), 0);
        assert_int_equal(pack_panel_bytes(W_F32, 1, UINT64_MAX / 4 + 1), 0);
        assert_int_equal(pack_panel_bytes(W_F32, 1, UINT64_MAX / 16), 0); /* the row fits, eight do not */
        assert_int_equal(pack_panel_bytes(W_F32, UINT64_MAX, 1), 0);
        assert_int_equal(pack_panel_bytes(W_F32, 1ull << 33, 1ull << 33), 0);
        assert_int_equal(pack_split_bytes(W_Q4_K, 512), 16 + 16 + 32 + 256);
        assert_int_equal(pack_split_bytes(W_F16, 9), 32);
        assert_int_equal(pack_split_bytes(W_Q4_K, 255), 0);
        assert_int_equal(pack_split_bytes(W_Q4_K, 0), 0);
        assert_int_equal(pack_split_bytes(W_F32, UINT64_MAX / 4 + 1), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
#define W(name, id, per, bytes, kind, fields)                                                                \
        {"round_trip " #name, round_trip, NULL, NULL, (void *)(size_t)W_##name},
                WTYPES(W)
#undef W
#define W(name, id, per, bytes, kind, fields) {"split " #name, split, NULL, NULL, (void *)(size_t)W_##name},
                        WTYPES(W)
#undef W
                                cmocka_unit_test(by_hand),
                cmocka_unit_test(parts_make_the_whole),
                cmocka_unit_test(sizes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
