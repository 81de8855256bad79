// Q5_K: Q4_K with a fifth bit: bit j of 32 bytes for sub-block j.
moe_quant(«Q4_K»)
struct Q5_K {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 256, MIN = 1 };
        template <int K> struct At {
                enum { M = A16(K / 256 * 2), T = 2 * M, H = T + A16(K / 256 * 12), Q = H + K / 256 * 32, ROW = Q + K / 256 * 128 };
        };
        U4 q, high;
        u32 d, dmin, t[3];
        template <int K> INLINE_IN void load(const u8 *row, int u)
        {
                int b = u / 8;
                q = W16(row + At<K>::Q + 16 * u);
                high = K16(row + At<K>::H + 32 * b + 16 * (u % 2));
                d = W2(row + 2 * b);
                dmin = W2(row + At<K>::M + 2 * b);
                for (int i = 0; i < 3; i++)
                        t[i] = W4(row + At<K>::T + 12 * b + 4 * i);
        }
        static INLINE_IN int at(int u, int g) { return u / 2 * 4 + 2 * g + u % 2; }
        INLINE_IN void group(int u, int g, u32 (&w)[4], float &s, float &m) const
        {
                int p = u / 2 % 4;
                nibbles(q, g, w);
                for (int i = 0; i < 4; i++)
                        w[i] |= (word(high, i) >> (2 * p + g) & 0x01010101) << 4;
                scales_Q4_K(d, dmin, t, p, g, s, m);
        }
};
