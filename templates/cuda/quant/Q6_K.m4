// Q6_K: a block of 256 is 16 groups of 16. Low 4 bits: two sub-blocks in the nibbles of 32 bytes, 64 bytes each half of the
// block; high 2 bits: four sub-blocks in 32 bytes; scales: i8 a group; d: f16: d * scale * (code - 32). A unit: 16 low bytes.
struct Q6_K {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 256, MIN = 1 };
        template <int K> struct At {
                enum { H = K / 256 * 128, T = H + K / 256 * 64, D = T + K / 256 * 16, ROW = D + A16(K / 256 * 2) };
        };
        U4 q, high;
        u32 d, t[2];
        template <int K> INLINE_IN void load(const u8 *row, int u)
        {
                int b = u / 8;
                q = W16(row + 16 * u);
                high = K16(row + At<K>::H + 64 * b + 32 * (u / 4 % 2) + 16 * (u % 2));
                d = W2(row + At<K>::D + 2 * b);
                for (int g = 0; g < 2; g++)
                        t[g] = W1(row + At<K>::T + at(u, g));
        }
        static INLINE_IN int at(int u, int g) { return u / 4 * 8 + 2 * (u / 2 % 2 + 2 * g) + u % 2; }
        INLINE_IN void group(int u, int g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q, g, w);
                for (int i = 0; i < 4; i++)
                        w[i] |= (word(high, i) >> (2 * (u / 2 % 2) + 4 * g) & 0x03030303) << 4;
                s = f16_f32(d) * (float)(i8)t[g];
                m = 32.0f * s;
        }
};
