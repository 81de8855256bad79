// Q5_0: blocks of 32. d: f16; the codes' fifth bits, bit i for value i; low bits as in Q4_0: d * (code - 16).
struct Q5_0 {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 32, MIN = 1, CENTRE = 16, SAME = 2, LEVELS = 1 };
        template <int K> struct At { enum { H = A16(K / 32 * 2), Q = H + A16(K / 32 * 4), ROW = Q + A16(K / 32 * 16), PLANES(Q, ROW, ROW, 0, Q) }; };
        U4 q;
        u32 d, high;
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                high = W4(row + At<K>::H + 4 * u);
                d = W2(row + 2 * u);
        }
        LOAD
        GROUPS(2 * u, g)
        INLINE_IN void group(u32, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q, g, w);
                fifth_bits(high >> (16 * g), w);
                s = f16_f32(d);
                m = 16.0f * s;
        }
};
