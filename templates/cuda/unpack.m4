// What the fragments in quant/ are made of. A fragment is a struct of the type's name: what a lane holds of UNIT values of a row,
// 16 bytes of their codes and what scales them.
//   FLOAT      1: values stand alone: value(i). 0: codes in groups of 16 values
//   At<K>      where the planes of a row of K values begin in the layout `split`; ROW: bytes of a row
//   wide<K>    unit u of a row, what comes in loads of 16 bytes; small<K>: all else of it; load<K>: both
//   PLANES     of At<K>: the planes of wide loads lie together, from WIDE and from HIGH on (one plane: HIGH is WIDE_END), each with as
//              many bytes for any 256 values; those of small loads from SMALL to SMALL_END, or apart (both 0)
//   GROUPS     at(u, g): which group of 16 of the row group g of unit u is: first(u) + step(g); what each of these leaves of 4 comes to
//              less than 4 together, so that where a group lies is a sum, too (product.m4)
//   group      its codes as 4 words of 4 signed bytes, s and m: value = s * code - m; MIN 0: m is 0
//   CENTRE     of the codes, by 128 where they are signed (MIN 0): m is near s * CENTRE
//   LEVELS     2: a block's values are d times whole numbers, less dmin times others; the four lanes that have a block share d and
//              dmin, and products with them come after the others. scale(u): of unit u those numbers, Whole; value(w, g, i, odd):
//              as f16, twice, values 1 3 (odd) or 0 2 of word i of group g, over d; LEAST 0: there is no dmin
//   SAME       so many neighbouring groups of a unit have the same s and m
// W16 .. W1 load weights; K16 what other lanes load too.
#define A16(n) (((n) + 15) / 16 * 16)
// A whole number less `zero`, as f16, twice; n, zero - 1024: 0 .. 1023.
INLINE u32 whole_f16x2(u32 n, u32 zero) { return sub_f16x2(n * 0x10001 + 0x64006400, zero * 0x10001 + 0x64006400); }
#define PLANES(wide, high, wide_end, small, small_end) WIDE = wide, HIGH = high, WIDE_END = wide_end, SMALL = small, SMALL_END = small_end
#define GROUPS(of_unit, of_group)                                       \
        static INLINE_IN u32 first(u32 u) { return of_unit; }           \
        static INLINE_IN u32 step(u32 g) { return of_group; }           \
        static INLINE_IN u32 at(u32 u, u32 g) { return first(u) + step(g); }
#define LOAD template <int K> INLINE_IN void load(const u8 *row, u32 u) { wide<K>(row, u), small<K>(row, u); }
INLINE void nibbles(const U4 &q, u32 g, u32 (&w)[4])
{
        w[0] = q.x >> (4 * g) & 0x0f0f0f0f, w[1] = q.y >> (4 * g) & 0x0f0f0f0f;
        w[2] = q.z >> (4 * g) & 0x0f0f0f0f, w[3] = q.w >> (4 * g) & 0x0f0f0f0f;
}
// Bits 0 .. 15 of h become bit 4 of the 16 codes.
INLINE void fifth_bits(u32 h, u32 (&w)[4])
{
        for (int i = 0; i < 4; i++) {
                u32 b = h >> (4 * i) & 15;
                w[i] |= ((b | b << 7 | b << 14 | b << 21) & 0x01010101) << 4;
        }
}
// Each byte (0 .. 15) replaced by that byte of the table t0 t1 t2 t3.
INLINE void lookup(u32 (&w)[4], u32 t0, u32 t1, u32 t2, u32 t3)
{
        for (int i = 0; i < 4; i++) {
                u32 n = prmt(w[i] | w[i] >> 4, 0, 0x4420); // the four numbers in 16 bits
                u32 low = prmt(t0, t1, n & 0x7777), high = prmt(t2, t3, n & 0x7777);
                w[i] = prmt(low, high, 0x3210 | (n & 0x8888) >> 1);
        }
}
