// Q5_K: Q4_K with a fifth bit: bit j of 32 bytes for sub-block j.
moe_quant(«Q4_K»)
struct Q5_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 16, SAME = 2, LEVELS = 1 };
        template <int K> struct At {
                enum { M = A16(K / 256 * 2), T = 2 * M, H = T + A16(K / 256 * 12), Q = H + K / 256 * 32, ROW = Q + K / 256 * 128, PLANES(H, Q, ROW, 0, H) };
        };
        U4 q[2], high[2];
        u32 d, dmin, t[3];
        template <int K> INLINE_IN void wide(const u8 *row, u32 u)
        {
                for (int h = 0; h < 2; h++) {
                        q[h] = W16(row + At<K>::Q + 32 * u + 16 * h);
                        high[h] = K16(row + At<K>::H + 32 * (u / 4) + 16 * h);
                }
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
                for (int i = 0; i < 4; i++)
                        w[i] |= (word(high[g % 2], i) >> (2 * (u % 4) + g / 2) & 0x01010101) << 4;
                scales_Q4_K(d, dmin, t, u % 4, g / 2, s, m);
        }
};
