// Q4_0: blocks of 32. d: f16; codes 0 .. 15 of d * (code - 8), value i in the low nibble of byte i, i + 16 in the high one.
struct Q4_0 {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 32, MIN = 1, CENTRE = 8, SAME = 2, LEVELS = 1 };
        template <int K> struct At { enum { Q = A16(K / 32 * 2), ROW = Q + A16(K / 32 * 16), PLANES(Q, ROW, ROW, 0, Q) }; };
        U4 q;
        u32 d;
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u) { d = W2(row + 2 * u); }
        LOAD
        GROUPS(2 * u, g)
        INLINE_IN void group(u32, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q, g, w);
                s = f16_f32(d);
                m = 8.0f * s;
        }
};
