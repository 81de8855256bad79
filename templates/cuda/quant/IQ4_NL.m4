// IQ4_NL: blocks of 32. d: f16; codes of 4 bits, placed as in Q4_0, name values of a fixed table (ggml: kvalues_iq4nl):
// -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113.
INLINE void iq4(u32 (&w)[4]) { lookup(w, 0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535); }
struct IQ4_NL {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 32, MIN = 0, CENTRE = 128, SAME = 2, LEVELS = 1 };
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
                iq4(w);
                s = f16_f32(d);
                m = 0;
        }
};
