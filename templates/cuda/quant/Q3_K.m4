// Q3_K: a block of 256 is 16 groups of 16. Third bits: bit j of 32 bytes for sub-block j; low 2 bits as in Q2_K; 16 scales of 6
// bits in 12 bytes (low nibbles of 0-7, high nibbles of 0-7, then 2 bits each); d: f16: d * (scale - 32) * (code - 4).
struct Q3_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 4, SAME = 1, LEVELS = 1 };
        template <int K> struct At {
                enum { Q = K / 256 * 32, T = Q + K / 256 * 64, D = T + A16(K / 256 * 12), ROW = D + A16(K / 256 * 2), PLANES(0, Q, T, T, ROW) };
        };
        U4 q, high;
        u32 d, t[3];
        template <int K> INLINE_IN void wide(const u8 *row, u32 u)
        {
                q = W16(row + At<K>::Q + 16 * u);
                high = K16(row + 32 * (u / 4) + 16 * (u % 2));
        }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                u32 b = u / 4;
                d = W2(row + At<K>::D + 2 * b);
                for (int i = 0; i < 3; i++)
                        t[i] = W4(row + At<K>::T + 12 * b + 4 * i);
        }
        LOAD
        GROUPS(u / 2 * 8 + u % 2, 2 * g)
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                int n = u / 2 % 2, i = 8 * n + 2 * g + u % 2; // the group in its block
                u32 low = t[g / 2] >> (8 * (i % 4) + 4 * n) & 15, top = t[2] >> (8 * (i % 4) + 2 * (i / 4)) & 3;
                for (int k = 0; k < 4; k++)
                        w[k] = (word(q, k) >> (2 * g) & 0x03030303) | (word(high, k) >> (4 * n + g) & 0x01010101) << 2;
                s = f16_f32(d) * (float)((i32)(low | top << 4) - 32);
                m = 4.0f * s;
        }
};
