// Q6_K: a block of 256 is 16 groups of 16. Low 4 bits: two sub-blocks in the nibbles of 32 bytes, 64 bytes each half of the
// block; high 2 bits: four sub-blocks in 32 bytes; scales: i8 a group; d: f16: d * scale * (code - 32). A unit: 64 values, of 32
// low bytes.
struct Q6_K {
        enum { FLOAT = 0, UNIT = 64, BLOCK = 256, MIN = 1, CENTRE = 32, SAME = 1, LEVELS = 2 };
        template <int K> struct At {
                enum { H = K / 256 * 128, T = H + K / 256 * 64, D = T + K / 256 * 16, ROW = D + A16(K / 256 * 2), PLANES(0, H, T, T, ROW) };
        };
        U4 q[2], high[2];
        u32 d, t[2];
        template <int K> INLINE_IN void wide(const u8 *row, u32 u)
        {
                for (int h = 0; h < 2; h++) {
                        q[h] = W16(row + 32 * u + 16 * h);
                        high[h] = K16(row + At<K>::H + 32 * (u / 2) + 16 * h);
                }
        }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                for (int h = 0; h < 2; h++)
                        t[h] = W2(row + At<K>::T + at(u, h));
                d = W2(row + At<K>::D + u / 4 * 2);
        }
        LOAD
        // Bits 2 * (u % 2) + 4 n and the next of each byte, as bits 4 and 5.
        static INLINE_IN u32 tops(u32 high, int n, u32 shift) { return (n ? high >> shift : high << (4 - shift)) & 0x30303030; }
        // g: the nibble, then the half of the 32 bytes
        GROUPS(u / 2 * 8 + u % 2 * 2, g % 2 * 4 + g / 2)
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                int n = g % 2, h = g / 2;
                nibbles(q[h], n, w);
                for (int i = 0; i < 4; i++)
                        w[i] |= tops(word(high[h], i), n, 2 * (u % 2));
                s = f16_f32(d) * (float)(i8)(t[n] >> (8 * h));
                m = 32.0f * s;
        }
        enum { LEAST = 0, dmin = 0 };
        struct Whole {
                u32 by[4], shift;
                enum { mins = 0 };
        };
        INLINE_IN Whole scale(u32 u) const
        {
                Whole w = {{}, 2 * (u % 2)};
                for (int g = 0; g < 4; g++)
                        w.by[g] = whole_f16x2((t[g % 2] >> (8 * (g / 2)) & 255) ^ 128, 128);
                return w;
        }
        // code - 32, exactly, times the scale.
        INLINE_IN u32 value(const Whole &w, int g, int i, bool odd, u32 top) const
        {
                int n = g % 2, h = g / 2;
                u32 code = (word(q[h], i) >> (4 * n) & 0x0f0f0f0f) | tops(word(high[h], i), n, w.shift);
                return mul_f16x2(sub_f16x2((code >> (odd ? 8 : 0) & 0x00ff00ff) | top, 0x64206420), w.by[g]);
        }
};
