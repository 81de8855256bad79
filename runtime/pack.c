#include "runtime/pack.h"
#include <string.h>

#define INLINE static inline __attribute__((always_inline)) /* so that unit and rows become constants */

static bool row_bytes(const WtypeInfo *w, u64 cols, u64 *bytes)
{
        return cols % w->per == 0 && mul_u64(cols / w->per, w->bytes, bytes);
}

u64 pack_panel_bytes(Wtype t, u64 rows, u64 cols)
{
        u64 row, padded, bytes;
        if (!row_bytes(&wtype_info[t], cols, &row) || !align_u64(rows, PANEL_ROWS, &padded) ||
                !mul_u64(row, padded, &bytes))
                return 0;
        return bytes;
}

/* n units of each row, from src and every `stride` behind it. */
INLINE void weave(u8 *dst, const u8 *src, u64 stride, u64 n, u64 rows, u64 unit)
{
        for (u64 i = 0; i < n; i++)
                for (u64 r = 0; r < rows; r++)
                        memcpy(dst + (i * PANEL_ROWS + r) * unit, src + r * stride + i * unit, unit);
}

#define F(bytes, unit)                        &&((unit) == 1 || (unit) == 2 || (unit) == 4)
#define W(name, id, per, bytes, kind, fields) _Static_assert(1 fields, #name ": weave_field lacks a unit");
WTYPES(W)
#undef F
#undef W

INLINE void weave_field(u8 *dst, const u8 *src, u64 stride, u64 bytes, u64 unit, u64 rows)
{
        if (unit == 4)
                weave(dst, src, stride, bytes / 4, rows, 4);
        else if (unit == 2)
                weave(dst, src, stride, bytes / 2, rows, 2);
        else
                weave(dst, src, stride, bytes, rows, 1);
}

INLINE void pack_group(const WtypeInfo *w, const u8 *src, u8 *dst, u64 row, u64 rows)
{
        if (w->per == 1) {
                weave_field(dst, src, row, row, w->bytes, rows);
                return;
        }
        for (const u8 *end = src + row; src < end;)
                for (const Field *f = w->field; f->bytes; f++) {
                        weave_field(dst, src, row, f->bytes, f->unit, rows);
                        src += f->bytes;
                        dst += PANEL_ROWS * f->bytes;
                }
}

void pack_panel(Wtype t, const u8 *src, u8 *dst, u64 rows, u64 cols)
{
        const WtypeInfo *w = &wtype_info[t];
        u64 row = cols / w->per * w->bytes;
        for (; rows >= PANEL_ROWS; rows -= PANEL_ROWS, src += PANEL_ROWS * row, dst += PANEL_ROWS * row)
                pack_group(w, src, dst, row, PANEL_ROWS);
        if (rows) {
                memset(dst, 0, PANEL_ROWS * row);
                pack_group(w, src, dst, row, rows);
        }
}

/* ---- split rows ---- */

u64 pack_split_bytes(Wtype t, u64 cols)
{
        const WtypeInfo *w = &wtype_info[t];
        u64 sum = 0, plane;
        if (cols == 0 || cols % w->per)
                return 0;
        for (const Field *f = w->field; f < w->field + MAX_FIELD && f->bytes; f++)
                if (!mul_u64(cols / w->per, f->bytes, &plane) || !align_u64(plane, SPLIT_ALIGN, &plane) ||
                        !add_u64(sum, plane, &sum))
                        return 0;
        return sum;
}

INLINE void gather(u8 *dst, const u8 *src, u64 blocks, u64 stride, u64 bytes)
{
        for (u64 b = 0; b < blocks; b++)
                memcpy(dst + b * bytes, src + b * stride, bytes);
}

/* The plane of one field. Sizes that occur are constants, so that each copy is a few moves. */
static void split_field(u8 *dst, const u8 *src, u64 blocks, u64 stride, u64 bytes)
{
        /* clang-format off */
        switch (bytes) {
#define CASE(n) case n: gather(dst, src, blocks, stride, n); break;
        CASE(1) CASE(2) CASE(4) CASE(12) CASE(16) CASE(32) CASE(64) CASE(128)
#undef CASE
        default: gather(dst, src, blocks, stride, bytes);
        }
        /* clang-format on */
}

void pack_split(Wtype t, const u8 *src, u8 *dst, u64 rows, u64 cols)
{
        const WtypeInfo *w = &wtype_info[t];
        u64 blocks = cols / w->per;
        for (; rows; rows--, src += blocks * w->bytes) {
                const u8 *from = src;
                for (const Field *f = w->field; f < w->field + MAX_FIELD && f->bytes; from += f->bytes, f++) {
                        u64 n = blocks * f->bytes, pad = (SPLIT_ALIGN - n % SPLIT_ALIGN) % SPLIT_ALIGN;
                        if (w->per == 1)
                                memcpy(dst, from, n);
                        else
                                split_field(dst, from, blocks, w->bytes, f->bytes);
                        memset(dst + n, 0, pad);
                        dst += n + pad;
                }
        }
}
