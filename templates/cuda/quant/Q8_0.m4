// Q8_0: blocks of 32. d: f16; signed codes.
struct Q8_0 {
        enum { FLOAT = 0, UNIT = 16, BLOCK = 32, MIN = 0, CENTRE = 128, SAME = 1, LEVELS = 1 };
        template <int K> struct At { enum { Q = A16(K / 32 * 2), ROW = Q + K, PLANES(Q, ROW, ROW, 0, Q) }; };
        U4 q;
        u32 d;
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u) { d = W2(row + u / 2 * 2); }
        LOAD
        GROUPS(u, g)
        INLINE_IN void group(u32, u32, u32 (&w)[4], float &s, float &m) const
        {
                w[0] = q.x, w[1] = q.y, w[2] = q.z, w[3] = q.w;
                s = f16_f32(d);
                m = 0;
        }
};
