// Q4_K: a block of 256 is 8 sub-blocks of 32. d, dmin: f16; scales and minimums of 6 bits in 12 bytes; codes of 4 bits, two
// sub-blocks in the nibbles of 32 bytes. A unit: 64 values, two sub-blocks.
// The scale and minimum of sub-block 2 p + n. t: of the 12 bytes, bytes 2 (p % 2) and the next of each four: for the first four
// sub-blocks whole in the low 6 bits of a byte; else 4 bits in the last four bytes and 2 in the tops of the first eight.
INLINE void scales_Q4_K(u32 d, u32 dmin, const u32 (&t)[3], u32 p, u32 n, float &s, float &m)
{
        u32 low = p < 2 ? 0x3f3f : 0x0f0f, tops = p < 2 ? 0 : 0x3030;
        u32 sc = ((p < 2 ? t[0] : t[2]) & low) | (t[0] >> 2 & tops);
        u32 mn = ((p < 2 ? t[1] : t[2] >> 4) & low) | (t[1] >> 2 & tops);
        s = f16_f32(d) * (float)(sc >> (8 * n) & 255);
        m = f16_f32(dmin) * (float)(mn >> (8 * n) & 255);
}
struct Q4_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 8, SAME = 2 };
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
        static INLINE_IN u32 at(u32 u, u32 g) { return 4 * u + g; }
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q[g % 2], g / 2, w);
                scales_Q4_K(d, dmin, t, u % 4, g / 2, s, m);
        }
};
