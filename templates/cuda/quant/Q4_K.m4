// Q4_K: a block of 256 is 8 sub-blocks of 32. d, dmin: f16; scales and minimums of 6 bits in 12 bytes; codes of 4 bits, two
// sub-blocks in the nibbles of 32 bytes. A unit: 64 values, two sub-blocks.
// The scale and minimum of sub-block 2 p + n. t: of the 12 bytes, bytes 2 (p % 2) and the next of each four: for the first four
// sub-blocks whole in the low 6 bits of a byte; else 4 bits in the last four bytes and 2 in the tops of the first eight.
INLINE void numbers_Q4_K(const u32 (&t)[3], u32 p, u32 n, u32 &sc, u32 &mn)
{
        u32 low = p < 2 ? 0x3f3f : 0x0f0f, tops = p < 2 ? 0 : 0x3030;
        sc = (((p < 2 ? t[0] : t[2]) & low) | (t[0] >> 2 & tops)) >> (8 * n) & 255;
        mn = (((p < 2 ? t[1] : t[2] >> 4) & low) | (t[1] >> 2 & tops)) >> (8 * n) & 255;
}
INLINE void scales_Q4_K(u32 d, u32 dmin, const u32 (&t)[3], u32 p, u32 n, float &s, float &m)
{
        u32 sc, mn;
        numbers_Q4_K(t, p, n, sc, mn);
        s = f16_f32(d) * (float)sc;
        m = f16_f32(dmin) * (float)mn;
}
struct Q4_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 8, SAME = 2, LEVELS = 2 };
        template <int K> struct At {
                enum { M = A16(K / 256 * 2), T = 2 * M, Q = T + A16(K / 256 * 12), ROW = Q + K / 256 * 128, PLANES(Q, ROW, ROW, 0, Q) };
        };
        U4 q[2];
        u32 d, dmin, t[3];
        template <int K> INLINE_IN void wide(const u8 *row, u32 u)
        {
                for (int h = 0; h < 2; h++)
                        q[h] = W16(row + At<K>::Q + 32 * u + 16 * h);
        }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                u32 b = u / 4;
                d = W2(row + 2 * b);
                dmin = W2(row + At<K>::M + 2 * b);
                for (int i = 0; i < 3; i++)
                        t[i] = W2(row + At<K>::T + 12 * b + 4 * i + 2 * (u % 2));
        }
        LOAD
        GROUPS(4 * u, g)
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q[g % 2], g / 2, w);
                scales_Q4_K(d, dmin, t, u % 4, g / 2, s, m);
        }
        // Of both sub-blocks: a code in the low or the high half of a byte is 1024 + code or 1024 + 16 code as f16, so that one
        // multiply-add by `by` and `less` leaves code * scale, exactly. mins: of both.
        enum { LEAST = 1 };
        struct Whole {
                u32 by[2], less[2], mins;
        };
        INLINE_IN Whole scale(u32 u) const
        {
                u32 sc[2], mn[2];
                for (u32 n = 0; n < 2; n++)
                        numbers_Q4_K(t, u % 4, n, sc[n], mn[n]);
                u32 low = whole_f16x2(sc[0], 0), high = whole_f16x2(sc[1], 0);
                return {{low, mul_f16x2(high, 0x2c002c00)}, {mul_f16x2(low, 0xe400e400), mul_f16x2(high, 0xd400d400)}, sub_f16x2((mn[0] | mn[1] << 16) + 0x64006400, 0x64006400)};
        }
        INLINE_IN u32 value(const Whole &w, int g, int i, bool odd, u32 top) const
        {
                u32 codes = word(q[g % 2], i) >> (odd ? 8 : 0);
                return fma_f16x2((codes & (g / 2 ? 0x00f000f0 : 0x000f000f)) | top, w.by[g / 2], w.less[g / 2]);
        }
};
