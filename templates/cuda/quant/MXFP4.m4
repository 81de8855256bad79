// MXFP4: blocks of 32 (OCP Microscaling Formats 1.0). e: a power of two, bias 127; codes of 4 bits, placed as in Q4_0, are E2M1.
// The table holds twice their values, so the scale is 2^(e - 128); below 2^-126 it is a subnormal.
struct MXFP4 {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 32, MIN = 0, CENTRE = 128, SAME = 2, LEVELS = 1 };
        template <int K> struct At { enum { Q = A16(K / 32), ROW = Q + A16(K / 32 * 16), PLANES(Q, ROW, ROW, 0, Q) }; };
        U4 q;
        u32 e;
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u) { e = W1(row + u); }
        LOAD
        GROUPS(2 * u, g)
        INLINE_IN void group(u32, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                nibbles(q, g, w);
                lookup(w, 0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc);
                s = bits_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23);
                m = 0;
        }
};
