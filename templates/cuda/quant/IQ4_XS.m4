// IQ4_XS: a block of 256 is 8 sub-blocks of 32, coded as IQ4_NL. d: f16; scales of 6 bits: 2 high bits each in a u16, 4 low bits
// each in 4 bytes: d * (scale - 32) * table[code]. A unit: one sub-block.
moe_quant(«IQ4_NL»)
struct IQ4_XS {
        enum { FLOAT = 0, UNIT = 32, BLOCK = 256, MIN = 0, CENTRE = 128, SAME = 2, LEVELS = 1 };
        template <int K> struct At {
                enum { H = A16(K / 256 * 2), L = 2 * H, Q = L + A16(K / 256 * 4), ROW = Q + K / 256 * 128, PLANES(Q, ROW, ROW, 0, Q) };
        };
        U4 q;
        u32 d, high, low;
        template <int K> INLINE_IN void wide(const u8 *row, u32 u) { q = W16(row + At<K>::Q + 16 * u); }
        template <int K, class P> INLINE_IN void small(P row, u32 u)
        {
                u32 b = u / 8;
                d = W2(row + 2 * b);
                high = W2(row + At<K>::H + 2 * b);
                low = W4(row + At<K>::L + 4 * b);
        }
        LOAD
        GROUPS(2 * u, g)
        INLINE_IN void group(u32 u, u32 g, u32 (&w)[4], float &s, float &m) const
        {
                u32 j = u % 8;
                nibbles(q, g, w);
                iq4(w);
                s = f16_f32(d) * (float)((i32)((low >> (4 * j) & 15) | (high >> (2 * j) & 3) << 4) - 32);
                m = 0;
        }
};
