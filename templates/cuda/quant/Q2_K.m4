// Q2_K: a block of 256 is 16 groups of 16. Scale and minimum of 4 bits in a byte a group; codes of 2 bits, four sub-blocks of 32
// in the same 32 bytes; d, dmin: f16. A unit: 16 bytes of codes, half of each of four sub-blocks.
struct Q2_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 2, SAME = 1, LEVELS = 1 };
        template <int K> struct At {
                enum { Q = K / 256 * 16, D = Q + K / 256 * 64, M = D + A16(K / 256 * 2), ROW = M + A16(K / 256 * 2), PLANES(Q, D, D, 0, 0) };
        };
        U4 q;
        u32 d, dmin, t[2];
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                u32 b = u / 4;
                for (int i = 0; i < 2; i++)
                        t[i] = W4(row + 16 * b + 8 * (u / 2 % 2) + 4 * i);
                d = W2(row + At<K>::D + 2 * b);
                dmin = W2(row + At<K>::M + 2 * b);
        }
        LOAD
        GROUPS(u / 2 * 8 + u % 2, 2 * g)
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                u32 c = t[g / 2] >> (16 * (g % 2) + 8 * (u % 2)) & 255;
                for (int i = 0; i < 4; i++)
                        w[i] = word(q, i) >> (2 * g) & 0x03030303;
                s = f16_f32(d) * (float)(c & 15);
                m = f16_f32(dmin) * (float)(c >> 4);
        }
};
