// F16: a value stands alone.
struct F16 {
        enum { FLOAT = 1, UNIT = 8, BLOCK = 1 };
        template <int K> struct At { enum { ROW = A16(2 * K) }; };
        U4 q;
        template <int K> INLINE_IN void load(const u8 *row, u32 u) { q = W16(row + 16 * u); }
        INLINE_IN float value(int i) const { return f16_f32(word(q, i / 2) >> (16 * (i % 2)) & 0xffff); }
};
